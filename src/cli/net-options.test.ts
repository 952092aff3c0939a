import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIp } from '../network/address.ts';
import type { NetdevConfig, NetworkConfig, UserPlan } from '../machine/network-config.ts';
import { parseCommandLine } from './command-line.ts';

const parse = (...args: string[]) => parseCommandLine(['-kernel', 'k', ...args]);
const network = (...args: string[]): NetworkConfig => parse(...args).network;
const netdev = (text: string): NetdevConfig => network('-netdev', text).netdevs[0]!;
const plan = (text: string): UserPlan => (netdev(`user,id=a,${text}`) as NetdevConfig & { type: 'user' }).plan;
const refuses = (text: string, why: RegExp): void => assert.throws(() => parse('-netdev', text), why, text);
const mac = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('a machine has a card on a user network, unless it is told otherwise', () => {
  const { netdevs, nics } = network();
  assert.deepEqual(
    netdevs.map(({ type }) => type),
    ['user'],
  );
  assert.deepEqual([nics[0]!.model, nics[0]!.netdev, mac(nics[0]!.mac)], ['e1000', netdevs[0]!.id, '525400123456']);
  for (const args of [['-nodefaults'], ['-nic', 'none'], ['-net', 'none'], ['-netdev', 'user,id=a']]) {
    assert.equal(network(...args).nics.length, 0, args.join(' '));
  }
  assert.equal(network('-nic', 'user,model=ne2k_isa').nics[0]!.model, 'ne2k_isa');
});

test("QEMU's defaults of a user network", () => {
  const { ipv4, ipv6, restrict } = plan('restrict=off');
  assert.deepEqual([ipv4!.network, ipv4!.host, ipv4!.dns, ipv4!.dhcpStart].map(formatIp), [
    '10.0.2.0',
    '10.0.2.2',
    '10.0.2.3',
    '10.0.2.15',
  ]);
  assert.deepEqual([ipv6!.network, ipv6!.host, ipv6!.dns].map(formatIp), ['fec0::', 'fec0::2', 'fec0::3']);
  assert.deepEqual([ipv4!.prefix, ipv6!.prefix, restrict], [24, 64, false]);
});

test('addresses follow the network that is given, and must lie in it', () => {
  const { ipv4 } = plan('net=192.168.76.0/24,dhcpstart=192.168.76.9');
  assert.deepEqual([ipv4!.host, ipv4!.dns, ipv4!.dhcpStart].map(formatIp), ['192.168.76.2', '192.168.76.3', '192.168.76.9']);
  assert.equal(plan('net=10.0.0.0/255.255.0.0').ipv4!.prefix, 16);
  assert.equal(plan('net=172.20.0.0').ipv4!.prefix, 12);
  assert.equal(formatIp(plan('ipv6-net=fd00:1::/96').ipv6!.host), 'fd00:1::2');
  assert.equal(plan('ipv6=off').ipv6, null);
  assert.equal(plan('ipv6=on').ipv4, null);
  refuses('user,id=a,host=1.2.3.4', /Host doesn't belong to network/);
  refuses('user,id=a,net=10.0.0.0/30', /DHCP must be different from host and DNS/);
  refuses('user,id=a,net=foo', /Failed to parse netmask/);
  refuses('user,id=a,net=10.0.0.0/33', /Invalid netmask provided/);
  refuses('user,id=a,dns=10.0.2.2', /DNS must be different from host/);
  refuses('user,id=a,ipv4=off,ipv6=off', /IPv4 and IPv6 disabled/);
  refuses('user,id=a,ipv6-prefixlen=200', /must be between 0 and 126/);
});

test('host forwarding rules', () => {
  const { hostForwards } = plan('hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:53-10.0.2.20:53,hostfwd=unix:/s-k-:80');
  assert.deepEqual(hostForwards, [
    { protocol: 'tcp', at: { address: '0.0.0.0', port: 2222 }, guest: null, port: 22 },
    { protocol: 'udp', at: { address: '127.0.0.1', port: 53 }, guest: Uint8Array.of(10, 0, 2, 20), port: 53 },
    { protocol: 'tcp', at: { path: '/s-k' }, guest: null, port: 80 },
  ]);
  assert.deepEqual(plan('hostfwd=tcp:[::1]:80-[fec0::15]:80').hostForwards[0]!.at, { address: '::1', port: 80 });
  const bad: Record<string, string> = {
    x: 'No : separators',
    'sctp::80-:80': 'Bad protocol name',
    'tcp::80': 'Bad host port separator',
    'tcp::99999-:80': 'Bad host port',
    'tcp:1.2.3.400:80-:80': 'Bad host address',
    'tcp::0-:0': 'Bad guest port',
    'tcp::1-x:3': 'Bad guest address',
    'tcp::1-10.0.2.15': 'Missing guest address',
  };
  for (const [rule, why] of Object.entries(bad)) {
    const pattern = `Invalid host forwarding rule '${rule}' (${why})`;
    assert.throws(() => parse('-nic', `user,hostfwd=${rule}`), { message: `-nic user,hostfwd=${rule}: ${pattern}` });
  }
});

test('guest forwarding rules', () => {
  const { guestForwards } = plan('guestfwd=tcp:10.0.2.100:80-cmd:cat -n,guestfwd=:10.0.2.101:81-tcp:127.0.0.1:8081');
  assert.deepEqual(
    guestForwards.map(({ address, port, to }) => [formatIp(address), port, to]),
    [
      ['10.0.2.100', 80, { command: 'cat -n' }],
      ['10.0.2.101', 81, { address: '127.0.0.1', port: 8081 }],
    ],
  );
  refuses('user,id=a,guestfwd=tcp:1.2.3.4:80-cmd:x', /Conflicting\/invalid host:port in guest forwarding rule/);
  refuses('user,id=a,guestfwd=tcp:10.0.2.2:80-cmd:x', /Conflicting\/invalid host:port in guest forwarding rule/);
  refuses('user,id=a,guestfwd=x', /Invalid guest forwarding rule 'x'/);
});

test('options as management writes them: JSON', () => {
  const text =
    '{"type":"user","id":"hostnet0","hostfwd":[{"str":"tcp::2222-:22"}],"dnssearch":[{"str":"a"},{"str":"b"}],"ipv6":false}';
  const one = netdev(text) as NetdevConfig & { type: 'user' };
  assert.equal(one.id, 'hostnet0');
  assert.deepEqual([one.plan.ipv6, one.plan.dnsSearch, one.plan.hostForwards.length], [null, ['a', 'b'], 1]);
  assert.deepEqual(netdev('{"type":"stream","id":"s","server":false,"addr":{"type":"unix","path":"/s"},"reconnect":5}'), {
    id: 's',
    type: 'stream',
    server: false,
    at: { path: '/s' },
    reconnect: 5,
  });
});

test('sockets, streams and datagrams', () => {
  assert.deepEqual(netdev('socket,id=s,listen=:1234'), {
    id: 's',
    type: 'stream',
    server: true,
    at: { address: '0.0.0.0', port: 1234 },
    reconnect: 0,
  });
  assert.deepEqual(netdev('socket,id=s,mcast=230.0.0.1:1234,localaddr=127.0.0.1'), {
    id: 's',
    type: 'dgram',
    local: { address: '127.0.0.1', port: 0 },
    remote: { address: '230.0.0.1', port: 1234 },
    multicast: true,
  });
  const dgram =
    'dgram,id=s,local.type=inet,local.host=127.0.0.1,local.port=1,remote.type=inet,remote.host=127.0.0.1,remote.port=2';
  assert.deepEqual(netdev(dgram), {
    id: 's',
    type: 'dgram',
    local: { address: '127.0.0.1', port: 1 },
    remote: { address: '127.0.0.1', port: 2 },
    multicast: false,
  });
  refuses('socket,id=s', /exactly one of listen=, connect=, mcast= or udp= is required/);
  refuses('socket,id=s,udp=127.0.0.1:99', /localaddr= is mandatory with udp=/);
  refuses('socket,id=s,mcast=1.2.3.4:99', /does not contain a multicast address/);
  refuses('socket,id=s,listen=foo', /doesn't contain ':' separating host from port/);
  refuses('stream,id=s', /Parameter 'addr' is missing/);
  refuses('stream,id=s,addr.type=inet,addr.host=127.0.0.1', /Parameter 'addr.port' is missing/);
  refuses('dgram,id=s', /dgram requires local= parameter/);
});

test('cards: models, addresses, the network they are on', () => {
  const { network: known, devices } = parse(
    ...['-netdev', 'user,id=a'],
    ...['-device', '{"driver":"virtio-net-pci","netdev":"a","mac":"52:54:00:aa:bb:cc","id":"n0","mq":true,"addr":"0x5"}'],
    ...['-nic', 'user,model=virtio', '-nic', 'user,model=e1000'],
  );
  assert.deepEqual(
    known.nics.map(({ model, mac: address }) => [model, mac(address)]),
    [
      ['virtio-net-pci', '525400123457'],
      ['e1000', '525400123458'],
    ],
  );
  const { mac: address, ...card } = devices[0]!.config;
  assert.deepEqual(card, { driver: 'virtio-net-pci', id: 'n0', netdev: 'a', mq: 'on', addr: '0x5' });
  assert.equal(mac(address as Uint8Array), '525400aabbcc');
  const bad = (args: string[], message: string): void => assert.throws(() => parse(...args), { message });
  bad(['-nic', 'user,model=foo'], '-nic user,model=foo: Unsupported NIC model: foo');
  bad(['-nic', 'user,mac=zz'], '-nic user,mac=zz: invalid syntax for ethernet address');
  bad(
    ['-net', 'nic,macaddr=01:00:00:00:00:00'],
    '-net nic,macaddr=01:00:00:00:00:00: NIC cannot have multicast MAC address (odd 1st byte)',
  );
  bad(['-device', 'e1000,netdev=zz'], "-device e1000,netdev=zz: Property 'e1000.netdev' can't find value 'zz'");
  bad(
    ['-netdev', 'user,id=a', '-device', 'e1000,netdev=a', '-device', 'e1000,netdev=a'],
    "-device e1000,netdev=a: Property 'e1000.netdev' can't take value 'a', it's in use",
  );
});

test('names of networks', () => {
  refuses('user', /^Error: -netdev user: Parameter 'id' is missing$/);
  refuses('foo,id=x', /Parameter 'type' does not accept value 'foo'/);
  refuses('user,id=1a', /Parameter 'id' expects an identifier/);
  refuses('user,id=a,bogus=1', /Invalid parameter 'bogus'/);
  assert.throws(() => parse('-netdev', 'user,id=a', '-netdev', 'user,id=a'), /Duplicate ID 'a' for netdev/);
  assert.deepEqual(parse('-netdev', 'user,id=a').warnings, ['netdev a has no peer']);
});

test('the old way: one hub for all, which is a cable when there are two', () => {
  const two = network('-net', 'nic,model=virtio', '-net', 'user,hostfwd=tcp::1-:2');
  assert.deepEqual(
    two.netdevs.map(({ type }) => type),
    ['user'],
  );
  assert.equal(two.nics[0]!.netdev, two.netdevs[0]!.id);
  const three = network('-net', 'nic', '-net', 'nic', '-net', 'user');
  assert.deepEqual(three.netdevs.map(({ type }) => type).sort(), ['hubport', 'hubport', 'hubport', 'user']);
  assert.deepEqual(
    three.nics.map(({ netdev: id }) => id),
    ['hub0port0', 'hub0port1'],
  );
});

test('dumps and TAP interfaces', () => {
  const { dumps } = network('-netdev', 'user,id=a', '-object', 'filter-dump,id=f,netdev=a,file=/x,,y,maxlen=96');
  assert.deepEqual(dumps, [{ id: 'f', netdev: 'a', file: '/x,y', maxLength: 96 }]);
  assert.throws(() => parse('-object', 'filter-dump,id=f,netdev=a,file=x'), /expects a network backend id/);
  assert.throws(() => parse('-object', 'filter-dump,id=f'), /Parameter 'netdev' is missing/);
  const tap = { id: 't', type: 'tap', ifname: null, fd: null, headers: true, script: null, downScript: null };
  assert.deepEqual(netdev('tap,id=t,ifname=tap7,script=no,downscript='), { ...tap, ifname: 'tap7' });
  assert.deepEqual(netdev('tap,id=t,fd=7,vhost=on'), { ...tap, fd: 7 });
  assert.deepEqual(netdev('tap,id=t,ifname=x,script=/s,vnet_hdr=off'), {
    ...tap,
    ifname: 'x',
    headers: false,
    script: '/s',
    downScript: '/etc/qemu-ifdown',
  });
  refuses('tap,id=t,fd=7,script=no', /are invalid with fd=/);
});

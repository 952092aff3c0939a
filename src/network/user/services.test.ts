import { network } from '#host';
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { HostNetwork } from '../../host/network.ts';
import { GSO_UDP_DATAGRAMS } from '../../machine/interfaces.ts';
import { formatIp } from '../address.ts';
import { addBytes, finish } from '../checksum.ts';
import { flowsText } from './flows.ts';
import { get16, get32, put16, TYPE_ARP } from '../layout.ts';
import {
  DEFAULT_PLAN,
  GATEWAY,
  GATEWAY6,
  GUEST,
  GUEST6,
  GUEST_MAC,
  intact,
  ip,
  packet,
  type Seen,
  userNetwork,
} from '../test-kit.ts';

const text = (bytes: Uint8Array): string => new TextDecoder('latin1').decode(bytes);
const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
const isUdp = (port: number) => (seen: Seen) => seen.protocol === 17 && get16(seen.payload, 0) === port;

/** The options of a DHCP reply. */
function options(reply: Seen): Map<number, Uint8Array> {
  const data = reply.payload.subarray(8);
  const found = new Map<number, Uint8Array>();
  for (let at = 240; data[at] !== 255; at += 2 + data[at + 1]!) found.set(data[at]!, data.slice(at + 2, at + 2 + data[at + 1]!));
  return found;
}

function dhcpRequest(type: number, extra: number[] = []): Uint8Array {
  const data = new Uint8Array(300);
  data.set([1, 1, 6, 0, 1, 2, 3, 4]);
  data.set(GUEST_MAC, 28);
  data.set([0x63, 0x82, 0x53, 0x63, 53, 1, type, ...extra, 255], 236);
  return data;
}

const BROADCAST = ip('255.255.255.255');
const NOBODY = ip('0.0.0.0');

test('ARP answers for the gateway and the name server and nobody else', () => {
  using net = userNetwork();
  for (const address of ['10.0.2.2', '10.0.2.3', '10.0.2.4', '10.0.2.15']) net.guest.arp(ip(address));
  const replies = net.guest.seen.filter(({ type }) => type === TYPE_ARP);
  assert.deepEqual(
    replies.map(({ payload }) => [formatIp(payload.subarray(14, 18)), [...payload.subarray(8, 14)]]),
    [
      ['10.0.2.2', [0x52, 0x55, 10, 0, 2, 2]],
      ['10.0.2.3', [0x52, 0x55, 10, 0, 2, 3]],
    ],
  );
});

test('DHCP: an offer with all that was configured, an address confirmed, a strange one refused', () => {
  using net = userNetwork({
    hostname: 'box',
    domainName: 'lan.test',
    dnsSearch: ['a.test'],
    bootFile: 'pxe.0',
    tftpServerName: 't',
  });
  net.guest.udp(BROADCAST, 68, 67, dhcpRequest(1), NOBODY);
  const [offer] = net.guest.seen;
  assert.ok(offer && intact(offer));
  assert.equal(offer.destination, '255.255.255.255');
  assert.equal(formatIp(offer.payload.subarray(8 + 16, 8 + 20)), '10.0.2.15');
  assert.match(text(offer.payload.subarray(8 + 108, 8 + 114)), /^pxe\.0\0/);
  const told = options(offer);
  assert.equal(told.get(53)![0], 2);
  assert.deepEqual([...told.get(1)!], [255, 255, 255, 0]);
  assert.deepEqual(
    [formatIp(told.get(3)!), formatIp(told.get(6)!), formatIp(told.get(54)!)],
    ['10.0.2.2', '10.0.2.3', '10.0.2.2'],
  );
  assert.equal(get32(told.get(51)!, 0), 86400);
  assert.deepEqual([text(told.get(12)!), text(told.get(15)!), text(told.get(66)!)], ['box', 'lan.test', 't']);
  assert.equal(text(told.get(119)!), '\x01a\x04test\0');

  net.guest.udp(BROADCAST, 68, 67, dhcpRequest(3, [50, 4, ...GUEST]), NOBODY);
  assert.equal(options(net.guest.seen[1]!).get(53)![0], 5);
  net.guest.udp(BROADCAST, 68, 67, dhcpRequest(3, [50, 4, 10, 0, 2, 77]), NOBODY);
  assert.equal(options(net.guest.seen[2]!).get(53)![0], 6);
});

test('DHCP tells a guest that is shut off of no way out', () => {
  using net = userNetwork({ restrict: true });
  net.guest.udp(BROADCAST, 68, 67, dhcpRequest(1), NOBODY);
  const told = options(net.guest.seen[0]!);
  assert.deepEqual([told.has(3), told.has(6), told.has(1)], [false, false, true]);
});

test('echo requests to gateway and name server are answered, over both IPs', () => {
  using net = userNetwork();
  const request = Uint8Array.of(8, 0, 0, 0, 0, 7, 0, 1, 104, 105);
  for (const to of ['10.0.2.2', '10.0.2.3']) net.guest.send(GUEST, ip(to), 1, request, 2);
  assert.deepEqual(
    net.guest.seen.map((seen) => [seen.source, seen.payload[0], text(seen.payload.subarray(8)), intact(seen)]),
    [
      ['10.0.2.2', 0, 'hi', true],
      ['10.0.2.3', 0, 'hi', true],
    ],
  );
  net.guest.seen.length = 0;
  net.guest.send(GUEST6, GATEWAY6, 58, Uint8Array.of(128, ...request.subarray(1)), 2);
  assert.deepEqual(
    net.guest.seen.map((seen) => [seen.source, seen.payload[0], intact(seen)]),
    [['fec0::2', 129, true]],
  );
});

test('router advertisements name prefix and name server; neighbours are answered', () => {
  using net = userNetwork();
  const local = ip('fe80::5054:ff:fe12:3456');
  net.guest.send(local, ip('ff02::2'), 58, Uint8Array.of(133, 0, 0, 0, 0, 0, 0, 0), 2, null, 255);
  const [advertisement] = net.guest.seen;
  assert.ok(advertisement && intact(advertisement));
  assert.deepEqual([advertisement.source, advertisement.payload[0], advertisement.frame[21]], ['fe80::2', 134, 255]);
  const { payload } = advertisement;
  assert.equal(formatIp(payload.subarray(40, 56)), 'fec0::');
  assert.equal(formatIp(payload.subarray(64, 80)), 'fec0::3');

  net.guest.send(local, ip('ff02::1:ff00:2'), 58, Uint8Array.of(135, 0, 0, 0, 0, 0, 0, 0, ...ip('fe80::2')), 2, null, 255);
  const answer = net.guest.seen[1]!;
  assert.deepEqual([answer.payload[0], [...answer.payload.subarray(26, 32)]], [136, [0x52, 0x56, 0, 0, 0, 2]]);
  // From beyond the link nothing is believed.
  net.guest.send(local, ip('ff02::1:ff00:2'), 58, Uint8Array.of(135, 0, 0, 0, 0, 0, 0, 0, ...ip('fe80::2')), 2, null, 64);
  assert.equal(net.guest.seen.length, 2);
});

test('DHCPv6 gives name server and boot file to whoever asks for information', () => {
  using net = userNetwork({ bootFile: 'a/b' });
  const local = ip('fe80::5054:ff:fe12:3456');
  const request = Uint8Array.of(11, 1, 2, 3, 0, 1, 0, 2, 9, 9);
  net.guest.sendFrame(new Uint8Array(0));
  net.guest.udp(ip('ff02::1:2'), 546, 547, request, local);
  const reply = net.guest.seen.find(isUdp(547))!;
  assert.ok(intact(reply));
  const body = reply.payload.subarray(8);
  assert.deepEqual([...body.subarray(0, 10)], [7, 1, 2, 3, 0, 1, 0, 2, 9, 9]);
  assert.ok(text(body).includes('tftp://[fec0::2]/a/b'));
  assert.ok(Buffer.from(body).includes(Buffer.from([0, 23, 0, 16, ...ip('fec0::3')])));
});

test("UDP to the gateway reaches the host's own ports and comes back; long datagrams come in fragments", async () => {
  using net = userNetwork();
  const server = createSocket('udp4');
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  server.on('message', (data, { port }) => server.send(Buffer.concat([data, Buffer.alloc(4000, 1)]), port, '127.0.0.1'));
  const { port } = server.address();
  net.guest.udp(GATEWAY, 4000, port, bytes('hello'));
  const last = await net.guest.next((seen) => seen.protocol === 17 && (get16(seen.frame, 20) & 0x2000) === 0);
  const pieces = net.guest.seen.filter(({ protocol }) => protocol === 17);
  assert.equal(pieces.length, 3);
  assert.equal(pieces.at(-1), last);
  const whole = Buffer.concat(pieces.map(({ payload }) => payload));
  assert.equal(whole.length, 8 + 4005);
  assert.deepEqual([last.source, last.destination, get16(whole, 0), get16(whole, 2)], ['10.0.2.2', '10.0.2.15', port, 4000]);
  assert.equal(text(whole.subarray(8, 13)), 'hello');
  server.close();
});

test('fragments of the guest are put together, and overlapping ones dropped', async () => {
  using net = userNetwork();
  const server = createSocket('udp4');
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  const datagram = new Uint8Array(8 + 3000).fill(7);
  datagram.set([0x0f, 0xa0, port >> 8, port & 255, datagram.length >> 8, datagram.length & 255, 0, 0]);
  const fragment = (id: number, from: number, to: number, more: boolean): void => {
    const frame = packet(GUEST, GATEWAY, 17, datagram.subarray(from, to));
    put16(frame, 18, id);
    put16(frame, 20, (from >> 3) | (more ? 0x2000 : 0));
    put16(frame, 24, 0);
    put16(frame, 24, finish(addBytes(0, frame, 14, 34)));
    net.guest.sendFrame(frame);
  };
  fragment(1, 0, 1480, true);
  fragment(1, 1472, datagram.length, false);
  fragment(2, 1480, 2960, true);
  fragment(2, 2960, datagram.length, false);
  fragment(2, 0, 1480, true);
  const [data] = (await once(server, 'message')) as [Buffer];
  assert.equal(data.length, 3000);
  server.close();
});

test('a closed port of the host is told to the guest', async () => {
  using net = userNetwork();
  const server = createSocket('udp4');
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  net.guest.udp(GATEWAY, 4001, port, bytes('x'));
  const error = await net.guest.next(({ protocol }) => protocol === 1);
  assert.deepEqual([error.payload[0], error.payload[1]], [3, 3]);
  assert.equal(get16(error.payload, 8 + 20 + 2), port);
});

test('addresses within the network that nobody has are unreachable; forbidden ones get no answer', () => {
  using net = userNetwork();
  net.guest.udp(ip('10.0.2.77'), 4000, 9, bytes('x'));
  assert.deepEqual([net.guest.seen[0]!.payload[0], net.guest.seen[0]!.payload[1]], [3, 1]);
  for (const to of ['127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255', '10.0.2.255'])
    net.guest.udp(ip(to), 4000, 9, bytes('x'));
  for (const to of ['::1', '::ffff:127.0.0.1', '::']) net.guest.udp(ip(to), 4000, 9, bytes('x'));
  assert.equal(net.guest.seen.length, 1);
});

test("what guests on a hub say to each other is none of the network's business", () => {
  using net = userNetwork();
  const frame = packet(GUEST, ip('10.0.2.16'), 17, Uint8Array.of(0, 9, 0, 9, 0, 8, 0, 0));
  frame.set([0x52, 0x54, 0, 1, 2, 3]);
  net.guest.sendFrame(frame);
  assert.equal(net.guest.seen.length, 0);
});

test('TFTP serves its folder, block by block, and nothing outside', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'virelay-tftp-'));
  const outside = mkdtempSync(join(tmpdir(), 'virelay-tftp-'));
  try {
    const data = Buffer.from(Array.from({ length: 2000 }, (_, i) => i % 251));
    writeFileSync(join(folder, 'boot.img'), data);
    writeFileSync(join(outside, 'secret'), 'x');
    symlinkSync(join(outside, 'secret'), join(folder, 'link'));
    using net = userNetwork({ tftp: folder });
    const request = (name: string, rest = ''): Uint8Array => bytes(`\0\x01${name}\0octet\0${rest}`);
    net.guest.udp(GATEWAY, 2000, 69, request('boot.img', 'tsize\x000\0blksize\x001400\0'));
    assert.equal(text(net.guest.seen[0]!.payload.subarray(8)), '\0\x06tsize\x002000\0blksize\x001400\0');
    const got: Uint8Array[] = [];
    for (let block = 0; block < 2; block++) {
      net.guest.udp(GATEWAY, 2000, 69, Uint8Array.of(0, 4, 0, block));
      const reply = net.guest.seen.at(-1)!.payload.subarray(8);
      assert.deepEqual([...reply.subarray(0, 4)], [0, 3, 0, block + 1]);
      got.push(reply.subarray(4));
    }
    assert.ok(Buffer.concat(got).equals(data));
    const refusals: Record<string, number> = {};
    for (const name of ['none', '../x', `../${outside.split('/').at(-1)}/secret`, 'link']) {
      net.guest.udp(GATEWAY, 2001, 69, request(name));
      const reply = net.guest.seen.at(-1)!.payload.subarray(8);
      assert.equal(reply[1], 5);
      refusals[name] = reply[3]!;
    }
    assert.deepEqual(Object.values(refusals), [1, 2, 2, 2]);
    net.guest.udp(GATEWAY, 2002, 69, bytes('\0\x02new\0octet\0'));
    assert.deepEqual([...net.guest.seen.at(-1)!.payload.subarray(8, 12)], [0, 5, 0, 2]);
  } finally {
    rmSync(folder, { recursive: true });
    rmSync(outside, { recursive: true });
  }
});

test("the name server is the host's, and its answers come from where the guest asked", () => {
  const asked: unknown[] = [];
  let answer = (_data: Uint8Array, _address: string, _port: number): void => undefined;
  const host: HostNetwork = {
    ...network,
    resolvers: () => ['192.0.2.53'],
    datagrams: (options, { onData }) => {
      answer = onData;
      return { port: 1, send: (data, to) => asked.push([options.family, text(data), to]), close: () => undefined };
    },
  };
  using net = userNetwork({}, { host });
  net.guest.udp(DEFAULT_PLAN.ipv4!.dns, 4000, 53, bytes('who?'));
  assert.deepEqual(asked, [[4, 'who?', { address: '192.0.2.53', port: 53 }]]);
  answer(bytes('me'), '192.0.2.53', 53);
  const [reply] = net.guest.seen;
  assert.deepEqual([reply!.source, text(reply!.payload.subarray(8))], ['10.0.2.3', 'me']);
  // Over IPv6 the guest may ask as well, whatever the host asks by.
  net.guest.udp(DEFAULT_PLAN.ipv6!.dns, 4000, 53, bytes('who?'));
  assert.deepEqual(asked[1], asked[0]);
});

test('a batch of datagrams in one packet is sent one by one', () => {
  const sent: number[] = [];
  const host: HostNetwork = {
    ...network,
    datagrams: () => ({ port: 1, send: (data) => sent.push(data.length), close: () => undefined }),
  };
  using net = userNetwork({}, { host });
  const payload = new Uint8Array(8 + 2500);
  payload.set([0x0f, 0xa0, 0, 9, payload.length >> 8, payload.length & 255, 0, 0]);
  const offload = { checksumStart: 34, checksumOffset: 6, gso: GSO_UDP_DATAGRAMS, headerLength: 42, segmentSize: 1000 };
  net.guest.send(GUEST, GATEWAY, 17, payload, -1, offload);
  assert.deepEqual(sent, [1000, 1000, 500]);
});

test('a restricted network lets no datagram out, but answers for itself', () => {
  using net = userNetwork({ restrict: true });
  net.guest.udp(GATEWAY, 4000, 9, bytes('x'));
  net.guest.udp(DEFAULT_PLAN.ipv4!.dns, 4000, 53, bytes('x'));
  net.guest.udp(ip('192.0.2.1'), 4000, 9, bytes('x'));
  assert.equal(net.guest.seen.length, 0);
  net.guest.send(GUEST, GATEWAY, 1, Uint8Array.of(8, 0, 0, 0, 0, 7, 0, 1), 2);
  assert.equal(net.guest.seen.length, 1);
});

test('a forwarded port of UDP leads to the guest and its answers back, also where all else is shut off', async () => {
  using net = userNetwork({ restrict: true });
  const ready = Promise.withResolvers<void>();
  net.backend.addForward(
    { protocol: 'udp', at: { address: '127.0.0.1', port: 0 }, guest: null, port: 53 },
    { onReady: ready.resolve, onFailure: ready.reject },
  );
  await ready.promise;
  const client = createSocket('udp4');
  client.send('who?', net.backend.forwards.ports[0]!, '127.0.0.1');
  const question = await net.guest.next(({ protocol }) => protocol === 17);
  assert.deepEqual([question.source, get16(question.payload, 2), text(question.payload.subarray(8))], ['10.0.2.2', 53, 'who?']);
  net.guest.udp(GATEWAY, 53, get16(question.payload, 0), bytes('me'));
  const [answer] = (await once(client, 'message')) as [Buffer];
  assert.equal(String(answer), 'me');
  client.close();
});

test('what a network carries is shown as QEMU shows it', async () => {
  using net = userNetwork();
  const ready = Promise.withResolvers<void>();
  net.backend.addForward(
    { protocol: 'tcp', at: { address: '127.0.0.1', port: 0 }, guest: null, port: 22 },
    { onReady: ready.resolve, onFailure: ready.reject },
  );
  await ready.promise;
  const [port] = net.backend.forwards.ports;
  net.guest.udp(GATEWAY, 4000, 9, bytes('x'));
  const [forward, datagrams] = flowsText('a', net.backend.flows()).slice(2);
  assert.equal(forward, `  TCP[HOST_FORWARD]   0       127.0.0.1 ${String(port).padStart(5)}       10.0.2.15    22     0     0`);
  assert.match(datagrams!, /^ {2}UDP\[240 sec\] {8}0 {7}10\.0\.2\.15 {2}4000 {8}10\.0\.2\.2 {5}9 {5}0 {5}0$/);
});

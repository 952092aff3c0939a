import { network } from '#host';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { GSO_TCP4, type PacketBackend } from '../machine/interfaces.ts';
import type { NetworkConfig } from '../machine/network-config.ts';
import { DgramBackend } from './dgram.ts';
import { FrameDump } from './dump.ts';
import { Hub } from './hub.ts';
import { get32 } from './layout.ts';
import { complete, readVirtioHeader, writeVirtioHeader } from './offload.ts';
import { Networks } from './open.ts';
import { StreamBackend } from './stream.ts';
import { DEFAULT_PLAN, GATEWAY, GUEST, intact, packet, runningClock, see, seeded, TestGuest } from './test-kit.ts';

const folder = mkdtempSync(join(tmpdir(), 'virelay-net-'));
const { clock, stop } = runningClock();
after(() => {
  stop();
  rmSync(folder, { recursive: true });
});

const fail = (error: Error): void => assert.fail(error.message);

/** What a card gets. */
function received(backend: PacketBackend) {
  const frames: Buffer[] = [];
  let changed = Promise.withResolvers<void>();
  backend.onReceive = (frame) => {
    frames.push(Buffer.from(frame));
    changed.resolve();
    return true;
  };
  const until = async (count: number): Promise<void> => {
    while (frames.length < count) {
      changed = Promise.withResolvers();
      await changed.promise;
    }
  };
  return { frames, until };
}

async function stream(options: ConstructorParameters<typeof StreamBackend>[2]): Promise<StreamBackend> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const backend = new StreamBackend(network, clock, options, { onReady: resolve, onFailure: fail });
  await promise;
  return backend;
}

const frameOf = (size: number, fill: number): Uint8Array => new Uint8Array(size).fill(fill);

test('two machines on a stream: frames of all sizes arrive as they were, both ways', async () => {
  const server = await stream({ server: true, at: { path: join(folder, 'stream') }, reconnect: 0 });
  const client = await stream({ server: false, at: { path: join(folder, 'stream') }, reconnect: 0 });
  const [atServer, atClient] = [received(server), received(client)];
  const random = seeded(9);
  const sent = Array.from({ length: 300 }, (_, i) => frameOf(14 + (random() % 9000), i));
  for (const frame of sent) assert.ok(client.send(frame, null) || true);
  await atServer.until(1);
  server.send(frameOf(60, 1), null);
  await atClient.until(1);
  assert.deepEqual(atClient.frames[0], Buffer.alloc(60, 1));
  // A slow network takes no more than it has room for, and says so: what it took arrives.
  while (atServer.frames.length < 20) await atServer.until(atServer.frames.length + 1);
  atServer.frames.forEach((frame, i) => assert.ok(frame.equals(sent[i]!), `frame ${i}`));
  client.close();
  server.close();
});

test('a stream that comes in crumbs, and one that talks nonsense', async () => {
  const server = await stream({ server: true, at: { address: '127.0.0.1', port: 0 }, reconnect: 0 });
  const { frames, until } = received(server);
  const open = async (): Promise<Socket> => {
    const socket = connect(server.port, '127.0.0.1');
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    return socket.setNoDelay(true);
  };
  const socket = await open();
  const data = Buffer.concat([Buffer.of(0, 0, 0, 60), Buffer.alloc(60, 3), Buffer.of(0, 0, 0, 64), Buffer.alloc(64, 4)]);
  for (let at = 0; at < data.length; at += 7) {
    socket.write(data.subarray(at, at + 7));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await until(2);
  assert.deepEqual(
    frames.map(({ length }) => length),
    [60, 64],
  );
  socket.write(Buffer.of(0xff, 0xff, 0xff, 0xff));
  await new Promise((resolve) => socket.on('close', resolve));
  // The next one is served.
  const next = await open();
  next.write(data);
  await until(4);
  next.destroy();
  server.close();
});

test('a lost connection is sought again', async () => {
  const path = join(folder, 'again');
  const first = await stream({ server: true, at: { path }, reconnect: 0 });
  const client = await stream({ server: false, at: { path }, reconnect: 0.05 });
  first.send(frameOf(60, 1), null);
  first.close();
  const second = await stream({ server: true, at: { path }, reconnect: 0 });
  const { until } = received(second);
  const again = setInterval(() => client.send(frameOf(60, 2), null), 10);
  await until(1);
  clearInterval(again);
  client.close();
  second.close();
});

async function dgram(local: number, remote: number): Promise<DgramBackend> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const backend = new DgramBackend(
    network,
    { local: { address: '127.0.0.1', port: local }, remote: { address: '127.0.0.1', port: remote }, multicast: false },
    { onReady: resolve, onFailure: fail },
  );
  await promise;
  return backend;
}

test('two machines on datagrams', async () => {
  const one = await dgram(0, 9);
  const other = await dgram(0, one.port);
  const { frames, until } = received(one);
  other.send(frameOf(1514, 5), null);
  await until(1);
  assert.deepEqual(frames[0], Buffer.alloc(1514, 5));
  one.close();
  other.close();
});

test('a group: everybody hears what one says, but not itself', async () => {
  const reserve = await dgram(0, 9);
  const remote = { address: '230.0.0.1', port: reserve.port };
  reserve.close();
  const join = async (): Promise<DgramBackend> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const local = { address: '127.0.0.1', port: 0 };
    const made = new DgramBackend(network, { local, remote, multicast: true }, { onReady: resolve, onFailure: fail });
    await promise;
    return made;
  };
  const members = [await join(), await join(), await join()];
  const heard = members.map(received);
  const frame = frameOf(60, 7);
  frame[6] = 0x52;
  members[0]!.send(frame, null);
  await Promise.all([heard[1]!.until(1), heard[2]!.until(1)]);
  const answer = frameOf(60, 8);
  members[1]!.send(answer, null);
  await heard[0]!.until(1);
  assert.deepEqual(heard[0]!.frames, [Buffer.from(answer)]);
  for (const member of members) member.close();
});

test('a hub spreads what comes in to all others', () => {
  const hub = new Hub();
  const cards = [hub.port(), hub.port(), hub.port()].map((port) => ({ port, ...received(port) }));
  cards[1]!.port.send(frameOf(60, 1), null);
  assert.deepEqual(
    cards.map(({ frames }) => frames.length),
    [1, 0, 1],
  );
});

test('segments that nobody can cut any more are cut here, with right checksums', () => {
  const payload = new Uint8Array(20 + 3000).map((_, i) => i);
  payload.set([0x13, 0x88, 0, 80, 0, 0, 0, 1, 0, 0, 0, 9, 0x50, 0x19, 1, 1, 0, 0, 0, 0]);
  const whole = packet(GUEST, GATEWAY, 6, payload);
  const pieces: Uint8Array[] = [];
  const offload = { checksumStart: 34, checksumOffset: 16, gso: GSO_TCP4, headerLength: 54, segmentSize: 1000 };
  complete(whole, offload, (frame) => pieces.push(frame.slice()));
  const seen = pieces.map((frame) => see(frame, null));
  assert.ok(seen.every(intact));
  assert.deepEqual(
    seen.map(({ payload: { length }, payload: bytes }) => [length, get32(bytes, 4), bytes[13]]),
    [
      [1020, 1, 0x10],
      [1020, 1001, 0x10],
      [1020, 2001, 0x19],
    ],
  );
  assert.deepEqual(Buffer.concat(seen.map((one) => one.payload.subarray(20))), Buffer.from(payload.subarray(20)));
});

test("virtio's header says what is left to be done", () => {
  const offload = { checksumStart: 34, checksumOffset: 16, gso: 1, headerLength: 54, segmentSize: 1460 };
  const header = new Uint8Array(10);
  writeVirtioHeader(header, offload);
  assert.deepEqual([...header], [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0]);
  assert.deepEqual(readVirtioHeader(header), offload);
  writeVirtioHeader(header, null);
  assert.equal(readVirtioHeader(header), null);
});

test('a dump is what tcpdump reads', (t) => {
  const path = join(folder, 'dump.pcap');
  const dump = new FrameDump(network, path, 64);
  dump.add(packet(GUEST, GATEWAY, 17, Uint8Array.of(0x0f, 0xa0, 0, 53, 0, 8, 0, 0)));
  dump.add(packet(GUEST, GATEWAY, 17, new Uint8Array(70_000).fill(1)));
  dump.close();
  const bytes = readFileSync(path);
  assert.deepEqual([bytes.readUInt32LE(0), bytes.readUInt32LE(24 + 8), bytes.readUInt32LE(24 + 12)], [0xa1b2c3d4, 42, 42]);
  assert.equal(bytes.length, 24 + 16 + 42 + 16 + 64);
  const { stdout, error } = spawnSync('tcpdump', ['-n', '-r', path], { encoding: 'utf8' });
  if (error !== undefined) return t.skip('tcpdump is not installed');
  assert.match(stdout, /IP 10\.0\.2\.15\.4000 > 10\.0\.2\.2\.53/);
  assert.equal(stdout.trim().split('\n').length, 2);
});

function networks(config: Partial<NetworkConfig>, warn: (line: string) => void = fail as never): Networks {
  return new Networks({ netdevs: [], nics: [], dumps: [], ...config }, { host: network, clock, random: seeded(1), warn });
}

test('cards get frames only while the machine runs, and dumps get a copy', async () => {
  const path = join(folder, 'user.pcap');
  const made = networks({
    netdevs: [{ type: 'user', id: 'a', plan: DEFAULT_PLAN }],
    dumps: [{ id: 'f', netdev: 'a', file: path, maxLength: 65536 }],
  });
  await made.ready;
  const guest = new TestGuest(made.port('a'));
  guest.arp(GATEWAY);
  assert.equal(guest.seen.length, 0);
  made.setRunning(true);
  assert.equal(guest.seen.length, 1);
  made.close();
  assert.equal(readFileSync(path).length, 24 + 2 * 16 + 42 + 60);
  assert.throws(() => made.port('b'), /there is no network "b"/);
});

test('networks come and go while a machine runs, and cables are pulled', async () => {
  const made = networks({});
  made.setRunning(true);
  await made.add({ type: 'user', id: 'a', plan: DEFAULT_PLAN });
  await assert.rejects(made.add({ type: 'user', id: 'a', plan: DEFAULT_PLAN }), /Duplicate ID 'a' for netdev/);
  const port = made.port('a');
  const heard: boolean[] = [];
  port.onLinkChange = (up) => heard.push(up);
  const guest = new TestGuest(port);
  made.setLink('a', false);
  guest.arp(GATEWAY);
  assert.equal(guest.seen.length, 0);
  made.setLink('a', true);
  guest.arp(GATEWAY);
  assert.equal(guest.seen.length, 1);
  assert.deepEqual(heard, [false, true]);
  made.remove('a');
  guest.arp(GATEWAY);
  assert.equal(guest.seen.length, 1);
  assert.throws(() => made.remove('a'), /Device 'a' not found/);
});

test('a user network for two cards on a hub', () => {
  const made = networks({
    netdevs: [
      { type: 'user', id: 'u', plan: DEFAULT_PLAN },
      { type: 'hubport', id: 'h0', hub: 0, netdev: 'u' },
      { type: 'hubport', id: 'h1', hub: 0, netdev: null },
      { type: 'hubport', id: 'h2', hub: 0, netdev: null },
    ],
  });
  made.setRunning(true);
  const [one, other] = [new TestGuest(made.port('h1')), received(made.port('h2'))];
  one.arp(GATEWAY);
  assert.equal(one.seen.length, 1);
  // The other card hears the question and the answer.
  assert.equal(other.frames.length, 2);
  made.close();
});

test('a port of the host that is taken fails before the machine starts', async () => {
  const holder = await stream({ server: true, at: { address: '127.0.0.1', port: 0 }, reconnect: 0 });
  const at = { address: '127.0.0.1', port: holder.port };
  const plan = { ...DEFAULT_PLAN, hostForwards: [{ protocol: 'tcp' as const, at, guest: null, port: 22 }] };
  const made = networks({ netdevs: [{ type: 'user', id: 'a', plan }] });
  await assert.rejects(made.ready, (error: Error) =>
    error.message.startsWith(
      `network "a": Could not set up host forwarding rule 'tcp:127.0.0.1:${holder.port}-:22' (address already in use)`,
    ),
  );
  made.close();
  holder.close();
});

const noQemu = spawnSync('qemu-system-x86_64', ['--version']).error === undefined ? false : 'QEMU is not installed';

/** A QEMU without a machine: its user network, joined to one of its socket networks. */
function qemu(netdev: string) {
  const base = ['-M', 'none', '-nographic', '-monitor', 'none', '-serial', 'none'];
  const user = ['-netdev', 'user,id=u', '-netdev', 'hubport,id=h0,hubid=0,netdev=u'];
  const child = spawn('qemu-system-x86_64', [...base, ...user, '-netdev', netdev, '-netdev', 'hubport,id=h1,hubid=0,netdev=s'], {
    stdio: 'ignore',
  });
  return async (): Promise<void> => {
    child.kill();
    await once(child, 'exit');
  };
}

async function asksQemu(backend: PacketBackend): Promise<void> {
  const guest = new TestGuest(backend);
  const again = setInterval(() => guest.arp(GATEWAY), 50);
  const answer = await guest.next(({ type, payload }) => type === 0x0806 && payload[7] === 2, 'an answer');
  clearInterval(again);
  assert.deepEqual([...answer.payload.subarray(8, 18)], [0x52, 0x55, 10, 0, 2, 2, ...GATEWAY]);
}

test("QEMU's stream network and ours understand each other", { skip: noQemu }, async () => {
  const path = join(folder, 'qemu');
  const server = await stream({ server: true, at: { path }, reconnect: 0 });
  const end = qemu(`stream,id=s,server=off,addr.type=unix,addr.path=${path}`);
  await asksQemu(server);
  await end();
  server.close();
});

test("QEMU's socket network and ours understand each other", { skip: noQemu }, async () => {
  const server = await stream({ server: true, at: { address: '127.0.0.1', port: 0 }, reconnect: 0 });
  const end = qemu(`socket,id=s,connect=127.0.0.1:${server.port}`);
  await asksQemu(server);
  await end();
  server.close();
});

test("QEMU's datagram network and ours understand each other", { skip: noQemu }, async () => {
  const reserve = await dgram(0, 9);
  const { port } = reserve;
  reserve.close();
  const ours = await dgram(0, port);
  const address = (name: string, number: number): string => `${name}.type=inet,${name}.host=127.0.0.1,${name}.port=${number}`;
  const end = qemu(`dgram,id=s,${address('local', port)},${address('remote', ours.port)}`);
  await asksQemu(ours);
  await end();
  ours.close();
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { HostNetwork } from '../../host/network.ts';
import { HostClock } from '../../machine/clock.ts';
import { put16, put32 } from '../layout.ts';
import { DEFAULT_PLAN, GATEWAY, GATEWAY6, GUEST, ip, packet, seeded, TestGuest, TestTcp, userNetwork } from '../test-kit.ts';
import { UserNetwork } from './user-network.ts';

/** A host that counts what it is asked for and connects nobody. */
function countingHost() {
  const asked: string[] = [];
  const stream = {
    write: () => true,
    end: () => undefined,
    pause: () => undefined,
    resume: () => undefined,
    reset: () => undefined,
  };
  const host: HostNetwork = {
    connect: (to, _from, events) => {
      asked.push('address' in to ? to.address : to.path);
      if (asked.length % 2 === 0) events.onConnect?.();
      return stream;
    },
    listen: () => ({ port: 0, close: () => undefined }),
    datagrams: () => ({
      port: 0,
      send: (_data, to) => asked.push(to !== null && 'address' in to ? to.address : '?'),
      close: () => undefined,
    }),
    ping: () => null,
    resolvers: () => ['192.0.2.53'],
    command: () => stream,
    folder: () => ({ open: () => null }),
    tap: () => assert.fail(),
    appendFile: () => assert.fail(),
  };
  return { asked, host };
}

function hostile(restrict = false) {
  const { asked, host } = countingHost();
  let now = 0;
  const clock = new HostClock(() => now);
  clock.resume();
  const backend = new UserNetwork({ plan: { ...DEFAULT_PLAN, restrict }, host, clock, random: seeded(3) });
  const pass = (ns: number): void => {
    now += ns;
    clock.runTimers();
  };
  return { asked, backend, pass, guest: new TestGuest(backend) };
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Bytes in buffers that are in use. */
function buffersInUse(): number {
  collect();
  return process.memoryUsage().arrayBuffers;
}

const SOURCES = ['10.0.2.15', '10.0.2.2', '0.0.0.0', '127.0.0.1', '192.0.2.9'].map(ip);
const TARGETS = ['10.0.2.2', '10.0.2.3', '10.0.2.200', '255.255.255.255', '127.0.0.1', '192.0.2.1'].map(ip);
const SOURCES6 = ['fec0::15', 'fe80::15', '::', '::1'].map(ip);
const TARGETS6 = ['fec0::2', 'fec0::3', 'fe80::2', 'ff02::1', 'ff02::1:2', '::1', '::ffff:127.0.0.1', '2001:db8::1'].map(ip);
const PORTS = [53, 67, 68, 69, 80, 546, 547, 5000];

/** A packet with a sound frame round a body that has been thrown together. */
function nonsense(random: () => number): Uint8Array {
  const pick = <T>(from: readonly T[]): T => from[random() % from.length]!;
  const v4 = random() % 2 === 0;
  const protocol = pick([6, 6, 17, 1, 58, 44, 0, random() % 256]);
  const body = Uint8Array.from({ length: random() % 120 }, () => random() % (random() % 3 === 0 ? 4 : 256));
  if (body.length >= 20 && random() % 4 > 0) {
    put16(body, 0, pick(PORTS));
    put16(body, 2, pick(PORTS));
    if (protocol === 6) body[12] = random() % 5 === 0 ? random() : 0x50;
    if (protocol === 6 && random() % 2 === 0) put32(body, 4, random() % 64);
    if (protocol === 17) put16(body, 4, random() % 5 === 0 ? random() : body.length);
    if (protocol === 1) body[0] = 8;
    if (protocol === 58) body[0] = 128 + (random() % 10);
  }
  const checksum = protocol === 6 ? 16 : protocol === 17 ? 6 : 2;
  const frame = packet(
    v4 ? pick(SOURCES) : pick(SOURCES6),
    v4 ? pick(TARGETS) : pick(TARGETS6),
    protocol,
    body,
    body.length >= 20 ? checksum : -1,
    pick([0, 1, 64, 255]),
  );
  // Some frames lie about themselves.
  if (random() % 4 === 0) frame[random() % frame.length] = random();
  return random() % 8 === 0 ? frame.subarray(0, random() % (frame.length + 1)) : frame;
}

test('packets thrown together neither crash nor hang nor pile up, and reach nothing they must not', () => {
  for (const restrict of [false, true]) {
    const { asked, backend, pass, guest } = hostile(restrict);
    const random = seeded(restrict ? 11 : 12);
    for (let i = 0; i < 60_000; i++) {
      const frame = nonsense(random);
      const offload =
        random() % 10 > 0
          ? null
          : {
              checksumStart: random() % 3 === 0 ? -1 : random() % 200,
              checksumOffset: random() % 40,
              gso: random() % 7,
              headerLength: random() % 100,
              segmentSize: random() % 20,
            };
      guest.sendFrame(frame, offload);
      if (random() % 50 === 0) pass(random() % 2_000_000_000);
      if (random() % 500 === 0) {
        guest.listening = !guest.listening;
        if (guest.listening) backend.resume();
      }
    }
    assert.ok(backend.connections <= 1024);
    // Of the host itself and of the network within, only what the gateway and the name server stand for.
    const forbidden = /^(0\.|127\.(?!0\.0\.1$)|10\.0\.2\.|2[2-5]\d\.|f[ef]|::(?!1$))/;
    assert.deepEqual(
      asked.filter((address) => forbidden.test(address)),
      [],
    );
    assert.equal(asked.length > 0, !restrict);
    backend.close();
  }
});

test('segments of a connection, mutilated and sent again, neither crash nor hang the stack', async () => {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const random = seeded(21);
  /** Each frame comes with a copy in which the header is another one, but the checksum is right. */
  const wire = (frame: Uint8Array, toGuest: boolean): Uint8Array[] => {
    if (toGuest || frame[12] !== 8 || frame[13] !== 0 || frame[23] !== 6) return [frame];
    const payload = frame.slice(34);
    payload[4 + (random() % 16)] = random();
    if (random() % 2 === 0) payload.copyWithin(4, 8, 12);
    const copy = packet(GUEST, GATEWAY, 6, payload.subarray(0, random() % 4 === 0 ? 20 : payload.length), 16);
    return random() % 2 === 0 ? [copy, frame] : [frame, copy];
  };
  using net = userNetwork({}, { wire, speed: 50 });
  for (let i = 0; i < 150; i++) {
    const tcp = new TestTcp(net.guest, GATEWAY, 6000 + i, port);
    tcp.send(new Uint8Array(random() % 20_000));
    if (i % 3 === 0) tcp.end();
    await new Promise((resolve) => setImmediate(resolve));
    if (i % 5 === 0) tcp.reset();
    tcp.close();
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
  // Whoever comes next is served.
  const next = new TestGuest(net.backend);
  const tcp = new TestTcp(next, GATEWAY, 7000, port);
  tcp.send(Buffer.from('hello'));
  tcp.end();
  await tcp.until(() => tcp.finReceived, 'the end');
  assert.equal(String(tcp.data()), 'hello');
  tcp.close();
  server.close();
});

test('fragments that never become whole take no memory that grows', () => {
  const { backend, guest } = hostile();
  const random = seeded(5);
  const before = buffersInUse();
  for (let i = 0; i < 30_000; i++) {
    const frame = packet(GUEST, GATEWAY, 17, new Uint8Array(1400));
    put16(frame, 18, random());
    put16(frame, 20, 0x2000 | (random() % 0x1fff));
    guest.sendFrame(frame);
    guest.seen.length = 0;
  }
  assert.ok(buffersInUse() - before < 64 << 20);
  backend.close();
});

test('a guest cannot make other hosts of the network remembered without end', () => {
  const { backend, guest } = hostile();
  for (let i = 0; i < 5000; i++) {
    const target = GATEWAY6.slice();
    put32(target, 12, 0x1000 + i);
    guest.send(target, GATEWAY6, 58, Uint8Array.of(128, 0, 0, 0, 0, 1, 0, 1), 2);
  }
  assert.ok(guest.seen.length > 0);
  backend.close();
});

test('a guest that promises to read and does not costs no more than its share', async () => {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    const more = (): void => void (socket.writable && socket.write(Buffer.alloc(1 << 16), more));
    more();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  using net = userNetwork();
  const before = buffersInUse();
  const syn = new Uint8Array(24);
  for (let i = 0; i < 200; i++) {
    syn.set([40 + (i >> 8), i & 255, port >> 8, port & 255, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 255, 255, 0, 0, 0, 0, 2, 4, 5, 180]);
    net.guest.send(GUEST, GATEWAY, 6, syn, 16);
  }
  // Each handshake is finished, and then nothing is acknowledged.
  net.guest.take(({ protocol, payload }) => {
    if (protocol !== 6 || payload[13] !== 18) return;
    const ack = new Uint8Array(20);
    ack.set(payload.subarray(2, 4), 0);
    ack.set(payload.subarray(0, 2), 2);
    put32(ack, 4, 2);
    ack.set(payload.subarray(4, 8), 8);
    ack[11]! += 1;
    ack.set([0x50, 16, 255, 255], 12);
    net.guest.send(GUEST, GATEWAY, 6, ack, 16);
  });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  net.guest.seen.length = 0;
  const taken = buffersInUse() - before;
  assert.ok(taken < 400 << 20, `${taken >> 20} MiB`);
  server.close();
});

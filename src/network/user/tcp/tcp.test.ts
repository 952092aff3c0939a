import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { test } from 'node:test';
import type { HostForward } from '../../../machine/network-config.ts';
import { formatIp } from '../../address.ts';
import { get16 } from '../../layout.ts';
import { GATEWAY, GATEWAY6, GUEST, intact, ip, seeded, TestTcp, userNetwork } from '../../test-kit.ts';

type Net = ReturnType<typeof userNetwork>;

async function serve(onSocket: (socket: Socket) => void, host = '127.0.0.1'): Promise<{ server: Server; port: number }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  server.listen(0, host);
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

const echo = (socket: Socket): void => void socket.pipe(socket);
const hash = (data: Uint8Array): string => createHash('sha1').update(data).digest('hex');

/** Sends data through an echo server. */
async function echoed(net: Net, port: number, data: Uint8Array, options = {}): Promise<TestTcp> {
  const tcp = new TestTcp(net.guest, GATEWAY, 5000, port, options);
  await tcp.open();
  assert.equal(tcp.state, 'open');
  tcp.send(data);
  tcp.end();
  await tcp.until(() => tcp.finReceived, 'the end of data');
  assert.equal(tcp.receivedLength, data.length);
  assert.equal(hash(tcp.data()), hash(data));
  tcp.close();
  return tcp;
}

test('a connection to the gateway leads to the host, both ways, to the end', async () => {
  using net = userNetwork();
  const { server, port } = await serve(echo);
  await echoed(net, port, Buffer.from('hello'));
  assert.ok(net.guest.seen.every((seen) => seen.protocol !== 6 || intact(seen)));
  server.close();
});

test('the same over IPv6', async (t) => {
  using net = userNetwork();
  let made: Awaited<ReturnType<typeof serve>>;
  try {
    made = await serve(echo, '::1');
  } catch {
    return t.skip('the host has no IPv6');
  }
  const tcp = new TestTcp(net.guest, GATEWAY6, 5000, made.port);
  tcp.send(randomBytes(100_000));
  tcp.end();
  await tcp.until(() => tcp.finReceived, 'the end of data');
  assert.equal(tcp.receivedLength, 100_000);
  tcp.close();
  made.server.close();
});

test('a refused connection is refused', async () => {
  using net = userNetwork();
  const { server, port } = await serve(echo);
  server.close();
  await once(server, 'close');
  const tcp = new TestTcp(net.guest, GATEWAY, 5000, port);
  await tcp.open();
  assert.equal(tcp.state, 'reset');
  assert.equal(net.backend.connections, 0);
  tcp.close();
});

test('what no connection is for is reset, a reset is not answered', () => {
  using net = userNetwork();
  const segment = new Uint8Array(20);
  segment.set([0x13, 0x88, 0, 80, 0, 0, 0, 1, 0, 0, 0, 9, 0x50, 16]);
  net.guest.send(GUEST, GATEWAY, 6, segment, 16);
  const [reset] = net.guest.seen;
  assert.ok(reset && intact(reset));
  assert.deepEqual([reset.payload[13], reset.payload[7]], [4, 9]);
  segment[13] = 4;
  net.guest.send(GUEST, GATEWAY, 6, segment, 16);
  assert.equal(net.guest.seen.length, 1);
  // A wrong checksum makes it nobody's.
  segment[13] = 16;
  net.guest.send(GUEST, GATEWAY, 6, segment);
  assert.equal(net.guest.seen.length, 1);
});

test('megabytes survive loss, doubling and disorder', async () => {
  const random = seeded(42);
  const late: Uint8Array[] = [];
  const wire = (frame: Uint8Array): Uint8Array[] => {
    const dice = random() % 100;
    if (dice < 3) return [];
    if (dice < 6) return [frame, frame];
    if (dice < 12) {
      late.push(frame.slice());
      return [];
    }
    return [frame, ...late.splice(0)];
  };
  // A hundred times as fast, since timeouts are made for real networks.
  using net = userNetwork({}, { wire, speed: 100 });
  const { server, port } = await serve(echo);
  await echoed(net, port, randomBytes(2_000_000), { retryMs: 5 });
  server.close();
});

test('whole segments with their checksums left to others come to a card that can cut them', async () => {
  const accepts = { checksum: true, tso4: true, tso6: true, ufo: false, uso: false };
  using net = userNetwork({}, { accepts });
  const { server, port } = await serve((socket) => socket.end(Buffer.alloc(1_000_000, 5)));
  const tcp = new TestTcp(net.guest, GATEWAY, 5000, port);
  await tcp.until(() => tcp.finReceived, 'the end of data');
  assert.equal(tcp.receivedLength, 1_000_000);
  const largest = net.guest.seen.reduce((most, seen) => (seen.payload.length > most.payload.length ? seen : most));
  assert.ok(largest.payload.length > 30_000, `${largest.payload.length} bytes`);
  assert.equal(largest.offload!.gso, 1);
  assert.equal(largest.offload!.segmentSize, 1400);
  assert.deepEqual([largest.offload!.checksumStart, largest.offload!.checksumOffset], [34, 16]);
  tcp.close();
  server.close();
});

test('a server that reads nothing closes the window, and opens it again', async () => {
  using net = userNetwork();
  const sockets: Socket[] = [];
  const { server, port } = await serve((socket) => sockets.push(socket.pause()));
  const tcp = new TestTcp(net.guest, GATEWAY, 5000, port);
  await tcp.open();
  const data = randomBytes(24_000_000);
  tcp.send(data);
  let before = Infinity;
  await tcp.until(() => {
    const stands = tcp.unsent === before && tcp.unsent < data.length;
    before = tcp.unsent;
    return stands && tcp.peerWindow < 1400;
  }, 'a closed window');
  let received = 0;
  sockets[0]!.on('data', (chunk) => (received += chunk.length));
  sockets[0]!.resume();
  tcp.end();
  await tcp.until(() => received === data.length, 'everything received');
  sockets[0]!.end();
  await tcp.until(() => tcp.finReceived, 'the end');
  tcp.close();
  server.close();
});

test('a guest that takes nothing makes the server wait; its window is asked for', async () => {
  using net = userNetwork({}, { speed: 50 });
  let written = 0;
  const { server, port } = await serve((socket) => {
    const more = (): void => {
      while (written < 64_000_000 && socket.write(Buffer.alloc(65536, written >> 16))) written += 65536;
    };
    socket.on('drain', more);
    more();
  });
  const tcp = new TestTcp(net.guest, GATEWAY, 5000, port);
  tcp.window = 0;
  await tcp.open();
  let before = -1;
  let still = 0;
  await tcp.until(() => {
    still = written === before ? still + 1 : 0;
    before = written;
    return still > 5;
  }, 'the server waits');
  assert.ok(written < 32_000_000, `${written} bytes written`);
  assert.equal(tcp.receivedLength, 0);
  tcp.window = 65535;
  // No word of it: a probe finds out.
  await tcp.until(() => tcp.receivedLength > 1_000_000, 'data again');
  tcp.reset();
  tcp.close();
  server.close();
});

test("the host's end first, the guest's end first, and either may go on sending", async () => {
  using net = userNetwork();
  const got: string[] = [];
  const { server, port } = await serve((socket) => {
    socket.end('bye');
    socket.on('data', (data) => got.push(String(data)));
    socket.on('end', () => got.push('end'));
  });
  const tcp = new TestTcp(net.guest, GATEWAY, 5000, port);
  await tcp.until(() => tcp.finReceived, 'the end');
  assert.equal(String(tcp.data()), 'bye');
  tcp.send(Buffer.from('still here'));
  await tcp.until(() => got.length === 1, 'data after the end');
  tcp.end();
  await tcp.until(() => got.includes('end'), "the guest's end");
  assert.deepEqual(got, ['still here', 'end']);
  tcp.close();
  server.close();

  const other = await serve((socket) => {
    socket.on('data', () => undefined);
    socket.on('end', () => socket.end('answer'));
  });
  const asker = new TestTcp(net.guest, GATEWAY, 5001, other.port);
  asker.send(Buffer.from('question'));
  asker.end();
  await asker.until(() => asker.finReceived, 'the end');
  assert.equal(String(asker.data()), 'answer');
  await asker.until(() => net.backend.connections <= 1, 'only TIME-WAIT left');
  asker.close();
  other.server.close();
});

test("a reset passes through, the guest's and the host's", async () => {
  using net = userNetwork();
  const closed = Promise.withResolvers<boolean>();
  const { server, port } = await serve((socket) => {
    socket.on('error', () => undefined);
    socket.on('close', (error) => closed.resolve(error));
    socket.resume();
  });
  const tcp = new TestTcp(net.guest, GATEWAY, 5000, port);
  await tcp.open();
  tcp.send(Buffer.from('x'));
  tcp.reset();
  assert.equal(await closed.promise, true);
  assert.equal(net.backend.connections, 0);
  tcp.close();
  server.close();

  const other = await serve((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', () => socket.resetAndDestroy());
  });
  const victim = new TestTcp(net.guest, GATEWAY, 5001, other.port);
  victim.send(Buffer.from('x'));
  await victim.until(() => victim.state === 'reset', 'a reset');
  victim.close();
  other.server.close();
});

test('a card without room gets everything once it has room', async () => {
  using net = userNetwork();
  const { server, port } = await serve((socket) => socket.end(randomBytes(300_000)));
  const tcp = new TestTcp(net.guest, GATEWAY, 5000, port);
  await tcp.open();
  net.guest.listening = false;
  await new Promise((resolve) => setTimeout(resolve, 30));
  net.guest.listening = true;
  net.guest.backend.resume();
  await tcp.until(() => tcp.finReceived, 'the end');
  assert.equal(tcp.receivedLength, 300_000);
  tcp.close();
  server.close();
});

/** Opens a forwarding. @returns the host's port */
async function forwarded(net: Net, forward: Omit<HostForward, 'at'>): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  net.backend.addForward({ ...forward, at: { address: '127.0.0.1', port: 0 } }, { onReady: resolve, onFailure: reject });
  await promise;
  return net.backend.forwards.ports.at(-1)!;
}

test('a forwarded port connects to the guest, who is found by ARP and sees the gateway', async () => {
  using net = userNetwork({ restrict: true });
  const port = await forwarded(net, { protocol: 'tcp', guest: null, port: 22 });
  const client = connect(port, '127.0.0.1');
  const syn = await net.guest.next(({ protocol, payload }) => protocol === 6 && get16(payload, 2) === 22, 'a SYN');
  assert.deepEqual([syn.source, syn.destination, syn.payload[13]], ['10.0.2.2', formatIp(GUEST), 2]);
  // The guest has no such server.
  const reset = new Uint8Array(20);
  reset.set([0, 22, syn.payload[0]!, syn.payload[1]!]);
  new DataView(reset.buffer).setUint32(8, new DataView(syn.payload.slice().buffer).getUint32(4) + 1);
  reset.set([0x50, 20], 12);
  net.guest.send(GUEST, GATEWAY, 6, reset, 16);
  const [error] = (await once(client, 'error')) as [NodeJS.ErrnoException];
  assert.equal(error.code, 'ECONNRESET');
  assert.equal(net.backend.connections, 0);
});

test('a guest forward is a server that a command plays, also where all else is shut off', async () => {
  const address = ip('10.0.2.100');
  using net = userNetwork({ restrict: true, guestForwards: [{ address, port: 8080, to: { command: 'tr a-z A-Z' } }] });
  const tcp = new TestTcp(net.guest, address, 5000, 8080);
  tcp.send(Buffer.from('hello'));
  tcp.end();
  await tcp.until(() => tcp.finReceived, 'the end');
  assert.equal(String(tcp.data()), 'HELLO');
  tcp.close();
  const outside = new TestTcp(net.guest, GATEWAY, 5001, 80);
  await outside.open();
  assert.equal(outside.state, 'reset');
  outside.close();
});

test('connections beyond the limit are refused, and those there go on', async () => {
  using net = userNetwork();
  const { server, port } = await serve(echo);
  const segment = new Uint8Array(20);
  for (let i = 0; i < 1100; i++) {
    segment.set([(10_000 + i) >> 8, (10_000 + i) & 255, port >> 8, port & 255, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2]);
    net.guest.send(GUEST, GATEWAY, 6, segment, 16);
  }
  assert.equal(net.backend.connections, 1024);
  assert.equal(net.guest.seen.filter(({ payload }) => (payload[13]! & 4) !== 0).length, 76);
  server.close();
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import type { NetworkFailure, StreamEvents } from '../network.ts';
import { commandStream, connectStream } from './streams.ts';

/** Events as a list, and a way to wait for one. */
function recording(): { events: StreamEvents; seen: string[]; until: (event: string) => Promise<void> } {
  const seen: string[] = [];
  let changed = Promise.withResolvers<void>();
  const add = (event: string): void => {
    seen.push(event);
    changed.resolve();
    changed = Promise.withResolvers();
  };
  const until = async (event: string): Promise<void> => {
    while (!seen.includes(event)) await changed.promise;
  };
  const events = {
    onConnect: () => add('connect'),
    onData: (data: Uint8Array) => add(`data ${Buffer.from(data)}`),
    onEnd: () => add('end'),
    onDrain: () => add('drain'),
    onClose: (failure: NetworkFailure | null) => add(`close ${failure}`),
  };
  return { events, seen, until };
}

async function serve(onSocket: (socket: Socket) => void): Promise<{ address: string; port: number; close: () => void }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { address: '127.0.0.1', port: (server.address() as AddressInfo).port, close: () => server.close() };
}

test('each direction ends by itself', async () => {
  const server = await serve((socket) => {
    socket.end('bye');
    socket.resume();
  });
  const { events, seen, until } = recording();
  const stream = connectStream(server, null, events);
  await until('end');
  assert.deepEqual(seen, ['connect', 'data bye', 'end']);
  stream.end();
  await until('close null');
  server.close();
});

test('what the kernel takes may be reused at once; the rest must wait for the drain', async () => {
  let received = 0;
  const sockets: Socket[] = [];
  const server = await serve((socket) => sockets.push(socket.pause()));
  const { events, seen, until } = recording();
  const stream = connectStream(server, null, events);
  await until('connect');
  const data = new Uint8Array(1 << 16);
  let sent = 0;
  let taken = true;
  while (taken) {
    data.fill(sent & 0xff);
    taken = stream.write(data);
    sent++;
    assert.ok(sent < 10_000);
  }
  assert.ok(sent > 1);
  // That the earlier ones have been written is no news: the last one has not.
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(!seen.includes('drain'));
  while (sockets.length === 0) await new Promise((resolve) => setImmediate(resolve));
  sockets[0]!.on('data', (chunk: Buffer) => {
    for (const byte of [chunk[0]!, chunk.at(-1)!]) assert.ok(Math.abs(byte - ((received >> 16) & 0xff)) <= 2);
    received += chunk.length;
  });
  sockets[0]!.resume();
  await until('drain');
  stream.reset();
  server.close();
});

test('failures by name', async () => {
  const server = await serve((socket) => socket.resetAndDestroy());
  const reset = recording();
  connectStream(server, null, reset.events);
  await reset.until('close reset');
  server.close();
  const refused = recording();
  connectStream({ address: '127.0.0.1', port: 9 }, null, refused.events);
  await refused.until('close refused');
  assert.deepEqual(refused.seen, ['close refused']);
});

test('a connection that is given up while it is being made leaves nothing behind', async () => {
  const server = await serve(() => undefined);
  const { events, seen } = recording();
  connectStream(server, null, events).reset();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(seen, []);
  server.close();
});

const openSockets = (): number => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;

test('a connection is let go of, too, when its own direction has been ended', async () => {
  const before = openSockets();
  const closed = Promise.withResolvers<void>();
  const server = await serve((socket) => {
    socket.on('close', () => closed.resolve());
    socket.on('end', () => socket.end());
    socket.resume();
  });
  const { events, until } = recording();
  const stream = connectStream(server, null, events);
  await until('connect');
  stream.end();
  stream.reset();
  server.close();
  await closed.promise;
  for (let tries = 0; openSockets() > before; tries++) {
    assert.ok(tries < 100, 'a socket stays open');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
});

test('a command is a stream', async () => {
  const { events, seen, until } = recording();
  const stream = commandStream('tr a-z A-Z', events);
  stream.write(Buffer.from('hello'));
  stream.end();
  await until('close null');
  assert.deepEqual(seen, ['connect', 'data HELLO', 'end', 'close null']);
});

test('a command that has ended keeps what it said until the other side is done', async () => {
  const { events, seen, until } = recording();
  const stream = commandStream('echo hi', events);
  await until('end');
  assert.deepEqual(seen.slice(0, 3), ['connect', 'data hi\n', 'end']);
  stream.write(Buffer.from('for nobody'));
  stream.end();
  await until('close null');
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { test } from 'node:test';
import { afterEvents, sleepUntilEvent } from './turns.ts';

const turn = (): Promise<void> => new Promise((resolve) => afterEvents(resolve));

test('a short sleep ends when a socket has something, and otherwise with its time', {
  skip: process.platform !== 'linux',
}, async (t) => {
  let received = '';
  const server = createServer((socket) => socket.on('data', (data) => (received += data)));
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = once(server, 'connection');
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  t.after(() => client.destroy());
  await Promise.all([once(client, 'connect'), accepted]);
  for (let i = 0; i < 10; i++) await turn();
  assert.equal(sleepUntilEvent(1), false, 'nobody has sent anything');
  client.write('x');
  // Not for ever, should it not end: the test fails then.
  assert.equal(sleepUntilEvent(900), true);
  for (let i = 0; i < 10; i++) await turn();
  assert.equal(received, 'x');
});

import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import type { NetworkFailure } from '../network.ts';
import { openDatagrams } from './datagrams.ts';

async function server(): Promise<Socket> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return socket;
}

test('a socket keeps its port when it gets a second correspondent, and hears both', async () => {
  const [one, other] = [await server(), await server()];
  const heard: string[] = [];
  const both = Promise.withResolvers<void>();
  const socket = openDatagrams(
    { family: 4, bind: null },
    {
      onData: (data, _address, port) => {
        heard.push(`${Buffer.from(data)} ${port}`);
        if (heard.length === 2) both.resolve();
      },
    },
    { onFailure: assert.fail },
  );
  const ports: number[] = [];
  for (const peer of [one, other]) {
    socket.send(Buffer.from('hello'), { address: '127.0.0.1', port: peer.address().port });
    const [, { port }] = (await once(peer, 'message')) as [Buffer, { port: number }];
    ports.push(port);
  }
  for (const peer of [one, other]) peer.send('answer', ports[0], '127.0.0.1');
  await both.promise;
  assert.equal(ports[0], ports[1]);
  assert.deepEqual(heard.sort(), [one, other].map((peer) => `answer ${peer.address().port}`).sort());
  for (const each of [one, other, socket]) each.close();
});

test('a closed port is heard of', async () => {
  const gone = await server();
  const { port } = gone.address();
  gone.close();
  await once(gone, 'close');
  const failed = Promise.withResolvers<NetworkFailure>();
  const socket = openDatagrams(
    { family: 4, bind: null },
    { onData: () => assert.fail('nobody answers'), onFailure: failed.resolve },
    { onFailure: assert.fail },
  );
  socket.send(Buffer.from('x'), { address: '127.0.0.1', port });
  assert.equal(await failed.promise, 'refused');
  socket.close();
});

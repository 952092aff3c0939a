/**
 * Runs in a network namespace of its own: this host's kernel is the guest of a user network, by way of a TAP
 * interface. Prints what came of it as JSON. Arguments: whether segments go uncut, and megabytes each way.
 */
import { network } from '#host';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { DEFAULT_PLAN, runningClock, seeded } from './test-kit.ts';
import { TapBackend } from './tap.ts';
import { UserNetwork } from './user/user-network.ts';

const [offloads, megabytes] = [process.argv[2] === 'offloads', Number(process.argv[3])];
const run = (...command: string[]): string => execFileSync(command[0]!, command.slice(1), { encoding: 'utf8' });

run('ip', 'link', 'set', 'lo', 'up');
const tap = new TapBackend(network, { name: 'tap0', fd: null, headers: offloads });
const { clock } = runningClock();
const user = new UserNetwork({ plan: DEFAULT_PLAN, host: network, clock, random: seeded(1) });
let frames = 0;
let largest = 0;
// The interface is the card: what it gives comes from the kernel.
tap.onReceive = (frame, offload) => {
  frames++;
  largest = Math.max(largest, frame.length);
  return user.send(frame, offload);
};
user.onReceive = (frame, offload) => {
  frames++;
  largest = Math.max(largest, frame.length);
  return tap.send(frame, offload);
};
tap.accepts = user.offloads;
user.accepts = tap.offloads;
run('ip', 'address', 'add', '10.0.2.15/24', 'dev', 'tap0');
run('ip', 'link', 'set', 'tap0', 'up');
run('ip', 'route', 'add', 'default', 'via', '10.0.2.2');

const digest = (): ReturnType<typeof createHash> => createHash('sha1');

/** Sends data to a server that tells its hash, or takes it from one. */
async function transfer(host: string, toServer: boolean, size: number): Promise<{ right: boolean; seconds: number }> {
  const block = randomBytes(1 << 16);
  const sum = digest();
  const want = digest();
  let left = size;
  const send = async (socket: Socket): Promise<void> => {
    while (left > 0) {
      const piece = block.subarray(0, Math.min(left, block.length));
      want.update(piece);
      left -= piece.length;
      if (!socket.write(piece)) await once(socket, 'drain');
    }
    socket.end();
  };
  const receive = async (socket: Socket): Promise<void> => {
    for await (const chunk of socket) sum.update(chunk as Buffer);
    socket.end();
  };
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const begun = performance.now();
  const client = connect((server.address() as AddressInfo).port, host);
  const [socket] = (await once(server, 'connection')) as [Socket];
  await Promise.all([toServer ? send(client) : receive(client), toServer ? receive(socket) : send(socket)]);
  server.close();
  return { right: sum.digest('hex') === want.digest('hex'), seconds: (performance.now() - begun) / 1000 };
}

async function refused(): Promise<string> {
  const [error] = (await once(connect(9, '10.0.2.2'), 'error')) as [NodeJS.ErrnoException];
  return error.code!;
}

async function datagram(size: number): Promise<boolean> {
  const server = createSocket('udp4');
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  server.on('message', (data, { port, address }) => server.send(data, port, address));
  const client = createSocket('udp4');
  const data = randomBytes(size);
  client.send(data, server.address().port, '10.0.2.2');
  const [answer] = (await once(client, 'message')) as [Buffer];
  client.close();
  server.close();
  return answer.equals(data);
}

const size = megabytes * 2 ** 20;
const result = {
  toHost: await transfer('10.0.2.2', true, size),
  toGuest: await transfer('10.0.2.2', false, size),
  refused: await refused(),
  datagrams: [await datagram(100), await datagram(9000)],
  frames,
  largest,
};
console.log(JSON.stringify(result));
process.exit(0);

/**
 * Runs in a network namespace of its own: this host's kernel is the guest of a user network, by way of a TAP
 * interface. Prints what came of it as JSON. Arguments: `offloads` when segments go uncut, `lossy` when frames are
 * lost and shuffled on the way, else `plain`; and megabytes each way.
 */
import { network } from '#host';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { PacketOffload } from '../machine/interfaces.ts';
import { get16 } from './layout.ts';
import { DEFAULT_PLAN, GUEST, GUEST6, intact, ip, runningClock, seeded, TestGuest } from './test-kit.ts';
import { TapBackend } from './tap.ts';
import { UserNetwork } from './user/user-network.ts';

const [mode, megabytes] = [process.argv[2], Number(process.argv[3])];
const offloads = mode === 'offloads';
let lossy = mode === 'lossy';
const run = (...command: string[]): string => execFileSync(command[0]!, command.slice(1), { encoding: 'utf8' });

run('ip', 'link', 'set', 'lo', 'up');
const tap = new TapBackend(network, { name: 'tap0', fd: null, headers: offloads, script: null, downScript: null });
const { clock } = runningClock();
const user = new UserNetwork({ plan: DEFAULT_PLAN, host: network, clock, random: seeded(1) });
let frames = 0;
let largest = 0;
type Send = (frame: Uint8Array, offload: PacketOffload | null) => boolean;
const random = seeded(77);

/** One direction of the cable. */
function cable(send: Send): Send {
  let late: Uint8Array | null = null;
  return (frame, offload) => {
    frames++;
    largest = Math.max(largest, frame.length);
    if (!lossy) return send(frame, offload);
    const dice = random() % 1000;
    if (dice < 5) return true;
    if (dice < 15 && late === null) {
      late = frame.slice();
      return true;
    }
    send(frame, offload);
    if (late !== null) send(late, null);
    late = null;
    return true;
  };
}

// The interface is the card: what it gives comes from the kernel.
tap.onReceive = cable((frame, offload) => user.send(frame, offload));
user.onReceive = cable((frame, offload) => tap.send(frame, offload));
tap.accepts = user.offloads;
user.accepts = tap.offloads;
run('ip', 'address', 'add', '10.0.2.15/24', 'dev', 'tap0');
// Nobody else can have our address, and the router is there.
for (const setting of ['accept_dad', 'router_solicitation_delay']) writeFileSync(`/proc/sys/net/ipv6/conf/tap0/${setting}`, '0');
run('ip', 'link', 'set', 'tap0', 'up');
run('ip', 'route', 'add', 'default', 'via', '10.0.2.2');

/** What was done last, for whoever has to find out why it did not end. */
let doing = 'nothing';
setTimeout(() => {
  console.error(`stuck at ${doing}`, user.flows(), { frames });
  process.exit(1);
}, 30_000).unref();

const digest = (): ReturnType<typeof createHash> => createHash('sha1');

/** Sends data to a server that tells its hash, or takes it from one. */
async function transfer(
  host: string,
  local: string,
  toServer: boolean,
  size: number,
): Promise<{ right: boolean; seconds: number }> {
  doing = `${host} ${toServer ? 'to' : 'from'} server`;
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
  server.listen(0, local);
  await once(server, 'listening');
  const begun = performance.now();
  const client = connect((server.address() as AddressInfo).port, host);
  const [socket] = (await once(server, 'connection')) as [Socket];
  await Promise.all([toServer ? send(client) : receive(client), toServer ? receive(socket) : send(socket)]);
  server.close();
  return { right: sum.digest('hex') === want.digest('hex'), seconds: (performance.now() - begun) / 1000 };
}

/** A server of the guest's, reached by a port and by a Unix socket of the host's. @returns what it answers */
async function forwarded(): Promise<string[]> {
  doing = 'forwarded';
  const server = createServer((socket) => {
    socket.on('data', (data) => socket.end(`${data} from ${socket.remoteAddress}`));
  });
  server.listen(0, '10.0.2.15');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const path = join(mkdtempSync(join(tmpdir(), 'virelay-fwd-')), 'socket');
  const answers: string[] = [];
  for (const at of [{ address: '127.0.0.1', port: 0 }, { path }]) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    user.addForward({ protocol: 'tcp', at, guest: null, port }, { onReady: resolve, onFailure: reject });
    await promise;
    const client = at.path !== undefined ? connect(at.path) : connect(user.forwards.ports[0]!, '127.0.0.1');
    client.write('hello');
    let answer = '';
    for await (const chunk of client) answer += String(chunk);
    answers.push(answer);
    user.forwards.remove('tcp', at);
  }
  server.close();
  rmSync(dirname(path), { recursive: true });
  return answers;
}

async function refused(): Promise<string> {
  doing = 'refused';
  const [error] = (await once(connect(9, '10.0.2.2'), 'error')) as [NodeJS.ErrnoException];
  return error.code!;
}

async function datagram(size: number): Promise<boolean> {
  doing = `datagram of ${size}`;
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

/** A guest of our own asks for a host outside, which is this one by another name. @returns what answers came, by type */
async function pings(): Promise<[string, number, number][]> {
  doing = 'pings';
  writeFileSync('/proc/sys/net/ipv4/ping_group_range', '0 2147483647');
  run('ip', 'address', 'add', '192.0.2.1/32', 'dev', 'lo');
  run('ip', '-6', 'address', 'add', '2001:db8::1/128', 'dev', 'lo', 'nodad');
  const own = new UserNetwork({ plan: DEFAULT_PLAN, host: network, clock, random: seeded(2) });
  const guest = new TestGuest(own);
  const request = Uint8Array.of(8, 0, 0, 0, 0x12, 0x34, 0, 7, 104, 105);
  // The kernel takes its time until its new address has a route.
  const again = setInterval(() => {
    guest.send(GUEST, ip('192.0.2.1'), 1, request, 2);
    guest.send(GUEST6, ip('2001:db8::1'), 58, Uint8Array.of(128, ...request.subarray(1)), 2);
  }, 50);
  const answers = await Promise.all(
    ['192.0.2.1', '2001:db8::1'].map((source) => guest.next((seen) => seen.source === source, `an answer of ${source}`)),
  );
  clearInterval(again);
  own.close();
  return answers.map((seen) => [seen.source, seen.payload[0]!, intact(seen) ? get16(seen.payload, 4) : -1]);
}

/** The kernel makes itself an address from the router's advertisement. */
async function hasIpv6(): Promise<boolean> {
  for (let tries = 0; tries < 60; tries++) {
    const found = /inet6 fec0::[0-9a-f:]+\/64 scope site (?!tentative)/.test(run('ip', '-6', 'address', 'show', 'dev', 'tap0'));
    if (found && !/tentative/.test(run('ip', '-6', 'address', 'show', 'dev', 'tap0'))) return true;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return false;
}

const size = megabytes * 2 ** 20;
const streams = {
  toHost: await transfer('10.0.2.2', '127.0.0.1', true, size),
  toGuest: await transfer('10.0.2.2', '127.0.0.1', false, size),
  ipv6: (await hasIpv6()) && {
    toHost: await transfer('fec0::2', '::1', true, size),
    toGuest: await transfer('fec0::2', '::1', false, size),
  },
};
// Nobody makes good what datagrams lose.
lossy = false;
const result = {
  ...streams,
  refused: await refused(),
  forwarded: await forwarded(),
  pings: await pings(),
  datagrams: [await datagram(100), await datagram(9000)],
  frames,
  largest,
};
console.log(JSON.stringify(result));
process.exit(0);

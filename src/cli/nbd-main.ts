/** `virelay-nbd`: exports a disk image to NBD clients, as `qemu-nbd` does. */
import { spawn } from 'node:child_process';
import { unlinkSync, writeFileSync } from 'node:fs';
import { connectStream, serveStreams } from '../host/node/byte-streams.ts';
import type { ByteStream, StreamAddress } from '../host/host.ts';
import { DEFAULT_PORT } from '../storage/nbd-protocol.ts';
import { type NbdExport, serveNbd } from '../storage/nbd-server.ts';
import type { BlockNode } from '../storage/node.ts';
import { MemoryOverlay } from '../storage/overlay.ts';
import { RawNode } from '../storage/raw.ts';
import { type Arguments, CommandError, has, lastOf, parseArguments } from './img-args.ts';
import { cacheOf, complain, Images, print, sizeArgument } from './img-open.ts';

const PROGRAM = 'virelay-nbd';
const SHORT = 'hVb:p:k:o:f:rsne:tx:D:vLB:AdcTU';
const LONG = [
  'version',
  'bind=',
  'port=',
  'socket=',
  'offset=',
  'format=',
  'read-only',
  'snapshot',
  'nocache',
  'cache=',
  'aio=',
  'discard=',
  'detect-zeroes=',
  'shared=',
  'persistent',
  'export-name=',
  'description=',
  'verbose',
  'list',
  'fork',
  'pid-file=',
] as const;

const HELP = `usage: ${PROGRAM} [OPTIONS] FILE
       ${PROGRAM} -L [OPTIONS]

  -p, --port=PORT          port to listen on (${DEFAULT_PORT})
  -b, --bind=ADDRESS       interface to listen on (127.0.0.1)
  -k, --socket=PATH        Unix socket to listen on instead
  -e, --shared=N           clients at a time (1); 0 for any number
  -t, --persistent         go on when the last client is gone
  -v, --verbose            say what happens
  -x, --export-name=NAME   name of the export (the empty one)
  -D, --description=TEXT   describe the export
  -o, --offset=OFFSET      begin at this byte of the image
  -f, --format=FORMAT      format of the image
  -r, --read-only          let nobody write
  -s, --snapshot           keep what is written in memory, and forget it
      --cache=MODE         none, writeback (usual), writethrough, directsync, unsafe
      --discard=MODE       ignore (usual) or unmap
      --detect-zeroes=MODE off (usual), on, unmap
  -U                       export an image that is in use
      --image-opts         FILE is a list of options
      --object SECRET      as for virelay-img
      --fork               go on in the background, once clients can connect
      --pid-file=PATH      write the process id there
  -L, --list               list the exports of a server
`;

/** The value of an option by either of its names. */
const eitherOf = (args: Arguments, short: string, long: string): string | null => lastOf(args, short) ?? lastOf(args, long);
const given = (args: Arguments, short: string, long: string): boolean => has(args, short) || has(args, long);

function addressOf(args: Arguments): StreamAddress {
  const path = eitherOf(args, 'k', 'socket');
  if (path !== null) return { path };
  const port = Number(eitherOf(args, 'p', 'port') ?? DEFAULT_PORT);
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new CommandError('Invalid port number');
  // Whoever wants to be reached from elsewhere says so.
  return { host: eitherOf(args, 'b', 'bind') ?? '127.0.0.1', port };
}

async function openExport(images: Images, args: Arguments, name: string): Promise<BlockNode> {
  const snapshot = given(args, 's', 'snapshot');
  const readOnly = given(args, 'r', 'read-only');
  const cache = cacheOf(has(args, 'n') || has(args, 'nocache') ? 'none' : lastOf(args, 'cache'));
  const detect = lastOf(args, 'detect-zeroes') ?? 'off';
  const how = {
    writable: !readOnly && !snapshot,
    unmap: ['unmap', 'on'].includes(lastOf(args, 'discard') ?? 'ignore'),
    immediate: false,
    direct: cache.direct,
    noFlush: cache.noFlush,
  };
  const node = await images.open(name, { format: eitherOf(args, 'f', 'format'), imageOpts: has(args, 'image-opts'), how });
  let top = snapshot ? new MemoryOverlay(node) : node;
  if (detect !== 'off') {
    if (detect !== 'on' && detect !== 'unmap') throw new CommandError(`Invalid detect-zeroes mode \`${detect}'`);
    const { ZeroDetector } = await import('../storage/zero-detector.ts');
    top = new ZeroDetector(top, detect === 'unmap');
  }
  if (cache.writeThrough) {
    const { WriteThrough } = await import('../storage/policy.ts');
    top = new WriteThrough(top);
  }
  const offset = eitherOf(args, 'o', 'offset');
  if (offset === null) return top;
  const start = sizeArgument('offset', offset);
  return new RawNode(top, start, null, { writable: !readOnly, probed: false });
}

/** Serves until there is nothing left to do. */
async function serve(args: Arguments, name: string): Promise<number> {
  const images = new Images(args);
  const node = await openExport(images, args, name);
  const most = Number(eitherOf(args, 'e', 'shared') ?? 1);
  const exported: NbdExport = {
    name: eitherOf(args, 'x', 'export-name') ?? '',
    description: eitherOf(args, 'D', 'description') ?? '',
    node,
    readOnly: given(args, 'r', 'read-only'),
    multiConn: most !== 1,
  };
  const address = addressOf(args);
  const { promise: over, resolve: end } = Promise.withResolvers<void>();
  let clients = 0;
  const waiting: ByteStream[] = [];
  const begin = (stream: ByteStream): void => {
    clients++;
    serveNbd(stream, [exported])
      .catch((error: Error) => {
        if (given(args, 'v', 'verbose')) complain(`${PROGRAM}: ${error.message}`);
      })
      .finally(() => {
        clients--;
        const next = waiting.shift();
        if (next !== undefined) {
          next.resume();
          begin(next);
        } else if (clients === 0 && !given(args, 't', 'persistent')) end();
      });
  };
  const server = await serveStreams(address, (stream) => {
    if (most === 0 || clients < most) return begin(stream);
    stream.pause();
    waiting.push(stream);
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => end());
  announce(args, server.address);
  await over;
  const closing = server.close();
  await images.close();
  if ('path' in address) unlinkQuietly(address.path);
  // Clients that are still there are gone with us.
  await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, 100))]);
  return 0;
}

function announce(args: Arguments, address: StreamAddress): void {
  const pidFile = lastOf(args, 'pid-file');
  if (pidFile !== null) writeFileSync(pidFile, `${process.pid}\n`);
  if (given(args, 'v', 'verbose'))
    complain(`${PROGRAM}: listening on ${'path' in address ? address.path : `${address.host}:${address.port}`}`);
  // Whoever forked us waits for this.
  process.send?.('ready');
  process.disconnect?.();
}

function unlinkQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Someone else has been quicker.
  }
}

/** The same again as a process of its own. @returns when it serves */
function fork(argv: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, ...argv.filter((one) => one !== '--fork')], {
    detached: true,
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  return new Promise((resolve) => {
    child.once('message', () => {
      child.disconnect();
      child.unref();
      resolve(0);
    });
    child.once('exit', (status) => resolve(status ?? 1));
  });
}

async function list(args: Arguments): Promise<number> {
  const { listExports } = await import('../storage/nbd-client.ts');
  const stream = await connectStream(addressOf(args));
  const found = await listExports(stream);
  print(`exports available: ${found.length}\n`);
  for (const { name, description, size, flags } of found) {
    print(` export: '${name}'\n`);
    if (description !== '') print(`  description: ${description}\n`);
    print(`  size:  ${size}\n  flags: 0x${flags.toString(16)}\n`);
  }
  return 0;
}

async function main(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, SHORT, LONG);
  if (has(args, 'h') || has(args, 'help')) {
    print(HELP);
    return 0;
  }
  if (has(args, 'c') || has(args, 'd')) throw new CommandError('kernel devices (-c, -d) are not available');
  if (given(args, 'L', 'list')) return list(args);
  const [name, ...more] = args.rest;
  if (name === undefined || more.length > 0)
    throw new CommandError(`Invalid number of arguments\nTry \`${PROGRAM} --help' for more information.`);
  return has(args, 'fork') ? fork(argv) : serve(args, name);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  complain(`${PROGRAM}: ${(error as Error).message.replaceAll('virelay-img', PROGRAM)}`);
  process.exitCode = 1;
}

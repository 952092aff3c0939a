/** TCP and Unix sockets and processes as the streams that networks for machines are made of. */
import type { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import type { Accepted, Endpoint, HostStream, Listener, NetworkFailure, StreamEvents } from '../network.ts';
import { plainBytes } from './bytes.ts';
import { describeError } from './errors.ts';
import { removeStaleSocket } from './sockets.ts';

/** Loaded when it is first wanted: most machines have no use for it. */
const net = (): typeof import('node:net') => process.getBuiltinModule('node:net');

const FAILURES: Record<string, NetworkFailure> = {
  ECONNREFUSED: 'refused',
  ENOENT: 'refused',
  ENETUNREACH: 'unreachable',
  EHOSTUNREACH: 'unreachable',
  EADDRNOTAVAIL: 'unreachable',
  EACCES: 'unreachable',
  EPERM: 'unreachable',
  ETIMEDOUT: 'timed-out',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
};

export function failureOf(error: unknown): NetworkFailure {
  return FAILURES[(error as NodeJS.ErrnoException).code ?? ''] ?? 'other';
}

/** The writable half's work: whether a write has been taken tells how much is left in Node's queue. */
class StreamWriter {
  private readonly out: Writable;
  private readonly onDrain: () => void;
  private waiting = false;

  constructor(out: Writable, onDrain: () => void) {
    this.out = out;
    this.onDrain = onDrain;
  }

  private readonly written = (): void => {
    // Word of writes that were taken at once comes late, when another one may be under way.
    if (!this.waiting || this.out.writableLength > 0) return;
    this.waiting = false;
    this.onDrain();
  };

  write(data: Uint8Array): boolean {
    if (!this.out.writable) return true;
    this.out.write(data, this.written);
    // Sockets try to write at once; only what the kernel had no room for stays in the queue.
    this.waiting = this.out.writableLength > 0;
    return !this.waiting;
  }
}

/** Only TCP knows resets, and Node.js only of connections whose own direction has not been ended: others it would not let go. */
function resetSocket(socket: Socket, tcp: boolean): void {
  if (tcp && !socket.connecting && !socket.writableEnded) socket.resetAndDestroy();
  else socket.destroy();
}

class SocketStream implements HostStream {
  private readonly socket: Socket;
  private readonly tcp: boolean;
  private readonly writer: StreamWriter;
  private readonly events: StreamEvents;
  private over = false;

  /** @param socket one whose data come by its `data` events, or by `onData` */
  constructor(socket: Socket, tcp: boolean, events: StreamEvents) {
    this.socket = socket;
    this.tcp = tcp;
    this.events = events;
    socket.setNoDelay(true);
    let failure: NetworkFailure | null = null;
    const unlessOver = (act: () => void): void => {
      if (!this.over) act();
    };
    this.writer = new StreamWriter(socket, () => unlessOver(() => events.onDrain()));
    socket.on('end', () => unlessOver(() => events.onEnd()));
    socket.on('error', (error) => {
      failure = failureOf(error);
    });
    socket.on('close', () =>
      unlessOver(() => {
        this.over = true;
        events.onClose(failure);
      }),
    );
  }

  onData(data: Uint8Array): void {
    if (!this.over) this.events.onData(data);
  }

  write(data: Uint8Array): boolean {
    return this.writer.write(data);
  }

  end(): void {
    this.socket.end();
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  reset(): void {
    this.over = true;
    resetSocket(this.socket, this.tcp);
  }
}

/**
 * Where all sockets that we connect put what they receive, one after the other: a new buffer for each piece would have
 * the garbage collector at work all the time.
 */
let received: Uint8Array | undefined;
const RECEIVED_MOST = 1 << 18;

export function connectStream(to: Endpoint, from: Endpoint | null, events: StreamEvents): HostStream {
  const place = 'path' in to ? { path: to.path } : { host: to.address, port: to.port };
  const local = from === null || 'path' in from ? {} : { localAddress: from.address, localPort: from.port };
  received ??= new Uint8Array(RECEIVED_MOST);
  const onread = {
    buffer: received,
    callback: (count: number, bytes: Uint8Array): boolean => {
      stream.onData(bytes.subarray(0, count));
      return true;
    },
  };
  const socket = net().connect({ ...place, ...local, allowHalfOpen: true, autoSelectFamily: false, onread });
  socket.once('connect', () => events.onConnect?.());
  const stream = new SocketStream(socket, !('path' in to), events);
  return stream;
}

class AcceptedSocket implements Accepted {
  readonly peer: { readonly address: string; readonly port: number } | null;
  private readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
    const { remoteAddress, remotePort } = socket;
    // Servers on all addresses show IPv4 clients as mapped ones.
    const address = remoteAddress?.replace(/^::ffff:(?=\d+\.)/, '');
    this.peer = address === undefined || remotePort === undefined ? null : { address, port: remotePort };
    socket.on('error', () => undefined);
  }

  start(events: StreamEvents): HostStream {
    const stream = new SocketStream(this.socket, this.peer !== null, events);
    this.socket.on('data', (data: Buffer) => stream.onData(plainBytes(data)));
    this.socket.resume();
    return stream;
  }

  refuse(): void {
    resetSocket(this.socket, this.peer !== null);
  }
}

export function listenStream(
  at: Endpoint,
  onStream: (stream: Accepted) => void,
  outcome: { onReady?(): void; onFailure(error: Error): void },
): Listener {
  if ('path' in at) removeStaleSocket(at);
  const server = net().createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) =>
    onStream(new AcceptedSocket(socket)),
  );
  server.on('error', (error) => outcome.onFailure(new Error(describeError(error))));
  server.listen('path' in at ? { path: at.path } : { host: at.address, port: at.port }, () => outcome.onReady?.());
  return {
    get port() {
      const address = server.address();
      return address !== null && typeof address === 'object' ? address.port : 0;
    },
    close: () => {
      server.close();
    },
  };
}

function endGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGTERM');
  } catch {
    // It has just ended by itself.
  }
}

/** A process is over when it has closed its output and nothing more is for it: what it ignores is lost. */
export function commandStream(line: string, events: StreamEvents): HostStream {
  const child = process
    .getBuiltinModule('node:child_process')
    .spawn('/bin/sh', ['-c', line], { stdio: ['pipe', 'pipe', 'inherit'], detached: true });
  const output = child.stdout;
  let over = false;
  let exited = false;
  let ended = false;
  const close = (failure: NetworkFailure | null): void => {
    if (over) return;
    over = true;
    events.onClose(failure);
  };
  const writer = new StreamWriter(child.stdin, () => over || events.onDrain());
  child.on('spawn', () => over || events.onConnect?.());
  child.on('error', (error) => close(failureOf(error)));
  child.stdin.on('error', () => undefined);
  output.on('data', (data: Buffer) => over || events.onData(plainBytes(data)));
  output.on('end', () => over || events.onEnd());
  child.on('close', () => {
    exited = true;
    if (ended) close(null);
  });
  return {
    write: (data) => writer.write(data),
    end: () => {
      ended = true;
      child.stdin.end();
      if (exited) queueMicrotask(() => close(null));
    },
    pause: () => {
      output.pause();
    },
    resume: () => {
      output.resume();
    },
    reset: () => {
      over = true;
      // All that the shell has started.
      if (child.pid !== undefined && child.exitCode === null) endGroup(child.pid);
      child.stdin.destroy();
      output.destroy();
    },
  };
}

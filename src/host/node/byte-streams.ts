/** TCP and Unix sockets for protocols that frame messages themselves. */
import type { Socket } from 'node:net';
import type { ByteStream, StreamAddress, StreamServer } from '../host.ts';
import { describeError } from './errors.ts';
import { removeStaleSocket } from './sockets.ts';

/** Loaded when it is needed. */
const net = () => process.getBuiltinModule('node:net');

class SocketStream implements ByteStream {
  onData: (chunk: Uint8Array) => void = () => undefined;
  onEnd: (error: Error | null) => void = () => undefined;
  private readonly socket: Socket;
  private failure: Error | null = null;
  private ended = false;
  private draining: PromiseWithResolvers<void> | null = null;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Uint8Array) => this.onData(chunk));
    socket.on('error', (error) => {
      this.failure = new Error(describeError(error));
    });
    socket.on('drain', () => this.drained());
    socket.on('close', () => {
      this.ended = true;
      this.drained();
      this.onEnd(this.failure);
    });
  }

  private drained(): void {
    this.draining?.resolve();
    this.draining = null;
  }

  write(...pieces: readonly Uint8Array[]): void | Promise<void> {
    if (this.ended) return;
    let room = true;
    this.socket.cork();
    for (const piece of pieces) room = this.socket.write(piece);
    this.socket.uncork();
    if (room) return;
    this.draining ??= Promise.withResolvers<void>();
    return this.draining.promise;
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  close(): void {
    this.socket.end();
    // A peer that does not answer cannot hold us.
    this.socket.setTimeout(1000, () => this.socket.destroy());
  }
}

const optionsOf = (address: StreamAddress) => ('path' in address ? { path: address.path } : address);

/** @throws Error in one line */
export function connectStream(address: StreamAddress): Promise<ByteStream> {
  return new Promise((resolve, reject) => {
    const socket = net().connect(optionsOf(address));
    const fail = (error: Error): void => reject(new Error(describeError(error)));
    socket.once('error', fail);
    socket.once('connect', () => {
      socket.removeListener('error', fail);
      resolve(new SocketStream(socket));
    });
  });
}

/** @throws Error in one line */
export function serveStreams(address: StreamAddress, accept: (stream: ByteStream) => void): Promise<StreamServer> {
  removeStaleSocket(address);
  return new Promise((resolve, reject) => {
    const server = net().createServer((socket) => accept(new SocketStream(socket)));
    server.once('error', (error) => reject(new Error(describeError(error))));
    server.listen(optionsOf(address), () => {
      const bound = server.address();
      const used = typeof bound === 'object' && bound !== null ? { host: bound.address, port: bound.port } : address;
      resolve({ address: used, close: () => new Promise((done) => server.close(() => done())) });
    });
  });
}

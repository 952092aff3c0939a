/** TCP and Unix sockets as character streams: a client, or a server for one client at a time. */
import { lstatSync, unlinkSync } from 'node:fs';
import type { Server, Socket } from 'node:net';
import type { Channel } from '../host.ts';
import { describeError } from './errors.ts';

/** Loaded when it is needed. */
const net = () => process.getBuiltinModule('node:net');

export type Address = { readonly path: string } | { readonly host: string; readonly port: number };

export interface SocketMode {
  readonly server: boolean;
  /** Do not go on before the first client is there. */
  readonly wait: boolean;
}

/** The stream outlives its connections: what is written while nobody is connected is lost. */
class SocketChannel implements Channel {
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
  readonly connected = Promise.withResolvers<void>();
  server: Server | null = null;
  private socket: Socket | null = null;
  private controller: ReadableStreamDefaultController<Uint8Array> | null = null;

  constructor() {
    this.readable = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.controller = controller;
      },
      pull: () => {
        this.socket?.resume();
      },
    });
    this.writable = new WritableStream<Uint8Array>({ write: (data) => this.write(data) });
  }

  get busy(): boolean {
    return this.socket !== null;
  }

  adopt(socket: Socket): void {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.controller?.enqueue(new Uint8Array(chunk));
      if ((this.controller?.desiredSize ?? 0) <= 0) socket.pause();
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.socket = null;
    });
    this.connected.resolve();
  }

  close(): Promise<void> {
    this.server?.close();
    const { socket } = this;
    if (socket === null) return Promise.resolve();
    return new Promise((resolve) => {
      // What has been written still arrives, but a client that reads nothing cannot hold us.
      const limit = setTimeout(() => socket.destroy(), 1000);
      socket.on('close', () => {
        clearTimeout(limit);
        resolve();
      });
      socket.end();
      socket.resume();
    });
  }

  private write(data: Uint8Array): Promise<void> | undefined {
    const { socket } = this;
    if (socket === null) return undefined;
    return new Promise((resolve) => {
      socket.once('close', resolve);
      socket.write(data, () => {
        socket.removeListener('close', resolve);
        resolve();
      });
    });
  }
}

/** A socket that a former run has left behind is in the way of a new server. */
export function removeStaleSocket(address: Address): void {
  if (!('path' in address)) return;
  try {
    if (lstatSync(address.path).isSocket()) unlinkSync(address.path);
  } catch {
    // Not there: fine. Anything else is told by listen().
  }
}

function listen(channel: SocketChannel, address: Address): Promise<void> {
  removeStaleSocket(address);
  return new Promise((resolve, reject) => {
    const server = net().createServer((socket) => {
      if (channel.busy) socket.destroy();
      else channel.adopt(socket);
    });
    channel.server = server;
    server.on('error', reject);
    server.listen('path' in address ? { path: address.path } : listenOptions(address), resolve);
  });
}

function listenOptions({ host, port }: { host: string; port: number }) {
  return host === '' ? { port } : { host, port };
}

function connectTo(channel: SocketChannel, address: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    const options =
      'path' in address ? { path: address.path } : { host: address.host === '' ? 'localhost' : address.host, port: address.port };
    const socket = net().connect(options, () => {
      socket.removeListener('error', reject);
      channel.adopt(socket);
      resolve();
    });
    socket.on('error', reject);
  });
}

function describe(address: Address): string {
  return 'path' in address ? `unix:${address.path}` : `tcp:${address.host}:${address.port}`;
}

/** @throws Error in one line */
export async function openSocket(address: Address, mode: SocketMode, onWait: (address: string) => void): Promise<Channel> {
  const channel = new SocketChannel();
  try {
    if (mode.server) await listen(channel, address);
    else await connectTo(channel, address);
  } catch (error) {
    throw new Error(describeError(error));
  }
  if (mode.server && mode.wait) {
    onWait(describe(address));
    await channel.connected.promise;
  }
  return channel;
}

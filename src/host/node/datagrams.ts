/** UDP and ICMP echo sockets. Unix datagram sockets are beyond what Node.js offers. */
import { closeSync } from 'node:fs';
import type { Socket } from 'node:dgram';
import type { DatagramEvents, DatagramOptions, Endpoint, HostDatagrams } from '../network.ts';
import { plainBytes } from './bytes.ts';
import { describeError } from './errors.ts';
import { library } from './libc.ts';
import { failureOf } from './streams.ts';

/** Loaded when it is first wanted: most machines have no use for it. */
const dgram = (): typeof import('node:dgram') => process.getBuiltinModule('node:dgram');

/** What a socket may have waiting in it, bytes. */
const BUFFER = 1 << 20;

type Outcome = { onReady?(port: number): void; onFailure(error: Error): void };
type Waiting = { readonly data: Uint8Array; readonly to: Endpoint | null };

/** Bytes that Node.js may hold back for the kernel. */
const MAX_QUEUED = 1 << 21;
/** Datagrams that wait for the socket to be bound. */
const MAX_WAITING = 64;

/**
 * A socket hears of closed ports only when it is connected. One that may send anywhere is connected to its first
 * correspondent, and opened anew, at the same port, when a second one comes.
 */
class UdpSocket implements HostDatagrams {
  private socket: Socket;
  private readonly options: DatagramOptions;
  private readonly events: DatagramEvents;
  private readonly outcome: Outcome;
  private closed = false;
  private bound = 0;
  /** Null once the socket can send. */
  private waiting: Waiting[] | null = [];
  private readonly mayConnect: boolean;
  private correspondent: { readonly address: string; readonly port: number } | null = null;

  constructor(options: DatagramOptions, events: DatagramEvents, outcome: Outcome) {
    const { family, bind, connect } = options;
    if (family === 'unix') throw new Error('Unix datagram sockets are not available here');
    this.options = options;
    this.events = events;
    this.outcome = outcome;
    this.mayConnect = bind === null && connect === undefined;
    const to = connect === undefined || 'path' in connect ? null : connect;
    this.socket = this.open(bind === null || 'path' in bind ? { port: 0 } : bind, to);
  }

  get port(): number {
    return this.bound;
  }

  send(data: Uint8Array, to: Endpoint | null): void {
    if (this.closed) return;
    // The kernel takes a datagram at once, or not at all; Node.js does not say when.
    const copy = new Uint8Array(data);
    if (this.mayConnect && to !== null && 'address' in to) this.consider(to);
    if (this.waiting === null) this.sendNow(copy, to);
    else if (this.waiting.length < MAX_WAITING) this.waiting.push({ data: copy, to });
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.socket.close();
  }

  private open(bind: { address?: string; port: number }, connect: { address: string; port: number } | null): Socket {
    const socket = dgram().createSocket({
      type: this.options.family === 4 ? 'udp4' : 'udp6',
      reuseAddr: this.options.multicast !== undefined,
    });
    const current = (): boolean => !this.closed && socket === this.socket;
    socket.on('message', (data, { address, port }) => {
      if (current()) this.events.onData(plainBytes(data), address, port);
    });
    socket.on('error', (error) => {
      if (!current()) return;
      if (this.waiting === null) this.events.onFailure?.(failureOf(error));
      else this.outcome.onFailure(new Error(describeError(error)));
    });
    socket.bind(bind, () => {
      if (!current()) return;
      this.bound = socket.address().port;
      if (connect === null) return this.ready();
      socket.connect(connect.port, connect.address, () => {
        if (current()) this.ready();
      });
    });
    return socket;
  }

  /** Whom the next datagram is for decides what the socket is. */
  private consider(to: { readonly address: string; readonly port: number }): void {
    const known = this.correspondent;
    if (known !== null && (known === ANYBODY || (known.port === to.port && known.address === to.address))) return;
    this.correspondent = known === null ? to : ANYBODY;
    this.waiting ??= [];
    const { socket, bound } = this;
    if (known === null && bound !== 0) {
      socket.connect(to.port, to.address, () => {
        if (!this.closed && socket === this.socket) this.ready();
      });
      return;
    }
    this.socket = this.open({ port: bound }, known === null ? to : null);
    socket.close();
  }

  private ready(): void {
    const { waiting } = this;
    this.waiting = null;
    try {
      this.socket.setRecvBufferSize(BUFFER);
      this.socket.setSendBufferSize(BUFFER);
    } catch {
      // The host's usual sizes do.
    }
    this.join();
    for (const { data, to } of waiting ?? []) this.sendNow(data, to);
    this.outcome.onReady?.(this.bound);
  }

  private join(): void {
    const { multicast } = this.options;
    if (multicast === undefined) return;
    this.socket.addMembership(multicast.group, multicast.local ?? undefined);
    if (multicast.local !== null) this.socket.setMulticastInterface(multicast.local);
    this.socket.setMulticastLoopback(true);
  }

  private sendNow(data: Uint8Array, to: Endpoint | null): void {
    const sent = (error: Error | null): void => {
      if (error !== null && !this.closed) this.events.onFailure?.(failureOf(error));
    };
    // What the kernel has no room for is lost, as on any full link.
    if (this.socket.getSendQueueSize() > MAX_QUEUED) return;
    const connected = this.correspondent !== null && this.correspondent !== ANYBODY;
    try {
      if (to === null || 'path' in to || connected) this.socket.send(data, sent);
      else this.socket.send(data, to.port, to.address, sent);
    } catch (error) {
      sent(error as Error);
    }
  }
}

/** The correspondent of a socket that has had more than one. */
const ANYBODY = { address: '', port: 0 };

/** @throws Error, one line */
export function openDatagrams(
  options: DatagramOptions,
  events: DatagramEvents,
  outcome: { onReady?(port: number): void; onFailure(error: Error): void },
): HostDatagrams {
  return new UdpSocket(options, events, outcome);
}

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;

/** Linux lets some groups of users send echo requests (net.ipv4.ping_group_range). */
export function openPing(family: 4 | 6, onReply: (message: Uint8Array) => void): HostDatagrams | null {
  const c = library();
  if (c === null) return null;
  const fd = family === 4 ? c.socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP) : c.socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6);
  if (fd < 0) return null;
  const socket = dgram().createSocket(family === 4 ? 'udp4' : 'udp6');
  socket.on('message', (message) => onReply(plainBytes(message)));
  socket.on('error', () => undefined);
  try {
    socket.bind({ fd, exclusive: true });
  } catch {
    closeSync(fd);
    return null;
  }
  return {
    port: 0,
    // Such sockets have no ports, but Node.js wants one.
    send: (data, to) => {
      if (to !== null && 'address' in to) socket.send(new Uint8Array(data), 1, to.address, () => undefined);
    },
    close: () => {
      socket.close();
    },
  };
}

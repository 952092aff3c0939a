/** UDP and ICMP echo sockets. Unix datagram sockets are beyond what Node.js offers. */
import { closeSync } from 'node:fs';
import { createSocket, type Socket } from 'node:dgram';
import type { DatagramEvents, DatagramOptions, Endpoint, HostDatagrams } from '../network.ts';
import { describeError } from './errors.ts';
import { library } from './libc.ts';
import { failureOf } from './streams.ts';

/** What a socket may have waiting in it, bytes. */
const BUFFER = 1 << 20;

class UdpSocket implements HostDatagrams {
  private readonly socket: Socket;
  private readonly options: DatagramOptions;
  private readonly events: DatagramEvents;
  private closed = false;
  /** Datagrams sent before the socket was bound and connected. */
  private early: { data: Uint8Array; to: Endpoint | null }[] | null = [];

  constructor(
    options: DatagramOptions,
    events: DatagramEvents,
    outcome: { onReady?(port: number): void; onFailure(error: Error): void },
  ) {
    this.options = options;
    this.events = events;
    const { family, bind, connect } = options;
    if (family === 'unix') throw new Error('Unix datagram sockets are not available here');
    this.socket = createSocket({ type: family === 4 ? 'udp4' : 'udp6', reuseAddr: options.multicast !== undefined });
    this.socket.on('message', (data, { address, port }) => this.closed || events.onData(data, address, port));
    this.socket.on('error', (error) => {
      if (this.closed) return;
      if (this.early === null) events.onFailure?.(failureOf(error));
      else outcome.onFailure(new Error(describeError(error)));
    });
    const place = bind === null || 'path' in bind ? { port: 0 } : { address: bind.address, port: bind.port };
    this.socket.bind(place, () => {
      if (this.closed) return;
      if (connect === undefined || 'path' in connect) return this.ready(outcome);
      this.socket.connect(connect.port, connect.address, () => this.closed || this.ready(outcome));
    });
  }

  get port(): number {
    return this.early === null && !this.closed ? this.socket.address().port : 0;
  }

  send(data: Uint8Array, to: Endpoint | null): void {
    if (this.closed) return;
    // The kernel takes a datagram at once, or not at all; Node.js does not say when.
    const copy = Uint8Array.from(data);
    if (this.early !== null) {
      if (this.early.length < 64) this.early.push({ data: copy, to });
      return;
    }
    this.sendNow(copy, to);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.socket.close();
  }

  private ready(outcome: { onReady?(port: number): void }): void {
    const { early } = this;
    this.early = null;
    try {
      this.socket.setRecvBufferSize(BUFFER);
      this.socket.setSendBufferSize(BUFFER);
    } catch {
      // The host's usual sizes do.
    }
    hearErrors(this.socket, this.options.family === 4);
    this.join();
    for (const { data, to } of early ?? []) this.sendNow(data, to);
    outcome.onReady?.(this.socket.address().port);
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
    try {
      if (to === null || 'path' in to) this.socket.send(data, sent);
      else this.socket.send(data, to.port, to.address, sent);
    } catch (error) {
      sent(error as Error);
    }
  }
}

const IPPROTO_IP = 0;
const IPPROTO_IPV6 = 41;
const IP_RECVERR = 11;
const IPV6_RECVERR = 25;

/** Lets the socket hear of closed ports though it is not connected (ip(7)); without that it just gets no answer. */
function hearErrors(socket: Socket, v4: boolean): void {
  const { fd } = (socket as unknown as { _handle?: { fd?: number } })._handle ?? {};
  const c = library();
  if (c === null || fd === undefined || fd < 0) return;
  const on = Uint8Array.of(1, 0, 0, 0);
  if (v4) c.setsockopt(fd, IPPROTO_IP, IP_RECVERR, on, on.length);
  else c.setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, on, on.length);
}

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
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
  socket.on('message', onReply);
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
      if (to !== null && 'address' in to) socket.send(Uint8Array.from(data), 1, to.address, () => undefined);
    },
    close: () => {
      socket.close();
    },
  };
}

/** All TCP connections of a network: segments find theirs, new ones are opened, strays are reset. */
import type { Accepted, HostStream, StreamEvents } from '../../../host/network.ts';
import type { Timer, VirtualClock } from '../../../machine/interfaces.ts';
import type { IpAddress } from '../../address.ts';
import { get16, PROTOCOL_TCP, put16, put32, TCP_ACK, TCP_FIN, TCP_RST, TCP_SIZE, TCP_SYN } from '../../layout.ts';
import { Budget } from '../../byte-ring.ts';
import type { NetworkFlow } from '../flows.ts';
import { type IpLayer, type Obstacle, Packet, sealFully } from '../packet.ts';
import { Connection, type TcpContext } from './connection.ts';
import { Segment } from './segment.ts';

/** Connections at a time; one more is answered as by a host with no room, if none is merely waiting for its end. */
const MAX_CONNECTIONS = 1024;
/** Memory that the connections' queues may take together, bytes. */
const MEMORY = 1 << 27;
/** Nanoseconds between two looks at memory that is not in use. */
const RELAX_EVERY = 5e9;
/** What an error may repeat of the segment that it is about. */
const QUOTE = 128;

/** Opens the host's side of a connection. @returns why not otherwise; null for "refused" */
export type Opener = (destination: IpAddress, port: number, events: StreamEvents) => HostStream | { obstacle: Obstacle | null };

export class Tcp implements TcpContext {
  readonly budget = new Budget(MEMORY);
  readonly clock: VirtualClock;
  private readonly open: Opener;
  private readonly random: () => number;
  private readonly byFlow = new Map<string, Connection>();
  /** Also those that the guest has forgotten, while the host still takes what it sent. */
  private readonly all = new Set<Connection>();
  private readonly waiting = new Set<Connection>();
  private readonly segment = new Segment();
  private readonly relaxing: Timer;

  /** @param random 32 bits */
  constructor(clock: VirtualClock, open: Opener, random: () => number) {
    this.clock = clock;
    this.open = open;
    this.random = random;
    this.relaxing = clock.timer((now) => this.relax(now));
  }

  get connections(): number {
    return this.all.size;
  }

  flows(): NetworkFlow[] {
    return [...this.byFlow.values()].map((connection) => connection.flow());
  }

  input(packet: Packet): void {
    const { segment } = this;
    if (!segment.read(packet) || !packet.intact()) return;
    const key = keyOf(packet.bytes, packet.addresses, packet.ip.addressBytes, segment.sourcePort, segment.port);
    const connection = this.byFlow.get(key);
    const opens = (segment.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) === TCP_SYN;
    if (connection !== undefined && !(opens && connection.givesWayTo(segment))) return connection.input(segment);
    connection?.destroy();
    if (opens) this.accept(packet, segment, key);
    else if ((segment.flags & TCP_RST) === 0) this.reset(packet, segment);
  }

  /** Somebody outside wants to connect to the guest. @param peer as the guest shall see it */
  forward(ip: IpLayer, guest: IpAddress, guestPort: number, peer: IpAddress, peerPort: number, accepted: Accepted): void {
    const addresses = Uint8Array.from([...guest, ...peer]);
    const key = keyOf(addresses, 0, ip.addressBytes, guestPort, peerPort);
    if (this.byFlow.has(key) || !this.makeRoom()) return accepted.refuse();
    const connection = new Connection({ ip, guest, guestPort, peer, peerPort }, this, this.random(), 'syn-sent');
    this.add(key, connection);
    connection.attach(accepted.start(connection));
    connection.connectToGuest();
  }

  /** The card has room again: all connections have their turn. */
  onRoom(link: { readonly blocked: boolean }): void {
    for (const connection of [...this.waiting]) {
      if (link.blocked) return;
      this.waiting.delete(connection);
      connection.pump();
    }
  }

  close(): void {
    for (const connection of [...this.all]) connection.destroy();
    this.relaxing.cancel();
  }

  // TcpContext.

  awaitRoom(connection: Connection): void {
    this.waiting.add(connection);
  }

  released(connection: Connection): void {
    this.waiting.delete(connection);
    const { ip, guest, guestPort, peer, peerPort } = connection.ends;
    const key = keyOf(Uint8Array.from([...guest, ...peer]), 0, ip.addressBytes, guestPort, peerPort);
    if (this.byFlow.get(key) === connection) this.byFlow.delete(key);
  }

  gone(connection: Connection): void {
    this.all.delete(connection);
  }

  /** What was needed once need not be needed now. */
  private relax(now: number): void {
    for (const connection of this.all) connection.relax();
    if (this.all.size > 0) this.relaxing.arm(now + RELAX_EVERY);
  }

  private add(key: string, connection: Connection): void {
    if (this.relaxing.deadline === Infinity) this.relaxing.arm(this.clock.now() + RELAX_EVERY);
    this.byFlow.set(key, connection);
    this.all.add(connection);
  }

  private makeRoom(): boolean {
    if (this.all.size < MAX_CONNECTIONS) return true;
    for (const connection of this.all) {
      if (connection.state !== 'time-wait') continue;
      connection.destroy();
      return true;
    }
    return false;
  }

  private accept(packet: Packet, segment: Segment, key: string): void {
    const { ip, source, destination } = packet;
    if (packet.hops <= 1) return ip.refuse(packet, 'time');
    if (!this.makeRoom()) return this.reset(packet, segment);
    const ends = { ip, guest: source, guestPort: segment.sourcePort, peer: destination, peerPort: segment.port };
    const connection = new Connection(ends, this, this.random(), 'opening');
    connection.accept(segment);
    const opened = this.open(destination, segment.port, connection);
    if ('obstacle' in opened) {
      if (opened.obstacle === null || opened.obstacle === 'prohibited') this.reset(packet, segment);
      else ip.refuse(packet, opened.obstacle);
      return;
    }
    connection.attach(opened);
    connection.onUnreachable = unreachable(packet);
    this.add(key, connection);
  }

  /** RFC 9293, 3.10.7.1. */
  private reset(packet: Packet, segment: Segment): void {
    const { ip, source, destination } = packet;
    const { flags, length } = segment;
    const { frame } = ip.link;
    const at = ip.payloadAt;
    const answers = (flags & TCP_ACK) !== 0;
    const consumed = length + ((flags & TCP_SYN) >> 1) + (flags & TCP_FIN);
    put16(frame, at, segment.port);
    put16(frame, at + 2, segment.sourcePort);
    put32(frame, at + 4, answers ? segment.acknowledged : 0);
    put32(frame, at + 8, answers ? 0 : segment.sequence + consumed);
    put16(frame, at + 12, (TCP_SIZE << 10) | TCP_RST | (answers ? 0 : TCP_ACK));
    put32(frame, at + 14, 0);
    put16(frame, at + 18, 0);
    sealFully(ip, destination, source, PROTOCOL_TCP, TCP_SIZE, 16);
    ip.output(PROTOCOL_TCP, destination, source, TCP_SIZE, false);
  }
}

/** Keeps what an error has to repeat of a packet. */
function unreachable({ ip, bytes, header, addresses, start, end, protocol }: Packet): (why: Obstacle) => void {
  const kept = bytes.slice(header, Math.min(end, header + QUOTE));
  return (why) => {
    const packet = new Packet();
    packet.ip = ip;
    packet.bytes = kept;
    packet.header = 0;
    packet.addresses = addresses - header;
    packet.start = start - header;
    packet.end = kept.length;
    packet.protocol = protocol;
    ip.refuse(packet, why);
  };
}

/** The four ends of a connection as text. @param at the guest's address, followed by the other one */
function keyOf(bytes: Uint8Array, at: number, addressBytes: 4 | 16, guestPort: number, peerPort: number): string {
  const word = (offset: number): number => get16(bytes, at + offset);
  if (addressBytes === 4) return String.fromCharCode(word(0), word(2), word(4), word(6), guestPort, peerPort);
  let key = String.fromCharCode(guestPort, peerPort);
  for (let offset = 0; offset < 32; offset += 8) {
    key += String.fromCharCode(word(offset), word(offset + 2), word(offset + 4), word(offset + 6));
  }
  return key;
}

/** ICMP (RFC 792): echo, and word of packets that could not be delivered. */
import { sameAddress } from '../address.ts';
import { addBytes, finish } from '../checksum.ts';
import { get16, PROTOCOL_ICMP, put16, put32 } from '../layout.ts';
import type { Ipv4 } from './ipv4.ts';
import type { Obstacle, Packet } from './packet.ts';
import type { PingRelay } from './ping.ts';

const ECHO_REPLY = 0;
const UNREACHABLE = 3;
const ECHO = 8;
const TIME_EXCEEDED = 11;
const HEADER = 8;
/** What an error may repeat of the packet it is about, so that it is at most 576 bytes long (RFC 1812, 4.3.2.3). */
const QUOTE = 576 - 20 - HEADER;

/** Type and code (RFC 792; RFC 1812, 5.2.7.1 for "administratively prohibited"). */
const ERRORS: Record<Obstacle, readonly [number, number]> = {
  network: [UNREACHABLE, 0],
  host: [UNREACHABLE, 1],
  port: [UNREACHABLE, 3],
  prohibited: [UNREACHABLE, 13],
  time: [TIME_EXCEEDED, 0],
};

export class Icmp {
  private readonly ip: Ipv4;
  private readonly ping: PingRelay | null;

  /** @param ping the way to hosts outside, unless the network is shut off */
  constructor(ip: Ipv4, ping: PingRelay | null) {
    this.ip = ip;
    this.ping = ping;
  }

  input(packet: Packet): void {
    const { bytes, start, end } = packet;
    if (end - start < HEADER || finish(addBytes(0, bytes, start, end)) !== 0) return;
    if (bytes[start] !== ECHO) return;
    const { self, plan } = this.ip;
    const to = packet.destination;
    if (!sameAddress(to, self) && !sameAddress(to, plan.dns)) {
      this.ping?.send(packet);
      return;
    }
    const { frame } = this.ip.link;
    frame.set(bytes.subarray(start, end), this.ip.payloadAt);
    frame[this.ip.payloadAt] = ECHO_REPLY;
    this.finish(to, packet.source, end - start);
  }

  /** An answer from outside. @param message whole, with the guest's identifier */
  reply(from: Uint8Array, to: Uint8Array, message: Uint8Array): void {
    this.ip.link.frame.set(message, this.ip.payloadAt);
    this.finish(from, to, message.length);
  }

  /** Nobody is told of what happened to an error, a fragment, or a packet to many (RFC 1122, 3.2.2). */
  error(packet: Packet, why: Obstacle): void {
    const { bytes, header, start, end, protocol } = packet;
    if (protocol === PROTOCOL_ICMP && bytes[start] !== ECHO) return;
    const quote = Math.min(end - header, QUOTE);
    const { frame } = this.ip.link;
    const at = this.ip.payloadAt;
    const [type, code] = ERRORS[why];
    frame[at] = type;
    frame[at + 1] = code;
    put32(frame, at + 4, 0);
    frame.set(bytes.subarray(header, header + quote), at + HEADER);
    this.finish(this.ip.self, packet.source, HEADER + quote);
  }

  private finish(from: Uint8Array, to: Uint8Array, length: number): void {
    const { frame } = this.ip.link;
    const at = this.ip.payloadAt;
    put16(frame, at + 2, 0);
    put16(frame, at + 2, finish(addBytes(0, frame, at, at + length)));
    this.ip.output(PROTOCOL_ICMP, from, to, length, false);
  }
}

/** The identifier that tells one program's echo requests from another's. */
export const echoId = (bytes: Uint8Array, at: number): number => get16(bytes, at + 4);

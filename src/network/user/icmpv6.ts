/** ICMPv6: echo and errors (RFC 4443), neighbours (RFC 4861), and the router's advertisements (RFC 4861, 8106). */
import type { Timer, VirtualClock } from '../../machine/interfaces.ts';
import { parseIpv6, sameAddress, type IpAddress } from '../address.ts';
import { PROTOCOL_ICMPV6, put16, put32 } from '../layout.ts';
import { LOCAL_HOPS, macOfIpv6, ROUTER, type Ipv6 } from './ipv6.ts';
import { type Obstacle, type Packet, sealFully } from './packet.ts';
import type { PingRelay } from './ping.ts';

const UNREACHABLE = 1;
const TIME_EXCEEDED = 3;
export const ECHO6 = 128;
export const ECHO6_REPLY = 129;
const ROUTER_SOLICITATION = 133;
const ROUTER_ADVERTISEMENT = 134;
const NEIGHBOUR_SOLICITATION = 135;
const NEIGHBOUR_ADVERTISEMENT = 136;

const OPTION_SOURCE_MAC = 1;
const OPTION_TARGET_MAC = 2;
const OPTION_PREFIX = 3;
const OPTION_DNS = 25;

const HEADER = 8;
const NEIGHBOUR_SIZE = 24;
/** Errors are no longer than any link must carry (RFC 4443, 2.4). */
const QUOTE = 1280 - 40 - HEADER;
const ALL_NODES = parseIpv6('ff02::1')!;
/** Seconds. */
const ROUTER_LIFETIME = 1800;
const PREFIX_VALID = 86400;
const PREFIX_PREFERRED = 14400;
const ADVERTISE_EVERY = 400e9;
/** "Other configuration": DHCPv6 has more to tell. */
const FLAG_OTHER = 0x40;

const ERRORS: Record<Obstacle, readonly [number, number]> = {
  network: [UNREACHABLE, 0],
  host: [UNREACHABLE, 3],
  port: [UNREACHABLE, 4],
  prohibited: [UNREACHABLE, 1],
  time: [TIME_EXCEEDED, 0],
};

export class Icmpv6 {
  private readonly ip: Ipv6;
  private readonly ping: PingRelay | null;
  private readonly restricted: boolean;
  private readonly clock: VirtualClock;
  private readonly timer: Timer;

  /** @param ping the way to hosts outside, unless the network is shut off */
  constructor(ip: Ipv6, clock: VirtualClock, ping: PingRelay | null, restricted: boolean) {
    this.ip = ip;
    this.ping = ping;
    this.restricted = restricted;
    this.timer = clock.timer((now) => {
      this.advertise();
      this.timer.arm(now + ADVERTISE_EVERY);
    });
    this.clock = clock;
  }

  input(packet: Packet): void {
    const { bytes, start, end } = packet;
    if (end - start < HEADER || !packet.intact()) return;
    switch (bytes[start]) {
      case ECHO6:
        return this.echo(packet);
      case ROUTER_SOLICITATION:
        if (packet.hops !== LOCAL_HOPS) return;
        // Nobody is told anything before somebody has asked.
        if (this.timer.deadline === Infinity) this.timer.arm(this.clock.now() + ADVERTISE_EVERY);
        return this.advertise();
      case NEIGHBOUR_SOLICITATION:
        return this.solicited(packet);
      case NEIGHBOUR_ADVERTISEMENT:
        return this.learnTarget(packet);
    }
  }

  /** Asks who has an address. */
  ask(address: IpAddress): void {
    const { ip } = this;
    const group = parseIpv6('ff02::1:ff00:0')!;
    group.set(address.subarray(13), 13);
    const { frame } = ip.link;
    const at = ip.payloadAt;
    frame.fill(0, at, at + NEIGHBOUR_SIZE);
    frame[at] = NEIGHBOUR_SOLICITATION;
    frame.set(address, at + 8);
    this.putMac(at + NEIGHBOUR_SIZE, OPTION_SOURCE_MAC, ip.mac);
    this.send(ROUTER, group, NEIGHBOUR_SIZE + 8, LOCAL_HOPS);
  }

  /** An answer from outside. */
  reply(from: IpAddress, to: IpAddress, message: Uint8Array): void {
    this.ip.link.frame.set(message, this.ip.payloadAt);
    this.send(from, to, message.length);
  }

  /** Errors about errors, or about what went to many, are not sent (RFC 4443, 2.4). */
  error(packet: Packet, why: Obstacle): void {
    const { bytes, header, start, end, protocol } = packet;
    if (protocol === PROTOCOL_ICMPV6 && bytes[start] !== ECHO6) return;
    const quote = Math.min(end - header, QUOTE);
    const { frame } = this.ip.link;
    const at = this.ip.payloadAt;
    const [type, code] = ERRORS[why];
    frame[at] = type;
    frame[at + 1] = code;
    put32(frame, at + 4, 0);
    frame.set(bytes.subarray(header, header + quote), at + HEADER);
    this.send(this.ip.self, packet.source, HEADER + quote);
  }

  close(): void {
    this.timer.cancel();
  }

  private owns(address: IpAddress): boolean {
    const { self, plan } = this.ip;
    return sameAddress(address, self) || sameAddress(address, ROUTER) || sameAddress(address, plan.dns);
  }

  private echo(packet: Packet): void {
    const { bytes, start, end } = packet;
    const to = packet.destination;
    if (!this.owns(to)) {
      this.ping?.send(packet);
      return;
    }
    const at = this.ip.payloadAt;
    this.ip.link.frame.set(bytes.subarray(start, end), at);
    this.ip.link.frame[at] = ECHO6_REPLY;
    this.send(to, packet.source, end - start);
  }

  private solicited(packet: Packet): void {
    const { bytes, start, end } = packet;
    if (packet.hops !== LOCAL_HOPS || end - start < NEIGHBOUR_SIZE) return;
    const target = bytes.slice(start + 8, start + NEIGHBOUR_SIZE);
    if (!this.owns(target)) return;
    const { frame } = this.ip.link;
    const at = this.ip.payloadAt;
    const source = packet.source;
    // Whoever asks before it has an address looks whether somebody has it.
    const anonymous = source.every((byte) => byte === 0);
    frame[at] = NEIGHBOUR_ADVERTISEMENT;
    frame[at + 1] = 0;
    // Flags: router, solicited, override.
    put32(frame, at + 4, anonymous ? 0xa000_0000 : 0xe000_0000);
    frame.set(target, at + 8);
    this.putMac(at + NEIGHBOUR_SIZE, OPTION_TARGET_MAC, macOfIpv6(target));
    this.send(target, anonymous ? ALL_NODES : source, NEIGHBOUR_SIZE + 8, LOCAL_HOPS);
  }

  private learnTarget(packet: Packet): void {
    const { bytes, start, end } = packet;
    if (packet.hops !== LOCAL_HOPS || end - start < NEIGHBOUR_SIZE) return;
    const target = bytes.slice(start + 8, start + NEIGHBOUR_SIZE);
    if (this.ip.isLocal(target) && !this.owns(target)) this.ip.link.learn(target, bytes.subarray(6, 12));
  }

  private advertise(): void {
    const { frame } = this.ip.link;
    const { plan, mac } = this.ip;
    const at = this.ip.payloadAt;
    frame.fill(0, at, at + 16);
    frame[at] = ROUTER_ADVERTISEMENT;
    frame[at + 4] = 64;
    frame[at + 5] = FLAG_OTHER;
    put16(frame, at + 6, ROUTER_LIFETIME);
    let next = this.putMac(at + 16, OPTION_SOURCE_MAC, mac);
    next = this.putPrefix(next);
    if (!this.restricted) {
      frame[next] = OPTION_DNS;
      frame[next + 1] = 3;
      put16(frame, next + 2, 0);
      put32(frame, next + 4, ROUTER_LIFETIME);
      frame.set(plan.dns, next + 8);
      next += 24;
    }
    this.send(ROUTER, ALL_NODES, next - at, LOCAL_HOPS);
  }

  private putMac(at: number, option: number, mac: Uint8Array): number {
    const { frame } = this.ip.link;
    frame[at] = option;
    frame[at + 1] = 1;
    frame.set(mac, at + 2);
    return at + 8;
  }

  private putPrefix(at: number): number {
    const { frame } = this.ip.link;
    const { network, prefix } = this.ip.plan;
    frame[at] = OPTION_PREFIX;
    frame[at + 1] = 4;
    frame[at + 2] = prefix;
    // Flags: on the link, and for choosing addresses.
    frame[at + 3] = 0xc0;
    put32(frame, at + 4, PREFIX_VALID);
    put32(frame, at + 8, PREFIX_PREFERRED);
    put32(frame, at + 12, 0);
    frame.set(network, at + 16);
    return at + 32;
  }

  private send(from: IpAddress, to: IpAddress, length: number, hops?: number): void {
    if (hops !== undefined) this.ip.hops = hops;
    sealFully(this.ip, from, to, PROTOCOL_ICMPV6, length, 2);
    this.ip.output(PROTOCOL_ICMPV6, from, to, length, false);
  }
}

/** IPv6 (RFC 8200): extension headers are walked, fragments put together, transports served. */
import type { VirtualClock } from '../../machine/interfaces.ts';
import { parseIpv6, sameNetwork, type IpAddress } from '../address.ts';
import { ETH_SIZE, get16, get32, IPV6_SIZE, MTU, PROTOCOL_FRAGMENT, put16, put32, TYPE_IPV6 } from '../layout.ts';
import type { Ipv6Plan } from '../../machine/network-config.ts';
import { Fragments } from './fragments.ts';
import { type Link, MAC_IPV6, MAC_PREFIX } from './link.ts';
import { type IpLayer, type Obstacle, Packet } from './packet.ts';

const LENGTH = ETH_SIZE + 4;
const NEXT = ETH_SIZE + 6;
const HOPS = ETH_SIZE + 7;
const SOURCE = ETH_SIZE + 8;
const DESTINATION = ETH_SIZE + 24;
const PAYLOAD = ETH_SIZE + IPV6_SIZE;

const FRAGMENT_SIZE = 8;
const HOP_BY_HOP = 0;
const ROUTING = 43;
const DESTINATION_OPTIONS = 60;
const MAX_EXTENSIONS = 8;
const DEFAULT_HOPS = 64;
/** Neighbour discovery proves by this that nobody has forwarded a packet (RFC 4861, 3.1). */
export const LOCAL_HOPS = 255;

export const LINK_LOCAL = parseIpv6('fe80::')!;
export const LINK_LOCAL_BITS = 64;
/** The gateway's address on the link. */
export const ROUTER = parseIpv6('fe80::2')!;

export class Ipv6 implements IpLayer {
  readonly family = 6;
  readonly addressBytes = 16;
  readonly payloadAt = PAYLOAD;
  readonly room = MTU - IPV6_SIZE;
  readonly self: IpAddress;
  readonly link: Link;
  readonly mac = macOfIpv6(ROUTER);
  readonly plan: Ipv6Plan;
  /** Hop limit of what is sent next; back to the usual after that. */
  hops = DEFAULT_HOPS;
  private readonly clock: VirtualClock;
  private readonly fragments = new Fragments();
  private readonly deliver: (packet: Packet) => void;
  private readonly onRefused: (ip: Ipv6, packet: Packet, why: Obstacle) => void;
  private readonly packet = new Packet();
  private nextId = 1;

  constructor(
    plan: Ipv6Plan,
    link: Link,
    clock: VirtualClock,
    deliver: (packet: Packet) => void,
    onRefused: (ip: Ipv6, packet: Packet, why: Obstacle) => void,
  ) {
    this.plan = plan;
    this.self = plan.host;
    this.link = link;
    this.clock = clock;
    this.deliver = deliver;
    this.onRefused = onRefused;
  }

  /** @param trusted the transport's checksum need not be looked at */
  input(frame: Uint8Array, trusted: boolean): void {
    if (frame.length < PAYLOAD || frame[ETH_SIZE]! >> 4 !== 6) return;
    const end = PAYLOAD + get16(frame, LENGTH);
    if (end > frame.length) return;
    const source = frame.subarray(SOURCE, SOURCE + 16);
    if (this.isLocal(source)) this.link.learn(source, frame.subarray(6, 12));
    const { packet } = this;
    packet.ip = this;
    packet.bytes = frame;
    packet.header = ETH_SIZE;
    packet.addresses = SOURCE;
    packet.start = PAYLOAD;
    packet.end = end;
    packet.protocol = frame[NEXT]!;
    packet.hops = frame[HOPS]!;
    packet.trusted = trusted;
    if (this.walk(packet)) this.deliver(packet);
  }

  /** On the link, by either of the prefixes. */
  isLocal(address: IpAddress): boolean {
    const { network, prefix } = this.plan;
    return sameNetwork(address, network, prefix) || sameNetwork(address, LINK_LOCAL, LINK_LOCAL_BITS);
  }

  output(protocol: number, source: IpAddress, destination: IpAddress, length: number, partial: boolean): void {
    const { frame, offload } = this.link;
    put32(frame, ETH_SIZE, 0x6000_0000);
    frame[NEXT] = protocol;
    frame[HOPS] = this.hops;
    this.hops = DEFAULT_HOPS;
    frame.set(source, SOURCE);
    frame.set(destination, DESTINATION);
    if (length <= this.room || (partial && offload.gso !== 0)) return this.emit(length, destination, partial);
    const whole = frame.slice(PAYLOAD, PAYLOAD + length);
    const most = (this.room - FRAGMENT_SIZE) & ~7;
    const id = this.nextId++;
    frame[NEXT] = PROTOCOL_FRAGMENT;
    for (let offset = 0; offset < length; offset += most) {
      const piece = whole.subarray(offset, Math.min(offset + most, length));
      put16(frame, PAYLOAD, protocol << 8);
      put16(frame, PAYLOAD + 2, offset | (offset + piece.length < length ? 1 : 0));
      put32(frame, PAYLOAD + 4, id);
      frame.set(piece, PAYLOAD + FRAGMENT_SIZE);
      this.emit(FRAGMENT_SIZE + piece.length, destination, false);
    }
  }

  refuse(packet: Packet, why: Obstacle): void {
    this.onRefused(this, packet, why);
  }

  private emit(length: number, destination: IpAddress, partial: boolean): void {
    const { link } = this;
    const { frame } = link;
    put16(frame, LENGTH, length);
    if (destination[0] === 0xff) link.transmit(multicastMac(destination), this.mac, TYPE_IPV6, PAYLOAD + length, partial);
    else link.transmitTo(destination, this.mac, TYPE_IPV6, PAYLOAD + length, partial);
  }

  /** Steps over extension headers. @returns false when the packet ends before its transport, or is not whole yet */
  private walk(packet: Packet): boolean {
    for (let count = 0; count < MAX_EXTENSIONS; count++) {
      const { bytes, start, end, protocol } = packet;
      switch (protocol) {
        case HOP_BY_HOP:
        case ROUTING:
        case DESTINATION_OPTIONS: {
          if (start + 8 > end) return false;
          const size = 8 * (bytes[start + 1]! + 1);
          if (start + size > end) return false;
          packet.protocol = bytes[start]!;
          packet.start = start + size;
          packet.trusted = false;
          break;
        }
        case PROTOCOL_FRAGMENT:
          if (!this.reassemble(packet)) return false;
          break;
        default:
          return true;
      }
    }
    return false;
  }

  /** @returns whether the packet is whole now */
  private reassemble(packet: Packet): boolean {
    const { bytes, start, end } = packet;
    if (start + FRAGMENT_SIZE > end) return false;
    const next = bytes[start]!;
    const place = get16(bytes, start + 2);
    const key = bytes.subarray(SOURCE, PAYLOAD).join() + `,${get32(bytes, start + 4)}`;
    const data = bytes.subarray(start + FRAGMENT_SIZE, end);
    // A packet in one fragment is an atom of its own (RFC 6946).
    const whole =
      (place & 0xfff9) === 0 ? data : this.fragments.add(key, place & 0xfff8, (place & 1) !== 0, data, this.clock.now());
    if (whole === null) return false;
    const made = new Uint8Array(PAYLOAD + whole.length);
    made.set(bytes.subarray(0, PAYLOAD));
    made.set(whole, PAYLOAD);
    packet.bytes = made;
    packet.protocol = next;
    packet.start = PAYLOAD;
    packet.end = made.length;
    packet.trusted = false;
    return true;
  }
}

/** The MAC that a host within the network answers with. */
export const macOfIpv6 = (address: IpAddress): Uint8Array => Uint8Array.of(MAC_PREFIX, MAC_IPV6, 0, ...address.subarray(13));

/** RFC 2464, 7. */
export const multicastMac = (group: IpAddress): Uint8Array => Uint8Array.of(0x33, 0x33, ...group.subarray(12));

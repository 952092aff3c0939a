/** IPv4 (RFC 791): what the guest sends is checked and handed to a transport, and the way back. */
import type { VirtualClock } from '../../machine/interfaces.ts';
import { sameNetwork, type IpAddress } from '../address.ts';
import { addBytes, finish, fold } from '../checksum.ts';
import { ETH_SIZE, get16, IPV4_SIZE, MTU, put16, TYPE_IPV4 } from '../layout.ts';
import type { Ipv4Plan } from '../../machine/network-config.ts';
import { Fragments } from './fragments.ts';
import { BROADCAST_MAC, type Link, MAC_IPV4, MAC_PREFIX } from './link.ts';
import { type IpLayer, type Obstacle, Packet } from './packet.ts';

const TOTAL_LENGTH = ETH_SIZE + 2;
const ID = ETH_SIZE + 4;
const FRAGMENT = ETH_SIZE + 6;
const HOPS = ETH_SIZE + 8;
const PROTOCOL = ETH_SIZE + 9;
const CHECKSUM = ETH_SIZE + 10;
const SOURCE = ETH_SIZE + 12;
const DESTINATION = ETH_SIZE + 16;
const PAYLOAD = ETH_SIZE + IPV4_SIZE;

const DONT_FRAGMENT = 0x4000;
const MORE_FRAGMENTS = 0x2000;
const OFFSET_MASK = 0x1fff;
const DEFAULT_HOPS = 64;

export class Ipv4 implements IpLayer {
  readonly family = 4;
  readonly addressBytes = 4;
  readonly payloadAt = PAYLOAD;
  readonly room = MTU - IPV4_SIZE;
  readonly self: IpAddress;
  readonly link: Link;
  /** MAC of the gateway. */
  readonly mac: Uint8Array;
  readonly plan: Ipv4Plan;
  private readonly clock: VirtualClock;
  private readonly fragments = new Fragments();
  private readonly deliver: (packet: Packet) => void;
  private readonly onRefused: (ip: Ipv4, packet: Packet, why: Obstacle) => void;
  private readonly packet = new Packet();
  private nextId = 1;

  constructor(
    plan: Ipv4Plan,
    link: Link,
    clock: VirtualClock,
    deliver: (packet: Packet) => void,
    onRefused: (ip: Ipv4, packet: Packet, why: Obstacle) => void,
  ) {
    this.plan = plan;
    this.self = plan.host;
    this.mac = macOfIpv4(plan.host);
    this.link = link;
    this.clock = clock;
    this.deliver = deliver;
    this.onRefused = onRefused;
  }

  /** @param trusted the transport's checksum need not be looked at */
  input(frame: Uint8Array, trusted: boolean): void {
    const words = frame[ETH_SIZE]! & 15;
    const start = ETH_SIZE + 4 * words;
    if (frame.length < PAYLOAD || frame[ETH_SIZE]! >> 4 !== 4 || words < 5 || start > frame.length) return;
    if (fold(addBytes(0, frame, ETH_SIZE, start)) !== 0xffff) return;
    const end = ETH_SIZE + get16(frame, TOTAL_LENGTH);
    if (end > frame.length || end < start) return;
    const source = frame.subarray(SOURCE, SOURCE + 4);
    if (sameNetwork(source, this.plan.network, this.plan.prefix)) this.link.learn(source, frame.subarray(6, 12));
    const { packet } = this;
    packet.ip = this;
    packet.bytes = frame;
    packet.header = ETH_SIZE;
    packet.addresses = SOURCE;
    packet.start = start;
    packet.end = end;
    packet.protocol = frame[PROTOCOL]!;
    packet.hops = frame[HOPS]!;
    packet.trusted = trusted;
    const fragment = get16(frame, FRAGMENT);
    if ((fragment & (MORE_FRAGMENTS | OFFSET_MASK)) === 0 || this.reassemble(packet, fragment)) this.deliver(packet);
  }

  output(protocol: number, source: IpAddress, destination: IpAddress, length: number, partial: boolean): void {
    const { frame, offload } = this.link;
    frame[ETH_SIZE] = 0x45;
    frame[ETH_SIZE + 1] = 0;
    frame[HOPS] = DEFAULT_HOPS;
    frame[PROTOCOL] = protocol;
    frame.set(source, SOURCE);
    frame.set(destination, DESTINATION);
    put16(frame, ID, this.nextId);
    this.nextId = (this.nextId + 1) & 0xffff;
    if (length <= this.room || (partial && offload.gso !== 0)) {
      this.emit(length, length <= this.room ? 0 : DONT_FRAGMENT, destination, partial);
      return;
    }
    const whole = frame.slice(PAYLOAD, PAYLOAD + length);
    const most = this.room & ~7;
    for (let offset = 0; offset < length; offset += most) {
      const piece = whole.subarray(offset, Math.min(offset + most, length));
      frame.set(piece, PAYLOAD);
      this.emit(piece.length, (offset >> 3) | (offset + piece.length < length ? MORE_FRAGMENTS : 0), destination, false);
    }
  }

  refuse(packet: Packet, why: Obstacle): void {
    this.onRefused(this, packet, why);
  }

  private emit(length: number, fragment: number, destination: IpAddress, partial: boolean): void {
    const { frame } = this.link;
    put16(frame, TOTAL_LENGTH, IPV4_SIZE + length);
    put16(frame, FRAGMENT, fragment);
    put16(frame, CHECKSUM, 0);
    put16(frame, CHECKSUM, finish(addBytes(0, frame, ETH_SIZE, PAYLOAD)));
    if (destination[0] === 255) this.link.transmit(BROADCAST_MAC, this.mac, TYPE_IPV4, PAYLOAD + length, partial);
    else this.link.transmitTo(destination, this.mac, TYPE_IPV4, PAYLOAD + length, partial);
  }

  /** @returns whether the packet is whole now */
  private reassemble(packet: Packet, fragment: number): boolean {
    const { bytes, start, end } = packet;
    const key = bytes.subarray(SOURCE, SOURCE + 8).join() + `,${packet.protocol},${get16(bytes, ID)}`;
    const offset = (fragment & OFFSET_MASK) * 8;
    const more = (fragment & MORE_FRAGMENTS) !== 0;
    const whole = this.fragments.add(key, offset, more, bytes.subarray(start, end), this.clock.now());
    if (whole === null) return false;
    const made = new Uint8Array(PAYLOAD + whole.length);
    made.set(bytes.subarray(0, PAYLOAD));
    made[ETH_SIZE] = 0x45;
    put16(made, FRAGMENT, 0);
    made.set(whole, PAYLOAD);
    packet.bytes = made;
    packet.start = PAYLOAD;
    packet.end = made.length;
    packet.trusted = false;
    return true;
  }
}

/** The MAC that a host within the network answers with. */
export const macOfIpv4 = (address: IpAddress): Uint8Array => Uint8Array.of(MAC_PREFIX, MAC_IPV4, ...address);

/** What the layers of the stack hand to each other. */
import { addBytes, finish, fold, pseudoSum } from '../checksum.ts';
import type { IpAddress } from '../address.ts';
import { GSO_NONE } from '../../machine/interfaces.ts';
import { put16 } from '../layout.ts';
import type { Link } from './link.ts';

/** A packet that has come in: one object is used for all, valid during the call. */
export class Packet {
  bytes: Uint8Array = new Uint8Array(0);
  ip!: IpLayer;
  /** Where the IP header begins, the source address (the destination follows), the transport's header, and the end. */
  header = 0;
  addresses = 0;
  start = 0;
  end = 0;
  protocol = 0;
  /** Time to live or hop limit. */
  hops = 0;
  /** The transport's checksum is known to be right, or is left to us. */
  trusted = false;
  /** UDP: the payload is several datagrams of so many bytes each; 0 for one. */
  datagramSize = 0;

  get source(): IpAddress {
    return this.bytes.slice(this.addresses, this.addresses + this.ip.addressBytes);
  }

  get destination(): IpAddress {
    const at = this.addresses + this.ip.addressBytes;
    return this.bytes.slice(at, at + this.ip.addressBytes);
  }

  /** Whether the transport's checksum is right. */
  intact(): boolean {
    if (this.trusted) return true;
    const { bytes, start, end, protocol } = this;
    const pseudo = pseudoSum(bytes, this.addresses, this.ip.addressBytes, protocol, end - start);
    return fold(addBytes(pseudo, bytes, start, end)) === 0xffff;
  }
}

/** Why a packet cannot go where it wants to. */
export type Obstacle = 'network' | 'host' | 'port' | 'prohibited' | 'time';

/** IP of one version, as transports see it. */
export interface IpLayer {
  readonly family: 4 | 6;
  readonly addressBytes: 4 | 16;
  /** The gateway's address. */
  readonly self: IpAddress;
  readonly link: Link;
  /** Where a transport's packet is built in `link.frame`. */
  readonly payloadAt: number;
  /** The longest transport's packet that fits one frame. */
  readonly room: number;
  /**
   * Sends the packet that was built.
   * @param length of the transport's packet  @param partial `link.offload` says what is left to do
   */
  output(protocol: number, source: IpAddress, destination: IpAddress, length: number, partial: boolean): void;
  /** Tells a sender that its packet has not arrived. */
  refuse(packet: Packet, why: Obstacle): void;
}

/** The sum over a packet that is about to be sent, without its own checksum field counted in. */
export function pseudoOf(ip: IpLayer, source: IpAddress, destination: IpAddress, protocol: number, length: number): number {
  const sum = addBytes(protocol + length, source, 0, ip.addressBytes);
  return addBytes(sum, destination, 0, ip.addressBytes);
}

/**
 * Fills the checksum of the transport's packet that was built, or leaves it to the card's driver.
 * @param field offset of the checksum in the packet  @returns whether it was left
 */
export function seal(
  ip: IpLayer,
  source: IpAddress,
  destination: IpAddress,
  protocol: number,
  length: number,
  field: number,
): boolean {
  const { frame, offload, accepts } = ip.link;
  if (!accepts.checksum) {
    sealFully(ip, source, destination, protocol, length, field);
    return false;
  }
  const start = ip.payloadAt;
  put16(frame, start + field, fold(pseudoOf(ip, source, destination, protocol, length)));
  offload.checksumStart = start;
  offload.checksumOffset = field;
  offload.gso = GSO_NONE;
  offload.headerLength = 0;
  offload.segmentSize = 0;
  return true;
}

export function sealFully(
  ip: IpLayer,
  source: IpAddress,
  destination: IpAddress,
  protocol: number,
  length: number,
  field: number,
): void {
  const { frame } = ip.link;
  const start = ip.payloadAt;
  put16(frame, start + field, 0);
  const pseudo = pseudoOf(ip, source, destination, protocol, length);
  // UDP has 0 for "no checksum": a sum that comes out so is sent inverted (RFC 768), which is the same to all others.
  put16(frame, start + field, finish(addBytes(pseudo, frame, start, start + length)) || 0xffff);
}

/** Checksums and cutting that a driver leaves to its card; a context is what Intel's cards are told (317453, 3.3.6, 3.5 and 3.6). */
import { GSO_NONE, GSO_TCP4, GSO_TCP6, type Offloads, type PacketOffload } from '../../machine/interfaces.ts';

const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const TYPE_AT = 12;
const IP_AT = 14;
const TCP_CHECKSUM = 16;
const TCP_SMALLEST = 20;
const TCP_FLAGS = 13;
const UDP_LENGTH = 4;
/** FIN and PSH, which only the last segment has. */
const LAST_ONLY = 0x09;

export const contextPowerOn = () => ({
  /** Where the IP checksum begins, its field, and its last byte; then the transport's. 0 as an end is the frame's. */
  ipStart: 0,
  ipField: 0,
  ipEnd: 0,
  start: 0,
  field: 0,
  end: 0,
  headerLength: 0,
  segmentSize: 0,
  tcp: false,
  ipv4: false,
});
export type OffloadContext = ReturnType<typeof contextPowerOn>;

/** What is to be done to a frame. */
export type Work = { ipChecksum: boolean; checksum: boolean; segments: boolean };

/** Takes the context from a descriptor's four words (3.3.6). */
export function setContext(context: OffloadContext, view: DataView): void {
  const [ip, transport, command, last] = [0, 4, 8, 12].map((at) => view.getUint32(at, true)) as [number, number, number, number];
  context.ipStart = ip & 0xff;
  context.ipField = (ip >>> 8) & 0xff;
  context.ipEnd = ip >>> 16;
  context.start = transport & 0xff;
  context.field = (transport >>> 8) & 0xff;
  context.end = transport >>> 16;
  context.tcp = (command & (1 << 24)) !== 0;
  context.ipv4 = (command & (1 << 25)) !== 0;
  context.headerLength = (last >>> 8) & 0xff;
  context.segmentSize = last >>> 16;
}

function get16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

function put16(bytes: Uint8Array, at: number, value: number): void {
  if (at + 2 > bytes.length) return;
  bytes[at] = value >> 8;
  bytes[at + 1] = value;
}

/** @returns the one's complement sum of 16-bit words, in 16 bits */
function sumOf(bytes: Uint8Array, start: number, end: number, from = 0): number {
  let sum = from;
  let at = start;
  for (; at + 1 < end; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!;
  if (at < end) sum += bytes[at]! << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/**
 * Puts a checksum into its field, whose contents count.
 * @param last the last byte summed, 0 for the frame's
 * @param zero written for a checksum of 0, which to UDP means that there is none
 */
export function insertChecksum(bytes: Uint8Array, start: number, field: number, last: number, zero = 0xffff): void {
  const end = last === 0 ? bytes.length : Math.min(last + 1, bytes.length);
  if (start < end) put16(bytes, field, ~sumOf(bytes, start, end) & 0xffff || zero);
}

/** The IP header's checksum, over a field that is taken as zero. */
function sealIp(bytes: Uint8Array, { ipStart, ipField, ipEnd }: OffloadContext): void {
  put16(bytes, ipField, 0);
  insertChecksum(bytes, ipStart, ipField, ipEnd, 0);
}

/** Lengths in an IP header. */
function setLength(bytes: Uint8Array, { ipStart, ipv4 }: OffloadContext): void {
  if (ipv4) put16(bytes, ipStart + 2, bytes.length - ipStart);
  else put16(bytes, ipStart + 4, bytes.length - ipStart - 40);
}

/** Headers are where a network looks for them, and as long as they say themselves. */
function isPlain(frame: Uint8Array, { ipStart, start, field, tcp, ipv4, headerLength }: OffloadContext): boolean {
  const type = ipv4 ? IPV4 : IPV6;
  if (!tcp || ipStart !== IP_AT || get16(frame, TYPE_AT) !== type) return false;
  const ipLength = ipv4 ? 4 * (frame[IP_AT]! & 15) : 40;
  const tcpLength = 4 * (frame[start + 12]! >> 4);
  return start === IP_AT + ipLength && field === start + TCP_CHECKSUM && headerLength === start + tcpLength;
}

/** What is left to the network; one object serves all frames. */
export class Rest implements PacketOffload {
  checksumStart = -1;
  checksumOffset = 0;
  gso = GSO_NONE;
  headerLength = 0;
  segmentSize = 0;

  /** The network sums where the card would. @returns whether it does */
  leaveChecksum({ start, field, end }: OffloadContext, length: number, { checksum }: Offloads): boolean {
    if (!checksum || (end !== 0 && end !== length - 1) || field < start || field + 2 > length) return false;
    this.checksumStart = start;
    this.checksumOffset = field - start;
    this.gso = GSO_NONE;
    this.headerLength = this.segmentSize = 0;
    return true;
  }

  /**
   * The network cuts where the card would; lengths and sums of the whole, which drivers leave out, are filled in.
   * @returns whether it does
   */
  leaveSegments(frame: Uint8Array, context: OffloadContext, offloads: Offloads): boolean {
    const { start, field, ipv4, headerLength, segmentSize } = context;
    if (!(ipv4 ? offloads.tso4 : offloads.tso6) || !isPlain(frame, context)) return false;
    setLength(frame, context);
    if (ipv4) sealIp(frame, context);
    put16(frame, field, sumOf(frame, field, field + 2, frame.length - start));
    this.checksumStart = start;
    this.checksumOffset = TCP_CHECKSUM;
    this.gso = ipv4 ? GSO_TCP4 : GSO_TCP6;
    this.headerLength = headerLength;
    this.segmentSize = segmentSize;
    return true;
  }
}

/** A context that can be cut by: headers that hold the fields that change. */
export function canCut({ ipStart, start, headerLength, segmentSize, tcp, ipv4 }: OffloadContext, length: number): boolean {
  const transport = tcp ? TCP_SMALLEST : 8;
  const room = ipStart + (ipv4 ? 20 : 40) <= headerLength && start + transport <= headerLength;
  return segmentSize > 0 && room && headerLength < length;
}

/** @returns how many segments come of a frame */
export const segmentCount = ({ headerLength, segmentSize }: OffloadContext, length: number): number =>
  Math.ceil((length - headerLength) / segmentSize);

/** @returns a segment, whole, of a frame that `canCut` agreed to  @param index from 0 */
export function segmentOf(frame: Uint8Array, context: OffloadContext, work: Work, index: number): Uint8Array {
  const { ipStart, start, field, end, headerLength, segmentSize, tcp, ipv4 } = context;
  const offset = index * segmentSize;
  const from = headerLength + offset;
  const to = Math.min(from + segmentSize, frame.length);
  const piece = new Uint8Array(headerLength + to - from);
  piece.set(frame.subarray(0, headerLength));
  piece.set(frame.subarray(from, to), headerLength);
  setLength(piece, context);
  if (ipv4) put16(piece, ipStart + 4, get16(frame, ipStart + 4) + index);
  if (tcp) {
    const view = new DataView(piece.buffer);
    view.setUint32(start + 4, view.getUint32(start + 4) + offset);
    if (to < frame.length) piece[start + TCP_FLAGS] = piece[start + TCP_FLAGS]! & ~LAST_ONLY;
  } else put16(piece, start + UDP_LENGTH, piece.length - start);
  if (work.ipChecksum) sealIp(piece, context);
  if (!work.checksum || field + 2 > piece.length) return piece;
  // The field holds the pseudo-header's sum without the length, which only now is known.
  put16(piece, field, sumOf(piece, field, field + 2, piece.length - start));
  insertChecksum(piece, start, field, end === frame.length - 1 ? 0 : end);
  return piece;
}

/** Does to a frame, in place, what is not left to the network. */
export function finishFrame(frame: Uint8Array, context: OffloadContext, { ipChecksum, checksum }: Work): void {
  if (ipChecksum) sealIp(frame, context);
  if (checksum) insertChecksum(frame, context.start, context.field, context.end);
}

/** Segments of TCP (RFC 9293, 3.1). Sequence numbers are 32-bit integers that wrap; `after` compares them. */
import { get16, get32, TCP_SIZE, TCP_SYN } from '../../layout.ts';
import type { Packet } from '../packet.ts';

const OPTION_END = 0;
export const OPTION_NOP = 1;
export const OPTION_MSS = 2;
export const OPTION_SCALE = 3;
/** The largest shift that means something (RFC 7323, 2.3). */
const MAX_SCALE = 14;

/** What is meant by a sender that says nothing. */
export const DEFAULT_MSS: Record<4 | 6, number> = { 4: 536, 6: 1220 };

/** How far `a` is after `b`, negative when before. */
export const distance = (a: number, b: number): number => (a - b) | 0;

/** A segment that has come in; one object is used for all, valid during the call. */
export class Segment {
  sourcePort = 0;
  port = 0;
  sequence = 0;
  acknowledged = 0;
  flags = 0;
  /** As in the header, not scaled. */
  window = 0;
  bytes: Uint8Array = new Uint8Array(0);
  /** Where the data is in `bytes`. */
  dataAt = 0;
  length = 0;
  /** Options of a SYN: 0 and -1 when absent. */
  mss = 0;
  scale = -1;

  /** @returns false for what is not a segment */
  read({ bytes, start, end }: Packet): boolean {
    if (end - start < TCP_SIZE) return false;
    const header = (bytes[start + 12]! >> 4) * 4;
    if (header < TCP_SIZE || start + header > end) return false;
    this.sourcePort = get16(bytes, start);
    this.port = get16(bytes, start + 2);
    this.sequence = get32(bytes, start + 4) | 0;
    this.acknowledged = get32(bytes, start + 8) | 0;
    this.flags = bytes[start + 13]!;
    this.window = get16(bytes, start + 14);
    this.bytes = bytes;
    this.dataAt = start + header;
    this.length = end - this.dataAt;
    if ((this.flags & TCP_SYN) !== 0) this.readOptions(start + TCP_SIZE, this.dataAt);
    return true;
  }

  private readOptions(start: number, end: number): void {
    const { bytes } = this;
    this.mss = 0;
    this.scale = -1;
    for (let at = start; at < end && bytes[at] !== OPTION_END; ) {
      if (bytes[at] === OPTION_NOP) {
        at++;
        continue;
      }
      const length = at + 1 < end ? bytes[at + 1]! : 0;
      if (length < 2 || at + length > end) return;
      if (bytes[at] === OPTION_MSS && length === 4) this.mss = get16(bytes, at + 2);
      if (bytes[at] === OPTION_SCALE && length === 3) this.scale = Math.min(bytes[at + 2]!, MAX_SCALE);
      at += length;
    }
  }
}

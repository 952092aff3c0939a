/**
 * Video memory as the CPU sees it through the window at A0000h: IBM PS/2 Hardware Interface
 * Technical Reference, "Video subsystem", memory operations.
 *
 * The four planes are interleaved: plane p of address a is byte 4 * a + p of video memory, so that
 * in chain-4 modes addresses of the CPU are addresses of the memory.
 */
import { CHAIN_4, GRAPHICS, SEQ, VBE, type VgaState } from './registers.ts';

const WINDOW = 0xa0000;
const BANK = 0x10000;
/** Windows by the memory map select of the miscellaneous register: start and size. */
const MAPS = [
  [0xa0000, 0x20000],
  [0xa0000, 0x10000],
  [0xb0000, 0x8000],
  [0xb8000, 0x8000],
] as const;
const ODD_EVEN = 0x10;

/** Four bytes of 0 or FFh, one for each bit. */
const SPREAD = Int32Array.from(
  { length: 16 },
  (_, bits) => (bits & 1 ? 0xff : 0) | (bits & 2 ? 0xff00 : 0) | (bits & 4 ? 0xff0000 : 0) | (bits & 8 ? 0xff000000 : 0),
);
const EVERY = 0x01010101;

export class VgaPlanes {
  private readonly s: VgaState;
  private readonly bytes: Uint8Array;
  private readonly words: Int32Array;

  /** @param bytes video memory, aligned to four bytes */
  constructor(state: VgaState, bytes: Uint8Array) {
    this.s = state;
    this.bytes = bytes;
    this.words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  }

  /**
   * Where chain-4 makes the window a plain view of memory.
   * @returns the window's start and the place in video memory, or null
   */
  get linear(): { base: number; size: number; at: number } | null {
    const { seq, vbe } = this.s;
    if ((seq[SEQ.memoryMode]! & CHAIN_4) === 0 || (seq[SEQ.mapMask]! & 15) !== 15) return null;
    const [base, size] = this.map;
    return { base, size, at: size === BANK || size < BANK ? vbe[VBE.bank]! * BANK : 0 };
  }

  private get map(): readonly [number, number] {
    return MAPS[(this.s.graphics[GRAPHICS.misc]! >> 2) & 3]!;
  }

  /** @param offset from A0000h @returns an address in the planes (not multiplied), or -1 outside */
  private locate(offset: number): number {
    const [base, size] = this.map;
    const at = offset + WINDOW - base;
    if (at < 0 || at >= size) return -1;
    return size <= BANK ? at + this.s.vbe[VBE.bank]! * BANK : at;
  }

  read(offset: number): number {
    const { s, bytes, words } = this;
    const at = this.locate(offset);
    if (at < 0) return 0xff;
    const { graphics } = s;
    if ((s.seq[SEQ.memoryMode]! & CHAIN_4) !== 0) return bytes[at] ?? 0xff;
    const mode = graphics[GRAPHICS.mode]!;
    if ((mode & ODD_EVEN) !== 0) {
      const plane = (graphics[GRAPHICS.readMap]! & 2) | (at & 1);
      return bytes[((at & ~1) << 1) + plane] ?? 0xff;
    }
    const latch = words[at] ?? 0;
    this.latch = latch;
    if ((mode & 8) === 0) return (latch >>> (8 * graphics[GRAPHICS.readMap]!)) & 0xff;
    // Read mode 1: which pixels have the colour compared with, in the planes that count.
    const differ = (latch ^ SPREAD[graphics[GRAPHICS.compare]!]!) & SPREAD[graphics[GRAPHICS.dontCare]!]!;
    return ~(differ | (differ >> 8) | (differ >> 16) | (differ >> 24)) & 0xff;
  }

  write(offset: number, value: number): void {
    const { s, bytes } = this;
    const at = this.locate(offset);
    if (at < 0) return;
    const mask = s.seq[SEQ.mapMask]!;
    if ((s.seq[SEQ.memoryMode]! & CHAIN_4) !== 0) {
      if ((mask & (1 << (at & 3))) !== 0) bytes[at] = value;
    } else if ((s.graphics[GRAPHICS.mode]! & ODD_EVEN) !== 0) {
      const plane = at & 1;
      const place = ((at & ~1) << 1) + plane;
      if ((mask & (1 << plane)) !== 0) bytes[place] = value;
      if ((mask & (4 << plane)) !== 0) bytes[place + 2] = value;
    } else this.writePlanes(at, value, SPREAD[mask]!);
  }

  private get latch(): number {
    const { latch } = this.s;
    return latch[0]! | (latch[1]! << 8) | (latch[2]! << 16) | (latch[3]! << 24);
  }

  private set latch(value: number) {
    const { latch } = this.s;
    for (let i = 0; i < 4; i++) latch[i] = value >>> (8 * i);
  }

  private writePlanes(at: number, value: number, planes: number): void {
    if (at >= this.words.length) return;
    const { graphics } = this.s;
    const { latch } = this;
    let bits = graphics[GRAPHICS.bitMask]!;
    let data: number;
    switch (graphics[GRAPHICS.mode]! & 3) {
      case 0: {
        const setReset = SPREAD[graphics[GRAPHICS.setReset]!]!;
        const enabled = SPREAD[graphics[GRAPHICS.enableSetReset]!]!;
        const rotated = Math.imul(this.rotate(value), EVERY);
        data = this.combine((rotated & ~enabled) | (setReset & enabled), latch);
        break;
      }
      case 1:
        data = latch;
        bits = 0xff;
        break;
      case 2:
        data = this.combine(SPREAD[value & 15]!, latch);
        break;
      default:
        bits &= this.rotate(value);
        data = SPREAD[graphics[GRAPHICS.setReset]!]!;
    }
    const mask = Math.imul(bits, EVERY);
    data = (data & mask) | (latch & ~mask);
    this.words[at] = (data & planes) | (this.words[at]! & ~planes);
  }

  private rotate(value: number): number {
    const by = this.s.graphics[GRAPHICS.rotate]! & 7;
    return ((value >> by) | (value << (8 - by))) & 0xff;
  }

  private combine(data: number, latch: number): number {
    switch (this.s.graphics[GRAPHICS.rotate]! >> 3) {
      case 1:
        return data & latch;
      case 2:
        return data | latch;
      case 3:
        return data ^ latch;
      default:
        return data;
    }
  }
}

/**
 * The lazy arithmetic flags as bits, on 32-bit words: every system call and interrupt needs
 * them. flags.ts defines what the operations mean; the rare ones are left to it.
 */
import { CTL_CTX } from '../../../ir/vcpu-block.ts';
import {
  CC_EFLAGS,
  KIND_ADD,
  KIND_DEC,
  KIND_INC,
  KIND_LOGIC,
  KIND_SAR,
  KIND_SHL,
  KIND_SUB,
  readArithmeticFlags,
} from '../flags.ts';
import { AF, CC_DST, CC_FLAGS, CC_SRC, CF, OF, PF, SF, ZF } from '../state.ts';

function parity(value: number): number {
  value ^= value >> 4;
  return (0x6996 >> (value & 15)) & 1 ? 0 : PF;
}

/** @param words over the shared memory  @param base the vCPU block's offset */
export function arithmeticFlags(words: Int32Array, view: DataView, base: number): number {
  const at = base >> 2;
  const op = words[at + (CTL_CTX >> 2)]!;
  let x = words[at + (CC_DST >> 2)]!;
  if (op === CC_EFLAGS) return x & CC_FLAGS;
  const kind = op >> 2;
  if (kind > KIND_SAR || (kind !== KIND_ADD && kind !== KIND_SUB && kind < KIND_LOGIC)) {
    return readArithmeticFlags(view, base);
  }
  let y = words[at + (CC_SRC >> 2)]!;
  const lowX = x;
  const lowY = y;
  let zeroBelow = true;
  let borrow = 0;
  if ((op & 3) === 3) {
    // 64 bits: from here on x and y are the upper words; the lower ones count by their borrow.
    x = words[at + (CC_DST >> 2) + 1]!;
    y = words[at + (CC_SRC >> 2) + 1]!;
    borrow = lowX >>> 0 < lowY >>> 0 ? 1 : 0;
    zeroBelow = kind === KIND_SUB ? lowX === lowY : lowX === 0;
  } else {
    // Operands at the top of a word, so that carries and signs lie where those of 32 bits do.
    const shift = 32 - (8 << (op & 3));
    x <<= shift;
    y <<= shift;
  }
  return flagsOf(kind, x, y, borrow, zeroBelow, lowX, lowY, op & 3);
}

function flagsOf(
  kind: number,
  x: number,
  y: number,
  borrow: number,
  zeroBelow: boolean,
  lowX: number,
  lowY: number,
  size: number,
): number {
  const difference = (x - y - borrow) | 0;
  const result = kind === KIND_SUB ? difference : x;
  const low = kind === KIND_SUB ? lowX - lowY : lowX;
  let flags = parity(low & 0xff) | (result < 0 ? SF : 0) | (result === 0 && zeroBelow ? ZF : 0);
  switch (kind) {
    case KIND_ADD:
    case KIND_SUB: {
      const ux = x >>> 0;
      const uy = y >>> 0;
      if (ux < uy || (ux === uy && borrow)) flags |= CF;
      const changed = x ^ difference;
      // ADD: x is the sum, the difference its first operand; signs alike in, unlike out.
      if ((changed & (x ^ y)) < 0) flags |= OF;
      return flags | ((lowX ^ lowY ^ (lowX - lowY)) & AF);
    }
    case KIND_INC:
      if (lowY & 1) flags |= CF;
      if (x === -0x80000000 && zeroBelow) flags |= OF;
      return flags | (lowX & 15 ? 0 : AF);
    case KIND_DEC: {
      if (lowY & 1) flags |= CF;
      const largest = size === 3 ? x === 0x7fffffff && lowX === -1 : x === largestOf(size);
      if (largest) flags |= OF;
      return flags | ((lowX & 15) === 15 ? AF : 0);
    }
    case KIND_SHL:
      return flags | (y < 0 ? CF : 0) | ((x ^ y) < 0 ? OF : 0);
    case KIND_SAR:
      return flags | (lowY & 1 ? CF : 0) | ((x ^ y) < 0 ? OF : 0);
    default:
      return flags;
  }
}

/** The largest positive number of the size at the top of a word. */
function largestOf(size: number): number {
  return size === 0 ? 0x7f000000 : size === 1 ? 0x7fff0000 : 0x7fffffff;
}

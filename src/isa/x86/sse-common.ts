/**
 * What the files with SSE rows share: the checks before every vector instruction, access to
 * operands, lane shuffles.
 *
 * An operation on whole registers is a function of the builder and its operands and knows
 * nothing about encodings. The VEX forms are made from the same rows (avx.ts): `t.first` is where
 * the first source comes from, and ymm registers are worked on half by half (`eachHalf`).
 */
import { STRIDE } from '../../ir/builder.ts';
import type { Builder, Value } from '../../ir/builder.ts';
import { Op } from '../../ir/ops.ts';
import type { PureRows } from '../../ir/ops.ts';
import { BF_AVX, BF_SSE_OFF, BF_TS } from './state.ts';
import { row } from './tables.ts';
import type { Row, RowOptions, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const VECTOR_NM = 7;

export type Unary = (b: Builder, x: Value) => Value;
export type Binary = (b: Builder, x: Value, y: Value) => Value;

type NamesWith<S extends string> = {
  [K in keyof PureRows]: PureRows[K] extends readonly [S, unknown] ? K : never;
}[keyof PureRows];

/** Names of IR operations from one vector, or two, to a vector. */
export type UnaryName = NamesWith<'v>v'>;
export type BinaryName = NamesWith<'vv>v'>;
export type ShiftName = NamesWith<'vi>v'>;

export const binary = (op: Binary | BinaryName): Binary => (typeof op === 'string' ? (b, x, y) => b[op](x, y) : op);
export const unary = (op: Unary | UnaryName): Unary => (typeof op === 'string' ? (b, x) => b[op](x) : op);

/** CR0, CR4 and XCR0 let SSE, or AVX, instructions run; else the block ends with #UD or #NM. */
export function vectorReady(t: X86Translator): boolean {
  if (t.isVex ? !(t.flags & BF_AVX) : t.flags & BF_SSE_OFF) t.undefined();
  else if (t.flags & BF_TS) t.raise(VECTOR_NM);
  else return true;
  return false;
}

export const vector =
  (translate: Translate): Translate =>
  (t) => {
    if (vectorReady(t)) translate(t);
  };

// --- Constants. ---

export const zero = (b: Builder): Value => b.v128(0, 0, 0, 0);
/** The same 32 bits in all lanes. */
export const all32 = (b: Builder, bits: number): Value => b.v128(bits, bits, bits, bits);
/** The same 64 bits in both lanes. */
export const all64 = (b: Builder, low: number, high: number): Value => b.v128(low, high, low, high);

// --- Lanes. ---

/**
 * Picks lanes of `bytes` bytes from x and y: numbers from 0 for x's, and from where those end
 * for y's.
 */
export function pick(b: Builder, x: Value, y: Value, bytes: number, lanes: readonly number[]): Value {
  const words = [0, 0, 0, 0];
  for (let i = 0; i < 16; i++) {
    const from = lanes[Math.floor(i / bytes)]! * bytes + (i % bytes);
    words[i >> 2]! |= from << ((i & 3) * 8);
  }
  return b.vshuffle(x, y, words[0]!, words[1]!, words[2]!, words[3]!);
}

/** Looks through writes to other lanes. @returns the value lane 0 was set to by `op`, or -1 */
function lowWritten(b: Builder, v: Value, op: number, high: number): Value {
  for (;;) {
    const at = v * STRIDE;
    const found = b.words[at]!;
    if (found === op && b.words[at + 3] === 0) return b.words[at + 2]!;
    if (found !== high || b.words[at + 3] === 0) return -1;
    v = b.words[at + 1]!;
  }
}

// Reading back what the instruction before has written needs no lane operation: scalar code
// then stays in scalar values.

export function lowF64(b: Builder, v: Value): Value {
  const known = lowWritten(b, v, Op.setlanef64, Op.setlanef64);
  return known >= 0 ? known : b.lanef64(v, 0);
}

export function lowF32(b: Builder, v: Value): Value {
  const known = lowWritten(b, v, Op.setlanef32, Op.setlanef32);
  return known >= 0 ? known : b.lanef32(v, 0);
}

export function low64(b: Builder, v: Value): Value {
  const known = lowWritten(b, v, Op.setlane64, Op.setlane64);
  return known >= 0 ? known : b.lane64(v, 0);
}

export function low32(b: Builder, v: Value): Value {
  const known = lowWritten(b, v, Op.setlane32, Op.setlane32);
  return known >= 0 ? known : b.lane32(v, 0);
}

/** The vector itself, or the one whose lane 0 it replaces by `op`: for writing lane 0 again. */
function beneath(b: Builder, v: Value, op: number): Value {
  const at = v * STRIDE;
  return b.words[at] === op && b.words[at + 3] === 0 ? b.words[at + 1]! : v;
}

export const setLowF64 = (b: Builder, v: Value, low: Value): Value => b.setlanef64(beneath(b, v, Op.setlanef64), low, 0);
export const setLowF32 = (b: Builder, v: Value, low: Value): Value => b.setlanef32(beneath(b, v, Op.setlanef32), low, 0);

export const setLow64 = (b: Builder, v: Value, low: Value): Value => b.setlane64(beneath(b, v, Op.setlane64), low, 0);

/** An i64, or i32, in the low lane and zeros above. */
export const fromLow64 = (b: Builder, low: Value): Value => b.setlane64(zero(b), low, 0);
export const fromLow32 = (b: Builder, low: Value): Value => b.setlane32(zero(b), low, 0);

// --- Operands. ---

/** The 16-byte operand of ModRM rm, which legacy SSE wants aligned in memory. */
export function readAligned(t: X86Translator): Value {
  if (!t.isVex) t.requireAligned(16, false);
  return t.readXmmRm(16);
}

/** Low double of an xmm register, or the double in memory. */
export function readF64(t: X86Translator): Value {
  return t.isRegister ? lowF64(t.b, t.readXmm(t.rm)) : t.b.ldf64(t.address(8, false));
}

export function readF32(t: X86Translator): Value {
  return t.isRegister ? lowF32(t.b, t.readXmm(t.rm)) : t.b.ldf32(t.address(4, false));
}

/** The immediate byte. */
export const imm8 = (t: X86Translator): number => t.immediate() & 0xff;

// --- Rows. ---

export const SSE: RowOptions = { feature: 'sse' };
export const SSE2: RowOptions = { feature: 'sse2' };
export const SSE3: RowOptions = { feature: 'pni' };
export const SSSE3: RowOptions = { feature: 'ssse3' };
export const SSE41: RowOptions = { feature: 'sse4.1' };
export const SSE42: RowOptions = { feature: 'sse4.2' };

/** reg = op(reg, rm) on whole registers. */
export function binaryRow(encoding: string, name: string, op: Binary | BinaryName, options: RowOptions): Row {
  const operate = binary(op);
  return row(
    encoding,
    name,
    'Vo,Wo',
    vector((t) => {
      const y = readAligned(t);
      t.writeXmm(t.reg, operate(t.b, t.readXmm(t.first), y));
    }),
    options,
  );
}

/** reg = op(rm) on whole registers. */
export function unaryRow(encoding: string, name: string, op: Unary | UnaryName, options: RowOptions): Row {
  const operate = unary(op);
  return row(
    encoding,
    name,
    'Vo,Wo',
    vector((t) => {
      t.writeXmm(t.reg, operate(t.b, readAligned(t)));
    }),
    options,
  );
}

/** reg = op(rm) of `bytes` bytes, which need no alignment. */
export function narrowRow(encoding: string, name: string, bytes: 2 | 4 | 8, op: Unary | UnaryName, options: RowOptions): Row {
  const operate = unary(op);
  const size = bytes === 8 ? 'q' : bytes === 4 ? 'd' : 'w';
  return row(
    encoding,
    name,
    `Vo,W${size}`,
    vector((t) => {
      t.writeXmm(t.reg, operate(t.b, t.readXmmRm(bytes)));
    }),
    options,
  );
}

/**
 * reg = op(reg, rm, immediate) on whole registers.
 * @param perHalf bits of the immediate that the lower half of a ymm register takes; 0 = both halves share them
 */
export function immediateRow(
  encoding: string,
  name: string,
  op: (b: Builder, x: Value, y: Value, immediate: number) => Value,
  options: RowOptions,
  perHalf = 0,
): Row {
  return row(
    encoding,
    name,
    'Vo,Wo,Ib',
    vector((t) => {
      const y = readAligned(t);
      t.writeXmm(t.reg, op(t.b, t.readXmm(t.first), y, imm8(t) >> (t.half * perHalf)));
    }),
    options,
  );
}

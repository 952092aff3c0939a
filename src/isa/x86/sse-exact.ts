/**
 * SSE and AVX floating point in both of its ways. In the default mode (round to nearest, all
 * exceptions masked, nobody looks at the flags) it is the host's own operations. Else, under
 * BF_MXCSR_EXACT, each lane is a call of a routine (float/arithmetic.ts), exceptions are collected,
 * and before an instruction writes anything `settle` makes them MXCSR's, or raises #XM.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { I32, I64 } from '../../ir/ops.ts';
import * as F from './float/arithmetic.ts';
import { defineHelper } from './helpers.ts';
import { LEAVE_SIMD_ERROR } from './leave.ts';
import { all32, all64, pick, zero } from './sse-common.ts';
import { BF_HOT, BF_MXCSR_EXACT, BF_MXCSR_FLUSH, MXCSR, SSE_FLAGS } from './state.ts';
import type { X86Translator } from './translator.ts';
import { DE, IE, PE } from './x87/common.ts';

export type PackedFormat = 'f32x4' | 'f64x2';
export type ScalarFormat = 'f32' | 'f64';
export type Arithmetic = 'add' | 'sub' | 'mul' | 'div' | 'sqrt';

const CODES = { add: F.ADD, sub: F.SUB, mul: F.MUL, div: F.DIV, sqrt: F.SQRT } as const;
const DAZ_BIT = 6;
const FTZ_BIT = 15;

const routine = (name: string, params: readonly number[], result: number): ReturnType<typeof defineHelper> =>
  defineHelper({
    name: `sse.${name}`,
    params,
    result,
    touchesGlobals: false,
    mayFault: false,
    body: { kind: 'wasm', export: name },
  });

/** (what, x, y, z) => bits. */
const FLOAT = routine('float', [I32, I64, I64, I64], I64);
/** (signs, x, y, z) => bits of x * y + z. */
const FUSED = routine('fused', [I32, I64, I64, I64], I64);
/** () => the exceptions that must be raised. */
const SETTLE = routine('settle', [], I32);

/**
 * Must this code do as MXCSR says, and set its flags? Cold code of programs does so always, whether or
 * not anyone looks: flags stay set, and code that becomes hot has set what it sets before it does.
 */
export const isExact = (t: X86Translator): boolean =>
  (t.flags & BF_MXCSR_EXACT) !== 0 || (t.cpl === 3 && (t.flags & BF_HOT) === 0);

/** FTZ and DAZ alone, without anyone who looks at flags: arithmetic stays the host's own. */
const isFlushing = (t: X86Translator): boolean => (t.flags & BF_MXCSR_FLUSH) !== 0;

// --- Exceptions. ---

function settle(t: X86Translator): void {
  t.b.leaveIf(t.b.call(SETTLE), LEAVE_SIMD_ERROR, t.length);
}

/** From here on the instruction has exceptions to settle before its first write. */
function collects(t: X86Translator): void {
  t.beforeWrite = settle;
}

/** Collects exceptions (an i32). */
export function raise(t: X86Translator, flags: Value): void {
  const { b } = t;
  if (isFlushing(t)) return;
  b.sts32(SSE_FLAGS, b.or32(b.lds32(SSE_FLAGS), flags));
  collects(t);
}

/** A mask of whole lanes (v128) as an exception when any is set. */
const anyAs = (b: Builder, lanes: Value, exception: number): Value => b.select32(b.anytrue(lanes), b.i32(exception), b.i32(0));

/** Lanes with denormals other than zeros. */
function denormalLanes(b: Builder, format: PackedFormat, x: Value): Value {
  if (format === 'f32x4') {
    const magnitude = b.andv(x, all32(b, 0x7fffffff));
    return b.ltu32x4(b.sub32x4(magnitude, all32(b, 1)), all32(b, 0x7fffff));
  }
  const magnitude = b.andv(x, all64(b, -1, 0x7fffffff));
  const small = b.lts64x2(magnitude, all64(b, 0, 0x100000));
  return b.andv(small, b.ne64x2(magnitude, zero(b)));
}

function signallingLanes(b: Builder, format: PackedFormat, x: Value): Value {
  const nan = b[`ne${format}`](x, x);
  if (format === 'f32x4') return b.andv(nan, b.eq32x4(b.andv(x, all32(b, 0x400000)), zero(b)));
  return b.andv(nan, b.eq64x2(b.andv(x, all64(b, 0, 0x80000)), zero(b)));
}

export interface Inspection {
  /** Quiet NaNs are invalid, too. */
  readonly quiet?: boolean;
  /** Denormals are an exception. */
  readonly denormals?: boolean;
  /** Lanes that count, from the lowest on; all by default. */
  readonly lanes?: number;
}

/** Keeps the lanes that count, makes zeros of the others. */
function firstLanes(b: Builder, format: PackedFormat, x: Value, lanes: number): Value {
  const all = format === 'f32x4' ? 4 : 2;
  if (lanes >= all) return x;
  const words = (lanes * 4) / all;
  const keep = (i: number): number => (i < words ? -1 : 0);
  return b.andv(x, b.v128(keep(0), keep(1), keep(2), keep(3)));
}

/** Exceptions that operands raise by what they are. Denormals that DAZ makes zeros are zeros already. */
export function inspect(t: X86Translator, format: PackedFormat, operands: readonly Value[], how: Inspection): void {
  if (!isExact(t) || isFlushing(t)) return;
  const { b } = t;
  const list = how.lanes === undefined ? operands : operands.map((x) => firstLanes(b, format, x, how.lanes!));
  const either = (of: (x: Value) => Value): Value => list.map(of).reduce((x, y) => b.orv(x, y));
  const nan = either((x) => b[`ne${format}`](x, x));
  const invalid = how.quiet ? nan : either((x) => signallingLanes(b, format, x));
  let flags = anyAs(b, invalid, IE);
  if (how.denormals) {
    // NaNs come before denormals.
    const denormal = b.andnotv(
      either((x) => denormalLanes(b, format, x)),
      nan,
    );
    flags = b.or32(flags, anyAs(b, denormal, DE));
  }
  raise(t, flags);
}

/** Collects what a rounding did: inexact where x and its rounded form (not NaNs) differ. */
export function inspectRounding(t: X86Translator, format: PackedFormat, x: Value, rounded: Value, lanes = 4): void {
  if (!isExact(t) || isFlushing(t)) return;
  const { b } = t;
  const less = b[`lt${format}`](x, rounded);
  const different = b.orv(less, b[`gt${format}`](x, rounded));
  raise(t, anyAs(b, firstLanes(b, format, different, lanes), PE));
}

/**
 * Collects what a conversion to integers did.
 * @param fits lanes (whole) whose rounded form is an integer of the size  @param lanes that count
 */
export function inspectConversion(
  t: X86Translator,
  format: PackedFormat,
  x: Value,
  rounded: Value,
  fits: Value,
  lanes: number,
): void {
  if (!isExact(t)) return;
  const { b } = t;
  const inexact = b.andv(b[`ne${format}`](x, rounded), fits);
  const flags = anyAs(b, firstLanes(b, format, b.notv(fits), lanes), IE);
  raise(t, b.or32(flags, anyAs(b, firstLanes(b, format, inexact, lanes), PE)));
}

// --- Operands. ---

/** An operand of a floating-point operation: denormals are zeros where MXCSR says so. */
export function operand(t: X86Translator, format: PackedFormat, x: Value): Value {
  if (!isExact(t)) return x;
  const { b } = t;
  const sign = format === 'f32x4' ? all32(b, 0x80000000 | 0) : all64(b, 0, 0x80000000 | 0);
  const flushed = b.andv(denormalLanes(b, format, x), mxcsrMask(b, DAZ_BIT));
  return b.bitselect(b.andv(x, sign), x, flushed);
}

/** The scalar form of `operand`. */
export function scalarOperand(t: X86Translator, format: ScalarFormat, x: Value): Value {
  const { b } = t;
  if (!isExact(t)) return x;
  if (format === 'f32') return b.lanef32(operand(t, 'f32x4', b.splatf32(x)), 0);
  return b.lanef64(operand(t, 'f64x2', b.splatf64(x)), 0);
}

/** A scalar in all lanes, for the functions that look at vectors. */
export const splat = (b: Builder, format: ScalarFormat, x: Value): Value => (format === 'f32' ? b.splatf32(x) : b.splatf64(x));
export const packedOf = (format: ScalarFormat): PackedFormat => (format === 'f32' ? 'f32x4' : 'f64x2');

// --- Arithmetic. ---

/** Bits of lane i, an i64. */
function laneBits(b: Builder, format: PackedFormat, x: Value, i: number): Value {
  if (x < 0) return b.i64(0);
  return format === 'f32x4' ? b.extu(b.lane32(x, i)) : b.lane64(x, i);
}

/** A routine on lanes of x, y and z (-1 = none). */
function lanesBy(
  t: X86Translator,
  how: 'float' | 'fused',
  what: number | ((lane: number) => number),
  format: PackedFormat,
  operands: readonly Value[],
): Value {
  const { b } = t;
  const [x = -1, y = -1, z = -1] = operands;
  const lanes = format === 'f32x4' ? 4 : 2;
  let result = zero(b);
  for (let i = 0; i < lanes; i++) {
    const operation = typeof what === 'number' ? what : what(i);
    const word = b.i32(operation | (format === 'f32x4' ? F.SINGLE : 0));
    const bits = b.call(
      how === 'float' ? FLOAT : FUSED,
      word,
      laneBits(b, format, x, i),
      laneBits(b, format, y, i),
      laneBits(b, format, z, i),
    );
    result = format === 'f32x4' ? b.setlane32(result, b.wrap(bits), i) : b.setlane64(result, bits, i);
  }
  return result;
}

/** All ones when a bit of MXCSR is set. */
function mxcsrMask(b: Builder, bit: number): Value {
  return b.splat32(b.sub32(b.i32(0), b.and32(b.shr32(b.lds32(MXCSR), b.i32(bit)), b.i32(1))));
}

/**
 * Arithmetic under FTZ and DAZ. Results are tiny if they are so with a range of exponents that has no
 * end: of products and quotients that shows with one operand scaled up. Sums that are tiny are exact.
 */
function flushed(t: X86Translator, op: Arithmetic, format: PackedFormat, x: Value, y: Value): Value {
  const { b } = t;
  x = operand(t, format, x);
  if (op === 'sqrt') return b[`sqrt${format}`](x);
  y = operand(t, format, y);
  const result = b[`${op}${format}`](x, y);
  const scales = op === 'mul' || op === 'div';
  const single = format === 'f32x4';
  // 2^64 and 2^512; the least normal number, and it scaled likewise.
  const scale = single ? all32(b, 0x5f800000) : all64(b, 0, 0x5ff00000);
  const limit = single ? all32(b, scales ? 0x20800000 : 0x00800000) : all64(b, 0, scales ? 0x20100000 : 0x00100000);
  const unbounded = scales ? b[`${op}${format}`](b[`mul${format}`](x, scale), y) : result;
  const tiny = b.andv(b[`lt${format}`](b[`abs${format}`](unbounded), limit), mxcsrMask(b, FTZ_BIT));
  const sign = single ? all32(b, 0x80000000 | 0) : all64(b, 0, 0x80000000 | 0);
  return b.bitselect(b.andv(result, sign), result, tiny);
}

/** Arithmetic on all lanes; of the square root x is the operand. */
export function packed(t: X86Translator, op: Arithmetic, format: PackedFormat, x: Value, y: Value): Value {
  if (isFlushing(t)) return flushed(t, op, format, x, y);
  if (!isExact(t)) return op === 'sqrt' ? t.b[`sqrt${format}`](x) : t.b[`${op}${format}`](x, y);
  collects(t);
  return lanesBy(t, 'float', CODES[op], format, [x, y]);
}

/** Subtracts in the even lanes, adds in the odd ones. */
export function addSubtract(t: X86Translator, format: PackedFormat, x: Value, y: Value): Value {
  const { b } = t;
  if (isExact(t)) {
    collects(t);
    return lanesBy(t, 'float', (i) => (i & 1 ? F.ADD : F.SUB), format, [x, y]);
  }
  const [difference, sum] = [b[`sub${format}`](x, y), b[`add${format}`](x, y)];
  return format === 'f32x4' ? pick(b, difference, sum, 4, [0, 5, 2, 7]) : pick(b, difference, sum, 8, [0, 3]);
}

const bitsOf = (b: Builder, format: ScalarFormat, x: Value): Value => (format === 'f32' ? b.extu(b.bitsf32(x)) : b.bitsf64(x));
const fromBits = (b: Builder, format: ScalarFormat, x: Value): Value => (format === 'f32' ? b.f32bits(b.wrap(x)) : b.f64bits(x));

function scalarBy(t: X86Translator, what: number, format: ScalarFormat, operands: readonly Value[]): Value {
  const { b } = t;
  collects(t);
  const [x, y, z] = operands.map((v) => bitsOf(b, format, v));
  const word = b.i32(what | (format === 'f32' ? F.SINGLE : 0));
  return fromBits(b, format, b.call(FLOAT, word, x!, y ?? b.i64(0), z ?? b.i64(0)));
}

/** Arithmetic on scalars (f32 or f64). */
export function scalar(t: X86Translator, op: Arithmetic, format: ScalarFormat, x: Value, y: Value): Value {
  if (isFlushing(t)) {
    const { b } = t;
    const result = flushed(t, op, packedOf(format), splat(b, format, x), splat(b, format, y));
    return format === 'f32' ? b.lanef32(result, 0) : b.lanef64(result, 0);
  }
  if (isExact(t)) return scalarBy(t, CODES[op], format, [x, y]);
  return op === 'sqrt' ? t.b[`sqrt${format}`](x) : t.b[`${op}${format}`](x, y);
}

// --- Fused multiplication and addition. ---

/** Signs of the product and of the addend. */
export interface Signs {
  readonly product: boolean;
  readonly addend: boolean;
}

const signWord = ({ product, addend }: Signs): number => (product ? F.NEGATE_PRODUCT : 0) | (addend ? F.NEGATE_ADDEND : 0);

/**
 * Two lanes of singles, widened: the product is exact as a double, the sum is rounded to odd, so
 * that rounding it again to a single is as if it had been rounded once.
 */
function fusedWidened(b: Builder, x: Value, y: Value, z: Value, { product, addend }: Signs): Value {
  // The sign goes into a factor: a NaN that the product makes keeps its own.
  const p = b.mulf64x2(product ? b.negf64x2(x) : x, y);
  if (addend) z = b.negf64x2(z);
  const sum = b.addf64x2(p, z);
  const part = b.subf64x2(sum, p);
  const rest = b.addf64x2(b.subf64x2(p, b.subf64x2(sum, part)), b.subf64x2(z, part));
  // Inexact (no infinity, no NaN) and even: one step to where the exact sum lies.
  const inexact = b.gtf64x2(b.absf64x2(rest), zero(b));
  const step = b.orv(b.sar64x2(b.xorv(sum, rest), b.i32(63)), all64(b, 1, 0));
  const even = b.eq64x2(b.andv(sum, all64(b, 1, 0)), zero(b));
  return b.add64x2(sum, b.andv(step, b.andv(inexact, even)));
}

/** NaNs are those of x, y, z, in this order and with their signs. */
function withNans(b: Builder, format: PackedFormat, result: Value, x: Value, y: Value, z: Value): Value {
  const sum = b[`add${format}`];
  const nan = (v: Value): Value => b[`ne${format}`](v, v);
  const quiet = (v: Value): Value => sum.call(b, v, v);
  let chosen = b.bitselect(quiet(z), result, nan(z));
  chosen = b.bitselect(quiet(y), chosen, nan(y));
  return b.bitselect(quiet(x), chosen, nan(x));
}

/** x * y + z with one rounding, on all lanes. */
export function fusedPacked(t: X86Translator, format: PackedFormat, x: Value, y: Value, z: Value, signs: Signs): Value {
  const { b } = t;
  if (isExact(t)) {
    collects(t);
    return lanesBy(t, 'float', F.FUSED | signWord(signs), format, [x, y, z]);
  }
  if (format === 'f64x2') return lanesBy(t, 'fused', F.FUSED | F.PLAIN | signWord(signs), format, [x, y, z]);
  const half = (high: boolean): Value => {
    const widen = (v: Value): Value => b.f32x4tof64x2(high ? pick(b, v, v, 8, [1, 1]) : v);
    return b.f64x2tof32x4(fusedWidened(b, widen(x), widen(y), widen(z), signs));
  };
  return withNans(b, format, pick(b, half(false), half(true), 8, [0, 2]), x, y, z);
}

/** x * y + z with one rounding, on scalars. */
export function fusedScalar(t: X86Translator, format: ScalarFormat, x: Value, y: Value, z: Value, signs: Signs): Value {
  const { b } = t;
  if (isExact(t)) return scalarBy(t, F.FUSED | signWord(signs), format, [x, y, z]);
  if (format === 'f64') {
    const word = b.i32(F.FUSED | F.PLAIN | signWord(signs));
    return b.f64bits(b.call(FUSED, word, b.bitsf64(x), b.bitsf64(y), b.bitsf64(z)));
  }
  const [vx, vy, vz] = [x, y, z].map((v) => b.splatf32(v)) as [Value, Value, Value];
  const wide = fusedWidened(b, b.f32x4tof64x2(vx), b.f32x4tof64x2(vy), b.f32x4tof64x2(vz), signs);
  return b.lanef32(withNans(b, 'f32x4', b.f64x2tof32x4(wide), vx, vy, vz), 0);
}

// --- Conversions. ---

/** A double rounded to a single. */
export function narrow(t: X86Translator, x: Value): Value {
  const { b } = t;
  if (!isExact(t)) return b.f64tof32(x);
  collects(t);
  const bits = b.call(FLOAT, b.i32(F.NARROW | F.SINGLE), b.bitsf64(x), b.i64(0), b.i64(0));
  return b.f32bits(b.wrap(bits));
}

/** An integer (i32 or i64) as a single or double. */
export function fromInteger(t: X86Translator, format: ScalarFormat, size: number, v: Value): Value {
  const { b } = t;
  if (!isExact(t)) return size === 8 ? b[`s64to${format}`](v) : b[`s32to${format}`](v);
  collects(t);
  const word = b.i32(F.FROM_INTEGER | (format === 'f32' ? F.SINGLE : 0));
  return fromBits(b, format, b.call(FLOAT, word, size === 8 ? v : b.exts(v), b.i64(0), b.i64(0)));
}

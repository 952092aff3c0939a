/**
 * SSE arithmetic when MXCSR is not in its default mode (BF_MXCSR_EXACT): directed rounding,
 * denormals are zeros, flush to zero (SDM vol. 1, 10.2.3 and 11.5). Rare, so clearness wins:
 * each lane is a call.
 *
 * Still approximate: exception flags are not set and unmasked exceptions not raised. Results
 * that become the least normal number only by rounding are not flushed.
 */
import type { Value } from '../../ir/builder.ts';
import { F64, I32 } from '../../ir/ops.ts';
import { defineHelper } from './helpers.ts';
import { all32, all64, zero } from './sse-common.ts';
import { BF_MXCSR_EXACT, MXCSR } from './state.ts';
import type { X86Translator } from './translator.ts';

export type PackedFormat = 'f32x4' | 'f64x2';
export type Arithmetic = 'add' | 'sub' | 'mul' | 'div' | 'sqrt';

/** CONVERT rounds the first operand to the result's format. */
const CODES = { add: 0, sub: 1, mul: 2, div: 3, sqrt: 4, convert: 5 } as const;
const SINGLE = 8;
const MXCSR_SHIFT = 4;

const DAZ_BIT = 6;
const ROUNDING_CONTROL = 3 << 13;
const MASK_UNDERFLOW = 1 << 11;
const FLUSH_TO_ZERO = 1 << 15;
const DOWN = 1;
const UP = 2;

// --- The exact value against the nearest one. Numbers are m * 2^e. ---

const bits = new DataView(new ArrayBuffer(8));

interface Exact {
  readonly m: bigint;
  readonly e: number;
}

function exact(x: number): Exact {
  bits.setFloat64(0, x);
  const high = bits.getUint32(0);
  const exponent = (high >>> 20) & 0x7ff;
  const fraction = bits.getBigUint64(0) & 0xfffffffffffffn;
  const m = exponent === 0 ? fraction : fraction | 0x10000000000000n;
  return { m: high >>> 31 ? -m : m, e: Math.max(exponent, 1) - 1075 };
}

const negative = (x: Exact): Exact => ({ m: -x.m, e: x.e });
const product = (x: Exact, y: Exact): Exact => ({ m: x.m * y.m, e: x.e + y.e });

/** Sign of a sum. */
function signOf(...terms: Exact[]): number {
  const least = Math.min(...terms.map((term) => term.e));
  const sum = terms.reduce((total, term) => total + (term.m << BigInt(term.e - least)), 0n);
  return sum > 0n ? 1 : sum < 0n ? -1 : 0;
}

/** Sign of the exact result minus r. Operands are finite, and the divisor is not 0. */
function errorSign(code: number, x: number, y: number, r: number): number {
  if (!Number.isFinite(r)) return r > 0 ? -1 : 1;
  const minus = negative(exact(r));
  switch (code) {
    case CODES.add:
      return signOf(exact(x), exact(y), minus);
    case CODES.sub:
      return signOf(exact(x), exact(-y), minus);
    case CODES.mul:
      return signOf(product(exact(x), exact(y)), minus);
    case CODES.div:
      return signOf(exact(x), product(minus, exact(y))) * Math.sign(y);
    case CODES.sqrt:
      return signOf(exact(x), product(minus, exact(r)));
    default:
      return signOf(exact(x), minus);
  }
}

/** The neighbour of r above, or below, it. */
function neighbour(r: number, above: boolean, single: boolean): number {
  if (r === 0) return (above ? 1 : -1) * (single ? 2 ** -149 : 2 ** -1074);
  const step = r > 0 === above ? 1 : -1;
  if (single) {
    bits.setFloat32(0, r);
    bits.setInt32(0, bits.getInt32(0) + step);
    return bits.getFloat32(0);
  }
  bits.setFloat64(0, r);
  bits.setBigInt64(0, bits.getBigInt64(0) + BigInt(step));
  return bits.getFloat64(0);
}

function nearest(code: number, x: number, y: number): number {
  switch (code) {
    case CODES.add:
      return x + y;
    case CODES.sub:
      return x - y;
    case CODES.mul:
      return x * y;
    case CODES.div:
      return x / y;
    case CODES.sqrt:
      return Math.sqrt(x);
    default:
      return x;
  }
}

function directed(
  code: number, x: number, y: number, r: number, rounding: number, single: boolean,
): number {
  const sign = errorSign(code, x, y, r);
  if (sign === 0) {
    // An exact sum of 0 is negative when rounding down, unless both operands are +0.
    const second = code === CODES.sub ? -y : y;
    const isSum = code === CODES.add || code === CODES.sub;
    return isSum && r === 0 && rounding === DOWN && !Object.is(x, second) ? -0 : r;
  }
  const below = rounding === DOWN || (rounding !== UP && (r > 0 || (r === 0 && sign > 0)));
  if (below) return sign < 0 ? neighbour(r, false, single) : r;
  return sign > 0 ? neighbour(r, true, single) : r;
}

/** One operation. @param word operation, format and MXCSR */
export function exactFloat(word: number, x: number, y: number): number {
  const code = word & 7;
  const single = (word & SINGLE) !== 0;
  const mxcsr = word >>> MXCSR_SHIFT;
  let r = nearest(code, x, y);
  if (single) r = Math.fround(r);
  if (Number.isNaN(r) || !Number.isFinite(x) || !Number.isFinite(y)) return r;
  const rounding = (mxcsr >> 13) & 3;
  const byZero = code === CODES.div && y === 0;
  if (rounding !== 0 && !byZero) r = directed(code, x, y, r, rounding, single);
  const flush = (mxcsr & (FLUSH_TO_ZERO | MASK_UNDERFLOW)) === (FLUSH_TO_ZERO | MASK_UNDERFLOW);
  return flush && Math.abs(r) < (single ? 2 ** -126 : 2 ** -1022) ? r * 0 : r;
}

/** (operation, format and MXCSR, operands) => result. */
const EXACT_FLOAT = defineHelper({
  name: 'exactFloat',
  params: [I32, F64, F64],
  result: F64,
  touchesGlobals: false,
  mayFault: false,
  body: { kind: 'host', call: exactFloat },
});

// --- In the translator. ---

export const isExact = (t: X86Translator): boolean => (t.flags & BF_MXCSR_EXACT) !== 0;

/** An operand of a floating-point operation: denormals are zeros where MXCSR says so. */
export function operand(t: X86Translator, format: PackedFormat, x: Value): Value {
  if (!isExact(t)) return x;
  const { b } = t;
  const enabled = b.and32(b.shr32(b.lds32(MXCSR), b.i32(DAZ_BIT)), b.i32(1));
  const tiny = format === 'f32x4'
    ? b.andv(b.eq32x4(b.andv(x, all32(b, 0x7f800000)), zero(b)), all32(b, 0x7fffffff))
    : b.andv(b.eq64x2(b.andv(x, all64(b, 0, 0x7ff00000)), zero(b)), all64(b, -1, 0x7fffffff));
  return b.andnotv(x, b.andv(tiny, b.splat32(b.sub32(b.i32(0), enabled))));
}

function callExact(t: X86Translator, code: number, single: boolean, x: Value, y: Value): Value {
  const { b } = t;
  const mxcsr = b.shl32(b.lds32(MXCSR), b.i32(MXCSR_SHIFT));
  return b.call(EXACT_FLOAT, b.or32(mxcsr, b.i32(code | (single ? SINGLE : 0))), x, y);
}

function exactLanes(
  t: X86Translator, op: Arithmetic, format: PackedFormat, x: Value, y: Value, lanes: number,
): Value {
  const { b } = t;
  x = operand(t, format, x);
  y = operand(t, format, y);
  // NaN results are the native operation's.
  let result = op === 'sqrt' ? b[`sqrt${format}`](x) : b[`${op}${format}`](x, y);
  for (let i = 0; i < lanes; i++) {
    if (format === 'f64x2') {
      const native = b.lanef64(result, i);
      const value = callExact(t, CODES[op], false, b.lanef64(x, i), b.lanef64(y, i));
      result = b.setlanef64(result, b.selectf64(b.nef64(native, native), native, value), i);
    } else {
      const native = b.lanef32(result, i);
      const second = b.f32tof64(b.lanef32(y, i));
      const wide = callExact(t, CODES[op], true, b.f32tof64(b.lanef32(x, i)), second);
      const value = b.f64tof32(wide);
      result = b.setlanef32(result, b.selectf32(b.nef32(native, native), native, value), i);
    }
  }
  return result;
}

/** Arithmetic on all lanes; of the square root x is the operand. */
export function packed(
  t: X86Translator, op: Arithmetic, format: PackedFormat, x: Value, y: Value,
): Value {
  if (isExact(t)) return exactLanes(t, op, format, x, y, format === 'f32x4' ? 4 : 2);
  return op === 'sqrt' ? t.b[`sqrt${format}`](x) : t.b[`${op}${format}`](x, y);
}

/** Arithmetic on scalars (f32 or f64). */
export function scalar(
  t: X86Translator, op: Arithmetic, format: 'f32' | 'f64', x: Value, y: Value,
): Value {
  const { b } = t;
  if (!isExact(t)) return op === 'sqrt' ? b[`sqrt${format}`](x) : b[`${op}${format}`](x, y);
  if (format === 'f32') {
    return b.lanef32(exactLanes(t, op, 'f32x4', b.splatf32(x), b.splatf32(y), 1), 0);
  }
  return b.lanef64(exactLanes(t, op, 'f64x2', b.splatf64(x), b.splatf64(y), 1), 0);
}

/** The scalar form of `operand`. */
export function scalarOperand(t: X86Translator, format: 'f32' | 'f64', x: Value): Value {
  const { b } = t;
  if (!isExact(t)) return x;
  if (format === 'f32') return b.lanef32(operand(t, 'f32x4', b.splatf32(x)), 0);
  return b.lanef64(operand(t, 'f64x2', b.splatf64(x)), 0);
}

/** A double rounded to a single. */
export function narrow(t: X86Translator, x: Value): Value {
  const { b } = t;
  if (!isExact(t)) return b.f64tof32(x);
  x = scalarOperand(t, 'f64', x);
  const native = b.f64tof32(x);
  const value = b.f64tof32(callExact(t, CODES.convert, true, x, x));
  return b.selectf32(b.nef32(native, native), native, value);
}

/** An integer (i32 or i64) as a single or double. */
export function fromInteger(
  t: X86Translator, format: 'f32' | 'f64', size: number, v: Value,
): Value {
  const { b } = t;
  const single = format === 'f32';
  if (!isExact(t)) return size === 8 ? b[`s64to${format}`](v) : b[`s32to${format}`](v);
  let value: Value;
  if (size === 8) {
    // Both halves are exact doubles, and so is their sum's rounding.
    const twoTo32 = b.f64bits(b.i64(0, 0x41f00000));
    const high = b.mulf64(b.s32tof64(b.wrap(b.sar64(v, b.i64(32)))), twoTo32);
    value = callExact(t, CODES.add, single, high, b.u32tof64(b.wrap(v)));
    if (single) {
      // The nearest single of a double that was rounded itself may be the wrong one.
      const toNearest = b.eqz32(b.and32(b.lds32(MXCSR), b.i32(ROUNDING_CONTROL)));
      return b.selectf32(toNearest, b.s64tof32(v), b.f64tof32(value));
    }
  } else value = callExact(t, CODES.convert, single, b.s32tof64(v), b.s32tof64(v));
  return single ? b.f64tof32(value) : value;
}

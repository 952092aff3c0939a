/**
 * Moves between registers, from and to memory, and comparisons, as they go most of the time (X87_FAST): what stands in place of a
 * call in code that is run often. Registers are named by their slots; TOP moves afterwards (x87-stack.ts).
 */
import type { Body, Expr, Field, Inline } from '../../../wasm/structured.ts';
import { i32 } from '../../../wasm/structured.ts';
import { FPREG, FTAG } from '../state.ts';
import {
  BIAS,
  C1,
  NORMAL,
  SE_FIELD,
  SIGNIFICAND_FIELD,
  TAG_FIELD,
  TOP_BIT,
  areMarked,
  markOf,
  setStatus,
  single,
  status,
} from './common.ts';
import type { Float } from './common.ts';
import { FAST, onRegisters, ordering, put, readMarked } from './fast-arithmetic.ts';
import type { Out } from './fast-arithmetic.ts';
import { DOUBLE, HIGH_PART, SINGLE, STATUS_AFTER } from './formats.ts';
import type { Format } from './formats.ts';

const STATUS_AFTER_FIELD: Field = { ...single(5, STATUS_AFTER), brief: true };
const HIGH_PART_FIELD: Field = { ...single(6, HIGH_PART), brief: true };

/** 1 for an empty register, else 0. */
const emptiness = (f: Body, slot: Expr): Expr => f.load8(FTAG, slot.shr(4));

function requireFull(f: Body, out: Out, ...slots: Expr[]): void {
  for (const slot of slots) if (f.constantOf(TAG_FIELD, slot) !== 0) out(emptiness(f, slot));
}
function requireEmpty(f: Body, out: Out, slot: Expr): void {
  if (f.constantOf(TAG_FIELD, slot) !== 1) out(emptiness(f, slot).not());
}

/** Writes a register. */
function fill(f: Body, slot: Expr, v: Float): void {
  put(f, slot, v);
  if (f.constantOf(TAG_FIELD, slot) !== 0) f.store8(FTAG, 0, slot.shr(4));
  f.setConstant(TAG_FIELD, slot, 0);
}

/** What a load leaves behind in a register. */
function push(f: Body, d: Expr, v: Float): undefined {
  fill(f, d, v);
  setStatus(f);
}

/** (new st(0), source): FLD st(i). */
const loadRegister: Inline = (f, out, d, s) => {
  requireEmpty(f, out, d);
  requireFull(f, out, s);
  return push(f, d, readMarked(f, s));
};

/** (st(0), destination): FST st(i). */
const storeRegister: Inline = (f, out, s, d) => {
  requireFull(f, out, s);
  return push(f, d, readMarked(f, s));
};

/** (st(0), st(i)): FXCH. */
const exchange: Inline = (f, out, d, s) => {
  requireFull(f, out, d, s);
  const [a, b] = [readMarked(f, d), readMarked(f, s)];
  for (const [slot, { sig, se }] of [
    [d, b],
    [s, a],
  ] as const) {
    f.store64(FPREG, sig, slot);
    f.store32(FPREG + 8, se, slot);
    f.setConstant(TAG_FIELD, slot, 0);
  }
  f.exchange(SIGNIFICAND_FIELD, d, s);
  f.exchange(SE_FIELD, d, s);
  setStatus(f);
  return undefined;
};

/** (st(0), sign bits to clear, and to toggle): FABS, FCHS. */
const changeSign: Inline = (f, out, d, clear, toggle) => {
  requireFull(f, out, d);
  const load = f.load32(FPREG + 8, d);
  const se = f.recall(SE_FIELD, d, load).and(clear.xor(-1)).xor(toggle);
  f.store32(FPREG + 8, f.record(SE_FIELD, d, load, se), d);
  f.setConstant(TAG_FIELD, d, 0);
  setStatus(f);
  return undefined;
};

/** (new st(0), significand, se): FLD of 80 bits, constants. */
const loadExtended: Inline = (f, out, d, sig, se) => {
  requireEmpty(f, out, d);
  return push(f, d, { sig, se: se.or(markOf({ sig, se })) });
};

/** (new st(0), bits) of a normal number. */
const loadFormat =
  ({ fraction, exponents, rebias }: Format): Inline =>
  (f, out, d, operand) => {
    requireEmpty(f, out, d);
    const bits = f.let(fraction === 52 ? operand : operand.extu());
    const exp = f.let(bits.shr(BigInt(fraction)).wrap().and(exponents));
    out(exp.sub(1).geu(exponents - 1));
    const sig = bits.shl(BigInt(63 - fraction)).or(TOP_BIT);
    const sign = bits
      .shr(fraction === 52 ? 48n : 16n)
      .wrap()
      .and(0x8000);
    return push(f, d, { sig, se: exp.add(rebias).or(sign).or(NORMAL) });
  };

/** (new st(0), integer): FILD of anything but 0. */
const loadInteger: Inline = (f, out, d, v) => {
  requireEmpty(f, out, d);
  out(v.not());
  const sign = f.let(v.sar(63n));
  const magnitude = f.let(v.xor(sign).sub(sign));
  const n = f.let(magnitude.clz());
  const se = i32(BIAS + 63)
    .sub(n.wrap())
    .or(sign.wrap().and(0x8000))
    .or(NORMAL);
  return push(f, d, { sig: magnitude.shl(n), se });
};

/** (st(0)) => significand: FSTP of 80 bits. */
const storeExtended: Inline = (f, out, s) => {
  requireFull(f, out, s);
  const { sig, se } = readMarked(f, s);
  f.store32(STATUS_AFTER, f.record(STATUS_AFTER_FIELD, null, f.load32(STATUS_AFTER), status(f).and(~C1)));
  f.store32(HIGH_PART, f.record(HIGH_PART_FIELD, null, f.load32(HIGH_PART), se.and(0xffff)));
  return sig;
};

/** (st(0), st(i), quiet) => CF, PF and ZF: FCOMI and FUCOMI of normal numbers. */
const compareToFlags: Inline = (f, out, d, s) => {
  const [a, b] = [readMarked(f, d), readMarked(f, s)];
  out(areMarked(a, b).not());
  setStatus(f);
  return ordering(f, a, b);
};

/** By the names of routines. */
export const X87_FAST: Readonly<Record<string, Inline>> = {
  fldR: loadRegister,
  fstR: storeRegister,
  fxch: exchange,
  fsign: changeSign,
  fld80: loadExtended,
  fld64: loadFormat(DOUBLE),
  fld32: loadFormat(SINGLE),
  fild: loadInteger,
  st80: storeExtended,
  comi: compareToFlags,
  ...Object.fromEntries(Object.entries(FAST).map(([name, fast]) => [`${name}R`, onRegisters(fast)])),
};

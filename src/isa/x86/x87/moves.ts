/**
 * Moves between registers, from and to memory, and comparisons, as they go most of the time (X87_FAST): what stands in place of a
 * call in code that is run often. Registers are named by their slots; TOP moves afterwards (x87-stack.ts).
 */
import type { Body, Expr, Inline } from '../../../wasm/structured.ts';
import { i32 } from '../../../wasm/structured.ts';
import { FPREG, FSW, FTAG } from '../state.ts';
import { BIAS, C1, NORMAL, TOP_BIT, areMarked, markOf } from './common.ts';
import type { Float } from './common.ts';
import { FAST, onRegisters, ordering, readMarked } from './fast-arithmetic.ts';
import { DOUBLE, HIGH_PART, SINGLE, STATUS_AFTER } from './formats.ts';
import type { Format } from './formats.ts';

const SE = FPREG + 8;

/** 1 for an empty register, else 0. */
const emptiness = (f: Body, slot: Expr): Expr => f.load8(FTAG, slot.shr(4));
const fill = (f: Body, slot: Expr): void => f.store8(FTAG, 0, slot.shr(4));
const clearC1 = (f: Body): void => f.store32(FSW, f.load32(FSW).and(~C1));

function put(f: Body, slot: Expr, { sig, se }: Float): void {
  f.store64(FPREG, sig, slot);
  f.store32(SE, se, slot);
}

/** (new st(0), source): FLD st(i). */
const loadRegister: Inline = (f, out, d, s) => {
  out(emptiness(f, d).not().or(emptiness(f, s)));
  put(f, d, readMarked(f, s));
  fill(f, d);
  clearC1(f);
  return undefined;
};

/** (st(0), destination): FST st(i). */
const storeRegister: Inline = (f, out, s, d) => {
  out(emptiness(f, s));
  put(f, d, readMarked(f, s));
  fill(f, d);
  clearC1(f);
  return undefined;
};

/** (st(0), st(i)): FXCH. */
const exchange: Inline = (f, out, d, s) => {
  out(emptiness(f, d).or(emptiness(f, s)));
  const [a, b] = [readMarked(f, d), readMarked(f, s)];
  put(f, d, b);
  put(f, s, a);
  clearC1(f);
  return undefined;
};

/** (st(0), sign bits to clear, and to toggle): FABS, FCHS. */
const changeSign: Inline = (f, out, d, clear, toggle) => {
  out(emptiness(f, d));
  f.store32(SE, f.load32(SE, d).and(clear.xor(-1)).xor(toggle), d);
  clearC1(f);
  return undefined;
};

/** What a push leaves behind in a register that was empty. */
function push(f: Body, d: Expr, v: Float): undefined {
  put(f, d, v);
  fill(f, d);
  clearC1(f);
}

/** (new st(0), significand, se): FLD of 80 bits, constants. */
const loadExtended: Inline = (f, out, d, sig, se) => {
  out(emptiness(f, d).not());
  return push(f, d, { sig, se: se.or(markOf({ sig, se })) });
};

/** (new st(0), bits) of a normal number. */
const loadFormat =
  ({ fraction, exponents, rebias }: Format): Inline =>
  (f, out, d, operand) => {
    out(emptiness(f, d).not());
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
  out(emptiness(f, d).not().or(v.not()));
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
  out(emptiness(f, s));
  f.store32(STATUS_AFTER, f.load32(FSW).and(~C1));
  f.store32(HIGH_PART, f.load16(SE, s));
  return f.load64(FPREG, s);
};

/** (st(0), st(i), quiet) => CF, PF and ZF: FCOMI and FUCOMI of normal numbers. */
const compareToFlags: Inline = (f, out, d, s) => {
  const [a, b] = [readMarked(f, d), readMarked(f, s)];
  out(areMarked(a, b).not());
  clearC1(f);
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

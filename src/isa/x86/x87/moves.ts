/**
 * Moves between registers, from and to memory, and comparisons, as they go most of the time (X87_FAST): what stands in place of a
 * call in code that is run often. Registers are named by their slots; TOP moves afterwards (x87-stack.ts).
 */
import type { Body, Expr, FastPath, Inline } from '../../../wasm/structured.ts';
import { i32 } from '../../../wasm/structured.ts';
import { FPREG, FSW, FTAG } from '../state.ts';
import { BIAS, C1, EXPONENT, NORMAL, TOP_BIT, markOf, signOf } from './common.ts';
import type { Float } from './common.ts';
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

const readMarked = (f: Body, slot: Expr): Float => ({ sig: f.let(f.load64(FPREG, slot)), se: f.let(f.load32(SE, slot)) });

/** (new st(0), source): FLD st(i). */
const loadRegister: Inline = (f, d, s) => ({
  fits: emptiness(f, d).and(emptiness(f, s).not()),
  run: () => {
    put(f, d, readMarked(f, s!));
    fill(f, d);
    clearC1(f);
    return undefined;
  },
});

/** (st(0), destination): FST st(i). */
const storeRegister: Inline = (f, s, d) => ({
  fits: emptiness(f, s).not(),
  run: () => {
    put(f, d, readMarked(f, s));
    fill(f, d);
    clearC1(f);
    return undefined;
  },
});

/** (st(0), st(i)): FXCH. */
const exchange: Inline = (f, d, s) => ({
  fits: emptiness(f, d).or(emptiness(f, s)).not(),
  run: () => {
    const [a, b] = [readMarked(f, d), readMarked(f, s)];
    put(f, d, b);
    put(f, s, a);
    clearC1(f);
    return undefined;
  },
});

/** (st(0), sign bits to clear, and to toggle): FABS, FCHS. */
const changeSign: Inline = (f, d, clear, toggle) => ({
  fits: emptiness(f, d).not(),
  run: () => {
    f.store32(SE, f.load32(SE, d).and(clear.xor(-1)).xor(toggle), d);
    clearC1(f);
    return undefined;
  },
});

/** Pushes a value. */
function push(f: Body, d: Expr, fits: Expr, v: Float): FastPath {
  return {
    fits,
    run: () => {
      put(f, d, v);
      fill(f, d);
      clearC1(f);
      return undefined;
    },
  };
}

/** (new st(0), significand, se): FLD of 80 bits, constants. */
const loadExtended: Inline = (f, d, sig, se) => push(f, d, emptiness(f, d), { sig, se: se.or(markOf({ sig, se })) });

/** (new st(0), bits) of a normal number. */
const loadFormat =
  ({ fraction, exponents, rebias }: Format): Inline =>
  (f, d, operand) => {
    const bits = f.let(fraction === 52 ? operand : operand.extu());
    const exp = f.let(bits.shr(BigInt(fraction)).wrap().and(exponents));
    const sig = bits.shl(BigInt(63 - fraction)).or(TOP_BIT);
    const sign = bits
      .shr(fraction === 52 ? 48n : 16n)
      .wrap()
      .and(0x8000);
    const normal = exp.sub(1).ltu(exponents - 1);
    return push(f, d, emptiness(f, d).and(normal), { sig, se: exp.add(rebias).or(sign).or(NORMAL) });
  };

/** (new st(0), integer): FILD of anything but 0. */
const loadInteger: Inline = (f, d, v) => {
  const sign = f.let(v.sar(63n));
  const magnitude = f.let(v.xor(sign).sub(sign));
  const n = f.let(magnitude.clz());
  const se = i32(BIAS + 63)
    .sub(n.wrap())
    .or(sign.wrap().and(0x8000))
    .or(NORMAL);
  return push(f, d, emptiness(f, d).and(magnitude.ne(0n)), { sig: magnitude.shl(n), se });
};

/** (st(0)) => significand: FSTP of 80 bits. */
const storeExtended: Inline = (f, s) => ({
  fits: emptiness(f, s).not(),
  run: () => {
    f.store32(STATUS_AFTER, f.load32(FSW).and(~C1));
    f.store32(HIGH_PART, f.load16(SE, s));
    return f.load64(FPREG, s);
  },
});

/** (st(0), st(i), quiet) => CF, PF and ZF: FCOMI and FUCOMI of normal numbers. */
const compareToFlags: Inline = (f, d, s) => {
  const [a, b] = [readMarked(f, d), readMarked(f, s)];
  return {
    fits: a.se.and(b.se).lts(0),
    run: () => {
      clearC1(f);
      const [ea, eb] = [f.let(a.se.and(EXPONENT)), f.let(b.se.and(EXPONENT))];
      const sign = f.let(signOf(a));
      const smaller = ea.ltu(eb).or(ea.eq(eb).and(a.sig.ltu(b.sig)));
      const less = f.let(a.se.xor(b.se).and(0x8000).select(sign, smaller.xor(sign)));
      return a.se.eq(b.se).and(a.sig.eq(b.sig)).select(i32(0x40), less);
    },
  };
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
};

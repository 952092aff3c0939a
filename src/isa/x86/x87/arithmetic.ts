/**
 * Addition, multiplication, division, square root, comparison: routines for everything, and the fast paths of
 * division and square root. Those of addition and multiplication are in fast-arithmetic.ts.
 */
import { F64, I32, I64 } from '../../../ir/ops.ts';
import { Body, i32, i64 } from '../../../wasm/structured.ts';
import type { Expr, Local, Operand, Routine } from '../../../wasm/structured.ts';
import {
  BIAS,
  DE,
  EXPONENT,
  ORDINARY,
  RC_DOWN,
  TOP_BIT,
  X87,
  ZE,
  exponentOf,
  isDenormal,
  isInfinite,
  isNan,
  isNormal,
  isSignalling,
  isUnsupported,
  normalise,
  shiftRightJam,
  signOf,
} from './common.ts';
import type { Float } from './common.ts';
import { REVERSE, SIGN, addMagnitudes, finish, multiply, ordering, topUp } from './fast-arithmetic.ts';
import type { Out } from './fast-arithmetic.ts';

/** Result of a comparison: CF, PF and ZF set; and the bit that an unmasked exception adds. */
export const UNORDERED = 0x45;
export const STOPPED_SHIFT = 16;

const BINARY = [I32, I64, I32, I64, I32, I32];

/** One 32-bit digit of a quotient: estimate and correction (Knuth, vol. 2, 4.3.1, algorithm D). */
function quotientDigit(f: Body, u: Local, digit: Expr, v: Local, v1: Local, v0: Local): Local {
  const q = f.let(u.div(v1));
  const r = f.let(u.sub(q.mul(v1)));
  const tooLarge = (): Expr =>
    r
      .shr(32n)
      .not()
      .and(
        q
          .shr(32n)
          .ne(0n)
          .or(q.mul(v0).gtu(r.shl(32n).or(digit))),
      );
  f.while(tooLarge(), () => {
    f.set(q, q.sub(1n));
    f.set(r, r.add(v1));
  });
  f.set(u, u.shl(32n).add(digit).sub(q.mul(v)));
  return q;
}

/** hi:lo / v for hi < v with v's top bit set; `hi` becomes the remainder. */
export function divideWide(f: Body, hi: Local, lo: Expr, v: Local): Local {
  const low = f.let(lo);
  const [v1, v0] = [f.let(v.shr(32n)), f.let(v.and(0xffffffffn))];
  const q1 = quotientDigit(f, hi, low.shr(32n), v, v1, v0);
  const q0 = quotientDigit(f, hi, low.and(0xffffffffn), v, v1, v0);
  return f.let(q1.shl(32n).add(q0));
}

/**
 * floor(sqrt(m:low)) for m >= 2^62, and how rounding sees the rest. The double's root is
 * good for 52 bits and made too small on purpose; the remainder divided by twice that root
 * is exact but where it lies next to an integer.
 */
export function squareRoot(f: Body, m: Local, low: Local): [s: Local, rest: Local] {
  const toDouble = (v: Expr): Expr => v.apply(0xb9, F64);
  const truncate = (v: Expr): Expr => v.apply([0xfc, 6], I64);
  const y = f.let(toDouble(m.shr(2n)).apply(0x9f, F64));
  const s = f.let(
    truncate(y.mul(double(0x41f00000)))
      .shl(1n)
      .sub(8192n),
  );
  // Goes on beside the multiplication.
  const inverse = f.let(double(0x3ed00000).div(y));
  const [hi, lo] = multiply(f, s, s);
  const rHi = f.let(m.sub(hi).sub(low.ltu(lo).extu()));
  const rLo = f.let(low.sub(lo));
  // (r / 2^16) * 2^-18 / y = r / 2s, since s = y * 2^33.
  const r16 = rHi.shl(48n).or(rLo.shr(16n));
  const d = f.let(truncate(toDouble(r16).mul(inverse)));
  // Minus d * (2s + d), which is (s + d)^2 - s^2.
  const t0 = f.let(s.and(0xffffffffn).shl(1n).add(d).mul(d));
  const t1 = f.let(s.shr(32n).shl(1n).mul(d).add(t0.shr(32n)));
  const less = f.let(rLo.sub(t1.shl(32n).or(t0.and(0xffffffffn))));
  f.set(rHi, rHi.sub(t1.shr(32n)).sub(less.gtu(rLo).extu()));
  f.set(s, s.add(d));
  return mendRoot(f, s, rHi, less);
}

/** Moves s until its remainder lies in 0..2s. */
function mendRoot(f: Body, s: Local, rHi: Local, rLo: Local): [s: Local, rest: Local] {
  f.while(rHi.lts(0n), () => {
    f.set(s, s.sub(1n));
    const sum = f.let(rLo.add(s.shl(1n).or(1n)));
    f.set(rHi, rHi.add(s.shr(63n)).add(sum.ltu(rLo).extu()));
    f.set(rLo, sum);
  });
  f.while(rHi.gts(s.shr(63n)).or(rHi.eq(s.shr(63n)).and(rLo.gtu(s.shl(1n)))), () => {
    const less = f.let(rLo.sub(s.shl(1n).or(1n)));
    f.set(rHi, rHi.sub(s.shr(63n)).sub(less.gtu(rLo).extu()));
    f.set(rLo, less);
    f.set(s, s.add(1n));
  });
  const above = rHi.ne(0n).or(rLo.gtu(s));
  return [s, f.let(above.select(i64(TOP_BIT | 1n), rLo.ne(0n).extu()))];
}

/** Where the remainder lies in the last place: what rounding needs of the bits cut off. */
const restOfDivision = (r: Local, v: Local): Expr =>
  r.ne(0n).select(r.geu(v.sub(r)).select(r.eq(v.sub(r)).select(TOP_BIT, TOP_BIT | 1n), 1n), 0n);

export class Arithmetic {
  private readonly x: X87;
  /** (slot, a, b, reversed) => status. */
  readonly addSlow: Routine;
  readonly subSlow: Routine;
  readonly mulSlow: Routine;
  readonly divSlow: Routine;
  readonly sqrtSlow: Routine;
  /** (a, b, quiet) => CF, PF, ZF of the comparison, and at STOPPED_SHIFT whether it is stopped. */
  readonly compareSlow: Routine;

  constructor(x: X87) {
    this.x = x;
    this.addSlow = this.defineAddSlow(false);
    this.subSlow = this.defineAddSlow(true);
    this.mulSlow = this.defineMulSlow();
    this.divSlow = this.defineDivSlow();
    this.sqrtSlow = this.defineSqrtSlow();
    this.compareSlow = this.defineCompareSlow();
  }

  // --- Addition and subtraction. ---

  /** Bits of y below the last place of x, which has the larger exponent; y is shifted. */
  private align(f: Body, difference: Local, y: Local): Local {
    const lo = f.let(i64(0));
    f.if(difference, () => shiftRightJam(f, y, lo, difference));
    return lo;
  }

  /** Puts the larger magnitude first. Signs go along. */
  private order(f: Body, e: [Local, Local], m: [Local, Local], s: [Local, Local]): void {
    const swap = e[0].lts(e[1]).or(e[0].eq(e[1]).and(m[0].ltu(m[1])));
    f.if(swap, () => {
      for (const [a, b] of [e, m, s]) {
        const t = f.let(a);
        f.set(a, b);
        f.set(b, t);
      }
    });
  }

  /** Leaves the exact sum in its arguments, its top bit set unless both are 0; calls `zero` when a difference is 0. */
  private sum(f: Body, e: [Local, Local], m: [Local, Local], s: [Local, Local], zero: () => void): Local {
    this.order(f, e, m, s);
    const difference = f.let(e[0].sub(e[1]));
    const lo = this.align(f, difference, m[1]);
    f.if(
      s[0].eq(s[1]),
      () => addMagnitudes(f, e[0], m[0], lo, m[1]),
      () => {
        f.set(m[0], m[0].sub(m[1]).sub(lo.ne(0n).extu()));
        f.set(lo, lo.neg());
        f.unlikely(m[0].or(lo).not(), zero);
        normalise(f, e[0], m[0], lo);
      },
    );
    return lo;
  }

  private defineAddSlow(subtract: boolean): Routine {
    const { x } = this;
    return x.program.routine(null, BINARY, I32, (f, d, aSig, aSe, bSig, bSe, reverse) => {
      const [a, b] = [
        { sig: aSig, se: aSe },
        { sig: bSig, se: bSe },
      ];
      const special = f.let(f.call(x.propagate, d, aSig, aSe, bSig, bSe));
      f.if(special.ne(ORDINARY), () => f.return(special));
      const flip = (of: Operand): Operand => (subtract ? of : 0);
      const s: [Local, Local] = [f.let(signOf(a).xor(flip(reverse))), f.let(signOf(b).xor(flip(reverse.xor(1))))];
      const [infA, infB] = [f.let(isInfinite(a)), f.let(isInfinite(b))];
      f.if(infA.and(infB).and(s[0].ne(s[1])), () => f.tail(x.invalid, d));
      x.raiseIfDenormal(f, a, b);
      f.if(infA.or(infB), () => {
        x.write(f, d, TOP_BIT, infA.select(s[0], s[1]).shl(15).or(EXPONENT));
        f.return(0);
      });
      const e: [Local, Local] = [f.let(effective(a)), f.let(effective(b))];
      const m: [Local, Local] = [f.let(a.sig), f.let(b.sig)];
      const lo = this.sum(f, e, m, s, () => {
        x.write(f, d, 0n, x.rounding(f).eq(RC_DOWN).shl(15));
        f.return(0);
      });
      // Both zero with the same sign.
      f.if(m[0].or(lo).not(), () => {
        x.write(f, d, 0n, s[0].shl(15));
        f.return(0);
      });
      normalise(f, e[0], m[0], lo);
      f.do(f.call(x.round, d, s[0], e[0], m[0], lo, x.precision(f)));
      f.return(0);
    });
  }

  // --- Multiplication. ---

  private defineMulSlow(): Routine {
    const { x } = this;
    return x.program.routine(null, BINARY, I32, (f, d, aSig, aSe, bSig, bSe) => {
      const [a, b] = [
        { sig: aSig, se: aSe },
        { sig: bSig, se: bSe },
      ];
      const special = f.let(f.call(x.propagate, d, aSig, aSe, bSig, bSe));
      f.if(special.ne(ORDINARY), () => f.return(special));
      const sign = f.let(signOf(a).xor(signOf(b)));
      const anyZero = f.let(aSig.not().or(bSig.not()));
      const anyInf = f.let(isInfinite(a).or(isInfinite(b)));
      f.if(anyZero.and(anyInf), () => f.tail(x.invalid, d));
      x.raiseIfDenormal(f, a, b);
      f.if(anyZero.or(anyInf), () => {
        x.write(f, d, anyInf.select(TOP_BIT, 0n), anyInf.select(EXPONENT, 0).or(sign.shl(15)));
        f.return(0);
      });
      const [ea, ma] = unpack(f, a);
      const [eb, mb] = unpack(f, b);
      const exp = f.let(ea.add(eb).sub(BIAS - 1));
      const [hi, lo] = multiply(f, ma, mb);
      topUp(f, exp, hi, lo);
      f.do(f.call(x.round, d, sign, exp, hi, lo, x.precision(f)));
      f.return(0);
    });
  }

  // --- Division. ---

  /** Quotient of significands with their top bits set; the exponent is adapted. */
  private quotient(f: Body, exp: Local, ma: Local, mb: Local): [hi: Local, lo: Local] {
    const rest = f.let(i64(0));
    f.if(ma.geu(mb), () => {
      f.set(rest, ma.shl(63n));
      f.set(ma, ma.shr(1n));
      f.set(exp, exp.add(1));
    });
    const q = divideWide(f, ma, rest, mb);
    return [q, f.let(restOfDivision(ma, mb))];
  }

  /** d = a / b or b / a for normal numbers under the default control word. */
  div(f: Body, out: Out, d: Expr, a: Float, b: Float, reverse: number): void {
    const [n, v] = reverse === REVERSE ? [b, a] : [a, b];
    const exp = f.let(
      exponentOf(n)
        .sub(exponentOf(v))
        .add(BIAS - 1),
    );
    const sign = f.let(a.se.xor(b.se).and(SIGN));
    const [hi, lo] = this.quotient(f, exp, f.let(n.sig), f.let(v.sig));
    finish(f, out, d, sign, exp, hi, lo);
  }

  private defineDivSlow(): Routine {
    const { x } = this;
    return x.program.routine(null, BINARY, I32, (f, d, aSig, aSe, bSig, bSe, reverse) => {
      const special = f.let(f.call(x.propagate, d, aSig, aSe, bSig, bSe));
      f.if(special.ne(ORDINARY), () => f.return(special));
      f.if(reverse, () => {
        const [sig, se] = [f.let(aSig), f.let(aSe)];
        f.set(aSig, bSig);
        f.set(aSe, bSe);
        f.set(bSig, sig);
        f.set(bSe, se);
      });
      const [a, b] = [
        { sig: aSig, se: aSe },
        { sig: bSig, se: bSe },
      ];
      const sign = f.let(signOf(a).xor(signOf(b)));
      const [infA, infB] = [f.let(isInfinite(a)), f.let(isInfinite(b))];
      f.if(infA.and(infB).or(aSig.or(bSig).not()), () => f.tail(x.invalid, d));
      // The exception of division by zero keeps that of a denormal operand quiet.
      f.if(
        bSig.not().and(infA.not()),
        () => x.raiseOrStop(f, ZE),
        () => x.raiseIfDenormal(f, a, b),
      );
      f.if(infA.or(bSig.not()), () => {
        x.write(f, d, TOP_BIT, sign.shl(15).or(EXPONENT));
        f.return(0);
      });
      f.if(infB.or(aSig.not()), () => {
        x.write(f, d, 0n, sign.shl(15));
        f.return(0);
      });
      const [ea, ma] = unpack(f, a);
      const [eb, mb] = unpack(f, b);
      const exp = f.let(ea.sub(eb).add(BIAS - 1));
      const [hi, lo] = this.quotient(f, exp, ma, mb);
      f.do(f.call(x.round, d, sign, exp, hi, lo, x.precision(f)));
      f.return(0);
    });
  }

  // --- Square root. ---

  /**
   * Exponent of the root; the operand becomes m:low with an even exponent.
   * @returns exponent and the low half
   */
  private halveExponent(f: Body, e: Expr, m: Local): [exp: Local, low: Local] {
    const exp = f.let(e.add(BIAS));
    const low = f.let(i64(0));
    f.if(exp.and(1).not(), () => {
      f.set(low, m.shl(63n));
      f.set(m, m.shr(1n));
    });
    return [f.let(exp.sar(1)), low];
  }

  /** Of a positive normal number under the default control word. */
  sqrt(f: Body, out: Out, d: Expr, a: Float): void {
    const m = f.let(a.sig);
    const [exp, low] = this.halveExponent(f, exponentOf(a), m);
    const [hi, lo] = squareRoot(f, m, low);
    finish(f, out, d, i32(0), exp, hi, lo);
  }

  private defineSqrtSlow(): Routine {
    const { x } = this;
    return x.program.routine(null, [I32], I32, (f, d) => {
      const a = x.read(f, d);
      const special = f.let(f.call(x.propagate, d, a.sig, a.se, a.sig, a.se));
      f.if(special.ne(ORDINARY), () => f.return(special));
      f.if(a.sig.not(), () => f.return(0));
      f.if(signOf(a), () => f.tail(x.invalid, d));
      f.if(isInfinite(a), () => f.return(0));
      x.raiseIfDenormal(f, a);
      const [ea, m] = unpack(f, a);
      const [exp, low] = this.halveExponent(f, ea, m);
      const [hi, lo] = squareRoot(f, m, low);
      f.do(f.call(x.round, d, 0, exp, hi, lo, x.precision(f)));
      f.return(0);
    });
  }

  // --- Comparison. ---

  /** Returns CF, PF, ZF for a compared to b, and whether it is stopped. */
  compare(f: Body, a: Float, b: Float, quiet: number): void {
    f.unlikely(isNormal(a).and(isNormal(b)).not(), () => f.tail(this.compareSlow, a.sig, a.se, b.sig, b.se, quiet));
    this.x.clearC1(f);
    f.return(ordering(f, a, b));
  }

  private defineCompareSlow(): Routine {
    const { x } = this;
    const numbers = x.program.routine(null, [I64, I32, I64, I32], I32, (f, aSig, aSe, bSig, bSe) =>
      f.return(ordering(f, { sig: aSig, se: aSe }, { sig: bSig, se: bSe })),
    );
    return x.program.routine(null, [I64, I32, I64, I32, I32], I32, (f, aSig, aSe, bSig, bSe, quiet) => {
      const [a, b] = [
        { sig: aSig, se: aSe },
        { sig: bSig, se: bSe },
      ];
      x.clearC1(f);
      const bad = f.let(isUnsupported(a).or(isUnsupported(b)).or(isSignalling(a)).or(isSignalling(b)));
      const nan = f.let(isNan(a).or(isNan(b)));
      f.if(bad.or(nan), () => {
        const stopped = f.call(x.raise, bad.or(quiet.not()));
        f.return(stopped.shl(STOPPED_SHIFT).or(UNORDERED));
      });
      const stopped = f.variable(I32);
      f.if(isDenormal(a).or(isDenormal(b)), () => f.set(stopped, f.call(x.raise, DE).shl(STOPPED_SHIFT)));
      f.if(aSig.or(bSig).not(), () => f.return(stopped.or(0x40)));
      // A pseudo-denormal is the number that exponent 1 would make it.
      f.if(exponentOf(a).not(), () => f.set(aSe, aSe.or(aSig.lts(0n))));
      f.if(exponentOf(b).not(), () => f.set(bSe, bSe.or(bSig.lts(0n))));
      f.set(bSe, bSe.and(0xffff));
      f.return(stopped.or(f.call(numbers, aSig, aSe, bSig, bSe)));
    });
  }
}

/** A denormal's exponent counts as 1. */
const effective = (a: Float): Expr => exponentOf(a).add(exponentOf(a).not());

/** A double by the high word of its bits. */
const double = (high: number): Expr => i64(BigInt(high) << 32n).apply(0xbf, F64);

/** Exponent and significand with its top bit set; not for zero. */
export function unpack(f: Body, a: Float): [exp: Local, sig: Local] {
  const n = f.let(a.sig.clz());
  return [f.let(effective(a).sub(n.wrap())), f.let(a.sig.shl(n))];
}

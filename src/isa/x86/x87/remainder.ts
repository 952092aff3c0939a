/** FRNDINT, FSCALE, FXTRACT, FPREM and FPREM1. */
import { I32, I64 } from '../../../ir/ops.ts';
import { i32, i64 } from '../../../wasm/structured.ts';
import type { Body, Expr, Local, Routine } from '../../../wasm/structured.ts';
import { FSW, FTAG, FTOP, OP1 } from '../state.ts';
import { unpack } from './arithmetic.ts';
import {
  BIAS,
  C0,
  C1,
  C2,
  C3,
  DEFAULT_NAN,
  EXPONENT,
  FULL,
  IE,
  ORDINARY,
  SF,
  TOP_BIT,
  X87,
  ZE,
  exponentOf,
  isInfinite,
  normalise,
  shiftRightJam,
  signOf,
} from './common.ts';
import type { Conversions } from './convert.ts';

/** Returns what `propagate` says unless the operands are ordinary. */
function ordinaryOnly(x: X87, f: Body, d: Expr, a: Operands, b: Operands): void {
  const special = f.let(f.call(x.propagate, d, a.sig, a.se, b.sig, b.se));
  f.if(special.ne(ORDINARY), () => f.return(special));
}

/** Where a reduction leaves the rest. */
const REST = OP1;

interface Operands {
  readonly sig: Local;
  readonly se: Local;
}

function defineRoundToInteger(x: X87): void {
  x.program.routine('frndint', [], I32, (f) => {
    const d = f.let(x.slot(f, 0));
    f.unlikely(x.isEmpty(f, d), () => f.tail(x.underflow, d));
    const a = x.read(f, d);
    ordinaryOnly(x, f, d, a, a);
    f.if(exponentOf(a).eq(EXPONENT).or(a.sig.not()), () => f.return(0));
    x.raiseIfDenormal(f, a);
    const n = f.let(i32(BIAS + 63).sub(exponentOf(a)));
    f.if(n.les(0), () => f.return(0));
    const low = f.let(i64(0));
    shiftRightJam(f, a.sig, low, n);
    const up = x.increment(f, signOf(a), low, a.sig.and(1n).ne(0n));
    f.set(a.sig, a.sig.add(up.extu()));
    const exp = f.let(i32(BIAS + 63));
    f.if(
      a.sig.ne(0n),
      () => normalise(f, exp, a.sig, f.let(i64(0))),
      () => f.set(exp, 0),
    );
    x.overwrite(f, d, a.sig, exp.or(signOf(a).shl(15)));
    f.do(f.call(x.raise, low.ne(0n).shl(5).or(up.shl(9))));
    f.return(0);
  });
}

function defineScale(x: X87): void {
  x.program.routine('fscale', [I32], I32, (f, s) => {
    const d = f.let(x.slot(f, 0));
    f.unlikely(x.isEmpty(f, d).or(x.isEmpty(f, s)), () => f.tail(x.underflow, d));
    const [a, b] = [x.read(f, d), x.read(f, s)];
    ordinaryOnly(x, f, d, a, b);
    f.if(isInfinite(b), () => {
      const impossible = signOf(b).select(isInfinite(a), a.sig.not());
      f.if(impossible, () => f.tail(x.invalid, d));
      x.raiseIfDenormal(f, a);
      const down = f.let(signOf(b));
      x.overwrite(f, d, down.select(0n, TOP_BIT), down.select(i32(0), i32(EXPONENT)).or(signOf(a).shl(15)));
      f.return(0);
    });
    x.raiseIfDenormal(f, a, b);
    // By 0: nothing is lost, and a denormal stays without an underflow. (Not a number that only looks like one.)
    const stays = b.sig.not().and(a.sig.ges(0n));
    f.if(isInfinite(a).or(a.sig.not()).or(stays), () => f.return(0));
    // The truncated integer, no more than is needed to leave the range of exponents.
    const n = f.let(i32(0));
    const exp = f.let(exponentOf(b).sub(BIAS));
    f.if(exp.ges(0), () => {
      f.set(n, exp.ges(17).select(i32(1 << 17), b.sig.shr(i32(63).sub(exp).extu()).wrap()));
      f.if(signOf(b), () => f.set(n, n.neg()));
    });
    const [ea, sig] = unpack(f, a);
    f.do(f.call(x.round, d, signOf(a), ea.add(n), sig, 0n, FULL));
    f.return(0);
  });
}

function defineExtract(x: X87, conversions: Conversions): void {
  x.program.routine('fxtract', [], I32, (f) => {
    const d = f.let(x.slot(f, 0));
    const above = f.let(f.load32(FTOP).sub(1).and(7));
    x.clearC1(f);
    f.unlikely(x.isEmpty(f, d), () => {
      x.raiseOrStop(f, IE | SF);
      x.write(f, d, i64(DEFAULT_NAN), 0xffff);
      f.tail(conversions.pushNan);
    });
    f.unlikely(f.load8(FTAG, above).not(), () => {
      x.raiseOrStop(f, IE | SF | C1);
      x.write(f, d, i64(DEFAULT_NAN), 0xffff);
      f.tail(conversions.pushNan);
    });
    const a = x.read(f, d);
    const special = f.let(f.call(x.propagate, d, a.sig, a.se, a.sig, a.se));
    f.if(special.ne(ORDINARY), () => {
      f.if(special, () => f.return(1));
      const nan = x.read(f, d);
      f.tail(conversions.push, nan.sig, nan.se);
    });
    f.if(isInfinite(a), () => {
      x.overwrite(f, d, TOP_BIT, EXPONENT);
      f.tail(conversions.push, a.sig, a.se);
    });
    f.if(a.sig.not(), () => {
      x.raiseOrStop(f, ZE);
      x.overwrite(f, d, TOP_BIT, 0x8000 | EXPONENT);
      f.tail(conversions.push, a.sig, a.se);
    });
    x.raiseIfDenormal(f, a);
    const [exp, sig] = unpack(f, a);
    const e = conversions.fromInteger(f, exp.sub(BIAS).exts());
    x.overwrite(f, d, e.sig, e.se);
    f.tail(conversions.push, sig, i32(BIAS).or(signOf(a).shl(15)));
  });
}

/** Quotient bits in the status word: bit 0 in C1, bit 1 in C3, bit 2 in C0. */
const quotientBits = (q: Local): Expr => q.wrap().and(1).shl(9).or(q.wrap().and(2).shl(13)).or(q.wrap().and(4).shl(6));

/** Steps of a reduction that is not finished in one go. */
function partialSteps(difference: Local): Expr {
  return i32(32).add(difference.and(31));
}

/**
 * One instruction reduces exponents that lie less than 64 apart completely; else as many bits
 * as `partialSteps` says, with C2 set (SDM vol. 2, FPREM).
 */
function defineRemainder(x: X87, name: string, nearest: boolean): void {
  const reduce = defineReduction(x);
  x.program.routine(name, [I32], I32, (f, s) => {
    const d = f.let(x.slot(f, 0));
    f.store32(FSW, f.load32(FSW).and(~C2));
    f.unlikely(x.isEmpty(f, d).or(x.isEmpty(f, s)), () => f.tail(x.underflow, d));
    const [a, b] = [x.read(f, d), x.read(f, s)];
    ordinaryOnly(x, f, d, a, b);
    f.if(isInfinite(a).or(b.sig.not()), () => f.tail(x.invalid, d));
    x.raiseIfDenormal(f, a, b);
    f.store32(FSW, f.load32(FSW).and(~(C0 | C1 | C2 | C3)));
    f.if(a.sig.not().or(isInfinite(b)), () => f.return(0));
    const [ea, ma] = unpack(f, a);
    const [eb, mb] = unpack(f, b);
    const sign = f.let(signOf(a));
    const difference = f.let(ea.sub(eb));
    f.if(difference.lts(nearest ? -1 : 0), () => {
      f.do(f.call(x.round, d, sign, ea, ma, 0n, FULL));
      f.return(0);
    });
    const partial = f.let(difference.ges(64));
    const steps = f.let(partial.select(partialSteps(difference), difference));
    const q = f.let(i64(0));
    const bits = f.let(i32(0));
    f.if(
      difference.lts(0),
      () => {
        // Below the divisor, but above half of it: the quotient is 1.
        f.if(ma.gtu(mb), () => {
          f.set(ma, mb.shl(1n).sub(ma));
          f.set(q, 1n);
          f.set(sign, sign.xor(1));
        });
      },
      () => {
        f.set(q, f.call(reduce, ma, mb, steps));
        f.set(ma, f.load64(REST));
        f.set(ea, ea.sub(steps));
        if (nearest) f.if(partial.not(), () => roundQuotient(f, q, ma, mb, sign));
      },
    );
    f.set(bits, partial.select(i32(C2), quotientBits(q)));
    f.if(
      ma.not(),
      () => {
        x.overwrite(f, d, 0n, signOf(a).shl(15));
      },
      () => {
        const n = f.let(ma.clz());
        f.do(f.call(x.round, d, sign, ea.sub(n.wrap()), ma.shl(n), 0n, FULL));
      },
    );
    f.store32(FSW, f.load32(FSW).and(~C1).or(bits));
    f.return(0);
  });
}

/** (dividend, divisor, steps): shift and subtract. @returns the quotient, the rest goes to REST */
function defineReduction(x: X87): Routine {
  return x.program.routine(null, [I64, I64, I32], I64, (f, a, b, steps) => {
    const q = f.let(i64(0));
    // The first step has no shift before it.
    const fits = f.let(a.geu(b));
    f.if(fits, () => {
      f.set(a, a.sub(b));
      f.set(q, 1n);
    });
    f.while(steps.gts(0), () => {
      const carry = f.let(a.shr(63n).wrap());
      f.set(a, a.shl(1n));
      f.set(q, q.shl(1n));
      f.if(carry.or(a.geu(b)), () => {
        f.set(a, a.sub(b));
        f.set(q, q.or(1n));
      });
      f.set(steps, steps.sub(1));
    });
    f.store64(REST, a);
    f.return(q);
  });
}

/** FPREM1: the quotient is rounded to nearest, even in the middle, which may turn the rest's sign. */
function roundQuotient(f: Body, q: Local, rest: Local, divisor: Local, sign: Local): void {
  const opposite = f.let(divisor.sub(rest));
  f.if(rest.gtu(opposite).or(rest.eq(opposite).and(q.and(1n).ne(0n))), () => {
    f.set(rest, opposite);
    f.set(q, q.add(1n));
    f.set(sign, sign.xor(1));
  });
}

export function defineRemainders(x: X87, conversions: Conversions): void {
  defineRoundToInteger(x);
  defineScale(x);
  defineExtract(x, conversions);
  defineRemainder(x, 'fprem', false);
  defineRemainder(x, 'fprem1', true);
}

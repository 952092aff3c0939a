/**
 * Addition, subtraction and multiplication of normal numbers under the default control word. Hot code has them in place of calls.
 * Which operand is larger, and by how much, is as good as random: so there are few branches.
 */
import type { Body, Expr, Inline, Local } from '../../../wasm/structured.ts';
import { i32, i64 } from '../../../wasm/structured.ts';
import { FPREG } from '../state.ts';
import {
  BIAS,
  EXPONENT,
  NORMAL,
  PLAIN_FIELD,
  SE_FIELD,
  SIGNIFICAND_FIELD,
  TAG_FIELD,
  TOP_BIT,
  areMarked,
  exponentOf,
  isPlain,
  setStatus,
  signOf,
} from './common.ts';
import type { Float } from './common.ts';

/** Kinds of an operation: d = d op s, or with the operands the other way round. */
export const FORWARD = 0;
export const REVERSE = 1;

export const SIGN = 0x8000;

/** See Inline. */
export type Out = (otherwise: Expr) => void;

/** High and low halves of the product of two i64 (Hacker's Delight, 8-2). */
export function multiply(f: Body, x: Local, y: Local): [hi: Local, lo: Local] {
  const low = 0xffffffffn;
  const [x0, x1] = [f.let(x.and(low)), f.let(x.shr(32n))];
  const [y0, y1] = [f.let(y.and(low)), f.let(y.shr(32n))];
  const p00 = f.let(x0.mul(y0));
  const p10 = f.let(x1.mul(y0).add(p00.shr(32n)));
  const p01 = f.let(x0.mul(y1).add(p10.and(low)));
  const hi = f.let(x1.mul(y1).add(p10.shr(32n)).add(p01.shr(32n)));
  const lo = f.let(p01.shl(32n).or(p00.and(low)));
  return [hi, lo];
}

/**
 * Rounds to nearest even with 64 bits and writes; gives up before that where the result overflows or underflows, and where it
 * is rounded up to a power of 2.
 * @param sign in bit 15  @param hi with its top bit set
 */
export function finish(f: Body, out: Out, d: Expr, sign: Expr, exp: Local, hi: Local, lo: Local): void {
  out(exp.sub(1).geu(0x7ffd));
  // Up from above the middle, and from the middle to even: then taking 1 away leaves the top bit.
  const down = hi.xor(1n).and(1n);
  const up = f.let(lo.sub(down).and(lo).shr(63n));
  f.set(hi, hi.add(up));
  out(hi.not());
  put(f, d, { sig: hi, se: exp.or(sign).or(NORMAL) });
  // Whoever found it empty has left, or will before anything else happens.
  f.setConstant(TAG_FIELD, d, 0);
  setStatus(f, lo.ne(0n).shl(5).or(up.wrap().shl(9)));
}

/** Sum of magnitudes, the first operand's exponent being not smaller. */
export function addMagnitudes(f: Body, exp: Local, hi: Local, lo: Local, other: Local): void {
  f.set(hi, hi.add(other));
  const carry = f.let(hi.ltu(other));
  const shifted = lo.shr(1n).or(lo.and(1n)).or(hi.shl(63n));
  f.set(lo, carry.select(shifted, lo));
  f.set(hi, carry.select(hi.shr(1n).or(TOP_BIT), hi));
  f.set(exp, exp.add(carry));
}

/**
 * Difference of magnitudes, its top bit set unless 64 bits have vanished. The second can only be the larger one where the
 * exponents are equal.
 */
function subtractMagnitudes(f: Body, sign: Local, exp: Local, hi: Local, lo: Local, other: Local): void {
  const negative = f.let(hi.ltu(other));
  f.set(hi, hi.sub(other).sub(lo.ne(0n).extu()));
  f.set(lo, lo.neg());
  f.set(hi, negative.select(hi.neg(), hi));
  f.set(sign, sign.xor(negative.shl(15)));
  const n = f.let(hi.clz());
  f.set(hi, hi.shl(n).or(lo.shr(1n).shr(i64(63).sub(n))));
  f.set(lo, lo.shl(n));
  f.set(exp, exp.sub(n.wrap()));
}

/** d = a + b, a - b or b - a. */
function add(f: Body, out: Out, d: Expr, a: Float, b: Float, subtract: boolean, reverse: number): void {
  const [ea, eb] = [f.let(exponentOf(a)), f.let(exponentOf(b))];
  const apart = f.let(ea.sub(eb));
  const swap = f.let(apart.lts(0));
  f.set(apart, swap.select(apart.neg(), apart));
  out(apart.geu(64));
  const exp = f.let(swap.select(eb, ea));
  const large = f.let(swap.select(b.sig, a.sig));
  const small = f.let(swap.select(a.sig, b.sig));
  const flip = (of: Float, when: boolean): Expr => (subtract && when ? of.se.xor(SIGN) : of.se);
  const [sa, sb] = [flip(a, reverse === REVERSE), flip(b, reverse === FORWARD)];
  const sign = f.let(swap.select(sb, sa).and(SIGN));
  // What falls off below the larger one's last place; nothing when they are not apart.
  const places = apart.extu();
  const lo = f.let(small.shl(i64(63).sub(places)).shl(1n));
  f.set(small, small.shr(places));
  f.if(
    sa.xor(sb).and(SIGN).not(),
    () => addMagnitudes(f, exp, large, lo, small),
    () => subtractMagnitudes(f, sign, exp, large, lo, small),
  );
  out(large.ges(0n));
  finish(f, out, d, sign, exp, large, lo);
}

function multiplyFast(f: Body, out: Out, d: Expr, a: Float, b: Float): void {
  const exp = f.let(
    exponentOf(a)
      .add(exponentOf(b))
      .sub(BIAS - 1),
  );
  const sign = f.let(a.se.xor(b.se).and(SIGN));
  const [hi, lo] = multiply(f, f.let(a.sig), f.let(b.sig));
  topUp(f, exp, hi, lo);
  finish(f, out, d, sign, exp, hi, lo);
}

/** One shift left where the product has its top bit clear: half of the time, so without a branch. */
export function topUp(f: Body, exp: Local, hi: Local, lo: Local): void {
  const low = f.let(hi.ges(0n));
  f.set(hi, low.select(hi.shl(1n).or(lo.shr(63n)), hi));
  f.set(lo, low.select(lo.shl(1n), lo));
  f.set(exp, exp.sub(low));
}

/** d = a op b. */
export type Fast = (f: Body, out: Out, d: Expr, a: Float, b: Float) => void;

/** By the names that the instruction rows use. */
export const FAST: Readonly<Record<string, Fast>> = {
  add: (f, out, d, a, b) => add(f, out, d, a, b, false, FORWARD),
  sub: (f, out, d, a, b) => add(f, out, d, a, b, true, FORWARD),
  subr: (f, out, d, a, b) => add(f, out, d, a, b, true, REVERSE),
  mul: multiplyFast,
};

/** Gives up unless the control word is at its default, and registers have marks of normal numbers. */
export function requirePlain(f: Body, out: Out, ...operands: Float[]): void {
  const plain = f.recall(PLAIN_FIELD, null, isPlain(f).neg());
  out(areMarked({ sig: i64(0), se: plain }, ...operands).not());
}

const significand = (f: Body, slot: Expr): Expr => f.load64(FPREG, slot);
const signAndExponent = (f: Body, slot: Expr): Expr => f.load32(FPREG + 8, slot);

/** A register with its mark. What it is in may change when a register is written. */
export const readMarked = (f: Body, slot: Expr): { sig: Local; se: Local } => ({
  sig: f.recall(SIGNIFICAND_FIELD, slot, significand(f, slot)),
  se: f.recall(SE_FIELD, slot, signAndExponent(f, slot)),
});

/** Writes a register that is valid already. */
export function put(f: Body, slot: Expr, { sig, se }: Float): void {
  f.store64(FPREG, f.record(SIGNIFICAND_FIELD, slot, significand(f, slot), sig), slot);
  f.store32(FPREG + 8, f.record(SE_FIELD, slot, signAndExponent(f, slot), se), slot);
}

/** CF, PF and ZF of a comparison of numbers, not both 0, whose `se` both have marks or neither has. */
export function ordering(f: Body, a: Float, b: Float): Expr {
  // As integers with the sign applied, exponent first.
  const [ea, eb] = [f.let(a.se.and(EXPONENT)), f.let(b.se.and(EXPONENT))];
  const sign = f.let(signOf(a));
  const smaller = ea.ltu(eb).or(ea.eq(eb).and(a.sig.ltu(b.sig)));
  const less = f.let(a.se.xor(b.se).and(SIGN).select(sign, smaller.xor(sign)));
  return a.se.eq(b.se).and(a.sig.eq(b.sig)).select(i32(0x40), less);
}

/** (slot d, slot s): d = d op s. */
export const onRegisters =
  (fast: Fast): Inline =>
  (f, out, d, s) => {
    const [a, b] = [readMarked(f, d), readMarked(f, s)];
    requirePlain(f, out, a, b);
    fast(f, out, d, a, b);
    return undefined;
  };

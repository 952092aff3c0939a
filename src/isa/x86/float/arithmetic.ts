/**
 * SSE and AVX arithmetic as MXCSR has it, in wasm: all rounding modes, flags, denormals as zeros,
 * flushed results (SDM vol. 1, 4.9, 10.2.3, 11.5). Used when the host's own operations will not do,
 * and for what wasm has no operation for: fused multiplication and addition.
 *
 * A number is sign (i32 of 0 or 1), exponent (i32) and significand (i64, top bit set):
 * (-1)^sign * significand / 2^63 * 2^exponent. In between significands have 128 bits, hi and lo.
 *
 * Exceptions are collected in SSE_FLAGS, for all lanes of an instruction; `settle` makes them MXCSR's.
 */
import { F64, I32, I64 } from '../../../ir/ops.ts';
import { i32, i64 } from '../../../wasm/structured.ts';
import type { Body, Expr, Local, Program, Routine } from '../../../wasm/structured.ts';
import { MXCSR, MXCSR_DEFAULT, SSE_FLAGS } from '../state.ts';
import { divideWide, squareRoot } from '../x87/arithmetic.ts';
import { multiply } from '../x87/fast-arithmetic.ts';
import { DE, IE, OE, PE, TOP_BIT, UE, ZE, normalise, shiftRightJam } from '../x87/common.ts';

/** What `float` computes: bits 0-2 of its first parameter. */
export const ADD = 0;
export const SUB = 1;
export const MUL = 2;
export const DIV = 3;
/** Of x; y is not looked at. */
export const SQRT = 4;
/** x * y + z. */
export const FUSED = 5;
/** A double x to a single. */
export const NARROW = 6;
/** A signed integer x of 64 bits. */
export const FROM_INTEGER = 7;
/** The result, and the operands but for NARROW, are singles (in the low 32 bits). */
export const SINGLE = 8;
export const NEGATE_PRODUCT = 16;
export const NEGATE_ADDEND = 32;
/** MXCSR's default counts instead of MXCSR, and nothing is collected. */
export const PLAIN = 64;

const OPERATION_MASK = 7;
/** What SSE_FLAGS is followed by: a word for exceptions that nobody wants. */
const UNWANTED_SHIFT = 4;

const FLUSH_TO_ZERO = 1 << 15;
const MASK_SHIFT = 7;
const UNDERFLOW_MASK = UE << MASK_SHIFT;
const OVERFLOW_MASK = OE << MASK_SHIFT;
const DENORMALS_ARE_ZEROS = 1 << 6;
const DOWN = 1;
const CHOP = 3;
const BEFORE = IE | DE | ZE;

/** An operand taken apart. */
interface Number {
  readonly bits: Local;
  readonly sign: Local;
  /** Biased exponent as encoded. */
  readonly biased: Local;
  /** What follows the integer bit, from the top bit down. */
  readonly fraction: Local;
  readonly top: Expr;
}

const isNan = (n: Number): Expr => n.biased.eq(n.top).and(n.fraction.ne(0n));
const isSignalling = (n: Number): Expr => isNan(n).and(n.fraction.ges(0n));
const isInfinite = (n: Number): Expr => n.biased.eq(n.top).and(n.fraction.not());
const isZero = (n: Number): Expr => n.biased.not().and(n.fraction.not());
const isDenormal = (n: Number): Expr => n.biased.not().and(n.fraction.ne(0n));

/** Properties of a format, by whether it is single (an i32). */
const topExponent = (single: Expr): Expr => single.select(255, 2047);
const bias = (single: Expr): Expr => single.select(127, 1023);
const fractionBits = (single: Expr): Expr => single.select(23n, 52n, I64);
const signBit = (single: Expr, sign: Expr): Expr => sign.extu().shl(single.select(31n, 63n, I64));
const quietBit = (single: Expr): Expr => single.select(1n << 22n, 1n << 51n, I64);
const defaultNan = (single: Expr): Expr => single.select(0xffc00000n, 0xfff8n << 48n, I64);
const infinity = (single: Expr): Expr => single.select(0x7f800000n, 0x7ffn << 52n, I64);

export class Floats {
  private readonly program: Program;
  /** (word, sign, exponent, hi, lo) => bits. */
  private readonly round: Routine;
  /** (word, sign, exponent, hi, lo, sign, exponent, significand) => bits of the sum. */
  private readonly sum: Routine;

  constructor(program: Program) {
    this.program = program;
    this.round = this.defineRound();
    this.sum = this.defineSum();
    const float = this.defineFloat();
    this.defineFused(float);
    this.defineSettle();
  }

  // --- MXCSR. ---

  private mode(f: Body, word: Expr): Local {
    return f.let(word.and(PLAIN).select(MXCSR_DEFAULT, f.load32(MXCSR)));
  }
  private raise(f: Body, word: Expr, flags: Expr | number): void {
    const index = f.let(word.and(PLAIN).shr(UNWANTED_SHIFT));
    f.store32(SSE_FLAGS, f.load32(SSE_FLAGS, index).or(flags), index);
  }

  /** () => the unmasked ones of the exceptions collected; MXCSR gets its flags. */
  private defineSettle(): void {
    this.program.routine('settle', [], I32, (f) => {
      const flags = f.let(f.load32(SSE_FLAGS));
      f.store32(SSE_FLAGS, 0);
      const mxcsr = f.let(f.load32(MXCSR));
      const unmasked = f.let(mxcsr.shr(MASK_SHIFT).xor(-1));
      // What is found before an operation stops it: then there is no result to complain of.
      f.if(flags.and(unmasked).and(BEFORE), () => f.set(flags, flags.and(BEFORE)));
      f.store32(MXCSR, mxcsr.or(flags));
      f.return(flags.and(unmasked).and(0x3f));
    });
  }

  // --- Rounding. ---

  /** Does rounding go away from zero? @param cut what is cut off, from the top bit down */
  private goesUp(f: Body, mode: Expr, sign: Expr, cut: Expr, odd: Expr): Local {
    const control = f.let(mode.shr(13).and(3));
    const up = f.variable(I32);
    f.if(
      control.not(),
      () => {
        f.set(up, cut.gtu(TOP_BIT).or(cut.eq(TOP_BIT).and(odd)));
      },
      () => {
        f.set(
          up,
          control
            .ne(CHOP)
            .and(cut.ne(0n))
            .and(sign.select(control.and(1), control.shr(1))),
        );
      },
    );
    return up;
  }

  private defineRound(): Routine {
    return this.program.routine(null, [I32, I32, I32, I64, I64], I64, (f, word, sign, exp, hi, lo) => {
      const single = f.let(word.shr(3).and(1));
      const mode = this.mode(f, word);
      const bits = f.let(fractionBits(single));
      const biased = f.let(exp.add(bias(single)));
      const tiny = f.let(i32(0));
      const cut = (): Expr => hi.shl(bits.add(1n)).or(lo.ne(0n).extu());
      const whole = (): Expr => hi.shr(i64(63).sub(bits));
      f.unlikely(biased.les(0), () => {
        // Tininess shows after rounding, with a range of exponents that has no end.
        const up = this.goesUp(f, mode, sign, cut(), whole().wrap().and(1));
        const carries = up.and(whole().add(1n).shr(bits.add(1n)).ne(0n));
        f.set(tiny, biased.not().and(carries).not());
        f.if(tiny.and(mode.and(FLUSH_TO_ZERO | UNDERFLOW_MASK).eq(FLUSH_TO_ZERO | UNDERFLOW_MASK)), () => {
          this.raise(f, word, UE | PE);
          f.return(signBit(single, sign));
        });
        f.if(tiny.and(mode.and(UNDERFLOW_MASK).not()), () => {
          // Nobody will see the result: it is inexact or not with a range of exponents that has no end.
          this.raise(f, word, cut().ne(0n).shl(5).or(UE));
          f.return(0n, I64);
        });
        const distance = f.let(i32(1).sub(biased));
        shiftRightJam(f, hi, lo, distance);
        // The integer bit adds 1 to the exponent below.
        f.set(biased, 1);
      });
      const up = this.goesUp(f, mode, sign, cut(), whole().wrap().and(1));
      const inexact = f.let(cut().ne(0n));
      const result = f.let(biased.sub(1).extu().shl(bits).add(whole()).add(up.extu()));
      f.unlikely(result.geu(infinity(single)), () => {
        this.raise(f, word, inexact.or(mode.and(OVERFLOW_MASK).ne(0)).shl(5).or(OE));
        const control = f.let(mode.shr(13).and(3));
        const infinite = control.not().or(control.ne(CHOP).and(sign.select(control.and(1), control.shr(1))));
        f.return(infinity(single).sub(infinite.not().extu()).or(signBit(single, sign)));
      });
      f.if(inexact, () => {
        this.raise(f, word, tiny.shl(4).or(PE));
      });
      f.return(result.or(signBit(single, sign)));
    });
  }

  // --- Sums. ---

  private swap(f: Body, ...pairs: [Local, Local][]): void {
    for (const [a, b] of pairs) {
      const t = f.let(a);
      f.set(a, b);
      f.set(b, t);
    }
  }

  private defineSum(): Routine {
    const params = [I32, I32, I32, I64, I64, I32, I32, I64];
    return this.program.routine(null, params, I64, (f, word, sign, exp, hi, lo, sign2, exp2, hi2) => {
      const lo2 = f.let(i64(0));
      const smaller = exp.lts(exp2).or(exp.eq(exp2).and(hi.ltu(hi2)));
      f.if(smaller, () => this.swap(f, [sign, sign2], [exp, exp2], [hi, hi2], [lo, lo2]));
      const distance = f.let(exp.sub(exp2));
      f.if(distance, () => shiftRightJam(f, hi2, lo2, distance));
      f.if(sign.eq(sign2), () => {
        const low = f.let(lo.add(lo2));
        const carry = f.let(low.ltu(lo).extu());
        const high = f.let(hi.add(hi2).add(carry));
        f.if(high.ltu(hi).or(carry.wrap().and(high.eq(hi))), () => {
          f.set(low, low.shr(1n).or(low.and(1n)).or(high.shl(63n)));
          f.set(high, high.shr(1n).or(TOP_BIT));
          f.set(exp, exp.add(1));
        });
        f.tail(this.round, word, sign, exp, high, low);
      });
      const high = f.let(hi.sub(hi2).sub(lo.ltu(lo2).extu()));
      const low = f.let(lo.sub(lo2));
      f.unlikely(high.or(low).not(), () => {
        const down = this.mode(f, word).shr(13).and(3).eq(DOWN);
        f.return(signBit(word.shr(3).and(1), down));
      });
      // Of equal high halves the low ones decide.
      f.if(hi.eq(hi2).and(lo.ltu(lo2)), () => {
        f.set(sign, sign2);
        f.set(high, i64(-1).sub(high).add(low.not().extu()));
        f.set(low, low.neg());
      });
      normalise(f, exp, high, low);
      f.tail(this.round, word, sign, exp, high, low);
    });
  }

  // --- Operands. ---

  private takeApart(f: Body, bits: Local, single: Expr, zeros: Expr): Number {
    const biased = f.let(single.select(bits.shr(23n), bits.shr(52n)).wrap().and(topExponent(single)));
    const fraction = f.let(single.select(bits.shl(41n), bits.shl(12n)));
    const sign = f.let(single.select(bits.shr(31n), bits.shr(63n)).wrap().and(1));
    f.if(zeros.and(biased.not()), () => f.set(fraction, 0n));
    return { bits, sign, biased, fraction, top: topExponent(single) };
  }

  /** Exponent and significand of a number that is neither zero nor special. */
  private normal(f: Body, n: Number, single: Expr): [exp: Local, sig: Local] {
    const exp = f.let(n.biased.sub(bias(single)));
    const sig = f.let(n.fraction.shr(1n).or(TOP_BIT));
    f.unlikely(n.biased.not(), () => {
      const zeros = f.let(n.fraction.clz());
      f.set(sig, n.fraction.shl(zeros));
      f.set(exp, exp.sub(zeros.wrap()));
    });
    return [exp, sig];
  }

  private invalid(f: Body, word: Expr, single: Expr): void {
    this.raise(f, word, IE);
    f.return(defaultNan(single));
  }

  /** Returns the first operand that is a NaN. */
  private passNan(f: Body, word: Expr, single: Expr, operands: readonly Number[]): void {
    const any = operands.map(isNan).reduce((x, y) => x.or(y));
    f.unlikely(any, () => {
      this.raise(
        f,
        word,
        operands.map(isSignalling).reduce((x, y) => x.or(y)),
      );
      const chosen = operands.slice(0, -1).reduceRight<Expr>((rest, n) => isNan(n).select(n.bits, rest), operands.at(-1)!.bits);
      f.return(chosen.or(quietBit(single)));
    });
  }

  private raiseIfDenormal(f: Body, word: Expr, ...operands: Number[]): void {
    const any = operands.map(isDenormal).reduce((x, y) => x.or(y));
    f.unlikely(any, () => this.raise(f, word, DE));
  }

  // --- Operations. ---

  private defineFloat(): Routine {
    const params = [I32, I64, I64, I64];
    const define = (build: (f: Body, word: Local, x: Local, y: Local, z: Local) => void): Routine =>
      this.program.routine(null, params, I64, build);
    const routines: [number, Routine][] = [
      [MUL, define((f, word, x, y) => this.product(f, word, x, y, null))],
      [FUSED, define((f, word, x, y, z) => this.product(f, word, x, y, z))],
      [DIV, define((f, word, x, y) => this.quotient(f, word, x, y))],
      [SQRT, define((f, word, x) => this.root(f, word, x))],
      [NARROW, define((f, word, x) => this.narrow(f, word, x))],
      [FROM_INTEGER, define((f, word, x) => this.fromInteger(f, word, x))],
    ];
    const add = define((f, word, x, y) => this.addition(f, word, x, y));
    return this.program.routine('float', params, I64, (f, word, x, y, z) => {
      for (const [operation, routine] of routines) {
        f.if(word.and(OPERATION_MASK).eq(operation), () => f.tail(routine, word, x, y, z));
      }
      f.tail(add, word, x, y, z);
    });
  }

  private begin(f: Body, word: Expr): { single: Local; mode: Local; zeros: Local } {
    const single = f.let(word.shr(3).and(1));
    const mode = this.mode(f, word);
    return { single, mode, zeros: f.let(mode.and(DENORMALS_ARE_ZEROS).ne(0)) };
  }

  private addition(f: Body, word: Local, xBits: Local, yBits: Local): void {
    const { single, mode, zeros } = this.begin(f, word);
    const [x, y] = [this.takeApart(f, xBits, single, zeros), this.takeApart(f, yBits, single, zeros)];
    this.passNan(f, word, single, [x, y]);
    f.set(y.sign, y.sign.xor(word.and(OPERATION_MASK)));
    f.unlikely(isInfinite(x).or(isInfinite(y)), () => {
      f.if(isInfinite(x).and(isInfinite(y)).and(x.sign.ne(y.sign)), () => this.invalid(f, word, single));
      this.raiseIfDenormal(f, word, x, y);
      f.return(infinity(single).or(signBit(single, isInfinite(x).select(x.sign, y.sign))));
    });
    this.raiseIfDenormal(f, word, x, y);
    f.unlikely(isZero(x).and(isZero(y)), () => {
      const down = mode.shr(13).and(3).eq(DOWN);
      f.return(signBit(single, x.sign.eq(y.sign).select(x.sign, down)));
    });
    for (const [zero, other] of [
      [x, y],
      [y, x],
    ] as const) {
      f.unlikely(isZero(zero), () => {
        const [exp, sig] = this.normal(f, other, single);
        f.tail(this.round, word, other.sign, exp, sig, 0);
      });
    }
    const [ex, sx] = this.normal(f, x, single);
    const [ey, sy] = this.normal(f, y, single);
    f.tail(this.sum, word, x.sign, ex, sx, 0, y.sign, ey, sy);
  }

  /** x * y, plus z unless that is null. */
  private product(f: Body, word: Local, xBits: Local, yBits: Local, zBits: Local | null): void {
    const { single, mode, zeros } = this.begin(f, word);
    const [x, y] = [this.takeApart(f, xBits, single, zeros), this.takeApart(f, yBits, single, zeros)];
    const z = zBits ? this.takeApart(f, zBits, single, zeros) : null;
    const operands = z ? [x, y, z] : [x, y];
    this.passNan(f, word, single, operands);
    const sign = f.let(x.sign.xor(y.sign).xor(word.shr(4).and(1)));
    if (z) f.set(z.sign, z.sign.xor(word.shr(5).and(1)));
    const infinite = f.let(isInfinite(x).or(isInfinite(y)));
    const zero = f.let(isZero(x).or(isZero(y)));
    f.unlikely(infinite.and(zero), () => this.invalid(f, word, single));
    f.unlikely(infinite, () => {
      if (z) f.if(isInfinite(z).and(z.sign.ne(sign)), () => this.invalid(f, word, single));
      this.raiseIfDenormal(f, word, ...operands);
      f.return(infinity(single).or(signBit(single, sign)));
    });
    this.raiseIfDenormal(f, word, ...operands);
    if (z) f.unlikely(isInfinite(z), () => f.return(infinity(single).or(signBit(single, z.sign))));
    f.unlikely(zero, () => {
      if (z) {
        f.if(isZero(z), () => {
          const down = mode.shr(13).and(3).eq(DOWN);
          f.return(signBit(single, sign.eq(z.sign).select(sign, down)));
        });
        const [exp, sig] = this.normal(f, z, single);
        f.tail(this.round, word, z.sign, exp, sig, 0);
      } else f.return(signBit(single, sign));
    });
    const [ex, sx] = this.normal(f, x, single);
    const [ey, sy] = this.normal(f, y, single);
    const [hi, lo] = multiply(f, sx, sy);
    // The product of two numbers in [1, 2), in units of 2^-126.
    const exp = f.let(ex.add(ey).add(1));
    normalise(f, exp, hi, lo);
    if (z) {
      f.if(isZero(z).not(), () => {
        const [ez, sz] = this.normal(f, z, single);
        f.tail(this.sum, word, sign, exp, hi, lo, z.sign, ez, sz);
      });
    }
    f.tail(this.round, word, sign, exp, hi, lo);
  }

  private quotient(f: Body, word: Local, xBits: Local, yBits: Local): void {
    const { single, zeros } = this.begin(f, word);
    const [x, y] = [this.takeApart(f, xBits, single, zeros), this.takeApart(f, yBits, single, zeros)];
    this.passNan(f, word, single, [x, y]);
    const sign = f.let(x.sign.xor(y.sign));
    f.unlikely(
      isInfinite(x)
        .and(isInfinite(y))
        .or(isZero(x).and(isZero(y))),
      () => this.invalid(f, word, single),
    );
    f.unlikely(isZero(y), () => {
      f.if(isInfinite(x).not(), () => this.raise(f, word, ZE));
      f.return(infinity(single).or(signBit(single, sign)));
    });
    this.raiseIfDenormal(f, word, x, y);
    f.unlikely(isInfinite(x), () => f.return(infinity(single).or(signBit(single, sign))));
    f.unlikely(isZero(x).or(isInfinite(y)), () => f.return(signBit(single, sign)));
    const [ex, sx] = this.normal(f, x, single);
    const [ey, sy] = this.normal(f, y, single);
    const rest = f.let(sx.shr(1n));
    const hi = f.let(divideWide(f, rest, sx.shl(63n), sy));
    const lo = f.let(rest.ne(0n).extu());
    const exp = f.let(ex.sub(ey));
    f.if(hi.ges(0n), () => {
      f.set(hi, hi.shl(1n));
      f.set(exp, exp.sub(1));
    });
    f.tail(this.round, word, sign, exp, hi, lo);
  }

  private root(f: Body, word: Local, xBits: Local): void {
    const { single, zeros } = this.begin(f, word);
    const x = this.takeApart(f, xBits, single, zeros);
    this.passNan(f, word, single, [x]);
    f.unlikely(isZero(x), () => f.return(signBit(single, x.sign)));
    f.unlikely(x.sign, () => this.invalid(f, word, single));
    f.unlikely(isInfinite(x), () => f.return(infinity(single)));
    this.raiseIfDenormal(f, word, x);
    const [exp, sig] = this.normal(f, x, single);
    // The radicand in [2^126, 2^128), for an even exponent.
    const odd = f.let(exp.and(1));
    const high = f.let(odd.select(sig, sig.shr(1n)));
    const low = f.let(odd.select(0n, sig.shl(63n)));
    const [hi, lo] = squareRoot(f, high, low);
    f.tail(this.round, word, 0, exp.sar(1), hi, lo);
  }

  private narrow(f: Body, word: Local, xBits: Local): void {
    const { zeros } = this.begin(f, word);
    const double = i32(0);
    const x = this.takeApart(f, xBits, double, zeros);
    const sign = f.let(signBit(i32(1), x.sign));
    f.unlikely(isNan(x), () => {
      this.raise(f, word, isSignalling(x));
      f.return(sign.or(x.fraction.shr(41n)).or(0x7fc00000n));
    });
    f.unlikely(isInfinite(x), () => f.return(sign.or(0x7f800000n)));
    f.unlikely(isZero(x), () => f.return(sign));
    this.raiseIfDenormal(f, word, x);
    const [exp, sig] = this.normal(f, x, double);
    f.tail(this.round, word, x.sign, exp, sig, 0);
  }

  private fromInteger(f: Body, word: Local, x: Local): void {
    f.if(x.not(), () => f.return(0n, I64));
    const sign = f.let(x.lts(0n));
    const magnitude = f.let(sign.select(x.neg(), x));
    const zeros = f.let(magnitude.clz());
    f.tail(this.round, word, sign, i32(63).sub(zeros.wrap()), magnitude.shl(zeros), 0);
  }

  // --- Fused operations in the default mode. ---

  /**
   * fused(word, x, y, z) of doubles. Where no intermediate result can leave the range of normal
   * numbers the product's error is had exactly (Dekker), and the sum of three with one rounding by
   * rounding to odd in between (Boldo and Melquiond, Emulation of FMA, 2008). Else it is `float`'s.
   */
  private defineFused(float: Routine): void {
    this.program.routine('fused', [I32, I64, I64, I64], I64, (f, word, xBits, yBits, zBits) => {
      const exponent = (bits: Expr): Expr => bits.shr(52n).and(2047n).wrap();
      const inRange = (bits: Expr): Expr =>
        exponent(bits)
          .sub(1023 - 400)
          .ltu(800);
      const zZero = zBits.shl(1n).not();
      const zFits = exponent(zBits)
        .sub(1023 - 800)
        .ltu(1600)
        .or(zZero);
      f.unlikely(inRange(xBits).and(inRange(yBits)).and(zFits).not(), () => {
        f.tail(float, word, xBits, yBits, zBits);
      });
      const toDouble = (bits: Expr): Local => f.let(bits.apply(0xbf, F64));
      const x = toDouble(xBits.xor(word.and(NEGATE_PRODUCT).extu().shl(59n)));
      const y = toDouble(yBits);
      const z = toDouble(zBits.xor(word.and(NEGATE_ADDEND).extu().shl(58n)));
      const [product, error] = this.exactProduct(f, x, y);
      const [th, tl] = this.exactSum(f, z, error);
      const [vh, vl] = this.exactSum(f, product, th);
      const [sum, rest] = this.exactSum(f, tl, vl);
      const bits = f.let(sum.apply(0xbd, I64));
      const restBits = f.let(rest.apply(0xbd, I64));
      // Inexact and even: to the odd neighbour on the side where the exact sum lies.
      f.if(restBits.shl(1n).ne(0n).and(bits.wrap().and(1).not()), () => {
        f.set(bits, bits.add(bits.xor(restBits).sar(63n).or(1n)));
      });
      f.return(vh.add(bits.apply(0xbf, F64)).apply(0xbd, I64));
    });
  }

  /** A sum and its rounding error (Knuth). */
  private exactSum(f: Body, x: Local, y: Local): [Local, Local] {
    const sum = f.let(x.add(y));
    const part = f.let(sum.sub(x));
    return [sum, f.let(x.sub(sum.sub(part)).add(y.sub(part)))];
  }

  /** A product and its rounding error; factors are split in halves of 26 bits (Veltkamp). */
  private exactProduct(f: Body, x: Local, y: Local): [Local, Local] {
    const split = (v: Local): [Local, Local] => {
      const scaled = f.let(v.mul(double(0x41a00000, 0x02000000)));
      const high = f.let(scaled.sub(scaled.sub(v)));
      return [high, f.let(v.sub(high))];
    };
    const [xh, xl] = split(x);
    const [yh, yl] = split(y);
    const product = f.let(x.mul(y));
    const error = xh.mul(yh).sub(product).add(xh.mul(yl)).add(xl.mul(yh)).add(xl.mul(yl));
    return [product, f.let(error)];
  }
}

/** A constant of type f64 by the words of its bits. */
function double(high: number, low: number): Expr {
  return i64((BigInt(high) << 32n) | BigInt(low)).apply(0xbf, F64);
}

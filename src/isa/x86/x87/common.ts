/**
 * x87 routines in wasm: what all of them share. Stack slots, exceptions, rounding.
 *
 * A register is a significand (i64, integer bit explicit) and `se`: the exponent, biased by
 * 16383, with the sign in bit 15. Registers are named by their slot: the physical number * 16.
 * In the register file, `se` may have a mark in bit 31 (NORMAL): the register is not empty, and what it holds is a
 * normal number. What the fast paths need to know of operands is then one test. No mark means nothing: whoever writes
 * a register or its tag otherwise clears it, and a routine for everything else sets it when it could have been there.
 * Routines that may be stopped by an unmasked exception return 1 when they were, else 0.
 *
 * Order of exceptions: SDM vol. 1, 8.5 and 4.9.2; results for NaNs: table 4-7.
 * Where the manuals leave a choice (condition codes and pops when an unmasked exception stops a
 * comparison, a denormal loaded with its exception unmasked), it is as AMD processors have it.
 */
import { I32, I64, NONE } from '../../../ir/ops.ts';
import { Body, Program, i32, i64 } from '../../../wasm/structured.ts';
import type { Expr, Field, Local, Operand, Routine } from '../../../wasm/structured.ts';
import { FCW, FPREG, FSW, FTAG, FTOP } from '../state.ts';

// Exceptions in the status word; the masks have the same places in the control word.
export const IE = 1;
export const DE = 2;
export const ZE = 4;
export const OE = 8;
export const UE = 16;
export const PE = 32;
export const SF = 64;
const EXCEPTIONS = 0x3f;
const SUMMARY_BUSY = 0x8080;

export const C0 = 0x100;
export const C1 = 0x200;
export const C2 = 0x400;
export const C3 = 0x4000;

const PC_MASK = 0x300;
/** Precision of 64 bits as the control word has it, for what precision control does not touch. */
export const FULL = 0x300;
export const RC_MASK = 0xc00;
export const RC_DOWN = 0x400;
export const RC_CHOP = 0xc00;

/** All exceptions masked, round to nearest, 64 bits: the control word that FNINIT sets. */
const PLAIN_MASK = 0xf3f;
const PLAIN = 0x33f;

export const EXPONENT = 0x7fff;
export const BIAS = 16383;
export const TOP_BIT = 1n << 63n;
export const QUIET_BIT = 1n << 62n;
export const DEFAULT_NAN = 3n << 62n;
/** In a memory operand's se: its own format had it as a denormal. */
export const WAS_DENORMAL = 1 << 16;
/** Mark in the `se` of a register, see above: the sign of an i32. */
export const NORMAL = 1 << 31;
/** Where `pop` and those who empty registers clear it: 16 bits that are 0 beside it. */
export const MARK = FPREG + 10;
/** Added to or taken from exponents of results for handlers of underflow and overflow. */
const BIAS_ADJUST = 24576;

/** Result of `propagate`: nothing special about the operands. */
export const ORDINARY = 2;

/** Operands while code is being made. */
export interface Float {
  readonly sig: Expr;
  readonly se: Expr;
}

export const exponentOf = (x: Float): Expr => x.se.and(EXPONENT);
export const signOf = (x: Float): Expr => x.se.shr(15).and(1);
/** Exponent neither all zeros nor all ones, integer bit set, not from a denormal in memory. */
export const isNormal = (x: Float): Expr =>
  x.se
    .and(EXPONENT | WAS_DENORMAL)
    .sub(1)
    .ltu(0x7ffe)
    .and(x.sig.lts(0n));
/** Are these registers, read with their marks, normal and not empty? */
export const areMarked = (...operands: Float[]): Expr =>
  operands
    .map(({ se }) => se)
    .reduce((x, y) => x.and(y))
    .lts(0);
/** Is the control word at its default? */
export const isPlain = (f: Body): Expr => f.load32(FCW).and(PLAIN_MASK).eq(PLAIN);

// What fast paths in a row leave to each other in locals. Registers and tags are named by slots.
const registerField = (id: number, type: number, place: number, bytes: number): Field => ({
  id,
  type,
  offset: FPREG + place,
  bytes,
  span: 128 - place,
});
export const SIGNIFICAND_FIELD = registerField(0, I64, 0, 8);
export const SE_FIELD = registerField(1, I32, 8, 4);
export const TAG_FIELD: Field = { id: 2, type: I32, offset: FTAG, bytes: 1, span: 8 };
export const single = (id: number, offset: number): Field => ({ id, type: I32, offset, bytes: 4, span: 4 });
export const STATUS_FIELD = single(3, FSW);
/** -1 when the control word is at its default, else 0. */
export const PLAIN_FIELD: Field = { ...single(4, FCW), fixed: true };

/** The status word, without its summary where nothing is unmasked. */
export const status = (f: Body): Local => f.recall(STATUS_FIELD, null, f.load32(FSW));
/** Clears C1 and sets these bits. */
export function setStatus(f: Body, bits?: Expr): void {
  const kept = status(f).and(~C1);
  f.store32(FSW, f.record(STATUS_FIELD, null, f.load32(FSW), bits === undefined ? kept : kept.or(bits)));
}
/** NORMAL for a normal number, else 0; `se` without what lies above its sign. */
export const markOf = (x: Float): Expr => x.se.and(EXPONENT).sub(1).ltu(0x7ffe).and(x.sig.shr(63n).wrap()).shl(31);
export const isNan = (x: Float): Expr => exponentOf(x).eq(EXPONENT).and(x.sig.shl(1n).ne(0n));
export const isSignalling = (x: Float): Expr => isNan(x).and(x.sig.and(QUIET_BIT).not());
/** Exponent not zero but no integer bit: unnormals, pseudo-infinities, pseudo-NaNs. */
export const isUnsupported = (x: Float): Expr => exponentOf(x).ne(0).and(x.sig.ges(0n));
export const isDenormal = (x: Float): Expr => exponentOf(x).eq(0).and(x.sig.ne(0n)).or(x.se.shr(16).and(1));
export const isInfinite = (x: Float): Expr => exponentOf(x).eq(EXPONENT).and(x.sig.eq(TOP_BIT));

/** What rounding a significand did. */
interface Rounded {
  readonly up: Local;
  readonly inexact: Local;
  /** The significand went from all ones to zero. */
  readonly carry: Expr;
}

/** Shifts hi:lo right by n > 0; what falls off stays visible in the lowest bit. */
export function shiftRightJam(f: Body, hi: Local, lo: Local, n: Local): void {
  f.if(
    n.ltu(64),
    () => {
      const back = f.let(i32(64).sub(n).extu());
      const lost = lo.shl(back).ne(0n).extu();
      f.set(lo, lo.shr(n.extu()).or(hi.shl(back)).or(lost));
      f.set(hi, hi.shr(n.extu()));
    },
    () =>
      f.if(
        n.ltu(128),
        () => {
          const m = f.let(n.sub(64).extu());
          const lost = hi.shl(1n).shl(i64(63).sub(m)).or(lo).ne(0n).extu();
          f.set(lo, hi.shr(m).or(lost));
          f.set(hi, 0n);
        },
        () => {
          f.set(lo, hi.or(lo).ne(0n).extu());
          f.set(hi, 0n);
        },
      ),
  );
}

/** Shifts hi:lo left until the top bit is set; not for zero. */
export function normalise(f: Body, exp: Local, hi: Local, lo: Local): void {
  f.if(hi.not(), () => {
    f.set(hi, lo);
    f.set(lo, 0n);
    f.set(exp, exp.sub(64));
  });
  f.if(hi.ges(0n), () => {
    const n = f.let(hi.clz());
    f.set(hi, hi.shl(n).or(lo.shr(i64(64).sub(n))));
    f.set(lo, lo.shl(n));
    f.set(exp, exp.sub(n.wrap()));
  });
}

export class X87 {
  readonly program: Program;
  /** (exceptions and condition bits) => 1 when an unmasked exception is among them. */
  readonly raise: Routine;
  /** (slot) => status: sets invalid operation and the default NaN. */
  readonly invalid: Routine;
  /** (slot) => status: stack underflow, the default NaN goes to the slot. */
  readonly underflow: Routine;
  /** (slot, a, b) => status, or ORDINARY: NaNs and unsupported formats. */
  readonly propagate: Routine;
  /** (slot, sign, exponent, high, low, precision): rounds and writes a result that is not zero. */
  readonly round: Routine;

  constructor(program: Program) {
    this.program = program;
    this.raise = this.defineRaise();
    this.invalid = program.routine('invalid', [I32], I32, (f, d) => {
      f.unlikely(f.call(this.raise, IE), () => f.return(1));
      this.write(f, d, i64(DEFAULT_NAN), 0xffff);
      f.return(0);
    });
    this.underflow = program.routine('underflow', [I32], I32, (f, d) => {
      this.clearC1(f);
      f.unlikely(f.call(this.raise, IE | SF), () => f.return(1));
      this.write(f, d, i64(DEFAULT_NAN), 0xffff);
      f.return(0);
    });
    this.propagate = this.definePropagate();
    this.round = this.defineRound();
  }

  // --- Slots. ---

  slot(f: Body, i: Operand): Expr {
    const top = f.load32(FTOP);
    return (i === 0 ? top : top.add(i).and(7)).shl(4);
  }
  isEmpty(f: Body, slot: Expr): Expr {
    return f.load8(FTAG, slot.shr(4));
  }
  read(f: Body, slot: Expr): { sig: Local; se: Local } {
    return { sig: f.let(f.load64(FPREG, slot)), se: f.let(f.load16(FPREG + 8, slot)) };
  }
  /** Marks a register that holds a normal number and is not empty. */
  mark(f: Body, slot: Expr): void {
    f.store32(FPREG + 8, f.load32(FPREG + 8, slot).or(NORMAL), slot);
  }
  /** Writes a register and makes it valid. */
  write(f: Body, slot: Expr, sig: Operand, se: Operand): void {
    this.overwrite(f, slot, sig, se);
    f.store8(FTAG, 0, slot.shr(4));
  }
  /** Writes a register that is valid already. */
  overwrite(f: Body, slot: Expr, sig: Operand, se: Operand): void {
    f.store64(FPREG, sig, slot);
    f.store32(FPREG + 8, se, slot);
  }

  // --- Status and control. ---

  clearC1(f: Body): void {
    f.store32(FSW, f.load32(FSW).and(~C1));
  }
  /** Clears C1 and sets these bits; none of the exceptions among them is unmasked. */
  setStatus(f: Body, bits: Expr): void {
    f.store32(FSW, f.load32(FSW).and(~C1).or(bits));
  }
  rounding(f: Body): Expr {
    return f.load32(FCW).and(RC_MASK);
  }
  precision(f: Body): Expr {
    return f.load32(FCW).and(PC_MASK);
  }
  /** Returns 1 when an unmasked exception is raised. */
  raiseOrStop(f: Body, bits: Operand): void {
    f.unlikely(f.call(this.raise, bits), () => f.return(1));
  }
  raiseIfDenormal(f: Body, ...operands: Float[]): void {
    const any = operands.map(isDenormal).reduce((x, y) => x.or(y));
    f.unlikely(any, () => this.raiseOrStop(f, DE));
  }

  private defineRaise(): Routine {
    return this.program.routine('raise', [I32], I32, (f, bits) => {
      const unmasked = f.let(bits.and(f.load32(FCW).xor(-1)).and(EXCEPTIONS).ne(0));
      const status = f.load32(FSW).or(bits);
      f.store32(FSW, status.or(unmasked.select(SUMMARY_BUSY, 0)));
      f.return(unmasked);
    });
  }

  private definePropagate(): Routine {
    return this.program.routine('propagate', [I32, I64, I32, I64, I32], I32, (f, d, aSig, aSe, bSig, bSe) => {
      const [a, b] = [
        { sig: aSig, se: aSe },
        { sig: bSig, se: bSe },
      ];
      this.clearC1(f);
      f.if(isUnsupported(a).or(isUnsupported(b)), () => f.tail(this.invalid, d));
      const [nanA, nanB] = [f.let(isNan(a)), f.let(isNan(b))];
      f.if(nanA.or(nanB).not(), () => f.return(ORDINARY));
      f.if(isSignalling(a).or(isSignalling(b)), () => this.raiseOrStop(f, IE));
      // The larger significand, then the positive one.
      const larger = aSig.gtu(bSig).or(aSig.eq(bSig).and(aSe.leu(bSe)));
      const takeA = f.let(nanA.and(nanB.not().or(larger)));
      this.write(f, d, takeA.select(aSig, bSig).or(QUIET_BIT), takeA.select(aSe, bSe));
      f.return(0);
    });
  }

  // --- Rounding. ---

  /**
   * Rounds `hi` by the bits in `lo` and by precision control.
   * @param sign i32 of 0 or 1  @param precision PC bits as in the control word
   */
  private roundBits(f: Body, sign: Expr, hi: Local, lo: Expr, precision: Expr): Rounded {
    const frac = f.let(lo);
    const ulp = f.let(i64(1));
    f.unlikely(precision.and(0x100).not(), () => {
      const kept = f.let(precision.select(53n, 24n));
      f.set(frac, hi.shl(kept).or(frac.ne(0n).extu()));
      f.set(ulp, i64(1).shl(i64(64).sub(kept)));
      f.set(hi, hi.and(ulp.neg()));
    });
    const up = this.increment(f, sign, frac, hi.and(ulp).ne(0n));
    f.set(hi, hi.add(up.extu().mul(ulp)));
    return { up, inexact: f.let(frac.ne(0n)), carry: up.and(hi.not()) };
  }

  /** Does rounding go away from zero? @param frac what is cut off, in units of 2^-64 of the last place */
  increment(f: Body, sign: Expr, frac: Local, odd: Expr): Local {
    const mode = f.let(this.rounding(f));
    const up = f.variable(I32);
    f.if(
      mode.not(),
      () => {
        f.set(up, frac.gtu(TOP_BIT).or(frac.eq(TOP_BIT).and(odd)));
      },
      () => {
        f.set(
          up,
          mode
            .ne(RC_CHOP)
            .and(frac.ne(0n))
            .and(sign.xor(mode.shr(11))),
        );
      },
    );
    return up;
  }

  private defineRound(): Routine {
    const params = [I32, I32, I32, I64, I64, I32];
    const tiny = this.defineTiny(params);
    const huge = this.defineHuge();
    return this.program.routine('round', params, NONE, (f, d, sign, exp, hi, lo, precision) => {
      this.clearC1(f);
      f.unlikely(exp.les(0), () => f.tail(tiny, d, sign, exp, hi, lo, precision));
      const { up, inexact, carry } = this.roundBits(f, sign, hi, lo, precision);
      f.if(carry, () => {
        f.set(hi, TOP_BIT);
        f.set(exp, exp.add(1));
      });
      const bits = f.let(inexact.shl(5).or(up.shl(9)));
      f.unlikely(exp.ges(EXPONENT), () => f.tail(huge, d, sign, exp, hi, bits, precision));
      this.write(f, d, hi, exp.or(sign.shl(15)).or(NORMAL));
      f.do(f.call(this.raise, bits));
      f.return();
    });
  }

  /** Results below the smallest normal number: tininess shows after rounding (SDM vol. 1, 4.9.1.5). */
  private defineTiny(params: readonly number[]): Routine {
    return this.program.routine(null, params, NONE, (f, d, sign, exp, hi, lo, precision) => {
      const whole = f.let(hi);
      const unbounded = this.roundBits(f, sign, whole, lo, precision);
      const isTiny = f.let(exp.not().and(unbounded.carry).not());
      f.if(isTiny.and(f.load32(FCW).and(UE).not()), () => {
        f.set(exp, exp.add(BIAS_ADJUST).add(unbounded.carry));
        f.if(unbounded.carry, () => f.set(whole, TOP_BIT));
        // FSCALE can go further down than the adjustment reaches.
        const beyond = f.let(exp.les(0));
        f.if(beyond, () => {
          f.set(exp, 0);
          f.set(whole, 0n);
        });
        this.write(f, d, whole, exp.or(sign.shl(15)));
        f.do(f.call(this.raise, unbounded.inexact.or(beyond).shl(5).or(unbounded.up.shl(9)).or(UE)));
        f.return();
      });
      const n = f.let(i32(1).sub(exp));
      shiftRightJam(f, hi, lo, n);
      const { up, inexact } = this.roundBits(f, sign, hi, lo, precision);
      this.write(f, d, hi, hi.shr(63n).wrap().or(sign.shl(15)));
      const underflow = isTiny.and(inexact).shl(4);
      f.do(f.call(this.raise, inexact.shl(5).or(up.shl(9)).or(underflow)));
      f.return();
    });
  }

  private defineHuge(): Routine {
    return this.program.routine(null, [I32, I32, I32, I64, I32, I32], NONE, (f, d, sign, exp, hi, bits, precision) => {
      f.if(f.load32(FCW).and(OE).not(), () => {
        f.set(exp, exp.sub(BIAS_ADJUST));
        f.if(exp.ges(EXPONENT), () => {
          f.set(exp, EXPONENT);
          f.set(hi, TOP_BIT);
          f.set(bits, PE | C1);
        });
        this.write(f, d, hi, exp.or(sign.shl(15)));
        f.do(f.call(this.raise, bits.or(OE)));
        f.return();
      });
      const mode = f.let(this.rounding(f));
      const away = mode.ne(RC_CHOP).and(sign.xor(mode.shr(11)));
      const infinite = f.let(mode.not().or(away));
      const few = precision.select(i64(-2048), i64(-1).shl(40n));
      const largest = precision.and(0x100).select(i64(-1), few);
      this.write(f, d, infinite.select(i64(TOP_BIT), largest), i32(0x7ffe).add(infinite).or(sign.shl(15)));
      f.do(f.call(this.raise, infinite.shl(9).or(OE | PE)));
      f.return();
    });
  }
}

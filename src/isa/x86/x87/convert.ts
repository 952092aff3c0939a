/**
 * Loads and stores: between registers and the formats in memory.
 *
 * A store's value is computed first; the status word it leaves waits in STATUS_AFTER until the
 * memory has been written, so that a page fault finds the state as it was. When an unmasked
 * exception suppresses the store, the status word is written at once and SUPPRESSED set there.
 */
import { I32, I64, NONE } from '../../../ir/ops.ts';
import { choose, defineFast, i32, i64 } from '../../../wasm/structured.ts';
import type { Body, Expr, Local, Operand, Routine } from '../../../wasm/structured.ts';
import { FCW, FPREG, FSW, FTAG, FTOP } from '../state.ts';
import {
  BIAS,
  C1,
  DE,
  EXPONENT,
  IE,
  OE,
  PE,
  QUIET_BIT,
  RC_CHOP,
  SF,
  TOP_BIT,
  UE,
  WAS_DENORMAL,
  X87,
  DEFAULT_NAN,
  exponentOf,
  areMarked,
  isNan,
  isPlain,
  isSignalling,
  isUnsupported,
  markOf,
  shiftRightJam,
  signOf,
} from './common.ts';
import type { Float } from './common.ts';
import { unpack } from './arithmetic.ts';
import { readMarked } from './fast-arithmetic.ts';
import { DOUBLE, HIGH_PART, SINGLE, STATUS_AFTER, SUPPRESSED } from './formats.ts';
import type { Format } from './formats.ts';
import { X87_FAST } from './moves.ts';

const MAX_BCD = 999999999999999999n;

interface Locals {
  readonly sig: Local;
  readonly se: Local;
}

export class Conversions {
  private readonly x: X87;
  /** (bits of a result's exceptions): leaves the status word for after the store. */
  private readonly pend: Routine;
  /** (sig, se) => status: pushes, and moves TOP itself. */
  readonly push: Routine;
  /** () => status: pushes the default NaN, wherever that goes. */
  readonly pushNan: Routine;
  private readonly overflow: Routine;

  constructor(x: X87) {
    this.x = x;
    this.pend = this.definePend();
    this.pushNan = this.definePushNan();
    this.overflow = this.defineOverflow();
    this.push = this.definePush();
    this.defineLoads();
    this.defineFloatStore('st32', SINGLE);
    this.defineFloatStore('st64', DOUBLE);
    this.defineStore80();
    this.defineIntegerStores();
    this.defineBcd();
  }

  // --- From memory. ---

  /** An integer (i64) as a register holds it. */
  fromInteger(f: Body, v: Expr): Locals {
    const value = f.let(v);
    const [sig, se] = [f.variable(I64), f.variable(I32)];
    f.set(sig, 0n);
    f.set(se, 0);
    f.if(value.ne(0n), () => {
      const sign = f.let(value.sar(63n));
      const magnitude = f.let(value.xor(sign).sub(sign));
      const n = f.let(magnitude.clz());
      f.set(sig, magnitude.shl(n));
      f.set(
        se,
        i32(BIAS + 63)
          .sub(n.wrap())
          .or(sign.wrap().and(0x8000)),
      );
    });
    return { sig, se };
  }

  fromSingle(f: Body, bits: Expr): Locals {
    return this.fromFormat(f, bits.extu(), SINGLE);
  }
  fromDouble(f: Body, bits: Expr): Locals {
    return this.fromFormat(f, bits, DOUBLE);
  }

  private fromFormat(f: Body, value: Expr, { fraction, exponents, rebias }: Format): Locals {
    const bits = f.let(value);
    const width = fraction === 52 ? 63n : 31n;
    const sign = f.let(bits.shr(width).wrap().shl(15));
    const exp = f.let(bits.shr(BigInt(fraction)).wrap().and(exponents));
    const sig = f.let(bits.and((1n << BigInt(fraction)) - 1n).shl(BigInt(63 - fraction)));
    const se = f.variable(I32);
    f.if(
      exp.sub(1).ltu(exponents - 1),
      () => {
        f.set(sig, sig.or(TOP_BIT));
        f.set(se, exp.add(rebias).or(sign));
      },
      () =>
        f.if(
          exp,
          () => {
            f.set(sig, sig.or(TOP_BIT));
            f.set(se, sign.or(EXPONENT));
          },
          () => {
            f.set(se, sign);
            f.if(sig.ne(0n), () => {
              const n = f.let(sig.clz());
              f.set(sig, sig.shl(n));
              f.set(
                se,
                i32(1 + rebias)
                  .sub(n.wrap())
                  .or(sign)
                  .or(WAS_DENORMAL),
              );
            });
          },
        ),
    );
    return { sig, se };
  }

  private definePush(): Routine {
    const { x } = this;
    return x.program.routine('push', [I64, I32], I32, (f, sig, se) => {
      const top = f.let(f.load32(FTOP).sub(1).and(7));
      f.unlikely(f.load8(FTAG, top).not(), () => f.tail(this.overflow));
      f.store32(FTOP, top);
      x.write(f, top.shl(4), sig, se.or(markOf({ sig, se })));
      x.clearC1(f);
      f.return(0);
    });
  }

  private definePushNan(): Routine {
    const { x } = this;
    return x.program.routine('pushNan', [], I32, (f) => {
      const top = f.let(f.load32(FTOP).sub(1).and(7));
      f.store32(FTOP, top);
      x.write(f, top.shl(4), i64(DEFAULT_NAN), 0xffff);
      f.return(0);
    });
  }

  private defineOverflow(): Routine {
    const { x } = this;
    return x.program.routine(null, [], I32, (f) => {
      x.clearC1(f);
      x.raiseOrStop(f, IE | SF | C1);
      f.tail(this.pushNan);
    });
  }

  /** Loads to a slot that is to be st(0): (slot, operand) => status. TOP moves when the status is 0. */
  private defineLoads(): void {
    const { x } = this;
    // The value only matters when there is room.
    const put = x.program.routine(null, [I32, I64, I32], I32, (f, d, sig, se) => {
      x.clearC1(f);
      f.unlikely(x.isEmpty(f, d).not(), () => {
        x.raiseOrStop(f, IE | SF | C1);
        f.set(sig, DEFAULT_NAN);
        f.set(se, 0xffff);
      });
      x.write(f, d, sig, se.or(markOf({ sig, se })));
      f.return(0);
    });
    defineFast(x.program, 'fld80', X87_FAST['fld80']!, put);
    // What a single or double may raise; the stack comes first.
    const number = x.program.routine(null, [I32, I64, I32], I32, (f, d, sig, se) => {
      const value = f.let(se.and(0xffff));
      f.unlikely(x.isEmpty(f, d).not(), () => f.tail(put, d, sig, value));
      // A denormal is loaded even when its exception is not masked.
      f.if(se.and(WAS_DENORMAL), () => {
        f.do(f.call(put, d, sig, value));
        f.unlikely(f.call(x.raise, DE), () => {
          f.store32(FTOP, d.shr(4));
          f.return(1);
        });
        f.return(0);
      });
      f.if(isSignalling({ sig, se }), () => {
        x.clearC1(f);
        x.raiseOrStop(f, IE);
        f.set(sig, sig.or(QUIET_BIT));
      });
      f.tail(put, d, sig, value);
    });
    const single = x.program.routine(null, [I32, I32], I32, (f, d, bits) => {
      const { sig, se } = this.fromSingle(f, bits);
      f.tail(number, d, sig, se);
    });
    defineFast(x.program, 'fld32', X87_FAST['fld32']!, single);
    const double = x.program.routine(null, [I32, I64], I32, (f, d, bits) => {
      const { sig, se } = this.fromDouble(f, bits);
      f.tail(number, d, sig, se);
    });
    defineFast(x.program, 'fld64', X87_FAST['fld64']!, double);
    const integer = x.program.routine(null, [I32, I64], I32, (f, d, v) => {
      const { sig, se } = this.fromInteger(f, v);
      f.tail(put, d, sig, se);
    });
    defineFast(x.program, 'fild', X87_FAST['fild']!, integer);
  }

  // --- To memory. ---

  private definePend(): Routine {
    return this.x.program.routine(null, [I32], NONE, (f, bits) => {
      const unmasked = f.let(bits.and(f.load32(FCW).xor(-1)).and(0x3f));
      const status = f.let(f.load32(FSW).and(~C1).or(bits).or(unmasked.select(0x8080, 0)));
      f.if(
        unmasked.and(~PE),
        () => {
          f.store32(FSW, status);
          f.store32(STATUS_AFTER, SUPPRESSED);
        },
        () => f.store32(STATUS_AFTER, status),
      );
      f.return();
    });
  }

  private pendBits(f: Body, bits: Operand): void {
    f.do(f.call(this.pend, bits));
  }

  private defineFloatStore(name: string, format: Format): void {
    const { x } = this;
    const slow = this.defineSlowFloatStore(format);
    const { fraction, exponents, rebias } = format;
    const result = fraction === 52 ? I64 : I32;
    x.program.routine(name, [], result, (f) => {
      const slot = f.let(x.slot(f, 0));
      const a = readMarked(f, slot);
      const exp = f.let(exponentOf(a).sub(rebias));
      const fits = exp.sub(1).ltu(exponents - 2);
      f.unlikely(fits.and(areMarked(a).and(isPlain(f))).not(), () => {
        const bits = f.call(slow);
        f.return(result === I64 ? bits : bits.wrap());
      });
      const rest = f.let(a.sig.shl(BigInt(fraction + 1)));
      const kept = f.let(a.sig.shr(BigInt(63 - fraction)));
      const up = f.let(rest.shr(63n).and(rest.ne(TOP_BIT).extu().or(kept)));
      f.store32(STATUS_AFTER, f.load32(FSW).and(~C1).or(rest.ne(0n).shl(5)).or(up.wrap().shl(9)));
      const bits = this.assemble(format, a, exp.sub(1), kept.add(up));
      f.return(result === I64 ? bits : bits.wrap());
    });
  }

  /** The implicit bit, and a carry out of the fraction, add to the exponent. */
  private assemble({ fraction }: Format, a: Float, exp: Expr, kept: Expr): Expr {
    const sign = signOf(a)
      .extu()
      .shl(fraction === 52 ? 63n : 31n);
    return exp.extu().shl(BigInt(fraction)).add(kept).or(sign);
  }

  private defineSlowFloatStore(format: Format): Routine {
    const { x } = this;
    const { fraction, exponents, rebias } = format;
    const infinity = BigInt(exponents) << BigInt(fraction);
    const quiet = 1n << BigInt(fraction - 1);
    const defaultNan = i64(infinity | quiet | (1n << (fraction === 52 ? 63n : 31n)));
    const numbers = this.defineFloatRounding(format);
    return x.program.routine(null, [], I64, (f) => {
      const slot = f.let(x.slot(f, 0));
      const a = x.read(f, slot);
      f.if(x.isEmpty(f, slot), () => {
        this.pendBits(f, IE | SF);
        f.return(defaultNan);
      });
      f.if(isUnsupported(a), () => {
        this.pendBits(f, IE);
        f.return(defaultNan);
      });
      f.if(isNan(a), () => {
        this.pendBits(f, isSignalling(a));
        const payload = a.sig.shl(1n).shr(BigInt(64 - fraction));
        f.return(this.assemble(format, a, i32(exponents), payload.or(quiet)));
      });
      f.if(exponentOf(a).eq(EXPONENT).or(a.sig.not()), () => {
        this.pendBits(f, 0);
        f.return(this.assemble(format, a, exponentOf(a).select(exponents, 0), i64(0)));
      });
      const [exp, sig] = unpack(f, a);
      f.tail(numbers, a.se, exp.sub(rebias), sig);
    });
  }

  /** (se for its sign, exponent in the format's bias, significand) => bits. */
  private defineFloatRounding(format: Format): Routine {
    const { x } = this;
    const { fraction, exponents } = format;
    return x.program.routine(null, [I32, I32, I64], I64, (f, se, exp, sig) => {
      const a = { sig, se };
      const sign = signOf(a);
      const rounded = (): { kept: Local; up: Local; inexact: Expr } => {
        const rest = f.let(sig.shl(BigInt(fraction + 1)).or(low.ne(0n).extu()));
        const kept = f.let(sig.shr(BigInt(63 - fraction)));
        const up = x.increment(f, sign, rest, kept.and(1n).ne(0n));
        f.set(kept, kept.add(up.extu()));
        return { kept, up, inexact: rest.ne(0n) };
      };
      const low = f.let(i64(0));
      const first = rounded();
      const tiny = f.let(
        exp.les(0).and(
          exp
            .not()
            .and(first.kept.shr(BigInt(fraction + 1)).wrap())
            .not(),
        ),
      );
      const flags = f.let(first.inexact.shl(5).or(first.up.shl(9)));
      f.if(exp.les(0), () => {
        f.unlikely(tiny.and(f.load32(FCW).and(UE).not()), () => {
          this.pendBits(f, UE);
          f.return(i64(0));
        });
        const n = f.let(i32(1).sub(exp));
        shiftRightJam(f, sig, low, n);
        const { kept, up, inexact } = rounded();
        this.pendBits(f, inexact.shl(5).or(up.shl(9)).or(tiny.and(inexact).shl(4)));
        f.return(this.assemble(format, a, i32(0), kept));
      });
      const bits = f.let(exp.sub(1).extu().shl(BigInt(fraction)).add(first.kept));
      const infinity = BigInt(exponents) << BigInt(fraction);
      f.unlikely(exp.ges(exponents).or(bits.geu(infinity)), () => {
        f.unlikely(f.load32(FCW).and(OE).not(), () => {
          this.pendBits(f, OE);
          f.return(i64(0));
        });
        const mode = f.let(x.rounding(f));
        const away = mode.ne(RC_CHOP).and(sign.xor(mode.shr(11)));
        const infinite = f.let(mode.not().or(away));
        this.pendBits(f, infinite.shl(9).or(OE | PE));
        f.return(this.assemble(format, a, i32(0), infinite.select(infinity, infinity - 1n)));
      });
      this.pendBits(f, flags);
      f.return(this.assemble(format, a, i32(0), bits));
    });
  }

  private defineStore80(): void {
    const { x } = this;
    const missing = x.program.routine(null, [I32], I64, (f) => {
      this.pendBits(f, IE | SF);
      f.store32(HIGH_PART, 0xffff);
      f.return(i64(DEFAULT_NAN));
    });
    defineFast(x.program, 'st80', X87_FAST['st80']!, missing);
  }

  /**
   * The register as an integer with rounding; `bad` is to return when it is beyond the limits.
   * @param limits for positive and negative numbers, magnitudes
   */
  private toInteger(f: Body, slot: Local, mode: Expr | null, limits: readonly [Expr, Expr], bad: (bits: Operand) => void): Local {
    const { x } = this;
    f.unlikely(x.isEmpty(f, slot), () => bad(IE | SF));
    const a = x.read(f, slot);
    const n = f.let(i32(BIAS + 63).sub(exponentOf(a)));
    f.unlikely(n.lts(0).or(isUnsupported(a)), () => bad(IE));
    const low = f.let(i64(0));
    f.if(n, () => shiftRightJam(f, a.sig, low, n));
    const sign = f.let(signOf(a));
    const up = f.variable(I32);
    const rounding = (): void => f.set(up, x.increment(f, sign, low, a.sig.and(1n).ne(0n)));
    if (mode) f.if(mode, () => f.set(up, 0), rounding);
    else rounding();
    f.set(a.sig, a.sig.add(up.extu()));
    f.unlikely(a.sig.gtu(sign.select(limits[1], limits[0])), () => bad(IE));
    const bits = f.let(low.ne(0n).shl(5).or(up.shl(9)));
    f.if(
      bits,
      () => this.pendBits(f, bits),
      () => f.store32(STATUS_AFTER, f.load32(FSW).and(~C1)),
    );
    f.set(a.sig, choose(sign, a.sig.neg(), a.sig));
    return a.sig;
  }

  /** (bits of the format, towards zero) => integer. */
  private defineIntegerStores(): void {
    const { x } = this;
    x.program.routine('ist', [I32, I32], I64, (f, size, chop) => {
      const negative = f.let(i64(1).shl(size.sub(1).extu()));
      const slot = f.let(x.slot(f, 0));
      const bad = (bits: Operand): void => {
        this.pendBits(f, bits);
        f.return(negative);
      };
      f.return(this.toInteger(f, slot, chop, [negative.sub(1n), negative], bad));
    });
  }

  // --- Packed decimals: 18 digits of 4 bits, the sign in the top bit. ---

  private defineBcd(): void {
    const { x } = this;
    x.program.routine('bst', [], I64, (f) => {
      const slot = f.let(x.slot(f, 0));
      const bad = (bits: Operand): void => {
        this.pendBits(f, bits);
        f.store32(HIGH_PART, 0xffff);
        f.return(i64(DEFAULT_NAN));
      };
      const v = this.toInteger(f, slot, null, [i64(MAX_BCD), i64(MAX_BCD)], bad);
      const sign = f.let(f.load16(FPREG + 8, slot).and(0x8000));
      f.if(v.lts(0n), () => f.set(v, v.neg()));
      const digits = (from: Local, count: number): Local => {
        const sum = f.let(i64(0));
        const at = f.let(i64(0));
        f.while(at.ltu(BigInt(4 * count)), () => {
          f.set(sum, sum.or(from.rem(10n).shl(at)));
          f.set(from, from.div(10n));
          f.set(at, at.add(4n));
        });
        return sum;
      };
      const low = digits(v, 16);
      f.store32(HIGH_PART, digits(v, 2).wrap().or(sign));
      f.return(low);
    });
    x.program.routine('bld', [I64, I32], I32, (f, low, high) => {
      const sum = f.let(high.shr(4).and(15).mul(10).add(high.and(15)).extu());
      const at = f.let(i64(64));
      f.while(at.ne(0n), () => {
        f.set(at, at.sub(4n));
        f.set(sum, sum.mul(10n).add(low.shr(at).and(15n)));
      });
      const { sig, se } = this.fromInteger(f, sum);
      f.tail(this.push, sig, se.or(high.and(0x8000)));
    });
  }
}

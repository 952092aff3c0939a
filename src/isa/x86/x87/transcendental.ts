/**
 * F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS, FSINCOS: computed with far more bits than a
 * register has and rounded once, so within one unit of the last place of any processor.
 */
import { FCW, FPREG, FSW, FTAG, FTOP } from '../state.ts';
import { BIAS, C1, C2, DE, DEFAULT_NAN, EXPONENT, FULL, IE, ORDINARY, QUIET_BIT, SF, TOP_BIT, ZE } from './common.ts';
import { CONSTANT_BITS, LN2, PI, areaTangent, arcTangent, bitLength, cosine, expMinus1, sine } from './series.ts';

/** Routines in wasm that these functions use. */
export interface Primitives {
  raise(bits: number): number;
  invalid(slot: number): number;
  underflow(slot: number): number;
  propagate(slot: number, aSig: bigint, aSe: number, bSig: bigint, bSe: number): number;
  round(slot: number, sign: number, exp: number, hi: bigint, lo: bigint, precision: number): void;
  push(sig: bigint, se: number): number;
  pushNan(): number;
}

interface Value {
  readonly slot: number;
  readonly empty: boolean;
  readonly sig: bigint;
  readonly se: number;
  readonly sign: number;
  readonly exponent: number;
}

/** Precision of the results before rounding. */
const PRECISION = 200;
const ONE_SE = BIAS;
const LARGEST_ANGLE = BIAS + 63;

/**
 * The processors' pi for reducing arguments, 66 bits of it (SDM vol. 1, 8.3.8).
 */
const MACHINE_PI = (PI >> BigInt(CONSTANT_BITS - 64)) << BigInt(CONSTANT_BITS - 64);

/** Rounding control (SDM vol. 1, 8.1.5.3). */
const ROUND_DOWN = 1;
const ROUND_UP = 2;

const isZero = (v: Value): boolean => v.sig === 0n;
const isInfinite = (v: Value): boolean => v.exponent === EXPONENT;
const isDenormal = (v: Value): boolean => v.exponent === 0 && v.sig !== 0n;
/** Power of 2 of the significand's lowest bit. */
const scaleOf = (v: Value): number => Math.max(v.exponent, 1) - BIAS - 63;

const shift = (v: bigint, by: number): bigint => (by >= 0 ? v << BigInt(by) : v >> BigInt(-by));
/** |v| in fixed point. */
const fixed = (v: Value, bits: number): bigint => shift(v.sig, scaleOf(v) + bits);
/** Fraction bits that leave PRECISION significant ones of |v|. */
const bitsFor = (v: Value): number => PRECISION + Math.max(0, -(scaleOf(v) + bitLength(v.sig)));
const constant = (value: bigint, bits: number): bigint => shift(value, bits - CONSTANT_BITS);

class Transcendental {
  private readonly view: DataView;
  private readonly base: number;
  private readonly p: Primitives;

  constructor(memory: WebAssembly.Memory, base: number, primitives: Primitives) {
    this.view = new DataView(memory.buffer);
    this.base = base;
    this.p = primitives;
  }

  // --- Stack. ---

  private get status(): number {
    return this.view.getInt32(this.base + FSW, true);
  }
  private set status(value: number) {
    this.view.setInt32(this.base + FSW, value, true);
  }
  private physical(i: number): number {
    return (this.view.getInt32(this.base + FTOP, true) + i) & 7;
  }
  private get(i: number): Value {
    const physical = this.physical(i);
    const slot = physical * 16;
    const sig = this.view.getBigUint64(this.base + FPREG + slot, true);
    const se = this.view.getUint16(this.base + FPREG + 8 + slot, true);
    const empty = this.view.getUint8(this.base + FTAG + physical) !== 0;
    return { slot, empty, sig, se, sign: se >> 15, exponent: se & EXPONENT };
  }
  private put(slot: number, sig: bigint, se: number): void {
    this.view.setBigUint64(this.base + FPREG + slot, sig, true);
    this.view.setInt32(this.base + FPREG + 8 + slot, se, true);
    this.view.setUint8(this.base + FTAG + (slot >> 4), 0);
  }
  private zero(slot: number, sign: number): number {
    this.put(slot, 0n, sign << 15);
    return 0;
  }
  private infinity(slot: number, sign: number): number {
    this.put(slot, TOP_BIT, (sign << 15) | EXPONENT);
    return 0;
  }
  private propagate(slot: number, a: Value, b: Value): number {
    return this.p.propagate(slot, a.sig, a.se, b.sig, b.se);
  }
  private denormal(...values: Value[]): boolean {
    return values.some(isDenormal) && this.p.raise(DE) !== 0;
  }

  /** Rounds magnitude * 2^-bits into the slot; it is never taken for exact. */
  private result(slot: number, sign: number, magnitude: bigint, bits: number): number {
    const wide = (magnitude << 1n) | 1n;
    const length = bitLength(wide);
    const excess = length - 128;
    let top = shift(wide, -excess);
    if (excess > 0) top |= 1n;
    const exp = length - 1 - (bits + 1) + BIAS;
    this.p.round(slot, sign, exp, BigInt.asIntN(64, top >> 64n), BigInt.asIntN(64, top), FULL);
    return 0;
  }

  // --- Sine, cosine, tangent. ---

  /** The common beginning. @returns status when that was all, -1 = go on */
  private beginAngle(x: Value, pushes: boolean): number {
    this.status &= ~(C1 | C2);
    if (x.empty) return this.angleFault(x, pushes, IE | SF);
    const full = this.view.getUint8(this.base + FTAG + this.physical(-1)) === 0;
    if (pushes && full) return this.angleFault(x, pushes, IE | SF | C1);
    const special = this.propagate(x.slot, x, x);
    if (special === 1) return 1;
    if (special !== ORDINARY) return pushes ? this.pushCopy(x.slot) : 0;
    if (isInfinite(x)) return this.angleFault(x, pushes, IE);
    if (x.exponent >= LARGEST_ANGLE) {
      this.status |= C2;
      return 0;
    }
    if (this.denormal(x)) return 1;
    return -1;
  }
  private angleFault(x: Value, pushes: boolean, bits: number): number {
    if (this.p.raise(bits)) return 1;
    this.put(x.slot, DEFAULT_NAN, 0xffff);
    return pushes ? this.p.pushNan() : 0;
  }
  private pushCopy(slot: number): number {
    const sig = this.view.getBigUint64(this.base + FPREG + slot, true);
    return this.push(sig | QUIET_BIT, this.view.getUint16(this.base + FPREG + 8 + slot, true));
  }
  private push(sig: bigint, se: number): number {
    const c = this.status & C1;
    this.p.push(BigInt.asIntN(64, sig), se);
    this.status |= c;
    return 0;
  }

  /** Sine and cosine of |x| with their signs, and the fraction bits. */
  private angle(x: Value): { sin: bigint; cos: bigint; bits: number } {
    const bits = bitsFor(x) + 64;
    const whole = fixed(x, bits);
    const quarter = constant(MACHINE_PI, bits) >> 1n;
    // To the nearest multiple of a right angle; small angles need no pi.
    const n = x.exponent < BIAS - 1 ? 0n : (whole + (quarter >> 1n)) / quarter;
    const rest = whole - n * quarter;
    const [s, c] = [sine(rest, bits) + this.aside(x.sign), cosine(rest, bits)];
    const turns = Number(n & 3n);
    if (turns === 0) return { sin: s, cos: c, bits };
    if (turns === 1) return { sin: c, cos: -s, bits };
    return turns === 2 ? { sin: -s, cos: -c, bits } : { sin: -c, cos: s, bits };
  }
  /**
   * The sine of a very small angle is inexact, and yet the angle itself however it is rounded: so do the processors, and the
   * least normal angle has no tiny sine. @returns what brings that about, far below the last place of others
   */
  private aside(sign: number): bigint {
    const rounding = (this.view.getUint16(this.base + FCW, true) >> 10) & 3;
    return rounding === (sign === 1 ? ROUND_DOWN : ROUND_UP) ? -1n : 1n;
  }
  private signed(slot: number, sign: number, value: bigint, bits: number): number {
    if (value === 0n) return this.zero(slot, sign);
    return value < 0n ? this.result(slot, sign ^ 1, -value, bits) : this.result(slot, sign, value, bits);
  }

  fsin(): number {
    const x = this.get(0);
    const done = this.beginAngle(x, false);
    if (done >= 0 || isZero(x)) return Math.max(0, done);
    const { sin, bits } = this.angle(x);
    return this.signed(x.slot, x.sign, sin, bits);
  }
  fcos(): number {
    const x = this.get(0);
    const done = this.beginAngle(x, false);
    if (done >= 0) return done;
    if (isZero(x)) {
      this.put(x.slot, TOP_BIT, ONE_SE);
      return 0;
    }
    const { cos, bits } = this.angle(x);
    return this.signed(x.slot, 0, cos, bits);
  }
  fsincos(): number {
    const x = this.get(0);
    const done = this.beginAngle(x, true);
    if (done >= 0) return done;
    if (isZero(x)) return this.push(TOP_BIT, ONE_SE);
    const { sin, cos, bits } = this.angle(x);
    this.push(TOP_BIT, ONE_SE);
    this.signed(this.get(0).slot, 0, cos, bits);
    return this.signed(x.slot, x.sign, sin, bits);
  }
  fptan(): number {
    const x = this.get(0);
    const done = this.beginAngle(x, true);
    if (done >= 0) return done;
    if (!isZero(x)) {
      const { sin, cos, bits } = this.angle(x);
      this.signed(x.slot, x.sign, (sin << BigInt(bits)) / cos, bits);
    }
    return this.push(TOP_BIT, ONE_SE);
  }

  // --- Arc tangent. ---

  /** The common beginning of functions of two operands. @returns status, or -1 = go on */
  private beginPair(x: Value, y: Value): number {
    this.status &= ~C1;
    if (x.empty || y.empty) return this.p.underflow(y.slot);
    const special = this.propagate(y.slot, x, y);
    return special === ORDINARY ? -1 : special;
  }

  fpatan(): number {
    const [x, y] = [this.get(0), this.get(1)];
    const done = this.beginPair(x, y);
    if (done >= 0) return done;
    if (this.denormal(x, y)) return 1;
    const eighths = (n: bigint): number => this.result(y.slot, y.sign, (PI * n) >> 3n, CONSTANT_BITS);
    if (isInfinite(y)) return eighths(isInfinite(x) ? (x.sign ? 6n : 2n) : 4n);
    if (isInfinite(x) || isZero(y)) return x.sign ? eighths(8n) : this.zero(y.slot, y.sign);
    if (isZero(x)) return eighths(4n);
    return this.quotientAngle(x, y);
  }

  private quotientAngle(x: Value, y: Value): number {
    const [topX, topY] = [scaleOf(x) + bitLength(x.sig), scaleOf(y) + bitLength(y.sig)];
    const steep = topY > topX || (topY === topX && shift(y.sig, bitLength(x.sig) - bitLength(y.sig)) > x.sig);
    const [small, large] = steep ? [x, y] : [y, x];
    const near = !steep && x.sign === 0;
    const gap = Math.abs(topX - topY);
    // The angle itself is small only near the positive x axis.
    const bits = PRECISION + (near ? gap : 0) + 64;
    const t = shift(small.sig, scaleOf(small) - scaleOf(large) + bits) / large.sig;
    const a = arcTangent(t, bits);
    const pi = constant(PI, bits);
    const angle = steep ? (x.sign ? (pi >> 1n) + a : (pi >> 1n) - a) : x.sign ? pi - a : a;
    return this.result(y.slot, y.sign, angle, bits);
  }

  // --- Powers and logarithms. ---

  f2xm1(): number {
    const x = this.get(0);
    if (x.empty) return this.p.underflow(x.slot);
    const special = this.propagate(x.slot, x, x);
    if (special !== ORDINARY) return special;
    if (isInfinite(x)) {
      if (x.sign) this.put(x.slot, TOP_BIT, 0x8000 | ONE_SE);
      return 0;
    }
    if (isZero(x)) return 0;
    if (this.denormal(x)) return 1;
    // Beyond -1 to 1 the result is undefined.
    if (x.exponent > BIAS || (x.exponent === BIAS && x.sig !== TOP_BIT)) return 0;
    if (x.exponent === BIAS) {
      this.put(x.slot, TOP_BIT, x.sign ? 0x8000 | (BIAS - 1) : ONE_SE);
      return 0;
    }
    const bits = bitsFor(x) + 64;
    const z = shift(x.sig * LN2, scaleOf(x) + bits - CONSTANT_BITS);
    const value = expMinus1(x.sign ? -z : z, bits);
    return this.signed(x.slot, 0, value, bits);
  }

  /** y times a logarithm of base 2 given as a natural one. */
  private timesLog(y: Value, log: bigint, bits: number): number {
    const sign = log < 0n ? 1 : 0;
    const magnitude = ((log < 0n ? -log : log) << BigInt(CONSTANT_BITS)) / LN2;
    return this.result(y.slot, y.sign ^ sign, magnitude * y.sig, bits - scaleOf(y));
  }

  fyl2x(): number {
    const [x, y] = [this.get(0), this.get(1)];
    const done = this.beginPair(x, y);
    if (done >= 0) return done;
    if (x.sign && !isZero(x)) return this.p.invalid(y.slot);
    if (isZero(x)) return this.logarithmOfZero(y);
    const isOne = x.exponent === BIAS && x.sig === TOP_BIT;
    if ((isOne && isInfinite(y)) || (isInfinite(x) && isZero(y))) return this.p.invalid(y.slot);
    if (this.denormal(x, y)) return 1;
    const below = x.exponent < BIAS ? 1 : 0;
    if (isInfinite(x) || isInfinite(y)) return this.infinity(y.slot, y.sign ^ below);
    if (isOne || isZero(y)) return this.zero(y.slot, y.sign ^ below);
    // x = m * 2^n with m next to 1.
    const bits = PRECISION + 128;
    const one = 1n << BigInt(bits);
    const length = bitLength(x.sig);
    let m = shift(x.sig, bits - length + 1);
    let n = scaleOf(x) + length - 1;
    if (m * 5n > one * 7n) {
      m >>= 1n;
      n++;
    }
    const s = ((m - one) << BigInt(bits)) / (m + one);
    const log = 2n * areaTangent(s, bits) + BigInt(n) * constant(LN2, bits);
    return this.timesLog(y, log, bits);
  }

  private logarithmOfZero(y: Value): number {
    if (isZero(y)) return this.p.invalid(y.slot);
    if (isInfinite(y)) return this.infinity(y.slot, y.sign ^ 1);
    if (this.p.raise(ZE)) return 1;
    return this.infinity(y.slot, y.sign ^ 1);
  }

  fyl2xp1(): number {
    const [x, y] = [this.get(0), this.get(1)];
    const done = this.beginPair(x, y);
    if (done >= 0) return done;
    if (isInfinite(x) && (x.sign || isZero(y))) return this.p.invalid(y.slot);
    if (isZero(x) && isInfinite(y)) return this.p.invalid(y.slot);
    if (this.denormal(x, y)) return 1;
    const sign = x.sign ^ y.sign;
    if (isInfinite(x) || isInfinite(y)) return this.infinity(y.slot, sign);
    if (isZero(x) || isZero(y)) return this.zero(y.slot, sign);
    // Defined where x is between sqrt(1/2) - 1 and sqrt(2) - 1, and good a bit further.
    if (x.exponent > BIAS || (x.sign && x.exponent === BIAS)) return this.p.invalid(y.slot);
    const bits = bitsFor(x) + 64;
    const v = x.sign ? -fixed(x, bits) : fixed(x, bits);
    const s = (v << BigInt(bits)) / ((2n << BigInt(bits)) + v);
    return this.timesLog(y, 2n * areaTangent(s, bits), bits);
  }
}

const NAMES = ['f2xm1', 'fsin', 'fcos', 'fsincos', 'fptan', 'fpatan', 'fyl2x', 'fyl2xp1'] as const;

/** @param primitives exports of the wasm module  @returns the functions by name */
export function transcendentalRoutines(
  memory: WebAssembly.Memory,
  vcpuBase: number,
  primitives: Primitives,
): Record<string, WebAssembly.ImportValue> {
  const t = new Transcendental(memory, vcpuBase, primitives);
  return Object.fromEntries(NAMES.map((name) => [name, () => t[name]()]));
}

/**
 * Elementary functions of BigInt fixed-point numbers: `bits` fraction bits, errors of a few
 * units of the last place. Slow and without tables: guests use them rarely.
 */

const shifted = (v: bigint, by: number): bigint => (by >= 0 ? v << BigInt(by) : v >> BigInt(-by));

/** Number of bits of a positive number. */
export function bitLength(v: bigint): number {
  const text = v.toString(16);
  return text.length * 4 - Math.clz32(parseInt(text[0]!, 16)) + 28;
}

export function squareRoot(v: bigint): bigint {
  if (v === 0n) return 0n;
  let x = 1n << BigInt((bitLength(v) >> 1) + 1);
  for (;;) {
    const next = (x + v / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
}

/** Sum of t, t * q * ratio(1), that * q * ratio(2), ... where ratio(k) = 1 / divisor(k). */
function series(first: bigint, q: bigint, bits: number, divisor: (k: number) => number): bigint {
  let term = first;
  let sum = first;
  for (let k = 1; term !== 0n; k++) {
    term = ((term * q) >> BigInt(bits)) / BigInt(divisor(k));
    if (term === -1n) break;
    sum += term;
  }
  return sum;
}

const square = (x: bigint, bits: number): bigint => (x * x) >> BigInt(bits);

export const sine = (x: bigint, bits: number): bigint => series(x, -square(x, bits), bits, (k) => 2 * k * (2 * k + 1));
export const cosine = (x: bigint, bits: number): bigint =>
  series(1n << BigInt(bits), -square(x, bits), bits, (k) => 2 * k * (2 * k - 1));
/** e^x - 1. */
export const expMinus1 = (x: bigint, bits: number): bigint => series(x, x, bits, (k) => k + 1);

/** Sum of x^(2k+1) / (2k+1), the signs alternating when `alternate`. */
function oddSeries(x: bigint, bits: number, alternate: boolean): bigint {
  const q = alternate ? -square(x, bits) : square(x, bits);
  let power = x;
  let sum = x;
  for (let k = 3n; power !== 0n && power !== -1n; k += 2n) {
    power = (power * q) >> BigInt(bits);
    sum += power / k;
  }
  return sum;
}

/** ln((1 + s) / (1 - s)) / 2. */
export const areaTangent = (s: bigint, bits: number): bigint => oddSeries(s, bits, false);

/** For 0 <= t <= 1: the argument is halved a few times, the result doubled. */
export function arcTangent(t: bigint, bits: number): bigint {
  const one = 1n << BigInt(bits);
  const halvings = 4;
  for (let i = 0; i < halvings; i++) {
    const root = squareRoot(shifted(one + square(t, bits), bits));
    t = shifted(t, bits) / (one + root);
  }
  return oddSeries(t, bits, true) << BigInt(halvings);
}

/** pi and ln 2 with this many fraction bits. */
export const CONSTANT_BITS = 512;
const GUARD = 32;

/** arctan or arctanh of 1 / n. */
const ofReciprocal = (n: bigint, alternate: boolean): bigint =>
  oddSeries((1n << BigInt(CONSTANT_BITS + GUARD)) / n, CONSTANT_BITS + GUARD, alternate);

/** Machin's formula. */
export const PI = (4n * (4n * ofReciprocal(5n, true) - ofReciprocal(239n, true))) >> BigInt(GUARD);
export const LN2 = (2n * ofReciprocal(3n, false)) >> BigInt(GUARD);

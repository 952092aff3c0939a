/**
 * AES-NI (FIPS 197), all in vector arithmetic: no table in memory, no time that depends on data.
 *
 * SubBytes is an inversion in GF(2^8) and an affine map. The inversion goes by nibbles (M. Hamburg,
 * "Accelerating AES with Vector Permute Instructions", 2009): with z + z' = 1 for conjugates z, z' over
 * GF(2^4), a byte is x = i z + j z', and k = i + j; then with 1/a = z z'
 *   u = 1 / (1/i + a/k) + j,  v = 1 / (1/j + a/k) + i
 * have 1/u = (k + a i) / N and 1/v = (k + a j) / N for a multiple N of x's norm, so 1/x is linear in
 * them. Each step is a look-up of 16 entries (vlookup). Infinity is a number with bit 7 set: look-ups
 * give 0 for it, as 1/infinity ought to be.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { I32, V128 } from '../../ir/ops.ts';
import { definePureHelper } from './helpers.ts';
import { imm8, pick, readAligned, vector, zero } from './sse-common.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import { vectorConstant } from './vector-constants.ts';

// --- GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. ---

/** All bytes but 0 are powers of 3: by exponent, and the exponents. */
const POWERS = new Uint8Array(255);
const EXPONENTS = new Uint8Array(256);
for (let exponent = 0, x = 1; exponent < 255; exponent++) {
  POWERS[exponent] = x;
  EXPONENTS[x] = exponent;
  x ^= (x << 1) ^ (x & 0x80 ? 0x11b : 0);
}

const multiply = (x: number, y: number): number => (x === 0 || y === 0 ? 0 : POWERS[(EXPONENTS[x]! + EXPONENTS[y]!) % 255]!);
const power = (x: number, n: number): number => (x === 0 ? 0 : POWERS[(EXPONENTS[x]! * n) % 255]!);
const inverse = (x: number): number => power(x, 254);

/** The affine part of SubBytes without its constant 63: bit i is the sum of bits i, i+4 ... i+7. */
function affine(x: number): number {
  let result = 0;
  for (let rotation = 0; rotation < 5; rotation++) result ^= (x << rotation) | (x >> (8 - rotation));
  return result & 0xff;
}

const CONSTANT = 0x63;
const ALL_BYTES = Array.from({ length: 256 }, (_, x) => x);
const unaffine = (x: number): number => ALL_BYTES.find((y) => affine(y) === x)!;

// --- The look-up tables. ---

/** Elements of GF(2^4), which are their own 16th powers, by number: sums of a basis. */
const SUBFIELD = ((): readonly number[] => {
  const members = ALL_BYTES.filter((x) => power(x, 16) === x);
  let list = [0];
  for (const member of members) {
    if (list.length < 16 && !list.includes(member)) list = [...list, ...list.map((x) => x ^ member)];
  }
  return list;
})();

const Z = ALL_BYTES.find((x) => (x ^ power(x, 16)) === 1)!;
const Z_CONJUGATE = power(Z, 16);
const A = inverse(multiply(Z, Z_CONJUGATE));
const numberOf = (element: number): number => SUBFIELD.indexOf(element);
const INFINITY = 0x80;

/** A vector of 16 bytes by its offset in the state block. */
type Table = number;
const table = (entry: (n: number) => number): Table => vectorConstant(Array.from({ length: 16 }, (_, n) => entry(n)));
const eachByte = (byte: number): Table => table(() => byte);

const RECIPROCAL = table((n) => (n === 0 ? INFINITY : numberOf(inverse(SUBFIELD[n]!))));
const A_OVER = table((n) => (n === 0 ? INFINITY : numberOf(multiply(A, inverse(SUBFIELD[n]!)))));

/** A byte's i (upper nibble) and k (lower one): x = i z + j z' = k z' + i for z + z' = 1. */
const SPLIT = ((): readonly number[] => {
  const split = new Array<number>(256).fill(0);
  for (let i = 0; i < 16; i++) {
    for (let j = 0; j < 16; j++) {
      const x = multiply(SUBFIELD[i]!, Z) ^ multiply(SUBFIELD[j]!, Z_CONJUGATE);
      split[x] = (i << 4) | (i ^ j);
    }
  }
  return split;
})();

/** A linear map of bytes as tables for the lower and the upper nibble. */
interface Linear {
  readonly low: Table;
  readonly high: Table;
}
const linear = (map: (x: number) => number): Linear => ({ low: table(map), high: table((n) => map(n << 4)) });

/** What comes of 1/u and 1/v: 1/x under a linear map. */
interface Output {
  readonly u: Table;
  readonly v: Table;
}

/**
 * k/N = (1/u + 1/v) / a and i/N = (1/u + k/N) / a, likewise j/N; and 1/x = (j z + i z') a / N.
 */
function output(map: (x: number) => number): Output {
  const overA = inverse(A);
  const inverseOf = (p: number, q: number): number => {
    const k = multiply(p ^ q, overA);
    const i = multiply(p ^ k, overA);
    const j = multiply(q ^ k, overA);
    return multiply(A, multiply(j, Z) ^ multiply(i, Z_CONJUGATE));
  };
  const reciprocal = (n: number): number => (n === 0 ? 0 : inverse(SUBFIELD[n]!));
  return {
    u: table((n) => map(inverseOf(reciprocal(n), 0))),
    v: table((n) => map(inverseOf(0, reciprocal(n)))),
  };
}

// --- In the translator. ---

const NIBBLES = eachByte(0x0f);

const lookUp = (b: Builder, entries: Table, index: Value): Value => b.vlookup(b.ldsv(entries), index);
const lowNibbles = (b: Builder, x: Value): Value => b.andv(x, b.ldsv(NIBBLES));
const highNibbles = (b: Builder, x: Value): Value => lowNibbles(b, b.shr16x8(x, b.i32(4)));

const apply = (b: Builder, map: Linear, x: Value): Value =>
  b.xorv(lookUp(b, map.low, lowNibbles(b, x)), lookUp(b, map.high, highNibbles(b, x)));

/** u and v of all bytes. @param split makes i and k of a byte */
function invert(b: Builder, split: Linear, x: Value): readonly [u: Value, v: Value] {
  const parts = apply(b, split, x);
  const i = highNibbles(b, parts);
  const k = lowNibbles(b, parts);
  const j = b.xorv(i, k);
  const aOverK = lookUp(b, A_OVER, k);
  const u = lookUp(b, RECIPROCAL, b.xorv(lookUp(b, RECIPROCAL, i), aOverK));
  const v = lookUp(b, RECIPROCAL, b.xorv(lookUp(b, RECIPROCAL, j), aOverK));
  return [b.xorv(u, j), b.xorv(v, i)];
}

const combine = (b: Builder, to: Output, [u, v]: readonly [Value, Value]): Value =>
  b.xorv(lookUp(b, to.u, u), lookUp(b, to.v, v));

const SPLIT_PLAIN = linear((x) => SPLIT[x]!);
const SPLIT_INVERSE = linear((x) => SPLIT[unaffine(x)]!);
const SPLIT_CONSTANT = eachByte(SPLIT[unaffine(CONSTANT)]!);
const SUBSTITUTED_CONSTANT = eachByte(CONSTANT);
const REDUCTION = eachByte(0x1b);

const inverted = (factor: number): Output => output((x) => multiply(factor, x));
const SUBSTITUTED = output(affine);
const INVERTED = { 1: inverted(1), 9: inverted(9), 11: inverted(11), 13: inverted(13), 14: inverted(14) };
const TIMES = {
  9: linear((x) => multiply(9, x)),
  11: linear((x) => multiply(11, x)),
  13: linear((x) => multiply(13, x)),
  14: linear((x) => multiply(14, x)),
};

/** Row r of the state's columns of four bytes comes from r columns on, or back. */
const SHIFTED = table((n) => (n + 4 * (n & 3)) & 15);
const SHIFTED_BACK = table((n) => (n - 4 * (n & 3) + 16) & 15);

/** Byte n of each column from byte n + by. */
const rotateColumns = (b: Builder, x: Value, by: number): Value =>
  by === 2
    ? b.orv(b.shl32x4(x, b.i32(16)), b.shr32x4(x, b.i32(16)))
    : b.orv(b.shr32x4(x, b.i32(8 * by)), b.shl32x4(x, b.i32(32 - 8 * by)));

const substitute = (b: Builder, x: Value): Value =>
  b.xorv(combine(b, SUBSTITUTED, invert(b, SPLIT_PLAIN, x)), b.ldsv(SUBSTITUTED_CONSTANT));

function encrypt(b: Builder, state: Value, key: Value): Value {
  const once = combine(b, SUBSTITUTED, invert(b, SPLIT_PLAIN, b.vlookup(state, b.ldsv(SHIFTED))));
  const overflow = b.andv(b.lts8x16(once, zero(b)), b.ldsv(REDUCTION));
  const twice = b.xorv(b.add8x16(once, once), overflow);
  // The sum of a column's factors 2, 3, 1, 1 is 1, so SubBytes' constant comes out as it went in.
  let mixed = b.xorv(twice, rotateColumns(b, b.xorv(once, twice), 1));
  mixed = b.xorv(mixed, b.xorv(rotateColumns(b, once, 2), rotateColumns(b, once, 3)));
  return b.xorv(mixed, b.xorv(key, b.ldsv(SUBSTITUTED_CONSTANT)));
}

const encryptLast = (b: Builder, state: Value, key: Value): Value =>
  b.xorv(substitute(b, b.vlookup(state, b.ldsv(SHIFTED))), key);

/** The sum of a column's bytes times 14, 11, 13 and 9. */
function unmix(b: Builder, times: (factor: 9 | 11 | 13 | 14) => Value): Value {
  const first = b.xorv(times(14), rotateColumns(b, times(11), 1));
  return b.xorv(first, b.xorv(rotateColumns(b, times(13), 2), rotateColumns(b, times(9), 3)));
}

function invertBytes(b: Builder, state: Value): readonly [Value, Value] {
  const x = b.vlookup(state, b.ldsv(SHIFTED_BACK));
  const split = apply(b, SPLIT_INVERSE, x);
  const parts = b.xorv(split, b.ldsv(SPLIT_CONSTANT));
  return invert(b, IDENTITY, parts);
}
const IDENTITY = linear((x) => x);

function decrypt(b: Builder, state: Value, key: Value): Value {
  const parts = invertBytes(b, state);
  return b.xorv(
    unmix(b, (factor) => combine(b, INVERTED[factor], parts)),
    key,
  );
}

const decryptLast = (b: Builder, state: Value, key: Value): Value => b.xorv(combine(b, INVERTED[1], invertBytes(b, state)), key);

const mixInversely = (b: Builder, x: Value): Value => unmix(b, (factor) => apply(b, TIMES[factor], x));

const ARMS = [encrypt, encryptLast, decrypt, decryptLast, mixInversely, substitute] as const;

/** (which of ARMS, state, key) => state. */
const AES = definePureHelper({
  name: 'aes',
  params: [I32, V128, V128],
  result: V128,
  arms: ARMS.length,
  arm: (b, index, params) => ARMS[index]!(b, params[0]!, params[1]!),
});

/** state = round(state, key). */
const round = (which: (typeof ARMS)[number]): Translate =>
  vector((t) => {
    const key = readAligned(t);
    t.writeXmm(t.reg, t.b.call(AES, t.b.i32(ARMS.indexOf(which)), t.readXmm(t.first), key));
  });

const aesimc = vector((t) => {
  const x = readAligned(t);
  t.writeXmm(t.reg, t.b.call(AES, t.b.i32(ARMS.indexOf(mixInversely)), x, zero(t.b)));
});

/** Lanes 0 and 2 are substituted lanes 1 and 3; 1 and 3 those rotated by a byte, with the round's constant. */
const keygenAssist = vector((t) => {
  const { b } = t;
  const x = readAligned(t);
  const substitutes = b.call(AES, b.i32(ARMS.indexOf(substitute)), x, zero(b));
  const lanes = pick(b, substitutes, substitutes, 1, [4, 5, 6, 7, 5, 6, 7, 4, 12, 13, 14, 15, 13, 14, 15, 12]);
  t.writeXmm(t.reg, b.xorv(lanes, b.v128(0, imm8(t), 0, imm8(t))));
});

const rounds: readonly (readonly [opcode: string, name: string, which: (typeof ARMS)[number]])[] = [
  ['DC', 'AESENC', encrypt],
  ['DD', 'AESENCLAST', encryptLast],
  ['DE', 'AESDEC', decrypt],
  ['DF', 'AESDECLAST', decryptLast],
];

const AES_NI = { feature: 'aes' };
const AES_AVX = { feature: 'aes avx' };

export const AES_ROWS: readonly Row[] = [
  ...rounds.flatMap(([opcode, name, which]) => [
    row(`66 0F38 ${opcode} /r`, name, 'Vo,Wo', round(which), AES_NI),
    row(`VEX.L0 66 0F38 ${opcode} /r`, `V${name}`, 'Vo,Ho,Wo', round(which), AES_AVX),
  ]),
  row('66 0F38 DB /r', 'AESIMC', 'Vo,Wo', aesimc, AES_NI),
  row('VEX.L0 66 0F38 DB /r', 'VAESIMC', 'Vo,Wo', aesimc, AES_AVX),
  row('66 0F3A DF /r', 'AESKEYGENASSIST', 'Vo,Wo,Ib', keygenAssist, AES_NI),
  row('VEX.L0 66 0F3A DF /r', 'VAESKEYGENASSIST', 'Vo,Wo,Ib', keygenAssist, AES_AVX),
];

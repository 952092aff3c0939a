/** PCLMULQDQ and the SHA extensions. */
import type { Builder, Value } from '../../ir/builder.ts';
import { I32, I64, V128 } from '../../ir/ops.ts';
import { definePureHelper } from './helpers.ts';
import { imm8, pick, readAligned, vector, zero } from './sse-common.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';

// --- Multiplication without carries. ---

/**
 * The 64-bit product of two numbers of 32 bits. Of each operand every fourth bit is taken, so that
 * sums of up to eight products of bits do not reach the next place that counts.
 */
function multiply32(b: Builder, x: Value, y: Value): Value {
  const masks = [0x11111111, 0x22222222, 0x44444444, 0x88888888 | 0];
  const xs = masks.map((mask) => b.and64(x, b.i64(mask, 0)));
  const ys = masks.map((mask) => b.and64(y, b.i64(mask, 0)));
  let result = -1;
  for (let place = 0; place < 4; place++) {
    let sum = -1;
    for (let i = 0; i < 4; i++) {
      const product = b.mul64(xs[i]!, ys[(place - i) & 3]!);
      sum = sum < 0 ? product : b.xor64(sum, product);
    }
    const kept = b.and64(sum, b.i64(masks[place]!, masks[place]!));
    result = result < 0 ? kept : b.or64(result, kept);
  }
  return result;
}

/** The 128-bit product from three of half the width (Karatsuba). */
function multiply64(b: Builder, x: Value, y: Value): Value {
  const low = (v: Value): Value => b.and64(v, b.i64(-1, 0));
  const high = (v: Value): Value => b.shr64(v, b.i64(32));
  const first = multiply32(b, low(x), low(y));
  const last = multiply32(b, high(x), high(y));
  const both = multiply32(b, b.xor64(low(x), high(x)), b.xor64(low(y), high(y)));
  const middle = b.xor64(both, b.xor64(first, last));
  const product = b.splat64(b.xor64(first, b.shl64(middle, b.i64(32))));
  return b.setlane64(product, b.xor64(last, high(middle)), 1);
}

const CARRYLESS = definePureHelper({
  name: 'carrylessProduct',
  params: [I32, I64, I64],
  result: V128,
  arms: 1,
  arm: (b, _index, params) => multiply64(b, params[0]!, params[1]!),
});

const pclmulqdq = vector((t) => {
  const { b } = t;
  const y = readAligned(t);
  const x = t.readXmm(t.first);
  const i = imm8(t);
  const product = b.call(CARRYLESS, b.i32(0), b.lane64(x, i & 1), b.lane64(y, (i >> 4) & 1));
  t.writeXmm(t.reg, product);
});

// --- SHA-1. Lane 3 holds the first of four words: a, b, c, d. ---

const CONSTANTS_SHA1 = [0x5a827999, 0x6ed9eba1, 0x8f1bbcdc | 0, 0xca62c1d6 | 0];

function choose(b: Builder, x: Value, y: Value, z: Value): Value {
  return b.xor32(z, b.and32(x, b.xor32(y, z)));
}
function majority(b: Builder, x: Value, y: Value, z: Value): Value {
  return b.or32(b.and32(x, y), b.and32(z, b.or32(x, y)));
}
const parity = (b: Builder, x: Value, y: Value, z: Value): Value => b.xor32(x, b.xor32(y, z));
const SHA1_FUNCTIONS = [choose, parity, majority, parity];

const rotate = (b: Builder, x: Value, by: number): Value => b.rotl32(x, b.i32(by));
const sum = (b: Builder, ...values: Value[]): Value => values.reduce((x, y) => b.add32(x, y));

/** Words from lane 3 down. */
const words = (b: Builder, x: Value): [Value, Value, Value, Value] => [
  b.lane32(x, 3),
  b.lane32(x, 2),
  b.lane32(x, 1),
  b.lane32(x, 0),
];
const fromWords = (b: Builder, list: readonly Value[]): Value =>
  list.reduce((v, word, i) => b.setlane32(v, word, 3 - i), zero(b));

function sha1Rounds(b: Builder, which: number, state: Value, message: Value): Value {
  let [a, x, y, z] = words(b, state);
  let e = b.i32(0);
  for (const word of words(b, message)) {
    const next = sum(b, SHA1_FUNCTIONS[which]!(b, x, y, z), rotate(b, a, 5), word, e, b.i32(CONSTANTS_SHA1[which]!));
    [e, z, y, x, a] = [z, y, rotate(b, x, 30), a, next];
  }
  return fromWords(b, [a, x, y, z]);
}

/** Each word of the schedule depends on the one three before: the last one on the first of these. */
function sha1Message2(b: Builder, x: Value, y: Value): Value {
  const mixed = words(b, b.xorv(x, pick(b, zero(b), y, 4, [0, 4, 5, 6])));
  const [first, second, third] = mixed.map((word) => rotate(b, word, 1)) as [Value, Value, Value, Value];
  return fromWords(b, [first, second, third, rotate(b, b.xor32(mixed[3], first), 1)]);
}

const sha1NextE = (b: Builder, x: Value, y: Value): Value =>
  b.setlane32(y, b.add32(b.lane32(y, 3), rotate(b, b.lane32(x, 3), 30)), 3);

const sha1Message1 = (b: Builder, x: Value, y: Value): Value => b.xorv(x, pick(b, y, x, 8, [1, 2]));

// --- SHA-256. ---

const rotations = (b: Builder, x: Value, ...counts: number[]): Value =>
  counts.map((count) => rotate(b, x, 32 - count)).reduce((p, q) => b.xor32(p, q));

/** Two rounds on c, d, g, h (x) and a, b, e, f (y); words with constants added in the low lanes of `message`. */
function sha256Rounds(b: Builder, x: Value, y: Value, message: Value): Value {
  let [a, second, e, f] = words(b, y);
  let [c, d, g, h] = words(b, x);
  for (const lane of [0, 1]) {
    const large = sum(b, h, choose(b, e, f, g), rotations(b, e, 6, 11, 25), b.lane32(message, lane));
    const next = sum(b, large, majority(b, a, second, c), rotations(b, a, 2, 13, 22));
    [h, g, f, e] = [g, f, e, b.add32(d, large)];
    [d, c, second, a] = [c, second, a, next];
  }
  return fromWords(b, [a, second, e, f]);
}

function sha256Message1(b: Builder, x: Value, y: Value): Value {
  const following = pick(b, x, y, 4, [1, 2, 3, 4]);
  return b.add32x4(x, smallSigma(b, following, 7, 18, 3));
}

/** Two rotations and a shift, on all lanes. */
function smallSigma(b: Builder, x: Value, first: number, second: number, shift: number): Value {
  const turn = (by: number): Value => b.orv(b.shr32x4(x, b.i32(by)), b.shl32x4(x, b.i32(32 - by)));
  return b.xorv(b.xorv(turn(first), turn(second)), b.shr32x4(x, b.i32(shift)));
}

/** The upper two words depend on the lower two. */
function sha256Message2(b: Builder, x: Value, y: Value): Value {
  const low = b.add32x4(x, smallSigma(b, pick(b, y, zero(b), 8, [1, 2]), 17, 19, 10));
  // Zeros have a sigma of zero, so the upper lanes of `low` are x's yet.
  return b.add32x4(low, smallSigma(b, pick(b, low, zero(b), 8, [2, 0]), 17, 19, 10));
}

/** (which, x, y, words for SHA256RNDS2) => result. */
const SHA = definePureHelper({
  name: 'sha',
  params: [I32, V128, V128, V128],
  result: V128,
  arms: 5,
  arm: (b, index, params) =>
    index < 4 ? sha1Rounds(b, index, params[0]!, params[1]!) : sha256Rounds(b, params[0]!, params[1]!, params[2]!),
});

const message = (op: (b: Builder, x: Value, y: Value) => Value): Translate =>
  vector((t) => {
    const y = readAligned(t);
    t.writeXmm(t.reg, op(t.b, t.readXmm(t.reg), y));
  });

const sha1rnds4 = vector((t) => {
  const y = readAligned(t);
  t.writeXmm(t.reg, t.b.call(SHA, t.b.i32(imm8(t) & 3), t.readXmm(t.reg), y, zero(t.b)));
});

const sha256rnds2 = vector((t) => {
  const y = readAligned(t);
  t.writeXmm(t.reg, t.b.call(SHA, t.b.i32(4), t.readXmm(t.reg), y, t.readXmm(0)));
});

const NI = { feature: 'sha-ni' };

export const CRYPTO_ROWS: readonly Row[] = [
  row('66 0F3A 44 /r', 'PCLMULQDQ', 'Vo,Wo,Ib', pclmulqdq, { feature: 'pclmulqdq' }),
  row('VEX.L0 66 0F3A 44 /r', 'VPCLMULQDQ', 'Vo,Ho,Wo,Ib', pclmulqdq, { feature: 'pclmulqdq avx' }),
  row('NP 0F38 C8 /r', 'SHA1NEXTE', 'Vo,Wo', message(sha1NextE), NI),
  row('NP 0F38 C9 /r', 'SHA1MSG1', 'Vo,Wo', message(sha1Message1), NI),
  row('NP 0F38 CA /r', 'SHA1MSG2', 'Vo,Wo', message(sha1Message2), NI),
  row('NP 0F38 CB /r', 'SHA256RNDS2', 'Vo,Wo', sha256rnds2, NI),
  row('NP 0F38 CC /r', 'SHA256MSG1', 'Vo,Wo', message(sha256Message1), NI),
  row('NP 0F38 CD /r', 'SHA256MSG2', 'Vo,Wo', message(sha256Message2), NI),
  row('NP 0F3A CC /r', 'SHA1RNDS4', 'Vo,Wo,Ib', sha1rnds4, NI),
];

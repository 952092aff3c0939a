/** AVX and AVX2: permutations, blends, shifts by vectors, tests, and conversions that change the width. */
import type { Builder, Value } from '../../ir/builder.ts';
import { AVX, AVX2, wide } from './avx.ts';
import { all32, imm8, low64, pick, vector, zero } from './sse-common.ts';
import { operand } from './sse-exact.ts';
import { TRUNCATE, currentRounding, f64x2ToIntegers, dotProduct, laneMask, narrowPair, widenPair } from './sse-float.ts';
import { SHIFT_OPS, shiftByValue } from './sse-integer.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

// --- Within a half. ---

/** Lanes of 4 bytes of x by the low two bits of each lane of y. */
function permuteSingles(b: Builder, x: Value, y: Value): Value {
  // Lane number n becomes the byte numbers 4n to 4n + 3.
  const n = b.shl32x4(b.andv(y, all32(b, 3)), b.i32(2));
  const spread = pick(b, n, n, 1, [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]);
  return b.vlookup(x, b.add8x16(spread, all32(b, 0x03020100)));
}

/** Lanes of 8 bytes of x by bit 1 of each lane of y. */
function permuteDoubles(b: Builder, x: Value, y: Value): Value {
  const chosen = b.sar64x2(b.shl64x2(y, b.i32(62)), b.i32(63));
  return b.bitselect(pick(b, x, x, 8, [1, 1]), pick(b, x, x, 8, [0, 0]), chosen);
}

const permuteByVector = (op: (b: Builder, x: Value, y: Value) => Value): Translate =>
  vector((t) => {
    const y = t.readXmmRm(16);
    t.writeXmm(t.reg, op(t.b, t.readXmm(t.vexV), y));
  });

const permuteSinglesByImmediate = vector((t) => {
  const x = t.readXmmRm(16);
  const i = imm8(t);
  t.writeXmm(t.reg, pick(t.b, x, x, 4, [i & 3, (i >> 2) & 3, (i >> 4) & 3, i >> 6]));
});

const permuteDoublesByImmediate = vector((t) => {
  const x = t.readXmmRm(16);
  const i = imm8(t) >> (2 * t.half);
  t.writeXmm(t.reg, pick(t.b, x, x, 8, [i & 1, (i >> 1) & 1]));
});

/** Blends by the top bits of a register that the immediate names. */
const blendByRegister = (mask: (b: Builder, m: Value) => Value): Translate =>
  vector((t) => {
    const { b } = t;
    const y = t.readXmmRm(16);
    const n = (imm8(t) >> 4) & (t.code64 ? 15 : 7);
    t.writeXmm(t.reg, b.bitselect(y, t.readXmm(t.vexV), mask(b, t.readXmm(n))));
  });

const blendDoubleWords = vector((t) => {
  const { b } = t;
  const y = t.readXmmRm(16);
  const mask = laneMask(b, imm8(t) >> (4 * t.half), 4);
  t.writeXmm(t.reg, b.bitselect(y, t.readXmm(t.vexV), mask));
});

// --- Across halves. ---

/** Which 128 bits of the two operands, for the low (or high) half: bits 0-1, and bit 3 for zeros. */
const permuteHalves = vector((t) => {
  const { b } = t;
  const second = t.readYmmRm();
  const parts = [...t.readYmm(t.vexV), ...second];
  const i = imm8(t);
  const part = (choice: number): Value => (choice & 8 ? zero(b) : parts[choice & 3]!);
  t.writeYmm(t.reg, part(i), part(i >> 4));
});

/** The four 64-bit lanes in any order. */
const permuteQuads = vector((t) => {
  const { b } = t;
  const [low, high] = t.readYmmRm();
  const i = imm8(t);
  const two = (first: number, second: number): Value => pick(b, low, high, 8, [first & 3, second & 3]);
  t.writeYmm(t.reg, two(i, i >> 2), two(i >> 4, i >> 6));
});

/** The eight 32-bit lanes of rm in the order that VEX.vvvv gives. */
const permuteEight = vector((t) => {
  const { b } = t;
  const [low, high] = t.readYmmRm();
  const half = (order: Value): Value => {
    const fromHigh = b.sar32x4(b.shl32x4(order, b.i32(29)), b.i32(31));
    return b.bitselect(permuteSingles(b, high, order), permuteSingles(b, low, order), fromHigh);
  };
  const [first, second] = t.readYmm(t.vexV);
  t.writeYmm(t.reg, half(first), half(second));
});

// --- Shifts. ---

const shiftRows: readonly Row[] = SHIFT_OPS.map((s) =>
  row(
    `VEX.L1 66 0F ${s.opcode} /r`,
    `V${s.name}`,
    'Vy,Hy,Wo',
    vector((t) => {
      const count = low64(t.b, t.readXmmRm(16));
      const [low, high] = t.readYmm(t.vexV);
      t.writeYmm(t.reg, shiftByValue(t.b, s, low, count), shiftByValue(t.b, s, high, count));
    }),
    AVX2,
  ),
);

type VariableShift = 'shl' | 'shr' | 'sar';

/** Each 32-bit lane by its own count; counts of 32 and more give zeros, or copies of the sign. */
function shiftLanes32(b: Builder, how: VariableShift, x: Value, counts: Value): Value {
  const limit = all32(b, how === 'sar' ? 31 : 32);
  const bounded = b.minu32x4(counts, limit);
  let result = x;
  for (let lane = 0; lane < 4; lane++) {
    const v = b.lane32(x, lane);
    const count = b.lane32(bounded, lane);
    // 64-bit shifts do for a count of 32.
    const shifted =
      how === 'sar'
        ? b.sar32(v, count)
        : how === 'shr'
          ? b.wrap(b.shr64(b.extu(v), b.extu(count)))
          : b.wrap(b.shl64(b.extu(v), b.extu(count)));
    result = b.setlane32(result, shifted, lane);
  }
  return result;
}

function shiftLanes64(b: Builder, how: VariableShift, x: Value, counts: Value): Value {
  let result = x;
  for (let lane = 0; lane < 2; lane++) {
    const count = b.lane64(counts, lane);
    const v = b.lane64(x, lane);
    const shifted = how === 'shr' ? b.shr64(v, count) : b.shl64(v, count);
    result = b.setlane64(result, b.select64(b.ltu64(count, b.i64(64)), shifted, b.i64(0)), lane);
  }
  return result;
}

function variableShiftRows(opcode: string, name: string, how: VariableShift, w: 0 | 1): Row[] {
  const op = w === 0 ? shiftLanes32 : shiftLanes64;
  const translate = permuteByVector((b, x, y) => op(b, how, x, y));
  const encoding = `66 0F38 ${opcode} /r`;
  return [
    row(`VEX.L0.W${w} ${encoding}`, name, 'Vo,Ho,Wo', translate, AVX2),
    row(`VEX.L1.W${w} ${encoding}`, name, 'Vy,Hy,Wy', wide(translate), AVX2),
  ];
}

// --- Tests: ZF = none in both, CF = none in the second alone. ---

function test(mask: (b: Builder) => Value): Translate {
  return vector((t) => {
    const { b } = t;
    let both: Value;
    let alone: Value;
    if (t.vexL) {
      const y = t.readYmmRm();
      const x = t.readYmm(t.reg);
      both = b.orv(b.andv(x[0], y[0]), b.andv(x[1], y[1]));
      alone = b.orv(b.andnotv(y[0], x[0]), b.andnotv(y[1], x[1]));
    } else {
      const y = t.readXmmRm(16);
      const x = t.readXmm(t.reg);
      both = b.andv(x, y);
      alone = b.andnotv(y, x);
    }
    const none = (v: Value): Value => b.eqz32(b.anytrue(b.andv(v, mask(b))));
    const carry = none(alone);
    t.cc.setBits(b.or32(b.shl32(none(both), b.i32(6)), carry), carry);
  });
}

const testAll = test((b) => all32(b, -1));
const testSingles = test((b) => all32(b, 0x80000000 | 0));
const testDoubles = test((b) => b.v128(0, 0x80000000 | 0, 0, 0x80000000 | 0));

// --- Conversions. ---

/** Four 32-bit operands make four 64-bit results. */
const widen = (convert: (t: X86Translator, x: Value) => Value): Translate =>
  vector((t) => {
    const x = t.readXmmRm(16);
    t.writeYmm(t.reg, convert(t, x), convert(t, pick(t.b, x, x, 8, [1, 1])));
  });

const singlesToDoubles = widen(widenPair);
const integersToDoubles = widen((t, x) => t.b.s32x4tof64x2(x));

/** Four 64-bit operands make four 32-bit results. */
const narrow = (convert: (t: X86Translator, x: Value) => Value): Translate =>
  vector((t) => {
    const [low, high] = t.readYmmRm();
    t.writeXmm(t.reg, pick(t.b, convert(t, low), convert(t, high), 8, [0, 2]));
  });

const doublesToIntegers = (truncating: boolean): Translate =>
  narrow((t, x) => f64x2ToIntegers(t, operand(t, 'f64x2', x), truncating ? TRUNCATE : currentRounding(t)));

const dotProduct256 = vector((t) => {
  const [low, high] = dotProduct(t, 'f32x4', t.readYmm(t.vexV), t.readYmmRm());
  t.writeYmm(t.reg, low!, high!);
});

const permutes = (opcode: string, name: string, size: string, translate: Translate): Row[] => [
  row(`VEX.L0.W0 66 ${opcode} /r`, name, `Vo,${size === 'I' ? 'Wo,Ib' : 'Ho,Wo'}`, translate, AVX),
  row(`VEX.L1.W0 66 ${opcode} /r`, name, `Vy,${size === 'I' ? 'Wy,Ib' : 'Hy,Wy'}`, wide(translate), AVX),
];

function blendRows(opcode: string, name: string, mask: (b: Builder, m: Value) => Value, feature = AVX): Row[] {
  const translate = blendByRegister(mask);
  return [
    row(`VEX.L0.W0 66 0F3A ${opcode} /r`, name, 'Vo,Ho,Wo,Lo', translate, AVX),
    row(`VEX.L1.W0 66 0F3A ${opcode} /r`, name, 'Vy,Hy,Wy,Ly', wide(translate), feature),
  ];
}

const testRows = (encoding: string, name: string, translate: Translate): Row =>
  row(`VEX.L0.W0 ${encoding}`, name, 'Vo,Wo', translate, AVX);

export const avxPermutes = (): readonly Row[] => [
  ...permutes('0F38 0C', 'VPERMILPS', 'V', permuteByVector(permuteSingles)),
  ...permutes('0F38 0D', 'VPERMILPD', 'V', permuteByVector(permuteDoubles)),
  ...permutes('0F3A 04', 'VPERMILPS', 'I', permuteSinglesByImmediate),
  ...permutes('0F3A 05', 'VPERMILPD', 'I', permuteDoublesByImmediate),
  row('VEX.L1.W0 66 0F3A 06 /r', 'VPERM2F128', 'Vy,Hy,Wy,Ib', permuteHalves, AVX),
  row('VEX.L1.W0 66 0F3A 46 /r', 'VPERM2I128', 'Vy,Hy,Wy,Ib', permuteHalves, AVX2),
  row('VEX.L1.W1 66 0F3A 00 /r', 'VPERMQ', 'Vy,Wy,Ib', permuteQuads, AVX2),
  row('VEX.L1.W1 66 0F3A 01 /r', 'VPERMPD', 'Vy,Wy,Ib', permuteQuads, AVX2),
  row('VEX.L1.W0 66 0F38 36 /r', 'VPERMD', 'Vy,Hy,Wy', permuteEight, AVX2),
  row('VEX.L1.W0 66 0F38 16 /r', 'VPERMPS', 'Vy,Hy,Wy', permuteEight, AVX2),
  ...blendRows('4A', 'VBLENDVPS', (b, m) => b.sar32x4(m, b.i32(31))),
  ...blendRows('4B', 'VBLENDVPD', (b, m) => b.sar64x2(m, b.i32(63))),
  ...blendRows('4C', 'VPBLENDVB', (b, m) => b.sar8x16(m, b.i32(7)), AVX2),
  row('VEX.L0.W0 66 0F3A 02 /r', 'VPBLENDD', 'Vo,Ho,Wo,Ib', blendDoubleWords, AVX2),
  row('VEX.L1.W0 66 0F3A 02 /r', 'VPBLENDD', 'Vy,Hy,Wy,Ib', wide(blendDoubleWords), AVX2),
  ...shiftRows,
  ...variableShiftRows('45', 'VPSRLVD', 'shr', 0),
  ...variableShiftRows('45', 'VPSRLVQ', 'shr', 1),
  ...variableShiftRows('46', 'VPSRAVD', 'sar', 0),
  ...variableShiftRows('47', 'VPSLLVD', 'shl', 0),
  ...variableShiftRows('47', 'VPSLLVQ', 'shl', 1),
  row('VEX.L1 66 0F38 17 /r', 'VPTEST', 'Vy,Wy', testAll, AVX),
  testRows('66 0F38 0E /r', 'VTESTPS', testSingles),
  row('VEX.L1.W0 66 0F38 0E /r', 'VTESTPS', 'Vy,Wy', testSingles, AVX),
  testRows('66 0F38 0F /r', 'VTESTPD', testDoubles),
  row('VEX.L1.W0 66 0F38 0F /r', 'VTESTPD', 'Vy,Wy', testDoubles, AVX),
  row('VEX.L1 66 0F3A 40 /r', 'VDPPS', 'Vy,Hy,Wy,Ib', dotProduct256, AVX),
  row('VEX.L1 NP 0F 5A /r', 'VCVTPS2PD', 'Vy,Wo', singlesToDoubles, AVX),
  row('VEX.L1 F3 0F E6 /r', 'VCVTDQ2PD', 'Vy,Wo', integersToDoubles, AVX),
  row('VEX.L1 66 0F 5A /r', 'VCVTPD2PS', 'Vo,Wy', narrow(narrowPair), AVX),
  row('VEX.L1 F2 0F E6 /r', 'VCVTPD2DQ', 'Vo,Wy', doublesToIntegers(false), AVX),
  row('VEX.L1 66 0F E6 /r', 'VCVTTPD2DQ', 'Vo,Wy', doublesToIntegers(true), AVX),
];

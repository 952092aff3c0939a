/** SSE shuffles, blends, insertion and extraction of lanes, and SSE4.1's other integer forms. */
import type { Builder, Value } from '../../ir/builder.ts';
import {
  SSE,
  SSE2,
  SSE41,
  SSSE3,
  binaryRow,
  imm8,
  immediateRow,
  narrowRow,
  pick,
  readAligned,
  unaryRow,
  vector,
  zero,
  low32,
} from './sse-common.ts';
import type { Unary, UnaryName } from './sse-common.ts';
import { laneMask } from './sse-float.ts';
import { alignBytes } from './sse-integer.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';

// --- Shuffles by an immediate. ---

const twoBits = (immediate: number): number[] => [0, 2, 4, 6].map((shift) => (immediate >> shift) & 3);

function shuffleSingles(b: Builder, x: Value, y: Value, immediate: number): Value {
  const [i, j, k, l] = twoBits(immediate) as [number, number, number, number];
  return pick(b, x, y, 4, [i, j, k + 4, l + 4]);
}

const shuffleDoubles = (b: Builder, x: Value, y: Value, immediate: number): Value =>
  pick(b, x, y, 8, [immediate & 1, 2 + ((immediate >> 1) & 1)]);

export function shuffleLowWords(b: Builder, y: Value, immediate: number): Value {
  return pick(b, y, y, 2, [...twoBits(immediate), 4, 5, 6, 7]);
}

const shuffleHighWords = (b: Builder, y: Value, immediate: number): Value =>
  pick(b, y, y, 2, [0, 1, 2, 3, ...twoBits(immediate).map((lane) => lane + 4)]);

const shuffleDoubleWords = (b: Builder, y: Value, immediate: number): Value => pick(b, y, y, 4, twoBits(immediate));

const shuffles: readonly Row[] = [
  immediateRow('NP 0F C6 /r', 'SHUFPS', shuffleSingles, SSE),
  immediateRow('66 0F C6 /r', 'SHUFPD', shuffleDoubles, SSE2, 2),
  immediateRow('66 0F 70 /r', 'PSHUFD', (b, _x, y, i) => shuffleDoubleWords(b, y, i), SSE2),
  immediateRow('F2 0F 70 /r', 'PSHUFLW', (b, _x, y, i) => shuffleLowWords(b, y, i), SSE2),
  immediateRow('F3 0F 70 /r', 'PSHUFHW', (b, _x, y, i) => shuffleHighWords(b, y, i), SSE2),
  immediateRow('66 0F3A 0F /r', 'PALIGNR', alignBytes, SSSE3),
  binaryRow('NP 0F 14 /r', 'UNPCKLPS', (b, x, y) => pick(b, x, y, 4, [0, 4, 1, 5]), SSE),
  binaryRow('66 0F 14 /r', 'UNPCKLPD', (b, x, y) => pick(b, x, y, 8, [0, 2]), SSE2),
  binaryRow('NP 0F 15 /r', 'UNPCKHPS', (b, x, y) => pick(b, x, y, 4, [2, 6, 3, 7]), SSE),
  binaryRow('66 0F 15 /r', 'UNPCKHPD', (b, x, y) => pick(b, x, y, 8, [1, 3]), SSE2),
];

// --- Blends. ---

/** Lanes of y where the immediate's bit is set. */
const blend =
  (bytes: 2 | 4 | 8) =>
  (b: Builder, x: Value, y: Value, immediate: number): Value => {
    const count = 16 / bytes;
    const lanes = Array.from({ length: count }, (_, i) => ((immediate >> i) & 1 ? i + count : i));
    return pick(b, x, y, bytes, lanes);
  };

/** Lanes of y where the lane of xmm0 has its top bit set. */
function blendByMask(encoding: string, name: string, spread: Unary): Row {
  return row(
    encoding,
    name,
    'Vo,Wo',
    vector((t) => {
      const { b } = t;
      const y = readAligned(t);
      t.writeXmm(t.reg, b.bitselect(y, t.readXmm(t.reg), spread(b, t.readXmm(0))));
    }),
    SSE41,
  );
}

const blends: readonly Row[] = [
  immediateRow('66 0F3A 0C /r', 'BLENDPS', blend(4), SSE41, 4),
  immediateRow('66 0F3A 0D /r', 'BLENDPD', blend(8), SSE41, 2),
  immediateRow('66 0F3A 0E /r', 'PBLENDW', blend(2), SSE41),
  blendByMask('66 0F38 10 /r', 'PBLENDVB', (b, mask) => b.sar8x16(mask, b.i32(7))),
  blendByMask('66 0F38 14 /r', 'BLENDVPS', (b, mask) => b.sar32x4(mask, b.i32(31))),
  blendByMask('66 0F38 15 /r', 'BLENDVPD', (b, mask) => b.sar64x2(mask, b.i32(63))),
];

// --- Single lanes. ---

/** The register forms take the low bits of a 32-bit register: byte registers play no part. */
const insert = (bytes: 1 | 2): Translate =>
  vector((t) => {
    const { b } = t;
    const v = t.isRegister ? t.low32(t.rm) : t.load(bytes, t.address(bytes, false));
    const lane = imm8(t) & (16 / bytes - 1);
    const x = t.readXmm(t.first);
    t.writeXmm(t.reg, bytes === 1 ? b.setlane8(x, v, lane) : b.setlane16(x, v, lane));
  });

const insertWide = vector((t) => {
  const { b } = t;
  const size = t.secondBytes;
  const v = t.readRm(size);
  const x = t.readXmm(t.first);
  t.writeXmm(t.reg, size === 8 ? b.setlane64(x, v, imm8(t) & 1) : b.setlane32(x, v, imm8(t) & 3));
});

const extract = (bytes: 1 | 2): Translate =>
  vector((t) => {
    const { b } = t;
    const x = t.readXmm(t.reg);
    const lane = imm8(t) & (16 / bytes - 1);
    const v = bytes === 1 ? b.lane8u(x, lane) : b.lane16u(x, lane);
    if (t.isRegister) t.writeReg(t.rm, 4, v);
    else t.store(bytes, t.address(bytes, true), v);
  });

const extractWide = vector((t) => {
  const { b } = t;
  const size = t.bytes(0);
  const x = t.readXmm(t.reg);
  t.writeRm(size, size === 8 ? b.lane64(x, imm8(t) & 1) : b.lane32(x, imm8(t) & 3));
});

const pextrwToRegister = vector((t) => {
  t.writeReg(t.reg, 4, t.b.lane16u(t.readXmm(t.rm), imm8(t) & 7));
});

const extractps = vector((t) => {
  const lane = t.b.lane32(t.readXmm(t.reg), imm8(t) & 3);
  t.writeRm(4, lane);
});

/** Immediate: bits 6-7 source lane, bits 4-5 destination lane, bits 0-3 lanes to clear. */
const insertps = vector((t) => {
  const { b } = t;
  const immediate = imm8(t);
  const v = t.isRegister ? b.lane32(t.readXmm(t.rm), immediate >> 6) : b.ld32(t.address(4, false));
  const set = b.setlane32(t.readXmm(t.first), v, (immediate >> 4) & 3);
  t.writeXmm(t.reg, b.andv(set, laneMask(b, ~immediate, 4)));
});

const lanes: readonly Row[] = [
  row('66 0F C4 /r', 'PINSRW', 'Vo,Ew,Ib', insert(2), SSE2),
  row('66 0F C5 /r reg', 'PEXTRW', 'Gd,Uo,Ib', pextrwToRegister, SSE2),
  row('66 0F3A 20 /r', 'PINSRB', 'Vo,Eb,Ib', insert(1), SSE41),
  row('66 0F3A 22 /r', 'PINSRD', 'Vo,Er,Ib', insertWide, SSE41),
  row('66 0F3A 14 /r', 'PEXTRB', 'Eb,Vo,Ib', extract(1), SSE41),
  row('66 0F3A 15 /r', 'PEXTRW', 'Ew,Vo,Ib', extract(2), SSE41),
  row('66 0F3A 16 /r', 'PEXTRD', 'Er,Vo,Ib', extractWide, SSE41),
  row('66 0F3A 17 /r', 'EXTRACTPS', 'Ed,Vo,Ib', extractps, SSE41),
  row('66 0F3A 21 /r', 'INSERTPS', 'Vo,Wd,Ib', insertps, SSE41),
];

// --- Widening. ---

/** Applies the operations one after the other. */
const chain =
  (...ops: UnaryName[]): Unary =>
  (b, x) =>
    ops.reduce((v, op) => b[op](v), x);

function widening(opcode: number, name: string, sign: 's' | 'u'): Row[] {
  const words: UnaryName = `extlow${sign}8x16`;
  const doubles: UnaryName = `extlow${sign}16x8`;
  const quads: UnaryName = `extlow${sign}32x4`;
  const encoding = (i: number): string => `66 0F38 ${(opcode + i).toString(16)} /r`;
  return [
    narrowRow(encoding(0), `${name}BW`, 8, words, SSE41),
    narrowRow(encoding(1), `${name}BD`, 4, chain(words, doubles), SSE41),
    narrowRow(encoding(2), `${name}BQ`, 2, chain(words, doubles, quads), SSE41),
    narrowRow(encoding(3), `${name}WD`, 8, doubles, SSE41),
    narrowRow(encoding(4), `${name}WQ`, 4, chain(doubles, quads), SSE41),
    narrowRow(encoding(5), `${name}DQ`, 8, quads, SSE41),
  ];
}

// --- The rest of SSE4.1. ---

const ptest = vector((t) => {
  const { b } = t;
  const y = readAligned(t);
  const x = t.readXmm(t.reg);
  const none = (v: Value): Value => b.eqz32(b.anytrue(v));
  const carry = none(b.andnotv(y, x));
  const zeroFlag = b.shl32(none(b.andv(x, y)), b.i32(6));
  t.cc.setBits(b.or32(zeroFlag, carry), carry);
});

/**
 * Word i is the sum of the absolute differences of four bytes of y, chosen by the immediate,
 * and the four bytes of x from i (or 4 + i) on.
 */
function multipleSums(b: Builder, x: Value, y: Value, immediate: number): Value {
  const nothing = zero(b);
  const first = immediate & 4;
  const block = (immediate & 3) * 4;
  let sum = -1;
  for (let k = 0; k < 4; k++) {
    const bytes = Array.from({ length: 16 }, (_, i) => (i & 1 ? 16 : first + k + (i >> 1)));
    const same = Array.from({ length: 16 }, (_, i) => (i & 1 ? 16 : block + k));
    const subtrahend = pick(b, y, nothing, 1, same);
    const difference = b.abs16x8(b.sub16x8(pick(b, x, nothing, 1, bytes), subtrahend));
    sum = sum < 0 ? difference : b.add16x8(sum, difference);
  }
  return sum;
}

/** The least word and, above it, its position: the first one among equals. */
function minimumPosition(b: Builder, x: Value): Value {
  const sixteen = b.i32(16);
  const low = b.orv(b.shl32x4(b.extlowu16x8(x), sixteen), b.v128(0, 1, 2, 3));
  const high = b.orv(b.shl32x4(b.exthighu16x8(x), sixteen), b.v128(4, 5, 6, 7));
  let least = b.minu32x4(low, high);
  least = b.minu32x4(least, pick(b, least, least, 4, [2, 3, 0, 1]));
  least = b.minu32x4(least, pick(b, least, least, 4, [1, 0, 3, 2]));
  return b.setlane32(zero(b), b.rotl32(low32(b, least), sixteen), 0);
}

export const SSE_SHUFFLE_ROWS: readonly Row[] = [
  ...shuffles,
  ...blends,
  ...lanes,
  ...widening(0x20, 'PMOVSX', 's'),
  ...widening(0x30, 'PMOVZX', 'u'),
  row('66 0F38 17 /r', 'PTEST', 'Vo,Wo', ptest, SSE41),
  immediateRow('66 0F3A 42 /r', 'MPSADBW', multipleSums, SSE41, 3),
  unaryRow('66 0F38 41 /r', 'PHMINPOSUW', minimumPosition, SSE41),
];

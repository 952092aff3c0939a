/**
 * Packed integers: arithmetic, comparisons, logic, packing, interleaving and shifts.
 *
 * MMX has most of them, too, with the same opcodes and no prefix: `INTEGER_OPS` says how an
 * operation is done on 8 bytes that lie in the low half of a vector.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import {
  SSE2,
  SSE41,
  SSE42,
  SSSE3,
  all32,
  binary,
  binaryRow,
  imm8,
  low64,
  pick,
  readAligned,
  vector,
  zero,
} from './sse-common.ts';
import type { Binary, BinaryName, ShiftName } from './sse-common.ts';
import { row } from './tables.ts';
import type { Row, RowOptions, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const swapped =
  (op: Binary | BinaryName): Binary =>
  (b, x, y) =>
    binary(op)(b, y, x);

// --- Multiplication. ---

/** High halves of the products of words. */
const multiplyHigh =
  (low: BinaryName, high: BinaryName): Binary =>
  (b, x, y) =>
    pick(b, b[low](x, y), b[high](x, y), 2, [1, 3, 5, 7, 9, 11, 13, 15]);

/** Products of the even double words. */
const multiplyEven =
  (op: BinaryName): Binary =>
  (b, x, y) =>
    b[op](pick(b, x, x, 4, [0, 2, 0, 2]), pick(b, y, y, 4, [0, 2, 0, 2]));

/** Sums of neighbouring products of unsigned bytes of x and signed bytes of y, saturated. */
const multiplyAddBytes: Binary = (b, x, y) => {
  const eight = b.i32(8);
  const even = b.mul16x8(b.andv(x, all32(b, 0x00ff00ff)), b.sar16x8(b.shl16x8(y, eight), eight));
  return b.addsats16x8(even, b.mul16x8(b.shr16x8(x, eight), b.sar16x8(y, eight)));
};

/** The wasm operation differs in -1 * -1 alone, which it saturates to 0x7fff. */
const multiplyRounded: Binary = (b, x, y) => {
  const lowest = all32(b, 0x80008000 | 0);
  const both = b.andv(b.eq16x8(x, lowest), b.eq16x8(y, lowest));
  return b.xorv(b.q15mulrs16x8(x, y), both);
};

// --- Sums. ---

const sumOfDifferences: Binary = (b, x, y) => {
  const difference = b.orv(b.subsatu8x16(x, y), b.subsatu8x16(y, x));
  const sums = b.extaddu16x8(b.extaddu8x16(difference));
  const low = b.v128(-1, 0, -1, 0);
  return b.andv(b.add32x4(sums, b.shr64x2(sums, b.i32(32))), low);
};

/** Even lanes of x and y with the odd ones. */
const horizontal =
  (bytes: 2 | 4, op: BinaryName): Binary =>
  (b, x, y) => {
    const even = Array.from({ length: 16 / bytes }, (_, i) => 2 * i);
    const odd = even.map((lane) => lane + 1);
    return b[op](pick(b, x, y, bytes, even), pick(b, x, y, bytes, odd));
  };

// --- Signs. ---

const applySign =
  (negate: 'neg8x16' | 'neg16x8' | 'neg32x4', below: BinaryName, notEqual: BinaryName): Binary =>
  (b, x, y) => {
    const nothing = zero(b);
    const signed = b.bitselect(b[negate](x), x, b[below](y, nothing));
    return b.andv(signed, b[notEqual](y, nothing));
  };

// --- Interleaving. ---

/** Lanes of x and y in turns, from the low (or high) half of each. */
const interleave =
  (bytes: 1 | 2 | 4 | 8, high: boolean): Binary =>
  (b, x, y) => {
    const count = 16 / bytes;
    const first = high ? count / 2 : 0;
    const lanes = Array.from({ length: count }, (_, i) => first + (i >> 1) + (i & 1) * count);
    return pick(b, x, y, bytes, lanes);
  };

/** For 8 bytes: the high half of the low half. */
const interleaveHalfHigh =
  (bytes: 1 | 2 | 4): Binary =>
  (b, x, y) => {
    const mixed = interleave(bytes, false)(b, x, y);
    return pick(b, mixed, mixed, 8, [1, 1]);
  };

/** For 8 bytes: both operands side by side in one vector, given to the operation twice. */
const sideBySide =
  (op: Binary | BinaryName): Binary =>
  (b, x, y) => {
    const both = pick(b, x, y, 8, [0, 2]);
    return binary(op)(b, both, both);
  };

/** Indices with bit 7 give 0; of the others the low four bits count. */
const shuffleBytes: Binary = (b, x, y) => b.vlookup(x, b.andv(y, all32(b, 0x8f8f8f8f | 0)));
const shuffleBytes8: Binary = (b, x, y) => b.vlookup(x, b.andv(y, all32(b, 0x87878787 | 0)));

// --- The table. ---

export interface IntegerOp {
  /** Map and opcode. */
  readonly encoding: string;
  readonly name: string;
  readonly op: Binary | BinaryName;
  readonly options: RowOptions;
  /** How MMX does it, null = it does not have it. */
  readonly mmx: Binary | BinaryName | null;
}

type Operation = Binary | BinaryName;

const same = (encoding: string, name: string, op: Operation, options = SSE2): IntegerOp => ({
  encoding,
  name,
  op,
  options,
  mmx: op,
});
const other = (encoding: string, name: string, op: Operation, mmx: Operation, options = SSE2): IntegerOp => ({
  encoding,
  name,
  op,
  options,
  mmx,
});
const vectorOnly = (encoding: string, name: string, op: Operation, options = SSE41): IntegerOp => ({
  encoding,
  name,
  op,
  options,
  mmx: null,
});

function interleaving(): IntegerOp[] {
  const list: IntegerOp[] = [];
  const add = (opcode: string, name: string, bytes: 1 | 2 | 4, high: boolean): void => {
    const mmx = high ? interleaveHalfHigh(bytes) : interleave(bytes, false);
    list.push(other(`0F ${opcode}`, name, interleave(bytes, high), mmx));
  };
  add('60', 'PUNPCKLBW', 1, false);
  add('61', 'PUNPCKLWD', 2, false);
  add('62', 'PUNPCKLDQ', 4, false);
  add('68', 'PUNPCKHBW', 1, true);
  add('69', 'PUNPCKHWD', 2, true);
  add('6A', 'PUNPCKHDQ', 4, true);
  list.push(vectorOnly('0F 6C', 'PUNPCKLQDQ', interleave(8, false), SSE2));
  list.push(vectorOnly('0F 6D', 'PUNPCKHQDQ', interleave(8, true), SSE2));
  return list;
}

function horizontals(): IntegerOp[] {
  const rows: [string, string, 2 | 4, BinaryName][] = [
    ['01', 'PHADDW', 2, 'add16x8'],
    ['02', 'PHADDD', 4, 'add32x4'],
    ['03', 'PHADDSW', 2, 'addsats16x8'],
    ['05', 'PHSUBW', 2, 'sub16x8'],
    ['06', 'PHSUBD', 4, 'sub32x4'],
    ['07', 'PHSUBSW', 2, 'subsats16x8'],
  ];
  return rows.map(([opcode, name, bytes, op]) => {
    const operate = horizontal(bytes, op);
    return other(`0F38 ${opcode}`, name, operate, sideBySide(operate), SSSE3);
  });
}

const absolute =
  (op: 'abs8x16' | 'abs16x8' | 'abs32x4'): Binary =>
  (b, _x, y) =>
    b[op](y);

export const INTEGER_OPS: readonly IntegerOp[] = [
  ...interleaving(),
  other('0F 63', 'PACKSSWB', 'narrows16x8', sideBySide('narrows16x8')),
  other('0F 67', 'PACKUSWB', 'narrowu16x8', sideBySide('narrowu16x8')),
  other('0F 6B', 'PACKSSDW', 'narrows32x4', sideBySide('narrows32x4')),
  same('0F 64', 'PCMPGTB', 'gts8x16'),
  same('0F 65', 'PCMPGTW', 'gts16x8'),
  same('0F 66', 'PCMPGTD', 'gts32x4'),
  same('0F 74', 'PCMPEQB', 'eq8x16'),
  same('0F 75', 'PCMPEQW', 'eq16x8'),
  same('0F 76', 'PCMPEQD', 'eq32x4'),
  same('0F D4', 'PADDQ', 'add64x2'),
  same('0F D5', 'PMULLW', 'mul16x8'),
  same('0F D8', 'PSUBUSB', 'subsatu8x16'),
  same('0F D9', 'PSUBUSW', 'subsatu16x8'),
  same('0F DA', 'PMINUB', 'minu8x16'),
  same('0F DB', 'PAND', 'andv'),
  same('0F DC', 'PADDUSB', 'addsatu8x16'),
  same('0F DD', 'PADDUSW', 'addsatu16x8'),
  same('0F DE', 'PMAXUB', 'maxu8x16'),
  same('0F DF', 'PANDN', swapped('andnotv')),
  same('0F E0', 'PAVGB', 'avgu8x16'),
  same('0F E3', 'PAVGW', 'avgu16x8'),
  same('0F E4', 'PMULHUW', multiplyHigh('mullowu16x8', 'mulhighu16x8')),
  same('0F E5', 'PMULHW', multiplyHigh('mullows16x8', 'mulhighs16x8')),
  same('0F E8', 'PSUBSB', 'subsats8x16'),
  same('0F E9', 'PSUBSW', 'subsats16x8'),
  same('0F EA', 'PMINSW', 'mins16x8'),
  same('0F EB', 'POR', 'orv'),
  same('0F EC', 'PADDSB', 'addsats8x16'),
  same('0F ED', 'PADDSW', 'addsats16x8'),
  same('0F EE', 'PMAXSW', 'maxs16x8'),
  same('0F EF', 'PXOR', 'xorv'),
  same('0F F4', 'PMULUDQ', multiplyEven('mullowu32x4')),
  same('0F F5', 'PMADDWD', 'dots16x8'),
  same('0F F6', 'PSADBW', sumOfDifferences),
  same('0F F8', 'PSUBB', 'sub8x16'),
  same('0F F9', 'PSUBW', 'sub16x8'),
  same('0F FA', 'PSUBD', 'sub32x4'),
  same('0F FB', 'PSUBQ', 'sub64x2'),
  same('0F FC', 'PADDB', 'add8x16'),
  same('0F FD', 'PADDW', 'add16x8'),
  same('0F FE', 'PADDD', 'add32x4'),
  ...horizontals(),
  other('0F38 00', 'PSHUFB', shuffleBytes, shuffleBytes8, SSSE3),
  same('0F38 04', 'PMADDUBSW', multiplyAddBytes, SSSE3),
  same('0F38 08', 'PSIGNB', applySign('neg8x16', 'lts8x16', 'ne8x16'), SSSE3),
  same('0F38 09', 'PSIGNW', applySign('neg16x8', 'lts16x8', 'ne16x8'), SSSE3),
  same('0F38 0A', 'PSIGND', applySign('neg32x4', 'lts32x4', 'ne32x4'), SSSE3),
  same('0F38 0B', 'PMULHRSW', multiplyRounded, SSSE3),
  same('0F38 1C', 'PABSB', absolute('abs8x16'), SSSE3),
  same('0F38 1D', 'PABSW', absolute('abs16x8'), SSSE3),
  same('0F38 1E', 'PABSD', absolute('abs32x4'), SSSE3),
  vectorOnly('0F38 28', 'PMULDQ', multiplyEven('mullows32x4')),
  vectorOnly('0F38 29', 'PCMPEQQ', 'eq64x2'),
  vectorOnly('0F38 2B', 'PACKUSDW', 'narrowu32x4'),
  vectorOnly('0F38 37', 'PCMPGTQ', 'gts64x2', SSE42),
  vectorOnly('0F38 38', 'PMINSB', 'mins8x16'),
  vectorOnly('0F38 39', 'PMINSD', 'mins32x4'),
  vectorOnly('0F38 3A', 'PMINUW', 'minu16x8'),
  vectorOnly('0F38 3B', 'PMINUD', 'minu32x4'),
  vectorOnly('0F38 3C', 'PMAXSB', 'maxs8x16'),
  vectorOnly('0F38 3D', 'PMAXSD', 'maxs32x4'),
  vectorOnly('0F38 3E', 'PMAXUW', 'maxu16x8'),
  vectorOnly('0F38 3F', 'PMAXUD', 'maxu32x4'),
  vectorOnly('0F38 40', 'PMULLD', 'mul32x4'),
];

// --- Shifts. ---

export interface ShiftOp {
  /** Opcode with the count in a register, opcode and digit with the count in an immediate. */
  readonly opcode: string;
  readonly group: string;
  readonly name: string;
  readonly op: ShiftName;
  readonly bits: number;
  readonly arithmetic: boolean;
}

const shiftOp = (opcode: string, group: string, name: string, op: ShiftName, bits: number, arithmetic = false): ShiftOp => ({
  opcode,
  group,
  name,
  op,
  bits,
  arithmetic,
});

export const SHIFT_OPS: readonly ShiftOp[] = [
  shiftOp('D1', '71 /2', 'PSRLW', 'shr16x8', 16),
  shiftOp('D2', '72 /2', 'PSRLD', 'shr32x4', 32),
  shiftOp('D3', '73 /2', 'PSRLQ', 'shr64x2', 64),
  shiftOp('E1', '71 /4', 'PSRAW', 'sar16x8', 16, true),
  shiftOp('E2', '72 /4', 'PSRAD', 'sar32x4', 32, true),
  shiftOp('F1', '71 /6', 'PSLLW', 'shl16x8', 16),
  shiftOp('F2', '72 /6', 'PSLLD', 'shl32x4', 32),
  shiftOp('F3', '73 /6', 'PSLLQ', 'shl64x2', 64),
];

/** Counts of the width and more give zeros, or copies of the sign. */
export function shiftByConstant(b: Builder, s: ShiftOp, x: Value, count: number): Value {
  if (count < s.bits) return b[s.op](x, b.i32(count));
  return s.arithmetic ? b[s.op](x, b.i32(s.bits - 1)) : zero(b);
}

/** @param count an i64 */
export function shiftByValue(b: Builder, s: ShiftOp, x: Value, count: Value): Value {
  const inRange = b.ltu64(count, b.i64(s.bits));
  const low = b.wrap(count);
  if (s.arithmetic) return b[s.op](x, b.select32(inRange, low, b.i32(s.bits - 1)));
  return b.selectv(inRange, b[s.op](x, low), zero(b));
}

/** 16 bytes from byte number `first` on of y followed by x and then by zeros: PALIGNR. */
export function alignBytes(b: Builder, x: Value, y: Value, first: number): Value {
  if (first >= 32) return zero(b);
  const lanes = Array.from({ length: 16 }, (_, i) => Math.min(i + (first & 15), 31));
  if (first < 16) return pick(b, y, x, 1, lanes);
  return pick(b, x, zero(b), 1, lanes);
}

/** Destination of shifts by an immediate. */
const shifted = (t: X86Translator): number => (t.isVex ? t.vexV : t.rm);

const shiftBytes = (left: boolean): Translate =>
  vector((t) => {
    const { b } = t;
    const count = Math.min(imm8(t), 16);
    const x = t.readXmm(t.rm);
    const nothing = zero(b);
    const v = left ? alignBytes(b, x, nothing, 16 - count) : alignBytes(b, nothing, x, count);
    t.writeXmm(shifted(t), v);
  });

const shiftRegister = (s: ShiftOp): Translate =>
  vector((t) => {
    const count = low64(t.b, readAligned(t));
    t.writeXmm(t.reg, shiftByValue(t.b, s, t.readXmm(t.first), count));
  });

const shiftImmediate = (s: ShiftOp): Translate =>
  vector((t) => t.writeXmm(shifted(t), shiftByConstant(t.b, s, t.readXmm(t.rm), imm8(t))));

export const SSE_INTEGER_ROWS: readonly Row[] = [
  ...INTEGER_OPS.map((i) => binaryRow(`66 ${i.encoding} /r`, i.name, i.op, i.options)),
  ...SHIFT_OPS.flatMap((s) => [
    row(`66 0F ${s.opcode} /r`, s.name, 'Vo,Wo', shiftRegister(s), SSE2),
    row(`66 0F ${s.group} reg`, s.name, 'Uo,Ib', shiftImmediate(s), SSE2),
  ]),
  row('66 0F 73 /3 reg', 'PSRLDQ', 'Uo,Ib', shiftBytes(false), SSE2),
  row('66 0F 73 /7 reg', 'PSLLDQ', 'Uo,Ib', shiftBytes(true), SSE2),
];

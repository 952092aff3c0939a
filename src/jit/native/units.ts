/** How code of the host's processor is made of each interpreter operation (opcodes.ts), as tables by opcode. */
import { BULK, MEMORY, OPS, Op, PURE } from '../../ir/ops.ts';
import { ACCESS } from '../access.ts';
import {
  AT_A,
  AT_B,
  AT_C,
  AT_D,
  AT_E,
  COMPARISONS,
  SEQUENCES,
  X_BRANCH,
  X_CALL,
  X_MOVE,
  X_MOVE_V,
  X_SEQUENCE,
} from '../opcodes.ts';
import * as x from './x64.ts';

// What has to be written for an operation, and what its parameter is.

export const NONE = 0; // nothing is known: the interpreter goes on from here
export const ALU = 1; // the host's opcode
export const SHIFT = 2; // its extension
export const COMPARE = 3; // the condition
export const EXTEND = 4; // the opcode of the move that extends
export const EQZ = 5;
export const SELECT = 6;
export const MUL_HIGH = 7; // extension: signed or not
export const COUNT = 8; // zeros below the lowest or above the highest bit that is set: the opcode that finds it
export const BSWAP = 9;
export const MOVE = 10;
export const STATE_LOAD = 11; // opcode
export const STATE_STORE = 12; // opcode
export const LOAD = 13; // opcode
export const STORE = 14; // opcode
export const DIVIDE = 15; // bit 0: signed, bit 1: the remainder
export const POPCNT = 16;
export const LANE = 17; // opcode that loads it
export const FIRST_FLOAT = 20;
export const FLOAT = 20; // instruction of two operands
export const FLOAT_ONE = 21; // of one; also conversions between floats
export const FLOAT_COMPARE = 22; // predicate; bit 3: operands exchanged
export const FLOAT_ROUND = 23; // mode
export const FLOAT_SIGN = 24; // 0: clear, 1: invert it
export const FROM_INTEGER = 25; // instruction; bit 31: of 64 bits
export const TO_INTEGER = 26; // instruction; bit 31: to 64 bits
export const FIRST_VECTOR = 30;
export const VECTOR = 30; // instruction of two operands
export const VECTOR_SWAPPED = 31; // the same, operands exchanged
export const VECTOR_NOT = 32; // the same, result inverted
export const VECTOR_SWAPPED_NOT = 33;
export const VECTOR_SAME = 34; // the minimum or maximum by this instruction is the second operand; bits 24-31: comparison
export const VECTOR_OTHER = 35; // is not
export const VECTOR_ONE = 36; // of one operand
export const VECTOR_HIGH = 37; // of the upper half
export const VECTOR_SHIFT = 38; // instruction; bits 24-31: count's mask
export const VECTOR_NEGATE = 39; // the subtraction
export const VECTOR_INVERT = 40;
export const VECTOR_SELECT_BITS = 41;
export const VECTOR_SELECT = 42;
export const VECTOR_COMPARE = 43; // instruction | predicate << 24; bit 31: operands exchanged
export const VECTOR_ROUND = 44; // instruction | mode << 24
export const ANY_TRUE = 45;
export const ALL_TRUE = 46; // comparison for equality
export const BIT_MASK = 47; // instruction
export const BIT_MASK_WORDS = 48;
export const SPLAT = 49; // bytes
export const SET_LANE = 50; // instruction; bits 24-27: bytes; bit 31: 64 bits
export const SHUFFLE = 51;
export const LOOK_UP = 52;
export const SWIZZLE = 53;
export const MOVE_V = 54;
export const VECTOR_STATE_LOAD = 55;
export const VECTOR_STATE_STORE = 56;
const STATE_KINDS = new Set([STATE_LOAD, STATE_STORE, VECTOR_STATE_LOAD, VECTOR_STATE_STORE]);
export const FIRST_EXIT = 60;
export const BRANCH = 60; // the condition
export const COND_GOTO = 61;
export const GOTO = 62;
export const JUMP = 63;
export const LEAVE_IF = 64;
export const LEAVE = 65;

export const KIND = new Uint8Array(X_CALL);
export const PARAMETER = new Uint32Array(X_CALL);
/** Is the operation on 64 bits (floats: doubles)? */
export const WIDE = new Uint8Array(X_CALL);
/** May operands be exchanged? */
export const COMMUTES = new Uint8Array(X_CALL);
/** Words of the unit that name slots which are read, a bit each; and whether word 1 names the one that is set. */
export const READS = new Uint8Array(X_CALL);
export const SETS = new Uint8Array(X_CALL);
/** Of a sequence: the operation that it begins with; of others: itself. */
export const FIRST = new Uint16Array(X_CALL);

const bit = (at: number): number => 1 << (at >> 2);
/** Second operand of a branch on a comparison. */
export const AT_COMPARED = AT_C + 12;
/** Bit of READS for that. */
export const COMPARED = bit(AT_COMPARED);
/** What a helper's call may read. */
export const CALL_READS = bit(AT_A) | bit(AT_B) | bit(AT_C) | bit(AT_E);
export const STS16 = Op.sts16;

/** Is the operation a block's last? */
export const endsBlock = (op: number): boolean => KIND[op]! >= FIRST_EXIT && KIND[op] !== LEAVE_IF;

/** Does it read or write the guest's state other than its globals? Then AT_B is where. */
export const isStateAccess = (op: number): boolean => STATE_KINDS.has(KIND[op]!);

/** Does it compute a vector? */
export const isVectorArithmetic = (op: number): boolean => KIND[op]! >= FIRST_VECTOR && KIND[op]! < MOVE_V;

type Name = keyof typeof Op;

function row(name: Name | number, kind: number, parameter = 0, wide = false): void {
  const op = typeof name === 'number' ? name : Op[name];
  KIND[op] = kind;
  PARAMETER[op] = parameter;
  WIDE[op] = wide ? 1 : 0;
}

for (let op = 0; op < X_CALL; op++) FIRST[op] = op;
SEQUENCES.forEach((members, place) => {
  FIRST[X_SEQUENCE + place] = members[0]!;
});

for (const { index, kind, name, operands } of OPS) {
  if (kind === MEMORY || name.startsWith('sts')) {
    const store = ACCESS[index]?.store ?? true;
    READS[index] = bit(AT_A) | (store ? bit(AT_D) : 0);
    SETS[index] = store ? 0 : 1;
  } else if (kind === PURE || kind === BULK || name.startsWith('lds')) {
    for (const at of [AT_A, AT_B, AT_C].slice(0, operands.length)) READS[index] = READS[index]! | bit(at);
    SETS[index] = 1;
  } else if (index === Op.leaveif || index === Op.condgoto || index === Op.jump) READS[index] = bit(AT_A);
}
for (const op of [X_MOVE, X_MOVE_V]) {
  READS[op] = bit(AT_A);
  SETS[op] = 1;
}

// Integers.

for (const [name, code] of [
  ['add', x.ADD],
  ['sub', x.SUB],
  ['mul', x.IMUL],
  ['and', x.AND],
  ['or', x.OR],
  ['xor', x.XOR],
] as const) {
  for (const bits of [32, 64] as const) {
    row(`${name}${bits}`, ALU, code, bits === 64);
    COMMUTES[Op[`${name}${bits}`]] = name === 'sub' ? 0 : 1;
  }
}
for (const [name, code] of [
  ['shl', x.SHL],
  ['shr', x.SHR],
  ['sar', x.SAR],
  ['rotl', x.ROL],
  ['rotr', x.ROR],
] as const) {
  row(`${name}32`, SHIFT, code);
  row(`${name}64`, SHIFT, code, true);
}
const CONDITIONS: Record<string, number> = {
  eq: x.CC_E,
  ne: x.CC_NE,
  lts: x.CC_L,
  ltu: x.CC_B,
  gts: x.CC_G,
  gtu: x.CC_A,
  les: x.CC_LE,
  leu: x.CC_BE,
  ges: x.CC_GE,
  geu: x.CC_AE,
  eqz: x.CC_E,
};
COMPARISONS.forEach(({ name, index, operands }, place) => {
  const wide = name.endsWith('64');
  const condition = CONDITIONS[name.slice(0, -2)]!;
  row(index, name.startsWith('eqz') ? EQZ : COMPARE, condition, wide);
  const branch = X_BRANCH + place;
  row(branch, BRANCH, condition, wide);
  READS[branch] = bit(AT_A) | (operands.length > 1 ? COMPARED : 0);
});
row('ext8s32', EXTEND, 0x1be);
row('ext16s32', EXTEND, 0x1bf);
row('ext8s64', EXTEND, 0x1be, true);
row('ext16s64', EXTEND, 0x1bf, true);
for (const name of ['ext32s64', 'exts'] as const) row(name, EXTEND, 0x63, true);
for (const name of ['wrap', 'extu', 'bitsf32', 'f32bits'] as const) row(name, EXTEND, 0x8b);
for (const name of ['bitsf64', 'f64bits'] as const) row(name, EXTEND, 0x8b, true);
for (const bits of [32, 64] as const) {
  const wide = bits === 64;
  row(`bswap${bits}`, BSWAP, 0, wide);
  row(`select${bits}`, SELECT, 0, wide);
  row(`selectf${bits}`, SELECT, 0, wide);
  row(`ctz${bits}`, COUNT, 0x1bc, wide);
  row(`clz${bits}`, COUNT, 0x1bd, wide);
  row(`popcnt${bits}`, POPCNT, 0, wide);
  row(`divu${bits}`, DIVIDE, 0, wide);
  row(`divs${bits}`, DIVIDE, 1, wide);
  row(`remu${bits}`, DIVIDE, 2, wide);
  row(`rems${bits}`, DIVIDE, 3, wide);
}
row('mulhu64', MUL_HIGH, 4, true);
row('mulhs64', MUL_HIGH, 5, true);
for (const [name, load, store, wide] of [
  ['8', 0x1b6, 0x88, false],
  ['16', 0x1b7, 0x89, false],
  ['32', 0x8b, 0x89, false],
  ['64', 0x8b, 0x89, true],
  ['f64', 0x8b, 0x89, true],
] as const) {
  row(`lds${name}`, STATE_LOAD, load, wide);
  row(`sts${name}`, STATE_STORE, store, wide);
}
for (const [name, code, wide] of [
  ['lane8u', 0x1b6, false],
  ['lane8s', 0x1be, false],
  ['lane16u', 0x1b7, false],
  ['lane16s', 0x1bf, false],
  ['lane32', 0x8b, false],
  ['lanef32', 0x8b, false],
  ['lane64', 0x8b, true],
  ['lanef64', 0x8b, true],
] as const)
  row(name, LANE, code, wide);
for (const access of ACCESS) {
  if (access === null) continue;
  const { name, store, bytes, wasm } = access;
  const signed = wasm[0] === 0x2c || wasm[0] === 0x2e;
  const narrow = (bytes === 1 ? 0x1b6 : 0x1b7) | (signed ? 8 : 0);
  if (store) row(name as Name, STORE, bytes === 1 ? 0x88 : 0x89, bytes === 8);
  else row(name as Name, LOAD, bytes < 4 ? narrow : 0x8b, bytes === 8);
}

// Floats. Instructions: the prefix << 16 | opcode, see `X64.sse`.

const P66 = 0x660000;
const PF3 = 0xf30000;
const PF2 = 0xf20000;

for (const [bits, prefix] of [
  [32, PF3],
  [64, PF2],
] as const) {
  const wide = bits === 64;
  for (const [name, code] of [
    ['add', 0x158],
    ['mul', 0x159],
    ['sub', 0x15c],
    ['div', 0x15e],
  ] as const)
    row(`${name}f${bits}`, FLOAT, prefix | code, wide);
  row(`sqrtf${bits}`, FLOAT_ONE, prefix | 0x151, wide);
  for (const [name, predicate] of [
    ['eq', 0],
    ['ne', 4],
    ['lt', 1],
    ['le', 2],
    ['gt', 9],
    ['ge', 10],
  ] as const)
    row(`${name}f${bits}`, FLOAT_COMPARE, predicate, wide);
  for (const [mode, name] of (['nearest', 'floor', 'ceil', 'trunc'] as const).entries())
    row(`${name}f${bits}`, FLOAT_ROUND, mode, wide);
  row(`absf${bits}`, FLOAT_SIGN, 0, wide);
  row(`negf${bits}`, FLOAT_SIGN, 1, wide);
  row(`s32tof${bits}`, FROM_INTEGER, prefix | 0x12a, wide);
  row(`s64tof${bits}`, FROM_INTEGER, 0x80000000 | prefix | 0x12a, wide);
  row(`u32tof${bits}`, FROM_INTEGER, 0xc0000000 | prefix | 0x12a, wide);
  row(`f${bits}tos32`, TO_INTEGER, prefix | 0x12c, wide);
  row(`f${bits}tos64`, TO_INTEGER, 0x80000000 | prefix | 0x12c, wide);
}
row('f32tof64', FLOAT_ONE, PF3 | 0x15a, false);
row('f64tof32', FLOAT_ONE, PF2 | 0x15a, true);
/** Instructions whose result has the other width. */
export const WIDENS: ReadonlySet<number> = new Set([PF3 | 0x15a, PF2 | 0x15a]);

// Vectors. The prefix << 16 | opcode, as above.

const vector = (kind: number, rows: Record<string, number>): void => {
  for (const [name, code] of Object.entries(rows)) row(name as Name, kind, code);
};

vector(VECTOR, {
  eq8x16: P66 | 0x174,
  eq16x8: P66 | 0x175,
  eq32x4: P66 | 0x176,
  eq64x2: P66 | 0x3829,
  gts8x16: P66 | 0x164,
  gts16x8: P66 | 0x165,
  gts32x4: P66 | 0x166,
  gts64x2: P66 | 0x3837,
  andv: P66 | 0x1db,
  orv: P66 | 0x1eb,
  xorv: P66 | 0x1ef,
  narrows16x8: P66 | 0x163,
  narrowu16x8: P66 | 0x167,
  narrows32x4: P66 | 0x16b,
  narrowu32x4: P66 | 0x382b,
  add8x16: P66 | 0x1fc,
  add16x8: P66 | 0x1fd,
  add32x4: P66 | 0x1fe,
  add64x2: P66 | 0x1d4,
  sub8x16: P66 | 0x1f8,
  sub16x8: P66 | 0x1f9,
  sub32x4: P66 | 0x1fa,
  sub64x2: P66 | 0x1fb,
  addsats8x16: P66 | 0x1ec,
  addsats16x8: P66 | 0x1ed,
  addsatu8x16: P66 | 0x1dc,
  addsatu16x8: P66 | 0x1dd,
  subsats8x16: P66 | 0x1e8,
  subsats16x8: P66 | 0x1e9,
  subsatu8x16: P66 | 0x1d8,
  subsatu16x8: P66 | 0x1d9,
  mins8x16: P66 | 0x3838,
  mins16x8: P66 | 0x1ea,
  mins32x4: P66 | 0x3839,
  maxs8x16: P66 | 0x383c,
  maxs16x8: P66 | 0x1ee,
  maxs32x4: P66 | 0x383d,
  minu8x16: P66 | 0x1da,
  minu16x8: P66 | 0x383a,
  minu32x4: P66 | 0x383b,
  maxu8x16: P66 | 0x1de,
  maxu16x8: P66 | 0x383e,
  maxu32x4: P66 | 0x383f,
  avgu8x16: P66 | 0x1e0,
  avgu16x8: P66 | 0x1e3,
  mul16x8: P66 | 0x1d5,
  mul32x4: P66 | 0x3840,
  dots16x8: P66 | 0x1f5,
  addf32x4: 0x158,
  mulf32x4: 0x159,
  subf32x4: 0x15c,
  divf32x4: 0x15e,
  addf64x2: P66 | 0x158,
  mulf64x2: P66 | 0x159,
  subf64x2: P66 | 0x15c,
  divf64x2: P66 | 0x15e,
});
vector(VECTOR_SWAPPED, {
  lts8x16: P66 | 0x164,
  lts16x8: P66 | 0x165,
  lts32x4: P66 | 0x166,
  lts64x2: P66 | 0x3837,
  andnotv: P66 | 0x1df,
  pminf32x4: 0x15d,
  pmaxf32x4: 0x15f,
  pminf64x2: P66 | 0x15d,
  pmaxf64x2: P66 | 0x15f,
});
vector(VECTOR_NOT, {
  ne8x16: P66 | 0x174,
  ne16x8: P66 | 0x175,
  ne32x4: P66 | 0x176,
  ne64x2: P66 | 0x3829,
  les8x16: P66 | 0x164,
  les16x8: P66 | 0x165,
  les32x4: P66 | 0x166,
  les64x2: P66 | 0x3837,
});
vector(VECTOR_SWAPPED_NOT, {
  ges8x16: P66 | 0x164,
  ges16x8: P66 | 0x165,
  ges32x4: P66 | 0x166,
  ges64x2: P66 | 0x3837,
});
// The larger of both is the second where the first is less or equal.
const UNSIGNED = { 8: [0x1de, 0x1da, 0x74], 16: [0x383e, 0x383a, 0x75], 32: [0x383f, 0x383b, 0x76] } as const;
for (const [bits, lanes] of [
  [8, 16],
  [16, 8],
  [32, 4],
] as const) {
  const [largest, least, equal] = UNSIGNED[bits];
  const by = (code: number): number => (equal << 24) | P66 | code;
  row(`leu${bits}x${lanes}` as Name, VECTOR_SAME, by(largest));
  row(`geu${bits}x${lanes}` as Name, VECTOR_SAME, by(least));
  row(`gtu${bits}x${lanes}` as Name, VECTOR_OTHER, by(largest));
  row(`ltu${bits}x${lanes}` as Name, VECTOR_OTHER, by(least));
}
vector(VECTOR_ONE, {
  abs8x16: P66 | 0x381c,
  abs16x8: P66 | 0x381d,
  abs32x4: P66 | 0x381e,
  extlows8x16: P66 | 0x3820,
  extlows16x8: P66 | 0x3823,
  extlows32x4: P66 | 0x3825,
  extlowu8x16: P66 | 0x3830,
  extlowu16x8: P66 | 0x3833,
  extlowu32x4: P66 | 0x3835,
  sqrtf32x4: 0x151,
  sqrtf64x2: P66 | 0x151,
  s32x4tof32x4: 0x15b,
  s32x4tof64x2: PF3 | 0x1e6,
  f32x4tof64x2: 0x15a,
  f64x2tof32x4: P66 | 0x15a,
});
vector(VECTOR_HIGH, {
  exthighs8x16: P66 | 0x3820,
  exthighs16x8: P66 | 0x3823,
  exthighs32x4: P66 | 0x3825,
  exthighu8x16: P66 | 0x3830,
  exthighu16x8: P66 | 0x3833,
  exthighu32x4: P66 | 0x3835,
});
vector(VECTOR_SHIFT, {
  shl16x8: 0x0f000000 | P66 | 0x1f1,
  shl32x4: 0x1f000000 | P66 | 0x1f2,
  shl64x2: 0x3f000000 | P66 | 0x1f3,
  sar16x8: 0x0f000000 | P66 | 0x1e1,
  sar32x4: 0x1f000000 | P66 | 0x1e2,
  shr16x8: 0x0f000000 | P66 | 0x1d1,
  shr32x4: 0x1f000000 | P66 | 0x1d2,
  shr64x2: 0x3f000000 | P66 | 0x1d3,
});
vector(VECTOR_NEGATE, { neg8x16: P66 | 0x1f8, neg16x8: P66 | 0x1f9, neg32x4: P66 | 0x1fa, neg64x2: P66 | 0x1fb });
row('notv', VECTOR_INVERT);
row('bitselect', VECTOR_SELECT_BITS);
row('selectv', VECTOR_SELECT);
for (const [type, prefix] of [
  ['f32x4', 0],
  ['f64x2', P66],
] as const) {
  for (const [name, predicate] of [
    ['eq', 0],
    ['ne', 4],
    ['lt', 1],
    ['le', 2],
    ['gt', 0x81],
    ['ge', 0x82],
  ] as const)
    row(`${name}${type}`, VECTOR_COMPARE, (predicate << 24) | prefix | 0x1c2);
  for (const [mode, name] of (['nearest', 'floor', 'ceil', 'trunc'] as const).entries()) {
    row(`${name}${type}`, VECTOR_ROUND, ((mode | 8) << 24) | P66 | (prefix ? 0x3a09 : 0x3a08));
  }
}
row('anytrue', ANY_TRUE);
vector(ALL_TRUE, {
  alltrue8x16: P66 | 0x174,
  alltrue16x8: P66 | 0x175,
  alltrue32x4: P66 | 0x176,
  alltrue64x2: P66 | 0x3829,
});
vector(BIT_MASK, { bitmask8x16: P66 | 0x1d7, bitmask32x4: 0x150, bitmask64x2: P66 | 0x150 });
row('bitmask16x8', BIT_MASK_WORDS);
vector(SPLAT, { splat8: 1, splat16: 2, splat32: 4, splatf32: 4, splat64: 8, splatf64: 8 });
vector(SET_LANE, {
  setlane8: 0x01000000 | P66 | 0x3a20,
  setlane16: 0x02000000 | P66 | 0x1c4,
  setlane32: 0x04000000 | P66 | 0x3a22,
  setlanef32: 0x04000000 | P66 | 0x3a22,
  setlane64: 0x88000000 | P66 | 0x3a22,
  setlanef64: 0x88000000 | P66 | 0x3a22,
});
row('vshuffle', SHUFFLE);
row('vswizzle', SWIZZLE);
row('vlookup', LOOK_UP);
row('ldsv', VECTOR_STATE_LOAD);
row('stsv', VECTOR_STATE_STORE);

// Moves and exits.

row(X_MOVE, MOVE, 0, true);
row(X_MOVE_V, MOVE_V);
row('condgoto', COND_GOTO);
row('goto', GOTO);
row('jump', JUMP);
row('leaveif', LEAVE_IF);
row('leave', LEAVE);

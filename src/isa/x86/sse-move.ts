/** SSE data movement: registers, memory, single lanes. */
import type { Value } from '../../ir/builder.ts';
import {
  SSE,
  SSE2,
  SSE3,
  SSE41,
  fromLow32,
  fromLow64,
  low32,
  low64,
  lowF32,
  lowF64,
  pick,
  readAligned,
  readF32,
  readF64,
  setLowF32,
  setLowF64,
  vector,
  zero,
} from './sse-common.ts';
import { VECTOR_GP } from './decode.ts';
import { ES } from './state.ts';
import { row } from './tables.ts';
import type { Row, RowOptions, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const load = (aligned: boolean): Translate =>
  vector((t) => {
    if (aligned) t.requireAligned(16, false);
    t.writeXmm(t.reg, t.readXmmRm(16));
  });

const store = (aligned: boolean): Translate =>
  vector((t) => {
    const v = t.readXmm(t.reg);
    if (t.isRegister) return t.writeXmm(t.rm, v);
    if (aligned) t.requireAligned(16, true);
    t.b.stv(t.address(16, true), v);
  });

function moves(prefix: string, opcodes: [string, string], name: string, aligned: boolean, options: RowOptions): Row[] {
  return [
    row(`${prefix} 0F ${opcodes[0]} /r`, name, 'Vo,Wo', load(aligned), options),
    row(`${prefix} 0F ${opcodes[1]} /r`, name, 'Wo,Vo', store(aligned), options),
  ];
}

// --- MOVSS, MOVSD: from memory with zeros above, between registers only the low lane. ---

export const movss = vector((t) => {
  const { b } = t;
  const low = readF32(t);
  t.writeXmm(t.reg, setLowF32(b, t.isRegister ? t.readXmm(t.first) : zero(b), low));
});

export const movsd = vector((t) => {
  const { b } = t;
  const low = readF64(t);
  t.writeXmm(t.reg, setLowF64(b, t.isRegister ? t.readXmm(t.first) : zero(b), low));
});

export const movssStore = vector((t) => {
  const { b } = t;
  const low = lowF32(b, t.readXmm(t.reg));
  if (t.isRegister) t.writeXmm(t.rm, setLowF32(b, t.readXmm(t.isVex ? t.vexV : t.rm), low));
  else b.stf32(t.address(4, true), low);
});

export const movsdStore = vector((t) => {
  const { b } = t;
  const low = lowF64(b, t.readXmm(t.reg));
  if (t.isRegister) t.writeXmm(t.rm, setLowF64(b, t.readXmm(t.isVex ? t.vexV : t.rm), low));
  else b.stf64(t.address(8, true), low);
});

// --- Halves. ---

const loadHalf = (lane: 0 | 1): Translate =>
  vector((t) => {
    const half = t.b.ld64(t.address(8, false));
    t.writeXmm(t.reg, t.b.setlane64(t.readXmm(t.first), half, lane));
  });

const storeHalf = (lane: 0 | 1): Translate =>
  vector((t) => {
    const v = t.readXmm(t.reg);
    t.b.st64(t.address(8, true), lane === 0 ? low64(t.b, v) : t.b.lane64(v, 1));
  });

const movhlps = vector((t) => {
  t.writeXmm(t.reg, pick(t.b, t.readXmm(t.first), t.readXmm(t.rm), 8, [3, 1]));
});

const movlhps = vector((t) => {
  t.writeXmm(t.reg, pick(t.b, t.readXmm(t.first), t.readXmm(t.rm), 8, [0, 2]));
});

/** One operand's lanes of 4 bytes. */
const spread = (lanes: readonly number[]): Translate =>
  vector((t) => {
    const x = readAligned(t);
    t.writeXmm(t.reg, pick(t.b, x, x, 4, lanes));
  });

const movddup = vector((t) => {
  const { b } = t;
  const v = t.isRegister ? low64(b, t.readXmm(t.rm)) : b.ld64(t.address(8, false));
  t.writeXmm(t.reg, b.splat64(v));
});

// --- General registers. ---

const movd = vector((t) => {
  const { b } = t;
  const size = t.bytes(1);
  const v = t.readRm(size);
  t.writeXmm(t.reg, size === 8 ? fromLow64(b, v) : fromLow32(b, v));
});

const movdStore = vector((t) => {
  const v = t.readXmm(t.reg);
  const size = t.bytes(0);
  t.writeRm(size, size === 8 ? low64(t.b, v) : low32(t.b, v));
});

const movq = vector((t) => {
  const { b } = t;
  const v: Value = t.isRegister ? low64(b, t.readXmm(t.rm)) : b.ld64(t.address(8, false));
  t.writeXmm(t.reg, fromLow64(b, v));
});

const movqStore = vector((t) => {
  const { b } = t;
  const v = low64(b, t.readXmm(t.reg));
  if (t.isRegister) t.writeXmm(t.rm, fromLow64(b, v));
  else b.st64(t.address(8, true), v);
});

const movnti: Translate = (t) => {
  const size = t.bytes(0);
  t.writeRm(size, t.readReg(t.reg, size));
};

/** MOVDIR64B: 64 bytes at once; the destination, in ES, must be aligned. */
const movdir64b: Translate = (t) => {
  const { b } = t;
  const from = t.address(64, false);
  const parts = [0, 16, 32, 48];
  const values = parts.map((at) => b.ldv(b.add64(from, b.i64(at))));
  const to = t.linear(ES, t.readReg(t.reg, t.addrSize), 64, true);
  t.faultIf(b.ne32(b.and32(b.wrap(to), b.i32(63)), b.i32(0)), VECTOR_GP);
  parts.forEach((at, i) => b.stv(b.add64(to, b.i64(at)), values[i]!));
};

const mask = (lanes: 'bitmask8x16' | 'bitmask32x4' | 'bitmask64x2'): Translate =>
  vector((t) => t.writeReg(t.reg, 4, t.b[lanes](t.readXmm(t.rm))));

/** Address of MASKMOV's destination: the segment's rDI. */
export function destinationOfMask(t: X86Translator, bytes: number): Value {
  return t.linear(t.segment, t.readReg(7, t.addrSize), bytes, true);
}

/**
 * Bytes whose mask is clear are written back as they were: like a processor's, the access
 * may fault even where the mask is all zeros (SDM: implementation dependent).
 */
const maskmovdqu = vector((t) => {
  const { b } = t;
  const address = destinationOfMask(t, 16);
  const old = b.ldv(address);
  const chosen = b.sar8x16(t.readXmm(t.rm), b.i32(7));
  b.stv(address, b.bitselect(t.readXmm(t.reg), old, chosen));
});

export const SSE_MOVE_ROWS: readonly Row[] = [
  ...moves('NP', ['10', '11'], 'MOVUPS', false, SSE),
  ...moves('66', ['10', '11'], 'MOVUPD', false, SSE2),
  ...moves('NP', ['28', '29'], 'MOVAPS', true, SSE),
  ...moves('66', ['28', '29'], 'MOVAPD', true, SSE2),
  ...moves('66', ['6F', '7F'], 'MOVDQA', true, SSE2),
  ...moves('F3', ['6F', '7F'], 'MOVDQU', false, SSE2),
  row('F2 0F F0 /r mem', 'LDDQU', 'Vo,Mo', load(false), SSE3),
  row('NP 0F 2B /r mem', 'MOVNTPS', 'Mo,Vo', store(true), SSE),
  row('66 0F 2B /r mem', 'MOVNTPD', 'Mo,Vo', store(true), SSE2),
  row('66 0F E7 /r mem', 'MOVNTDQ', 'Mo,Vo', store(true), SSE2),
  row('66 0F38 2A /r mem', 'MOVNTDQA', 'Vo,Mo', load(true), SSE41),
  row('NP 0F C3 /r mem', 'MOVNTI', 'Mr,Gr', movnti, SSE2),
  row('NP 0F38 F9 /r mem', 'MOVDIRI', 'Mr,Gr', movnti, { feature: 'movdiri' }),
  row('66 0F38 F8 /r mem', 'MOVDIR64B', 'G,M', movdir64b, { feature: 'movdir64b' }),
  row('F3 0F 10 /r', 'MOVSS', 'Vo,Wd', movss, SSE),
  row('F3 0F 11 /r', 'MOVSS', 'Wd,Vo', movssStore, SSE),
  row('F2 0F 10 /r', 'MOVSD', 'Vo,Wq', movsd, SSE2),
  row('F2 0F 11 /r', 'MOVSD', 'Wq,Vo', movsdStore, SSE2),
  row('NP 0F 12 /r mem', 'MOVLPS', 'Vo,Mq', loadHalf(0), SSE),
  row('NP 0F 12 /r reg', 'MOVHLPS', 'Vo,Uo', movhlps, SSE),
  row('66 0F 12 /r mem', 'MOVLPD', 'Vo,Mq', loadHalf(0), SSE2),
  row('NP 0F 13 /r mem', 'MOVLPS', 'Mq,Vo', storeHalf(0), SSE),
  row('66 0F 13 /r mem', 'MOVLPD', 'Mq,Vo', storeHalf(0), SSE2),
  row('NP 0F 16 /r mem', 'MOVHPS', 'Vo,Mq', loadHalf(1), SSE),
  row('NP 0F 16 /r reg', 'MOVLHPS', 'Vo,Uo', movlhps, SSE),
  row('66 0F 16 /r mem', 'MOVHPD', 'Vo,Mq', loadHalf(1), SSE2),
  row('NP 0F 17 /r mem', 'MOVHPS', 'Mq,Vo', storeHalf(1), SSE),
  row('66 0F 17 /r mem', 'MOVHPD', 'Mq,Vo', storeHalf(1), SSE2),
  row('F3 0F 12 /r', 'MOVSLDUP', 'Vo,Wo', spread([0, 0, 2, 2]), SSE3),
  row('F3 0F 16 /r', 'MOVSHDUP', 'Vo,Wo', spread([1, 1, 3, 3]), SSE3),
  row('F2 0F 12 /r', 'MOVDDUP', 'Vo,Wq', movddup, SSE3),
  row('66 0F 6E /r', 'MOVD', 'Vo,Er', movd, SSE2),
  row('66 0F 7E /r', 'MOVD', 'Er,Vo', movdStore, SSE2),
  row('F3 0F 7E /r', 'MOVQ', 'Vo,Wq', movq, SSE2),
  row('66 0F D6 /r', 'MOVQ', 'Wq,Vo', movqStore, SSE2),
  row('66 0F D7 /r reg', 'PMOVMSKB', 'Gd,Uo', mask('bitmask8x16'), SSE2),
  row('NP 0F 50 /r reg', 'MOVMSKPS', 'Gd,Uo', mask('bitmask32x4'), SSE),
  row('66 0F 50 /r reg', 'MOVMSKPD', 'Gd,Uo', mask('bitmask64x2'), SSE2),
  row('66 0F F7 /r reg', 'MASKMOVDQU', 'Vo,Uo', maskmovdqu, SSE2),
];

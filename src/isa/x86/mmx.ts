/**
 * MMX: the integer operations of sse-integer.ts on 8 bytes, in the low half of a vector.
 *
 * The registers are the significands of the x87 registers, by physical number. Each instruction
 * makes TOP 0 and all tags valid, and what it writes gets an exponent of all ones (SDM vol. 1,
 * 9.5). EMMS empties the tags.
 */
import type { Value } from '../../ir/builder.ts';
import {
  SSE,
  SSE2,
  SSSE3,
  binary,
  fromLow64,
  imm8,
  low64,
  pick,
  readAligned,
  setLow64,
  vectorReady,
  zero,
} from './sse-common.ts';
import { operand } from './sse-exact.ts';
import { TRUNCATE, currentRounding, f32x4ToIntegers, f64x2ToIntegers, integersToF32 } from './sse-float.ts';
import { INTEGER_OPS, SHIFT_OPS, alignBytes, shiftByConstant, shiftByValue } from './sse-integer.ts';
import type { IntegerOp, ShiftOp } from './sse-integer.ts';
import { destinationOfMask } from './sse-move.ts';
import { shuffleLowWords } from './sse-shuffle.ts';
import { BF_FPU_OFF, BF_TS, FPREG, FTAG, FTOP } from './state.ts';
import { row } from './tables.ts';
import type { Row, RowOptions, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';
import { clearMarks, requireNoError } from './x87-control.ts';

const VECTOR_NM = 7;
const ALL_EMPTY = 0x01010101;
const MMX: RowOptions = { feature: 'mmx' };

/** CR0.EM raises #UD, CR0.TS #NM. With both set it ought to be #UD. */
function mmxReady(t: X86Translator): boolean {
  if (!(t.flags & BF_FPU_OFF)) return true;
  if (t.flags & BF_TS) t.raise(VECTOR_NM);
  else t.undefined();
  return false;
}

function setTags(t: X86Translator, tags: number): void {
  const { b } = t;
  const value = b.i32(tags);
  b.sts32(FTAG, value);
  b.sts32(FTAG + 4, value);
}

function enterMmx(t: X86Translator): void {
  t.fpu.forget();
  t.b.sts32(FTOP, t.b.i32(0));
  setTags(t, 0);
}

const mmx =
  (translate: Translate): Translate =>
  (t) => {
    if (!mmxReady(t)) return;
    requireNoError(t);
    translate(t);
    enterMmx(t);
  };

// --- Operands. REX.R and REX.B do not count. ---

const place = (n: number): number => FPREG + 16 * (n & 7);

const readMm = (t: X86Translator, n: number): Value => t.b.lds64(place(n));

function writeMm(t: X86Translator, n: number, v: Value): void {
  const { b } = t;
  t.prepareWrite();
  b.sts64(place(n), v);
  b.sts32(place(n) + 8, b.i32(0xffff));
}

/** mmx register or memory at ModRM rm, an i64. */
function readQ(t: X86Translator, bytes: 4 | 8 = 8): Value {
  const { b } = t;
  if (t.isRegister) return readMm(t, t.rm);
  return bytes === 8 ? b.ld64(t.address(8, false)) : b.extu(b.ld32(t.address(4, false)));
}

const writeVector = (t: X86Translator, n: number, v: Value): void => writeMm(t, n, low64(t.b, v));

// --- Operations. ---

function integerRow(i: IntegerOp): Row {
  const operate = binary(i.mmx!);
  // Of the second operand only the low half counts, and no more is read.
  const bytes = i.name.startsWith('PUNPCKL') ? 4 : 8;
  const operands = bytes === 4 ? 'Pq,Qd' : 'Pq,Qq';
  return row(
    `NP ${i.encoding} /r`,
    i.name,
    operands,
    mmx((t) => {
      const { b } = t;
      const y = fromLow64(b, readQ(t, bytes));
      writeVector(t, t.reg, operate(b, fromLow64(b, readMm(t, t.reg)), y));
    }),
    i.options === SSE2 ? MMX : i.options,
  );
}

const shiftRegister = (s: ShiftOp): Translate =>
  mmx((t) => {
    const count = readQ(t);
    writeVector(t, t.reg, shiftByValue(t.b, s, fromLow64(t.b, readMm(t, t.reg)), count));
  });

const shiftImmediate = (s: ShiftOp): Translate =>
  mmx((t) => {
    const x = fromLow64(t.b, readMm(t, t.rm));
    writeVector(t, t.rm, shiftByConstant(t.b, s, x, imm8(t)));
  });

const palignr = mmx((t) => {
  const { b } = t;
  const y = fromLow64(b, readQ(t));
  const both = pick(b, y, fromLow64(b, readMm(t, t.reg)), 8, [0, 2]);
  writeVector(t, t.reg, alignBytes(b, zero(b), both, imm8(t)));
});

const pshufw = mmx((t) => {
  writeVector(t, t.reg, shuffleLowWords(t.b, fromLow64(t.b, readQ(t)), imm8(t)));
});

// --- Moves. ---

const movd = mmx((t) => {
  const size = t.bytes(1);
  const v = t.readRm(size);
  writeMm(t, t.reg, size === 8 ? v : t.b.extu(v));
});

const movdStore = mmx((t) => {
  const size = t.bytes(0);
  const v = readMm(t, t.reg);
  t.writeRm(size, size === 8 ? v : t.b.wrap(v));
});

const movq = mmx((t) => writeMm(t, t.reg, readQ(t)));

const movqStore = mmx((t) => {
  const v = readMm(t, t.reg);
  if (t.isRegister) writeMm(t, t.rm, v);
  else t.b.st64(t.address(8, true), v);
});

const pinsrw = mmx((t) => {
  const { b } = t;
  const v = t.isRegister ? t.low32(t.rm) : t.load(2, t.address(2, false));
  writeVector(t, t.reg, b.setlane16(fromLow64(b, readMm(t, t.reg)), v, imm8(t) & 3));
});

const pextrw = mmx((t) => {
  t.writeReg(t.reg, 4, t.b.lane16u(fromLow64(t.b, readMm(t, t.rm)), imm8(t) & 3));
});

const pmovmskb = mmx((t) => {
  t.writeReg(t.reg, 4, t.b.bitmask8x16(fromLow64(t.b, readMm(t, t.rm))));
});

const maskmovq = mmx((t) => {
  const { b } = t;
  const address = destinationOfMask(t, 8);
  const old = fromLow64(b, b.ld64w(address));
  const chosen = b.sar8x16(fromLow64(b, readMm(t, t.rm)), b.i32(7));
  b.st64(address, low64(b, b.bitselect(fromLow64(b, readMm(t, t.reg)), old, chosen)));
});

const emms: Translate = (t) => {
  if (!mmxReady(t)) return;
  requireNoError(t);
  t.fpu.forget();
  t.b.sts32(FTOP, t.b.i32(0));
  clearMarks(t);
  setTags(t, ALL_EMPTY);
};

// --- Between MMX and SSE registers. ---

const both = (translate: Translate): Translate => {
  const inner = mmx(translate);
  return (t) => {
    if (vectorReady(t)) inner(t);
  };
};

const movq2dq = both((t) => t.writeXmm(t.reg, fromLow64(t.b, readMm(t, t.rm))));
const movdq2q = both((t) => writeVector(t, t.reg, t.readXmm(t.rm)));

/** Conversions from MMX: with a memory operand MMX has no part in them. */
function fromIntegers(convert: (t: X86Translator, integers: Value) => void): Translate {
  const fromRegister = mmx((t) => convert(t, fromLow64(t.b, readMm(t, t.rm))));
  return (t) => {
    if (!vectorReady(t)) return;
    if (t.isRegister) fromRegister(t);
    else convert(t, t.readXmmRm(8));
  };
}

const cvtpi2ps = fromIntegers((t, integers) => {
  const { b } = t;
  const singles = low64(b, integersToF32(t, integers, 2));
  t.writeXmm(t.reg, setLow64(b, t.readXmm(t.reg), singles));
});

const cvtpi2pd = fromIntegers((t, integers) => t.writeXmm(t.reg, t.b.s32x4tof64x2(integers)));

const toIntegers32 = (truncating: boolean): Translate =>
  both((t) => {
    const rounding = truncating ? TRUNCATE : currentRounding(t);
    writeVector(t, t.reg, f32x4ToIntegers(t, operand(t, 'f32x4', t.readXmmRm(8)), rounding, 2));
  });

const toIntegers64 = (truncating: boolean): Translate =>
  both((t) => {
    const rounding = truncating ? TRUNCATE : currentRounding(t);
    writeVector(t, t.reg, f64x2ToIntegers(t, operand(t, 'f64x2', readAligned(t)), rounding));
  });

export const MMX_ROWS: readonly Row[] = [
  ...INTEGER_OPS.filter((i) => i.mmx !== null).map(integerRow),
  ...SHIFT_OPS.flatMap((s) => [
    row(`NP 0F ${s.opcode} /r`, s.name, 'Pq,Qq', shiftRegister(s), MMX),
    row(`NP 0F ${s.group} reg`, s.name, 'Nq,Ib', shiftImmediate(s), MMX),
  ]),
  row('NP 0F 6E /r', 'MOVD', 'Pq,Er', movd, MMX),
  row('NP 0F 7E /r', 'MOVD', 'Er,Pq', movdStore, MMX),
  row('NP 0F 6F /r', 'MOVQ', 'Pq,Qq', movq, MMX),
  row('NP 0F 7F /r', 'MOVQ', 'Qq,Pq', movqStore, MMX),
  row('NP 0F 77', 'EMMS', '', emms, MMX),
  row('NP 0F E7 /r mem', 'MOVNTQ', 'Mq,Pq', movqStore, SSE),
  row('NP 0F F7 /r reg', 'MASKMOVQ', 'Pq,Nq', maskmovq, SSE),
  row('NP 0F D7 /r reg', 'PMOVMSKB', 'Gd,Nq', pmovmskb, SSE),
  row('NP 0F C4 /r', 'PINSRW', 'Pq,Ew,Ib', pinsrw, SSE),
  row('NP 0F C5 /r reg', 'PEXTRW', 'Gd,Nq,Ib', pextrw, SSE),
  row('NP 0F 70 /r', 'PSHUFW', 'Pq,Qq,Ib', pshufw, SSE),
  row('NP 0F3A 0F /r', 'PALIGNR', 'Pq,Qq,Ib', palignr, SSSE3),
  row('F3 0F D6 /r reg', 'MOVQ2DQ', 'Vo,Nq', movq2dq, SSE2),
  row('F2 0F D6 /r reg', 'MOVDQ2Q', 'Pq,Uo', movdq2q, SSE2),
  row('NP 0F 2A /r', 'CVTPI2PS', 'Vo,Qq', cvtpi2ps, SSE),
  row('66 0F 2A /r', 'CVTPI2PD', 'Vo,Qq', cvtpi2pd, SSE2),
  row('NP 0F 2C /r', 'CVTTPS2PI', 'Pq,Wq', toIntegers32(true), SSE),
  row('NP 0F 2D /r', 'CVTPS2PI', 'Pq,Wq', toIntegers32(false), SSE),
  row('66 0F 2C /r', 'CVTTPD2PI', 'Pq,Wo', toIntegers64(true), SSE2),
  row('66 0F 2D /r', 'CVTPD2PI', 'Pq,Wo', toIntegers64(false), SSE2),
];

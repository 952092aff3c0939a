/**
 * SSE floating point: arithmetic, comparisons, conversions, rounding.
 *
 * These are the host's operations in round-to-nearest with all exceptions masked: the MXCSR
 * exception flags are not set. When MXCSR says otherwise, or the guest looks at the flags,
 * sse-exact.ts does arithmetic and finds the exceptions (Core.deriveFpuFlags says when).
 *
 * NaN results: x86 gives the first operand's NaN made quiet, else the second's, and a negative
 * quiet NaN for invalid operations. Wasm leaves the bits open; V8 on x86 hosts emits the same
 * instructions with the same operand order, so they agree there. Other hosts may differ in
 * the NaN's sign and payload.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import {
  SSE,
  SSE2,
  SSE3,
  SSE41,
  all32,
  all64,
  binaryRow,
  imm8,
  narrowRow,
  pick,
  readAligned,
  readF32,
  readF64,
  setLowF32,
  setLowF64,
  lowF32,
  lowF64,
  unaryRow,
  vector,
  zero,
} from './sse-common.ts';
import type { Binary, BinaryName } from './sse-common.ts';
import {
  addSubtract,
  fromInteger,
  inspect,
  inspectConversion,
  inspectRounding,
  isExact,
  narrow,
  operand,
  packed,
  packedOf,
  raise,
  scalar,
  scalarOperand,
  splat,
} from './sse-exact.ts';
import type { Arithmetic, Inspection, PackedFormat } from './sse-exact.ts';
import { MXCSR } from './state.ts';
import { row } from './tables.ts';
import type { Row, RowOptions, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

type Operation = (t: X86Translator, x: Value, y: Value) => Value;

/** reg = op(reg, rm) where MXCSR matters. */
function packedRow(encoding: string, name: string, op: Operation, options: RowOptions): Row {
  return row(
    encoding,
    name,
    'Vo,Wo',
    vector((t) => {
      const y = readAligned(t);
      t.writeXmm(t.reg, op(t, t.readXmm(t.first), y));
    }),
    options,
  );
}

/** reg.low = op(reg.low, rm.low). */
const scalar32 = (op: Operation): Translate =>
  vector((t) => {
    const y = readF32(t);
    const x = t.readXmm(t.first);
    t.writeXmm(t.reg, setLowF32(t.b, x, op(t, lowF32(t.b, x), y)));
  });

const scalar64 = (op: Operation): Translate =>
  vector((t) => {
    const y = readF64(t);
    const x = t.readXmm(t.first);
    t.writeXmm(t.reg, setLowF64(t.b, x, op(t, lowF64(t.b, x), y)));
  });

function arithmetic(opcode: string, name: string, op: Arithmetic): Row[] {
  // The square root has one operand, rm.
  const one = op === 'sqrt';
  const whole =
    (format: PackedFormat): Operation =>
    (t, x, y) =>
      packed(t, op, format, one ? y : x, y);
  const low =
    (format: 'f32' | 'f64'): Operation =>
    (t, x, y) =>
      scalar(t, op, format, one ? y : x, y);
  return [
    packedRow(`NP 0F ${opcode} /r`, `${name}PS`, whole('f32x4'), SSE),
    packedRow(`66 0F ${opcode} /r`, `${name}PD`, whole('f64x2'), SSE2),
    row(`F3 0F ${opcode} /r`, `${name}SS`, 'Vo,Wd', scalar32(low('f32')), SSE),
    row(`F2 0F ${opcode} /r`, `${name}SD`, 'Vo,Wq', scalar64(low('f64')), SSE2),
  ];
}

function inspectScalars(t: X86Translator, format: 'f32' | 'f64', operands: Value[], how: Inspection): void {
  if (isExact(t))
    inspect(
      t,
      packedOf(format),
      operands.map((x) => splat(t.b, format, x)),
      how,
    );
}

/** MIN and MAX give y when either is a NaN or both are zeros: x < y ? x : y. */
function extremes(opcode: string, name: string, op: 'min' | 'max'): Row[] {
  const how = op === 'min' ? 'lt' : 'gt';
  const inspection = { quiet: true, denormals: true };
  const whole =
    (format: PackedFormat): Operation =>
    (t, x, y) => {
      const [first, second] = [operand(t, format, x), operand(t, format, y)];
      inspect(t, format, [first, second], inspection);
      return t.b[`p${op}${format}`](second, first);
    };
  const low =
    (format: 'f32' | 'f64'): Operation =>
    (t, x, y) => {
      const first = scalarOperand(t, format, x);
      const second = scalarOperand(t, format, y);
      inspectScalars(t, format, [first, second], inspection);
      return t.b[`select${format}`](t.b[`${how}${format}`](first, second), first, second);
    };
  return [
    packedRow(`NP 0F ${opcode} /r`, `${name}PS`, whole('f32x4'), SSE),
    packedRow(`66 0F ${opcode} /r`, `${name}PD`, whole('f64x2'), SSE2),
    row(`F3 0F ${opcode} /r`, `${name}SS`, 'Vo,Wd', scalar32(low('f32')), SSE),
    row(`F2 0F ${opcode} /r`, `${name}SD`, 'Vo,Wq', scalar64(low('f64')), SSE2),
  ];
}

const ONE_BITS = 0x3f800000;

/** Denormals become zeros of their sign. */
function flushDenormals(b: Builder, x: Value): Value {
  const tiny = b.eq32x4(b.andv(x, all32(b, 0x7f800000)), zero(b));
  return b.andnotv(x, b.andv(tiny, all32(b, 0x7fffffff)));
}

// RCP and RSQRT have a relative error of at most 1.5 * 2^-12, so that the exact quotient
// will do. Denormal operands and results are zeros whatever MXCSR says.

const reciprocal = (b: Builder, x: Value): Value => flushDenormals(b, b.divf32x4(all32(b, ONE_BITS), flushDenormals(b, x)));

const reciprocalRoot = (b: Builder, x: Value): Value => b.divf32x4(all32(b, ONE_BITS), b.sqrtf32x4(flushDenormals(b, x)));

const lowOf =
  (op: (b: Builder, x: Value) => Value) =>
  (t: X86Translator, _x: Value, y: Value): Value =>
    t.b.lanef32(op(t.b, t.b.splatf32(y)), 0);

const reciprocals: readonly Row[] = [
  unaryRow('NP 0F 53 /r', 'RCPPS', reciprocal, SSE),
  row('F3 0F 53 /r', 'RCPSS', 'Vo,Wd', scalar32(lowOf(reciprocal)), SSE),
  unaryRow('NP 0F 52 /r', 'RSQRTPS', reciprocalRoot, SSE),
  row('F3 0F 52 /r', 'RSQRTSS', 'Vo,Wd', scalar32(lowOf(reciprocalRoot)), SSE),
];

function logic(opcode: string, name: string, op: Binary | BinaryName): Row[] {
  return [binaryRow(`NP 0F ${opcode} /r`, `${name}PS`, op, SSE), binaryRow(`66 0F ${opcode} /r`, `${name}PD`, op, SSE2)];
}

// --- Comparisons. ---

/** The immediate: three bits, in VEX forms five. */
const predicateOf = (t: X86Translator): number => imm8(t) & (t.isVex ? 31 : 7);

/** LT, LE and their opposites complain of quiet NaNs; bit 4 turns that round. */
const comparison = (predicate: number): Inspection => ({
  quiet: (((predicate + 1) >> 1) & 1) !== predicate >> 4,
  denormals: true,
});

/** Predicates 0 to 3, and in their stead from 8 on: EQ_UQ NGE NGT FALSE. From 4 on the opposites. */
export function compareVectors(b: Builder, format: PackedFormat, predicate: number, x: Value, y: Value): Value {
  // Bit 4 only says which of the predicates complain of quiet NaNs.
  const unordered = (predicate & 8) !== 0;
  const value = unordered ? compareUnordered(b, format, predicate & 3, x, y) : comparePositive(b, format, predicate & 3, x, y);
  return predicate & 4 ? b.notv(value) : value;
}

function comparePositive(b: Builder, format: PackedFormat, predicate: number, x: Value, y: Value): Value {
  if (predicate === 0) return b[`eq${format}`](x, y);
  if (predicate === 1) return b[`lt${format}`](x, y);
  if (predicate === 2) return b[`le${format}`](x, y);
  return b.orv(b[`ne${format}`](x, x), b[`ne${format}`](y, y));
}

/** True for NaNs, too; the opposites are EQ_OQ's counterparts NEQ_OQ, GE, GT, TRUE. */
function compareUnordered(b: Builder, format: PackedFormat, predicate: number, x: Value, y: Value): Value {
  if (predicate === 0) return b.notv(b.orv(b[`lt${format}`](x, y), b[`gt${format}`](x, y)));
  if (predicate === 1) return b.notv(b[`ge${format}`](x, y));
  if (predicate === 2) return b.notv(b[`gt${format}`](x, y));
  return zero(b);
}

const comparePacked = (format: PackedFormat): Translate =>
  vector((t) => {
    const y = operand(t, format, readAligned(t));
    const x = operand(t, format, t.readXmm(t.first));
    inspect(t, format, [x, y], comparison(predicateOf(t)));
    t.writeXmm(t.reg, compareVectors(t.b, format, predicateOf(t), x, y));
  });

const cmpss = vector((t) => {
  const { b } = t;
  const y = operand(t, 'f32x4', b.splatf32(readF32(t)));
  const x = t.readXmm(t.first);
  const first = operand(t, 'f32x4', x);
  inspect(t, 'f32x4', [first, y], { ...comparison(predicateOf(t)), lanes: 1 });
  const mask = compareVectors(b, 'f32x4', predicateOf(t), first, y);
  t.writeXmm(t.reg, setLowF32(b, x, b.lanef32(mask, 0)));
});

const cmpsd = vector((t) => {
  const { b } = t;
  const y = operand(t, 'f64x2', b.splatf64(readF64(t)));
  const x = t.readXmm(t.first);
  const first = operand(t, 'f64x2', x);
  inspect(t, 'f64x2', [first, y], { ...comparison(predicateOf(t)), lanes: 1 });
  const mask = compareVectors(b, 'f64x2', predicateOf(t), first, y);
  t.writeXmm(t.reg, setLowF64(b, x, b.lanef64(mask, 0)));
});

/** @param quiet complains of quiet NaNs */
const comiss = (quiet: boolean): Translate =>
  vector((t) => {
    const { b } = t;
    const y = scalarOperand(t, 'f32', readF32(t));
    const x = scalarOperand(t, 'f32', lowF32(b, t.readXmm(t.reg)));
    inspectScalars(t, 'f32', [x, y], { quiet, denormals: true });
    t.prepareWrite();
    t.cc.setUcomis(b.f32tof64(x), b.f32tof64(y));
  });

const comisd = (quiet: boolean): Translate =>
  vector((t) => {
    const y = scalarOperand(t, 'f64', readF64(t));
    const x = scalarOperand(t, 'f64', lowF64(t.b, t.readXmm(t.reg)));
    inspectScalars(t, 'f64', [x, y], { quiet, denormals: true });
    t.prepareWrite();
    t.cc.setUcomis(x, y);
  });

const comparisons: readonly Row[] = [
  row('NP 0F C2 /r', 'CMPPS', 'Vo,Wo,Ib', comparePacked('f32x4'), SSE),
  row('66 0F C2 /r', 'CMPPD', 'Vo,Wo,Ib', comparePacked('f64x2'), SSE2),
  row('F3 0F C2 /r', 'CMPSS', 'Vo,Wd,Ib', cmpss, SSE),
  row('F2 0F C2 /r', 'CMPSD', 'Vo,Wq,Ib', cmpsd, SSE2),
  row('NP 0F 2E /r', 'UCOMISS', 'Vd,Wd', comiss(false), SSE),
  row('66 0F 2E /r', 'UCOMISD', 'Vq,Wq', comisd(false), SSE2),
  row('NP 0F 2F /r', 'COMISS', 'Vd,Wd', comiss(true), SSE),
  row('66 0F 2F /r', 'COMISD', 'Vq,Wq', comisd(true), SSE2),
];

// --- Rounding to integral values. ---

const NEAREST = 0;
export const TRUNCATE = 3;
/** MXCSR's rounding control, known only at run time. */
const BY_MXCSR = 4;

type Format = 'f32' | 'f64' | 'f32x4' | 'f64x2';
const ROUNDINGS = ['nearest', 'floor', 'ceil', 'trunc'] as const;

export function roundTo(b: Builder, format: Format, x: Value, how: number): Value {
  if (how < BY_MXCSR) return b[`${ROUNDINGS[how]!}${format}`](x);
  const mode = b.and32(b.shr32(b.lds32(MXCSR), b.i32(13)), b.i32(3));
  const choose = format === 'f32' ? 'selectf32' : format === 'f64' ? 'selectf64' : 'selectv';
  let result = b[`nearest${format}`](x);
  for (let i = 1; i < 4; i++) {
    result = b[choose](b.eq32(mode, b.i32(i)), b[`${ROUNDINGS[i]!}${format}`](x), result);
  }
  return result;
}

/** How a conversion rounds that is not a truncating one. */
export const currentRounding = (t: X86Translator): number => (isExact(t) ? BY_MXCSR : NEAREST);

/** Rounding from the immediate of ROUNDxx: bit 2 = MXCSR decides. */
function roundingOf(t: X86Translator): number {
  const immediate = imm8(t);
  return immediate & 4 ? currentRounding(t) : immediate & 3;
}

/** ROUNDxx: bit 3 of the immediate keeps it from being inexact. */
function inspectRounded(t: X86Translator, format: PackedFormat, x: Value, rounded: Value): void {
  inspect(t, format, [x], {});
  if (!(imm8(t) & 8)) inspectRounding(t, format, x, rounded);
}

const roundScalar = (format: 'f32' | 'f64'): Translate =>
  vector((t) => {
    const { b } = t;
    const y = scalarOperand(t, format, format === 'f32' ? readF32(t) : readF64(t));
    const rounded = roundTo(b, format, y, roundingOf(t));
    if (isExact(t)) inspectRounded(t, packedOf(format), splat(b, format, y), splat(b, format, rounded));
    const x = t.readXmm(t.first);
    t.writeXmm(t.reg, format === 'f32' ? setLowF32(b, x, rounded) : setLowF64(b, x, rounded));
  });

const roundPacked = (format: 'f32x4' | 'f64x2'): Translate =>
  vector((t) => {
    const x = operand(t, format, readAligned(t));
    const rounded = roundTo(t.b, format, x, roundingOf(t));
    inspectRounded(t, format, x, rounded);
    t.writeXmm(t.reg, rounded);
  });

const roundings: readonly Row[] = [
  row('66 0F3A 08 /r', 'ROUNDPS', 'Vo,Wo,Ib', roundPacked('f32x4'), SSE41),
  row('66 0F3A 09 /r', 'ROUNDPD', 'Vo,Wo,Ib', roundPacked('f64x2'), SSE41),
  row('66 0F3A 0A /r', 'ROUNDSS', 'Vo,Wd,Ib', roundScalar('f32'), SSE41),
  row('66 0F3A 0B /r', 'ROUNDSD', 'Vo,Wq,Ib', roundScalar('f64'), SSE41),
];

// --- Conversions. NaNs and what is out of range become the "integer indefinite", 80...0. ---

const TWO_31_F32 = 0x4f000000;
const TWO_63_F32 = 0x5f000000;
const TWO_31_F64 = 0x41e00000;
const TWO_63_F64 = 0x43e00000;

/** The saturating operation already gives the indefinite when x is too small. */
function floatToInteger(t: X86Translator, format: 'f32' | 'f64', size: number, original: Value, x: Value): Value {
  const { b } = t;
  const wide = size === 8;
  const limit =
    format === 'f32' ? b.f32bits(b.i32(wide ? TWO_63_F32 : TWO_31_F32)) : b.f64bits(b.i64(0, wide ? TWO_63_F64 : TWO_31_F64));
  const fits = b[`lt${format}`](x, limit);
  if (isExact(t)) inspectInteger(t, format, original, x, b.and32(fits, b[`ge${format}`](x, b[`neg${format}`](limit))));
  if (wide) return b.select64(fits, b[`${format}tos64`](x), b.i64(0, 0x80000000 | 0));
  return b.select32(fits, b[`${format}tos32`](x), b.i32(0x80000000 | 0));
}

/** @param fits an i32 of 0 or 1 */
function inspectInteger(t: X86Translator, format: 'f32' | 'f64', x: Value, rounded: Value, fits: Value): void {
  const { b } = t;
  const inexact = b.shl32(b.and32(fits, b[`ne${format}`](x, rounded)), b.i32(5));
  raise(t, b.or32(b.xor32(fits, b.i32(1)), inexact));
  t.prepareWrite();
}

const toInteger = (format: 'f32' | 'f64', truncating: boolean): Translate =>
  vector((t) => {
    const { b } = t;
    const x = scalarOperand(t, format, format === 'f32' ? readF32(t) : readF64(t));
    // Truncation is part of the conversion, but its inexactness shows by the rounded number.
    const how = truncating ? TRUNCATE : currentRounding(t);
    const rounded = truncating && !isExact(t) ? x : roundTo(b, format, x, how);
    const size = t.bytes(0);
    t.writeReg(t.reg, size, floatToInteger(t, format, size, x, rounded));
  });

const fromIntegerRow = (format: 'f32' | 'f64'): Translate =>
  vector((t) => {
    const { b } = t;
    const size = t.secondBytes;
    const converted = fromInteger(t, format, size, t.readRm(size));
    const x = t.readXmm(t.first);
    t.writeXmm(t.reg, format === 'f32' ? setLowF32(b, x, converted) : setLowF64(b, x, converted));
  });

/** @param lanes that count, for exceptions */
export function f32x4ToIntegers(t: X86Translator, x: Value, rounding: number, lanes = 4): Value {
  const { b } = t;
  const rounded = rounding === TRUNCATE && !isExact(t) ? x : roundTo(b, 'f32x4', x, rounding);
  const fits = b.ltf32x4(rounded, all32(b, TWO_31_F32));
  if (isExact(t)) {
    const both = b.andv(fits, b.gef32x4(rounded, all32(b, TWO_31_F32 | (1 << 31))));
    inspectConversion(t, 'f32x4', x, rounded, both, lanes);
  }
  return b.bitselect(b.f32x4tos32x4(rounded), all32(b, 0x80000000 | 0), fits);
}

/** Two results and zeros above. */
export function f64x2ToIntegers(t: X86Translator, x: Value, rounding: number): Value {
  const { b } = t;
  const rounded = rounding === TRUNCATE && !isExact(t) ? x : roundTo(b, 'f64x2', x, rounding);
  const fits = b.ltf64x2(rounded, all64(b, 0, TWO_31_F64));
  if (isExact(t)) {
    const both = b.andv(fits, b.gef64x2(rounded, all64(b, 0, TWO_31_F64 | (1 << 31))));
    inspectConversion(t, 'f64x2', x, rounded, both, 2);
  }
  const indefinite = b.v128(0x80000000 | 0, 0x80000000 | 0, 0, 0);
  const chosen = pick(b, fits, all32(b, -1), 4, [0, 2, 4, 5]);
  return b.bitselect(b.f64x2tos32x4(rounded), indefinite, chosen);
}

const packedToIntegers = (format: PackedFormat, truncating: boolean): Translate =>
  vector((t) => {
    const x = operand(t, format, readAligned(t));
    const convert = format === 'f32x4' ? f32x4ToIntegers : f64x2ToIntegers;
    t.writeXmm(t.reg, convert(t, x, truncating ? TRUNCATE : currentRounding(t)));
  });

const cvtsd2ss = vector((t) => {
  const low = narrow(t, readF64(t));
  t.writeXmm(t.reg, setLowF32(t.b, t.readXmm(t.first), low));
});

const cvtss2sd = vector((t) => {
  const x = scalarOperand(t, 'f32', readF32(t));
  inspectScalars(t, 'f32', [x], { denormals: true });
  const low = t.b.f32tof64(x);
  t.writeXmm(t.reg, setLowF64(t.b, t.readXmm(t.first), low));
});

/** The low two singles as doubles. */
export function widenPair(t: X86Translator, singles: Value): Value {
  const x = operand(t, 'f32x4', singles);
  inspect(t, 'f32x4', [x], { denormals: true, lanes: 2 });
  return t.b.f32x4tof64x2(x);
}

const cvtps2pd = vector((t) => t.writeXmm(t.reg, widenPair(t, t.readXmmRm(8))));

/** Two doubles as singles, zeros above. */
export function narrowPair(t: X86Translator, x: Value): Value {
  const { b } = t;
  let result = b.f64x2tof32x4(x);
  if (!isExact(t)) return result;
  for (const i of [0, 1]) result = b.setlanef32(result, narrow(t, b.lanef64(x, i)), i);
  return result;
}

const cvtpd2ps = vector((t) => t.writeXmm(t.reg, narrowPair(t, readAligned(t))));

/** Of four integers, in an i32x4, as many as the format has room for. */
export function integersToF32(t: X86Translator, x: Value, count: number): Value {
  const { b } = t;
  let result = b.s32x4tof32x4(x);
  if (!isExact(t)) return result;
  for (let i = 0; i < count; i++) {
    result = b.setlanef32(result, fromInteger(t, 'f32', 4, b.lane32(x, i)), i);
  }
  return result;
}

const cvtdq2ps = vector((t) => t.writeXmm(t.reg, integersToF32(t, readAligned(t), 4)));

const conversions: readonly Row[] = [
  row('F2 0F 5A /r', 'CVTSD2SS', 'Vo,Wq', cvtsd2ss, SSE2),
  row('F3 0F 5A /r', 'CVTSS2SD', 'Vo,Wd', cvtss2sd, SSE2),
  row('NP 0F 5A /r', 'CVTPS2PD', 'Vo,Wq', cvtps2pd, SSE2),
  row('66 0F 5A /r', 'CVTPD2PS', 'Vo,Wo', cvtpd2ps, SSE2),
  row('NP 0F 5B /r', 'CVTDQ2PS', 'Vo,Wo', cvtdq2ps, SSE2),
  narrowRow('F3 0F E6 /r', 'CVTDQ2PD', 8, 's32x4tof64x2', SSE2),
  row('66 0F 5B /r', 'CVTPS2DQ', 'Vo,Wo', packedToIntegers('f32x4', false), SSE2),
  row('F3 0F 5B /r', 'CVTTPS2DQ', 'Vo,Wo', packedToIntegers('f32x4', true), SSE2),
  row('F2 0F E6 /r', 'CVTPD2DQ', 'Vo,Wo', packedToIntegers('f64x2', false), SSE2),
  row('66 0F E6 /r', 'CVTTPD2DQ', 'Vo,Wo', packedToIntegers('f64x2', true), SSE2),
  row('F3 0F 2A /r', 'CVTSI2SS', 'Vo,Er', fromIntegerRow('f32'), SSE),
  row('F2 0F 2A /r', 'CVTSI2SD', 'Vo,Er', fromIntegerRow('f64'), SSE2),
  row('F3 0F 2C /r', 'CVTTSS2SI', 'Gr,Wd', toInteger('f32', true), SSE),
  row('F2 0F 2C /r', 'CVTTSD2SI', 'Gr,Wq', toInteger('f64', true), SSE2),
  row('F3 0F 2D /r', 'CVTSS2SI', 'Gr,Wd', toInteger('f32', false), SSE),
  row('F2 0F 2D /r', 'CVTSD2SI', 'Gr,Wq', toInteger('f64', false), SSE2),
];

// --- SSE3 and SSE4.1: across lanes. ---

const horizontal =
  (op: 'add' | 'sub', format: PackedFormat): Operation =>
  (t, x, y) => {
    const bytes = format === 'f32x4' ? 4 : 8;
    const even = Array.from({ length: 16 / bytes }, (_, i) => 2 * i);
    const first = pick(t.b, x, y, bytes, even);
    return packed(
      t,
      op,
      format,
      first,
      pick(
        t.b,
        x,
        y,
        bytes,
        even.map((i) => i + 1),
      ),
    );
  };

/** A mask of whole lanes from the bits of a number. */
export function laneMask(b: Builder, bits: number, lanes: 2 | 4): Value {
  const word = (i: number): number => ((bits >> Math.floor((i * lanes) / 4)) & 1 ? -1 : 0);
  return b.v128(word(0), word(1), word(2), word(3));
}

/**
 * DPPS and DPPD on each pair of vectors. The immediate: high half = products that count, low half =
 * lanes that get the sum. Each step's exceptions are settled before the next one.
 */
export function dotProduct(t: X86Translator, format: PackedFormat, xs: readonly Value[], ys: readonly Value[]): Value[] {
  const { b } = t;
  const lanes = format === 'f32x4' ? 4 : 2;
  const mask = laneMask(b, imm8(t) >> 4, lanes);
  // Products that do not count raise nothing.
  const factor = (v: Value): Value => (isExact(t) ? b.andv(v, mask) : v);
  let sums = xs.map((x, i) => b.andv(packed(t, 'mul', format, factor(x), factor(ys[i]!)), mask));
  const addEach = (sum: (v: Value) => Value): void => {
    t.prepareWrite();
    sums = sums.map(sum);
  };
  // The order decides which NaN comes out: the neighbour plus the lane itself, then plus the other half.
  if (lanes === 4) addEach((v) => packed(t, 'add', format, pick(b, v, v, 4, [1, 0, 3, 2]), v));
  addEach((v) => packed(t, 'add', format, v, pick(b, v, v, 8, [1, 0])));
  return sums.map((v) => b.andv(v, laneMask(b, imm8(t), lanes)));
}

const dotProductRow = (format: PackedFormat): Translate =>
  vector((t) => {
    const y = readAligned(t);
    t.writeXmm(t.reg, dotProduct(t, format, [t.readXmm(t.first)], [y])[0]!);
  });

const acrossLanes: readonly Row[] = [
  packedRow('F2 0F D0 /r', 'ADDSUBPS', (t, x, y) => addSubtract(t, 'f32x4', x, y), SSE3),
  packedRow('66 0F D0 /r', 'ADDSUBPD', (t, x, y) => addSubtract(t, 'f64x2', x, y), SSE3),
  packedRow('F2 0F 7C /r', 'HADDPS', horizontal('add', 'f32x4'), SSE3),
  packedRow('66 0F 7C /r', 'HADDPD', horizontal('add', 'f64x2'), SSE3),
  packedRow('F2 0F 7D /r', 'HSUBPS', horizontal('sub', 'f32x4'), SSE3),
  packedRow('66 0F 7D /r', 'HSUBPD', horizontal('sub', 'f64x2'), SSE3),
  row('66 0F3A 40 /r', 'DPPS', 'Vo,Wo,Ib', dotProductRow('f32x4'), SSE41),
  row('66 0F3A 41 /r', 'DPPD', 'Vo,Wo,Ib', dotProductRow('f64x2'), SSE41),
];

export const SSE_FLOAT_ROWS: readonly Row[] = [
  ...arithmetic('58', 'ADD', 'add'),
  ...arithmetic('59', 'MUL', 'mul'),
  ...arithmetic('5C', 'SUB', 'sub'),
  ...arithmetic('5E', 'DIV', 'div'),
  ...extremes('5D', 'MIN', 'min'),
  ...extremes('5F', 'MAX', 'max'),
  ...arithmetic('51', 'SQRT', 'sqrt'),
  ...reciprocals,
  ...logic('54', 'AND', 'andv'),
  ...logic('55', 'ANDN', (b, x, y) => b.andnotv(y, x)),
  ...logic('56', 'OR', 'orv'),
  ...logic('57', 'XOR', 'xorv'),
  ...comparisons,
  ...roundings,
  ...conversions,
  ...acrossLanes,
];

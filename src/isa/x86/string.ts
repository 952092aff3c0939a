/** String instructions: one element inline, repetitions as one bulk operation of the system code. */
import type { Value } from '../../ir/builder.ts';
import { zeroExtend } from './flags.ts';
import type { Size } from './flags.ts';
import { LEAVE_INS, LEAVE_OUTS, LEAVE_REP, LEAVE_REP_HERE } from './leave.ts';
import { ES, G_EFLAGS, OP0, OP1, DF, DS } from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const RAX = 0;
const RCX = 1;
const RSI = 6;
const RDI = 7;

const KIND_MOVS = 0;
const KIND_STOS = 1;
const KIND_LODS = 2;
const KIND_CMPS = 3;
const KIND_SCAS = 4;

/** Element size: even opcodes work on bytes. */
const elementSize = (t: X86Translator): Size => (t.opcode & 1 ? t.opSize : 1);

/** Address size as leave reasons encode it. */
const addressCode = (t: X86Translator): number => (t.addrSize === 8 ? 3 : t.addrSize === 4 ? 2 : 1);

const sourceSegment = (t: X86Translator): number => (t.override >= 0 ? t.override : DS);

const source = (t: X86Translator, size: Size): Value => t.linear(sourceSegment(t), t.readReg(RSI, t.addrSize), size, false);

const destination = (t: X86Translator, size: Size, write: boolean): Value =>
  t.linear(ES, t.readReg(RDI, t.addrSize), size, write);

/** Element size, negative when DF is set; an i32. */
function stepOf(t: X86Translator, size: Size): Value {
  const { b } = t;
  // DF is bit 10: down to bit 1 of a number that is then scaled by the element size.
  const twice = b.and32(b.shr32(b.get(G_EFLAGS), b.i32(9)), b.i32(DF >> 9));
  return b.mul32(b.sub32(b.i32(1), twice), b.i32(size));
}

function advance(t: X86Translator, size: Size, ...registers: number[]): void {
  const step = stepOf(t, size);
  const { addrSize } = t;
  const wide = addrSize === 8 ? t.b.exts(step) : step;
  for (const n of registers) t.writeReg(n, addrSize, t.add(addrSize, t.readReg(n, addrSize), wide));
}

function movs(t: X86Translator, size: Size): void {
  const v = t.load(size, source(t, size));
  t.store(size, destination(t, size, true), v);
  advance(t, size, RSI, RDI);
}

function stos(t: X86Translator, size: Size): void {
  t.store(size, destination(t, size, true), t.readRegRaw(RAX, size));
  advance(t, size, RDI);
}

function lods(t: X86Translator, size: Size): void {
  const v = t.load(size, source(t, size));
  t.writeReg(RAX, size, v);
  advance(t, size, RSI);
}

function cmps(t: X86Translator, size: Size): void {
  // Where both are missing, processors fault at the second operand.
  const y = t.load(size, destination(t, size, false));
  const x = t.load(size, source(t, size));
  advance(t, size, RSI, RDI);
  t.cc.setSub(size, x, y);
}

function scas(t: X86Translator, size: Size): void {
  const y = t.load(size, destination(t, size, false));
  advance(t, size, RDI);
  t.cc.setSub(size, t.readRegRaw(RAX, size), y);
}

function repeated(t: X86Translator, kind: number, size: Size): void {
  t.b.sts64(OP0, t.baseOf(sourceSegment(t)));
  t.b.sts64(OP1, t.baseOf(ES));
  const repne = t.rep === 0xf2 ? 1 << 11 : 0;
  const argument = (kind << 8) | repne | (addressCode(t) << 12) | (sourceSegment(t) << 14);
  const inline = t.addrSize === 8 && !t.singleStep && (kind === KIND_MOVS || kind === KIND_STOS);
  if (inline) repeatedWithinPage(t, kind, size, argument);
  else t.leaveWith(LEAVE_REP, argument, size);
}

/** REP MOVS and STOS upwards, within pages that the TLB holds, need no system code. */
function repeatedWithinPage(t: X86Translator, kind: number, size: Size, argument: number): void {
  const { b } = t;
  const count = t.readReg(RCX, 8);
  const bytes = b.shl64(count, b.i64(Math.log2(size)));
  const down = b.and32(b.get(G_EFLAGS), b.i32(DF));
  let fits = b.and32(b.leu64(count, b.i64(4096)), b.eqz32(down));
  const value = kind === KIND_STOS ? t.readReg(RAX, size) : -1;
  // Only bytes can be filled with anything but zero.
  if (kind === KIND_STOS && size > 1) fits = b.and32(fits, size === 8 ? b.eqz64(value) : b.eqz32(zeroExtend(b, size, value)));
  const length = b.select64(fits, bytes, b.i64(-1));
  const to = destination(t, size, true);
  const done =
    kind === KIND_MOVS ? b.bulkcopy(to, source(t, size), length) : b.bulkfill(to, length, size === 1 ? value : b.i32(0));
  b.leaveIf(b.eqz32(done), LEAVE_REP_HERE, t.leaveArgument(argument, size));
  t.writeReg(RDI, 8, b.add64(t.readReg(RDI, 8), bytes));
  if (kind === KIND_MOVS) t.writeReg(RSI, 8, b.add64(t.readReg(RSI, 8), bytes));
  t.writeReg(RCX, 8, b.i64(0));
}

function stringOp(kind: number, once: (t: X86Translator, size: Size) => void): Translate {
  return (t) => {
    const size = elementSize(t);
    if (t.rep !== 0) repeated(t, kind, size);
    else once(t, size);
  };
}

/** INS and OUTS: port I/O has 32 bits at most. */
function portString(reason: number): Translate {
  return (t) => {
    const segment = reason === LEAVE_OUTS ? sourceSegment(t) : ES;
    t.b.sts64(OP1, t.baseOf(segment));
    const rep = t.rep !== 0 ? 1 << 8 : 0;
    t.leaveWith(reason, rep | (addressCode(t) << 9) | (segment << 11), Math.min(elementSize(t), 4));
  };
}

const pair = (opcode: number, name: string, translate: Translate): Row[] =>
  ['B', ''].map((suffix, i) => row((opcode + i).toString(16), name + suffix, '', translate));

export const STRING_ROWS: readonly Row[] = [
  ...pair(0xa4, 'MOVS', stringOp(KIND_MOVS, movs)),
  ...pair(0xa6, 'CMPS', stringOp(KIND_CMPS, cmps)),
  ...pair(0xaa, 'STOS', stringOp(KIND_STOS, stos)),
  ...pair(0xac, 'LODS', stringOp(KIND_LODS, lods)),
  ...pair(0xae, 'SCAS', stringOp(KIND_SCAS, scas)),
  ...pair(0x6c, 'INS', portString(LEAVE_INS)),
  ...pair(0x6e, 'OUTS', portString(LEAVE_OUTS)),
];

/** Data movement: MOV and its kin, LEA, the stack, conversions of width. */
import type { Value } from '../../ir/builder.ts';
import { LEAVE_ENTER, LEAVE_LOAD_FAR, LEAVE_LOAD_SEG, LEAVE_LOAD_SEG_HERE } from './leave.ts';
import {
  BF_SEG_CHECK,
  CS,
  DS,
  ES,
  FS,
  G,
  GS,
  OP0,
  OP1,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_NULL,
  SEG_SELECTOR,
  SEG_SIZE,
  SS,
} from './state.ts';
import { row } from './tables.ts';
import type { Row } from './tables.ts';
import type { X86Translator } from './translator.ts';

const RSP = 4;
const RBP = 5;

const mov = (t: X86Translator): void => t.write(0, t.readRaw(1));

/** A load whose result is extended to operand 0's size. */
function movExtend(t: X86Translator, signed: boolean): void {
  const { size } = t;
  const from = t.bytes(1);
  let v = t.readRaw(1);
  if (from < 4) v = signed ? t.sext(from, v) : t.zext(from, v);
  if (size === 8 && from < 8) v = signed ? t.b.exts(v) : t.b.extu(v);
  t.write(0, v);
}
const movzx = (t: X86Translator): void => movExtend(t, false);
const movsx = (t: X86Translator): void => movExtend(t, true);

const movsxd = (t: X86Translator): void => {
  if (t.size !== 8) return t.write(0, t.readRaw(1));
  movExtend(t, true);
};

function byteSwap(t: X86Translator, size: number, v: Value): Value {
  const { b } = t;
  if (size === 8) return b.bswap64(v);
  const swapped = b.bswap32(v);
  return size === 4 ? swapped : b.shr32(swapped, b.i32(16));
}

const movbe = (t: X86Translator): void => t.write(0, byteSwap(t, t.size, t.readRaw(1)));

/** BSWAP of a 16-bit register is undefined; processors give 0. */
const bswap = (t: X86Translator): void => {
  const { size } = t;
  t.write(0, size === 2 ? t.b.i32(0) : byteSwap(t, size, t.readRaw(0)));
};

const lea = (t: X86Translator): void => {
  const { b, size } = t;
  const offset = t.effectiveOffset();
  if (t.addrSize === 8) t.write(0, size === 8 ? offset : b.wrap(offset));
  else t.write(0, size === 8 ? b.extu(offset) : offset);
};

const xchg = (t: X86Translator): void => {
  const y = t.readRaw(1);
  const x = t.readForWrite(0);
  t.write(0, y);
  t.write(1, x);
};

/** 90 with a REX.B prefix is XCHG r8,rAX; else it does nothing, not even clear the upper half. */
const nopOrXchg = (t: X86Translator): void => {
  if (t.extB !== 0) xchg(t);
};

// --- Stack. ---

const push = (t: X86Translator): void => t.push(t.opSize, t.readRaw(0));

const pushImmediate = (t: X86Translator): void => t.push(t.opSize, t.constant(t.opSize, t.immediate(), t.immediate() >> 31));

const popRegister = (t: X86Translator): void => {
  const size = t.opSize;
  const v = t.peek(size);
  t.setStackPointer(t.stackOffset(size));
  t.write(0, v);
};

/** The address of POP's memory operand is computed with the stack pointer after the pop. */
const popRm = (t: X86Translator): void => {
  if (t.isRegister) return popRegister(t);
  const { b } = t;
  const size = t.opSize;
  const v = t.peek(size);
  const usesSp = t.base === RSP;
  const correction = usesSp ? t.constant(t.addrSize, size) : -1;
  const address = t.linear(t.segment, t.effectiveOffset(correction), size, true);
  if (size === 8) b.st64(address, v);
  else t.store(size, address, v);
  t.setStackPointer(t.stackOffset(size));
};

const pusha = (t: X86Translator): void => {
  const size = t.opSize;
  let offset: Value = -1;
  for (let n = 0; n < 8; n++) {
    offset = t.storeBelow(size, t.readRegRaw(n, size), size * (n + 1));
  }
  t.setStackPointer(offset);
};

const popa = (t: X86Translator): void => {
  const size = t.opSize;
  const values = Array.from({ length: 8 }, (_, i) => (i === 3 ? -1 : t.peek(size, size * i)));
  const top = t.stackOffset(size * 8);
  values.forEach((v, i) => {
    if (v >= 0) t.writeReg(7 - i, size, v);
  });
  t.setStackPointer(top);
};

const enter = (t: X86Translator): void => {
  const frame = t.immediate() & 0xffff;
  const level = t.immediate(1) & 31;
  const size = t.opSize;
  if (level !== 0) {
    t.setOperand(OP0, t.b.i32(frame));
    t.setOperand(OP1, t.b.i32(level));
    return t.leaveWith(LEAVE_ENTER);
  }
  const pointer = t.storeBelow(size, t.readRegRaw(RBP, size));
  const bottom = t.stackOffset(-size - frame);
  // ENTER faults where a write at the new top of the stack would (SDM vol. 2, ENTER).
  t.loadForWrite(size, t.linear(SS, bottom, size, true));
  t.writeReg(RBP, size, frameValue(t, pointer, size));
  t.setStackPointer(bottom);
};

/** A stack offset as a register value of the operand size. */
function frameValue(t: X86Translator, offset: Value, size: number): Value {
  if (t.stackSize === 8) return t.fromI64(size, offset);
  return offset;
}

const leaveFrame = (t: X86Translator): void => {
  const { b, stackSize } = t;
  const size = t.opSize;
  const frame = t.readReg(RBP, stackSize);
  const v = t.load(size, t.linear(SS, frame, size, false));
  t.setStackPointer(t.add(stackSize, frame, stackSize === 8 ? b.i64(size) : b.i32(size)));
  t.writeReg(RBP, size, v);
};

// --- Segment registers. ---

/** Selector of a segment register, an i32. */
export function selector(t: X86Translator, segment: number): Value {
  return t.b.lds16(SEG + SEG_SIZE * segment + SEG_SELECTOR);
}

const movFromSegment = (t: X86Translator): void => {
  const segment = (t.modrm >> 3) & 7;
  if (segment > GS) return t.undefined();
  const v = selector(t, segment);
  if (!t.isRegister) return t.writeRm(2, v);
  t.writeReg(t.rm, t.opSize, t.opSize === 8 ? t.b.extu(v) : v);
};

const movToSegment = (t: X86Translator): void => {
  const segment = (t.modrm >> 3) & 7;
  if (segment > GS || segment === CS) return t.undefined();
  loadSegment(t, segment, t.readRm(2), false);
};

/** In real and virtual-8086 mode, without leaving, unless code is translated by what segments there are. */
function loadSegment(t: X86Translator, segment: number, selector: Value, pops: boolean): void {
  const { b } = t;
  const argument = (segment << 8) | (pops ? 1 << 11 : 0);
  t.setOperand(OP0, selector);
  if (t.protectedMode || segment === SS || !(t.flags & BF_SEG_CHECK)) return t.leaveWith(LEAVE_LOAD_SEG, argument);
  const at = SEG + SEG_SIZE * segment;
  // A null selector of protected mode leaves a segment behind that becomes one of data now.
  const unusable = b.and32(b.lds32(at + SEG_ATTR), b.i32(SEG_NULL));
  b.leaveIf(unusable, LEAVE_LOAD_SEG_HERE, t.leaveArgument(argument));
  if (pops) t.setStackPointer(t.stackOffset(t.opSize));
  b.sts64(at + SEG_BASE, b.extu(b.shl32(selector, b.i32(4))));
  b.sts32(at + SEG_SELECTOR, selector);
  t.goOn(t.end);
}

const pushSegment =
  (segment: number) =>
  (t: X86Translator): void => {
    const v = selector(t, segment);
    // With a 32-bit operand size processors write the low 16 bits only.
    const size = t.opSize;
    if (size !== 4) return t.push(size, size === 8 ? t.b.extu(v) : v);
    t.setStackPointer(storeSelector(t, v));
  };

function storeSelector(t: X86Translator, v: Value): Value {
  const offset = t.stackOffset(-4);
  t.store(2, t.linear(SS, offset, 2, true), v);
  return offset;
}

const popSegment =
  (segment: number) =>
  (t: X86Translator): void => {
    loadSegment(t, segment, t.peek(2), true);
  };

const loadFar =
  (segment: number) =>
  (t: X86Translator): void => {
    const size = t.opSize;
    const address = t.address(size + 2, false);
    const offset = t.load(size, address);
    const sel = t.load(2, t.b.add64(address, t.b.i64(size)));
    t.setOperand(OP0, sel);
    t.setOperand(OP1, offset);
    t.leaveWith(LEAVE_LOAD_FAR, (segment << 8) | (t.reg << 12));
  };

// --- Conversions. ---

/** CBW, CWDE, CDQE: the accumulator's lower half to its whole. */
const convertAccumulator = (t: X86Translator): void => {
  const { b } = t;
  if (t.opSize === 8) t.writeReg(0, 8, b.exts(t.low32(0)));
  else if (t.opSize === 4) t.writeReg(0, 4, b.ext16s32(t.low32(0)));
  else t.writeReg(0, 2, b.ext8s32(t.low32(0)));
};

/** CWD, CDQ, CQO: the accumulator's sign into rDX. */
const signToData = (t: X86Translator): void => {
  const { b } = t;
  if (t.opSize === 8) t.writeReg(2, 8, b.sar64(b.get(G[0]!), b.i64(63)));
  else if (t.opSize === 4) t.writeReg(2, 4, b.sar32(t.low32(0), b.i32(31)));
  else t.writeReg(2, 2, b.sar32(b.ext16s32(t.low32(0)), b.i32(15)));
};

const xlat = (t: X86Translator): void => {
  const { b, addrSize } = t;
  const index = t.readReg(0, 1);
  const table = t.readReg(3, addrSize);
  const sum = addrSize === 8 ? b.add64(table, b.extu(index)) : t.zext(addrSize, b.add32(table, index));
  t.writeReg(0, 1, t.load(1, t.linear(t.segment, sum, 1, false)));
};

const cmov = (t: X86Translator): void => {
  const { size } = t;
  const v = t.readRaw(1);
  const old = t.readRaw(0);
  t.write(0, t.select(size, t.cc.condition(t.opcode & 15), v, old));
};

const setcc = (t: X86Translator): void => t.write(0, t.cc.condition(t.opcode & 15));

const stack = { d64: true };
const old = { no64: true };

export const MOVE_ROWS: readonly Row[] = [
  row('88 /r', 'MOV', 'Eb,Gb', mov),
  row('89 /r', 'MOV', 'Ev,Gv', mov),
  row('8A /r', 'MOV', 'Gb,Eb', mov),
  row('8B /r', 'MOV', 'Gv,Ev', mov),
  row('A0', 'MOV', 'AL,Ob', mov),
  row('A1', 'MOV', 'rAX,Ov', mov),
  row('A2', 'MOV', 'Ob,AL', mov),
  row('A3', 'MOV', 'Ov,rAX', mov),
  row('B0+r', 'MOV', 'Zb,Ib', mov),
  row('B8+r', 'MOV', 'Zv,Iv', mov),
  row('C6 /0', 'MOV', 'Eb,Ib', mov),
  row('C7 /0', 'MOV', 'Ev,Iz', mov),
  row('8C /r', 'MOV', 'Ew,Sw', movFromSegment),
  row('8E /r', 'MOV', 'Sw,Ew', movToSegment),
  row('8D /r mem', 'LEA', 'Gv,M', lea),
  row('0F B6 /r', 'MOVZX', 'Gv,Eb', movzx),
  row('0F B7 /r', 'MOVZX', 'Gv,Ew', movzx),
  row('0F BE /r', 'MOVSX', 'Gv,Eb', movsx),
  row('0F BF /r', 'MOVSX', 'Gv,Ew', movsx),
  row('63 /r', 'MOVSXD', 'Gv,Ez', movsxd, { only64: true }),
  row('0F38 F0 /r mem', 'MOVBE', 'Gv,Ev', movbe, { feature: 'movbe' }),
  row('0F38 F1 /r mem', 'MOVBE', 'Ev,Gv', movbe, { feature: 'movbe' }),
  row('0F C8+r', 'BSWAP', 'Zv', bswap),
  row('86 /r', 'XCHG', 'Eb,Gb', xchg, { lock: true }),
  row('87 /r', 'XCHG', 'Ev,Gv', xchg, { lock: true }),
  row('90', 'NOP', 'Zv,rAX', nopOrXchg),
  ...Array.from({ length: 7 }, (_, i) => row(`9${i + 1}`, 'XCHG', 'Zv,rAX', xchg)),
  row('50+r', 'PUSH', 'Zv', push, stack),
  row('58+r', 'POP', 'Zv', popRegister, stack),
  row('68', 'PUSH', 'Iz', pushImmediate, stack),
  row('6A', 'PUSH', 'Ib', pushImmediate, stack),
  row('FF /6', 'PUSH', 'Ev', push, stack),
  row('8F /0', 'POP', 'Ev', popRm, stack),
  row('60', 'PUSHA', '', pusha, old),
  row('61', 'POPA', '', popa, old),
  row('C8', 'ENTER', 'Iw,Ib', enter, stack),
  row('C9', 'LEAVE', '', leaveFrame, stack),
  row('06', 'PUSH ES', '', pushSegment(ES), old),
  row('0E', 'PUSH CS', '', pushSegment(CS), old),
  row('16', 'PUSH SS', '', pushSegment(SS), old),
  row('1E', 'PUSH DS', '', pushSegment(DS), old),
  row('0F A0', 'PUSH FS', '', pushSegment(FS), stack),
  row('0F A8', 'PUSH GS', '', pushSegment(GS), stack),
  row('07', 'POP ES', '', popSegment(ES), old),
  row('17', 'POP SS', '', popSegment(SS), old),
  row('1F', 'POP DS', '', popSegment(DS), old),
  row('0F A1', 'POP FS', '', popSegment(FS), stack),
  row('0F A9', 'POP GS', '', popSegment(GS), stack),
  row('C4 /r mem', 'LES', 'Gv,M', loadFar(ES), old),
  row('C5 /r mem', 'LDS', 'Gv,M', loadFar(DS), old),
  row('0F B2 /r mem', 'LSS', 'Gv,M', loadFar(SS)),
  row('0F B4 /r mem', 'LFS', 'Gv,M', loadFar(FS)),
  row('0F B5 /r mem', 'LGS', 'Gv,M', loadFar(GS)),
  row('98', 'CBW', '', convertAccumulator),
  row('99', 'CWD', '', signToData),
  row('D7', 'XLAT', '', xlat),
  row('0F 40+c /r', 'CMOVcc', 'Gv,Ev', cmov, { feature: 'cmov' }),
  row('0F 90+c /r', 'SETcc', 'Eb', setcc),
];

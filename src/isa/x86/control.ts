/** Branches, calls, software interrupts, and the instructions that work on EFLAGS. */
import type { Value } from '../../ir/builder.ts';
import {
  LEAVE_BOUND,
  LEAVE_CLI,
  LEAVE_FAR_CALL,
  LEAVE_FAR_JUMP,
  LEAVE_FAR_RET,
  LEAVE_INT,
  LEAVE_INT1,
  LEAVE_INT3,
  LEAVE_INTO,
  LEAVE_IRET,
  LEAVE_POPF,
  LEAVE_POPF_HERE,
  LEAVE_PUSHF_V86,
  LEAVE_STI,
  LEAVE_STI_HERE,
} from './leave.ts';
import {
  AC,
  AF,
  BF_IO_FREE,
  CC_FLAGS,
  CF,
  DF,
  G_EFLAGS,
  ID,
  IF,
  INTR_LINE,
  IOPL,
  NT,
  OF,
  OP0,
  OP1,
  PF,
  RF,
  SF,
  TF,
  VM,
  ZF,
} from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const target = (t: X86Translator): number => t.end + t.immediate();

const jcc: Translate = (t) => {
  const condition = t.cc.condition(t.opcode & 15);
  t.checkOffset(target(t), condition);
  t.goToIf(condition, target(t));
};

const jmp: Translate = (t) => {
  t.checkOffset(target(t));
  t.goTo(target(t));
};

/** A computed pc as an i64 cut to the operand size, and checked. */
const computed = (t: X86Translator, v: Value): Value => {
  const pc = t.toU64(t.opSize, v);
  t.checkTarget(pc);
  return pc;
};

const jmpIndirect: Translate = (t) => t.jump(computed(t, t.read(0)));

const returnAddress = (t: X86Translator): Value => t.fromI64(t.opSize, t.pcAt(t.end));

const call: Translate = (t) => {
  t.checkOffset(target(t));
  t.push(t.opSize, returnAddress(t));
  t.goTo(target(t));
};

const callIndirect: Translate = (t) => {
  const pc = computed(t, t.read(0));
  t.push(t.opSize, returnAddress(t));
  t.jump(pc);
};

function ret(release: boolean): Translate {
  return (t) => {
    const size = t.opSize;
    const pc = computed(t, t.peek(size));
    t.setStackPointer(t.stackOffset(size + (release ? t.immediate() & 0xffff : 0)));
    t.jump(pc);
  };
}

/** LOOP, LOOPE, LOOPNE: `wantZero` 1, 0, or -1 for not looking at ZF. */
function loop(wantZero: number): Translate {
  return (t) => {
    const { b, addrSize } = t;
    const count = t.sub(addrSize, t.readReg(1, addrSize), t.constant(addrSize, 1));
    let condition = b.eqz32(t.eqz(addrSize, count));
    if (wantZero >= 0) condition = b.and32(condition, t.cc.condition(wantZero ? 4 : 5));
    t.checkOffset(target(t), condition);
    t.writeReg(1, addrSize, count);
    t.goToIf(condition, target(t));
  };
}

const jcxz: Translate = (t) => {
  const condition = t.eqz(t.addrSize, t.readReg(1, t.addrSize));
  t.checkOffset(target(t), condition);
  t.goToIf(condition, target(t));
};

// --- Far transfers: the system code's. ---

function farImmediate(reason: number): Translate {
  return (t) => {
    const offset = t.opSize === 2 ? t.immediate() & 0xffff : t.immediate();
    t.b.sts64(OP0, t.b.i64(t.immediate(1), 0));
    t.b.sts64(OP1, t.b.i64(offset, 0));
    t.leaveWith(reason);
  };
}

function farIndirect(reason: number): Translate {
  return (t) => {
    const size = t.opSize;
    const address = t.address(size + 2, false);
    const offset = t.load(size, address);
    t.setOperand(OP0, t.load(2, t.b.add64(address, t.b.i64(size))));
    t.setOperand(OP1, offset);
    t.leaveWith(reason);
  };
}

function farReturn(release: boolean): Translate {
  return (t) => {
    t.b.sts64(OP0, t.b.i64(release ? t.immediate() & 0xffff : 0));
    t.leaveWith(LEAVE_FAR_RET);
  };
}

const into: Translate = (t) => t.b.leaveIf(t.cc.condition(0), LEAVE_INTO, t.leaveArgument(0));

const bound: Translate = (t) => {
  t.setOperand(OP0, t.readReg(t.reg, t.opSize));
  t.setOperand(OP1, t.address(t.opSize * 2, false));
  t.leaveWith(LEAVE_BOUND);
};

// --- EFLAGS. ---

/** EFLAGS as PUSHF stores it, an i32. */
function flagsImage(t: X86Translator): Value {
  const { b } = t;
  return b.or32(b.and32(b.get(G_EFLAGS), b.i32(~(RF | VM))), b.or32(t.cc.bits(), b.i32(2)));
}

const pushf: Translate = (t) => {
  const size = t.opSize;
  if (t.v86 && !t.ioFree) return t.leaveWith(LEAVE_PUSHF_V86);
  const image = flagsImage(t);
  t.push(size, size === 8 ? t.b.extu(image) : image);
};

/** What else than arithmetic depends on these bits, and is not looked at here. */
const SYSTEM_FLAGS = TF | IOPL | NT | AC | ID;

/** POPF leaves only when it changes bits of the system's, or lets in an interrupt that waits. */
const popf: Translate = (t) => {
  const { b } = t;
  const size = t.opSize;
  const value = t.peek(size);
  const top = t.stackOffset(size);
  t.setOperand(OP0, value);
  t.setOperand(OP1, top);
  if (t.v86 && !t.ioFree) return t.leaveWith(LEAVE_POPF);
  const image = t.toI32(size, value);
  const before = b.get(G_EFLAGS);
  const inImage = size === 2 ? 0xffff : -1;
  const changed = b.and32(b.xor32(image, before), b.i32((SYSTEM_FLAGS | (t.ioFree ? 0 : IF)) & inImage));
  const enabled = b.and32(image, b.i32(t.ioFree ? IF : 0));
  const interrupt = b.select32(enabled, b.lds32(INTR_LINE), b.i32(0));
  b.leaveIf(b.or32(changed, interrupt), LEAVE_POPF_HERE, t.leaveArgument(0));
  t.setStackPointer(top);
  const replaced = DF | (t.ioFree ? IF : 0);
  b.set(G_EFLAGS, b.or32(b.and32(before, b.i32(~replaced)), b.and32(image, b.i32(replaced))));
  t.cc.setBits(b.and32(image, b.i32(CC_FLAGS)));
};

const lahf: Translate = (t) => {
  const { b } = t;
  const bits = b.or32(b.and32(t.cc.bits(), b.i32(SF | ZF | AF | PF | CF)), b.i32(2));
  t.writeHighAccumulator(bits);
};

const sahf: Translate = (t) => {
  const { b } = t;
  const high = b.shr32(t.low32(0), b.i32(8));
  const low = b.and32(high, b.i32(SF | ZF | AF | PF | CF));
  t.cc.setBits(b.or32(b.and32(t.cc.bits(), b.i32(OF)), low));
};

const clc: Translate = (t) => {
  const { b } = t;
  t.cc.setBits(b.and32(t.cc.bits(), b.i32(~CF)), b.i32(0));
};
const stc: Translate = (t) => {
  const { b } = t;
  t.cc.setBits(b.or32(t.cc.bits(), b.i32(CF)), b.i32(1));
};
const cmc: Translate = (t) => {
  const { b } = t;
  t.cc.setBits(b.xor32(t.cc.bits(), b.i32(CF)));
};

const cld: Translate = (t) => {
  const { b } = t;
  b.set(G_EFLAGS, b.and32(b.get(G_EFLAGS), b.i32(~DF)));
};
const std: Translate = (t) => {
  const { b } = t;
  b.set(G_EFLAGS, b.or32(b.get(G_EFLAGS), b.i32(DF)));
};

const cli: Translate = (t) => {
  const { b } = t;
  if (!t.ioFree) return t.leaveWith(LEAVE_CLI);
  b.set(G_EFLAGS, b.and32(b.get(G_EFLAGS), b.i32(~IF)));
};

const nop: Translate = () => {};

const near = { f64: true };
const stack = { d64: true };
const old = { no64: true };

/** Only when an interrupt waits is there anything that must not be taken before the next instruction. */
function sti(t: X86Translator): void {
  if (!(t.flags & BF_IO_FREE)) return t.leaveWith(LEAVE_STI);
  const { b } = t;
  b.leaveIf(b.lds32(INTR_LINE), LEAVE_STI_HERE, t.leaveArgument(0));
  b.set(G_EFLAGS, b.or32(b.get(G_EFLAGS), b.i32(IF)));
}

export const CONTROL_ROWS: readonly Row[] = [
  row('70+c', 'Jcc', 'Jb', jcc, near),
  row('0F 80+c', 'Jcc', 'Jz', jcc, near),
  row('EB', 'JMP', 'Jb', jmp, near),
  row('E9', 'JMP', 'Jz', jmp, near),
  row('FF /4', 'JMP', 'Ev', jmpIndirect, near),
  row('E8', 'CALL', 'Jz', call, near),
  row('FF /2', 'CALL', 'Ev', callIndirect, near),
  row('C3', 'RET', '', ret(false), near),
  row('C2', 'RET', 'Iw', ret(true), near),
  row('E0', 'LOOPNE', 'Jb', loop(0), near),
  row('E1', 'LOOPE', 'Jb', loop(1), near),
  row('E2', 'LOOP', 'Jb', loop(-1), near),
  row('E3', 'JCXZ', 'Jb', jcxz, near),
  row('EA', 'JMPF', 'Ap', farImmediate(LEAVE_FAR_JUMP), old),
  row('9A', 'CALLF', 'Ap', farImmediate(LEAVE_FAR_CALL), old),
  row('FF /5 mem', 'JMPF', 'M', farIndirect(LEAVE_FAR_JUMP)),
  row('FF /3 mem', 'CALLF', 'M', farIndirect(LEAVE_FAR_CALL)),
  row('CB', 'RETF', '', farReturn(false)),
  row('CA', 'RETF', 'Iw', farReturn(true)),
  row('CF', 'IRET', '', (t) => t.leaveWith(LEAVE_IRET)),
  row('CC', 'INT3', '', (t) => t.leaveWith(LEAVE_INT3)),
  row('CD', 'INT', 'Ib', (t) => t.leaveWith(LEAVE_INT, (t.immediate() & 0xff) << 8)),
  row('CE', 'INTO', '', into, old),
  row('F1', 'INT1', '', (t) => t.leaveWith(LEAVE_INT1)),
  row('62 /r mem', 'BOUND', 'Gv,M', bound, old),
  row('0F 0B', 'UD2', '', (t) => t.undefined()),
  row('0F B9 /r', 'UD1', 'Gv,Ev', (t) => t.undefined()),
  row('0F FF /r', 'UD0', 'Gv,Ev', (t) => t.undefined()),
  row('9C', 'PUSHF', '', pushf, stack),
  row('9D', 'POPF', '', popf, stack),
  row('9E', 'SAHF', '', sahf, old),
  row('9F', 'LAHF', '', lahf, old),
  row('9E', 'SAHF', '', sahf, { only64: true, feature: 'lahf-lm' }),
  row('9F', 'LAHF', '', lahf, { only64: true, feature: 'lahf-lm' }),
  row('F8', 'CLC', '', clc),
  row('F9', 'STC', '', stc),
  row('F5', 'CMC', '', cmc),
  row('FC', 'CLD', '', cld),
  row('FD', 'STD', '', std),
  row('FA', 'CLI', '', cli),
  row('FB', 'STI', '', sti),
  row('F3 90', 'PAUSE', '', nop),
  // Reserved hint opcodes do nothing: ENDBR, prefetches, MPX, CET reads and NOP itself.
  ...Array.from({ length: 8 }, (_, i) => row(`0F 1${(8 + i).toString(16)} /r`, 'NOP', 'E', nop)),
  // Processors with long mode have the opcode, if only as a hint without effect.
  row('0F 0D /r', 'PREFETCHW', 'E', nop, { feature: 'lm' }),
];

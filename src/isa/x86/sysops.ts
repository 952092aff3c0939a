/**
 * System instructions: privilege checks that CPL alone decides are made here, at translation;
 * the rest is the system code's, by leave reasons (leave.ts).
 */
import type { Value } from '../../ir/builder.ts';
import { CTL_OTHER_TLB } from '../../ir/vcpu-block.ts';
import { I32 } from '../../ir/ops.ts';
import { setZero } from './alu.ts';
import { VECTOR_GP } from './decode.ts';
import { defineHelper } from './helpers.ts';
import * as L from './leave.ts';
import { selector } from './move.ts';
import {
  AC,
  BF_MXCSR_EXACT,
  BF_SMAP,
  BF_SMAP_OVERRIDE,
  BF_TSD,
  BF_UMIP,
  CR0,
  CR2,
  CR3,
  CR4,
  GS,
  G_EFLAGS,
  LDTR,
  MSR_KERNEL_GS_BASE,
  MSR_TSC_AUX,
  MXCSR,
  OP0,
  OP1,
  SEG,
  SEG_BASE,
  SEG_SIZE,
  TR,
} from './state.ts';
import { vectorReady } from './sse-common.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;

const leave =
  (reason: number, extra = 0): Translate =>
  (t) =>
    t.leaveWith(reason, extra);

/** #GP(0) unless CPL is 0. */
function privileged(translate: Translate): Translate {
  return (t) => (t.cpl === 0 ? translate(t) : t.raise(VECTOR_GP));
}

const system = (reason: number): Translate => privileged(leave(reason));

// --- Ports. ---

const portSize = (t: X86Translator): number => (t.opcode & 1 ? Math.min(t.opSize, 4) : 1);

const portImmediate =
  (reason: number): Translate =>
  (t) => {
    t.b.sts64(OP0, t.b.i64(t.immediate() & 0xff));
    t.leaveWith(reason, 0, portSize(t));
  };

const portDx =
  (reason: number): Translate =>
  (t) => {
    t.setOperand(OP0, t.readReg(2, 2));
    t.leaveWith(reason, 0, portSize(t));
  };

// --- Control and debug registers. ---

const CONTROL_REGISTERS = [0, 2, 3, 4, 8];

/** A register that is not there is found before the privilege is missed. */
const valid =
  (numbers: readonly number[], translate: Translate): Translate =>
  (t) =>
    numbers.includes(t.reg) ? translate(t) : t.undefined();

const controlRegister = (reason: number): Translate =>
  privileged((t) => {
    t.leaveWith(reason, (t.reg << 8) | (((t.modrm & 7) | t.extB) << 12), t.code64 ? 8 : 4);
  });

/** By number: where in the state block; CR8 is the interrupt controller's. */
const CONTROL_PLACES: Readonly<Record<number, number>> = { 0: CR0, 2: CR2, 3: CR3, 4: CR4 };

const readControl = privileged((t) => {
  const place = CONTROL_PLACES[t.reg];
  if (place === undefined) return controlRegister(L.LEAVE_READ_CR)(t);
  const value = t.b.lds64(place);
  t.writeReg((t.modrm & 7) | t.extB, t.code64 ? 8 : 4, t.code64 ? value : t.b.wrap(value));
});

const swapgs = privileged((t) => {
  const { b } = t;
  const base = SEG + GS * SEG_SIZE + SEG_BASE;
  const current = b.lds64(base);
  b.sts64(base, b.lds64(MSR_KERNEL_GS_BASE));
  b.sts64(MSR_KERNEL_GS_BASE, current);
});

const DEBUG_REGISTERS = [0, 1, 2, 3, 4, 5, 6, 7];

const debugRegister = (reason: number): Translate =>
  privileged((t) => {
    t.leaveWith(reason, (t.reg << 8) | (((t.modrm & 7) | t.extB) << 12), t.code64 ? 8 : 4);
  });

const lmsw = privileged((t) => {
  t.setOperand(OP0, t.readRm(2));
  t.leaveWith(L.LEAVE_LMSW);
});

/** SLDT, STR, SMSW: 16 bits to memory, the operand size to a register. */
function storeWord(value: (t: X86Translator) => Value): Translate {
  return (t) => {
    if (t.flags & BF_UMIP && t.cpl !== 0) return t.raise(VECTOR_GP);
    const v = value(t);
    if (!t.isRegister) return t.writeRm(2, v);
    t.writeReg(t.rm, t.opSize, t.opSize === 8 ? t.b.extu(v) : v);
  };
}

// --- Descriptor tables and selectors. ---

/** @param bytes that are accessed, for the segment's limit; 0 = none */
const withAddress =
  (reason: number, bytes: number, write = false): Translate =>
  (t) => {
    t.setOperand(OP0, t.address(bytes, write));
    t.leaveWith(reason);
  };

/** Bytes of a descriptor-table register in memory, outside 64-bit mode. */
const TABLE_BYTES = 6;

const storeTable =
  (reason: number): Translate =>
  (t) => {
    if (t.flags & BF_UMIP && t.cpl !== 0) return t.raise(VECTOR_GP);
    withAddress(reason, TABLE_BYTES, true)(t);
  };

/** A selector from a register or 16-bit memory operand. */
const withSelector =
  (reason: number): Translate =>
  (t) => {
    t.setOperand(OP0, t.readRm(2));
    t.leaveWith(reason, t.reg << 8);
  };

/** ARPL: raises the RPL of operand 0 to that of operand 1; ZF says whether it did. */
const arpl: Translate = (t) => {
  const { b } = t;
  const source = b.and32(t.readReg(t.reg, 2), b.i32(3));
  const x = t.zext(2, t.readForWrite(0));
  const lower = b.ltu32(b.and32(x, b.i32(3)), source);
  t.write(0, b.select32(lower, b.or32(b.and32(x, b.i32(0xfffc)), source), x));
  setZero(t, lower);
};

/** Puts the counter into OP0. @returns 0 when the system code must read it, by a side exit */
const READ_TSC = defineHelper({
  name: 'tsc',
  params: [],
  result: I32,
  touchesGlobals: false,
  mayFault: false,
  body: { kind: 'vcpu', name: 'tsc' },
});

const rdtsc =
  (withAux: boolean): Translate =>
  (t) => {
    if (t.flags & BF_TSD && t.cpl !== 0) return t.raise(VECTOR_GP);
    if (t.singleStep) return t.leaveWith(withAux ? L.LEAVE_RDTSCP : L.LEAVE_RDTSC);
    const { b } = t;
    const done = b.call(READ_TSC);
    b.leaveIf(b.eqz32(done), withAux ? L.LEAVE_RDTSCP_HERE : L.LEAVE_RDTSC_HERE, t.leaveArgument(0));
    t.writeReg(RAX, 4, b.lds32(OP0));
    t.writeReg(RDX, 4, b.lds32(OP0 + 4));
    if (withAux) t.writeReg(RCX, 4, b.lds32(MSR_TSC_AUX));
  };

const invpcid = privileged((t) => {
  const { b } = t;
  const size = t.code64 ? 8 : 4;
  const type = t.readReg(t.reg, size);
  t.setOperand(OP0, size === 8 ? type : b.extu(type));
  t.setOperand(OP1, t.address(16, false));
  t.leaveWith(L.LEAVE_INVPCID);
});

const monitor = privileged((t) => {
  const offset = t.readReg(0, t.addrSize);
  t.setOperand(OP0, t.linear(t.segment, offset, 1, false));
  t.leaveWith(L.LEAVE_MONITOR);
});

/** STAC and CLAC: #UD outside supervisor mode. Where SMAP is on, the flag decides which context is in force. */
const accessCheck =
  (set: boolean): Translate =>
  (t) => {
    if (t.cpl !== 0) return t.undefined();
    if (t.singleStep || !t.code64) return t.leaveWith(set ? L.LEAVE_STAC : L.LEAVE_CLAC);
    const { b } = t;
    const changes = (t.flags & BF_SMAP) !== 0 && set !== ((t.flags & BF_SMAP_OVERRIDE) !== 0);
    if (changes) b.leaveIf(b.eqz32(b.lds32(CTL_OTHER_TLB)), set ? L.LEAVE_STAC_HERE : L.LEAVE_CLAC_HERE, t.leaveArgument(0));
    const flags = b.get(G_EFLAGS);
    b.set(G_EFLAGS, set ? b.or32(flags, b.i32(AC)) : b.and32(flags, b.i32(~AC)));
    if (!changes) return;
    b.changeContext();
    b.jump(t.pcAt(t.end), true);
  };

const fsgsbase =
  (which: number): Translate =>
  (t) =>
    t.leaveWith(L.LEAVE_FSGSBASE, (which << 8) | (t.rm << 12));

const XSAVE = 2;
const FXSAVE_BYTES = 512;
/** The legacy area and the header: what every form of XSAVE and XRSTOR touches. */
const XSAVE_BYTES = 576;

const xsave =
  (which: number): Translate =>
  (t) => {
    const restores = which === 1 || which === 3 || which === 7;
    t.setOperand(OP0, t.address(which < XSAVE ? FXSAVE_BYTES : XSAVE_BYTES, !restores));
    t.leaveWith(L.LEAVE_XSAVE, which << 8);
  };

const random: Translate = (t) => t.leaveWith(L.LEAVE_RDRAND, t.rm << 8);

const rdpid: Translate = (t) => {
  const v = t.b.lds64(MSR_TSC_AUX);
  t.writeReg(t.rm, t.code64 ? 8 : 4, t.code64 ? v : t.b.wrap(v));
};

const ldmxcsr: Translate = (t) => {
  if (!vectorReady(t)) return;
  t.setOperand(OP0, t.readRm(4));
  t.leaveWith(L.LEAVE_LDMXCSR);
};

/** How much code after STMXCSR tells what it is for. */
const AHEAD = 24;

/**
 * Does a mask keep the flags out of what is done with a stored MXCSR? Mathematical functions look
 * at the rounding alone, and do so often: AND with an immediate of 32 bits, or 9FH on its second byte.
 */
function looksAtControlOnly(code: readonly number[]): boolean {
  return code.some((byte, i) => {
    const [next = 0, third = 0] = code.slice(i + 1);
    const isAnd = (next & 0xf8) === 0xe0;
    if (byte === 0x80 && isAnd && next >= 0xe4) return third === 0x9f;
    const at = byte === 0x25 ? i + 1 : byte === 0x81 && isAnd ? i + 2 : code.length;
    return at + 4 <= code.length && (code[at]! & 0x3f) === 0 && code[at + 2] === 0 && code[at + 3] === 0;
  });
}

const stmxcsr: Translate = (t) => {
  if (!vectorReady(t)) return;
  t.writeRm(4, t.b.lds32(MXCSR));
  if (t.cpl !== 3 || t.flags & BF_MXCSR_EXACT || looksAtControlOnly(t.ahead(AHEAD))) return;
  t.leaveWith(L.LEAVE_STMXCSR);
};

const nop: Translate = () => {};

/** CLFLUSH and its like fault as loads do. */
const cacheLine: Translate = (t) => void t.load(1, t.address(1, false));

export const SYSTEM_ROWS: readonly Row[] = [
  row('E4', 'IN', 'AL,Ib', portImmediate(L.LEAVE_IN)),
  row('E5', 'IN', 'rAX,Ib', portImmediate(L.LEAVE_IN)),
  row('EC', 'IN', 'AL,DX', portDx(L.LEAVE_IN)),
  row('ED', 'IN', 'rAX,DX', portDx(L.LEAVE_IN)),
  row('E6', 'OUT', 'Ib,AL', portImmediate(L.LEAVE_OUT)),
  row('E7', 'OUT', 'Ib,rAX', portImmediate(L.LEAVE_OUT)),
  row('EE', 'OUT', 'DX,AL', portDx(L.LEAVE_OUT)),
  row('EF', 'OUT', 'DX,rAX', portDx(L.LEAVE_OUT)),
  row('F4', 'HLT', '', system(L.LEAVE_HLT)),
  row(
    '0F 00 /0',
    'SLDT',
    'E',
    storeWord((t) => selector(t, LDTR)),
    { protectedOnly: true },
  ),
  row(
    '0F 00 /1',
    'STR',
    'E',
    storeWord((t) => selector(t, TR)),
    { protectedOnly: true },
  ),
  row('0F 00 /2', 'LLDT', 'Ew', privileged(withSelector(L.LEAVE_LLDT)), { protectedOnly: true }),
  row('0F 00 /3', 'LTR', 'Ew', privileged(withSelector(L.LEAVE_LTR)), { protectedOnly: true }),
  row('0F 00 /4', 'VERR', 'Ew', withSelector(L.LEAVE_VERR), { protectedOnly: true }),
  row('0F 00 /5', 'VERW', 'Ew', withSelector(L.LEAVE_VERW), { protectedOnly: true }),
  row('0F 01 /0 mem', 'SGDT', 'M', storeTable(L.LEAVE_SGDT)),
  row('0F 01 /1 mem', 'SIDT', 'M', storeTable(L.LEAVE_SIDT)),
  row('0F 01 /2 mem', 'LGDT', 'M', privileged(withAddress(L.LEAVE_LGDT, TABLE_BYTES))),
  row('0F 01 /3 mem', 'LIDT', 'M', privileged(withAddress(L.LEAVE_LIDT, TABLE_BYTES))),
  row(
    '0F 01 /4',
    'SMSW',
    'E',
    storeWord((t) => t.b.lds32(CR0)),
  ),
  row('0F 01 /6', 'LMSW', 'Ew', lmsw),
  row('0F 01 /7 mem', 'INVLPG', 'M', privileged(withAddress(L.LEAVE_INVLPG, 0))),
  row('NP 0F 01 =C8', 'MONITOR', '', monitor, { feature: 'monitor' }),
  row('NP 0F 01 =C9', 'MWAIT', '', system(L.LEAVE_MWAIT), { feature: 'monitor' }),
  row('NP 0F 01 =CA', 'CLAC', '', accessCheck(false), { feature: 'smap' }),
  row('NP 0F 01 =CB', 'STAC', '', accessCheck(true), { feature: 'smap' }),
  row('NP 0F 01 =D0', 'XGETBV', '', leave(L.LEAVE_XGETBV), { feature: 'xsave' }),
  row('NP 0F 01 =D1', 'XSETBV', '', system(L.LEAVE_XSETBV), { feature: 'xsave' }),
  row('NP 0F 01 =E8', 'SERIALIZE', '', (t) => t.goOn(t.end), { feature: 'serialize' }),
  row('NP 0F 01 =F8', 'SWAPGS', '', swapgs, { only64: true }),
  row('NP 0F 01 =F9', 'RDTSCP', '', rdtsc(true), { feature: 'rdtscp' }),
  row('0F 02 /r', 'LAR', 'Gv,Ew', withSelector(L.LEAVE_LAR), { protectedOnly: true }),
  row('0F 03 /r', 'LSL', 'Gv,Ew', withSelector(L.LEAVE_LSL), { protectedOnly: true }),
  row('0F 05', 'SYSCALL', '', leave(L.LEAVE_SYSCALL), { feature: 'syscall' }),
  row('0F 06', 'CLTS', '', system(L.LEAVE_CLTS)),
  row('0F 07', 'SYSRET', '', system(L.LEAVE_SYSRET), { feature: 'syscall' }),
  row('0F 08', 'INVD', '', system(L.LEAVE_WBINVD)),
  row('0F 09', 'WBINVD', '', system(L.LEAVE_WBINVD)),
  row('0F 20 /r', 'MOV', 'R,C', valid(CONTROL_REGISTERS, readControl), { registerOnly: true }),
  row('0F 21 /r', 'MOV', 'R,D', valid(DEBUG_REGISTERS, debugRegister(L.LEAVE_READ_DR)), { registerOnly: true }),
  row('0F 22 /r', 'MOV', 'C,R', valid(CONTROL_REGISTERS, controlRegister(L.LEAVE_WRITE_CR)), { registerOnly: true }),
  row('0F 23 /r', 'MOV', 'D,R', valid(DEBUG_REGISTERS, debugRegister(L.LEAVE_WRITE_DR)), { registerOnly: true }),
  row('0F 30', 'WRMSR', '', system(L.LEAVE_WRMSR), { feature: 'msr' }),
  row('0F 31', 'RDTSC', '', rdtsc(false), { feature: 'tsc' }),
  row('0F 32', 'RDMSR', '', system(L.LEAVE_RDMSR), { feature: 'msr' }),
  // It came with the Pentium with MMX.
  row('0F 33', 'RDPMC', '', leave(L.LEAVE_RDPMC), { feature: 'mmx' }),
  row('0F 34', 'SYSENTER', '', leave(L.LEAVE_SYSENTER), { feature: 'sep' }),
  row('0F 35', 'SYSEXIT', '', leave(L.LEAVE_SYSEXIT), { feature: 'sep' }),
  row('0F A2', 'CPUID', '', leave(L.LEAVE_CPUID)),
  row('0F AA', 'RSM', '', leave(L.LEAVE_RSM)),
  row('63 /r', 'ARPL', 'Ew,Gw', arpl, { no64: true, protectedOnly: true }),
  row('66 0F38 82 /r mem', 'INVPCID', 'G,M', invpcid, { feature: 'invpcid' }),
  row('NP 0F AE /0 mem', 'FXSAVE', 'M', xsave(0), { feature: 'fxsr' }),
  row('NP 0F AE /1 mem', 'FXRSTOR', 'M', xsave(1), { feature: 'fxsr' }),
  row('NP 0F AE /2 mem', 'LDMXCSR', 'Md', ldmxcsr, { feature: 'sse' }),
  row('NP 0F AE /3 mem', 'STMXCSR', 'Md', stmxcsr, { feature: 'sse' }),
  row('VEX.L0 NP 0F AE /2 mem', 'VLDMXCSR', 'Md', ldmxcsr, { feature: 'avx' }),
  row('VEX.L0 NP 0F AE /3 mem', 'VSTMXCSR', 'Md', stmxcsr, { feature: 'avx' }),
  row('NP 0F AE /4 mem', 'XSAVE', 'M', xsave(XSAVE), { feature: 'xsave' }),
  row('NP 0F AE /5 mem', 'XRSTOR', 'M', xsave(3), { feature: 'xsave' }),
  row('NP 0F AE /6 mem', 'XSAVEOPT', 'M', xsave(4), { feature: 'xsaveopt' }),
  row('NP 0F C7 /4 mem', 'XSAVEC', 'M', xsave(5), { feature: 'xsavec' }),
  row('NP 0F C7 /5 mem', 'XSAVES', 'M', privileged(xsave(6)), { feature: 'xsaves' }),
  row('NP 0F C7 /3 mem', 'XRSTORS', 'M', privileged(xsave(7)), { feature: 'xsaves' }),
  row('NP 0F AE /7 mem', 'CLFLUSH', 'M', cacheLine, { feature: 'clflush' }),
  row('66 0F AE /7 mem', 'CLFLUSHOPT', 'M', cacheLine, { feature: 'clflushopt' }),
  row('66 0F AE /6 mem', 'CLWB', 'M', cacheLine, { feature: 'clwb' }),
  row('NP 0F AE /5 reg', 'LFENCE', '', nop, { feature: 'sse2' }),
  row('NP 0F AE /6 reg', 'MFENCE', '', nop, { feature: 'sse2' }),
  row('NP 0F AE /7 reg', 'SFENCE', '', nop, { feature: 'sse' }),
  row('F3 0F AE /0 reg', 'RDFSBASE', 'R', fsgsbase(0), { feature: 'fsgsbase', only64: true }),
  row('F3 0F AE /1 reg', 'RDGSBASE', 'R', fsgsbase(1), { feature: 'fsgsbase', only64: true }),
  row('F3 0F AE /2 reg', 'WRFSBASE', 'R', fsgsbase(2), { feature: 'fsgsbase', only64: true }),
  row('F3 0F AE /3 reg', 'WRGSBASE', 'R', fsgsbase(3), { feature: 'fsgsbase', only64: true }),
  row('0F C7 /6 reg', 'RDRAND', 'R', random, { feature: 'rdrand' }),
  row('0F C7 /7 reg', 'RDSEED', 'R', random, { feature: 'rdseed' }),
  row('F3 0F C7 /7 reg', 'RDPID', 'R', rdpid, { feature: 'rdpid' }),
];

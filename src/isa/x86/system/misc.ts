/** Instructions that are too long or too rare to be translated inline. */
import {
  AC,
  CC_FLAGS,
  CF,
  EFLAGS,
  FS,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  GS,
  HALTED,
  IDTR_BASE,
  IDTR_LIMIT,
  IF,
  INTERRUPT_SHADOW,
  MSR_TSC_AUX,
  MXCSR,
  MXCSR_FLUSHING,
  OP0,
  OP1,
  SEG_BASE,
  SHADOW_SS,
  SHADOW_STI,
  SS,
  VIF,
  VIP,
  XMM,
  YMM_HIGH,
} from '../state.ts';
import { ATTR_DB, BR, CR4_FSGSBASE, CR4_TSD, CR4_UMIP, DE, NO_ERROR_CODE } from './core.ts';
import type { Core } from './core.ts';
import { AS_CURRENT } from './mmu.ts';
import type { Mmu } from './mmu.ts';
import { popFlags, virtualFlags } from './iret.ts';
import type { Parts } from './parts.ts';
import { MXCSR_MASK } from './xsave.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RSP = 4;
const RBP = 5;
const HIGH = 0x1_0000_0000;

/** Adds a constant to two words: result in core.low and core.high. */
function plus(core: Core, low: number, high: number, delta: number): void {
  const sum = (low >>> 0) + delta;
  core.low = sum | 0;
  core.high = (high + (sum >= HIGH ? 1 : sum < 0 ? -1 : 0)) | 0;
}

// --- Flags and interrupts. ---

export function sti(core: Core): void {
  if (core.cpl > core.iopl) {
    if (!core.hasVirtualInterrupts || core.eflags & VIP) core.gp();
    core.set(EFLAGS, core.eflags | VIF);
    return;
  }
  if (core.eflags & IF) return;
  core.set(EFLAGS, core.eflags | IF);
  core.set(INTERRUPT_SHADOW, SHADOW_STI);
}

export function cli(core: Core): void {
  if (core.cpl > core.iopl && !core.hasVirtualInterrupts) core.gp();
  core.set(EFLAGS, core.eflags & ~(core.cpl > core.iopl ? VIF : IF));
}

/** PUSHF in virtual-8086 mode with IOPL below 3: with VME it shows VIF as IF. */
export function pushVirtualFlags({ core, stack }: Parts, size: number): void {
  if (!core.hasVirtualInterrupts || size !== 2) core.gp();
  stack.useCurrent();
  stack.push(2, virtualFlags(core), 0);
  stack.commit();
}

export function halt(core: Core): void {
  core.requireSupervisor();
  core.set(HALTED, 1);
}

/** Bit of ECX: interrupts end the wait even where they are masked. */
const MWAIT_BREAKS = 1;

/**
 * MWAIT may end at any time: it waits as HLT does where an interrupt will end that, and else not at all,
 * since a store to the monitored address is not watched for.
 */
export function mwait(core: Core): void {
  core.requireSupervisor();
  if (core.regLow(RCX) & ~MWAIT_BREAKS) core.gp();
  if (core.eflags & IF) halt(core);
}

export function accessFlag(core: Core, set: boolean): void {
  if (core.cpl !== 0) core.ud();
  core.set(EFLAGS, set ? core.eflags | AC : core.eflags & ~AC);
  core.changed = true;
}

export function popf(core: Core, size: number): void {
  popFlags(core, core.get(OP0), size);
  setStackPointer(core, core.get(OP1), core.get(OP1 + 4));
}

function setStackPointer(core: Core, low: number, high: number): void {
  core.writeReg(RSP, core.code64 ? 8 : core.segAttr(SS) & ATTR_DB ? 4 : 2, low, high);
}

// --- Segment registers. ---

/** @param popped bytes that POP takes from the stack, or 0 */
export function loadSegment(p: Parts, segment: number, selector: number, popped: number): void {
  const { core } = p;
  const wide = core.code64 ? 8 : core.segAttr(SS) & ATTR_DB ? 4 : 2;
  p.segs.load(segment, selector & 0xffff);
  if (popped > 0) {
    plus(core, core.regLow(RSP), core.regHigh(RSP), popped);
    core.writeReg(RSP, wide, core.low, core.high);
  }
  if (segment === SS) core.set(INTERRUPT_SHADOW, SHADOW_SS);
}

export function loadFar(p: Parts, segment: number, register: number, size: number): void {
  const { core } = p;
  const low = core.get(OP1);
  const high = core.get(OP1 + 4);
  p.segs.load(segment, core.get(OP0) & 0xffff);
  core.writeReg(register, size, low, high);
}

export function fsGsBase(core: Core, which: number, register: number, size: number): void {
  if (!(core.cr4 & CR4_FSGSBASE)) core.ud();
  const at = core.segAt(which & 1 ? GS : FS) + SEG_BASE;
  if (which < 2) return core.writeReg(register, size, core.get(at), core.get(at + 4));
  const high = size === 8 ? core.regHigh(register) : 0;
  if (!core.isCanonical(core.regLow(register), high)) core.gp();
  core.set2(at, core.regLow(register), high);
}

// --- Descriptor-table registers. ---

export function loadTable(core: Core, mmu: Mmu, base: number, limit: number, size: number): void {
  core.requireSupervisor();
  const low = core.get(OP0);
  const high = core.get(OP0 + 4);
  const newLimit = mmu.read16(low, high, AS_CURRENT);
  plus(core, low, high, 2);
  const wide = core.code64;
  if (wide) mmu.read64(core.low, core.high, AS_CURRENT);
  else {
    const value = mmu.read32(core.low, core.high, AS_CURRENT);
    core.low = size === 2 ? value & 0xffffff : value;
    core.high = 0;
  }
  if (wide && !core.isCanonical(core.low, core.high)) core.gp();
  core.set2(base, core.low, core.high);
  core.set(limit, newLimit);
}

export function storeTable(core: Core, mmu: Mmu, base: number, limit: number): void {
  if (core.cr4 & CR4_UMIP && core.cpl !== 0) core.gp();
  const low = core.get(OP0);
  const high = core.get(OP0 + 4);
  const wide = core.code64;
  mmu.probeWrite(low, high, wide ? 10 : 6, AS_CURRENT);
  mmu.write(low, high, 2, core.get(limit), AS_CURRENT);
  plus(core, low, high, 2);
  if (wide) mmu.write64(core.low, core.high, core.get(base), core.get(base + 4), AS_CURRENT);
  else mmu.write(core.low, core.high, 4, core.get(base), AS_CURRENT);
}

export const GDT = [GDTR_BASE, GDTR_LIMIT] as const;
export const IDT = [IDTR_BASE, IDTR_LIMIT] as const;

// --- Time and chance. ---

export function readTsc(core: Core, withAux: boolean): void {
  if (core.cr4 & CR4_TSD && core.cpl !== 0) core.gp();
  core.readTsc();
  core.setReg(RAX, core.get(OP0), 0);
  core.setReg(RDX, core.get(OP0 + 4), 0);
  if (withAux) core.setReg(RCX, core.get(MSR_TSC_AUX), 0);
}

export function random(core: Core, register: number, size: number): void {
  const { random32 } = core.platform;
  const low = random32();
  core.writeReg(register, size, low, size === 8 ? random32() : 0);
  core.setArithmetic(CF, CC_FLAGS);
}

// --- Arithmetic. ---

/** DIV and IDIV of 128 bits by 64. */
export function divide(core: Core, signed: boolean): void {
  const low = core.getBigUnsigned(GPR);
  const dividend = signed ? (core.getBig(GPR + 8 * RDX) << 64n) | low : (core.getBigUnsigned(GPR + 8 * RDX) << 64n) | low;
  const divisor = signed ? core.getBig(OP0) : core.getBigUnsigned(OP0);
  if (divisor === 0n) core.fault(DE, NO_ERROR_CODE);
  const quotient = dividend / divisor;
  const fits = signed ? BigInt.asIntN(64, quotient) === quotient : BigInt.asUintN(64, quotient) === quotient;
  if (!fits) core.fault(DE, NO_ERROR_CODE);
  core.setBig(GPR, quotient);
  core.setBig(GPR + 8 * RDX, dividend % divisor);
}

/** BOUND, outside 64-bit mode. */
export function bound(core: Core, mmu: Mmu, size: number): void {
  const extend = (value: number): number => (size === 2 ? (value << 16) >> 16 : value);
  const at = core.get(OP1);
  const lower = extend(mmu.read(at, 0, size, AS_CURRENT));
  const upper = extend(mmu.read((at + size) | 0, 0, size, AS_CURRENT));
  const index = extend(core.get(OP0));
  if (index < lower || index > upper) core.fault(BR, NO_ERROR_CODE);
}

/** ENTER with nesting: copies the frame pointers of the enclosing procedures. */
export function enter(p: Parts, size: number): void {
  const { core, mmu, stack } = p;
  const bytes = core.get(OP0) & 0xffff;
  const level = core.get(OP1) & 31;
  const wide = core.code64;
  const mask = core.segAttr(SS) & ATTR_DB ? -1 : 0xffff;
  const base = core.segBaseLow(SS);
  stack.useCurrent();
  stack.push(size, core.regLow(RBP), core.regHigh(RBP));
  const frameLow = stack.low;
  const frameHigh = stack.high;
  for (let i = 1; i < level; i++) {
    plus(core, core.regLow(RBP), core.regHigh(RBP), -size * i);
    stack.checkAt(wide ? core.low : core.low & mask, core.high, size);
    const at = wide ? core.low : (base + (core.low & mask)) | 0;
    const atHigh = wide ? core.high : 0;
    if (size === 8) mmu.read64(at, atHigh, AS_CURRENT);
    else {
      core.low = mmu.read(at, atHigh, size, AS_CURRENT);
      core.high = 0;
    }
    stack.push(size, core.low, core.high);
  }
  stack.push(size, frameLow, frameHigh);
  stack.skip(-bytes);
  // ENTER faults where a write at the new top of the stack would.
  stack.checkAt(stack.low, stack.high, size);
  mmu.probeWrite(wide ? stack.low : (base + stack.low) | 0, wide ? stack.high : 0, size, AS_CURRENT);
  stack.commit();
  core.writeReg(RBP, size, frameLow, frameHigh);
}

export function loadMxcsr(core: Core): void {
  const value = core.get(OP0);
  if (value & ~MXCSR_MASK) core.gp();
  core.set(MXCSR, value);
  // What is flushed is not meant to be looked at closely: programs made for speed begin like this.
  if (!(value & MXCSR_FLUSHING)) core.watchExceptions();
  core.changed = true;
}

/** What LEAVE_MASK_EMPTY asks for. @param what the exit's argument from bit 8 on */
export function clearVectors(core: Core, what: number): void {
  const register = what & 15;
  const other = (what >> 4) & 15;
  for (const at of [XMM, XMM + 8, YMM_HIGH, YMM_HIGH + 8]) core.set2(at + 16 * register, 0, 0);
  const parts = [...(what & (1 << 8) ? [YMM_HIGH, YMM_HIGH + 8] : []), ...(what & (1 << 9) ? [XMM + 8] : [])];
  for (const at of parts) core.set2(at + 16 * other, 0, 0);
}

/** Returns to the interrupted code: IRET, far RET, and the checks they share (SDM vol. 2). */
import { AC, CC_FLAGS, CS, DF, DS, ES, FS, GS, ID, IF, IOPL, NMI_BLOCKED, NT, SS, TF, VIF, VIP, VM } from '../state.ts';
import { ATTR_CODE, ATTR_CONFORMING, ATTR_L, ATTR_S, GP, attrDpl } from './core.ts';
import type { Core } from './core.ts';
import type { Parts } from './parts.ts';
import { taskReturn } from './task.ts';

const RSP = 4;

/** Bits of EFLAGS that POPF and IRET may change. */
export function writableFlags(core: Core, size: number): number {
  let mask = CC_FLAGS | TF | DF | NT | AC | ID;
  const cpl = core.cpl;
  if (cpl <= core.iopl) mask |= IF;
  if (cpl === 0) mask |= IOPL;
  return size === 2 ? mask & 0xffff : mask;
}

export function replaceFlags(core: Core, value: number, mask: number): void {
  core.writeFlags((core.readFlags() & ~mask) | (value & mask));
}

/** The low half of EFLAGS as virtual-8086 code with IOPL below 3 sees it: VIF for IF, and IOPL 3. */
export function virtualFlags(core: Core): number {
  const flags = core.readFlags() & 0xffff & ~IF;
  return flags | IOPL | (core.eflags & VIF ? IF : 0);
}

/** Replaces them: IF goes to VIF. #GP(0) when that would let a pending interrupt in, or TF is set. */
function replaceVirtualFlags(core: Core, value: number, size: number): void {
  const interrupt = (value & IF) !== 0 && (core.eflags & VIP) !== 0;
  if (!core.hasVirtualInterrupts || size !== 2 || interrupt || value & TF) core.gp();
  const virtual = value & IF ? VIF : 0;
  replaceFlags(core, (value & 0xffff) | virtual, (writableFlags(core, size) & ~(IOPL | IF)) | VIF);
}

/** @param size operand size in bytes */
export function iret(p: Parts, size: number): void {
  const { core } = p;
  if (!core.isProtected) iretReal(p, size);
  else if (core.eflags & NT) {
    if (core.longMode) core.gp();
    taskReturn(p);
  } else iretProtected(p, size);
  core.set(NMI_BLOCKED, 0);
}

function iretReal(p: Parts, size: number): void {
  const { core, stack, segs } = p;
  const virtual = core.v86 && core.iopl !== 3;
  if (virtual && (!core.hasVirtualInterrupts || size !== 2)) core.gp();
  stack.useCurrent();
  const ip = stack.pop(size);
  const selector = stack.pop(size) & 0xffff;
  const flags = stack.pop(size);
  if (ip >>> 0 > 0xffff && ip >>> 0 > core.segLimit(CS)) core.gp();
  if (virtual) replaceVirtualFlags(core, flags, size);
  else {
    const mask = writableFlags(core, size) | IF | IOPL;
    replaceFlags(core, flags, core.v86 ? mask & ~IOPL : mask);
  }
  segs.setReal(CS, selector);
  core.setPc(ip, 0);
  stack.commit();
}

function iretProtected(p: Parts, size: number): void {
  const { core, stack } = p;
  stack.useCurrent();
  const ipLow = stack.pop(size);
  const ipHigh = core.high;
  const selector = stack.pop(size) & 0xffff;
  const flags = stack.pop(size);
  if (flags & VM && size === 4 && core.cpl === 0 && !core.longMode) return iretV86(p, ipLow, selector, flags);
  const mask = writableFlags(core, size) | (core.cpl === 0 && size > 2 ? VIF | VIP : 0) | (size > 2 ? core.resumeFlag : 0);
  const outer = (selector & 3) > core.cpl;
  // 64-bit mode always restores SS:RSP.
  if (outer || core.code64) returnWithStack(p, size, ipLow, ipHigh, selector, 0);
  else returnSame(p, ipLow, ipHigh, selector, 0);
  replaceFlags(core, flags, mask);
}

function iretV86(p: Parts, ip: number, selector: number, flags: number): void {
  const { core, stack, segs } = p;
  const sp = stack.pop(4);
  const selectors = [SS, ES, DS, FS, GS].map((segment) => [segment, stack.pop(4) & 0xffff] as const);
  core.writeFlags((flags & (CC_FLAGS | TF | DF | NT | AC | ID | IF | IOPL | VIF | VIP | core.resumeFlag)) | VM);
  core.cpl = 3;
  segs.setReal(CS, selector);
  for (const [segment, value] of selectors) segs.setReal(segment, value);
  core.setReg(RSP, sp, 0);
  core.setPc(ip & 0xffff, 0);
}

/** Checks the code segment of a return and leaves its descriptor read. */
function checkReturnCode(p: Parts, selector: number): void {
  const { core, segs } = p;
  if ((selector & 0xfffc) === 0) core.gp();
  segs.require(selector);
  const rpl = selector & 3;
  const { attributes } = segs;
  const kind = ATTR_S | ATTR_CODE;
  const dpl = attrDpl(attributes);
  const bad = rpl < core.cpl || (attributes & kind) !== kind || (attributes & ATTR_CONFORMING ? dpl > rpl : dpl !== rpl);
  if (bad) core.selectorFault(GP, selector);
  segs.checkCodeUse(selector);
}

/** @param release bytes of parameters to drop from the stack */
function returnSame(p: Parts, ipLow: number, ipHigh: number, selector: number, release: number): void {
  const { core, segs, stack } = p;
  checkReturnCode(p, selector);
  segs.checkTarget(ipLow, ipHigh);
  stack.skip(release);
  segs.commitCode(selector, core.cpl);
  stack.commit();
  core.setPc(ipLow, ipHigh);
}

function returnWithStack(p: Parts, size: number, ipLow: number, ipHigh: number, selector: number, release: number): void {
  const { core, segs, stack } = p;
  stack.skip(release);
  const spLow = stack.pop(size);
  const spHigh = core.high;
  const stackSelector = stack.pop(size) & 0xffff;
  checkReturnCode(p, selector);
  segs.checkTarget(ipLow, ipHigh);
  const codeLow = segs.low;
  const codeHigh = segs.high;
  const atLow = segs.atLow;
  const atHigh = segs.atHigh;
  const to64 = core.longMode && (segs.attributes & ATTR_L) !== 0;
  const cpl = selector & 3;
  const outer = cpl > core.cpl;
  const nullStack = (stackSelector & 0xfffc) === 0;
  if (nullStack) {
    if (!to64 || cpl === 3 || (stackSelector & 3) !== cpl) core.gp();
  } else segs.checkStack(stackSelector, cpl, GP);
  if (nullStack) segs.setNull(SS, stackSelector);
  else segs.commit(SS, stackSelector);
  segs.low = codeLow;
  segs.high = codeHigh;
  segs.atLow = atLow;
  segs.atHigh = atHigh;
  segs.commitCode(selector, cpl);
  setStackPointer(core, to64, size, spLow, spHigh, release);
  core.setPc(ipLow, ipHigh);
  if (outer) segs.dropInner(cpl);
}

function setStackPointer(core: Core, wide: boolean, size: number, low: number, high: number, release: number): void {
  const sum = (low >>> 0) + release;
  if (wide) core.setReg(RSP, sum | 0, size === 8 ? high + (sum > 0xffffffff ? 1 : 0) : 0);
  else if (core.segAttr(SS) & (1 << 14)) core.setReg(RSP, sum | 0, 0);
  else core.writeReg(RSP, 2, sum, 0);
}

/** Far RET. @param release bytes of parameters */
export function farReturn(p: Parts, size: number, release: number): void {
  const { core, stack, segs } = p;
  stack.useCurrent();
  const ipLow = stack.pop(size);
  const ipHigh = core.high;
  const selector = stack.pop(size) & 0xffff;
  if (!core.isProtected) {
    if (ipLow >>> 0 > 0xffff && ipLow >>> 0 > core.segLimit(CS)) core.gp();
    stack.skip(release);
    segs.setReal(CS, selector);
    core.setPc(ipLow, 0);
    stack.commit();
  } else if ((selector & 3) > core.cpl) {
    returnWithStack(p, size, ipLow, ipHigh, selector, release);
  } else returnSame(p, ipLow, ipHigh, selector, release);
}

/** POPF: the stack pointer is moved by the caller. */
export function popFlags(core: Core, value: number, size: number): void {
  if (core.v86) {
    if (core.iopl !== 3) return replaceVirtualFlags(core, value, size);
    return replaceFlags(core, value, writableFlags(core, size) & ~IOPL);
  }
  replaceFlags(core, value, writableFlags(core, size));
}

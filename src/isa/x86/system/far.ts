/** Far JMP and CALL, directly, through call gates and to tasks (SDM vol. 3, 6.8). */
import { CS, SS, TR } from '../state.ts';
import { ATTR_CODE, ATTR_CONFORMING, ATTR_DB, ATTR_L, ATTR_S, GP, NP, SS_FAULT, TS, attrDpl } from './core.ts';
import { AS_CURRENT, AS_SYSTEM } from './mmu.ts';
import type { Parts } from './parts.ts';
import { TYPE_CALL_GATE16, TYPE_CALL_GATE32, TYPE_TASK_GATE, TYPE_TSS16, TYPE_TSS32 } from './segments.ts';
import { SWITCH_CALL, SWITCH_JUMP, switchTask } from './task.ts';

const RSP = 4;

/** @param size operand size in bytes  @param call pushes the return address */
export function farTransfer(p: Parts, call: boolean, selector: number, low: number, high: number, size: number): void {
  const { core, segs } = p;
  if (!core.isProtected) return farReal(p, call, selector, low, size);
  if ((selector & 0xfffc) === 0) core.gp();
  segs.require(selector);
  switch (segs.systemType) {
    case -1:
      return farDirect(p, call, selector, low, high, size);
    case TYPE_CALL_GATE16:
    case TYPE_CALL_GATE32:
      if (core.longMode && segs.systemType === TYPE_CALL_GATE16) core.selectorFault(GP, selector);
      return farGate(p, call, selector);
    case TYPE_TASK_GATE:
    case TYPE_TSS16:
    case TYPE_TSS32:
      return farTask(p, call, selector);
    default:
      core.selectorFault(GP, selector);
  }
}

function farReal(p: Parts, call: boolean, selector: number, ip: number, size: number): void {
  const { core, segs, stack } = p;
  const limit = core.v86 ? 0xffff : Math.max(0xffff, core.segLimit(CS));
  if (ip >>> 0 > limit) core.gp();
  if (call) {
    stack.useCurrent();
    stack.push(size, core.segSelector(CS), 0);
    stack.push(size, core.pcLow, 0);
    stack.commit();
  }
  segs.setReal(CS, selector);
  core.setPc(ip, 0);
}

function farDirect(p: Parts, call: boolean, selector: number, low: number, high: number, size: number): void {
  const { core, segs, stack } = p;
  segs.checkCode(selector, selector & 3, core.cpl);
  segs.checkTarget(low, high);
  if (call) {
    stack.useCurrent();
    stack.push(size, core.segSelector(CS), 0);
    stack.push(size, core.pcLow, core.pcHigh);
  }
  segs.commitCode(selector, core.cpl);
  if (call) stack.commit();
  core.setPc(low, high);
}

function farTask(p: Parts, call: boolean, selector: number): void {
  const { core, segs } = p;
  if (core.longMode) core.selectorFault(GP, selector);
  if (segs.dpl < Math.max(core.cpl, selector & 3)) core.selectorFault(GP, selector);
  if (!segs.present) core.selectorFault(NP, selector);
  const target = segs.systemType === TYPE_TASK_GATE ? segs.low >>> 16 : selector;
  switchTask(p, target, call ? SWITCH_CALL : SWITCH_JUMP);
}

function farGate(p: Parts, call: boolean, gate: number): void {
  const { core, segs } = p;
  if (segs.dpl < Math.max(core.cpl, gate & 3)) core.selectorFault(GP, gate);
  if (!segs.present) core.selectorFault(NP, gate);
  const wide = core.longMode;
  const gateLow = segs.low;
  const gateHigh = segs.high;
  const gate32 = segs.systemType === TYPE_CALL_GATE32;
  let offsetHigh = 0;
  if (wide) {
    offsetHigh = segs.readUpper();
    // The type field of the descriptor's second half must be zero (SDM vol. 3, 6.8.3.1).
    const type = p.mmu.read32((segs.atLow + 12) | 0, segs.atHigh, AS_SYSTEM);
    if (type & 0x1f00) core.selectorFault(GP, gate);
  }
  const selector = gateLow >>> 16;
  const offset = (gateLow & 0xffff) | (gate32 ? gateHigh & 0xffff0000 : 0);
  if ((selector & 0xfffc) === 0) core.gp();
  segs.require(selector);
  const { attributes } = segs;
  const kind = ATTR_S | ATTR_CODE;
  const dpl = attrDpl(attributes);
  const conforming = (attributes & ATTR_CONFORMING) !== 0;
  if ((attributes & kind) !== kind || dpl > core.cpl || (!call && !conforming && dpl !== core.cpl)) {
    core.selectorFault(GP, selector);
  }
  if (wide && (attributes & (ATTR_L | ATTR_DB)) !== ATTR_L) core.selectorFault(GP, selector);
  if (!segs.present) core.selectorFault(NP, selector);
  segs.checkTarget(offset, offsetHigh);
  const size = wide ? 8 : gate32 ? 4 : 2;
  const target = { selector, offset, offsetHigh, size };
  if (call && !conforming && dpl < core.cpl) {
    if (wide) callInnerWide(p, target, dpl);
    else callInner(p, target, dpl, gateHigh & 31);
  } else callSame(p, call, target);
}

type Target = { selector: number; offset: number; offsetHigh: number; size: number };

function callSame(p: Parts, call: boolean, target: Target): void {
  const { core, segs, stack } = p;
  if (call) {
    stack.useCurrent();
    stack.push(target.size, core.segSelector(CS), 0);
    stack.push(target.size, core.pcLow, core.pcHigh);
  }
  segs.commitCode(target.selector, core.cpl);
  if (call) stack.commit();
  core.setPc(target.offset, target.offsetHigh);
}

function callInner(p: Parts, target: Target, cpl: number, parameters: number): void {
  const { core, segs, stack, mmu, events } = p;
  const { size } = target;
  const mask = core.segAttr(SS) & ATTR_DB ? -1 : 0xffff;
  const oldPointer = core.regLow(RSP);
  const values: number[] = [];
  for (let i = 0; i < parameters; i++) {
    const offset = (oldPointer + i * size) & mask;
    if ((offset >>> 0) + size - 1 > core.segLimit(SS)) core.fault(SS_FAULT, 0);
    values.push(mmu.read((core.segBaseLow(SS) + offset) | 0, 0, size, AS_CURRENT));
  }
  const codeLow = segs.low;
  const codeHigh = segs.high;
  const atLow = segs.atLow;
  const atHigh = segs.atHigh;
  const stackSelector = events.innerStack(cpl);
  stack.push(size, core.segSelector(SS), 0);
  stack.push(size, oldPointer, 0);
  for (let i = parameters - 1; i >= 0; i--) stack.push(size, values[i]!, 0);
  stack.push(size, core.segSelector(CS), 0);
  stack.push(size, core.pcLow, 0);
  segs.commit(SS, stackSelector);
  segs.low = codeLow;
  segs.high = codeHigh;
  segs.atLow = atLow;
  segs.atHigh = atHigh;
  segs.commitCode(target.selector, cpl);
  stack.commit();
  core.setPc(target.offset, 0);
}

function callInnerWide(p: Parts, target: Target, cpl: number): void {
  const { core, segs, stack, mmu } = p;
  const at = 4 + 8 * cpl;
  if (at + 7 > core.segLimit(TR)) core.selectorFault(TS, core.segSelector(TR));
  const sum = (core.segBaseLow(TR) >>> 0) + at;
  mmu.read64(sum | 0, core.segBaseHigh(TR) + (sum > 0xffffffff ? 1 : 0), AS_SYSTEM);
  stack.useWide(core.low, core.high, cpl);
  stack.push(8, core.segSelector(SS), 0);
  stack.push(8, core.regLow(RSP), core.regHigh(RSP));
  stack.push(8, core.segSelector(CS), 0);
  stack.push(8, core.pcLow, core.pcHigh);
  segs.commitCode(target.selector, cpl);
  segs.setNull(SS, cpl);
  stack.commit();
  core.setPc(target.offset, target.offsetHigh);
}

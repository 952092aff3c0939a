/** Hardware task switches (SDM vol. 3, chapter 9), with 32- and 16-bit TSSs. */
import { CR0, CR3, CS, DS, EFLAGS, ES, FS, GS, LDTR, NT, RF, SEG_NULL, SS, TR, VM } from '../state.ts';
import { ATTR_CODE, ATTR_CONFORMING, ATTR_P, ATTR_READABLE, ATTR_S, CR0_TS, GP, NO_ERROR_CODE, NP, TS, attrDpl } from './core.ts';
import { DR6_BT } from './debug.ts';
import { AS_SYSTEM } from './mmu.ts';
import type { Parts } from './parts.ts';
import { TYPE_LDT } from './segments.ts';

export const SWITCH_JUMP = 0;
export const SWITCH_CALL = 1;
export const SWITCH_IRET = 2;

const BUSY = 2;
const IS_32 = 8;

/** Places of a TSS's fields: general registers follow each other, and so do segment registers. */
type Layout = {
  size: number;
  registers: number;
  ip: number;
  flags: number;
  segments: number;
  ldt: number;
  width: number;
  limit: number;
};
const TSS32: Layout = {
  size: 4,
  ip: 32,
  flags: 36,
  registers: 40,
  segments: 72,
  ldt: 96,
  width: 4,
  limit: 103,
};
const TSS16: Layout = {
  size: 2,
  ip: 14,
  flags: 16,
  registers: 18,
  segments: 34,
  ldt: 42,
  width: 2,
  limit: 43,
};

/** Word whose bit 0 asks for a trap at the task's start. */
const TSS32_TRAP = 100;

/** IRET with NT: back to the task that the current TSS links to. */
export function taskReturn(p: Parts): void {
  const { core, mmu, segs } = p;
  const link = mmu.read16(core.segBaseLow(TR), 0, AS_SYSTEM);
  if (link & 4) core.selectorFault(TS, link);
  segs.require(link, TS);
  const type = segs.systemType;
  if (type !== 3 && type !== 11) core.selectorFault(TS, link);
  switchTask(p, link, SWITCH_IRET);
}

/** @param errorCode pushed on the new task's stack, or NO_ERROR_CODE */
export function switchTask(p: Parts, selector: number, how: number, errorCode: number = NO_ERROR_CODE): void {
  const { core, mmu, segs } = p;
  readTss(p, selector, how);
  const wide = (segs.attributes & IS_32) !== 0;
  const layout = wide ? TSS32 : TSS16;
  if (segs.limit < layout.limit) core.selectorFault(TS, selector);
  const tss = { low: segs.low, high: segs.high, atLow: segs.atLow, atHigh: segs.atHigh };
  const base = segs.base;
  mmu.probeRead(base, 0, layout.limit + 1, AS_SYSTEM);
  const oldSelector = core.segSelector(TR);
  if (how !== SWITCH_CALL) clearBusy(p, oldSelector);
  saveTask(p, how);
  if (how === SWITCH_CALL) mmu.write(base, 0, 2, oldSelector, AS_SYSTEM);
  Object.assign(segs, tss);
  if (how !== SWITCH_IRET) segs.markType(BUSY);
  core.setSegment(TR, selector, base, 0, segs.limit, segs.attributes | BUSY);
  loadTask(p, layout, base, how);
  p.debug.clearLocal();
  if (wide && mmu.read16((base + TSS32_TRAP) | 0, 0, AS_SYSTEM) & 1) p.debug.trap(DR6_BT);
  if (errorCode !== NO_ERROR_CODE) {
    p.stack.useCurrent();
    p.stack.push(layout.size, errorCode, 0);
    p.stack.commit();
  }
}

function readTss(p: Parts, selector: number, how: number): void {
  const { core, segs } = p;
  if (selector & 4) core.selectorFault(GP, selector);
  segs.require(selector);
  const type = segs.systemType;
  const wanted = how === SWITCH_IRET ? BUSY : 0;
  if (type < 0 || (type & 5) !== 1 || (type & BUSY) !== wanted) core.selectorFault(GP, selector);
  if (!segs.present) core.selectorFault(NP, selector);
}

function clearBusy(p: Parts, selector: number): void {
  if (!p.segs.read(selector)) return;
  p.segs.high &= ~(BUSY << 8);
  p.segs.writeType();
}

function saveTask(p: Parts, how: number): void {
  const { core, mmu } = p;
  const layout = core.segAttr(TR) & IS_32 ? TSS32 : TSS16;
  const base = core.segBaseLow(TR);
  const put = (offset: number, value: number, size: number): void => mmu.write((base + offset) | 0, 0, size, value, AS_SYSTEM);
  mmu.probeWrite(base, 0, layout.limit + 1, AS_SYSTEM);
  let flags = core.readFlags();
  if (how === SWITCH_IRET) flags &= ~NT;
  put(layout.ip, core.pcLow, layout.size);
  put(layout.flags, flags, layout.size);
  for (let i = 0; i < 8; i++) put(layout.registers + i * layout.size, core.regLow(i), layout.size);
  const count = layout === TSS32 ? 6 : 4;
  for (let i = 0; i < count; i++) put(layout.segments + i * layout.width, core.segSelector(i), 2);
}

function loadTask(p: Parts, layout: Layout, base: number, how: number): void {
  const { core, mmu } = p;
  const at = (offset: number, size: number): number => mmu.read((base + offset) | 0, 0, size, AS_SYSTEM);
  const wide = layout === TSS32;
  const ip = at(layout.ip, layout.size);
  let flags = at(layout.flags, layout.size);
  const registers = Array.from({ length: 8 }, (_, i) => at(layout.registers + i * layout.size, layout.size));
  const count = wide ? 6 : 4;
  const selectors = Array.from({ length: 6 }, (_, i) => (i < count ? at(layout.segments + i * layout.width, 2) : 0));
  const ldt = at(layout.ldt, 2);
  if (wide && core.paging) p.core.set2(CR3, at(28, 4), 0);
  mmu.configure();
  if (mmu.isPae && !mmu.loadPdptes(core.get(CR3))) core.gp();
  core.services.flushAddressSpace(core.currentAsid);
  core.spaceChanged = true;
  if (how === SWITCH_CALL) flags |= NT;
  core.writeFlags(wide ? flags & (core.resumeFlag | ~RF) : flags & 0xffff);
  registers.forEach((value, i) => core.setReg(i, wide ? value : value | 0xffff0000, 0));
  core.setPc(ip, 0);
  // Faults from here on belong to the new task, at its first instruction.
  core.insnLength = 0;
  core.set(CR0, core.cr0 | CR0_TS);
  loadSegments(p, selectors, ldt);
  if (ip >>> 0 > core.segLimit(CS)) core.gp();
}

function loadSegments(p: Parts, selectors: readonly number[], ldt: number): void {
  const { core, segs } = p;
  for (let i = 0; i < 6; i++) core.setSegment(i, selectors[i]!, 0, 0, 0, SEG_NULL);
  loadTaskLdt(p, ldt);
  if (core.get(EFLAGS) & VM) {
    core.cpl = 3;
    for (const segment of [ES, CS, SS, DS, FS, GS]) segs.setReal(segment, selectors[segment]!);
    return;
  }
  loadTaskCode(p, selectors[CS]!);
  segs.loadStack(selectors[SS]!, core.cpl, TS);
  for (const segment of [ES, DS, FS, GS]) loadTaskData(p, segment, selectors[segment]!);
}

function loadTaskLdt(p: Parts, selector: number): void {
  const { core, segs } = p;
  core.setSegment(LDTR, selector, 0, 0, 0, SEG_NULL);
  if ((selector & 0xfffc) === 0) return;
  if (selector & 4 || !segs.read(selector) || segs.systemType !== TYPE_LDT || !segs.present) {
    core.selectorFault(TS, selector);
  }
  segs.setSystem(LDTR, selector);
}

function loadTaskCode(p: Parts, selector: number): void {
  const { core, segs } = p;
  const rpl = selector & 3;
  core.cpl = rpl;
  if ((selector & 0xfffc) === 0) core.selectorFault(TS, selector);
  segs.require(selector, TS);
  const { attributes } = segs;
  const kind = ATTR_S | ATTR_CODE;
  const dpl = attrDpl(attributes);
  if ((attributes & kind) !== kind || (attributes & ATTR_CONFORMING ? dpl > rpl : dpl !== rpl)) {
    core.selectorFault(TS, selector);
  }
  if (!(attributes & ATTR_P)) core.selectorFault(NP, selector);
  segs.commitCode(selector, rpl);
}

function loadTaskData(p: Parts, segment: number, selector: number): void {
  const { core, segs } = p;
  if ((selector & 0xfffc) === 0) return segs.setNull(segment, selector);
  segs.require(selector, TS);
  const { attributes } = segs;
  const code = (attributes & ATTR_CODE) !== 0;
  const readable = (attributes & ATTR_READABLE) !== 0;
  const conforming = code && (attributes & ATTR_CONFORMING) !== 0;
  const hidden = !conforming && Math.max(core.cpl, selector & 3) > attrDpl(attributes);
  if (!(attributes & ATTR_S) || (code && !readable) || hidden) core.selectorFault(TS, selector);
  if (!(attributes & ATTR_P)) core.selectorFault(NP, selector);
  segs.commit(segment, selector);
}

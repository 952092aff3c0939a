/** Exceptions and interrupts: from the vector to the handler's first instruction (SDM vol. 3, ch. 7). */
import { ACCESS_WRITE } from '../../isa.ts';
import {
  CR2,
  CS,
  DR7,
  DS,
  EFLAGS,
  ES,
  FS,
  GS,
  HALTED,
  IDTR_BASE,
  IDTR_LIMIT,
  IF,
  INTERRUPT_SHADOW,
  NMI_BLOCKED,
  NT,
  RF,
  SS,
  TF,
  TR,
  VIF,
  VM,
  AC as AC_FLAG,
} from '../state.ts';
import {
  ATTR_CODE,
  ATTR_CONFORMING,
  ATTR_DB,
  ATTR_L,
  ATTR_P,
  ATTR_S,
  BP,
  CR0_PE,
  CR4_VME,
  DB,
  DE,
  DF_ABORT,
  FAULT,
  GP,
  NMI,
  NO_ERROR_CODE,
  NP,
  OF_TRAP,
  PF_FAULT,
  SS_FAULT,
  TS,
  attrDpl,
} from './core.ts';
import type { Core } from './core.ts';
import { describePlace, hex64 } from './core.ts';
import { describeRegisters } from './describe.ts';
import { DR7_GD } from './debug.ts';
import { virtualFlags } from './iret.ts';
import { AS_CURRENT, AS_SYSTEM, AS_USER } from './mmu.ts';
import type { Mmu } from './mmu.ts';
import type { Segments } from './segments.ts';
import type { Stack } from './stack.ts';

/** What an event comes from. */
export const SOURCE_EXCEPTION = 0;
export const SOURCE_INTERRUPT = 1; // external, NMI
export const SOURCE_SOFTWARE = 2; // INT n, INT3, INTO: the gate's DPL counts
export const SOURCE_ICEBP = 3; // INT1: the gate's DPL does not
const SOURCE_NAMES = ['exception', 'interrupt', 'software interrupt', 'debug trap'];

const RSP = 4;
const HIGH = 0x1_0000_0000;
const TSS_MAP_BASE = 0x66;
const GATE_TASK = 5;
const GATE_INT16 = 6;
const GATE_TRAP16 = 7;
const GATE_INT32 = 14;
const GATE_TRAP32 = 15;

const BENIGN = 0;
const CONTRIBUTORY = 1;
const PAGE_FAULT = 2;

function classOf(vector: number): number {
  if (vector === PF_FAULT) return PAGE_FAULT;
  const contributory = vector === DE || (vector >= TS && vector <= GP);
  return contributory ? CONTRIBUTORY : BENIGN;
}

/** Faults, which push RF = 1: all but the traps, the abort, and #DB as it is raised here. */
function isFault(vector: number): boolean {
  return vector !== DB && vector !== BP && vector !== OF_TRAP && vector !== DF_ABORT && vector !== NMI;
}

/** Switches tasks for a task gate; see task.ts. */
export type TaskGate = (selector: number, errorCode: number) => void;

export class Events {
  private readonly core: Core;
  private readonly mmu: Mmu;
  private readonly segs: Segments;
  private readonly stack: Stack;
  taskGate: TaskGate = (selector) => this.core.selectorFault(GP, selector);
  onShutdown: () => void = () => {};
  /** Asked first, where a host handles a program's events itself. @returns true when it has */
  intercept: ((vector: number, code: number) => boolean) | null = null;

  constructor(core: Core, mmu: Mmu, segs: Segments, stack: Stack) {
    this.core = core;
    this.mmu = mmu;
    this.segs = segs;
    this.stack = stack;
  }

  /** Delivers the exception that the core has recorded. */
  deliverRecorded(): void {
    this.deliver(this.core.vector, this.core.code, SOURCE_EXCEPTION);
  }

  /** Delivers an event; faults on the way follow SDM vol. 3, table 7-5. */
  deliver(vector: number, code: number, source: number): void {
    if (this.intercept?.(vector, code)) return;
    this.traceEvent(vector, code, source);
    const { core } = this;
    core.set(INTERRUPT_SHADOW, 0);
    core.set(HALTED, 0);
    if (vector === DB) this.endBranchTracing();
    const { records } = core.branches;
    const [fromLow, fromHigh] = [core.pcLow, core.pcHigh];
    for (;;) {
      try {
        this.attempt(vector, code, source);
        core.ext = 0;
        if (records) this.recordEvent(fromLow, fromHigh, source);
        core.refresh();
        return;
      } catch (error) {
        if (error !== FAULT) throw error;
      }
      core.ext = 0;
      // The INT instruction itself faults.
      if (source >= SOURCE_SOFTWARE) core.movePc(-core.insnLength);
      if (vector === DF_ABORT && source === SOURCE_EXCEPTION) return this.onShutdown();
      const first = source === SOURCE_EXCEPTION ? classOf(vector) : BENIGN;
      const second = classOf(core.vector);
      const double = (first === CONTRIBUTORY && second === CONTRIBUTORY) || (first === PAGE_FAULT && second !== BENIGN);
      vector = double ? DF_ABORT : core.vector;
      code = double ? 0 : core.code;
      source = SOURCE_EXCEPTION;
    }
  }

  /** A debug exception's handler is not to be traced, nor stepped, before it asks for it. */
  private endBranchTracing(): void {
    this.core.branches.stop();
    this.core.changed = true;
  }

  /** Records an event as the last branch. @param fromLow where it came; after the instruction, of software interrupts */
  private recordEvent(fromLow: number, fromHigh: number, source: number): void {
    const { core } = this;
    const { branches } = core;
    branches.beforeEvent();
    const back = source >= SOURCE_SOFTWARE ? core.insnLength : 0;
    branches.setPlace((fromLow - back) | 0, fromHigh - (back > fromLow >>> 0 ? 1 : 0));
    branches.record(core.pcLow, core.pcHigh);
  }

  private traceEvent(vector: number, code: number, source: number): void {
    const { trace } = this.core.platform;
    if (!trace) return;
    const what = SOURCE_NAMES[source] ?? 'exception';
    const error = code === NO_ERROR_CODE ? '' : ` error ${code.toString(16)}`;
    const address = vector === PF_FAULT ? ` address ${hex64(this.core.get(CR2 + 4), this.core.get(CR2))}` : '';
    if (this.core.platform.tracesRegisters) trace('cpu', `at an event\n${describeRegisters(this.core)}`);
    trace('int', `${what} ${vector}${error}${address} at ${describePlace(this.core)}`);
  }

  private attempt(vector: number, code: number, source: number): void {
    const { core } = this;
    core.ext = source === SOURCE_SOFTWARE ? 0 : 1;
    if (source === SOURCE_EXCEPTION) {
      if (vector === PF_FAULT) core.set2(CR2, core.faultLow, core.faultHigh);
      if (vector === DB) core.set(DR7, core.get(DR7) & ~DR7_GD);
    }
    const pushRf = core.returnsWithRf || (source === SOURCE_EXCEPTION && isFault(vector));
    if (core.longMode) this.deliverLong(vector, code, source, pushRf);
    else if (core.cr0 & CR0_PE) this.deliverProtected(vector, code, source, pushRf);
    else this.deliverReal(vector);
    if (vector === NMI && source === SOURCE_INTERRUPT) core.set(NMI_BLOCKED, 1);
  }

  // --- Real mode. ---

  private deliverReal(vector: number): void {
    const { core, mmu, stack } = this;
    if (vector * 4 + 3 > core.get(IDTR_LIMIT) >>> 0) core.fault(GP, NO_ERROR_CODE);
    const at = (core.get(IDTR_BASE) + vector * 4) | 0;
    const entry = mmu.read32(at, 0, AS_SYSTEM);
    stack.useCurrent();
    stack.push(2, core.readFlags(), 0);
    stack.push(2, core.segSelector(CS), 0);
    stack.push(2, core.pcLow, 0);
    stack.commit();
    core.set(EFLAGS, core.eflags & ~(IF | TF | RF | AC_FLAG));
    this.segs.setReal(CS, entry >>> 16);
    core.setPc(entry & 0xffff, 0);
    core.changed = true;
  }

  // --- Virtual-8086 mode with VME: interrupts handled by the 8086 program itself. ---

  /** The bit map of INT n that go to protected mode: the 32 bytes before the I/O permission map. */
  private isIntercepted(vector: number): boolean {
    const { core, mmu } = this;
    const wide = (core.segAttr(TR) & 8) !== 0;
    if (!wide || core.segLimit(TR) < TSS_MAP_BASE + 1) core.gp();
    const base = core.segBaseLow(TR);
    const at = mmu.read16((base + TSS_MAP_BASE) | 0, 0, AS_SYSTEM) - 32 + (vector >> 3);
    if (at < 0 || at > core.segLimit(TR)) core.gp();
    return ((mmu.read8((base + at) | 0, 0, AS_SYSTEM) >> (vector & 7)) & 1) !== 0;
  }

  private deliverVirtual(vector: number): void {
    const { core, mmu, stack } = this;
    const entry = mmu.read32(vector * 4, 0, AS_CURRENT);
    const free = core.iopl === 3;
    stack.useCurrent();
    stack.push(2, free ? core.readFlags() & 0xffff : virtualFlags(core), 0);
    stack.push(2, core.segSelector(CS), 0);
    stack.push(2, core.pcLow, 0);
    stack.commit();
    core.set(EFLAGS, core.eflags & ~(TF | RF | (free ? IF : VIF)));
    this.segs.setReal(CS, entry >>> 16);
    core.setPc(entry & 0xffff, 0);
    core.changed = true;
  }

  // --- Protected mode, 16- and 32-bit gates. ---

  private deliverProtected(vector: number, code: number, source: number, pushRf: boolean): void {
    const { core, mmu, segs } = this;
    const index = vector * 8 + 2;
    if (vector * 8 + 7 > core.get(IDTR_LIMIT) >>> 0) core.gp(index);
    mmu.read64((core.get(IDTR_BASE) + vector * 8) | 0, 0, AS_SYSTEM);
    const gateLow = core.low;
    const gateHigh = core.high;
    const type = (gateHigh >> 8) & 0x1f;
    const known =
      type === GATE_TASK || type === GATE_INT16 || type === GATE_TRAP16 || type === GATE_INT32 || type === GATE_TRAP32;
    if (!known) core.gp(index);
    if (source === SOURCE_SOFTWARE && ((gateHigh >> 13) & 3) < core.cpl) core.gp(index);
    if (!(gateHigh & 0x8000)) core.fault(NP, index | core.ext);
    if (type === GATE_TASK) return this.taskGate(gateLow >>> 16, code);
    const selector = gateLow >>> 16;
    this.readHandler(selector);
    const attributes = segs.attributes;
    const cpl = core.cpl;
    const inner = !(attributes & ATTR_CONFORMING) && attrDpl(attributes) < cpl;
    if (core.v86 && (!inner || attrDpl(attributes) !== 0)) core.selectorFault(GP, selector);
    const size = type >= GATE_INT32 ? 4 : 2;
    const offset = (gateLow & 0xffff) | (size === 4 ? gateHigh & 0xffff0000 : 0);
    if (offset >>> 0 > segs.limit) core.gp();
    const interrupt = type === GATE_INT16 || type === GATE_INT32;
    if (inner) this.enterInner(selector, offset, size, code, interrupt, pushRf);
    else this.enterSame(selector, offset, size, code, interrupt, pushRf);
  }

  /** Reads and checks the handler's code segment. */
  private readHandler(selector: number): void {
    const { core, segs } = this;
    if ((selector & 0xfffc) === 0) core.gp();
    segs.require(selector);
    const { attributes } = segs;
    const kind = ATTR_S | ATTR_CODE;
    if ((attributes & kind) !== kind || attrDpl(attributes) > core.cpl) {
      core.selectorFault(GP, selector);
    }
    if (!(attributes & ATTR_P)) core.selectorFault(NP, selector);
  }

  private pushReturn(size: number, code: number, flags: number): void {
    const { core, stack } = this;
    stack.push(size, flags, 0);
    stack.push(size, core.segSelector(CS), 0);
    stack.push(size, core.pcLow, 0);
    if (code !== NO_ERROR_CODE) stack.push(size, code, 0);
  }

  private enterSame(selector: number, offset: number, size: number, code: number, interrupt: boolean, pushRf: boolean): void {
    const { core, segs, stack } = this;
    stack.useCurrent();
    this.pushReturn(size, code, core.readFlags() | (pushRf ? RF : 0));
    segs.commitCode(selector, core.cpl);
    stack.commit();
    this.clearFlags(interrupt);
    core.setPc(offset, 0);
  }

  private enterInner(selector: number, offset: number, size: number, code: number, interrupt: boolean, pushRf: boolean): void {
    const { core, segs, stack } = this;
    const codeLow = segs.low;
    const codeHigh = segs.high;
    const codeAtLow = segs.atLow;
    const codeAtHigh = segs.atHigh;
    const cpl = segs.dpl;
    const flags = core.readFlags() | (pushRf ? RF : 0);
    const stackSelector = this.innerStack(cpl);
    const wasV86 = core.v86;
    if (wasV86) for (const segment of [GS, FS, DS, ES]) stack.push(size, core.segSelector(segment), 0);
    stack.push(size, core.segSelector(SS), 0);
    stack.push(size, core.regLow(RSP), 0);
    this.pushReturn(size, code, flags);
    segs.commit(SS, stackSelector);
    segs.low = codeLow;
    segs.high = codeHigh;
    segs.atLow = codeAtLow;
    segs.atHigh = codeAtHigh;
    if (wasV86) for (const segment of [GS, FS, DS, ES]) segs.setNull(segment, 0);
    core.set(EFLAGS, core.eflags & ~VM);
    segs.commitCode(selector, cpl);
    stack.commit();
    this.clearFlags(interrupt);
    core.setPc(offset, 0);
  }

  /**
   * Makes `stack` the one that the TSS names for a privilege level; its descriptor has been read.
   * @returns its selector
   */
  innerStack(cpl: number): number {
    const { core, mmu, segs, stack } = this;
    const base = core.segBaseLow(TR);
    const wide = (core.segAttr(TR) & 8) !== 0;
    const at = wide ? 4 + 8 * cpl : 2 + 4 * cpl;
    if (at + (wide ? 5 : 3) > core.segLimit(TR)) core.selectorFault(TS, core.segSelector(TR));
    const place = (base + at) | 0;
    const pointer = wide ? mmu.read32(place, 0, AS_SYSTEM) : mmu.read16(place, 0, AS_SYSTEM);
    const selector = mmu.read16((place + (wide ? 4 : 2)) | 0, 0, AS_SYSTEM);
    segs.checkStack(selector, cpl, TS);
    stack.use(selector, segs.base, segs.limit, segs.attributes, pointer, cpl);
    return selector;
  }

  private clearFlags(interrupt: boolean): void {
    const { core } = this;
    core.set(EFLAGS, core.eflags & ~(TF | RF | NT | VM | (interrupt ? IF : 0)));
    core.changed = true;
  }

  // --- Long mode. ---

  private deliverLong(vector: number, code: number, source: number, pushRf: boolean): void {
    const { core, mmu, segs } = this;
    const index = vector * 8 + 2;
    if (vector * 16 + 15 > core.get(IDTR_LIMIT) >>> 0) core.gp(index);
    const sum = (core.get(IDTR_BASE) >>> 0) + vector * 16;
    const at = sum | 0;
    const atHigh = (core.get(IDTR_BASE + 4) + (sum >= HIGH ? 1 : 0)) | 0;
    mmu.read64(at, atHigh, AS_SYSTEM);
    const gateLow = core.low;
    const gateHigh = core.high;
    const offsetHigh = mmu.read32((at + 8) | 0, atHigh, AS_SYSTEM);
    const type = (gateHigh >> 8) & 0x1f;
    if (type !== GATE_INT32 && type !== GATE_TRAP32) core.gp(index);
    const cpl = core.cpl;
    if (source === SOURCE_SOFTWARE && ((gateHigh >> 13) & 3) < cpl) core.gp(index);
    if (!(gateHigh & 0x8000)) core.fault(NP, index | core.ext);
    const selector = gateLow >>> 16;
    this.readHandler(selector);
    const attributes = segs.attributes;
    if ((attributes & (ATTR_L | ATTR_DB)) !== ATTR_L) core.selectorFault(GP, selector);
    const inner = !(attributes & ATTR_CONFORMING) && attrDpl(attributes) < cpl;
    const newCpl = inner ? attrDpl(attributes) : cpl;
    const offset = (gateLow & 0xffff) | (gateHigh & 0xffff0000);
    if (!core.isCanonical(offset, offsetHigh)) core.gp();
    const ist = gateHigh & 7;
    if (ist !== 0) this.readTssPointer(0x1c + 8 * ist);
    else if (inner) this.readTssPointer(4 + 8 * newCpl);
    else {
      core.low = core.regLow(RSP);
      core.high = core.regHigh(RSP);
    }
    this.pushLongFrame(core.low & ~15, core.high, code, newCpl, pushRf);
    segs.commitCode(selector, newCpl);
    if (inner) segs.setNull(SS, newCpl);
    core.setReg(RSP, this.frameLow, this.frameHigh);
    this.clearFlags(type === GATE_INT32);
    core.setPc(offset, offsetHigh);
  }

  /** Stack pointer from the 64-bit TSS, into core.low and core.high. */
  private readTssPointer(offset: number): void {
    const { core } = this;
    if (offset + 7 > core.segLimit(TR)) core.selectorFault(TS, core.segSelector(TR));
    const sum = (core.segBaseLow(TR) >>> 0) + offset;
    this.mmu.read64(sum | 0, (core.segBaseHigh(TR) + (sum >= HIGH ? 1 : 0)) | 0, AS_SYSTEM);
  }

  private frameLow = 0;
  private frameHigh = 0;

  private pushLongFrame(topLow: number, topHigh: number, code: number, cpl: number, pushRf: boolean): void {
    const { core, mmu } = this;
    const words = code === NO_ERROR_CODE ? 10 : 12;
    const sum = (topLow >>> 0) - words * 4;
    const low = sum | 0;
    const high = (topHigh - (sum < 0 ? 1 : 0)) | 0;
    if (!core.isCanonical(low, high) || !core.isCanonical(topLow, topHigh)) {
      core.fault(SS_FAULT, core.ext);
    }
    const how = cpl === 3 ? AS_USER : AS_SYSTEM;
    const flags = core.readFlags() | (pushRf ? RF : 0);
    this.frameLow = low;
    this.frameHigh = high;
    const host = (low & 0xfff) + words * 4 <= 4096 ? mmu.hostOf(low, high, how, ACCESS_WRITE) : -1;
    if (host >= 0) return this.storeFrame(host / 4, code, flags);
    mmu.probeWrite(low, high, words * 4, how);
    const scratch = this.frame;
    this.fillFrame(scratch, 0, code, flags);
    for (let i = 0; i < words; i++) {
      const at = (low >>> 0) + 4 * i;
      mmu.write(at | 0, at >= HIGH ? (high + 1) | 0 : high, 4, scratch[i]!, how);
    }
  }

  private readonly frame = new Int32Array(12);

  private storeFrame(at: number, code: number, flags: number): void {
    this.fillFrame(this.core.i32, at, code, flags);
  }

  private fillFrame(into: Int32Array, at: number, code: number, flags: number): void {
    const { core } = this;
    if (code !== NO_ERROR_CODE) {
      into[at++] = code;
      into[at++] = 0;
    }
    into[at] = core.pcLow;
    into[at + 1] = core.pcHigh;
    into[at + 2] = core.segSelector(CS);
    into[at + 3] = 0;
    into[at + 4] = flags;
    into[at + 5] = 0;
    into[at + 6] = core.regLow(RSP);
    into[at + 7] = core.regHigh(RSP);
    into[at + 8] = core.segSelector(SS);
    into[at + 9] = 0;
  }

  /** INT n. In virtual-8086 mode it needs IOPL 3, or VME may redirect it (SDM vol. 3, 22.3). */
  software(vector: number): void {
    const { core } = this;
    if (core.v86) {
      if (core.cr4 & CR4_VME && !this.isIntercepted(vector)) return this.deliverVirtual(vector);
      if (core.iopl !== 3) core.gp();
    }
    this.deliver(vector, NO_ERROR_CODE, SOURCE_SOFTWARE);
  }
}

/** One x86 vCPU: what the engine drives, and what interrupt controllers signal. */
import { CTL_CTX, EXIT_ISA } from '../../../ir/vcpu-block.ts';
import type { CpuPort, DeviceState } from '../../../machine/interfaces.ts';
import type { EngineServices, Translation, Vcpu } from '../../isa.ts';
import {
  BF_TF,
  CR0,
  CR3,
  CR4,
  CS,
  DR6,
  DR7,
  DS,
  EFER,
  EFLAGS,
  ES,
  FS,
  GDTR_BASE,
  GDTR_LIMIT,
  GS,
  HALTED,
  IDTR_LIMIT,
  IF,
  INTERRUPT_SHADOW,
  INTR_LINE,
  LDTR,
  MXCSR,
  NMI_BLOCKED,
  RF,
  SHADOW_SS,
  SS,
  TF,
  TR,
  X86_STATE_END,
  XCR0,
  GPR,
  SEG_NULL,
} from '../state.ts';
import { Control } from './control.ts';
import { BP, Core, DB, FAULT, GP, NMI, NO_ERROR_CODE, OF_TRAP, SS_FAULT, UD, describePlace } from './core.ts';
import type { Platform } from './core.ts';
import { Cpuid } from './cpuid.ts';
import { DR6_BS, Debug } from './debug.ts';
import { describeRegisters } from './describe.ts';
import { Events, SOURCE_EXCEPTION, SOURCE_INTERRUPT } from './exceptions.ts';
import { AT_INSTRUCTION, KEEPS_RF, NO_TRAP, TABLE, TRANSFERS, TRAP_BY_NEW_FLAGS } from './leave-table.ts';
import type { AllParts } from './leave-table.ts';
import { AS_SYSTEM, AS_USER, Mmu } from './mmu.ts';
import { Msrs } from './msr.ts';
import { Ports } from './ports.ts';
import { injectedEvent, type InjectedEvent, loadState, saveState } from './saved-state.ts';
import type { Pending } from './saved-state.ts';
import { Segments } from './segments.ts';
import { Smm } from './smm.ts';
import { isStackReference } from './stack-reference.ts';
import { Stack } from './stack.ts';
import { Strings } from './strings.ts';
import { SWITCH_CALL, switchTask } from './task.ts';
import { XSave } from './xsave.ts';

export type { IoPorts, PhysicalMemory, Platform, ShutdownReason } from './core.ts';

export type InitialSegment = { selector: number; base: number; limit: number; attributes: number };

/** A state to start in directly; the board's loaders make these (machine/loader/cpu-state.ts). */
export type InitialCpuState = {
  mode: 'long64' | 'prot32' | 'real16';
  rip: number;
  rsi: number;
  rbx: number;
  rsp: number;
  cr0: number;
  cr3: number;
  cr4: number;
  efer: number;
  gdtBase: number;
  gdtLimit: number;
  cs: InitialSegment;
  ds: InitialSegment;
};

const RSI = 6;
const RBX = 3;
const RSP = 4;
const RDX = 2;
const OPERAND_BYTES = [1, 2, 4, 8] as const;

export class X86Cpu implements Vcpu, CpuPort {
  readonly core: Core;
  readonly mmu: Mmu;
  private readonly debug: Debug;
  private readonly smm: Smm;
  readonly msrs: Msrs;
  readonly cpuid: Cpuid;
  private readonly parts: AllParts;
  private readonly events: Events;
  private readonly xsave: XSave;
  private intr = false;
  private nmiPending = false;
  private smiPending = false;
  private initPending = false;
  private waitForSipi = false;
  private shutdown = false;

  constructor(services: EngineServices, platform: Platform) {
    const core = new Core(services, platform);
    const debug = new Debug(core);
    const mmu = new Mmu(core, debug);
    const segs = new Segments(core, mmu);
    const stack = new Stack(core, mmu);
    const events = new Events(core, mmu, segs, stack);
    const cpuid = new Cpuid(core);
    const ports = new Ports(core, mmu, debug);
    const xsave = new XSave(core, mmu);
    const control = new Control(core, mmu, debug, xsave);
    const msrs = new Msrs(core, mmu, cpuid);
    const strings = new Strings({ core, debug, mmu, segs, stack, events }, ports);
    const smm = new Smm(core, mmu, debug);
    this.core = core;
    this.smm = smm;
    this.debug = debug;
    this.mmu = mmu;
    this.events = events;
    this.cpuid = cpuid;
    this.msrs = msrs;
    this.xsave = xsave;
    this.parts = {
      core,
      debug,
      mmu,
      segs,
      stack,
      events,
      control,
      msrs,
      cpuid,
      ports,
      strings,
      xsave,
      smm,
      fpuError: () => platform.fpuError?.(),
    };
    events.taskGate = (selector, code) => switchTask(this.parts, selector, SWITCH_CALL, code);
    events.onShutdown = () => this.tripleFault();
    this.reset();
  }

  // --- Start. ---

  /** State after power-on (SDM vol. 3, table 10-1). */
  reset(): void {
    const { core, mmu } = this;
    core.u8.fill(0, core.base + GPR, core.base + X86_STATE_END);
    core.watchers.clear();
    core.set(INTR_LINE, this.intr ? 1 : 0);
    core.set(CTL_CTX, 0);
    core.writeFlags(2);
    core.set(CR0, 0x60000010);
    core.set(DR6, 0xffff0ff0 | 0);
    core.set(DR7, 0x400);
    core.set(GDTR_LIMIT, 0xffff);
    core.set(IDTR_LIMIT, 0xffff);
    core.set(XCR0, 1);
    core.set(MXCSR, 0x1f80);
    core.setReg(RDX, this.cpuid.leaf(1, 0)[0], 0);
    for (const segment of [ES, SS, DS, FS, GS]) core.setSegment(segment, 0, 0, 0, 0xffff, 0x93);
    core.setSegment(CS, 0xf000, 0xffff0000 | 0, 0, 0xffff, 0x9b);
    core.setSegment(LDTR, 0, 0, 0, 0xffff, 0x82);
    core.setSegment(TR, 0, 0, 0, 0xffff, 0x8b);
    core.setPc(0xfff0, 0);
    this.xsave.initX87();
    this.msrs.reset();
    this.smm.reset();
    this.nmiPending = this.smiPending = this.initPending = this.waitForSipi = this.shutdown = false;
    mmu.configure();
    this.debug.reset();
    this.modeReplaced();
  }

  /** Begins in a given mode instead of at the reset vector. */
  setInitialState(state: InitialCpuState): void {
    this.reset();
    const { core } = this;
    core.set(CR0, state.cr0 | 0);
    core.set2(CR3, state.cr3 | 0, Math.floor(state.cr3 / 2 ** 32));
    core.set(CR4, state.cr4 | 0);
    core.set(EFER, state.efer | 0);
    core.set2(GDTR_BASE, state.gdtBase | 0, Math.floor(state.gdtBase / 2 ** 32));
    core.set(GDTR_LIMIT, state.gdtLimit);
    const put = (segment: number, s: InitialSegment): void =>
      core.setSegment(segment, s.selector, s.base | 0, 0, s.limit | 0, s.attributes);
    put(CS, state.cs);
    for (const segment of [ES, SS, DS]) put(segment, state.ds);
    for (const segment of [FS, GS]) {
      if (state.mode === 'real16') put(segment, state.ds);
      else core.setSegment(segment, 0, 0, 0, 0, SEG_NULL);
    }
    core.setPc(state.rip | 0, Math.floor(state.rip / 2 ** 32));
    const register = (n: number, value: number): void => core.setReg(n, value | 0, Math.floor(value / 2 ** 32));
    register(RSI, state.rsi);
    register(RBX, state.rbx);
    register(RSP, state.rsp);
    if (state.mode !== 'real16') this.msrs.asAfterFirmware();
    this.mmu.configure();
    this.modeReplaced();
  }

  private modeReplaced(): void {
    const { core } = this;
    core.changed = true;
    core.spaceChanged = true;
    core.services.flushAll();
    core.refresh();
  }

  // --- Vcpu. ---

  contextChanged(): void {
    this.core.contextChanged();
  }

  readonly helpers = {
    tsc: (): number => {
      const { core } = this;
      if (core.services.exactCount) return 0;
      core.readTsc();
      return 1;
    },
  };

  walk(low: number, high: number, access: number, out: Translation): boolean {
    return this.mmu.walk(low, high, access, out);
  }

  codeAddress(out: Int32Array): void {
    const { core } = this;
    if (core.code64) {
      out[0] = core.pcLow;
      out[1] = core.pcHigh;
    } else {
      out[0] = core.pcLow + core.segBaseLow(CS);
      out[1] = 0;
    }
  }

  blockFlags(): number {
    this.core.refresh();
    return this.core.flags;
  }

  deliverFault(): void {
    if (this.mmu.strayed) this.nameStray();
    this.deliverOwnFault();
  }

  /** Makes the #GP(0) of an address that is not canonical #SS(0) where the stack segment was meant. */
  private nameStray(): void {
    const { core, mmu } = this;
    mmu.strayed = false;
    if (!core.code64) return;
    const wide = (low: number, high: number): bigint => BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low >>> 0));
    const [pc, top] = [wide(core.pcLow, core.pcHigh), wide(core.regLow(4), core.regHigh(4))];
    const how = core.cpl === 3 ? AS_USER : AS_SYSTEM;
    const distance = BigInt.asIntN(64, wide(core.faultLow, core.faultHigh) - top);
    try {
      const isStack = isStackReference(
        (n) => {
          const at = pc + BigInt(n);
          return mmu.read(Number(BigInt.asIntN(32, at)), Number(BigInt.asIntN(32, at >> 32n)), 1, how);
        },
        distance >= -8n && distance < 8n,
        (n) => core.isCanonical(core.regLow(n), core.regHigh(n)) && (core.regLow(n) & 63) === 0,
      );
      core.record(isStack ? SS_FAULT : GP, 0);
    } catch (error) {
      // The code's own page has just gone: the fault stays what it was.
      if (error !== FAULT) throw error;
      core.record(GP, 0);
    }
  }

  private deliverOwnFault(): void {
    this.debug.forget();
    this.events.deliverRecorded();
    // The handler may be a task that traps at its start.
    this.trap(false);
  }

  leave(reason: number, argument: number): void {
    const { core } = this;
    const entry = TABLE[reason - EXIT_ISA];
    if (entry === undefined) throw new Error(`no handler for exit reason ${reason}`);
    const before = core.eflags;
    core.insnLength = argument & 15;
    if (core.flags & BF_TF) this.beginStep(entry.flags);
    try {
      entry.handle(this.parts, argument, OPERAND_BYTES[(argument >> 4) & 3]!);
    } catch (error) {
      if (error !== FAULT) throw error;
      if (!(entry.flags & AT_INSTRUCTION)) core.movePc(-core.insnLength);
      this.deliverOwnFault();
      core.returnsWithRf = false;
      return;
    }
    this.endInstruction(before, entry.flags);
    core.refresh();
    if (entry.flags & TRANSFERS) core.platform.trace?.('pcall', `to ${describePlace(core)}, CPL ${core.cpl}`);
  }

  /** An instruction is executed alone: far transfers are branches, near ones say themselves whether they are taken. */
  private beginStep(rules: number): void {
    const { core } = this;
    core.branches.taken = (rules & TRANSFERS) !== 0;
    const back = rules & AT_INSTRUCTION ? 0 : core.insnLength;
    core.branches.setPlace((core.pcLow - back) | 0, core.pcHigh - (back > core.pcLow >>> 0 ? 1 : 0));
  }

  /** RF lasts one instruction, and what traps after one comes now. @param before EFLAGS at its start */
  private endInstruction(before: number, rules: number): void {
    const { core, debug } = this;
    if (before & RF && !(rules & KEEPS_RF) && !core.returnsWithRf) {
      core.set(EFLAGS, core.eflags & ~RF);
      core.changed = true;
    }
    const shadowed = core.get(INTERRUPT_SHADOW) === SHADOW_SS;
    const flags = rules & TRAP_BY_NEW_FLAGS ? core.eflags : before;
    // After MOV SS the trap waits like interrupts do.
    const { branches } = core;
    if (core.flags & BF_TF && branches.records && branches.taken) branches.record(core.pcLow, core.pcHigh);
    const due = flags & TF && !(rules & NO_TRAP) && !shadowed;
    if (due && (branches.taken || !branches.trapsBranches)) debug.trap(DR6_BS);
    this.trap(shadowed);
    if (core.returnsWithRf) this.pollInterrupts();
    core.returnsWithRf = false;
  }

  /** Delivers the #DB that is due. */
  private trap(hold: boolean): void {
    if (this.debug.take(hold)) this.events.deliver(DB, NO_ERROR_CODE, SOURCE_EXCEPTION);
  }

  get watching(): boolean {
    return this.debug.watching;
  }

  watch(low: number, high: number, size: number, write: boolean): boolean {
    return this.debug.access(low, high, size, write);
  }

  stepped(): void {
    this.trap(false);
  }

  fetchFromNowhere(page: number): void {
    const { core } = this;
    core.platform.trace?.('fetch', `no memory at ${page.toString(16)}, code ${describePlace(core)}`);
    // The bus reads as all ones, and FF FF is not an instruction.
    core.record(UD, NO_ERROR_CODE);
    this.events.deliverRecorded();
  }

  // --- Interrupts. ---

  get halted(): boolean {
    return this.core.get(HALTED) !== 0;
  }

  get interruptShadow(): boolean {
    return this.core.get(INTERRUPT_SHADOW) !== 0;
  }

  clearShadow(): void {
    this.core.set(INTERRUPT_SHADOW, 0);
    if (!this.debug.isHeld) return;
    this.debug.release();
    this.trap(false);
  }

  get interruptWaiting(): boolean {
    const { core } = this;
    // What MOV SS puts off must come right after the next instruction.
    if ((this.smiPending || this.initPending) && !this.smm.active) return true;
    if (this.debug.isHeld || core.breakpoints) return true;
    if (this.nmiPending && core.get(NMI_BLOCKED) === 0) return true;
    return this.intr && (core.eflags & IF) !== 0;
  }

  pollInterrupts(): void {
    if (!this.intr && !this.nmiPending && !this.initPending && !this.smiPending) return;
    const { core } = this;
    if (!this.smm.active) {
      if (this.smiPending && !this.waitForSipi) {
        this.smiPending = false;
        return this.smm.enter();
      }
      if (this.initPending) return this.takeInit();
    }
    if (this.shutdown || this.waitForSipi || core.get(INTERRUPT_SHADOW) !== 0) return;
    if (this.nmiPending && core.get(NMI_BLOCKED) === 0) {
      this.nmiPending = false;
      this.events.deliver(NMI, NO_ERROR_CODE, SOURCE_INTERRUPT);
      return;
    }
    if (!this.intr || (core.eflags & IF) === 0) return;
    const vector = core.platform.intc.acknowledge();
    if (vector >= 0) this.events.deliver(vector, NO_ERROR_CODE, SOURCE_INTERRUPT);
  }

  setIntr(pending: boolean): void {
    this.intr = pending;
    this.core.set(INTR_LINE, pending ? 1 : 0);
    if (pending && this.core.eflags & IF) this.core.services.kick();
  }

  nmi(): void {
    this.nmiPending = true;
    this.core.services.kick();
  }

  smi(): void {
    this.smiPending = true;
    this.core.services.kick();
  }

  init(): void {
    this.initPending = true;
    this.core.services.kick();
  }

  private takeInit(): void {
    const { core } = this;
    const bootProcessor = (core.platform.intc.getApicBase()[0] & 0x100) !== 0;
    // INIT keeps the x87 and SSE registers and most MSRs (SDM vol. 3, table 10-1).
    const kept = saveState(core, this.mmu, this.msrs, this.pending());
    const { base } = this.smm;
    this.reset();
    this.smm.restore(base, false);
    const now = saveState(core, this.mmu, this.msrs, this.pending());
    for (const name of KEPT_BY_INIT) now.fields[name] = kept.fields[name]!;
    loadState(core, this.mmu, this.msrs, now);
    this.waitForSipi = !bootProcessor;
    core.set(HALTED, bootProcessor ? 0 : 1);
    this.modeReplaced();
  }

  sipi(vector: number): void {
    if (this.initPending && !this.smm.active) this.takeInit();
    if (!this.waitForSipi) return;
    const { core } = this;
    this.waitForSipi = false;
    core.set(HALTED, 0);
    core.setSegment(CS, vector << 8, vector << 12, 0, 0xffff, 0x9b);
    core.setPc(0, 0);
    core.refresh();
  }

  setA20(enabled: boolean): void {
    if (this.mmu.a20 === enabled) return;
    this.mmu.setA20(enabled);
    this.core.services.flushAll();
  }

  /** RAM, ROM or registers have moved in physical memory: what is kept of translations is stale. */
  memoryMapChanged(): void {
    this.mmu.forget();
    this.core.services.flushAll();
  }

  private tripleFault(): void {
    const { core } = this;
    core.platform.trace?.('triple-fault', `${describePlace(core)}\n${describeRegisters(core)}`);
    this.shutdown = true;
    core.set(HALTED, 1);
    core.services.kick();
    core.platform.onShutdown('triple-fault');
  }

  /**
   * Hands exceptions and interrupts to a host that runs a program without a kernel.
   * @param handle vector and error code (-1 = none), the pc being that of the instruction or, for traps, the next one;
   *   returns true when the event is not to go through the guest's interrupt table
   */
  interceptEvents(handle: (vector: number, code: number) => boolean): void {
    this.events.intercept = handle;
  }

  // --- Saved state. ---

  private pending(): Pending {
    return {
      nmi: this.nmiPending,
      intr: this.intr,
      waitForSipi: this.waitForSipi,
      shutdown: this.shutdown,
      smi: this.smiPending,
      smm: this.smm.active,
      smbase: this.smm.base,
      smmNmiBlocked: this.smm.nmiBlocked,
      init: this.initPending,
      heldTraps: this.debug.held,
    };
  }

  saveState(): DeviceState {
    return saveState(this.core, this.mmu, this.msrs, this.pending());
  }

  /** What INT raises comes again when the instruction is executed again. */
  private goOnDelivering({ vector, errorCode, kind }: InjectedEvent): void {
    if (kind === 'software' || (kind === 'exception' && (vector === BP || vector === OF_TRAP))) return;
    const code = errorCode < 0 ? NO_ERROR_CODE : errorCode;
    this.events.deliver(vector, code, kind === 'exception' ? SOURCE_EXCEPTION : SOURCE_INTERRUPT);
  }

  /** @throws Error naming the field that does not fit */
  loadState(state: DeviceState): void {
    const injected = injectedEvent(state);
    const pending = loadState(this.core, this.mmu, this.msrs, state);
    this.nmiPending = pending.nmi;
    this.setIntr(pending.intr);
    this.waitForSipi = pending.waitForSipi;
    this.shutdown = pending.shutdown;
    this.smiPending = pending.smi;
    this.initPending = pending.init;
    this.smm.restore(pending.smbase, pending.smm, pending.smmNmiBlocked);
    this.mmu.configure();
    this.debug.reset(pending.heldTraps);
    this.modeReplaced();
    if (injected !== null) this.goOnDelivering(injected);
  }
}

const KEPT_BY_INIT = [
  'fcw',
  'fsw',
  'ftop',
  'fop',
  'fip',
  'fdp',
  'fcs',
  'fds',
  'x87',
  'x87Empty',
  'mxcsr',
  'xmm',
  'ymmHigh',
  'msrs',
  'pat',
  'miscEnable',
  'xcr0',
  'xss',
  'tscAux',
  'star',
  'lstar',
  'cstar',
  'sfmask',
  'kernelGsBase',
  'sysenterCs',
  'sysenterEsp',
  'sysenterEip',
] as const;

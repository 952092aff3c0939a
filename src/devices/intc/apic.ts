/**
 * Local APIC in xAPIC and x2APIC mode: Intel SDM volume 3, chapter 12 (numbering of the 2024
 * edition; chapter 10 in older ones). It fronts the 8259 pair, whose INTR arrives at LINT0.
 */
import type {
  CpuPort,
  Device,
  DeviceState,
  InterruptController,
  IoHandler,
  TscSource,
  VirtualClock,
} from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import { type ApicBus, type ApicBusAgent, type ApicMessage, DELIVERY } from './apic-bus.ts';
import { ApicTimer, TIMER_MODE } from './apic-timer.ts';
import { VectorSet } from './vector-set.ts';

/** What the APIC needs of the 8259 pair. */
export interface ExternalController {
  readonly intr: boolean;
  acknowledge(): number;
}

/** Version 14h, six LVT entries. */
const VERSION = 0x50014;
const LVT_MASKED = 1 << 16;
const SOFT_ENABLE = 1 << 8;
/** Error status bits (12.5.3). */
const ESR = { sendIllegal: 0x20, receiveIllegal: 0x40, register: 0x80 } as const;
/** IA32_APIC_BASE bits (12.4.4, 12.12.1). */
const BASE_BSP = 1 << 8;
const BASE_X2APIC = 1 << 10;
const BASE_ENABLE = 1 << 11;
const DEFAULT_BASE = 0xfee00000;

/** LVT entries in register order from 320h: timer, thermal, performance, LINT0, LINT1, error. */
const LVT = { timer: 0, lint0: 3, lint1: 4, error: 5 } as const;
const LVT_WRITABLE = [0x710ff, 0x117ff, 0x117ff, 0x1a7ff, 0x1a7ff, 0x110ff] as const;

/** Register indexes: xAPIC offset / 10h, x2APIC MSR - 800h (table 12-6). */
const REG = {
  id: 0x02,
  version: 0x03,
  tpr: 0x08,
  apr: 0x09,
  ppr: 0x0a,
  eoi: 0x0b,
  ldr: 0x0d,
  dfr: 0x0e,
  svr: 0x0f,
  isr: 0x10,
  tmr: 0x18,
  irr: 0x20,
  esr: 0x28,
  icrLow: 0x30,
  icrHigh: 0x31,
  lvt: 0x32,
  initial: 0x38,
  current: 0x39,
  divide: 0x3e,
  selfIpi: 0x3f,
} as const;

export class LocalApic implements Device, InterruptController, ApicBusAgent {
  readonly type = 'apic';
  readonly id: string;
  readonly mmio: IoHandler;
  /** The register page moved, or went away (`null`). */
  onBaseChange: ((base: number | null) => void) | undefined;

  private readonly boot: boolean;
  /** As the machine gave it, which x2APIC mode shows. */
  private readonly fixedId: number;
  private readonly cpu: CpuPort;
  private readonly bus: ApicBus;
  private readonly external: ExternalController | null;
  private readonly timer: ApicTimer;
  private readonly irr: VectorSet;
  private readonly isr: VectorSet;
  private readonly tmr: VectorSet;
  private intr = false;
  private readonly state: StateBlock<ReturnType<LocalApic['powerOn']>>;

  constructor(
    options: {
      /** Its CPU among those of the machine: the first one boots. */
      cpuIndex: number;
      /** The same as `cpuIndex` when not given. */
      apicId?: number;
      cpu: CpuPort;
      bus: ApicBus;
      clock: VirtualClock;
      tsc: TscSource;
      /** Wired to LINT0 of the boot processor only. */
      external: ExternalController | null;
    },
    id = `lapic${options.cpuIndex}`,
  ) {
    this.id = id;
    this.boot = options.cpuIndex === 0;
    this.fixedId = options.apicId ?? options.cpuIndex;
    this.cpu = options.cpu;
    this.bus = options.bus;
    this.external = options.external;
    this.state = new StateBlock(id, 1, () => this.powerOn(), {
      tpr: 255,
      svr: 0x1ff,
      lvt: 0xffffffff,
      ldr: 0xffffffff,
      dfr: 0xffffffff,
    });
    const s = this.state.value;
    this.irr = new VectorSet(s.irr);
    this.isr = new VectorSet(s.isr);
    this.tmr = new VectorSet(s.tmr);
    this.timer = new ApicTimer(s.timer, options.clock, options.tsc, () => {
      this.fireLocal(this.state.value.lvt[LVT.timer]!);
    });
    this.state.keepTimers({ count: this.timer.timer });
    this.bus.agents.push(this);
    this.mmio = {
      read: (offset, size) => this.readMmio(offset, size),
      write: (offset, _size, value) => this.writeMmio(offset, value),
    };
  }

  // --- what the vCPU calls

  acknowledge(): number {
    const vector = this.deliverable();
    if (vector >= 0) {
      this.irr.clear(vector);
      this.isr.set(vector);
      this.update();
      return vector;
    }
    const s = this.state.value;
    if (this.external !== null && (s.extInt || this.passesExternal()) && this.external.intr) {
      s.extInt = false;
      const external = this.external.acknowledge();
      this.update();
      return external;
    }
    this.update();
    return -1;
  }

  getTpr(): number {
    return this.state.value.tpr >> 4;
  }

  setTpr(value: number): void {
    this.state.value.tpr = (value & 15) << 4;
    this.update();
  }

  getApicBase(): [number, number] {
    const s = this.state.value;
    return [s.baseLow, s.baseHigh];
  }

  setApicBase(low: number, high: number): boolean {
    const s = this.state.value;
    // Reserved: bits 0-7 and 9, and address bits above the 40 implemented ones.
    if ((low & 0x2ff) !== 0 || high > 0xff) return false;
    const was = s.baseLow & (BASE_ENABLE | BASE_X2APIC);
    const next = low & (BASE_ENABLE | BASE_X2APIC);
    // Figure 12-27: no way into x2APIC but from xAPIC, none out of it but to "disabled".
    if (next === BASE_X2APIC) return false;
    if (was === 0 && next === (BASE_ENABLE | BASE_X2APIC)) return false;
    if (was === (BASE_ENABLE | BASE_X2APIC) && next === BASE_ENABLE) return false;
    s.baseLow = low >>> 0;
    s.baseHigh = high;
    if (next === 0 && was !== 0) this.resetRegisters();
    this.baseChanged();
    this.update();
    return true;
  }

  readX2apic(index: number): [number, number] | null {
    if (!this.x2apic || !isX2apicRegister(index)) return null;
    if (index === REG.eoi || index === REG.selfIpi) return null;
    const s = this.state.value;
    if (index === REG.icrLow) return [s.icrLow, s.icrHigh];
    if (index === REG.id) return [this.fixedId, 0];
    if (index === REG.ldr) return [this.x2apicLogicalId(), 0];
    return [this.readRegister(index), 0];
  }

  writeX2apic(index: number, low: number, high: number): boolean {
    if (!this.x2apic || !isX2apicRegister(index) || isReadOnly(index)) return false;
    if (index === REG.icrLow) {
      this.state.value.icrHigh = high >>> 0;
    } else if (high !== 0) {
      return false;
    }
    if ((index === REG.eoi || index === REG.esr) && low !== 0) return false;
    if (index === REG.selfIpi) this.accept(low & 0xff, false);
    else this.writeRegister(index, low >>> 0);
    this.update();
    return true;
  }

  getTscDeadline(): bigint {
    return this.timerMode() === TIMER_MODE.deadline ? this.timer.tscDeadline : 0n;
  }

  setTscDeadline(value: bigint): void {
    if (this.timerMode() === TIMER_MODE.deadline) this.timer.setTscDeadline(value);
  }

  // --- what the board and the APIC bus call

  /** The 8259's INTR output changed. */
  externalChanged(): void {
    this.update();
  }

  /** LINT1, which boards wire to NMI. */
  lint1(): void {
    if (!this.globallyEnabled) this.cpu.nmi();
    else this.fireLocal(this.state.value.lvt[LVT.lint1]!);
  }

  matches(logical: boolean, destination: number): boolean {
    if (!this.globallyEnabled) return false;
    if (!logical) {
      // I/O APICs and MSI writers broadcast with eight bits even to an x2APIC.
      return destination === this.apicId() || destination === 0xff || destination === 0xffffffff;
    }
    if (this.x2apic) return this.matchesCluster(destination);
    const s = this.state.value;
    const mine = s.ldr >>> 24;
    if (s.dfr >>> 28 === 15) return (mine & destination) !== 0;
    const cluster = destination >> 4;
    return (cluster === 15 || cluster === mine >> 4) && (mine & destination & 15) !== 0;
  }

  deliver(message: ApicMessage): void {
    switch (message.delivery) {
      case DELIVERY.fixed:
      case DELIVERY.lowest:
        this.accept(message.vector, message.level);
        break;
      case DELIVERY.smi:
        this.cpu.smi();
        break;
      case DELIVERY.nmi:
        this.cpu.nmi();
        break;
      case DELIVERY.init:
        this.deliverInit();
        break;
      case DELIVERY.startUp:
        this.cpu.sipi(message.vector);
        break;
      case DELIVERY.extInt:
        this.state.value.extInt = true;
        break;
      default:
        break;
    }
    this.update();
  }

  get processorPriority(): number {
    const service = this.isr.highest() & 0xf0;
    const { tpr } = this.state.value;
    return this.isr.highest() >= 0 && service > (tpr & 0xf0) ? service : tpr;
  }

  /** Another APIC stands in for this one, which keeps its registers but neither time nor interrupts. */
  setDormant(dormant: boolean): void {
    this.timer.setDormant(dormant);
  }

  reset(): void {
    this.state.reset();
    this.timer.restore();
    this.baseChanged();
    this.update();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
    this.baseChanged();
    this.state.armTimers();
    // The vCPU must hear the level even if it equals what this object believed before.
    this.intr = !this.wantsAttention();
    this.update();
  }

  // --- registers

  private powerOn() {
    return {
      baseLow: (DEFAULT_BASE | BASE_ENABLE | (this.boot ? BASE_BSP : 0)) >>> 0,
      baseHigh: 0,
      xapicId: this.fixedId & 0xff,
      tpr: 0,
      ldr: 0,
      dfr: 0xffffffff,
      svr: 0xff,
      esr: 0,
      /** Errors since the last write of the ESR, which moves them there. */
      esrPending: 0,
      icrLow: 0,
      icrHigh: 0,
      /** An ExtINT message came over the bus and waits for its acknowledge. */
      extInt: false,
      lvt: new Array<number>(6).fill(LVT_MASKED),
      irr: new Array<number>(8).fill(0),
      isr: new Array<number>(8).fill(0),
      tmr: new Array<number>(8).fill(0),
      timer: ApicTimer.powerOn(),
    };
  }

  /** Everything but the base register and the ID (12.4.7.1, 12.4.7.3). */
  private resetRegisters(): void {
    const s = this.state.value;
    const { baseLow, baseHigh, xapicId } = s;
    this.state.reset();
    Object.assign(s, { baseLow, baseHigh, xapicId });
    this.timer.restore();
  }

  private get globallyEnabled(): boolean {
    return (this.state.value.baseLow & BASE_ENABLE) !== 0;
  }

  private get x2apic(): boolean {
    return (this.state.value.baseLow & BASE_X2APIC) !== 0;
  }

  private get softwareEnabled(): boolean {
    return this.globallyEnabled && (this.state.value.svr & SOFT_ENABLE) !== 0;
  }

  private baseChanged(): void {
    const s = this.state.value;
    const base = s.baseHigh * 2 ** 32 + ((s.baseLow & 0xfffff000) >>> 0);
    this.onBaseChange?.(this.globallyEnabled && !this.x2apic ? base : null);
  }

  private apicId(): number {
    return this.x2apic ? this.fixedId : this.state.value.xapicId;
  }

  /** Derived from the ID (12.12.10.2). */
  private x2apicLogicalId(): number {
    return (((this.fixedId >> 4) << 16) | (1 << (this.fixedId & 15))) >>> 0;
  }

  private matchesCluster(destination: number): boolean {
    const mine = this.x2apicLogicalId();
    if (destination === 0xffffffff) return true;
    return destination >>> 16 === mine >>> 16 && (destination & mine & 0xffff) !== 0;
  }

  private timerMode(): number {
    return (this.state.value.lvt[LVT.timer]! >>> 17) & 3;
  }

  private readMmio(offset: number, size: number): number {
    const aligned = this.readRegister((offset >> 4) & 0xff);
    // Registers answer at the first of their 16 bytes; narrower reads are undefined (12.4.1).
    const byte = offset & 15;
    if (byte >= 4) return 0;
    const value = aligned >>> (8 * byte);
    return size === 4 ? value : size === 2 ? value & 0xffff : value & 0xff;
  }

  private writeMmio(offset: number, value: number): void {
    if ((offset & 15) !== 0) return;
    const index = (offset >> 4) & 0xff;
    if (index === REG.selfIpi) return;
    this.writeRegister(index, value);
    this.update();
  }

  private readRegister(index: number): number {
    const s = this.state.value;
    if (index >= REG.isr && index < REG.tmr) return this.isr.words[index - REG.isr]!;
    if (index >= REG.tmr && index < REG.irr) return this.tmr.words[index - REG.tmr]!;
    if (index >= REG.irr && index < REG.esr) return this.irr.words[index - REG.irr]!;
    if (index >= REG.lvt && index < REG.lvt + 6) return s.lvt[index - REG.lvt]!;
    switch (index) {
      case REG.id:
        return (s.xapicId << 24) >>> 0;
      case REG.version:
        return VERSION;
      case REG.tpr:
        return s.tpr;
      case REG.ppr:
        return this.processorPriority;
      case REG.ldr:
        return s.ldr;
      case REG.dfr:
        return s.dfr;
      case REG.svr:
        return s.svr;
      case REG.esr:
        return s.esr;
      case REG.icrLow:
        return s.icrLow;
      case REG.icrHigh:
        return s.icrHigh;
      case REG.initial:
        return this.timer.initialCount;
      case REG.current:
        return this.timer.currentCount();
      case REG.divide:
        return this.timer.divideConfiguration;
      case REG.apr:
      case REG.eoi:
        return 0;
      default:
        this.error(ESR.register);
        return 0;
    }
  }

  private writeRegister(index: number, value: number): void {
    const s = this.state.value;
    if (index >= REG.lvt && index < REG.lvt + 6) return this.writeLvt(index - REG.lvt, value);
    switch (index) {
      case REG.id:
        s.xapicId = value >>> 24;
        break;
      case REG.tpr:
        s.tpr = value & 0xff;
        break;
      case REG.eoi:
        this.endOfInterrupt();
        break;
      case REG.ldr:
        s.ldr = (value & 0xff000000) >>> 0;
        break;
      case REG.dfr:
        s.dfr = (value | 0x0fffffff) >>> 0;
        break;
      case REG.svr:
        this.writeSpurious(value);
        break;
      case REG.esr:
        s.esr = s.esrPending;
        s.esrPending = 0;
        break;
      case REG.icrLow:
        s.icrLow = value & 0xcdfff & ~0x1000;
        this.sendIpi();
        break;
      case REG.icrHigh:
        s.icrHigh = (value & 0xff000000) >>> 0;
        break;
      case REG.initial:
        if (this.timerMode() !== TIMER_MODE.deadline) this.timer.start(value);
        break;
      case REG.divide:
        this.timer.setDivide(value);
        break;
      case REG.version:
      case REG.apr:
      case REG.ppr:
        break;
      default:
        if (!isReadOnly(index)) this.error(ESR.register);
    }
  }

  private writeLvt(entry: number, value: number): void {
    const s = this.state.value;
    let next = value & LVT_WRITABLE[entry]!;
    // While the APIC is software-disabled its LVT entries stay masked (12.4.7.2).
    if ((s.svr & SOFT_ENABLE) === 0) next |= LVT_MASKED;
    s.lvt[entry] = next;
    if (entry === LVT.timer) this.timer.setMode(this.timerMode());
  }

  private writeSpurious(value: number): void {
    const s = this.state.value;
    s.svr = value & 0x1ff;
    if ((s.svr & SOFT_ENABLE) === 0) s.lvt.forEach((entry, i) => (s.lvt[i] = entry | LVT_MASKED));
  }

  private endOfInterrupt(): void {
    const vector = this.isr.highest();
    if (vector < 0) return;
    this.isr.clear(vector);
    if (this.tmr.has(vector)) this.bus.broadcastEoi(vector);
  }

  private error(bit: number): void {
    const s = this.state.value;
    // A receive error of the error interrupt itself must not raise it once more.
    const first = (s.esrPending & bit) === 0;
    s.esrPending |= bit;
    if (first) this.fireLocal(s.lvt[LVT.error]!);
  }

  // --- interrupts

  private accept(vector: number, level: boolean): void {
    if (!this.softwareEnabled) return;
    if (vector < 16) return this.error(ESR.receiveIllegal);
    if (level) this.tmr.set(vector);
    else this.tmr.clear(vector);
    this.irr.set(vector);
  }

  /** Delivers by a local vector table entry. */
  private fireLocal(entry: number): void {
    if ((entry & LVT_MASKED) !== 0) return;
    const delivery = (entry >>> 8) & 7;
    if (delivery === DELIVERY.fixed) this.accept(entry & 0xff, false);
    else if (delivery === DELIVERY.nmi) this.cpu.nmi();
    else if (delivery === DELIVERY.smi) this.cpu.smi();
    this.update();
  }

  private deliverInit(): void {
    this.resetRegisters();
    this.cpu.init();
  }

  /** ICR write (12.6.1). */
  private sendIpi(): void {
    const s = this.state.value;
    const delivery = (s.icrLow >>> 8) & 7;
    const levelTriggered = (s.icrLow & 0x8000) !== 0;
    const asserted = (s.icrLow & 0x4000) !== 0;
    // INIT level de-assert only synchronises arbitration IDs: nothing to do.
    if (delivery === DELIVERY.init && levelTriggered && !asserted) return;
    if ((delivery === DELIVERY.fixed || delivery === DELIVERY.lowest) && (s.icrLow & 0xf0) === 0) {
      return this.error(ESR.sendIllegal);
    }
    const message: ApicMessage = {
      delivery,
      vector: s.icrLow & 0xff,
      level: false,
      logical: (s.icrLow & 0x800) !== 0,
      destination: this.x2apic ? s.icrHigh : s.icrHigh >>> 24,
    };
    const { agents } = this.bus;
    switch ((s.icrLow >>> 18) & 3) {
      case 0:
        this.bus.send(message);
        break;
      case 1:
        this.bus.sendTo([this], message);
        break;
      case 2:
        this.bus.sendTo([...agents], message);
        break;
      default:
        this.bus.sendTo(
          agents.filter((agent) => agent !== this),
          message,
        );
    }
  }

  /** Highest requested vector above the processor priority, or -1. */
  private deliverable(): number {
    if (!this.softwareEnabled) return -1;
    const vector = this.irr.highest();
    return vector >= 0 && (vector & 0xf0) > (this.processorPriority & 0xf0) ? vector : -1;
  }

  /** LINT0 lets the 8259 through when it is in ExtINT mode or when there is no APIC at all. */
  private passesExternal(): boolean {
    if (!this.globallyEnabled) return true;
    const lint0 = this.state.value.lvt[LVT.lint0]!;
    if ((this.state.value.svr & SOFT_ENABLE) === 0) return true;
    return (lint0 & LVT_MASKED) === 0 && ((lint0 >>> 8) & 7) === DELIVERY.extInt;
  }

  private wantsAttention(): boolean {
    if (this.deliverable() >= 0) return true;
    const { external } = this;
    return external !== null && external.intr && (this.state.value.extInt || this.passesExternal());
  }

  private update(): void {
    const pending = this.wantsAttention();
    if (pending === this.intr) return;
    this.intr = pending;
    this.cpu.setIntr(pending);
  }
}

function isX2apicRegister(index: number): boolean {
  if (index === REG.apr || index === REG.dfr || index === REG.icrHigh) return false;
  if (index >= REG.isr && index <= REG.esr) return true;
  if (index >= REG.lvt && index < REG.lvt + 6) return true;
  return X2APIC_SINGLE.has(index);
}

const X2APIC_SINGLE: ReadonlySet<number> = new Set([
  REG.id,
  REG.version,
  REG.tpr,
  REG.ppr,
  REG.eoi,
  REG.ldr,
  REG.svr,
  REG.icrLow,
  REG.initial,
  REG.current,
  REG.divide,
  REG.selfIpi,
]);

function isReadOnly(index: number): boolean {
  if (index >= REG.isr && index < REG.esr) return true;
  return index === REG.id || index === REG.version || index === REG.ppr || index === REG.ldr || index === REG.current;
}

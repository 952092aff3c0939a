/**
 * Runs the same cases here: a vCPU in user mode as a kernel like Linux would set it up, with the
 * machine's own system code; exceptions end a case instead of going to a kernel.
 */
import { CTL_PC } from '../../src/ir/vcpu-block.ts';
import type { InterruptController } from '../../src/machine/interfaces.ts';
import { readArithmeticFlags, writeArithmeticFlags } from '../../src/isa/x86/flags.ts';
import { x86Isa } from '../../src/isa/x86/isa.ts';
import {
  CPL,
  CR0,
  CR3,
  CR4,
  CS,
  DS,
  EFER,
  EFLAGS,
  ES,
  FCW,
  FDP,
  FIP,
  FOP,
  FPREG,
  FS,
  FSW,
  FTAG,
  FTOP,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  GS,
  MXCSR,
  SEG_NULL,
  SS,
  TR,
  XCR0,
  XMM,
  YMM_HIGH,
} from '../../src/isa/x86/state.ts';
import { NORMAL } from '../../src/isa/x86/x87/common.ts';
import { X86Cpu } from '../../src/isa/x86/system/cpu.ts';
import { parseCpu } from '../../src/isa/x86/system/models.ts';
import { Engine } from '../../src/jit/engine.ts';
import { GUEST_MEMORY, VCPU_BASE } from '../../src/jit/layout.ts';
import { newMemory } from '../../src/wasm/memory.ts';
import { AddressSpace } from '../../src/machine/address-space.ts';
import { HOST_VENDOR } from './host-cpu.ts';
import {
  CODE_BASE,
  CODE_START,
  DATA_BASE,
  DATA_SIZE,
  READ_ONLY,
  SIGFPE,
  SIGILL,
  SIGSEGV,
  SIGTRAP,
  TAIL,
  WINDOW,
  WINDOW_SIZE,
  YMM_BYTES,
} from './native.ts';
import type { Case } from './native.ts';
import { mapMachineCode } from '../../src/host/node/machine-code.ts';
import { ClockTsc, InstructionClock } from '../../src/machine/clock.ts';

const ALL_OF_X86 = x86Isa(() => true);

const RAM_SIZE = 0x100000;
const PHYSICAL_CODE = 0x1000;
const PHYSICAL_DATA = 0x10000;
const TABLES = 0x20000;
const VECTOR_PF = 14;
const SIGNAL_OF_VECTOR: Record<number, number> = {
  0: SIGFPE,
  1: SIGTRAP,
  3: SIGTRAP,
  4: SIGSEGV,
  5: SIGSEGV,
  6: SIGILL,
  11: SIGSEGV,
  12: SIGSEGV,
  13: SIGSEGV,
  14: SIGSEGV,
  16: SIGFPE,
  19: SIGFPE,
};

/** Bytes for code of the host's processor. */
const MACHINE_CODE = 1 << 26;
const HOT = 40;
/** Runs after which a case has been compiled. */
const HOT_ENOUGH = 4 * HOT;

/** Descriptors and selectors of user code as Linux has them. */
const SELECTOR_CODE32 = 0x23;
const SELECTOR_DATA = 0x2b;
const SELECTOR_CODE64 = 0x33;
const ATTRIBUTES_CODE32 = 0xc0fb;
const ATTRIBUTES_DATA = 0xc0f3;
const ATTRIBUTES_CODE64 = 0xa0fb;

const noInterrupts: InterruptController = {
  acknowledge: () => -1,
  getTpr: () => 0,
  setTpr: () => {},
  getApicBase: () => [0xfee00900, 0],
  setApicBase: () => true,
  readX2apic: () => null,
  writeX2apic: () => false,
  getTscDeadline: () => 0n,
  setTscDeadline: () => {},
};

export interface GuestOptions {
  readonly compile: boolean;
  /** Instead, where this host can: code of its own processor. */
  readonly native?: boolean;
  readonly mode32?: boolean;
  /** MXCSR's flags are exact. */
  readonly watch?: boolean;
  /** Model and features, as after `-cpu`. */
  readonly model?: string;
}

export class Guest {
  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private readonly engine: Engine;
  private readonly cpu: X86Cpu;
  private readonly physical: AddressSpace;
  private readonly options: GuestOptions;
  // How the case ended: vector (-1 = still running) and error code.
  private vector = -1;
  private code = 0;
  private watch = false;

  get regions(): number {
    return this.engine.statistics.regions;
  }

  /** Cases that ran but never became hot. */
  notCompiled = 0;

  constructor(options: GuestOptions) {
    this.options = options;
    const memory = newMemory((GUEST_MEMORY + RAM_SIZE) >> 16);
    this.view = new DataView(memory.buffer);
    this.bytes = new Uint8Array(memory.buffer);
    this.physical = new AddressSpace(this.bytes);
    this.physical.addRam(0, RAM_SIZE, GUEST_MEMORY);
    this.engine = new Engine({
      isa: ALL_OF_X86,
      memory,
      physical: this.physical,
      compile: options.compile,
      exactCount: false,
      hotThreshold: HOT,
      ...(options.native ? { machineCode: mapMachineCode(MACHINE_CODE) } : {}),
    });
    this.cpu = new X86Cpu(this.engine, {
      mem: this.physical,
      io: { in: () => 0, out: () => {} },
      intc: noInterrupts,
      tsc: new ClockTsc(new InstructionClock(() => 0, 0)),
      // What vendors' processors do differently (SYSENTER in long mode), the guest's does as the one that judges it.
      model: parseCpu(options.model ?? `max,vendor=${HOST_VENDOR}`).model,
      random32: () => 0x12345678,
      bootTime: 0,
      onShutdown: () => {},
    });
    this.cpu.interceptEvents((vector, code) => {
      this.vector = vector;
      this.code = code;
      return true;
    });
    this.engine.attach(this.cpu);
    this.writeTables();
    this.enterUserMode();
  }

  private quad(physical: number, value: bigint): void {
    this.view.setBigUint64(GUEST_MEMORY + physical, value, true);
  }

  /** Page tables for the code, the data and the read-only page. */
  private writeTables(): void {
    const next = (from: number, index: number, to: number): void => this.quad(from + 8 * index, BigInt(to) | 7n);
    const page = (linear: number, physical: number, bits: bigint): void =>
      this.quad(TABLES + 0x3000 + 8 * ((linear >>> 12) & 511), BigInt(physical) | bits);
    next(TABLES, 0, TABLES + 0x1000);
    next(TABLES + 0x1000, CODE_BASE >>> 30, TABLES + 0x2000);
    next(TABLES + 0x2000, (CODE_BASE >>> 21) & 511, TABLES + 0x3000);
    const noExecute = 1n << 63n;
    page(CODE_BASE, PHYSICAL_CODE, 7n);
    for (let at = 0; at < DATA_SIZE; at += 0x1000) page(DATA_BASE + at, PHYSICAL_DATA + at, 7n | noExecute);
    page(READ_ONLY, PHYSICAL_DATA + DATA_SIZE, 5n | noExecute);
  }

  private enterUserMode(): void {
    const { core, mmu } = this.cpu;
    core.set(CR0, 0x80050033 | 0);
    core.set2(CR3, TABLES, 0);
    // PAE, PGE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE.
    core.set(CR4, 0x50ea0);
    core.set(EFER, 0xd01);
    core.set(XCR0, core.model.has('avx') ? 7 : 3);
    // Linear and physical addresses are not the same: descriptors are not to be looked for.
    core.set2(GDTR_BASE, 0, 0);
    core.set(GDTR_LIMIT, 0);
    if (this.options.mode32) core.setSegment(CS, SELECTOR_CODE32, 0, 0, -1, ATTRIBUTES_CODE32);
    else core.setSegment(CS, SELECTOR_CODE64, 0, 0, -1, ATTRIBUTES_CODE64);
    for (const segment of [ES, SS, DS]) core.setSegment(segment, SELECTOR_DATA, 0, 0, -1, ATTRIBUTES_DATA);
    // A task without a map of I/O ports.
    core.setSegment(TR, 0x40, 0, 0, 0x5f, 0x8b);
    for (const segment of [FS, GS]) core.setSegment(segment, 0, 0, 0, 0, SEG_NULL);
    core.set(CPL, 3);
    mmu.configure();
    core.spaceChanged = true;
    core.services.flushAll();
  }

  private load(one: Case): void {
    const { bytes } = this;
    const code = GUEST_MEMORY + PHYSICAL_CODE;
    bytes.fill(0xcc, code, code + 0x1000);
    bytes.set(one.code, code + CODE_START - CODE_BASE);
    this.engine.blocks.invalidate(code, 0x1000);
    this.loadState(one);
  }

  private loadState(one: Case): void {
    const { view, bytes } = this;
    bytes.fill(0, GUEST_MEMORY + PHYSICAL_DATA, GUEST_MEMORY + PHYSICAL_DATA + DATA_SIZE);
    bytes.set(one.data, GUEST_MEMORY + PHYSICAL_DATA + WINDOW - DATA_BASE);
    bytes.set(one.tail, GUEST_MEMORY + PHYSICAL_DATA + DATA_SIZE - TAIL);
    bytes.set(one.ymm, VCPU_BASE + YMM_HIGH);
    one.gpr.forEach((value, i) => view.setBigUint64(VCPU_BASE + GPR + 8 * i, value, true));
    view.setBigUint64(VCPU_BASE + CTL_PC, one.rip, true);
    view.setInt32(VCPU_BASE + EFLAGS, (one.flags & ~0x8d5) | 2, true);
    writeArithmeticFlags(view, VCPU_BASE, one.flags);
    bytes.set(one.fx.subarray(160, 416), VCPU_BASE + XMM);
    this.loadFpu(one.fx);
    this.enterUserMode();
    const { core } = this.cpu;
    core.watchers.clear();
    if (this.watch) core.watchExceptions();
    core.changed = true;
    this.cpu.blockFlags();
  }

  private loadFpu(fx: Uint8Array): void {
    const { view, bytes } = this;
    const image = new DataView(fx.buffer, fx.byteOffset, fx.byteLength);
    const status = image.getUint16(2, true);
    const top = (status >> 11) & 7;
    view.setInt32(VCPU_BASE + MXCSR, image.getInt32(24, true), true);
    view.setInt32(VCPU_BASE + FCW, image.getUint16(0, true), true);
    view.setInt32(VCPU_BASE + FSW, status & ~0x3800, true);
    view.setInt32(VCPU_BASE + FTOP, top, true);
    view.setInt32(VCPU_BASE + FOP, image.getUint16(6, true), true);
    view.setBigUint64(VCPU_BASE + FIP, image.getBigUint64(8, true), true);
    view.setBigUint64(VCPU_BASE + FDP, image.getBigUint64(16, true), true);
    for (let i = 0; i < 8; i++) {
      bytes[VCPU_BASE + FTAG + i] = (fx[4]! >> i) & 1 ? 0 : 1;
      const at = VCPU_BASE + FPREG + 16 * ((top + i) & 7);
      bytes.fill(0, at, at + 16);
      bytes.set(fx.subarray(32 + 16 * i, 42 + 16 * i), at);
      // In half of the cases normal numbers have their marks, so that fast paths are taken.
      if (fx[32]! & 1 && (fx[4]! >> ((top + i) & 7)) & 1) this.markNormal(at);
    }
  }

  /** Marks a register of the FPU if it may be: see x87/common.ts. */
  private markNormal(at: number): void {
    const exponent = this.view.getUint16(at + 8, true) & 0x7fff;
    const normal = exponent !== 0 && exponent !== 0x7fff && this.bytes[at + 7]! >= 0x80;
    if (normal) this.bytes[at + 11] = NORMAL >>> 24;
  }

  private storeFpu(fx: Uint8Array): void {
    const { view, bytes } = this;
    const image = new DataView(fx.buffer, fx.byteOffset, fx.byteLength);
    const top = view.getInt32(VCPU_BASE + FTOP, true);
    image.setUint16(0, view.getInt32(VCPU_BASE + FCW, true), true);
    image.setUint16(2, view.getInt32(VCPU_BASE + FSW, true) | (top << 11), true);
    image.setUint32(24, view.getUint32(VCPU_BASE + MXCSR, true), true);
    image.setUint16(6, view.getInt32(VCPU_BASE + FOP, true), true);
    image.setBigUint64(8, view.getBigUint64(VCPU_BASE + FIP, true), true);
    image.setBigUint64(16, view.getBigUint64(VCPU_BASE + FDP, true), true);
    fx[4] = 0;
    for (let i = 0; i < 8; i++) {
      if (bytes[VCPU_BASE + FTAG + i] === 0) fx[4]! |= 1 << i;
      const at = VCPU_BASE + FPREG + 16 * ((top + i) & 7);
      fx.set(bytes.subarray(at, at + 10), 32 + 16 * i);
    }
  }

  /**
   * Runs one case to its end, until it is compiled where `compile` is on.
   * @param watch MXCSR's flags are exact
   */
  run(one: Case, watch = this.options.watch ?? false): Case {
    this.watch = watch;
    this.load(one);
    const { statistics } = this.engine;
    const { compile, native } = this.options;
    const made = (): number => (native ? statistics.native : statistics.regions);
    const before = made();
    const times = compile || native ? HOT_ENOUGH : 1;
    for (let i = 0; i < times; i++) {
      if (i > 0) this.loadState(one);
      this.runOnce();
      if (made() > before && i < times - 1) i = times - 2;
    }
    if (times > 1 && made() === before) this.notCompiled++;
    return this.result(one);
  }

  private runOnce(): void {
    this.vector = -1;
    for (let slices = 0; this.vector < 0 && slices < MOST_SLICES; slices++) {
      this.engine.run(SLICE, () => this.vector >= 0);
    }
  }

  private faultAddress(): bigint {
    const { faultLow, faultHigh } = this.cpu.core;
    return (BigInt(faultHigh >>> 0) << 32n) | BigInt(faultLow >>> 0);
  }

  private result(one: Case): Case {
    const { view, vector } = this;
    const data = GUEST_MEMORY + PHYSICAL_DATA + WINDOW - DATA_BASE;
    const tail = GUEST_MEMORY + PHYSICAL_DATA + DATA_SIZE - TAIL;
    const fx = Uint8Array.from(one.fx);
    fx.set(this.bytes.subarray(VCPU_BASE + XMM, VCPU_BASE + XMM + 256), 160);
    this.storeFpu(fx);
    return {
      name: one.name,
      code: one.code,
      mode32: one.mode32,
      gpr: one.gpr.map((_, i) => view.getBigUint64(VCPU_BASE + GPR + 8 * i, true)),
      rip: view.getBigUint64(VCPU_BASE + CTL_PC, true),
      flags: view.getInt32(VCPU_BASE + EFLAGS, true) | readArithmeticFlags(view, VCPU_BASE),
      signal: SIGNAL_OF_VECTOR[vector] ?? -1,
      fx,
      data: Uint8Array.from(this.bytes.subarray(data, data + WINDOW_SIZE)),
      ymm: Uint8Array.from(this.bytes.subarray(VCPU_BASE + YMM_HIGH, VCPU_BASE + YMM_HIGH + YMM_BYTES)),
      tail: Uint8Array.from(this.bytes.subarray(tail, tail + TAIL)),
      vector,
      error: Math.max(0, this.code),
      address: vector === VECTOR_PF ? this.faultAddress() : 0n,
    };
  }
}

const SLICE = 1000;
/** A case that has not ended by then never will. */
const MOST_SLICES = 1000;

/** Runs the same cases in the translation engine: a bare vCPU in user mode. */
import { CTL_PC } from '../../src/ir/vcpu-block.ts';
import { ACCESS_EXEC, ACCESS_READ, ACCESS_WRITE } from '../../src/isa/isa.ts';
import type { Translation, Vcpu } from '../../src/isa/isa.ts';
import { readArithmeticFlags, writeArithmeticFlags } from '../../src/isa/x86/flags.ts';
import { X86_ISA } from '../../src/isa/x86/isa.ts';
import { LEAVE_EXCEPTION, LEAVE_FPU_ERROR, LEAVE_INT3, LEAVE_MASK_EMPTY, LEAVE_SIMD_ERROR, LEAVE_SKIP } from '../../src/isa/x86/leave.ts';
import {
  BF_AVX, BF_CODE32, BF_CODE64, BF_LONG, BF_PROTECTED, BF_STACK32, EFLAGS, FCW, FDP, FIP, FOP, FPREG, FSW, FTAG, FTOP, GPR,
  MXCSR, XMM, YMM_HIGH,
} from '../../src/isa/x86/state.ts';
import { Engine } from '../../src/jit/engine.ts';
import { GUEST_MEMORY, VCPU_BASE } from '../../src/jit/layout.ts';
import { AddressSpace } from '../../src/machine/address-space.ts';
import {
  CODE_BASE, CODE_START, DATA_BASE, DATA_SIZE, READ_ONLY, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, TAIL, WINDOW, WINDOW_SIZE,
  YMM_BYTES,
} from './native.ts';
import type { Case } from './native.ts';

const FLAGS32 = BF_AVX | BF_CODE32 | BF_STACK32 | BF_LONG | BF_PROTECTED | (3 << 6);
const FLAGS64 = FLAGS32 | BF_CODE64;
const RAM_SIZE = 0x100000;
const PHYSICAL_CODE = 0x1000;
const PHYSICAL_DATA = 0x10000;
const SIGNAL_OF_VECTOR: Record<number, number> = { 0: SIGFPE, 3: SIGTRAP, 6: SIGILL, 13: SIGSEGV };

/** Signal number of a case that left for system code that is not there. */
export const UNSUPPORTED = -1;

const VECTOR_PF = 14;
const VECTOR_XM = 19;
const HOT = 40;
/** Runs after which a case has been compiled. */
const HOT_ENOUGH = 4 * HOT;

class BareVcpu implements Vcpu {
  readonly halted = false;
  readonly interruptShadow = false;
  readonly interruptWaiting = false;
  /** Signal that ended the case, 0 = still running. */
  signal = 0;
  reason = 0;
  vector = 0;
  /** Of the last walk that failed. */
  address = 0n;
  write = false;
  private readonly view: DataView;

  private readonly flags: number;

  constructor(view: DataView, flags: number) {
    this.view = view;
    this.flags = flags;
  }
  walk(low: number, high: number, access: number, out: Translation): boolean {
    const linear = low >>> 0;
    out.permissions = 7;
    out.global = false;
    if (high === 0 && linear >= CODE_BASE && linear < CODE_BASE + 0x1000) {
      out.page = PHYSICAL_CODE;
      return true;
    }
    if (high === 0 && linear >= DATA_BASE && linear < DATA_BASE + DATA_SIZE) {
      out.page = PHYSICAL_DATA + ((linear - DATA_BASE) & ~0xfff);
      out.permissions = (1 << ACCESS_READ) | (1 << ACCESS_WRITE);
      return access !== ACCESS_EXEC;
    }
    if (high === 0 && linear >= READ_ONLY && linear < READ_ONLY + 0x1000) {
      out.page = PHYSICAL_DATA + DATA_SIZE;
      out.permissions = 1 << ACCESS_READ;
      if (access === ACCESS_READ) return true;
    }
    this.address = (BigInt(high >>> 0) << 32n) | BigInt(linear);
    this.write = access === ACCESS_WRITE;
    return false;
  }
  codeAddress(out: Int32Array): void {
    out[0] = this.view.getInt32(VCPU_BASE + CTL_PC, true);
    out[1] = this.view.getInt32(VCPU_BASE + CTL_PC + 4, true);
  }
  blockFlags(): number {
    return this.flags;
  }
  deliverFault(): void {
    this.signal = SIGSEGV;
    this.vector = VECTOR_PF;
  }
  leave(reason: number, argument: number): void {
    this.reason = reason;
    this.vector = 0;
    if (reason === LEAVE_EXCEPTION) this.vector = argument >> 8;
    if (reason === LEAVE_INT3) this.signal = SIGTRAP;
    else if (reason === LEAVE_EXCEPTION) this.signal = SIGNAL_OF_VECTOR[argument >> 8] ?? UNSUPPORTED;
    else if (reason === LEAVE_FPU_ERROR) this.signal = SIGFPE;
    else if (reason === LEAVE_SIMD_ERROR) [this.signal, this.vector] = [SIGFPE, VECTOR_XM];
    else if (reason === LEAVE_SKIP) this.skip(argument & 15);
    else if (reason === LEAVE_MASK_EMPTY) this.clearVectors(argument);
    else this.signal = UNSUPPORTED;
  }
  private clearVectors(argument: number): void {
    const zero = (at: number, bytes: number): void => {
      for (let i = 0; i < bytes; i++) this.view.setUint8(VCPU_BASE + at + i, 0);
    };
    const register = (argument >> 8) & 15;
    zero(XMM + 16 * register, 16);
    zero(YMM_HIGH + 16 * register, 16);
    if (argument & (1 << 16)) zero(YMM_HIGH + 16 * ((argument >> 12) & 15), 16);
    if (argument & (1 << 17)) zero(XMM + 8 + 16 * ((argument >> 12) & 15), 8);
    this.skip(argument & 15);
  }
  private skip(length: number): void {
    const at = VCPU_BASE + CTL_PC;
    this.view.setBigUint64(at, this.view.getBigUint64(at, true) + BigInt(length), true);
  }
  pollInterrupts(): void {}
  clearShadow(): void {}
  fetchFromNowhere(): void {
    this.signal = SIGSEGV;
  }
  reset(): void {}
}

/** A memory with 64-bit addresses; the type definitions do not know them yet. */
function sharedMemory(pages: number): WebAssembly.Memory {
  const descriptor = { initial: BigInt(pages), maximum: BigInt(pages), shared: true, address: 'i64' };
  return new WebAssembly.Memory(descriptor as unknown as WebAssembly.MemoryDescriptor);
}

export class Guest {
  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private readonly engine: Engine;
  private readonly vcpu: BareVcpu;
  private readonly physical: AddressSpace;

  /** Cases that ran but never became hot. */
  notCompiled = 0;
  private readonly compile: boolean;

  /** @param extraFlags block flags beyond those of user code */
  constructor(compile: boolean, mode32 = false, extraFlags = 0) {
    const flags = (mode32 ? FLAGS32 : FLAGS64) | extraFlags;
    this.compile = compile;
    const memory = sharedMemory((GUEST_MEMORY + RAM_SIZE) >> 16);
    this.view = new DataView(memory.buffer);
    this.bytes = new Uint8Array(memory.buffer);
    this.physical = new AddressSpace(this.bytes);
    this.physical.addRam(0, RAM_SIZE, GUEST_MEMORY);
    this.engine = new Engine({
      isa: X86_ISA, memory, physical: this.physical, compile, exactCount: false, hotThreshold: HOT,
    });
    this.vcpu = new BareVcpu(this.view, flags);
    this.engine.attach(this.vcpu);
    this.engine.selectContext(2, 0, flags);
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
    this.bytes.set(one.fx.subarray(160, 416), VCPU_BASE + XMM);
    this.loadFpu(one.fx);
  }

  /** The x87 part of an FXSAVE image: its registers are numbered from the top of the stack. */
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
    }
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

  /** Runs one case to its end, until it is compiled where `compile` is on. */
  run(one: Case): Case {
    this.load(one);
    const { statistics } = this.engine;
    const before = statistics.regions;
    const times = this.compile ? HOT_ENOUGH : 1;
    for (let i = 0; i < times; i++) {
      if (i > 0) this.loadState(one);
      this.runOnce();
      if (statistics.regions > before && i < times - 1) i = times - 2;
    }
    if (this.compile && statistics.regions === before) this.notCompiled++;
    return this.result(one);
  }

  private runOnce(): void {
    const { vcpu } = this;
    vcpu.signal = 0;
    this.engine.run(1000, () => vcpu.signal !== 0);
  }

  private result(one: Case): Case {
    const { view, vcpu } = this;
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
      signal: vcpu.signal,
      fx,
      data: Uint8Array.from(this.bytes.subarray(data, data + WINDOW_SIZE)),
      ymm: Uint8Array.from(this.bytes.subarray(VCPU_BASE + YMM_HIGH, VCPU_BASE + YMM_HIGH + YMM_BYTES)),
      tail: Uint8Array.from(this.bytes.subarray(tail, tail + TAIL)),
      vector: vcpu.vector,
      write: vcpu.write,
      address: vcpu.address,
    };
  }
}

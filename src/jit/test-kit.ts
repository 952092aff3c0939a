/**
 * A guest made for tests of the engine: an instruction is two bytes, the number of a function
 * that builds its IR (or a byte from SHORT up); registers of every type; paging by a table in
 * the test; one flat RAM, a ROM and a few device registers.
 */
import { F64, I32, I64, V128 } from '../ir/ops.ts';
import type { Builder, Global } from '../ir/builder.ts';
import type { Helper } from '../ir/helpers.ts';
import { CTL_CTX, CTL_PC, EXIT_ISA } from '../ir/vcpu-block.ts';
import { ACCESS_EXEC, ACCESS_READ, ACCESS_WRITE } from '../isa/isa.ts';
import type { CodeReader, Isa, Translation, Vcpu } from '../isa/isa.ts';
import { mapMachineCode } from '../host/node/machine-code.ts';
import { AddressSpace } from '../machine/address-space.ts';
import { Engine } from './engine.ts';
import type { EngineOptions } from './engine-options.ts';
import { GUEST_MEMORY, VCPU_BASE } from './layout.ts';
import { newMemory } from '../wasm/memory.ts';

/** Reasons of the guest's own to leave. */
export const STOP = EXIT_ISA;
export const OTHER = EXIT_ISA + 1;
export const UNKNOWN_INSN = EXIT_ISA + 2;

export const RAM_SIZE = 0x200000;
/** Physical addresses; RAM begins at 0. */
export const ROM = 0x300000;
export const ROM_SIZE = 0x2000;
export const DEVICE = 0x400000;
export const NOWHERE = 0x500000;

export const READ = 1 << ACCESS_READ;
export const WRITE = 1 << ACCESS_WRITE;
export const EXEC = 1 << ACCESS_EXEC;

const globals: Global[] = [];
function define(name: string, type: number, offset: number): Global {
  const global = { name, index: globals.length, type, offset };
  globals.push(global);
  return global;
}
export const L: readonly Global[] = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => define(`l${i}`, I64, 256 + 8 * i));
export const W: readonly Global[] = [0, 1, 2, 3].map((i) => define(`w${i}`, I32, 320 + 8 * i));
export const D: readonly Global[] = [0, 1, 2, 3].map((i) => define(`d${i}`, F64, 352 + 8 * i));
export const V: readonly Global[] = [0, 1, 2, 3].map((i) => define(`v${i}`, V128, 384 + 16 * i));
export const GLOBALS: readonly Global[] = globals;
/** State that belongs to no register, up to the interpreter's temporaries. */
export const SCRATCH = 512;
export const SCRATCH_END = 4096;

/** First byte of instructions that are one byte long. */
const SHORT = 0xf0;

/** Builds one instruction. @param next offset of the instruction after it  @param at its own */
export type Insn = (b: Builder, next: number, at: number) => void;

/** What a page is mapped to. */
export interface Mapping {
  readonly page: number;
  readonly permissions: number;
  readonly global?: boolean;
  /** See Translation. */
  readonly bits?: number;
}

export class TestIsa implements Isa {
  readonly name = 'test';
  readonly globals = GLOBALS;
  readonly helpers: readonly Helper[];
  readonly stackPointer: Global;
  readonly insns: Insn[] = [(b, _next, at) => b.leave(UNKNOWN_INSN, 0, at)];
  private readonly shorts: Insn[] = [];
  private readonly numbers = new Map<Insn, number>();

  constructor(helpers: readonly Helper[] = []) {
    this.helpers = helpers;
    this.stackPointer = L[7]!;
  }

  /** Number of an instruction; the same function has the same number. */
  number(insn: Insn): number {
    let number = this.numbers.get(insn);
    if (number === undefined) {
      while ((this.insns.length & 255) >= SHORT) this.insns.push(this.insns[0]!);
      number = this.insns.push(insn) - 1;
      this.numbers.set(insn, number);
    }
    return number;
  }

  /** The byte of a new instruction of one byte. */
  short(insn: Insn): number {
    return SHORT + this.shorts.push(insn) - 1;
  }

  translate(b: Builder, code: CodeReader, _flags: number, maxInsns: number): void {
    while (!b.ended) {
      const at = code.offset;
      if (b.insns > 0 && (b.insns >= maxInsns || at + 2 > code.pageEnd)) return b.goto(at);
      const first = code.u8();
      const number = first < SHORT ? first | (code.u8() << 8) : first - SHORT;
      b.insn(at);
      ((first < SHORT ? this.insns : this.shorts)[number] ?? this.insns[0]!)(b, code.offset, at);
    }
  }
}

export interface Fault {
  readonly pc: bigint;
  readonly ctx: number;
  readonly address: bigint;
  readonly access: number;
}

export class TestVcpu implements Vcpu {
  halted = false;
  interruptShadow = false;
  interruptWaiting = false;
  stopped = false;
  readonly faults: Fault[] = [];
  readonly leaves: { reason: number; argument: number; pc: bigint }[] = [];
  fetchesFromNowhere = 0;
  polls = 0;
  /** Walks that found a page. */
  walks = 0;
  /** Pages by virtual page number; what is not here is identity-mapped while `identity` is set. */
  readonly map = new Map<bigint, Mapping | null>();
  identity = true;
  flags = 0;
  /** Added to the pc to get the address of code. */
  codeBase = 0;
  onLeave: (reason: number, argument: number) => void = () => {
    this.stopped = true;
  };
  onFault: () => void = () => {
    this.stopped = true;
  };
  onPoll: () => void = () => undefined;
  private fault: { address: bigint; access: number } | null = null;
  private readonly view: DataView;

  constructor(view: DataView) {
    this.view = view;
  }

  walk(low: number, high: number, access: number, out: Translation): boolean {
    const address = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    const page = address >> 12n;
    let mapping = this.map.get(page);
    if (mapping === undefined && this.identity && page < 0x1000n) {
      mapping = { page: Number(page) * 4096, permissions: 7 };
    }
    if (!mapping || !(mapping.permissions & (1 << access))) {
      this.fault = { address, access };
      return false;
    }
    out.page = mapping.page;
    out.permissions = mapping.permissions;
    out.global = mapping.global === true;
    out.bits = mapping.bits ?? 12;
    this.walks++;
    return true;
  }

  get pc(): bigint {
    return this.view.getBigUint64(VCPU_BASE + CTL_PC, true);
  }

  codeAddress(out: Int32Array): void {
    const address = this.pc + BigInt(this.codeBase);
    out[0] = Number(BigInt.asIntN(32, address));
    out[1] = Number(BigInt.asIntN(32, address >> 32n));
  }

  blockFlags(): number {
    return this.flags;
  }

  deliverFault(): void {
    const { fault } = this;
    if (!fault) throw new Error('a fault is delivered that was not recorded');
    this.fault = null;
    this.faults.push({ pc: this.pc, ctx: this.view.getInt32(VCPU_BASE + CTL_CTX, true), ...fault });
    this.onFault();
  }

  leave(reason: number, argument: number): void {
    this.leaves.push({ reason, argument, pc: this.pc });
    this.onLeave(reason, argument);
  }

  pollInterrupts(): void {
    this.polls++;
    this.onPoll();
  }

  clearShadow(): void {
    this.interruptShadow = false;
  }

  fetchFromNowhere(): void {
    this.fetchesFromNowhere++;
    this.stopped = true;
  }

  reset(): void {}
}

/** `native`: with code of the host's processor, where it has memory for that. */
export type TestOptions = Partial<Omit<EngineOptions, 'isa' | 'memory' | 'physical'>> & { native?: boolean };

const MACHINE_CODE = 1 << 20;

/** Executions after which blocks are compiled here. */
export const HOT = 20;

export class TestMachine {
  readonly isa: TestIsa;
  readonly engine: Engine;
  readonly vcpu: TestVcpu;
  readonly physical: AddressSpace;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Register accesses of the device: [offset, size, value or null for a read]. */
  readonly accesses: [number, number, number | null][] = [];
  onDevice: (offset: number, value: number | null) => number = (offset) => offset * 0x01010101;

  constructor(isa: TestIsa, options: TestOptions = {}) {
    this.isa = isa;
    const size = RAM_SIZE + ROM_SIZE;
    const memory = newMemory((GUEST_MEMORY + size + 0xffff) >> 16);
    this.bytes = new Uint8Array(memory.buffer);
    this.view = new DataView(memory.buffer);
    this.physical = new AddressSpace(this.bytes);
    this.physical.addRam(0, RAM_SIZE, GUEST_MEMORY);
    this.physical.addRom(ROM, ROM_SIZE, GUEST_MEMORY + RAM_SIZE);
    const handler = {
      read: (offset: number, bytes: number): number => {
        this.accesses.push([offset, bytes, null]);
        return this.onDevice(offset, null);
      },
      write: (offset: number, bytes: number, value: number): void => {
        this.accesses.push([offset, bytes, value]);
        this.onDevice(offset, value);
      },
    };
    this.physical.addMmio(DEVICE, 0x2000, handler, 'test');
    this.engine = new Engine({
      isa,
      memory,
      physical: this.physical,
      compile: true,
      exactCount: false,
      hotThreshold: HOT,
      ...(options.native ? { machineCode: mapMachineCode(MACHINE_CODE) } : {}),
      ...options,
    });
    this.vcpu = new TestVcpu(this.view);
    this.engine.attach(this.vcpu);
    this.engine.selectContext(2, 0, 0);
  }

  /** Puts instructions at a physical address in RAM. @returns the address after them */
  code(address: number, insns: readonly Insn[]): number {
    for (const insn of insns) {
      this.physical.writeBytes(address, this.encoded(insn));
      address += 2;
    }
    return address;
  }

  encoded(insn: Insn): Uint8Array {
    const number = this.isa.number(insn);
    return Uint8Array.of(number & 255, number >> 8);
  }

  get regions(): number {
    return this.engine.statistics.regions;
  }

  set pc(value: bigint) {
    this.view.setBigUint64(VCPU_BASE + CTL_PC, BigInt.asUintN(64, value), true);
  }

  get pc(): bigint {
    return this.vcpu.pc;
  }

  get(global: Global): bigint {
    const at = VCPU_BASE + global.offset;
    if (global.type === I32) return BigInt(this.view.getUint32(at, true));
    const low = this.view.getBigUint64(at, true);
    return global.type === V128 ? low | (this.view.getBigUint64(at + 8, true) << 64n) : low;
  }

  set(global: Global, value: bigint): void {
    const at = VCPU_BASE + global.offset;
    this.view.setBigUint64(at, BigInt.asUintN(64, value), true);
    if (global.type === V128) this.view.setBigUint64(at + 8, BigInt.asUintN(64, value >> 64n), true);
  }

  /** Values of all registers, as text to compare. */
  registers(): string[] {
    return GLOBALS.map((global) => `${global.name}=${this.get(global).toString(16)}`);
  }

  /** Runs from an address until something stops the vCPU, or `count` instructions have gone by. */
  run(pc: number | bigint, count = 100_000): void {
    this.pc = BigInt(pc);
    this.resume(count);
  }

  resume(count = 100_000): void {
    this.vcpu.stopped = false;
    this.engine.run(count, () => this.vcpu.stopped);
  }

  /** Runs again and again until the code is compiled. @param before sets the registers each time */
  runHot(pc: number | bigint, before: () => void = () => undefined): void {
    const known = this.regions;
    for (let i = 0; i < 10 * HOT && this.regions === known; i++) {
      before();
      this.run(pc);
    }
    before();
    this.run(pc);
  }
}

export const stop: Insn = (b, next) => b.leave(STOP, 0, next);
export const nop: Insn = () => undefined;
/** l[register] += constant. */
export const add =
  (register: number, constant: number): Insn =>
  (b) =>
    b.set(L[register]!, b.add64(b.get(L[register]!), b.i64(constant)));
export const jumpBy =
  (distance: number): Insn =>
  (b, _next, at) =>
    b.goto(at + distance);
/** Goes back by a distance while --l[register] is not zero. */
export const loopBy =
  (register: number, distance: number): Insn =>
  (b, next, at) => {
    const left = b.sub64(b.get(L[register]!), b.i64(1));
    b.set(L[register]!, left);
    b.condGoto(b.ne64(left, b.i64(0)), at + distance, next);
  };
export const jumpTo =
  (register: number): Insn =>
  (b) =>
    b.jump(b.get(L[register]!));

/** Small numbers that repeat from a seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** Random bytes as code, in every mode and at both privileges: whatever they do, they do it to the guest only. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CTL_PC } from '../../src/ir/vcpu-block.ts';
import type { InterruptController } from '../../src/machine/interfaces.ts';
import { x86Isa } from '../../src/isa/x86/isa.ts';
import { allRows } from '../../src/isa/x86/rows.ts';
import {
  CPL,
  CR0,
  CR3,
  CR4,
  CS,
  DS,
  EFER,
  ES,
  FS,
  GDTR_LIMIT,
  GPR,
  GS,
  IDTR_LIMIT,
  SS,
  TR,
  XCR0,
} from '../../src/isa/x86/state.ts';
import { X86Cpu } from '../../src/isa/x86/system/cpu.ts';
import { parseCpu } from '../../src/isa/x86/system/models.ts';
import { Engine } from '../../src/jit/engine.ts';
import { GUEST_MEMORY, VCPU_BASE } from '../../src/jit/layout.ts';
import { newMemory } from '../../src/wasm/memory.ts';
import { AddressSpace } from '../../src/machine/address-space.ts';
import { ClockTsc, InstructionClock } from '../../src/machine/clock.ts';

const X86_ROWS = allRows();

const ALL_OF_X86 = x86Isa(() => true);

const RAM_SIZE = 0x200000;
const TABLES = 0x1f0000;
const CODE = 0x8000;
const CODE_BYTES = 512;
const RUNS = Number(process.env.VIRELAY_FUZZ_CASES ?? 500);
const SLICES = 4;
const SLICE = 300;

const controller: InterruptController = {
  acknowledge: () => 0x30,
  getTpr: () => 0,
  setTpr: () => {},
  getApicBase: () => [0xfee00900, 0],
  setApicBase: () => true,
  readX2apic: () => null,
  writeX2apic: () => false,
  getTscDeadline: () => 0n,
  setTscDeadline: () => {},
};

function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

class Victim {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly engine: Engine;
  private readonly cpu: X86Cpu;
  private readonly random: () => number;

  constructor(compile: boolean, seed: number) {
    this.random = randomNumbers(seed);
    const pages = (GUEST_MEMORY + RAM_SIZE) >> 16;
    const memory = newMemory(pages);
    this.bytes = new Uint8Array(memory.buffer);
    this.view = new DataView(memory.buffer);
    const physical = new AddressSpace(this.bytes);
    physical.addRam(0, RAM_SIZE, GUEST_MEMORY);
    this.engine = new Engine({ isa: ALL_OF_X86, memory, physical, compile, exactCount: false, hotThreshold: 8 });
    this.cpu = new X86Cpu(this.engine, {
      mem: physical,
      io: { in: () => this.random(), out: () => {} },
      intc: controller,
      tsc: new ClockTsc(new InstructionClock(() => 0, 0)),
      model: parseCpu('max').model,
      random32: this.random,
      bootTime: 0,
      onShutdown: () => {},
    });
    this.engine.attach(this.cpu);
  }

  /** Bytes of a row's encoding more often than chance has it: most random bytes are not instructions. */
  private code(): void {
    const at = GUEST_MEMORY + CODE;
    for (let i = 0; i < CODE_BYTES; i++) this.bytes[at + i] = this.random();
    for (let i = 0; i < CODE_BYTES - 16; i += 5 + (this.random() % 8)) {
      const row = X86_ROWS[this.random() % X86_ROWS.length]!;
      const map = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][row.map]!;
      const prefix = [[], [0x66], [0xf3], [0xf2]][Math.max(0, row.prefix)]!;
      const vex = [0xc4, 0xe0 | row.map, (Math.max(0, row.w) << 7) | 0x78 | (Math.max(0, row.l) << 2) | Math.max(0, row.prefix)];
      const bytes = row.space === 0 ? [...prefix, ...map] : vex;
      this.bytes.set([...bytes, row.opcode, ...(row.digit >= 0 ? [(row.digit << 3) | (this.random() & 0xc7)] : [])], at + i);
    }
    this.engine.blocks.invalidate(at, CODE_BYTES);
  }

  private begin(bits: 16 | 32 | 64, cpl: number): void {
    const { core } = this.cpu;
    this.cpu.reset();
    const quad = (at: number, value: bigint): void => this.view.setBigUint64(GUEST_MEMORY + at, value, true);
    quad(TABLES, BigInt(TABLES + 0x1000) | 7n);
    quad(TABLES + 0x1000, BigInt(TABLES + 0x2000) | 7n);
    quad(TABLES + 0x2000, 0x87n);
    for (let n = 0; n < 16; n++)
      core.set2(GPR + 8 * n, this.random() & (this.random() & 1 ? 0x1ffff : -1), this.random() & 3 ? 0 : this.random());
    const attributes = bits === 64 ? 0xa09b : bits === 32 ? 0xc09b : 0x9b;
    const dpl = cpl << 5;
    const limit = bits === 16 ? 0xffff : -1;
    core.setSegment(CS, 8 | cpl, 0, 0, limit, attributes | dpl);
    for (const segment of [SS, DS, ES, FS, GS])
      core.setSegment(segment, 16 | cpl, 0, 0, limit, (bits === 16 ? 0x93 : 0xc093) | dpl);
    core.setSegment(TR, 0x40, 0x3000, 0, 0x67, 0x8b);
    core.set(GDTR_LIMIT, 0xfff);
    core.set(IDTR_LIMIT, 0xfff);
    core.set(CR0, bits === 16 ? 0x10 : bits === 32 ? 0x33 : 0x80010033 | 0);
    core.set(CR4, bits === 16 ? 0x200 : 0x50eb0);
    core.set2(CR3, TABLES, 0);
    if (bits === 64) core.set(EFER, 0xd01);
    core.set(XCR0, 7);
    core.set(CPL, cpl);
    core.set2(CTL_PC, CODE, 0);
    this.cpu.mmu.configure();
    core.changed = true;
    core.spaceChanged = true;
    core.services.flushAll();
    this.cpu.blockFlags();
  }

  run(bits: 16 | 32 | 64, cpl: number): void {
    this.code();
    this.begin(bits, cpl);
    for (let slice = 0; slice < SLICES && !this.cpu.halted; slice++) {
      // Code runs until the slice is over, or the CPU halts or shuts down.
      this.engine.run(SLICE, () => this.cpu.halted);
    }
    const pc = this.view.getBigUint64(VCPU_BASE + CTL_PC, true);
    assert.equal(typeof pc, 'bigint');
  }
}

for (const compile of [false, true]) {
  for (const bits of [16, 32, 64] as const) {
    test(`random ${bits}-bit code, ${compile ? 'compiled' : 'interpreted'}, harms nobody`, () => {
      const victim = new Victim(compile, 1000 + bits);
      for (let i = 0; i < RUNS; i++) victim.run(bits, bits === 16 ? 0 : i % 2 === 0 ? 0 : 3);
    });
  }
}

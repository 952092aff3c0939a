/** Runs cases by the translator. */
import { X86Cpu } from '../../src/isa/x86/system/cpu.ts';
import { x86Isa } from '../../src/isa/x86/isa.ts';
import type { CpuModel } from '../../src/isa/x86/system/models.ts';
import { Engine } from '../../src/jit/engine.ts';
import { GUEST_MEMORY } from '../../src/jit/layout.ts';
import { AddressSpace } from '../../src/machine/address-space.ts';
import type { InterruptController } from '../../src/machine/interfaces.ts';
import { newMemory } from '../../src/wasm/memory.ts';
import type { Outcome, Subject } from './compare.ts';
import { END_PORT, HIGH_BASE, HIGH_SIZE, LOW_SIZE, MEMORY_SIZE, type Step } from './guest.ts';
import { ClockTsc, InstructionClock } from '../../src/machine/clock.ts';

const noInterrupts: InterruptController = {
  acknowledge: () => -1,
  getTpr: () => 0,
  setTpr: () => undefined,
  getApicBase: () => [0xfee00900, 0],
  setApicBase: () => true,
  readX2apic: () => null,
  writeX2apic: () => false,
  getTscDeadline: () => 0n,
  setTscDeadline: () => undefined,
};

/** Instructions after which a case is given up. */
const MOST = 2000;

export class JitSubject implements Subject {
  private readonly bytes: Uint8Array;
  private readonly engine: Engine;
  private readonly cpu: X86Cpu;
  private ended = false;
  private dead = false;

  constructor(model: CpuModel) {
    const memory = newMemory((GUEST_MEMORY + MEMORY_SIZE) >> 16);
    const bytes = new Uint8Array(memory.buffer);
    const physical = new AddressSpace(bytes);
    physical.addRam(0, LOW_SIZE, GUEST_MEMORY);
    physical.addRam(HIGH_BASE, HIGH_SIZE, GUEST_MEMORY + LOW_SIZE);
    this.bytes = bytes.subarray(GUEST_MEMORY, GUEST_MEMORY + MEMORY_SIZE);
    this.engine = new Engine({ isa: x86Isa(model.has), memory, physical, compile: false, exactCount: true });
    this.cpu = new X86Cpu(this.engine, {
      mem: physical,
      io: { in: () => 0, out: (port) => void (this.ended ||= port === END_PORT) },
      intc: noInterrupts,
      tsc: new ClockTsc(new InstructionClock(() => 0, 0)),
      model,
      random32: () => 0,
      bootTime: 0,
      onShutdown: () => void (this.dead = true),
    });
    this.engine.attach(this.cpu);
  }

  run({ state, memory }: Step): Outcome {
    this.bytes.set(memory);
    this.engine.blocks.invalidate(GUEST_MEMORY, MEMORY_SIZE);
    this.engine.flushAll();
    this.ended = this.dead = false;
    this.cpu.loadState(state);
    for (let i = 0; i < MOST && !this.ended && !this.dead && !this.cpu.halted; i++) this.engine.run(1, () => false);
    const ended = this.ended ? 'end' : this.dead ? 'shutdown' : 'no end';
    return { ended, state: this.cpu.saveState(), memory: this.bytes };
  }
}

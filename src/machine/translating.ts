/** The translator as an accelerator: engine and x86 vCPU. */
import { x86Isa } from '../isa/x86/isa.ts';
import { X86Cpu } from '../isa/x86/system/cpu.ts';
import { mapMachineCode, preferLargePages, readBuilt } from '#host';
import { tuneForTranslation } from '#threads';
import { Engine } from '../jit/engine.ts';
import { BLOCK_CATEGORIES, ENTRIES } from '../jit/trace-block.ts';
import type { Accelerator } from './accelerator.ts';
import type { AcceleratorParts } from './accelerators.ts';
import type { CpuPort, DeviceState } from './interfaces.ts';
import type { InitialCpuState } from './loader/cpu-state.ts';

/** In what is published, the runtime modules are files. */
const [MADE_ENGINE, MADE_ISA] = [readBuilt('engine.wasm'), readBuilt('x86.wasm')];
const MADE = MADE_ENGINE === null || MADE_ISA === null ? null : { engine: MADE_ENGINE, isa: MADE_ISA };

export class TranslatingAccelerator implements Accelerator {
  readonly name: 'jit' | 'interp';
  readonly engine: Engine;
  readonly cpu: X86Cpu;

  constructor(name: 'jit' | 'interp', parts: AcceleratorParts) {
    this.name = name;
    this.engine = makeEngine(parts, name === 'jit');
    this.cpu = makeCpu(parts, this.engine);
  }

  get cpuPort(): CpuPort {
    return this.cpu;
  }

  memoryMapChanged(): void {
    this.cpu.memoryMapChanged();
  }

  run(count: number, stop: () => boolean): void {
    this.engine.run(count, stop);
  }

  kick(): void {
    this.engine.kick();
  }

  instructions(): number {
    return this.engine.instructions();
  }

  countFrom(instructions: number): void {
    this.engine.countFrom(instructions);
  }

  get idle(): boolean {
    this.cpu.pollInterrupts();
    return this.cpu.halted;
  }

  reset(state: InitialCpuState): void {
    this.cpu.reset();
    if (state.mode !== 'real16') this.cpu.setInitialState(state);
    this.engine.flushAll();
  }

  saveState(_cpu: number): DeviceState {
    return this.cpu.saveState();
  }

  loadState(_cpu: number, state: DeviceState): void {
    this.cpu.loadState(state);
  }

  statistics(): Record<string, number> {
    return { ...this.engine.statistics, instructions: this.engine.instructions() };
  }

  close(): void {
    this.engine.close();
  }
}

/** Bytes of memory for code of the host's processor. */
const MACHINE_CODE = 64 << 20;

function makeEngine(parts: AcceleratorParts, compile: boolean): Engine {
  const { board, memory, model, counted, trace, tracing, tuning, nativeCode } = parts;
  tuneForTranslation();
  // Guest memory, the interpreter's code and TLBs are read here and there, all the time.
  preferLargePages(new Uint8Array(memory.buffer), 0, memory.buffer.byteLength);
  return new Engine({
    isa: x86Isa(model.has),
    ...(MADE === null ? {} : { runtime: MADE }),
    memory,
    physical: board.mem,
    compile,
    exactCount: counted,
    // When a region becomes ready must not depend on how busy the host is if runs are to repeat.
    compileBeside: !counted,
    machineCode: compile && nativeCode ? mapMachineCode(MACHINE_CODE) : null,
    trace,
    ...([...BLOCK_CATEGORIES, ENTRIES].some((category) => tracing.has(category))
      ? { tracesBlocks: (category) => tracing.has(category) }
      : {}),
    ...tuning,
  });
}

function makeCpu(parts: AcceleratorParts, engine: Engine): X86Cpu {
  const { board, tsc, model, bootTime, random32, onPower, trace, tracing } = parts;
  const cpu = new X86Cpu(engine, {
    mem: board.mem,
    io: board.io,
    intc: board.lapic,
    tsc,
    model,
    get bootTime() {
      return bootTime();
    },
    random32,
    onShutdown: (reason) => {
      trace('cpu_reset', `the guest shut its CPU down: ${reason}`);
      onPower('reset');
    },
    onSystemManagement: (inside) => board.setManaging(inside),
    trace: tracing.size > 0 ? trace : undefined,
    tracesRegisters: tracing.has('cpu'),
  });
  engine.attach(cpu);
  return cpu;
}

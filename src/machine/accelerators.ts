/** Whatever can run a machine's vCPU: each is made from the machine's parts, by its name. */
import { x86Isa } from '../isa/x86/isa.ts';
import { X86Cpu } from '../isa/x86/system/cpu.ts';
import type { CpuModel } from '../isa/x86/system/models.ts';
import { Engine } from '../jit/engine.ts';
import type { EngineOptions } from '../jit/engine.ts';
import { BLOCK_CATEGORIES, ENTRIES } from '../jit/trace-block.ts';
import type { Accelerator } from './accelerator.ts';
import type { CpuPort, DeviceState, PowerEvent, Trace, TscSource } from './interfaces.ts';
import type { InitialCpuState } from './loader/cpu-state.ts';
import type { PcMachine } from './pc.ts';

/** When code is compiled, for tests that want it soon. */
export type Tuning = Partial<Pick<EngineOptions, 'hotThreshold' | 'compileBeside'>>;

/** What an accelerator works with. All of it outlives the accelerator. */
export interface AcceleratorParts {
  readonly board: PcMachine;
  /** The machine's memory: guest RAM, and what accelerators keep beside it (jit/layout.ts). */
  readonly memory: WebAssembly.Memory;
  readonly model: CpuModel;
  readonly tsc: TscSource;
  /** Wall-clock time at virtual time 0, in seconds since 1970. */
  readonly bootTime: () => number;
  readonly random32: () => number;
  /** Instructions are counted exactly, and nothing depends on the host's pace. */
  readonly counted: boolean;
  readonly onPower: (event: PowerEvent) => void;
  readonly trace: Trace;
  /** Categories that are traced. */
  readonly tracing: ReadonlySet<string>;
  readonly tuning: Tuning;
}

export type AcceleratorName = 'jit' | 'interp';

/** @throws Error, one line, where the host has no such thing */
type Factory = (parts: AcceleratorParts) => Accelerator;

const FACTORIES: Record<AcceleratorName, Factory> = {
  jit: (parts) => new TranslatingAccelerator('jit', parts),
  interp: (parts) => new TranslatingAccelerator('interp', parts),
};

export const ACCELERATORS = Object.keys(FACTORIES) as AcceleratorName[];

/** @throws Error, one line */
export function makeAccelerator(name: AcceleratorName, parts: AcceleratorParts): Accelerator {
  return FACTORIES[name](parts);
}

/** The translator as an accelerator: engine and x86 vCPU. */
class TranslatingAccelerator implements Accelerator {
  readonly name: AcceleratorName;
  readonly engine: Engine;
  readonly cpu: X86Cpu;

  constructor(name: AcceleratorName, parts: AcceleratorParts) {
    this.name = name;
    this.engine = makeEngine(parts, name === 'jit');
    this.cpu = makeCpu(parts, this.engine);
    const { cpu } = this;
    parts.board.mem.onMapChange = () => cpu.memoryMapChanged();
  }

  get cpuPort(): CpuPort {
    return this.cpu;
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

  saveState(): DeviceState {
    return this.cpu.saveState();
  }

  loadState(state: DeviceState): void {
    this.cpu.loadState(state);
  }

  statistics(): Record<string, number> {
    return { ...this.engine.statistics, instructions: this.engine.instructions() };
  }

  close(): void {
    this.engine.close();
  }
}

function makeEngine({ board, memory, model, counted, trace, tracing, tuning }: AcceleratorParts, compile: boolean): Engine {
  return new Engine({
    isa: x86Isa(model.has),
    memory,
    physical: board.mem,
    compile,
    exactCount: counted,
    // When a region becomes ready must not depend on how busy the host is if runs are to repeat.
    compileBeside: !counted,
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

/** A vCPU's interrupt pins, which also wake a sleeping machine. The board's wires end here, whatever runs the vCPU. */
export class CpuPins implements CpuPort {
  /** The vCPU of the accelerator in force. */
  target: CpuPort | null = null;
  private readonly wake: () => void;

  constructor(wake: () => void) {
    this.wake = wake;
  }

  setIntr(pending: boolean): void {
    this.target?.setIntr(pending);
    if (pending) this.wake();
  }

  nmi(): void {
    this.target?.nmi();
    this.wake();
  }

  smi(): void {
    this.target?.smi();
    this.wake();
  }

  init(): void {
    this.target?.init();
    this.wake();
  }

  sipi(vector: number): void {
    this.target?.sipi(vector);
    this.wake();
  }

  setA20(enabled: boolean): void {
    this.target?.setA20(enabled);
  }
}

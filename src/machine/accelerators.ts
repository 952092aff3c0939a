/** Whatever can run a machine's vCPU: each is made from the machine's parts, by its name. */
import { namesOf } from '../isa/x86/system/hyperv.ts';
import type { CpuModel, FeatureWords, HostCpu } from '../isa/x86/system/models.ts';
import type { EngineOptions } from '../jit/engine-options.ts';
import type { Accelerator, AcceleratorName } from './accelerator.ts';
import { compilerThread } from '../jit/compiler-start.ts';
import type { CpuTopology } from './cpu-topology.ts';
import { beginCompiler } from './early-compiler.ts';
import type { CpuPort, PowerEvent, Trace, TscSource, VirtualClock } from './interfaces.ts';
import type { Board } from './board.ts';

/** When code is compiled, for tests that want it soon. */
export type Tuning = Partial<Pick<EngineOptions, 'hotThreshold' | 'compileBeside'>>;

/** What an accelerator works with. All of it outlives the accelerator. */
export interface AcceleratorParts {
  readonly board: Board;
  /** The machine's memory: guest RAM, and what accelerators keep beside it (jit/layout.ts). */
  readonly memory: WebAssembly.Memory;
  readonly model: CpuModel;
  readonly topology: CpuTopology;
  readonly clock: VirtualClock;
  readonly tsc: TscSource;
  /** Wall-clock time at virtual time 0, in seconds since 1970. */
  readonly bootTime: () => number;
  readonly random32: () => number;
  /** Instructions are counted exactly, and nothing depends on the host's pace. */
  readonly counted: boolean;
  /** Which interrupt chips are in the host's kernel, where any are. */
  readonly irqchip: 'on' | 'split';
  readonly onPower: (event: PowerEvent) => void;
  /** The guest cannot go on. @param text several lines, for the user */
  readonly onFailure: (text: string) => void;
  readonly trace: Trace;
  /** Categories that are traced. */
  readonly tracing: ReadonlySet<string>;
  readonly tuning: Tuning;
  /** See MachineConfig. */
  readonly nativeCode: boolean;
}

/** An accelerator that can be had. */
export interface LoadedAccelerator {
  /** CPU features that its guests may have; null for whatever the model has. */
  readonly features: FeatureWords | null;
  /** The CPU model `host`; null where it cannot be had. */
  readonly hostCpu: HostCpu | null;
  /** Rate of its guests' time-stamp counters in hertz, where it has a choice of one; else null. */
  readonly tscFrequency: number | null;
  /** CPUs that a machine may have at most. */
  readonly mostCpus: number;
  /** @throws Error, one line */
  make(parts: AcceleratorParts): Accelerator;
  /** Gives up what all that it makes have in common. */
  close?(): void;
}

const loaded = new Map<AcceleratorName, LoadedAccelerator>();

/** What comes between two steps of loading. */
type Pause = () => Promise<void>;

/**
 * Only what is asked for is loaded: a machine under KVM has no use for a translator.
 * @param pause between two steps; none when there is nothing else to do
 * @throws Error, one line
 */
export async function loadAccelerator(name: AcceleratorName, pause?: Pause): Promise<LoadedAccelerator> {
  const known = loaded.get(name);
  if (known !== undefined) return known;
  const made = await LOADERS[name](pause);
  loaded.set(name, made);
  return made;
}

/** Milliseconds that the guest has to itself between two steps of loading. */
const PAUSE_MS = 1;

/**
 * Loads an accelerator while another one runs the guest, which goes on between the steps; `forgetPrepared` when it is not used then.
 * @throws Error, one line
 */
export async function prepareAccelerator(name: AcceleratorName): Promise<void> {
  if (name === 'jit') beginCompiler();
  await loadAccelerator(name, () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS)));
}

export function forgetPrepared(): void {
  compilerThread.drop();
}

/** @throws Error, one line, where there would be too many */
export function checkCpus({ mostCpus }: LoadedAccelerator, cpus: number): void {
  if (cpus <= mostCpus) return;
  const most = mostCpus === 1 ? 'one CPU' : `at most ${mostCpus} CPUs`;
  throw new Error(`it runs ${most}, and this machine has ${cpus}${mostCpus === 1 ? ', which needs kvm' : ''}`);
}

/** After the last machine of this thread, whose accelerator has been closed. */
export function unloadAccelerators(): void {
  for (const accelerator of loaded.values()) accelerator.close?.();
  loaded.clear();
}

/** @throws Error, one line; the accelerator must have been loaded */
export function makeAccelerator(name: AcceleratorName, parts: AcceleratorParts): Accelerator {
  const accelerator = loaded.get(name);
  if (accelerator === undefined) throw new Error(`accelerator ${name} has not been loaded`);
  checkCpus(accelerator, parts.board.apicIds.length);
  return accelerator.make(parts);
}

async function translating(name: 'jit' | 'interp', pause?: Pause): Promise<LoadedAccelerator> {
  // In two parts of like size, of which each takes less time than the change itself: more pauses only add up.
  await Promise.all([import('../isa/x86/isa.ts'), import('../jit/engine.ts')]);
  await pause?.();
  await import('../isa/x86/system/cpu.ts');
  const { TranslatingAccelerator } = await import('./translating.ts');
  const make = (parts: AcceleratorParts): Accelerator => {
    if (parts.model.host !== null)
      throw new Error('the CPU model "host" runs by KVM alone: a machine that is to move needs another');
    if (parts.model.hyperv !== null)
      throw new Error(
        `its CPU has ${namesOf(parts.model.hyperv)}, which KVM alone has: a machine that is to move must be without`,
      );
    return new TranslatingAccelerator(name, parts);
  };
  return { features: null, hostCpu: null, tscFrequency: null, mostCpus: 1, make };
}

const LOADERS: Record<AcceleratorName, (pause?: Pause) => Promise<LoadedAccelerator>> = {
  jit: (pause) => translating('jit', pause),
  interp: (pause) => translating('interp', pause),
  kvm: async () => (await import('#kvm')).openKvm(),
};

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

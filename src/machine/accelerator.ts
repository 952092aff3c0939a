/** What a machine needs of whatever runs its vCPU. */
import type { DeviceState, CpuPort } from './interfaces.ts';
import type { InitialCpuState } from './loader/cpu-state.ts';

export const ACCELERATORS = ['jit', 'interp', 'kvm'] as const;
export type AcceleratorName = (typeof ACCELERATORS)[number];

/** What runs the guest by itself, on a processor: there are no slices, it is left when somebody wants something. */
export interface FreeRunning {
  /**
   * Runs the guest until the event loop has something to do, a timer is due, or `stop` answers true.
   * @param left milliseconds until the next timer is due; asked before each entry, not negative
   */
  stay(left: () => number, stop: () => boolean): void;
  /** Goes on when the event loop has had its turn. */
  afterEvents(run: () => void): void;
}

export interface Accelerator {
  readonly name: string;
  /** Where the board's interrupt wires end. */
  readonly cpuPort: CpuPort;
  /** Runs about (when counting instructions: exactly) `count` instructions, fewer when the vCPU halts or `stop` answers true. */
  run(count: number, stop: () => boolean): void;
  /** Instead of `run`, where the guest is not run in slices. */
  readonly free?: FreeRunning;
  /** Brings what it keeps of the board (interrupt controllers, timers, time) back there, until it runs again. */
  settle?(): void;
  /** Makes `run` return soon. */
  kick(): void;
  /** Instructions executed since power-on. */
  instructions(): number;
  /** Goes on counting from there: it takes another one's place, or a saved machine goes on. */
  countFrom(instructions: number): void;
  /** The vCPU waits for an interrupt, and none is pending. */
  readonly idle: boolean;
  /** Memory has come, gone or moved in the board's address space. */
  memoryMapChanged(): void;
  /** Doorbells have come or gone among the board's ports, or are to be answered for in another way. */
  doorbellsChanged?(): void;
  reset(state: InitialCpuState): void;
  /** @param cpu which one, from 0 */
  saveState(cpu: number): DeviceState;
  /** Another state for one CPU, of which the others keep theirs. */
  loadState(cpu: number, state: DeviceState): void;
  /** What it has done so far, for `info jit` and tracing. */
  statistics(): Record<string, number>;
  /**
   * Gives up what it holds; it is of no use afterwards. Its state has been saved, or nobody wants it.
   * @param machineGoesOn under another one: what takes long is left to other threads
   */
  close(machineGoesOn?: boolean): void;
}

/** What an engine is made of, and what it asks of the machine's memory. */
import type { MachineCode } from '../host/host.ts';
import type { Isa } from '../isa/isa.ts';
import type { compilerHere } from './compilers.ts';
import type { RuntimeBytes } from './runtime.ts';

/** Physical memory as the engine sees it (machine/address-space.ts). */
export interface EngineMemory {
  hostPage(address: number): number;
  isWritable(address: number): boolean;
  read(address: number, size: number): number;
  write(address: number, size: number, value: number): void;
  readonly pageFlags: Uint8Array;
  onCodeWrite?: ((hostOffset: number, length: number) => void) | undefined;
}

export interface EngineOptions {
  readonly isa: Isa;
  readonly memory: WebAssembly.Memory;
  readonly physical: EngineMemory;
  /** false: everything runs in the interpreter (-accel interp). */
  readonly compile: boolean;
  /** Compile in a thread of its own, if the host has threads. */
  readonly compileBeside?: boolean;
  /** What compiles, instead of either. */
  readonly compiler?: typeof compilerHere;
  /** Instructions are counted exactly (-icount). */
  readonly exactCount: boolean;
  /** Executions after which a block is compiled; its batch, when it still waits, after twice as many more. */
  readonly hotThreshold?: number;
  /** End of the area for interpreter code: translated code is dropped when it is reached. */
  readonly codeEnd?: number;
  /** Memory for code of the host's processor. */
  readonly machineCode?: MachineCode | null;
  /** Runtime modules that have been made before (`makeCommonRuntime`), for memories that they serve. */
  readonly runtime?: RuntimeBytes;
  trace?: (category: string, line: string) => void;
  /** Is a category traced that is about blocks (trace-block.ts)? */
  tracesBlocks?: (category: string) => boolean;
}

/** Compilers of regions: in this thread, or in one beside it. */
import type { Isa } from '../isa/isa.ts';
import type { Thread } from '../host/host.ts';
import type { FromCompiler, ToCompiler } from './compile-thread.ts';
import { COMPILER_MAY_WAIT, compilerThread } from './compiler-start.ts';
import { RegionMaker } from './region-maker.ts';
import type { MakerSettings } from './region-maker.ts';
import type { CompiledBatch } from './request.ts';

/** Turns requests into modules, here or in another thread. */
export interface BatchCompiler {
  /** Another thread does the work: a batch costs this one nothing, so small ones are as good as large. */
  readonly background: boolean;
  /**
   * @param words what `writeRequests` made
   * @param fresh all code from before has been dropped
   * @param done called with the answer, at once or later, in the order of the calls
   */
  compile(words: Int32Array, fresh: boolean, done: (batch: CompiledBatch) => void): void;
  /** Delivers the answers that are there. */
  poll(): void;
  /** Nothing more will be asked for. */
  close(): void;
}

export function compilerHere(isa: Isa, memory: WebAssembly.Memory, settings: MakerSettings, firstFault = 0): BatchCompiler {
  const maker = new RegionMaker(isa, memory.buffer, settings, firstFault);
  return {
    background: false,
    compile: (words, fresh, done) => done(maker.compile(words, fresh)),
    poll: () => undefined,
    close: () => undefined,
  };
}

interface Waiting {
  readonly words: Int32Array;
  readonly done: (batch: CompiledBatch) => void;
}

/** A compiler in a thread of its own, or here should that fail. */
export function compilerBeside(isa: Isa, memory: WebAssembly.Memory, settings: MakerSettings): BatchCompiler {
  const { origin } = isa;
  if (!origin) return compilerHere(isa, memory, settings);
  let thread: Thread<ToCompiler, FromCompiler> | null = null;
  const waiting: Waiting[] = [];
  let here: BatchCompiler | null = null;
  let nextFault = 0;
  const begin = (): Thread<ToCompiler, FromCompiler> => {
    const begun = compilerThread.take();
    begun.detach();
    begun.onError(() => {
      here = compilerHere(isa, memory, settings, nextFault);
      for (const { words, done } of waiting.splice(0)) here.compile(words, false, done);
    });
    begun.onMessage((batch) => {
      for (const { faultBase, faults } of batch.regions) nextFault = Math.max(nextFault, faultBase + faults.length / 3);
      waiting.shift()?.done(batch);
    });
    begun.post({ origin, memory, settings: { ...settings, early: true } });
    return begun;
  };
  // The guest's first second is the worst one for another thread.
  if (!settings.native || !COMPILER_MAY_WAIT) thread = begin();
  return {
    get background() {
      return here === null;
    },
    compile(words, fresh, done) {
      if (here) return here.compile(words, fresh, done);
      thread ??= begin();
      waiting.push({ words, done });
      thread.post({ words, fresh });
    },
    poll: () => thread?.poll(),
    close: () => thread?.terminate(),
  };
}

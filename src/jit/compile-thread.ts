/** Entry of the thread that compiles regions while the vCPU goes on in the interpreter. */
import { threadParent } from '#threads';
import type { Isa, IsaOrigin } from '../isa/isa.ts';
import { RegionMaker } from './region-maker.ts';
import type { MakerSettings } from './region-maker.ts';
import type { CompiledBatch } from './request.ts';

/** To the compiler: a module that will be needed, what it is to work on, then batches of requests. */
export type ToCompiler =
  | { module: string }
  | { origin: IsaOrigin; memory: WebAssembly.Memory; settings: MakerSettings }
  | { words: Int32Array; fresh: boolean };
/** Answers, one for each batch, in their order. */
export type FromCompiler = CompiledBatch;

const parent = threadParent<FromCompiler, ToCompiler>();
let maker: Promise<RegionMaker> | null = null;

const load = (module: string): Promise<{ makeIsa(argument: unknown): Isa }> => import(module);

async function begin(origin: IsaOrigin, memory: WebAssembly.Memory, settings: MakerSettings): Promise<RegionMaker> {
  const { makeIsa } = await load(origin.module);
  return new RegionMaker(makeIsa(origin.argument), memory.buffer, settings);
}

parent.onMessage((message) => {
  if ('module' in message) void load(message.module);
  else if ('origin' in message) maker = begin(message.origin, message.memory, message.settings);
  else void maker?.then((one) => parent.post(one.compile(message.words, message.fresh)));
});

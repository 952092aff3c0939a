/** Entry of the thread that compiles regions while the vCPU goes on in the interpreter. */
import { makeOptimised, stepBack, threadParent } from '#threads';
import { CTL_KICK, KICK_ANSWER } from '../ir/vcpu-block.ts';
import type { Isa, IsaOrigin } from '../isa/isa.ts';
import { VCPU_BASE } from './layout.ts';
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
let words = new Int32Array(0);

/** The guest's thread comes first: on two processors it would share one with this thread while V8's optimiser has the other. */
const STEPS_BACK = 5;

const load = (module: string): Promise<{ makeIsa(argument: unknown): Isa }> => import(module);

async function begin(origin: IsaOrigin, memory: WebAssembly.Memory, settings: MakerSettings): Promise<RegionMaker> {
  words = new Int32Array(memory.buffer);
  stepBack(STEPS_BACK);
  const { makeIsa } = await load(origin.module);
  const made = new RegionMaker(makeIsa(origin.argument), memory.buffer, settings, 0, makeOptimised);
  // Who comes this late waits for an answer already.
  if (!settings.native) made.rehearse();
  return made;
}

/** A slice of code that is slow in the interpreter is long: it is not to wait for its end. */
function answer(batch: CompiledBatch): void {
  parent.post(batch);
  Atomics.compareExchange(words, (VCPU_BASE + CTL_KICK) >> 2, 0, KICK_ANSWER);
}

parent.onMessage((message) => {
  if ('module' in message) void load(message.module);
  else if ('origin' in message) maker = begin(message.origin, message.memory, message.settings);
  else void maker?.then((one) => answer(one.compile(message.words, message.fresh)));
});

/** Entry of the thread that compiles regions while the vCPU goes on in the interpreter. */
import { threadParent } from '#threads';
import { compileBatch } from './compile.ts';
import type { CompilerOptions } from './compile.ts';

/** To the compiler: first the options, then batches (see batch.ts). */
export type ToCompiler = { options: CompilerOptions } | { batch: number; words: Int32Array };
export type FromCompiler = { ready: true } | { batch: number; module: WebAssembly.Module };

const parent = threadParent<FromCompiler, ToCompiler>();
let options: CompilerOptions | null = null;

parent.onMessage((message) => {
  if ('options' in message) {
    options = message.options;
    parent.post({ ready: true });
  } else if (options) {
    parent.post({ batch: message.batch, module: compileBatch(message.words, options) });
  }
});

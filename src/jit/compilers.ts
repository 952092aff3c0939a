/** Compilers of region batches: in this thread, or in one beside it. */
import { startThread } from '#threads';
import { signatureOf } from '../ir/helpers.ts';
import type { Helper } from '../ir/helpers.ts';
import { compileBatch } from './compile.ts';
import type { CompilerOptions } from './compile.ts';
import type { FromCompiler, ToCompiler } from './compile-thread.ts';
import type { BatchCompiler } from './queue.ts';

/** What a compiler must know of the machine. */
export type CompilerSettings = Omit<CompilerOptions, 'helpers'> & { readonly helpers: readonly Helper[] };

export function compilerHere(options: CompilerSettings): BatchCompiler {
  return {
    background: false,
    compile: (words, done) => done(compileBatch(words, options)),
  };
}

/**
 * A compiler in a thread of its own. Until that has started, and if it cannot, batches are
 * compiled here. Its modules arrive when the event loop has its turn.
 */
export function compilerBeside(options: CompilerSettings): BatchCompiler {
  const here = compilerHere(options);
  const thread = startThread<ToCompiler, FromCompiler>(new URL('./compile-thread.ts', import.meta.url));
  const waiting = new Map<number, (module: WebAssembly.Module) => void>();
  let ready = false;
  let next = 0;
  thread.detach();
  thread.onError(() => {
    ready = false;
  });
  thread.onMessage((message) => {
    if ('ready' in message) {
      ready = true;
      return;
    }
    waiting.get(message.batch)?.(message.module);
    waiting.delete(message.batch);
  });
  thread.post({ options: { ...options, helpers: options.helpers.map(signatureOf) } });
  return {
    get background() {
      return ready;
    },
    compile(words, done) {
      if (!ready) return here.compile(words, done);
      waiting.set(next, done);
      thread.post({ batch: next++, words }, [words.buffer]);
    },
  };
}

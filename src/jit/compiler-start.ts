/** Threads that compile regions; one may be begun before the machine's own code has been loaded. */
import { startThread } from '#threads';
import type { Thread } from '../host/host.ts';
import type { FromCompiler, ToCompiler } from './compile-thread.ts';

export type CompilerThread = Thread<ToCompiler, FromCompiler>;

let begun: CompilerThread | null = null;

function start(): CompilerThread {
  const thread: CompilerThread = startThread(new URL('./compile-thread.ts', import.meta.url));
  thread.detach();
  return thread;
}

/**
 * Begins the next compiler's thread, so that a guest's first loops find it ready.
 * @param module see IsaOrigin
 */
export function beginCompiler(module: string): void {
  begun ??= start();
  begun.post({ module });
}

/** @returns the thread that was begun, else a new one */
export function takeCompiler(): CompilerThread {
  const thread = begun ?? start();
  begun = null;
  return thread;
}

/** Ends the thread that was begun if no machine has taken it. */
export function dropCompiler(): void {
  begun?.terminate();
  begun = null;
}

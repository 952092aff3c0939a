/** The thread of the next compiler, which a guest's first loops should find ready. */
import { EarlyThread } from '../host/early-thread.ts';
import type { FromCompiler, ToCompiler } from './compile-thread.ts';

/**
 * May the thread begin as late as when there is something to compile, of which code of the host's processor leaves little? Not where
 * sources are run as they are: Node.js strips their types by WebAssembly of its own, which V8 fails to instantiate in a thread that
 * begins after its options have changed (`tuneForTranslation`).
 */
export const COMPILER_MAY_WAIT = !import.meta.url.endsWith('.ts');

export const compilerThread = new EarlyThread<ToCompiler, FromCompiler>(new URL('./compile-thread.ts', import.meta.url));

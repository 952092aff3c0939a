/** The thread of the next compiler, which a guest's first loops should find ready. */
import { EarlyThread } from '../host/early-thread.ts';
import type { FromCompiler, ToCompiler } from './compile-thread.ts';

export const compilerThread = new EarlyThread<ToCompiler, FromCompiler>(new URL('./compile-thread.ts', import.meta.url));

/** Entry of the thread that a machine lives in: its compiler's thread loads beside it. */
import { compilerThread } from '../jit/compiler-start.ts';

compilerThread.begin().post({ module: new URL('../isa/x86/isa.ts', import.meta.url).href });
void import('./machine-thread.ts');

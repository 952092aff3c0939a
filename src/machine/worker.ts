/** Entry of the thread that a machine lives in: its compiler's thread loads beside it. */
import { beginCompiler } from '../jit/compiler-start.ts';

beginCompiler(new URL('../isa/x86/isa.ts', import.meta.url).href);
await import('./machine-thread.ts');

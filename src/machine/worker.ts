/** Entry of the thread that a machine lives in: its compiler's thread loads beside it. */
import { beginCompiler } from './early-compiler.ts';

beginCompiler();
void import('./machine-thread.ts');

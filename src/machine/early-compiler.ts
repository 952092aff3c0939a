/** The compiler's thread, begun before there is anything to compile. */
import { mayRunMachineCode } from '#host/machine-code';
import { COMPILER_MAY_WAIT, compilerThread } from '../jit/compiler-start.ts';

/** Where it may wait, and code of the host's processor does without it, it begins when something is to be compiled. */
export const beginCompiler = (): void => {
  if (COMPILER_MAY_WAIT && mayRunMachineCode()) return;
  compilerThread.begin().post({ module: new URL('../isa/x86/isa.ts', import.meta.url).href });
};

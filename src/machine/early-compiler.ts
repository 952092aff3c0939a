/** The compiler's thread, begun before there is anything to compile. */
import { mayRunMachineCode } from '#host/machine-code';
import { compilerThread } from '../jit/compiler-start.ts';

/** Not where code of the host's processor does without it: then it is begun when something is to be compiled. */
export const beginCompiler = (): void => {
  if (mayRunMachineCode()) return;
  compilerThread.begin().post({ module: new URL('../isa/x86/isa.ts', import.meta.url).href });
};

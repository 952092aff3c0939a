/** The compiler's thread, begun before there is anything to compile. */
import { compilerThread } from '../jit/compiler-start.ts';

export const beginCompiler = (): void => {
  compilerThread.begin().post({ module: new URL('../isa/x86/isa.ts', import.meta.url).href });
};

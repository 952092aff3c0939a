/** Makes the x87 and SSE routines for one vCPU. */
import { Floats } from '../float/arithmetic.ts';
import { Program } from '../../../wasm/structured.ts';
import type { ModuleWriter } from '../../../wasm/wasm.ts';
import { X87 } from './common.ts';
import { Conversions } from './convert.ts';
import { defineRemainders } from './remainder.ts';
import { defineRoutines } from './routines.ts';
import { transcendentalRoutines } from './transcendental.ts';
import type { Primitives } from './transcendental.ts';

/** @param module an empty module that imports the memory  @returns routines by name */
export function makeX87(
  memory: WebAssembly.Memory,
  vcpuBase: number,
  module: ModuleWriter,
): Record<string, WebAssembly.ImportValue> {
  const x = new X87(new Program(module, vcpuBase));
  const conversions = new Conversions(x);
  new Floats(x.program);
  defineRoutines(x, conversions);
  defineRemainders(x, conversions);
  const table = new WebAssembly.Table({ initial: 0, element: 'anyfunc' });
  const compiled = new WebAssembly.Module(module.finish());
  const instance = new WebAssembly.Instance(compiled, { v: { memory, table } });
  const primitives = instance.exports as unknown as Primitives;
  return { ...instance.exports, ...transcendentalRoutines(memory, vcpuBase, primitives) };
}

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

/** @param module an empty module that imports the memory  @returns its bytes with the routines in it */
export function x87Module(module: ModuleWriter, vcpuBase: number): Uint8Array<ArrayBuffer> {
  const x = new X87(new Program(module, vcpuBase));
  const conversions = new Conversions(x);
  new Floats(x.program);
  defineRoutines(x, conversions);
  defineRemainders(x, conversions);
  return module.finish();
}

/** @param bytes what `x87Module` makes  @returns routines by name */
export function startX87(
  memory: WebAssembly.Memory,
  vcpuBase: number,
  bytes: Uint8Array<ArrayBuffer>,
): Record<string, WebAssembly.ImportValue> {
  const table = new WebAssembly.Table({ initial: 0, element: 'anyfunc' });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { v: { memory, table } });
  const primitives = instance.exports as unknown as Primitives;
  return { ...instance.exports, ...transcendentalRoutines(memory, vcpuBase, primitives) };
}

/** Functions of the runtime module that regions may call, but for helpers, as they import them. */
import { I32, I64, NONE } from '../ir/ops.ts';
import { BULK_IMPORTS, FIND_STACK, SLOW_IMPORTS, missName } from './access.ts';
import { DISPATCH, FIND, FOLLOW, GUARD, LINK, THROUGH } from './dispatch.ts';
import type { Results } from '../wasm/wasm.ts';

export interface Signature {
  readonly params: readonly number[];
  readonly result: Results;
}

/** @param pointer type of addresses */
function runtimeFunctions(pointer: number): ReadonlyMap<string, Signature> {
  const functions = new Map<string, Signature>();
  for (const { name, params, result } of [...SLOW_IMPORTS, ...BULK_IMPORTS]) functions.set(name, { params, result });
  for (const { name, params, result } of SLOW_IMPORTS) functions.set(missName(name), { params, result });
  functions.set(FIND_STACK, { params: [I64], result: NONE });
  for (const name of [FIND, DISPATCH]) functions.set(name, { params: [I32], result: NONE });
  for (const name of [LINK, FOLLOW, THROUGH]) functions.set(name, { params: [pointer], result: NONE });
  functions.set(GUARD, { params: [pointer, I64], result: I32 });
  return functions;
}

/** By type of addresses. */
export const RUNTIME_FUNCTIONS: Record<number, ReadonlyMap<string, Signature>> = {
  [I32]: runtimeFunctions(I32),
  [I64]: runtimeFunctions(I64),
};

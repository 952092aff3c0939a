/**
 * Vectors that translated code reads from the state block. Engines make two 64-bit moves and more of a
 * v128 constant in code, but one load of this: it counts where there are many, as in AES.
 */
import { HOST_PAGES } from '../../ir/vcpu-block.ts';
import { VECTOR_CONSTANTS } from './state.ts';

const known = new Map<string, number>();
const list: (readonly number[])[] = [];

/** @param bytes 16 of them  @returns their offset in the state block */
export function vectorConstant(bytes: readonly number[]): number {
  const key = bytes.join();
  let offset = known.get(key);
  if (offset === undefined) {
    offset = VECTOR_CONSTANTS + 16 * list.length;
    if (offset + 16 > HOST_PAGES) throw new Error('no room for another vector constant');
    known.set(key, offset);
    list.push(bytes);
  }
  return offset;
}

/** Puts all constants in their places; to be called once code that uses them has been made. */
export function writeVectorConstants(memory: WebAssembly.Memory, vcpuBase: number): void {
  const bytes = new Uint8Array(memory.buffer);
  list.forEach((constant, i) => bytes.set(constant, vcpuBase + VECTOR_CONSTANTS + 16 * i));
}

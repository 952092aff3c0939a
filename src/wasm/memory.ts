/** WebAssembly's memories, apart from the writer of modules (wasm.ts), which no machine needs that the processor runs. */

/** Bytes. */
export const PAGE_SIZE = 65536;

/**
 * Whether addresses in a memory of this size have 32 bits, not 64. The host checks 64-bit addresses in code, three
 * instructions an access; for 32-bit ones it keeps so much address space free that every access lands in it.
 */
export const hasShortAddresses = (bytes: number): boolean => bytes <= 2 ** 32;

/** A shared memory with addresses of the type that fits its size. @throws RangeError when the host has no room */
export function newMemory(pages: number): WebAssembly.Memory {
  if (hasShortAddresses(pages * PAGE_SIZE)) {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  }
  // The type of a 64-bit memory's descriptor is not in the standard library yet.
  const descriptor = { initial: BigInt(pages), maximum: BigInt(pages), shared: true, address: 'i64' };
  return new WebAssembly.Memory(descriptor as unknown as WebAssembly.MemoryDescriptor);
}

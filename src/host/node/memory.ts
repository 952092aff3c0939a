/** What the C library can do with memory and Node.js does not offer. */

const MADV_DONTNEED = 4;
const MADV_HUGEPAGE = 14;
const SC_PAGESIZE = 30;

type Advise = (memory: Uint8Array, offset: number, length: number, advice: number) => void;

let advise: Advise | undefined;

/**
 * Gives memory back to the host. Whole pages of the host's within the range read as zeros afterwards, and take no
 * space until they are written to; what is left of pages at its ends stays as it is.
 * @param memory of its own pages, such as a WebAssembly memory's
 * @param offset, length bytes
 */
export function releasePages(memory: Uint8Array, offset: number, length: number): void {
  advise ??= load();
  advise(memory, offset, length, MADV_DONTNEED);
}

/**
 * Asks the host for large pages where this memory has none yet, which a processor finds faster; each takes space as a
 * whole when a byte of it is touched. Without effect where the host has none to give.
 * @param memory, offset, length see `releasePages`
 */
export function preferLargePages(memory: Uint8Array, offset: number, length: number): void {
  advise ??= load();
  advise(memory, offset, length, MADV_HUGEPAGE);
}

/** @returns what does nothing where the host cannot */
function load(): Advise {
  const nothing = (): void => undefined;
  if (process.platform !== 'linux') return nothing;
  try {
    const { dlopen, getRawPointer } = process.getBuiltinModule('node:ffi');
    const c = dlopen('libc.so.6', {
      madvise: { arguments: ['u64', 'u64', 'i32'], return: 'i32' },
      sysconf: { arguments: ['i32'], return: 'i64' },
    }).functions as unknown as { madvise(at: bigint, length: bigint, advice: number): number; sysconf(name: number): bigint };
    const page = c.sysconf(SC_PAGESIZE);
    const bases = new WeakMap<object, bigint>();
    return (memory, offset, length, advice) => {
      const { buffer } = memory;
      const base = bases.get(buffer) ?? getRawPointer(buffer as ArrayBuffer);
      bases.set(buffer, base);
      const from = base + BigInt(memory.byteOffset + offset);
      const start = ((from + page - 1n) / page) * page;
      const end = ((from + BigInt(length)) / page) * page;
      if (end > start) c.madvise(start, end - start, advice);
    };
  } catch {
    return nothing;
  }
}

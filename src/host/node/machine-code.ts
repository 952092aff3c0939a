/**
 * Memory that holds machine code, and a way to call it: where Node.js can call functions of libraries
 * (node:ffi), a library made on the spot, a few hundred bytes, leads into the code.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { MachineCode } from '../host.ts';

const PROT_ALL = 7;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const MAP_32BIT = 0x40;
const MADV_HUGEPAGE = 14;
const MFD_CLOEXEC = 1;
/** Bytes of /proc/cpuinfo that have the first processor's flags. */
const CPU_INFO = 8192;

type Ffi = typeof import('node:ffi');

/** May `mapMachineCode` give any here? It looks more closely. */
export const mayRunMachineCode = (): boolean => process.platform === 'linux' && process.arch === 'x64';

/**
 * @param size bytes
 * @returns null where the host has no such memory, or nothing that could call into it
 */
export function mapMachineCode(size: number): MachineCode | null {
  if (!mayRunMachineCode()) return null;
  try {
    return hasLevel2() ? map(process.getBuiltinModule('node:ffi'), size) : null;
  } catch {
    return null;
  }
}

/** Has the processor what the code may use, x86-64-v2? */
function hasLevel2(): boolean {
  const info = Buffer.alloc(CPU_INFO);
  const file = openSync('/proc/cpuinfo', 'r');
  const length = readSync(file, info);
  closeSync(file);
  const flags = /^flags\s*:(.*)$/m.exec(info.toString('latin1', 0, length))?.[1]?.split(' ') ?? [];
  return ['popcnt', 'ssse3', 'sse4_1', 'sse4_2'].every((flag) => flags.includes(flag));
}

function map(ffi: Ffi, size: number): MachineCode | null {
  const c = ffi.dlopen(null, {
    mmap: { arguments: ['u64', 'u64', 'i32', 'i32', 'i32', 'i64'], return: 'i64' },
    munmap: { arguments: ['u64', 'u64'], return: 'i32' },
    madvise: { arguments: ['u64', 'u64', 'i32'], return: 'i32' },
    memfd_create: { arguments: ['string', 'u32'], return: 'i32' },
  }).functions;
  const address = c.mmap(0n, BigInt(size), PROT_ALL, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0n);
  if (address === -1n) return null;
  const unmap = (): void => void c.munmap(address, BigInt(size));
  // Code is run here and there; a processor finds far more of it by large pages.
  c.madvise(address, BigInt(size), MADV_HUGEPAGE);
  const fd = c.memfd_create('machine code', MFD_CLOEXEC);
  try {
    writeSync(fd, callLibrary(Number(address)));
    const { lib, functions } = ffi.dlopen(uniquePath(fd, Number(address)), { call: { arguments: [], return: 'i32' } });
    return {
      address: Number(address),
      bytes: new Uint8Array(ffi.toArrayBuffer(address, size, false)),
      addressOf: (memory) => ffi.getRawPointer(memory as ArrayBuffer),
      call: functions.call,
      release: () => {
        lib.close();
        unmap();
      },
    };
  } catch (error) {
    unmap();
    throw error;
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

/** A library of the same name is not loaded again: the name of this one has the address in it, a detour for each bit. */
function uniquePath(fd: number, address: number): string {
  const detours = [...address.toString(2)].map((digit) => (digit === '1' ? './' : '/'));
  return `/proc/self/fd/${detours.join('')}${fd}`;
}

// The library: ELF-64, one segment with all of it, one function, `call`.

const EHDR = 64;
const PHDR = 56;
const SYM = 24;
const DYN = 16;
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const STRINGS = '\0call\0';

/** mov eax, address; jmp rax */
const callCode = (address: number): number[] => [0xb8, ...[0, 8, 16, 24].map((shift) => (address >>> shift) & 255), 0xff, 0xe0];

/** @param address of what `call` calls  @returns the file; System V gABI, chapters 4 and 5, and its AMD64 supplement */
function callLibrary(address: number): Uint8Array {
  const text = callCode(address);
  const symbols = EHDR + 2 * PHDR;
  const strings = symbols + 2 * SYM;
  const hash = strings + 8;
  const dynamic = hash + 24;
  const code = dynamic + 6 * DYN;
  const end = code + text.length;
  const view = new DataView(new ArrayBuffer(end));
  const bytes = new Uint8Array(view.buffer);
  const u16 = (at: number, value: number): void => view.setUint16(at, value, true);
  const u32 = (at: number, value: number): void => view.setUint32(at, value, true);
  const u64 = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  u16(16, 3); // a shared object
  u16(18, 62); // for x86-64
  u32(20, 1);
  u64(32, EHDR);
  u16(52, EHDR);
  u16(54, PHDR);
  u16(56, 2);
  const segment = (at: number, type: number, flags: number, offset: number, size: number): void => {
    u32(at, type);
    u32(at + 4, flags);
    for (const field of [8, 16, 24]) u64(at + field, offset);
    for (const field of [32, 40]) u64(at + field, size);
    u64(at + 48, type === PT_LOAD ? 4096 : 8);
  };
  segment(EHDR, PT_LOAD, 5, 0, end); // readable and executable
  segment(EHDR + PHDR, PT_DYNAMIC, 4, dynamic, 6 * DYN);
  u32(symbols + SYM, 1);
  bytes[symbols + SYM + 4] = 0x12; // a global function
  u16(symbols + SYM + 6, 1);
  u64(symbols + SYM + 8, code);
  u64(symbols + SYM + 16, text.length);
  bytes.set(new TextEncoder().encode(STRINGS), strings);
  // One bucket, which names symbol 1.
  [1, 2, 1, 0, 0].forEach((word, i) => u32(hash + 4 * i, word));
  // Their hash table, strings and symbols, and the sizes of these.
  const entries = [
    [4, hash],
    [5, strings],
    [6, symbols],
    [10, STRINGS.length],
    [11, SYM],
    [0, 0],
  ] as const;
  entries.forEach(([tag, value], i) => {
    u64(dynamic + i * DYN, tag);
    u64(dynamic + i * DYN + 8, value);
  });
  bytes.set(text, code);
  return bytes;
}

/**
 * Memory that holds machine code, and a way to call it: where Node.js can call functions of libraries
 * (node:ffi), a library made on the spot, a few hundred bytes, leads into the code.
 */
import { closeSync, readFileSync, writeSync } from 'node:fs';
import type { MachineCode } from '../host.ts';

const PROT_ALL = 7;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const MAP_32BIT = 0x40;
const MFD_CLOEXEC = 1;

/**
 * @param size bytes
 * @returns null where the host has no such memory, or nothing that could call into it
 */
export function mapMachineCode(size: number): MachineCode | null {
  if (process.platform !== 'linux' || process.arch !== 'x64') return null;
  try {
    if (!hasLevel2()) return null;
    const ffi = process.getBuiltinModule('node:ffi');
    const c = ffi.dlopen(null, {
      mmap: { arguments: ['u64', 'u64', 'i32', 'i32', 'i32', 'i64'], return: 'i64' },
      munmap: { arguments: ['u64', 'u64'], return: 'i32' },
      memfd_create: { arguments: ['string', 'u32'], return: 'i32' },
    }).functions as unknown as {
      mmap(at: bigint, length: bigint, protection: number, flags: number, fd: number, offset: bigint): bigint;
      munmap(at: bigint, length: bigint): number;
      memfd_create(name: string, flags: number): number;
    };
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT;
    const address = c.mmap(0n, BigInt(size), PROT_ALL, flags, -1, 0n);
    if (address === -1n) return null;
    const fd = c.memfd_create('machine code', MFD_CLOEXEC);
    if (fd < 0) return null;
    writeSync(fd, callLibrary(Number(address)));
    const { call } = ffi.dlopen(uniquePath(fd, Number(address)), { call: { arguments: [], return: 'i32' } }).functions;
    closeSync(fd);
    return {
      address: Number(address),
      bytes: new Uint8Array(ffi.toArrayBuffer(address, size, false)),
      addressOf: (memory) => ffi.getRawPointer(memory as ArrayBuffer),
      call: call as unknown as MachineCode['call'],
      release: () => void c.munmap(address, BigInt(size)),
    };
  } catch {
    return null;
  }
}

/** Has the processor what the code may use, x86-64-v2? */
function hasLevel2(): boolean {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'latin1'))?.[1]?.split(' '));
  return ['popcnt', 'ssse3', 'sse4_1', 'sse4_2'].every((flag) => flags.has(flag));
}

/**
 * A library of the same name is not loaded again: the name of this one has the address in it, a detour for each bit. Should
 * an address come again, its library does for that, too.
 */
function uniquePath(fd: number, address: number): string {
  const detours = [...address.toString(2)].map((digit) => (digit === '1' ? './' : '/'));
  return `/proc/self/fd/${detours.join('')}${fd}`;
}

// The library: ELF-64, one segment with all of it, one function, `call`.

const EHDR = 64;
const PHDR = 56;
const SYM = 24;
const DYN = 16;

/** mov eax, address; jmp rax */
const callCode = (address: number): number[] => [0xb8, ...[0, 8, 16, 24].map((shift) => (address >>> shift) & 255), 0xff, 0xe0];
const STRINGS = '\0call\0';

/** System V gABI, chapters 4 and 5; AMD64 supplement. */
function callLibrary(address: number): Uint8Array {
  const text = callCode(address);
  const headers = EHDR + 2 * PHDR;
  const symbols = headers;
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
    u64(at + 48, type === 1 ? 4096 : 8);
  };
  segment(EHDR, 1, 5, 0, end); // PT_LOAD, readable and executable
  segment(EHDR + PHDR, 2, 4, dynamic, 6 * DYN); // PT_DYNAMIC
  u32(symbols + SYM, 1);
  bytes[symbols + SYM + 4] = 0x12; // a global function
  u16(symbols + SYM + 6, 1);
  u64(symbols + SYM + 8, code);
  u64(symbols + SYM + 16, text.length);
  [...STRINGS].forEach((character, i) => {
    bytes[strings + i] = character.charCodeAt(0);
  });
  // One bucket, which names symbol 1.
  [1, 2, 1, 0, 0].forEach((word, i) => u32(hash + 4 * i, word));
  const entries = [
    [4, hash],
    [5, strings],
    [6, symbols],
    [10, STRINGS.length],
    [11, SYM],
    [0, 0],
  ];
  entries.forEach(([tag, value], i) => {
    u64(dynamic + i * DYN, tag!);
    u64(dynamic + i * DYN + 8, value!);
  });
  bytes.set(text, code);
  return bytes;
}

/** The C library's functions that Node.js has no words for. */

type Functions = {
  socket(family: number, type: number, protocol: number): number;
  ioctl(fd: number, request: bigint, argument: Uint8Array): number;
  poll(fds: Uint8Array, count: bigint, timeout: number): number;
};

const SIGNATURES = {
  socket: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
  ioctl: { arguments: ['i32', 'u64', 'buffer'], return: 'i32' },
  poll: { arguments: ['buffer', 'u64', 'i32'], return: 'i32' },
} as const;

let loaded: Functions | null | undefined;

/** @returns null where they cannot be had */
export function library(): Functions | null {
  if (loaded !== undefined) return loaded;
  try {
    const { dlopen } = process.getBuiltinModule('node:ffi');
    loaded = dlopen('libc.so.6', SIGNATURES).functions as unknown as Functions;
  } catch {
    loaded = null;
  }
  return loaded;
}

type IoctlValue = (fd: number, request: bigint, value: bigint) => number;
let valued: IoctlValue | null = null;

/** ioctl(2) with a number instead of a place in memory. @returns -1 where there is none, or on failure */
export function ioctlValue(fd: number, request: bigint, value: number): number {
  if (library() === null) return -1;
  valued ??= process
    .getBuiltinModule('node:ffi')
    .dlopen('libc.so.6', { ioctl: { arguments: ['i32', 'u64', 'u64'], return: 'i32' } }).functions.ioctl as IoctlValue;
  return valued(fd, request, BigInt(value));
}

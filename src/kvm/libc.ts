/**
 * System calls that Node.js has no words for, by node:ffi. Results are as the kernel gives them: negative is
 * the negated error number, and nothing throws but `demand`.
 */
import { getSystemErrorName } from 'node:util';

/** Where ordinary errors come from: what was called, and what the system said. */
export class SystemCallError extends Error {
  /** As in errno.h, e.g. EACCES. */
  readonly code: string;
  readonly errno: number;

  constructor(call: string, errno: number) {
    const code = errorName(errno);
    super(`${call}: ${code}`);
    this.name = 'SystemCallError';
    this.code = code;
    this.errno = errno;
  }
}

function errorName(errno: number): string {
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `error ${errno}`;
  }
}

/**
 * @param result of one of the functions below
 * @param call its name, for the error
 * @throws SystemCallError
 */
export function demand(result: number, call: string): number {
  if (result < 0) throw new SystemCallError(call, -result);
  return result;
}

export const EINTR = 4;
export const EAGAIN = 11;
export const ENOENT = 2;
export const ENXIO = 6;
export const E2BIG = 7;
export const EACCES = 13;
export const EBUSY = 16;
export const ENODEV = 19;
export const EINVAL = 22;
export const ENOSYS = 38;

export const PAGE_SIZE = 4096;
const O_RDWR = 2;
const O_CLOEXEC = 0x8_0000;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const EFD_CLOEXEC = 0x8_0000;
const EFD_NONBLOCK = 0x800;
const SIG_BLOCK = 0;
const CLOCK_MONOTONIC = 1;
const SIGEV_THREAD_ID = 4;
/**
 * struct sigevent:
 *     0  value      8  signal      12  how to notify      16  thread
 */
const SIGEVENT_SIZE = 64;
/** Bytes of a signal set: sigset_t of the C library (the kernel's has eight). */
const SIGSET_SIZE = 128;
const NANOSECONDS = 1_000_000_000;

/** struct pollfd: int fd, short events, short revents. */
export const POLLFD_SIZE = 8;
export const POLLIN = 1;
export const MADV_DONTNEED = 4;
export const MADV_HUGEPAGE = 14;

/** System calls that not every C library has a function for, by architecture. */
const SYSCALL_NUMBERS: Readonly<Record<string, { readonly gettid: bigint; readonly tgkill: bigint }>> = {
  x64: { gettid: 186n, tgkill: 234n },
  arm64: { gettid: 178n, tgkill: 131n },
};

export interface Libc {
  /** Opens for reading and writing, closed on exec. */
  open(path: string): number;
  close(fd: number): number;
  /** Has `to` be another number of `fd`'s file, whatever it was before; closed on exec. */
  dup(fd: number, to: number): number;
  /** ioctl(2) with a number, or an address as a bigint. */
  ioctl(fd: number, request: bigint, value: bigint): number;
  /** ioctl(2) with a structure in memory. */
  ioctlBytes(fd: number, request: bigint, bytes: Uint8Array): number;
  /** Address of what a typed array shows. It stays valid as long as the array's buffer is not moved: use shared or outside memory. */
  addressOf(bytes: Uint8Array): bigint;
  /**
   * Maps a file, shared, readable and writable.
   * @param at where to put it, in place of what is mapped there; null for anywhere
   * @returns its address, or the negated error
   */
  mapFile(fd: number, length: number, at: bigint | null): bigint;
  /** Puts memory of nobody else's in place of whatever is mapped at an address. @returns 0n, or the negated error */
  mapAnonymous(at: bigint, length: number): bigint;
  unmap(address: bigint, length: number): number;
  /** Mapped memory as an array. It must not be used after the mapping has gone. */
  view(address: bigint, length: number): Uint8Array<ArrayBuffer>;
  advise(address: bigint, length: number, advice: number): number;
  /** A counter that does not block. */
  eventfd(): number;
  read(fd: number, into: Uint8Array): number;
  write(fd: number, from: Uint8Array): number;
  /**
   * @param fds struct pollfd, one after the other
   * @param seconds to wait at most; negative for as long as it takes
   */
  poll(fds: Uint8Array, count: number, seconds: number): number;
  /** The calling thread's number. */
  gettid(): number;
  tgkill(tid: number, signal: number): number;
  /** Keeps a signal of the calling thread waiting. */
  blockSignal(signal: number): number;
  /** Signals that the calling thread keeps waiting: bit n - 1 is signal n. */
  blockedSignals(): bigint;
  /** Takes a waiting signal, if there is one. @returns its number, or -EAGAIN */
  takeSignal(signal: number): number;
  /** A timer that sends a signal to the calling thread. @returns its handle, or the negated error */
  createTimer(signal: number): bigint;
  /**
   * Starts it anew, so many milliseconds from now; fractions count, and 0 stops it.
   * @param again whether it goes off again and again
   */
  setTimer(timer: bigint, milliseconds: number, again?: boolean): number;
  deleteTimer(timer: bigint): number;
  /** File whose readiness says that the calling thread's event loop has something to do. */
  loopDescriptor(): number;
  /** Milliseconds that the calling thread's event loop would sleep at most; 0 when it has work, -1 for ever. */
  loopTimeout(): number;
}

type Ffi = typeof import('node:ffi');

/** Names resolve in the process itself, so that neither a library's name nor its path matters. */
function functionsOf(ffi: Ffi) {
  const main = ffi.dlopen(null, {
    open: { arguments: ['string', 'i32', 'i32'], return: 'i32' },
    close: { arguments: ['i32'], return: 'i32' },
    dup3: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
    ioctl: { arguments: ['i32', 'u64', 'u64'], return: 'i32' },
    mmap: { arguments: ['u64', 'u64', 'i32', 'i32', 'i32', 'i64'], return: 'i64' },
    munmap: { arguments: ['u64', 'u64'], return: 'i32' },
    madvise: { arguments: ['u64', 'u64', 'i32'], return: 'i32' },
    eventfd: { arguments: ['u32', 'i32'], return: 'i32' },
    read: { arguments: ['i32', 'buffer', 'u64'], return: 'i64' },
    write: { arguments: ['i32', 'buffer', 'u64'], return: 'i64' },
    ppoll: { arguments: ['buffer', 'u64', 'buffer', 'u64'], return: 'i32' },
    getpid: { arguments: [], return: 'i32' },
    syscall: { arguments: ['i64', 'i64', 'i64', 'i64'], return: 'i64' },
    pthread_sigmask: { arguments: ['i32', 'buffer', 'buffer'], return: 'i32' },
    sigtimedwait: { arguments: ['buffer', 'u64', 'buffer'], return: 'i32' },
    __errno_location: { arguments: [], return: 'u64' },
    uv_backend_fd: { arguments: ['u64'], return: 'i32' },
    uv_backend_timeout: { arguments: ['u64'], return: 'i32' },
  }).functions;
  // The same function once more needs a library of its own.
  const { ioctl } = ffi.dlopen(null, { ioctl: { arguments: ['i32', 'u64', 'buffer'], return: 'i32' } }).functions;
  return { ...main, ...timersOf(ffi), ioctlBytes: ioctl };
}

function timersOf(ffi: Ffi) {
  const signatures = {
    timer_create: { arguments: ['i32', 'buffer', 'buffer'], return: 'i32' },
    timer_settime: { arguments: ['u64', 'i32', 'buffer', 'u64'], return: 'i32' },
    timer_delete: { arguments: ['u64'], return: 'i32' },
  } as const;
  try {
    return ffi.dlopen(null, signatures).functions;
  } catch {
    // glibc before 2.34 has them in a library that Node.js does not load.
    return ffi.dlopen('librt.so.1', signatures).functions;
  }
}

let loaded: Libc | null = null;

/** @throws Error, one line, where functions of the system cannot be called */
export function loadLibc(): Libc {
  return (loaded ??= makeLibc());
}

function makeLibc(): Libc {
  const numbers = process.platform === 'linux' ? SYSCALL_NUMBERS[process.arch] : undefined;
  if (numbers === undefined) throw new Error(`KVM is a part of Linux, not of ${process.platform} on ${process.arch}`);
  let ffi: Ffi;
  let c: ReturnType<typeof functionsOf>;
  try {
    ffi = process.getBuiltinModule('node:ffi');
    c = functionsOf(ffi);
  } catch {
    throw new Error(
      `this Node.js (${process.version}) cannot call functions of the system (node:ffi): use version 26 or newer, without ` +
        '--no-experimental-ffi, and with --allow-ffi beside --permission',
    );
  }
  // Both belong to the calling thread, as does this module's state.
  const errno = c.__errno_location();
  const loop = ffi.getCurrentEventLoop();
  const pid = BigInt(c.getpid());
  const signals = new Uint8Array(new ArrayBuffer(SIGSET_SIZE));
  const none = new Uint8Array(new ArrayBuffer(SIGSET_SIZE));
  const timespec = new Uint8Array(new ArrayBuffer(16));
  const time = new BigInt64Array(timespec.buffer);
  // struct itimerspec: the period, then the time, in seconds and nanoseconds.
  const timerTime = new BigInt64Array(4);
  const timerBytes = new Uint8Array(timerTime.buffer);
  const result = (value: number): number => (value === -1 ? -ffi.getInt32(errno) : value);
  const long = (value: bigint): number => result(Number(value));
  const address = (value: bigint): bigint => (value === -1n ? BigInt(-ffi.getInt32(errno)) : value);
  const only = (signal: number): Uint8Array => {
    signals.fill(0);
    signals[(signal - 1) >> 3] = 1 << ((signal - 1) & 7);
    return signals;
  };
  const setTime = (seconds: number): Uint8Array => {
    const whole = Math.floor(seconds);
    time[0] = BigInt(whole);
    time[1] = BigInt(Math.floor((seconds - whole) * NANOSECONDS));
    return timespec;
  };
  return {
    open: (path) => result(c.open(path, O_RDWR | O_CLOEXEC, 0)),
    close: (fd) => result(c.close(fd)),
    dup: (fd, to) => result(c.dup3(fd, to, O_CLOEXEC)),
    ioctl: (fd, request, value) => result(c.ioctl(fd, request, value)),
    ioctlBytes: (fd, request, bytes) => result(c.ioctlBytes(fd, request, bytes)),
    addressOf: (bytes) => ffi.getRawPointer(bytes),
    mapFile: (fd, length, at) =>
      address(c.mmap(at ?? 0n, BigInt(length), PROT_READ_WRITE, MAP_SHARED | (at === null ? 0 : MAP_FIXED), fd, 0n)),
    mapAnonymous: (at, length) => {
      const mapped = address(c.mmap(at, BigInt(length), PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0n));
      return mapped < 0n ? mapped : 0n;
    },
    unmap: (at, length) => result(c.munmap(at, BigInt(length))),
    view: (at, length) => new Uint8Array(ffi.toArrayBuffer(at, length, false)),
    advise: (at, length, advice) => result(c.madvise(at, BigInt(length), advice)),
    eventfd: () => result(c.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
    read: (fd, into) => long(c.read(fd, into, BigInt(into.length))),
    write: (fd, from) => long(c.write(fd, from, BigInt(from.length))),
    poll: (fds, count, seconds) => result(c.ppoll(fds, BigInt(count), seconds < 0 ? null : setTime(seconds), 0n)),
    gettid: () => long(c.syscall(numbers.gettid, 0n, 0n, 0n)),
    tgkill: (tid, signal) => long(c.syscall(numbers.tgkill, pid, BigInt(tid), BigInt(signal))),
    blockSignal: (signal) => 0 - c.pthread_sigmask(SIG_BLOCK, only(signal), null),
    blockedSignals: () => {
      signals.fill(0);
      c.pthread_sigmask(SIG_BLOCK, none, signals);
      return new BigUint64Array(signals.buffer)[0]!;
    },
    takeSignal: (signal) => result(c.sigtimedwait(only(signal), 0n, setTime(0))),
    createTimer: (signal) => {
      const event = new DataView(new ArrayBuffer(SIGEVENT_SIZE));
      event.setInt32(8, signal, true);
      event.setInt32(12, SIGEV_THREAD_ID, true);
      event.setInt32(16, Number(c.syscall(numbers.gettid, 0n, 0n, 0n)), true);
      const handle = new BigUint64Array(1);
      const made = result(c.timer_create(CLOCK_MONOTONIC, new Uint8Array(event.buffer), new Uint8Array(handle.buffer)));
      return made < 0 ? BigInt(made) : handle[0]!;
    },
    setTimer: (timer, milliseconds, again = false) => {
      const seconds = Math.floor(milliseconds / 1000);
      timerTime[2] = BigInt(seconds);
      timerTime[3] = BigInt(Math.floor((milliseconds - 1000 * seconds) * 1e6));
      timerTime[0] = again ? timerTime[2] : 0n;
      timerTime[1] = again ? timerTime[3] : 0n;
      return result(c.timer_settime(timer, 0, timerBytes, 0n));
    },
    deleteTimer: (timer) => result(c.timer_delete(timer)),
    loopDescriptor: () => c.uv_backend_fd(loop),
    loopTimeout: () => c.uv_backend_timeout(loop),
  };
}

/** What the C library can do with files and Node.js does not offer: holes, preallocation, locks. */
import { endianness } from 'node:os';
import type { Pieces } from '../pieces.ts';

const RWF_NOWAIT = 8;
/** Most places of one transfer (limits.h). */
const IOV_MAX = 1024;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
/**
 * struct flock of 64-bit Linux:
 *   0 l_type (16 bits)  2 l_whence (16)  8 l_start (64)  16 l_len (64)  24 l_pid (32), which must be 0
 */
const FLOCK_SIZE = 32;
/** QEMU's bytes: one for each right that is in use, one for each that others must not have. */
const IN_USE = 100;
const NOT_SHARED = 200;
const RIGHTS = 4;

export interface FileCalls {
  /** Reads what is in the host's memory already. @returns bytes read, negative where it is not or the host cannot say */
  readCached(fd: number, into: Uint8Array, offset: number): number;
  /** The same into many places, no more than a system call takes (IOV_MAX). */
  readCachedPieces(fd: number, into: Pieces, offset: number): number;
  /** Writes from many places, no more than a system call takes. @returns bytes written, negative for an error or too many */
  writePieces(fd: number, from: Pieces, offset: number): number;
  lseek(fd: number, offset: bigint, whence: number): bigint;
  fallocate(fd: number, mode: number, offset: bigint, length: bigint): number;
  /** Of the last call that failed. */
  errno(): number;
  /** See `BlockFile.lock`. */
  lock(fd: number, held: number, unshared: number): { shared: boolean; bit: number } | null;
}

let known: Promise<FileCalls | null> | undefined;

/** @returns null where the host has no such functions */
export function fileCalls(): Promise<FileCalls | null> {
  known ??= load();
  return known;
}

async function load(): Promise<FileCalls | null> {
  if (process.platform !== 'linux' || endianness() !== 'LE') return null;
  try {
    const { dlopen, getInt32, getRawPointer } = process.getBuiltinModule('node:ffi');
    const c = dlopen('libc.so.6', {
      lseek: { arguments: ['i32', 'i64', 'i32'], return: 'i64' },
      fallocate: { arguments: ['i32', 'i32', 'i64', 'i64'], return: 'i32' },
      fcntl: { arguments: ['i32', 'i32', 'buffer'], return: 'i32' },
      pwritev: { arguments: ['i32', 'buffer', 'i32', 'i64'], return: 'i64' },
      preadv2: { arguments: ['i32', 'buffer', 'i32', 'i64', 'i32'], return: 'i64' },
      __errno_location: { arguments: [], return: 'pointer' },
    }).functions;
    // struct iovec: address, length; by halves, since addresses of programs are exact in a number.
    const vector = new Uint32Array(4 * IOV_MAX);
    const pointers = new WeakMap<object, number>();
    const addressOf = ({ buffer, byteOffset }: Uint8Array): number => {
      let base = pointers.get(buffer);
      if (base === undefined) {
        base = Number(getRawPointer(buffer as ArrayBuffer));
        pointers.set(buffer, base);
      }
      return base + byteOffset;
    };
    const put = (index: number, address: number, length: number): void => {
      vector[4 * index] = address;
      vector[4 * index + 1] = address / 2 ** 32;
      vector[4 * index + 2] = length;
      vector[4 * index + 3] = length / 2 ** 32;
    };
    const putAll = ({ memory, offsets, lengths, count }: Pieces): boolean => {
      if (count > IOV_MAX) return false;
      const base = addressOf(memory);
      for (let i = 0; i < count; i++) put(i, base + offsets[i]!, lengths[i]!);
      return true;
    };
    return {
      readCached: (fd, into, offset) => {
        put(0, addressOf(into), into.length);
        return Number(c.preadv2(fd, vector, 1, BigInt(offset), RWF_NOWAIT));
      },
      readCachedPieces: (fd, into, offset) => {
        if (!putAll(into)) return -1;
        return Number(c.preadv2(fd, vector, into.count, BigInt(offset), RWF_NOWAIT));
      },
      writePieces: (fd, from, offset) => {
        if (!putAll(from)) return -1;
        return Number(c.pwritev(fd, vector, from.count, BigInt(offset)));
      },
      lseek: c.lseek,
      fallocate: c.fallocate,
      errno: () => getInt32(c.__errno_location()),
      lock: (fd, held, unshared) => lock(c.fcntl, fd, held, unshared),
    };
  } catch {
    return null;
  }
}

type Fcntl = (fd: number, command: number, flock: Uint8Array) => number;

function request(type: number, byte: number): DataView {
  const view = new DataView(new ArrayBuffer(FLOCK_SIZE));
  view.setInt16(0, type, true);
  view.setBigInt64(8, BigInt(byte), true);
  view.setBigInt64(16, 1n, true);
  return view;
}

const bytesOf = (view: DataView): Uint8Array => new Uint8Array(view.buffer);

function lock(fcntl: Fcntl, fd: number, held: number, unshared: number): { shared: boolean; bit: number } | null {
  const set = (byte: number, on: boolean): void => {
    // A file system without such locks has none to respect.
    fcntl(fd, F_OFD_SETLK, bytesOf(request(on ? F_RDLCK : F_UNLCK, byte)));
  };
  const taken = (byte: number): boolean => {
    const probe = request(F_WRLCK, byte);
    return fcntl(fd, F_OFD_GETLK, bytesOf(probe)) === 0 && probe.getInt16(0, true) !== F_UNLCK;
  };
  for (let bit = 0; bit < RIGHTS; bit++) {
    set(IN_USE + bit, ((held >> bit) & 1) === 1);
    set(NOT_SHARED + bit, ((unshared >> bit) & 1) === 1);
  }
  for (let bit = 0; bit < RIGHTS; bit++) {
    if ((held >> bit) & 1 && taken(NOT_SHARED + bit)) return { shared: false, bit };
    if ((unshared >> bit) & 1 && taken(IN_USE + bit)) return { shared: true, bit };
  }
  return null;
}

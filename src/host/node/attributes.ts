/** Extended attributes of files, for which Node.js has no calls. */
import { constants } from 'node:os';
import { TreeError } from '../file-tree.ts';

type Calls = {
  lgetxattr(path: Uint8Array, name: Uint8Array, value: Uint8Array, size: bigint): bigint;
  lsetxattr(path: Uint8Array, name: Uint8Array, value: Uint8Array, size: bigint, flags: number): number;
  errno(): number;
};

let known: Calls | null | undefined;

function calls(): Calls | null {
  known ??= load();
  return known;
}

function load(): Calls | null {
  if (process.platform !== 'linux') return null;
  try {
    const { dlopen, getInt32 } = process.getBuiltinModule('node:ffi');
    const c = dlopen('libc.so.6', {
      lgetxattr: { arguments: ['buffer', 'buffer', 'buffer', 'u64'], return: 'i64' },
      lsetxattr: { arguments: ['buffer', 'buffer', 'buffer', 'u64', 'i32'], return: 'i32' },
      __errno_location: { arguments: [], return: 'pointer' },
    }).functions;
    return { ...(c as unknown as Omit<Calls, 'errno'>), errno: () => getInt32(c.__errno_location()) };
  } catch {
    return null;
  }
}

/** The host has such calls. */
export const hasAttributes = (): boolean => calls() !== null;

const text = (value: string | Buffer): Buffer => Buffer.concat([Buffer.from(value as string), Buffer.of(0)]);

/** @param path of the file itself, also when it is a link @param most bytes @returns null when it has no such attribute */
export function getAttribute(path: Buffer, name: string, most: number): Uint8Array | null {
  const c = calls()!;
  const value = new Uint8Array(most);
  const length = Number(c.lgetxattr(text(path), text(name), value, BigInt(most)));
  if (length >= 0) return value.subarray(0, length);
  const { ENODATA, ERANGE, EOPNOTSUPP } = constants.errno;
  const errno = c.errno();
  // What is too long is not what was asked for; a file system without attributes has none.
  if (errno === ENODATA || errno === ERANGE || errno === EOPNOTSUPP) return null;
  throw named(errno);
}

export function setAttribute(path: Buffer, name: string, value: Uint8Array): void {
  const c = calls()!;
  if (c.lsetxattr(text(path), text(name), value, BigInt(value.length), 0) !== 0) throw named(c.errno());
}

function named(errno: number): TreeError {
  return new TreeError(Object.entries(constants.errno).find(([, number]) => number === errno)?.[0] ?? 'EIO');
}

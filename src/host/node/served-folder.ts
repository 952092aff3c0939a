/** A folder whose files are handed out to others. */
import { closeSync, constants, fstatSync, openSync, readSync, realpathSync } from 'node:fs';
import { join, sep } from 'node:path';
import type { ServedFolder } from '../network.ts';
import { describeError } from './errors.ts';

/** @throws Error, one line, when there is no such folder */
export function serveFolder(path: string): ServedFolder {
  let root: string;
  try {
    root = realpathSync(path);
  } catch (error) {
    throw new Error(describeError(error));
  }
  return {
    open: (name) => {
      // Whether something is there, outside, is nobody's business either.
      const path = join(root, name);
      if (!isBelow(path, root)) throw new Error('not below the folder');
      let real: string;
      try {
        // Links are followed: where they lead decides.
        real = realpathSync(path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
        throw new Error(describeError(error));
      }
      if (!isBelow(real, root)) throw new Error('not below the folder');
      return openRegular(real);
    },
  };
}

const isBelow = (path: string, root: string): boolean => path.startsWith(root.endsWith(sep) ? root : `${root}${sep}`);

function openRegular(path: string) {
  let fd: number;
  try {
    // A pipe must not hold the machine up, nor a link that has just been put there lead elsewhere.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch (error) {
    throw new Error(describeError(error));
  }
  const status = fstatSync(fd);
  if (!status.isFile()) {
    closeSync(fd);
    throw new Error('not a regular file');
  }
  return {
    size: status.size,
    read: (offset: number, into: Uint8Array): number => readSync(fd, into, 0, into.length, offset),
    close: () => closeSync(fd),
  };
}

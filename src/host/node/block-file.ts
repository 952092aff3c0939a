/** Files that are read and written in place. */
import { closeSync, constants, fdatasync, fdatasyncSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { promisify } from 'node:util';
import type { BlockFile } from '../host.ts';
import { describeError } from './errors.ts';

const sync = promisify(fdatasync);

/** @throws Error, one line, when the file cannot be had that way */
export function openBlockFile(path: string, writable: boolean): BlockFile {
  let fd: number;
  try {
    fd = openSync(path, writable ? constants.O_RDWR : constants.O_RDONLY);
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
    read: (offset, into) => {
      let done = 0;
      while (done < into.length) {
        const count = readSync(fd, into, done, into.length - done, offset + done);
        if (count === 0) break;
        done += count;
      }
      return done;
    },
    write: (offset, from) => {
      for (let done = 0; done < from.length; ) {
        done += writeSync(fd, from, done, from.length - done, offset + done);
      }
    },
    sync: () => sync(fd),
    syncNow: () => fdatasyncSync(fd),
    close: () => closeSync(fd),
  };
}

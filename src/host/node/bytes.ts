/** Node.js's buffers and files as bytes that everybody else knows. */
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';

/** Node.js reads less than 2 GiB at a time. */
const READ_MOST = 2 ** 30;

/** The same bytes; of a Buffer, `slice` would not be a copy. */
export const plainBytes = (data: Buffer): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.length);

/**
 * @returns what is in a file, in memory that is shared with other threads where the file says how long it is
 * @throws as Node.js does when it cannot be read
 */
export function readShared(path: string): Uint8Array {
  const fd = openSync(path, 'r');
  try {
    const { size } = fstatSync(fd);
    // Pipes and what the kernel makes when it is read do not say how much there is.
    if (size === 0) return plainBytes(readFileSync(fd));
    const bytes = new Uint8Array(new SharedArrayBuffer(size));
    let done = 0;
    for (let count = -1; done < size && count !== 0; done += count) {
      count = readSync(fd, bytes, done, Math.min(size - done, READ_MOST), done);
    }
    return done === size ? bytes : bytes.subarray(0, done);
  } finally {
    closeSync(fd);
  }
}

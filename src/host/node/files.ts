/** Files as character streams. */
import { closeSync, openSync, write } from 'node:fs';
import { promisify } from 'node:util';
import type { Channel } from '../host.ts';
import { describeError } from './errors.ts';

const writeTo = promisify(write);

/** Output goes to the file, which starts empty; no input comes. */
export function openFile(path: string): Channel {
  let fd: number;
  try {
    fd = openSync(path, 'w');
  } catch (error) {
    throw new Error(describeError(error));
  }
  return {
    readable: new ReadableStream({ start: (controller) => controller.close() }),
    writable: new WritableStream({
      write: async (data: Uint8Array) => {
        for (let at = 0; at < data.length; ) {
          at += (await writeTo(fd, data, at, data.length - at)).bytesWritten;
        }
      },
    }),
    close: () => closeSync(fd),
  };
}

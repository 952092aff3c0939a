/** Sockets, processes and interfaces of the host for networks of machines. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { HostNetwork } from '../network.ts';
import { openDatagrams, openPing } from './datagrams.ts';
import { describeError } from './errors.ts';
import { resolvers } from './resolvers.ts';
import { serveFolder } from './served-folder.ts';
import { commandStream, connectStream, listenStream } from './streams.ts';
import { openTap } from './tap.ts';

function appendFile(path: string): { write(data: Uint8Array): void; close(): void } {
  let fd: number;
  try {
    fd = openSync(path, 'w');
  } catch (error) {
    throw new Error(describeError(error));
  }
  return {
    write: (data) => {
      for (let done = 0; done < data.length; ) done += writeSync(fd, data, done, data.length - done);
    },
    close: () => closeSync(fd),
  };
}

export const network: HostNetwork = {
  connect: connectStream,
  listen: listenStream,
  datagrams: openDatagrams,
  ping: openPing,
  resolvers,
  command: commandStream,
  folder: serveFolder,
  tap: openTap,
  appendFile,
};

/** The host as a web page offers it. */
import type { Channel } from '../host.ts';


function missing(what: string): never {
  throw new Error(`${what} are not available in a web page`);
}

export const openFile = (_path: string): Channel => missing('files');
export const openPty = (): Promise<{ channel: Channel; name: string }> =>
  missing('pseudo-terminals');
export const openSocket = (): Promise<Channel> => missing('sockets');
export const openStdio = (): Channel => missing('terminals');

/** The host as a web page offers it. */
import type { FileTree } from '../file-tree.ts';
import type { HostNetwork } from '../network.ts';
import type { Channel } from '../host.ts';

function missing(what: string): never {
  throw new Error(`${what} are not available in a web page`);
}

export const openFile = (_path: string): Channel => missing('files');
export const openPty = (): Promise<{ channel: Channel; name: string }> => missing('pseudo-terminals');
export const openSocket = (): Promise<Channel> => missing('sockets');
export const openStdio = (): Channel => missing('terminals');
/** Whoever makes a machine in a page brings its firmware along. */
export const findFirmware = (_name: string, _folders?: readonly string[]): { name: string; data: Uint8Array } | null => null;

export const network: HostNetwork = {
  connect: () => missing('sockets'),
  listen: () => missing('sockets'),
  datagrams: () => missing('sockets'),
  ping: () => null,
  resolvers: () => [],
  command: () => missing('processes'),
  folder: () => missing('folders'),
  tap: () => missing('TAP interfaces'),
  appendFile: () => missing('files'),
};
/** A page has no way to give memory back. */
export const preferLargePages = (_memory: Uint8Array, _offset: number, _length: number): void => undefined;
/** Nor one to run code of its processor. */
export const mapMachineCode = (_size: number): null => null;
export const releasePages = (_memory: Uint8Array, _offset: number, _length: number): void => undefined;
export const openFileTree = (_path: string, _readOnly: boolean): FileTree => missing('folders');

/** Nothing is made before here. */
export const readBuilt = (_name: string): Uint8Array<ArrayBuffer> | null => null;

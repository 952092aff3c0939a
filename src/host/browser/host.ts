/** The host as a web page offers it. */
import type { FileTree } from '../file-tree.ts';
import type { HostNetwork } from '../network.ts';
import type { BlockFile, BlockFileMode, ByteStream, Channel, SectorCipher, StreamAddress } from '../host.ts';

function missing(what: string): never {
  throw new Error(`${what} are not available in a web page`);
}

export const openFile = (_path: string): Channel => missing('files');
export const openPty = (): Promise<{ channel: Channel; name: string }> => missing('pseudo-terminals');
export const openSocket = (): Promise<Channel> => missing('sockets');
export const openStdio = (): Channel => missing('terminals');
export const openBlockFile = async (_path: string, _mode: BlockFileMode): Promise<BlockFile> => missing('files');
export const isBlockDevice = (_path: string): boolean => false;
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
export { deflate, deflateRaw, inflate, inflateRaw, zstdCompress, zstdDecompress } from './compression.ts';
export const digest = (_hash: string, _data: Uint8Array): Uint8Array => missing('encrypted disks');
export const pbkdf2 = (
  _hash: string,
  _password: Uint8Array,
  _salt: Uint8Array,
  _iterations: number,
  _length: number,
): Uint8Array => missing('encrypted disks');
export const sectorCipher = (_key: Uint8Array, _mode: { mode: string; iv: string }): SectorCipher => missing('encrypted disks');
export const openFileTree = (_path: string, _readOnly: boolean): FileTree => missing('folders');
export const connectStream = async (_address: StreamAddress): Promise<ByteStream> => missing('sockets');

/** A web page has no files: disks in memory and remote ones are what there is. */
import type { BlockFile, BlockFileMode } from '../host.ts';

export const openBlockFile = async (_path: string, _mode: BlockFileMode): Promise<BlockFile> => {
  throw new Error('files are not available in a web page');
};
export const openTemporaryFile = async (_immediate: boolean): Promise<BlockFile> => {
  throw new Error('files are not available in a web page');
};
export const isBlockDevice = (_path: string): boolean => false;

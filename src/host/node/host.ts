/** The host as Node.js offers it. */
export { findFirmware } from './firmware.ts';
export { openFile } from './files.ts';
export { openPty } from './pty.ts';
export { openSocket } from './sockets.ts';
export { openStdio } from './stdio.ts';
export { openBlockFile } from './block-file.ts';
export { network } from './network.ts';
export { isBlockDevice } from './paths.ts';
export { deflate, deflateRaw, inflate, inflateRaw, zstdCompress, zstdDecompress } from './compression.ts';
export { digest, pbkdf2, sectorCipher } from './crypto.ts';
export { openFileTree } from './file-tree.ts';
export { connectStream, serveStreams } from './byte-streams.ts';

/** The host as Node.js offers it. What only disks need is in modules of its own (`#host/block-file` and others). */
export { findFirmware } from './firmware.ts';
export { openFile } from './files.ts';
export { openPty } from './pty.ts';
export { openSocket } from './sockets.ts';
export { openStdio } from './stdio.ts';
export { mapMachineCode } from './machine-code.ts';
export { preferLargePages, releasePages } from './memory.ts';
export { network } from './network.ts';
export { openFileTree } from './file-tree.ts';
export { readBuilt } from './built.ts';

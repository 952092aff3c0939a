/** The host as Node.js offers it. */
export { openFile } from './files.ts';
export { openPty } from './pty.ts';
export { openSocket } from './sockets.ts';
export { openStdio } from './stdio.ts';

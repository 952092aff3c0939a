/** The host as a web page offers it. */
export { startThread, threadParent } from './threads.ts';

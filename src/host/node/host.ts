/** The host as Node.js offers it. */
export { startThread, threadParent } from './threads.ts';

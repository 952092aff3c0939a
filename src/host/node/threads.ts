/** Threads of Node.js. */
import { setFlagsFromString } from 'node:v8';
import { parentPort, type Transferable, Worker } from 'node:worker_threads';
import type { MessageEnd, Thread } from '../host.ts';

export { afterEvents } from './turns.ts';

export function startThread<Send, Receive>(entry: URL): Thread<Send, Receive> {
  // Type stripping needs no flag; a parent's inspector or test flags must not reach the machine.
  const worker = new Worker(entry, { execArgv: ['--no-warnings'] });
  return {
    post: (message, transfer) => worker.postMessage(message, transfer as Transferable[]),
    onMessage: (listener) => {
      worker.on('message', listener);
    },
    onError: (listener) => {
      worker.on('error', (error) => listener(error as Error));
    },
    detach: () => worker.unref(),
    terminate: () => {
      void worker.terminate();
    },
  };
}

/** Within a thread: the end that leads to whoever started it. */
export function threadParent<Send, Receive>(): MessageEnd<Send, Receive> {
  const port = parentPort;
  if (port === null) throw new Error('this module is the entry of a thread');
  return {
    post: (message, transfer) => port.postMessage(message, transfer as Transferable[]),
    onMessage: (listener) => {
      port.on('message', listener);
    },
  };
}

/** Lets modules say which functions are to be compiled at once (an option of the JavaScript engine, for all threads). */
export function heedCompilationHints(): void {
  setFlagsFromString('--experimental-wasm-compilation-hints');
}

/** Threads of a web page: dedicated workers. */
import type { MessageEnd, Thread } from '../host.ts';

export { afterEvents, sleepUntilEvent } from './turns.ts';

export function startThread<Send, Receive>(entry: URL): Thread<Send, Receive> {
  const worker = new Worker(entry, { type: 'module' });
  return {
    post: (message, transfer) => worker.postMessage(message, transfer as Transferable[]),
    onMessage: (listener) => {
      worker.addEventListener('message', (event: MessageEvent<Receive>) => listener(event.data));
    },
    onError: (listener) => {
      worker.addEventListener('error', (event) => listener(new Error(event.message)));
    },
    poll: () => undefined,
    detach: () => undefined,
    terminate: () => worker.terminate(),
  };
}

/** Within a thread: the end that leads to whoever started it. */
export function threadParent<Send, Receive>(): MessageEnd<Send, Receive> {
  const scope = globalThis as unknown as Worker;
  return {
    post: (message, transfer) => scope.postMessage(message, transfer as Transferable[]),
    onMessage: (listener) => {
      scope.addEventListener('message', (event: MessageEvent<Receive>) => listener(event.data));
    },
  };
}

/** A page cannot set options of its browser's engine. */
export function tuneForTranslation(): void {}

/** A page leaves it to its browser's engine when a module's functions are optimised. */
export function makeOptimised(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  return new WebAssembly.Module(bytes);
}

/** Workers have no priorities. */
export function stepBack(_steps: number): void {}

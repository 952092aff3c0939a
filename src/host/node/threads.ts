/** Threads of Node.js. */
import { writeSync } from 'node:fs';
import {
  isMainThread,
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  type Transferable,
  Worker,
  workerData,
} from 'node:worker_threads';
import type { MessageEnd, Thread } from '../host.ts';

export { afterEvents, sleepUntilEvent } from './turns.ts';

/** What a thread is given at its start. */
interface ThreadData {
  readonly port: MessagePort;
}

export function startThread<Send, Receive>(entry: URL): Thread<Send, Receive> {
  const { port1: port, port2 } = new MessageChannel();
  const worker = new Worker(entry, {
    // Type stripping needs no flag; a parent's inspector or test flags must not reach the machine.
    execArgv: ['--no-warnings'],
    workerData: { port: port2 } satisfies ThreadData,
    transferList: [port2],
    // Else this process's own streams would be made before the thread begins: 2 ms of every start.
    stdout: true,
    stderr: true,
  });
  // Threads print nothing, unless somebody looks for a fault.
  worker.stdout.on('data', (text: Buffer) => writeSync(1, text));
  worker.stderr.on('data', (text: Buffer) => writeSync(2, text));
  let receive = (_: Receive): void => undefined;
  return {
    post: (message, transfer) => port.postMessage(message, transfer as Transferable[]),
    onMessage: (listener) => {
      receive = listener;
      port.on('message', listener);
    },
    onError: (listener) => {
      worker.on('error', (error) => listener(error as Error));
    },
    poll: () => {
      for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) receive(next.message as Receive);
    },
    detach: () => {
      worker.unref();
      port.unref();
    },
    terminate: () => {
      void worker.terminate();
    },
  };
}

/** Within a thread: the end that leads to whoever started it. */
export function threadParent<Send, Receive>(): MessageEnd<Send, Receive> {
  if (isMainThread) throw new Error('this module is the entry of a thread');
  const { port } = workerData as ThreadData;
  return {
    post: (message, transfer) => port.postMessage(message, transfer as Transferable[]),
    onMessage: (listener) => {
      port.on('message', listener);
    },
  };
}

/** Modules may say which functions are to be compiled at once. */
const HEED_HINTS = '--experimental-wasm-compilation-hints';
/**
 * V8 guesses what is called by way of a table, to go back to baseline code where it has guessed wrong. Once in some hundred boots its
 * optimiser found nothing of that code, which ends the process ("Check failed: function_feedback != ..."). Turned off later than
 * others' modules began, this does no harm to them.
 */
const NO_GUESSES = '--no-wasm-inlining-call-indirect';
/** Nothing in translated code is worth inlining, and looking for it costs every entry of code that is not optimised yet. */
const NO_INLINING = '--no-wasm-inlining';

/**
 * Sets options of the JavaScript engine for translated code, in all threads; to be called before the first of it is made. It
 * comes as late as that, since functions of Node.js's own that are loaded afterwards are compiled anew.
 */
export function tuneForTranslation(): void {
  const { setFlagsFromString } = process.getBuiltinModule('node:v8');
  setFlagsFromString(HEED_HINTS);
  setFlagsFromString(NO_GUESSES);
  // Other modules of an application that began without would fail when they are instantiated again: only a launched process has none.
  if (process.env['VIRELAY_EXPECTS'] !== undefined) setFlagsFromString(NO_INLINING);
}

/**
 * @returns a module whose functions are optimised when it is there, by this thread: V8's baseline compiler is off meanwhile,
 * in all threads. Code that another one begins to use in this moment is optimised at once, too, which is no harm.
 */
export function makeOptimised(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  const { setFlagsFromString } = process.getBuiltinModule('node:v8');
  setFlagsFromString('--no-liftoff');
  try {
    return new WebAssembly.Module(bytes);
  } finally {
    setFlagsFromString('--liftoff');
  }
}

/**
 * Lets the process's other threads have the processor where there are not enough of them for all. Only Linux has a priority for
 * each thread (setpriority(2), "C library/kernel differences"); a sandbox may refuse to change it, and that is as well.
 * @param steps by which the calling thread's nice value rises, 1 to 19
 */
export function stepBack(steps: number): void {
  if (process.platform !== 'linux') return;
  const { getPriority, setPriority } = process.getBuiltinModule('node:os');
  try {
    setPriority(0, Math.min(19, getPriority(0) + steps));
  } catch {}
}

/** Threads for machines; one may be begun before it is known what machine it is for. */
import { startThread } from '#threads';
import type { Thread } from '../host/host.ts';
import type { FromMachine, ToMachine } from './messages.ts';

export type MachineThread = Thread<ToMachine, FromMachine>;

let begun: MachineThread | null = null;

const start = (): MachineThread => startThread(new URL('./worker.ts', import.meta.url));

/** Begins the next machine's thread: loading its code takes as long as finding out what to run in it. */
export function beginMachineThread(): void {
  begun ??= start();
}

/** @returns the thread that was begun, else a new one */
export function takeMachineThread(): MachineThread {
  const thread = begun ?? start();
  begun = null;
  return thread;
}

/** Ends the thread that was begun if nobody took it. */
export function dropMachineThread(): void {
  begun?.terminate();
  begun = null;
}

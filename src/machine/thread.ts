/** The thread of the next machine. */
import { EarlyThread } from '../host/early-thread.ts';
import type { FromMachine, ToMachine } from './messages.ts';

export const machineThread = new EarlyThread<ToMachine, FromMachine>(new URL('./worker.ts', import.meta.url));

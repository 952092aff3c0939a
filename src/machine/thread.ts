/** The thread of the next machine, begun early; which one depends on what will run the machine's vCPU. */
import { EarlyThread } from '../host/early-thread.ts';
import type { FromMachine, ToMachine } from './messages.ts';

export const machineThreads = {
  translating: new EarlyThread<ToMachine, FromMachine>(new URL('./worker.ts', import.meta.url)),
  kvm: new EarlyThread<ToMachine, FromMachine>(new URL('./kvm-worker.ts', import.meta.url)),
} as const;

/** @param accelerator the one that is tried first */
export const machineThreadFor = (accelerator: string): EarlyThread<ToMachine, FromMachine> =>
  accelerator === 'kvm' ? machineThreads.kvm : machineThreads.translating;

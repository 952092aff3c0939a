/** The thread of a vCPU: in the guest, or waiting for the machine's thread. */
import { parentPort, workerData } from 'node:worker_threads';
import { EXIT } from './constants.ts';
import { DoorbellButtons } from './doorbells.ts';
import { ExitChannelEnd } from './exit-channel.ts';
import { acceptKicks } from './accept-kicks.ts';
import { KICK_SIGNAL } from './kick-signal.ts';
import { loadLibc, type SystemCallError } from './libc.ts';
import { RunPage } from './run-page.ts';
import { enterGuest } from './vcpu.ts';

export interface VcpuWorkerData {
  /** The vCPU's descriptor, which stays the machine's. */
  readonly fd: number;
  /** Its shared pages. */
  readonly pages: Uint8Array;
  /** Of exit-channel.ts. */
  readonly cells: Int32Array;
  /** Of the machine's thread, of kicker-cells.ts. */
  readonly machine: Int32Array;
  /** Of doorbells.ts. */
  readonly doorbells: Int32Array;
}

/** Milliseconds after which the guest is left whatever it does, so that the thread can always be ended. */
const LONGEST = 250;

function run({ fd, pages, cells, machine, doorbells }: VcpuWorkerData): void {
  const libc = loadLibc();
  const page = new RunPage(pages);
  const port = parentPort!;
  const channel = new ExitChannelEnd(libc, cells, machine, () => port.postMessage(null));
  const buttons = new DoorbellButtons(libc, doorbells, machine);
  const timer = libc.createTimer(KICK_SIGNAL);
  try {
    acceptKicks(libc, fd);
    libc.setTimer(timer, LONGEST, true);
    while (channel.mayRun()) {
      let reason: number;
      try {
        reason = enterGuest(libc, fd, page);
      } catch (error) {
        reason = -(error as SystemCallError).errno;
      }
      if (reason === EXIT.KVM_EXIT_INTR || (reason === EXIT.KVM_EXIT_MMIO && buttons.press(page))) continue;
      channel.ask(reason);
    }
  } finally {
    libc.deleteTimer(timer);
    channel.end();
  }
}

run(workerData as VcpuWorkerData);

/** Waits for an eventfd in the place of a thread that is in the guest (doorbells.ts). */
import { workerData } from 'node:worker_threads';
import { callOut, THREAD_WANTS } from '../../src/kvm/kicker-cells.ts';
import { loadLibc, POLLFD_SIZE, POLLIN } from '../../src/kvm/libc.ts';

export interface EventThreadData {
  /** Of the devices' thread. */
  readonly machine: Int32Array;
  readonly eventfd: number;
}

const { machine, eventfd } = workerData as EventThreadData;
const libc = loadLibc();
const request = new DataView(new ArrayBuffer(POLLFD_SIZE));
request.setInt32(0, eventfd, true);
request.setInt16(4, POLLIN, true);
const count = new Uint8Array(new ArrayBuffer(8));
for (;;) {
  if (libc.poll(new Uint8Array(request.buffer), 1, 0.1) <= 0) continue;
  libc.read(eventfd, count);
  // A thread that is outside looks before it enters; it may have looked already.
  while (!callOut(libc, machine, THREAD_WANTS) && Atomics.load(machine, 0) === 0);
}

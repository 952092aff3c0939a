/** Waits for the eventfds of a machine, whose thread is in the guest (event-bells.ts). */
import { parentPort, workerData } from 'node:worker_threads';
import { NOTES, RUNG } from './event-cells.ts';
import { callOut, THREAD_WANTS } from './kicker-cells.ts';
import { loadLibc, POLLFD_SIZE, POLLIN } from './libc.ts';

export interface EventThreadData {
  /** Of event-cells.ts. */
  readonly cells: Int32Array;
  /** Of the machine's thread, of kicker-cells.ts. */
  readonly machine: Int32Array;
}

/** Offset of `revents` in struct pollfd. */
const REVENTS = 6;
const { cells, machine } = workerData as EventThreadData;
const libc = loadLibc();

/** Our own event loop comes first: it is told of further eventfds, and when this thread is to end. */
function requestsFor(eventfds: readonly number[]): DataView<ArrayBuffer> {
  const fds = [libc.loopDescriptor(), ...eventfds];
  const requests = new DataView(new ArrayBuffer(fds.length * POLLFD_SIZE));
  fds.forEach((fd, index) => {
    requests.setInt32(index * POLLFD_SIZE, fd, true);
    requests.setInt16(index * POLLFD_SIZE + 4, POLLIN, true);
  });
  return requests;
}

let requests = requestsFor([]);
parentPort!.on('message', (eventfds: readonly number[]) => {
  requests = requestsFor(eventfds);
});

function watch(): void {
  const bytes = new Uint8Array(requests.buffer);
  const count = bytes.length / POLLFD_SIZE;
  for (;;) {
    libc.poll(bytes, count, -1);
    if (requests.getInt16(REVENTS, true) !== 0) break;
    for (let bell = 0; bell < count - 1; bell++) {
      if (requests.getInt16((bell + 1) * POLLFD_SIZE + REVENTS, true) === 0) continue;
      Atomics.or(cells, NOTES + (bell >> 5), 1 << (bell & 31));
    }
    Atomics.store(cells, RUNG, 1);
    // A machine's thread that is outside looks before it enters.
    callOut(libc, machine, THREAD_WANTS);
    Atomics.wait(cells, RUNG, 1);
  }
  setImmediate(watch);
}

// Only once the loop has gone round does its descriptor know all that it waits for.
setImmediate(watch);

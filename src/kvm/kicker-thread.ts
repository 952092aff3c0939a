/** The kicker: watches another thread's event loop while that thread is in the guest. */
import { workerData } from 'node:worker_threads';
import { callOut, INSIDE, LOOP_WANTS, READY, STATE } from './kicker-cells.ts';
import { loadLibc, POLLFD_SIZE, POLLIN } from './libc.ts';

export interface KickerData {
  readonly cells: Int32Array;
  /** The other thread's event loop. */
  readonly loop: number;
}

const WATCHED = 2;
/** Offset of `revents` in struct pollfd. */
const REVENTS = 6;

function watch({ cells, loop }: KickerData): void {
  const libc = loadLibc();
  const requests = new DataView(new ArrayBuffer(WATCHED * POLLFD_SIZE));
  const bytes = new Uint8Array(requests.buffer);
  // Our own loop, too: it is told when this thread is to end.
  [loop, libc.loopDescriptor()].forEach((fd, index) => {
    requests.setInt32(index * POLLFD_SIZE, fd, true);
    requests.setInt16(index * POLLFD_SIZE + 4, POLLIN, true);
  });
  Atomics.store(cells, READY, 1);
  for (;;) {
    for (let state = Atomics.load(cells, STATE); state !== INSIDE; state = Atomics.load(cells, STATE)) {
      Atomics.wait(cells, STATE, state);
    }
    libc.poll(bytes, WATCHED, -1);
    if (requests.getInt16(REVENTS, true) !== 0) callOut(libc, cells, LOOP_WANTS);
    if (requests.getInt16(POLLFD_SIZE + REVENTS, true) !== 0) break;
  }
  setImmediate(watch, { cells, loop });
}

// Only once the loop has gone round does its descriptor know all that it waits for.
setImmediate(watch, workerData as KickerData);

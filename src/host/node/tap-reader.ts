/**
 * The thread that reads a TAP interface. Frames go into slots of shared memory, as many into each as have
 * arrived or fit; a message names the slot, and its user gives it back.
 */
import { readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { library } from './libc.ts';

/** The largest frame with its header, rounded up. */
export const FRAME_ROOM = 65536 + 64;
export const SLOTS = 4;
export const SLOT_SIZE = 4 * FRAME_ROOM;

export interface TapBatch {
  readonly slot: number;
  /** Bytes of each frame; they lie one after the other. */
  readonly lengths: readonly number[];
}

export interface TapReaderData {
  readonly fd: number;
  readonly slots: SharedArrayBuffer;
  /** Slots that are free; -1 ends the thread. */
  readonly free: Int32Array;
}

const POLLIN = 1;
/** Offset of `revents` in struct pollfd. */
const REVENTS = 6;
/** Milliseconds between two looks at an interface that is down, of which nothing can be waited for. */
const PAUSE = 20;
/** Milliseconds after which the thread looks whether it is to end. */
const PATIENCE = 100;

function readSlot(fd: number, room: Uint8Array): number[] {
  const lengths: number[] = [];
  for (let at = 0; at + FRAME_ROOM <= room.length; ) {
    let length: number;
    try {
      length = readSync(fd, room, at, FRAME_ROOM, null);
    } catch {
      break;
    }
    if (length <= 0) break;
    lengths.push(length);
    at += length;
  }
  return lengths;
}

function run({ fd, slots, free }: TapReaderData): void {
  const c = library()!;
  // struct pollfd: int fd, short events, short revents.
  const request = Buffer.alloc(8);
  request.writeInt32LE(fd, 0);
  request.writeInt16LE(POLLIN, 4);
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  for (let slot = 0; ; slot = (slot + 1) % SLOTS) {
    // A notice may be of a slot that has been taken already: it alone says nothing.
    while (Atomics.load(free, 0) === 0) Atomics.wait(free, 0, 0);
    const room = new Uint8Array(slots, slot * SLOT_SIZE, SLOT_SIZE);
    let lengths: number[];
    do {
      if (Atomics.load(free, 0) < 0) return;
      c.poll(request, 1n, PATIENCE);
      lengths = readSlot(fd, room);
      if (lengths.length === 0 && (request.readUInt16LE(REVENTS) & ~POLLIN) !== 0) Atomics.wait(sleeper, 0, 0, PAUSE);
    } while (lengths.length === 0);
    if (Atomics.sub(free, 0, 1) < 0) return;
    parentPort!.postMessage({ slot, lengths } satisfies TapBatch);
  }
}

if (parentPort !== null && (workerData as TapReaderData | null)?.slots !== undefined) run(workerData as TapReaderData);

/**
 * What the thread of a vCPU and those who may want it out of the guest have in common:
 *
 *     0  STATE     whether it may be in the guest
 *     1  THREAD    its number, for tgkill
 *     2  READY     whether the kicker is at work
 */
import { kick } from './kick-signal.ts';
import type { Libc } from './libc.ts';

export const STATE = 0;
export const THREAD = 1;
export const READY = 2;
export const CELLS = 3;

/** It looks after its event loop, and must not be kicked. */
export const OUTSIDE = 0;
/** It is in the guest, or busy with an exit. */
export const INSIDE = 1;
/** It has been kicked by the kicker: its event loop has something to do. */
export const LOOP_WANTS = 2;
/** It has been kicked by another thread, which has left a request. */
export const THREAD_WANTS = 3;

/**
 * Gets the thread out of the guest, once.
 * @param why LOOP_WANTS or THREAD_WANTS
 * @returns false when it is not inside, or on its way out already
 */
export function callOut(libc: Libc, cells: Int32Array, why: number): boolean {
  if (Atomics.compareExchange(cells, STATE, INSIDE, why) !== INSIDE) return false;
  kick(libc, Atomics.load(cells, THREAD));
  return true;
}

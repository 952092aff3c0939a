/**
 * How a thread is got out of KVM_RUN. It keeps SIGURG waiting but while the guest runs (accept-kicks.ts), so that a kick that
 * comes early is not lost; signals of one kind that come while one waits are one signal, so kicks are never counted.
 * SIGURG is a signal that nobody minds: its default action is to do nothing, and Node.js does not use it.
 */
import type { Libc } from './libc.ts';

/** SIGURG */
export const KICK_SIGNAL = 23;

/** Forgets kicks that have arrived at the calling thread. */
export function drainKicks(libc: Libc): void {
  while (libc.takeSignal(KICK_SIGNAL) >= 0);
}

/** @param tid of a thread of this process (`Libc.gettid`) */
export function kick(libc: Libc, tid: number): void {
  libc.tgkill(tid, KICK_SIGNAL);
}

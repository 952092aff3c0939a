/**
 * How a thread is got out of KVM_RUN. It keeps SIGURG waiting but while the guest runs, so that a kick that comes
 * early is not lost; signals of one kind that come while one waits are one signal, so kicks are never counted.
 * SIGURG is a signal that nobody minds: its default action is to do nothing, and Node.js does not use it.
 */
import { REQUESTS } from './ioctls.ts';
import { KVM_SIGNAL_MASK } from './layouts.ts';
import { demand, type Libc } from './libc.ts';
import { encode } from './struct.ts';

/** SIGURG */
export const KICK_SIGNAL = 23;
const KICK_BIT = 1n << BigInt(KICK_SIGNAL - 1);

/** The calling thread will run a vCPU. @param fd the vCPU's @throws SystemCallError */
export function acceptKicks(libc: Libc, fd: number): void {
  libc.blockSignal(KICK_SIGNAL);
  // Signals that wait while the guest runs, as the kernel has them: 64 bits.
  const mask = encode(KVM_SIGNAL_MASK, { len: 8 }, 8);
  new DataView(mask.buffer).setBigUint64(KVM_SIGNAL_MASK.size, libc.blockedSignals() & ~KICK_BIT, true);
  demand(libc.ioctlBytes(fd, REQUESTS.KVM_SET_SIGNAL_MASK.number, mask), 'KVM_SET_SIGNAL_MASK');
}

/** Forgets kicks that have arrived at the calling thread. */
export function drainKicks(libc: Libc): void {
  while (libc.takeSignal(KICK_SIGNAL) >= 0);
}

/** @param tid of a thread of this process (`Libc.gettid`) */
export function kick(libc: Libc, tid: number): void {
  libc.tgkill(tid, KICK_SIGNAL);
}

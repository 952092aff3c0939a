/** What a thread that runs a vCPU does once, to be got out of the guest; whoever kicks has no need of it, nor of KVM's structures. */
import { REQUESTS } from './ioctls.ts';
import { KICK_SIGNAL } from './kick-signal.ts';
import { KVM_SIGNAL_MASK } from './layouts.ts';
import { demand, type Libc } from './libc.ts';
import { encode } from './struct.ts';

const KICK_BIT = 1n << BigInt(KICK_SIGNAL - 1);

/** The calling thread will run a vCPU. @param fd the vCPU's @throws SystemCallError */
export function acceptKicks(libc: Libc, fd: number): void {
  libc.blockSignal(KICK_SIGNAL);
  // Signals that wait while the guest runs, as the kernel has them: 64 bits.
  const mask = encode(KVM_SIGNAL_MASK, { len: 8 }, 8);
  new DataView(mask.buffer).setBigUint64(KVM_SIGNAL_MASK.size, libc.blockedSignals() & ~KICK_BIT, true);
  demand(libc.ioctlBytes(fd, REQUESTS.KVM_SET_SIGNAL_MASK.number, mask), 'KVM_SET_SIGNAL_MASK');
}

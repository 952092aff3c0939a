/** A counter in the kernel that can be waited for: eventfd(2). */
import { Descriptor } from './descriptor.ts';
import { demand, type Libc } from './libc.ts';

const ONE = new Uint8Array(BigUint64Array.of(1n).buffer);
const COUNT = new Uint8Array(new ArrayBuffer(8));

export class Eventfd extends Descriptor {
  /** @throws SystemCallError, or Error, where there are too many open files */
  constructor(libc: Libc) {
    super(libc, demand(libc.eventfd(), 'eventfd'));
  }

  signal(): void {
    this.libc.write(this.fd, ONE);
  }

  /** Counts from 0 again. @returns whether it has been signalled since the last time */
  take(): boolean {
    return this.libc.read(this.fd, COUNT) > 0;
  }
}

/** What /dev/kvm, a VM and a vCPU have in common: an open file that takes requests. */
import { close, closeSync, openSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';
import { CAPABILITIES, type Capability } from './constants.ts';
import { type LayoutOf, type Request, REQUESTS, type RequestName, type StructRequest } from './ioctls.ts';
import { demand, type Libc } from './libc.ts';
import { encode, type Patch, read, type Value, viewOf } from './struct.ts';

const CLOSED = -1;

/**
 * Files that a thread has not closed are closed when it ends, also when it is ended, but only those that Node.js has opened.
 * @returns another number of the file's, in place of one that Node.js has opened
 */
function adopt(libc: Libc, fd: number): number {
  if (isMainThread) return fd;
  try {
    const owned = openSync('/dev/null', 'r');
    // Nothing can go wrong: both are open.
    libc.dup(fd, owned);
    return owned;
  } finally {
    libc.close(fd);
  }
}

export class Descriptor {
  readonly libc: Libc;
  private number: number;

  /**
   * Takes the descriptor over, also when it throws.
   * @throws Error where there are too many open files
   */
  constructor(libc: Libc, fd: number) {
    this.libc = libc;
    this.number = adopt(libc, fd);
  }

  /** The file's number, -1 after `close`, of which every system call says EBADF. */
  get fd(): number {
    return this.number;
  }

  /**
   * Takes effect once.
   * @param beside whether another thread closes the file, soon, where that takes the kernel long
   */
  close(beside = false): void {
    const { fd } = this;
    if (fd === CLOSED) return;
    this.number = CLOSED;
    if (beside) close(fd, () => undefined);
    else closeSync(fd);
  }

  /**
   * A request whose argument is a number or an address.
   * @returns what the kernel answers, not negative
   * @throws SystemCallError
   */
  call(name: RequestName, value: number | bigint = 0): number {
    return demand(this.libc.ioctl(this.fd, REQUESTS[name].number, BigInt(value)), name);
  }

  /** A request about bytes, which the kernel reads, writes or both. @throws SystemCallError */
  transfer(name: RequestName, bytes: Uint8Array): number {
    return demand(this.tryTransfer(name, bytes), name);
  }

  /** @returns negative on failure */
  protected tryTransfer(name: RequestName, bytes: Uint8Array): number {
    return this.libc.ioctlBytes(this.fd, REQUESTS[name].number, bytes);
  }

  /** Tells the kernel a structure; fields that are left out are zero. @throws SystemCallError */
  put<N extends StructRequest>(name: N, patch: Patch<LayoutOf<N>>): number {
    const { layout } = REQUESTS[name] as unknown as Request<LayoutOf<N>>;
    return this.transfer(name, encode(layout, patch));
  }

  /**
   * Has a structure filled in.
   * @param patch what of it the kernel is to be told
   * @throws SystemCallError
   */
  fetch<N extends StructRequest>(name: N, patch: Patch<LayoutOf<N>> = {} as Patch<LayoutOf<N>>): Value<LayoutOf<N>> {
    const { layout } = REQUESTS[name] as unknown as Request<LayoutOf<N>>;
    const bytes = encode(layout, patch);
    this.transfer(name, bytes);
    return read(layout, viewOf(bytes)) as Value<LayoutOf<N>>;
  }

  /** @returns 0 when the capability is missing, else a number that depends on it, often 1 */
  check(capability: Capability): number {
    return Math.max(0, this.libc.ioctl(this.fd, REQUESTS.KVM_CHECK_EXTENSION.number, BigInt(CAPABILITIES[capability])));
  }

  /** @throws SystemCallError */
  enable(capability: Capability, ...args: readonly (number | bigint)[]): void {
    this.put('KVM_ENABLE_CAP', { cap: CAPABILITIES[capability], args: args.map(BigInt) });
  }
}

/** What /dev/kvm, a VM and a vCPU have in common: an open file that takes requests. */
import { CAPABILITIES, type Capability } from './constants.ts';
import { type LayoutOf, type Request, REQUESTS, type RequestName, type StructRequest } from './ioctls.ts';
import { demand, type Libc } from './libc.ts';
import { encode, type Patch, read, type Value, viewOf } from './struct.ts';

const CLOSED = -1;

export class Descriptor {
  readonly libc: Libc;
  private number: number;

  constructor(libc: Libc, fd: number) {
    this.libc = libc;
    this.number = fd;
  }

  /** The file's number, -1 after `close`, of which every system call says EBADF. */
  get fd(): number {
    return this.number;
  }

  /** Takes effect once. */
  close(): void {
    const { fd } = this;
    if (fd === CLOSED) return;
    this.number = CLOSED;
    this.libc.close(fd);
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

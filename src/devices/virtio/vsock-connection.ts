/** One stream between a socket of the guest's and one of the host's, with credit in both directions (5.10.6.3). */
import type { HostStream, StreamEvents } from '../../host/network.ts';
import { NO_MORE, OP, type Packet } from './vsock-packet.ts';

/** What the guest may send before the host has taken it, bytes. */
export const OUR_BUFFER = 1 << 18;

/** What a connection asks of its device. */
export interface ConnectionOwner {
  /** A packet without data goes out as soon as it can. */
  control(connection: Connection, op: number, flags?: number): void;
  /** There is data to send. */
  wake(): void;
  /** The connection is over, and forgotten. */
  forget(connection: Connection): void;
}

export class Connection implements StreamEvents {
  readonly hostPort: number;
  readonly guestPort: number;
  stream: HostStream | null = null;
  /** Bytes of the guest's that the host has taken, in 32 bits. */
  consumed = 0;
  /** Both sides have agreed. */
  established = false;
  /** The guest's last word on its buffer, and what was sent to it, all in 32 bits. */
  private peerBuffer = 0;
  private peerConsumed = 0;
  private sent = 0;
  /** Told to the guest with the last packet. */
  private told = 0;
  private readonly owner: ConnectionOwner;
  /** Data from the host that waits for credit or buffers. */
  private readonly toGuest: Uint8Array[] = [];
  /** Data from the guest that waits for the host. */
  private readonly toHost: Uint8Array[] = [];
  private waiting = 0;
  private busy = false;
  private hostEnded = false;
  private guestEnded = false;

  constructor(owner: ConnectionOwner, hostPort: number, guestPort: number) {
    this.owner = owner;
    this.hostPort = hostPort;
    this.guestPort = guestPort;
  }

  // --- From the guest.

  takeCredit({ bufferSize, consumed }: Packet): void {
    this.peerBuffer = bufferSize;
    this.peerConsumed = consumed;
    this.owner.wake();
  }

  /** @param data a copy  @returns false when the guest sent more than it may */
  takeData(data: Uint8Array): boolean {
    if (this.guestEnded || this.waiting + data.length > OUR_BUFFER) return false;
    this.waiting += data.length;
    this.toHost.push(data);
    this.flushToHost();
    return true;
  }

  /** Says something to the host's program before what the guest says. */
  writeToHost(data: Uint8Array): void {
    // It is not the guest's, so that it costs it no credit.
    this.consumed = (this.consumed - data.length) >>> 0;
    this.told = (this.told - data.length) >>> 0;
    this.waiting += data.length;
    this.toHost.push(data);
    this.flushToHost();
  }

  takeShutdown(flags: number): void {
    if ((flags & NO_MORE.send) !== 0) {
      this.guestEnded = true;
      this.flushToHost();
    }
    // Both directions: over as soon as the host has everything.
    if ((flags & NO_MORE.receive) === 0 || !this.guestEnded) return;
    this.toGuest.length = 0;
    this.owner.control(this, OP.reset);
    this.owner.forget(this);
  }

  /** The guest has gone. */
  abort(): void {
    this.stream?.reset();
  }

  // --- To the guest.

  /** @returns the next data, at most so much, or null when there is none or no credit */
  next(most: number): Uint8Array | null {
    const first = this.toGuest[0];
    const credit = (this.peerBuffer - ((this.sent - this.peerConsumed) >>> 0)) | 0;
    const length = first === undefined || !this.established ? 0 : Math.min(first.length, credit, most);
    if (length <= 0) return null;
    this.sent = (this.sent + length) >>> 0;
    if (length === first!.length) this.toGuest.shift();
    else this.toGuest[0] = first!.subarray(length);
    if (this.toGuest.length === 0) {
      this.stream?.resume();
      this.endToGuest();
    }
    return first!.subarray(0, length);
  }

  /** What goes with every packet. @returns bytes consumed */
  tell(): number {
    this.told = this.consumed;
    return this.consumed;
  }

  // --- From the host.

  onConnect(): void {
    this.established = true;
    this.owner.control(this, OP.response);
  }

  onData(data: Uint8Array): void {
    this.toGuest.push(data.slice());
    this.stream?.pause();
    this.owner.wake();
  }

  onEnd(): void {
    this.hostEnded = true;
    this.endToGuest();
  }

  onDrain(): void {
    this.busy = false;
    this.hostTook();
    this.flushToHost();
  }

  onClose(): void {
    this.owner.control(this, OP.reset);
    this.owner.forget(this);
  }

  private endToGuest(): void {
    if (this.hostEnded && this.toGuest.length === 0) this.owner.control(this, OP.shutdown, NO_MORE.send);
  }

  private flushToHost(): void {
    while (!this.busy && this.toHost.length > 0 && this.stream !== null) {
      if (this.stream.write(this.toHost[0]!)) this.hostTook();
      else this.busy = true;
    }
    if (this.guestEnded && this.toHost.length === 0) this.stream?.end();
  }

  private hostTook(): void {
    const taken = this.toHost.shift()?.length ?? 0;
    this.waiting -= taken;
    this.consumed = (this.consumed + taken) >>> 0;
    // Half the buffer: enough for the guest to go on before it runs out.
    if ((this.consumed - this.told) >>> 0 >= OUR_BUFFER / 2) this.owner.control(this, OP.creditUpdate);
  }
}

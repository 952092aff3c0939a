/** The machine's end of a byte stream to its handle, with a window in each direction. */
import type { CharBackend } from './interfaces.ts';
import { type FromMachine, INPUT_WINDOW, OUTPUT_WINDOW } from './messages.ts';

const CHUNK = 1 << 14;

export class PortChannel implements CharBackend {
  onReceive: ((data: Uint8Array) => number) | null = null;
  onDrain: (() => void) | null = null;

  private readonly channel: number;
  private readonly post: (message: FromMachine) => void;
  private chunk = new Uint8Array(CHUNK);
  private used = 0;
  /** Bytes written that have not been passed on yet, whether sent or not. */
  private outstanding = 0;
  private full = false;
  private input: Uint8Array[] = [];
  /** Bytes of input taken that the handle has not been told of. */
  private taken = 0;
  private offering = false;
  private held = false;

  constructor(channel: number, post: (message: FromMachine) => void) {
    this.channel = channel;
    this.post = post;
  }

  /** Output is collected: a message for each character would cost more than the guest's work. */
  write(data: Uint8Array): boolean {
    for (const byte of data) {
      this.chunk[this.used++] = byte;
      if (this.used === CHUNK) this.flush();
    }
    this.outstanding += data.length;
    this.full = this.outstanding >= OUTPUT_WINDOW;
    return !this.full;
  }

  /** Sends what has been collected: output, and word of the input that has been taken. */
  flush(): void {
    if (this.taken > 0) this.post({ type: 'taken', channel: this.channel, bytes: this.taken });
    this.taken = 0;
    if (this.used === 0) return;
    this.post({ type: 'output', channel: this.channel, data: this.chunk.slice(0, this.used) });
    this.used = 0;
  }

  consumed(bytes: number): void {
    this.outstanding -= bytes;
    if (!this.full || this.outstanding > OUTPUT_WINDOW / 2) return;
    this.full = false;
    this.onDrain?.();
  }

  receive(data: Uint8Array): void {
    this.input.push(data);
    this.resume();
  }

  /** Input waits while the machine's state is being saved: what the guest's port took would be in two machines. */
  hold(on: boolean): void {
    this.held = on;
    if (!on) this.resume();
  }

  resume(): void {
    if (this.held) return;
    // Taking a byte may free the room that this very call is about.
    if (this.offering) return;
    this.offering = true;
    while (this.input.length > 0) {
      const first = this.input[0]!;
      const count = this.onReceive === null ? first.length : this.onReceive(first);
      this.taken += count;
      if (count < first.length) {
        this.input[0] = first.subarray(count);
        break;
      }
      this.input.shift();
    }
    this.offering = false;
    // Half a window left: enough to keep the guest busy until the answer is there.
    if (this.taken >= INPUT_WINDOW / 2) this.flush();
  }

  close(): void {
    this.input = [];
  }
}

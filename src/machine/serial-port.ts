/** A port of the machine as a program sees it: bytes to and from the guest as web streams. */
import { INPUT_WINDOW, type ToMachine } from './messages.ts';

/** Output that is kept for a program that has not looked at the port yet; older output is lost. */
const UNREAD_LIMIT = 1 << 20;

export class SerialPort {
  private readonly channel: number;
  private readonly post: (message: ToMachine) => void;
  private output: ReadableStream<Uint8Array> | null = null;
  private input: WritableStream<Uint8Array> | null = null;
  private controller: ReadableStreamDefaultController<Uint8Array> | null = null;
  /** Output that nobody has asked for yet. */
  private kept: Uint8Array[] = [];
  private keptBytes = 0;
  /** Bytes handed to the stream that the machine has not been told of. */
  private unacknowledged = 0;
  private cancelled = false;
  private ended = false;
  private credit = INPUT_WINDOW;
  private waiting: (() => void) | null = null;

  constructor(channel: number, post: (message: ToMachine) => void) {
    this.channel = channel;
    this.post = post;
  }

  /** What the guest sends. Once somebody has asked for it, the guest waits for a slow reader. */
  get readable(): ReadableStream<Uint8Array> {
    this.output ??= new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.controller = controller;
        for (const data of this.kept) controller.enqueue(data);
        this.kept = [];
        if (this.ended) controller.close();
      },
      pull: () => this.acknowledge(),
      cancel: () => {
        this.cancelled = true;
        this.acknowledge();
      },
    });
    return this.output;
  }

  /** What the guest receives; a write is done when it is on its way to the guest's port. */
  get writable(): WritableStream<Uint8Array> {
    this.input ??= new WritableStream<Uint8Array>({ write: (data) => this.send(data) });
    return this.input;
  }

  /** Holds the line in the break condition for a moment. */
  sendBreak(): void {
    this.post({ type: 'break', channel: this.channel });
  }

  /** For the machine's handle: output has come. */
  deliver(data: Uint8Array): void {
    this.unacknowledged += data.length;
    if (this.cancelled) return this.acknowledge();
    if (this.controller === null) return this.keep(data);
    this.controller.enqueue(data);
    if ((this.controller.desiredSize ?? 0) > 0) this.acknowledge();
  }

  /** For the machine's handle: input has arrived. */
  taken(bytes: number): void {
    this.credit += bytes;
    this.waiting?.();
  }

  /** For the machine's handle: nothing will come any more. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    if (!this.cancelled) this.controller?.close();
    this.waiting?.();
  }

  private keep(data: Uint8Array): void {
    this.kept.push(data);
    this.keptBytes += data.length;
    while (this.keptBytes > UNREAD_LIMIT) this.keptBytes -= this.kept.shift()!.length;
    this.acknowledge();
  }

  private acknowledge(): void {
    if (this.unacknowledged === 0 || this.ended) return;
    this.post({ type: 'consumed', channel: this.channel, bytes: this.unacknowledged });
    this.unacknowledged = 0;
  }

  private async send(data: Uint8Array): Promise<void> {
    let rest = data;
    while (rest.length > 0 && !this.ended) {
      if (this.credit === 0) {
        await new Promise<void>((resolve) => {
          this.waiting = resolve;
        });
        this.waiting = null;
        continue;
      }
      const part = rest.slice(0, this.credit);
      this.credit -= part.length;
      rest = rest.subarray(part.length);
      this.post({ type: 'input', channel: this.channel, data: part });
    }
  }
}

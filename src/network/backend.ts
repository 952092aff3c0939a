/** Frames on their way to a card that has no room for them now. */
import { NO_OFFLOADS, type Offloads, type PacketBackend, type PacketOffload } from '../machine/interfaces.ts';

/** Frames and bytes that wait at most; more are lost, as on any full link. */
const MOST_FRAMES = 1024;
const MOST_BYTES = 1 << 22;

/** What all simple backends have in common. */
export abstract class Backend implements PacketBackend {
  onReceive: PacketBackend['onReceive'] = null;
  onWritable: PacketBackend['onWritable'] = null;
  abstract readonly offloads: Offloads;
  private offers: Offloads = NO_OFFLOADS;
  private readonly waiting: { frame: Uint8Array; offload: PacketOffload | null }[] = [];
  private bytes = 0;

  get accepts(): Offloads {
    return this.offers;
  }

  set accepts(offloads: Offloads) {
    this.offers = offloads;
    this.acceptsChanged();
  }

  abstract send(frame: Uint8Array, offload: PacketOffload | null): boolean;

  resume(): void {
    while (this.waiting.length > 0) {
      const { frame, offload } = this.waiting[0]!;
      if (this.onReceive !== null && !this.onReceive(frame, offload)) return;
      this.waiting.shift();
      this.bytes -= frame.length;
    }
    this.onRoom();
  }

  close(): void {
    this.onReceive = null;
    this.waiting.length = 0;
    this.bytes = 0;
  }

  /** Frames wait: whoever can hold more of them back should. */
  protected get full(): boolean {
    return this.waiting.length > 0;
  }

  /** @param frame valid during the call */
  protected deliver(frame: Uint8Array, offload: PacketOffload | null = null): void {
    if (this.waiting.length === 0 && (this.onReceive === null || this.onReceive(frame, offload))) return;
    if (this.waiting.length >= MOST_FRAMES || this.bytes + frame.length > MOST_BYTES) return;
    this.waiting.push({ frame: frame.slice(), offload: offload && { ...offload } });
    this.bytes += frame.length;
  }

  /** The card has taken everything that waited. */
  protected onRoom(): void {
    // Most networks just lose frames.
  }

  protected acceptsChanged(): void {
    // Most networks only have complete frames.
  }
}

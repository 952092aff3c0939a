/** The way to the card: frames that it has no room for wait, and it is found by its address. */
import type { Offloads, PacketOffload } from '../../machine/interfaces.ts';
import { GSO_NONE, NO_OFFLOADS } from '../../machine/interfaces.ts';
import type { IpAddress } from '../address.ts';
import { ETH_LEAST, ETH_SIZE, FRAME_MAX, get16, get32, put16 } from '../layout.ts';

export const MAC_SIZE = 6;
/** MACs of the network's own hosts: this prefix, a byte for the kind, and the end of the host's address. */
export const MAC_PREFIX = 0x52;
export const MAC_IPV4 = 0x55;
export const MAC_IPV6 = 0x56;
export const BROADCAST_MAC = new Uint8Array(MAC_SIZE).fill(0xff);

/** Frames and bytes that wait for the card at most; more is lost, as on any full link. */
const QUEUE_FRAMES = 512;
const QUEUE_BYTES = 1 << 20;
/** Neighbours that are remembered, and those that are being asked for. */
const MAX_NEIGHBOURS = 256;
const MAX_SOUGHT = 16;

/** Fields that a sender fills before `transmit`. */
export type MutableOffload = { -readonly [K in keyof PacketOffload]: PacketOffload[K] };

export const plainOffload = (): MutableOffload => ({
  checksumStart: -1,
  checksumOffset: 0,
  gso: GSO_NONE,
  headerLength: 0,
  segmentSize: 0,
});

type Waiting = { readonly frame: Uint8Array; readonly offload: PacketOffload | null };

function keyOf(address: IpAddress): number | string {
  if (address.length === 4) return get32(address, 0);
  const word = (at: number): number => get16(address, at);
  return String.fromCharCode(word(0), word(2), word(4), word(6), word(8), word(10), word(12), word(14));
}

export class Link {
  /** Where the frame that is being sent is built. */
  readonly frame = new Uint8Array(FRAME_MAX);
  /** What is left to the card's driver in that frame; used when `transmit` is told so. */
  readonly offload = plainOffload();
  accepts: Offloads = NO_OFFLOADS;
  /** Set by the card. */
  receiver: ((frame: Uint8Array, offload: PacketOffload | null) => boolean) | null = null;
  /** The card has room again. */
  onRoom: (() => void) | null = null;
  /** The receiver has been called and has not returned. */
  delivering = false;
  private readonly queue: Waiting[] = [];
  private queued = 0;
  private readonly neighbours = new Map<number | string, Uint8Array>();
  /** Frames to addresses that have been asked for, the last one each. */
  private readonly sought = new Map<number | string, Waiting>();
  /** Asks for an address by the family's own means. */
  private readonly ask: (address: IpAddress) => void;

  constructor(ask: (address: IpAddress) => void) {
    this.ask = ask;
  }

  /** The card has refused a frame: whoever can hold data back should. */
  get blocked(): boolean {
    return this.queue.length > 0;
  }

  /**
   * Sends the frame that was built, to a host whose MAC may have to be asked for.
   * @param length of the whole frame  @param partial `offload` says what is left to do
   */
  transmitTo(address: IpAddress, source: Uint8Array, type: number, length: number, partial: boolean): void {
    const key = keyOf(address);
    const mac = this.neighbours.get(key);
    if (mac !== undefined) return this.transmit(mac, source, type, length, partial);
    this.fillHeader(BROADCAST_MAC, source, type);
    if (this.sought.size >= MAX_SOUGHT) this.sought.delete(this.sought.keys().next().value!);
    this.sought.set(key, this.copy(length, partial));
    this.ask(address);
  }

  transmit(to: Uint8Array, source: Uint8Array, type: number, length: number, partial: boolean): void {
    this.fillHeader(to, source, type);
    let size = length;
    if (size < ETH_LEAST) {
      this.frame.fill(0, size, ETH_LEAST);
      size = ETH_LEAST;
    }
    this.deliver(size, partial);
  }

  /** Where packets come from, answers can be sent to. */
  learn(address: IpAddress, mac: Uint8Array): void {
    const key = keyOf(address);
    const known = this.neighbours.get(key);
    if (known !== undefined) {
      known.set(mac);
      return;
    }
    if (this.neighbours.size >= MAX_NEIGHBOURS) this.neighbours.delete(this.neighbours.keys().next().value!);
    this.neighbours.set(key, mac.slice());
    this.found(key, mac);
  }

  knows(address: IpAddress): boolean {
    return this.neighbours.has(keyOf(address));
  }

  /** The card has room again. */
  resume(): void {
    while (this.queue.length > 0) {
      const { frame, offload } = this.queue[0]!;
      if (!this.offer(frame, offload)) return;
      this.queue.shift();
      this.queued -= frame.length;
    }
    this.onRoom?.();
  }

  close(): void {
    this.receiver = null;
    this.queue.length = 0;
    this.sought.clear();
  }

  private found(key: number | string, mac: Uint8Array): void {
    const waiting = this.sought.get(key);
    if (waiting === undefined) return;
    this.sought.delete(key);
    waiting.frame.set(mac, 0);
    if (this.blocked || this.delivering || !this.offer(waiting.frame, waiting.offload)) this.enqueue(waiting);
  }

  private fillHeader(to: Uint8Array, source: Uint8Array, type: number): void {
    this.frame.set(to, 0);
    this.frame.set(source, MAC_SIZE);
    put16(this.frame, ETH_SIZE - 2, type);
  }

  private deliver(length: number, partial: boolean): void {
    if (this.queue.length === 0 && !this.delivering) {
      if (this.offer(this.frame.subarray(0, length), partial ? this.offload : null)) return;
    }
    this.enqueue(this.copy(length, partial));
  }

  private offer(frame: Uint8Array, offload: PacketOffload | null): boolean {
    if (this.receiver === null) return true;
    this.delivering = true;
    try {
      return this.receiver(frame, offload);
    } finally {
      this.delivering = false;
    }
  }

  private copy(length: number, partial: boolean): Waiting {
    const size = Math.max(length, ETH_LEAST);
    this.frame.fill(0, length, size);
    return { frame: this.frame.slice(0, size), offload: partial ? { ...this.offload } : null };
  }

  private enqueue(waiting: Waiting): void {
    if (this.queue.length >= QUEUE_FRAMES || this.queued + waiting.frame.length > QUEUE_BYTES) return;
    this.queue.push(waiting);
    this.queued += waiting.frame.length;
  }
}

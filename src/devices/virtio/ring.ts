/** What both kinds of ring have in common: the guest's memory, and what is wrong with a ring. */
import type { GuestMemory } from '../../machine/interfaces.ts';
import { Chain, MAX_SEGMENTS } from './chain.ts';

/** The driver has broken the rules: the device needs a reset. */
export class RingError extends Error {}

/** Descriptor flags (virtio 1.2, 2.7.5 and 2.8.5). */
export const DESCRIPTOR = { next: 1, write: 2, indirect: 4, available: 1 << 7, used: 1 << 15 } as const;
/** Bytes of a descriptor in either kind of ring. */
export const DESCRIPTOR_SIZE = 16;

/** Where the driver has put the three parts of a ring: addresses in guest memory. */
export type RingPlaces = { descriptors: number; driver: number; device: number };

/** Negotiated features that rings work by. */
export type RingFeatures = { eventIndex: boolean; indirect: boolean };

/** What is kept of a ring between two looks at it. */
export type RingState = {
  /** Where the next chain is expected: of a split ring, counted without end in 16 bits. */
  available: number;
  /** Where the next used element goes. */
  used: number;
  /** `used` when the driver was last interrupted. */
  signalled: number;
  signalledValid: boolean;
  /** Wrap counters of a packed ring (2.8.1). */
  availableWrap: boolean;
  usedWrap: boolean;
};

export const ringState = (): RingState => ({
  available: 0,
  used: 0,
  signalled: 0,
  signalledValid: false,
  availableWrap: true,
  usedWrap: true,
});

/** Half of a device's side of a virtqueue that knows how the ring lies in memory. */
export interface Ring {
  /** Looks the ring up in memory. @throws RingError when it is not in RAM */
  attach(): void;
  /** Takes the next chain. @returns false when there is none @throws RingError */
  pop(chain: Chain): boolean;
  /** Gives back the chain that was popped last, as if it had never been. */
  unpop(chain: Chain): void;
  /** A chain that was popped is still as the driver has written it, so that it can be read again. */
  isIntact(chain: Chain): boolean;
  /** Reads again a chain that was popped and not pushed, by its id, first slot and slots. @throws RingError */
  retake(chain: Chain): void;
  /** Is there a chain? */
  hasMore(): boolean;
  /** Notes a chain as used; the driver sees it after `publish`. @param written bytes */
  push(chain: Chain, written: number): void;
  /** Shows the driver what has been pushed. @returns whether it wants an interrupt */
  publish(): boolean;
  /** Asks the driver to tell of the next chain it makes available. */
  arm(): void;
  /** Tells the driver that it need not tell of chains. */
  disarm(): void;
}

/** Ranges of guest memory as typed arrays, and buffers that descriptors name. */
export class RingMemory {
  readonly memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.memory = memory;
  }

  /** @throws RingError when it is not RAM in one piece at a place that suits the elements */
  offset(what: string, addr: number, length: number, alignment: number): number {
    const offset = addr % alignment === 0 ? this.memory.ramOffset(addr, length) : -1;
    if (offset < 0) throw new RingError(`${what} at 0x${addr.toString(16)} is not in memory, or not aligned to ${alignment}`);
    return this.memory.ram.byteOffset + offset;
  }

  words16(what: string, addr: number, count: number): Uint16Array {
    return new Uint16Array(this.memory.ram.buffer, this.offset(what, addr, 2 * count, 2), count);
  }

  words32(what: string, addr: number, count: number): Uint32Array {
    return new Uint32Array(this.memory.ram.buffer, this.offset(what, addr, 4 * count, 4), count);
  }

  /** All of memory that devices see in place, by words. */
  get words(): Uint32Array {
    const { buffer, byteOffset, byteLength } = this.memory.ram;
    return new Uint32Array(buffer, byteOffset, Math.floor(byteLength / 4));
  }

  /** Adds one buffer of a descriptor. @throws RingError */
  addBuffer(chain: Chain, addr: number, length: number, writable: boolean): void {
    if (!writable && chain.readableCount !== chain.count) throw new RingError('a buffer to read follows one to write');
    if (chain.count >= MAX_SEGMENTS) throw new RingError(`more than ${MAX_SEGMENTS} buffers in a chain`);
    const offset = this.memory.ramOffset(addr, length);
    if (offset < 0) throw new RingError(`a buffer of ${length} bytes at 0x${addr.toString(16)} is not in memory`);
    chain.add(offset, length, writable);
  }
}

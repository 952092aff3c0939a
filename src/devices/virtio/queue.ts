/** The device's side of a virtqueue, whichever kind of ring it lies in: virtio 1.2, section 2.6. */
import type { GuestMemory, StateValue } from '../../machine/interfaces.ts';
import { Chain } from './chain.ts';
import { type Ring, RingError, type RingFeatures, RingMemory, ringState } from './ring.ts';
import { PackedRing } from './packed-ring.ts';
import { SplitRing } from './split-ring.ts';

/** No interrupt vector (4.1.4.3). */
export const NO_VECTOR = 0xffff;
export const MAX_QUEUE_SIZE = 1024;
const MIN_QUEUE_SIZE = 16;

/** @throws Error for what is no size of a queue */
export function checkQueueSize(name: string, size: number): number {
  if (size >= MIN_QUEUE_SIZE && size <= MAX_QUEUE_SIZE && Number.isInteger(Math.log2(size))) return size;
  throw new Error(`Invalid ${name} (= ${size}), must be a power of 2 between ${MIN_QUEUE_SIZE} and ${MAX_QUEUE_SIZE}.`);
}

/** A queue as it is saved: what the driver has set, and how far its ring has been worked through. */
export const queuePowerOn = (size: number) => ({
  size,
  enabled: false,
  vector: NO_VECTOR,
  /** Addresses as low and high words. */
  descriptors: [0, 0] as number[],
  driver: [0, 0] as number[],
  device: [0, 0] as number[],
  ring: ringState(),
});
export type QueueState = ReturnType<typeof queuePowerOn>;

/** A chain as it is saved: its queue, what the used ring calls it, its slots in a packed ring. */
export type SavedChain = { queue: number; id: number; start: number; slots: number };
const MAX_CHAIN_ID = 2 ** 16;

/** @throws Error when that is no list of chains of these queues */
export function checkChains(saved: StateValue | undefined, queues: number): SavedChain[] {
  const isChain = (one: StateValue): boolean =>
    typeof one === 'object' &&
    !Array.isArray(one) &&
    !(one instanceof Uint8Array) &&
    ['queue', 'id', 'start', 'slots'].every((name) => isIndex(one[name])) &&
    (one['queue'] as number) < queues;
  if (!Array.isArray(saved) || saved.length > queues * MAX_QUEUE_SIZE || !saved.every(isChain)) {
    throw new Error('field "requests" is not a list of requests');
  }
  return saved as SavedChain[];
}

const isIndex = (value: StateValue | undefined): boolean =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < MAX_CHAIN_ID;

const address = ([low, high]: readonly number[]): number => high! * 2 ** 32 + low!;

/** What a queue tells its device. */
export interface QueueOwner {
  readonly memory: GuestMemory;
  readonly ringFeatures: RingFeatures & { packed: boolean };
  /** The driver wants to hear of what has been used. */
  interruptQueue(queue: Virtqueue): void;
  /** The driver has broken the rules. */
  broken(why: string): void;
  readonly isBroken: boolean;
}

export class Virtqueue {
  readonly index: number;
  /** Largest size, which it has until the driver asks for less. */
  readonly maxSize: number;
  readonly state: QueueState;
  private readonly owner: QueueOwner;
  private ring: Ring | null = null;
  private readonly free: Chain[] = [];
  private pushed = false;

  constructor(owner: QueueOwner, index: number, maxSize: number, state: QueueState) {
    this.owner = owner;
    this.index = index;
    this.maxSize = maxSize;
    this.state = state;
  }

  /** Chains can be taken from it. */
  get ready(): boolean {
    return this.ring !== null && !this.owner.isBroken;
  }

  /** The driver has set the queue up. @param loaded it did so before its state was saved, and has been asked to tell of chains */
  activate(loaded = false): void {
    const { state, owner } = this;
    this.ring = null;
    if (!state.enabled) return;
    const places = {
      descriptors: address(state.descriptors),
      driver: address(state.driver),
      device: address(state.device),
    };
    try {
      this.ring = this.makeRing(new RingMemory(owner.memory), places);
      if (!loaded) this.ring.arm();
    } catch (error) {
      this.fail(error);
    }
  }

  /** A chain that was taken and is not used yet, for a saved state. @throws Error when it could not be taken again */
  save(chain: Chain): SavedChain {
    if (this.ring?.isIntact(chain) !== true) {
      throw new Error(`queue ${this.index}: a request that waits cannot be saved, since a later one has been answered`);
    }
    return { queue: this.index, id: chain.id, start: chain.start, slots: chain.slots };
  }

  /** @returns the chain that `save` told of, or null when there is none any more */
  retake({ id, start, slots }: SavedChain): Chain | null {
    const { ring } = this;
    if (ring === null || this.owner.isBroken || id >= MAX_CHAIN_ID || start >= this.state.size) return null;
    const chain = this.newChain();
    Object.assign(chain, { id, start, slots });
    try {
      ring.attach();
      ring.retake(chain);
      return chain;
    } catch (error) {
      this.fail(error);
      this.free.push(chain);
      return null;
    }
  }

  deactivate(): void {
    this.ring = null;
    this.pushed = false;
  }

  /** @returns the next chain, the caller's own until it is pushed, or null when there is none */
  pop(): Chain | null {
    const { ring } = this;
    if (ring === null || this.owner.isBroken) return null;
    const chain = this.newChain();
    try {
      ring.attach();
      if (ring.pop(chain)) return chain;
      // Told of the next one from here on; one may have come in between.
      ring.arm();
      if (ring.pop(chain)) return chain;
    } catch (error) {
      this.fail(error);
    }
    this.free.push(chain);
    return null;
  }

  /** Gives back the chain that was taken last. */
  unpop(chain: Chain): void {
    this.ring?.unpop(chain);
    this.free.push(chain);
  }

  /** Is there a chain to take? Asks the driver to tell of the next one if there is none. */
  hasMore(): boolean {
    const { ring } = this;
    if (ring === null || this.owner.isBroken) return false;
    try {
      ring.attach();
      if (ring.hasMore()) return true;
      ring.arm();
      return ring.hasMore();
    } catch (error) {
      this.fail(error);
      return false;
    }
  }

  /** A chain is done with. The driver learns of it by the next `flush`. @param written bytes */
  push(chain: Chain, written: number): void {
    this.free.push(chain);
    const { ring } = this;
    if (ring === null || this.owner.isBroken) return;
    try {
      ring.attach();
      ring.push(chain, written);
      this.pushed = true;
    } catch (error) {
      this.fail(error);
    }
  }

  /** Shows the driver all that has been pushed, and interrupts it if it wants to be. */
  flush(): void {
    const { ring } = this;
    if (!this.pushed || ring === null) return;
    this.pushed = false;
    if (ring.publish()) this.owner.interruptQueue(this);
  }

  private newChain(): Chain {
    const { memory } = this.owner;
    return this.free.pop() ?? new Chain(memory.ram, (offset, length) => memory.ramChanged(offset, length));
  }

  private makeRing(memory: RingMemory, places: { descriptors: number; driver: number; device: number }): Ring {
    const { size, ring } = this.state;
    const { ringFeatures } = this.owner;
    const Kind = ringFeatures.packed ? PackedRing : SplitRing;
    return new Kind(memory, size, places, ringFeatures, ring);
  }

  private fail(error: unknown): void {
    if (!(error instanceof RingError)) throw error;
    this.owner.broken(`queue ${this.index}: ${error.message}`);
  }
}

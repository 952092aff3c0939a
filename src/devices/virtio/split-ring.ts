/**
 * Split virtqueues: virtio 1.2, section 2.7. Three parts, little-endian, each where the driver put it:
 *
 *     descriptors   { address 64, length 32, flags 16, next 16 } x size
 *     available     flags 16, index 16, heads 16 x size, used event 16
 *     used          flags 16, index 16, { head 32, bytes written 32 } x size, available event 16
 */
import type { Chain } from './chain.ts';
import { passed } from './event-index.ts';
import {
  DESCRIPTOR,
  DESCRIPTOR_SIZE,
  type Ring,
  RingError,
  type RingFeatures,
  type RingMemory,
  type RingPlaces,
  type RingState,
} from './ring.ts';

const AVAILABLE_NO_INTERRUPT = 1;
const USED_NO_NOTIFY = 1;

/** Words of 16 bits at the start of the available and the used ring. */
const FLAGS = 0;
const INDEX = 1;
const FIRST = 2;

export class SplitRing implements Ring {
  private readonly memory: RingMemory;
  private readonly size: number;
  private readonly places: RingPlaces;
  private readonly features: RingFeatures;
  private readonly state: RingState;
  private generation = -1;
  private descriptors: Uint32Array = new Uint32Array(0);
  private words: Uint32Array = new Uint32Array(0);
  private available: Uint16Array = new Uint16Array(0);
  /** The used ring by words of 16 bits, and its elements by words of 32. */
  private used: Uint16Array = new Uint16Array(0);
  private elements: Uint32Array = new Uint32Array(0);
  /** The driver's index when it was last looked at. */
  private seen: number;

  /** @param size a power of two @throws RingError when the ring is not in RAM */
  constructor(memory: RingMemory, size: number, places: RingPlaces, features: RingFeatures, state: RingState) {
    this.memory = memory;
    this.size = size;
    this.places = places;
    this.features = features;
    this.state = state;
    this.seen = state.available;
    this.attach();
  }

  attach(): void {
    const { memory, size, places } = this;
    if (this.generation === memory.memory.ramGeneration) return;
    // The event words at the end are there only if they have been negotiated.
    const event = this.features.eventIndex ? 1 : 0;
    this.descriptors = memory.words32('descriptor table', places.descriptors, size * 4);
    this.words = memory.words;
    this.available = memory.words16('available ring', places.driver, FIRST + size + event);
    this.used = memory.words16('used ring', places.device, FIRST + 4 * size + event);
    this.elements = memory.words32('used ring', places.device + 4, 2 * size);
    this.generation = memory.memory.ramGeneration;
  }

  pop(chain: Chain): boolean {
    if (!this.hasMore()) return false;
    const { state, size } = this;
    const head = this.available[FIRST + (state.available & (size - 1))]!;
    chain.clear();
    chain.id = head;
    this.walk(chain, head);
    state.available = (state.available + 1) & 0xffff;
    return true;
  }

  unpop(): void {
    this.state.available = (this.state.available - 1) & 0xffff;
  }

  /** The table is the driver's until the chain has been used. */
  isIntact(): boolean {
    return true;
  }

  retake(chain: Chain): void {
    chain.clear();
    this.walk(chain, chain.id);
  }

  hasMore(): boolean {
    const { available } = this.state;
    if (this.seen !== available) return true;
    // Ordered before what is read next: other processors may be writing.
    this.seen = Atomics.load(this.available, INDEX);
    const count = (this.seen - available) & 0xffff;
    if (count > this.size) throw new RingError(`the available index moved by ${count} in a ring of ${this.size}`);
    return count > 0;
  }

  push(chain: Chain, written: number): void {
    const at = (this.state.used & (this.size - 1)) * 2;
    this.elements[at] = chain.id;
    this.elements[at + 1] = written;
    this.state.used = (this.state.used + 1) & 0xffff;
  }

  publish(): boolean {
    const { state, size, memory } = this;
    const { used } = state;
    Atomics.store(this.used, INDEX, used);
    memory.memory.ramChanged(this.used.byteOffset - memory.memory.ram.byteOffset, this.used.byteLength);
    if (!this.features.eventIndex) return (Atomics.load(this.available, FLAGS) & AVAILABLE_NO_INTERRUPT) === 0;
    const event = Atomics.load(this.available, FIRST + size);
    const { signalled, signalledValid } = state;
    state.signalled = used;
    state.signalledValid = true;
    return !signalledValid || passed(event, used, signalled);
  }

  arm(): void {
    if (this.features.eventIndex) Atomics.store(this.used, FIRST + 4 * this.size, this.state.available);
    else Atomics.store(this.used, FLAGS, 0);
  }

  disarm(): void {
    // With event indices, not moving the index says the same.
    if (!this.features.eventIndex) Atomics.store(this.used, FLAGS, USED_NO_NOTIFY);
  }

  private walk(chain: Chain, head: number): void {
    const { descriptors, size } = this;
    let index = head;
    for (let steps = 0; ; steps++) {
      if (index >= size) throw new RingError(`descriptor ${index} in a table of ${size}`);
      if (steps === size) throw new RingError('a loop of descriptors');
      const at = index * 4;
      const address = descriptors[at + 1]! * 2 ** 32 + descriptors[at]!;
      const length = descriptors[at + 2]!;
      const last = descriptors[at + 3]!;
      if ((last & DESCRIPTOR.indirect) !== 0) {
        if ((last & DESCRIPTOR.next) !== 0) throw new RingError('an indirect descriptor with a next one');
        this.walkTable(chain, address, length);
        return;
      }
      this.memory.addBuffer(chain, address, length, (last & DESCRIPTOR.write) !== 0);
      if ((last & DESCRIPTOR.next) === 0) return;
      index = last >>> 16;
    }
  }

  /** An indirect table (2.7.5.3). */
  private walkTable(chain: Chain, addr: number, bytes: number): void {
    const { memory } = this.memory;
    if (!this.features.indirect) throw new RingError('an indirect descriptor, which was not negotiated');
    const count = bytes / DESCRIPTOR_SIZE;
    if (count < 1 || !Number.isInteger(count)) throw new RingError(`an indirect table of ${bytes} bytes`);
    const { words } = this;
    // Read by parts: the table needs no alignment, and what it claims may be more than it uses.
    let index = 0;
    for (let steps = 0; ; steps++) {
      if (index >= count) throw new RingError(`descriptor ${index} in an indirect table of ${count}`);
      if (steps === count) throw new RingError('a loop of descriptors');
      const at = addr + index * DESCRIPTOR_SIZE;
      const word = memory.ramOffset(at, DESCRIPTOR_SIZE) / 4;
      if (word < 0) throw new RingError('an indirect table outside memory');
      const inPlace = Number.isInteger(word);
      const low = inPlace ? words[word]! : memory.read(at, 4);
      const high = inPlace ? words[word + 1]! : memory.read(at + 4, 4);
      const length = inPlace ? words[word + 2]! : memory.read(at + 8, 4);
      const last = inPlace ? words[word + 3]! : memory.read(at + 12, 4);
      if ((last & DESCRIPTOR.indirect) !== 0) throw new RingError('an indirect descriptor in an indirect table');
      this.memory.addBuffer(chain, high * 2 ** 32 + low, length, (last & DESCRIPTOR.write) !== 0);
      if ((last & DESCRIPTOR.next) === 0) return;
      index = last >>> 16;
    }
  }
}

/**
 * Packed virtqueues: virtio 1.2, section 2.8. One ring that both sides write, and two words by which each tells the other
 * when it wants to be told, little-endian:
 *
 *     descriptors   { address 64, length 32, buffer id 16, flags 16 } x size
 *     driver        event offset 15, event wrap 1, flags 16
 *     device        the same
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

/** Event flags (2.8.10): tell of everything, of nothing, when a certain descriptor is reached. */
const EVENT = { all: 0, none: 1, at: 2 } as const;
const WRAP_BIT = 0x8000;

/** A descriptor in words of 16 and of 32 bits. */
const ID = 6;
const FLAGS = 7;
const LENGTH = 2;

export class PackedRing implements Ring {
  private readonly memory: RingMemory;
  private readonly size: number;
  private readonly places: RingPlaces;
  private readonly features: RingFeatures;
  private readonly state: RingState;
  private generation = -1;
  private words: Uint32Array = new Uint32Array(0);
  private halves: Uint16Array = new Uint16Array(0);
  private driver: Uint16Array = new Uint16Array(0);
  private device: Uint16Array = new Uint16Array(0);

  /** @throws RingError when the ring is not in RAM */
  constructor(memory: RingMemory, size: number, places: RingPlaces, features: RingFeatures, state: RingState) {
    this.memory = memory;
    this.size = size;
    this.places = places;
    this.features = features;
    this.state = state;
    this.attach();
  }

  attach(): void {
    const { memory, size, places } = this;
    if (this.generation === memory.memory.ramGeneration) return;
    this.words = memory.words32('descriptor ring', places.descriptors, size * 4);
    this.halves = memory.words16('descriptor ring', places.descriptors, size * 8);
    this.driver = memory.words16('driver event area', places.driver, 2);
    this.device = memory.words16('device event area', places.device, 2);
    this.generation = memory.memory.ramGeneration;
  }

  hasMore(): boolean {
    const { available, availableWrap } = this.state;
    const flags = Atomics.load(this.halves, available * 8 + FLAGS);
    const [offered, used] = [(flags & DESCRIPTOR.available) !== 0, (flags & DESCRIPTOR.used) !== 0];
    return offered === availableWrap && used !== availableWrap;
  }

  pop(chain: Chain): boolean {
    if (!this.hasMore()) return false;
    this.read(chain, this.state.available);
    this.moveAvailable(chain.slots);
    return true;
  }

  /** What was used before it may have been written over it. */
  isIntact({ start, slots }: Chain): boolean {
    const { size } = this;
    const { available, used, availableWrap, usedWrap } = this.state;
    const taken = available - used + (availableWrap === usedWrap ? 0 : size);
    const distance = (start - used + size) % size;
    return distance + slots <= taken;
  }

  retake(chain: Chain): void {
    this.read(chain, chain.start);
  }

  /** @param first slot */
  private read(chain: Chain, first: number): void {
    chain.clear();
    chain.start = first;
    const { words, halves, size } = this;
    let index = first;
    for (let slots = 1; ; slots++) {
      if (slots > size) throw new RingError('a loop of descriptors');
      const flags = halves[index * 8 + FLAGS]!;
      const address = words[index * 4 + 1]! * 2 ** 32 + words[index * 4]!;
      const length = words[index * 4 + LENGTH]!;
      if ((flags & DESCRIPTOR.indirect) !== 0) {
        if ((flags & DESCRIPTOR.next) !== 0 || slots > 1) throw new RingError('an indirect descriptor in a chain');
        this.addTable(chain, address, length);
      } else {
        this.memory.addBuffer(chain, address, length, (flags & DESCRIPTOR.write) !== 0);
      }
      if ((flags & DESCRIPTOR.next) === 0) {
        chain.id = halves[index * 8 + ID]!;
        chain.slots = slots;
        break;
      }
      index = index + 1 === size ? 0 : index + 1;
    }
  }

  unpop(chain: Chain): void {
    this.moveAvailable(-chain.slots);
  }

  push(chain: Chain, written: number): void {
    const { state, words, halves } = this;
    const at = state.used;
    words[at * 4 + LENGTH] = written;
    halves[at * 8 + ID] = chain.id;
    const wrap = state.usedWrap ? DESCRIPTOR.available | DESCRIPTOR.used : 0;
    // The flags come last: by them the driver knows that the rest is there.
    Atomics.store(halves, at * 8 + FLAGS, wrap | (written > 0 ? DESCRIPTOR.write : 0));
    state.used += chain.slots;
    if (state.used < this.size) return;
    state.used -= this.size;
    state.usedWrap = !state.usedWrap;
    // Offsets of before and after cannot be compared: the driver is told once more than it need be.
    state.signalledValid = false;
  }

  publish(): boolean {
    const { state, memory, words } = this;
    memory.memory.ramChanged(words.byteOffset - memory.memory.ram.byteOffset, words.byteLength);
    const flags = Atomics.load(this.driver, 1);
    const event = Atomics.load(this.driver, 0);
    const { signalled, signalledValid, used } = state;
    state.signalled = used;
    state.signalledValid = true;
    if (flags === EVENT.none) return false;
    if (flags !== EVENT.at || !this.features.eventIndex || !signalledValid) return true;
    const sameRound = ((event & WRAP_BIT) !== 0) === state.usedWrap;
    return passed(((event & ~WRAP_BIT) - (sameRound ? 0 : this.size)) & 0xffff, used, signalled);
  }

  arm(): void {
    const { available, availableWrap } = this.state;
    if (this.features.eventIndex) Atomics.store(this.device, 0, available | (availableWrap ? WRAP_BIT : 0));
    Atomics.store(this.device, 1, this.features.eventIndex ? EVENT.at : EVENT.all);
  }

  disarm(): void {
    Atomics.store(this.device, 1, EVENT.none);
  }

  private moveAvailable(slots: number): void {
    const { state, size } = this;
    state.available += slots;
    if (state.available >= 0 && state.available < size) return;
    state.available += state.available < 0 ? size : -size;
    state.availableWrap = !state.availableWrap;
  }

  /** An indirect table: its descriptors follow one another (2.8.7). */
  private addTable(chain: Chain, addr: number, bytes: number): void {
    const { memory } = this.memory;
    if (!this.features.indirect) throw new RingError('an indirect descriptor, which was not negotiated');
    const count = bytes / DESCRIPTOR_SIZE;
    if (count < 1 || !Number.isInteger(count)) throw new RingError(`an indirect table of ${bytes} bytes`);
    if (memory.ramOffset(addr, bytes) < 0) throw new RingError('an indirect table outside memory');
    for (let i = 0; i < count; i++) {
      const at = addr + i * DESCRIPTOR_SIZE;
      const address = memory.read(at + 4, 4) * 2 ** 32 + memory.read(at, 4);
      const flags = memory.read(at + 14, 2);
      if ((flags & DESCRIPTOR.indirect) !== 0) throw new RingError('an indirect descriptor in an indirect table');
      this.memory.addBuffer(chain, address, memory.read(at + 8, 4), (flags & DESCRIPTOR.write) !== 0);
    }
  }
}

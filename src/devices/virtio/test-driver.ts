/** The driver's side of virtio for tests: negotiates, lays rings out in memory, and makes requests without a guest. */
import assert from 'node:assert/strict';
import { FlatMemory } from '../mocks.ts';
import type { Transport, VirtioDevice } from './device.ts';
import { FEATURE, featureSet, STATUS } from './features.ts';
import type { Virtqueue } from './queue.ts';

const MIB = 2 ** 20;
/** Rings lie here, a page for each of three parts of each queue; buffers come after. */
const RINGS = 0x10000;
const BUFFERS = MIB;
const PAGE = 0x2000;

export type Part = { address: number; length: number; writable: boolean };
export type UsedElement = { id: number; length: number };

/** Remembers what a device tells its driver. */
export class RecordingTransport implements Transport {
  readonly queueInterrupts: number[] = [];
  configInterrupts = 0;

  interruptQueue(queue: Virtqueue): void {
    this.queueInterrupts.push(queue.index);
  }

  interruptConfig(): void {
    this.configInterrupts++;
  }
}

export class TestDriver {
  readonly memory: FlatMemory;
  readonly transport = new RecordingTransport();
  /** The one that the driver works with now. */
  device: VirtioDevice;
  readonly rings: SplitDriver[] = [];
  /** The same rings, where they are packed ones. */
  readonly packedRings: PackedDriver[] = [];
  private nextBuffer = BUFFERS;

  constructor(make: (memory: FlatMemory) => VirtioDevice, size = 4 * MIB) {
    this.memory = new FlatMemory(size);
    this.device = make(this.memory);
    this.device.attach(this.transport);
  }

  /** Another device takes the place of this one: over the same memory, with its state. */
  handOver(other: VirtioDevice): void {
    other.attach(this.transport);
    other.load(this.device.save());
    this.device = other;
    other.afterLoad();
  }

  /** Takes all features but some, sets up all queues, and is ready. @returns what was agreed on */
  start(without: readonly number[] = []): bigint {
    const { device } = this;
    device.setStatus(0);
    device.setStatus(STATUS.acknowledge);
    device.setStatus(STATUS.acknowledge | STATUS.driver);
    device.setFeatures(device.offered & ~featureSet(...without));
    device.setStatus(STATUS.acknowledge | STATUS.driver | STATUS.featuresOk);
    assert.ok(device.status & STATUS.featuresOk, 'features were refused');
    this.rings.length = this.packedRings.length = 0;
    device.queues.forEach((queue, i) => {
      const at = RINGS + i * 3 * PAGE;
      queue.state.size = Math.min(queue.maxSize, 128);
      queue.state.descriptors[0] = at;
      queue.state.driver[0] = at + PAGE;
      queue.state.device[0] = at + 2 * PAGE;
      queue.state.enabled = true;
      this.memory.bytes.fill(0, at, at + 3 * PAGE);
      if (device.has(FEATURE.packedRing)) this.packedRings.push(new PackedDriver(this.memory, at, queue.state.size));
      else this.rings.push(new SplitDriver(this.memory, at, queue.state.size, device.has(FEATURE.eventIndex)));
    });
    device.setStatus(device.status | STATUS.driverOk);
    return device.state.features;
  }

  /** Memory that nothing else uses. */
  allocate(length: number): number {
    const address = this.nextBuffer;
    this.nextBuffer += (length + 63) & ~63;
    assert.ok(this.nextBuffer <= this.memory.bytes.length, 'the test needs more memory');
    return address;
  }

  readable(bytes: Uint8Array | readonly number[]): Part {
    const address = this.allocate(bytes.length);
    this.memory.bytes.set(bytes, address);
    return { address, length: bytes.length, writable: false };
  }

  writable(length: number): Part {
    const address = this.allocate(length);
    this.memory.bytes.fill(0xee, address, address + length);
    return { address, length, writable: true };
  }

  bytes({ address, length }: Part): Uint8Array {
    return this.memory.bytes.slice(address, address + length);
  }

  /** Makes a request available, tells the device, and takes what it has used. */
  request(queue: number, ...parts: Part[]): UsedElement[] {
    this.rings[queue]!.add(parts);
    this.device.notify(queue);
    return this.rings[queue]!.used();
  }

  /** What asynchronous requests have come to when the event loop had its turns. */
  async settled(queue: number): Promise<UsedElement[]> {
    for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
    return this.rings[queue]!.used();
  }
}

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

/** A split ring as a driver keeps it. */
export class SplitDriver {
  readonly size: number;
  readonly descriptors: number;
  readonly available: number;
  readonly usedRing: number;
  private readonly memory: FlatMemory;
  private readonly eventIndex: boolean;
  private free: number[];
  private readonly taken = new Map<number, number[]>();
  private index = 0;
  private seen = 0;

  constructor(memory: FlatMemory, at: number, size: number, eventIndex: boolean) {
    this.memory = memory;
    this.size = size;
    this.descriptors = at;
    this.available = at + PAGE;
    this.usedRing = at + 2 * PAGE;
    this.eventIndex = eventIndex;
    this.free = Array.from({ length: size }, (_, i) => i);
  }

  put(slot: number, { address, length, writable }: Part, flags = 0, next = 0): void {
    this.putAt(this.descriptors + 16 * slot, address, length, flags | (writable ? WRITE : 0), next);
  }

  putAt(at: number, address: number, length: number, flags: number, next: number): void {
    this.memory.write(at, 4, address % 2 ** 32);
    this.memory.write(at + 4, 4, Math.floor(address / 2 ** 32));
    this.memory.write(at + 8, 4, length);
    this.memory.write(at + 12, 2, flags);
    this.memory.write(at + 14, 2, next);
  }

  /** @returns the head of the chain */
  add(parts: readonly Part[]): number {
    const slots = this.free.splice(0, parts.length);
    assert.equal(slots.length, parts.length, 'the ring is full');
    parts.forEach((part, i) => {
      const last = i === parts.length - 1;
      this.put(slots[i]!, part, last ? 0 : NEXT, last ? 0 : slots[i + 1]!);
    });
    this.taken.set(slots[0]!, slots);
    this.offer(slots[0]!);
    return slots[0]!;
  }

  /** The same by an indirect table at `table`. */
  addIndirect(table: number, parts: readonly Part[]): number {
    parts.forEach(({ address, length, writable }, i) => {
      const last = i === parts.length - 1;
      this.putAt(table + 16 * i, address, length, (writable ? WRITE : 0) | (last ? 0 : NEXT), i + 1);
    });
    const [slot] = this.free.splice(0, 1);
    this.put(slot!, { address: table, length: 16 * parts.length, writable: false }, INDIRECT);
    this.taken.set(slot!, [slot!]);
    this.offer(slot!);
    return slot!;
  }

  /** Makes a chain available by its head, whatever that is. */
  offer(head: number): void {
    this.memory.write(this.available + 4 + 2 * (this.index % this.size), 2, head);
    this.index = (this.index + 1) & 0xffff;
    this.memory.write(this.available + 2, 2, this.index);
  }

  setIndex(index: number): void {
    this.index = index & 0xffff;
    this.memory.write(this.available + 2, 2, this.index);
  }

  /** Asks for an interrupt when the used index passes this one. */
  setUsedEvent(index: number): void {
    this.memory.write(this.available + 4 + 2 * this.size, 2, index);
  }

  /** Where the device wants to be told again. */
  get availableEvent(): number {
    return this.memory.read(this.usedRing + 4 + 8 * this.size, 2);
  }

  /** Everything that has been used since the last call. */
  used(): UsedElement[] {
    const now = this.memory.read(this.usedRing + 2, 2);
    const found: UsedElement[] = [];
    for (; this.seen !== now; this.seen = (this.seen + 1) & 0xffff) {
      const at = this.usedRing + 4 + 8 * (this.seen % this.size);
      const id = this.memory.read(at, 4);
      found.push({ id, length: this.memory.read(at + 4, 4) });
      this.free.push(...(this.taken.get(id) ?? []));
      this.taken.delete(id);
    }
    if (this.eventIndex) this.setUsedEvent(this.seen);
    return found;
  }
}

const AVAILABLE = 1 << 7;
const USED = 1 << 15;

/** A packed ring as a driver keeps it. */
export class PackedDriver {
  readonly size: number;
  readonly descriptors: number;
  readonly driverArea: number;
  readonly deviceArea: number;
  private readonly memory: FlatMemory;
  private next = 0;
  private wrap = true;
  private seen = 0;
  private seenWrap = true;
  private id = 0;
  private readonly slots = new Map<number, number>();

  constructor(memory: FlatMemory, at: number, size: number) {
    this.memory = memory;
    this.size = size;
    this.descriptors = at;
    this.driverArea = at + PAGE;
    this.deviceArea = at + 2 * PAGE;
  }

  /** @returns the buffer id */
  add(parts: readonly Part[], more = 0): number {
    const id = this.id++ % 1000;
    this.slots.set(id, parts.length);
    parts.forEach(({ address, length, writable }, i) => {
      const at = this.descriptors + 16 * this.next;
      this.memory.write(at, 4, address % 2 ** 32);
      this.memory.write(at + 4, 4, Math.floor(address / 2 ** 32));
      this.memory.write(at + 8, 4, length);
      this.memory.write(at + 12, 2, id);
      const chain = i < parts.length - 1 ? NEXT : 0;
      this.memory.write(at + 14, 2, (this.wrap ? AVAILABLE : USED) | chain | (writable ? WRITE : 0) | more);
      this.next = (this.next + 1) % this.size;
      if (this.next === 0) this.wrap = !this.wrap;
    });
    return id;
  }

  used(): UsedElement[] {
    const found: UsedElement[] = [];
    for (;;) {
      const at = this.descriptors + 16 * this.seen;
      const flags = this.memory.read(at + 14, 2);
      const all = AVAILABLE | USED;
      if ((flags & all) !== (this.seenWrap ? all : 0)) return found;
      const id = this.memory.read(at + 12, 2);
      if (!this.slots.has(id)) return found;
      found.push({ id, length: this.memory.read(at + 8, 4) });
      this.seen += this.slots.get(id)!;
      this.slots.delete(id);
      if (this.seen >= this.size) {
        this.seen -= this.size;
        this.seenWrap = !this.seenWrap;
      }
    }
  }
}

/** The driver's side of NVMe for tests: sets queues up in memory and gives commands without a guest. */
import assert from 'node:assert/strict';
import { FlatMemory, ManualClock, MockDisk } from '../mocks.ts';
import { type InterruptPort, NvmeController, type NvmeOptions } from './controller.ts';
import { ADMIN, FIELD, REGISTER } from './spec.ts';

const MIB = 2 ** 20;
const QUEUES = 0x10000;
const QUEUE_BYTES = 0x4000;
const BUFFERS = MIB;
const PAGE = 4096;

/** Enabled, entries of 64 and 16 bytes. */
export const ENABLE = 1 | (6 << 16) | (4 << 20);

/** Each sector holds its number. */
export const newDisk = (): MockDisk => new MockDisk(MIB);

export class RecordingPort implements InterruptPort {
  messages = true;
  readonly raised: number[] = [];
  pin = false;

  raise(vector: number): void {
    this.raised.push(vector);
  }

  setPin(level: boolean): void {
    this.pin = level;
  }
}

export type Fields = { name?: number; flags?: number; prp1?: number; prp2?: number; words?: readonly number[] };
export type Answer = { id: number; status: number; result: number; queue: number };

type Pair = { tail: number; head: number; phase: number; size: number };

export class TestDriver {
  readonly memory: FlatMemory;
  readonly clock = new ManualClock();
  readonly disk: MockDisk;
  readonly port = new RecordingPort();
  readonly controller: NvmeController;
  private readonly pairs = new Map<number, Pair>();
  private nextId = 1;
  private nextBuffer = BUFFERS;

  constructor(disk = newDisk(), more: Partial<NvmeOptions> = {}, memory = new FlatMemory(4 * MIB)) {
    this.memory = memory;
    this.disk = disk;
    const parts = { id: 'nvme0', memory: this.memory, clock: this.clock };
    const options: NvmeOptions = {
      ...{ backend: disk, serial: 'a serial', queuePairs: 4, vectors: 5, mdts: 7, aerl: 3 },
      ...{ logicalBlockSize: 512, physicalBlockSize: 512, writeCache: true, eui64: 1n },
      ...more,
    };
    this.controller = new NvmeController(parts, options, this.port);
  }

  get status(): number {
    return this.controller.readRegister(REGISTER.status);
  }

  enable(entries = 32): this {
    const { controller } = this;
    controller.writeRegister(REGISTER.adminSizes, (entries - 1) | ((entries - 1) << 16));
    controller.writeRegister(REGISTER.adminSubmission, QUEUES);
    controller.writeRegister(REGISTER.adminCompletion, QUEUES + QUEUE_BYTES / 2);
    controller.writeRegister(REGISTER.configuration, ENABLE);
    this.pairs.clear();
    this.open(0, entries);
    return this;
  }

  /** Enables the controller, and makes a pair of queues. */
  start(entries = 32): this {
    this.enable();
    const base = this.base(1);
    this.open(1, entries);
    const size = ((entries - 1) << 16) | 1;
    assert.equal(this.admin(ADMIN.createCompletion, { prp1: base + QUEUE_BYTES / 2, words: [size, (1 << 16) | 3] }).status, 0);
    assert.equal(this.admin(ADMIN.createSubmission, { prp1: base, words: [size, (1 << 16) | 1] }).status, 0);
    return this;
  }

  /** Memory that nothing else uses, from a page's start. */
  allocate(length: number): number {
    const address = this.nextBuffer;
    this.nextBuffer += Math.ceil(length / PAGE) * PAGE;
    assert.ok(this.nextBuffer <= this.memory.bytes.length, 'the test needs more memory');
    return address;
  }

  bytes(address: number, length: number): Uint8Array {
    return this.memory.bytes.slice(address, address + length);
  }

  put64(address: number, value: number): void {
    this.memory.write(address, 4, value % 2 ** 32);
    this.memory.write(address + 4, 4, Math.floor(value / 2 ** 32));
  }

  doorbell(queue: number, head: boolean, value: number): void {
    this.controller.writeRegister(REGISTER.doorbells + 8 * queue + (head ? 4 : 0), value);
  }

  /** Puts a command into a queue. @returns its identifier */
  submit(queue: number, opcode: number, { name = 0, flags = 0, prp1 = 0, prp2 = 0, words = [] }: Fields): number {
    const pair = this.pairs.get(queue)!;
    const at = this.base(queue) + 64 * pair.tail;
    const id = this.nextId++;
    this.memory.bytes.fill(0, at, at + 64);
    this.memory.write(at, 4, (opcode | (flags << 8) | (id << 16)) >>> 0);
    this.memory.write(at + FIELD.namespace, 4, name);
    this.put64(at + FIELD.prp1, prp1);
    this.put64(at + FIELD.prp2, prp2);
    words.forEach((word, i) => this.memory.write(at + FIELD.word10 + 4 * i, 4, word));
    pair.tail = (pair.tail + 1) % pair.size;
    return id;
  }

  ring(queue: number): void {
    this.doorbell(queue, false, this.pairs.get(queue)!.tail);
  }

  /** Takes what is over; the controller is told unless `keep`. */
  answers(queue: number, keep = false): Answer[] {
    const pair = this.pairs.get(queue)!;
    const found: Answer[] = [];
    for (;;) {
      const at = this.base(queue) + QUEUE_BYTES / 2 + 16 * pair.head;
      const last = this.memory.read(at + 12, 4);
      if (((last >>> 16) & 1) !== pair.phase) break;
      const from = this.memory.read(at + 10, 2);
      found.push({ id: last & 0xffff, status: (last >>> 17) & 0x7ff, result: this.memory.read(at, 4), queue: from });
      pair.head = (pair.head + 1) % pair.size;
      if (pair.head === 0) pair.phase ^= 1;
    }
    if (found.length > 0 && !keep) this.doorbell(queue, true, pair.head);
    return found;
  }

  admin(opcode: number, fields: Fields): Answer {
    this.submit(0, opcode, fields);
    this.ring(0);
    const [answer] = this.answers(0);
    assert.ok(answer, 'no answer');
    return answer;
  }

  /** One command for I/O, which is over at once. @returns its status */
  io(opcode: number, fields: Fields): number {
    this.submit(1, opcode, { name: 1, ...fields });
    this.ring(1);
    const [answer] = this.answers(1);
    assert.ok(answer, 'no answer');
    return answer.status;
  }

  /** What asynchronous requests have come to when the event loop had its turns. */
  async settled(queue: number): Promise<Answer[]> {
    for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
    this.clock.run(1);
    return this.answers(queue);
  }

  private base(queue: number): number {
    return QUEUES + queue * QUEUE_BYTES;
  }

  private open(queue: number, size: number): void {
    this.memory.bytes.fill(0, this.base(queue), this.base(queue) + QUEUE_BYTES);
    this.pairs.set(queue, { tail: 0, head: 0, phase: 1, size });
  }
}

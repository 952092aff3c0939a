/** For device tests: a clock set by hand, and lines, backends and memory that remember. */
import { gather, scatter } from '../host/pieces.ts';
import type { BlockBackend, CharBackend, Completion, CpuPort, GuestMemory, IrqLine } from '../machine/interfaces.ts';
import { HostClock } from '../machine/clock.ts';

export class ManualClock extends HostClock {
  private readonly time: { ns: number };

  constructor() {
    const time = { ns: 0 };
    super(() => time.ns);
    this.time = time;
    this.resume();
  }

  /** Moves on to a time, stopping at each timer on the way. */
  runTo(ns: number): void {
    for (let next = this.nextDeadline(); next <= ns; next = this.nextDeadline()) {
      this.time.ns = Math.max(this.time.ns, next);
      this.runTimers();
    }
    this.time.ns = ns;
  }

  run(ns: number): void {
    this.runTo(this.now() + ns);
  }
}

export class RecordingLine implements IrqLine {
  level = false;
  rises = 0;

  set(level: boolean): void {
    if (level && !this.level) this.rises++;
    this.level = level;
  }
}

export class RecordingCpu implements CpuPort {
  intr = false;
  readonly events: string[] = [];

  setIntr(pending: boolean): void {
    this.intr = pending;
  }

  nmi(): void {
    this.events.push('nmi');
  }

  smi(): void {
    this.events.push('smi');
  }

  init(): void {
    this.events.push('init');
  }

  sipi(vector: number): void {
    this.events.push(`sipi ${vector}`);
  }

  setA20(enabled: boolean): void {
    this.events.push(`a20 ${enabled}`);
  }
}

export class RecordingBackend implements CharBackend {
  output = '';
  accepts = true;
  resumed = 0;
  onReceive: ((data: Uint8Array) => number) | null = null;
  onDrain: (() => void) | null = null;

  write(data: Uint8Array): boolean {
    this.output += String.fromCharCode(...data);
    return this.accepts;
  }

  /** @returns how much the device took */
  type(text: string): number {
    return this.onReceive?.(new TextEncoder().encode(text)) ?? 0;
  }

  resume(): void {
    this.resumed++;
  }

  close(): void {
    // Nothing to release.
  }
}

/** A flat memory whose writes beyond its end are lost. */
export class FlatMemory implements GuestMemory {
  readonly bytes: Uint8Array;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
  }

  read(addr: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= (this.bytes[addr + i] ?? 0xff) << (8 * i);
    return value >>> 0;
  }

  write(addr: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.bytes[addr + i] = value >>> (8 * i);
  }

  readBytes(addr: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) into[i] = this.bytes[addr + i] ?? 0xff;
  }

  readonly ramGeneration = 0;
  /** Ranges that have been reported as changed, as [offset, length]. */
  readonly changes: [number, number][] = [];

  get ram(): Uint8Array {
    return this.bytes;
  }

  ramOffset(addr: number, length: number): number {
    return addr >= 0 && addr + length <= this.bytes.length ? addr : -1;
  }

  ramChanged(offset: number, length: number): void {
    this.changes.push([offset, length]);
  }

  ramReleased(offset: number, length: number): void {
    this.bytes.fill(0, offset, offset + length);
  }

  writeBytes(addr: number, from: Uint8Array): void {
    if (addr < this.bytes.length) this.bytes.set(from.subarray(0, this.bytes.length - addr), addr);
  }
}

type Transfers = Pick<BlockBackend, 'read' | 'write'>;

/** Transfers of many pieces for disks that know only those of one. */
export function byPieces(disk: Transfers): Pick<BlockBackend, 'readPieces' | 'writePieces'> {
  return {
    readPieces: (offset, into) => {
      const whole = new Uint8Array(into.total);
      const reading = disk.read(offset, whole);
      return reading === undefined ? scatter(whole, into) : reading.then(() => scatter(whole, into));
    },
    writePieces: (offset, from) => {
      const whole = new Uint8Array(from.total);
      gather(from, whole);
      return disk.write(offset, whole);
    },
  };
}

/** A disk whose sectors hold their numbers at first. It remembers what it was asked for, and may be slow or broken. */
export class MockDisk implements BlockBackend {
  readonly readPieces = byPieces(this).readPieces;
  readonly writePieces = byPieces(this).writePieces;
  readonly data: Uint8Array;
  readonly size: number;
  readOnly = false;
  slow = false;
  fails = false;
  readonly calls: string[] = [];

  /** @param size bytes */
  constructor(size: number) {
    this.data = new Uint8Array(size).map((_, i) => (i >> 9) & 0xff);
    this.size = size;
  }

  private end(name: string): Completion {
    this.calls.push(name);
    if (!this.slow && this.fails) throw new Error('broken');
    if (this.slow)
      return new Promise((resolve, reject) => setImmediate(() => (this.fails ? reject(new Error('broken')) : resolve())));
  }

  read(offset: number, into: Uint8Array): Completion {
    into.set(this.data.subarray(offset, offset + into.length));
    return this.end(`read ${offset} ${into.length}`);
  }

  write(offset: number, from: Uint8Array): Completion {
    this.data.set(from, offset);
    return this.end(`write ${offset} ${from.length}`);
  }

  flush(): Completion {
    return this.end('flush');
  }

  discard(offset: number, length: number): Completion {
    return this.end(`discard ${offset} ${length}`);
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    this.data.fill(0, offset, offset + length);
    return this.end(`zero ${offset} ${length} ${mayUnmap}`);
  }

  close(): void {
    // Nothing to close.
  }
}

/** A disk in memory. */
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import { BlockNode, SECTOR } from './node.ts';
import { type Schema, size } from './schema.ts';

/** Memory is saved with a machine's state by pages. */
const PAGE = 4096;

export class MemoryNode extends BlockNode {
  readonly driver = 'memory';
  private data: Uint8Array;
  /** What `data` is the beginning of. */
  private whole: Uint8Array;

  /** @param data used in place if it is whole pages */
  constructor(data: Uint8Array, readOnly: boolean) {
    super();
    this.readOnly = readOnly;
    this.data = this.whole = data;
    if (data.length % PAGE !== 0 || data.byteOffset % 8 !== 0) this.allocate(Math.ceil(data.length / SECTOR) * SECTOR);
  }

  /** All of it, and zeros up to a whole number of pages. */
  get pages(): Uint8Array {
    return this.whole;
  }

  get size(): number {
    return this.data.length;
  }

  override get zeroInit(): boolean {
    return true;
  }

  read(offset: number, into: Uint8Array): Completion {
    const part = this.data.subarray(offset, offset + into.length);
    into.set(part);
    into.fill(0, part.length);
  }

  /** Grows where one writes beyond the end, as a file does. */
  write(offset: number, from: Uint8Array): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    if (offset + from.length > this.data.length) this.resizeTo(offset + from.length);
    this.data.set(from, offset);
  }

  override writeZeroes(offset: number, length: number): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    if (offset + length > this.data.length) this.resizeTo(offset + length);
    this.data.fill(0, offset, offset + length);
  }

  override discard(offset: number, length: number): Completion {
    if (!this.readOnly) this.data.fill(0, offset, offset + length);
  }

  flush(): Completion {
    // Memory has nothing behind it.
  }

  override resize(size: number): void {
    this.resizeTo(size);
  }

  override allocatedBytes(): number {
    return this.data.length;
  }

  close(): void {
    // Nothing to release.
  }

  private resizeTo(size: number): void {
    if (size !== this.data.length) this.allocate(size);
  }

  private allocate(size: number): void {
    this.whole = new Uint8Array(Math.ceil(size / PAGE) * PAGE);
    this.whole.set(this.data.subarray(0, size));
    this.data = this.whole.subarray(0, size);
  }
}

/** What one machine's disks may take of its host's memory each. */
const MOST = 2 ** 32;
const OPTIONS = { size } satisfies Schema;

/** `memory`: an empty disk that is gone when it is closed. */
export const memoryDriver = driver({
  name: 'memory',
  protocol: true,
  options: OPTIONS,
  open: async (values, { how }) => {
    if (values.size > MOST) throw new Error(`a disk in memory has ${MOST} bytes at most`);
    return new MemoryNode(new Uint8Array(Math.ceil(values.size / SECTOR) * SECTOR), !how.writable);
  },
});

/**
 * The metadata of an open qcow2 image, and the order in which it reaches the file.
 *
 * A crash at any moment may leak clusters but corrupt nothing, because the file never refers to a cluster whose
 * refcount it does not have yet, nor frees one that it still refers to:
 *
 *   refcounts that grow  ->  L2 tables  ->  refcounts that shrink (`release`)
 */
import type { BlockNode } from '../node.ts';
import { Lock, type Task } from '../task.ts';
import { encodeHeader, hasExtendedL2, type Header, INCOMPATIBLE, viewOf, write64 } from './header.ts';
import { Refcounts } from './refcounts.ts';
import { TableCache } from './tables.ts';

/** Part of an L2 table that is read and kept at a time. */
const SLICE = 16384;
const DEFAULT_L2_CACHE = 32 * 2 ** 20;
/** Clusters waiting to be freed before the tables are written for their sake. */
const MAX_RELEASED = 8192;

export const COPIED = 0x80000000;
export const COMPRESSED = 0x40000000;
const OFFSET_HIGH = 0x00ffffff;

/** Offset bits of an entry of an L1 or L2 table. */
export const entryOffset = (view: DataView, at: number): number =>
  (view.getUint32(at) & OFFSET_HIGH) * 2 ** 32 + ((view.getUint32(at + 4) & ~511) >>> 0);

export type CacheSizes = { readonly l2: number | null; readonly refcount: number | null };

export class Image {
  readonly header: Header;
  readonly file: BlockNode;
  /** Where guest data is: the same file, or one of its own. */
  readonly data: BlockNode;
  readonly clusterSize: number;
  readonly entrySize: number;
  /** Entries of a whole L2 table. */
  readonly l2Entries: number;
  /** Smallest unit with a mapping of its own, bytes. */
  readonly unit: number;
  readonly l2: TableCache;
  readonly refcounts: Refcounts;
  /** The active L1 table, as in the file. */
  l1: DataView;
  readonly readOnly: boolean;
  /** Refcounts may be behind in the file; the dirty bit says so. */
  lazy: boolean;
  /** Data was written that tables will refer to: it must be stable before they are. */
  barrier = false;
  /** Told of clusters that have become free. */
  onFreed: ((cluster: number, count: number) => void) | null = null;
  /** The mark that the image is corrupt, on its way to the file. */
  marking: Promise<void> | null = null;
  private corrupt = false;
  private readonly report: (line: string) => void;
  private readonly writeLock = new Lock();
  private released: { cluster: number; count: number }[] = [];
  private releasedCount = 0;
  private metadata: Set<number> | null = null;
  /** Writes in place under way, in two generations: what they write to must not be given to others yet. */
  private readonly writers = [0, 0];
  private generation = 0;
  private generationEnds: (() => void) | null = null;

  constructor(
    header: Header,
    l1: DataView,
    reftable: DataView,
    files: { file: BlockNode; data: BlockNode; readOnly: boolean },
    cache: CacheSizes,
    report: (line: string) => void,
  ) {
    this.header = header;
    this.l1 = l1;
    this.file = files.file;
    this.data = files.data;
    this.readOnly = files.readOnly;
    this.report = report;
    this.clusterSize = 2 ** header.clusterBits;
    this.entrySize = hasExtendedL2(header) ? 16 : 8;
    this.l2Entries = this.clusterSize / this.entrySize;
    this.unit = hasExtendedL2(header) ? this.clusterSize / 32 : this.clusterSize;
    this.lazy = (header.compatible & 1) !== 0;
    const slice = Math.min(this.clusterSize, SLICE);
    const needed = Math.ceil((header.size / this.clusterSize) * this.entrySize);
    const l2Bytes = cache.l2 ?? Math.min(DEFAULT_L2_CACHE, needed);
    this.l2 = new TableCache(this.file, slice, Math.max(8, Math.ceil(l2Bytes / slice) + 2), () => this.writeTables());
    this.refcounts = new Refcounts(this, reftable, cache.refcount);
  }

  get isCorrupt(): boolean {
    return this.corrupt;
  }

  get hasDataFile(): boolean {
    return this.data !== this.file;
  }

  /** @returns an error to throw: the image contradicts itself, and is not written to any more */
  markCorrupt(why: string): Error {
    if (!this.corrupt && !this.readOnly) {
      this.report(`qcow2: Marking image as corrupt: ${why}; further corruption events will be suppressed`);
      this.corrupt = true;
      if (this.header.version === 3) {
        this.header.incompatible |= INCOMPATIBLE.corrupt;
        // If this fails, too, there is nothing left to do.
        this.marking = new Promise<void>((resolve) => resolve(this.writeFeatures())).catch(() => undefined);
      }
    } else if (!this.corrupt) {
      this.corrupt = true;
      this.report(`qcow2: Image is corrupt: ${why}; further non-fatal corruption events will be suppressed`);
      this.corrupt = false;
    }
    return new Error(`the image is corrupt: ${why}`);
  }

  private writeFeatures() {
    const bytes = new Uint8Array(24);
    const view = viewOf(bytes);
    view.setUint32(4, this.header.incompatible);
    view.setUint32(12, this.header.compatible);
    view.setUint32(20, this.header.autoclear);
    return this.file.write(72, bytes);
  }

  /** Writes the feature bits and waits until they are stable. */
  *saveFeatures(): Task<void> {
    const writing = this.writeFeatures();
    if (writing !== undefined) yield writing;
    const flushing = this.file.flush();
    if (flushing !== undefined) yield flushing;
  }

  /** Writes the whole header. */
  *saveHeader(): Task<void> {
    const writing = this.file.write(0, encodeHeader(this.header));
    if (writing !== undefined) yield writing;
  }

  /** Refcounts are about to change without reaching the file soon. */
  *beginLazy(): Task<void> {
    if (!this.lazy || (this.header.incompatible & INCOMPATIBLE.dirty) !== 0) return;
    this.header.incompatible |= INCOMPATIBLE.dirty;
    yield* this.saveFeatures();
  }

  /** @returns entry of the L1 table: offset of the L2 table, 0 for none */
  l2Offset(index: number): number {
    const offset = entryOffset(this.l1, index * 8);
    if (offset % this.clusterSize !== 0) {
      throw this.markCorrupt(`L2 table offset 0x${offset.toString(16)} unaligned (L1 index: 0x${index.toString(16)})`);
    }
    if (offset >= this.file.size) {
      throw this.markCorrupt(
        `L2 table offset 0x${offset.toString(16)} beyond the end of the file (L1 index: 0x${index.toString(16)})`,
      );
    }
    return offset;
  }

  l2Copied(index: number): boolean {
    return (this.l1.getUint32(index * 8) & COPIED) !== 0;
  }

  /** Changes an entry of the L1 table, in the file first. What it refers to must be there. */
  *setL2Offset(index: number, offset: number): Task<void> {
    // Whole sectors: neighbours of an entry are as they are in memory.
    const from = index * 8 - ((index * 8) % 512);
    const bytes = new Uint8Array(Math.min(512, this.l1.byteLength - from));
    bytes.set(new Uint8Array(this.l1.buffer, this.l1.byteOffset + from, bytes.length));
    const view = viewOf(bytes);
    write64(view, index * 8 - from, offset);
    if (offset !== 0) view.setUint8(index * 8 - from, view.getUint8(index * 8 - from) | 0x80);
    const high = view.getUint32(index * 8 - from);
    const low = view.getUint32(index * 8 - from + 4);
    const writing = this.file.write(this.header.l1Offset + from, bytes);
    if (writing !== undefined) yield writing;
    this.l1.setUint32(index * 8, high);
    this.l1.setUint32(index * 8 + 4, low);
  }

  /** These clusters are no longer referred to by the tables in memory; they become free when those in the file say so, too. */
  release(cluster: number, count: number): void {
    const { released } = this;
    const last = released[released.length - 1];
    if (last !== undefined && last.cluster + last.count === cluster) last.count += count;
    else released.push({ cluster, count });
    this.releasedCount += count;
  }

  get releasedMany(): boolean {
    return this.releasedCount > MAX_RELEASED;
  }

  /** Writes changed tables in order, then frees what they no longer refer to. */
  *writeTables(): Task<void> {
    if (this.corrupt) throw new Error('the image is corrupt and is not written to');
    yield* this.writeLock.acquire();
    try {
      const { released } = this;
      this.released = [];
      this.releasedCount = 0;
      const l2 = this.l2.takeDirty();
      if (!this.lazy || l2.length === 0) yield* this.writeRefcounts(l2.length > 0);
      if (l2.length > 0 && this.barrier) yield* this.sync();
      yield* this.l2.put(l2);
      if (released.length > 0) yield* this.free(released);
    } finally {
      this.writeLock.release();
    }
  }

  private *writeRefcounts(order: boolean): Task<void> {
    const any = yield* this.refcounts.cache.writeDirty();
    if (order && any) this.barrier = true;
  }

  private *free(released: readonly { cluster: number; count: number }[]): Task<void> {
    // The tables must not be older than the refcounts after a crash of the host.
    yield* this.sync();
    yield* this.quiesceWriters();
    for (const { cluster, count } of released) yield* this.refcounts.change(cluster, count, -1);
  }

  /** Everything written so far is stable afterwards. */
  *flush(): Task<void> {
    if (!this.readOnly && (this.l2.anyDirty || this.refcounts.cache.anyDirty || this.releasedCount > 0)) {
      yield* this.writeTables();
      if (this.refcounts.cache.anyDirty && !this.lazy) yield* this.writeTables();
    }
    yield* this.sync();
  }

  private *sync(): Task<void> {
    this.barrier = false;
    const own = this.file.flush();
    if (own !== undefined) yield own;
    if (!this.hasDataFile) return;
    const other = this.data.flush();
    if (other !== undefined) yield other;
  }

  /** A write to a cluster in place begins. @returns what to end it with */
  beginWrite(): number {
    this.writers[this.generation]!++;
    return this.generation;
  }

  endWrite(generation: number): void {
    if (--this.writers[generation]! === 0 && generation !== this.generation) this.generationEnds?.();
  }

  /** Waits for the writes in place that are under way now. */
  private *quiesceWriters(): Task<void> {
    const old = this.generation;
    this.generation ^= 1;
    if (this.writers[old] === 0) return;
    yield new Promise<void>((resolve) => {
      this.generationEnds = resolve;
    });
    this.generationEnds = null;
  }

  /** Clusters that hold metadata: guest data that lies there is a lie of the image's. */
  isMetadata(cluster: number): boolean {
    this.metadata ??= this.collectMetadata();
    return this.metadata.has(cluster);
  }

  noteMetadata(offset: number, clusters: number): void {
    const first = offset / this.clusterSize;
    for (let i = 0; i < clusters; i++) this.metadata?.add(first + i);
  }

  forgetMetadata(cluster: number): void {
    this.metadata?.delete(cluster);
  }

  private collectMetadata(): Set<number> {
    const found = new Set<number>([0]);
    const { clusterSize, header } = this;
    const range = (offset: number, bytes: number): void => {
      const first = Math.floor(offset / clusterSize);
      for (let at = first; at * clusterSize < offset + bytes; at++) found.add(at);
    };
    range(header.l1Offset, header.l1Entries * 8);
    range(header.reftableOffset, header.reftableClusters * clusterSize);
    if (header.snapshots > 0) range(header.snapshotsOffset, 1);
    for (let i = 0; i < header.l1Entries; i++) {
      const offset = entryOffset(this.l1, i * 8);
      if (offset !== 0) found.add(Math.floor(offset / clusterSize));
    }
    for (const offset of this.refcounts.blockOffsets()) found.add(offset / clusterSize);
    return found;
  }
}

/**
 * From guest offsets to what the L2 tables say of them.
 *
 *   L2 entry      63 copied (refcount is one)   62 compressed   55..9 offset in the file   0 reads as zeros
 *   extended      followed by 32 bits "subcluster reads as zeros", then 32 bits "subcluster is allocated"
 *   compressed    61..x sectors beyond the first   x-1..0 offset in bytes, x = 62 - (cluster bits - 8)
 */
import { MAX_SIZE } from '../node.ts';
import type { Task } from '../task.ts';
import { COMPRESSED, COPIED, entryOffset, type Image } from './image.ts';
import { INCOMPATIBLE } from './header.ts';
import type { Table } from './tables.ts';

/** Kinds of runs. */
export const NONE = 0;
export const ZERO = 1;
export const DATA = 2;
export const PACKED = 3;

/** What a stretch of the guest's disk is. */
export type Run = {
  kind: number;
  /** Where it lies, of data; where its cluster lies, of other kinds; -1 for nowhere. */
  host: number;
  length: number;
  /** Bytes of compressed data, from `host` on, at most. */
  packed: number;
};

export class Mapping {
  private readonly image: Image;
  private readonly extended: boolean;
  private readonly clusterSize: number;
  private readonly clusterBits: number;
  private readonly entrySize: number;
  /** Entries in a slice, and what they map, bytes. */
  readonly sliceEntries: number;
  private readonly sliceSpan: number;
  /** What an L1 entry maps, bytes. */
  readonly l2Span: number;

  constructor(image: Image) {
    this.image = image;
    this.extended = image.entrySize === 16;
    this.clusterSize = image.clusterSize;
    this.clusterBits = image.header.clusterBits;
    this.entrySize = image.entrySize;
    this.sliceEntries = image.l2.length / image.entrySize;
    this.sliceSpan = this.sliceEntries * this.clusterSize;
    this.l2Span = image.l2Entries * this.clusterSize;
  }

  /** Index of the L1 entry for a guest offset. */
  l1Index(offset: number): number {
    return Math.floor(offset / this.l2Span);
  }

  /** Where the slice for a guest offset begins within its L2 table, bytes. */
  sliceAt(offset: number): number {
    return Math.floor((offset % this.l2Span) / this.sliceSpan) * this.image.l2.length;
  }

  /** Byte of an entry within its slice. */
  entryAt(offset: number): number {
    return Math.floor((offset % this.sliceSpan) / this.clusterSize) * this.entrySize;
  }

  /** Bytes from an offset to the end of its slice. */
  leftInSlice(offset: number): number {
    return this.sliceSpan - (offset % this.sliceSpan);
  }

  /** @returns the slice if it is in memory; null where it would have to be read, or there is none */
  peek(offset: number): Table | null {
    const l2 = this.image.l2Offset(this.l1Index(offset));
    return l2 === 0 ? null : this.image.l2.peek(l2 + this.sliceAt(offset));
  }

  /** @returns null where there is no L2 table */
  *slice(offset: number): Task<Table | null> {
    const l2 = this.image.l2Offset(this.l1Index(offset));
    return l2 === 0 ? null : yield* this.image.l2.get(l2 + this.sliceAt(offset));
  }

  *find(offset: number, length: number): Task<Run> {
    const slice = yield* this.slice(offset);
    if (slice !== null) return this.runAt(slice, offset, length);
    // Whatever else is in this L1 entry's range is not there either.
    const left = this.l2Span - (offset % this.l2Span);
    return { kind: NONE, host: -1, length: Math.min(length, left), packed: 0 };
  }

  /** What is at an offset, as far as it goes on the same way within the slice. */
  runAt(slice: Table, offset: number, length: number): Run {
    const within = offset % this.clusterSize;
    const limit = Math.min(length, this.leftInSlice(offset));
    const { view } = slice;
    let at = this.entryAt(offset);
    if ((view.getUint32(at) & COMPRESSED) !== 0) return this.packedRun(view, at, Math.min(limit, this.clusterSize - within));
    if (this.extended) return this.extendedRun(slice, offset, limit);
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const kind = this.kindOf(high, low);
    const first = kind === DATA ? this.hostOf(view, at, offset - within) : -1;
    let next = first + this.clusterSize;
    let covered = this.clusterSize - within;
    if (kind === NONE && !this.image.hasDataFile) {
      // Most entries of most disks. What is no plain zero is looked at below.
      const { entries } = slice;
      while (covered < limit && entries[(at >> 3) + 1] === 0) {
        at += 8;
        covered += this.clusterSize;
      }
    }
    for (; covered < limit; covered += this.clusterSize) {
      at += 8;
      const h = view.getUint32(at);
      const l = view.getUint32(at + 4);
      if ((h & COMPRESSED) !== 0 || this.kindOf(h, l) !== kind) break;
      if (kind === DATA) {
        if ((h & 0x00ffffff) * 2 ** 32 + ((l & ~511) >>> 0) !== next) break;
        next += this.clusterSize;
      }
    }
    const host = kind === DATA ? first + within : this.allocatedHost(view, this.entryAt(offset));
    return { kind, host, length: Math.min(limit, covered), packed: 0 };
  }

  private kindOf(high: number, low: number): number {
    if ((low & 1) !== 0 && this.image.header.version > 2) return ZERO;
    if ((high & 0x00ffffff) !== 0 || (low & ~511) !== 0) return DATA;
    return this.image.hasDataFile && (high & COPIED) !== 0 ? DATA : NONE;
  }

  /** Host cluster of an entry that is not compressed, -1 if it has none. */
  allocatedHost(view: DataView, at: number): number {
    const offset = entryOffset(view, at);
    if (offset !== 0) return offset;
    return this.image.hasDataFile && (view.getUint32(at) & COPIED) !== 0 ? 0 : -1;
  }

  private hostOf(view: DataView, at: number, guest: number): number {
    return this.checkedHost(entryOffset(view, at), guest);
  }

  /** @throws Error where a guest's cluster cannot lie there */
  checkedHost(host: number, guest: number): number {
    if (host % this.clusterSize !== 0 || host > MAX_SIZE) {
      throw this.image.markCorrupt(
        `Data cluster offset 0x${host.toString(16)} unaligned or out of range (guest offset: 0x${guest.toString(16)})`,
      );
    }
    if ((this.image.header.incompatible & INCOMPATIBLE.dataFile) !== 0 && host !== guest) {
      throw this.image.markCorrupt(
        `External data file host cluster offset 0x${host.toString(16)} does not match guest cluster offset: 0x${guest.toString(16)}`,
      );
    }
    return host;
  }

  private packedRun(view: DataView, at: number, length: number): Run {
    const { host, packed } = this.packedAt(view, at);
    return { kind: PACKED, host, length, packed };
  }

  /** Where the compressed data of an entry lies, and how much there is at most. */
  packedAt(view: DataView, at: number): { host: number; packed: number } {
    // Fields of the high word: 30 bits are the descriptor's.
    const sectorsAt = 62 - (this.clusterBits - 8) - 32;
    const high = view.getUint32(at) & 0x3fffffff;
    const host = (high & (2 ** sectorsAt - 1)) * 2 ** 32 + view.getUint32(at + 4);
    const sectors = (high >>> sectorsAt) + 1;
    return { host, packed: sectors * 512 - (host % 512) };
  }

  /** Kind of a subcluster of an entry that is not compressed. */
  subKind(view: DataView, at: number, index: number): number {
    const zero = (view.getUint32(at + 8) >>> index) & 1;
    const allocated = (view.getUint32(at + 12) >>> index) & 1;
    if (zero & allocated) throw this.image.markCorrupt('a subcluster is both allocated and zero');
    if (zero) return ZERO;
    return allocated ? DATA : NONE;
  }

  private extendedRun(slice: Table, offset: number, limit: number): Run {
    const { view } = slice;
    const { unit } = this.image;
    const within = offset % this.clusterSize;
    let at = this.entryAt(offset);
    let index = Math.floor(within / unit);
    const kind = this.subKind(view, at, index);
    const base = this.allocatedHost(view, at);
    if (kind === DATA && base < 0) throw this.image.markCorrupt('an allocated subcluster has no host cluster');
    if (kind === DATA) this.hostOf(view, at, offset - within);
    let covered = unit - (within % unit);
    let expected = base;
    for (; covered < limit; covered += unit) {
      if (++index === 32) {
        index = 0;
        at += 16;
        if ((view.getUint32(at) & COMPRESSED) !== 0) break;
        expected += this.clusterSize;
        if (kind === DATA && this.allocatedHost(view, at) !== expected) break;
      }
      if (this.subKind(view, at, index) !== kind) break;
    }
    return { kind, host: kind === DATA ? base + within : base, length: Math.min(limit, covered), packed: 0 };
  }
}

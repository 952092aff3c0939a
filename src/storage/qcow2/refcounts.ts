/**
 * Refcounts of the file's clusters: a table of blocks, each of one cluster of counts of 1 to 64 bits.
 */
import { Lock, type Task } from '../task.ts';
import type { Image } from './image.ts';
import { read64, viewOf, write64 } from './header.ts';
import { type Table, TableCache } from './tables.ts';

const DEFAULT_BLOCKS = 64;
/** Offsets in the table are multiples of a cluster, 512 bytes at least. */
const BLOCK_MASK = 511;
/** Largest table, bytes: what `header.ts` takes. */
const MAX_TABLE_BYTES = 8 * 2 ** 20;

/** One count of a block. */
export function getRefcount(view: DataView, index: number, order: number): number {
  switch (order) {
    case 4:
      return view.getUint16(index * 2);
    case 3:
      return view.getUint8(index);
    case 5:
      return view.getUint32(index * 4);
    case 6:
      return read64(view, index * 8);
    default: {
      const bits = 1 << order;
      const perByte = 8 / bits;
      return (view.getUint8(Math.floor(index / perByte)) >> ((index % perByte) * bits)) & ((1 << bits) - 1);
    }
  }
}

export function setRefcount(view: DataView, index: number, order: number, value: number): void {
  switch (order) {
    case 4:
      return view.setUint16(index * 2, value);
    case 3:
      return view.setUint8(index, value);
    case 5:
      return view.setUint32(index * 4, value);
    case 6:
      return write64(view, index * 8, value);
    default: {
      const bits = 1 << order;
      const perByte = 8 / bits;
      const at = Math.floor(index / perByte);
      const shift = (index % perByte) * bits;
      view.setUint8(at, (view.getUint8(at) & ~(((1 << bits) - 1) << shift)) | (value << shift));
    }
  }
}

export class Refcounts {
  readonly cache: TableCache;
  /** Counts in a block. */
  perBlock = 0;
  private readonly image: Image;
  private order = 0;
  private most = 0;
  /** As in the file. */
  private table: DataView;
  /** No cluster below is free. */
  private hint = 0;
  private readonly growing = new Lock();

  constructor(image: Image, table: DataView, cacheBytes: number | null) {
    this.image = image;
    this.table = table;
    this.setWidth(image.header.refcountOrder);
    const blocks = cacheBytes === null ? DEFAULT_BLOCKS : Math.ceil(cacheBytes / image.clusterSize);
    // Counts in memory are never ahead of the tables in the file in what they free, so that they may be written at any time.
    this.cache = new TableCache(image.file, image.clusterSize, Math.max(4, blocks), () => this.save());
  }

  /** @param order base 2 logarithm of a count's bits */
  private setWidth(order: number): void {
    this.order = order;
    this.perBlock = (this.image.clusterSize * 8) >> order;
    this.most = order === 6 ? 2 ** 53 - 1 : 2 ** (1 << order) - 1;
  }

  private *save(): Task<void> {
    yield* this.cache.writeDirty();
  }

  get entries(): number {
    return this.table.byteLength / 8;
  }

  blockOffset(index: number): number {
    if (index >= this.entries) return 0;
    const offset = read64(this.table, index * 8);
    if (offset % this.image.clusterSize !== 0) {
      throw this.image.markCorrupt(
        `Refblock offset 0x${offset.toString(16)} unaligned (reftable index: 0x${index.toString(16)})`,
      );
    }
    return offset;
  }

  /** As the table has it, without a look at whether it can be. */
  rawBlockOffset(index: number): number {
    return index < this.entries ? read64(this.table, index * 8) : 0;
  }

  /** Whether a cluster's count can be changed where it is. */
  hasBlock(cluster: number): boolean {
    const offset = this.rawBlockOffset(Math.floor(cluster / this.perBlock));
    return offset !== 0 && offset % this.image.clusterSize === 0 && offset < this.image.file.size;
  }

  /** Clusters of the table and its blocks. */
  places(): Set<number> {
    const { header, clusterSize } = this.image;
    const found = new Set<number>();
    for (let i = 0; i < header.reftableClusters; i++) found.add(header.reftableOffset / clusterSize + i);
    for (const offset of this.blockOffsets()) if (offset % clusterSize === 0) found.add(offset / clusterSize);
    return found;
  }

  /** Sets one count, for repairs. */
  *setExactly(cluster: number, value: number): Task<void> {
    const table = yield* this.cache.get(this.rawBlockOffset(Math.floor(cluster / this.perBlock)));
    setRefcount(table.view, cluster % this.perBlock, this.order, Math.min(value, this.most));
    this.cache.changed(table);
    this.hint = 0;
  }

  /** Another table, complete in the file, takes the place of this one. */
  *replaceTable(offset: number, clusters: number, bytes: Uint8Array, order: number): Task<void> {
    const { image } = this;
    for (const old of this.blockOffsets()) this.cache.forget(old, image.clusterSize);
    if (order === this.order) yield* this.moveTable(offset, clusters);
    else {
      // Place and width change in one write of the header's sector.
      Object.assign(image.header, { reftableOffset: offset, reftableClusters: clusters, refcountOrder: order });
      yield* image.saveHeader();
      this.setWidth(order);
    }
    this.table = viewOf(bytes);
    this.hint = 0;
  }

  *blockOffsets(): Generator<number, void, void> {
    const { entries, table } = this;
    for (let i = 0; i < entries; i++) {
      // Most of a table's thousands are zeros.
      if (table.getUint32(i * 8 + 4) === 0 && table.getUint32(i * 8) === 0) continue;
      const offset = read64(table, i * 8);
      if ((offset & BLOCK_MASK) === 0) yield offset;
    }
  }

  /** @returns the count of a cluster */
  *get(cluster: number): Task<number> {
    const offset = this.blockOffset(Math.floor(cluster / this.perBlock));
    if (offset === 0) return 0;
    return getRefcount((yield* this.cache.get(offset)).view, cluster % this.perBlock, this.order);
  }

  /** @returns the block of a cluster, which is made if there is none */
  private *blockFor(cluster: number): Task<Table> {
    const index = Math.floor(cluster / this.perBlock);
    for (;;) {
      const offset = this.blockOffset(index);
      if (offset !== 0) return yield* this.cache.get(offset);
      yield* this.addBlock(index, cluster);
    }
  }

  private *addBlock(index: number, cluster: number): Task<void> {
    const { reftableOffset, reftableClusters } = this.image.header;
    let grown = false;
    yield* this.growing.acquire();
    try {
      grown = index >= this.entries;
      if (grown) yield* this.writeLargerTable(index);
      else if (this.blockOffset(index) === 0) yield* this.writeBlock(index, cluster);
    } finally {
      this.growing.release();
    }
    if (grown) yield* this.free(reftableOffset, reftableClusters);
  }

  /** The first free cluster of those that a new block counts holds the block itself. */
  private *writeBlock(index: number, cluster: number): Task<void> {
    const { image, perBlock, order } = this;
    // Nothing in this range is counted, so all of it should be free; what is before `cluster` is left to others.
    const offset = this.checked(cluster, 1) * image.clusterSize;
    const bytes = new Uint8Array(image.clusterSize);
    setRefcount(viewOf(bytes), cluster % perBlock, order, 1);
    const writing = image.file.write(offset, bytes);
    if (writing !== undefined) yield writing;
    yield* this.setBlock(index, offset);
    image.noteMetadata(offset, 1);
  }

  private *setBlock(index: number, offset: number): Task<void> {
    const bytes = new Uint8Array(8);
    write64(viewOf(bytes), 0, offset);
    const flushing = this.image.file.flush();
    if (flushing !== undefined) yield flushing;
    const writing = this.image.file.write(this.image.header.reftableOffset + index * 8, bytes);
    if (writing !== undefined) yield writing;
    write64(this.table, index * 8, offset);
  }

  /**
   * A larger table, with the blocks that count it, at the first cluster that the old one did not reach. All of it is
   * written before the header refers to it.
   */
  private *writeLargerTable(index: number): Task<void> {
    const { image, perBlock, order } = this;
    const { clusterSize } = image;
    const first = this.entries * perBlock;
    const wanted = Math.max(index + 1, Math.ceil(this.entries * 1.5)) + 1;
    let blocks = 1;
    let clusters = 0;
    for (;;) {
      clusters = Math.ceil(((Math.max(wanted, this.entries + blocks) + 1) * 8) / clusterSize);
      const needed = Math.ceil((blocks + clusters) / perBlock);
      if (needed <= blocks) break;
      blocks = needed;
    }
    if (clusters * clusterSize > MAX_TABLE_BYTES)
      throw new Error('the image cannot become any larger: its reference count table is full');
    const bytes = new Uint8Array((blocks + clusters) * clusterSize);
    const view = viewOf(bytes);
    for (let i = 0; i < blocks + clusters; i++) {
      const block = new DataView(bytes.buffer, Math.floor(i / perBlock) * clusterSize, clusterSize);
      setRefcount(block, i % perBlock, order, 1);
    }
    const tableAt = blocks * clusterSize;
    bytes.set(new Uint8Array(this.table.buffer, this.table.byteOffset, this.table.byteLength), tableAt);
    for (let i = 0; i < blocks; i++) write64(view, tableAt + (this.entries + i) * 8, (first + i) * clusterSize);
    const writing = image.file.write(first * clusterSize, bytes);
    if (writing !== undefined) yield writing;
    const flushing = image.file.flush();
    if (flushing !== undefined) yield flushing;
    yield* this.moveTable((first + blocks) * clusterSize, clusters);
    this.table = new DataView(bytes.slice(tableAt).buffer);
    image.noteMetadata(first * clusterSize, blocks + clusters);
  }

  /** Offset and length of the table lie side by side in the header and change together. */
  private *moveTable(offset: number, clusters: number): Task<void> {
    const { header, file } = this.image;
    const bytes = new Uint8Array(12);
    write64(viewOf(bytes), 0, offset);
    viewOf(bytes).setUint32(8, clusters);
    const writing = file.write(48, bytes);
    if (writing !== undefined) yield writing;
    const flushing = file.flush();
    if (flushing !== undefined) yield flushing;
    header.reftableOffset = offset;
    header.reftableClusters = clusters;
  }

  /**
   * Finds free clusters and takes them.
   * @param most clusters in a row that are of use
   * @returns the first, and how many there are, 1 at least
   */
  *allocate(most: number): Task<{ cluster: number; count: number }> {
    yield* this.image.beginLazy();
    let cluster = this.hint;
    for (;;) {
      const table = yield* this.blockFor(cluster);
      // Others may have allocated meanwhile; from here to the end nobody can.
      if (cluster < this.hint) cluster = this.hint;
      const base = Math.floor(cluster / this.perBlock) * this.perBlock;
      if (this.blockOffset(base / this.perBlock) !== table.offset) continue;
      const first = this.findFree(table.view, cluster - base);
      if (first === this.perBlock) {
        cluster = base + this.perBlock;
        this.hint = Math.max(this.hint, cluster);
        continue;
      }
      const count = this.take(table, first, most);
      // Compressed data may be looking for a neighbour; nobody frees below the hint without lowering it.
      this.hint = base + first + count;
      return { cluster: this.checked(base + first, count), count };
    }
  }

  private findFree(view: DataView, from: number): number {
    const { perBlock, order } = this;
    for (let i = from; i < perBlock; i++) if (getRefcount(view, i, order) === 0) return i;
    return perBlock;
  }

  private take(table: Table, first: number, most: number): number {
    const end = Math.min(this.perBlock, first + most);
    let at = first;
    while (at < end && getRefcount(table.view, at, this.order) === 0) setRefcount(table.view, at++, this.order, 1);
    this.cache.changed(table);
    return at - first;
  }

  /** An image may claim that the space of its tables is free. */
  private checked(cluster: number, count: number): number {
    for (let i = 0; i < count; i++) {
      if (this.image.isMetadata(cluster + i)) {
        throw this.image.markCorrupt(
          `Preventing invalid allocation of a cluster at offset 0x${((cluster + i) * this.image.clusterSize).toString(16)}, which holds metadata`,
        );
      }
    }
    return cluster;
  }

  /** @returns how many of `count` clusters from `cluster` on were free and are taken now */
  *allocateAt(cluster: number, count: number): Task<number> {
    yield* this.image.beginLazy();
    const table = yield* this.blockFor(cluster);
    const at = cluster % this.perBlock;
    if (getRefcount(table.view, at, this.order) !== 0) return 0;
    const taken = this.take(table, at, count);
    this.checked(cluster, taken);
    return taken;
  }

  /** Takes clusters that all lie in a row. @returns the offset of the first */
  *allocateRow(count: number): Task<number> {
    for (;;) {
      const found = yield* this.allocate(count);
      let have = found.count;
      while (have < count) {
        const more = yield* this.allocateAt(found.cluster + have, count - have);
        if (more === 0) break;
        have += more;
      }
      if (have === count) return found.cluster * this.image.clusterSize;
      // Nothing refers to them; they are left behind the hint until there is a row of this length.
      const hint = found.cluster + have + 1;
      yield* this.change(found.cluster, have, -1);
      this.hint = hint;
    }
  }

  /**
   * Changes the counts of clusters.
   * @throws Error where a count would leave its range: the image is corrupt, or the width too small
   */
  *change(cluster: number, count: number, by: 1 | -1): Task<void> {
    const { image, order } = this;
    yield* image.beginLazy();
    let freed = -1;
    for (let at = cluster; at < cluster + count; at++) {
      const offset = this.blockOffset(Math.floor(at / this.perBlock));
      if (offset === 0)
        throw image.markCorrupt(`cluster 0x${(at * image.clusterSize).toString(16)} is used and was never counted`);
      const table = yield* this.cache.get(offset);
      const index = at % this.perBlock;
      const value = getRefcount(table.view, index, order) + by;
      if (value < 0) throw image.markCorrupt(`cluster 0x${(at * image.clusterSize).toString(16)} is freed and was free already`);
      if (value > this.most) throw new Error('a reference count of the image cannot become any larger');
      setRefcount(table.view, index, order, value);
      this.cache.changed(table);
      if (value === 0 && freed < 0) freed = at;
      if (freed >= 0 && (value !== 0 || at === cluster + count - 1)) {
        yield* this.becameFree(freed, (value === 0 ? at + 1 : at) - freed);
        freed = -1;
      }
    }
  }

  /** Like `change`, for clusters of tables that nothing in the file refers to any more. */
  *free(offset: number, clusters: number): Task<void> {
    yield* this.change(offset / this.image.clusterSize, clusters, -1);
  }

  private *becameFree(cluster: number, count: number): Task<void> {
    const { image } = this;
    const { clusterSize } = image;
    for (let i = 0; i < count; i++) image.forgetMetadata(cluster + i);
    image.onFreed?.(cluster, count);
    image.l2.forget(cluster * clusterSize, count * clusterSize);
    this.hint = Math.min(this.hint, cluster);
    const end = Math.min(image.file.size, (cluster + count) * clusterSize);
    if (image.hasDataFile || end <= cluster * clusterSize) return;
    const discarding = image.file.discard(cluster * clusterSize, end - cluster * clusterSize);
    if (discarding !== undefined) yield discarding;
  }
}

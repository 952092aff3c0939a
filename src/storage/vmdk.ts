/**
 * VMDK, the format of VMware ("Virtual Disk Format 5.0"). Numbers are little-endian.
 *
 * Header of a sparse extent ("KDMV"; numbers of sectors unless stated otherwise):
 *   4 version   8 flags   12 capacity (64 bits)   20 grain   28 descriptor's offset   36 its size   44 entries of a table
 *   48 offset of the second directory   56 of the first   64 overhead   72 not shut down   77 compression (16 bits)
 * The directory has offsets of tables, those have offsets of grains; 0 stands for none, 1 for zeros if flag 4 is set.
 */
import { deflate, inflate } from '#host/compression';
import type { Completion } from '../machine/interfaces.ts';
import { ABSENT, ClusterNode, EntryTable, endOf, ZEROED } from './clusters.ts';
import type { BlockNode } from './node.ts';
import { readBytes } from './node.ts';
import { type Maybe, run, type Task, wait } from './task.ts';

export const SPARSE_MAGIC = 0x564d444b;
export const FLAG = { newline: 1, second: 2, zeroGrain: 4, compressed: 0x10000, markers: 0x20000 } as const;
export const HEADER_BYTES = 512;
const SECTOR = 512;
/** Offset of the directory where it is at the end, as the footer says. */
const AT_END = 0xffffffffffffffffn;
const MAX_DIRECTORY = 2 ** 23;
const MAX_TABLES = 128;
const GRAIN_HEAD = 12;

export type SparseHeader = {
  version: number;
  flags: number;
  /** Bytes. */
  capacity: number;
  grain: number;
  descriptorOffset: number;
  descriptorSize: number;
  tableEntries: number;
  second: number;
  directory: number;
  compression: number;
};

function decode(bytes: Uint8Array): SparseHeader & { atEnd: boolean } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sectors = (at: number): number => Number(view.getBigUint64(at, true)) * SECTOR;
  return {
    version: view.getUint32(4, true),
    flags: view.getUint32(8, true),
    capacity: sectors(12),
    grain: sectors(20),
    descriptorOffset: sectors(28),
    descriptorSize: sectors(36),
    tableEntries: view.getUint32(44, true),
    second: sectors(48),
    directory: sectors(56),
    compression: view.getUint16(77, true),
    atEnd: view.getBigUint64(56, true) === AT_END,
  };
}

/** @throws Error where the header cannot be */
export async function readSparseHeader(file: BlockNode): Promise<SparseHeader> {
  let header = decode(await readBytes(file, 0, HEADER_BYTES));
  if (header.atEnd) {
    const end = await readBytes(file, Math.max(0, file.size - 1024), 512);
    if (new DataView(end.buffer).getUint32(0, true) !== SPARSE_MAGIC)
      throw new Error('the footer of a stream-optimized VMDK is missing');
    header = decode(end);
  }
  const { version, grain, tableEntries, capacity } = header;
  if (version > 3) throw new Error(`Unsupported VMDK version ${version}`);
  if (grain < SECTOR || (grain & (grain - 1)) !== 0 || grain > 2 ** 27)
    throw new Error('Invalid granularity, image may be corrupt');
  if (tableEntries === 0 || tableEntries > 512) throw new Error('L2 table size too big');
  if (!Number.isSafeInteger(capacity)) throw new Error('Image too big');
  if (Math.ceil(capacity / (tableEntries * grain)) > MAX_DIRECTORY) throw new Error('L1 size too big');
  return header;
}

export async function readDirectory(file: BlockNode, header: SparseHeader): Promise<Uint8Array> {
  const entries = Math.ceil(header.capacity / (header.tableEntries * header.grain));
  return readBytes(file, header.directory, entries * 4);
}

/** One sparse extent of a disk. */
export class SparseExtent extends ClusterNode {
  readonly driver = 'vmdk';
  readonly clusterSize: number;
  readonly size: number;
  readonly header: SparseHeader;
  private readonly directory: EntryTable;
  private readonly tables = new Map<number, { first: EntryTable; second: EntryTable | null }>();
  private readonly secondDirectory: DataView | null;
  private readonly zeroGrains: boolean;
  private unpacked: { host: number; bytes: Uint8Array } | null = null;

  constructor(
    file: BlockNode,
    behind: BlockNode | null,
    readOnly: boolean,
    header: SparseHeader,
    directory: Uint8Array,
    second: Uint8Array | null,
  ) {
    super(file, behind, readOnly);
    this.header = header;
    this.clusterSize = header.grain;
    this.size = header.capacity;
    this.directory = new EntryTable(file, header.directory, directory);
    this.secondDirectory = second === null ? null : new DataView(second.buffer, second.byteOffset, second.byteLength);
    this.zeroGrains = (header.flags & FLAG.zeroGrain) !== 0;
  }

  get compressed(): boolean {
    return (this.header.flags & FLAG.compressed) !== 0;
  }

  private *table(index: number): Task<{ first: EntryTable; second: EntryTable | null } | null> {
    const sector = this.directory.view.getUint32(index * 4, true);
    if (sector === 0) return null;
    const there = this.tables.get(index);
    if (there !== undefined) return there;
    const first = yield* this.loadTable(sector * SECTOR);
    const other = this.secondDirectory?.getUint32(index * 4, true) ?? 0;
    const second = other === 0 || this.readOnly ? null : yield* this.loadTable(other * SECTOR);
    const now = this.tables.get(index);
    if (now !== undefined) return now;
    if (this.tables.size >= MAX_TABLES) this.tables.delete(this.tables.keys().next().value!);
    const loaded = { first, second };
    this.tables.set(index, loaded);
    return loaded;
  }

  private *loadTable(offset: number): Task<EntryTable> {
    const bytes = new Uint8Array(this.header.tableEntries * 4);
    if (offset + bytes.length > this.below.size)
      throw new Error(`a grain table at offset 0x${offset.toString(16)} lies beyond the end of the file`);
    const reading = this.below.read(offset, bytes);
    if (reading !== undefined) yield reading;
    return new EntryTable(this.below, offset, bytes);
  }

  protected find(cluster: number): Maybe<number> {
    return run(this.findTask(cluster));
  }

  private *findTask(cluster: number): Task<number> {
    const { tableEntries } = this.header;
    const table = yield* this.table(Math.floor(cluster / tableEntries));
    if (table === null) return ABSENT;
    const sector = table.first.view.getUint32((cluster % tableEntries) * 4, true);
    if (sector === 0) return ABSENT;
    if (sector === 1 && this.zeroGrains) return ZEROED;
    if (sector * SECTOR >= this.below.size) throw new Error(`grain ${cluster} lies beyond the end of the file`);
    return sector * SECTOR;
  }

  protected take(): number {
    if (this.compressed) throw new Error('stream-optimized images are written as a whole only, compressed');
    return endOf(this.below, this.clusterSize);
  }

  protected link(cluster: number, host: number): Completion {
    return run(this.setGrain(cluster, host / SECTOR));
  }

  protected override linkZero(cluster: number): Maybe<boolean> {
    if (!this.zeroGrains || this.compressed) return false;
    const setting = run(this.setGrain(cluster, 1));
    return setting === undefined ? true : setting.then(() => true);
  }

  private *setGrain(cluster: number, sector: number): Task<void> {
    const { tableEntries } = this.header;
    const index = Math.floor(cluster / tableEntries);
    const table = (yield* this.table(index)) ?? (yield* this.newTable(index));
    const at = (cluster % tableEntries) * 4;
    // The second one is only looked at where the first is damaged.
    for (const one of [table.second, table.first]) {
      if (one === null) continue;
      one.view.setUint32(at, sector, true);
      yield* one.saved(at);
    }
  }

  /** Only images that other programs made lack tables. */
  private *newTable(index: number): Task<{ first: EntryTable; second: EntryTable | null }> {
    const bytes = new Uint8Array(this.header.tableEntries * 4);
    const offset = endOf(this.below, SECTOR);
    const writing = this.below.write(offset, bytes);
    if (writing !== undefined) yield writing;
    this.directory.view.setUint32(index * 4, offset / SECTOR, true);
    yield* this.directory.saved(index * 4);
    const made = { first: new EntryTable(this.below, offset, bytes), second: null };
    this.tables.set(index, made);
    return made;
  }

  protected override readCluster(cluster: number, host: number, within: number, into: Uint8Array): Completion {
    if (!this.compressed) return super.readCluster(cluster, host, within, into);
    return run(this.readPacked(host, within, into));
  }

  private *readPacked(host: number, within: number, into: Uint8Array): Task<void> {
    let { unpacked } = this;
    if (unpacked === null || unpacked.host !== host) {
      const markers = (this.header.flags & FLAG.markers) !== 0;
      const head = new Uint8Array(GRAIN_HEAD);
      const first = markers ? this.below.read(host, head) : undefined;
      if (first !== undefined) yield first;
      const length = markers ? new DataView(head.buffer).getUint32(8, true) : this.clusterSize;
      if (length === 0 || length > 2 * this.clusterSize) throw new Error('a compressed grain has a length that cannot be');
      const start = host + (markers ? GRAIN_HEAD : 0);
      const packed = new Uint8Array(Math.max(0, Math.min(length, this.below.size - start)));
      const reading = this.below.read(start, packed);
      if (reading !== undefined) yield reading;
      unpacked = { host, bytes: yield* wait(inflate(packed, this.clusterSize)) };
      this.unpacked = unpacked;
    }
    into.set(unpacked.bytes.subarray(within, within + into.length));
  }

  override writeCompressed(offset: number, from: Uint8Array): Maybe<boolean> {
    return run(this.packTask(offset, from));
  }

  private *packTask(offset: number, from: Uint8Array): Task<boolean> {
    if (!this.compressed) return false;
    let grain = from;
    if (from.length < this.clusterSize) {
      grain = new Uint8Array(this.clusterSize);
      grain.set(from);
    }
    const packed = yield* wait(deflate(grain));
    const bytes = new Uint8Array(GRAIN_HEAD + packed.length);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, BigInt(offset / SECTOR), true);
    view.setUint32(8, packed.length, true);
    bytes.set(packed, GRAIN_HEAD);
    const host = endOf(this.below, SECTOR);
    // Taken at once, so that no other grain gets the place while this one is written.
    yield* wait(this.below.resize(endOf(this.below, SECTOR) + Math.ceil(bytes.length / SECTOR) * SECTOR, 'off'));
    const writing = this.below.write(host, bytes);
    if (writing !== undefined) yield writing;
    yield* this.setGrain(offset / this.clusterSize, host / SECTOR);
    return true;
  }
}

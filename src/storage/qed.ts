/**
 * QED (QEMU's docs/interop/qed_spec.txt). Numbers are little-endian.
 *
 *   0 magic   4 cluster size   8 table size (clusters)   12 header size (clusters)   16 features   24 compatible
 *   32 auto-clear   40 L1 offset   48 image size   56 backing name's offset   60 its length
 *
 * Entries of L1 and L2 tables are offsets; an L2 entry of 1 reads as zeros.
 */
import { ABSENT, ClusterNode, endOf, EntryTable, ZEROED } from './clusters.ts';
import type { Creation } from './create.ts';
import { driver, type Opening } from './driver.ts';
import { resolveBacking } from './names.ts';
import { type BlockNode, type CheckResult, MAX_SIZE, NO_FINDINGS, type NodeInfo, readBytes } from './node.ts';
import { node, nodeOrNull, optional, type Schema } from './schema.ts';
import { type Maybe, run, type Task } from './task.ts';
import type { Completion } from '../machine/interfaces.ts';

const MAGIC = 0x00444551;
const FEATURE = { backing: 1, needCheck: 2, rawBacking: 4 } as const;
const HEADER_BYTES = 64;
const MAX_TABLES = 64;

const OPTIONS = { file: node, backing: optional(nodeOrNull, undefined) } satisfies Schema;

type Shape = {
  clusterSize: number;
  tableBytes: number;
  features: number;
  l1Offset: number;
  size: number;
  backing: string | null;
};

class QedNode extends ClusterNode {
  readonly driver = 'qed';
  readonly clusterSize: number;
  size: number;
  private readonly shape: Shape;
  private readonly l1: EntryTable;
  /** L2 tables by their offset; the oldest go when there are many. */
  private readonly tables = new Map<number, EntryTable>();

  constructor(below: BlockNode, behind: BlockNode | null, readOnly: boolean, shape: Shape, l1: Uint8Array) {
    super(below, behind, readOnly);
    this.shape = shape;
    this.clusterSize = shape.clusterSize;
    this.size = shape.size;
    this.l1 = new EntryTable(below, shape.l1Offset, l1);
  }

  private get entries(): number {
    return this.shape.tableBytes / 8;
  }

  override get supportsBacking(): boolean {
    return true;
  }

  override get backingName(): { file: string; format: string | null } | null {
    const { backing, features } = this.shape;
    return backing === null ? null : { file: backing, format: (features & FEATURE.rawBacking) !== 0 ? 'raw' : null };
  }

  private checked(offset: number): number {
    if (offset % this.clusterSize !== 0 || offset >= this.below.size) {
      throw new Error(`a table refers to offset 0x${offset.toString(16)}, which cannot be`);
    }
    return offset;
  }

  private *table(offset: number): Task<EntryTable> {
    const there = this.tables.get(offset);
    if (there !== undefined) return there;
    const bytes = new Uint8Array(this.shape.tableBytes);
    const reading = this.below.read(this.checked(offset), bytes);
    if (reading !== undefined) yield reading;
    const now = this.tables.get(offset);
    if (now !== undefined) return now;
    return this.remember(offset, bytes);
  }

  private remember(offset: number, bytes: Uint8Array): EntryTable {
    const table = new EntryTable(this.below, offset, bytes);
    if (this.tables.size >= MAX_TABLES) this.tables.delete(this.tables.keys().next().value!);
    this.tables.set(offset, table);
    return table;
  }

  private l2Offset(cluster: number): number {
    return Number(this.l1.view.getBigUint64(Math.floor(cluster / this.entries) * 8, true));
  }

  protected find(cluster: number): Maybe<number> {
    return run(this.findTask(cluster));
  }

  private *findTask(cluster: number): Task<number> {
    const offset = this.l2Offset(cluster);
    if (offset === 0) return ABSENT;
    const table = yield* this.table(offset);
    const entry = Number(table.view.getBigUint64((cluster % this.entries) * 8, true));
    if (entry === 0) return ABSENT;
    return entry === 1 ? ZEROED : this.checked(entry);
  }

  protected take(): Maybe<number> {
    return run(this.takeTask());
  }

  private *takeTask(): Task<number> {
    yield* this.markUse();
    return endOf(this.below, this.clusterSize);
  }

  protected link(cluster: number, host: number): Completion {
    return run(this.linkTask(cluster, host));
  }

  private *linkTask(cluster: number, host: number): Task<void> {
    const table = yield* this.writableTable(cluster);
    const at = (cluster % this.entries) * 8;
    table.view.setBigUint64(at, BigInt(host), true);
    yield* table.saved(at);
  }

  protected override linkZero(cluster: number): Maybe<boolean> {
    return run(this.zeroTaskOf(cluster));
  }

  private *zeroTaskOf(cluster: number): Task<boolean> {
    yield* this.markUse();
    yield* this.linkTask(cluster, 1);
    return true;
  }

  private *writableTable(cluster: number): Task<EntryTable> {
    const offset = this.l2Offset(cluster);
    if (offset !== 0) return yield* this.table(offset);
    const at = endOf(this.below, this.clusterSize);
    const bytes = new Uint8Array(this.shape.tableBytes);
    const writing = this.below.write(at, bytes);
    if (writing !== undefined) yield writing;
    const flushing = this.below.flush();
    if (flushing !== undefined) yield flushing;
    const entry = Math.floor(cluster / this.entries) * 8;
    this.l1.view.setBigUint64(entry, BigInt(at), true);
    yield* this.l1.saved(entry);
    return this.remember(at, bytes);
  }

  /** Until it is closed, the image is to be checked by whoever opens it. */
  private *markUse(): Task<void> {
    if ((this.shape.features & FEATURE.needCheck) === 0) yield* this.setFeatures(this.shape.features | FEATURE.needCheck);
  }

  private *setFeatures(features: number): Task<void> {
    this.shape.features = features;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setUint32(0, features, true);
    const writing = this.below.write(16, bytes);
    if (writing !== undefined) yield writing;
    const flushing = this.below.flush();
    if (flushing !== undefined) yield flushing;
  }

  override async resize(size: number): Promise<void> {
    if (size < this.size) throw new Error('Shrinking images is currently not supported');
    if (size > this.entries ** 2 * this.clusterSize) throw new Error('Invalid image size specified');
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(size), true);
    await this.below.write(48, bytes);
    this.size = size;
  }

  override info(): NodeInfo {
    return { clusterSize: this.clusterSize };
  }

  override async check(_fix: unknown, report: (line: string) => void): Promise<CheckResult> {
    const used = new Set<number>();
    let errors = 0;
    for (let cluster = 0; cluster * this.clusterSize < this.size; cluster++) {
      if (this.l2Offset(cluster) === 0) {
        cluster += this.entries - 1 - (cluster % this.entries);
        continue;
      }
      try {
        const host = await this.find(cluster);
        if (host >= 0 && used.has(host)) throw new Error(`cluster ${cluster} shares its place with another`);
        if (host >= 0) used.add(host);
      } catch (error) {
        report(`ERROR: ${(error as Error).message}`);
        errors++;
      }
    }
    return { ...NO_FINDINGS, errors };
  }

  override close(): Completion {
    if (this.readOnly || (this.shape.features & FEATURE.needCheck) === 0) return undefined;
    return run(this.setFeatures(this.shape.features & ~FEATURE.needCheck));
  }
}

async function readShape(below: BlockNode): Promise<Shape> {
  const bytes = await readBytes(below, 0, HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  const word = (at: number): number => view.getUint32(at, true);
  const long = (at: number): number => Number(view.getBigUint64(at, true));
  if (word(0) !== MAGIC) throw new Error('Image not in QED format');
  const [clusterSize, tables, features] = [word(4), word(8), word(16)];
  if ((features & ~7) !== 0 || word(20) !== 0) throw new Error(`Unsupported QED features: ${(features & ~7).toString(16)}`);
  const power = (value: number): boolean => value !== 0 && (value & (value - 1)) === 0;
  if (!power(clusterSize) || clusterSize < 4096 || clusterSize > 2 ** 26) throw new Error('QED cluster size is out of range');
  if (!power(tables) || tables > 16) throw new Error('QED table size is out of range');
  const tableBytes = tables * clusterSize;
  const size = long(48);
  if (size % 512 !== 0 || size > Math.min(MAX_SIZE, (tableBytes / 8) ** 2 * clusterSize))
    throw new Error('QED image size is out of range');
  const l1Offset = long(40);
  if (l1Offset % clusterSize !== 0 || l1Offset + tableBytes > below.size) throw new Error('QED L1 table offset is invalid');
  let backing: string | null = null;
  if ((features & FEATURE.backing) !== 0) {
    if (word(56) + word(60) > clusterSize * Math.max(1, word(12)) || word(60) > 1023)
      throw new Error('QED backing file name is too long');
    backing = new TextDecoder().decode(await readBytes(below, word(56), word(60)));
  }
  return { clusterSize, tableBytes, features, l1Offset, size, backing };
}

async function openBehind({ how, child, image }: Opening, given: unknown, shape: Shape, name: string): Promise<BlockNode | null> {
  const below = { writable: false, share: false, resize: false };
  if (given === null || how.noBacking) return null;
  if (given !== undefined) return child(given as string, below, true);
  if (shape.backing === null) return null;
  const format = (shape.features & FEATURE.rawBacking) !== 0 ? 'raw' : null;
  try {
    return await image(resolveBacking(name, shape.backing), format, below);
  } catch (error) {
    throw new Error(`Could not open backing file: ${(error as Error).message}`);
  }
}

export const qedDriver = driver({
  name: 'qed',
  protocol: false,
  options: OPTIONS,
  open: async (values, opening) => {
    const { how, child } = opening;
    const below = await child(values.file, { share: false, resize: true });
    const shape = await readShape(below);
    const l1 = await readBytes(below, shape.l1Offset, shape.tableBytes);
    const behind = await openBehind(opening, values.backing, shape, below.filename);
    return new QedNode(below, behind, !how.writable || below.readOnly, shape, l1);
  },
});

export const qedCreation: Creation = {
  options: [
    { name: 'size', type: 'size', help: 'Virtual disk size' },
    { name: 'backing_file', type: 'str', help: 'File name of a base image' },
    { name: 'backing_fmt', type: 'str', help: 'Image format of the base image' },
    { name: 'cluster_size', type: 'size', help: 'Cluster size (in bytes)', otherwise: 65536 },
    { name: 'table_size', type: 'size', help: 'L1/L2 table size (in clusters)' },
  ],
  create: async (values, target) => {
    const clusterSize = Number(values['cluster_size']);
    const tables = Number(values['table_size'] ?? 4);
    if (!Number.isInteger(Math.log2(clusterSize)) || clusterSize < 4096 || clusterSize > 2 ** 26) {
      throw new Error('QED cluster size must be within range [4096, 67108864] and power of 2');
    }
    if (!Number.isInteger(Math.log2(tables)) || tables > 16)
      throw new Error('QED table size must be within range [1, 16] and power of 2');
    const size = Math.ceil(values.size / 512) * 512;
    if (size > ((tables * clusterSize) / 8) ** 2 * clusterSize)
      throw new Error('QED image size must be a non-zero multiple of cluster size and less than the format allows');
    const bytes = new Uint8Array(clusterSize);
    const view = new DataView(bytes.buffer);
    const put = (at: number, value: number): void => view.setUint32(at, value, true);
    const backing = values['backing_file'];
    put(0, MAGIC);
    put(4, clusterSize);
    put(8, tables);
    put(12, 1);
    put(40, clusterSize);
    view.setBigUint64(48, BigInt(size), true);
    if (backing !== undefined) {
      const name = new TextEncoder().encode(String(backing));
      put(16, FEATURE.backing | (values['backing_fmt'] === 'raw' ? FEATURE.rawBacking : 0));
      put(56, HEADER_BYTES);
      put(60, name.length);
      bytes.set(name, HEADER_BYTES);
    }
    const file = await target.newFile(target.filename);
    try {
      await file.write(clusterSize, new Uint8Array(tables * clusterSize));
      await file.write(0, bytes.subarray(0, 4096));
    } finally {
      await file.close();
    }
  },
};

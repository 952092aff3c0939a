/**
 * Parallels disks (QEMU's docs/interop/parallels.txt). Numbers are little-endian.
 *
 *   0 magic   16 version (2)   20 heads   24 cylinders   28 sectors of a cluster   32 entries   36 sectors (64 bits)
 *   44 in use   48 data offset (sectors)   52 flags   56 extension's offset   64 entries: clusters, or sectors of old
 */
import { ABSENT, ClusterNode, endOf, EntryTable } from './clusters.ts';
import type { Creation } from './create.ts';
import { driver } from './driver.ts';
import { type BlockNode, type CheckResult, MAX_SIZE, NO_FINDINGS, type NodeInfo, readBytes } from './node.ts';
import { node, type Schema } from './schema.ts';
import { type Maybe, run, type Task } from './task.ts';
import type { Completion } from '../machine/interfaces.ts';

const HEADER_BYTES = 64;
const IN_USE = 0x746f6e59;
const SECTOR = 512;
const MAX_ENTRIES = 2 ** 29;
const HEADS = 16;

const OPTIONS = { file: node } satisfies Schema;

class ParallelsNode extends ClusterNode {
  readonly driver = 'parallels';
  readonly clusterSize: number;
  readonly size: number;
  private readonly header: EntryTable;
  private readonly entries: number;
  /** Bytes that an entry counts in. */
  private readonly unit: number;
  private readonly dataOffset: number;

  constructor(below: BlockNode, readOnly: boolean, header: Uint8Array) {
    super(below, null, readOnly);
    this.header = new EntryTable(below, 0, header);
    const { view } = this.header;
    this.clusterSize = view.getUint32(28, true) * SECTOR;
    const old = new TextDecoder('latin1').decode(header.subarray(0, 16)) === 'WithoutFreeSpace';
    this.unit = old ? SECTOR : this.clusterSize;
    this.entries = view.getUint32(32, true);
    this.size = Number(old ? BigInt(view.getUint32(36, true)) : view.getBigUint64(36, true)) * SECTOR;
    this.dataOffset = view.getUint32(48, true) * SECTOR || Math.ceil((HEADER_BYTES + this.entries * 4) / this.unit) * this.unit;
  }

  protected find(cluster: number): number {
    const entry = this.header.view.getUint32(HEADER_BYTES + cluster * 4, true);
    if (entry === 0) return ABSENT;
    const host = entry * this.unit;
    if (host < HEADER_BYTES + this.entries * 4 || host >= this.below.size) {
      throw new Error(`cluster ${cluster} lies at offset 0x${host.toString(16)}, which cannot be`);
    }
    return host;
  }

  protected take(): Maybe<number> {
    return run(this.takeTask());
  }

  private *takeTask(): Task<number> {
    const { view } = this.header;
    if (view.getUint32(44, true) !== IN_USE) yield* this.setUse(IN_USE);
    return Math.max(this.dataOffset, endOf(this.below, this.clusterSize));
  }

  protected link(cluster: number, host: number): Completion {
    const at = HEADER_BYTES + cluster * 4;
    this.header.view.setUint32(at, host / this.unit, true);
    return this.header.save(at);
  }

  private *setUse(value: number): Task<void> {
    this.header.view.setUint32(44, value, true);
    yield* this.header.saved(44);
    const flushing = this.below.flush();
    if (flushing !== undefined) yield flushing;
  }

  override info(): NodeInfo {
    return {};
  }

  override check(_fix: unknown, report: (line: string) => void): CheckResult {
    let errors = 0;
    let end = this.dataOffset;
    const used = new Set<number>();
    for (let i = 0; i < this.entries; i++) {
      try {
        const host = this.find(i);
        if (host < 0) continue;
        if (used.has(host)) throw new Error(`cluster ${i} shares its place with another`);
        used.add(host);
        end = Math.max(end, host + this.clusterSize);
      } catch (error) {
        report(`ERROR ${(error as Error).message}`);
        errors++;
      }
    }
    return { ...NO_FINDINGS, errors, imageEnd: end, totalClusters: this.entries, allocatedClusters: used.size };
  }

  override close(): Completion {
    if (!this.readOnly && this.header.view.getUint32(44, true) === IN_USE) return run(this.setUse(0));
  }
}

async function readHeader(below: BlockNode): Promise<Uint8Array> {
  const head = await readBytes(below, 0, HEADER_BYTES);
  const view = new DataView(head.buffer);
  const magic = new TextDecoder('latin1').decode(head.subarray(0, 16));
  if (magic !== 'WithoutFreeSpace' && magic !== 'WithouFreSpacExt') throw new Error('Image not in Parallels format');
  if (view.getUint32(16, true) !== 2) throw new Error('Image not in Parallels format');
  const [tracks, entries] = [view.getUint32(28, true), view.getUint32(32, true)];
  if (tracks === 0) throw new Error('Invalid image: Zero sectors per track');
  if (tracks > 0x7fffffff / 513) throw new Error('Invalid image: Too big cluster');
  if (entries > MAX_ENTRIES) throw new Error('Catalog too large');
  const sectors = magic === 'WithoutFreeSpace' ? view.getUint32(36, true) : Number(view.getBigUint64(36, true));
  if (sectors > MAX_SIZE / SECTOR || Math.ceil(sectors / tracks) > entries)
    throw new Error('Invalid image: its catalog is too small for its size');
  return readBytes(below, 0, Math.ceil((HEADER_BYTES + entries * 4) / SECTOR) * SECTOR);
}

export const parallelsDriver = driver({
  name: 'parallels',
  protocol: false,
  options: OPTIONS,
  open: async (values, { how, child }) => {
    const below = await child(values.file, { share: false, resize: true });
    return new ParallelsNode(below, !how.writable || below.readOnly, await readHeader(below));
  },
});

export const parallelsCreation: Creation = {
  options: [
    { name: 'size', type: 'size', help: 'Virtual disk size' },
    { name: 'cluster_size', type: 'size', help: 'Parallels image cluster size', otherwise: 2 ** 20 },
  ],
  create: async (values, target) => {
    const clusterSize = Number(values['cluster_size']);
    if (clusterSize % SECTOR !== 0 || clusterSize === 0 || clusterSize >= 2 ** 31)
      throw new Error('Cluster size must be a multiple of 512 bytes');
    const size = Math.ceil(values.size / SECTOR) * SECTOR;
    const entries = Math.ceil(size / clusterSize);
    if (entries > MAX_ENTRIES) throw new Error('Image size is too large for this cluster size');
    const room = Math.ceil((HEADER_BYTES + entries * 4) / clusterSize) * clusterSize;
    const bytes = new Uint8Array(room);
    const view = new DataView(bytes.buffer);
    bytes.set(new TextEncoder().encode('WithouFreSpacExt'));
    const words = [2, HEADS, Math.floor(size / SECTOR / HEADS / 32), clusterSize / SECTOR, entries];
    words.forEach((value, i) => view.setUint32(16 + 4 * i, value, true));
    view.setBigUint64(36, BigInt(size / SECTOR), true);
    view.setUint32(48, room / SECTOR, true);
    const file = await target.newFile(target.filename);
    try {
      await file.write(0, bytes);
    } finally {
      await file.close();
    }
  },
};

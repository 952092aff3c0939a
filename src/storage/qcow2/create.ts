/** Makes new qcow2 images. */
import type { BlockNode } from '../node.ts';
import { writeZeroBytes } from '../node.ts';
import { run } from '../task.ts';
import {
  AUTOCLEAR,
  COMPATIBLE,
  type Compression,
  encodeHeader,
  type Header,
  INCOMPATIBLE,
  l1EntriesFor,
  viewOf,
  write64,
} from './header.ts';
import type { Qcow2Node } from './node.ts';
import { setRefcount } from './refcounts.ts';
import { COPIED } from './image.ts';
import { putEntry } from './writer.ts';

export interface NewImage {
  readonly size: number;
  readonly version: 2 | 3;
  readonly clusterSize: number;
  readonly refcountBits: number;
  readonly lazyRefcounts: boolean;
  readonly compression: Compression;
  readonly extendedL2: boolean;
  readonly backingFile: string | null;
  readonly backingFormat: string | null;
  readonly dataFile: string | null;
  readonly dataFileRaw: boolean;
  /** A LUKS header, which gets clusters of its own. */
  readonly luks: Uint8Array | null;
}

/** @throws Error for sizes and combinations that the format does not have */
export function checkNew(image: NewImage): void {
  const { clusterSize, refcountBits, version } = image;
  const bits = Math.log2(clusterSize);
  if (!Number.isInteger(bits) || bits < 9 || bits > 21)
    throw new Error('Cluster size must be a power of two between 512 and 2048k');
  if (!Number.isInteger(Math.log2(refcountBits)) || refcountBits > 64) {
    throw new Error('Refcount width must be a power of two and may not exceed 64 bits');
  }
  const old = (what: string): Error =>
    new Error(`${what} only supported with compatibility level 1.1 and above (use version=v3 or greater)`);
  if (version === 2 && refcountBits !== 16)
    throw new Error(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)',
    );
  if (version === 2 && image.lazyRefcounts) throw old('Lazy refcounts');
  if (version === 2 && image.dataFile !== null) throw old('External data files are');
  if (version === 2 && image.compression !== 'zlib')
    throw new Error(
      'Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)',
    );
  if (version === 2 && image.extendedL2)
    throw new Error('Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)');
  if (image.extendedL2 && bits < 14)
    throw new Error('Extended L2 entries are only supported with cluster sizes of at least 16384 bytes');
  if (image.dataFile !== null && image.lazyRefcounts)
    throw new Error('Lazy refcounts are not supported with external data files');
  if (image.dataFileRaw && image.dataFile === null) throw new Error('data-file-raw requires data-file');
  if (image.dataFileRaw && image.backingFile !== null)
    throw new Error('Backing file and data-file-raw cannot be used at the same time');
}

/** Writes an empty image into a file, which is empty itself. */
export async function writeNew(file: BlockNode, image: NewImage): Promise<void> {
  checkNew(image);
  const { clusterSize, refcountBits } = image;
  const header = newHeader(image);
  const l1Clusters = Math.ceil((header.l1Entries * 8) / clusterSize);
  if (header.l1Entries * 8 > 32 * 2 ** 20) throw new Error('The image size is too large (try using a larger cluster size)');
  const luksClusters = image.luks === null ? 0 : Math.ceil(image.luks.length / clusterSize);
  const perBlock = (clusterSize * 8) / refcountBits;
  let blocks = 1;
  let tables = 1;
  const total = (): number => 1 + tables + blocks + l1Clusters + luksClusters;
  for (;;) {
    const needed = Math.ceil(total() / perBlock);
    const neededTables = Math.ceil((Math.max(blocks, needed) * 8) / clusterSize);
    if (needed <= blocks && neededTables <= tables) break;
    blocks = Math.max(blocks, needed);
    tables = Math.max(tables, neededTables);
  }
  header.reftableOffset = clusterSize;
  header.reftableClusters = tables;
  header.l1Offset = (1 + tables + blocks) * clusterSize;
  if (image.luks !== null) {
    header.encryption = 2;
    header.encryptionHeader = { offset: (1 + tables + blocks + l1Clusters) * clusterSize, length: image.luks.length };
  }
  const bytes = new Uint8Array((1 + tables + blocks) * clusterSize);
  const view = viewOf(bytes);
  bytes.set(encodeHeader(header));
  for (let i = 0; i < blocks; i++) write64(view, clusterSize + i * 8, (1 + tables + i) * clusterSize);
  for (let i = 0; i < total(); i++) {
    const block = new DataView(bytes.buffer, (1 + tables + Math.floor(i / perBlock)) * clusterSize, clusterSize);
    setRefcount(block, i % perBlock, header.refcountOrder, 1);
  }
  // The header comes last: until then it is no image.
  await file.write(clusterSize, bytes.subarray(clusterSize));
  await writeZeroBytes(file, header.l1Offset, header.l1Entries * 8);
  if (image.luks !== null) {
    const padded = new Uint8Array(luksClusters * clusterSize);
    padded.set(image.luks);
    await file.write(header.encryptionHeader!.offset, padded);
  }
  await file.write(0, bytes.subarray(0, clusterSize));
}

function newHeader(image: NewImage): Header {
  const external = image.dataFile !== null;
  const header: Header = {
    version: image.version,
    clusterBits: Math.log2(image.clusterSize),
    size: image.size,
    encryption: 0,
    l1Entries: 0,
    l1Offset: 0,
    reftableOffset: 0,
    reftableClusters: 0,
    snapshots: 0,
    snapshotsOffset: 0,
    incompatible:
      (external ? INCOMPATIBLE.dataFile : 0) |
      (image.compression === 'zlib' ? 0 : INCOMPATIBLE.compression) |
      (image.extendedL2 ? INCOMPATIBLE.extendedL2 : 0),
    compatible: image.lazyRefcounts ? COMPATIBLE.lazyRefcounts : 0,
    autoclear: image.dataFileRaw ? AUTOCLEAR.rawData : 0,
    refcountOrder: Math.log2(image.refcountBits),
    compression: image.compression,
    backingFile: image.backingFile,
    backingFormat: image.backingFormat,
    dataFile: image.dataFile,
    encryptionHeader: null,
    bitmaps: null,
    others: [],
  };
  header.l1Entries = l1EntriesFor(header);
  return header;
}

/**
 * Takes space for a range that has none.
 * @param how `metadata` leaves the file's space to whoever writes it, `falloc` reserves it, `full` writes zeros
 */
export async function preallocate(node: Qcow2Node, from: number, to: number, how: string): Promise<void> {
  if (how === 'off') return;
  const { image } = node;
  const { clusterSize } = image;
  let end = 0;
  for (let at = from - (from % clusterSize); at < to; ) {
    const left = Math.ceil((Math.min(to, at + node.mapping.leftInSlice(at)) - at) / clusterSize);
    const row = image.hasDataFile ? { cluster: at / clusterSize, count: left } : await run(image.refcounts.allocate(left));
    const slice = await run(node.writer.writableSlice(at));
    for (let i = 0; i < row.count; i++) {
      const entry = node.mapping.entryAt(at + i * clusterSize);
      putEntry(slice.view, entry, (row.cluster + i) * clusterSize, COPIED);
      if (image.entrySize === 16) {
        slice.view.setUint32(entry + 8, 0);
        slice.view.setUint32(entry + 12, 0xffffffff);
      }
    }
    image.l2.changed(slice);
    if (how === 'full') await writeZeroBytes(image.data, row.cluster * clusterSize, row.count * clusterSize);
    at += row.count * clusterSize;
    end = Math.max(end, (row.cluster + row.count) * clusterSize);
  }
  await run(image.flush());
  const { data } = image;
  if (end > data.size) await data.resize(image.hasDataFile ? to : end, how === 'falloc' ? 'falloc' : 'off');
}

/** Changes the size of the guest's disk. */
import { run } from '../task.ts';
import { preallocate } from './create.ts';
import { l1EntriesFor, MAX_L1_BYTES, viewOf, write64 } from './header.ts';
import type { Image } from './image.ts';
import type { Qcow2Node } from './node.ts';

export async function resize(node: Qcow2Node, size: number, preallocation: string): Promise<void> {
  const { image } = node;
  const { header } = image;
  const before = header.size;
  if (size % 512 !== 0) throw new Error('The new size must be a multiple of 512');
  if (header.snapshots > 0 && header.version === 2) {
    throw new Error("Can't resize a v2 image which has snapshots");
  }
  if (header.bitmaps !== null && size !== before) await resizeBitmaps(node, size);
  if (size < before) await shrink(node, size);
  else {
    await growL1(image, l1EntriesFor(header, size));
    // Bytes between the old end and the end of its cluster become visible.
    const end = Math.min(size, Math.ceil(before / image.clusterSize) * image.clusterSize);
    header.size = size;
    if (end > before) await zeroTail(node, before, end);
    await preallocate(node, before, size, preallocation);
    if (node.backing !== null && node.backing.size > before && preallocation === 'off') {
      // What the backing file has there was never part of this disk.
      await node.writeZeroes(before, Math.min(size, node.backing.size) - before, false);
    }
  }
  await run(image.flush());
  header.size = size;
  const bytes = new Uint8Array(8);
  write64(viewOf(bytes), 0, size);
  await image.file.write(24, bytes);
  if (image.hasDataFile && image.data.size !== size) await image.data.resize(size, 'off');
  await run(image.flush());
}

async function resizeBitmaps(node: Qcow2Node, size: number): Promise<void> {
  if (node.bitmaps === null) throw new Error('The image has bitmaps that cannot be resized');
  node.bitmaps.resize(size);
}

async function zeroTail(node: Qcow2Node, from: number, end: number): Promise<void> {
  const found = await run(node.mapping.find(from - (from % 512), 512));
  if (found.kind >= 2) await node.writeZeroes(from, end - from, false);
}

async function shrink(node: Qcow2Node, size: number): Promise<void> {
  const { image } = node;
  const { unmap } = node;
  node.unmap = true;
  const start = Math.ceil(size / image.clusterSize) * image.clusterSize;
  if (start < node.size) await run(node.writer.discard(start, node.size - start));
  node.unmap = unmap;
  await run(image.flush());
  await run(image.flush());
  await cutFile(image);
}

/** Whatever is free at the end of the file need not be there. */
export async function cutFile(image: Image): Promise<void> {
  let last = Math.floor((image.file.size - 1) / image.clusterSize);
  while (last > 0 && (await run(image.refcounts.get(last))) === 0) last--;
  if ((last + 1) * image.clusterSize < image.file.size) await image.file.resize((last + 1) * image.clusterSize, 'off');
}

/** A larger L1 table; both of its fields in the header change in one write. */
export async function growL1(image: Image, entries: number): Promise<void> {
  const { header, clusterSize } = image;
  if (entries <= header.l1Entries) return;
  if (entries * 8 > MAX_L1_BYTES) throw new Error('The image size is too large (try using a larger cluster size)');
  const clusters = Math.ceil((entries * 8) / clusterSize);
  const offset = await run(image.refcounts.allocateRow(clusters));
  const bytes = new Uint8Array(entries * 8);
  bytes.set(new Uint8Array(image.l1.buffer, image.l1.byteOffset, image.l1.byteLength));
  await image.file.write(offset, bytes);
  await run(image.writeTables());
  await switchL1(image, offset, viewOf(bytes));
}

/** Makes another table the active one, and frees the old one. */
export async function switchL1(image: Image, offset: number, table: DataView): Promise<void> {
  const { header, clusterSize } = image;
  const old = { offset: header.l1Offset, clusters: Math.ceil((header.l1Entries * 8) / clusterSize) };
  const place = new Uint8Array(12);
  viewOf(place).setUint32(0, table.byteLength / 8);
  write64(viewOf(place), 4, offset);
  await image.file.flush();
  await image.file.write(36, place);
  await image.file.flush();
  header.l1Entries = table.byteLength / 8;
  header.l1Offset = offset;
  image.l1 = table;
  image.noteMetadata(offset, Math.ceil(table.byteLength / clusterSize));
  if (old.clusters > 0) await run(image.refcounts.free(old.offset, old.clusters));
}

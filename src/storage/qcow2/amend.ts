/** Changes features of an image that exists. */
import { onePiece } from '../../host/pieces.ts';
import { flag, integer, size as sizeField } from '../schema.ts';
import { run } from '../task.ts';
import { versionOf } from './creation.ts';
import { checkImage, rewriteRefcounts } from './check.ts';
import { AUTOCLEAR, COMPATIBLE, hasExtendedL2, INCOMPATIBLE } from './header.ts';
import type { Qcow2Node } from './node.ts';
import { putEntry } from './writer.ts';

/** @throws Error in QEMU's words where a change is not possible */
export async function amendImage(node: Qcow2Node, given: ReadonlyMap<string, string>): Promise<void> {
  const { header } = node.image;
  const value = <T>(name: string, read: (text: string, name: string) => T): T | null =>
    given.has(name) ? read(given.get(name)!, name) : null;
  const version = given.has('compat') ? versionOf(given.get('compat')!) : header.version;
  const bits = value('refcount_bits', integer(1, 64).read) ?? 2 ** header.refcountOrder;
  if (!Number.isInteger(Math.log2(bits))) throw new Error('Refcount width must be a power of two and may not exceed 64 bits');
  const lazy = value('lazy_refcounts', flag.read);
  const newSize = value('size', sizeField.read);
  if (version === 3 && header.version === 2) await upgrade(node);
  if (bits !== 2 ** header.refcountOrder) {
    if (version === 2)
      throw new Error('Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)');
    await changeWidth(node, Math.log2(bits));
  }
  if (given.has('data_file') || given.has('data_file_raw')) await changeDataFile(node, given);
  if (lazy !== null) await changeLazy(node, lazy, version);
  if (newSize !== null) await node.resize(newSize, 'off');
  if (version === 2 && header.version === 3) await downgrade(node);
}

async function upgrade({ image }: Qcow2Node): Promise<void> {
  image.header.version = 3;
  await run(image.saveHeader());
}

async function changeDataFile({ image }: Qcow2Node, given: ReadonlyMap<string, string>): Promise<void> {
  const { header } = image;
  if (!image.hasDataFile) throw new Error('data-file can only be set for images that use an external data file');
  header.dataFile = given.get('data_file') ?? header.dataFile;
  const raw = given.get('data_file_raw');
  if (raw !== undefined) {
    if (flag.read(raw, 'data_file_raw') && (header.autoclear & AUTOCLEAR.rawData) === 0) {
      throw new Error('data-file-raw cannot be set on existing images');
    }
    if (raw === 'off') header.autoclear &= ~AUTOCLEAR.rawData;
  }
  await run(image.saveHeader());
}

async function changeLazy({ image }: Qcow2Node, on: boolean, version: number): Promise<void> {
  const { header } = image;
  if (on && version === 2)
    throw new Error('Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)');
  image.lazy = false;
  await run(image.flush());
  header.incompatible &= ~INCOMPATIBLE.dirty;
  header.compatible = on ? header.compatible | COMPATIBLE.lazyRefcounts : header.compatible & ~COMPATIBLE.lazyRefcounts;
  await run(image.saveHeader());
  image.lazy = on;
}

/** All counts are written anew in the other width, behind everything else; what held them before is free then. */
async function changeWidth(node: Qcow2Node, order: number): Promise<void> {
  const found = await checkImage(node, 'none', () => undefined);
  if (found.errors > 0) throw new Error('the image has errors, which must be repaired first');
  await rewriteRefcounts(node, order);
}

async function downgrade(node: Qcow2Node): Promise<void> {
  const { image } = node;
  const { header } = image;
  if (header.refcountOrder !== 4) throw new Error('compat=0.10 requires refcount_bits=16');
  if (image.hasDataFile) throw new Error('Cannot downgrade an image with a data file');
  if (header.compression !== 'zlib') throw new Error('Cannot downgrade an image with zstd compression');
  if (hasExtendedL2(header)) throw new Error('Cannot downgrade an image with extended L2 entries');
  if (header.bitmaps !== null) throw new Error('Cannot downgrade an image with persistent bitmaps');
  if (header.snapshots > 0) throw new Error('Cannot downgrade an image that has internal snapshots');
  await expandZeros(node);
  image.lazy = false;
  await run(image.flush());
  header.incompatible = 0;
  header.compatible = 0;
  header.autoclear = 0;
  header.version = 2;
  header.others = [];
  await run(image.saveHeader());
}

/** Version 2 has no clusters that read as zeros: they become none, or are written out where something is behind them. */
async function expandZeros(node: Qcow2Node): Promise<void> {
  const { image, mapping, writer } = node;
  const { clusterSize } = image;
  const zeros = new Uint8Array(clusterSize);
  for (let at = 0; at < node.size; ) {
    const found = await run(mapping.find(at, node.size - at));
    if (found.kind !== 1) {
      at += found.length;
      continue;
    }
    const hidden = node.backing !== null && at < node.backing.size;
    if (hidden) await run(writer.write(at, onePiece(zeros.subarray(0, Math.min(clusterSize, node.size - at)))));
    else {
      const slice = await run(writer.writableSlice(at));
      const entry = mapping.entryAt(at);
      writer.releaseEntry(slice.view, entry, -1);
      putEntry(slice.view, entry, 0, 0);
      image.l2.changed(slice);
    }
    at += clusterSize - (at % clusterSize);
  }
  await run(image.flush());
}

/**
 * Internal snapshots: a table of L1 tables that share their L2 tables and clusters with the active one.
 *
 *   0 L1 offset   8 L1 entries   12 length of id   14 of name   16 seconds   20 nanoseconds   24 guest's nanoseconds
 *   32 bytes of machine state   36 length of extra data (from 40: machine state in 64 bits, disk size, icount), id, name
 */
import { readBytes, type SnapshotInfo } from '../node.ts';
import { run } from '../task.ts';
import { checkTable, l1EntriesFor, MAX_L1_BYTES, MAX_SNAPSHOTS, read64, viewOf, write64 } from './header.ts';
import { COMPRESSED, COPIED, entryOffset, type Image } from './image.ts';
import type { Qcow2Node } from './node.ts';
import { growL1 } from './resize.ts';

const FIXED = 40;
const EXTRA = 24;
const MAX_EXTRA = 1024;

export interface Snapshot extends SnapshotInfo {
  l1Offset: number;
  l1Entries: number;
  /** Extra data beyond what is known. */
  readonly more: Uint8Array;
}

/** @throws Error where the table is not what it should be */
export async function readSnapshots(image: Image): Promise<Snapshot[]> {
  const { header, file } = image;
  const found: Snapshot[] = [];
  let at = header.snapshotsOffset;
  for (let i = 0; i < header.snapshots; i++) {
    at = Math.ceil(at / 8) * 8;
    const fixed = viewOf(await readBytes(file, at, FIXED));
    const extraLength = fixed.getUint32(36);
    if (extraLength > MAX_EXTRA) throw new Error(`Too much extra metadata in snapshot table entry ${i}`);
    const lengths = [fixed.getUint16(12), fixed.getUint16(14)] as const;
    const rest = await readBytes(file, at + FIXED, extraLength + lengths[0] + lengths[1]);
    found.push(decode(fixed, rest, extraLength, lengths, header.size));
    at += FIXED + rest.length;
  }
  return found;
}

function decode(fixed: DataView, rest: Uint8Array, extra: number, [id, name]: readonly [number, number], size: number): Snapshot {
  const view = viewOf(rest);
  const text = (from: number, length: number): string => new TextDecoder().decode(rest.subarray(from, from + length));
  const icount = extra >= 24 ? view.getBigUint64(16) : null;
  return {
    l1Offset: read64(fixed, 0),
    l1Entries: fixed.getUint32(8),
    id: text(extra, id),
    name: text(extra + id, name),
    seconds: fixed.getUint32(16),
    nanoseconds: fixed.getUint32(20),
    vmClock: fixed.getBigUint64(24),
    vmStateSize: extra >= 8 ? read64(view, 0) : fixed.getUint32(32),
    diskSize: extra >= 16 ? read64(view, 8) : size,
    icount: icount === 0xffffffffffffffffn ? null : icount,
    more: rest.slice(Math.min(EXTRA, extra), extra),
  };
}

function encode(list: readonly Snapshot[]): Uint8Array {
  const parts = list.map((one) => {
    const id = new TextEncoder().encode(one.id);
    const name = new TextEncoder().encode(one.name);
    const extra = EXTRA + one.more.length;
    const bytes = new Uint8Array(Math.ceil((FIXED + extra + id.length + name.length) / 8) * 8);
    const view = viewOf(bytes);
    write64(view, 0, one.l1Offset);
    view.setUint32(8, one.l1Entries);
    view.setUint16(12, id.length);
    view.setUint16(14, name.length);
    view.setUint32(16, one.seconds);
    view.setUint32(20, one.nanoseconds);
    view.setBigUint64(24, one.vmClock);
    view.setUint32(32, Math.min(one.vmStateSize, 0xffffffff));
    view.setUint32(36, extra);
    write64(view, 40, one.vmStateSize);
    write64(view, 48, one.diskSize);
    view.setBigUint64(56, one.icount ?? 0xffffffffffffffffn);
    bytes.set(one.more, FIXED + EXTRA);
    bytes.set(id, FIXED + extra);
    bytes.set(name, FIXED + extra + id.length);
    return bytes;
  });
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Writes a new table, then lets the header refer to it, then frees the old one. */
async function storeSnapshots(image: Image, list: readonly Snapshot[]): Promise<void> {
  const { header, clusterSize, file } = image;
  const old = { offset: header.snapshotsOffset, bytes: await tableBytes(image) };
  const bytes = encode(list);
  const clusters = Math.ceil(bytes.length / clusterSize);
  const offset = clusters === 0 ? 0 : await run(image.refcounts.allocateRow(clusters));
  if (clusters > 0) await file.write(offset, bytes);
  await run(image.flush());
  const place = new Uint8Array(12);
  viewOf(place).setUint32(0, list.length);
  write64(viewOf(place), 4, offset);
  await file.write(60, place);
  await file.flush();
  header.snapshots = list.length;
  header.snapshotsOffset = offset;
  image.noteMetadata(offset, clusters);
  if (old.bytes > 0) await run(image.refcounts.free(old.offset, Math.ceil(old.bytes / clusterSize)));
}

/** Bytes that the table in the file takes. */
async function tableBytes(image: Image): Promise<number> {
  return encode(await readSnapshots(image)).length;
}

export async function readL1(image: Image, { l1Offset, l1Entries }: Snapshot): Promise<DataView> {
  checkTable(l1Offset, l1Entries, 8, MAX_L1_BYTES, image.header.clusterBits, "A snapshot's L1 table");
  return viewOf(await readBytes(image.file, l1Offset, l1Entries * 8));
}

/**
 * Counts every cluster that an L1 table reaches once more or less, and sets the "copied" flags as the counts say.
 * @param active the table is the active one, whose flags are kept
 */
async function countTable(image: Image, l1: DataView, by: 1 | -1 | 0, active: boolean): Promise<void> {
  const { clusterSize, entrySize, refcounts, file } = image;
  for (let i = 0; i * 8 < l1.byteLength; i++) {
    const l2 = entryOffset(l1, i * 8);
    if (l2 === 0) continue;
    if (l2 % clusterSize !== 0) throw image.markCorrupt(`L2 table offset 0x${l2.toString(16)} unaligned`);
    const bytes = await readBytes(file, l2, clusterSize);
    const view = viewOf(bytes);
    let changed = false;
    for (let at = 0; at < clusterSize; at += entrySize) changed = (await countEntry(image, view, at, by)) || changed;
    if (by !== 0) await run(refcounts.change(l2 / clusterSize, 1, by));
    if (changed && active) {
      await run(image.refcounts.cache.writeDirty());
      image.l2.forget(l2, clusterSize);
      await file.write(l2, bytes);
    }
    const copied = (await run(refcounts.get(l2 / clusterSize))) === 1 ? COPIED : 0;
    l1.setUint32(i * 8, ((l1.getUint32(i * 8) & 0x7fffffff) | copied) >>> 0);
  }
}

/** @returns whether the entry's flag has changed */
async function countEntry(image: Image, view: DataView, at: number, by: 1 | -1 | 0): Promise<boolean> {
  const { clusterSize, refcounts } = image;
  const high = view.getUint32(at);
  if ((high & COMPRESSED) !== 0) {
    if (by === 0) return false;
    const sectorsAt = 62 - (image.header.clusterBits - 8) - 32;
    const word = high & 0x3fffffff;
    const host = (word & (2 ** sectorsAt - 1)) * 2 ** 32 + view.getUint32(at + 4);
    const end = host - (host % 512) + ((word >>> sectorsAt) + 1) * 512;
    const first = Math.floor(host / clusterSize);
    await run(refcounts.change(first, Math.floor((end - 1) / clusterSize) - first + 1, by));
    return false;
  }
  const host = entryOffset(view, at);
  if (host === 0 || image.hasDataFile) return false;
  if (host % clusterSize !== 0) throw image.markCorrupt(`Cluster offset 0x${host.toString(16)} unaligned`);
  if (by !== 0) await run(refcounts.change(host / clusterSize, 1, by));
  const copied = (await run(refcounts.get(host / clusterSize))) === 1 ? COPIED : 0;
  const now = ((high & 0x7fffffff) | copied) >>> 0;
  view.setUint32(at, now);
  return now !== high;
}

/** Writes the active L1 table as it is in memory. */
async function writeL1(image: Image): Promise<void> {
  await image.file.write(image.header.l1Offset, new Uint8Array(image.l1.buffer, image.l1.byteOffset, image.l1.byteLength));
}

function nextId(list: readonly Snapshot[]): string {
  return String(list.reduce((most, { id }) => Math.max(most, Number.parseInt(id, 10) || 0), 0) + 1);
}

export type NewSnapshot = Pick<SnapshotInfo, 'name' | 'seconds' | 'nanoseconds' | 'vmStateSize' | 'vmClock' | 'icount'>;

function checkPossible(node: Qcow2Node): void {
  if (node.readOnly) throw new Error('the image is read-only');
  if (node.image.hasDataFile) throw new Error('Internal snapshots are not supported with an external data file');
}

export async function createSnapshot(node: Qcow2Node, given: NewSnapshot): Promise<Snapshot> {
  checkPossible(node);
  const { image } = node;
  await run(image.flush());
  const list = await readSnapshots(image);
  if (list.length >= MAX_SNAPSHOTS) throw new Error('the image has as many snapshots as there can be');
  const { header, clusterSize } = image;
  const clusters = Math.max(1, Math.ceil((header.l1Entries * 8) / clusterSize));
  const l1Offset = await run(image.refcounts.allocateRow(clusters));
  await countTable(image, image.l1, 1, true);
  await run(image.flush());
  await writeL1(image);
  await image.file.write(l1Offset, new Uint8Array(image.l1.buffer, image.l1.byteOffset, image.l1.byteLength));
  const made: Snapshot = {
    ...given,
    id: nextId(list),
    diskSize: header.size,
    l1Offset,
    l1Entries: header.l1Entries,
    more: new Uint8Array(0),
  };
  await storeSnapshots(image, [...list, made]);
  await run(image.flush());
  return made;
}

/** @returns the snapshot of an id, else of a name. @throws Error when there is none */
export function findSnapshot(list: readonly Snapshot[], wanted: string): Snapshot {
  const found = list.find(({ id }) => id === wanted) ?? list.find(({ name }) => name === wanted);
  if (found === undefined) throw new Error('No such file or directory');
  return found;
}

/** Makes the disk what it was. */
export async function applySnapshot(node: Qcow2Node, wanted: string): Promise<void> {
  checkPossible(node);
  const { image } = node;
  await run(image.flush());
  const found = findSnapshot(await readSnapshots(image), wanted);
  if (found.diskSize !== image.header.size) await node.resize(found.diskSize, 'off');
  await growL1(image, found.l1Entries);
  const then = await readL1(image, found);
  await countTable(image, then, 1, true);
  await run(image.flush());
  const old = image.l1;
  const now = new Uint8Array(image.header.l1Entries * 8);
  now.set(new Uint8Array(then.buffer, then.byteOffset, then.byteLength));
  image.l1 = viewOf(now);
  await writeL1(image);
  await image.file.flush();
  node.forgetUnpacked();
  await countTable(image, old, -1, false);
  await countTable(image, image.l1, 0, true);
  await writeL1(image);
  await run(image.flush());
}

export async function deleteSnapshot(node: Qcow2Node, wanted: string): Promise<void> {
  checkPossible(node);
  const { image } = node;
  await run(image.flush());
  const list = await readSnapshots(image);
  const found = findSnapshot(list, wanted);
  const l1 = await readL1(image, found);
  await storeSnapshots(
    image,
    list.filter((one) => one !== found),
  );
  await countTable(image, l1, -1, false);
  await run(image.refcounts.free(found.l1Offset, Math.max(1, Math.ceil((found.l1Entries * 8) / image.clusterSize))));
  await countTable(image, image.l1, 0, true);
  await writeL1(image);
  await run(image.flush());
}

/** Lets a node that is only read show the disk as a snapshot has it. */
export async function viewSnapshot(node: Qcow2Node, wanted: string): Promise<void> {
  const { image } = node;
  const found = findSnapshot(await readSnapshots(image), wanted);
  const l1 = await readL1(image, found);
  const whole = new Uint8Array(Math.max(l1.byteLength, l1EntriesFor(image.header, found.diskSize) * 8));
  whole.set(new Uint8Array(l1.buffer, l1.byteOffset, l1.byteLength));
  image.l1 = viewOf(whole);
  image.header.size = found.diskSize;
}

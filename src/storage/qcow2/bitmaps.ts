/**
 * Bitmaps that outlive a run: which parts of the disk have been written to since they were made.
 *
 * Directory entry: 0 offset of the table   8 its entries   12 flags (1 in use, 2 auto)   16 type (1)
 *   17 base 2 logarithm of the granularity   18 length of the name   20 of extra data; extra data, name, up to 8
 * Table entry: 0 all clear, 1 all set, else the offset of a cluster of bits
 */
import { readBytes } from '../node.ts';
import { run, type Task, wait } from '../task.ts';
import { AUTOCLEAR, read64, viewOf, write64 } from './header.ts';
import type { Image } from './image.ts';
import type { Qcow2Node } from './node.ts';

const FLAG = { inUse: 1, auto: 2 } as const;
const TYPE_DIRTY = 1;
const MAX_BITMAPS = 65535;
const MAX_DIRECTORY = 1024 * MAX_BITMAPS;
const MAX_NAME = 1023;
/** Bytes of bits of one bitmap: more than this is no bitmap but an attack. */
const MAX_BITS = 2 ** 28;
const ENTRY_ADDRESS = 0x00ffffff;

export type BitmapEntry = {
  name: string;
  /** Bytes that one bit stands for. */
  granularity: number;
  inUse: boolean;
  auto: boolean;
  tableOffset: number;
  tableEntries: number;
};

/** A bitmap in memory. */
export type Bitmap = { entry: BitmapEntry; bits: Uint8Array; recording: boolean };

const clustersOf = (image: Image, bytes: number): number => Math.ceil(bytes / image.clusterSize);

/** Bytes of bits that a bitmap of this granularity has. */
const bitBytes = (size: number, granularity: number): number => Math.ceil(Math.ceil(size / granularity) / 8);

/** @throws Error where the directory is not what it should be */
export async function listBitmaps(image: Image): Promise<BitmapEntry[]> {
  const place = image.header.bitmaps;
  if (place === null) return [];
  if (place.count > MAX_BITMAPS || place.directorySize > MAX_DIRECTORY) throw new Error('bitmaps: the directory is too large');
  const bytes = await readBytes(image.file, place.directoryOffset, place.directorySize);
  const view = viewOf(bytes);
  const found: BitmapEntry[] = [];
  for (let i = 0, at = 0; i < place.count; i++) {
    if (at + 24 > bytes.length) throw new Error('bitmaps: the directory ends within an entry');
    const nameLength = view.getUint16(at + 18);
    const extra = view.getUint32(at + 20);
    const end = at + 24 + extra + nameLength;
    if (nameLength > MAX_NAME || end > bytes.length) throw new Error('bitmaps: the directory ends within an entry');
    const bits = view.getUint8(at + 17);
    if (bits < 9 || bits > 31 || view.getUint8(at + 16) !== TYPE_DIRTY) throw new Error('bitmaps: an entry of unknown type');
    const flags = view.getUint32(at + 12);
    found.push({
      name: new TextDecoder().decode(bytes.subarray(at + 24 + extra, end)),
      granularity: 2 ** bits,
      inUse: (flags & FLAG.inUse) !== 0,
      auto: (flags & FLAG.auto) !== 0,
      tableOffset: read64(view, at),
      tableEntries: view.getUint32(at + 8),
    });
    at = Math.ceil(end / 8) * 8;
  }
  return found;
}

function encodeDirectory(entries: readonly BitmapEntry[]): Uint8Array {
  const parts = entries.map((entry) => {
    const name = new TextEncoder().encode(entry.name);
    const bytes = new Uint8Array(Math.ceil((24 + name.length) / 8) * 8);
    const view = viewOf(bytes);
    write64(view, 0, entry.tableOffset);
    view.setUint32(8, entry.tableEntries);
    view.setUint32(12, (entry.inUse ? FLAG.inUse : 0) | (entry.auto ? FLAG.auto : 0));
    view.setUint8(16, TYPE_DIRTY);
    view.setUint8(17, Math.log2(entry.granularity));
    view.setUint16(18, name.length);
    bytes.set(name, 24);
    return bytes;
  });
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
}

async function readTable(image: Image, { tableOffset, tableEntries, name }: BitmapEntry): Promise<number[]> {
  if (tableEntries * 8 > MAX_BITS || tableOffset % image.clusterSize !== 0)
    throw new Error(`bitmap '${name}': its table cannot be`);
  const view = viewOf(await readBytes(image.file, tableOffset, tableEntries * 8));
  return Array.from({ length: tableEntries }, (_, i) => {
    const offset = (view.getUint32(i * 8) & ENTRY_ADDRESS) * 2 ** 32 + ((view.getUint32(i * 8 + 4) & ~511) >>> 0);
    if (offset !== 0 && offset % image.clusterSize !== 0) throw new Error(`bitmap '${name}': a cluster is not aligned`);
    return offset !== 0 ? offset : view.getUint32(i * 8 + 4) & 1;
  });
}

/** Every range of the file that bitmaps take. */
export async function bitmapPlaces(image: Image): Promise<{ offset: number; length: number }[]> {
  const place = image.header.bitmaps;
  if (place === null) return [];
  const found = [{ offset: place.directoryOffset, length: place.directorySize }];
  for (const entry of await listBitmaps(image)) {
    found.push({ offset: entry.tableOffset, length: entry.tableEntries * 8 });
    for (const at of await readTable(image, entry)) if (at > 1) found.push({ offset: at, length: image.clusterSize });
  }
  return found;
}

async function loadBits(image: Image, entry: BitmapEntry): Promise<Uint8Array> {
  const length = bitBytes(image.header.size, entry.granularity);
  if (length > MAX_BITS) throw new Error(`bitmap '${entry.name}' is too large`);
  const bits = new Uint8Array(length);
  const table = await readTable(image, entry);
  for (let i = 0; i < table.length; i++) {
    const part = bits.subarray(i * image.clusterSize, (i + 1) * image.clusterSize);
    if (table[i] === 1) part.fill(255);
    else if (table[i] !== 0 && part.length > 0) part.set(await readBytes(image.file, table[i]!, part.length));
  }
  return bits;
}

/** The bitmaps of an image that is written to. */
export class Bitmaps {
  readonly list: Bitmap[];
  private readonly node: Qcow2Node;
  private changed = false;

  constructor(node: Qcow2Node, list: Bitmap[]) {
    this.node = node;
    this.list = list;
  }

  find(name: string): Bitmap | null {
    return this.list.find(({ entry }) => entry.name === name) ?? null;
  }

  /** Remembers a write. */
  written(offset: number, length: number): void {
    if (length === 0) return;
    for (const { entry, bits, recording } of this.list) {
      if (recording) setBits(bits, Math.floor(offset / entry.granularity), Math.floor((offset + length - 1) / entry.granularity));
    }
  }

  /** A crash from now on leaves bitmaps that must not be trusted; the file says so before any data reach it. */
  async mark(): Promise<void> {
    const { image } = this.node;
    const place = image.header.bitmaps;
    if (place === null || !this.list.some(({ recording }) => recording)) return;
    this.changed = true;
    const entries = this.list.map(({ entry, recording }) => ({ ...entry, inUse: entry.inUse || recording }));
    await image.file.write(place.directoryOffset, encodeDirectory(entries));
    await image.file.flush();
  }

  touch(): void {
    this.changed = true;
  }

  resize(size: number): void {
    for (const one of this.list) {
      const bits = new Uint8Array(bitBytes(size, one.entry.granularity));
      bits.set(one.bits.subarray(0, bits.length));
      one.bits = bits;
    }
    this.changed = true;
  }

  /** Writes all bitmaps anew and frees what they took before. */
  *store(): Task<void> {
    if (!this.changed) return;
    const { image } = this.node;
    const { header, refcounts } = image;
    const old = yield* wait(bitmapPlaces(image));
    const entries: BitmapEntry[] = [];
    for (const { entry, bits } of this.list) {
      const { offset, count } = yield* this.storeOne(bits);
      entries.push({ ...entry, tableOffset: offset, tableEntries: count });
    }
    const directory = encodeDirectory(entries);
    const at = directory.length === 0 ? 0 : yield* refcounts.allocateRow(clustersOf(image, directory.length));
    if (directory.length > 0) {
      const writing = image.file.write(at, directory);
      if (writing !== undefined) yield writing;
    }
    yield* image.flush();
    header.bitmaps =
      entries.length === 0 ? null : { count: entries.length, directorySize: directory.length, directoryOffset: at };
    header.autoclear = entries.length === 0 ? header.autoclear & ~AUTOCLEAR.bitmaps : header.autoclear | AUTOCLEAR.bitmaps;
    yield* image.saveHeader();
    for (const { offset, length } of old) yield* refcounts.free(offset, clustersOf(image, length));
    this.list.forEach((one, i) => {
      one.entry = entries[i]!;
    });
    this.changed = false;
  }

  private *storeOne(bits: Uint8Array): Task<{ offset: number; count: number }> {
    const { image } = this.node;
    const { clusterSize, refcounts } = image;
    const count = clustersOf(image, bits.length);
    const table = new Uint8Array(count * 8);
    for (let i = 0; i < count; i++) {
      const part = bits.subarray(i * clusterSize, (i + 1) * clusterSize);
      if (part.every((value) => value === 0)) continue;
      const at = yield* refcounts.allocateRow(1);
      const whole = new Uint8Array(clusterSize);
      whole.set(part);
      const writing = image.file.write(at, whole);
      if (writing !== undefined) yield writing;
      write64(viewOf(table), i * 8, at);
    }
    const offset = yield* refcounts.allocateRow(Math.max(1, clustersOf(image, table.length)));
    const writing = image.file.write(offset, table);
    if (writing !== undefined) yield writing;
    return { offset, count };
  }
}

function setBits(bits: Uint8Array, first: number, last: number): void {
  let bit = first;
  for (; bit <= last && (bit & 7) !== 0; bit++) bits[bit >> 3]! |= 1 << (bit & 7);
  const whole = Math.floor((last + 1) / 8) * 8;
  if (whole > bit) {
    bits.fill(255, bit / 8, whole / 8);
    bit = whole;
  }
  for (; bit <= last; bit++) bits[Math.floor(bit / 8)]! |= 1 << (bit % 8);
}

/** Loads the bitmaps of an image that will be written to; those in use by a run that has crashed stay as they are. */
export async function openBitmaps(node: Qcow2Node): Promise<Bitmaps> {
  const list: Bitmap[] = [];
  for (const entry of await listBitmaps(node.image)) {
    list.push({ entry, bits: await loadBits(node.image, entry), recording: entry.auto && !entry.inUse });
  }
  return new Bitmaps(node, list);
}

/** @returns the image's bitmaps, which need not exist yet */
async function bitmapsOf(node: Qcow2Node): Promise<Bitmaps> {
  if (node.image.header.version === 2) throw new Error('Cannot store dirty bitmaps in qcow2 v2 files');
  node.bitmaps ??= await openBitmaps(node);
  return node.bitmaps;
}

export type BitmapAction =
  | { readonly kind: 'add'; readonly granularity: number | null; readonly disabled: boolean }
  | { readonly kind: 'remove' | 'clear' | 'enable' | 'disable' }
  | { readonly kind: 'merge'; readonly bits: Uint8Array; readonly granularity: number };

/** @throws Error in QEMU's words */
export async function changeBitmap(node: Qcow2Node, name: string, action: BitmapAction): Promise<void> {
  const bitmaps = await bitmapsOf(node);
  const found = bitmaps.find(name);
  if (action.kind === 'add') addBitmap(node, bitmaps, name, found, action);
  else {
    if (found === null) throw new Error(`Dirty bitmap '${name}' not found`);
    if (found.entry.inUse && action.kind !== 'remove') throw new Error(`Bitmap '${name}' is inconsistent and cannot be used`);
    changeFound(bitmaps, found, action);
  }
  bitmaps.touch();
  await run(bitmaps.store());
}

function addBitmap(
  node: Qcow2Node,
  bitmaps: Bitmaps,
  name: string,
  found: Bitmap | null,
  { granularity, disabled }: { granularity: number | null; disabled: boolean },
): void {
  if (found !== null) throw new Error(`Bitmap already exists: ${name}`);
  if (name.length > MAX_NAME) throw new Error('Bitmap name is too long');
  const used = granularity ?? Math.max(4096, Math.min(65536, node.image.clusterSize));
  if (!Number.isInteger(Math.log2(used)) || used < 512 || used > 2 ** 31) {
    throw new Error('Granularity must be a power of 2 between 512 and 2G');
  }
  const entry = { name, granularity: used, inUse: false, auto: !disabled, tableOffset: 0, tableEntries: 0 };
  bitmaps.list.push({ entry, bits: new Uint8Array(bitBytes(node.size, used)), recording: !disabled });
}

function changeFound(bitmaps: Bitmaps, found: Bitmap, action: Exclude<BitmapAction, { kind: 'add' }>): void {
  switch (action.kind) {
    case 'remove':
      bitmaps.list.splice(bitmaps.list.indexOf(found), 1);
      break;
    case 'clear':
      found.bits.fill(0);
      break;
    case 'enable':
    case 'disable':
      found.recording = action.kind === 'enable';
      found.entry = { ...found.entry, auto: found.recording };
      break;
    case 'merge':
      mergeBits(found, action.bits, action.granularity);
  }
}

/** Bits of another granularity cover all that they touch. */
function mergeBits({ entry, bits }: Bitmap, from: Uint8Array, granularity: number): void {
  const last = bits.length * 8 - 1;
  for (let bit = 0; bit < from.length * 8; bit++) {
    if (((from[Math.floor(bit / 8)]! >> (bit % 8)) & 1) === 0) continue;
    const start = bit * granularity;
    setBits(
      bits,
      Math.floor(start / entry.granularity),
      Math.min(last, Math.floor((start + granularity - 1) / entry.granularity)),
    );
  }
}

/** The bits of one bitmap, for merging. */
export async function readBitmap(node: Qcow2Node, name: string): Promise<Bitmap> {
  const entry = (await listBitmaps(node.image)).find((one) => one.name === name);
  if (entry === undefined) throw new Error(`Dirty bitmap '${name}' not found`);
  return { entry, bits: await loadBits(node.image, entry), recording: false };
}

/**
 * VHDX ("VHDX Format Specification" 1.00, [MS-VHDX]). Numbers are little-endian.
 *
 *   0 file identifier   64 KiB and 128 KiB headers   192 KiB and 256 KiB region tables   1 MiB log, metadata, block table
 *
 * Header (4 KiB): 0 "head"  4 CRC  8 sequence number (64 bits)  16 GUID of file writes  32 of data writes  48 of the log
 *   64 log version (16)  66 version (16)  68 log length  72 log offset (64)
 * Entry of the block table (64 bits): 0..2 state, 20..63 offset in MiB; every so many entries one is for a bitmap.
 */
import { crc32c } from '../host/crc32c.ts';
import type { Completion } from '../machine/interfaces.ts';
import { ABSENT, ClusterNode, ZEROED } from './clusters.ts';
import { driver, type Opening } from './driver.ts';
import { type BlockNode, type CheckResult, type Extent, MAX_SIZE, NO_FINDINGS, type NodeInfo, readBytes } from './node.ts';
import { node, nodeOrNull, optional, type Schema } from './schema.ts';
import { Lock, type Maybe, run, type Task } from './task.ts';
import { LOG_SECTOR, replayLog, writeLogEntry } from './vhdx-log.ts';
import { checkLinkage, MAX_LOCATOR, openParent, type ParentLocator, parentNames, parseLocator } from './vhdx-parent.ts';

const MIB = 2 ** 20;
export const KIB64 = 65536;
export const HEADER_BYTES = 4096;
export const HEADERS_AT = [KIB64, 2 * KIB64] as const;
export const REGIONS_AT = [3 * KIB64, 4 * KIB64] as const;
const STATE = { absent: 0, undefined: 1, zero: 2, unmapped: 3, unmappedOld: 5, full: 6, partial: 7 } as const;
const MAX_DISK = 64 * 2 ** 40;

export const GUID = {
  bat: '2dc27766-f623-4200-9d64-115e9bfd4a08',
  metadata: '8b7ca206-4790-4b9a-b8fe-575f050f886e',
  fileParameters: 'caa16737-fa36-4d43-b3b6-33f0aa44e76b',
  diskSize: '2fa54224-cd1b-4876-b211-5dbed83bf4b8',
  page83: 'beca12ab-b2e6-4523-93ef-c309e000c746',
  logicalSector: '8141bf1d-a96f-4709-ba47-f233a8faab5f',
  physicalSector: 'cda348c7-445d-4471-9cc9-e9885251c556',
  parentLocator: 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c',
  /** Of a locator whose texts are names of VHDX files. */
  locatorKind: 'b04aefb7-d19e-4a81-b789-25b8e9445913',
} as const;

const OPTIONS = { file: node, backing: optional(nodeOrNull, undefined) } satisfies Schema;

const SECTOR = 512;
const HAS_PARENT = 2;
/** Where a header has the GUID that changes with the disk's contents. */
const DATA_WRITES = 32;

/** GUIDs are stored with their first three groups little-endian. */
export function guidBytes(text: string): Uint8Array {
  const digits = text.replaceAll('-', '');
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return Uint8Array.from(order, (i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => a.every((value, i) => value === b[i]);

/** @returns whether the four bytes at 4 are the checksum of all others */
export function checked(bytes: Uint8Array): boolean {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const stored = view.getUint32(4, true);
  view.setUint32(4, 0, true);
  return crc32c(copy) === stored;
}

export function seal(bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint32(4, 0, true);
  view.setUint32(4, crc32c(bytes), true);
  return bytes;
}

const tag = (bytes: Uint8Array, length: number): string => new TextDecoder('latin1').decode(bytes.subarray(0, length));

export type Header = { bytes: Uint8Array; view: DataView; which: number };

/** The header that was written last. @throws Error where neither is whole */
export async function readHeader(file: BlockNode): Promise<Header> {
  let best: Header | null = null;
  for (const [which, at] of HEADERS_AT.entries()) {
    const bytes = await readBytes(file, at, HEADER_BYTES);
    if (tag(bytes, 4) !== 'head' || !checked(bytes)) continue;
    const view = new DataView(bytes.buffer);
    if (best === null || view.getBigUint64(8, true) > best.view.getBigUint64(8, true)) best = { bytes, view, which };
  }
  if (best === null) throw new Error('VHDX: no header is valid');
  if (best.view.getUint16(66, true) !== 1) throw new Error(`VHDX: version ${best.view.getUint16(66, true)} is not supported`);
  return best;
}

type Region = { offset: number; length: number };

async function readRegions(file: BlockNode): Promise<{ bat: Region; metadata: Region }> {
  for (const at of REGIONS_AT) {
    const bytes = await readBytes(file, at, KIB64);
    if (tag(bytes, 4) !== 'regi' || !checked(bytes)) continue;
    const view = new DataView(bytes.buffer);
    const count = view.getUint32(8, true);
    if (count > 2047) continue;
    const found = new Map<string, Region>();
    for (let i = 0; i < count; i++) {
      const entry = 16 + 32 * i;
      const guid = bytes.subarray(entry, entry + 16);
      const name = (['bat', 'metadata'] as const).find((one) => sameBytes(guidBytes(GUID[one]), guid));
      if (name === undefined) {
        if (view.getUint32(entry + 28, true) & 1) throw new Error('VHDX: a region that is required is not known');
        continue;
      }
      const region = { offset: Number(view.getBigUint64(entry + 16, true)), length: view.getUint32(entry + 24, true) };
      if (region.offset < MIB || region.offset % MIB !== 0 || region.offset + region.length > Math.max(file.size, MIB)) {
        throw new Error(`VHDX: region "${name}" lies where it cannot be`);
      }
      found.set(name, region);
    }
    const [bat, metadata] = [found.get('bat'), found.get('metadata')];
    if (bat !== undefined && metadata !== undefined) return { bat, metadata };
  }
  throw new Error('VHDX: no region table is valid');
}

type Metadata = { blockSize: number; size: number; sector: number; parent: ParentLocator | null };

async function readMetadata(file: BlockNode, { offset, length }: Region): Promise<Metadata> {
  const table = await readBytes(file, offset, Math.min(length, KIB64));
  if (tag(table, 8) !== 'metadata') throw new Error('VHDX: the metadata table is not valid');
  const view = new DataView(table.buffer);
  const count = view.getUint16(10, true);
  if (count > 2047) throw new Error('VHDX: the metadata table is not valid');
  /** @param bytes as many as the item says when not given */
  const item = async (name: keyof typeof GUID, bytes?: number): Promise<DataView> => {
    for (let i = 0; i < count; i++) {
      const at = 32 + 32 * i;
      if (at + 32 > table.length || !sameBytes(guidBytes(GUID[name]), table.subarray(at, at + 16))) continue;
      const size = bytes ?? Math.min(view.getUint32(at + 20, true), MAX_LOCATOR);
      if (view.getUint32(at + 16, true) + size > length) break;
      return new DataView((await readBytes(file, offset + view.getUint32(at + 16, true), size)).buffer);
    }
    throw new Error(`VHDX: metadata item "${name}" is missing`);
  };
  const parameters = await item('fileParameters', 8);
  const size = Number((await item('diskSize', 8)).getBigUint64(0, true));
  const sector = (await item('logicalSector', 4)).getUint32(0, true);
  const blockSize = parameters.getUint32(0, true);
  const differs = (parameters.getUint32(4, true) & HAS_PARENT) !== 0;
  if (blockSize < MIB || blockSize > 256 * MIB || (blockSize & (blockSize - 1)) !== 0)
    throw new Error(`VHDX: block size ${blockSize} is out of range`);
  if (sector !== 512) throw new Error(`VHDX: sectors of ${sector} bytes are not supported`);
  if (size > Math.min(MAX_DISK, MAX_SIZE) || size % sector !== 0) throw new Error('VHDX: the size of the disk is out of range');
  const parent = differs ? parseLocator(new Uint8Array((await item('parentLocator')).buffer)) : null;
  return { blockSize, size, sector, parent };
}

/** Blocks between two entries for bitmaps. */
export const chunkRatio = (blockSize: number, sector: number): number => (2 ** 23 * sector) / blockSize;

class VhdxNode extends ClusterNode {
  readonly driver = 'vhdx';
  readonly clusterSize: number;
  readonly size: number;
  private readonly header: Header;
  private readonly bat: Region;
  private readonly table: Uint8Array;
  private readonly entries: DataView;
  private readonly ratio: number;
  /** Blocks that are not there are the parent's, and some sectors of others. */
  private readonly differs: boolean;
  private readonly parentName: string | null;
  /** Which sectors of a block are its own, of blocks that have been looked at. */
  private readonly bitmaps = new Map<number, Uint8Array>();
  private readonly completing = new Lock();
  private started = false;
  /** Settles when the headers say that the image is being changed. */
  private starting: Promise<void> | null = null;
  private logSequence = 1n;
  private logAt = 0;

  constructor(
    file: BlockNode,
    readOnly: boolean,
    header: Header,
    bat: Region,
    table: Uint8Array,
    { blockSize, size, sector, parent }: Metadata,
    behind: BlockNode | null = null,
  ) {
    super(file, behind, readOnly);
    this.differs = parent !== null;
    this.parentName = parent === null ? null : (parentNames(parent)[0] ?? null);
    this.clusterSize = blockSize;
    this.size = size;
    this.header = header;
    this.bat = bat;
    this.table = table;
    this.entries = new DataView(table.buffer, table.byteOffset, table.byteLength);
    this.ratio = chunkRatio(blockSize, sector);
  }

  override get backingName(): { file: string; format: string | null } | null {
    return this.parentName === null ? null : { file: this.parentName, format: 'vhdx' };
  }

  /** 16 bytes that change with what is on the disk. */
  get dataWrites(): Uint8Array {
    return this.header.bytes.subarray(DATA_WRITES, DATA_WRITES + 16);
  }

  private entryAt(cluster: number): number {
    return (cluster + Math.floor(cluster / this.ratio)) * 8;
  }

  protected find(cluster: number): number {
    const at = this.entryAt(cluster);
    const state = this.entries.getUint32(at, true) & 7;
    switch (state) {
      case STATE.absent:
        return this.differs ? ABSENT : ZEROED;
      case STATE.undefined:
      case STATE.zero:
      case STATE.unmapped:
      case STATE.unmappedOld:
        return ZEROED;
      case STATE.full:
        return this.placeAt(at, `block ${cluster}`);
      case STATE.partial:
        if (this.differs) return this.placeAt(at, `block ${cluster}`);
        throw new Error(`block ${cluster} is there in part, and there is no parent`);
      default:
        throw new Error(`block ${cluster} is in state ${state}, which is not supported`);
    }
  }

  private placeAt(entry: number, what: string): number {
    const host = Math.floor(Number(this.entries.getBigUint64(entry, true)) / MIB) * MIB;
    if (host < MIB || host >= this.below.size) throw new Error(`${what} lies at offset ${host}, which cannot be`);
    return host;
  }

  // --- Blocks of which some sectors are the parent's.

  private isPartial(cluster: number): boolean {
    return (this.entries.getUint32(this.entryAt(cluster), true) & 7) === STATE.partial;
  }

  /** A bit for each sector of a block, the lowest one first: set for those of its own. */
  private *bitmapOf(cluster: number): Task<Uint8Array> {
    const there = this.bitmaps.get(cluster);
    if (there !== undefined) return there;
    const { ratio } = this;
    const entry = ((Math.floor(cluster / ratio) + 1) * (ratio + 1) - 1) * 8;
    if (entry + 8 > this.entries.byteLength || (this.entries.getUint32(entry, true) & 7) !== STATE.full) {
      throw new Error(`block ${cluster} is there in part, and its bitmap is missing`);
    }
    const bits = new Uint8Array(this.clusterSize / SECTOR / 8);
    const at = this.placeAt(entry, `the bitmap of block ${cluster}`) + (cluster % ratio) * bits.length;
    const reading = this.below.read(at, bits);
    if (reading !== undefined) yield reading;
    if (this.bitmaps.size >= 256) this.bitmaps.delete(this.bitmaps.keys().next().value!);
    this.bitmaps.set(cluster, bits);
    return bits;
  }

  protected override readCluster(cluster: number, host: number, within: number, into: Uint8Array): Completion {
    if (!this.differs || !this.isPartial(cluster)) return super.readCluster(cluster, host, within, into);
    return run(this.readMixed(cluster, host, within, into));
  }

  private *readMixed(cluster: number, host: number, within: number, into: Uint8Array): Task<void> {
    const bits = yield* this.bitmapOf(cluster);
    for (let at = 0; at < into.length; ) {
      const { own, length } = stretch(bits, within + at, into.length - at);
      const part = into.subarray(at, at + length);
      const place = cluster * this.clusterSize + within + at;
      const reading = own ? this.below.read(host + within + at, part) : this.readBehind(place, part);
      if (reading !== undefined) yield reading;
      at += length;
    }
  }

  protected override writeCluster(cluster: number, host: number, within: number, from: Uint8Array): Completion {
    if (!this.differs || !this.isPartial(cluster)) return super.writeCluster(cluster, host, within, from);
    return run(this.writeCompleted(cluster, host, within, from));
  }

  /** The first write to such a block brings over what it lacks: then all of it is its own. */
  private *writeCompleted(cluster: number, host: number, within: number, from: Uint8Array): Task<void> {
    yield* this.completing.acquire();
    try {
      if (this.isPartial(cluster)) yield* this.complete(cluster, host);
    } finally {
      this.completing.release();
    }
    const writing = this.below.write(host + within, from);
    if (writing !== undefined) yield writing;
  }

  private *complete(cluster: number, host: number): Task<void> {
    const bits = yield* this.bitmapOf(cluster);
    const { clusterSize } = this;
    for (let at = 0; at < clusterSize; ) {
      const { own, length } = stretch(bits, at, Math.min(MIB, clusterSize - at));
      if (!own) {
        const data = new Uint8Array(length);
        const reading = this.readBehind(cluster * clusterSize + at, data);
        if (reading !== undefined) yield reading;
        const writing = this.below.write(host + at, data);
        if (writing !== undefined) yield writing;
      }
      at += length;
    }
    yield* this.setEntry(this.entryAt(cluster), BigInt(host) | BigInt(STATE.full));
    this.bitmaps.delete(cluster);
  }

  override status(offset: number, length: number): Maybe<Extent> {
    const cluster = Math.floor(offset / this.clusterSize);
    if (!this.differs || !this.isPartial(cluster)) {
      // What follows may be there in part: it is looked at by itself.
      const most = this.differs ? (cluster + 1) * this.clusterSize - offset : length;
      return super.status(offset, Math.min(length, most));
    }
    return run(this.mixedStatus(cluster, offset, length));
  }

  private *mixedStatus(cluster: number, offset: number, length: number): Task<Extent> {
    const bits = yield* this.bitmapOf(cluster);
    const within = offset % this.clusterSize;
    const found = stretch(bits, within, Math.min(length, this.clusterSize - within));
    const at = this.placeAt(this.entryAt(cluster), `block ${cluster}`) + within;
    const { own } = found;
    return {
      length: found.length,
      data: own,
      zero: false,
      allocated: own,
      offset: own ? at : null,
      file: own ? this.below : null,
    };
  }

  protected take(): number {
    return Math.ceil(this.below.size / MIB) * MIB;
  }

  override write(offset: number, from: Uint8Array): Completion {
    this.checkWritable();
    const starting = this.begin();
    return starting === undefined ? super.write(offset, from) : starting.then(() => super.write(offset, from));
  }

  private begin(): Completion {
    if (this.started) return this.starting ?? undefined;
    const running = run(this.start());
    if (running === undefined) return undefined;
    this.starting = running.finally(() => {
      this.starting = null;
    });
    return this.starting;
  }

  protected link(cluster: number, host: number): Completion {
    return run(this.setEntry(this.entryAt(cluster), BigInt(host) | BigInt(STATE.full)));
  }

  /** The log gets what the table will have, and is stable before the table changes. */
  private *setEntry(at: number, value: bigint): Task<void> {
    this.entries.setBigUint64(at, value, true);
    const from = at - (at % LOG_SECTOR);
    const sector = this.table.slice(from, from + LOG_SECTOR);
    const { view, bytes } = this.header;
    const log = { offset: Number(view.getBigUint64(72, true)), length: view.getUint32(68, true), guid: bytes.slice(48, 64) };
    const place = { at: this.logAt, sequence: this.logSequence++ };
    this.logAt = yield* writeLogEntry(this.below, log, place, this.bat.offset + from, sector);
    const writing = this.below.write(this.bat.offset + from, sector);
    if (writing !== undefined) yield writing;
    const flushing = this.below.flush();
    if (flushing !== undefined) yield flushing;
  }

  /** Before the first change the headers say that the image is in use, and that there may be a log. */
  private *start(): Task<void> {
    if (this.started) return;
    this.started = true;
    const { bytes } = this.header;
    bytes.set(crypto.getRandomValues(new Uint8Array(16)), 16);
    bytes.set(crypto.getRandomValues(new Uint8Array(16)), 32);
    bytes.set(crypto.getRandomValues(new Uint8Array(16)), 48);
    yield* this.saveHeader();
  }

  /** Always over the older of the two. */
  private *saveHeader(): Task<void> {
    const { header } = this;
    for (let i = 0; i < 2; i++) {
      header.which ^= 1;
      header.view.setBigUint64(8, header.view.getBigUint64(8, true) + 1n, true);
      const writing = this.below.write(HEADERS_AT[header.which]!, seal(header.bytes).slice());
      if (writing !== undefined) yield writing;
      const flushing = this.below.flush();
      if (flushing !== undefined) yield flushing;
    }
  }

  override info(): NodeInfo {
    return { clusterSize: this.clusterSize };
  }

  override check(): CheckResult {
    return NO_FINDINGS;
  }

  override close(): Completion {
    if (!this.started) return undefined;
    this.header.bytes.fill(0, 48, 64);
    return run(this.saveHeader());
  }
}

/** How far sectors from one on are alike. @param from, most bytes */
function stretch(bits: Uint8Array, from: number, most: number): { own: boolean; length: number } {
  const isOwn = (at: number): boolean => ((bits[at >> 12]! >> ((at >> 9) & 7)) & 1) !== 0;
  const own = isOwn(from);
  let end = from - (from % SECTOR) + SECTOR;
  while (end < from + most && isOwn(end) === own) end += SECTOR;
  return { own, length: Math.min(end - from, most) };
}

/** @returns null where nothing is to be behind it */
async function behindOf(name: string, parent: ParentLocator | null, given: unknown, opening: Opening): Promise<BlockNode | null> {
  if (given === null || opening.how.noBacking) return null;
  const changes = { writable: false, share: false, resize: false };
  if (given !== undefined) return opening.child(given as string, changes, true);
  if (parent === null) return null;
  const behind = await openParent(name, parent, opening);
  if (behind instanceof VhdxNode) checkLinkage(parent, behind.dataWrites);
  return behind;
}

export const vhdxDriver = driver({
  name: 'vhdx',
  protocol: false,
  options: OPTIONS,
  open: async (values, opening) => {
    const { how, child } = opening;
    const file = await child(values.file, { share: false, resize: true });
    if (tag(await readBytes(file, 0, 8), 8) !== 'vhdxfile') throw new Error('VHDX: the signature is missing');
    const readOnly = !how.writable || file.readOnly;
    const header = await readHeader(file);
    const { offset, length, guid } = {
      offset: Number(header.view.getBigUint64(72, true)),
      length: header.view.getUint32(68, true),
      guid: header.bytes.slice(48, 64),
    };
    if (guid.some((value) => value !== 0)) {
      const replayed = await replayLog(file, { offset, length, guid }, readOnly);
      if (replayed && readOnly)
        throw new Error(
          `VHDX: the image was not closed; open it for writing once (for instance by "check -r all") so that its log is replayed`,
        );
    }
    const { bat, metadata } = await readRegions(file);
    const facts = await readMetadata(file, metadata);
    const blocks = Math.ceil(facts.size / facts.blockSize);
    const ratio = chunkRatio(facts.blockSize, facts.sector);
    // With a parent, each chunk has an entry for its bitmap, the last one, too.
    const bitmaps = facts.parent === null ? Math.floor(Math.max(0, blocks - 1) / ratio) : Math.ceil(blocks / ratio);
    const needed = (facts.parent === null ? blocks + bitmaps : bitmaps * (ratio + 1)) * 8;
    if (needed > bat.length) throw new Error('VHDX: the block table is too small for the disk');
    const table = await readBytes(file, bat.offset, Math.min(bat.length, Math.ceil(needed / LOG_SECTOR) * LOG_SECTOR));
    const behind = await behindOf(file.filename, facts.parent, values.backing, opening);
    return new VhdxNode(file, readOnly, header, bat, table, facts, behind);
  },
});

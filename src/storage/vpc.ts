/**
 * VHD, the format of Virtual PC (Microsoft's "Virtual Hard Disk Image Format Specification" 1.0). Numbers are big-endian.
 *
 * Footer (512 bytes, at the end; dynamic disks have a copy at the beginning):
 *   0 "conectix"   8 features   12 version   16 offset of the dynamic header (64 bits)   24 seconds since 2000
 *   28 creator   32 its version   36 its system   40 original size   48 size   56 cylinders (16), heads, sectors
 *   60 type (2 fixed, 3 dynamic, 4 differencing)   64 checksum   68 UUID
 * Dynamic header (1024 bytes):
 *   0 "cxsparse"   16 offset of the table   24 version   28 entries   32 block size   36 checksum   40 parent's UUID
 *   64 parent's name (UTF-16)   576 eight locators of 24: 0 platform   4 room   8 length   16 offset (64 bits)
 * A block begins with a bitmap of its sectors, which says what a differencing disk has of its own.
 */
import type { Completion } from '../machine/interfaces.ts';
import { ABSENT, ClusterNode, EntryTable, endOf, ZEROED } from './clusters.ts';
import { driver, type Opening } from './driver.ts';
import { resolveBacking } from './names.ts';
import { BlockNode, type Extent, MAX_SIZE, type NodeInfo, readBytes } from './node.ts';
import { node, nodeOrNull, optional, type Schema, choice } from './schema.ts';
import { type Maybe, run, type Task } from './task.ts';

export const FOOTER_BYTES = 512;
export const HEADER_BYTES = 1024;
export const TYPE = { fixed: 2, dynamic: 3, differencing: 4 } as const;
/** Disks that do not fit into cylinders, heads and sectors have the largest numbers there. */
export const MAX_GEOMETRY = 65535 * 16 * 255;
const MAX_ENTRIES = 2 ** 25;
/** Programs that go by the size, not by the geometry. */
const BY_SIZE = ['win ', 'qem2', 'd2v ', 'tap\0', 'CTXS', 'vs  '];

const OPTIONS = {
  file: node,
  backing: optional(nodeOrNull, undefined),
  'force-size-calc': optional(choice('chs', 'current_size'), null),
  force_size_calc: optional(choice('chs', 'current_size'), null),
} satisfies Schema;

export function checksum(bytes: Uint8Array, at: number): number {
  let sum = 0;
  bytes.forEach((value, i) => {
    if (i < at || i >= at + 4) sum += value;
  });
  return ~sum >>> 0;
}

/** Bytes that a disk has by its footer. */
function sizeOf(footer: DataView, forced: string | null): number {
  const [cylinders, heads, sectors] = [footer.getUint16(56), footer.getUint8(58), footer.getUint8(59)];
  const geometry = cylinders * heads * sectors;
  const creator = String.fromCharCode(...[28, 29, 30, 31].map((at) => footer.getUint8(at)));
  const bySize = forced === null ? BY_SIZE.includes(creator) || geometry >= MAX_GEOMETRY : forced === 'current_size';
  const size = bySize ? Number(footer.getBigUint64(48)) : geometry * 512;
  if (size > MAX_SIZE) throw new Error('the disk is too large');
  return size - (size % 512);
}

/** A fixed disk: the data, then the footer. */
class FixedVpc extends BlockNode {
  readonly driver = 'vpc';
  readonly size: number;
  private readonly below: BlockNode;

  constructor(below: BlockNode, size: number, readOnly: boolean) {
    super();
    this.below = below;
    this.size = size;
    this.readOnly = readOnly;
  }

  override get file(): BlockNode {
    return this.below;
  }

  override get zeroInit(): boolean {
    return true;
  }

  read(offset: number, into: Uint8Array): Completion {
    return this.below.read(offset, into);
  }

  write(offset: number, from: Uint8Array): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    return this.below.write(offset, from);
  }

  flush(): Completion {
    return this.below.flush();
  }

  override status(offset: number, length: number): Extent {
    return { length, data: true, zero: false, allocated: true, offset, file: this.below };
  }

  override info(): NodeInfo {
    return {};
  }

  close(): void {
    // Nothing of its own.
  }
}

class DynamicVpc extends ClusterNode {
  readonly driver = 'vpc';
  readonly clusterSize: number;
  readonly size: number;
  private readonly table: EntryTable;
  private readonly entries: number;
  private readonly bitmapBytes: number;
  /** Written behind the last block, again and again. */
  private readonly footer: Uint8Array;
  private readonly differencing: boolean;
  /** Bitmaps of differencing disks, by block. */
  private readonly bitmaps = new Map<number, Uint8Array>();

  constructor(
    below: BlockNode,
    behind: BlockNode | null,
    readOnly: boolean,
    footer: Uint8Array,
    size: number,
    header: DataView,
    table: Uint8Array,
  ) {
    super(below, behind, readOnly);
    this.footer = footer;
    this.size = size;
    this.clusterSize = header.getUint32(32);
    this.entries = header.getUint32(28);
    this.bitmapBytes = Math.ceil(this.clusterSize / 512 / 8 / 512) * 512;
    this.table = new EntryTable(below, Number(header.getBigUint64(16)), table);
    this.differencing = new DataView(footer.buffer, footer.byteOffset).getUint32(60) === TYPE.differencing;
  }

  protected find(cluster: number): number {
    if (cluster >= this.entries) throw new Error(`block ${cluster} lies beyond the table`);
    const entry = this.table.view.getUint32(cluster * 4);
    if (entry === 0xffffffff) return this.differencing ? ABSENT : ZEROED;
    const host = entry * 512 + this.bitmapBytes;
    if (host >= this.below.size) throw new Error(`block ${cluster} lies beyond the end of the file`);
    return host;
  }

  protected take(): Maybe<number> {
    return run(this.takeTask());
  }

  /** The footer's place, from which it moves on. */
  private *takeTask(): Task<number> {
    const end = endOf(this.below, 512) - FOOTER_BYTES;
    const bitmap = new Uint8Array(this.bitmapBytes).fill(255);
    const moved = this.below.write(end + this.bitmapBytes + this.clusterSize, this.footer);
    if (moved !== undefined) yield moved;
    const writing = this.below.write(end, bitmap);
    if (writing !== undefined) yield writing;
    return end + this.bitmapBytes;
  }

  protected link(cluster: number, host: number): Completion {
    this.table.view.setUint32(cluster * 4, (host - this.bitmapBytes) / 512);
    return this.table.save(cluster * 4);
  }

  protected override readCluster(cluster: number, host: number, within: number, into: Uint8Array): Completion {
    if (!this.differencing) return super.readCluster(cluster, host, within, into);
    return run(this.readMixed(cluster, host, within, into));
  }

  /** Sectors of its own, and those of the parent. */
  private *readMixed(cluster: number, host: number, within: number, into: Uint8Array): Task<void> {
    const bits = yield* this.bitmapOf(cluster, host);
    const own = (at: number): boolean => {
      const sector = Math.floor((within + at) / 512);
      return ((bits[sector >> 3]! >> (7 - (sector & 7))) & 1) !== 0;
    };
    for (let at = 0; at < into.length; ) {
      const mine = own(at);
      let end = at + 512;
      while (end < into.length && own(end) === mine) end += 512;
      const part = into.subarray(at, end);
      const offset = cluster * this.clusterSize + within + at;
      let reading: Completion | undefined;
      if (mine) reading = this.below.read(host + within + at, part);
      else if (this.behind !== null && offset + part.length <= this.behind.size) reading = this.behind.read(offset, part);
      else part.fill(0);
      if (reading !== undefined) yield reading;
      at = end;
    }
  }

  private *bitmapOf(cluster: number, host: number): Task<Uint8Array> {
    const there = this.bitmaps.get(cluster);
    if (there !== undefined) return there;
    const bits = new Uint8Array(this.bitmapBytes);
    const reading = this.below.read(host - this.bitmapBytes, bits);
    if (reading !== undefined) yield reading;
    const now = this.bitmaps.get(cluster) ?? bits;
    if (this.bitmaps.size >= 256) this.bitmaps.delete(this.bitmaps.keys().next().value!);
    this.bitmaps.set(cluster, now);
    return now;
  }

  protected override writeCluster(cluster: number, host: number, within: number, from: Uint8Array): Completion {
    if (!this.differencing) return super.writeCluster(cluster, host, within, from);
    return run(this.writeMixed(cluster, host, within, from));
  }

  /** The data first, then the bits that say they are there. */
  private *writeMixed(cluster: number, host: number, within: number, from: Uint8Array): Task<void> {
    const writing = this.below.write(host + within, from);
    if (writing !== undefined) yield writing;
    const bits = yield* this.bitmapOf(cluster, host);
    let changed = false;
    for (let sector = within / 512; sector < (within + from.length) / 512; sector++) {
      const bit = 0x80 >> (sector & 7);
      changed ||= (bits[sector >> 3]! & bit) === 0;
      bits[sector >> 3]! |= bit;
    }
    if (!changed) return;
    const saving = this.below.write(host - this.bitmapBytes, bits.slice());
    if (saving !== undefined) yield saving;
  }

  override info(): NodeInfo {
    return { clusterSize: this.clusterSize };
  }
}

async function findFooter(below: BlockNode): Promise<Uint8Array> {
  const isFooter = (bytes: Uint8Array): boolean => new TextDecoder('latin1').decode(bytes.subarray(0, 8)) === 'conectix';
  const first = await readBytes(below, 0, Math.min(FOOTER_BYTES, below.size));
  if (isFooter(first)) return first;
  if (below.size >= 2 * FOOTER_BYTES) {
    // Fixed disks have it at the end only; old programs wrote 511 bytes.
    for (const length of [512, 511]) {
      const last = await readBytes(below, below.size - length, length);
      if (isFooter(last)) return last.length === 512 ? last : new Uint8Array([...last, 0]);
    }
  }
  throw new Error('invalid VPC image');
}

async function open(
  values: { file: unknown; backing?: unknown } & Record<string, unknown>,
  opening: Opening,
): Promise<BlockNode> {
  const { how, child } = opening;
  const below = await child(values.file as string, { share: false, resize: true });
  const footer = await findFooter(below);
  const view = new DataView(footer.buffer, footer.byteOffset, footer.byteLength);
  if (view.getUint32(64) !== checksum(footer, 64)) throw new Error('The footer of the image has an invalid checksum');
  const type = view.getUint32(60);
  const forced = (values['force-size-calc'] ?? values['force_size_calc'] ?? null) as string | null;
  const size = sizeOf(view, forced);
  const readOnly = !how.writable || below.readOnly;
  if (type === TYPE.fixed) {
    if (size + FOOTER_BYTES > below.size + 512) throw new Error('the disk is larger than its file');
    return new FixedVpc(below, size, readOnly);
  }
  if (type !== TYPE.dynamic && type !== TYPE.differencing) throw new Error(`unknown type of disk ${type}`);
  const bytes = await readBytes(below, Number(view.getBigUint64(16)), HEADER_BYTES);
  const header = new DataView(bytes.buffer);
  const table = await readTable(below, bytes, header, size);
  const behind = type === TYPE.differencing ? await openParent(below, bytes, header, values.backing, opening) : null;
  return new DynamicVpc(below, behind, readOnly, footer, size, header, table);
}

async function readTable(below: BlockNode, bytes: Uint8Array, header: DataView, size: number): Promise<Uint8Array> {
  if (new TextDecoder('latin1').decode(bytes.subarray(0, 8)) !== 'cxsparse')
    throw new Error('invalid header of a dynamic VPC image');
  if (header.getUint32(36) !== checksum(bytes, 36)) throw new Error('The dynamic header of the image has an invalid checksum');
  const [entries, blockSize] = [header.getUint32(28), header.getUint32(32)];
  if (blockSize < 512 || (blockSize & (blockSize - 1)) !== 0 || blockSize > 2 ** 30)
    throw new Error(`Invalid block size ${blockSize}`);
  if (entries > MAX_ENTRIES) throw new Error('Too many blocks');
  if (entries * blockSize < size) throw new Error('Page table too small');
  return readBytes(below, Number(header.getBigUint64(16)), Math.ceil((entries * 4) / 512) * 512);
}

/** The parent by the names that the locators give, else by the name in the header. */
async function openParent(
  below: BlockNode,
  bytes: Uint8Array,
  header: DataView,
  given: unknown,
  { how, child, image }: Opening,
): Promise<BlockNode | null> {
  const changes = { writable: false, share: false, resize: false };
  if (given === null || how.noBacking) return null;
  if (given !== undefined) return child(given as string, changes, true);
  const names: string[] = [];
  for (let i = 0; i < 8; i++) {
    const at = 576 + 24 * i;
    const code = new TextDecoder('latin1').decode(bytes.subarray(at, at + 4));
    const length = header.getUint32(at + 8);
    if ((code !== 'W2ru' && code !== 'W2ku') || length > 4096) continue;
    const text = new TextDecoder('utf-16le').decode(await readBytes(below, Number(header.getBigUint64(at + 16)), length));
    names.push(text.replaceAll('\\', '/').replace(/^\.\//, ''));
  }
  const title = new TextDecoder('utf-16be').decode(bytes.subarray(64, 576)).split('\0')[0]!;
  names.push(title);
  let failure: unknown = new Error('the parent has no name');
  for (const name of names.filter((one) => one !== '')) {
    try {
      return await image(resolveBacking(below.filename, name), null, changes);
    } catch (error) {
      failure = error;
    }
  }
  throw new Error(`Could not open the parent of a differencing disk: ${(failure as Error).message}`);
}

export const vpcDriver = driver({ name: 'vpc', protocol: false, options: OPTIONS, open });

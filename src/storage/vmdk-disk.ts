/** A VMDK as a whole: a descriptor, extents one after the other, and what is behind them. */
import type { Completion } from '../machine/interfaces.ts';
import { driver, type Opening } from './driver.ts';
import { resolveBacking } from './names.ts';
import { BlockNode, type CheckResult, type Extent, MAX_SIZE, NO_FINDINGS, type NodeInfo, readBytes } from './node.ts';
import { type Given, node, nodeOrNull, optional, type Schema } from './schema.ts';
import { type Maybe, run, Several, type Task, wait } from './task.ts';
import { readDirectory, readSparseHeader, SPARSE_MAGIC, FLAG, SparseExtent } from './vmdk.ts';
import { type Descriptor, type ExtentLine, parseDescriptor } from './vmdk-descriptor.ts';

const OPTIONS = { file: node, backing: optional(nodeOrNull, undefined) } satisfies Schema;
const MAX_DESCRIPTOR = 2 ** 20;
const SECTOR = 512;

type Part = { start: number; length: number; node: SparseExtent | FlatExtent | null };
type FlatExtent = { file: BlockNode; offset: number };

const isSparse = (part: Part['node']): part is SparseExtent => part instanceof SparseExtent;

class VmdkNode extends BlockNode {
  readonly driver = 'vmdk';
  readonly size: number;
  private readonly parts: readonly Part[];
  private readonly descriptor: Descriptor;
  private readonly below: BlockNode;
  private readonly behind: BlockNode | null;

  constructor(below: BlockNode, behind: BlockNode | null, readOnly: boolean, descriptor: Descriptor, parts: readonly Part[]) {
    super();
    this.below = below;
    this.behind = behind;
    this.readOnly = readOnly;
    this.descriptor = descriptor;
    this.parts = parts;
    const last = parts.at(-1);
    this.size = last === undefined ? 0 : last.start + last.length;
  }

  override get file(): BlockNode {
    return this.below;
  }

  override get backing(): BlockNode | null {
    return this.behind;
  }

  override get backingName(): { file: string; format: string | null } | null {
    const { parent } = this.descriptor;
    return parent === null ? null : { file: parent, format: 'vmdk' };
  }

  override get zeroInit(): boolean {
    return this.behind === null;
  }

  /** Extents by offset: few, but for disks in pieces of 2 GB of great size. */
  private partAt(offset: number): Part {
    let [low, high] = [0, this.parts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.parts[middle]!.start <= offset) low = middle;
      else high = middle - 1;
    }
    return this.parts[low]!;
  }

  private *each(
    offset: number,
    bytes: Uint8Array,
    act: (part: Part, within: number, bytes: Uint8Array) => Completion,
  ): Task<void> {
    const several = new Several();
    for (let at = 0; at < bytes.length; ) {
      const part = this.partAt(offset + at);
      const within = offset + at - part.start;
      const piece = bytes.subarray(at, at + part.length - within);
      try {
        several.add(act(part, within, piece));
      } catch (error) {
        several.fail(error);
        break;
      }
      at += piece.length;
    }
    yield* several.end();
  }

  read(offset: number, into: Uint8Array): Completion {
    return run(
      this.each(offset, into, ({ node: extent }, within, piece) => {
        if (extent === null) {
          piece.fill(0);
          return undefined;
        }
        return isSparse(extent) ? extent.read(within, piece) : extent.file.read(extent.offset + within, piece);
      }),
    );
  }

  write(offset: number, from: Uint8Array): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    return run(
      this.each(offset, from, ({ node: extent }, within, piece) => {
        if (extent === null) throw new Error('an extent of zeros cannot be written to');
        return isSparse(extent) ? extent.write(within, piece) : extent.file.write(extent.offset + within, piece);
      }),
    );
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    return run(this.zeroTask(offset, length, mayUnmap));
  }

  private *zeroTask(offset: number, length: number, mayUnmap: boolean): Task<void> {
    for (let at = offset; at < offset + length; ) {
      const { node: extent, start, length: room } = this.partAt(at);
      const count = Math.min(offset + length, start + room) - at;
      let zeroing: Completion | undefined;
      if (isSparse(extent)) zeroing = extent.writeZeroes(at - start, count, mayUnmap);
      else if (extent !== null) zeroing = extent.file.writeZeroes(extent.offset + at - start, count, false);
      if (zeroing !== undefined) yield zeroing;
      at += count;
    }
  }

  override writeCompressed(offset: number, from: Uint8Array): Maybe<boolean> {
    const part = this.partAt(offset);
    return isSparse(part.node) ? part.node.writeCompressed(offset - part.start, from) : false;
  }

  override status(offset: number, length: number): Maybe<Extent> {
    return run(this.statusTask(offset, length));
  }

  private *statusTask(offset: number, length: number): Task<Extent> {
    const { node: extent, start, length: room } = this.partAt(offset);
    const count = Math.min(length, start + room - offset);
    if (extent === null) return { length: count, data: false, zero: true, allocated: true, offset: null, file: null };
    if (!isSparse(extent)) {
      return {
        length: count,
        data: true,
        zero: false,
        allocated: true,
        offset: extent.offset + offset - start,
        file: extent.file,
      };
    }
    const found = yield* wait(extent.status(offset - start, count));
    return extent.compressed && found.data ? { ...found, offset: null, file: null, compressed: true } : found;
  }

  flush(): Completion {
    return run(this.flushTask());
  }

  private *flushTask(): Task<void> {
    for (const { node: extent } of this.parts) {
      const flushing = extent === null ? undefined : isSparse(extent) ? extent.flush() : extent.file.flush();
      if (flushing !== undefined) yield flushing;
    }
  }

  override allocatedBytes(): number | null {
    const files = new Set<BlockNode>([this.below]);
    for (const { node: extent } of this.parts) if (extent !== null) files.add(isSparse(extent) ? extent.file! : extent.file);
    return [...files].reduce((sum, file) => sum + (file.allocatedBytes() ?? 0), 0);
  }

  override info(): NodeInfo {
    const { cid, parentCid, createType } = this.descriptor;
    const extents = this.parts.map(({ node: extent, length }) => ({
      ...(isSparse(extent) && extent.compressed ? { compressed: true } : {}),
      'virtual-size': length,
      filename: extent === null ? '' : isSparse(extent) ? extent.filename : extent.file.filename,
      ...(isSparse(extent) ? { 'cluster-size': extent.clusterSize } : {}),
      format: isSparse(extent) ? (this.parts.length > 1 || extent.filename !== this.below.filename ? 'SPARSE' : '') : 'FLAT',
    }));
    const sparse = this.parts.map(({ node: extent }) => extent).find(isSparse);
    return {
      ...(sparse === undefined ? {} : { clusterSize: sparse.clusterSize }),
      compressed: sparse?.compressed === true,
      specific: { type: 'vmdk', data: { cid, 'parent-cid': parentCid, 'create-type': createType, extents } },
    };
  }

  override check(): CheckResult {
    return NO_FINDINGS;
  }

  close(): void {
    // Extents are closed with their files.
  }
}

async function readText(below: BlockNode, offset: number, size: number): Promise<string> {
  const bytes = await readBytes(below, offset, Math.min(size, MAX_DESCRIPTOR, Math.max(0, below.size - offset)));
  const end = bytes.indexOf(0);
  return new TextDecoder('latin1').decode(bytes.subarray(0, end < 0 ? bytes.length : end));
}

async function open(
  values: { file: Given | string; backing: Given | string | null | undefined },
  opening: Opening,
): Promise<BlockNode> {
  const { how, child } = opening;
  const below = await child(values.file, { share: false, resize: true });
  const readOnly = !how.writable || below.readOnly;
  const head = await readBytes(below, 0, Math.min(SECTOR, below.size));
  const sparse = head.length >= SECTOR && new DataView(head.buffer).getUint32(0, true) === SPARSE_MAGIC;
  let descriptor: Descriptor;
  let parts: Part[];
  if (sparse) {
    const header = await readSparseHeader(below);
    if (header.descriptorOffset === 0) throw new Error('the extent of a VMDK by itself, which its descriptor must be named for');
    descriptor = parseDescriptor(await readText(below, header.descriptorOffset, header.descriptorSize));
    const behind = await openBehind(descriptor, values.backing, below, opening);
    const extent = await openSparse(below, behind, readOnly);
    parts = [{ start: 0, length: extent.size, node: extent }];
    return new VmdkNode(below, behind, readOnly, descriptor, parts);
  }
  descriptor = parseDescriptor(await readText(below, 0, MAX_DESCRIPTOR));
  const behind = await openBehind(descriptor, values.backing, below, opening);
  parts = await openExtents(descriptor, below, behind, readOnly, opening);
  return new VmdkNode(below, behind, readOnly, descriptor, parts);
}

async function openSparse(file: BlockNode, behind: BlockNode | null, readOnly: boolean): Promise<SparseExtent> {
  const header = await readSparseHeader(file);
  const directory = await readDirectory(file, header);
  const second =
    (header.flags & FLAG.second) === 0 || readOnly ? null : await readDirectory(file, { ...header, directory: header.second });
  return new SparseExtent(file, behind, readOnly, header, directory, second);
}

async function openExtents(
  descriptor: Descriptor,
  below: BlockNode,
  behind: BlockNode | null,
  readOnly: boolean,
  opening: Opening,
): Promise<Part[]> {
  const known = ['monolithicFlat', 'vmfs', 'vmfsSparse', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat', 'custom'];
  if (!known.includes(descriptor.createType)) throw new Error(`Unsupported image type '${descriptor.createType}'`);
  const parts: Part[] = [];
  let start = 0;
  for (const line of descriptor.extents) {
    const length = line.sectors * SECTOR;
    if (start + length > MAX_SIZE) throw new Error('the extents are larger together than a disk can be');
    parts.push({
      start,
      length,
      node: await openExtent(line, below, behind === null ? null : new Shifted(behind, start), readOnly, opening),
    });
    start += length;
  }
  return parts;
}

/** What is behind an extent is a part of what is behind the disk. */
class Shifted extends BlockNode {
  readonly driver = 'vmdk';
  private readonly whole: BlockNode;
  private readonly start: number;

  constructor(whole: BlockNode, start: number) {
    super();
    this.whole = whole;
    this.start = start;
    this.readOnly = true;
  }

  get size(): number {
    return Math.max(0, this.whole.size - this.start);
  }

  read(offset: number, into: Uint8Array): Completion {
    return this.whole.read(this.start + offset, into);
  }

  write(): Completion {
    throw new Error('the image is read-only');
  }

  flush(): Completion {
    // Nothing is written.
  }

  close(): void {
    // The whole is closed by whoever opened it.
  }
}

async function openExtent(
  line: ExtentLine,
  below: BlockNode,
  behind: BlockNode | null,
  readOnly: boolean,
  opening: Opening,
): Promise<Part['node']> {
  if (line.type === 'ZERO') return null;
  if (line.file === null) throw new Error('an extent without a file');
  const filename = resolveBacking(below.filename, line.file);
  const file = await opening.child({ driver: 'file', filename }, { share: false, resize: true });
  file.filename = filename;
  switch (line.type) {
    case 'FLAT':
    case 'VMFS': {
      const offset = line.offset * SECTOR;
      if (offset + line.sectors * SECTOR > file.size) throw new Error(`extent '${line.file}' is larger than its file`);
      return { file, offset };
    }
    case 'SPARSE': {
      const extent = await openSparse(file, behind, readOnly);
      if (extent.size < line.sectors * SECTOR) throw new Error(`extent '${line.file}' is smaller than its descriptor says`);
      return extent;
    }
    default:
      throw new Error(`Unsupported extent type '${line.type}'`);
  }
}

async function openBehind(
  descriptor: Descriptor,
  given: Given | string | null | undefined,
  below: BlockNode,
  { how, child, image }: Opening,
): Promise<BlockNode | null> {
  const changes = { writable: false, share: false, resize: false };
  if (given === null || how.noBacking) return null;
  if (given !== undefined) return child(given, changes, true);
  if (descriptor.parent === null) return null;
  try {
    return await image(resolveBacking(below.filename, descriptor.parent), null, changes);
  } catch (error) {
    throw new Error(`Could not open backing file: ${(error as Error).message}`);
  }
}

export const vmdkDriver = driver({ name: 'vmdk', protocol: false, options: OPTIONS, open });

/** A qcow2 image as a node: requests that need nothing but tables in memory, and the way to all others. */
import { onePiece, type Pieces } from '../../host/pieces.ts';
import type { Completion } from '../../machine/interfaces.ts';
import { BlockNode, type CheckResult, type Extent, type Fix, type NodeInfo } from '../node.ts';
import { type Maybe, run, Several, type Task, wait } from '../task.ts';
import type { SectorCipher } from '../../host/host.ts';
import type { Bitmaps } from './bitmaps.ts';
import { unpack } from './compression.ts';
import { INCOMPATIBLE } from './header.ts';
import type { Image } from './image.ts';
import { DATA, Mapping, NONE, PACKED, type Run, ZERO } from './mapping.ts';
import { Writer } from './writer.ts';

const UNPACKED_CLUSTERS = 8;

export class Qcow2Node extends BlockNode {
  readonly driver = 'qcow2';
  readonly image: Image;
  readonly mapping: Mapping;
  readonly writer: Writer;
  readonly cipher: SectorCipher | null;
  /** Bitmaps that follow what is written; see `bitmaps.ts`. */
  bitmaps: Bitmaps | null = null;
  private readonly behind: BlockNode | null;
  /** Clusters unpacked last, by where their data lies. */
  private readonly unpacked = new Map<number, Uint8Array>();
  /** What `info` tells of the encryption; set by `driver.ts`. */
  encryptionInfo: Record<string, unknown> | null = null;

  constructor(image: Image, backing: BlockNode | null, cipher: SectorCipher | null) {
    super();
    this.image = image;
    this.readOnly = image.readOnly;
    this.behind = backing;
    this.cipher = cipher;
    this.mapping = new Mapping(image);
    this.writer = new Writer(this);
  }

  get size(): number {
    return this.image.header.size;
  }

  override get file(): BlockNode {
    return this.image.file;
  }

  override get backing(): BlockNode | null {
    return this.behind;
  }

  override get backingName(): { file: string; format: string | null } | null {
    const { backingFile, backingFormat } = this.image.header;
    return backingFile === null ? null : { file: backingFile, format: backingFormat };
  }

  override get supportsBacking(): boolean {
    return true;
  }

  override get zeroInit(): boolean {
    return this.image.header.encryption === 0;
  }

  read(offset: number, into: Uint8Array): Completion {
    if (this.cipher === null) {
      const slice = this.mapping.peek(offset);
      if (slice !== null) {
        const found = this.mapping.runAt(slice, offset, into.length);
        if (found.length === into.length && found.kind === DATA) return this.image.data.read(found.host, into);
      }
    }
    return run(this.readTask(offset, into));
  }

  override readPieces(offset: number, into: Pieces): Completion {
    const slice = this.cipher === null ? this.mapping.peek(offset) : null;
    if (slice !== null) {
      const found = this.mapping.runAt(slice, offset, into.total);
      if (found.length === into.total && found.kind === DATA) return this.image.data.readPieces(found.host, into);
    }
    return super.readPieces(offset, into);
  }

  *readTask(offset: number, into: Uint8Array): Task<void> {
    const several = new Several();
    for (let at = 0; at < into.length; ) {
      try {
        const found = yield* this.mapping.find(offset + at, into.length - at);
        several.add(this.readRun(found, offset + at, into.subarray(at, at + found.length)));
        at += found.length;
      } catch (error) {
        several.fail(error);
        break;
      }
    }
    yield* several.end();
  }

  private readRun(found: Run, offset: number, into: Uint8Array): Completion {
    switch (found.kind) {
      case DATA:
        if (this.cipher !== null) return run(this.readEncrypted(found.host, into));
        return this.image.data.read(found.host, into);
      case NONE:
        return this.readBacking(offset, into);
      case ZERO:
        into.fill(0);
        return undefined;
      default:
        return run(this.readPacked(found, offset, into));
    }
  }

  /** @param into whole sectors */
  private *readEncrypted(host: number, into: Uint8Array): Task<void> {
    const reading = this.image.data.read(host, into);
    if (reading !== undefined) yield reading;
    this.cipher!.decrypt(into, host / 512);
  }

  readBacking(offset: number, into: Uint8Array): Completion {
    const { behind } = this;
    const there = behind === null ? 0 : Math.max(0, Math.min(into.length, behind.size - offset));
    if (there < into.length) into.fill(0, there);
    return there === 0 ? undefined : behind!.read(offset, into.subarray(0, there));
  }

  private *readPacked(found: Run, offset: number, into: Uint8Array): Task<void> {
    let cluster = this.unpacked.get(found.host);
    if (cluster === undefined) {
      const { file, header, clusterSize } = this.image;
      if (found.host >= file.size)
        throw new Error(`compressed data at offset 0x${found.host.toString(16)} lie beyond the end of the file`);
      const packed = new Uint8Array(Math.min(found.packed, file.size - found.host));
      const reading = file.read(found.host, packed);
      if (reading !== undefined) yield reading;
      cluster = yield* wait(unpack(header.compression, packed, clusterSize));
      if (this.unpacked.size >= UNPACKED_CLUSTERS) this.unpacked.delete(this.unpacked.keys().next().value!);
      this.unpacked.set(found.host, cluster);
    }
    const within = offset % this.image.clusterSize;
    into.set(cluster.subarray(within, within + into.length));
  }

  /** What lies at these places may change. */
  forgetUnpacked(): void {
    this.unpacked.clear();
  }

  write(offset: number, from: Uint8Array): Completion {
    return this.writePieces(offset, onePiece(from));
  }

  override writePieces(offset: number, from: Pieces): Completion {
    this.checkWritable();
    this.bitmaps?.written(offset, from.total);
    const { mapping, writer } = this;
    if (this.cipher === null && writer.idle) {
      const slice = mapping.peek(offset);
      const host = slice === null ? -1 : writer.hostInPlace(slice, offset, from.total);
      if (host >= 0) return writer.inPlace(writer.store(host, from));
    }
    return run(writer.write(offset, from));
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    this.checkWritable();
    this.bitmaps?.written(offset, length);
    return run(this.writer.writeZeroes(offset, length, mayUnmap && this.unmap));
  }

  override discard(offset: number, length: number): Completion {
    if (!this.unmap) return undefined;
    this.checkWritable();
    this.bitmaps?.written(offset, length);
    return run(this.writer.discard(offset, length));
  }

  override writeCompressed(offset: number, from: Uint8Array): Maybe<boolean> {
    this.checkWritable();
    this.bitmaps?.written(offset, from.length);
    return run(this.writer.writeCompressed(offset, from));
  }

  flush(): Completion {
    return run(this.image.flush());
  }

  override status(offset: number, length: number): Maybe<Extent> {
    return run(this.statusTask(offset, length));
  }

  private *statusTask(offset: number, length: number): Task<Extent> {
    const found = yield* this.mapping.find(offset, length);
    // Runs end where slices do: what goes on the same way is one extent.
    while (found.length < length) {
      const next = yield* this.mapping.find(offset + found.length, length - found.length);
      if (next.kind !== found.kind || next.kind === PACKED) break;
      if (next.kind === DATA && next.host !== found.host + found.length) break;
      found.length += next.length;
    }
    const { kind } = found;
    const plain = kind === DATA && this.cipher === null;
    return {
      length: found.length,
      data: kind === DATA || kind === PACKED,
      zero: kind === ZERO,
      allocated: kind !== NONE,
      offset:
        plain || (kind === ZERO && found.host >= 0) ? found.host + (kind === ZERO ? offset % this.image.clusterSize : 0) : null,
      file: plain || (kind === ZERO && found.host >= 0) ? this.image.data : null,
      compressed: kind === PACKED,
    };
  }

  override async resize(size: number, preallocation: string): Promise<void> {
    this.checkWritable();
    const { resize } = await import('./resize.ts');
    await resize(this, size, preallocation);
  }

  override changeBacking(file: string | null, format: string | null): Completion {
    this.checkWritable();
    const { header } = this.image;
    header.backingFile = file;
    header.backingFormat = file === null ? null : format;
    return run(this.image.saveHeader());
  }

  override async info(): Promise<NodeInfo> {
    const { infoOf } = await import('./info.ts');
    return infoOf(this);
  }

  override async check(fix: Fix, report: (line: string) => void): Promise<CheckResult> {
    const { checkImage } = await import('./check.ts');
    return checkImage(this, fix, report);
  }

  close(): Completion {
    return run(this.closing());
  }

  private *closing(): Task<void> {
    const { image } = this;
    if (image.marking !== null) yield image.marking;
    if (this.readOnly || image.isCorrupt) return;
    if (this.bitmaps !== null) yield* this.bitmaps.store();
    yield* image.flush();
    yield* this.clean();
  }

  /** The refcounts in the file are complete. */
  private *clean(): Task<void> {
    const { image } = this;
    if ((image.header.incompatible & INCOMPATIBLE.dirty) === 0) return;
    const { lazy } = image;
    image.lazy = false;
    yield* image.flush();
    image.header.incompatible &= ~INCOMPATIBLE.dirty;
    yield* image.saveFeatures();
    image.lazy = lazy;
  }

  private checkWritable(): void {
    if (this.readOnly) throw new Error('the image is read-only');
    if (this.image.isCorrupt) throw new Error('the image is corrupt and is not written to');
  }
}

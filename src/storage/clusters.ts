/** What image formats have in common that keep a disk in clusters of one size, each found through some table. */
import type { Completion } from '../machine/interfaces.ts';
import { BlockNode, type Extent, writeZeroBytes } from './node.ts';
import { Lock, type Maybe, run, Several, type Task, wait } from './task.ts';

/** Places of clusters that lie nowhere: what is behind shows, or zeros do. */
export const ABSENT = -1;
export const ZEROED = -2;

/** A format adds where clusters are, where new ones go, and how its table learns of them. */
export abstract class ClusterNode extends BlockNode {
  /** Bytes. */
  abstract readonly clusterSize: number;
  protected readonly below: BlockNode;
  protected readonly behind: BlockNode | null;
  private readonly allocating = new Lock();

  constructor(below: BlockNode, behind: BlockNode | null, readOnly: boolean) {
    super();
    this.below = below;
    this.behind = behind;
    this.readOnly = readOnly;
    this.filename = below.filename;
  }

  override get file(): BlockNode {
    return this.below;
  }

  override get backing(): BlockNode | null {
    return this.behind;
  }

  override get zeroInit(): boolean {
    return true;
  }

  /** @returns offset in the file, `ABSENT` or `ZEROED` */
  protected abstract find(cluster: number): Maybe<number>;

  /** @returns where a new cluster goes, at the end of the file */
  protected abstract take(cluster: number): Maybe<number>;

  /** The cluster's data are in place: the table may refer to them. */
  protected abstract link(cluster: number, host: number): Completion;

  /** @returns false where the format cannot say that a cluster reads as zeros */
  protected linkZero(_cluster: number): Maybe<boolean> {
    return false;
  }

  /** File that a cluster lies in. */
  protected fileOf(_cluster: number): BlockNode {
    return this.below;
  }

  /** Reads part of a cluster that is there. */
  protected readCluster(cluster: number, host: number, within: number, into: Uint8Array): Completion {
    return this.fileOf(cluster).read(host + within, into);
  }

  read(offset: number, into: Uint8Array): Completion {
    return run(this.readTask(offset, into));
  }

  private *readTask(offset: number, into: Uint8Array): Task<void> {
    const several = new Several();
    for (let at = 0; at < into.length; ) {
      try {
        const cluster = Math.floor((offset + at) / this.clusterSize);
        const within = (offset + at) % this.clusterSize;
        const part = into.subarray(at, at + this.clusterSize - within);
        const host = yield* wait(this.find(cluster));
        if (host === ZEROED) part.fill(0);
        else if (host === ABSENT) several.add(this.readBehind(offset + at, part));
        else several.add(this.readCluster(cluster, host, within, part));
        at += part.length;
      } catch (error) {
        several.fail(error);
        break;
      }
    }
    yield* several.end();
  }

  protected readBehind(offset: number, into: Uint8Array): Completion {
    const { behind } = this;
    const there = behind === null ? 0 : Math.max(0, Math.min(into.length, behind.size - offset));
    into.fill(0, there);
    return there === 0 ? undefined : behind!.read(offset, into.subarray(0, there));
  }

  write(offset: number, from: Uint8Array): Completion {
    this.checkWritable();
    return run(this.writeTask(offset, from));
  }

  private *writeTask(offset: number, from: Uint8Array): Task<void> {
    const several = new Several();
    for (let at = 0; at < from.length; ) {
      try {
        const cluster = Math.floor((offset + at) / this.clusterSize);
        const within = (offset + at) % this.clusterSize;
        const part = from.subarray(at, at + this.clusterSize - within);
        const host = yield* wait(this.find(cluster));
        if (host >= 0) several.add(this.writeCluster(cluster, host, within, part));
        else several.add(run(this.writeNew(cluster, within, part)));
        at += part.length;
      } catch (error) {
        several.fail(error);
        break;
      }
    }
    yield* several.end();
  }

  protected writeCluster(cluster: number, host: number, within: number, from: Uint8Array): Completion {
    return this.fileOf(cluster).write(host + within, from);
  }

  /** One new cluster at a time: formats like these have no counts that would let several be made at once. */
  private *writeNew(cluster: number, within: number, from: Uint8Array): Task<void> {
    yield* this.allocating.acquire();
    try {
      const there = yield* wait(this.find(cluster));
      if (there >= 0) {
        const writing = this.writeCluster(cluster, there, within, from);
        if (writing !== undefined) yield writing;
        return;
      }
      const host = yield* wait(this.take(cluster));
      yield* this.fill(cluster, host, within, from, there === ABSENT ? this.behind : null);
      const linking = this.link(cluster, host);
      if (linking !== undefined) yield linking;
    } finally {
      this.allocating.release();
    }
  }

  private *fill(cluster: number, host: number, within: number, from: Uint8Array, behind: BlockNode | null): Task<void> {
    const file = this.fileOf(cluster);
    const start = cluster * this.clusterSize;
    let at = host + within;
    let data = from;
    if (behind !== null && from.length < this.clusterSize) {
      data = new Uint8Array(this.clusterSize);
      const reading = this.readBehind(start, data);
      if (reading !== undefined) yield reading;
      data.set(from, within);
      at = host;
    } else if (host < file.size || !file.zeroInit) {
      // Something else was here before.
      const zeroing = writeZeroBytes(file, host, this.clusterSize);
      if (zeroing !== undefined) yield zeroing;
    } else if (host + this.clusterSize > file.size) yield* wait(file.resize(host + this.clusterSize, 'off'));
    const writing = file.write(at, data);
    if (writing !== undefined) yield writing;
  }

  override writeZeroes(offset: number, length: number, _mayUnmap: boolean): Completion {
    this.checkWritable();
    return run(this.zeroTask(offset, length));
  }

  private *zeroTask(offset: number, length: number): Task<void> {
    const { clusterSize } = this;
    for (let at = offset; at < offset + length; ) {
      const cluster = Math.floor(at / clusterSize);
      const end = Math.min(offset + length, (cluster + 1) * clusterSize);
      const whole = end - at === clusterSize || (end === this.size && at % clusterSize === 0);
      const host = yield* wait(this.find(cluster));
      const nothing = host === ZEROED || (host === ABSENT && (this.behind === null || at >= this.behind.size));
      if (!nothing && !(whole && (yield* this.zeroCluster(cluster)))) {
        const writing = writeZeroBytes({ write: (to, from) => this.write(to, from) }, at, end - at);
        if (writing !== undefined) yield writing;
      }
      at = end;
    }
  }

  private *zeroCluster(cluster: number): Task<boolean> {
    yield* this.allocating.acquire();
    try {
      return yield* wait(this.linkZero(cluster));
    } finally {
      this.allocating.release();
    }
  }

  override status(offset: number, length: number): Maybe<Extent> {
    return run(this.statusTask(offset, length));
  }

  private *statusTask(offset: number, length: number): Task<Extent> {
    const { clusterSize } = this;
    const first = Math.floor(offset / clusterSize);
    const host = yield* wait(this.find(first));
    let end = (first + 1) * clusterSize;
    for (let next = first + 1; end < offset + length; next++) {
      const there = yield* wait(this.find(next));
      const goesOn =
        host >= 0 ? there === host + (next - first) * clusterSize && this.fileOf(next) === this.fileOf(first) : there === host;
      if (!goesOn) break;
      end += clusterSize;
    }
    const file = host >= 0 ? this.fileOf(first) : null;
    return {
      length: Math.min(length, end - offset),
      data: host >= 0,
      zero: host === ZEROED,
      allocated: host !== ABSENT,
      offset: host >= 0 ? host + (offset % clusterSize) : null,
      file,
    };
  }

  flush(): Completion {
    return this.below.flush();
  }

  close(): Completion {
    // Tables are written as they change.
  }

  protected checkWritable(): void {
    if (this.readOnly) throw new Error('the image is read-only');
  }
}

/** Where the file ends, in whole clusters. */
export const endOf = (file: BlockNode, align: number): number => Math.ceil(file.size / align) * align;

/** A table of the file's, of 32-bit or 64-bit entries, all of it in memory and written entry by entry. */
export class EntryTable {
  readonly view: DataView;
  private readonly file: BlockNode;
  private readonly offset: number;
  private readonly bytes: Uint8Array;

  /** @param bytes as in the file, from `offset` on */
  constructor(file: BlockNode, offset: number, bytes: Uint8Array) {
    this.file = file;
    this.offset = offset;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Writes the sector that an entry is in. */
  save(at: number): Completion {
    const from = at - (at % 512);
    return this.file.write(this.offset + from, this.bytes.slice(from, Math.min(this.bytes.length, from + 512)));
  }

  /** The same, which waits. */
  *saved(at: number): Task<void> {
    const writing = this.save(at);
    if (writing !== undefined) yield writing;
  }
}

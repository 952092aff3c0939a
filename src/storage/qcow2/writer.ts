/**
 * Writing to a qcow2 image.
 *
 * A write that needs space takes clusters, writes the data and what must be copied around it, and only then lets the
 * L2 table refer to them. Meanwhile the guest's range is listed, and other requests for it wait.
 */
import { gather, giveBuffer, onePiece, partOf, type Pieces, takeBuffer, writeTo } from '../../host/pieces.ts';
import type { Completion } from '../../machine/interfaces.ts';
import { isZero, writeZeroBytes } from '../node.ts';
import { Lock, run, Several, type Task, wait } from '../task.ts';
import { pack } from './compression.ts';
import { AUTOCLEAR } from './header.ts';
import { COMPRESSED, COPIED, type Image } from './image.ts';
import { DATA, type Mapping, NONE, PACKED } from './mapping.ts';
import type { Qcow2Node } from './node.ts';
import type { Table } from './tables.ts';

/** Most clusters that one step takes. */
const MAX_ROW = 1024;
/** Data up to here is copied to be written together with what is around it. */
const MERGE_LIMIT = 2 ** 16;

/** Part of a write for which space is taken. */
type Span = {
  /** Guest range, whole clusters. */
  start: number;
  end: number;
  /** Made when the first one waits. */
  ended: Promise<void> | null;
  onEnd: () => void;
};

/** Where a part of a write goes. */
type Plan = {
  /** Bytes of the request that it takes. */
  length: number;
  /** Place of the data if it only replaces what is there; -1 otherwise. */
  inPlace: number;
  /** Cluster that the guest's already has to itself; -1 if it needs a new one. */
  reuse: number;
  clusters: number;
};

export class Writer {
  private readonly node: Qcow2Node;
  private readonly image: Image;
  private readonly spans: Span[] = [];
  private readonly l2Lock = new Lock();
  /** End of the compressed data that was written last, within its cluster; -1 if there is none. */
  private packedEnd = -1;
  private readonly packLock = new Lock();

  constructor(node: Qcow2Node) {
    this.node = node;
    this.image = node.image;
    this.image.onFreed = (cluster, count) => {
      const packed = Math.floor(this.packedEnd / this.image.clusterSize);
      if (packed >= cluster && packed < cluster + count) this.packedEnd = -1;
    };
  }

  private get map(): Mapping {
    return this.node.mapping;
  }

  /** No space is being taken. */
  get idle(): boolean {
    return this.spans.length === 0;
  }

  /** @returns where data may be written over what is there, all in a row; -1 if it may not */
  hostInPlace(slice: Table, offset: number, length: number): number {
    const found = this.map.runAt(slice, offset, length);
    if (found.kind !== DATA || found.length !== length) return -1;
    const { image } = this;
    const { clusterSize, entrySize } = image;
    const first = Math.floor(offset / clusterSize);
    const last = Math.floor((offset + length - 1) / clusterSize);
    let at = this.map.entryAt(offset);
    let cluster = Math.floor(found.host / clusterSize);
    for (let i = first; i <= last; i++, at += entrySize, cluster++) {
      if ((slice.view.getUint32(at) & COPIED) === 0) return -1;
      if (!image.hasDataFile && image.isMetadata(cluster)) throw this.overlap(cluster);
    }
    return found.host;
  }

  private overlap(cluster: number): Error {
    const offset = (cluster * this.image.clusterSize).toString(16);
    return this.image.markCorrupt(`Preventing invalid write on metadata (cluster 0x${offset} holds tables)`);
  }

  /** @param writing over what is there, at a place that `hostInPlace` has given */
  inPlace(writing: Completion): Completion {
    const { image } = this;
    if (writing === undefined) return undefined;
    const generation = image.beginWrite();
    return writing.then(
      () => image.endWrite(generation),
      (error: unknown) => {
        image.endWrite(generation);
        throw error;
      },
    );
  }

  *write(offset: number, from: Pieces): Task<void> {
    const several = new Several();
    for (let at = 0; at < from.total; ) {
      try {
        const plan = yield* this.plan(offset + at, from.total - at);
        const data = partOf(from, at, plan.length);
        if (plan.inPlace >= 0) several.add(this.inPlace(this.store(plan.inPlace, data)));
        else {
          const span = this.begin(offset + at, plan.length);
          several.add(run(this.writeSpan(span, offset + at, data, plan)));
        }
        at += plan.length;
      } catch (error) {
        several.fail(error);
        break;
      }
    }
    yield* several.end();
    if (this.image.releasedMany) yield* this.image.writeTables();
  }

  /** A row that was taken is not used after all. */
  private *giveBack({ host, clusters }: { host: number; clusters: number }): Task<void> {
    const { image } = this;
    if (!image.hasDataFile && !image.isCorrupt) yield* image.refcounts.free(host, clusters);
  }

  /** Decides where the beginning of a write goes. Nothing waits between this and what is done with it. */
  private *plan(offset: number, length: number): Task<Plan> {
    const { map } = this;
    for (;;) {
      yield* this.waitFor(offset, offset + length);
      const slice = yield* this.writableSlice(offset);
      if (this.overlapping(offset, offset + length) !== null) continue;
      const most = Math.min(length, map.leftInSlice(offset));
      const found = map.runAt(slice, offset, most);
      if (found.kind === DATA) {
        const plan = this.planInPlace(slice, offset, found.length);
        if (plan !== null) return plan;
      }
      return this.planNew(slice, offset, most);
    }
  }

  private planInPlace(slice: Table, offset: number, length: number): Plan | null {
    const { clusterSize, entrySize } = this.image;
    let at = this.map.entryAt(offset);
    let covered = 0;
    while (covered < length && (slice.view.getUint32(at) & COPIED) !== 0) {
      covered += clusterSize - ((offset + covered) % clusterSize);
      at += entrySize;
    }
    covered = Math.min(covered, length);
    if (covered === 0) return null;
    const inPlace = this.hostInPlace(slice, offset, covered);
    return { length: covered, inPlace, reuse: -1, clusters: 0 };
  }

  /** As many clusters in a row as need space; or one that has it and only needs to say so. */
  private planNew(slice: Table, offset: number, length: number): Plan {
    const { clusterSize, entrySize } = this.image;
    const { view } = slice;
    let at = this.map.entryAt(offset);
    const own = this.ownHost(view, at);
    if (own >= 0) this.map.checkedHost(own, offset - (offset % clusterSize));
    const first = clusterSize - (offset % clusterSize);
    if (own >= 0) return { length: Math.min(first, length), inPlace: -1, reuse: own, clusters: 1 };
    let covered = first;
    let clusters = 1;
    while (covered < length && clusters < MAX_ROW) {
      at += entrySize;
      if (this.ownHost(view, at) >= 0) break;
      covered += clusterSize;
      clusters++;
    }
    return { length: Math.min(covered, length), inPlace: -1, reuse: -1, clusters };
  }

  /** Host cluster that an entry has to itself, -1 if it has none. */
  private ownHost(view: DataView, at: number): number {
    const high = view.getUint32(at);
    if ((high & COMPRESSED) !== 0 || (high & COPIED) === 0) return -1;
    return this.map.allocatedHost(view, at);
  }

  private overlapping(start: number, end: number): Span | null {
    for (const span of this.spans) if (span.start < end && start < span.end) return span;
    return null;
  }

  private *waitFor(offset: number, end: number): Task<void> {
    const { clusterSize } = this.image;
    const start = offset - (offset % clusterSize);
    for (;;) {
      const span = this.overlapping(start, Math.ceil(end / clusterSize) * clusterSize);
      if (span === null) return;
      span.ended ??= new Promise((resolve) => {
        span.onEnd = resolve;
      });
      yield span.ended;
    }
  }

  private begin(offset: number, length: number): Span {
    const { clusterSize } = this.image;
    const start = offset - (offset % clusterSize);
    const end = Math.ceil((offset + length) / clusterSize) * clusterSize;
    const span: Span = { start, end, ended: null, onEnd: () => undefined };
    this.spans.push(span);
    return span;
  }

  private finish(span: Span): void {
    this.spans.splice(this.spans.indexOf(span), 1);
    span.onEnd();
  }

  /** Writes to clusters that the guest's range does not have yet, in as many rows as it takes. */
  private *writeSpan(span: Span, offset: number, data: Pieces, plan: Plan): Task<void> {
    const { clusterSize } = this.image;
    try {
      let left = plan.clusters;
      for (let at = 0; at < data.total; ) {
        const row = plan.reuse >= 0 ? { host: plan.reuse, clusters: 1, fresh: false } : yield* this.takeRow(offset + at, left);
        const length = Math.min(data.total - at, row.clusters * clusterSize - ((offset + at) % clusterSize));
        try {
          yield* this.fill(offset + at, partOf(data, at, length), row.host, row.fresh, plan.reuse >= 0);
          yield* this.link(offset + at, length, row.host, row.clusters);
        } catch (error) {
          if (plan.reuse < 0) yield* this.giveBack(row);
          throw error;
        }
        at += length;
        left -= row.clusters;
      }
    } finally {
      this.finish(span);
    }
  }

  /** @returns clusters for a guest offset, and whether the file ended before them, so that they read as zeros */
  private *takeRow(offset: number, most: number): Task<{ host: number; clusters: number; fresh: boolean }> {
    const { image } = this;
    const { clusterSize, data } = image;
    if (image.hasDataFile) return { host: offset - (offset % clusterSize), clusters: most, fresh: false };
    const { cluster, count } = yield* image.refcounts.allocate(most);
    const host = cluster * clusterSize;
    // Zeros of the file are not zeros of the guest's where data are encrypted.
    const fresh = host >= data.size && data.zeroInit && this.node.cipher === null;
    return { host, clusters: count, fresh };
  }

  /** Writes data into its clusters, with what the rest of them showed before. */
  private *fill(offset: number, from: Pieces, host: number, fresh: boolean, reuse: boolean): Task<void> {
    const { image } = this;
    const end = offset + from.total;
    const edges = yield* this.edges(offset, end, reuse);
    const before = offset - edges.start;
    const after = edges.end - end;
    const head = before > 0 && !(fresh && (yield* this.readsZero(edges.start, before)));
    const tail = after > 0 && !(fresh && (yield* this.readsZero(end, after)));
    const at = host + (offset % image.clusterSize);
    if (!head && !tail) return yield* this.put(at, from);
    image.barrier = true;
    if (from.total <= MERGE_LIMIT) return yield* this.putMerged(offset, from, at, before, after);
    if (head) yield* this.putOld(edges.start, before, at - before);
    yield* this.put(at, from);
    if (tail) yield* this.putOld(end, after, at + from.total);
  }

  /** Writes data and so many bytes of what is before and after them as one. */
  private *putMerged(offset: number, from: Pieces, host: number, before: number, after: number): Task<void> {
    const end = before + from.total;
    const all = takeBuffer(end + after);
    yield* this.copyOld(offset - before, all.subarray(0, before));
    gather(from, all.subarray(before, end));
    yield* this.copyOld(offset + from.total, all.subarray(end));
    yield* this.put(host - before, onePiece(all));
    giveBuffer(all);
  }

  /** Writes what the guest sees at a range to its new place. */
  private *putOld(offset: number, length: number, host: number): Task<void> {
    const old = takeBuffer(length);
    yield* this.copyOld(offset, old);
    yield* this.put(host, onePiece(old));
    giveBuffer(old);
  }

  /** How far around a write its clusters must be filled: with subclusters, less than all may do. */
  private *edges(offset: number, end: number, reuse: boolean): Task<{ start: number; end: number }> {
    const { clusterSize, unit } = this.image;
    const rounded = (size: number) => ({ start: offset - (offset % size), end: Math.ceil(end / size) * size });
    const whole = rounded(clusterSize);
    if (unit === clusterSize) return whole;
    const narrow = rounded(unit);
    if (reuse) {
      // Subclusters that are there already must keep what others may be writing to them.
      const first = yield* this.map.find(narrow.start, unit);
      const last = yield* this.map.find(narrow.end - unit, unit);
      return { start: first.kind === DATA ? offset : narrow.start, end: last.kind === DATA ? end : narrow.end };
    }
    const first = yield* this.map.find(whole.start, clusterSize);
    const last = yield* this.map.find(whole.end - clusterSize, clusterSize);
    const start = yield* this.hasOwnData(whole.start, first.kind);
    const stop = yield* this.hasOwnData(whole.end - clusterSize, last.kind);
    return { start: start ? whole.start : narrow.start, end: stop ? whole.end : narrow.end };
  }

  /** Does a cluster have data somewhere, which a new one must take over? */
  private *hasOwnData(start: number, kind: number): Task<boolean> {
    if (kind === PACKED) return true;
    const slice = yield* this.map.slice(start);
    if (slice === null) return false;
    const at = this.map.entryAt(start);
    return (slice.view.getUint32(at) & COMPRESSED) !== 0 || slice.view.getUint32(at + 12) !== 0;
  }

  /** What the guest sees at a range, before this write. */
  private *copyOld(offset: number, into: Uint8Array): Task<void> {
    if (into.length === 0) return;
    const { size } = this.node;
    const there = Math.max(0, Math.min(into.length, size - offset));
    into.fill(0, there);
    if (there > 0) yield* this.node.readTask(offset, into.subarray(0, there));
  }

  private *readsZero(offset: number, length: number): Task<boolean> {
    const { backing, size } = this.node;
    for (let at = 0; at < length && offset + at < size; ) {
      const found = yield* this.map.find(offset + at, length - at);
      if (found.kind === DATA || found.kind === PACKED) return false;
      if (found.kind === NONE && backing !== null && offset + at < backing.size) {
        const want = Math.min(found.length, backing.size - offset - at);
        const extent = yield* wait(backing.status(offset + at, want));
        if (!extent.zero || extent.length < want) return false;
      }
      at += found.length;
    }
    return true;
  }

  private *put(host: number, from: Pieces): Task<void> {
    if (!this.image.hasDataFile) this.checkTarget(host, from.total);
    const writing = this.store(host, from);
    if (writing !== undefined) yield writing;
  }

  private checkTarget(host: number, length: number): void {
    const { clusterSize } = this.image;
    for (let at = host - (host % clusterSize); at < host + length; at += clusterSize) {
      if (this.image.isMetadata(at / clusterSize)) throw this.overlap(at / clusterSize);
    }
  }

  /** Writes to a place in the file, encrypted where the image is. */
  store(host: number, from: Pieces): Completion {
    const { data } = this.image;
    const { cipher } = this.node;
    if (cipher === null) return writeTo(data, host, from);
    const copy = new Uint8Array(from.total);
    gather(from, copy);
    cipher.encrypt(copy, host / 512);
    return data.write(host, copy);
  }

  /** Lets the L2 table refer to clusters that have been written. @param offset first byte that was written */
  private *link(offset: number, length: number, host: number, clusters: number): Task<void> {
    const slice = yield* this.writableSlice(offset);
    const { clusterSize, entrySize } = this.image;
    const start = offset - (offset % clusterSize);
    for (let i = 0; i < clusters; i++) {
      const at = this.map.entryAt(start + i * clusterSize);
      const to = host + i * clusterSize;
      let keep = false;
      if (entrySize === 16) keep = this.linkSubclusters(slice.view, at, start + i * clusterSize, offset, offset + length, to);
      if (!keep) this.releaseEntry(slice.view, at, to);
      putEntry(slice.view, at, to, COPIED);
    }
    this.image.l2.changed(slice);
  }

  /** @returns whether the cluster was the entry's already */
  private linkSubclusters(view: DataView, at: number, start: number, from: number, to: number, host: number): boolean {
    const { unit } = this.image;
    const same = (view.getUint32(at) & COMPRESSED) === 0 && this.map.allocatedHost(view, at) === host;
    const first = Math.max(0, Math.floor((from - start) / unit));
    const last = Math.min(31, Math.floor((to - 1 - start) / unit));
    let bits = 0;
    for (let i = first; i <= last; i++) bits |= 1 << i;
    const taken = !same && ((view.getUint32(at) & COMPRESSED) !== 0 || view.getUint32(at + 12) !== 0);
    if (taken) {
      // Everything around was copied, on the sides where the write did not reach the cluster's ends.
      if (first > 0) bits |= (1 << first) - 1;
      if (last < 31) bits |= ~((2 << last) - 1);
      const whole = bits >>> 0;
      view.setUint32(at + 8, view.getUint32(at + 8) & ~whole);
      view.setUint32(at + 12, whole);
    } else {
      view.setUint32(at + 8, view.getUint32(at + 8) & ~bits);
      view.setUint32(at + 12, view.getUint32(at + 12) | bits);
    }
    return same;
  }

  /** What an entry refers to is given up. @param keep host cluster that stays in use */
  releaseEntry(view: DataView, at: number, keep: number): void {
    const { image, map } = this;
    if ((view.getUint32(at) & COMPRESSED) !== 0) {
      // The place of an entry within a cluster does not matter here.
      const found = map.packedAt(view, at);
      const first = Math.floor(found.host / image.clusterSize);
      const last = Math.floor((found.host + found.packed - 1) / image.clusterSize);
      image.release(first, last - first + 1);
      this.node.forgetUnpacked();
      return;
    }
    const host = map.allocatedHost(view, at);
    if (host < 0 || host === keep) return;
    if (host % image.clusterSize !== 0) throw image.markCorrupt(`Cannot free unaligned cluster 0x${host.toString(16)}`);
    if (!image.hasDataFile) image.release(host / image.clusterSize, 1);
  }

  /** The slice for a guest offset, in an L2 table of this image's active state alone. */
  *writableSlice(offset: number): Task<Table> {
    const { image, map } = this;
    const index = map.l1Index(offset);
    if (image.l2Offset(index) === 0 || !image.l2Copied(index)) {
      yield* this.l2Lock.acquire();
      try {
        if (image.l2Offset(index) === 0 || !image.l2Copied(index)) yield* this.newL2(index);
      } finally {
        this.l2Lock.release();
      }
    }
    return yield* image.l2.get(image.l2Offset(index) + map.sliceAt(offset));
  }

  /** A new L2 table: empty, or a copy of the one that snapshots have, too. */
  private *newL2(index: number): Task<void> {
    const { image } = this;
    const { clusterSize } = image;
    const old = image.l2Offset(index);
    const bytes = new Uint8Array(clusterSize);
    const { cluster } = yield* image.refcounts.allocate(1);
    const offset = cluster * clusterSize;
    try {
      if (old !== 0) {
        // The file must have what memory has before it is copied.
        yield* image.writeTables();
        const reading = image.file.read(old, bytes);
        if (reading !== undefined) yield reading;
      }
      const writing = image.file.write(offset, bytes);
      if (writing !== undefined) yield writing;
      yield* image.writeTables();
      const flushing = image.file.flush();
      if (flushing !== undefined) yield flushing;
    } catch (error) {
      // Nothing refers to it yet.
      if (!image.isCorrupt) yield* image.refcounts.free(offset, 1);
      throw error;
    }
    yield* image.setL2Offset(index, offset);
    image.noteMetadata(offset, 1);
    if (old !== 0) image.release(old / clusterSize, 1);
  }

  *writeZeroes(offset: number, length: number, mayUnmap: boolean): Task<void> {
    const { image } = this;
    const { unit } = image;
    const end = offset + length;
    const wholeEnd = end === this.node.size ? Math.ceil(end / unit) * unit : end - (end % unit);
    const wholeStart = Math.ceil(offset / unit) * unit;
    if (wholeStart >= wholeEnd) return yield* this.zeroBytes(offset, length);
    if (wholeStart > offset) yield* this.zeroBytes(offset, wholeStart - offset);
    yield* this.zeroRaw(wholeStart, wholeEnd, mayUnmap);
    yield* this.zeroUnits(wholeStart, wholeEnd, mayUnmap);
    if (wholeEnd < end) yield* this.zeroBytes(wholeEnd, end - wholeEnd);
    if (image.releasedMany) yield* image.writeTables();
  }

  /** A file of data that is a disk by itself shows zeros, too. */
  private *zeroRaw(start: number, end: number, mayUnmap: boolean): Task<void> {
    const { header, data } = this.image;
    if ((header.autoclear & AUTOCLEAR.rawData) === 0) return;
    const stop = Math.min(end, this.node.size);
    if (start >= stop) return;
    const zeroing = data.writeZeroes(start, stop - start, mayUnmap);
    if (zeroing !== undefined) yield zeroing;
  }

  private *zeroBytes(offset: number, length: number): Task<void> {
    if (yield* this.readsZero(offset, length)) return;
    const writing = writeZeroBytes({ write: (at, from) => run(this.write(at, onePiece(from))) }, offset, length);
    if (writing !== undefined) yield writing;
  }

  private *zeroUnits(start: number, end: number, mayUnmap: boolean): Task<void> {
    const { image, map } = this;
    const { clusterSize } = image;
    for (let at = start; at < end; ) {
      const next = Math.min(end, at + clusterSize - (at % clusterSize));
      const whole = at % clusterSize === 0 && next - at === clusterSize;
      if (image.header.version === 2) yield* this.zeroOld(at, next - at);
      else {
        yield* this.waitFor(at, next);
        const slice = yield* this.writableSlice(at);
        if (this.overlapping(at, next) !== null) continue;
        // All that the slice has of the range, without waiting.
        const last = Math.min(end, at + map.leftInSlice(at));
        if (whole) {
          at = this.zeroClusters(slice, at, last - (last % clusterSize), mayUnmap);
          continue;
        }
        if ((slice.view.getUint32(map.entryAt(at)) & COMPRESSED) !== 0) yield* this.zeroBytes(at, next - at);
        else this.zeroSubclusters(slice, at, next);
      }
      at = next;
    }
  }

  /** Version 2 knows no zero clusters: without a backing file there need be none. */
  private *zeroOld(offset: number, length: number): Task<void> {
    const { size } = this.node;
    const { backing } = this.node;
    if (backing === null && length === this.image.clusterSize) return yield* this.dropCluster(offset);
    yield* this.zeroBytes(offset, Math.min(length, size - offset));
  }

  private *dropCluster(offset: number): Task<void> {
    yield* this.waitFor(offset, offset + 1);
    const slice = yield* this.writableSlice(offset);
    const at = this.map.entryAt(offset);
    this.releaseEntry(slice.view, at, -1);
    putEntry(slice.view, at, 0, 0);
    this.image.l2.changed(slice);
  }

  /** @returns where it stopped: at the end, or at a cluster that is being written */
  private zeroClusters(slice: Table, start: number, end: number, mayUnmap: boolean): number {
    const { clusterSize, entrySize } = this.image;
    const { view } = slice;
    let offset = start;
    for (; offset < end; offset += clusterSize) {
      if (offset > start && this.spans.length > 0 && this.overlapping(offset, offset + clusterSize) !== null) break;
      const at = this.map.entryAt(offset);
      const own = this.ownHost(view, at);
      const keep = mayUnmap && !this.image.hasDataFile ? -1 : own;
      this.releaseEntry(view, at, keep);
      if (entrySize === 16) {
        view.setUint32(at + 8, 0xffffffff);
        view.setUint32(at + 12, 0);
        putEntry(view, at, Math.max(keep, 0), keep >= 0 ? COPIED : 0);
      } else putEntry(view, at, Math.max(keep, 0), keep >= 0 ? COPIED : 0, 1);
    }
    this.image.l2.changed(slice);
    return offset;
  }

  private zeroSubclusters(slice: Table, start: number, end: number): void {
    const { unit, clusterSize } = this.image;
    const at = this.map.entryAt(start);
    const { view } = slice;
    const base = start - (start % clusterSize);
    let bits = 0;
    for (let i = (start - base) / unit; i < (end - base) / unit; i++) bits |= 1 << i;
    view.setUint32(at + 8, view.getUint32(at + 8) | bits);
    view.setUint32(at + 12, view.getUint32(at + 12) & ~bits);
    this.image.l2.changed(slice);
  }

  /** Gives whole clusters up; they read as zeros where the format can say so. */
  *discard(offset: number, length: number): Task<void> {
    const { image, map } = this;
    const { clusterSize } = image;
    let at = Math.ceil(offset / clusterSize) * clusterSize;
    const end = offset + length === this.node.size ? Math.ceil((offset + length) / clusterSize) * clusterSize : offset + length;
    yield* this.zeroRaw(at, end - (end % clusterSize), true);
    while (at + clusterSize <= end) {
      const before = yield* map.slice(at);
      if (before === null) {
        at += map.l2Span - (at % map.l2Span);
        continue;
      }
      yield* this.waitFor(at, at + clusterSize);
      const slice = yield* this.writableSlice(at);
      if (this.overlapping(at, at + clusterSize) !== null) continue;
      const last = Math.min(end - (end % clusterSize), at + map.leftInSlice(at));
      at = this.discardClusters(slice, at, last);
    }
    if (image.releasedMany) yield* image.writeTables();
  }

  private discardClusters(slice: Table, start: number, end: number): number {
    const { clusterSize, entrySize, header } = this.image;
    const { view } = slice;
    const plain = header.version === 2 && this.node.backing === null;
    let offset = start;
    for (; offset < end; offset += clusterSize) {
      if (offset > start && this.spans.length > 0 && this.overlapping(offset, offset + clusterSize) !== null) break;
      const at = this.map.entryAt(offset);
      if (view.getUint32(at) === 0 && view.getUint32(at + 4) === 0 && (entrySize === 8 || view.getUint32(at + 8) === 0)) continue;
      if (header.version === 2 && !plain) continue;
      this.releaseEntry(view, at, -1);
      if (entrySize === 16) {
        view.setUint32(at + 8, 0xffffffff);
        view.setUint32(at + 12, 0);
        putEntry(view, at, 0, 0);
      } else putEntry(view, at, 0, 0, plain ? 0 : 1);
    }
    this.image.l2.changed(slice);
    return offset;
  }

  /** Writes clusters compressed, each by itself, one after the other in the file. */
  *writeCompressed(offset: number, from: Uint8Array): Task<boolean> {
    const { image } = this;
    const { clusterSize } = image;
    if (image.hasDataFile || this.node.cipher !== null) return false;
    for (let at = 0; at < from.length; at += clusterSize) {
      const part = from.subarray(at, at + clusterSize);
      let whole = part;
      if (part.length < clusterSize) {
        if (offset + at + part.length !== this.node.size) throw new Error('compressed writes are whole clusters');
        whole = new Uint8Array(clusterSize);
        whole.set(part);
      }
      const packed = isZero(whole) ? null : yield* wait(pack(image.header.compression, whole));
      if (packed === null || packed.length >= clusterSize) yield* this.writePlain(offset + at, part, packed === null);
      else yield* this.writePacked(offset + at, packed);
    }
    return true;
  }

  private *writePlain(offset: number, part: Uint8Array, zero: boolean): Task<void> {
    if (zero && this.image.header.version > 2) return yield* this.writeZeroes(offset, part.length, true);
    yield* this.write(offset, onePiece(part));
  }

  private *writePacked(offset: number, packed: Uint8Array): Task<void> {
    const { image } = this;
    const { clusterBits } = image.header;
    yield* this.waitFor(offset, offset + 1);
    const span = this.begin(offset, 1);
    try {
      const host = yield* this.takeBytes(packed.length);
      const writing = image.file.write(host, packed);
      if (writing !== undefined) yield writing;
      const slice = yield* this.writableSlice(offset);
      const at = this.map.entryAt(offset);
      this.releaseEntry(slice.view, at, -1);
      const sectors = Math.floor((host + packed.length - 1) / 512) - Math.floor(host / 512);
      const sectorsAt = 62 - (clusterBits - 8) - 32;
      slice.view.setUint32(at, (COMPRESSED | (sectors << sectorsAt) | Math.floor(host / 2 ** 32)) >>> 0);
      slice.view.setUint32(at + 4, host % 2 ** 32);
      if (image.entrySize === 16) {
        slice.view.setUint32(at + 8, 0);
        slice.view.setUint32(at + 12, 0);
      }
      image.l2.changed(slice);
    } finally {
      this.finish(span);
    }
    if (image.releasedMany) yield* image.writeTables();
  }

  /** Room for compressed data: behind what was written last, as long as that cluster or the next has it. */
  private *takeBytes(length: number): Task<number> {
    yield* this.packLock.acquire();
    try {
      return yield* this.takeBytesLocked(length);
    } finally {
      this.packLock.release();
    }
  }

  private *takeBytesLocked(length: number): Task<number> {
    const { image } = this;
    const { clusterSize, refcounts } = image;
    const from = this.packedEnd;
    const left = from < 0 ? 0 : (clusterSize - (from % clusterSize)) % clusterSize;
    if (left > 0 && length <= left) {
      yield* refcounts.change(Math.floor(from / clusterSize), 1, 1);
      this.packedEnd = from + length;
      return from;
    }
    if (left > 0) {
      const next = Math.floor(from / clusterSize) + 1;
      if ((yield* refcounts.allocateAt(next, 1)) === 1) {
        yield* refcounts.change(next - 1, 1, 1);
        this.packedEnd = from + length;
        return from;
      }
    }
    const { cluster } = yield* refcounts.allocate(1);
    this.packedEnd = cluster * clusterSize + length;
    return cluster * clusterSize;
  }
}

/** Writes an entry. @param flags of the high word @param low of the low word */
export function putEntry(view: DataView, at: number, offset: number, flags: number, low = 0): void {
  view.setUint32(at, (Math.floor(offset / 2 ** 32) | flags) >>> 0);
  view.setUint32(at + 4, ((offset % 2 ** 32) | low) >>> 0);
}

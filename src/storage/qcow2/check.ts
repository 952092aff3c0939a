/**
 * Compares the refcounts of an image with what refers to its clusters, and repairs them.
 */
import { type CheckResult, type Fix, MAX_SIZE, readBytes } from '../node.ts';
import { run } from '../task.ts';
import { INCOMPATIBLE, viewOf, write64 } from './header.ts';
import { COMPRESSED, COPIED, entryOffset, type Image } from './image.ts';
import type { Qcow2Node } from './node.ts';
import { readL1, readSnapshots } from './snapshots.ts';
import { getRefcount, setRefcount } from './refcounts.ts';

type Report = (line: string) => void;
const hex = (value: number): string => value.toString(16);

/** Clusters counted together: counts take memory only where there are references. */
const PAGE = 32768;

class Counts {
  private readonly pages = new Map<number, Uint32Array>();

  get(cluster: number): number {
    return this.pages.get(Math.floor(cluster / PAGE))?.[cluster % PAGE] ?? 0;
  }

  add(cluster: number): void {
    const number = Math.floor(cluster / PAGE);
    let page = this.pages.get(number);
    if (page === undefined) {
      page = new Uint32Array(PAGE);
      this.pages.set(number, page);
    }
    page[cluster % PAGE]!++;
  }

  /** Clusters with references, in order. */
  *used(): Generator<number, void, void> {
    for (const number of [...this.pages.keys()].sort((a, b) => a - b)) {
      const page = this.pages.get(number)!;
      for (let i = 0; i < PAGE; i++) if (page[i] !== 0) yield number * PAGE + i;
    }
  }
}

class Checker {
  errors = 0;
  leaks = 0;
  errorsFixed = 0;
  leaksFixed = 0;
  allocated = 0;
  fragmented = 0;
  compressed = 0;
  /** Last cluster that is used or counted. */
  highest = -1;
  readonly counts = new Counts();
  private readonly image: Image;
  private readonly fix: Fix;
  private readonly report: Report;
  private nextHost = 0;
  private rebuild = false;

  constructor(image: Image, fix: Fix, report: Report) {
    this.image = image;
    this.fix = fix;
    this.report = report;
  }

  private error(line: string): void {
    this.errors++;
    this.report(`ERROR ${line}`);
  }

  /** Counts every cluster of a range. */
  private range(offset: number, length: number, what: string): void {
    const { clusterSize, file } = this.image;
    if (length === 0) return;
    if (!(offset + length <= MAX_SIZE)) return this.error(`${what}: offset 0x${hex(offset)} is out of range`);
    if (offset >= file.size + clusterSize)
      return this.error(
        `counting reference for region exceeding the end of the file by one cluster or more: offset 0x${hex(offset)} size 0x${hex(length)}`,
      );
    const end = Math.min(offset + length, file.size + clusterSize);
    for (let at = Math.floor(offset / clusterSize); at * clusterSize < end; at++) this.counts.add(at);
  }

  async run(): Promise<void> {
    const { image } = this;
    const { header, clusterSize } = image;
    this.range(0, clusterSize, 'header');
    await this.table(image.l1, header.l1Offset, true);
    await this.snapshots();
    await this.bitmaps();
    if (header.encryptionHeader !== null)
      this.range(header.encryptionHeader.offset, header.encryptionHeader.length, 'encryption header');
    this.range(header.reftableOffset, header.reftableClusters * clusterSize, 'refcount table');
    this.blocks();
    await this.compare();
  }

  private async table(l1: DataView, offset: number, active: boolean): Promise<void> {
    const { image } = this;
    this.range(offset, l1.byteLength, 'L1 table');
    for (let i = 0; i * 8 < l1.byteLength; i++) {
      const l2 = entryOffset(l1, i * 8);
      if (l2 === 0) continue;
      if (l2 % image.clusterSize !== 0) {
        this.error(`l2_offset=${hex(l2)}: Table is not cluster aligned; L1 entry corrupted`);
        continue;
      }
      this.range(l2, image.clusterSize, 'L2 table');
      if (l2 + image.clusterSize > image.file.size) {
        this.error(`l2_offset=${hex(l2)}: Table is beyond the end of the file`);
        continue;
      }
      await this.entries(l2, active);
    }
  }

  private async entries(l2: number, active: boolean): Promise<void> {
    const { image } = this;
    const { clusterSize, entrySize } = image;
    const view = viewOf(await readBytes(image.file, l2, clusterSize));
    this.nextHost = 0;
    for (let at = 0; at < clusterSize; at += entrySize) {
      const high = view.getUint32(at);
      if ((high & COMPRESSED) !== 0) this.packed(view, at, high, active);
      else this.plain(view, at, high, active);
    }
  }

  private packed(view: DataView, at: number, high: number, active: boolean): void {
    const sectorsAt = 62 - (this.image.header.clusterBits - 8) - 32;
    const word = high & 0x3fffffff;
    const host = (word & (2 ** sectorsAt - 1)) * 2 ** 32 + view.getUint32(at + 4);
    if ((high & COPIED) !== 0) this.error(`coffset=0x${hex(host)}: copied flag must never be set for compressed clusters`);
    if (this.image.hasDataFile) return this.error(`compressed cluster with data file, entry=0x${hex(high)}`);
    const start = host - (host % 512);
    this.range(start, ((word >>> sectorsAt) + 1) * 512, 'compressed cluster');
    if (!active) return;
    this.compressed++;
    this.allocated++;
    // Compressed clusters lie where there was room.
    this.fragmented++;
  }

  private plain(view: DataView, at: number, high: number, active: boolean): void {
    const { image } = this;
    const low = view.getUint32(at + 4);
    const host = entryOffset(view, at);
    if (host === 0 && !(image.hasDataFile && (high & COPIED) !== 0)) return;
    if (image.entrySize === 16 && (view.getUint32(at + 8) & view.getUint32(at + 12)) !== 0) {
      this.error(`offset=${hex(host)}: Allocated and zero bits of a subcluster are both set`);
    }
    if (host % image.clusterSize !== 0)
      return this.error(`offset=${hex(host)}: Cluster is not properly aligned; L2 entry corrupted.`);
    const zero = (low & 1) !== 0 && image.entrySize === 8;
    if (active && !zero) {
      this.allocated++;
      if (this.nextHost !== 0 && host !== this.nextHost) this.fragmented++;
      this.nextHost = host + image.clusterSize;
    }
    if (!image.hasDataFile) this.range(host, image.clusterSize, 'data cluster');
  }

  private async snapshots(): Promise<void> {
    const { image } = this;
    let list: Awaited<ReturnType<typeof readSnapshots>>;
    try {
      list = await readSnapshots(image);
    } catch (error) {
      return this.error(`snapshot table: ${(error as Error).message}`);
    }
    let bytes = 0;
    for (const one of list) {
      const fixed = 40 + 24 + one.more.length;
      bytes = Math.ceil((bytes + fixed + new TextEncoder().encode(one.id + one.name).length) / 8) * 8;
      try {
        await this.table(await readL1(image, one), one.l1Offset, false);
      } catch (error) {
        this.error(`snapshot ${one.id} (${one.name}): ${(error as Error).message}`);
      }
    }
    this.range(image.header.snapshotsOffset, bytes, 'snapshot table');
  }

  private async bitmaps(): Promise<void> {
    if (this.image.header.bitmaps === null) return;
    const { bitmapPlaces } = await import('./bitmaps.ts');
    try {
      for (const { offset, length } of await bitmapPlaces(this.image)) this.range(offset, length, 'bitmap');
    } catch (error) {
      this.error(`bitmaps: ${(error as Error).message}`);
    }
  }

  private blocks(): void {
    const { image } = this;
    const { clusterSize, file, refcounts } = image;
    for (let i = 0; i < refcounts.entries; i++) {
      const offset = refcounts.rawBlockOffset(i);
      if (offset === 0) continue;
      if (offset % clusterSize !== 0) {
        this.error(`refcount block ${i} is not cluster aligned; refcount table entry corrupted`);
        this.rebuild = true;
      } else if (offset >= file.size) {
        this.error(`refcount block ${i} is outside image`);
        this.rebuild = true;
      } else {
        this.range(offset, clusterSize, 'refcount block');
        if (this.counts.get(offset / clusterSize) !== 1) {
          this.error(`refcount block ${i} refcount=${this.counts.get(offset / clusterSize)}`);
          this.rebuild = true;
        }
      }
    }
  }

  private async compare(): Promise<void> {
    const { image } = this;
    const fixing = this.fix !== 'none';
    let unrepairable = false;
    for (const [cluster, count] of await this.differing()) {
      const wanted = this.counts.get(cluster);
      const leak = count > wanted;
      const may = this.fix === 'all' || (leak && this.fix === 'leaks');
      this.report(`${may ? 'Repairing' : leak ? 'Leaked' : 'ERROR'} cluster ${cluster} refcount=${count} reference=${wanted}`);
      if (may && !this.rebuild && image.refcounts.hasBlock(cluster)) {
        await run(image.refcounts.setExactly(cluster, wanted));
        if (leak) this.leaksFixed++;
        else this.errorsFixed++;
        continue;
      }
      if (may && !leak) unrepairable = true;
      if (leak) this.leaks++;
      else this.errors++;
    }
    if (this.fix === 'all' && (this.rebuild || unrepairable)) {
      this.report('Rebuilding refcount structure');
      await rebuildRefcounts(image, this.counts);
      this.errorsFixed += this.errors;
      this.leaksFixed += this.leaks;
      this.errors = 0;
      this.leaks = 0;
    }
    if (fixing) await run(image.flush());
    await this.flags();
  }

  /** Clusters whose count in the file is not what it should be. */
  private async differing(): Promise<[number, number][]> {
    const { image } = this;
    const { perBlock, entries } = image.refcounts;
    const found: [number, number][] = [];
    const seen = new Set<number>();
    for (let block = 0; block < entries; block++) {
      if (!image.refcounts.hasBlock(block * perBlock)) continue;
      seen.add(block);
      const bytes = await readBlock(image, image.refcounts.rawBlockOffset(block));
      if (bytes === null) continue;
      const view = viewOf(bytes);
      for (let i = 0; i < perBlock; i++) {
        const count = getRefcount(view, i, image.header.refcountOrder);
        const cluster = block * perBlock + i;
        if (count > 0 || this.counts.get(cluster) > 0) this.highest = Math.max(this.highest, cluster);
        if (count !== this.counts.get(cluster)) found.push([cluster, count]);
      }
    }
    for (const cluster of this.counts.used()) {
      this.highest = Math.max(this.highest, cluster);
      if (!seen.has(Math.floor(cluster / perBlock))) found.push([cluster, 0]);
    }
    return found.sort(([a], [b]) => a - b);
  }

  /** "Copied" must say exactly that the refcount is one. */
  private async flags(): Promise<void> {
    const { image } = this;
    const { clusterSize, entrySize, refcounts, l1 } = image;
    const mend = this.fix === 'all';
    const wrong = async (host: number, high: number): Promise<boolean> =>
      ((await run(refcounts.get(host / clusterSize))) === 1) !== ((high & COPIED) !== 0);
    let l1Changed = false;
    for (let i = 0; i * 8 < l1.byteLength; i++) {
      const l2 = entryOffset(l1, i * 8);
      if (l2 === 0 || l2 % clusterSize !== 0 || l2 + clusterSize > image.file.size) continue;
      if (await wrong(l2, l1.getUint32(i * 8))) {
        this.flag(
          `OFLAG_COPIED L2 cluster: l1_index=${i} l1_entry=${hexEntry(l1, i * 8)}`,
          await run(refcounts.get(l2 / clusterSize)),
          mend,
        );
        if (mend) l1.setUint32(i * 8, (l1.getUint32(i * 8) ^ COPIED) >>> 0);
        l1Changed ||= mend;
      }
      const bytes = await readBytes(image.file, l2, clusterSize);
      const view = viewOf(bytes);
      let changed = false;
      for (let at = 0; at < clusterSize; at += entrySize) {
        const high = view.getUint32(at);
        const host = entryOffset(view, at);
        if ((high & COMPRESSED) !== 0 || host === 0 || host % clusterSize !== 0 || image.hasDataFile) continue;
        if (!(await wrong(host, high))) continue;
        this.flag(
          `OFLAG_COPIED data cluster: l2_entry=${hexEntry(view, at)}`,
          await run(refcounts.get(host / clusterSize)),
          mend,
        );
        if (!mend) continue;
        view.setUint32(at, (high ^ COPIED) >>> 0);
        changed = true;
      }
      if (changed) {
        image.l2.forget(l2, clusterSize);
        await image.file.write(l2, bytes);
      }
    }
    if (l1Changed) await image.file.write(image.header.l1Offset, new Uint8Array(l1.buffer, l1.byteOffset, l1.byteLength));
  }

  private flag(what: string, refcount: number, mend: boolean): void {
    this.report(`${mend ? 'Repairing' : 'ERROR'} ${what} refcount=${refcount}`);
    if (mend) this.errorsFixed++;
    else this.errors++;
  }
}

function hexEntry(view: DataView, at: number): string {
  return (BigInt(view.getUint32(at)) * 2n ** 32n + BigInt(view.getUint32(at + 4))).toString(16);
}

async function readBlock(image: Image, offset: number): Promise<Uint8Array | null> {
  if (offset % image.clusterSize !== 0 || offset >= image.file.size) return null;
  const bytes = new Uint8Array(image.clusterSize);
  await image.file.read(offset, bytes);
  return bytes;
}

/** Writes a new table and new blocks behind everything else, then lets the header refer to them. */
async function rebuildRefcounts(image: Image, counts: Counts, order = image.header.refcountOrder): Promise<void> {
  const { clusterSize, file } = image;
  const perBlock = (clusterSize * 8) >> order;
  const first = Math.ceil(file.size / clusterSize);
  const wanted = new Map<number, number>();
  const oldPlaces = image.refcounts.places();
  for (const cluster of counts.used()) {
    const left = counts.get(cluster) - (oldPlaces.has(cluster) ? 1 : 0);
    if (left > 0) wanted.set(cluster, left);
  }
  const blocks = new Set([...wanted.keys()].map((cluster) => Math.floor(cluster / perBlock)));
  let tableClusters = 1;
  let total = 0;
  for (;;) {
    for (let i = 0; i < blocks.size + tableClusters; i++) blocks.add(Math.floor((first + i) / perBlock));
    const needed = Math.ceil(((Math.max(...blocks) + 1) * 8) / clusterSize);
    if (needed <= tableClusters && total === blocks.size + tableClusters) break;
    tableClusters = Math.max(tableClusters, needed);
    total = blocks.size + tableClusters;
  }
  for (let i = 0; i < total; i++) wanted.set(first + i, 1);
  const bytes = new Uint8Array(total * clusterSize);
  const view = viewOf(bytes);
  const places = new Map([...blocks].sort((a, b) => a - b).map((block, i) => [block, tableClusters + i] as const));
  for (const [block, at] of places) write64(view, block * 8, (first + at) * clusterSize);
  for (const [cluster, count] of wanted) {
    const at = places.get(Math.floor(cluster / perBlock))!;
    setRefcount(new DataView(bytes.buffer, at * clusterSize, clusterSize), cluster % perBlock, order, count);
  }
  await file.write(first * clusterSize, bytes);
  await file.flush();
  await run(image.refcounts.replaceTable(first * clusterSize, tableClusters, bytes.slice(0, tableClusters * clusterSize), order));
}

/** Writes all counts in another width. The header is written once, as a whole. */
export async function rewriteRefcounts({ image }: Qcow2Node, order: number): Promise<void> {
  const checker = new Checker(image, 'none', () => undefined);
  await run(image.flush());
  await checker.run();
  for (const cluster of checker.counts.used()) {
    if (checker.counts.get(cluster) > 2 ** (1 << order) - 1) {
      throw new Error(`refcount_bits=${1 << order} is too small: a cluster has ${checker.counts.get(cluster)} references`);
    }
  }
  await rebuildRefcounts(image, checker.counts, order);
}

/** @param report one line for each finding @returns what was found and repaired */
export async function checkImage(node: Qcow2Node, fix: Fix, report: Report): Promise<CheckResult> {
  const { image } = node;
  const { header, clusterSize } = image;
  const { lazy } = image;
  if (!node.readOnly) await run(image.flush());
  image.lazy = false;
  const checker = new Checker(image, fix, report);
  await checker.run();
  const repaired = checker.errors === 0 && fix !== 'none';
  const flagged = header.incompatible & (INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt);
  if (repaired && flagged !== 0 && (fix === 'all' || flagged === INCOMPATIBLE.dirty)) {
    header.incompatible &= ~flagged;
    await run(image.saveFeatures());
  }
  image.lazy = lazy;
  return {
    errors: checker.errors,
    leaks: checker.leaks,
    errorsFixed: checker.errorsFixed,
    leaksFixed: checker.leaksFixed,
    imageEnd: (checker.highest + 1) * clusterSize,
    totalClusters: Math.ceil(header.size / clusterSize),
    allocatedClusters: checker.allocated,
    fragmentedClusters: checker.fragmented,
    compressedClusters: checker.compressed,
  };
}

/** Copies what a disk shows into another, several parts at a time, without writing zeros where they are there already. */
import { type ChainExtent, chainStatus } from './chain.ts';
import { type BlockNode, isZero } from './node.ts';

/** Most bytes of a part. */
const PART = 2 ** 20;
const SECTOR = 512;

export interface CopyOptions {
  /** Bytes; the rest of a larger target is left alone. */
  readonly length: number;
  /** Everything that is not written reads as zeros. */
  readonly targetIsZero: boolean;
  /** Consecutive zeros that are not worth writing, bytes; 0 writes everything. */
  readonly sparse: number;
  readonly compress: boolean;
  /** Bytes of the target's clusters, for compression. */
  readonly clusterSize: number;
  /** Parts under way at a time. */
  readonly parallel: number;
  /** Parts need not be written in order. */
  readonly unordered: boolean;
  /** What only this node of the source's chain has, or those below it, is not copied: the target has it already. */
  readonly above: BlockNode | null;
  /** Bytes of the target that show what is behind it; beyond, everything must be copied. */
  readonly behind: number;
  /** What cannot be read is zeros in the copy. */
  readonly salvage: ((offset: number, error: Error) => void) | null;
  readonly progress: ((done: number) => void) | null;
  /** Bytes a second, 0 for no limit. */
  readonly rate: number;
}

type Part = { at: number; length: number; kind: 'data' | 'zero' | 'skip'; turn: number };

class Copier {
  private readonly source: BlockNode;
  private readonly target: BlockNode;
  private readonly options: CopyOptions;
  private next = 0;
  private done = 0;
  private turns = 0;
  private extent: ChainExtent | null = null;
  private extentEnd = 0;
  private planning: Promise<unknown> = Promise.resolve();
  /** Turn of the part that may be written next. */
  private writable = 0;
  private readonly waiting = new Map<number, () => void>();
  private failed = false;
  private readonly start: number;

  constructor(source: BlockNode, target: BlockNode, options: CopyOptions) {
    this.source = source;
    this.target = target;
    this.options = options;
    // A clock takes as long to be made as a part to be copied.
    this.start = options.rate > 0 ? performance.now() : 0;
  }

  async run(): Promise<void> {
    const workers = Array.from({ length: this.options.parallel }, () => this.work());
    const ends = await Promise.allSettled(workers);
    const bad = ends.find((end) => end.status === 'rejected');
    if (bad !== undefined) throw bad.reason;
  }

  private async work(): Promise<void> {
    let buffer: Uint8Array | null = null;
    try {
      while (!this.failed) {
        const part = await this.plan();
        if (part === null) return;
        if (part.kind === 'data') {
          buffer ??= new Uint8Array(this.options.compress ? this.options.clusterSize : PART);
          await this.copy(part, buffer.subarray(0, part.length));
        } else {
          await this.turn(part);
          if (part.kind === 'zero') await this.target.writeZeroes(part.at, part.length, true);
          this.passed(part);
        }
        this.done += part.length;
        this.options.progress?.(this.done);
        if (this.options.rate > 0) await this.pace();
      }
    } catch (error) {
      this.failed = true;
      for (const resume of this.waiting.values()) resume();
      throw error;
    }
  }

  private async pace(): Promise<void> {
    const early = (this.done / this.options.rate) * 1000 - (performance.now() - this.start);
    if (early > 1) await new Promise((resolve) => setTimeout(resolve, early));
  }

  /** The next part; one at a time, so that they come in order. */
  private plan(): Promise<Part | null> {
    const planned = this.planning.then(() => this.planNow());
    this.planning = planned.catch(() => undefined);
    return planned;
  }

  private async planNow(): Promise<Part | null> {
    const { length, compress, clusterSize } = this.options;
    if (this.next >= length) return null;
    const at = this.next;
    if (this.extent === null || at >= this.extentEnd) await this.look(at);
    const kind = this.kindOf(this.extent!, at);
    let end = Math.min(length, this.extentEnd);
    if (kind === 'data') {
      end = Math.min(end, at + (compress ? clusterSize : PART));
      // Clusters are compressed whole, whatever the source is made of.
      if (compress && end < at + clusterSize) end = Math.min(length, at + clusterSize);
    } else if (compress && end < length) end = Math.max(end - (end % clusterSize), Math.min(length, at + clusterSize));
    if (compress && kind !== 'data' && end > this.extentEnd) {
      this.next = end;
      return { at, length: end - at, kind: 'data', turn: this.turns++ };
    }
    this.next = end;
    return { at, length: end - at, kind, turn: this.turns++ };
  }

  private async look(at: number): Promise<void> {
    const { length, above } = this.options;
    if (at >= this.source.size)
      this.extent = { length: length - at, data: false, zero: true, allocated: false, offset: null, file: null, depth: 0 };
    else {
      const want = Math.min(length, this.source.size) - at;
      this.extent = await chainStatus(this.source, at, want, above, true);
    }
    this.extentEnd = at + this.extent.length;
  }

  private kindOf(extent: ChainExtent, at: number): Part['kind'] {
    const { above, behind, targetIsZero, sparse } = this.options;
    if (above !== null && !extent.allocated && !extent.zero) return at < behind ? 'skip' : 'data';
    if (!extent.zero || sparse === 0) return 'data';
    return this.zerosStand(targetIsZero, at) ? 'skip' : 'zero';
  }

  /** Zeros need not be written here. */
  private zerosStand(targetIsZero: boolean, at: number): boolean {
    return targetIsZero && at >= this.options.behind;
  }

  private async copy(part: Part, buffer: Uint8Array): Promise<void> {
    await this.read(part.at, buffer);
    await this.turn(part);
    if (this.failed) return;
    // Writes begin in order, so that the target is laid out in order, and end as they like.
    const writing = this.write(part.at, buffer);
    this.passed(part);
    await writing;
  }

  private async read(at: number, buffer: Uint8Array): Promise<void> {
    const there = Math.max(0, Math.min(buffer.length, this.source.size - at));
    buffer.fill(0, there);
    try {
      if (there > 0) await this.source.read(at, buffer.subarray(0, there));
    } catch (error) {
      if (this.options.salvage === null) throw new Error(`error while reading at byte ${at}: ${(error as Error).message}`);
      await this.salvage(at, buffer.subarray(0, there));
    }
  }

  /** Sector by sector, so that as little as possible is lost. */
  private async salvage(at: number, buffer: Uint8Array): Promise<void> {
    for (let i = 0; i < buffer.length; i += SECTOR) {
      const sector = buffer.subarray(i, i + SECTOR);
      try {
        await this.source.read(at + i, sector);
      } catch (error) {
        this.options.salvage!(at + i, error as Error);
        sector.fill(0);
      }
    }
  }

  /** Waits until all parts before have been written, if the order matters. */
  private async turn({ turn }: Part): Promise<void> {
    if (turn === this.writable || this.failed || this.options.unordered) return;
    await new Promise<void>((resolve) => this.waiting.set(turn, resolve));
  }

  private passed({ turn }: Part): void {
    if (this.options.unordered) return;
    this.writable = turn + 1;
    const next = this.waiting.get(this.writable);
    this.waiting.delete(this.writable);
    next?.();
  }

  private async write(at: number, buffer: Uint8Array): Promise<void> {
    const { sparse, compress, targetIsZero } = this.options;
    try {
      if (compress) {
        if (sparse > 0 && this.zerosStand(targetIsZero, at) && isZero(buffer)) return;
        if (!(await this.target.writeCompressed(at, buffer))) throw new Error('the target does not take compressed data');
        return;
      }
      if (sparse === 0) return await this.target.write(at, buffer);
      await this.writeSparse(at, buffer);
    } catch (error) {
      throw new Error(`error while writing at byte ${at}: ${(error as Error).message}`);
    }
  }

  /** Runs of data and of zeros in turn. */
  private async writeSparse(at: number, buffer: Uint8Array): Promise<void> {
    const { targetIsZero, sparse } = this.options;
    const piece = Math.max(SECTOR, sparse);
    const skipZeros = this.zerosStand(targetIsZero, at);
    const zeroAt = (from: number): boolean => isZero(buffer.subarray(from, Math.min(buffer.length, from + piece)));
    // Pieces lie on multiples of their size in the target.
    let from = 0;
    while (from < buffer.length) {
      const first = Math.min(buffer.length, from + piece - ((at + from) % piece));
      const zero = isZero(buffer.subarray(from, first));
      let end = first;
      while (end < buffer.length && zeroAt(end) === zero) end += piece;
      end = Math.min(end, buffer.length);
      if (!zero) await this.target.write(at + from, buffer.subarray(from, end));
      else if (!skipZeros) await this.target.writeZeroes(at + from, end - from, true);
      from = end;
    }
  }
}

/** @throws Error that says where reading or writing failed */
export async function copyDisk(source: BlockNode, target: BlockNode, options: CopyOptions): Promise<void> {
  await new Copier(source, target, options).run();
}

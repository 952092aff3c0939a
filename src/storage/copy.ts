/** Copies what a disk shows into another, several parts at a time, without writing zeros where they are there already. */
import { type ChainExtent, chainStatus } from './chain.ts';
import { type BlockNode, isZero } from './node.ts';
import { Lock, type Maybe, run, type Task, wait } from './task.ts';

/** Most bytes of a part. */
const PART = 2 ** 20;
/** Parts under way at first: one is written while the next ones are read. More would push each other out of the caches. */
const FIRST_WORKERS = 3;
/** Milliseconds that a read takes where it waits for a disk or a server, for which more of them had better wait. */
const SLOW_READ = 3;
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

/** A copy of all that the source shows, in order. */
export const PLAIN_COPY = {
  compress: false,
  clusterSize: 65536,
  unordered: false,
  above: null,
  behind: 0,
  salvage: null,
  progress: null,
  rate: 0,
} as const;

type Kind = 'data' | 'zero' | 'skip';
type Part = { at: number; length: number; zero: boolean; turn: number };

class Copier {
  private readonly source: BlockNode;
  private readonly target: BlockNode;
  private readonly options: CopyOptions;
  private next = 0;
  private done = 0;
  private turns = 0;
  private extent: ChainExtent | null = null;
  private extentEnd = 0;
  private readonly planning = new Lock();
  /** Turn of the part that may be written next. */
  private writable = 0;
  private readonly waiting = new Map<number, () => void>();
  /** Memory for parts that nobody uses now; the last one is in the processor's caches still. */
  private readonly buffers: Uint8Array[] = [];
  private readonly workers: Maybe<void>[] = [];
  private failed = false;
  private error: unknown = null;
  private readonly start: number;

  constructor(source: BlockNode, target: BlockNode, options: CopyOptions) {
    this.source = source;
    this.target = target;
    this.options = options;
    // A clock takes as long to be made as a part to be copied.
    this.start = options.rate > 0 ? performance.now() : 0;
  }

  /** Where nothing has to be waited for, the first worker does it all. */
  async run(): Promise<void> {
    const { compress, parallel } = this.options;
    const first = compress ? parallel : Math.min(parallel, FIRST_WORKERS);
    for (let i = 0; i < first; i++) this.begin();
    // Others may begin meanwhile.
    for (const worker of this.workers) await worker;
    if (this.failed) throw this.error;
  }

  private begin(): void {
    this.workers.push(run(this.work()));
  }

  private *work(): Task<void> {
    try {
      while (!this.failed) {
        const part = yield* this.plan();
        if (part === null) return;
        if (part.zero) yield* this.clear(part);
        else yield* this.copy(part);
        this.advance(part.length);
        if (this.options.rate > 0) yield this.pace();
      }
    } catch (error) {
      if (!this.failed) this.error = error;
      this.failed = true;
      for (const resume of this.waiting.values()) resume();
    }
  }

  private advance(length: number): void {
    this.done += length;
    this.options.progress?.(this.done);
  }

  private async pace(): Promise<void> {
    const early = (this.done / this.options.rate) * 1000 - (performance.now() - this.start);
    if (early > 1) await new Promise((resolve) => setTimeout(resolve, early));
  }

  /** The next part; one at a time, so that they come in order. */
  private *plan(): Task<Part | null> {
    yield* this.planning.acquire();
    try {
      return yield* this.planNow();
    } finally {
      this.planning.release();
    }
  }

  private *planNow(): Task<Part | null> {
    const { length } = this.options;
    while (this.next < length) {
      const at = this.next;
      if (this.extent === null || at >= this.extentEnd) yield* this.look(at);
      const kind = this.kindOf(this.extent!, at);
      this.next = this.endOf(kind, at);
      // Clusters are compressed whole, whatever the source is made of.
      const data = kind === 'data' || (this.options.compress && this.next > this.extentEnd);
      if (data || kind === 'zero') return { at, length: this.next - at, zero: !data, turn: this.turns++ };
      this.advance(this.next - at);
    }
    return null;
  }

  /** @returns where a part ends that begins within the extent that was looked up last */
  private endOf(kind: Kind, at: number): number {
    const { length, compress, clusterSize } = this.options;
    const end = Math.min(length, this.extentEnd);
    const cluster = Math.min(length, at + clusterSize);
    if (kind === 'data') return compress ? cluster : Math.min(end, at + PART);
    return compress && end < length ? Math.max(end - (end % clusterSize), cluster) : end;
  }

  private *look(at: number): Task<void> {
    const { length, above } = this.options;
    if (at >= this.source.size)
      this.extent = { length: length - at, data: false, zero: true, allocated: false, offset: null, file: null, depth: 0 };
    else {
      const want = Math.min(length, this.source.size) - at;
      this.extent = yield* wait(chainStatus(this.source, at, want, above, true));
    }
    this.extentEnd = at + this.extent.length;
  }

  private kindOf(extent: ChainExtent, at: number): Kind {
    const { above, behind, targetIsZero, sparse } = this.options;
    if (above !== null && !extent.allocated && !extent.zero) return at < behind ? 'skip' : 'data';
    if (!extent.zero || sparse === 0) return 'data';
    return this.zerosStand(targetIsZero, at) ? 'skip' : 'zero';
  }

  /** Zeros need not be written here. */
  private zerosStand(targetIsZero: boolean, at: number): boolean {
    return targetIsZero && at >= this.options.behind;
  }

  private *clear(part: Part): Task<void> {
    yield* this.turn(part);
    yield* wait(this.target.writeZeroes(part.at, part.length, true));
    this.passed(part);
  }

  private *copy(part: Part): Task<void> {
    const { compress, clusterSize } = this.options;
    const whole = this.buffers.pop() ?? new Uint8Array(compress ? clusterSize : PART);
    const buffer = whole.subarray(0, part.length);
    yield* this.read(part.at, buffer);
    yield* this.turn(part);
    if (this.failed) return;
    // Writes begin in order, so that the target is laid out in order, and end as they like.
    const writing = run(this.write(part.at, buffer));
    this.passed(part);
    yield* wait(writing);
    this.buffers.push(whole);
  }

  private *read(at: number, buffer: Uint8Array): Task<void> {
    const there = Math.max(0, Math.min(buffer.length, this.source.size - at));
    buffer.fill(0, there);
    const start = Date.now();
    try {
      if (there > 0) yield* wait(this.source.read(at, buffer.subarray(0, there)));
      if (Date.now() - start > SLOW_READ && this.workers.length < this.options.parallel) this.begin();
    } catch (error) {
      if (this.options.salvage === null) throw new Error(`error while reading at byte ${at}: ${(error as Error).message}`);
      yield* this.salvage(at, buffer.subarray(0, there));
    }
  }

  /** Sector by sector, so that as little as possible is lost. */
  private *salvage(at: number, buffer: Uint8Array): Task<void> {
    for (let i = 0; i < buffer.length; i += SECTOR) {
      const sector = buffer.subarray(i, i + SECTOR);
      try {
        yield* wait(this.source.read(at + i, sector));
      } catch (error) {
        this.options.salvage!(at + i, error as Error);
        sector.fill(0);
      }
    }
  }

  /** Waits until all parts before have been written, if the order matters. */
  private *turn({ turn }: Part): Task<void> {
    if (turn === this.writable || this.failed || this.options.unordered) return;
    yield new Promise<void>((resolve) => this.waiting.set(turn, resolve));
  }

  private passed({ turn }: Part): void {
    if (this.options.unordered) return;
    this.writable = turn + 1;
    const next = this.waiting.get(this.writable);
    this.waiting.delete(this.writable);
    next?.();
  }

  private *write(at: number, buffer: Uint8Array): Task<void> {
    const { sparse, compress, targetIsZero } = this.options;
    try {
      if (compress) {
        if (sparse > 0 && this.zerosStand(targetIsZero, at) && isZero(buffer)) return;
        const taken = yield* wait(this.target.writeCompressed(at, buffer));
        if (!taken) throw new Error('the target does not take compressed data');
      } else if (sparse === 0) yield* wait(this.target.write(at, buffer));
      else yield* this.writeSparse(at, buffer);
    } catch (error) {
      throw new Error(`error while writing at byte ${at}: ${(error as Error).message}`);
    }
  }

  /** Runs of data and of zeros in turn. */
  private *writeSparse(at: number, buffer: Uint8Array): Task<void> {
    const { targetIsZero, sparse } = this.options;
    const piece = Math.max(SECTOR, sparse);
    const skipZeros = this.zerosStand(targetIsZero, at);
    // Most pieces show at their ends that they are none.
    const zeroAt = (from: number): boolean => {
      const end = Math.min(buffer.length, from + piece);
      return buffer[from] === 0 && buffer[end - 1] === 0 && isZero(buffer.subarray(from, end));
    };
    // Pieces lie on multiples of their size in the target.
    let from = 0;
    while (from < buffer.length) {
      const first = Math.min(buffer.length, from + piece - ((at + from) % piece));
      const zero = isZero(buffer.subarray(from, first));
      let end = first;
      while (end < buffer.length && zeroAt(end) === zero) end += piece;
      end = Math.min(end, buffer.length);
      if (!zero) yield* wait(this.target.write(at + from, buffer.subarray(from, end)));
      else if (!skipZeros) yield* wait(this.target.writeZeroes(at + from, end - from, true));
      from = end;
    }
  }
}

/** @throws Error that says where reading or writing failed */
export async function copyDisk(source: BlockNode, target: BlockNode, options: CopyOptions): Promise<void> {
  await new Copier(source, target, options).run();
}

/**
 * Hot blocks on their way to a compiler, and the regions that come back. Functions are gathered
 * into modules, since a module costs far more than a function; a batch is closed when it is large
 * enough or when a block that waits in it has become hot once more.
 */
import type { Block, BlockTable, Region } from './blocks.ts';
import type { BatchCompiler } from './compilers.ts';
import { CELL_SIZE, FN_FIRST_FREE, FN_INTERPRETER, GUARD_SIZE, MAX_LINKS } from './layout.ts';
import { MAX_GUARDS } from './region-source.ts';
import { writeRequests } from './request.ts';
import type { CompiledBatch, MadeRegion, RegionRequest } from './request.ts';
import type { Tlb } from './tlb.ts';

const PAGE = 4096;
const BATCH = 32;
/** Slices that a started batch waits for more. */
const PATIENCE = 16;

/** Batches under way to a thread beside: one in work, one that it finds when it is done. */
const AHEAD = 2;

/** More entries than are counted. */
const NEVER = 0x7fffffff;

/** For so many times as long as a wide region took to be made no other is asked for. */
const REST = 1;
/** A region that could not be made wide asks again after a part of the entries: this power of two. */
const LATER = 3;

/** What the queue needs of the engine. */
export interface RegionHost {
  readonly blocks: BlockTable;
  readonly tlb: Pick<Tlb, 'protect' | 'tlbAddress' | 'epoch'>;
  readonly table: WebAssembly.Table;
  /** Upper half of CTL_CODE_KEY for a mode. */
  codeKey(flags: number): number;
  /** Entries after which a region is made anew, wider. */
  readonly widenAfter: number;
  readonly statistics: { regions: number; failures: number };
  trace?: ((category: string, line: string) => void) | undefined;
}

interface Pending {
  readonly block: Block;
  readonly request: RegionRequest;
  /** Address of the count of its entries. */
  readonly entries: number;
  /** BlockTable.changes when it was asked for. */
  readonly changes: number;
}

/** Entry cells that a region takes for itself: the fallback, its guards, its links, and the count of its entries. */
const CELLS_OF_REGION = 2 + (MAX_GUARDS * GUARD_SIZE) / CELL_SIZE + MAX_LINKS;

export class RegionQueue {
  private readonly host: RegionHost;
  private readonly compiler: BatchCompiler;
  private readonly imports: Record<string, WebAssembly.ImportValue>;
  private pending: Pending[] = [];
  private underWay = 0;
  /** Counts the times that all code was dropped: batches from before are of no use. */
  private generation = 0;
  private fresh = false;
  private waited = 0;
  /** When the next wide region may be asked for (performance.now). */
  private restUntil = 0;
  private nextSlot = FN_FIRST_FREE;
  private freeSlots: number[] = [];
  /** Cells that were taken for regions which did not go into service, see `takeCells`. */
  private spareCells: number[] = [];
  /** [pc offset, context, instructions of its block from it on] of each instruction in a region. */
  private faults = new Int32Array(3 << 15);

  constructor(host: RegionHost, compiler: BatchCompiler, imports: Record<string, WebAssembly.ImportValue>) {
    this.host = host;
    this.compiler = compiler;
    this.imports = imports;
    host.blocks.onRegionDropped = ({ slot }) => this.release(slot);
  }

  private release(slot: number): void {
    this.host.table.set(slot, null);
    this.freeSlots.push(slot);
  }

  /**
   * A block has run often in the interpreter, or its region has been entered very often.
   * @param low linear address at which it runs now
   */
  hot(block: Block, low: number, high: number): void {
    if (block.asked) {
      // It waits in the open batch, and still runs in the interpreter: close the batch.
      if (this.pending.some((entry) => entry.block === block)) this.flush();
      return;
    }
    const { host } = this;
    const wide = block.region ? 1 : 0;
    if (block.region ? !this.widening(block.region) : !this.hasRoom) return;
    const slot = this.freeSlots.pop() ?? this.nextSlot++;
    while (slot >= host.table.length) host.table.grow(4096);
    const { id, page, offset, secondPage, flags } = block;
    const fallbackCell = this.takeCells();
    const guards = fallbackCell + CELL_SIZE;
    const entries = fallbackCell + (CELLS_OF_REGION - 1) * CELL_SIZE;
    host.blocks.setCell(fallbackCell, FN_INTERPRETER, block.ip);
    host.blocks.setCell(entries, host.widenAfter, 0);
    const { tlbAddress, epoch } = host.tlb;
    const request = {
      low,
      high,
      block: id,
      flags,
      key: host.codeKey(flags),
      page,
      offset,
      secondPage,
      tlb: tlbAddress,
      epoch,
      slot,
      fallbackCell,
      guards,
      wide,
    };
    block.asked = true;
    this.pending.push({ block, request, entries, changes: host.blocks.changes });
    if (this.pending.length >= BATCH || this.compilerIdle) this.flush();
  }

  /** A thread beside has nothing to do. */
  private get compilerIdle(): boolean {
    return this.compiler.background && this.underWay < AHEAD;
  }

  /** A region has been entered very often. @returns whether a wide one is to take its place, which is asked for once */
  private widening({ entries }: Region): boolean {
    const { blocks, widenAfter } = this.host;
    // It may be the block that has run often, where a guard of its region's does not hold.
    if (entries === 0 || blocks.countIn(entries) >= 0) return false;
    const may = this.mayWiden();
    // Never none: the region leaves before it has done anything where the count is over.
    blocks.setCell(entries, may ? NEVER : Math.max(1, widenAfter >> LATER), 0);
    return may;
  }

  private get hasRoom(): boolean {
    return this.spareCells.length > 0 || this.host.blocks.cellsLeft >= CELLS_OF_REGION;
  }

  /** @returns address of the first of a region's cells, which are all zero */
  private takeCells(): number {
    const { blocks } = this.host;
    const first = this.spareCells.pop() ?? blocks.newCells(CELLS_OF_REGION);
    for (let i = 0; i < CELLS_OF_REGION; i++) blocks.setCell(first + i * CELL_SIZE, 0, 0);
    return first;
  }

  /**
   * Wide regions take long to compile, and are for code that has one already: nothing else is to wait for them,
   * and a thread beside, which slows the guest's down, is to be at them for a part of the time only (`REST`).
   */
  private mayWiden(): boolean {
    if (!this.compiler.background) return this.hasRoom;
    return this.hasRoom && this.underWay === 0 && this.pending.length === 0 && performance.now() >= this.restUntil;
  }

  /** Regions that the compiler has made go into service. */
  takeAnswers(): void {
    if (this.underWay > 0) this.compiler.poll();
  }

  sliceEnded(): void {
    this.takeAnswers();
    if (this.pending.length === 0) return;
    this.waited++;
    if (this.waited >= PATIENCE || this.compilerIdle) this.flush();
  }

  /** Has the open batch compiled; its regions go into service when it is done. */
  private flush(): void {
    this.waited = 0;
    const { pending, generation, fresh } = this;
    this.pending = [];
    this.fresh = false;
    this.underWay++;
    const words = writeRequests(pending.map(({ request }) => request));
    const start = pending.some(({ request }) => request.wide !== 0) ? performance.now() : Infinity;
    this.compiler.compile(words, fresh, (batch) => {
      this.underWay--;
      const now = performance.now();
      if (start < now) this.restUntil = now + REST * (now - start);
      if (generation === this.generation) this.install(batch, pending);
    });
  }

  private install({ module, regions }: CompiledBatch, pending: readonly Pending[]): void {
    if (module) new WebAssembly.Instance(module, { v: this.imports });
    pending.forEach((entry, i) => {
      entry.block.asked = false;
      const { error } = regions[i]!;
      if (error !== undefined) this.failed(entry, error);
      if (this.enter(entry, regions[i]!)) return;
      this.release(entry.request.slot);
      this.spareCells.push(entry.request.fallbackCell);
    });
  }

  private failed({ request: { low, high } }: Pending, error: string): void {
    this.host.statistics.failures++;
    const address = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    this.host.trace?.('jit', `no region for ${address.toString(16)}: ${error}`);
  }

  /** Puts a region into service. @returns whether it could be */
  private enter({ block, request, entries, changes }: Pending, made: MadeRegion): boolean {
    const { blocks, tlb, statistics } = this.host;
    const { ranges } = made;
    if (ranges.length === 0 || block.ip === 0 || (block.region !== null && request.wide === 0)) return false;
    for (let i = 0; i < ranges.length; i += 3) if (blocks.changedSince(ranges[i]!, changes)) return false;
    if (block.region) blocks.dropRegion(block.region);
    const region: Region = { entry: block, slot: request.slot, ranges, entries: request.wide ? 0 : entries, alive: true };
    block.region = region;
    for (const page of blocks.addRegion(region)) tlb.protect(page * PAGE);
    this.addFaults(made);
    // The block may have been translated again meanwhile.
    blocks.setCell(request.fallbackCell, FN_INTERPRETER, block.ip);
    blocks.setCell(block.cell, request.slot, block.ip);
    statistics.regions++;
    return true;
  }

  private addFaults({ faultBase, faults }: MadeRegion): void {
    const end = faultBase * 3 + faults.length;
    if (end > this.faults.length) {
      const larger = new Int32Array(Math.max(end, this.faults.length * 2));
      larger.set(this.faults);
      this.faults = larger;
    }
    this.faults.set(faults, faultBase * 3);
  }

  /** [pc offset, context, instructions of its block from it on] of a fault number. */
  faultPlace(id: number): readonly [number, number, number] {
    const at = (-1 - id) * 3;
    return [this.faults[at]!, this.faults[at + 1]!, this.faults[at + 2]!];
  }

  /** No more regions are wanted. */
  close(): void {
    this.compiler.close();
  }

  /** All translated code has been dropped. */
  clear(): void {
    for (let slot = FN_FIRST_FREE; slot < this.nextSlot; slot++) this.host.table.set(slot, null);
    this.nextSlot = FN_FIRST_FREE;
    this.freeSlots = [];
    this.spareCells = [];
    this.generation++;
    this.fresh = true;
    this.pending = [];
  }
}

/**
 * Turns hot blocks into compiled regions. Functions are gathered into modules, since
 * a module costs far more than a function; a batch is closed when it is large enough
 * or when a block that waits in it has become hot once more.
 */
import { STRIDE, CTX_UNKNOWN } from '../ir/builder.ts';
import type { Builder } from '../ir/builder.ts';
import { Op } from '../ir/ops.ts';
import { BatchWriter } from './batch.ts';
import type { Block, BlockTable, Region } from './blocks.ts';
import type { Tlb } from './tlb.ts';
import { FN_FIRST_FREE, FN_INTERPRETER } from './layout.ts';
import { buildRegion, constantTargets } from './region.ts';
import type { RegionBlock, RegionNode, RegionSource } from './region.ts';

const PAGE = 4096;
const BATCH = 32;
/** Slices that a started batch waits for more. */
const PATIENCE = 16;
/** A target belongs into the region when it has run at least this often. */
const WARM = 30;
const MAX_PAGES = 4;
/** The same where larger regions pay. */
const WARM_PROGRAM = 8;
/** Targets of one computed jump that a region compares the pc with. */
const MAX_JUMP_TARGETS = 12;
/** A computed jump with so many targets is a switch: its targets run equally often or not at all. */
const DISPATCH_TARGETS = 4;

/** Turns batches into modules, here or in another thread. */
export interface BatchCompiler {
  /** Another thread does the work: a batch costs this one nothing, so small ones are as good as large. */
  readonly background: boolean;
  /** @param done called with the module, at once or later, in the order of the calls */
  compile(words: Int32Array, done: (module: WebAssembly.Module) => void): void;
}

/** What the queue needs of the engine. */
export interface RegionHost {
  readonly blocks: BlockTable;
  readonly tlb: Pick<Tlb, 'protect'>;
  readonly table: WebAssembly.Table;
  readonly dispatchCell: number;
  codeHost(low: number, high: number): number;
  executions(block: Block): number;
  /** See Isa.favoursSpeed. */
  favoursSpeed(flags: number): boolean;
  /** Targets that the block's computed jump has been seen to take, as offsets from its pc. */
  jumpTargets(block: Block): number[];
  translateFor(host: number, low: number, high: number, offset: number, ctx: number): Builder | null;
  readonly readerOffset: number;
  readonly readerSecondPage: number;
  readonly statistics: { regions: number };
}

/** A page beyond the entry's own that a region has code in. */
interface PageGuard {
  /** Byte offset of the page's first byte from the region's base pc. */
  readonly offset: number;
  /** Address of the page in the wasm memory. */
  readonly host: number;
}

interface Pending {
  readonly region: Region;
  readonly block: Block;
}

export class RegionQueue {
  private readonly host: RegionHost;
  private readonly compiler: BatchCompiler;
  private readonly imports: Record<string, WebAssembly.ImportValue>;
  private readonly batch = new BatchWriter();
  private pending: Pending[] = [];
  private underWay = 0;
  /** Counts the times that all code was dropped: batches from before are of no use. */
  private generation = 0;
  private waited = 0;
  private nextSlot = FN_FIRST_FREE;
  private freeSlots: number[] = [];
  /** [pc offset, context, instructions of its block from it on] of each instruction in a region. */
  private faults = new Int32Array(3 << 15);
  private faultCount = 0;

  constructor(host: RegionHost, compiler: BatchCompiler, imports: Record<string, WebAssembly.ImportValue>) {
    this.host = host;
    this.compiler = compiler;
    this.imports = imports;
    // A slot of a batch under way stays taken: its function will still be put there.
    host.blocks.onRegionDropped = ({ slot, installed }) => {
      if (!installed) return;
      host.table.set(slot, null);
      this.freeSlots.push(slot);
    };
  }

  /** A block has run often. @param low linear address at which it runs now */
  hot(block: Block, low: number, high: number): void {
    if (block.region) {
      // It waits in the open batch, and still runs in the interpreter: close the batch.
      if (this.pending.some((entry) => entry.block === block)) this.flush();
      return;
    }
    const source = new Source(this.host, block, low, high);
    const nodes = buildRegion(source);
    if (!nodes) return;
    const slot = this.freeSlots.pop() ?? this.nextSlot++;
    while (slot >= this.host.table.length) this.host.table.grow(4096);
    const region: Region = { entry: block, slot, ranges: source.ranges(nodes), alive: true };
    const { blocks, dispatchCell } = this.host;
    for (const node of nodes) this.prepareNode(node, source);
    const fallbackCell = blocks.newCell(FN_INTERPRETER, block.ip);
    const guardList = this.writeGuards(source.guards());
    const inline = this.host.favoursSpeed(block.flags);
    this.batch.add({ pc: [low, high], nodes, slot, dispatchCell, fallbackCell, guardList, inline });
    block.region = region;
    for (const page of blocks.addRegion(region)) this.host.tlb.protect(page * PAGE);
    this.pending.push({ region, block });
    if (this.pending.length >= BATCH) this.flush();
  }

  /** Fixes what the compiler cannot know: entry cells of targets outside, numbers of instructions that may fault. */
  private prepareNode(node: RegionNode, source: Source): void {
    const { block } = node;
    node.cells = block.targets.map((target, slot) => (node.successors[slot] ? 0 : source.targetCell(target)));
    node.faultBase = this.faultCount;
    let left = block.insns;
    for (let at = 0; at < block.count * STRIDE; at += STRIDE) {
      if (block.words[at] !== Op.insn) continue;
      const ctx = block.words[at + 2]!;
      this.addFault(block.words[at + 1]!, ctx === CTX_UNKNOWN ? node.ctx : ctx, left--);
    }
  }

  /** @returns address of the list (layout.ts, GUARDS_*), 0 when there is nothing to guard */
  private writeGuards(guards: readonly PageGuard[]): number {
    if (guards.length === 0) return 0;
    const { blocks } = this.host;
    const list = blocks.newCell(0, guards.length);
    for (const { offset, host } of guards) {
      blocks.newCell(offset, offset >> 31);
      blocks.newCell(host | 0, Math.floor(host / 0x100000000));
    }
    return list;
  }

  sliceEnded(): void {
    if (this.pending.length === 0) return;
    this.waited++;
    if (this.waited >= PATIENCE || (this.compiler.background && this.underWay === 0)) this.flush();
  }

  /** Has the open batch compiled; its regions go into service when it is done. */
  private flush(): void {
    this.waited = 0;
    const { pending, generation } = this;
    this.pending = [];
    this.underWay++;
    this.compiler.compile(this.batch.take(), (module) => {
      this.underWay--;
      if (generation === this.generation) this.install(module, pending);
    });
  }

  private install(module: WebAssembly.Module, pending: Pending[]): void {
    new WebAssembly.Instance(module, { v: this.imports });
    for (const { region, block } of pending) {
      if (!region.alive || block.ip === 0) continue;
      region.installed = true;
      this.host.blocks.setCell(block.cell, region.slot, 0);
      this.host.statistics.regions++;
    }
  }

  private addFault(offset: number, ctx: number, left: number): void {
    const at = this.faultCount * 3;
    if (at === this.faults.length) {
      const larger = new Int32Array(this.faults.length * 2);
      larger.set(this.faults);
      this.faults = larger;
    }
    this.faults[at] = offset;
    this.faults[at + 1] = ctx;
    this.faults[at + 2] = left;
    this.faultCount++;
  }

  /** [pc offset, context, instructions of its block from it on] of a fault number. */
  faultPlace(id: number): readonly [number, number, number] {
    const at = (-1 - id) * 3;
    return [this.faults[at]!, this.faults[at + 1]!, this.faults[at + 2]!];
  }

  /** All translated code has been dropped. */
  clear(): void {
    for (let slot = FN_FIRST_FREE; slot < this.nextSlot; slot++) this.host.table.set(slot, null);
    this.nextSlot = FN_FIRST_FREE;
    this.freeSlots = [];
    this.generation++;
    this.batch.take();
    this.pending = [];
    this.faultCount = 0;
  }
}

/** Where a region's code comes from: its pages as they are mapped now. */
class Source implements RegionSource {
  private readonly host: RegionHost;
  private readonly block: Block;
  private readonly low: number;
  private readonly high: number;
  /** Page number in the wasm memory by virtual page relative to the entry's, -1 = not to be had. */
  private readonly pages = new Map<number, number>();
  private readonly warm: number;
  private readonly lengths = new Map<number, number>();

  constructor(host: RegionHost, block: Block, low: number, high: number) {
    this.host = host;
    this.block = block;
    this.low = low;
    this.high = high;
    this.warm = host.favoursSpeed(block.flags) ? WARM_PROGRAM : WARM;
    this.pages.set(0, block.page);
    if (block.secondPage >= 0) this.pages.set(1, block.secondPage);
  }

  /** [relative page, offset in it] of a byte offset from the entry. */
  private place(offset: number): [number, number] {
    const at = this.block.offset + offset;
    const page = Math.floor(at / PAGE);
    return [page, at - page * PAGE];
  }

  /** Linear address of a byte offset from the entry. */
  private linear(offset: number): [number, number] {
    const sum = (this.low >>> 0) + offset;
    const carry = Math.floor(sum / 0x100000000);
    return [sum | 0, (this.high + carry) | 0];
  }

  private hostPage(page: number): number {
    let known = this.pages.get(page);
    if (known === undefined) {
      if (this.pages.size >= MAX_PAGES) return -1;
      const [low, high] = this.linear(page * PAGE - this.block.offset);
      const host = this.host.codeHost(low, high);
      known = host < 0 ? -1 : Math.floor(host / PAGE);
      if (known >= 0) this.pages.set(page, known);
    }
    return known;
  }

  worthwhile(offset: number): boolean {
    const [page, at] = this.place(offset);
    const host = this.hostPage(page);
    if (host < 0) return false;
    const block = this.host.blocks.find(host, at, this.block.flags);
    if (!block) return false;
    if (block.variants) return block.variants.some((variant) => variant.ip !== 0 && this.host.executions(variant) >= this.warm);
    return block.ip !== 0 && this.host.executions(block) >= this.warm;
  }

  private isTranslated(offset: number): boolean {
    const [page, at] = this.place(offset);
    const host = this.hostPage(page);
    const block = host < 0 ? undefined : this.host.blocks.find(host, at, this.block.flags);
    return block !== undefined && block.ip !== 0;
  }

  translate(offset: number, ctx: number): RegionBlock | null {
    const [page, at] = this.place(offset);
    const host = this.hostPage(page);
    if (host < 0) return null;
    const [low, high] = this.linear(offset);
    const b = this.host.translateFor(host * PAGE + at, low, high, offset, ctx);
    if (!b) return null;
    if (this.host.readerSecondPage >= 0 && this.hostPage(page + 1) !== this.host.readerSecondPage) return null;
    this.lengths.set(offset, this.host.readerOffset - offset);
    const words = b.words.slice(0, b.count * STRIDE);
    const computed = words[(b.count - 1) * STRIDE] === Op.jump;
    const targets = computed ? this.seenTargets(offset, host, at) : constantTargets(words, b.count);
    return { words, count: b.count, insns: b.insns, usesContext: b.usesContext, targets, computed };
  }

  /** Where the computed jump that ends the block has gone, as far as the region may follow it. */
  private seenTargets(offset: number, page: number, at: number): number[] {
    const block = this.host.blocks.find(page, at, this.block.flags);
    if (!block || block.ip === 0) return [];
    const seen = this.host.jumpTargets(block).map((target) => offset + target);
    const dispatch = seen.length >= DISPATCH_TARGETS;
    return seen.filter((target) => this.worthwhile(target) || (dispatch && this.isTranslated(target))).slice(0, MAX_JUMP_TARGETS);
  }

  /** Pages other than the entry's, to be checked at each entry. */
  guards(): PageGuard[] {
    const guards: PageGuard[] = [];
    for (const [page, host] of this.pages) {
      if (page !== 0) guards.push({ offset: page * PAGE - this.block.offset, host: host * PAGE });
    }
    return guards;
  }

  /** Bytes that the nodes cover, by page, as Region.ranges wants them. */
  ranges(nodes: readonly { offset: number }[]): number[] {
    const ranges = new Map<number, [number, number]>();
    const add = (page: number, start: number, end: number): void => {
      const range = ranges.get(page);
      if (range) {
        range[0] = Math.min(range[0], start);
        range[1] = Math.max(range[1], end);
      } else ranges.set(page, [start, end]);
    };
    for (const { offset } of nodes) {
      const [page, at] = this.place(offset);
      const end = at + this.lengths.get(offset)!;
      add(this.pages.get(page)!, at, Math.min(end, PAGE));
      if (end > PAGE) add(this.pages.get(page + 1)!, 0, end - PAGE);
    }
    return [...ranges].flatMap(([page, [start, end]]) => [page, start, end]);
  }

  /** Entry cell for a target outside: only the entry's own page keeps its place. */
  targetCell(offset: number): number {
    const [page, at] = this.place(offset);
    if (page !== 0) return 0;
    return this.host.blocks.get(this.block.page, at, this.block.flags).cell;
  }
}


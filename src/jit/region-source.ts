/**
 * Where the code of a region comes from: guest memory and what the machine's memory says of it, read
 * while the vCPU may be running and changing both. What is read wrongly for that reason is found
 * out later: by guards, or by the block table, which knows of each change of code.
 */
import type { Builder } from '../ir/builder.ts';
import { STRIDE } from '../ir/builder.ts';
import { Op } from '../ir/ops.ts';
import { ACCESS_EXEC } from '../isa/isa.ts';
import type { Isa } from '../isa/isa.ts';
import { MAX_BLOCK_INSNS } from './blocks.ts';
import { CodeIndex, INDEX_CROSSING } from './dispatch.ts';
import { JUMP_TARGETS, NO_TARGET, UNIT } from './opcodes.ts';
import { CELL_ARGUMENT, CELL_FUNCTION, CODE, CODE_END, EPOCH, FN_INTERPRETER, FN_NATIVE, USER_TLB } from './layout.ts';
import { FETCH_FAULT, PageReader } from './page-reader.ts';
import type { RegionRequest } from './request.ts';
import { probeTlb } from './tlb.ts';
import { constantTargets, takeBlock } from './region.ts';
import type { RegionBlock, RegionLimits, RegionSource } from './region.ts';

const PAGE = 4096;
/** Executions after which a block is compiled: a kernel's code is everywhere, and its compiler takes the guest's time. */
export const HOT = 10_000;
/** Entries of a program's region after which it is made anew, in so many times what makes code hot. */
export const ENTRIES_PER_HOT = 3;
/** Executions at which a block becomes hot where speed is favoured, at the least. */
const MIN_HOT = 4;
const MAX_PAGES = 4;
/** Room for the guards of a region: every page but its first. */
export const MAX_GUARDS = MAX_PAGES - 1;
/** Targets of one computed jump that a region compares the pc with. */
const MAX_JUMP_TARGETS = 12;
/** A computed jump with so many targets is a switch: its targets run equally often or not at all. */
const DISPATCH_TARGETS = 4;

/** Of a region that takes the place of another. */
const WIDE: RegionLimits = { nodes: 24, insns: 600 };

/** Executions at which a block becomes hot: far fewer where speed is favoured. @param hot see MakerSettings */
export function hotIn(isa: Isa, hot: number, flags: number): number {
  return isa.favoursSpeed?.(flags) ? Math.max(hot >> 3, Math.min(hot, MIN_HOT)) : hot;
}

/** Executions for which a block counts as asked for, until a thread beside has looked at it, which takes it about a millisecond. */
const ASKED = 3_000;

/** Executions at which a block that has become hot does so again. @param beside it is compiled by a thread beside */
export function hotAgain(hot: number, beside: boolean): number {
  return hot + (beside ? Math.max(hot, ASKED) : hot);
}

/** Executions after which a block is made into code of the host's processor, which takes as long as to interpret it some ten times. */
export const NATIVE_AFTER = 10;

/** Countdown of a block that nobody counts down: as code of the host's processor it is as fast as a region. */
export const UNCOUNTED = 0x7fffffff;
/** More than half of it is left of that; less, but more than twice what `hotAgain` says, of one that is faster than any region. */
const PLAIN = 0x60000000;
const APART = 1 << 22;

/**
 * Executions at which a target belongs into a region: a good part of those that make a block hot, since what is
 * seldom reached costs as much to compile as the rest.
 */
function warmIn(hot: number): number {
  return hot >> 2;
}

/** A page beyond the entry's own that a region has code in. */
export interface OtherPage {
  /** Its number, counted from the entry's. */
  readonly page: number;
  /** Byte offset of the page's first byte from the region's base pc. */
  readonly offset: number;
  /** Address of the page in the wasm memory. */
  readonly host: number;
}

/** The machine's memory as a compiler reads it. */
export class CodeMemory {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  private readonly index: CodeIndex;
  private readonly native: boolean;
  /** Executions at which a block of a mode becomes hot. */
  readonly hotUnder: (flags: number) => number;
  /** Interpreter code of blocks for which regions have been made. */
  private readonly requested = new Set<number>();
  /** That of blocks within regions that begin elsewhere. */
  private readonly elsewhere = new Set<number>();

  /** @param native blocks become code of the host's processor before they are hot */
  constructor(buffer: ArrayBufferLike, hot: (flags: number) => number, native: boolean) {
    this.native = native;
    this.words = new Int32Array(buffer);
    this.bytes = new Uint8Array(buffer);
    this.index = new CodeIndex(buffer);
    this.hotUnder = hot;
  }

  /** Entry cell of the code at an address in the memory, 0 when there is none that depends on its place alone. */
  cell(host: number, key: number): number {
    return this.index.find(host, key);
  }

  /** Address of the interpreter code for it; 0 when there is none, or a region runs instead (but for `wide` ones). */
  interpreterCode(host: number, key: number, wide: boolean): number {
    if (this.cell(host, key) === 0) key |= INDEX_CROSSING;
    const cell = this.cell(host, key);
    if (cell === 0) return 0;
    const runs = this.words[(cell + CELL_FUNCTION) >> 2]!;
    if (!wide && runs !== FN_INTERPRETER && runs !== FN_NATIVE) return 0;
    const ip = runs === FN_NATIVE ? this.index.findCode(host, key) : this.words[(cell + CELL_ARGUMENT) >> 2]!;
    return ip >= CODE && ip < CODE_END ? ip : 0;
  }

  /**
   * Executions of a block so far, as far as its countdown tells. That begins anew, from twice as many or more,
   * when a region has been asked for: such a block gets its own. It still belongs into regions that were
   * asked for before; by when these are made, all blocks of a loop may be hot. And it belongs into wide ones.
   */
  executions(ip: number, flags: number, wide: boolean): number {
    const left = this.words[(ip + 4) >> 2]!;
    const hot = this.hotUnder(flags);
    // It has not been tried as code of the host's processor yet.
    if (this.native && left <= NATIVE_AFTER) return 0;
    if (left <= hot) return hot - left;
    if (left > APART) return left > PLAIN ? hot : 0;
    return this.requested.has(ip) && !wide ? 0 : hot;
  }

  /**
   * A region is wanted for the block with this interpreter code.
   * @returns whether it is worth making: not when another has the block already, which may only not have been entered
   * yet; if the block becomes hot again, it is
   */
  begin(ip: number, wide: boolean): boolean {
    this.requested.add(ip);
    return wide || !this.elsewhere.delete(ip);
  }

  /** The block is part of a region that begins elsewhere and has been made. */
  covered(ip: number): void {
    this.elsewhere.add(ip);
  }

  /** All code has been dropped. */
  clear(): void {
    this.requested.clear();
    this.elsewhere.clear();
  }

  /** Targets that the block's computed jump has been seen to take, as offsets from its pc. */
  jumpTargets(ip: number): number[] {
    const table = this.words[(ip + 8) >> 2]!;
    if (table <= ip || table > CODE_END) return [];
    // What lies before the table tells where the units end.
    const end = this.words[(table - UNIT) >> 2]! >> 2;
    if (end * 4 <= ip || end * 4 > CODE_END) return [];
    return [...this.words.subarray(end - JUMP_TARGETS, end)].filter((target) => target !== NO_TARGET);
  }
}

/** The source of one region. */
export class CodeSource implements RegionSource {
  private readonly memory: CodeMemory;
  private readonly isa: Isa;
  private readonly builder: Builder;
  private readonly request: RegionRequest;
  private readonly reader: PageReader;
  /** Page number in the wasm memory by virtual page relative to the entry's. */
  private readonly pages = new Map<number, number>();
  private readonly warm: number;
  /** Flags to translate under. */
  private readonly flags: number;
  private readonly wide: boolean;
  readonly limits: RegionLimits | undefined;
  private readonly lengths = new Map<number, number>();

  constructor(memory: CodeMemory, isa: Isa, builder: Builder, request: RegionRequest) {
    this.memory = memory;
    this.isa = isa;
    this.builder = builder;
    this.request = request;
    this.reader = new PageReader(memory.bytes, (low, high) => this.codeHost(low, high));
    this.warm = warmIn(memory.hotUnder(request.flags));
    this.flags = isa.hotFlags?.(request.flags) ?? request.flags;
    this.wide = request.wide !== 0;
    this.limits = this.wide ? WIDE : undefined;
    this.pages.set(0, request.page);
    if (request.secondPage >= 0) this.pages.set(1, request.secondPage);
  }

  private codeHost(low: number, high: number): number {
    const { tlb, epoch } = this.request;
    const host = probeTlb(this.memory.words, tlb, low, high, ACCESS_EXEC);
    // A program's address space may be another's by now; then its own page must do.
    if (tlb >= USER_TLB && this.memory.words[(tlb + EPOCH) >> 2] !== epoch) return -1;
    return host;
  }

  /** [relative page, offset in it] of a byte offset from the entry. */
  private place(offset: number): [number, number] {
    const at = this.request.offset + offset;
    const page = Math.floor(at / PAGE);
    return [page, at - page * PAGE];
  }

  /** Linear address of a byte offset from the entry. */
  private linear(offset: number): [number, number] {
    const sum = (this.request.low >>> 0) + offset;
    const carry = Math.floor(sum / 0x100000000);
    return [sum | 0, (this.request.high + carry) | 0];
  }

  private hostPage(page: number): number {
    const known = this.pages.get(page);
    if (known !== undefined) return known;
    if (this.pages.size >= MAX_PAGES) return -1;
    const [low, high] = this.linear(page * PAGE - this.request.offset);
    const host = this.codeHost(low, high);
    if (host < 0 || host >= this.memory.bytes.length) return -1;
    return Math.floor(host / PAGE);
  }

  /** Interpreter code of the block at an offset from the entry, 0 = none. */
  codeAt(offset: number): number {
    const [page, at] = this.place(offset);
    const host = this.hostPage(page);
    return host < 0 ? 0 : this.memory.interpreterCode(host * PAGE + at, this.request.key, this.wide);
  }

  worthwhile(offset: number): boolean {
    const ip = this.codeAt(offset);
    return ip !== 0 && this.memory.executions(ip, this.request.flags, this.wide) >= this.warm;
  }

  translate(offset: number, ctx: number): RegionBlock | null {
    const { builder: b, reader } = this;
    const [page, at] = this.place(offset);
    const host = this.hostPage(page);
    if (host < 0) return null;
    const [low, high] = this.linear(offset);
    b.reset(ctx);
    reader.begin(host * PAGE + at, low, high, offset);
    try {
      this.isa.translate(b, reader, this.flags, MAX_BLOCK_INSNS);
    } catch (error) {
      if (error === FETCH_FAULT) return null;
      throw error;
    }
    this.pages.set(page, host);
    if (reader.secondPage >= 0) {
      if (this.hostPage(page + 1) !== reader.secondPage) return null;
      this.pages.set(page + 1, reader.secondPage);
    }
    this.lengths.set(offset, reader.offset - offset);
    const { words } = b;
    const exit = (b.count - 1) * STRIDE;
    const computed = words[exit] === Op.jump;
    const elsewhere = computed && words[exit + 3] === 1;
    const targets = elsewhere ? [] : computed ? this.seenTargets(offset) : constantTargets(words, b.count);
    return takeBlock(b, computed, targets);
  }

  /** Where the computed jump that ends the block has gone, as far as the region may follow it. */
  private seenTargets(offset: number): number[] {
    const ip = offset === 0 ? this.entryCode : this.codeAt(offset);
    if (ip === 0) return [];
    const seen = this.memory.jumpTargets(ip).map((target) => offset + target);
    const dispatch = seen.length >= DISPATCH_TARGETS;
    return seen.filter((target) => this.worthwhile(target) || (dispatch && this.codeAt(target) !== 0)).slice(0, MAX_JUMP_TARGETS);
  }

  /** Interpreter code of the entry block. */
  get entryCode(): number {
    return this.memory.words[(this.request.fallbackCell + CELL_ARGUMENT) >> 2]!;
  }

  /** Pages other than the entry's: before code on them is run, they must be found mapped as they were. */
  otherPages(): OtherPage[] {
    const others: OtherPage[] = [];
    for (const [page, host] of this.pages) {
      if (page !== 0) others.push({ page, offset: page * PAGE - this.request.offset, host: host * PAGE });
    }
    return others;
  }

  /** Pages that the block at an offset from the entry lies on. */
  pagesOf(offset: number): number[] {
    const [page, at] = this.place(offset);
    return at + this.lengths.get(offset)! > PAGE ? [page, page + 1] : [page];
  }

  /** Bytes that the nodes cover, page by page, as Region.ranges wants them. */
  ranges(nodes: readonly { offset: number }[]): number[] {
    const ranges: [page: number, start: number, end: number][] = [];
    for (const { offset } of nodes) {
      const [page, at] = this.place(offset);
      const end = at + this.lengths.get(offset)!;
      ranges.push([this.pages.get(page)!, at, Math.min(end, PAGE)]);
      if (end > PAGE) ranges.push([this.pages.get(page + 1)!, 0, end - PAGE]);
    }
    ranges.sort(([page, start], [otherPage, otherStart]) => page - otherPage || start - otherStart);
    const merged: [page: number, start: number, end: number][] = [];
    for (const [page, start, end] of ranges) {
      const last = merged.at(-1);
      // Data between pieces of code is none of it.
      if (last !== undefined && last[0] === page && start <= last[2]) last[2] = Math.max(last[2], end);
      else merged.push([page, start, end]);
    }
    return merged.flat();
  }

  /** Entry cell for a target outside, 0 = none: only the entry's own page keeps its place. */
  targetCell(offset: number): number {
    const [page, at] = this.place(offset);
    return page === 0 ? this.memory.cell(this.request.page * PAGE + at, this.request.key) : 0;
  }
}

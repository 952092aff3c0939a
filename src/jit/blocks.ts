/**
 * All translated code by the guest page it came from: entry cells, and what must go
 * when a page is written to.
 *
 * A block is found by the wasm-memory page its first byte lies in, the offset there,
 * and the block flags. Its entry cell stays the same for ever, so that chains and
 * jump caches never need to be searched when its code comes, improves or goes.
 */
import {
  CELLS,
  CELLS_END,
  CELL_ARGUMENT,
  CELL_FUNCTION,
  CELL_SIZE,
  FN_DISPATCH,
  FN_INTERPRETER,
  FN_LOOKUP,
  FN_NATIVE,
} from './layout.ts';

/** Instructions that an ISA is asked for in one block. */
export const MAX_BLOCK_INSNS = 64;
/** Page flags shared with the address space. */
export const PAGE_HAS_CODE = 1;

export interface Region {
  readonly entry: Block;
  readonly slot: number;
  /** Bytes that the region was made from, by page: [page, first, last + 1] triples. */
  readonly ranges: number[];
  /** Address of the count of its entries, 0 = none is kept. */
  readonly entries: number;
  alive: boolean;
}

export class Block {
  readonly id: number;
  readonly page: number;
  readonly offset: number;
  readonly flags: number;
  readonly cell: number;
  /** Address of its interpreter code, 0 = not translated. */
  ip = 0;
  /** Address of its code for the host's processor, 0 = there is none. */
  native = 0;
  /** It has been seen whether it can have that. */
  tried = false;
  /** Bytes of guest code. */
  length = 0;
  /** The code that it had last, and the bytes of guest code that this was made from, if they were kept. */
  lastIp = 0;
  lastNative = 0;
  source: Uint8Array | null = null;
  insns = 0;
  region: Region | null = null;
  /** A region for it has been asked for and has not come yet. */
  asked = false;
  /** Page that its last instruction runs into, or -1. */
  secondPage = -1;
  /** One block for each second page seen, when the first instruction crosses the page's end. */
  variants: Block[] | null = null;

  constructor(id: number, page: number, offset: number, flags: number, cell: number) {
    this.id = id;
    this.page = page;
    this.offset = offset;
    this.flags = flags;
    this.cell = cell;
  }
}

/** Code of one guest page. */
class CodePage {
  /** Blocks that begin here, by offset | flag set number << 12. */
  readonly blocks = new Map<number, Block>();
  /** Blocks of the page before that run into this one. */
  readonly guests: Block[] = [];
  readonly regions: Region[] = [];
  /** Translated blocks and regions that have bytes here. */
  live = 0;
  /** Bytes that code was made from since the page got its first, a bit for each. */
  readonly covered = new Uint32Array(PAGE / 32);
  /** Writes since the page got its first code, and after how many that is dropped rather than watched on. */
  writes = 0;
  patience = PATIENCE;
  /** BlockTable.changes at the last write to bytes of code. */
  changed = 0;
  /** It has been written to while it had code: code and data share it, perhaps. */
  shared = false;

  cover(start: number, end: number): void {
    for (let at = start; at < Math.min(end, PAGE); at++) this.covered[at >> 5] = this.covered[at >> 5]! | (1 << (at & 31));
  }

  uncover(start: number, end: number): void {
    for (let at = start; at < end; at++) this.covered[at >> 5] = this.covered[at >> 5]! & ~(1 << (at & 31));
  }

  covers(start: number, end: number): boolean {
    for (let at = start; at < end; at++) if ((this.covered[at >> 5]! >>> (at & 31)) & 1) return true;
    return false;
  }
}

const PAGE = 4096;
/** Twice as many writes when the code comes back: then code and data do share the page. */
const PATIENCE = 64;
const MAX_PATIENCE = 1 << 20;

export class BlockTable {
  /** Told of each cell that leads to code of the host's processor now, by its address, or no more (0). */
  onNative: ((cell: number, address: number) => void) | undefined;
  /** Told of each region that is taken out of service. */
  onRegionDropped: ((region: Region) => void) | undefined;
  /** Told of each block whose cell must not be found by its pc or place any more. */
  onCrossing: ((block: Block) => void) | undefined;
  /** Writes to pages with code so far. */
  changes = 0;
  readonly all: Block[] = [];
  /** By number: of the pages that there are, few have code. */
  private readonly pages = new Map<number, CodePage>();
  /** The one that was asked for last, and its number. */
  private lastPage = -1;
  private lastCodePage: CodePage | undefined;
  private readonly flagSets = new Map<number, number>();
  private lastFlags = -1;
  private lastFlagSet = 0;
  private nextCell = CELLS;
  private readonly words: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly pageFlags: Uint8Array;

  constructor(buffer: ArrayBufferLike, pageFlags: Uint8Array) {
    this.words = new Int32Array(buffer);
    this.bytes = new Uint8Array(buffer);
    this.pageFlags = pageFlags;
  }

  get cellsLeft(): number {
    return (CELLS_END - this.nextCell) / CELL_SIZE;
  }

  setCell(cell: number, fn: number, argument: number): void {
    const at = (cell + CELL_FUNCTION) >> 2;
    const wasNative = this.words[at] === FN_NATIVE;
    this.words[at] = fn;
    this.words[(cell + CELL_ARGUMENT) >> 2] = argument;
    if (wasNative) this.onNative?.(cell, 0);
    if (fn === FN_NATIVE) this.onNative?.(cell, argument);
  }

  /** Number in a cell that is none but counts. */
  countIn(cell: number): number {
    return this.words[(cell + CELL_FUNCTION) >> 2]!;
  }

  /** Is there code for a cell's block, or a region? */
  leadsToCode(cell: number): boolean {
    const fn = this.words[(cell + CELL_FUNCTION) >> 2]!;
    return fn !== FN_LOOKUP && fn !== FN_DISPATCH;
  }

  newCell(fn: number, argument: number): number {
    const cell = this.newCells(1);
    this.setCell(cell, fn, argument);
    return cell;
  }

  /** @returns address of the first of so many, one behind the other, which hold anything */
  newCells(count: number): number {
    const first = this.nextCell;
    this.nextCell += count * CELL_SIZE;
    return first;
  }

  /** Number of a mode among those seen so far. */
  flagSet(flags: number): number {
    if (flags !== this.lastFlags) {
      let set = this.flagSets.get(flags);
      if (set === undefined) this.flagSets.set(flags, (set = this.flagSets.size));
      this.lastFlags = flags;
      this.lastFlagSet = set;
    }
    return this.lastFlagSet;
  }

  private key(offset: number, flags: number): number {
    return offset | (this.flagSet(flags) << 12);
  }

  private knownPage(page: number): CodePage | undefined {
    if (page !== this.lastPage) {
      this.lastCodePage = this.pages.get(page);
      this.lastPage = page;
    }
    return this.lastCodePage;
  }

  private codePage(page: number): CodePage {
    const known = this.knownPage(page);
    if (known) return known;
    const made = new CodePage();
    this.pages.set(page, made);
    this.lastCodePage = made;
    return made;
  }

  private newBlock(page: number, offset: number, flags: number): Block {
    const block = new Block(this.all.length, page, offset, flags, this.newCell(FN_LOOKUP, 0));
    this.all.push(block);
    return block;
  }

  /** The block of that place and mode; made, without code, when it is new. */
  get(page: number, offset: number, flags: number): Block {
    const codePage = this.codePage(page);
    const key = this.key(offset, flags);
    let block = codePage.blocks.get(key);
    if (!block) {
      block = this.newBlock(page, offset, flags);
      codePage.blocks.set(key, block);
    }
    return block;
  }

  find(page: number, offset: number, flags: number): Block | undefined {
    return this.knownPage(page)?.blocks.get(this.key(offset, flags));
  }

  /** The variant of a page-crossing block for the second page mapped now. */
  variant(block: Block, secondPage: number): Block {
    block.variants ??= [];
    // Chains cannot know the second page: they go through the jump cache. Were the cell itself found
    // there, from when the block ended before the page did, that would go round for ever.
    this.setCell(block.cell, FN_DISPATCH, 0);
    if (block.length > 0) this.onCrossing?.(block);
    block.length = 0;
    let variant = block.variants.find((candidate) => candidate.secondPage === secondPage);
    if (!variant) {
      variant = this.newBlock(block.page, block.offset, block.flags);
      variant.secondPage = secondPage;
      block.variants.push(variant);
    }
    return variant;
  }

  /** Enters a block's new code. @returns pages that had no code before */
  installed(block: Block): number[] {
    this.showCode(block);
    const fresh: number[] = [];
    const { page, offset, length, secondPage } = block;
    this.addLive(page, fresh);
    const codePage = this.codePage(page);
    codePage.cover(offset, offset + length);
    if (secondPage >= 0) {
      this.addLive(secondPage, fresh);
      const second = this.codePage(secondPage);
      second.cover(0, offset + length - PAGE);
      if (!second.guests.includes(block)) second.guests.push(block);
    } else if (codePage.shared) {
      block.lastIp = block.ip;
      block.source = this.bytes.slice(page * PAGE + offset, page * PAGE + offset + length);
    }
    return fresh;
  }

  /**
   * Gives a block the code back that it had, if the guest's is still what that was made from.
   * Then it must be installed like a new one. @returns whether it could be
   */
  revive(block: Block): boolean {
    const { source } = block;
    if (source === null || block.ip !== 0 || block.variants !== null) return false;
    const at = block.page * PAGE + block.offset;
    for (let i = 0; i < source.length; i++) if (this.bytes[at + i] !== source[i]) return false;
    block.ip = block.lastIp;
    block.native = block.lastNative;
    block.tried = block.native !== 0;
    return true;
  }

  private addLive(page: number, fresh: number[]): void {
    const codePage = this.codePage(page);
    if (codePage.live++ === 0) {
      this.pageFlags[page] = this.pageFlags[page]! | PAGE_HAS_CODE;
      codePage.writes = 0;
      codePage.covered.fill(0);
      fresh.push(page);
    }
  }

  private removeLive(page: number): void {
    const codePage = this.codePage(page);
    if (--codePage.live === 0) this.pageFlags[page] = this.pageFlags[page]! & ~PAGE_HAS_CODE;
  }

  /** @returns pages that had no code before */
  addRegion(region: Region): number[] {
    const { ranges } = region;
    const fresh: number[] = [];
    for (let i = 0; i < ranges.length; i += 3) {
      const codePage = this.codePage(ranges[i]!);
      if (codePage.regions.at(-1) !== region) {
        codePage.regions.push(region);
        this.addLive(ranges[i]!, fresh);
      }
      codePage.cover(ranges[i + 1]!, ranges[i + 2]!);
    }
    return fresh;
  }

  private dropBlock(block: Block): void {
    if (block.ip === 0) return;
    if (block.region) this.dropRegion(block.region);
    block.ip = 0;
    block.lastNative = block.native;
    block.native = 0;
    block.tried = false;
    this.setCell(block.cell, FN_LOOKUP, 0);
    this.removeLive(block.page);
    if (block.secondPage >= 0) this.removeLive(block.secondPage);
  }

  /** Leads a block's cell to its own code, if it has any. */
  showCode(block: Block): void {
    if (block.native !== 0) this.setCell(block.cell, FN_NATIVE, block.native);
    else if (block.ip !== 0) this.setCell(block.cell, FN_INTERPRETER, block.ip);
  }

  /** Takes a region out of service. */
  dropRegion(region: Region): void {
    if (!region.alive) return;
    region.alive = false;
    this.onRegionDropped?.(region);
    const { entry, ranges } = region;
    entry.region = null;
    this.showCode(entry);
    for (let i = 0; i < ranges.length; i += 3) {
      const codePage = this.codePage(ranges[i]!);
      const at = codePage.regions.indexOf(region);
      if (at < 0) continue;
      codePage.regions.splice(at, 1);
      this.removeLive(ranges[i]!);
    }
  }

  /**
   * Drops all code made from these bytes of the wasm memory.
   * @returns whether there may have been any; what else goes for peace's sake stays right, and may run on
   */
  invalidate(host: number, length: number): boolean {
    let dropped = false;
    const first = Math.floor(host / 4096);
    const last = Math.floor((host + length - 1) / 4096);
    for (let page = first; page <= last; page++) {
      if (!(this.pageFlags[page]! & PAGE_HAS_CODE)) continue;
      const start = page === first ? host - page * 4096 : 0;
      const end = page === last ? host + length - page * 4096 : 4096;
      if (this.invalidateIn(page, start, end)) dropped = true;
    }
    return dropped;
  }

  private invalidateIn(page: number, start: number, end: number): boolean {
    const codePage = this.knownPage(page);
    if (!codePage) return false;
    codePage.shared = true;
    const hit = codePage.covers(start, end);
    if (hit) codePage.changed = ++this.changes;
    if (++codePage.writes > codePage.patience) {
      codePage.patience = Math.min(MAX_PATIENCE, codePage.patience * 2);
      this.dropIn(codePage, page, 0, PAGE);
      return hit;
    }
    if (!hit) return false;
    if (this.dropIn(codePage, page, start, end)) return true;
    // What they were made into has gone before.
    codePage.uncover(start, end);
    return false;
  }

  private dropIn(codePage: CodePage, page: number, start: number, end: number): boolean {
    let dropped = false;
    const drop = (block: Block): void => {
      if (block.ip === 0 || block.offset >= end || block.offset + block.length <= start) return;
      this.dropBlock(block);
      dropped = true;
    };
    for (const region of [...codePage.regions]) {
      if (this.regionTouches(region, page, start, end)) {
        this.dropRegion(region);
        dropped = true;
      }
    }
    // Not by an iterator, which makes an object for each: pages with hundreds of blocks are dropped as wholes.
    codePage.blocks.forEach((block) => {
      drop(block);
      block.variants?.forEach(drop);
    });
    for (const block of codePage.guests) {
      if (block.ip !== 0 && block.offset + block.length - 4096 > start) {
        this.dropBlock(block);
        dropped = true;
      }
    }
    return dropped;
  }

  /** Has the page had no code, or been written to, since `changes` had that value? */
  changedSince(page: number, changes: number): boolean {
    const codePage = this.knownPage(page);
    return !codePage || codePage.live === 0 || codePage.changed > changes;
  }

  private regionTouches(region: Region, page: number, start: number, end: number): boolean {
    const { ranges } = region;
    for (let i = 0; i < ranges.length; i += 3) {
      if (ranges[i] === page && ranges[i + 1]! < end && ranges[i + 2]! > start) return true;
    }
    return false;
  }

  /** Forgets everything; no code may be running. */
  clear(): void {
    this.pages.forEach((codePage, page) => {
      if (codePage.live > 0) this.pageFlags[page] = this.pageFlags[page]! & ~PAGE_HAS_CODE;
    });
    this.pages.clear();
    this.lastPage = -1;
    this.lastCodePage = undefined;
    this.all.length = 0;
    this.nextCell = CELLS;
  }
}

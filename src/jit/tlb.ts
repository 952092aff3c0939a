/**
 * The software TLB and the jump caches of all contexts, as the host side fills and
 * empties them. Translated code only reads them (layout.ts draws the entries).
 *
 * Contexts 0 and 1 are the supervisor's and see all address spaces' global pages;
 * each user address space has a context of its own, recycled least recently used.
 */
import {
  EPOCH,
  CONTEXTS,
  CONTEXT_COUNT,
  CONTEXT_SIZE,
  JUMP_CACHE,
  JUMP_FOLD_HIGH,
  JUMP_FOLD_LOW,
  JUMP_COUNT,
  JUMP_LIST,
  JUMP_LIST_ROOM,
  JUMP_LOW_BITS,
  JUMP_PAGE_BITS,
  JUMP_SIZE,
  LARGE,
  LARGE_BITS,
  SUPERVISOR_CONTEXTS,
  TLB_ENTRIES,
  TLB_ENTRY_SHIFT,
  TLB_EXEC,
  TLB_READ,
  TLB_SIZE,
  TLB_WRITE,
  VCPU_BASE,
  VICTIM,
  VICTIM_ENTRIES,
} from './layout.ts';
import { LargePages, isPlain, largeHost } from './large-pages.ts';
import { hostBy, setAddend, setTag } from './tlb-entry.ts';
import type { Physical } from './large-pages.ts';
import { CTL_STACK_LIMIT } from '../ir/vcpu-block.ts';
import { ACCESS_EXEC, ACCESS_READ, ACCESS_WRITE } from '../isa/isa.ts';
import type { Translation } from '../isa/isa.ts';

/** Entry numbers filled since the last emptying; past the limit the whole table is cleared. */
const JOURNAL_SIZE = 1024;

class Journal {
  readonly entries = new Int32Array(JOURNAL_SIZE);
  count = 0;

  add(entry: number): void {
    if (this.count < JOURNAL_SIZE) this.entries[this.count] = entry;
    this.count++;
  }

  get overflown(): boolean {
    return this.count > JOURNAL_SIZE;
  }
}

class Context {
  readonly tlb: number;
  readonly jumps: number;
  /** TLB entries in use, to find them again when they must go. */
  readonly privateEntries = new Journal();
  readonly globalEntries = new Journal();
  /** By page bits: code there runs into the next page, so that its entries depend on that, too. */
  readonly crossing = new Uint8Array(1 << JUMP_PAGE_BITS);
  /**
   * Pages that have been entered for execution since the context was emptied, by the lower bits of their number. What is
   * known of code (jump cache, links, guards) is about such pages only.
   */
  readonly executed = new Uint32Array(EXECUTED_PAGES / 32);
  /** Larger pages that some entry is a piece of: the number of each, by the address bits within it. */
  readonly largePages = new Map<number, Set<number>>();
  readonly large: LargePages;
  /** A page that outlives address spaces is mapped here for the user. */
  sharesGlobal = false;
  /** A private page with code has been entered since the private entries were last dropped. */
  privateCode = false;
  asid = -1;
  /** Number of its mapping of code, see CTL_MAPPING. */
  mapping = 0;
  flags = -1;
  used = 0;
  /** It has been in force since it was last emptied. */
  touched = false;
  /** It has ever been. */
  isReady = false;

  constructor(index: number, words: Int32Array) {
    this.tlb = CONTEXTS + index * CONTEXT_SIZE;
    this.large = new LargePages(words, this.tlb + LARGE);
    this.jumps = this.tlb + JUMP_CACHE;
  }
}

/** Marks a page that several entries permit writing to. */
const MANY = -1;
/** Entries that may permit writing to one page at a time: enough for a page that all address spaces map. */
const MAX_WRITABLE_BY = 64;

const EXECUTED_PAGES = 1 << 16;

const TAG_OF_ACCESS = [TLB_READ, TLB_WRITE, TLB_EXEC];

/** Larger pages of one size that a context notes: with one more it is emptied. */
const MOST_LARGE = 1024;

/** Number of a larger page among those of its size. @param bits address bits within it, more than 12 */
function largePage(low: number, high: number, bits: number): number {
  return (high >>> 0) * (1 << (32 - bits)) + (low >>> bits);
}

/** Empties the entry at a word index. For a few words a loop is several times faster than `fill`. */
function clearTags(w: Int32Array, at: number): void {
  for (let i = 0; i < 6; i++) w[at + i] = -1;
}

/** Address in the memory of a byte that the TLB at an address maps for an access, or -1. */
export function probeTlb(w: Int32Array, tlb: number, low: number, high: number, access: number): number {
  const at = (tlb + (((low >>> 12) & (TLB_ENTRIES - 1)) << TLB_ENTRY_SHIFT)) >> 2;
  const tag = at + (TAG_OF_ACCESS[access]! >> 2);
  return w[tag] === (low & ~0xfff) && w[tag + 1] === high ? hostBy(w, at, low, high) : -1;
}

export class Tlb {
  private readonly words: Int32Array;
  /** Zeroing by doubles is several times faster than by bytes. */
  private readonly doubles: Float64Array;
  private readonly contexts: Context[] = [];
  /**
   * Those that have been in force: others hold nothing, not even empty entries. Each is a page of the host's memory that it takes
   * milliseconds to have, and firmware needs one of them.
   */
  private readonly ready: Context[] = [];
  private current: Context;
  /** The other supervisor context, when translated code may change to it. */
  private other: Context | null = null;
  private clock = 0;
  private nextVictim = 0;
  private mappings = 0;
  private asid = 0;

  /**
   * By page of the memory: word index of the entry that permits writing to it, 0 = none,
   * MANY = several have: `writableBy` lists them.
   */
  private readonly writable: Int32Array;
  /** Word indices of entries that permitted writing to a page when they were filled. */
  private readonly writableBy = new Map<number, number[]>();
  /** By 2 MiB of the memory: some context may permit writing to them as one page. */
  private readonly largeWritable: Uint8Array;

  constructor(buffer: ArrayBufferLike) {
    this.largeWritable = new Uint8Array(Math.ceil(buffer.byteLength / 2 ** LARGE_BITS));
    this.writable = new Int32Array(Math.ceil(buffer.byteLength / 4096));
    this.words = new Int32Array(buffer);
    this.doubles = new Float64Array(buffer);
    for (let i = 0; i < CONTEXT_COUNT; i++) this.contexts.push(new Context(i, this.words));
    this.current = this.contexts[0]!;
    this.current.touched = true;
    this.prepare(this.current);
  }

  get tlbAddress(): number {
    return this.current.tlb;
  }

  /** Two entries into code under one number find the same code pages at the same addresses. */
  get mapping(): number {
    return this.current.mapping;
  }

  /** See layout.ts, EPOCH. */
  get epoch(): number {
    return this.words[(this.current.tlb + EPOCH) >> 2]!;
  }

  get jumpAddress(): number {
    return this.current.jumps;
  }

  get otherTlbAddress(): number {
    return this.other?.tlb ?? 0;
  }

  get otherJumpAddress(): number {
    return this.other?.jumps ?? 0;
  }

  get otherMapping(): number {
    return this.other?.mapping ?? 0;
  }

  get otherFlags(): number {
    return this.other?.flags ?? -1;
  }

  /** The other context is in force now. @returns its flags */
  changeContext(): number {
    const { current, other } = this;
    this.current = other!;
    this.other = current;
    return this.current.flags;
  }

  /** Whatever was known of where code lies in a context is not to be relied on. */
  private renewMapping(context: Context): void {
    context.mapping = ++this.mappings;
  }

  private prepare(context: Context): void {
    this.ready.push(context);
    context.isReady = true;
    this.clearTlb(context);
    context.large.prepare();
    this.renewMapping(context);
  }

  private clearTlb(context: Context): void {
    this.words.fill(-1, context.tlb >> 2, (context.tlb + TLB_SIZE + VICTIM_ENTRIES * 32) >> 2);
    context.privateEntries.count = 0;
    context.globalEntries.count = 0;
  }

  /** Drops all entries of a context. */
  private clearAll(context: Context): void {
    if (!context.touched) return;
    this.renewMapping(context);
    context.touched = context === this.current || context === this.other;
    const { privateEntries, globalEntries } = context;
    this.words[(context.tlb + EPOCH) >> 2]!++;
    if (privateEntries.overflown || globalEntries.overflown) this.clearTlb(context);
    else {
      this.dropListed(context, privateEntries);
      this.dropListed(context, globalEntries);
      this.clearVictims(context);
    }
    context.privateCode = false;
    context.sharesGlobal = false;
    context.executed.fill(0);
    context.largePages.clear();
    context.large.clear();
    this.clearJumps(context);
  }

  private dropListed(context: Context, journal: Journal): void {
    for (let i = 0; i < journal.count; i++) this.dropEntry(context, journal.entries[i]!);
    journal.count = 0;
  }

  private clearVictims(context: Context): void {
    const victims = (context.tlb + VICTIM) >> 2;
    this.words.fill(-1, victims, victims + VICTIM_ENTRIES * 8);
  }

  private clearJumps(context: Context): void {
    const { jumps } = context;
    const { words, doubles } = this;
    const place = (jumps + JUMP_COUNT) >> 2;
    const count = words[place]!;
    words[place] = 0;
    if (count > JUMP_LIST_ROOM) return void doubles.fill(0, jumps >> 3, (jumps + JUMP_SIZE) >> 3);
    const list = (jumps + JUMP_LIST) >> 2;
    for (let i = 0; i < count; i++) {
      const entry = words[list + i]! >> 3;
      doubles[entry] = doubles[entry + 1] = 0;
    }
  }

  private dropEntry(context: Context, index: number): void {
    clearTags(this.words, (context.tlb + (index << TLB_ENTRY_SHIFT)) >> 2);
  }

  /** Drops what a switch of address spaces must not leave behind. */
  private clearPrivate(context: Context): void {
    const { privateEntries } = context;
    context.large.clearPrivate();
    if (privateEntries.count === 0) return;
    if (privateEntries.overflown || context.privateCode) this.renewMapping(context);
    if (privateEntries.overflown) this.clearTlb(context);
    else {
      this.dropListed(context, privateEntries);
      this.clearVictims(context);
    }
    // Code of private pages may have been entered by their virtual address.
    if (context.privateCode) this.clearJumps(context);
    context.privateCode = false;
  }

  /** The page that the stack was seen in may be another's now, or closed to writes. */
  private forgetStack(): void {
    const limit = (VCPU_BASE + CTL_STACK_LIMIT) >> 2;
    this.words[limit] = this.words[limit + 1] = 0;
  }

  flushAll(): void {
    this.forgetStack();
    for (const context of this.ready) this.clearAll(context);
  }

  /** @param asid of the address space to empty, all of them when negative */
  flushAddressSpace(asid: number): void {
    this.forgetStack();
    for (let i = 0; i < SUPERVISOR_CONTEXTS; i++) this.clearPrivate(this.contexts[i]!);
    for (let i = SUPERVISOR_CONTEXTS; i < CONTEXT_COUNT; i++) {
      const context = this.contexts[i]!;
      if (asid < 0 || context.asid === asid) this.clearAll(context);
    }
  }

  flushPage(low: number, high: number): void {
    this.forgetStack();
    for (const context of this.ready) {
      const user = context.asid >= 0;
      if (user && context.asid !== this.asid && !context.sharesGlobal) continue;
      this.dropPage(context, low, high);
    }
  }

  private dropPage(context: Context, low: number, high: number): void {
    for (const [bits, pages] of context.largePages) {
      // Nobody knows where all its pieces are.
      if (pages.has(largePage(low, high, bits))) return this.clearAll(context);
    }
    const w = this.words;
    const page = low & ~0xfff;
    const at = (context.tlb + (((low >>> 12) & (TLB_ENTRIES - 1)) << TLB_ENTRY_SHIFT)) >> 2;
    if (this.entryHolds(at, page, high)) clearTags(w, at);
    for (let i = 0; i < VICTIM_ENTRIES; i++) {
      const victim = ((context.tlb + VICTIM) >> 2) + i * 8;
      if (this.entryHolds(victim, page, high)) clearTags(w, victim);
    }
    const code = (low >>> 12) & (EXECUTED_PAGES - 1);
    if ((context.executed[code >> 5]! >>> (code & 31)) & 1) this.dropPlaces(context, low);
  }

  /** What is known of code on a page, or running into it, is not to be relied on. */
  private dropPlaces(context: Context, low: number): void {
    this.renewMapping(context);
    const group = (low >>> 12) & ((1 << JUMP_PAGE_BITS) - 1);
    this.dropJumpGroup(context, group);
    const before = (group - 1) & ((1 << JUMP_PAGE_BITS) - 1);
    if (context.crossing[before]) this.dropJumpGroup(context, before);
  }

  private dropJumpGroup(context: Context, group: number): void {
    const jumps = context.jumps + ((group << JUMP_LOW_BITS) << 4);
    this.doubles.fill(0, jumps >> 3, (jumps + (16 << JUMP_LOW_BITS)) >> 3);
    context.crossing[group] = 0;
  }

  private entryHolds(at: number, page: number, high: number): boolean {
    const w = this.words;
    for (let tag = 0; tag < 6; tag += 2) if (w[at + tag] === page && w[at + tag + 1] === high) return true;
    return false;
  }

  /** See EngineServices.selectContext. */
  select(context: number, asid: number, flags: number, otherFlags = -1): void {
    this.forgetStack();
    if (asid !== this.asid) {
      this.asid = asid;
      for (let i = 0; i < SUPERVISOR_CONTEXTS; i++) this.clearPrivate(this.contexts[i]!);
    }
    const next = context < SUPERVISOR_CONTEXTS ? this.contexts[context]! : this.userContext(asid);
    next.used = ++this.clock;
    this.useFor(next, flags);
    this.current = next;
    this.other = otherFlags === -1 ? null : this.contexts[1 - context]!;
    if (this.other !== null) this.useFor(this.other, otherFlags);
  }

  private useFor(context: Context, flags: number): void {
    context.touched = true;
    if (!context.isReady) this.prepare(context);
    if (context.flags === flags) return;
    // What is known of places by their pc alone was code under the flags before.
    this.renewMapping(context);
    this.clearJumps(context);
    context.flags = flags;
  }

  private userContext(asid: number): Context {
    let oldest = this.contexts[SUPERVISOR_CONTEXTS]!;
    for (let i = SUPERVISOR_CONTEXTS; i < CONTEXT_COUNT; i++) {
      const context = this.contexts[i]!;
      if (context.asid === asid) return context;
      if (context.used < oldest.used) oldest = context;
    }
    this.clearAll(oldest);
    oldest.asid = asid;
    return oldest;
  }

  /** Address in the wasm memory of a byte that the TLB maps for this access, or -1. */
  probe(low: number, high: number, access: number): number {
    return probeTlb(this.words, this.current.tlb, low, high, access);
  }

  /**
   * Enters a page. @param host address of the page in the wasm memory
   * @param permissions bits 1 << ACCESS_*
   * @param bits see Translation
   */
  fill(low: number, high: number, host: number, permissions: number, global: boolean, bits = 12): void {
    if (bits > 12) this.noteLarge(largePage(low, high, bits), bits);
    const w = this.words;
    const page = low & ~0xfff;
    const index = (low >>> 12) & (TLB_ENTRIES - 1);
    const at = (this.current.tlb + (index << TLB_ENTRY_SHIFT)) >> 2;
    this.pushOut(at);
    // The addend before the tags: other threads may be reading.
    clearTags(w, at);
    setAddend(w, at, page, high, host);
    setTag(w, at + (TLB_READ >> 2), page, high, permissions & (1 << ACCESS_READ));
    setTag(w, at + (TLB_WRITE >> 2), page, high, permissions & (1 << ACCESS_WRITE));
    setTag(w, at + (TLB_EXEC >> 2), page, high, permissions & (1 << ACCESS_EXEC));
    if (permissions & (1 << ACCESS_WRITE)) {
      this.noteWritable(Math.floor(host / 4096), at);
    }
    if (permissions & (1 << ACCESS_EXEC)) {
      const code = (low >>> 12) & (EXECUTED_PAGES - 1);
      this.current.executed[code >> 5]! |= 1 << (code & 31);
    }
    if (global && this.current.asid >= 0) this.current.sharesGlobal = true;
    if (!global || this.current.asid >= 0) {
      this.current.privateEntries.add(index);
      if (permissions & (1 << ACCESS_EXEC)) this.current.privateCode = true;
    } else this.current.globalEntries.add(index);
  }

  private noteLarge(page: number, bits: number): void {
    const { largePages } = this.current;
    let pages = largePages.get(bits);
    if (pages?.has(page)) return;
    if (pages?.size === MOST_LARGE) {
      this.clearAll(this.current);
      pages = undefined;
    }
    if (pages === undefined) largePages.set(bits, (pages = new Set()));
    pages.add(page);
  }

  private noteWritable(page: number, at: number): void {
    const place = this.writable[page]!;
    if (place === 0 || place === at) {
      this.writable[page] = at;
      return;
    }
    if (place !== MANY) {
      this.writable[page] = MANY;
      this.writableBy.set(page, [place, at]);
      return;
    }
    const places = this.writableBy.get(page)!;
    if (places.includes(at)) return;
    if (places.length === MAX_WRITABLE_BY) this.withdrawWrite(places.shift()!, page * 4096);
    places.push(at);
  }

  /** An entry that makes room for another page becomes a victim, in the place of the oldest. */
  private pushOut(at: number): void {
    const w = this.words;
    if (w[at] === -1 && w[at + 2] === -1 && w[at + 4] === -1) return;
    const place = ((this.current.tlb + VICTIM) >> 2) + this.nextVictim * 8;
    this.nextVictim = (this.nextVictim + 1) % VICTIM_ENTRIES;
    for (let i = 0; i < 8; i++) w[place + i] = w[at + i]!;
  }

  /** Enters the larger page that `fill` has just entered a piece of, where the context has such and not this one for the access. */
  fillLarge(low: number, high: number, access: number, walked: Translation, physical: Physical): void {
    const { asid, large } = this.current;
    if (asid >= 0 || large.find(low, high, access) >= 0) return;
    const known = large.find(low, high, ACCESS_READ);
    const host = known >= 0 ? known : largeHost(physical, walked.page);
    if (host < 0) return;
    const plain = isPlain(physical, host);
    // Nothing more is permitted than was.
    if (known >= 0 && !plain) return;
    const permissions = plain ? walked.permissions : walked.permissions & ~(1 << ACCESS_WRITE);
    if (permissions & (1 << ACCESS_WRITE)) this.largeWritable[host / 2 ** LARGE_BITS] = 1;
    large.fill(low, high, host, permissions, walked.global);
  }

  private protectLarge(host: number): void {
    const page = Math.floor(host / 2 ** LARGE_BITS);
    if (this.largeWritable[page] === 0) return;
    this.largeWritable[page] = 0;
    this.forgetStack();
    for (let i = 0; i < SUPERVISOR_CONTEXTS; i++) this.contexts[i]!.large.withdrawWrite(page * 2 ** LARGE_BITS);
  }

  /** Makes writes to a page take the slow path in every context. @param host address of the page */
  protect(host: number): void {
    this.protectLarge(host);
    const page = Math.floor(host / 4096);
    const place = this.writable[page]!;
    if (place === 0) return;
    this.forgetStack();
    this.writable[page] = 0;
    for (const at of place === MANY ? this.writableBy.get(page)! : [place]) this.withdrawWrite(at, host);
    this.writableBy.delete(page);
    this.forEachVictim((at) => this.withdrawWrite(at, host));
  }

  /** Takes the permission to write from an entry if it is the page's. @param at word index of the entry */
  private withdrawWrite(at: number, host: number): void {
    const w = this.words;
    const low = w[at + 2]!;
    const high = w[at + 3]!;
    if (low === -1 && high === -1) return;
    if (hostBy(w, at, low, high) === host) w[at + 2] = w[at + 3] = -1;
  }

  private forEachVictim(visit: (at: number) => void): void {
    for (const context of this.ready) {
      for (let i = 0; i < VICTIM_ENTRIES; i++) visit(((context.tlb + VICTIM) >> 2) + i * 8);
    }
  }

  /** Enters a code address into the current jump cache. @param crosses its first instruction runs into the next page */
  setJump(low: number, high: number, cell: number, crosses: boolean): void {
    const group = (low >>> 12) & ((1 << JUMP_PAGE_BITS) - 1);
    const fold = (low ^ (low >>> JUMP_FOLD_LOW) ^ (low >>> JUMP_FOLD_HIGH)) & ((1 << JUMP_LOW_BITS) - 1);
    const index = (group << JUMP_LOW_BITS) | fold;
    const at = (this.current.jumps >> 2) + index * 4;
    this.words[at] = low;
    this.words[at + 1] = high;
    this.words[at + 2] = cell;
    const place = (this.current.jumps + JUMP_COUNT) >> 2;
    const count = this.words[place]!;
    if (count <= JUMP_LIST_ROOM) {
      this.words[((this.current.jumps + JUMP_LIST) >> 2) + count] = at << 2;
      this.words[place] = count + 1;
    }
    if (crosses) this.current.crossing[group] = 1;
  }

  /** What any pc leads to is to be found anew. */
  forgetPlaces(): void {
    for (const context of this.ready) {
      this.renewMapping(context);
      this.clearJumps(context);
    }
  }
}

/**
 * The larger pages of a supervisor's context, kept beside its TLB: a kernel reaches all of the machine's memory through few of
 * them, and wanders through so many small ones that the TLB's entries are in no cache when they are needed. What calls
 * for an access (access.ts) looks here first. A page larger than 2 MiB is kept in pieces of that size.
 */
import { ACCESS_READ, ACCESS_WRITE } from '../isa/isa.ts';
import { LARGE_BITS, LARGE_ENTRIES, LARGE_SIZE, TLB_ENTRY_SHIFT, TLB_READ, TLB_WRITE } from './layout.ts';
import { hostBy, setAddend, setTag } from './tlb-entry.ts';

const PAGE = 4096;
const LARGE = 2 ** LARGE_BITS;
const PAGES = LARGE / PAGE;

/** Physical memory, as far as it matters here. */
export interface Physical {
  hostPage(address: number): number;
  isWritable(address: number): boolean;
  readonly pageFlags: Uint8Array;
}

/** @returns address in the memory of the 2 MiB that a physical address lies in, or -1 where they are not RAM in one piece */
export function largeHost(physical: Physical, address: number): number {
  const base = address - (address % LARGE);
  const host = physical.hostPage(base);
  if (host < 0 || host % LARGE !== 0) return -1;
  for (let at = 0; at < LARGE; at += PAGE) {
    if (physical.hostPage(base + at) !== host + at || !physical.isWritable(base + at)) return -1;
  }
  return host;
}

/** May the 2 MiB at an address in the memory be written to without anybody's being told? */
export function isPlain({ pageFlags }: Pick<Physical, 'pageFlags'>, host: number): boolean {
  const first = host / PAGE;
  for (let page = first; page < first + PAGES; page++) if (pageFlags[page] !== 0) return false;
  return true;
}

export class LargePages {
  private readonly words: Int32Array;
  /** Address of the table, whose entries are as the TLB's (layout.ts). */
  private readonly table: number;
  /** Word indices of entries in use. */
  private used: number[] = [];
  /** Some entry is one address space's alone. */
  private hasPrivate = false;

  constructor(words: Int32Array, table: number) {
    this.words = words;
    this.table = table;
  }

  /** To be called before anything else is. */
  prepare(): void {
    this.words.fill(-1, this.table >> 2, (this.table + LARGE_SIZE) >> 2);
  }

  private entry(low: number): number {
    return (this.table >> 2) + (((low >>> LARGE_BITS) & (LARGE_ENTRIES - 1)) << (TLB_ENTRY_SHIFT - 2));
  }

  /** @returns address in the memory of the page that is kept for this access, or -1 */
  find(low: number, high: number, access: number): number {
    const w = this.words;
    const at = this.entry(low);
    const tag = at + ((access === ACCESS_WRITE ? TLB_WRITE : TLB_READ) >> 2);
    if (w[tag] !== (low & -LARGE) || w[tag + 1] !== high) return -1;
    return hostBy(w, at, low & -LARGE, high);
  }

  /** @param host address of the page in the memory  @param permissions bits 1 << ACCESS_* */
  fill(low: number, high: number, host: number, permissions: number, global: boolean): void {
    const w = this.words;
    const at = this.entry(low);
    const page = low & -LARGE;
    if (!this.used.includes(at)) this.used.push(at);
    if (!global) this.hasPrivate = true;
    setAddend(w, at, page, high, host);
    setTag(w, at + (TLB_READ >> 2), page, high, permissions & (1 << ACCESS_READ));
    setTag(w, at + (TLB_WRITE >> 2), page, high, permissions & (1 << ACCESS_WRITE));
  }

  clear(): void {
    for (const at of this.used) this.words.fill(-1, at, at + (1 << (TLB_ENTRY_SHIFT - 2)));
    this.used = [];
    this.hasPrivate = false;
  }

  /** Drops what a switch of address spaces must not leave behind. */
  clearPrivate(): void {
    if (this.hasPrivate) this.clear();
  }

  /** Writes to the page at an address in the memory are no longer permitted. */
  withdrawWrite(host: number): void {
    const w = this.words;
    for (const at of this.used) {
      const tag = at + (TLB_WRITE >> 2);
      const [low, high] = [w[tag]!, w[tag + 1]!];
      if ((low !== -1 || high !== -1) && hostBy(w, at, low, high) === host) w[tag] = w[tag + 1] = -1;
    }
  }
}

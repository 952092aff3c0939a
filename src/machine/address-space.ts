/**
 * Guest-physical memory: RAM and ROM pages in the shared buffer, and memory-mapped registers.
 *
 * RAM and ROM hide memory-mapped registers at the same address, as the memory controller's own
 * decoding does, but writes to ROM go to registers beneath it (flash); among registers, the region that was added first wins. Where memory overlaps
 * memory, the higher priority shows, and of equal ones what was added last.
 */
import type { GuestMemory, IoHandler, MappedRegion, MmioBus, Trace } from './interfaces.ts';

/** Bits of `pageFlags`. */
export const PAGE_HAS_CODE = 1;
export const PAGE_LOG_DIRTY = 2;

const PAGE = 4096;
const LOW_LIMIT = 0x1_0000_0000;
/** Instead of a page to write to. */
const NO_MEMORY = -1;
const READ_ONLY = -2;

type MmioRegion = { base: number; end: number; handler: IoHandler; name: string };
/** Registers as they answer to a guest. */
export type VisibleRegisters = { readonly base: number; readonly size: number; readonly handler: IoHandler };
type MemoryRegion = {
  /** In `pages`. */
  number: number;
  base: number;
  end: number;
  hostOffset: number;
  writable: boolean;
  priority: number;
};
/** A range of memory as it appears to a guest; addresses and sizes are whole pages. */
export type VisibleMemory = { base: number; size: number; hostOffset: number; writable: boolean };
type WriteShadow = { base: number; end: number; hostOffset: number };

export class AddressSpace implements GuestMemory, MmioBus {
  /** Per host page (host offset / 4096): PAGE_* bits. */
  readonly pageFlags: Uint8Array;
  /** A device wrote into a page that holds translated code. */
  onCodeWrite: ((hostOffset: number, length: number) => void) | undefined;
  /** RAM, ROM or registers came, went or moved: cached translations are stale. */
  onMapChange: (() => void) | undefined;
  /** What registers say of their doorbells has changed. */
  onDoorbells: (() => void) | undefined;
  /** Gives pages of the shared buffer back to the host, where there is a way. */
  release: ((memory: Uint8Array, offset: number, length: number) => void) | undefined;
  trace: Trace | undefined;
  ramGeneration = 0;

  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  /** One entry per page below 4 GiB: the number of the region that shows there, negative when read-only, 0 when not memory. */
  private readonly pages = new Int16Array(LOW_LIMIT / PAGE);
  /** By a region's number: bytes from an address to its host offset. */
  private readonly shifts = new Float64Array(2 ** 15);
  /** All RAM and ROM, what shows first coming last. */
  private readonly memory: MemoryRegion[] = [];
  private readonly shadows: WriteShadow[] = [];
  private mmio: MmioRegion[] = [];
  private lastMmio: MmioRegion | null = null;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.pageFlags = new Uint8Array(Math.ceil(bytes.length / PAGE));
  }

  /** @param priority memory of a lower one is hidden where they overlap */
  addRam(base: number, size: number, hostOffset: number, priority = 0): MappedRegion {
    return this.addMemory(base, size, hostOffset, true, priority);
  }

  addRom(base: number, size: number, hostOffset: number, priority = 0): MappedRegion {
    return this.addMemory(base, size, hostOffset, false, priority);
  }

  /** Writes to where no RAM shows go to RAM at `hostOffset`; what is read stays as it is. */
  addWriteShadow(base: number, size: number, hostOffset: number): MappedRegion {
    const shadow = { base, end: base + size, hostOffset };
    this.shadows.push(shadow);
    return { remove: () => void this.shadows.splice(this.shadows.indexOf(shadow), 1) };
  }

  addMmio(base: number, size: number, handler: IoHandler, name: string): MappedRegion {
    const region: MmioRegion = { base, end: base + size, handler, name };
    this.mmio.push(region);
    this.mmioChanged();
    return {
      remove: () => {
        this.mmio = this.mmio.filter((other) => other !== region);
        this.mmioChanged();
      },
      doorbellsChanged: () => this.onDoorbells?.(),
    };
  }

  /** Host offset of the page containing `addr`, or -1 if it is neither RAM nor ROM. */
  hostPage(addr: number): number {
    if (addr < LOW_LIMIT) {
      const page = addr >>> 12;
      const entry = this.pages[page]!;
      return entry === 0 ? -1 : page * PAGE + this.shifts[entry < 0 ? -entry : entry]!;
    }
    const region = this.topRegion(addr);
    if (region === null) return -1;
    const distance = addr - region.base;
    return region.hostOffset + distance - (distance % PAGE);
  }

  isWritable(addr: number): boolean {
    return addr < LOW_LIMIT ? this.pages[addr >>> 12]! > 0 : this.topRegion(addr)?.writable === true;
  }

  read(addr: number, size: number): number {
    const inPage = addr % PAGE;
    const page = this.hostPage(addr);
    if (inPage + size > PAGE) return this.readSplit(addr, size);
    if (page < 0) return this.readMmio(addr, size);
    const at = page + inPage;
    if (size === 4) return this.view.getUint32(at, true);
    return size === 2 ? this.view.getUint16(at, true) : this.bytes[at]!;
  }

  write(addr: number, size: number, value: number): void {
    const inPage = addr % PAGE;
    if (inPage + size > PAGE) return this.writeSplit(addr, size, value);
    const page = this.writePage(addr);
    if (page === NO_MEMORY) return this.writeMmio(addr, size, value);
    if (page === READ_ONLY) {
      if (this.findMmio(addr) !== null) this.writeMmio(addr, size, value);
      else this.trace?.('rom-write', hex(addr));
      return;
    }
    const at = page + inPage;
    if (size === 4) this.view.setUint32(at, value, true);
    else if (size === 2) this.view.setUint16(at, value, true);
    else this.bytes[at] = value;
    this.touched(at, size);
  }

  readBytes(addr: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; ) {
      const at = addr + done;
      const length = Math.min(PAGE - (at % PAGE), into.length - done);
      const page = this.hostPage(at);
      if (page >= 0) {
        const from = page + (at % PAGE);
        into.set(this.bytes.subarray(from, from + length), done);
      } else if (this.hasMmio(at, length)) {
        for (let i = 0; i < length; i++) into[done + i] = this.readMmio(at + i, 1);
      } else {
        into.fill(0xff, done, done + length);
      }
      done += length;
    }
  }

  writeBytes(addr: number, from: Uint8Array): void {
    for (let done = 0; done < from.length; ) {
      const at = addr + done;
      const length = Math.min(PAGE - (at % PAGE), from.length - done);
      const page = this.writePage(at);
      if (page === NO_MEMORY) {
        if (this.hasMmio(at, length)) {
          for (let i = 0; i < length; i++) this.writeMmio(at + i, 1, from[done + i]!);
        }
      } else if (page !== READ_ONLY) {
        const host = page + (at % PAGE);
        this.bytes.set(from.subarray(done, done + length), host);
        this.touched(host, length);
      }
      done += length;
    }
  }

  get ram(): Uint8Array {
    return this.bytes;
  }

  ramOffset(addr: number, length: number): number {
    const end = addr + length;
    if (!(length >= 0) || !(end <= Number.MAX_SAFE_INTEGER)) return -1;
    if (addr >= LOW_LIMIT) {
      const region = this.onlyRegion(addr, end);
      if (region !== null) return region.writable ? region.hostOffset + addr - region.base : -1;
    }
    const first = this.isWritable(addr) ? this.hostPage(addr) : -1;
    if (first < 0) return -1;
    let next = first;
    for (let page = addr - (addr % PAGE) + PAGE; page < end; page += PAGE) {
      next += PAGE;
      if (!this.isWritable(page) || this.hostPage(page) !== next) return -1;
    }
    return first + (addr % PAGE);
  }

  ramChanged(offset: number, length: number): void {
    const { pageFlags } = this;
    const last = Math.floor((offset + length - 1) / PAGE);
    for (let page = Math.floor(offset / PAGE); page <= last; page++) {
      if ((pageFlags[page]! & PAGE_HAS_CODE) === 0) continue;
      const from = Math.max(offset, page * PAGE);
      this.onCodeWrite?.(from, Math.min(offset + length, (page + 1) * PAGE) - from);
    }
  }

  ramReleased(offset: number, length: number): void {
    this.release?.(this.bytes, offset, length);
    this.ramChanged(offset, length);
  }

  /** Memory in the shared buffer has changed, within one page. */
  touched(host: number, length: number): void {
    const page = Math.floor(host / PAGE);
    if ((this.pageFlags[page]! & PAGE_HAS_CODE) !== 0) this.onCodeWrite?.(host, length);
  }

  /** What lies where, for the monitor. */
  describe(): { base: number; size: number; name: string }[] {
    return this.mmio.map((r) => ({ base: r.base, size: r.end - r.base, name: r.name }));
  }

  /** Registers that nothing else lies in the way of but memory. */
  visibleRegisters(): VisibleRegisters[] {
    return this.mmio
      .filter((region) => !this.overlapped(region))
      .map(({ base, end, handler }) => ({ base, size: end - base, handler }));
  }

  /** What memory shows where, in order of address; neighbours that lie together in the buffer are one. */
  visibleMemory(): VisibleMemory[] {
    const edges = [...new Set(this.memory.flatMap(({ base, end }) => [base, end]))].sort((a, b) => a - b);
    const shown: VisibleMemory[] = [];
    for (let i = 0; i + 1 < edges.length; i++) {
      const [base, end] = [edges[i]!, edges[i + 1]!];
      const region = this.topRegion(base);
      if (region === null) continue;
      const hostOffset = region.hostOffset + base - region.base;
      const last = shown.at(-1);
      const joins = last !== undefined && last.base + last.size === base && last.hostOffset + last.size === hostOffset;
      if (joins && last.writable === region.writable) last.size += end - base;
      else shown.push({ base, size: end - base, hostOffset, writable: region.writable });
    }
    return shown;
  }

  private addMemory(base: number, size: number, hostOffset: number, writable: boolean, priority: number): MappedRegion {
    if (base % PAGE !== 0 || size % PAGE !== 0 || hostOffset % PAGE !== 0) {
      throw new Error(`memory at ${hex(base)} is not a whole number of pages`);
    }
    if (hostOffset + size > this.bytes.length) {
      throw new Error(`memory at ${hex(base)} lies outside the host buffer`);
    }
    const region = { number: this.freeNumber(), base, end: base + size, hostOffset, writable, priority };
    this.shifts[region.number] = hostOffset - base;
    const above = this.memory.findIndex((other) => other.priority > priority);
    this.memory.splice(above < 0 ? this.memory.length : above, 0, region);
    this.rebuild(base, region.end);
    return {
      remove: () => {
        const at = this.memory.indexOf(region);
        if (at < 0) return;
        this.memory.splice(at, 1);
        this.rebuild(base, region.end);
      },
    };
  }

  private freeNumber(): number {
    const taken = new Set(this.memory.map(({ number }) => number));
    for (let number = 1; number < this.shifts.length; number++) if (!taken.has(number)) return number;
    throw new Error(`a machine has at most ${this.shifts.length - 1} regions of memory`);
  }

  /** Works out anew what shows between two addresses. */
  private rebuild(from: number, to: number): void {
    const last = Math.min(to, LOW_LIMIT) / PAGE;
    if (from < LOW_LIMIT) this.pages.fill(0, from / PAGE, last);
    for (const { number, base, end, writable } of this.memory) {
      const first = Math.max(base, from) / PAGE;
      if (first < last) this.pages.fill(writable ? number : -number, first, Math.min(last, end / PAGE));
    }
    this.ramGeneration++;
    this.onMapChange?.();
  }

  /** The region that shows at an address, of any. */
  private topRegion(addr: number): MemoryRegion | null {
    return this.memory.findLast((region) => addr >= region.base && addr < region.end) ?? null;
  }

  /** What covers the whole range, where nothing else lies in it. */
  private onlyRegion(addr: number, end: number): MemoryRegion | null {
    let found: MemoryRegion | null = null;
    for (const region of this.memory) {
      if (region.base >= end || region.end <= addr) continue;
      if (found !== null || region.base > addr || region.end < end) return null;
      found = region;
    }
    return found;
  }

  /** Host offset of the page that a write to `addr` goes to, or READ_ONLY or NO_MEMORY. */
  private writePage(addr: number): number {
    if (this.isWritable(addr)) return this.hostPage(addr);
    const shadow = this.shadows.find(({ base, end }) => addr >= base && addr < end);
    if (shadow !== undefined) return shadow.hostOffset + addr - shadow.base - (addr % PAGE);
    return this.hostPage(addr) < 0 ? NO_MEMORY : READ_ONLY;
  }

  private mmioChanged(): void {
    this.lastMmio = null;
    this.onMapChange?.();
  }

  private findMmio(addr: number): MmioRegion | null {
    const last = this.lastMmio;
    if (last !== null && addr >= last.base && addr < last.end) return last;
    for (const region of this.mmio) {
      if (addr >= region.base && addr < region.end) {
        // Remembered only where no earlier region could overlap it: a whole-list scan found it.
        this.lastMmio = this.overlapped(region) ? null : region;
        return region;
      }
    }
    return null;
  }

  /** Bulk transfers pass over empty space page by page, whatever length a guest asks for. */
  private hasMmio(addr: number, length: number): boolean {
    return this.mmio.some((region) => region.base < addr + length && region.end > addr);
  }

  private overlapped(region: MmioRegion): boolean {
    return this.mmio.some((r) => r !== region && r.base < region.end && r.end > region.base);
  }

  private readMmio(addr: number, size: number): number {
    const region = this.findMmio(addr);
    if (region === null) {
      this.trace?.('unassigned-mmio', `read ${size} at ${hex(addr)}`);
      return size === 4 ? 0xffffffff : size === 2 ? 0xffff : 0xff;
    }
    if (addr + size > region.end) return this.readSplit(addr, size);
    return region.handler.read(addr - region.base, size) >>> 0;
  }

  private writeMmio(addr: number, size: number, value: number): void {
    const region = this.findMmio(addr);
    if (region === null) {
      this.trace?.('unassigned-mmio', `write ${size} at ${hex(addr)} value ${hex(value >>> 0)}`);
    } else if (addr + size > region.end) {
      this.writeSplit(addr, size, value);
    } else {
      region.handler.write(addr - region.base, size, value >>> 0);
    }
  }

  private readSplit(addr: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.read(addr + i, 1) << (8 * i);
    return value >>> 0;
  }

  private writeSplit(addr: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.write(addr + i, 1, (value >>> (8 * i)) & 0xff);
  }
}

function hex(value: number): string {
  return '0x' + value.toString(16);
}

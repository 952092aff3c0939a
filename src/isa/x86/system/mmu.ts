/**
 * Page walks (Intel SDM vol. 3, chapter 5) and system code's own access to guest memory.
 */
import { ACCESS_EXEC, ACCESS_READ, ACCESS_WRITE } from '../../isa.ts';
import type { Translation } from '../../isa.ts';
import { AC, CPL, CR0, CR3, CR4, EFER, EFLAGS } from '../state.ts';
import {
  CR0_PG,
  CR0_WP,
  CR4_LA57,
  CR4_PAE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LMA,
  EFER_NXE,
  FAULT,
  GP,
  PF_FAULT,
} from './core.ts';
import { hex64 } from './core.ts';
import type { Core, PhysicalMemory } from './core.ts';
import type { Debug } from './debug.ts';

const HIGH = 0x1_0000_0000;

// Page-table entry bits, low word.
const PRESENT = 1;
const WRITABLE = 2;
const USER = 4;
const ACCESSED = 0x20;
const DIRTY = 0x40;
const LARGE = 0x80;
const GLOBAL = 0x100;
/** No-execute, in the high word. */
const NX = 1 << 31;

// Page-fault error code bits.
const ERR_PRESENT = 1;
const ERR_WRITE = 2;
const ERR_USER = 4;
const ERR_RESERVED = 8;
const ERR_FETCH = 16;

const CAN_READ = 1 << ACCESS_READ;
const CAN_WRITE = 1 << ACCESS_WRITE;
const CAN_EXEC = 1 << ACCESS_EXEC;

/** With which privilege system code reaches memory. */
export const AS_SYSTEM = 0; // descriptor tables, TSS, inner stacks
export const AS_CURRENT = 1; // as the running code would
export const AS_USER = 2;

const MODE_NONE = 0;
const MODE_32 = 1;
const MODE_PAE = 2;
const MODE_4 = 4;
const MODE_5 = 5;

const SLOTS = 128;
const REGIONS = 256;

/** The unsigned number that the lowest bytes are. @param size 1, 2 or 4 */
const lowBytes = (value: number, size: number): number => (size === 4 ? value >>> 0 : value & (size === 2 ? 0xffff : 0xff));

/** Writes the lowest bytes of a value. @param size 1, 2 or 4 */
export function putBytes(view: DataView, at: number, size: number, value: number): void {
  if (size === 4) view.setInt32(at, value, true);
  else if (size === 2) view.setInt16(at, value, true);
  else view.setInt8(at, value);
}

export class Mmu {
  private readonly core: Core;
  private readonly debug: Debug;
  private readonly mem: PhysicalMemory;
  private readonly i32: Int32Array;
  private readonly view: DataView;

  // Derived from control registers by `configure`.
  private mode = MODE_NONE;
  private root = 0;
  private nxe = false;
  private wp = false;
  private smep = false;
  private smap = false;
  private pse = false;
  private globals = false;
  /** Physical-address bits of an entry's high word, and those that must be zero. */
  private readonly physicalMask: number;
  private reservedHigh = 0;
  private a20Mask = -1;
  /** Page-directory pointers of PAE paging, loaded with CR3. */
  readonly pdpte = new Int32Array(8);

  // The entry that `load` has read.
  private low = 0;
  private high = 0;

  // Translations for system code: tag = page | user << 2 | smap << 1 | write.
  private readonly slotLow = new Int32Array(SLOTS);
  private readonly slotHigh = new Int32Array(SLOTS);
  private readonly slotGeneration = new Int32Array(SLOTS);
  private readonly slotHost = new Float64Array(SLOTS);
  private readonly slotPhysical = new Float64Array(SLOTS);
  private generation = 1;
  private readonly walked: Translation = { page: 0, permissions: 0, global: false, bits: 12 };

  // Page tables of 2 MiB regions with the rights on the way there: what processors call a
  // paging-structure cache (SDM vol. 3, 5.10.3), and forgotten by the same instructions.
  private readonly regionLow = new Int32Array(REGIONS);
  private readonly regionHigh = new Int32Array(REGIONS);
  private readonly regionGeneration = new Int32Array(REGIONS);
  private readonly regionTable = new Float64Array(REGIONS);
  private readonly regionRights = new Int32Array(REGIONS);
  private readonly regionNoExecute = new Int32Array(REGIONS);

  constructor(core: Core, debug: Debug) {
    this.core = core;
    this.debug = debug;
    this.mem = core.platform.mem;
    this.i32 = core.i32;
    this.view = core.view;
    this.physicalMask = 2 ** Math.max(0, core.model.physicalBits - 32) - 1;
  }

  /** Takes over the control registers after they have changed. */
  configure(): void {
    const { core } = this;
    const cr4 = core.get(CR4);
    const cr0 = core.get(CR0);
    const efer = core.get(EFER);
    if (!(cr0 & CR0_PG)) this.mode = MODE_NONE;
    else if (efer & EFER_LMA) this.mode = cr4 & CR4_LA57 ? MODE_5 : MODE_4;
    else this.mode = cr4 & CR4_PAE ? MODE_PAE : MODE_32;
    this.nxe = (efer & EFER_NXE) !== 0 && this.mode !== MODE_32;
    this.wp = (cr0 & CR0_WP) !== 0;
    this.smep = (cr4 & CR4_SMEP) !== 0;
    this.smap = (cr4 & CR4_SMAP) !== 0;
    this.pse = (cr4 & CR4_PSE) !== 0;
    this.globals = (cr4 & 0x80) !== 0;
    // PAE paging reserves the ignored bits 52-62, too.
    const top = this.mode === MODE_PAE ? 0x7fffffff : 0x000fffff;
    this.reservedHigh = (top & ~this.physicalMask) | (this.nxe ? 0 : NX);
    const low = core.get(CR3);
    const high = core.get(CR3 + 4) & this.physicalMask;
    this.root =
      this.mode >= MODE_4
        ? high * HIGH + ((low & ~0xfff) >>> 0)
        : this.mode === MODE_PAE
          ? (low & ~0x1f) >>> 0
          : (low & ~0xfff) >>> 0;
    this.forget();
  }

  /** Drops the translations kept for system code. */
  forget(): void {
    this.generation = (this.generation + 1) | 0;
  }

  setA20(enabled: boolean): void {
    this.a20Mask = enabled ? -1 : ~(1 << 20);
    this.forget();
  }
  get a20(): boolean {
    return this.a20Mask === -1;
  }

  get isPae(): boolean {
    return this.mode === MODE_PAE;
  }

  /**
   * Reads the four page-directory pointers at CR3 (SDM vol. 3, 5.4.1).
   * @returns false when one has reserved bits set, and nothing has changed
   */
  loadPdptes(cr3: number): boolean {
    const values = new Int32Array(8);
    const base = (cr3 & ~0x1f) >>> 0;
    const reserved = (0x7fffffff & ~this.physicalMask) | NX;
    for (let i = 0; i < 4; i++) {
      this.load(base + 8 * i);
      if (this.low & PRESENT && (this.high & reserved || this.low & 0x1e6)) return false;
      values[2 * i] = this.low;
      values[2 * i + 1] = this.high;
    }
    this.pdpte.set(values);
    return true;
  }

  // --- Walks. ---

  /** The last walk that failed was a data access of translated code at an address that is not canonical. */
  strayed = false;

  /** Vcpu.walk: with the privilege that code has now. */
  walk(low: number, high: number, access: number, out: Translation): boolean {
    const { core } = this;
    const user = core.get(CPL) === 3;
    if (!this.walkAs(low, high, access, user, (core.get(EFLAGS) & AC) === 0, out)) {
      this.strayed = access !== ACCESS_EXEC && core.vector === GP;
      core.faultLow = low;
      core.faultHigh = high;
      return false;
    }
    if (this.debug.watching) {
      const watched = this.debug.watchedPage(low, high);
      if (watched & 1) out.permissions &= ~CAN_READ;
      if (watched & 2) out.permissions &= ~CAN_WRITE;
    }
    return true;
  }

  /** @param guarded SMAP applies to a supervisor's data accesses */
  walkAs(low: number, high: number, access: number, user: boolean, guarded: boolean, out: Translation): boolean {
    if (this.mode >= MODE_4) {
      const slot = ((low >>> 21) ^ (high * 0x9d)) & (REGIONS - 1);
      if (
        this.regionLow[slot] === low >>> 21 &&
        this.regionHigh[slot] === high &&
        this.regionGeneration[slot] === this.generation
      ) {
        if (this.walkRegion(slot, low, high, access, user, guarded, out)) return true;
        // A fault must come from the tables as they are.
        this.regionGeneration[slot] = this.generation - 1;
      }
      return this.walkLong(low, high, access, user, guarded, out, slot);
    }
    switch (this.mode) {
      case MODE_NONE:
        out.page = this.physical(low & ~0xfff, 0);
        out.permissions = CAN_READ | CAN_WRITE | CAN_EXEC;
        out.global = false;
        out.bits = 12;
        return true;
      case MODE_32:
        return this.walk32(low, access, user, guarded, out);
      default:
        return this.walkPae(low, access, user, guarded, out);
    }
  }

  /** The last step of a walk, from a page table that is known. */
  private walkRegion(
    slot: number,
    low: number,
    high: number,
    access: number,
    user: boolean,
    guarded: boolean,
    out: Translation,
  ): boolean {
    const entry = this.regionTable[slot]! + 8 * ((low >>> 12) & 0x1ff);
    this.load(entry);
    if (!(this.low & PRESENT) || this.high & this.reservedHigh) return false;
    const rights = this.regionRights[slot]! & this.low;
    const noExecute = this.regionNoExecute[slot]! | this.high;
    return this.leaf(low, high, access, user, guarded, out, entry, rights, noExecute, 0);
  }

  /** Physical address from two words, with the A20 gate. */
  private physical(low: number, high: number): number {
    return high * HIGH + ((low & this.a20Mask) >>> 0);
  }

  private load(address: number): void {
    const host = this.mem.hostPage(address);
    if (host >= 0) {
      const at = (host + (address % 4096)) / 4;
      this.low = this.i32[at]!;
      this.high = this.i32[at + 1]!;
    } else {
      this.low = this.mem.read(address, 4) | 0;
      this.high = this.mem.read(address + 4, 4) | 0;
    }
  }

  /** Sets bits of the entry that `load` has read. */
  private mark(address: number, bits: number): void {
    if ((this.low & bits) === bits) return;
    this.low |= bits;
    this.mem.write(address, 4, this.low >>> 0);
  }

  private walkLong(
    low: number,
    high: number,
    access: number,
    user: boolean,
    guarded: boolean,
    out: Translation,
    slot: number,
  ): boolean {
    const spare = this.mode === MODE_5 ? 7 : 16;
    if ((high << spare) >> spare !== high) {
      this.core.record(GP, 0);
      return false;
    }
    let table = this.root;
    let rights = WRITABLE | USER;
    let noExecute = 0;
    let level = this.mode;
    let entry = 0;
    for (;;) {
      entry = table + 8 * indexAt(low, high, level);
      this.load(entry);
      if (!(this.low & PRESENT)) return this.pageFault(low, high, access, user, 0);
      if (this.high & this.reservedHigh || (this.low & LARGE && level > this.largest)) {
        return this.pageFault(low, high, access, user, ERR_PRESENT | ERR_RESERVED);
      }
      rights &= this.low;
      noExecute |= this.high;
      if (level === 1 || (this.low & LARGE && level <= 3)) break;
      this.mark(entry, ACCESSED);
      table = (this.high & this.physicalMask) * HIGH + ((this.low & ~0xfff) >>> 0);
      if (--level === 1) {
        this.regionLow[slot] = low >>> 21;
        this.regionHigh[slot] = high;
        this.regionGeneration[slot] = this.generation;
        this.regionTable[slot] = table;
        this.regionRights[slot] = rights;
        this.regionNoExecute[slot] = noExecute;
      }
    }
    const offset = level === 1 ? 0 : level === 2 ? 0x1ff000 : 0x3ffff000;
    if (this.low & offset & ~0x1000) {
      return this.pageFault(low, high, access, user, ERR_PRESENT | ERR_RESERVED);
    }
    return this.leaf(low, high, access, user, guarded, out, entry, rights, noExecute, offset);
  }

  /** Highest level at which bit 7 makes a page: only there is it not reserved. */
  private get largest(): number {
    return this.core.model.hugePages ? 3 : 2;
  }

  private walkPae(low: number, access: number, user: boolean, guarded: boolean, out: Translation): boolean {
    const pointer = (low >>> 30) * 2;
    if (!(this.pdpte[pointer]! & PRESENT)) return this.pageFault(low, 0, access, user, 0);
    let table = (this.pdpte[pointer + 1]! & this.physicalMask) * HIGH + ((this.pdpte[pointer]! & ~0xfff) >>> 0);
    let rights = WRITABLE | USER;
    let noExecute = 0;
    let level = 2;
    let entry = 0;
    for (;;) {
      entry = table + 8 * indexAt(low, 0, level);
      this.load(entry);
      if (!(this.low & PRESENT)) return this.pageFault(low, 0, access, user, 0);
      const large = level === 2 && (this.low & LARGE) !== 0;
      if (this.high & this.reservedHigh || (large && this.low & 0x1fe000)) {
        return this.pageFault(low, 0, access, user, ERR_PRESENT | ERR_RESERVED);
      }
      rights &= this.low;
      noExecute |= this.high;
      if (level === 1 || large) break;
      this.mark(entry, ACCESSED);
      table = (this.high & this.physicalMask) * HIGH + ((this.low & ~0xfff) >>> 0);
      level--;
    }
    const offset = level === 1 ? 0 : 0x1ff000;
    return this.leaf(low, 0, access, user, guarded, out, entry, rights, noExecute, offset);
  }

  private walk32(low: number, access: number, user: boolean, guarded: boolean, out: Translation): boolean {
    let entry = this.root + 4 * (low >>> 22);
    this.load32(entry);
    if (!(this.low & PRESENT)) return this.pageFault(low, 0, access, user, 0);
    let rights = this.low & (WRITABLE | USER);
    if (this.low & LARGE && this.pse) {
      // PSE-36: bits 13-20 hold address bits 32-39, bit 21 is reserved.
      this.high = (this.low >>> 13) & 0xff;
      if (this.low & 0x200000 || this.high & ~this.physicalMask) {
        return this.pageFault(low, 0, access, user, ERR_PRESENT | ERR_RESERVED);
      }
      return this.leaf(low, 0, access, user, guarded, out, entry, rights, 0, 0x3ff000);
    }
    this.mark(entry, ACCESSED);
    entry = ((this.low & ~0xfff) >>> 0) + 4 * ((low >>> 12) & 0x3ff);
    this.load32(entry);
    if (!(this.low & PRESENT)) return this.pageFault(low, 0, access, user, 0);
    rights &= this.low;
    return this.leaf(low, 0, access, user, guarded, out, entry, rights, 0, 0);
  }

  private load32(address: number): void {
    const host = this.mem.hostPage(address);
    this.low = host >= 0 ? this.i32[(host + (address % 4096)) / 4]! : this.mem.read(address, 4) | 0;
    this.high = 0;
  }

  /**
   * Permissions of a page (SDM vol. 3, 5.6) and its address.
   * @param offset address bits that come from the linear address (0 for 4 KiB pages)
   */
  private leaf(
    low: number,
    high: number,
    access: number,
    user: boolean,
    guarded: boolean,
    out: Translation,
    entry: number,
    rights: number,
    noExecute: number,
    offset: number,
  ): boolean {
    const userPage = (rights & USER) !== 0;
    let permissions: number;
    if (user) {
      permissions = userPage ? CAN_READ | CAN_EXEC | (rights & WRITABLE ? CAN_WRITE : 0) : 0;
    } else {
      permissions = CAN_READ | CAN_EXEC | (rights & WRITABLE || !this.wp ? CAN_WRITE : 0);
      if (userPage) {
        if (this.smap && guarded) permissions &= ~(CAN_READ | CAN_WRITE);
        if (this.smep) permissions &= ~CAN_EXEC;
      }
    }
    if (this.nxe && noExecute & NX) permissions &= ~CAN_EXEC;
    if (!(permissions & (1 << access))) return this.pageFault(low, high, access, user, ERR_PRESENT);
    this.mark(entry, access === ACCESS_WRITE ? ACCESSED | DIRTY : ACCESSED);
    // The first write must come here to set the dirty bit.
    if (!(this.low & DIRTY)) permissions &= ~CAN_WRITE;
    const keep = ~(offset | 0xfff);
    out.page = this.physical((this.low & keep) | (low & offset), this.high & this.physicalMask);
    out.permissions = permissions;
    out.global = this.globals && (this.low & GLOBAL) !== 0;
    out.bits = offset === 0 ? 12 : 32 - Math.clz32(offset);
    return true;
  }

  private pageFault(low: number, high: number, access: number, user: boolean, bits: number): false {
    let code = bits;
    if (access === ACCESS_WRITE) code |= ERR_WRITE;
    if (user) code |= ERR_USER;
    if (access === ACCESS_EXEC && (this.nxe || this.smep)) code |= ERR_FETCH;
    const { core } = this;
    core.platform.trace?.('mmu', `no access to ${hex64(high, low)}, error ${code.toString(16)}`);
    core.record(PF_FAULT, code);
    core.faultLow = low;
    core.faultHigh = high;
    return false;
  }

  // --- System code's access to virtual memory. Faults are thrown. ---

  /** Finds the page of an address. @returns a slot number */
  private slot(low: number, high: number, how: number, access: number): number {
    const { core } = this;
    let user = how === AS_USER;
    let guarded = true;
    if (how === AS_CURRENT) {
      user = core.get(CPL) === 3;
      guarded = (core.get(EFLAGS) & AC) === 0;
    }
    const tag = (low & ~0xfff) | (user ? 4 : 0) | (guarded ? 2 : 0) | access;
    const slot = ((low >>> 12) ^ ((tag & 7) * 37)) & (SLOTS - 1);
    if (this.slotLow[slot] === tag && this.slotHigh[slot] === high && this.slotGeneration[slot] === this.generation) return slot;
    if (!this.walkAs(low, high, access, user, guarded, this.walked)) throw FAULT;
    const { page } = this.walked;
    const host = this.mem.hostPage(page);
    this.slotLow[slot] = tag;
    this.slotHigh[slot] = high;
    this.slotGeneration[slot] = this.generation;
    this.slotPhysical[slot] = page;
    this.slotHost[slot] = access === ACCESS_WRITE && host >= 0 && !this.mem.isWritable(page) ? -1 : host;
    return slot;
  }

  /** Host address of a byte for reading or writing, or -1 where memory must be reached by `mem`. */
  hostOf(low: number, high: number, how: number, access: number): number {
    const slot = this.slot(low, high, how, access);
    const host = this.slotHost[slot]!;
    if (host < 0) return -1;
    if (access === ACCESS_WRITE && this.mem.pageFlags[host / 4096] !== 0) return -1;
    return host + (low & 0xfff);
  }

  /** Physical address of a byte. */
  physicalOf(low: number, high: number, how: number, access: number): number {
    return this.slotPhysical[this.slot(low, high, how, access)]! + (low & 0xfff);
  }

  /** A data access by an instruction that system code executes: it may meet a breakpoint. */
  private watch(low: number, high: number, size: number, how: number, write: boolean): void {
    if (this.debug.watching && how === AS_CURRENT) this.debug.access(low, high, size, write);
  }

  read8(low: number, high: number, how: number): number {
    this.watch(low, high, 1, how, false);
    const host = this.hostOf(low, high, how, ACCESS_READ);
    if (host >= 0) return this.view.getUint8(host);
    return this.mem.read(this.physicalOf(low, high, how, ACCESS_READ), 1);
  }

  read16(low: number, high: number, how: number): number {
    this.watch(low, high, 2, how, false);
    if ((low & 0xfff) > 0xffe) return this.readSplit(low, high, how, 2);
    const host = this.hostOf(low, high, how, ACCESS_READ);
    if (host >= 0) return this.view.getUint16(host, true);
    return this.mem.read(this.physicalOf(low, high, how, ACCESS_READ), 2);
  }

  /** @returns the 32 bits, signed */
  read32(low: number, high: number, how: number): number {
    this.watch(low, high, 4, how, false);
    if ((low & 0xfff) > 0xffc) return this.readSplit(low, high, how, 4);
    const host = this.hostOf(low, high, how, ACCESS_READ);
    if (host >= 0) return this.view.getInt32(host, true);
    return this.mem.read(this.physicalOf(low, high, how, ACCESS_READ), 4) | 0;
  }

  /** Leaves the words in core.low and core.high. */
  read64(low: number, high: number, how: number): void {
    const { core } = this;
    const first = this.read32(low, high, how);
    const next = (low >>> 0) + 4;
    core.high = this.read32(next | 0, next >= HIGH ? (high + 1) | 0 : high, how);
    core.low = first;
  }

  /** @param size 1, 2 or 4 */
  read(low: number, high: number, size: number, how: number): number {
    return size === 4 ? this.read32(low, high, how) : size === 2 ? this.read16(low, high, how) : this.read8(low, high, how);
  }

  private readSplit(low: number, high: number, how: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) {
      const at = (low >>> 0) + i;
      value |= this.read8(at | 0, at >= HIGH ? (high + 1) | 0 : high, how) << (8 * i);
    }
    return value;
  }

  /** Faults as a write of `size` bytes would, and writes nothing. */
  probeWrite(low: number, high: number, size: number, how: number): void {
    this.slot(low, high, how, ACCESS_WRITE);
    if ((low & 0xfff) + size <= 4096) return;
    const next = ((low & ~0xfff) >>> 0) + 4096;
    this.slot(next | 0, next >= HIGH ? (high + 1) | 0 : high, how, ACCESS_WRITE);
  }

  /** Faults as a read would. */
  probeRead(low: number, high: number, size: number, how: number): void {
    this.slot(low, high, how, ACCESS_READ);
    if ((low & 0xfff) + size <= 4096) return;
    const next = ((low & ~0xfff) >>> 0) + 4096;
    this.slot(next | 0, next >= HIGH ? (high + 1) | 0 : high, how, ACCESS_READ);
  }

  /** @param size 1, 2 or 4 */
  write(low: number, high: number, size: number, value: number, how: number): void {
    this.watch(low, high, size, how, true);
    if ((low & 0xfff) + size > 4096) return this.writeSplit(low, high, size, value, how);
    const host = this.hostOf(low, high, how, ACCESS_WRITE);
    if (host < 0) this.mem.write(this.physicalOf(low, high, how, ACCESS_WRITE), size, lowBytes(value, size));
    else putBytes(this.view, host, size, value);
  }

  /**
   * Writes a value to places in a row that lie within one page of registers, which is looked up once.
   * @param size 1, 2 or 4  @param step bytes from one place to the next
   * @returns whether it has: nothing is done where there is memory, or somebody watches
   */
  fillRegisters(low: number, high: number, size: number, value: number, count: number, step: number): boolean {
    if (this.debug.watching) return false;
    const slot = this.slot(low, high, AS_CURRENT, ACCESS_WRITE);
    if (this.slotHost[slot]! >= 0) return false;
    const bytes = lowBytes(value, size);
    const first = this.slotPhysical[slot]! + (low & 0xfff);
    for (let i = 0; i < count; i++) this.mem.write(first + i * step, size, bytes);
    return true;
  }

  write64(low: number, high: number, valueLow: number, valueHigh: number, how: number): void {
    if ((low & 0xfff) > 0xff8) this.probeWrite(low, high, 8, how);
    this.write(low, high, 4, valueLow, how);
    const next = (low >>> 0) + 4;
    this.write(next | 0, next >= HIGH ? (high + 1) | 0 : high, 4, valueHigh, how);
  }

  private writeSplit(low: number, high: number, size: number, value: number, how: number): void {
    this.probeWrite(low, high, size, how);
    for (let i = 0; i < size; i++) {
      const at = (low >>> 0) + i;
      this.write(at | 0, at >= HIGH ? (high + 1) | 0 : high, 1, value >> (8 * i), how);
    }
  }
}

/** Index into the table of a level. */
function indexAt(low: number, high: number, level: number): number {
  switch (level) {
    case 1:
      return (low >>> 12) & 0x1ff;
    case 2:
      return (low >>> 21) & 0x1ff;
    case 3:
      return ((high << 2) | (low >>> 30)) & 0x1ff;
    case 4:
      return (high >>> 7) & 0x1ff;
    default:
      return (high >>> 16) & 0x1ff;
  }
}

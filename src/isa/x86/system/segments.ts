/** Segment descriptors: loading, checking and describing them (Intel SDM vol. 3, chapter 3). */
import { CS, DS, ES, FS, GDTR_BASE, GDTR_LIMIT, GS, LDTR, SEG_NULL, SS, TR, ZF } from '../state.ts';
import {
  ATTR_CODE,
  ATTR_CONFORMING,
  ATTR_DB,
  ATTR_EXPAND_DOWN,
  ATTR_G,
  ATTR_L,
  ATTR_P,
  ATTR_READABLE,
  ATTR_S,
  ATTR_WRITABLE,
  GP,
  NP,
  SS_FAULT,
  attrDpl,
} from './core.ts';
import type { Core } from './core.ts';
import { AS_SYSTEM } from './mmu.ts';
import type { Mmu } from './mmu.ts';

const REAL_DATA = 0x93;
const V86_SEGMENT = 0xf3;

// System descriptor types (attributes bits 0-3 with S clear).
export const TYPE_TSS16 = 1;
export const TYPE_LDT = 2;
export const TYPE_TSS16_BUSY = 3;
export const TYPE_CALL_GATE16 = 4;
export const TYPE_TASK_GATE = 5;
export const TYPE_TSS32 = 9;
export const TYPE_TSS32_BUSY = 11;
export const TYPE_CALL_GATE32 = 12;

export class Segments {
  private readonly core: Core;
  private readonly mmu: Mmu;
  /** The descriptor last read, and its linear address. */
  low = 0;
  high = 0;
  atLow = 0;
  atHigh = 0;

  constructor(core: Core, mmu: Mmu) {
    this.core = core;
    this.mmu = mmu;
  }

  /** Reads the descriptor that a selector names. @returns false when it lies outside its table */
  read(selector: number): boolean {
    const { core, mmu } = this;
    let baseLow: number;
    let baseHigh: number;
    let limit: number;
    if (selector & 4) {
      if (core.segAttr(LDTR) & SEG_NULL) return false;
      baseLow = core.segBaseLow(LDTR);
      baseHigh = core.segBaseHigh(LDTR);
      limit = core.segLimit(LDTR);
    } else {
      baseLow = core.get(GDTR_BASE);
      baseHigh = core.get(GDTR_BASE + 4);
      limit = core.get(GDTR_LIMIT) >>> 0;
    }
    const offset = selector & 0xfff8;
    if (offset + 7 > limit) return false;
    const sum = (baseLow >>> 0) + offset;
    this.atLow = sum | 0;
    this.atHigh = sum > 0xffffffff && core.longMode ? (baseHigh + 1) | 0 : baseHigh;
    mmu.read64(this.atLow, this.atHigh, AS_SYSTEM);
    this.low = core.low;
    this.high = core.high;
    return true;
  }

  /** Reads a descriptor or raises the vector with the selector as its error code. */
  require(selector: number, vector = GP): void {
    if (!this.read(selector)) this.core.selectorFault(vector, selector);
  }

  get attributes(): number {
    return (this.high >> 8) & 0xf0ff;
  }
  get dpl(): number {
    return (this.high >> 13) & 3;
  }
  get present(): boolean {
    return (this.high & 0x8000) !== 0;
  }
  /** Type of a system descriptor or gate, or -1 when it is a code or data segment. */
  get systemType(): number {
    return this.high & 0x1000 ? -1 : (this.high >> 8) & 15;
  }
  get base(): number {
    return (this.low >>> 16) | ((this.high & 0xff) << 16) | (this.high & 0xff000000);
  }
  get limit(): number {
    const raw = (this.low & 0xffff) | (this.high & 0xf0000);
    return this.attributes & ATTR_G ? ((raw << 12) | 0xfff) >>> 0 : raw;
  }
  /** Upper base word of a 16-byte system descriptor. */
  readUpper(): number {
    const sum = (this.atLow >>> 0) + 8;
    return this.mmu.read32(sum | 0, sum > 0xffffffff ? this.atHigh + 1 : this.atHigh, AS_SYSTEM);
  }

  /** Sets bits in the descriptor's type in memory: accessed, or busy. */
  markType(bits: number): void {
    if ((this.high & (bits << 8)) === bits << 8) return;
    this.high |= bits << 8;
    this.writeType();
  }

  writeType(): void {
    const sum = (this.atLow >>> 0) + 4;
    const high = sum > 0xffffffff ? (this.atHigh + 1) | 0 : this.atHigh;
    this.mmu.write(sum | 0, high, 4, this.high, AS_SYSTEM);
  }

  /** Puts the descriptor read into a segment register and marks it accessed. */
  commit(segment: number, selector: number): void {
    this.markType(1);
    this.core.setSegment(segment, selector, this.base, 0, this.limit, this.attributes);
  }

  setNull(segment: number, selector: number): void {
    // SS keeps a DPL: it equals the CPL.
    const dpl = segment === SS ? (selector & 3) << 5 : 0;
    this.core.setSegment(segment, selector, 0, 0, 0, SEG_NULL | dpl);
  }

  setReal(segment: number, selector: number): void {
    const { core } = this;
    if (core.v86) core.setSegment(segment, selector, selector << 4, 0, 0xffff, V86_SEGMENT);
    else {
      // Limit and attributes outlive the way back to real mode.
      const attributes = core.segAttr(segment) & SEG_NULL ? REAL_DATA : core.segAttr(segment);
      core.setSegment(segment, selector, selector << 4, 0, core.segLimit(segment), attributes);
    }
  }

  /** Loads ES, SS, DS, FS or GS as MOV and POP do. */
  load(segment: number, selector: number): void {
    if (!this.core.isProtected) this.setReal(segment, selector);
    else if (segment === SS) this.loadStack(selector, this.core.cpl, GP);
    else this.loadData(segment, selector);
  }

  private loadData(segment: number, selector: number): void {
    const { core } = this;
    if ((selector & 0xfffc) === 0) return this.setNull(segment, selector);
    this.require(selector);
    const { attributes } = this;
    const code = (attributes & ATTR_CODE) !== 0;
    if (!(attributes & ATTR_S) || (code && !(attributes & ATTR_READABLE))) {
      core.selectorFault(GP, selector);
    }
    const conforming = code && (attributes & ATTR_CONFORMING) !== 0;
    if (!conforming && Math.max(selector & 3, core.cpl) > attrDpl(attributes)) {
      core.selectorFault(GP, selector);
    }
    if (!(attributes & ATTR_P)) core.selectorFault(NP, selector);
    this.commit(segment, selector);
  }

  /**
   * Checks a stack segment for a privilege level and leaves its descriptor read.
   * @param vector GP, or TS when the selector comes from a TSS
   */
  checkStack(selector: number, cpl: number, vector: number): void {
    const { core } = this;
    if ((selector & 0xfffc) === 0) core.fault(vector, core.ext);
    this.require(selector, vector);
    const { attributes } = this;
    const wanted = ATTR_S | ATTR_WRITABLE;
    if ((selector & 3) !== cpl || attrDpl(attributes) !== cpl || (attributes & (wanted | ATTR_CODE)) !== wanted)
      core.selectorFault(vector, selector);
    if (!(attributes & ATTR_P)) core.selectorFault(SS_FAULT, selector);
  }

  loadStack(selector: number, cpl: number, vector: number): void {
    if ((selector & 0xfffc) === 0 && this.core.code64 && cpl < 3 && (selector & 3) === cpl) {
      return this.setNull(SS, selector);
    }
    this.checkStack(selector, cpl, vector);
    this.commit(SS, selector);
  }

  /** After a return to an outer level: data segments that it must not see become null. */
  dropInner(cpl: number): void {
    const { core } = this;
    for (const segment of [ES, DS, FS, GS]) {
      const attributes = core.segAttr(segment);
      if (attributes & SEG_NULL) {
        // A null selector stays, but its base must not leak (AMD APM vol. 2, 4.5.3 leaves it; Intel clears).
        continue;
      }
      const conforming = ATTR_CODE | ATTR_CONFORMING;
      if ((attributes & conforming) !== conforming && attrDpl(attributes) < cpl) {
        this.setNull(segment, 0);
      }
    }
  }

  // --- Access by system code, outside 64-bit mode. ---

  /**
   * Limit and type checks of a memory operand (SDM vol. 3, 5.3 and 5.5).
   * @param down the elements follow each other downwards
   * @returns how many elements of `size` bytes from the offset on may be accessed: at least one, or #GP(0) or #SS(0)
   */
  room(segment: number, offset: number, size: number, down: boolean, write: boolean): number {
    const { core } = this;
    const attributes = core.segAttr(segment);
    const limit = core.segLimit(segment);
    const first = offset >>> 0;
    const last = first + size - 1;
    const data = (attributes & ATTR_CODE) === 0;
    const checked = core.isProtected;
    const expandsDown = checked && data && (attributes & ATTR_EXPAND_DOWN) !== 0;
    const top = expandsDown ? (attributes & ATTR_DB ? 0xffffffff : 0xffff) : limit;
    const accessible = write ? data && (attributes & ATTR_WRITABLE) !== 0 : data || (attributes & ATTR_READABLE) !== 0;
    const bad = last > top || (expandsDown && first <= limit) || (checked && (!accessible || (attributes & SEG_NULL) !== 0));
    if (bad) core.fault(segment === SS ? SS_FAULT : GP, 0);
    if (down) return expandsDown ? 1 : Infinity;
    return Math.floor((top + 1 - first) / size);
  }

  // --- LDTR and TR. ---

  loadLdt(selector: number): void {
    const { core } = this;
    if ((selector & 0xfffc) === 0) return core.setSegment(LDTR, selector, 0, 0, 0, SEG_NULL);
    this.requireGdt(selector);
    if (this.systemType !== TYPE_LDT) core.selectorFault(GP, selector);
    if (!this.present) core.selectorFault(NP, selector);
    this.setSystem(LDTR, selector);
  }

  loadTask(selector: number): void {
    const { core } = this;
    if ((selector & 0xfffc) === 0) core.gp();
    this.requireGdt(selector);
    const type = this.systemType;
    if (type !== TYPE_TSS32 && (type !== TYPE_TSS16 || core.longMode)) core.selectorFault(GP, selector);
    if (!this.present) core.selectorFault(NP, selector);
    const upper = core.longMode ? this.readUpper() : 0;
    this.markType(2);
    core.setSegment(TR, selector, this.base, upper, this.limit, this.attributes);
  }

  private requireGdt(selector: number): void {
    if (selector & 4) this.core.selectorFault(GP, selector);
    this.require(selector);
  }

  setSystem(segment: number, selector: number): void {
    const upper = this.core.longMode ? this.readUpper() : 0;
    this.core.setSegment(segment, selector, this.base, upper, this.limit, this.attributes);
  }

  // --- LAR, LSL, VERR, VERW: the outcome is ZF. ---

  private setZf(set: boolean): boolean {
    this.core.setArithmetic(set ? ZF : 0, ZF);
    return set;
  }

  /** Is the descriptor's type one that LAR or LSL describes, and is it visible from here? */
  private visible(selector: number, systemTypes: number): boolean {
    if ((selector & 0xfffc) === 0 || !this.read(selector)) return false;
    const { attributes } = this;
    if (!(attributes & ATTR_S) && !((systemTypes >> (attributes & 15)) & 1)) return false;
    const conforming = ATTR_S | ATTR_CODE | ATTR_CONFORMING;
    if ((attributes & conforming) === conforming) return true;
    return Math.max(this.core.cpl, selector & 3) <= attrDpl(attributes);
  }

  lar(selector: number, register: number, size: number): void {
    this.requireProtected();
    const types = this.core.longMode ? 0x1a04 : 0x1a3e;
    if (!this.setZf(this.visible(selector, types))) return;
    this.core.writeReg(register, size, this.high & (size === 2 ? 0xff00 : 0x00ffff00), 0);
  }

  lsl(selector: number, register: number, size: number): void {
    this.requireProtected();
    const types = this.core.longMode ? 0x0a04 : 0x0a0e;
    if (!this.setZf(this.visible(selector, types))) return;
    this.core.writeReg(register, size, this.limit | 0, 0);
  }

  verify(selector: number, write: boolean): void {
    this.requireProtected();
    let good = this.visible(selector, 0);
    if (good) {
      const code = (this.attributes & ATTR_CODE) !== 0;
      const bit = (this.attributes & ATTR_WRITABLE) !== 0;
      good = write ? !code && bit : !code || bit;
    }
    this.setZf(good);
  }

  private requireProtected(): void {
    if (!this.core.isProtected) this.core.ud();
  }

  /** A flat code or stack segment as SYSCALL and its kin make it. */
  setFlat(segment: number, selector: number, attributes: number): void {
    this.core.setSegment(segment, selector, 0, 0, -1, attributes);
  }

  /**
   * Checks a code segment for a direct transfer (SDM vol. 3, 6.8.1) whose descriptor has been read.
   * @param rpl that of the selector  @param cpl the level to run at
   */
  checkCode(selector: number, rpl: number, cpl: number): void {
    const { core, attributes } = this;
    const dpl = attrDpl(attributes);
    const kind = ATTR_S | ATTR_CODE;
    if ((attributes & kind) !== kind) core.selectorFault(GP, selector);
    const bad = attributes & ATTR_CONFORMING ? dpl > cpl : rpl > cpl || dpl !== cpl;
    if (bad) core.selectorFault(GP, selector);
    this.checkCodeUse(selector);
  }

  /** Presence, and no L with D in long mode. */
  checkCodeUse(selector: number): void {
    const { core, attributes } = this;
    if (core.longMode && attributes & ATTR_L && attributes & (1 << 14)) {
      core.selectorFault(GP, selector);
    }
    if (!(attributes & ATTR_P)) core.selectorFault(NP, selector);
  }

  /** Offset within the code segment whose descriptor has been read; else #GP(0). */
  checkTarget(low: number, high: number): void {
    const { core } = this;
    if (core.longMode && this.attributes & ATTR_L) {
      if (!core.isCanonical(low, high)) core.gp();
    } else if (low >>> 0 > this.limit || high !== 0) core.gp();
  }

  /** Makes the descriptor read the code segment at a privilege level. */
  commitCode(selector: number, cpl: number): void {
    this.commit(CS, (selector & ~3) | cpl);
    this.core.cpl = cpl;
  }
}

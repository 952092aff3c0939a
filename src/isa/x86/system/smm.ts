/**
 * System management mode (SDM vol. 3, chapter 33), with the state save area of processors that have
 * long mode as AMD lays it out (APM vol. 2, table 10-1), which is what firmware for virtual machines
 * expects.
 */
import {
  CR0,
  CR3,
  CR4,
  CS,
  DR6,
  DR7,
  DS,
  EFER,
  ES,
  FS,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  GS,
  HALTED,
  IDTR_BASE,
  IDTR_LIMIT,
  INTERRUPT_SHADOW,
  LDTR,
  NMI_BLOCKED,
  SEG_BASE,
  SEG_LIMIT,
  SEG_NULL,
  SEG_SELECTOR,
  SS,
  TR,
} from '../state.ts';
import { ATTR_P, CR0_EM, CR0_PE, CR0_PG, CR0_TS, CR4_PAE, EFER_LMA, EFER_LME, attrDpl } from './core.ts';
import type { Core } from './core.ts';
import type { Debug } from './debug.ts';
import type { Mmu } from './mmu.ts';
import { SMBASE_AFTER_RESET } from './power-on.ts';

/** Where execution begins, relative to SMBASE; the save area lies above it. */
const ENTRY = 0x8000;
/** I/O instruction restart is not there; SMBASE can be moved; layout of the AMD64 save area. */
const REVISION = 0x20064;
const REVISION_RELOCATES = 1 << 17;

/**
 * Offsets in the save area from SMBASE + 8000h. Segments have 16 bytes: selector, attributes (as in the
 * descriptor's upper word from bit 8 on), limit, base.
 */
const SAVED_SEGMENTS = [
  [ES, 0x7e00],
  [CS, 0x7e10],
  [SS, 0x7e20],
  [DS, 0x7e30],
  [FS, 0x7e40],
  [GS, 0x7e50],
  [LDTR, 0x7e70],
  [TR, 0x7e90],
] as const;
const SAVED_GDT = 0x7e60;
const SAVED_IDT = 0x7e80;
const SAVED_HALT = 0x7ec9;
const SAVED_REVISION = 0x7efc;
const SAVED_BASE = 0x7f00;
const SAVED_FLAGS = 0x7f70;
const SAVED_RIP = 0x7f78;
const SAVED_REGISTERS = 0x7ff8; // RAX, and the others below it in the order of their numbers
/** 64-bit registers of the state block by their place. */
const SAVED_QUADS = [
  [EFER, 0x7ed0],
  [CR4, 0x7f48],
  [CR3, 0x7f50],
  [CR0, 0x7f58],
  [DR7, 0x7f60],
  [DR6, 0x7f68],
] as const;
const REGISTERS = Array.from({ length: 16 }, (_, n) => n);

export class Smm {
  private readonly core: Core;
  private readonly mmu: Mmu;
  private readonly debug: Debug;
  base = SMBASE_AFTER_RESET;
  active = false;
  /** NMIs were blocked when the mode was entered. */
  nmiBlocked = false;

  constructor(core: Core, mmu: Mmu, debug: Debug) {
    this.core = core;
    this.mmu = mmu;
    this.debug = debug;
  }

  reset(): void {
    this.base = SMBASE_AFTER_RESET;
    this.setActive(false);
  }

  /** Takes over a saved state. */
  restore(base: number, active: boolean, nmiBlocked = false): void {
    this.base = base;
    this.nmiBlocked = nmiBlocked;
    this.setActive(active);
  }

  private setActive(active: boolean): void {
    this.active = active;
    this.core.platform.onSystemManagement?.(active);
  }

  // --- Memory of the save area. ---

  private put(offset: number, size: number, value: number): void {
    const mask = size === 4 ? value >>> 0 : value & (size === 2 ? 0xffff : 0xff);
    this.core.platform.mem.write((this.base >>> 0) + ENTRY + offset, size, mask);
  }
  private get(offset: number, size: number): number {
    return this.core.platform.mem.read((this.base >>> 0) + ENTRY + offset, size) | 0;
  }
  private put64(offset: number, from: number): void {
    this.put(offset, 4, this.core.get(from));
    this.put(offset + 4, 4, this.core.get(from + 4));
  }
  private get64(offset: number, to: number): void {
    this.core.set2(to, this.get(offset, 4), this.get(offset + 4, 4));
  }

  // --- Entry. ---

  enter(): void {
    const { core } = this;
    core.platform.trace?.('smi', `enter at ${(this.base >>> 0).toString(16)}`);
    this.setActive(true);
    this.nmiBlocked = core.get(NMI_BLOCKED) !== 0;
    core.set(NMI_BLOCKED, 1);
    this.save();
    core.set(HALTED, 0);
    core.set(INTERRUPT_SHADOW, 0);
    core.writeFlags(2);
    core.setPc(ENTRY, 0);
    core.set2(CR0, core.cr0 & ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG), 0);
    core.set2(CR4, 0, 0);
    core.set2(EFER, 0, 0);
    core.set2(DR7, 0x400, 0);
    core.setSegment(CS, (this.base >>> 4) & 0xffff, this.base, 0, -1, 0x809b);
    for (const segment of [ES, SS, DS, FS, GS]) core.setSegment(segment, 0, 0, 0, -1, 0x8093);
    core.cpl = 0;
    this.modeReplaced();
  }

  private modeReplaced(): void {
    const { core } = this;
    this.mmu.configure();
    this.debug.configure();
    core.changed = core.spaceChanged = true;
    core.services.flushAll();
    core.refresh();
  }

  private save(): void {
    const { core } = this;
    for (const [segment, at] of SAVED_SEGMENTS) {
      const from = core.segAt(segment);
      const attributes = core.segAttr(segment);
      this.put(at, 2, core.get(from + SEG_SELECTOR));
      this.put(at + 2, 2, attributes & 0xf0ff);
      this.put(at + 4, 4, core.get(from + SEG_LIMIT));
      this.put64(at + 8, from + SEG_BASE);
    }
    this.put(SAVED_GDT + 4, 4, core.get(GDTR_LIMIT));
    this.put64(SAVED_GDT + 8, GDTR_BASE);
    this.put(SAVED_IDT + 4, 4, core.get(IDTR_LIMIT));
    this.put64(SAVED_IDT + 8, IDTR_BASE);
    for (const [from, at] of SAVED_QUADS) this.put64(at, from);
    for (const n of REGISTERS) this.put64(SAVED_REGISTERS - 8 * n, GPR + 8 * n);
    this.put(SAVED_FLAGS, 4, core.readFlags());
    this.put(SAVED_FLAGS + 4, 4, 0);
    this.put(SAVED_RIP, 4, core.pcLow);
    this.put(SAVED_RIP + 4, 4, core.pcHigh);
    this.put(SAVED_HALT, 1, core.get(HALTED));
    this.put(SAVED_REVISION, 4, REVISION);
    this.put(SAVED_BASE, 4, this.base);
  }

  // --- RSM. ---

  /** @returns false when the saved state cannot be: the processor shuts down */
  resume(): boolean {
    const { core } = this;
    if (!this.active) core.ud();
    for (const [to, at] of SAVED_QUADS) this.get64(at, to);
    if (!this.sane()) return false;
    for (const [segment, at] of SAVED_SEGMENTS) this.loadSegment(segment, at);
    core.set(GDTR_LIMIT, this.get(SAVED_GDT + 4, 4) & 0xffff);
    this.get64(SAVED_GDT + 8, GDTR_BASE);
    core.set(IDTR_LIMIT, this.get(SAVED_IDT + 4, 4) & 0xffff);
    this.get64(SAVED_IDT + 8, IDTR_BASE);
    for (const n of REGISTERS) this.get64(SAVED_REGISTERS - 8 * n, GPR + 8 * n);
    core.writeFlags(this.get(SAVED_FLAGS, 4) & 0x3f7fd7);
    core.setPc(this.get(SAVED_RIP, 4), this.get(SAVED_RIP + 4, 4));
    core.set(HALTED, this.get(SAVED_HALT, 1) & 1);
    core.cpl = core.cr0 & CR0_PE ? (core.v86 ? 3 : attrDpl(core.segAttr(SS))) : 0;
    if (this.get(SAVED_REVISION, 4) & REVISION_RELOCATES) this.base = this.get(SAVED_BASE, 4);
    core.set(NMI_BLOCKED, this.nmiBlocked ? 1 : 0);
    this.setActive(false);
    core.platform.trace?.('smi', 'leave');
    this.modeReplaced();
    if (this.mmu.isPae) this.mmu.loadPdptes(core.get(CR3));
    return true;
  }

  /** Are the control registers ones that could have been set (SDM vol. 3, 33.4.1)? */
  private sane(): boolean {
    const { core } = this;
    const { cr0, efer } = core;
    if (core.get(CR0 + 4) !== 0 || core.get(CR4 + 4) !== 0) return false;
    if (cr0 & CR0_PG && !(cr0 & CR0_PE)) return false;
    const long = (cr0 & CR0_PG) !== 0 && (efer & EFER_LME) !== 0;
    if (long !== ((efer & EFER_LMA) !== 0)) return false;
    return !long || (core.cr4 & CR4_PAE) !== 0;
  }

  private loadSegment(segment: number, at: number): void {
    const { core } = this;
    const attributes = this.get(at + 2, 2) & 0xf0ff;
    // A segment that must not be used is saved without its present bit.
    const unusable = attributes & ATTR_P ? 0 : SEG_NULL;
    core.setSegment(
      segment,
      this.get(at, 2) & 0xffff,
      this.get(at + 8, 4),
      this.get(at + 12, 4),
      this.get(at + 4, 4),
      attributes | unusable,
    );
  }
}

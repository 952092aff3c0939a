/** FXSAVE, FXRSTOR and the XSAVE family (SDM vol. 1, chapters 10.5 and 13). */
import { ACCESS_READ, ACCESS_WRITE } from '../../isa.ts';
import { FCS, FCW, FDP, FDS, FIP, FOP, FPREG, FSW, FTAG, FTOP, MXCSR, MXCSR_DEFAULT, XCR0, XMM, YMM_HIGH } from '../state.ts';
import { CR0_EM, CR0_TS, CR4_OSXSAVE, NM, NO_ERROR_CODE } from './core.ts';
import type { Core } from './core.ts';
import { AS_CURRENT } from './mmu.ts';
import type { Mmu } from './mmu.ts';
import {
  AT_MXCSR,
  AT_REGISTERS,
  AT_XMM,
  AVX,
  AVX_BYTES,
  AVX_OFFSET,
  SSE,
  X87,
  XSAVE_AREA,
  XSAVE_LEGACY,
  areaBytes,
} from './xsave-layout.ts';

const HIGH = 0x1_0000_0000;
export const MXCSR_MASK = 0xffff;
const FCW_INIT = 0x37f;

/** In XCOMP_BV's upper word: the area is compacted. */
const COMPACT = 1 << 31;

const FXSAVE = 0;
const FXRSTOR = 1;
const XSAVE = 2;
const XRSTOR = 3;
const XSAVEOPT = 4;
const XSAVEC = 5;
const XSAVES = 6;
const XRSTORS = 7;

export class XSave {
  private readonly core: Core;
  private readonly mmu: Mmu;
  private readonly area = new Uint8Array(areaBytes(AVX));
  private readonly words = new Int32Array(this.area.buffer);
  private readonly view = new DataView(this.area.buffer);

  constructor(core: Core, mmu: Mmu) {
    this.core = core;
    this.mmu = mmu;
  }

  execute(which: number, low: number, high: number, wide: boolean): void {
    const { core } = this;
    if (which > FXRSTOR && !(core.cr4 & CR4_OSXSAVE)) core.ud();
    const off = which > FXRSTOR ? CR0_TS : CR0_TS | CR0_EM;
    if (core.cr0 & off) core.fault(NM, NO_ERROR_CODE);
    if (which >= XSAVES) core.requireSupervisor();
    if (low & (which > FXRSTOR ? 63 : 15)) core.gp();
    switch (which) {
      case FXSAVE:
        return this.fxsave(low, high, wide);
      case FXRSTOR:
        return this.fxrstor(low, high, wide);
      case XSAVE:
      case XSAVEOPT:
        return this.xsave(low, high, wide, false, which === XSAVEOPT);
      case XSAVEC:
      case XSAVES:
        return this.xsave(low, high, wide, true, true);
      case XRSTOR:
      case XRSTORS:
        return this.xrstor(low, high, wide, which === XRSTORS);
      default:
        core.ud();
    }
  }

  /** xmm8 to xmm15 exist in 64-bit mode only. */
  private get xmmBytes(): number {
    return this.core.code64 ? 256 : 128;
  }

  private fxsave(low: number, high: number, wide: boolean): void {
    this.collectX87(wide);
    this.collectMxcsr();
    this.store(low, high, 0, AT_REGISTERS + 128);
    this.storeXmm(low, high);
  }

  private fxrstor(low: number, high: number, wide: boolean): void {
    this.load(low, high, 0, AT_XMM + this.xmmBytes);
    this.checkMxcsr();
    this.restoreX87(wide);
    this.restoreXmm();
    this.core.set(MXCSR, this.words[AT_MXCSR / 4]!);
    this.core.changed = true;
  }

  /** Components that the instruction names and XCR0 has. */
  private requested(): number {
    return this.core.regLow(0) & this.core.get(XCR0);
  }

  /**
   * Components that are not as after power-on: those that XSAVEOPT, XSAVEC and XSAVES write, and
   * that XGETBV with index 1 tells of. SSE counts by its registers alone (SDM vol. 1, 13.6).
   */
  inUse(): number {
    const { core } = this;
    const { xmmBytes } = this;
    let components = core.get(XCR0);
    if (!this.x87InUse()) components &= ~X87;
    if (this.isZero(XMM, xmmBytes)) components &= ~SSE;
    if (this.isZero(YMM_HIGH, xmmBytes)) components &= ~AVX;
    return components;
  }

  private isZero(offset: number, bytes: number): boolean {
    const { core } = this;
    for (let i = 0; i < bytes; i += 4) if (core.get(offset + i) !== 0) return false;
    return true;
  }

  private x87InUse(): boolean {
    const { core } = this;
    if (core.get(FCW) !== FCW_INIT || core.get(FSW) !== 0 || core.get(FTOP) !== 0) return true;
    for (let i = 0; i < 8; i++) if (core.u8[core.base + FTAG + i] === 0) return true;
    return !this.isZero(FPREG, 128) || !this.isZero(FIP, 24 - 4) || core.view.getUint32(core.base + FCS, true) !== 0;
  }

  /** @param optimised leaves out components that are as after power-on */
  private xsave(low: number, high: number, wide: boolean, compact: boolean, optimised: boolean): void {
    const requested = this.requested();
    let used = optimised ? this.inUse() : -1;
    // MXCSR counts where the form leaves it out with the registers (SDM vol. 1, 13.10).
    if (compact && this.core.get(MXCSR) !== MXCSR_DEFAULT) used |= SSE;
    const wanted = requested & used;
    const bytes = compact ? areaBytes(requested) : areaBytes(requested & AVX);
    this.mmu.probeWrite(low, high, bytes, AS_CURRENT);
    let present = wanted;
    if (!compact) {
      this.load(low, high, XSAVE_LEGACY, 4);
      present |= this.words[XSAVE_LEGACY / 4]! & ~requested;
    }
    if (wanted & X87) {
      this.collectX87(wide);
      this.store(low, high, 0, AT_MXCSR);
      this.store(low, high, AT_REGISTERS, 128);
    }
    // Only the compacting forms leave MXCSR out with the registers.
    if (compact ? wanted & SSE : requested & (SSE | AVX)) {
      this.collectMxcsr();
      this.store(low, high, AT_MXCSR, 8);
    }
    if (wanted & SSE) this.storeXmm(low, high);
    if (wanted & AVX) this.storeYmm(low, high);
    const { words } = this;
    const at = XSAVE_LEGACY / 4;
    words[at] = present;
    words[at + 1] = words[at + 2] = words[at + 3] = 0;
    if (compact) {
      words[at + 2] = requested;
      words[at + 3] = COMPACT;
    }
    this.store(low, high, XSAVE_LEGACY, compact ? 16 : 4);
  }

  private xrstor(low: number, high: number, wide: boolean, system: boolean): void {
    const { core, words } = this;
    const wanted = this.requested();
    this.load(low, high, 0, XSAVE_AREA);
    const present = this.checkHeader(system);
    const compact = words[XSAVE_LEGACY / 4 + 3]! < 0;
    if (wanted & present & AVX) this.load(low, high, AVX_OFFSET, AVX_BYTES);
    // MXCSR belongs to both vector components in the standard form, to SSE alone in the compacted one.
    const loadsMxcsr = compact ? (wanted & present & SSE) !== 0 : (wanted & (SSE | AVX)) !== 0;
    if (loadsMxcsr) this.checkMxcsr();
    if (wanted & X87) {
      if (present & X87) this.restoreX87(wide);
      else this.initX87();
    }
    if (wanted & SSE) {
      if (!(present & SSE)) this.area.fill(0, AT_XMM, AT_XMM + 256);
      this.restoreXmm();
    }
    if (wanted & AVX) {
      if (!(present & AVX)) this.area.fill(0, AVX_OFFSET, AVX_OFFSET + AVX_BYTES);
      this.restoreYmm();
    }
    if (loadsMxcsr) core.set(MXCSR, words[AT_MXCSR / 4]!);
    else if (wanted & SSE) core.set(MXCSR, MXCSR_DEFAULT);
    core.changed = true;
  }

  /** @returns XSTATE_BV */
  private checkHeader(system: boolean): number {
    const { core, words } = this;
    const at = XSAVE_LEGACY / 4;
    const present = words[at]!;
    const mask = core.get(XCR0);
    const compact = words[at + 3]! < 0;
    let bad = present & ~mask || words[at + 1]! !== 0;
    if (system && !compact) bad = 1;
    if (compact) {
      const layout = words[at + 2]!;
      if (!core.model.has('xsavec') || words[at + 3]! !== COMPACT || layout & ~mask || present & ~layout) bad = 1;
    } else if (words[at + 2]! !== 0 || words[at + 3]! !== 0) bad = 1;
    // Bytes 16-23 must be zero in both forms, the rest in the compacted one.
    const last = compact ? 16 : 6;
    for (let i = 4; i < last; i++) if (words[at + i]! !== 0) bad = 1;
    if (bad) core.gp();
    return present;
  }

  // --- Between the state block and the area. ---

  private collectX87(wide: boolean): void {
    const { core, view, words } = this;
    const top = core.get(FTOP);
    view.setUint16(0, core.get(FCW), true);
    view.setUint16(2, (core.get(FSW) & ~0x3800) | (top << 11), true);
    let tags = 0;
    for (let i = 0; i < 8; i++) if (core.u8[core.base + FTAG + i] === 0) tags |= 1 << i;
    view.setUint16(4, tags, true);
    view.setUint16(6, core.get(FOP), true);
    words[2] = core.get(FIP);
    words[3] = wide ? core.get(FIP + 4) : core.view.getUint16(core.base + FCS, true);
    words[4] = core.get(FDP);
    words[5] = wide ? core.get(FDP + 4) : core.view.getUint16(core.base + FDS, true);
    for (let i = 0; i < 8; i++) {
      const from = FPREG + 16 * ((top + i) & 7);
      const to = AT_REGISTERS / 4 + 4 * i;
      words[to] = core.get(from);
      words[to + 1] = core.get(from + 4);
      words[to + 2] = core.get(from + 8) & 0xffff;
      words[to + 3] = 0;
    }
  }

  private collectMxcsr(): void {
    this.words[AT_MXCSR / 4] = this.core.get(MXCSR);
    this.words[AT_MXCSR / 4 + 1] = MXCSR_MASK;
  }

  private restoreX87(wide: boolean): void {
    const { core, view, words } = this;
    const status = view.getUint16(2, true);
    const top = (status >> 11) & 7;
    core.set(FCW, (view.getUint16(0, true) & 0x1f7f) | 0x40);
    core.set(FSW, status & ~0x3800);
    core.set(FTOP, top);
    const tags = view.getUint8(4);
    for (let i = 0; i < 8; i++) core.u8[core.base + FTAG + i] = (tags >> i) & 1 ? 0 : 1;
    core.set(FOP, view.getUint16(6, true) & 0x7ff);
    core.set2(FIP, words[2]!, wide ? words[3]! : 0);
    core.set2(FDP, words[4]!, wide ? words[5]! : 0);
    core.view.setUint16(core.base + FCS, wide ? 0 : words[3]!, true);
    core.view.setUint16(core.base + FDS, wide ? 0 : words[5]!, true);
    for (let i = 0; i < 8; i++) {
      const from = AT_REGISTERS / 4 + 4 * i;
      const to = FPREG + 16 * ((top + i) & 7);
      core.set2(to, words[from]!, words[from + 1]!);
      core.set2(to + 8, words[from + 2]! & 0xffff, 0);
    }
  }

  /** As FNINIT leaves it, with empty registers of zero. */
  initX87(): void {
    const { core } = this;
    core.set(FCW, FCW_INIT);
    core.set(FSW, 0);
    core.set(FTOP, 0);
    core.u8.fill(1, core.base + FTAG, core.base + FTAG + 8);
    core.u8.fill(0, core.base + FPREG, core.base + FPREG + 128);
    core.u8.fill(0, core.base + FIP, core.base + FDS + 2);
  }

  private checkMxcsr(): void {
    if (this.words[AT_MXCSR / 4]! & ~MXCSR_MASK) this.core.gp();
  }

  private restoreXmm(): void {
    const { core } = this;
    const at = (core.base + XMM) / 4;
    const count = this.xmmBytes / 4;
    for (let i = 0; i < count; i++) core.i32[at + i] = this.words[AT_XMM / 4 + i]!;
  }

  private storeXmm(low: number, high: number): void {
    const { core } = this;
    const at = (core.base + XMM) / 4;
    const count = this.xmmBytes / 4;
    for (let i = 0; i < count; i++) this.words[AT_XMM / 4 + i] = core.i32[at + i]!;
    this.store(low, high, AT_XMM, this.xmmBytes);
  }

  private restoreYmm(): void {
    const { core } = this;
    const at = (core.base + YMM_HIGH) / 4;
    const count = this.xmmBytes / 4;
    for (let i = 0; i < count; i++) core.i32[at + i] = this.words[AVX_OFFSET / 4 + i]!;
  }

  private storeYmm(low: number, high: number): void {
    const { core } = this;
    const at = (core.base + YMM_HIGH) / 4;
    const count = this.xmmBytes / 4;
    for (let i = 0; i < count; i++) this.words[AVX_OFFSET / 4 + i] = core.i32[at + i]!;
    this.store(low, high, AVX_OFFSET, this.xmmBytes);
  }

  // --- Between the area and guest memory. ---

  private store(low: number, high: number, offset: number, length: number): void {
    this.transfer(low, high, offset, length, ACCESS_WRITE);
  }
  private load(low: number, high: number, offset: number, length: number): void {
    this.transfer(low, high, offset, length, ACCESS_READ);
  }

  private transfer(low: number, high: number, offset: number, length: number, access: number): void {
    const { mmu } = this;
    for (let done = 0; done < length; ) {
      const sum = (low >>> 0) + offset + done;
      const at = sum | 0;
      const atHigh = sum >= HIGH ? (high + 1) | 0 : high;
      const part = Math.min(length - done, 4096 - (at & 0xfff));
      const host = mmu.hostOf(at, atHigh, AS_CURRENT, access);
      if (host >= 0) this.copy(host, offset + done, part, access);
      else this.copySlowly(at, atHigh, offset + done, part, access);
      done += part;
    }
  }

  private copy(host: number, offset: number, length: number, access: number): void {
    const { core, words } = this;
    const memory = core.i32;
    const from = offset / 4;
    const to = host / 4;
    const count = length / 4;
    if (access === ACCESS_WRITE) for (let i = 0; i < count; i++) memory[to + i] = words[from + i]!;
    else for (let i = 0; i < count; i++) words[from + i] = memory[to + i]!;
  }

  private copySlowly(low: number, high: number, offset: number, length: number, access: number): void {
    const { mmu, words } = this;
    for (let i = 0; i < length; i += 4) {
      const index = (offset + i) / 4;
      if (access === ACCESS_WRITE) mmu.write((low + i) | 0, high, 4, words[index]!, AS_CURRENT);
      else words[index] = mmu.read32((low + i) | 0, high, AS_CURRENT);
    }
  }
}

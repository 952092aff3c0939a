/** Control and debug registers and what invalidates translations (SDM vol. 3, chapter 2). */
import { CPL, CR0, CR2, CR3, CR4, CS, DR, DR6, DR7, EFER, XCR0 } from '../state.ts';
import {
  ATTR_L,
  CR0_CD,
  CR0_EM,
  CR0_ET,
  CR0_MP,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR0_TS,
  CR0_WP,
  CR4_DE,
  CR4_FSGSBASE,
  CR4_LA57,
  CR4_MCE,
  CR4_OSFXSR,
  CR4_OSXMMEXCPT,
  CR4_OSXSAVE,
  CR4_PAE,
  CR4_PCE,
  CR4_PCIDE,
  CR4_PGE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  CR4_PVI,
  CR4_TSD,
  CR4_UMIP,
  CR4_VME,
  DB,
  EFER_LMA,
  EFER_LME,
  NO_ERROR_CODE,
} from './core.ts';
import { hex64 } from './core.ts';
import type { Core } from './core.ts';
import { DR6_BD, DR7_GD } from './debug.ts';
import type { Debug } from './debug.ts';
import { AS_CURRENT } from './mmu.ts';
import type { Mmu } from './mmu.ts';
import { AVX, SSE, X87, componentsOf } from './xsave-layout.ts';
import type { XSave } from './xsave.ts';

const CR0_DEFINED = 0xe005003f | 0;
const DR6_FIXED = 0xffff0ff0 | 0;
const DR6_WRITABLE = 0xe00f;
const DR7_FIXED = 1 << 10;
/** Changes of CR0 and CR4 after which no translation may be kept. */
const FLUSH_CR0 = CR0_PG | CR0_WP | CR0_PE;
const FLUSH_CR4 = CR4_PGE | CR4_PAE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_LA57;
const PDPTE_CR4 = CR4_PGE | CR4_PAE | CR4_PSE | CR4_SMEP;

export class Control {
  private readonly core: Core;
  private readonly mmu: Mmu;
  private readonly debug: Debug;
  private readonly xsave: XSave;
  private readonly validCr4: number;

  constructor(core: Core, mmu: Mmu, debug: Debug, xsave: XSave) {
    this.core = core;
    this.debug = debug;
    this.mmu = mmu;
    this.xsave = xsave;
    this.validCr4 = cr4Bits(core);
  }

  // --- MOV to and from control registers. ---

  /** CR8; translated code reads the others itself. */
  readTaskPriority(register: number): void {
    const { core } = this;
    core.requireSupervisor();
    core.setReg(register, core.platform.intc.getTpr(), 0);
  }

  write(number: number, register: number): void {
    const { core } = this;
    core.requireSupervisor();
    const low = core.regLow(register);
    const high = core.code64 ? core.regHigh(register) : 0;
    switch (number) {
      case 0:
        return this.writeCr0(low, high);
      case 2:
        return core.set2(CR2, low, high);
      case 3:
        return this.writeCr3(low, high);
      case 4:
        return this.writeCr4(low, high);
      case 8:
        if (high !== 0 || low & ~15) core.gp();
        return core.platform.intc.setTpr(low);
      default:
        core.ud();
    }
  }

  writeCr0(low: number, high: number): void {
    const { core } = this;
    const old = core.cr0;
    low |= CR0_ET;
    if (high !== 0 || (low & CR0_PG && !(low & CR0_PE)) || (low & CR0_NW && !(low & CR0_CD))) core.gp();
    const enabling = (low & ~old & CR0_PG) !== 0;
    const disabling = (old & ~low & CR0_PG) !== 0;
    if (enabling) this.checkPagingOn();
    if (disabling && (core.code64 || core.cr4 & CR4_PCIDE)) core.gp();
    const pae = low & CR0_PG && core.cr4 & CR4_PAE && !(core.efer & EFER_LME);
    if (pae && (low ^ old) & (CR0_PG | CR0_CD | CR0_NW) && !this.mmu.loadPdptes(core.get(CR3))) core.gp();
    core.set2(CR0, low & CR0_DEFINED, 0);
    if (enabling && core.efer & EFER_LME) core.set(EFER, core.efer | EFER_LMA);
    if (disabling) core.set(EFER, core.efer & ~EFER_LMA);
    if ((low ^ old) & FLUSH_CR0) {
      // Without paging there are no translations that could be stale: programs that call the
      // BIOS switch to real mode and back all the time.
      if ((low | old) & CR0_PG) core.services.flushAll();
      this.mmu.configure();
    }
    // Leaving protected mode: real mode runs with full privilege.
    if (!(low & CR0_PE)) core.set(CPL, 0);
    core.changed = true;
  }

  private checkPagingOn(): void {
    const { core } = this;
    if (!(core.efer & EFER_LME)) return;
    if (!(core.cr4 & CR4_PAE) || core.segAttr(CS) & ATTR_L) core.gp();
  }

  writeCr3(low: number, high: number): void {
    const { core, mmu } = this;
    const tagged = (core.cr4 & CR4_PCIDE) !== 0;
    const keep = tagged && high < 0;
    if (tagged) high &= 0x7fffffff;
    if (high & -(2 ** Math.max(0, core.model.physicalBits - 32))) core.gp();
    if (mmu.isPae && !mmu.loadPdptes(low)) core.gp();
    core.platform.trace?.('mmu', `address space ${hex64(high, low)}${keep ? ', kept' : ''}`);
    core.set2(CR3, low, high);
    mmu.configure();
    if (!keep) core.services.flushAddressSpace(core.currentAsid);
    core.changed = true;
  }

  writeCr4(low: number, high: number): void {
    const { core, mmu } = this;
    const old = core.cr4;
    if (high !== 0 || low & ~this.validCr4) core.gp();
    if (core.longMode && ((low ^ old) & CR4_LA57 || !(low & CR4_PAE))) core.gp();
    if (low & ~old & CR4_PCIDE && (!core.longMode || core.get(CR3) & 0xfff)) core.gp();
    const pae = core.paging && !core.longMode && low & CR4_PAE;
    if (pae && (low ^ old) & PDPTE_CR4 && !mmu.loadPdptes(core.get(CR3))) core.gp();
    core.set2(CR4, low, 0);
    if ((low ^ old) & FLUSH_CR4) core.services.flushAll();
    if ((low ^ old) & CR4_DE) this.debug.configure();
    mmu.configure();
    core.changed = true;
  }

  clts(): void {
    const { core } = this;
    core.requireSupervisor();
    core.set(CR0, core.cr0 & ~CR0_TS);
    core.changed = true;
  }

  /** LMSW sets PE but never clears it. */
  lmsw(value: number): void {
    const { core } = this;
    core.requireSupervisor();
    const mask = CR0_MP | CR0_EM | CR0_TS;
    const kept = core.cr0 & ~mask;
    this.writeCr0(kept | (value & (mask | CR0_PE)), 0);
  }

  // --- Debug registers. ---

  private debugRegister(number: number): number {
    const { core } = this;
    if (number === 4 || number === 5) {
      if (core.cr4 & CR4_DE) core.ud();
      number += 2;
    }
    core.requireSupervisor();
    if (core.get(DR7) & DR7_GD) {
      core.set(DR6, core.get(DR6) | DR6_BD);
      core.returnsWithRf = true;
      core.fault(DB, NO_ERROR_CODE);
    }
    return number < 4 ? DR + 8 * number : number === 6 ? DR6 : DR7;
  }

  readDebug(number: number, register: number): void {
    const { core } = this;
    const at = this.debugRegister(number);
    core.setReg(register, core.get(at), core.code64 ? core.get(at + 4) : 0);
  }

  writeDebug(number: number, register: number): void {
    const { core } = this;
    const at = this.debugRegister(number);
    const low = core.regLow(register);
    const high = core.code64 ? core.regHigh(register) : 0;
    if (at === DR6) {
      if (high !== 0) core.gp();
      core.set2(at, DR6_FIXED | (low & DR6_WRITABLE), 0);
    } else if (at === DR7) {
      if (high !== 0) core.gp();
      core.set2(at, (low & ~0xd800) | DR7_FIXED, 0);
    } else core.set2(at, low, high);
    this.debug.configure();
  }

  // --- Translations. ---

  invlpg(low: number, high: number): void {
    const { core } = this;
    core.requireSupervisor();
    if (core.longMode && !core.isCanonical(low, high)) return;
    core.services.flushPage(low, high);
    this.mmu.forget();
  }

  invpcid(type: number, typeHigh: number, low: number, high: number): void {
    const { core, mmu } = this;
    core.requireSupervisor();
    if (typeHigh !== 0 || type >>> 0 > 3) core.gp();
    mmu.read64(low, high, AS_CURRENT);
    const pcid = core.low;
    const reserved = core.high;
    const next = (low >>> 0) + 8;
    mmu.read64(next | 0, next > 0xffffffff ? (high + 1) | 0 : high, AS_CURRENT);
    if (reserved !== 0 || pcid & ~0xfff) core.gp();
    if (type < 2 && pcid !== 0 && !(core.cr4 & CR4_PCIDE)) core.gp();
    if (type === 0 && !core.isCanonical(core.low, core.high)) core.gp();
    mmu.forget();
    const { services } = core;
    if (type === 0 && pcid === core.currentAsid) services.flushPage(core.low, core.high);
    else if (type < 2) services.flushAddressSpace(pcid);
    else if (type === 2) services.flushAll();
    else services.flushAddressSpace(-1);
  }

  // --- Extended control register 0. ---

  xgetbv(): void {
    const { core } = this;
    if (!(core.cr4 & CR4_OSXSAVE)) core.ud();
    const index = core.regLow(1);
    // Index 1 tells which components are not in their initial state.
    if (index !== 0 && !(index === 1 && core.model.has('xgetbv1'))) core.gp();
    core.setReg(0, index === 0 ? core.get(XCR0) : this.xsave.inUse(), 0);
    core.setReg(2, 0, 0);
  }

  xsetbv(): void {
    const { core } = this;
    if (!(core.cr4 & CR4_OSXSAVE)) core.ud();
    core.requireSupervisor();
    const value = core.regLow(0);
    const components = componentsOf(core.model);
    if (core.regLow(1) !== 0 || core.regLow(2) !== 0 || !(value & X87) || value & ~components) core.gp();
    if (value & AVX && !(value & SSE)) core.gp();
    core.set2(XCR0, value, 0);
    core.changed = true;
  }
}

function cr4Bits({ model }: Core): number {
  const when = (feature: string, bits: number): number => (model.has(feature) ? bits : 0);
  return (
    when('vme', CR4_VME | CR4_PVI) |
    when('tsc', CR4_TSD) |
    when('de', CR4_DE) |
    when('pse', CR4_PSE) |
    when('pae', CR4_PAE) |
    when('mce', CR4_MCE) |
    when('pge', CR4_PGE) |
    CR4_PCE |
    when('fxsr', CR4_OSFXSR) |
    when('sse', CR4_OSXMMEXCPT) |
    when('umip', CR4_UMIP) |
    when('la57', CR4_LA57) |
    when('fsgsbase', CR4_FSGSBASE) |
    when('pcid', CR4_PCIDE) |
    when('xsave', CR4_OSXSAVE) |
    when('smep', CR4_SMEP) |
    when('smap', CR4_SMAP)
  );
}

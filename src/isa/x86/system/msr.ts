/** Model-specific registers: one row each (SDM vol. 4, AMD APM vol. 2 appendix A). */
import {
  EFER,
  FS,
  GS,
  MSR_CSTAR,
  MSR_KERNEL_GS_BASE,
  MSR_LSTAR,
  MSR_MISC_ENABLE,
  MSR_PAT,
  MSR_SFMASK,
  MSR_STAR,
  MSR_SYSENTER_CS,
  MSR_SYSENTER_EIP,
  MSR_SYSENTER_ESP,
  MSR_TSC_AUX,
  MSR_XSS,
  SEG_BASE,
} from '../state.ts';
import { Branches, MSR_DEBUGCTL } from './branches.ts';
import { EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE } from './core.ts';
import type { Core } from './core.ts';
import type { Cpuid } from './cpuid.ts';
import type { Mmu } from './mmu.ts';
import { MCE_BANKS, MCG_CAP } from './machine-check.ts';
import { MISC_ENABLE_AFTER_RESET, MSR_MTRR_DEFAULT, MTRR_AFTER_FIRMWARE } from './power-on.ts';
import { MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW, ParavirtualClock } from './paravirt.ts';

/** A read leaves the value in core.low and core.high. Both return false for #GP(0). */
type Read = () => boolean;
type Write = (low: number, high: number) => boolean;
type Row = { readonly read: Read; readonly write: Write };

export const MSR_EFER = 0xc0000080;
const EFER_FFXSR = 1 << 14;
const EFER_AUTO_IBRS = 1 << 21;
const MTRR_VARIABLE = 8;

/** Model number of Intel's first processors with this stack of last branches, and its entries. */
const NEHALEM = 26;
const BRANCH_STACK = 16;

const FIXED_MTRRS = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];

export class Msrs {
  private readonly core: Core;
  private readonly mmu: Mmu;
  private readonly cpuid: Cpuid;
  private readonly rows = new Map<number, Row>();
  /** Values of registers that only keep what was written, by number. */
  private readonly stored = new Map<number, [low: number, high: number]>();
  private tscAdjust = 0n;
  private readonly clock: ParavirtualClock;

  constructor(core: Core, mmu: Mmu, cpuid: Cpuid) {
    this.core = core;
    this.mmu = mmu;
    this.cpuid = cpuid;
    this.clock = new ParavirtualClock(core);
    this.defineSystemCalls();
    this.defineTime();
    this.defineMemoryTypes();
    this.defineSpeculation();
    this.defineOthers();
    this.defineApic();
    if (core.model.has('kvmclock')) this.defineClock();
  }

  reset(): void {
    for (const value of this.stored.values()) value[0] = value[1] = 0;
    this.tscAdjust = 0n;
    this.clock.reset();
    const { core } = this;
    core.set2(MSR_PAT, 0x00070406, 0x00070406);
    core.set2(MSR_MISC_ENABLE, MISC_ENABLE_AFTER_RESET, 0);
    if (core.model.vendor !== 'AuthenticAMD') return;
    // The TSC counts at one rate, and LFENCE serialises.
    this.store(0xc0010015, 1 << 24, 0);
    this.store(0xc0011029, 2, 0);
  }

  /** Memory types as firmware leaves them: all write-back; kernels use PAT only when MTRRs are on. */
  asAfterFirmware(): void {
    if (this.stored.has(MSR_MTRR_DEFAULT)) this.store(MSR_MTRR_DEFAULT, MTRR_AFTER_FIRMWARE, 0);
  }

  /** RDMSR: result in core.low and core.high. @returns false for #GP(0) */
  read(number: number): boolean {
    const row = this.rows.get(number >>> 0);
    if (row) return row.read();
    this.unknown('read', number);
    return false;
  }

  write(number: number, low: number, high: number): boolean {
    const row = this.rows.get(number >>> 0);
    if (row) return row.write(low, high);
    this.unknown('write', number);
    return false;
  }

  private unknown(what: string, number: number): void {
    this.core.platform.trace?.('unknown-msr', `${what} ${(number >>> 0).toString(16)}`);
  }

  // --- Kinds of rows. ---

  private give(low: number, high: number): boolean {
    this.core.low = low;
    this.core.high = high;
    return true;
  }

  private row(number: number, read: Read, write: Write): void {
    this.rows.set(number, { read, write });
  }

  private readOnly(number: number, low: number, high = 0): void {
    this.row(
      number,
      () => this.give(low, high),
      () => false,
    );
  }

  /** Reads as a constant; writes go nowhere. */
  private ignored(number: number, low = 0, high = 0): void {
    this.row(
      number,
      () => this.give(low, high),
      () => true,
    );
  }

  private inState(number: number, offset: number, valid: Write = () => true): void {
    const { core } = this;
    this.row(
      number,
      () => this.give(core.get(offset), core.get(offset + 4)),
      (low, high) => {
        if (!valid(low, high)) return false;
        core.set2(offset, low, high);
        return true;
      },
    );
  }

  private store(number: number, low: number, high: number): void {
    const value = this.stored.get(number);
    if (value) {
      value[0] = low;
      value[1] = high;
    } else this.stored.set(number, [low, high]);
  }

  private kept(number: number, valid: Write = () => true): void {
    const value: [number, number] = [0, 0];
    this.stored.set(number, value);
    this.row(
      number,
      () => this.give(value[0], value[1]),
      (low, high) => {
        if (!valid(low, high)) return false;
        value[0] = low;
        value[1] = high;
        return true;
      },
    );
  }

  // --- The rows. ---

  private defineSystemCalls(): void {
    const { core } = this;
    const canonical: Write = (low, high) => core.isCanonical(low, high);
    const word: Write = (_, high) => high === 0;
    if (core.model.has('sep')) {
      this.inState(0x174, MSR_SYSENTER_CS, word);
      this.inState(0x175, MSR_SYSENTER_ESP, canonical);
      this.inState(0x176, MSR_SYSENTER_EIP, canonical);
    }
    if (core.model.has('syscall') || core.model.has('nx')) {
      this.row(
        MSR_EFER,
        () => this.give(core.get(EFER), core.get(EFER + 4)),
        (l, h) => this.writeEfer(l, h),
      );
    }
    if (core.model.has('syscall')) {
      this.inState(0xc0000081, MSR_STAR);
      this.inState(0xc0000082, MSR_LSTAR, canonical);
      this.inState(0xc0000083, MSR_CSTAR, canonical);
      this.inState(0xc0000084, MSR_SFMASK, word);
    }
    if (!core.model.has('lm')) return;
    this.inState(0xc0000100, core.segAt(FS) + SEG_BASE, canonical);
    this.inState(0xc0000101, core.segAt(GS) + SEG_BASE, canonical);
    this.inState(0xc0000102, MSR_KERNEL_GS_BASE, canonical);
  }

  private writeEfer(low: number, high: number): boolean {
    const { core } = this;
    const { model } = core;
    let valid = EFER_LMA;
    if (model.has('syscall')) valid |= EFER_SCE;
    if (model.has('lm')) valid |= EFER_LME;
    if (model.has('nx')) valid |= EFER_NXE;
    if (model.has('fxsr-opt')) valid |= EFER_FFXSR;
    if (model.has('auto-ibrs')) valid |= EFER_AUTO_IBRS;
    if (high !== 0 || low & ~valid) return false;
    const old = core.efer;
    if (core.paging && (low ^ old) & EFER_LME) return false;
    const value = (low & ~EFER_LMA) | (old & EFER_LMA);
    core.set2(EFER, value, 0);
    if ((value ^ old) & EFER_NXE) core.services.flushAll();
    this.mmu.configure();
    core.changed = true;
    return true;
  }

  private defineTime(): void {
    const { core } = this;
    const { tsc, intc } = core.platform;
    const big = (value: bigint): boolean => {
      const bits = BigInt.asUintN(64, value);
      return this.give(Number(bits & 0xffffffffn) | 0, Number(bits >> 32n) | 0);
    };
    const join = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    this.row(
      0x10,
      () => big(tsc.read()),
      (low, high) => {
        const value = join(low, high);
        this.tscAdjust += value - tsc.read();
        tsc.write(value);
        this.clock.publish();
        return true;
      },
    );
    if (core.model.has('tsc-adjust')) {
      this.row(
        0x3b,
        () => big(this.tscAdjust),
        (low, high) => {
          const value = BigInt.asIntN(64, join(low, high));
          tsc.write(BigInt.asUintN(64, tsc.read() + value - this.tscAdjust));
          this.tscAdjust = value;
          this.clock.publish();
          return true;
        },
      );
    }
    if (core.model.has('tsc-deadline')) {
      this.row(
        0x6e0,
        () => big(intc.getTscDeadline()),
        (low, high) => {
          intc.setTscDeadline(join(low, high));
          return true;
        },
      );
    }
    if (core.model.has('rdtscp')) this.inState(0xc0000103, MSR_TSC_AUX, (_, high) => high === 0);
  }

  private defineMemoryTypes(): void {
    const { model } = this.core;
    const isType = (type: number): boolean => type < 8 && type !== 2 && type !== 3;
    const bytesValid = (value: number, ok: (type: number) => boolean): boolean => {
      for (let shift = 0; shift < 32; shift += 8) if (!ok((value >>> shift) & 0xff)) return false;
      return true;
    };
    if (model.has('pat')) {
      this.inState(0x277, MSR_PAT, (low, high) => bytesValid(low, isType) && bytesValid(high, isType));
    }
    if (!model.has('mtrr')) return;
    const isMtrr = (type: number): boolean => type < 7 && type !== 2 && type !== 3;
    this.readOnly(0xfe, MTRR_VARIABLE | 0x500);
    this.kept(0x2ff, (low, high) => high === 0 && (low & ~0xcff) === 0 && isMtrr(low & 0xff));
    for (const number of FIXED_MTRRS) {
      this.kept(number, (low, high) => bytesValid(low, isMtrr) && bytesValid(high, isMtrr));
    }
    const spare = -(2 ** Math.max(0, model.physicalBits - 32)) | 0;
    for (let i = 0; i < MTRR_VARIABLE; i++) {
      this.kept(0x200 + 2 * i, (low, high) => (high & spare) === 0 && !(low & 0xf00) && isMtrr(low & 0xff));
      this.kept(0x201 + 2 * i, (low, high) => (high & spare) === 0 && !(low & 0x7ff));
    }
  }

  private defineSpeculation(): void {
    const { model } = this.core;
    if (model.has('arch-capabilities')) this.readOnly(0x10a, model.words.caps);
    // IBRS, STIBP and SSBD can be set and read; there is nothing for them to hold back.
    if (model.has('ibrs') || model.has('spec-ctrl') || model.has('amd-ssbd')) {
      this.kept(0x48, (low, high) => high === 0 && (low & ~7) === 0);
    }
    if (model.has('ibpb') || model.has('spec-ctrl'))
      this.row(
        0x49,
        () => false,
        () => true,
      );
  }

  private defineOthers(): void {
    const { core } = this;
    const amd = core.model.vendor === 'AuthenticAMD';
    this.readOnly(0x17, 0);
    this.ignored(0x2a);
    this.readOnly(0x34, 0);
    this.ignored(0x79);
    // Feature control: locked, with nothing enabled that it governs.
    if (!amd) this.readOnly(0x3a, 1);
    // What the core is at, and the temperature at which it would throttle: 100 degrees.
    this.readOnly(0x1a2, 100 << 16);
    this.ignored(0x1b1);
    // Microcode revision: in the upper half with Intel (after a write of zero and CPUID), lower with AMD.
    this.row(
      0x8b,
      () => (amd ? this.give(0x01000065, 0) : this.give(0, 1)),
      () => true,
    );
    this.ignored(0x11e);
    if (core.model.has('mca')) {
      this.readOnly(0x179, MCG_CAP);
      this.kept(0x17a, (low, high) => high === 0 && (low & ~7) === 0);
      this.kept(0x17b);
      // Control can be set; there are no errors to be told of, and the other three only take zero.
      for (let bank = 0; bank < MCE_BANKS; bank++) {
        this.kept(0x400 + 4 * bank);
        for (let i = 1; i < 4; i++) this.kept(0x400 + 4 * bank + i, (low, high) => low === 0 && high === 0);
      }
    }
    this.readOnly(0xce, 10 << 8);
    this.ignored(0x198);
    this.kept(0x199);
    this.kept(0x19a);
    this.kept(0x19b);
    this.ignored(0x19c);
    this.inState(0x1a0, MSR_MISC_ENABLE);
    this.defineBranches();
    if (core.model.has('xsaves')) this.inState(0xda0, MSR_XSS, (low, high) => low === 0 && high === 0);
    if (amd) this.defineAmd();
  }

  private defineBranches(): void {
    const { core } = this;
    const { control, last } = core.branches;
    this.stored.set(MSR_DEBUGCTL, control);
    this.row(
      MSR_DEBUGCTL,
      () => this.give(...control),
      (low, high) => {
        if (!Branches.isControl(low, high)) return false;
        this.store(MSR_DEBUGCTL, low, high);
        core.changed = true;
        return true;
      },
    );
    for (const [number, value] of last) {
      this.stored.set(number, value);
      this.row(
        number,
        () => this.give(...value),
        () => false,
      );
    }
    const { vendor, family, model } = core.model;
    if (vendor === 'GenuineIntel' && family === 6 && model >= NEHALEM) this.defineBranchStack();
  }

  /**
   * The stack of last branches stays empty: it is the place of those registers that counts, for software that goes
   * by the processor's model (SDM vol. 3, 19.7 to 19.11: LBR_SELECT, LASTBRANCH_TOS, then the branches from and to).
   */
  private defineBranchStack(): void {
    this.ignored(0x1c8);
    this.ignored(0x1c9);
    for (let i = 0; i < BRANCH_STACK; i++) {
      this.ignored(0x680 + i);
      this.ignored(0x6c0 + i);
    }
  }

  private defineAmd(): void {
    this.kept(0xc0010010);
    this.kept(0xc0010015);
    this.kept(0xc001001f);
    this.ignored(0xc0010055);
    this.ignored(0xc0010058);
    this.kept(0xc0011029);
    this.ignored(0xc0011022);
    this.ignored(0xc0011020);
    this.ignored(0xc0011023);
    this.ignored(0xc001102a);
    // VM_CR: SVM disabled and locked.
    this.ignored(0xc0010114, 0x18);
    this.ignored(0xc0010117);
    this.readOnly(0xc0010064, 0);
    this.readOnly(0xc0010140, 0);
    this.readOnly(0xc0010141, 0);
  }

  private defineClock(): void {
    const { clock } = this;
    this.row(
      MSR_KVM_SYSTEM_TIME_NEW,
      () => this.give(clock.systemTime[0], clock.systemTime[1]),
      (low, high) => clock.setSystemTime(low, high),
    );
    this.row(
      MSR_KVM_WALL_CLOCK_NEW,
      () => this.give(0, 0),
      (low, high) => clock.writeWallClock(low, high),
    );
  }

  private defineApic(): void {
    const { core } = this;
    const { intc } = core.platform;
    if (!core.model.has('apic')) return;
    this.row(
      0x1b,
      () => {
        const [low, high] = intc.getApicBase();
        return this.give(low | 0, high | 0);
      },
      (low, high) => {
        if (!intc.setApicBase(low, high)) return false;
        this.cpuid.apicEnabled = (low & 0x800) !== 0;
        return true;
      },
    );
    if (!core.model.has('x2apic')) return;
    for (let index = 0; index < 0x100; index++) {
      this.row(
        0x800 + index,
        () => {
          const value = intc.readX2apic(index);
          return value !== null && this.give(value[0] | 0, value[1] | 0);
        },
        (low, high) => intc.writeX2apic(index, low, high),
      );
    }
  }

  // --- Saved state: registers that have no place in the state block. ---

  save(): { [number: string]: bigint } {
    const fields: { [number: string]: bigint } = { '3b': BigInt.asUintN(64, this.tscAdjust) };
    const put = (number: number, [low, high]: readonly [number, number]): void => {
      fields[number.toString(16)] = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    };
    for (const [number, value] of this.stored) put(number, value);
    if (this.rows.has(MSR_KVM_SYSTEM_TIME_NEW)) put(MSR_KVM_SYSTEM_TIME_NEW, this.clock.systemTime);
    return fields;
  }

  /** How often the clock's page has been written: what the guest compares must not come again. */
  get clockVersion(): number {
    return this.clock.version;
  }

  load(fields: { [number: string]: bigint }, clockVersion: number): void {
    this.clock.version = clockVersion;
    for (const [name, value] of Object.entries(fields)) {
      const number = parseInt(name, 16);
      const low = Number(value & 0xffffffffn) | 0;
      const high = Number(value >> 32n) | 0;
      if (number === 0x3b) this.tscAdjust = BigInt.asIntN(64, value);
      else if (number === MSR_KVM_SYSTEM_TIME_NEW && this.rows.has(number)) this.clock.restore(low, high);
      else if (!this.stored.has(number)) throw new Error(`saved CPU state has MSR ${name}, which this CPU model lacks`);
      else this.store(number, low, high);
    }
  }
}

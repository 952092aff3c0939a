/** The CPUID instruction. */
import { CR4, XCR0 } from '../state.ts';
import { CR4_OSXSAVE } from './core.ts';
import type { Core } from './core.ts';
import { type CpuidAnswer, CpuidLeaves } from './cpuid-leaves.ts';

export class Cpuid {
  private readonly core: Core;
  private readonly leaves: CpuidLeaves;
  /** IA32_APIC_BASE's enable bit: clear hides the APIC. */
  apicEnabled = true;

  constructor(core: Core) {
    this.core = core;
    const apicEnabled = (): boolean => this.apicEnabled;
    this.leaves = new CpuidLeaves(core.model, {
      get osxsave() {
        return (core.get(CR4) & CR4_OSXSAVE) !== 0;
      },
      get apicEnabled() {
        return apicEnabled();
      },
      get xcr0() {
        return core.get(XCR0);
      },
      get tscFrequency() {
        return core.platform.tsc.frequency;
      },
    });
  }

  /** Operands and results in the general registers. */
  execute(): void {
    const { core } = this;
    const answer = this.leaf(core.regLow(0) >>> 0, core.regLow(1));
    core.setReg(0, answer[0], 0);
    core.setReg(3, answer[1], 0);
    core.setReg(1, answer[2], 0);
    core.setReg(2, answer[3], 0);
  }

  /** @returns [EAX, EBX, ECX, EDX] */
  leaf(leaf: number, subleaf: number): CpuidAnswer {
    return this.leaves.leaf(leaf, subleaf);
  }
}

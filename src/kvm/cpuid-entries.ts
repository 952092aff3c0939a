/** CPUID as a VM's CPU model answers it, in the form that the kernel takes. */
import { CpuidLeaves } from '../isa/x86/system/cpuid-leaves.ts';
import type { CpuModel } from '../isa/x86/system/models.ts';
import type { CpuTopology } from '../machine/cpu-topology.ts';
import { KVM_CPUID_ENTRY2 } from './layouts.ts';
import { NUMBERS } from './constants.ts';
import type { Patch } from './struct.ts';

/**
 * @param index of the CPU among those of the machine
 * @returns all leaves; the kernel keeps what changes while the CPU runs (OSXSAVE, the APIC's enable bit, sizes by XCR0) by itself
 */
export function cpuidEntries(
  model: CpuModel,
  topology: CpuTopology,
  index: number,
  tscFrequency: number,
): Patch<typeof KVM_CPUID_ENTRY2>[] {
  const live = { osxsave: false, apicEnabled: true, xcr0: 1, tscFrequency };
  const leaves = new CpuidLeaves(model, live, topology, index);
  return leaves.all().map(({ leaf, subleaf, indexed, answer: [eax, ebx, ecx, edx] }) => ({
    function: leaf,
    index: subleaf,
    flags: indexed ? NUMBERS.KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
    eax: eax >>> 0,
    ebx: ebx >>> 0,
    ecx: ecx >>> 0,
    edx: edx >>> 0,
  }));
}

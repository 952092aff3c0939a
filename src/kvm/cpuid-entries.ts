/** CPUID as a VM's CPU model answers it, in the form that the kernel takes. */
import { type CpuidEntry, CpuidLeaves } from '../isa/x86/system/cpuid-leaves.ts';
import { type CpuModel, type HostCpu, wordPlaces } from '../isa/x86/system/models.ts';
import type { CpuTopology } from '../machine/cpu-topology.ts';
import { NUMBERS } from './constants.ts';
import { type Hyperv, hypervLeaves } from './hyperv.ts';
import type { CpuidEntry as KernelEntry } from './cpuid.ts';
import { KVM_CPUID_ENTRY2 } from './layouts.ts';
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
  const all = model.host === null ? leaves.all() : hostEntries(model, model.host, leaves);
  return all.map(({ leaf, subleaf, indexed, answer: [eax, ebx, ecx, edx] }) => ({
    function: leaf,
    index: subleaf,
    flags: indexed ? NUMBERS.KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
    eax: eax >>> 0,
    ebx: ebx >>> 0,
    ecx: ecx >>> 0,
    edx: edx >>> 0,
  }));
}

/** Where Hyper-V's interface is, further ones follow so much later each. */
const NEXT_INTERFACE = 0x100;
const FIRST_INTERFACE = 0x4000_0000;

/**
 * Puts Hyper-V's interface before KVM's own.
 * @param supported what KVM can do of it (`Kvm.hypervCpuid`)
 * @throws Error, one line, about what this host does not have
 */
export function withHyperv(
  entries: readonly Patch<typeof KVM_CPUID_ENTRY2>[],
  hyperv: Hyperv,
  supported: readonly KernelEntry[],
): Patch<typeof KVM_CPUID_ENTRY2>[] {
  const moved = entries.map((entry) => {
    const { function: leaf = 0, eax = 0 } = entry;
    if (!isHypervisors(leaf)) return entry;
    return { ...entry, function: leaf + NEXT_INTERFACE, ...(leaf === FIRST_INTERFACE ? { eax: eax + NEXT_INTERFACE } : {}) };
  });
  return [...moved, ...hypervLeaves(hyperv, supported)];
}

/** Leaves that say how the machine's CPUs are arranged: the host's are arranged otherwise. */
const ARRANGEMENT: ReadonlySet<number> = new Set([4, 0xb, 0x1f, 0x8000001d, 0x8000001e]);
const REGISTERS = ['eax', 'ebx', 'ecx', 'edx'] as const;
const isHypervisors = (leaf: number): boolean => leaf >= 0x40000000 && leaf < 0x40010000;

/** The host's own answers, but for features that are not wanted, the CPUs' arrangement and the hypervisor's leaves. */
function hostEntries(model: CpuModel, host: HostCpu, ours: CpuidLeaves): CpuidEntry[] {
  const kept = host.leaves.filter(({ leaf }) => !ARRANGEMENT.has(leaf) && !isHypervisors(leaf));
  const entries = kept.map(({ leaf, subleaf, indexed, answer }): CpuidEntry => ({ leaf, subleaf, indexed, answer: [...answer] }));
  const at = (leaf: number, subleaf: number) => entries.find((one) => one.leaf === leaf && one.subleaf === subleaf)?.answer;
  for (const [word, place] of wordPlaces()) {
    if (place === null) continue;
    const answer = at(place.leaf, place.subleaf);
    if (answer !== undefined) answer[REGISTERS.indexOf(place.register)] = model.words[word] >>> 0;
  }
  const first = at(1, 0);
  if (first !== undefined) first[1] = ours.leaf(1, 0)[1];
  const sizes = at(0x80000008, 0);
  if (sizes !== undefined) sizes[2] = ours.leaf(0x80000008, 0)[2];
  return [...entries, ...ours.all().filter(({ leaf }) => ARRANGEMENT.has(leaf) || isHypervisors(leaf))];
}

/** CPUID: what a model answers to each leaf (SDM vol. 2 CPUID, AMD APM vol. 3 appendix E). */
import type { CpuModel } from './models.ts';
import { apicIdOf, type CpuTopology, ONE_CPU, packageBits, threadBits } from '../../../machine/cpu-topology.ts';
import { AVX, AVX_BYTES, AVX_OFFSET, areaBytes, componentsOf } from './xsave-layout.ts';

/** Twelve characters that software may look for at leaf 0x40000000. */
export const HYPERVISOR_SIGNATURE = 'VirelayVirel';
export const KVM_SIGNATURE = 'KVMKVMKVM\0\0\0';
const HIGHEST_EXTENDED = 0x80000021;
const OSXSAVE = 1 << 27;
const APIC = 1 << 9;
/** Leaf 1, EDX: a package has several threads. */
const HTT = 1 << 28;
/** Leaf 80000001h, ECX: those threads are cores. */
const CMP_LEGACY = 1 << 1;
const CACHE_LINE = 64;
/** What local APICs' timers count: 1 GHz. */
const APIC_KHZ = 1_000_000;
/** Leaves whose answer depends on ECX, and how many answers there are. */
const SUBLEAVES: Readonly<Record<number, number>> = { 4: 4, 7: 1, 11: 3, 13: 3 };

export type CpuidAnswer = [eax: number, ebx: number, ecx: number, edx: number];

/** One answer, as hypervisors are told it. */
export interface CpuidEntry {
  readonly leaf: number;
  readonly subleaf: number;
  /** The answer is for this subleaf only. */
  readonly indexed: boolean;
  readonly answer: CpuidAnswer;
}

/** What answers follow while the CPU runs. */
export interface LiveCpu {
  /** CR4.OSXSAVE. */
  readonly osxsave: boolean;
  /** IA32_APIC_BASE's enable bit: clear hides the APIC. */
  readonly apicEnabled: boolean;
  /** Low word of XCR0. */
  readonly xcr0: number;
  /** Hertz. */
  readonly tscFrequency: number;
}

function word(text: string, at: number): number {
  let value = 0;
  for (let i = 3; i >= 0; i--) value = (value << 8) | (text.charCodeAt(at + i) || 0);
  return value;
}

/** Every leaf of a model's, whatever runs the vCPU. */
export class CpuidLeaves {
  private readonly model: CpuModel;
  private readonly live: LiveCpu;
  private readonly topology: CpuTopology;
  private readonly index: number;

  /**
   * @param topology the CPUs of the machine
   * @param index which of them this is
   */
  constructor(model: CpuModel, live: LiveCpu, topology: CpuTopology = ONE_CPU, index = 0) {
    this.model = model;
    this.live = live;
    this.topology = topology;
    this.index = index;
  }

  /** All leaves that answer anything, in order; those with subleaves once for each. */
  all(): CpuidEntry[] {
    const entries: CpuidEntry[] = [];
    const add = (leaf: number, subleaf: number, indexed: boolean): void => {
      entries.push({ leaf, subleaf, indexed, answer: this.leaf(leaf, subleaf) });
    };
    for (const base of [0, 0x40000000, 0x80000000]) {
      const [highest] = this.leaf(base, 0);
      for (let leaf = base; leaf === base || leaf <= highest >>> 0; leaf++) {
        const subleaves = SUBLEAVES[leaf];
        for (let subleaf = 0; subleaf < (subleaves ?? 1); subleaf++) add(leaf >>> 0, subleaf, subleaves !== undefined);
      }
    }
    return entries;
  }

  /** @returns [EAX, EBX, ECX, EDX] */
  leaf(leaf: number, subleaf: number): CpuidAnswer {
    const { model } = this;
    if (leaf >= 0x80000000) return this.extended(leaf);
    if (leaf >= 0x40000000 && leaf < 0x40000100 && model.has('hypervisor')) return this.hypervisor(leaf);
    // Beyond the highest leaf, processors answer for that one; all zeros is what software expects.
    return leaf <= model.level ? this.basic(leaf, subleaf) : [0, 0, 0, 0];
  }

  private get apicId(): number {
    return apicIdOf(this.topology, this.index);
  }

  /** Threads of a package. */
  private get together(): number {
    return this.topology.cores * this.topology.threads;
  }

  private basic(leaf: number, subleaf: number): CpuidAnswer {
    const { words, level, vendor } = this.model;
    switch (leaf) {
      case 0:
        return [level, word(vendor, 0), word(vendor, 8), word(vendor, 4)];
      case 1:
        return this.features();
      case 4:
        return this.caches(subleaf);
      // MONITOR's lines, and MWAIT's extensions: interrupts end a wait even where they are masked.
      case 5:
        return this.model.has('monitor') ? [CACHE_LINE, CACHE_LINE, 3, 0] : [0, 0, 0, 0];
      case 6:
        return [words.f6a, 0, 0, 0];
      case 7:
        return subleaf === 0 ? [0, words.f7b, words.f7c, words.f7d] : [0, 0, 0, 0];
      case 0xb:
        return this.processors(subleaf);
      case 0xd:
        return this.extendedState(subleaf);
      case 0x15: {
        return [1, 1, this.live.tscFrequency | 0, 0];
      }
      case 0x16: {
        const megahertz = Math.round(this.live.tscFrequency / 1e6);
        return [megahertz, megahertz, 100, 0];
      }
      default:
        return [0, 0, 0, 0];
    }
  }

  /** Version in CPUID's form: families above 15 and models above 15 overflow into the extended fields. */
  private get version(): number {
    const { family, model, stepping } = this.model;
    const base = Math.min(family, 15);
    return (stepping & 15) | ((model & 15) << 4) | (base << 8) | ((model >> 4) << 16) | ((family - base) << 20);
  }

  private features(): CpuidAnswer {
    const { words } = this.model;
    let ecx = words.f1c & ~OSXSAVE;
    if (words.f1c & (1 << 26) && this.live.osxsave) ecx |= OSXSAVE;
    let edx = words.f1d;
    if (!this.live.apicEnabled) edx &= ~APIC;
    if (this.together > 1) edx |= HTT;
    // IDs of a package, used or not.
    const ids = Math.min(2 ** packageBits(this.topology), 255);
    const ebx = (this.apicId << 24) | (ids << 16) | ((CACHE_LINE / 8) << 8);
    return [this.version, ebx, ecx, edx];
  }

  /** Data, instruction and second-level cache; kernels want plausible numbers, no more. */
  private caches(subleaf: number): CpuidAnswer {
    const { topology } = this;
    const threads = 2 ** threadBits(topology) - 1;
    const cores = Math.min(2 ** (packageBits(topology) - threadBits(topology)) - 1, 63);
    const describe = (type: number, level: number, ways: number, sets: number): CpuidAnswer => [
      type | (level << 5) | (1 << 8) | (threads << 14) | (cores << 26),
      (CACHE_LINE - 1) | ((ways - 1) << 22),
      sets - 1,
      0,
    ];
    switch (subleaf) {
      case 0:
        return describe(1, 1, 8, 64);
      case 1:
        return describe(2, 1, 8, 64);
      case 2:
        return describe(3, 2, 16, 512);
      default:
        return [0, 0, 0, 0];
    }
  }

  /** Threads of a core, then cores of a package: how far an APIC ID is to be shifted, and how many threads there are. */
  private processors(subleaf: number): CpuidAnswer {
    const { apicId, topology } = this;
    if (subleaf === 0) return [threadBits(topology), topology.threads, 0x100, apicId];
    if (subleaf === 1) return [packageBits(topology), this.together, 0x201, apicId];
    return [0, 0, subleaf & 0xff, apicId];
  }

  /** AMD's way to tell it: the extended APIC ID, core and threads of a core, node. */
  private amdTopology(): CpuidAnswer {
    const { apicId, topology } = this;
    const inPackage = apicId & (2 ** packageBits(topology) - 1);
    const core = inPackage >> threadBits(topology);
    return [apicId, core | ((topology.threads - 1) << 8), apicId >> packageBits(topology), 0];
  }

  private extendedState(subleaf: number): CpuidAnswer {
    if (!this.model.has('xsave')) return [0, 0, 0, 0];
    const components = componentsOf(this.model);
    const current = this.live.xcr0;
    if (subleaf === 0) return [components, areaBytes(current), areaBytes(components), 0];
    if (subleaf === 1) return [this.model.words.fda, areaBytes(current), 0, 0];
    return subleaf === 2 && components & AVX ? [AVX_BYTES, AVX_OFFSET, 0, 0] : [0, 0, 0, 0];
  }

  private hypervisor(leaf: number): CpuidAnswer {
    const { kvm } = this.model.words;
    // Guests look for the paravirtual clock behind this signature only.
    if (kvm !== 0 && leaf === 0x40000000) {
      return [0x40000001, word(KVM_SIGNATURE, 0), word(KVM_SIGNATURE, 4), word(KVM_SIGNATURE, 8)];
    }
    if (kvm !== 0 && leaf === 0x40000001) return [kvm, 0, 0, 0];
    const name = HYPERVISOR_SIGNATURE;
    if (leaf === 0x40000000) return [0x40000010, word(name, 0), word(name, 4), word(name, 8)];
    // The time-stamp counter's and the APIC timer's frequency in kHz, as other hypervisors tell them.
    if (leaf === 0x40000010) return [Math.round(this.live.tscFrequency / 1000), APIC_KHZ, 0, 0];
    return [0, 0, 0, 0];
  }

  private extended(leaf: number): CpuidAnswer {
    const { words, vendor, modelId, physicalBits } = this.model;
    const amd = vendor === 'AuthenticAMD';
    const { together } = this;
    switch (leaf) {
      case 0x80000000: {
        const highest = this.model.has('lm') ? HIGHEST_EXTENDED : 0x80000004;
        return amd ? [highest, word(vendor, 0), word(vendor, 8), word(vendor, 4)] : [highest, 0, 0, 0];
      }
      case 0x80000001:
        // AMD repeats bits of leaf 1 here.
        return [
          this.version,
          0,
          words.e1c | (amd && together > 1 ? CMP_LEGACY : 0),
          words.e1d | (amd ? words.f1d & 0x0183f3ff : 0),
        ];
      case 0x80000002:
      case 0x80000003:
      case 0x80000004: {
        const at = (leaf - 0x80000002) * 16;
        return [0, 4, 8, 12].map((i) => word(modelId, at + i)) as CpuidAnswer;
      }
      case 0x80000005:
        return [0x01ff01ff, 0x01ff01ff, (0x40020140 & ~0xff) | CACHE_LINE, (0x40020140 & ~0xff) | CACHE_LINE];
      case 0x80000006:
        return [0, 0x42004200, (0x02008140 & ~0xff) | CACHE_LINE, 0];
      case 0x80000007:
        return [0, 0, 0, words.e7d];
      case 0x80000008: {
        const linear = this.model.has('la57') ? 57 : this.model.has('lm') ? 48 : 32;
        return [
          physicalBits | (linear << 8),
          words.e8b,
          together > 1 ? (packageBits(this.topology) << 12) | (together - 1) : 0,
          0,
        ];
      }
      case 0x8000001e:
        return this.model.has('topoext') ? this.amdTopology() : [0, 0, 0, 0];
      case 0x80000021:
        return [words.e21, 0, 0, 0];
      default:
        return [0, 0, 0, 0];
    }
  }
}

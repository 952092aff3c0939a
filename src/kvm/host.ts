/** The host's KVM, opened for machines: what it offers, and what it asks of them. */
import { type FeatureWords, type HostCpu, wordPlaces } from '../isa/x86/system/models.ts';
import { describeUnavailable, readHostFacts } from './availability.ts';
import { NUMBERS } from './constants.ts';
import type { CpuidEntry } from './cpuid.ts';
import { probeKvm } from './probe.ts';
import { Kvm } from './system.ts';

const MSR_ARCH_CAPABILITIES = 0x10a;
/** Environment: for firmware and tests that get along with what such a KVM runs. */
const PARTIAL = 'VIRELAY_KVM_PARTIAL';
const HYPERVISOR = 1 << 31;
const VMX = 1 << 5;
const SVM = 1 << 2;
const X2APIC = 1 << 21;
const TSC_DEADLINE = 1 << 24;

export class KvmHost {
  readonly kvm: Kvm;
  /** Hertz, of the processor's own counter. */
  readonly tscFrequency: number;
  /** Guests may have counters of other rates. */
  readonly scalesTsc: boolean;
  readonly hasSregs2: boolean;
  readonly msrs: readonly number[];
  /** CPUID as guests may have it. */
  private readonly cpuid: readonly CpuidEntry[];
  /** vCPUs that a machine may have. */
  readonly mostCpus: number;

  /** @param kvm which may be able to run a part of what guests do only */
  constructor(kvm: Kvm) {
    this.kvm = kvm;
    this.scalesTsc = kvm.check('KVM_CAP_TSC_CONTROL') !== 0;
    this.hasSregs2 = kvm.check('KVM_CAP_SREGS2') !== 0;
    this.msrs = kvm.msrs();
    this.cpuid = kvm.supportedCpuid();
    this.mostCpus = kvm.check('KVM_CAP_MAX_VCPUS') || kvm.check('KVM_CAP_NR_VCPUS') || 1;
    const vm = kvm.createVm();
    try {
      this.tscFrequency = vm.createVcpu(0).tscKhz * 1000;
    } finally {
      vm.close();
    }
  }

  /** @throws Error, one line, saying why there is no KVM that can run whole machines */
  static open(): KvmHost {
    let kvm: Kvm | null = null;
    try {
      kvm = new Kvm();
      // Processors with extensions for it run everything. What else calls itself KVM is asked, which takes a while.
      if (readHostFacts().extension === null && process.env[PARTIAL] === undefined) demandAll();
      return new KvmHost(kvm);
    } catch (error) {
      kvm?.close();
      throw new Error(describeUnavailable(error));
    }
  }

  close(): void {
    this.kvm.close();
  }

  /** The processor as a guest may see it. */
  cpu(words: FeatureWords): HostCpu {
    const entries = this.cpuid;
    const find = (leaf: number) => entries.find(({ function: number }) => number === leaf);
    const text = (...words: (number | undefined)[]): string =>
      new TextDecoder().decode(new Uint8Array(Uint32Array.from(words, (word) => word ?? 0).buffer)).replace(/\0[\s\S]*$/, '');
    const [names, version] = [find(0), find(1)?.eax ?? 0];
    const family = (version >> 8) & 15;
    const brand = [0x80000002, 0x80000003, 0x80000004].map(find).flatMap((one) => [one?.eax, one?.ebx, one?.ecx, one?.edx]);
    return {
      vendor: text(names?.ebx, names?.edx, names?.ecx),
      family: family === 15 ? family + ((version >> 20) & 0xff) : family,
      model: ((version >> 4) & 15) | ((version >> 12) & 0xf0),
      stepping: version & 15,
      modelId: text(...brand),
      level: names?.eax ?? 1,
      physicalBits: (find(0x80000008)?.eax ?? 36) & 0xff,
      words,
      leaves: entries.map(({ function: leaf, index: subleaf, flags, eax, ebx, ecx, edx }) => ({
        leaf,
        subleaf,
        indexed: (flags & NUMBERS.KVM_CPUID_FLAG_SIGNIFCANT_INDEX) !== 0,
        answer: [eax, ebx, ecx, edx],
      })),
    };
  }

  /** Feature bits that guests may have here, in the form of CPU models. */
  features(): FeatureWords {
    const entries = this.cpuid;
    const words = {} as FeatureWords;
    for (const [word, place] of wordPlaces()) {
      const entry = entries.find(({ function: leaf, index }) => leaf === place?.leaf && index === place.subleaf);
      words[word] = entry === undefined || place === null ? 0 : entry[place.register] | 0;
    }
    words.caps = Number((this.kvm.featureMsrs().get(MSR_ARCH_CAPABILITIES) ?? 0n) & 0xffffffffn) | 0;
    // What guests of guests are doing cannot be saved.
    words.f1c &= ~VMX;
    words.e1c &= ~SVM;
    // The kernel has these whatever the processor has, and older ones do not say so.
    words.f1c |= HYPERVISOR | X2APIC | (this.kvm.check('KVM_CAP_TSC_DEADLINE_TIMER') === 0 ? 0 : TSC_DEADLINE);
    return words;
  }
}

/** @throws Error naming the kinds of guest code that do not run */
function demandAll(): void {
  const probe = probeKvm();
  if (probe.available && probe.missing === null) return;
  const why = probe.available ? probe.missing : probe.reason;
  throw new Error(`${why}: whole machines need all of it (${PARTIAL}=1 tries nevertheless)`);
}

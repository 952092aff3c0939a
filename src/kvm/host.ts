/** The host's KVM, opened for machines: what it offers, and what it asks of them. */
import { type FeatureWords, wordPlaces } from '../isa/x86/system/models.ts';
import { describeUnavailable, readHostFacts } from './availability.ts';
import { probeKvm } from './probe.ts';
import { Kvm } from './system.ts';

const MSR_ARCH_CAPABILITIES = 0x10a;
/** Environment: for firmware and tests that get along with what such a KVM runs. */
const PARTIAL = 'VIRELAY_KVM_PARTIAL';
const HYPERVISOR = 1 << 31;
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
  /** vCPUs that a machine may have. */
  readonly mostCpus: number;

  /** @param kvm which may be able to run a part of what guests do only */
  constructor(kvm: Kvm) {
    this.kvm = kvm;
    this.scalesTsc = kvm.check('KVM_CAP_TSC_CONTROL') !== 0;
    this.hasSregs2 = kvm.check('KVM_CAP_SREGS2') !== 0;
    this.msrs = kvm.msrs();
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
    try {
      const kvm = new Kvm();
      // Processors with extensions for it run everything. What else calls itself KVM is asked, which takes a while.
      if (readHostFacts().extension === null && process.env[PARTIAL] === undefined) demandAll(kvm);
      return new KvmHost(kvm);
    } catch (error) {
      throw new Error(describeUnavailable(error));
    }
  }

  close(): void {
    this.kvm.close();
  }

  /** Feature bits that guests may have here, in the form of CPU models. */
  features(): FeatureWords {
    const entries = this.kvm.supportedCpuid();
    const words = {} as FeatureWords;
    for (const [word, place] of wordPlaces()) {
      const entry = entries.find(({ function: leaf, index }) => leaf === place?.leaf && index === place.subleaf);
      words[word] = entry === undefined || place === null ? 0 : entry[place.register] | 0;
    }
    words.caps = Number((this.kvm.featureMsrs().get(MSR_ARCH_CAPABILITIES) ?? 0n) & 0xffffffffn) | 0;
    // The kernel has these whatever the processor has, and older ones do not say so.
    words.f1c |= HYPERVISOR | X2APIC | (this.kvm.check('KVM_CAP_TSC_DEADLINE_TIMER') === 0 ? 0 : TSC_DEADLINE);
    return words;
  }
}

/** @throws Error naming the kinds of guest code that do not run */
function demandAll(kvm: Kvm): void {
  const probe = probeKvm();
  if (probe.available && probe.missing === null) return;
  kvm.close();
  const why = probe.available ? probe.missing : probe.reason;
  throw new Error(`${why}: whole machines need all of it (${PARTIAL}=1 tries nevertheless)`);
}

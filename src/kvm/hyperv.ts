/**
 * Hyper-V's interface for guests, by which Windows runs better on a hypervisor that has it. KVM does the work; CPUID tells
 * the guest what there is. Names are those of QEMU's CPU properties. (Hypervisor Top Level Functional Specification, 2.4.)
 */
import { HYPERV_FEATURES, type HypervChoice, type HypervFeature } from '../isa/x86/system/hyperv.ts';
import type { CpuidEntry } from './cpuid.ts';
import type { Kvm } from './system.ts';
import type { Vcpu } from './vcpu.ts';

const LEAF_VENDOR = 0x4000_0000;
const LEAF_INTERFACE = 0x4000_0001;
const LEAF_VERSION = 0x4000_0002;
const LEAF_FEATURES = 0x4000_0003;
const LEAF_RECOMMENDATIONS = 0x4000_0004;
const LEAF_LIMITS = 0x4000_0005;
const LEAF_HARDWARE = 0x4000_0006;

type Register = 'eax' | 'ebx' | 'ecx' | 'edx';
type Bits = readonly (readonly [leaf: number, register: Register, bit: number])[];

interface Feature {
  readonly bits: Bits;
  /** What it makes no sense without. */
  readonly needs?: readonly HypervFeature[];
}

const privilege = (bit: number) => [LEAF_FEATURES, 'eax', bit] as const;
const available = (bit: number) => [LEAF_FEATURES, 'edx', bit] as const;
const recommended = (bit: number) => [LEAF_RECOMMENDATIONS, 'eax', bit] as const;
/** MSRs by which a guest says what it is and turns hypercalls on: there with every feature. */
const HYPERCALLS = privilege(5);

const FEATURES = {
  /** Watchdogs of the guest bear with a host that is busy. */
  'hv-relaxed': { bits: [recommended(5)] },
  /** The local APIC's hot registers are MSRs. */
  'hv-vapic': { bits: [privilege(4), recommended(3)] },
  /** A guest's spinning is told to the hypervisor; after how many tries is a number of its own. */
  'hv-spinlocks': { bits: [] },
  /** Number of a virtual processor. */
  'hv-vpindex': { bits: [privilege(6)] },
  /** Time that a virtual processor has run. */
  'hv-runtime': { bits: [privilege(0)] },
  /** MSRs by which a guest says why it crashes. */
  'hv-crash': { bits: [available(10)] },
  /** Reference counter, and a page by which the TSC gives it. */
  'hv-time': { bits: [privilege(1), privilege(9)] },
  'hv-synic': { bits: [privilege(2)], needs: ['hv-vpindex'] },
  'hv-stimer': { bits: [privilege(3)], needs: ['hv-synic', 'hv-time'] },
  /** Timers raise interrupts without a message. */
  'hv-stimer-direct': { bits: [available(19)], needs: ['hv-stimer'] },
  'hv-reset': { bits: [privilege(7)] },
  /** Frequencies of TSC and local APIC. */
  'hv-frequencies': { bits: [privilege(11), available(8)] },
  /** The guest is told that its TSC has changed, after migration. */
  'hv-reenlightenment': { bits: [privilege(13)] },
  /** Hypercalls that flush other processors' TLBs; also for more than 64 of them. */
  'hv-tlbflush': { bits: [recommended(2), recommended(11)], needs: ['hv-vpindex'] },
  /** Hypercalls that send interrupts to other processors. */
  'hv-ipi': { bits: [recommended(10), recommended(11)], needs: ['hv-vpindex'] },
} satisfies Record<HypervFeature, Feature>;

export interface Hyperv extends Pick<HypervChoice, 'features' | 'spinlocks' | 'vendorId'> {
  /** Virtual processors, at most. */
  readonly processors: number;
}

/** "Hv#1" */
const INTERFACE = 0x3123_7648;
/** Of Windows Server 2016: build, then major and minor version. */
const VERSION = [14393, (10 << 16) | 0] as const;
const SPINLOCKS_NEVER = 0xffff_ffff;

/**
 * CPUID of Hyper-V's interface. KVM's own leaves, if they are shown at all, are 100h further then.
 * @param supported what KVM can do (`Kvm.hypervCpuid`)
 * @throws Error, one line, about a feature that is not supported or lacks what it needs
 */
export function hypervLeaves(
  { features, spinlocks, vendorId, processors }: Hyperv,
  supported: readonly CpuidEntry[],
): CpuidEntry[] {
  if (features.size === 0) return [];
  checkFeatures(features, supported);
  const vendor = new Uint32Array(new TextEncoder().encode(vendorId.padEnd(12, '\0')).slice(0, 12).buffer);
  const leaf = (number: number, values: Partial<CpuidEntry>): CpuidEntry => ({
    function: number,
    index: 0,
    flags: 0,
    eax: 0,
    ebx: 0,
    ecx: 0,
    edx: 0,
    padding: [0, 0, 0],
    ...values,
  });
  const leaves = [
    leaf(LEAF_VENDOR, { eax: LEAF_HARDWARE, ebx: vendor[0]!, ecx: vendor[1]!, edx: vendor[2]! }),
    leaf(LEAF_INTERFACE, { eax: INTERFACE }),
    leaf(LEAF_VERSION, { eax: VERSION[0], ebx: VERSION[1] }),
    leaf(LEAF_FEATURES, {}),
    leaf(LEAF_RECOMMENDATIONS, { ebx: features.has('hv-spinlocks') ? spinlocks : SPINLOCKS_NEVER }),
    leaf(LEAF_LIMITS, { eax: processors }),
    leaf(LEAF_HARDWARE, {}),
  ];
  const bits: Bits = [HYPERCALLS, ...[...features].flatMap((name): Bits => FEATURES[name].bits)];
  for (const [number, register, bit] of bits) {
    const entry = leaves.find((one) => one.function === number)!;
    entry[register] = (entry[register] | (1 << bit)) >>> 0;
  }
  return leaves;
}

function checkFeatures(features: ReadonlySet<HypervFeature>, supported: readonly CpuidEntry[]): void {
  for (const name of features) {
    const { bits, needs = [] }: Feature = FEATURES[name];
    const lacking = needs.filter((other) => !features.has(other));
    if (lacking.length > 0) throw new Error(`${name} needs ${lacking.join(' and ')}`);
    const known = bits.every(([leaf, register, bit]) =>
      supported.some((entry) => entry.function === leaf && ((entry[register] >>> bit) & 1) !== 0),
    );
    if (supported.length === 0 || !known) throw new Error(`the host's KVM does not support ${name}`);
  }
}

/** Features that this KVM has, whatever they need. */
export function supportedHyperv(kvm: Kvm): HypervFeature[] {
  const supported = kvm.hypervCpuid();
  return HYPERV_FEATURES.filter((name) => {
    try {
      checkFeatures(new Set([name, ...needsOf(name)]), supported);
      return true;
    } catch {
      return false;
    }
  });
}

/** With everything that these need in turn. */
function needsOf(name: HypervFeature): HypervFeature[] {
  const { needs = [] }: Feature = FEATURES[name];
  return needs.flatMap((other) => [other, ...needsOf(other)]);
}

/** As a machine's CPU has it on this host. @throws Error, one line, about what this host does not have */
export function hypervOf({ features, passthrough, spinlocks, vendorId }: HypervChoice, kvm: Kvm, processors: number): Hyperv {
  const all = passthrough ? supportedHyperv(kvm).filter((name) => name !== 'hv-spinlocks') : [];
  return { features: new Set([...all, ...features]), spinlocks, vendorId, processors };
}

/**
 * MSRs of the interface that are part of a vCPU's state, in the order that they are written in: who the guest is comes
 * before its hypercalls, the interrupt controller before the timers that it serves, and a timer's set-up before its time.
 */
export const HYPERV_MSRS: readonly number[] = [
  // Guest's identity, page of hypercalls, number and run time of the processor, page of the reference time.
  ...[0x4000_0000, 0x4000_0001, 0x4000_0002, 0x4000_0010, 0x4000_0021],
  // Page that assists the local APIC.
  0x4000_0073,
  // Synthetic interrupts: pages of events and messages, sources, control.
  ...[0x4000_0082, 0x4000_0083, ...Array.from({ length: 16 }, (_, n) => 0x4000_0090 + n), 0x4000_0080],
  ...Array.from({ length: 8 }, (_, n) => 0x4000_00b0 + n),
  // What the guest has said of its crash; what it wants to hear of its counter's changes.
  ...[0x4000_0100, 0x4000_0101, 0x4000_0102, 0x4000_0103, 0x4000_0104],
  ...[0x4000_0106, 0x4000_0107, 0x4000_0108],
];

/** What the kernel wants to be asked for besides, before the vCPU first runs. @throws SystemCallError */
export function enableHyperv(vcpu: Vcpu, features: ReadonlySet<HypervFeature>): void {
  if (features.has('hv-synic')) vcpu.enable('KVM_CAP_HYPERV_SYNIC2');
}

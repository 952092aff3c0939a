/** A vCPU's whole state, read from the kernel and written to it in the order that it needs. */
import { MCE_BANKS } from '../isa/x86/system/machine-check.ts';
import { HYPERV_MSRS } from './hyperv.ts';
import { ALWAYS_KEPT, SREGS2_PDPTRS_VALID, type KernelCpu, type KernelSregs } from './state/cpu.ts';
import type { KernelApic } from './state/lapic.ts';
import { viewOf } from './struct.ts';
import type { Vcpu } from './vcpu.ts';

const MSR_TSC = 0x10;
const MSR_TSC_DEADLINE = 0x6e0;
/**
 * MSRs that are kept elsewhere: the counter and its deadline below, EFER with the control registers; those that do
 * something when they are written, which for the guest's clock is done under its newer number alone; and the count of SMIs.
 */
const ELSEWHERE: ReadonlySet<number> = new Set([MSR_TSC, MSR_TSC_DEADLINE, 0xc0000080, 0x11, 0x12, 0x4b564d00, 0x34]);
/** MSRs that the kernel keeps but does not list: memory types, and machine-check banks. */
const UNLISTED = [
  ...Array.from({ length: 16 }, (_, i) => 0x200 + i),
  ...[0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x277, 0x2ff],
  ...Array.from({ length: 4 * MCE_BANKS }, (_, i) => 0x400 + i),
];
/** Hyper-V's interface, of which some does something or tells times: what is kept of it is said elsewhere. */
const HYPERV = { first: 0x40000000, last: 0x400001ff } as const;
const isKept = (index: number): boolean => !ELSEWHERE.has(index) && (index < HYPERV.first || index > HYPERV.last);
const AT_TPR = 0x80;

export interface KernelVcpu {
  readonly cpu: KernelCpu;
  readonly apic: KernelApic;
  readonly tsc: bigint;
}

export class VcpuTransfer {
  private readonly vcpu: Vcpu;
  private readonly indices: readonly number[];
  private readonly hasSregs2: boolean;
  /** MSRs as the vCPU was made with them. */
  private readonly afterReset: ReadonlyMap<number, bigint>;
  /** MSRs of the state that was written last that the kernel does not have: they wait here. */
  private readonly aside = new Map<number, bigint>();

  /**
   * To be made before the vCPU has run, when its CPUID has been set.
   * @param indices MSRs that the kernel keeps
   * @param hyperv whether it has Hyper-V's interface
   */
  constructor(vcpu: Vcpu, indices: readonly number[], hasSregs2: boolean, hyperv = false) {
    this.vcpu = vcpu;
    this.hasSregs2 = hasSregs2;
    const { values } = vcpu.getMsrs([...new Set([...indices.filter(isKept), ...UNLISTED, ...(hyperv ? HYPERV_MSRS : [])])]);
    this.afterReset = values;
    this.indices = [...values.keys()];
  }

  /** @param known MSRs that are of interest also where they have the value that they had after reset */
  read(known: ReadonlySet<number>): KernelVcpu {
    const { vcpu } = this;
    // This comes first: the kernel carries pending events out that change other parts.
    const { mp_state: mpState } = vcpu.get('mpState');
    const { values } = vcpu.getMsrs([...this.indices, MSR_TSC, MSR_TSC_DEADLINE]);
    const sregs = this.readSregs();
    const cpu: KernelCpu = {
      regs: vcpu.get('regs'),
      sregs,
      debugRegs: vcpu.get('debugregs'),
      events: vcpu.get('events'),
      mpState,
      xcr0: vcpu.get('xcrs').xcrs.find(({ xcr }) => xcr === 0)?.value ?? 1n,
      xsave: vcpu.getXsave(),
      msrs: this.changed(values, known),
    };
    const apic = { page: vcpu.get('lapic').regs, base: sregs.apic_base, tscDeadline: values.get(MSR_TSC_DEADLINE) ?? 0n };
    return { cpu, apic, tsc: values.get(MSR_TSC) ?? 0n };
  }

  private readSregs(): KernelSregs {
    if (this.hasSregs2) return this.vcpu.get('sregs2');
    const { interrupt_bitmap: _, ...sregs } = this.vcpu.get('sregs');
    return { ...sregs, flags: 0n, pdptrs: [0n, 0n, 0n, 0n] };
  }

  private changed(values: ReadonlyMap<number, bigint>, known: ReadonlySet<number>): Map<number, bigint> {
    const changed = new Map(this.aside);
    for (const index of this.indices) {
      const value = values.get(index);
      if (value !== undefined && (known.has(index) || ALWAYS_KEPT.has(index) || value !== this.afterReset.get(index)))
        changed.set(index, value);
    }
    return changed;
  }

  /**
   * @param like a vCPU that has been written, whose time-stamp counter this one's is to agree with to the tick
   * @throws SystemCallError where the kernel does not take a part of it
   */
  write({ cpu, apic, tsc }: KernelVcpu, like: VcpuTransfer | null = null): void {
    const { vcpu } = this;
    const cr8 = BigInt(viewOf(apic.page).getUint32(AT_TPR, true) >> 4);
    const sregs = { ...cpu.sregs, apic_base: apic.base, cr8 };
    if (this.hasSregs2) {
      // Page-directory pointers count only where they are in use.
      const inUse = (sregs.cr0 & (1n << 31n)) !== 0n && (sregs.cr4 & (1n << 5n)) !== 0n && (sregs.efer & (1n << 10n)) === 0n;
      vcpu.set('sregs2', { ...sregs, flags: inUse ? SREGS2_PDPTRS_VALID : 0n });
    } else {
      const { flags: _, pdptrs: _pointers, ...older } = sregs;
      vcpu.set('sregs', older);
    }
    vcpu.set('regs', cpu.regs);
    vcpu.set('xcrs', { nr_xcrs: 1, xcrs: [{ xcr: 0, value: cpu.xcr0 }] });
    vcpu.setXsave(cpu.xsave);
    vcpu.set('debugregs', cpu.debugRegs);
    vcpu.set('mpState', { mp_state: cpu.mpState });
    vcpu.set('lapic', { regs: apic.page });
    this.writeMsrs(cpu.msrs);
    vcpu.setMsrs(new Map([[MSR_TSC, tsc]]));
    const offset = like?.vcpu.tscOffset ?? null;
    if (offset !== null) vcpu.setTscOffset(offset);
    vcpu.setMsrs(new Map([[MSR_TSC_DEADLINE, apic.tscDeadline]]));
    vcpu.set('events', cpu.events);
  }

  private writeMsrs(msrs: ReadonlyMap<number, bigint>): void {
    this.aside.clear();
    const refused = this.vcpu.setMsrs(new Map([...this.afterReset, ...msrs]));
    for (const index of refused) {
      const value = msrs.get(index);
      if (value !== undefined) this.aside.set(index, value);
    }
  }
}

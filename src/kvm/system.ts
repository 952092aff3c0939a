/** /dev/kvm: what the host's KVM can do, and the beginning of every VM. */
import { Descriptor } from './descriptor.ts';
import { KVM_API_VERSION } from './constants.ts';
import { type CpuidEntry, encodeMsrs, fetchCpuid } from './cpuid.ts';
import { KVM_MSR_ENTRY, KVM_MSR_LIST, KVM_MSRS } from './layouts.ts';
import { demand, E2BIG, type Libc, loadLibc, SystemCallError } from './libc.ts';
import { decodeList, encode, read, viewOf } from './struct.ts';
import { Vm } from './vm.ts';

export const KVM_DEVICE = '/dev/kvm';

type MsrListRequest = 'KVM_GET_MSR_INDEX_LIST' | 'KVM_GET_MSR_FEATURE_INDEX_LIST';

export class Kvm extends Descriptor {
  /** Bytes that are mapped of each vCPU. */
  readonly vcpuMapSize: number;

  /**
   * @throws SystemCallError when the device cannot be opened (`probe.ts` puts that into words)
   * @throws Error when it is not the KVM that we know
   */
  constructor(libc: Libc = loadLibc()) {
    super(libc, demand(libc.open(KVM_DEVICE), KVM_DEVICE));
    try {
      const version = this.call('KVM_GET_API_VERSION');
      if (version !== KVM_API_VERSION) throw new Error(`${KVM_DEVICE} has version ${version}, not ${KVM_API_VERSION}`);
      this.vcpuMapSize = this.call('KVM_GET_VCPU_MMAP_SIZE');
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** @throws SystemCallError */
  createVm(): Vm {
    return new Vm(this.libc, this.call('KVM_CREATE_VM'), this.vcpuMapSize);
  }

  /** CPUID as KVM can show it to a guest. */
  supportedCpuid(): CpuidEntry[] {
    return fetchCpuid(this, 'KVM_GET_SUPPORTED_CPUID');
  }

  /** CPUID of what KVM itself emulates where the processor lacks it. */
  emulatedCpuid(): CpuidEntry[] {
    return this.check('KVM_CAP_EXT_EMUL_CPUID') === 0 ? [] : fetchCpuid(this, 'KVM_GET_EMULATED_CPUID');
  }

  /** CPUID of Hyper-V's interface as KVM can show it; empty where the kernel tells it only of a vCPU. */
  hypervCpuid(): CpuidEntry[] {
    return this.check('KVM_CAP_SYS_HYPERV_CPUID') === 0 ? [] : fetchCpuid(this, 'KVM_GET_SUPPORTED_HV_CPUID');
  }

  /** MSRs that belong to a vCPU's state. */
  msrs(): number[] {
    return this.msrList('KVM_GET_MSR_INDEX_LIST');
  }

  /** MSRs that describe the processor, and their values on this host. */
  featureMsrs(): ReadonlyMap<number, bigint> {
    if (this.check('KVM_CAP_GET_MSR_FEATURES') === 0) return new Map();
    const indices = this.msrList('KVM_GET_MSR_FEATURE_INDEX_LIST');
    const bytes = encodeMsrs(indices.map((index) => ({ index })));
    const known = this.transfer('KVM_GET_MSRS', bytes);
    return new Map(decodeList(KVM_MSRS, KVM_MSR_ENTRY, bytes, known).map(({ index, data }) => [index, data]));
  }

  private msrList(name: MsrListRequest): number[] {
    // Asked with no room, the kernel says how much it needs.
    const question = encode(KVM_MSR_LIST, {});
    const refusal = this.tryTransfer(name, question);
    if (refusal < 0 && refusal !== -E2BIG) throw new SystemCallError(name, -refusal);
    const { nmsrs } = read(KVM_MSR_LIST, viewOf(question));
    const answer = encode(KVM_MSR_LIST, { nmsrs }, 4 * nmsrs);
    this.transfer(name, answer);
    return [...new Uint32Array(answer.buffer, KVM_MSR_LIST.size, nmsrs)];
  }
}

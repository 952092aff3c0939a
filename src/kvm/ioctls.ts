/** Requests of /dev/kvm: names, numbers (derived from direction, size and index) and what they carry. */
import * as L from './layouts.ts';
import type { AnyLayout, Layout } from './struct.ts';

/** Directions as in <asm-generic/ioctl.h>: bit 0, user space writes; bit 1, it reads. */
const WRITE = 1;
const READ = 2;
const KVMIO = 0xae;

export interface Request<T extends AnyLayout | null = AnyLayout | null> {
  readonly name: string;
  /**
   *  31 30 29           16 15       8 7        0
   * +-----+---------------+----------+----------+
   * | dir |     size      |   0xAE   |  index   |
   * +-----+---------------+----------+----------+
   */
  readonly number: bigint;
  readonly layout: T;
}

type Row<T extends AnyLayout | null> = readonly [direction: number, index: number, layout: T];

const none = (index: number): Row<null> => [0, index, null];
const set = <T extends AnyLayout>(index: number, layout: T): Row<T> => [WRITE, index, layout];
const get = <T extends AnyLayout>(index: number, layout: T): Row<T> => [READ, index, layout];
const exchange = <T extends AnyLayout>(index: number, layout: T): Row<T> => [READ | WRITE, index, layout];

const ROWS = {
  // /dev/kvm itself
  KVM_GET_API_VERSION: none(0x00),
  KVM_CREATE_VM: none(0x01),
  KVM_GET_MSR_INDEX_LIST: exchange(0x02, L.KVM_MSR_LIST),
  KVM_CHECK_EXTENSION: none(0x03),
  KVM_GET_VCPU_MMAP_SIZE: none(0x04),
  KVM_GET_SUPPORTED_CPUID: exchange(0x05, L.KVM_CPUID2),
  KVM_GET_EMULATED_CPUID: exchange(0x09, L.KVM_CPUID2),
  KVM_GET_MSR_FEATURE_INDEX_LIST: exchange(0x0a, L.KVM_MSR_LIST),
  KVM_GET_SUPPORTED_HV_CPUID: exchange(0xc1, L.KVM_CPUID2),

  // a VM
  KVM_CREATE_VCPU: none(0x41),
  KVM_GET_DIRTY_LOG: set(0x42, L.KVM_DIRTY_LOG),
  KVM_SET_USER_MEMORY_REGION: set(0x46, L.KVM_USERSPACE_MEMORY_REGION),
  KVM_SET_TSS_ADDR: none(0x47),
  KVM_SET_IDENTITY_MAP_ADDR: set(0x48, L.U64),
  KVM_CREATE_IRQCHIP: none(0x60),
  KVM_IRQ_LINE: set(0x61, L.KVM_IRQ_LEVEL),
  KVM_GET_IRQCHIP: exchange(0x62, L.KVM_IRQCHIP),
  // The header has the direction the wrong way round; it is part of the interface.
  KVM_SET_IRQCHIP: get(0x63, L.KVM_IRQCHIP),
  KVM_REGISTER_COALESCED_MMIO: set(0x67, L.KVM_COALESCED_MMIO_ZONE),
  KVM_UNREGISTER_COALESCED_MMIO: set(0x68, L.KVM_COALESCED_MMIO_ZONE),
  KVM_IRQ_LINE_STATUS: exchange(0x67, L.KVM_IRQ_LEVEL),
  KVM_SET_GSI_ROUTING: set(0x6a, L.KVM_IRQ_ROUTING),
  KVM_REINJECT_CONTROL: none(0x71),
  KVM_IRQFD: set(0x76, L.KVM_IRQFD),
  KVM_CREATE_PIT2: set(0x77, L.KVM_PIT_CONFIG),
  KVM_SET_BOOT_CPU_ID: none(0x78),
  KVM_IOEVENTFD: set(0x79, L.KVM_IOEVENTFD),
  KVM_SET_CLOCK: set(0x7b, L.KVM_CLOCK_DATA),
  KVM_GET_CLOCK: get(0x7c, L.KVM_CLOCK_DATA),
  KVM_GET_PIT2: get(0x9f, L.KVM_PIT_STATE2),
  KVM_SET_PIT2: set(0xa0, L.KVM_PIT_STATE2),
  KVM_SIGNAL_MSI: set(0xa5, L.KVM_MSI),
  KVM_CLEAR_DIRTY_LOG: exchange(0xc0, L.KVM_CLEAR_DIRTY_LOG),
  KVM_X86_SET_MSR_FILTER: set(0xc6, L.KVM_MSR_FILTER),

  // a vCPU
  KVM_RUN: none(0x80),
  KVM_GET_REGS: get(0x81, L.KVM_REGS),
  KVM_SET_REGS: set(0x82, L.KVM_REGS),
  KVM_GET_SREGS: get(0x83, L.KVM_SREGS),
  KVM_SET_SREGS: set(0x84, L.KVM_SREGS),
  KVM_TRANSLATE: exchange(0x85, L.KVM_TRANSLATION),
  KVM_INTERRUPT: set(0x86, L.KVM_INTERRUPT),
  KVM_GET_MSRS: exchange(0x88, L.KVM_MSRS),
  KVM_SET_MSRS: set(0x89, L.KVM_MSRS),
  KVM_SET_SIGNAL_MASK: set(0x8b, L.KVM_SIGNAL_MASK),
  KVM_GET_FPU: get(0x8c, L.KVM_FPU),
  KVM_SET_FPU: set(0x8d, L.KVM_FPU),
  KVM_GET_LAPIC: get(0x8e, L.KVM_LAPIC_STATE),
  KVM_SET_LAPIC: set(0x8f, L.KVM_LAPIC_STATE),
  KVM_SET_CPUID2: set(0x90, L.KVM_CPUID2),
  KVM_GET_CPUID2: exchange(0x91, L.KVM_CPUID2),
  KVM_TPR_ACCESS_REPORTING: exchange(0x92, L.KVM_TPR_ACCESS_CTL),
  KVM_SET_VAPIC_ADDR: set(0x93, L.KVM_VAPIC_ADDR),
  KVM_GET_MP_STATE: get(0x98, L.KVM_MP_STATE),
  KVM_SET_MP_STATE: set(0x99, L.KVM_MP_STATE),
  KVM_NMI: none(0x9a),
  KVM_SET_GUEST_DEBUG: set(0x9b, L.KVM_GUEST_DEBUG),
  KVM_X86_SETUP_MCE: set(0x9c, L.U64),
  KVM_X86_GET_MCE_CAP_SUPPORTED: get(0x9d, L.U64),
  KVM_X86_SET_MCE: set(0x9e, L.KVM_X86_MCE),
  KVM_GET_VCPU_EVENTS: get(0x9f, L.KVM_VCPU_EVENTS),
  KVM_SET_VCPU_EVENTS: set(0xa0, L.KVM_VCPU_EVENTS),
  KVM_GET_DEBUGREGS: get(0xa1, L.KVM_DEBUGREGS),
  KVM_SET_DEBUGREGS: set(0xa2, L.KVM_DEBUGREGS),
  KVM_SET_TSC_KHZ: none(0xa2),
  KVM_GET_TSC_KHZ: none(0xa3),
  KVM_ENABLE_CAP: set(0xa3, L.KVM_ENABLE_CAP),
  KVM_GET_XSAVE: get(0xa4, L.KVM_XSAVE),
  KVM_SET_XSAVE: set(0xa5, L.KVM_XSAVE),
  KVM_GET_XCRS: get(0xa6, L.KVM_XCRS),
  KVM_SET_XCRS: set(0xa7, L.KVM_XCRS),
  KVM_KVMCLOCK_CTRL: none(0xad),
  KVM_SMI: none(0xb7),
  KVM_SET_DEVICE_ATTR: set(0xe1, L.KVM_DEVICE_ATTR),
  KVM_GET_DEVICE_ATTR: set(0xe2, L.KVM_DEVICE_ATTR),
  KVM_HAS_DEVICE_ATTR: set(0xe3, L.KVM_DEVICE_ATTR),
  KVM_GET_SREGS2: get(0xcc, L.KVM_SREGS2),
  KVM_SET_SREGS2: set(0xcd, L.KVM_SREGS2),
  KVM_GET_XSAVE2: get(0xcf, L.KVM_XSAVE),
} as const;

type Rows = typeof ROWS;
export type RequestName = keyof Rows;
/** Requests that carry a structure. */
export type StructRequest = { [K in RequestName]: Rows[K][2] extends null ? never : K }[RequestName];
export type LayoutOf<N extends RequestName> = Rows[N][2] extends Layout<infer F> ? Layout<F> : never;

export const REQUESTS = Object.fromEntries(
  Object.entries(ROWS).map(([name, [direction, index, layout]]) => {
    const number = ((direction << 30) | ((layout?.size ?? 0) << 16) | (KVMIO << 8) | index) >>> 0;
    return [name, { name, number: BigInt(number), layout } satisfies Request];
  }),
) as unknown as { readonly [N in RequestName]: Request<Rows[N][2]> };

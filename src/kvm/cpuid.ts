/** CPUID leaves and lists of MSRs as KVM takes and gives them. */
import type { Descriptor } from './descriptor.ts';
import { KVM_CPUID2, KVM_CPUID_ENTRY2, KVM_MSR_ENTRY, KVM_MSRS } from './layouts.ts';
import { decodeList, encode, encodeList, type Patch, read, type Value, viewOf } from './struct.ts';

/** Room for leaves: the kernel's own limit. */
const CPUID_ENTRIES = 256;

export type CpuidEntry = Value<typeof KVM_CPUID_ENTRY2>;
type CpuidRequest = 'KVM_GET_SUPPORTED_CPUID' | 'KVM_GET_EMULATED_CPUID' | 'KVM_GET_SUPPORTED_HV_CPUID' | 'KVM_GET_CPUID2';

/** @throws SystemCallError */
export function fetchCpuid(from: Descriptor, name: CpuidRequest): CpuidEntry[] {
  const bytes = encode(KVM_CPUID2, { nent: CPUID_ENTRIES }, CPUID_ENTRIES * KVM_CPUID_ENTRY2.size);
  from.transfer(name, bytes);
  const { nent } = read(KVM_CPUID2, viewOf(bytes));
  return decodeList(KVM_CPUID2, KVM_CPUID_ENTRY2, bytes, nent);
}

/** Argument of KVM_SET_CPUID2. */
export function encodeCpuid(entries: readonly Patch<typeof KVM_CPUID_ENTRY2>[]): Uint8Array<ArrayBuffer> {
  return encodeList(KVM_CPUID2, { nent: entries.length }, KVM_CPUID_ENTRY2, entries);
}

/** Argument of KVM_GET_MSRS and KVM_SET_MSRS. */
export function encodeMsrs(entries: readonly { readonly index: number; readonly data?: bigint }[]): Uint8Array<ArrayBuffer> {
  return encodeList(KVM_MSRS, { nmsrs: entries.length }, KVM_MSR_ENTRY, entries);
}

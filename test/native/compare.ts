/** Compares the state after a case on the host with that in the engine. */
import { SIGBUS, SIGSEGV } from './native.ts';
import type { Case } from './native.ts';

/** Stack faults come as SIGBUS. */
const signalOf = (number: number): number => (number === SIGBUS ? SIGSEGV : number);

export function hex(value: bigint): string {
  return value.toString(16);
}

const REGISTERS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'];

const PAGE_FAULT = 14;
const STACK_FAULT = 12;
/** Of a page fault's error code: present, write, user. */
const PAGE_FAULT_BITS = 7;

/** Vector and error code; of page faults where, and by which access. */
function faultDifferences(native: Case, ours: Case, pageOnly: boolean): string[] {
  // Addresses that are not canonical raise #SS by way of the stack pointer, which the MMU here does not know.
  if (native.vector === STACK_FAULT && ours.vector === STACK_FAULT + 1) return [];
  if (native.vector !== ours.vector) return [`vector ${native.vector} / ${ours.vector}`];
  // The kernel does not tell programs what is there of its own half of the address space.
  const mask = native.address >> 47n ? PAGE_FAULT_BITS & ~1 : PAGE_FAULT_BITS;
  const code = (one: Case): number => (one.vector === PAGE_FAULT ? one.error & mask : one.error);
  const list =
    native.vector >= STACK_FAULT && native.vector <= PAGE_FAULT && code(native) !== code(ours)
      ? [`error code ${native.error} / ${ours.error}`]
      : [];
  if (native.vector !== PAGE_FAULT) return list;
  const text = (one: Case): string => hex(pageOnly ? one.address >> 12n : one.address);
  return text(native) === text(ours) ? list : [...list, `fault at ${text(native)} / ${text(ours)}`];
}

function byteDifferences(name: string, native: Uint8Array, ours: Uint8Array): string[] {
  const list: string[] = [];
  for (let at = 0; at < native.length; at += 16) {
    const text = (bytes: Uint8Array): string =>
      Buffer.from(bytes.subarray(at, at + 16))
        .reverse()
        .toString('hex');
    if (text(native) !== text(ours)) list.push(`${name}[${at / 16}] ${text(native)} / ${text(ours)}`);
  }
  return list;
}

export interface VectorRules {
  /** The upper halves of the ymm registers are compared elsewhere. */
  readonly skip?: boolean;
  /** Which byte of the page a fault names is the processor's affair. */
  readonly pageOnly?: boolean;
}

/** @param mask flags to compare  @param branch may end at an address without code */
export function differences(mask: number, branch: boolean, native: Case, ours: Case, vectors: VectorRules = {}): string[] {
  const list: string[] = [];
  if (signalOf(native.signal) !== ours.signal) return [`signal ${native.signal} / ${ours.signal}`];
  // An indirect branch to where no code is faults at the branch, or at its target.
  if (native.signal === SIGSEGV && branch) return [];
  list.push(...faultDifferences(native, ours, vectors.pageOnly ?? false));
  if (!vectors.skip) list.push(...byteDifferences('ymm', native.ymm, ours.ymm));
  list.push(...byteDifferences('tail', native.tail, ours.tail));
  native.gpr.forEach((value, i) => {
    if (value !== ours.gpr[i]) list.push(`${REGISTERS[i]} ${hex(value)} / ${hex(ours.gpr[i]!)}`);
  });
  if ((native.flags & mask) !== (ours.flags & mask)) {
    list.push(`flags ${(native.flags & mask).toString(16)} / ${(ours.flags & mask).toString(16)}`);
  }
  if (native.rip !== ours.rip) list.push(`rip ${hex(native.rip)} / ${hex(ours.rip)}`);
  native.data.forEach((value, i) => {
    if (value !== ours.data[i]) list.push(`data[${i}] ${value} / ${ours.data[i]}`);
  });
  return list;
}

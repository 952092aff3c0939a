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
const SEGMENT_FAULTS = [12, 13];

/** Vector, and where page faults were and by which access. */
function faultDifferences(native: Case, ours: Case, pageOnly: boolean): string[] {
  if (native.signal !== SIGSEGV && native.signal !== SIGBUS) return [];
  if (SEGMENT_FAULTS.includes(native.vector) && SEGMENT_FAULTS.includes(ours.vector)) return [];
  if (native.vector !== ours.vector) return notCanonical(native, ours) ? [] : [`vector ${native.vector} / ${ours.vector}`];
  if (native.vector !== PAGE_FAULT) return [];
  const text = (one: Case): string => `${one.write ? 'write' : 'read'} at ${hex(pageOnly ? one.address >> 12n : one.address)}`;
  return text(native) === text(ours) ? [] : [`fault: ${text(native)} / ${text(ours)}`];
}

/** Addresses that are not canonical are #GP to the processor, and not mapped to the bare test CPU. */
function notCanonical(native: Case, ours: Case): boolean {
  const top = BigInt.asIntN(17, ours.address >> 47n);
  return SEGMENT_FAULTS.includes(native.vector) && ours.vector === PAGE_FAULT && top !== 0n && top !== -1n;
}

function byteDifferences(name: string, native: Uint8Array, ours: Uint8Array): string[] {
  const list: string[] = [];
  for (let at = 0; at < native.length; at += 16) {
    const text = (bytes: Uint8Array): string => Buffer.from(bytes.subarray(at, at + 16)).reverse().toString('hex');
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
export function differences(
  mask: number, branch: boolean, native: Case, ours: Case, vectors: VectorRules = {},
): string[] {
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

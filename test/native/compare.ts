/** Compares the state after a case on the host with that in the engine. */
import { SIGBUS, SIGSEGV } from './native.ts';
import type { Case } from './native.ts';

/** Stack faults come as SIGBUS. */
const signalOf = (number: number): number => (number === SIGBUS ? SIGSEGV : number);

export function hex(value: bigint): string {
  return value.toString(16);
}

const REGISTERS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'];

/** @param mask flags to compare  @param branch may end at an address without code */
export function differences(mask: number, branch: boolean, native: Case, ours: Case): string[] {
  const list: string[] = [];
  if (signalOf(native.signal) !== ours.signal) return [`signal ${native.signal} / ${ours.signal}`];
  // An indirect branch to where no code is faults at the branch, or at its target.
  if (native.signal === SIGSEGV && branch) return [];
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

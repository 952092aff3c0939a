/** Exits and registers as text, for what nobody can handle. */
import { EXIT, exitName, INTERNAL_ERROR, internalErrorName, NUMBERS } from './constants.ts';
import { SystemCallError } from './libc.ts';
import type { RunPage } from './run-page.ts';
import type { Vcpu, VcpuState } from './vcpu.ts';

type Segment = VcpuState<'sregs'>['cs'];
type SegmentName = 'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'ldt' | 'tr';
type General = keyof VcpuState<'regs'>;

const GENERAL: readonly (readonly General[])[] = [
  ['rax', 'rbx', 'rcx', 'rdx'],
  ['rsi', 'rdi', 'rbp', 'rsp'],
  ['r8', 'r9', 'r10', 'r11'],
  ['r12', 'r13', 'r14', 'r15'],
];
const SEGMENTS: readonly SegmentName[] = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldt', 'tr'];
/** Letters for RFLAGS' bits, as QEMU shows them: direction, overflow, sign, zero, auxiliary, parity, carry. */
const FLAG_LETTERS = [
  [10, 'D'],
  [11, 'O'],
  [7, 'S'],
  [6, 'Z'],
  [4, 'A'],
  [2, 'P'],
  [0, 'C'],
] as const;

const hex = (value: bigint | number, digits: number): string => value.toString(16).padStart(digits, '0');
const bytesInHex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => hex(byte, 2)).join(' ');

/**
 * Why KVM_RUN returned, in one line.
 * @param run whose exit it is
 */
export function describeExit(run: RunPage): string {
  const { reason } = run;
  const { exit } = run;
  const name = exitName(reason);
  switch (reason) {
    case EXIT.KVM_EXIT_IO:
      return `${name}: ${run.ioIsOut ? 'out' : 'in'} port ${hex(run.ioPort, 1)}h, ${run.ioCount} x ${run.ioSize} bytes`;
    case EXIT.KVM_EXIT_MMIO:
      return `${name}: ${run.mmioIsWrite ? 'write' : 'read'} of ${run.mmioLength} bytes at 0x${hex(run.mmioAddress, 1)}`;
    case EXIT.KVM_EXIT_SHUTDOWN:
      return `${name}: the guest has had a triple fault`;
    case EXIT.KVM_EXIT_FAIL_ENTRY:
      return `${name}: the processor does not enter the guest, reason 0x${hex(exit.fail_entry.hardware_entry_failure_reason, 1)}`;
    case EXIT.KVM_EXIT_UNKNOWN:
      return `${name}: hardware exit reason 0x${hex(exit.hw.hardware_exit_reason, 1)}`;
    case EXIT.KVM_EXIT_INTERNAL_ERROR:
      return `${name}: ${describeInternalError(run)}`;
    case EXIT.KVM_EXIT_SYSTEM_EVENT:
      return `${name}: type ${exit.system_event.type}`;
    case EXIT.KVM_EXIT_X86_RDMSR:
    case EXIT.KVM_EXIT_X86_WRMSR:
      return `${name}: MSR 0x${hex(run.msrIndex, 1)}`;
    case EXIT.KVM_EXIT_DEBUG:
      return `${name}: at 0x${hex(run.debug.pc, 1)}, DR6 0x${hex(run.debug.dr6, 1)}`;
    default:
      return name;
  }
}

function describeInternalError(run: RunPage): string {
  const { internal, emulation_failure } = run.exit;
  const name = internalErrorName(run.suberror);
  const { KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES } = NUMBERS;
  const count = Math.min(internal.ndata, internal.data.length);
  if (run.suberror !== INTERNAL_ERROR.KVM_INTERNAL_ERROR_EMULATION) {
    return [name, ...internal.data.slice(0, count).map((value) => `0x${hex(value, 1)}`)].join(' ');
  }
  const known = count > 0 && (emulation_failure.flags & BigInt(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) !== 0n;
  // Bytes of the instruction and what follows it: the kernel does not say where it ends.
  const bytes = known ? bytesInHex(emulation_failure.insn_bytes.subarray(0, emulation_failure.insn_size)) : 'unknown';
  return `${name}: KVM cannot emulate the instruction, whose bytes are ${bytes}`;
}

/** Type, S, DPL, P, AVL, L, D/B and G where a descriptor's upper half has them (Intel SDM, volume 3, 3.4.5). */
const attributes = ({ type, s, dpl, present, avl, l, db, g }: Segment): number =>
  ((type << 8) | (s << 12) | (dpl << 13) | (present << 15) | (avl << 20) | (l << 21) | (db << 22) | (g << 23)) >>> 0;

/** Registers as QEMU's `info registers` shows them. */
export function formatRegisters(regs: VcpuState<'regs'>, sregs: VcpuState<'sregs'>): string {
  const flags = FLAG_LETTERS.map(([bit, letter]) => ((regs.rflags >> BigInt(bit)) & 1n ? letter : '-')).join('');
  return [
    ...GENERAL.map((row) => row.map((name) => `${name.toUpperCase().padEnd(3)}=${hex(regs[name], 16)}`).join(' ')),
    `RIP=${hex(regs.rip, 16)} RFL=${hex(regs.rflags, 8)} [${flags}] CPL=${sregs.ss.dpl}`,
    ...SEGMENTS.map((name) => {
      const segment = sregs[name];
      return `${name.toUpperCase().padEnd(3)}=${hex(segment.selector, 4)} ${hex(segment.base, 16)} ${hex(segment.limit, 8)} ${hex(attributes(segment), 8)}`;
    }),
    `GDT=     ${hex(sregs.gdt.base, 16)} ${hex(sregs.gdt.limit, 8)}`,
    `IDT=     ${hex(sregs.idt.base, 16)} ${hex(sregs.idt.limit, 8)}`,
    `CR0=${hex(sregs.cr0, 8)} CR2=${hex(sregs.cr2, 16)} CR3=${hex(sregs.cr3, 16)} CR4=${hex(sregs.cr4, 8)}`,
    `EFER=${hex(sregs.efer, 16)}`,
  ].join('\n');
}

/**
 * Where a vCPU stands that cannot go on: its exit and its registers.
 * @param error of KVM_RUN, where that failed; else null
 */
export function describeVcpu(vcpu: Vcpu, error: SystemCallError | null = null): string {
  const why = error === null ? describeExit(vcpu.run) : error.message;
  try {
    return `${why}\n${formatRegisters(vcpu.get('regs'), vcpu.get('sregs'))}`;
  } catch (failure) {
    return `${why}\nits registers cannot be read (${(failure as Error).message})`;
  }
}

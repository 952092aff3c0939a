/** Where a KVM is known not to do what processors do, or does not do all of it: what is left out there, and why. */
import { readFileSync } from 'node:fs';
import type { Outcome } from './compare.ts';
import { isUser, type Mode, type Step, vectorAt } from './guest.ts';

export interface HostKind {
  readonly name: string;
  /** Modes that it does not run. */
  readonly without: ReadonlySet<Mode>;
  /** Sequences that are left out, by their instructions; these stand between semicolons. */
  readonly skipped: RegExp;
  /** Bits of RFLAGS that may be anything. */
  readonly flags: number;
  /** Bits of a page fault's error code that are right. */
  readonly faultCode: number;
  /** This state is left out. */
  leavesOut(step: Step & { readonly name: string }): boolean;
  /** The host cannot go on with this, or not as a processor would. */
  isBeyond(mode: Mode, ours: Outcome, theirs: Outcome): boolean;
  /** Whether accessed and dirty bits of page tables agree with a processor's. */
  hasTables(mode: Mode, ours: Outcome): boolean;
}

const vectorOf = ({ state }: Outcome): number => vectorAt(state.fields['rip'] as bigint);
const STACK_FAULT = 12;
const PROTECTION = 13;
const PAGE_FAULT = 14;
const CR0_TS = 8n;

/** A processor with all of virtualization. */
const WHOLE: HostKind = {
  name: 'a whole one',
  without: new Set(),
  // Nobody hands INT1 on to the guest as what it is.
  skipped: /INT1/,
  flags: 0,
  faultCode: ~0,
  leavesOut: () => false,
  isBeyond: () => false,
  hasTables: () => true,
};

/**
 * KVM without the processor's help (kvm_pvm). Programs of its guests run with the host's own privilege: it is the host's
 * IOPL, segments, descriptors, page tables and features that they see, and its gates by which they leave. The rest is
 * emulated, in part (AAM's flags are not), and exceptions are not delivered to what is.
 */
const PVM: HostKind = {
  name: 'one without the processor',
  without: new Set(['paged32', 'pae32', 'user32', 'v8086', 'compat32']),
  skipped:
    /INT|SYSCALL|SYSENTER|SWAPGS|GSBASE|Sreg|[FG]S\b|DR6|CLI|STI|PUSHF|POPF|AA[MD]|MOVDIR64B|X[GS]ETBV|CR|VER|LAR|LSL|S[LGI]DT|STR\b|SMSW|(^|; )F/,
  flags: 0x3000,
  faultCode: ~0,
  leavesOut: ({ mode, state }) => isUser(mode) && ((state.fields['cr0'] as bigint) & CR0_TS) !== 0n,
  isBeyond: (mode, ours, theirs) => theirs.ended !== 'end' || (!isUser(mode) && vectorOf(ours) >= 0),
  hasTables: () => false,
};

/**
 * QEMU's translator (7.2), whose processor has SVM. It
 * - ends when a TSS of 32 bits that is marked busy is used to change privilege;
 * - pushes no RF for faults, has the error code of INT n count gates by sixteen, and tells reads for instructions that
 *   read and write what is not there;
 * - looks neither at non-canonical addresses of LGDT, LIDT, WRMSR and CLWB nor at rights and limits of segments, knows no
 *   stack faults of addresses, nor of the x87;
 * - has XSETBV of a guest's change the host's XCR0, for it does not intercept it;
 * - has SYSENTER in compatibility mode, which KVM cannot emulate elsewhere, and loses flags at SYSCALL;
 * - makes flags up for ADCX, ADOX and BLSI, swaps four bytes for BSWAP of two, and lacks a TEST, some NOPs
 *   and VLDMXCSR;
 * - keeps bit 12 of DR6, and clears bits of LAR that are undefined;
 * - writes all of the place on the stack where PUSH of a segment writes two bytes on Intel's processors;
 * - marks page-directory pointers as accessed, by which they become invalid ones, and pages where an access is denied, but
 *   not where CLWB and CLFLUSH go.
 */
const QEMU: HostKind = {
  ...WHOLE,
  name: "one on QEMU's translator",
  without: new Set(['user32', 'v8086']),
  skipped: new RegExp(
    [
      ...[
        'INT1',
        'INT n',
        'SYSCALL',
        'SYSENTER',
        'ADCX',
        'ADOX',
        'BLS',
        'BSWAP',
        'TEST',
        '(^|; )NOP',
        'V(LD|ST)MXCSR',
        'MOV DR6',
        'LAR',
      ],
      ...['CLWB', 'CLFLUSH', 'FLD1', 'XSETBV', '(^|; )(WRMSR|LGDT|LIDT|LLDT|LTR)', 'PUSH ([CDEFGS]S|Sreg)'],
    ].join('|'),
  ),
  flags: 0x1_0000,
  faultCode: ~2,
  leavesOut: ({ mode, name }) => mode === 'pae32' && /MOV CR/.test(name),
  isBeyond: (_, ours, theirs) => [STACK_FAULT, PROTECTION].includes(vectorOf(ours)) && vectorOf(ours) !== vectorOf(theirs),
  hasTables: (mode, ours) => mode !== 'pae32' && vectorOf(ours) !== PAGE_FAULT,
};

/** @param complete its KVM runs guests of all kinds */
export function hostKind(complete: boolean): HostKind {
  if (!complete) return PVM;
  return /QEMU TCG/.test(readFileSync('/proc/cpuinfo', 'latin1')) ? QEMU : WHOLE;
}

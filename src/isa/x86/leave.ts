/**
 * Reasons for which translated x86 code leaves for the system code (system/).
 *
 * The exit's argument: bits 0-3 the instruction's length in bytes, bits 4-5 the
 * operand size (0 = 8, 1 = 16, 2 = 32, 3 = 64 bits), from bit 8 up what the list says.
 * The exit's pc is that of the NEXT instruction (wrapped to the code size), and a handler
 * that raises a fault takes the length off again; but for EXCEPTION, SEGMENT_FAULT,
 * FPU_ERROR, SIMD_ERROR, INTO, DIV, BREAKPOINT, SKIP, COMPARED, MASK_EMPTY and those named HERE, which side exits use, it is that of
 * THIS instruction. Operands come in OP0-OP3 of the state block; addresses are linear, with the segment's base already added.
 * A handler that may change the mode recomputes block flags before it returns.
 */
import { EXIT_ISA } from '../../ir/vcpu-block.ts';

let next = EXIT_ISA;
const reason = (): number => next++;

/** Raise the exception of vector arg>>8 (error code 0 where it has one) at THIS instruction (a fault). */
export const LEAVE_EXCEPTION = reason();
/** INT n, n = arg>>8; INT3 and INTO have reasons of their own; INT1 (ICEBP). */
export const LEAVE_INT = reason();
export const LEAVE_INT3 = reason();
export const LEAVE_INTO = reason(); // only when OF is set
export const LEAVE_INT1 = reason();
export const LEAVE_HLT = reason();
export const LEAVE_CPUID = reason();
export const LEAVE_RDMSR = reason();
export const LEAVE_WRMSR = reason();
export const LEAVE_RDTSC = reason();
export const LEAVE_RDTSCP = reason();
export const LEAVE_RDPMC = reason();
/** IN: port in OP0, size by operand size; result to AL/AX/EAX. OUT: value from the accumulator. */
export const LEAVE_IN = reason();
export const LEAVE_OUT = reason();
/** INS/OUTS: bit 8 = REP, bits 9-10 address size (1, 2, 3), bits 11-13 segment, whose linear base is in OP1. */
export const LEAVE_INS = reason();
export const LEAVE_OUTS = reason();
/** REP string instructions as one bulk operation: bit 8-10 kind (0 MOVS, 1 STOS, 2 LODS, 3 CMPS, 4 SCAS),
 * bit 11 REPNE, bits 12-13 address size (1, 2, 3), bits 14-16 source segment. OP0 = base of the source segment (linear), OP1 = base of ES.
 * The handler does a bounded amount of work; when it is not finished it leaves pc at the instruction. */
export const LEAVE_REP = reason();
/** MOV CRn (reads: CR8 only): bits 8-11 CR number, bits 12-15 general register. */
export const LEAVE_READ_CR = reason();
export const LEAVE_WRITE_CR = reason();
export const LEAVE_READ_DR = reason();
export const LEAVE_WRITE_DR = reason();
export const LEAVE_CLTS = reason();
/** LMSW: value in OP0. */
export const LEAVE_LMSW = reason();
/** LGDT/LIDT/SGDT/SIDT: linear address in OP0. */
export const LEAVE_LGDT = reason();
export const LEAVE_LIDT = reason();
export const LEAVE_SGDT = reason();
export const LEAVE_SIDT = reason();
/** LLDT/LTR: selector in OP0. */
export const LEAVE_LLDT = reason();
export const LEAVE_LTR = reason();
/** LAR/LSL: selector in OP0, bits 8-11 destination register (operand size in bits 4-5); sets ZF. */
export const LEAVE_LAR = reason();
export const LEAVE_LSL = reason();
/** VERR/VERW: selector in OP0. */
export const LEAVE_VERR = reason();
export const LEAVE_VERW = reason();
/** Load a segment register: bits 8-10 segment, selector in OP0. Bit 11: from POP, so rSP grows by
 * the operand size after the load has succeeded. Not for CS. */
export const LEAVE_LOAD_SEG = reason();
/** LDS, LES, LFS, LGS, LSS: bits 8-10 segment, bits 12-15 register; selector in OP0, offset in OP1. */
export const LEAVE_LOAD_FAR = reason();
/** Far JMP and CALL: selector in OP0, offset in OP1, operand size in bits 4-5. */
export const LEAVE_FAR_JUMP = reason();
export const LEAVE_FAR_CALL = reason();
/** Far RET: OP0 = bytes of parameters to release. */
export const LEAVE_FAR_RET = reason();
export const LEAVE_IRET = reason();
export const LEAVE_SYSCALL = reason();
export const LEAVE_SYSRET = reason(); // operand size 64: to 64-bit code
export const LEAVE_SYSENTER = reason();
export const LEAVE_SYSEXIT = reason();
/** INVLPG: linear address in OP0. */
export const LEAVE_INVLPG = reason();
/** INVPCID: type in OP0, linear address of the descriptor in OP1. */
export const LEAVE_INVPCID = reason();
export const LEAVE_WBINVD = reason(); // and INVD: privilege check only
export const LEAVE_CLI = reason(); // only where BF_IO_FREE does not already permit it inline
export const LEAVE_STI = reason(); // always: it may let an interrupt in
/** POPF: value in OP0 (rSP is already adjusted: OP1 holds its new value, written by the handler). */
export const LEAVE_POPF = reason();
/** PUSHF in V86 mode with IOPL < 3 (else it is inline). */
export const LEAVE_PUSHF_V86 = reason();
export const LEAVE_STAC = reason();
export const LEAVE_CLAC = reason();
/** RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: bits 8-9 which, bits 12-15 register. */
export const LEAVE_FSGSBASE = reason();
export const LEAVE_XGETBV = reason();
export const LEAVE_XSETBV = reason();
/** FXSAVE, FXRSTOR, XSAVE, XRSTOR, XSAVEOPT, XSAVEC, XSAVES, XRSTORS: bits 8-11 which in this order, linear address in OP0,
 * operand size 64 = the REX.W form. */
export const LEAVE_XSAVE = reason();
/** DIV/IDIV whose dividend needs both halves: bit 8 signed; divisor in OP0. Also raises #DE. */
export const LEAVE_DIV = reason();
/** BOUND: index in OP0, linear address of the bounds in OP1. */
export const LEAVE_BOUND = reason();
/** ENTER with a nesting level: OP0 = frame size, OP1 = level. */
export const LEAVE_ENTER = reason();
/** SLDT, STR, SMSW are inline unless UMIP forbids them (then LEAVE_EXCEPTION). ARPL is inline. */
/** MONITOR: linear address in OP0. MWAIT waits as HLT does. */
export const LEAVE_MONITOR = reason();
export const LEAVE_MWAIT = reason();
export const LEAVE_RSM = reason();
/** RDRAND/RDSEED: bits 8-11 register; sets CF. */
export const LEAVE_RDRAND = reason();
/** Single step trap (#DB) after the instruction before this exit: pc is where to go on;
 * with argument bit 8 it is in OP0 instead, the instruction's own in OP1, and OP2 says whether it has branched. Instructions with leave reasons of their own do not end in this one. */
export const LEAVE_SINGLE_STEP = reason();
/** MXCSR was loaded from OP0 (LDMXCSR): #GP on reserved bits, then block flags change. */
export const LEAVE_LDMXCSR = reason();
/** A program has stored MXCSR: its flags are exact from now on. */
export const LEAVE_STMXCSR = reason();
/** WAIT/x87 instruction with a pending unmasked exception: #MF (or IRQ 13 by CR0.NE). */
export const LEAVE_FPU_ERROR = reason();
/** An SSE instruction raised an unmasked exception, which MXCSR names by now: #XM, or #UD by CR4. */
export const LEAVE_SIMD_ERROR = reason();
/** A memory operand violated its segment: bits 8-10 segment (SS raises #SS, the others #GP). Error code 0. */
export const LEAVE_SEGMENT_FAULT = reason();
/** A side exit of an instruction that has done all it does: go on after it. */
export const LEAVE_SKIP = reason();
/** A side exit of FCOMIP and FUCOMIP that an unmasked exception has stopped: ZF, PF and CF are in OP0; go on after it. */
export const LEAVE_COMPARED = reason();
/** CMPXCHG16B/8B, atomics that need no help are inline. VMCALL and other hypercalls: #UD. */
/** As LEAVE_REP, but a side exit: the pc is that of THIS instruction. */
export const LEAVE_REP_HERE = reason();
/** The instruction is at a breakpoint; the pc is that of THIS instruction. */
export const LEAVE_BREAKPOINT = reason();
/** As LEAVE_STI, but a side exit for when an interrupt waits: the pc is that of THIS instruction. */
export const LEAVE_STI_HERE = reason();
/** As LEAVE_POPF and LEAVE_LOAD_SEG, but side exits: the pc is that of THIS instruction. */
export const LEAVE_POPF_HERE = reason();
export const LEAVE_LOAD_SEG_HERE = reason();
/** As LEAVE_STAC and LEAVE_CLAC, but side exits for when the other context is not ready. */
export const LEAVE_STAC_HERE = reason();
export const LEAVE_CLAC_HERE = reason();
/** As LEAVE_RDTSC and LEAVE_RDTSCP, but side exits for when the counter can only be read there. */
export const LEAVE_RDTSC_HERE = reason();
export const LEAVE_RDTSCP_HERE = reason();
/**
 * A masked or gathering load whose mask is all zeros, a side exit: bits 8-11 an xmm register that
 * becomes zero, and of the register in bits 12-15 the upper half when bit 16 is set, of its lower half
 * the upper half, too, when bit 17 is set. Go on after it.
 */
export const LEAVE_MASK_EMPTY = reason();

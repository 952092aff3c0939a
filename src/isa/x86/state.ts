/**
 * Layout of the x86 vCPU state block (byte offsets from the block's start; the
 * engine's own part lies below ISA_STATE = 256).
 *
 *    256  gpr[16]      i64 each: rax rcx rdx rbx rsp rbp rsi rdi r8…r15
 *    384  ccDst ccSrc ccSrc2   i64 each: lazy condition codes, see flags.ts
 *    408  eflags       i32: all flags but OF SF ZF AF PF CF (those are lazy); bit 1 always set
 *    416  segment[8]   32 bytes each: base i64, limit u32 (byte-granular), attributes u32, selector u32
 *                      order ES CS SS DS FS GS LDTR TR; attributes = descriptor bits 8-23 >> 0
 *                      (type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15), SEG_NULL when unusable
 *    672  cr0 cr2 cr3 cr4 efer   i64 each
 *    712  dr0-dr3, dr6, dr7      i64 each
 *    760  gdtr base i64, limit u32;  776 idtr likewise
 *    792  MSRs, i64 each
 *    896  flags of the execution state, i32 each
 *   1024  x87; 1200 mxcsr; 1216 xmm[16]; 1472 upper halves of ymm[16]
 *   1728  operands for `leave` and helpers
 */
import { I32, I64, V128 } from '../../ir/ops.ts';
import type { Global } from '../../ir/builder.ts';

export const GPR = 256;
export const CC_DST = 384;
export const CC_SRC = 392;
export const CC_SRC2 = 400;
export const EFLAGS = 408;

export const SEG = 416;
export const SEG_SIZE = 32;
export const SEG_BASE = 0;
export const SEG_LIMIT = 8;
export const SEG_ATTR = 12;
export const SEG_SELECTOR = 16;
export const ES = 0;
export const CS = 1;
export const SS = 2;
export const DS = 3;
export const FS = 4;
export const GS = 5;
export const LDTR = 6;
export const TR = 7;
/** Attribute bit (outside the descriptor's own) of a segment that must not be used. */
export const SEG_NULL = 1 << 16;

export const CR0 = 672;
export const CR2 = 680;
export const CR3 = 688;
export const CR4 = 696;
export const EFER = 704;
export const DR = 712; // dr0-dr3, then dr6, dr7
export const DR6 = 744;
export const DR7 = 752;
export const DR7_LOCAL = 0x55; // breakpoints of the current task
export const GDTR_BASE = 760;
export const GDTR_LIMIT = 768;
export const IDTR_BASE = 776;
export const IDTR_LIMIT = 784;

export const MSR_STAR = 792;
export const MSR_LSTAR = 800;
export const MSR_CSTAR = 808;
export const MSR_SFMASK = 816;
export const MSR_KERNEL_GS_BASE = 824;
export const MSR_SYSENTER_CS = 832;
export const MSR_SYSENTER_ESP = 840;
export const MSR_SYSENTER_EIP = 848;
export const MSR_TSC_AUX = 856;
export const MSR_PAT = 864;
export const MSR_MISC_ENABLE = 872;
export const XCR0 = 880;
export const MSR_XSS = 888;

/** Non-zero: interrupts wait until after the next instruction (STI, MOV SS). 1 = STI, 2 = MOV/POP SS. */
export const INTERRUPT_SHADOW = 896;
export const SHADOW_STI = 1;
export const SHADOW_SS = 2;
export const HALTED = 900;
export const NMI_BLOCKED = 904;
export const CPL = 908;
/** Non-zero: a maskable interrupt waits at the controller. Derived from its wire, not part of saved states. */
export const INTR_LINE = 912;
/** Four linear addresses that instruction breakpoints are at; the unused ones are none that code can have. */
export const BREAKPOINTS = 920;

export const FPREG = 1024; // 8 physical registers of 16 bytes: significand i64, sign+exponent u16 (as i32)
export const FCW = 1152; // i32
export const FSW = 1156; // i32, TOP in it kept zero: see FTOP
export const FTOP = 1160; // i32, 0-7
export const FTAG = 1164; // 8 bytes by physical register: 1 = empty
export const FIP = 1176; // i64
export const FDP = 1184; // i64
export const FOP = 1192; // i32
export const FCS = 1196; // u16
export const FDS = 1198; // u16
export const MXCSR = 1200; // i32
export const XMM = 1216; // 16 x 16 bytes
export const YMM_HIGH = 1472; // 16 x 16 bytes

export const OP0 = 1728; // i64 operands of `leave` and helpers
export const OP1 = 1736;
export const OP2 = 1744;
export const OP3 = 1752;
export const OPV = 1760; // 32 bytes, v128 operands
/** i32: exceptions of the SSE instruction under way (float/arithmetic.ts); the next word is written and never read. */
export const SSE_FLAGS = 1792;
export const X86_STATE_END = 1800;
/** Vectors that never change, up to the end of the ISA's part: see vector-constants.ts. */
export const VECTOR_CONSTANTS = 1808;

/** MXCSR after power-on: round to nearest, all exceptions masked. */
export const MXCSR_DEFAULT = 0x1f80;
/** FTZ and DAZ. */
export const MXCSR_FLUSHING = 0x8040;

const globals: Global[] = [];
function define(name: string, type: number, offset: number): Global {
  const global = { name, index: globals.length, type, offset };
  globals.push(global);
  return global;
}

export const GPR_NAMES = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;

/** The 16 general registers as IR globals. */
export const G: readonly Global[] = GPR_NAMES.map((name, i) => define(name, I64, GPR + 8 * i));
export const G_CC_DST = define('ccDst', I64, CC_DST);
export const G_CC_SRC = define('ccSrc', I64, CC_SRC);
export const G_CC_SRC2 = define('ccSrc2', I64, CC_SRC2);
export const G_EFLAGS = define('eflags', I32, EFLAGS);
/** The 16 xmm registers as IR globals. */
export const G_XMM: readonly Global[] = Array.from({ length: 16 }, (_, i) => define(`xmm${i}`, V128, XMM + 16 * i));
/** Bits 128-255 of the 16 ymm registers as IR globals. */
export const G_YMM_HIGH: readonly Global[] = Array.from({ length: 16 }, (_, i) => define(`ymmHigh${i}`, V128, YMM_HIGH + 16 * i));
export const X86_GLOBALS: readonly Global[] = globals;

// EFLAGS bits.
export const CF = 1 << 0;
export const PF = 1 << 2;
export const AF = 1 << 4;
export const ZF = 1 << 6;
export const SF = 1 << 7;
export const TF = 1 << 8;
export const IF = 1 << 9;
export const DF = 1 << 10;
export const OF = 1 << 11;
export const IOPL = 3 << 12;
export const NT = 1 << 14;
export const RF = 1 << 16;
export const VM = 1 << 17;
export const AC = 1 << 18;
export const VIF = 1 << 19;
export const VIP = 1 << 20;
export const ID = 1 << 21;
/** The arithmetic flags, kept lazily. */
export const CC_FLAGS = OF | SF | ZF | AF | PF | CF;

// Block flags: the mode bits that code is translated under.
export const BF_CODE64 = 1 << 0; // 64-bit mode
export const BF_CODE32 = 1 << 1; // default operand and address size 32 (else 16, unless CODE64)
export const BF_STACK32 = 1 << 2; // SS.B
export const BF_LONG = 1 << 3; // EFER.LMA (64-bit or compatibility mode)
export const BF_PROTECTED = 1 << 4; // CR0.PE
export const BF_V86 = 1 << 5;
export const BF_CPL_SHIFT = 6; // 2 bits
export const BF_SEG_CHECK = 1 << 8; // some data segment is not flat: add bases and check limits and types
export const BF_TF = 1 << 9; // single step: one instruction a block, then leave
export const BF_FPU_OFF = 1 << 10; // CR0.EM or CR0.TS: x87 raises #NM (MMX with EM: #UD)
export const BF_SSE_OFF = 1 << 11; // CR0.EM or not CR4.OSFXSR: SSE raises #UD
export const BF_TS = 1 << 12; // CR0.TS: SSE raises #NM
export const BF_IO_FREE = 1 << 13; // CPL <= IOPL: CLI, STI and port I/O need no check
export const BF_AC_CHECK = 1 << 14; // alignment checking is on (CR0.AM, EFLAGS.AC, CPL 3)
export const BF_SMAP_OVERRIDE = 1 << 15; // CPL < 3 with CR4.SMAP and EFLAGS.AC: distinguishes STAC'ed code
export const BF_CS_BASE = 1 << 16; // CS base is not zero
export const BF_AVX = 1 << 17; // CR4.OSXSAVE and XCR0 permit AVX
export const BF_SMAP = 1 << 18; // CR4.SMAP is on: STAC/CLAC change the context
export const BF_UMIP = 1 << 19; // CR4.UMIP
export const BF_MXCSR_EXACT = 1 << 20; // MXCSR is not round-to-nearest with all exceptions masked, no DAZ/FTZ
export const BF_MXCSR_FLUSH = 1 << 24; // with EXACT: only FTZ and DAZ differ from the default, and nobody looks at flags
export const BF_HOT = 1 << 25; // code of a program that runs often, translated again: no flags unless EXACT says so
export const BF_TSD = 1 << 22; // CR4.TSD
export const BF_BREAKPOINTS = 1 << 21; // DR7 enables an instruction breakpoint: compare pc with them
export const BF_RESUME = 1 << 23; // the same with EFLAGS.RF set: one instruction without looking at them

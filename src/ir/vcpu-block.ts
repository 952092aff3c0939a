/**
 * The engine's part of a vCPU's state block. The guest ISA's part follows at ISA_STATE.
 *
 *      0  pc          i64  virtual pc of the code about to run; valid at every entry and exit
 *      8  exitReason  i32  why translated code left (EXIT_*, or the ISA's own reasons from 16 up)
 *     12  exitArg     i32
 *     16  budget      i32  instructions left in this slice; below zero = leave
 *     20  tlbBase     i32  address of the current context's TLB
 *     24  jumpBase    i32  address of the current context's jump cache
 *     28  fault       i32  set by the slow path: the access did not happen, see FAULT_*
 *     32  slowAddr    i64  slow path: guest virtual address
 *     40  slowSize    i32  slow path: bytes | access kind << 8
 *     48  slowValue   16 bytes, the value loaded or to be stored
 *     64  faultIp     i32  interpreter: address of the faulting operation
 *     72  base        i64  interpreter: base pc of the running block
 *     80  ctx         i32  instruction context, see Builder.ctx
 *     88  hostAddr    i64  guard of a code page: where in this memory it must lie
 *     96  kick        i32  below zero: leave; see KICK_*
 *    100  mapping     i32  number of the mapping in force: a new one after each change that translated code must notice
 *    104  codeKey     i64  code under the flags in force is in the code index under its address + this
 *    112  stackPage   i64  virtual address of the page that the stack was last seen in, which may be written to
 *    120  stackAddend i64  what makes an address in this memory of one in it
 *    128  stackLimit  i64  offset in it from which on an access may run out of it; 0 = no page is known
 *    136  baseMask    i64  -1: the ISA's code base is to be added to pcs (Isa.codeBase); 0: it does not count
 *    144  otherTlb    i32  tlbBase, jumpBase, mapping and codeKey of the other supervisor context, when translated code
 *    148  otherJumps  i32  may change to it: by exchanging them with those in force; otherTlb is 0 when it may not
 *    152  otherMapping i32
 *    160  otherKey    i64
 *    168  native      i32  address of the code of the host's processor that is to be run
 *    176  operands    i64 each, four: of a helper that it calls
 *    208  hostStatus  i32  it may have set these exceptions in the host's x87 status word
 *    212  hostControl i32  the host's x87 control word while it runs
 *    216  nativeJumps i32  not 0: some entry is noted of where computed jumps of the host's code have led
 *   3520  pages       16 bytes each, four: where an access of the host's code has been, the page's virtual address i64, what makes an
 *                     address in this memory of one in it i64
 *   3584  hostFloats  512 bytes: an image of the host's x87 registers
 */
export const CTL_PC = 0;
export const CTL_EXIT_REASON = 8;
export const CTL_EXIT_ARG = 12;
export const CTL_BUDGET = 16;
export const CTL_TLB_BASE = 20;
export const CTL_JUMP_BASE = 24;
export const CTL_FAULT = 28;
export const CTL_SLOW_ADDR = 32;
export const CTL_SLOW_SIZE = 40;
export const CTL_SLOW_VALUE = 48;
export const CTL_FAULT_IP = 64;
export const CTL_BASE = 72;
export const CTL_CTX = 80;
export const CTL_HOST_ADDR = 88;
export const CTL_KICK = 96;
export const CTL_MAPPING = 100;
export const CTL_CODE_KEY = 104;
export const CTL_STACK_PAGE = 112;
export const CTL_STACK_ADDEND = 120;
export const CTL_STACK_LIMIT = 128;
export const CTL_BASE_MASK = 136;
export const CTL_OTHER_TLB = 144;
export const CTL_OTHER_JUMPS = 148;
export const CTL_OTHER_MAPPING = 152;
export const CTL_OTHER_KEY = 160;
export const CTL_NATIVE = 168;
export const CTL_OPERANDS = 176;
export const CTL_HOST_STATUS = 208;
export const CTL_HOST_CONTROL = 212;
export const CTL_NATIVE_JUMPS = 216;
export const HOST_PAGES = 3520;
export const HOST_FLOATS = 3584;

/** Where the ISA's state begins; all ISA offsets are counted from the block's start, too. */
export const ISA_STATE = 256;
/** Where the interpreter's temporaries begin. */
export const TEMPS = 4096;
/** Bytes of one vCPU's block. */
export const VCPU_BLOCK_SIZE = 65536;

/** Exit reasons of the engine's own; an ISA's start at EXIT_ISA. */
export const EXIT_LOOKUP = 0; // no code known for pc
export const EXIT_BUDGET = 1; // the slice is over
export const EXIT_HOT = 2; // the block named by exitArg is worth compiling
export const EXIT_FAULT = 3; // a memory access faulted; the ISA holds the exception
export const EXIT_ISA = 16;

/** Values of CTL_FAULT. */
export const FAULT_NONE = 0;
export const FAULT_EXCEPTION = 1; // the ISA recorded a guest exception
export const FAULT_RESTART = 2; // nothing happened: run this one instruction again, alone

/** Values of CTL_KICK. Another thread only puts one in the place of 0. */
export const KICK_STOP = -1; // the host wants attention, the budget is void
export const KICK_ANSWER = -2; // the compiler beside has regions that are to go into service

/**
 * An x87 register stack as translated code uses it: told to whoever can have the host's own do the work (jit/native/x87.ts).
 * Offsets count from the vCPU's block.
 */
export interface FloatStack {
  /** Eight registers of 16 bytes, see `mark`. */
  readonly registers: number;
  /** Bytes of a register from which on two bytes are to be 0 where its value or its tag has been written. */
  readonly mark: number;
  /** i32: number of the register that is st(0). */
  readonly top: number;
  /** A byte for each register: 1 = empty. */
  readonly tags: number;
  /** i32: the status word without TOP. */
  readonly status: number;
  /** i32: the control word. */
  readonly control: number;
  /** First and last byte of all these. */
  readonly from: number;
  readonly to: number;
  /** i64: address of the last instruction. Each begins by writing it. */
  readonly place: number;
  /** i32: what the status word will be when a store's memory has been written; with `suppressed`, the memory is not to be. */
  readonly statusAfter: number;
  readonly suppressed: number;
  /** i32: sign and exponent of a store in extended precision. */
  readonly highPart: number;
  /** Bit of the result of COMPARE_FLAGS that says that it has been stopped. */
  readonly stoppedShift: number;
  /** By number of the helper. None leaves the instruction when all exceptions are masked. */
  readonly operations: ReadonlyMap<number, FloatOperation>;
}

/** What a helper does. Registers are named by their slots: their numbers times 16. Results are 1 when an exception stops it, unless said. */
export interface FloatOperation {
  readonly kind: number;
  /** The first byte of the instruction that does it, where there is a choice. */
  readonly opcode: number;
  /** Number in its ModRM byte's reg field, or the whole byte. */
  readonly code: number;
}

export const ARITHMETIC = 1; // (d, s): d = d op s. `code`: 0 add, 1 mul, 4 sub, 5 reversed, 6 div, 7 reversed
export const ARITHMETIC_MEMORY = 2; // (operand): st(0) = st(0) op operand
export const COMPARE = 3; // (st(0), s, quiet)
export const COMPARE_MEMORY = 4; // (operand)
export const COMPARE_FLAGS = 5; // (st(0), s, quiet) => CF, PF and ZF
export const LOAD = 6; // (new st(0), operand)
export const LOAD_EXTENDED = 7; // (new st(0), significand, sign and exponent)
export const LOAD_REGISTER = 8; // (new st(0), s)
export const STORE = 9; // () => bits. `code`: of the store that does not pop
export const STORE_EXTENDED = 10; // (st(0)) => significand; pops
export const STORE_INTEGER = 11; // (bits, chop) => integer
export const STORE_REGISTER = 12; // (st(0), d)
export const EXCHANGE = 13; // (st(0), s)
export const SIGN = 14; // (st(0), bits of the sign to clear, to toggle)
export const UNARY = 15; // (): st(0) = f(st(0))
export const MOVE_IF = 16; // (condition, s)

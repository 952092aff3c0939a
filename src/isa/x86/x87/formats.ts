/** Formats in memory, and where a store's results wait until the memory has been written. */
import { OP2, OP3 } from '../state.ts';
import { BIAS } from './common.ts';

/** i32: the status word after the store, and SUPPRESSED. */
export const STATUS_AFTER = OP2;
export const SUPPRESSED = 1 << 16;
/** i32: the upper 16 bits of what an 80-bit store writes. */
export const HIGH_PART = OP3;

/** An interchange format in memory. */
export interface Format {
  /** Bits of the fraction. */
  readonly fraction: number;
  /** The largest exponent: infinities and NaNs. */
  readonly exponents: number;
  /** Difference of the exponent biases. */
  readonly rebias: number;
}
export const SINGLE: Format = { fraction: 23, exponents: 0xff, rebias: BIAS - 127 };
export const DOUBLE: Format = { fraction: 52, exponents: 0x7ff, rebias: BIAS - 1023 };

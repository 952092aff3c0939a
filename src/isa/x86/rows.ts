/** All instruction rows; groups live in files of their own. */
import { AES_ROWS } from './aes.ts';
import { ALU_ROWS } from './alu.ts';
import { AVX_ROWS } from './avx.ts';
import { AVX_MEMORY_ROWS } from './avx-memory.ts';
import { AVX_MOVE_ROWS } from './avx-move.ts';
import { AVX_PERMUTE_ROWS } from './avx-permute.ts';
import { BCD_ROWS } from './bcd.ts';
import { BIT_ROWS } from './bits.ts';
import { CONTROL_ROWS } from './control.ts';
import { CRYPTO_ROWS } from './crypto.ts';
import { F16C_ROWS } from './f16c.ts';
import { FMA_ROWS } from './fma.ts';
import { MMX_ROWS } from './mmx.ts';
import { MOVE_ROWS } from './move.ts';
import { MULDIV_ROWS } from './muldiv.ts';
import { SHIFT_ROWS } from './shift.ts';
import { SSE_FLOAT_ROWS } from './sse-float.ts';
import { SSE_INTEGER_ROWS } from './sse-integer.ts';
import { SSE_MOVE_ROWS } from './sse-move.ts';
import { SSE_SHUFFLE_ROWS } from './sse-shuffle.ts';
import { SSE_STRING_ROWS } from './sse-string.ts';
import { STRING_ROWS } from './string.ts';
import { SYSTEM_ROWS } from './sysops.ts';
import { X87_CONTROL_ROWS } from './x87-control.ts';
import { X87_ENVIRONMENT_ROWS } from './x87-environment.ts';
import { X87_ROWS } from './x87.ts';
import type { Row } from './tables.ts';

export const X86_ROWS: readonly Row[] = [
  ...ALU_ROWS,
  ...MOVE_ROWS,
  ...SHIFT_ROWS,
  ...MULDIV_ROWS,
  ...BIT_ROWS,
  ...CONTROL_ROWS,
  ...STRING_ROWS,
  ...BCD_ROWS,
  ...SYSTEM_ROWS,
  ...SSE_MOVE_ROWS,
  ...SSE_INTEGER_ROWS,
  ...SSE_FLOAT_ROWS,
  ...SSE_SHUFFLE_ROWS,
  ...SSE_STRING_ROWS,
  ...AVX_ROWS,
  ...AVX_MOVE_ROWS,
  ...AVX_PERMUTE_ROWS,
  ...AVX_MEMORY_ROWS,
  ...FMA_ROWS,
  ...F16C_ROWS,
  ...AES_ROWS,
  ...CRYPTO_ROWS,
  ...MMX_ROWS,
  ...X87_CONTROL_ROWS,
  ...X87_ENVIRONMENT_ROWS,
  ...X87_ROWS,
];

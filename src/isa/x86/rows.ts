/** All instruction rows; groups live in files of their own. */
import { AES_ROWS } from './aes.ts';
import { ALU_ROWS } from './alu.ts';
import { avxForms } from './avx.ts';
import { avxMemory } from './avx-memory.ts';
import { avxMoves } from './avx-move.ts';
import { avxPermutes } from './avx-permute.ts';
import { BCD_ROWS } from './bcd.ts';
import { BIT_ROWS } from './bits.ts';
import { CONTROL_ROWS } from './control.ts';
import { CRYPTO_ROWS } from './crypto.ts';
import { f16cForms } from './f16c.ts';
import { fmaForms } from './fma.ts';
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
import { type Row, SPACE_LEGACY, SPACE_VEX } from './tables.ts';

/** In the legacy space, and those VEX forms that stand with them. */
const ROWS: readonly Row[] = [
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
  ...AES_ROWS,
  ...CRYPTO_ROWS,
  ...MMX_ROWS,
  ...X87_CONTROL_ROWS,
  ...X87_ENVIRONMENT_ROWS,
  ...X87_ROWS,
];

let avx: readonly Row[] | null = null;

/** In the VEX space alone; made when somebody asks, since many guests never use any. */
const avxRows = (): readonly Row[] =>
  (avx ??= [...avxForms(), ...avxMoves(), ...avxPermutes(), ...avxMemory(), ...fmaForms(), ...f16cForms()]);

const isVex = ({ encoding }: Row): boolean => encoding.startsWith('VEX');

/** Rows of a space (SPACE_*). */
export function rowsOf(space: number): readonly Row[] {
  if (space === SPACE_LEGACY) return ROWS.filter((row) => !isVex(row));
  return space === SPACE_VEX ? [...ROWS.filter(isVex), ...avxRows()] : [];
}

export const allRows = (): readonly Row[] => [...ROWS, ...avxRows()];

/** CPUID features that some row needs: a list of its own, since most rows are made later. */
export const ROW_FEATURES: readonly string[] = (
  'cx8 cx16 adx movbe cmov bmi2 bmi1 abm popcnt sse4.2 lahf-lm lm monitor smap xsave serialize rdtscp syscall msr tsc mmx sep ' +
  'invpcid fxsr sse avx xsaveopt xsavec xsaves clflush clflushopt clwb sse2 fsgsbase rdrand rdseed rdpid pni sse4.1 movdiri ' +
  'movdir64b ssse3 avx2 fma f16c aes pclmulqdq sha-ni fpu'
).split(' ');

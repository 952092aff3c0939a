/** x87 control instructions: they reach the control and status words only (SDM vol. 1, 8.1). */
import type { Value } from '../../ir/builder.ts';
import { LEAVE_FPU_ERROR } from './leave.ts';
import { BF_FPU_OFF, BF_TS, FCW, FDP, FIP, FOP, FSW, FTAG, FTOP } from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';
import { MARK } from './x87/common.ts';

const VECTOR_NM = 7;
/** Exceptions, stack fault and summary in the status word, and busy. */
const STATUS_CLEARED = 0x80ff;
const STATUS_SUMMARY = 0x80;
const DEFAULT_CONTROL = 0x37f;
const ALL_EMPTY = 0x01010101;

/** #NM when the FPU is switched off. */
export function requireFpu(t: X86Translator): boolean {
  if (!(t.flags & BF_FPU_OFF)) return true;
  t.raise(VECTOR_NM);
  return false;
}

/** #MF for an unmasked exception of an earlier instruction. */
export function requireNoError(t: X86Translator): void {
  const { b } = t;
  const pending = b.and32(b.lds32(FSW), b.i32(STATUS_SUMMARY));
  b.leaveIf(pending, LEAVE_FPU_ERROR, t.leaveArgument(0));
}

/** The status word as a program sees it, TOP in bits 11 to 13. */
export function statusWord(t: X86Translator): Value {
  const { b } = t;
  return b.or32(b.lds32(FSW), b.shl32(b.lds32(FTOP), b.i32(11)));
}

const control =
  (body: (t: X86Translator) => void): Translate =>
  (t) => {
    if (requireFpu(t)) body(t);
  };

/** For who changes the tags of all registers: nothing is known of them then (x87/common.ts). */
export function clearMarks(t: X86Translator): void {
  for (let i = 0; i < 8; i++) t.b.sts16(MARK + 16 * i, t.b.i32(0));
}

export function initialise(t: X86Translator): void {
  const { b } = t;
  t.fpu.forget();
  clearMarks(t);
  b.sts32(FCW, b.i32(DEFAULT_CONTROL));
  b.sts32(FSW, b.i32(0));
  b.sts32(FTOP, b.i32(0));
  b.sts32(FTAG, b.i32(ALL_EMPTY));
  b.sts32(FTAG + 4, b.i32(ALL_EMPTY));
  b.sts64(FIP, b.i64(0));
  b.sts64(FDP, b.i64(0));
  b.sts32(FOP, b.i32(0));
}

function clearExceptions(t: X86Translator): void {
  const { b } = t;
  // An instruction that was stopped stays so, which whoever follows it would have seen.
  t.fpu.forget();
  b.sts32(FSW, b.and32(b.lds32(FSW), b.i32(~STATUS_CLEARED)));
}

/** Sets or clears the summary and busy bits for the exceptions that the control word lets through. */
function loadControl(t: X86Translator): void {
  const { b } = t;
  requireNoError(t);
  t.fpu.clean = false;
  const word = b.or32(t.read(0), b.i32(0x40));
  const status = b.lds32(FSW);
  const unmasked = b.and32(b.and32(status, b.xor32(word, b.i32(-1))), b.i32(0x3f));
  const clean = b.and32(status, b.i32(~0x8080));
  b.sts32(FCW, b.and32(word, b.i32(0x1f7f)));
  b.sts32(FSW, b.select32(unmasked, b.or32(clean, b.i32(0x8080)), clean));
}

/** WAIT raises #NM by CR0.MP and CR0.TS together; TS alone is what the block flags know. */
function wait(t: X86Translator): void {
  if (t.flags & BF_TS) t.raise(VECTOR_NM);
  else requireNoError(t);
}

export const X87_CONTROL_ROWS: readonly Row[] = [
  row('9B', 'WAIT', '', wait, { feature: 'fpu' }),
  row('DB =E3', 'FNINIT', '', control(initialise), { feature: 'fpu' }),
  row('DB =E2', 'FNCLEX', '', control(clearExceptions), { feature: 'fpu' }),
  row('D9 /5 mem', 'FLDCW', 'Mw', control(loadControl), { feature: 'fpu' }),
  row(
    'D9 /7 mem',
    'FNSTCW',
    'Mw',
    control((t) => t.write(0, t.b.lds32(FCW))),
    { feature: 'fpu' },
  ),
  row(
    'DD /7 mem',
    'FNSTSW',
    'Mw',
    control((t) => t.write(0, statusWord(t))),
    { feature: 'fpu' },
  ),
  row(
    'DF =E0',
    'FNSTSW',
    'AX',
    control((t) => t.write(0, statusWord(t))),
    { feature: 'fpu' },
  ),
];

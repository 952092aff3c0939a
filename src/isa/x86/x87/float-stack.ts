/** The x87 registers for hosts that have such registers themselves (../../float-stack.ts). */
import type { FloatOperation, FloatStack } from '../../float-stack.ts';
import {
  ARITHMETIC,
  ARITHMETIC_MEMORY,
  COMPARE,
  COMPARE_FLAGS,
  COMPARE_MEMORY,
  EXCHANGE,
  LOAD,
  LOAD_EXTENDED,
  LOAD_REGISTER,
  MOVE_IF,
  SIGN,
  STORE,
  STORE_EXTENDED,
  STORE_INTEGER,
  STORE_REGISTER,
  UNARY,
} from '../../float-stack.ts';
import type { Helper } from '../../../ir/helpers.ts';
import { FCW, FIP, FPREG, FSW, FTAG, FTOP } from '../state.ts';
import { STOPPED_SHIFT } from './arithmetic.ts';
import { MARK } from './common.ts';
import { HIGH_PART, STATUS_AFTER, SUPPRESSED } from './formats.ts';

/** By names of routines: kind, opcode, code. */
const ROUTINES: Readonly<Record<string, readonly [kind: number, opcode: number, code: number]>> = {
  comR: [COMPARE, 0, 0],
  com32: [COMPARE_MEMORY, 0xd8, 2],
  com64: [COMPARE_MEMORY, 0xdc, 2],
  comI: [COMPARE_MEMORY, 0xda, 2],
  comi: [COMPARE_FLAGS, 0, 0],
  fld32: [LOAD, 0xd9, 0],
  fld64: [LOAD, 0xdd, 0],
  fild: [LOAD, 0xdf, 5],
  fld80: [LOAD_EXTENDED, 0xdb, 5],
  fldR: [LOAD_REGISTER, 0xd9, 0],
  st32: [STORE, 0xd9, 2],
  st64: [STORE, 0xdd, 2],
  st80: [STORE_EXTENDED, 0xdb, 7],
  ist: [STORE_INTEGER, 0, 0],
  fstR: [STORE_REGISTER, 0xdd, 0],
  fxch: [EXCHANGE, 0xd9, 0],
  fsign: [SIGN, 0xd9, 0],
  fsqrt: [UNARY, 0xd9, 0xfa],
  frndint: [UNARY, 0xd9, 0xfc],
  fcmov: [MOVE_IF, 0xdb, 0],
  ...Object.fromEntries(
    ['add', 'mul', '', '', 'sub', 'subr', 'div', 'divr'].flatMap((name, digit) =>
      name === ''
        ? []
        : [
            [`${name}R`, [ARITHMETIC, 0, digit]],
            [`${name}32`, [ARITHMETIC_MEMORY, 0xd8, digit]],
            [`${name}64`, [ARITHMETIC_MEMORY, 0xdc, digit]],
            [`${name}I`, [ARITHMETIC_MEMORY, 0xda, digit]],
          ],
    ),
  ),
};

/** @param helpers all that there are; those of x87 instructions are named after their routines */
export function x87Stack(helpers: readonly Helper[]): FloatStack {
  const operations = new Map<number, FloatOperation>();
  for (const { name, index } of helpers) {
    const routine = name.startsWith('x87.') ? ROUTINES[name.slice(4)] : undefined;
    if (routine === undefined) continue;
    const [kind, opcode, code] = routine;
    operations.set(index, { kind, opcode, code });
  }
  return {
    registers: FPREG,
    mark: MARK - FPREG,
    top: FTOP,
    tags: FTAG,
    status: FSW,
    control: FCW,
    from: FPREG,
    to: FTAG + 7,
    place: FIP,
    statusAfter: STATUS_AFTER,
    suppressed: SUPPRESSED,
    highPart: HIGH_PART,
    stoppedShift: STOPPED_SHIFT,
    operations,
  };
}

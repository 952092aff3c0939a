/**
 * x87 instructions on the register stack (SDM vol. 1, chapter 8). What they compute is done by
 * the routines in x87/; here is which registers, which memory, and the stack's movement.
 *
 * Every routine that may be stopped by an unmasked exception says so, and then nothing moves.
 */
import type { Value } from '../../ir/builder.ts';
import { I32, I64 } from '../../ir/ops.ts';
import type { Helper } from '../../ir/helpers.ts';
import { defineHelper } from './helpers.ts';
import { LEAVE_COMPARED, LEAVE_SKIP } from './leave.ts';
import { CS, FCS, FCW, FDP, FDS, FIP, FOP, FSW, FTAG, OP0, SEG, SEG_SELECTOR, SEG_SIZE } from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';
import { requireFpu, requireNoError } from './x87-control.ts';
import { STOPPED_SHIFT, UNORDERED } from './x87/arithmetic.ts';
import { MARK } from './x87/common.ts';
import { HIGH_PART, STATUS_AFTER, SUPPRESSED } from './x87/formats.ts';
import { X87_FAST } from './x87/moves.ts';

const C1 = 0x200;
const FPU = { feature: 'fpu' };
const FPU_CMOV = { feature: 'fpu cmov' };

/** A routine, in whose place hot code has its fast path if there is one. */
const define = (name: string, params: readonly number[], result: number = I32): Helper =>
  defineHelper(
    {
      name: `x87.${name}`,
      params,
      result,
      touchesGlobals: false,
      mayFault: false,
      body: { kind: 'wasm', export: name },
    },
    X87_FAST[name],
  );

// --- The stack. ---

const slot = (t: X86Translator, i: number): Value => t.fpu.slot(i);

/** st(i) of the ModRM byte; REX.B does not count. */
const registerOf = (t: X86Translator): number => t.rm & 7;

/** Empties st(0) and moves on. */
function pop(t: X86Translator): void {
  const { b, fpu } = t;
  b.sts16(MARK, b.i32(0), fpu.slot(0));
  b.sts8(FTAG, b.i32(1), fpu.number(0));
  fpu.move(1);
}

const clearC1 = (t: X86Translator): void => t.b.sts32(FSW, t.b.and32(t.b.lds32(FSW), t.b.i32(~C1)));

/** What is left of an instruction that an unmasked exception has stopped. */
const skipIf = (t: X86Translator, stopped: Value): void => t.b.leaveIf(stopped, LEAVE_SKIP, t.length);

/** The same, then a pop. */
function popUnless(t: X86Translator, stopped: Value, times = 1): void {
  if (times > 0) skipIf(t, stopped);
  for (let i = 0; i < times; i++) pop(t);
}

/**
 * What an exception handler will want to know: the instruction's address and opcode, and the
 * address of its memory operand. Recorded for each instruction, whether it raises anything or
 * not, and also when its memory access faults: then it is run again. 64-bit code records no selectors.
 */
function recordPlace(t: X86Translator): void {
  const { b } = t;
  const opcode = ((t.opcode & 7) << 8) | t.modrm;
  b.sts64(FIP, t.pcAt(t.start));
  if (!t.isRegister) {
    const offset = t.effectiveOffset();
    b.sts64(FDP, b.typeOf(offset) === I64 ? offset : b.extu(offset));
  }
  // The selectors follow the opcode.
  if (t.code64) return b.sts64(FOP, b.i64(opcode));
  b.sts32(FOP, b.i32(opcode));
  b.sts16(FCS, selector(t, CS));
  if (!t.isRegister) b.sts16(FDS, selector(t, t.segment));
}

const selector = (t: X86Translator, segment: number): Value => t.b.lds16(SEG + SEG_SIZE * segment + SEG_SELECTOR);

/** @param raises may it leave an unmasked exception behind, for the next instruction to raise, and go on? */
const x87 =
  (translate: Translate, raises = true): Translate =>
  (t) => {
    if (!requireFpu(t)) return;
    if (!t.fpu.clean) requireNoError(t);
    recordPlace(t);
    t.fpu.clean = true;
    translate(t);
    if (raises) t.fpu.clean = false;
  };

/** An instruction that at most the state of the stack stops. */
const move = (translate: Translate): Translate => x87(translate, false);

// --- Operands in memory. ---

const load32 = (t: X86Translator): Value => t.b.ld32(t.address(4, false));
const load64 = (t: X86Translator): Value => t.b.ld64(t.address(8, false));
const loadInteger: Record<number, (t: X86Translator) => Value> = {
  2: (t) => t.b.exts(t.b.ld16s(t.address(2, false))),
  4: (t) => t.b.exts(load32(t)),
  8: load64,
};

// --- Arithmetic. ---

interface Forms {
  readonly registers: Helper;
  readonly single: Helper;
  readonly double: Helper;
  readonly integer: Helper;
}

const forms = (name: string): Forms => ({
  registers: define(`${name}R`, [I32, I32]),
  single: define(`${name}32`, [I32]),
  double: define(`${name}64`, [I64]),
  integer: define(`${name}I`, [I64]),
});

/** By the reg field of ModRM. Comparisons (2 and 3) are rows of their own. */
const OPERATIONS: readonly (readonly [name: string, digit: number])[] = [
  ['add', 0],
  ['mul', 1],
  ['sub', 4],
  ['subr', 5],
  ['div', 6],
  ['divr', 7],
];

function arithmeticRows([name, digit]: readonly [string, number]): Row[] {
  const of = forms(name);
  const mnemonic = `F${name.toUpperCase()}`;
  // Where st(i) is the destination, the encodings of reversed and plain are exchanged.
  const place = digit < 4 ? digit : digit ^ 1;
  return [
    row(
      `D8 /${digit} mem`,
      mnemonic,
      'Md',
      x87((t) => t.b.call(of.single, load32(t))),
      FPU,
    ),
    row(
      `DC /${digit} mem`,
      mnemonic,
      'Mq',
      x87((t) => t.b.call(of.double, load64(t))),
      FPU,
    ),
    row(
      `DA /${digit} mem`,
      mnemonic.replace('F', 'FI'),
      'Md',
      x87((t) => t.b.call(of.integer, loadInteger[4]!(t))),
      FPU,
    ),
    row(
      `DE /${digit} mem`,
      mnemonic.replace('F', 'FI'),
      'Mw',
      x87((t) => t.b.call(of.integer, loadInteger[2]!(t))),
      FPU,
    ),
    row(
      `D8 /${digit} reg`,
      mnemonic,
      '',
      x87((t) => {
        t.b.call(of.registers, slot(t, 0), slot(t, registerOf(t)));
      }),
      FPU,
    ),
    row(
      `DC /${place} reg`,
      mnemonic,
      '',
      x87((t) => {
        t.b.call(of.registers, slot(t, registerOf(t)), slot(t, 0));
      }),
      FPU,
    ),
    row(
      `DE /${place} reg`,
      `${mnemonic}P`,
      '',
      x87((t) => {
        popUnless(t, t.b.call(of.registers, slot(t, registerOf(t)), slot(t, 0)));
      }),
      FPU,
    ),
  ];
}

// --- Comparisons. ---

const COM_REGISTER = define('comR', [I32, I32, I32]);
const COM_FLAGS = define('comi', [I32, I32, I32]);
const COM_VALUE = define('comV', [I64, I32]);
const COM_SINGLE = define('com32', [I32]);
const COM_DOUBLE = define('com64', [I64]);
const COM_INTEGER = define('comI', [I64]);

const compareRegister = (quiet: number, pops: number): Translate =>
  x87((t) => {
    const { b } = t;
    popUnless(t, b.call(COM_REGISTER, slot(t, 0), slot(t, registerOf(t)), b.i32(quiet)), pops);
  });

const compareToFlags = (quiet: number, pops: number): Translate =>
  x87((t) => {
    const { b } = t;
    const bits = b.call(COM_FLAGS, slot(t, 0), slot(t, registerOf(t)), b.i32(quiet));
    if (pops > 0) {
      // An unmasked exception keeps the stack as it is, but not the flags.
      b.sts32(OP0, bits);
      b.leaveIf(b.shr32(bits, b.i32(STOPPED_SHIFT)), LEAVE_COMPARED, t.length);
      pop(t);
    }
    t.cc.setBits(b.and32(bits, b.i32(UNORDERED)), b.and32(bits, b.i32(1)));
  });

const compareMemory = (helper: Helper, load: (t: X86Translator) => Value, pops: number): Translate =>
  x87((t) => popUnless(t, t.b.call(helper, load(t)), pops));

const memoryComparisons = (digit: number, suffix: string, pops: number): Row[] => [
  row(`D8 /${digit} mem`, `FCOM${suffix}`, 'Md', compareMemory(COM_SINGLE, load32, pops), FPU),
  row(`DC /${digit} mem`, `FCOM${suffix}`, 'Mq', compareMemory(COM_DOUBLE, load64, pops), FPU),
  row(`DA /${digit} mem`, `FICOM${suffix}`, 'Md', compareMemory(COM_INTEGER, loadInteger[4]!, pops), FPU),
  row(`DE /${digit} mem`, `FICOM${suffix}`, 'Mw', compareMemory(COM_INTEGER, loadInteger[2]!, pops), FPU),
];

const COMPARISON_ROWS: readonly Row[] = [
  ...memoryComparisons(2, '', 0),
  ...memoryComparisons(3, 'P', 1),
  row('D8 /2 reg', 'FCOM', '', compareRegister(0, 0), FPU),
  row('D8 /3 reg', 'FCOMP', '', compareRegister(0, 1), FPU),
  // Undocumented second encodings.
  row('DC /2 reg', 'FCOM', '', compareRegister(0, 0), FPU),
  row('DC /3 reg', 'FCOMP', '', compareRegister(0, 1), FPU),
  row('DE /2 reg', 'FCOMP', '', compareRegister(0, 1), FPU),
  row('DE =D9', 'FCOMPP', '', compareRegister(0, 2), FPU),
  row('DD /4 reg', 'FUCOM', '', compareRegister(1, 0), FPU),
  row('DD /5 reg', 'FUCOMP', '', compareRegister(1, 1), FPU),
  row('DA =E9', 'FUCOMPP', '', compareRegister(1, 2), FPU),
  row('DB /6 reg', 'FCOMI', '', compareToFlags(0, 0), FPU_CMOV),
  row('DB /5 reg', 'FUCOMI', '', compareToFlags(1, 0), FPU_CMOV),
  row('DF /6 reg', 'FCOMIP', '', compareToFlags(0, 1), FPU_CMOV),
  row('DF /5 reg', 'FUCOMIP', '', compareToFlags(1, 1), FPU_CMOV),
  row(
    'D9 =E4',
    'FTST',
    '',
    x87((t) => t.b.call(COM_VALUE, t.b.i64(0), t.b.i32(0))),
    FPU,
  ),
];

// --- Loads. ---

const LOAD_SINGLE = define('fld32', [I32, I32]);
const LOAD_DOUBLE = define('fld64', [I32, I64]);
const LOAD_EXTENDED = define('fld80', [I32, I64, I32]);
const LOAD_INTEGER = define('fild', [I32, I64]);
const LOAD_REGISTER = define('fldR', [I32, I32]);
const LOAD_BCD = define('bld', [I64, I32]);

/** Loads what is to be st(0). @param operands of the routine, after the slot */
function push(t: X86Translator, helper: Helper, ...operands: Value[]): void {
  skipIf(t, t.b.call(helper, slot(t, -1), ...operands));
  t.fpu.move(-1);
}

const loadRow = (encoding: string, name: string, operand: string, helper: Helper, load: (t: X86Translator) => Value): Row =>
  row(
    encoding,
    name,
    operand,
    move((t) => push(t, helper, load(t))),
    FPU,
  );

/** Ten bytes: significand or digits, then sign and exponent. */
function load80(t: X86Translator): [low: Value, high: Value] {
  const { b } = t;
  const address = t.address(10, false);
  return [b.ld64(address), b.ld16u(b.add64(address, b.i64(8)))];
}

const EXACT = 0;
const NEAREST_IS_DOWN = 1;
const NEAREST_IS_UP = 2;

/** Constants: significand (rounded down) and exponent. */
const CONSTANTS: readonly (readonly [name: string, modrm: string, sig: bigint, se: number, kind: number])[] = [
  ['FLD1', 'E8', 0x8000000000000000n, 0x3fff, EXACT],
  ['FLDL2T', 'E9', 0xd49a784bcd1b8afen, 0x4000, NEAREST_IS_DOWN],
  ['FLDL2E', 'EA', 0xb8aa3b295c17f0bbn, 0x3fff, NEAREST_IS_UP],
  ['FLDPI', 'EB', 0xc90fdaa22168c234n, 0x4000, NEAREST_IS_UP],
  ['FLDLG2', 'EC', 0x9a209a84fbcff798n, 0x3ffd, NEAREST_IS_UP],
  ['FLDLN2', 'ED', 0xb17217f7d1cf79abn, 0x3ffe, NEAREST_IS_UP],
  ['FLDZ', 'EE', 0n, 0, EXACT],
];

function loadConstant(sig: bigint, se: number, kind: number): Translate {
  return move((t) => {
    const { b } = t;
    let value = b.i64(Number(sig & 0xffffffffn) | 0, Number(sig >> 32n) | 0);
    if (kind !== EXACT) value = b.add64(value, b.extu(constantIncrement(t, kind === NEAREST_IS_UP)));
    push(t, LOAD_EXTENDED, value, b.i32(se));
  });
}

function constantIncrement(t: X86Translator, nearestIsUp: boolean): Value {
  const { b } = t;
  const mode = b.and32(b.lds32(FCW), b.i32(0xc00));
  const up = b.eq32(mode, b.i32(0x800));
  return nearestIsUp ? b.or32(up, b.eqz32(mode)) : up;
}

const LOAD_ROWS: readonly Row[] = [
  loadRow('D9 /0 mem', 'FLD', 'Md', LOAD_SINGLE, load32),
  loadRow('DD /0 mem', 'FLD', 'Mq', LOAD_DOUBLE, load64),
  loadRow('DF /0 mem', 'FILD', 'Mw', LOAD_INTEGER, loadInteger[2]!),
  loadRow('DB /0 mem', 'FILD', 'Md', LOAD_INTEGER, loadInteger[4]!),
  loadRow('DF /5 mem', 'FILD', 'Mq', LOAD_INTEGER, load64),
  row(
    'DB /5 mem',
    'FLD',
    'M',
    move((t) => push(t, LOAD_EXTENDED, ...load80(t))),
    FPU,
  ),
  row(
    'DF /4 mem',
    'FBLD',
    'M',
    x87((t) => {
      t.b.call(LOAD_BCD, ...load80(t));
      t.fpu.forget();
    }),
    FPU,
  ),
  row(
    'D9 /0 reg',
    'FLD',
    '',
    move((t) => push(t, LOAD_REGISTER, slot(t, registerOf(t)))),
    FPU,
  ),
  ...CONSTANTS.map(([name, modrm, sig, se, kind]) => row(`D9 =${modrm}`, name, '', loadConstant(sig, se, kind), FPU)),
];

// --- Stores. ---

const STORE_SINGLE = define('st32', []);
const STORE_DOUBLE = define('st64', [], I64);
const STORE_80 = define('st80', [I32], I64);
const STORE_INTEGER = define('ist', [I32, I32], I64);
const STORE_BCD = define('bst', [], I64);
const STORE_REGISTER = define('fstR', [I32, I32]);
const STORE_IF_VALID = define('fstnce', [I32]);

/** The status after a store; leaves when the store is not to be. */
function statusAfter(t: X86Translator): Value {
  const { b } = t;
  const status = b.lds32(STATUS_AFTER);
  skipIf(t, b.and32(status, b.i32(SUPPRESSED)));
  return status;
}

/** @param compute calls the routine @param store writes its result */
function storing(
  bytes: number,
  pops: boolean,
  compute: (t: X86Translator) => Value,
  store: (t: X86Translator, address: Value, v: Value) => void,
): Translate {
  return x87((t) => {
    const address = t.address(bytes, true);
    const v = compute(t);
    const status = statusAfter(t);
    store(t, address, v);
    t.b.sts32(FSW, status);
    if (pops) pop(t);
  });
}

const storeSingle = (pops: boolean): Translate =>
  storing(
    4,
    pops,
    (t) => t.b.call(STORE_SINGLE),
    (t, address, v) => t.b.st32(address, v),
  );
const storeDouble = (pops: boolean): Translate =>
  storing(
    8,
    pops,
    (t) => t.b.call(STORE_DOUBLE),
    (t, address, v) => t.b.st64(address, v),
  );

const store80 = (compute: (t: X86Translator) => Value): Translate =>
  storing(10, true, compute, (t, address, v) => {
    const { b } = t;
    const high = b.lds32(HIGH_PART);
    b.st64(address, v);
    b.st16(b.add64(address, b.i64(8)), high);
  });

const storeInteger = (bytes: 2 | 4 | 8, chop: number, pops: boolean): Translate =>
  storing(
    bytes,
    pops,
    (t) => t.b.call(STORE_INTEGER, t.b.i32(bytes * 8), t.b.i32(chop)),
    (t, address, v) => t.store(bytes, address, t.fromI64(bytes, v)),
  );

const storeRegister = (pops: boolean): Translate =>
  move((t) => {
    skipIf(t, t.b.call(STORE_REGISTER, slot(t, 0), slot(t, registerOf(t))));
    if (pops) pop(t);
  });

const storeIfValid = x87((t) => {
  t.b.call(STORE_IF_VALID, slot(t, registerOf(t)));
  pop(t);
});

const STORE_ROWS: readonly Row[] = [
  row('D9 /2 mem', 'FST', 'Md', storeSingle(false), FPU),
  row('D9 /3 mem', 'FSTP', 'Md', storeSingle(true), FPU),
  row('DD /2 mem', 'FST', 'Mq', storeDouble(false), FPU),
  row('DD /3 mem', 'FSTP', 'Mq', storeDouble(true), FPU),
  row(
    'DB /7 mem',
    'FSTP',
    'M',
    store80((t) => t.b.call(STORE_80, slot(t, 0))),
    FPU,
  ),
  row(
    'DF /6 mem',
    'FBSTP',
    'M',
    store80((t) => t.b.call(STORE_BCD)),
    FPU,
  ),
  row('DF /1 mem', 'FISTTP', 'Mw', storeInteger(2, 1, true), { feature: 'pni' }),
  row('DB /1 mem', 'FISTTP', 'Md', storeInteger(4, 1, true), { feature: 'pni' }),
  row('DD /1 mem', 'FISTTP', 'Mq', storeInteger(8, 1, true), { feature: 'pni' }),
  row('DF /2 mem', 'FIST', 'Mw', storeInteger(2, 0, false), FPU),
  row('DF /3 mem', 'FISTP', 'Mw', storeInteger(2, 0, true), FPU),
  row('DB /2 mem', 'FIST', 'Md', storeInteger(4, 0, false), FPU),
  row('DB /3 mem', 'FISTP', 'Md', storeInteger(4, 0, true), FPU),
  row('DF /7 mem', 'FISTP', 'Mq', storeInteger(8, 0, true), FPU),
  row('DD /2 reg', 'FST', '', storeRegister(false), FPU),
  row('DD /3 reg', 'FSTP', '', storeRegister(true), FPU),
  // Undocumented second encodings; the first does not mind when st(0) is empty.
  row('D9 /3 reg', 'FSTPNCE', '', storeIfValid, FPU),
  row('DF /2 reg', 'FSTP', '', storeRegister(true), FPU),
  row('DF /3 reg', 'FSTP', '', storeRegister(true), FPU),
];

// --- Moves within the stack. ---

const EXCHANGE = define('fxch', [I32, I32]);
const MOVE_IF = define('fcmov', [I32, I32]);
const CHANGE_SIGN = define('fsign', [I32, I32, I32]);

const exchange = move((t) => skipIf(t, t.b.call(EXCHANGE, slot(t, 0), slot(t, registerOf(t)))));

const moveIf = (condition: number): Translate => x87((t) => t.b.call(MOVE_IF, t.cc.condition(condition), slot(t, registerOf(t))));

const changeSign = (clear: number, toggle: number): Translate =>
  move((t) => skipIf(t, t.b.call(CHANGE_SIGN, slot(t, 0), t.b.i32(clear), t.b.i32(toggle))));

const rotate = (by: number): Translate =>
  move((t) => {
    t.fpu.move(by);
    clearC1(t);
  });

const free = (pops: boolean): Translate =>
  move((t) => {
    const { b, fpu } = t;
    b.sts16(MARK, b.i32(0), fpu.slot(registerOf(t)));
    b.sts8(FTAG, b.i32(1), fpu.number(registerOf(t)));
    clearC1(t);
    if (pops) pop(t);
  });

const MOVE_ROWS: readonly Row[] = [
  row('D9 /1 reg', 'FXCH', '', exchange, FPU),
  row('DD /1 reg', 'FXCH', '', exchange, FPU),
  row('DF /1 reg', 'FXCH', '', exchange, FPU),
  row('DA /0 reg', 'FCMOVB', '', moveIf(2), FPU_CMOV),
  row('DA /1 reg', 'FCMOVE', '', moveIf(4), FPU_CMOV),
  row('DA /2 reg', 'FCMOVBE', '', moveIf(6), FPU_CMOV),
  row('DA /3 reg', 'FCMOVU', '', moveIf(10), FPU_CMOV),
  row('DB /0 reg', 'FCMOVNB', '', moveIf(3), FPU_CMOV),
  row('DB /1 reg', 'FCMOVNE', '', moveIf(5), FPU_CMOV),
  row('DB /2 reg', 'FCMOVNBE', '', moveIf(7), FPU_CMOV),
  row('DB /3 reg', 'FCMOVNU', '', moveIf(11), FPU_CMOV),
  row('D9 =E0', 'FCHS', '', changeSign(0, 0x8000), FPU),
  row('D9 =E1', 'FABS', '', changeSign(0x8000, 0), FPU),
  row('D9 =F6', 'FDECSTP', '', rotate(-1), FPU),
  row('D9 =F7', 'FINCSTP', '', rotate(1), FPU),
  row('DD /0 reg', 'FFREE', '', free(false), FPU),
  row('DF /0 reg', 'FFREEP', '', free(true), FPU),
  row(
    'D9 =D0',
    'FNOP',
    '',
    move(() => undefined),
    FPU,
  ),
  // The 8087's and 80287's FENI, FDISI and FSETPM do nothing any more, and do not wait.
  ...['E0', 'E1', 'E4'].map((modrm) => row(`DB =${modrm}`, 'FNOP', '', (t) => void requireFpu(t), FPU)),
];

// --- Functions of st(0), and of st(0) and st(1). ---

/** Some of them push a second result. */
const PUSHES: readonly string[] = ['fxtract', 'fsincos', 'fptan'];

const unaryRow = (modrm: string, name: string, routine: string): Row => {
  const helper = define(routine, []);
  return row(
    `D9 =${modrm}`,
    name,
    '',
    x87((t) => {
      t.b.call(helper);
      if (PUSHES.includes(routine)) t.fpu.forget();
    }),
    FPU,
  );
};

/** Of st(0) and st(1), result in st(0). */
const binaryRow = (modrm: string, name: string, routine: string): Row => {
  const helper = define(routine, [I32]);
  return row(
    `D9 =${modrm}`,
    name,
    '',
    x87((t) => t.b.call(helper, slot(t, 1))),
    FPU,
  );
};

/** Result in st(1), then a pop. */
const popRow = (modrm: string, name: string, routine: string): Row => {
  const helper = define(routine, []);
  return row(
    `D9 =${modrm}`,
    name,
    '',
    x87((t) => popUnless(t, t.b.call(helper))),
    FPU,
  );
};

const FUNCTION_ROWS: readonly Row[] = [
  unaryRow('E5', 'FXAM', 'fxam'),
  unaryRow('FA', 'FSQRT', 'fsqrt'),
  unaryRow('FC', 'FRNDINT', 'frndint'),
  unaryRow('F4', 'FXTRACT', 'fxtract'),
  binaryRow('FD', 'FSCALE', 'fscale'),
  binaryRow('F8', 'FPREM', 'fprem'),
  binaryRow('F5', 'FPREM1', 'fprem1'),
  unaryRow('F0', 'F2XM1', 'f2xm1'),
  unaryRow('FE', 'FSIN', 'fsin'),
  unaryRow('FF', 'FCOS', 'fcos'),
  unaryRow('FB', 'FSINCOS', 'fsincos'),
  unaryRow('F2', 'FPTAN', 'fptan'),
  popRow('F3', 'FPATAN', 'fpatan'),
  popRow('F1', 'FYL2X', 'fyl2x'),
  popRow('F9', 'FYL2XP1', 'fyl2xp1'),
];

export const X87_ROWS: readonly Row[] = [
  ...OPERATIONS.flatMap(arithmeticRows),
  ...COMPARISON_ROWS,
  ...LOAD_ROWS,
  ...STORE_ROWS,
  ...MOVE_ROWS,
  ...FUNCTION_ROWS,
];

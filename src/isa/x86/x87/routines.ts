/** The routines that instructions call: arithmetic on stack slots and memory operands, moves. */
import { I32, I64 } from '../../../ir/ops.ts';
import { defineFast, i32, i64 } from '../../../wasm/structured.ts';
import type { Body, Expr, Local, Routine } from '../../../wasm/structured.ts';
import { FPREG, FSW } from '../state.ts';
import { Arithmetic, STOPPED_SHIFT, UNORDERED } from './arithmetic.ts';
import {
  C0,
  C1,
  C2,
  C3,
  DEFAULT_NAN,
  EXPONENT,
  IE,
  SF,
  TOP_BIT,
  X87,
  exponentOf,
  isNormal,
  isUnsupported,
  signOf,
} from './common.ts';
import type { Float } from './common.ts';
import type { Conversions } from './convert.ts';
import { FAST, FORWARD, REVERSE, onRegisters, readMarked, requirePlain } from './fast-arithmetic.ts';
import type { Fast } from './fast-arithmetic.ts';
import { X87_FAST } from './moves.ts';

const SE = FPREG + 8;

interface Operation {
  readonly fast: Fast;
  /** (slot, a, b, reversed) => status. */
  readonly slow: Routine;
  readonly reverse: number;
}

/** Operations by the names that the instruction rows use. */
const operations = (x: Arithmetic): Record<string, Operation> => ({
  add: { fast: FAST['add']!, slow: x.addSlow, reverse: FORWARD },
  sub: { fast: FAST['sub']!, slow: x.subSlow, reverse: FORWARD },
  subr: { fast: FAST['subr']!, slow: x.subSlow, reverse: REVERSE },
  mul: { fast: FAST['mul']!, slow: x.mulSlow, reverse: FORWARD },
  div: { fast: (f, out, d, a, b) => x.div(f, out, d, a, b, FORWARD), slow: x.divSlow, reverse: FORWARD },
  divr: { fast: (f, out, d, a, b) => x.div(f, out, d, a, b, REVERSE), slow: x.divSlow, reverse: REVERSE },
});

/** Marks a register that has just been read, when it is normal. */
const markNormal = (x: X87, f: Body, slot: Expr, v: Float): void => f.if(isNormal(v), () => x.mark(f, slot));

function defineBinary(x: X87, conversions: Conversions, name: string, { fast, slow, reverse }: Operation): void {
  const { program } = x;
  const careful = program.routine(null, [I32, I32], I32, (f, d, s) => {
    f.unlikely(x.isEmpty(f, d).or(x.isEmpty(f, s)), () => f.tail(x.underflow, d));
    const [a, b] = [x.read(f, d), x.read(f, s)];
    markNormal(x, f, d, a);
    markNormal(x, f, s, b);
    f.tail(slow, d, a.sig, a.se, b.sig, b.se, reverse);
  });
  defineFast(program, `${name}R`, onRegisters(fast), careful);
  const carefulValue = program.routine(null, [I64, I32], I32, (f, sig, se) => {
    const d = f.let(x.slot(f, 0));
    f.unlikely(x.isEmpty(f, d), () => f.tail(x.underflow, d));
    const a = x.read(f, d);
    markNormal(x, f, d, a);
    f.tail(slow, d, a.sig, a.se, sig, se, reverse);
  });
  const value = program.routine(null, [I64, I32], I32, (f, sig, se) => {
    const out = (otherwise: Expr): void => f.unlikely(otherwise, () => f.tail(carefulValue, sig, se));
    const d = f.let(x.slot(f, 0));
    const [a, b] = [readMarked(f, d), { sig, se }];
    requirePlain(f, out, a);
    out(isNormal(b).not());
    fast(f, out, d, a, b);
    f.return(0);
  });
  memoryForms(x, conversions, name, (f, sig, se) => f.tail(value, sig, se));
}

/** The forms with an operand from memory. */
function memoryForms(x: X87, conversions: Conversions, name: string, then: (f: Body, sig: Local, se: Local) => void): void {
  x.program.routine(`${name}32`, [I32], I32, (f, bits) => {
    const { sig, se } = conversions.fromSingle(f, bits);
    then(f, sig, se);
  });
  x.program.routine(`${name}64`, [I64], I32, (f, bits) => {
    const { sig, se } = conversions.fromDouble(f, bits);
    then(f, sig, se);
  });
  x.program.routine(`${name}I`, [I64], I32, (f, v) => {
    const { sig, se } = conversions.fromInteger(f, v);
    then(f, sig, se);
  });
}

/** Comparisons give CF, PF and ZF or, in the status word, C0, C2 and C3: the same 8 bits further up. */
function defineComparisons(x: X87, arithmetic: Arithmetic, conversions: Conversions): void {
  const { program } = x;
  const core = program.routine(null, [I64, I32, I64, I32, I32], I32, (f, aSig, aSe, bSig, bSe, quiet) => {
    const [a, b] = [
      { sig: aSig, se: aSe },
      { sig: bSig, se: bSe },
    ];
    f.if(
      quiet,
      () => arithmetic.compare(f, a, b, 1),
      () => arithmetic.compare(f, a, b, 0),
    );
  });
  const missing = program.routine(null, [], I32, (f) => {
    x.clearC1(f);
    f.return(
      f
        .call(x.raise, IE | SF)
        .shl(STOPPED_SHIFT)
        .or(UNORDERED),
    );
  });
  const careful = program.routine(null, [I32, I32, I32], I32, (f, d, s, quiet) => {
    f.unlikely(x.isEmpty(f, d).or(x.isEmpty(f, s)), () => f.tail(missing));
    const [a, b] = [x.read(f, d), x.read(f, s)];
    f.tail(core, a.sig, a.se, b.sig, b.se, quiet);
  });
  const flags = defineFast(program, 'comi', X87_FAST['comi']!, careful);
  const setConditions = (f: Body, result: Local): void => {
    const status = f.load32(FSW).and(~(C0 | C2 | C3));
    f.store32(FSW, status.or(result.and(UNORDERED).shl(8)));
    f.return(result.shr(STOPPED_SHIFT));
  };
  program.routine('comR', [I32, I32, I32], I32, (f, d, s, quiet) => setConditions(f, f.let(f.call(flags, d, s, quiet))));
  const value = program.routine('comV', [I64, I32], I32, (f, sig, se) => {
    const d = f.let(x.slot(f, 0));
    const result = f.variable(I32);
    f.if(
      x.isEmpty(f, d),
      () => f.set(result, f.call(missing)),
      () => {
        const a = x.read(f, d);
        f.set(result, f.call(core, a.sig, a.se, sig, se, 0));
      },
    );
    setConditions(f, result);
  });
  memoryForms(x, conversions, 'com', (f, sig, se) => f.tail(value, sig, se));
}

/** Replaces an empty register by the default NaN; the stack fault has been raised. */
const orNan = (x: X87, f: Body, slot: Local, v: { sig: Local; se: Local }): void =>
  f.if(x.isEmpty(f, slot), () => {
    f.set(v.sig, DEFAULT_NAN);
    f.set(v.se, 0xffff);
  });

function defineMoves(x: X87): void {
  const { program } = x;
  const loadRegister = program.routine(null, [I32, I32], I32, (f, d, s) => {
    x.clearC1(f);
    f.unlikely(x.isEmpty(f, s), () => {
      x.raiseOrStop(f, IE | SF);
      x.write(f, d, i64(DEFAULT_NAN), 0xffff);
      f.return(0);
    });
    const v = readMarked(f, s);
    f.unlikely(x.isEmpty(f, d).not(), () => {
      x.raiseOrStop(f, IE | SF | C1);
      f.set(v.sig, DEFAULT_NAN);
      f.set(v.se, 0xffff);
    });
    x.write(f, d, v.sig, v.se);
    f.return(0);
  });
  defineFast(program, 'fldR', X87_FAST['fldR']!, loadRegister);
  const storeRegister = program.routine(null, [I32, I32], I32, (f, _, d) => f.tail(x.underflow, d));
  defineFast(program, 'fstR', X87_FAST['fstR']!, storeRegister);
  program.routine('fstnce', [I32], I32, (f, d) => {
    const s = f.let(x.slot(f, 0));
    x.clearC1(f);
    f.if(x.isEmpty(f, s).not(), () => x.write(f, d, f.load64(FPREG, s), f.load32(SE, s)));
    f.return(0);
  });
  const exchangeEmpty = program.routine(null, [I32, I32], I32, (f, d, s) => {
    const [a, b] = [readMarked(f, d), readMarked(f, s)];
    x.clearC1(f);
    x.raiseOrStop(f, IE | SF);
    orNan(x, f, d, a);
    orNan(x, f, s, b);
    x.write(f, d, b.sig, b.se);
    x.write(f, s, a.sig, a.se);
    f.return(0);
  });
  defineFast(program, 'fxch', X87_FAST['fxch']!, exchangeEmpty);
  program.routine('fcmov', [I32, I32], I32, (f, condition, s) => {
    const d = f.let(x.slot(f, 0));
    f.unlikely(x.isEmpty(f, d).or(x.isEmpty(f, s)), () => f.tail(x.underflow, d));
    f.if(condition, () => {
      const v = readMarked(f, s);
      x.overwrite(f, d, v.sig, v.se);
    });
    f.return(0);
  });
  // Sign bits to clear, and to toggle.
  const signOfNothing = program.routine(null, [I32, I32, I32], I32, (f, d) => f.tail(x.underflow, d));
  defineFast(program, 'fsign', X87_FAST['fsign']!, signOfNothing);
}

function defineExamine(x: X87): void {
  x.program.routine('fxam', [], I32, (f) => {
    const d = f.let(x.slot(f, 0));
    const a = x.read(f, d);
    const set = (bits: Expr): void => {
      const status = f.load32(FSW).and(~(C0 | C1 | C2 | C3));
      f.store32(FSW, status.or(bits).or(signOf(a).shl(9)));
      f.return(0);
    };
    f.if(x.isEmpty(f, d), () => set(i32(C3 | C0)));
    f.if(isUnsupported(a), () => set(i32(0)));
    f.if(exponentOf(a).eq(EXPONENT), () => set(a.sig.eq(TOP_BIT).select(C2 | C0, C0)));
    f.if(a.sig.not(), () => set(i32(C3)));
    set(exponentOf(a).select(C2, C3 | C2));
  });
}

/** Tag word: 2 bits a register: valid, zero, special, empty (SDM vol. 1, 8.1.7). */
function defineTagWord(x: X87): void {
  x.program.routine('tagWord', [], I32, (f) => {
    const word = f.let(i32(0));
    const slot = f.let(i32(112));
    f.while(slot.ges(0), () => {
      const a = x.read(f, slot);
      const ordinary = exponentOf(a).sub(1).ltu(0x7ffe).and(a.sig.lts(0n));
      const zero = exponentOf(a).eq(0).and(a.sig.eq(0n));
      const full = ordinary.select(i32(0), zero.select(i32(1), i32(2)));
      f.set(word, word.shl(2).or(x.isEmpty(f, slot).select(i32(3), full)));
      f.set(slot, slot.sub(16));
    });
    f.return(word);
  });
}

function defineSquareRoot(x: X87, arithmetic: Arithmetic): void {
  const careful = x.program.routine(null, [I32], I32, (f, d) => {
    f.unlikely(x.isEmpty(f, d), () => f.tail(x.underflow, d));
    markNormal(x, f, d, x.read(f, d));
    f.tail(arithmetic.sqrtSlow, d);
  });
  x.program.routine('fsqrt', [], I32, (f) => {
    const d = f.let(x.slot(f, 0));
    const out = (otherwise: Expr): void => f.unlikely(otherwise, () => f.tail(careful, d));
    const a = readMarked(f, d);
    requirePlain(f, out, a);
    out(signOf(a));
    arithmetic.sqrt(f, out, d, a);
    f.return(0);
  });
}

export function defineRoutines(x: X87, conversions: Conversions): void {
  const arithmetic = new Arithmetic(x);
  for (const [name, operation] of Object.entries(operations(arithmetic))) defineBinary(x, conversions, name, operation);
  defineComparisons(x, arithmetic, conversions);
  defineSquareRoot(x, arithmetic);
  defineMoves(x);
  defineExamine(x);
  defineTagWord(x);
}

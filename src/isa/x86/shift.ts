/** Shifts and rotates. Counts are masked to 5 bits, to 6 with 64-bit operands. */
import type { Value } from '../../ir/builder.ts';
import { KIND_SAR, KIND_SHL } from './flags.ts';
import type { Size } from './flags.ts';
import { CC_FLAGS, CF, OF } from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const SHL = 0;
const SHR = 1;
const SAR = 2;

const OTHERS = CC_FLAGS & ~(CF | OF);

const countMask = (size: Size): number => (size === 8 ? 63 : 31);

/** The count when it is part of the instruction, masked; -1 when it is in CL. */
function constantCount(t: X86Translator, operand: number): number {
  const { place } = t.row!.operands[operand]!;
  if (place === 'c') return -1;
  return place === '1' ? 1 : t.immediate() & countMask(t.size);
}

/** CL, masked, an i32. */
function variableCount(t: X86Translator): Value {
  return t.b.and32(t.low32(1), t.b.i32(countMask(t.size)));
}

/** A count as an operand of the size. */
const toSize = (t: X86Translator, count: Value): Value => (t.size === 8 ? t.b.extu(count) : count);

function shiftOnce(t: X86Translator, how: number, x: Value, count: Value): Value {
  const { size } = t;
  if (how === SHL) return t.shl(size, x, count);
  return how === SHR ? t.shr(size, x, count) : t.sar(size, x, count);
}

function shift(how: number): Translate {
  const kind = how === SHL ? KIND_SHL : KIND_SAR;
  return (t) => {
    const { size } = t;
    const raw = t.readForWrite(0);
    const x = how === SHL ? raw : how === SHR ? t.zext(size, raw) : t.sext(size, raw);
    const constant = constantCount(t, 1);
    if (constant === 0) return t.write(0, raw);
    if (constant > 0) {
      const before = constant === 1 ? x : shiftOnce(t, how, x, t.constant(size, constant - 1));
      const result = shiftOnce(t, how, x, t.constant(size, constant));
      t.write(0, result);
      return t.cc.setShift(kind, size, result, before);
    }
    const count = variableCount(t);
    const result = shiftOnce(t, how, x, toSize(t, count));
    const before = shiftOnce(t, how, x, toSize(t, t.b.sub32(count, t.b.i32(1))));
    t.write(0, result);
    t.cc.setShiftUnless(t.b.eqz32(count), kind, size, result, before);
  };
}

/** Bit `position` of a value as an i32 0 or 1. */
function bit(t: X86Translator, size: Size, v: Value, position: number): Value {
  const { b } = t;
  const shifted = position === 0 ? v : t.shr(size, v, t.constant(size, position));
  return b.and32(t.toI32(size, shifted), b.i32(1));
}

/** CF and OF change, all of it only where the count is not zero (`count` -1: known not to be). */
function setRotateFlags(t: X86Translator, carry: Value, overflow: Value, count: Value): void {
  const { b } = t;
  const old = t.cc.bits();
  const fresh = b.or32(carry, b.shl32(overflow, b.i32(11)));
  const bits = b.or32(b.and32(old, b.i32(OTHERS)), fresh);
  if (count < 0) t.cc.setBits(bits, carry);
  else t.cc.setBits(b.select32(count, bits, old));
}

/** An 8- or 16-bit value repeated over 32 bits, so that a 32-bit rotation rotates it. */
function repeat(t: X86Translator, size: Size, v: Value): Value {
  const { b } = t;
  if (size === 1) return b.mul32(t.zext(1, v), b.i32(0x01010101));
  const low = t.zext(2, v);
  return b.or32(low, b.shl32(low, b.i32(16)));
}

function rotateValue(t: X86Translator, left: boolean, x: Value, count: Value): Value {
  const { b, size } = t;
  if (size === 8) return left ? b.rotl64(x, b.extu(count)) : b.rotr64(x, b.extu(count));
  const wide = size === 4 ? x : repeat(t, size, x);
  return left ? b.rotl32(wide, count) : b.rotr32(wide, count);
}

function rotate(left: boolean): Translate {
  return (t) => {
    const { b, size } = t;
    const top = size * 8 - 1;
    const x = t.readForWrite(0);
    const constant = constantCount(t, 1);
    if (constant === 0) return t.write(0, x);
    const count = constant > 0 ? b.i32(constant) : variableCount(t);
    const result = rotateValue(t, left, x, count);
    t.write(0, result);
    const high = bit(t, size, result, top);
    const carry = left ? bit(t, size, result, 0) : high;
    const other = left ? carry : bit(t, size, result, top - 1);
    setRotateFlags(t, carry, b.xor32(high, other), constant > 0 ? -1 : count);
  };
}

/** RCL, RCR of 8, 16 and 32 bits: a rotation of width + 1 bits within an i64. */
function rotateNarrow(t: X86Translator, left: boolean, x: Value, count: Value): [Value, Value] {
  const { b, size } = t;
  const width = size * 8;
  const all = b.or64(t.toU64(size, x), b.shl64(b.extu(t.cc.carry()), b.i64(width)));
  const steps = b.extu(size === 4 ? count : b.remu32(count, b.i32(width + 1)));
  const back = b.sub64(b.i64(width + 1), steps);
  const turned = left ? b.or64(b.shl64(all, steps), b.shr64(all, back)) : b.or64(b.shr64(all, steps), b.shl64(all, back));
  const carry = b.and32(b.wrap(b.shr64(turned, b.i64(width))), b.i32(1));
  return [b.wrap(turned), carry];
}

function rotateWide(t: X86Translator, left: boolean, x: Value, count: Value): [Value, Value] {
  const { b } = t;
  const one = b.i64(1);
  const steps = b.extu(count);
  const back = b.sub64(b.i64(64), steps);
  const before = b.sub64(steps, one);
  const old = b.extu(t.cc.carry());
  const turned = left
    ? b.or64(b.or64(b.shl64(x, steps), b.shl64(old, before)), b.shr64(b.shr64(x, one), back))
    : b.or64(b.or64(b.shr64(x, steps), b.shl64(old, back)), b.shl64(b.shl64(x, one), back));
  const out = b.wrap(b.shr64(x, left ? back : before));
  return [b.select64(count, turned, x), b.and32(out, b.i32(1))];
}

function rotateThroughCarry(left: boolean): Translate {
  return (t) => {
    const { b, size } = t;
    const top = size * 8 - 1;
    const x = t.readForWrite(0);
    const constant = constantCount(t, 1);
    if (constant === 0) return t.write(0, x);
    const count = constant > 0 ? b.i32(constant) : variableCount(t);
    const [result, carry] = (size === 8 ? rotateWide : rotateNarrow)(t, left, x, count);
    t.write(0, result);
    const high = bit(t, size, result, top);
    const other = left ? carry : bit(t, size, result, top - 1);
    setRotateFlags(t, carry, b.xor32(high, other), constant > 0 ? -1 : count);
  };
}

/** Value of SHLD or SHRD of up to 32 bits for a count (i64), from both operands side by side. */
function joined(t: X86Translator, left: boolean, x: Value, y: Value): Value {
  const { b, size } = t;
  const high = (v: Value, n: number): Value => b.shl64(t.toU64(size, v), b.i64(n));
  if (size === 4) {
    return left ? b.or64(high(x, 32), t.toU64(4, y)) : b.or64(high(y, 32), t.toU64(4, x));
  }
  return b.or64(b.or64(high(x, 32), high(y, 16)), t.toU64(2, x));
}

function doubleNarrow(t: X86Translator, left: boolean, pair: Value, steps: Value): Value {
  const { b } = t;
  return b.wrap(left ? b.shr64(b.shl64(pair, steps), b.i64(32)) : b.shr64(pair, steps));
}

function doubleWide(t: X86Translator, left: boolean, x: Value, y: Value, steps: Value): Value {
  const { b } = t;
  const one = b.i64(1);
  const back = b.sub64(b.i64(63), steps);
  return left
    ? b.or64(b.shl64(x, steps), b.shr64(b.shr64(y, one), back))
    : b.or64(b.shr64(x, steps), b.shl64(b.shl64(y, one), back));
}

function doubleShift(left: boolean): Translate {
  const kind = left ? KIND_SHL : KIND_SAR;
  return (t) => {
    const { b, size } = t;
    const y = t.readRaw(1);
    const x = t.readForWrite(0);
    const constant = constantCount(t, 2);
    if (constant === 0) return t.write(0, x);
    const count = constant > 0 ? b.i32(constant) : variableCount(t);
    const steps = b.extu(count);
    const previous = b.sub64(steps, b.i64(1));
    let result: Value;
    let before: Value;
    if (size === 8) {
      result = doubleWide(t, left, x, y, steps);
      before = left ? b.shl64(x, previous) : b.shr64(x, previous);
    } else {
      const pair = joined(t, left, x, y);
      result = doubleNarrow(t, left, pair, steps);
      before = doubleNarrow(t, left, pair, previous);
    }
    t.write(0, result);
    if (constant > 0) t.cc.setShift(kind, size, result, before);
    else t.cc.setShiftUnless(b.eqz32(count), kind, size, result, before);
  };
}

const GROUP: readonly [string, Translate][] = [
  ['ROL', rotate(true)],
  ['ROR', rotate(false)],
  ['RCL', rotateThroughCarry(true)],
  ['RCR', rotateThroughCarry(false)],
  ['SHL', shift(SHL)],
  ['SHR', shift(SHR)],
  ['SHL', shift(SHL)],
  ['SAR', shift(SAR)],
];

const forms = (name: string, translate: Translate, digit: number): Row[] => [
  row(`C0 /${digit}`, name, 'Eb,Ib', translate),
  row(`C1 /${digit}`, name, 'Ev,Ib', translate),
  row(`D0 /${digit}`, name, 'Eb,1', translate),
  row(`D1 /${digit}`, name, 'Ev,1', translate),
  row(`D2 /${digit}`, name, 'Eb,CL', translate),
  row(`D3 /${digit}`, name, 'Ev,CL', translate),
];

export const SHIFT_ROWS: readonly Row[] = [
  ...GROUP.flatMap(([name, translate], digit) => forms(name, translate, digit)),
  row('0F A4 /r', 'SHLD', 'Ev,Gv,Ib', doubleShift(true)),
  row('0F A5 /r', 'SHLD', 'Ev,Gv,CL', doubleShift(true)),
  row('0F AC /r', 'SHRD', 'Ev,Gv,Ib', doubleShift(false)),
  row('0F AD /r', 'SHRD', 'Ev,Gv,CL', doubleShift(false)),
];

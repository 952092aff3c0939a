/**
 * Lazy condition codes.
 *
 * The arithmetic flags OF SF ZF AF PF CF are not computed by the instruction that sets
 * them: it leaves operands in ccDst, ccSrc and ccSrc2 and the operation in the context
 * (`Builder.ctx`, at run time CTL_CTX). Operation = kind * 4 + log2(operand bytes):
 *
 *   kind     ccDst      ccSrc                  ccSrc2
 *   EFLAGS   the bits   -                      -         (one operation only: 0)
 *   ADD      result     second operand         -
 *   ADC      result     second operand         carry in
 *   SUB      first      second operand         -
 *   SBB      first      second operand         borrow in
 *   LOGIC    result     -                      -         CF = OF = AF = 0
 *   INC DEC  result     CF as it was           -
 *   SHL      result     value before the last single shift: CF is its top bit
 *   SAR      result     value before the last single shift: CF is its lowest bit (SHR, too)
 *   MUL IMUL operands, zero- or sign-extended to 64 bits
 *   RESCF    result     CF                     -         OF = AF = 0 (BLSI, BZHI, TZCNT, ...)
 *   POPCNT   source     -                      -         ZF only, all others 0
 *   UCOMIS   operands, bits of doubles         -         ZF, PF, CF; size 8 only
 *
 * Bits above the operand's width may hold anything, but for MUL and IMUL.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { CTX_UNKNOWN, STRIDE } from '../../ir/builder.ts';
import { I32, I64, Op } from '../../ir/ops.ts';
import { CTL_CTX } from '../../ir/vcpu-block.ts';
import { EQ, GES, GEU, GTS, GTU, LES, LEU, LTS, LTU, NE } from './comparisons.ts';
import type { Comparison } from './comparisons.ts';
import { definePureHelper } from './helpers.ts';
import { AF, CC_DST, CC_FLAGS, CC_SRC, CC_SRC2, CF, G_CC_DST, G_CC_SRC, G_CC_SRC2, OF, PF, SF, ZF } from './state.ts';

/** ccDst holds the OSZAPC bits themselves. */
export const CC_EFLAGS = 0;

export const KIND_EFLAGS = 0;
export const KIND_ADD = 1;
export const KIND_ADC = 2;
export const KIND_SUB = 3;
export const KIND_SBB = 4;
export const KIND_LOGIC = 5;
export const KIND_INC = 6;
export const KIND_DEC = 7;
export const KIND_SHL = 8;
export const KIND_SAR = 9;
export const KIND_MUL = 10;
export const KIND_IMUL = 11;
export const KIND_RESCF = 12;
export const KIND_POPCNT = 13;
export const KIND_UCOMIS = 14;
const KINDS = 15;

/** Number of condition-code operations. */
export const CC_OPS = KINDS * 4;

/** Operand sizes in bytes: 1, 2, 4 or 8. */
export type Size = number;

const LOG2 = [0, 0, 1, 1, 2, 2, 2, 2, 3] as const;

/** The operation's number. */
export function ccOp(kind: number, size: Size): number {
  return kind * 4 + LOG2[size]!;
}

// --- Arithmetic by operand size: i64 for 8 bytes, else i32 whose upper bits may be anything. ---

/** The value with the bits above its width cleared. */
export function zeroExtend(b: Builder, size: Size, v: Value): Value {
  if (size >= 4) return v;
  const op = b.opOf(v);
  if (op === Op.ld8u || op === Op.ld8w || op === Op.lds8) return v;
  if (size === 2 && (op === Op.ld16u || op === Op.ld16w || op === Op.lds16)) return v;
  const mask = size === 1 ? 0xff : 0xffff;
  if (op === Op.const32) {
    const constant = b.words[v * STRIDE + 1]!;
    return (constant & mask) === constant ? v : b.i32(constant & mask);
  }
  if (op === Op.and32 && b.isConst(b.words[v * STRIDE + 2]!, mask)) return v;
  return b.and32(v, b.i32(mask));
}

export function signExtend(b: Builder, size: Size, v: Value): Value {
  if (size >= 4) return v;
  if (b.opOf(v) === Op.const32) {
    const constant = b.words[v * STRIDE + 1]!;
    return b.i32(size === 1 ? (constant << 24) >> 24 : (constant << 16) >> 16);
  }
  return size === 1 ? b.ext8s32(v) : b.ext16s32(v);
}

const wide = (size: Size): boolean => size === 8;

const constant = (b: Builder, size: Size, value: number): Value => (wide(size) ? b.i64(value) : b.i32(value));

const sub = (b: Builder, size: Size, x: Value, y: Value): Value => (wide(size) ? b.sub64(x, y) : b.sub32(x, y));
const and = (b: Builder, size: Size, x: Value, y: Value): Value => (wide(size) ? b.and64(x, y) : b.and32(x, y));
const xor = (b: Builder, size: Size, x: Value, y: Value): Value => (wide(size) ? b.xor64(x, y) : b.xor32(x, y));

/** Do operands of this kind have all 64 bits whatever the size? */
const fullWidth = (kind: number, size: Size): boolean =>
  size === 8 || kind === KIND_MUL || kind === KIND_IMUL || kind === KIND_UCOMIS;

/** The double with these bits. */
function asDouble(b: Builder, bits: Value): Value {
  return b.opOf(bits) === Op.bitsf64 ? b.words[bits * STRIDE + 1]! : b.f64bits(bits);
}

/** An i32 carry as an operand of the size. */
const carryOperand = (b: Builder, size: Size, carry: Value): Value => (wide(size) ? b.extu(carry) : carry);

/** The value's top bit as 0 or 1. */
function topBit(b: Builder, size: Size, v: Value): Value {
  if (wide(size)) return b.wrap(b.shr64(v, b.i64(63)));
  if (size === 4) return b.shr32(v, b.i32(31));
  return b.and32(b.shr32(v, b.i32(size * 8 - 1)), b.i32(1));
}

function compare(b: Builder, how: Comparison, size: Size, x: Value, y: Value): Value {
  if (wide(size)) return b.emit(how.op64, x, y, 0, 0, 0, 0);
  if (size < 4) {
    const extend = how.signed ? signExtend : zeroExtend;
    x = extend(b, size, x);
    y = extend(b, size, y);
  }
  return b.emit(how.op32, x, y, 0, 0, 0, 0);
}

function isZero(b: Builder, size: Size, v: Value): Value {
  return wide(size) ? b.eqz64(v) : b.eqz32(zeroExtend(b, size, v));
}

// --- What each kind means. `x`, `y`, `z` are ccDst, ccSrc, ccSrc2 in the width's type. ---

interface Operands {
  readonly kind: number;
  readonly size: Size;
  /** ccDst: i64 for 8 bytes (and MUL, IMUL), else i32. */
  x(): Value;
  /** ccSrc likewise; for INC, DEC and RESCF an i32. */
  y(): Value;
  /** ccSrc2, an i32. */
  z(): Value;
  /** The instruction's result. */
  result(): Value;
}

function computeResult(b: Builder, o: Operands): Value {
  switch (o.kind) {
    case KIND_SUB:
      return sub(b, o.size, o.x(), o.y());
    case KIND_SBB:
      return sub(b, o.size, sub(b, o.size, o.x(), o.y()), carryOperand(b, o.size, o.z()));
    case KIND_MUL:
    case KIND_IMUL: {
      const product = b.mul64(o.x(), o.y());
      return wide(o.size) ? product : b.wrap(product);
    }
    default:
      return o.x();
  }
}

function multiplyOverflow(b: Builder, o: Operands): Value {
  const x = o.x();
  const y = o.y();
  const low = b.mul64(x, y);
  if (o.kind === KIND_MUL) {
    const high = wide(o.size) ? b.mulhu64(x, y) : b.shr64(low, b.i64(o.size * 8));
    return b.ne64(high, b.i64(0));
  }
  switch (o.size) {
    case 1:
      return b.ne64(low, b.ext8s64(low));
    case 2:
      return b.ne64(low, b.ext16s64(low));
    case 4:
      return b.ne64(low, b.ext32s64(low));
    default:
      return b.ne64(b.mulhs64(x, y), b.sar64(low, b.i64(63)));
  }
}

function carryOf(b: Builder, o: Operands): Value {
  switch (o.kind) {
    case KIND_ADD:
    case KIND_SUB:
      return compare(b, LTU, o.size, o.x(), o.y());
    case KIND_ADC:
    case KIND_SBB:
      return b.select32(o.z(), compare(b, LEU, o.size, o.x(), o.y()), compare(b, LTU, o.size, o.x(), o.y()));
    case KIND_INC:
    case KIND_DEC:
    case KIND_RESCF:
      return o.y();
    case KIND_SHL:
      return topBit(b, o.size, o.y());
    case KIND_SAR:
      return b.and32(wide(o.size) ? b.wrap(o.y()) : o.y(), b.i32(1));
    case KIND_MUL:
    case KIND_IMUL:
      return multiplyOverflow(b, o);
    case KIND_UCOMIS:
      return b.eqz32(compareDoubles(b, 'gef64', o));
    default:
      return b.i32(0);
  }
}

function compareDoubles(b: Builder, how: 'gtf64' | 'gef64' | 'ltf64', o: Operands): Value {
  return b[how](asDouble(b, o.x()), asDouble(b, o.y()));
}

function zeroOf(b: Builder, o: Operands): Value {
  if (o.kind === KIND_UCOMIS) {
    return b.eqz32(b.or32(compareDoubles(b, 'ltf64', o), compareDoubles(b, 'gtf64', o)));
  }
  if (o.kind === KIND_SUB) return compare(b, EQ, o.size, o.x(), o.y());
  return isZero(b, o.size, o.result());
}

function signOf(b: Builder, o: Operands): Value {
  if (o.kind === KIND_POPCNT || o.kind === KIND_UCOMIS) return b.i32(0);
  return topBit(b, o.size, o.result());
}

function parityOf(b: Builder, o: Operands): Value {
  if (o.kind === KIND_POPCNT) return b.i32(0);
  if (o.kind === KIND_UCOMIS) {
    const x = asDouble(b, o.x());
    const y = asDouble(b, o.y());
    return b.or32(b.nef64(x, x), b.nef64(y, y));
  }
  const result = o.result();
  const low = b.and32(wide(o.size) ? b.wrap(result) : result, b.i32(0xff));
  return b.and32(b.xor32(b.popcnt32(low), b.i32(1)), b.i32(1));
}

/** First operand of ADD and ADC. */
function addend(b: Builder, o: Operands): Value {
  const difference = sub(b, o.size, o.x(), o.y());
  return o.kind === KIND_ADD ? difference : sub(b, o.size, difference, carryOperand(b, o.size, o.z()));
}

/** The most negative number of the width, `offset` added. */
function minimum(b: Builder, size: Size, offset: number): Value {
  if (wide(size)) return offset === 0 ? b.i64(0, 0x80000000 | 0) : b.i64(-1, 0x7fffffff);
  return b.i32((2 ** (size * 8 - 1) + offset) | 0);
}

function overflowOf(b: Builder, o: Operands): Value {
  const { size } = o;
  switch (o.kind) {
    case KIND_ADD:
    case KIND_ADC: {
      const x = o.x();
      const first = xor(b, size, x, addend(b, o));
      return topBit(b, size, and(b, size, first, xor(b, size, x, o.y())));
    }
    case KIND_SUB:
    case KIND_SBB: {
      const x = o.x();
      const first = xor(b, size, x, o.y());
      return topBit(b, size, and(b, size, first, xor(b, size, x, o.result())));
    }
    case KIND_INC:
      return compare(b, EQ, size, o.x(), minimum(b, size, 0));
    case KIND_DEC:
      return compare(b, EQ, size, o.x(), minimum(b, size, -1));
    case KIND_SHL:
    case KIND_SAR:
      return topBit(b, size, xor(b, size, o.x(), o.y()));
    case KIND_MUL:
    case KIND_IMUL:
      return multiplyOverflow(b, o);
    default:
      return b.i32(0);
  }
}

/** AF in its place, bit 4. */
function adjustOf(b: Builder, o: Operands): Value {
  const low = (v: Value): Value => (wide(o.size) ? b.wrap(v) : v);
  switch (o.kind) {
    case KIND_ADD:
    case KIND_ADC:
      return b.and32(low(xor(b, o.size, xor(b, o.size, o.x(), o.y()), addend(b, o))), b.i32(AF));
    case KIND_SUB:
    case KIND_SBB:
      return b.and32(low(xor(b, o.size, xor(b, o.size, o.x(), o.y()), o.result())), b.i32(AF));
    case KIND_INC:
      return b.shl32(b.eqz32(b.and32(low(o.x()), b.i32(15))), b.i32(4));
    case KIND_DEC:
      return b.shl32(b.eq32(b.and32(low(o.x()), b.i32(15)), b.i32(15)), b.i32(4));
    default:
      return b.i32(0);
  }
}

function allBits(b: Builder, o: Operands): Value {
  const place = (bit: Value, position: number): Value => b.shl32(bit, b.i32(position));
  let bits = b.or32(carryOf(b, o), place(parityOf(b, o), 2));
  bits = b.or32(bits, adjustOf(b, o));
  bits = b.or32(bits, place(zeroOf(b, o), 6));
  bits = b.or32(bits, place(signOf(b, o), 7));
  return b.or32(bits, place(overflowOf(b, o), 11));
}

// --- Helpers for a context that is not known, or too much code to inline. ---

class ArmOperands implements Operands {
  readonly kind: number;
  readonly size: Size;
  private readonly b: Builder;
  private readonly params: readonly Value[];

  constructor(b: Builder, op: number, params: readonly Value[]) {
    this.b = b;
    this.kind = op >> 2;
    this.size = 1 << (op & 3);
    this.params = params;
  }

  x(): Value {
    const keep = fullWidth(this.kind, this.size);
    return keep ? this.params[0]! : this.b.wrap(this.params[0]!);
  }
  y(): Value {
    const { kind } = this;
    if (kind === KIND_INC || kind === KIND_DEC || kind === KIND_RESCF) {
      return this.b.wrap(this.params[1]!);
    }
    const keep = fullWidth(kind, this.size);
    return keep ? this.params[1]! : this.b.wrap(this.params[1]!);
  }
  z(): Value {
    return this.b.wrap(this.params[2]!);
  }
  result(): Value {
    return computeResult(this.b, this);
  }
}

/** OSZAPC bits of (operation, ccDst, ccSrc, ccSrc2). */
export const CC_BITS_HELPER = definePureHelper({
  name: 'ccBits',
  params: [I32, I64, I64, I64],
  result: I32,
  arms: CC_OPS,
  arm: (b, op, params) => (op < 4 ? b.wrap(params[0]!) : allBits(b, new ArmOperands(b, op, params))),
});

/** CF of (operation, ccDst, ccSrc, ccSrc2). */
export const CC_CARRY_HELPER = definePureHelper({
  name: 'ccCarry',
  params: [I32, I64, I64, I64],
  result: I32,
  arms: CC_OPS,
  arm: (b, op, params) => (op < 4 ? b.and32(b.wrap(params[0]!), b.i32(1)) : carryOf(b, new ArmOperands(b, op, params))),
});

// --- The translator's view. ---

const CONDITION_OF_SUB: readonly (Comparison | null)[] = [
  null,
  null,
  LTU,
  GEU,
  EQ,
  NE,
  LEU,
  GTU,
  null,
  null,
  null,
  null,
  LTS,
  GES,
  LES,
  GTS,
];
const CONDITION_OF_LOGIC: readonly (Comparison | null)[] = [
  null,
  null,
  null,
  null,
  EQ,
  NE,
  EQ,
  NE,
  LTS,
  GES,
  null,
  null,
  LTS,
  GES,
  LES,
  GTS,
];

/** The condition codes while a block is being translated. All conditions come as i32 0 or 1. */
export class Flags implements Operands {
  private readonly b: Builder;
  kind = -1;
  size: Size = 4;
  // Values of the last flag-setting instruction in this block, -1 = not at hand yet.
  private dst = -1;
  private src = -1;
  private src2 = -1;
  private res = -1;
  private bitsValue = -1;
  private carryValue = -1;

  constructor(b: Builder) {
    this.b = b;
  }

  /** Begins a block: the context is what the builder says it was entered with. */
  reset(): void {
    const { ctx } = this.b;
    this.forget();
    this.kind = ctx === CTX_UNKNOWN ? -1 : ctx >> 2;
    this.size = ctx === CTX_UNKNOWN ? 4 : 1 << (ctx & 3);
  }

  private forget(): void {
    this.dst = this.src = this.src2 = this.res = this.bitsValue = this.carryValue = -1;
  }

  private get keepsWide(): boolean {
    return fullWidth(this.kind, this.size);
  }

  x(): Value {
    if (this.dst < 0) {
      const value = this.b.get(G_CC_DST);
      this.dst = this.keepsWide ? value : this.b.wrap(value);
    }
    return this.dst;
  }

  y(): Value {
    if (this.src < 0) {
      const value = this.b.get(G_CC_SRC);
      const { kind } = this;
      const carry = kind === KIND_INC || kind === KIND_DEC || kind === KIND_RESCF;
      this.src = this.keepsWide && !carry ? value : this.b.wrap(value);
    }
    return this.src;
  }

  z(): Value {
    if (this.src2 < 0) this.src2 = this.b.wrap(this.b.get(G_CC_SRC2));
    return this.src2;
  }

  result(): Value {
    if (this.res < 0) this.res = computeResult(this.b, this);
    return this.res;
  }

  /** CF as 0 or 1. */
  carry(): Value {
    if (this.carryValue >= 0) return this.carryValue;
    const { b } = this;
    if (this.kind === KIND_EFLAGS || this.bitsValue >= 0) {
      this.carryValue = b.and32(this.bits(), b.i32(1));
    } else if (this.kind < 0) {
      this.carryValue = this.callHelper(CC_CARRY_HELPER);
    } else {
      this.carryValue = carryOf(b, this);
    }
    return this.carryValue;
  }

  private callHelper(helper: typeof CC_BITS_HELPER): Value {
    const { b, kind } = this;
    const selector = kind < 0 ? b.entryContext() : b.i32(ccOp(kind, this.size));
    const needsSrc2 = kind < 0 || kind === KIND_ADC || kind === KIND_SBB;
    const needsSrc = kind !== KIND_LOGIC && kind !== KIND_POPCNT;
    return b.call(
      helper,
      selector,
      b.get(G_CC_DST),
      needsSrc ? b.get(G_CC_SRC) : b.i64(0),
      needsSrc2 ? b.get(G_CC_SRC2) : b.i64(0),
    );
  }

  /** All six flags in their places of EFLAGS. */
  bits(): Value {
    if (this.bitsValue < 0) {
      this.bitsValue = this.kind === KIND_EFLAGS ? this.b.wrap(this.b.get(G_CC_DST)) : this.callHelper(CC_BITS_HELPER);
    }
    return this.bitsValue;
  }

  private bitOf(position: number): Value {
    const { b } = this;
    return b.and32(b.shr32(this.bits(), b.i32(position)), b.i32(1));
  }

  private get materialised(): boolean {
    return this.kind <= KIND_EFLAGS;
  }

  private zero(): Value {
    return this.materialised ? this.bitOf(6) : zeroOf(this.b, this);
  }
  private sign(): Value {
    return this.materialised ? this.bitOf(7) : signOf(this.b, this);
  }
  private overflow(): Value {
    return this.materialised ? this.bitOf(11) : overflowOf(this.b, this);
  }

  private anyOf(mask: number): Value {
    const { b } = this;
    return b.ne32(b.and32(this.bits(), b.i32(mask)), b.i32(0));
  }

  private positive(code: number): Value {
    const { b } = this;
    switch (code) {
      case 0:
        return this.overflow();
      case 2:
        return this.carry();
      case 4:
        return this.zero();
      case 6:
        return this.materialised ? this.anyOf(CF | ZF) : b.or32(this.carry(), this.zero());
      case 8:
        return this.sign();
      case 10:
        return this.materialised ? this.bitOf(2) : parityOf(b, this);
      case 12:
        return b.xor32(this.sign(), this.overflow());
      default:
        return b.or32(b.xor32(this.sign(), this.overflow()), this.zero());
    }
  }

  /** The condition of Jcc, SETcc and CMOVcc with this number (low four opcode bits). */
  condition(code: number): Value {
    const { b } = this;
    if (this.kind === KIND_SUB) {
      const how = CONDITION_OF_SUB[code];
      if (how) return compare(b, how, this.size, this.x(), this.y());
    } else if (this.kind === KIND_LOGIC) {
      const how = CONDITION_OF_LOGIC[code];
      if (how) return compare(b, how, this.size, this.x(), constant(b, this.size, 0));
      if (code < 4) return b.i32(code & 1);
    } else if (this.kind === KIND_UCOMIS && (code & ~1) === 6) {
      const above = compareDoubles(b, 'gtf64', this);
      return code & 1 ? above : b.eqz32(above);
    }
    const value = this.positive(code & ~1);
    return code & 1 ? b.eqz32(value) : value;
  }

  private define(kind: number, size: Size): void {
    this.forget();
    this.kind = kind;
    this.size = size;
    this.b.ctx = kind === KIND_EFLAGS ? CC_EFLAGS : ccOp(kind, size);
  }

  private store(size: Size, dst: Value, src: Value): void {
    const { b } = this;
    b.set(G_CC_DST, wide(size) ? dst : b.extu(dst));
    if (src >= 0) b.set(G_CC_SRC, wide(size) ? src : b.extu(src));
  }

  /** ADD: result and second operand. */
  setAdd(size: Size, result: Value, second: Value): void {
    this.store(size, result, second);
    this.define(KIND_ADD, size);
    this.dst = this.res = result;
    this.src = second;
  }

  /** ADC: carry is an i32 of 0 or 1. */
  setAdc(size: Size, result: Value, second: Value, carry: Value): void {
    this.store(size, result, second);
    this.b.set(G_CC_SRC2, this.b.extu(carry));
    this.define(KIND_ADC, size);
    this.dst = this.res = result;
    this.src = second;
    this.src2 = carry;
  }

  /** SUB and CMP: the operands; `result` when it has been computed anyway. */
  setSub(size: Size, first: Value, second: Value, result: Value = -1): void {
    this.store(size, first, second);
    this.define(KIND_SUB, size);
    this.dst = first;
    this.src = second;
    this.res = result;
  }

  setSbb(size: Size, first: Value, second: Value, carry: Value, result: Value = -1): void {
    this.store(size, first, second);
    this.b.set(G_CC_SRC2, this.b.extu(carry));
    this.define(KIND_SBB, size);
    this.dst = first;
    this.src = second;
    this.src2 = carry;
    this.res = result;
  }

  setLogic(size: Size, result: Value): void {
    this.store(size, result, -1);
    this.define(KIND_LOGIC, size);
    this.dst = this.res = result;
  }

  /** ZF from the source, the other flags cleared. */
  setPopcnt(size: Size, source: Value): void {
    this.store(size, source, -1);
    this.define(KIND_POPCNT, size);
    this.dst = this.res = source;
  }

  /** COMISS, UCOMISS and the like: two doubles. */
  setUcomis(first: Value, second: Value): void {
    const { b } = this;
    const dst = b.bitsf64(first);
    const src = b.bitsf64(second);
    this.store(8, dst, src);
    this.define(KIND_UCOMIS, 8);
    this.dst = dst;
    this.src = src;
  }

  /** INC, DEC, RESCF: result and CF (an i32 of 0 or 1). */
  setWithCarry(kind: number, size: Size, result: Value, carry: Value): void {
    this.store(size, result, -1);
    this.b.set(G_CC_SRC, this.b.extu(carry));
    this.define(kind, size);
    this.dst = this.res = result;
    this.src = this.carryValue = carry;
  }

  /** SHL, SAR (and SHR): result and the value before the last single shift. */
  setShift(kind: number, size: Size, result: Value, before: Value): void {
    this.store(size, result, before);
    this.define(kind, size);
    this.dst = this.res = result;
    this.src = before;
  }

  /** MUL, IMUL: operands extended to i64. */
  setMul(kind: number, size: Size, first: Value, second: Value): void {
    this.store(8, first, second);
    this.define(kind, size);
    this.dst = first;
    this.src = second;
  }

  /** The flags' bits, all of CC_FLAGS and nothing else; `carry` when it is at hand as 0 or 1. */
  setBits(bits: Value, carry: Value = -1): void {
    this.b.set(G_CC_DST, this.b.extu(bits));
    this.define(KIND_EFLAGS, 4);
    this.bitsValue = bits;
    this.carryValue = carry;
  }

  /**
   * A shift whose count is not known: flags as after it, or the old ones where
   * `isZero` (an i32) is non-zero.
   */
  setShiftUnless(isZero: Value, kind: number, size: Size, result: Value, before: Value): void {
    const { b } = this;
    const oldSelector = this.kind < 0 ? b.entryContext() : b.i32(ccOp(this.kind, this.size));
    const extend = (v: Value): Value => (wide(size) ? v : b.extu(v));
    const bits = b.call(
      CC_BITS_HELPER,
      b.select32(isZero, oldSelector, b.i32(ccOp(kind, size))),
      b.select64(isZero, b.get(G_CC_DST), extend(result)),
      b.select64(isZero, b.get(G_CC_SRC), extend(before)),
      b.get(G_CC_SRC2),
    );
    this.setBits(bits);
  }
}

// --- For system code. ---

function parityBit(low: number): number {
  low ^= low >> 4;
  return (0x6996 >> (low & 15)) & 1 ? 0 : PF;
}

/** ZF, PF, CF of a comparison of the doubles with these bits. */
function evaluateUcomis(first: bigint, second: bigint): number {
  const [x, y] = new Float64Array(BigUint64Array.of(first, second).buffer) as unknown as [number, number];
  if (x < y) return CF;
  if (x > y) return 0;
  return x === y ? ZF : ZF | PF | CF;
}

/** One evaluation on BigInts: rare (interrupts, exceptions, POPF), so brevity wins. */
function evaluate(op: number, dst: bigint, src: bigint, src2: bigint): number {
  const kind = op >> 2;
  const bits = 8n << BigInt(op & 3);
  const mask = (1n << bits) - 1n;
  const top = 1n << (bits - 1n);
  const x = dst & mask;
  const y = src & mask;
  const z = src2 & 1n;
  const flag = (condition: boolean, bit: number): number => (condition ? bit : 0);
  const common = (result: bigint): number =>
    flag(result === 0n, ZF) | flag((result & top) !== 0n, SF) | parityBit(Number(result & 0xffn));
  switch (kind) {
    case KIND_ADD:
    case KIND_ADC: {
      const carry = kind === KIND_ADC ? z : 0n;
      const first = (x - y - carry) & mask;
      return (
        common(x) |
        flag(first + y + carry > mask, CF) |
        flag(((x ^ first) & (x ^ y) & top) !== 0n, OF) |
        (Number((x ^ y ^ first) & 0xffn) & AF)
      );
    }
    case KIND_SUB:
    case KIND_SBB: {
      const borrow = kind === KIND_SBB ? z : 0n;
      const result = (x - y - borrow) & mask;
      return (
        common(result) |
        flag(x < y + borrow, CF) |
        flag(((x ^ y) & (x ^ result) & top) !== 0n, OF) |
        (Number((x ^ y ^ result) & 0xffn) & AF)
      );
    }
    case KIND_LOGIC:
      return common(x);
    case KIND_INC:
      return common(x) | Number(src & 1n) | flag(x === top, OF) | flag((x & 15n) === 0n, AF);
    case KIND_DEC:
      return common(x) | Number(src & 1n) | flag(x === top - 1n, OF) | flag((x & 15n) === 15n, AF);
    case KIND_SHL:
      return common(x) | flag((y & top) !== 0n, CF) | flag(((x ^ y) & top) !== 0n, OF);
    case KIND_SAR:
      return common(x) | Number(y & 1n) | flag(((x ^ y) & top) !== 0n, OF);
    case KIND_MUL: {
      const product = x * y;
      return common(product & mask) | flag(product > mask, CF | OF);
    }
    case KIND_IMUL: {
      const width = Number(bits);
      const product = BigInt.asIntN(width, x) * BigInt.asIntN(width, y);
      return common(product & mask) | flag(BigInt.asIntN(width, product) !== product, CF | OF);
    }
    case KIND_RESCF:
      return common(x) | Number(src & 1n);
    case KIND_POPCNT:
      return flag(x === 0n, ZF);
    case KIND_UCOMIS:
      return evaluateUcomis(dst, src);
    default:
      return Number(dst & BigInt(CC_FLAGS));
  }
}

/** The flags OSZAPC of a vCPU that is not running translated code. @param vcpuBase its block's offset */
export function readArithmeticFlags(view: DataView, vcpuBase: number): number {
  const op = view.getInt32(vcpuBase + CTL_CTX, true);
  if (op === CC_EFLAGS) return view.getInt32(vcpuBase + CC_DST, true) & CC_FLAGS;
  return evaluate(
    op,
    view.getBigUint64(vcpuBase + CC_DST, true),
    view.getBigUint64(vcpuBase + CC_SRC, true),
    view.getBigUint64(vcpuBase + CC_SRC2, true),
  );
}

/** Sets the flags OSZAPC; other bits of `bits` are ignored. */
export function writeArithmeticFlags(view: DataView, vcpuBase: number, bits: number): void {
  view.setInt32(vcpuBase + CTL_CTX, CC_EFLAGS, true);
  view.setInt32(vcpuBase + CC_DST, bits & CC_FLAGS, true);
  view.setInt32(vcpuBase + CC_DST + 4, 0, true);
}

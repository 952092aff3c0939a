/** Bit tests, scans and counts; BMI1, BMI2; CRC32. */
import type { Builder, Value } from '../../ir/builder.ts';
import { I32, I64 } from '../../ir/ops.ts';
import { KIND_RESCF } from './flags.ts';
import type { Size } from './flags.ts';
import { definePureHelper } from './helpers.ts';
import { CC_FLAGS, CF, G } from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const BT = 0;
const BTS = 1;
const BTR = 2;
const BTC = 3;

const LOG2_BITS: Record<number, number> = { 2: 4, 4: 5, 8: 6 };

/** Bytes from the memory operand to the unit that a register bit offset selects (signed). */
function unitDistance(t: X86Translator, offset: Value): Value {
  const { b, size, addrSize } = t;
  const units = t.sar(size, t.sext(size, offset), t.constant(size, LOG2_BITS[size]!));
  const distance = t.shl(size, units, t.constant(size, LOG2_BITS[size]! - 3));
  if (addrSize === 8) return size === 8 ? distance : b.exts(distance);
  return size === 8 ? b.wrap(distance) : distance;
}

function changed(t: X86Translator, how: number, x: Value, position: Value): Value {
  const { size } = t;
  const mask = t.shl(size, t.constant(size, 1), position);
  if (how === BTS) return t.or(size, x, mask);
  if (how === BTC) return t.xor(size, x, mask);
  return t.and(size, x, t.xor(size, mask, t.constant(size, -1)));
}

/** CF alone changes. */
function setCarry(t: X86Translator, carry: Value): void {
  const { b } = t;
  t.cc.setBits(b.or32(b.and32(t.cc.bits(), b.i32(CC_FLAGS & ~CF)), carry), carry);
}

function bitTest(how: number): Translate {
  return (t) => {
    const { b, size } = t;
    const immediate = t.row!.operands[1]!.place === 'I';
    const offset = immediate ? t.constant(size, t.immediate()) : t.readRaw(1);
    const position = immediate
      ? t.constant(size, t.immediate() & (size * 8 - 1))
      : t.and(size, offset, t.constant(size, size * 8 - 1));
    let x: Value;
    let address: Value = -1;
    if (t.isRegister) x = t.readRaw(0);
    else {
      const place = immediate ? t.effectiveOffset() : t.effectiveOffset(unitDistance(t, offset));
      address = t.linear(t.segment, place, size, how !== BT);
      x = how === BT ? t.load(size, address) : t.loadForWrite(size, address);
    }
    const carry = b.and32(t.toI32(size, t.shr(size, x, position)), b.i32(1));
    if (how !== BT) {
      const result = changed(t, how, x, position);
      if (address >= 0) t.store(size, address, result);
      else t.write(0, result);
    }
    setCarry(t, carry);
  };
}

/** A count (i32 or i64 by size) of zeros below the lowest, or above the highest bit set. */
function trailing(t: X86Translator, size: Size, x: Value): Value {
  const { b } = t;
  if (size === 8) return b.ctz64(x);
  return size === 4 ? b.ctz32(x) : b.ctz32(b.or32(x, b.i32(0x10000)));
}
function leading(t: X86Translator, size: Size, x: Value): Value {
  const { b } = t;
  if (size === 8) return b.clz64(x);
  return size === 4 ? b.clz32(x) : b.sub32(b.clz32(t.zext(2, x)), b.i32(16));
}

/** BSF, BSR: a source of zero leaves the destination as it was (as AMD documents and Intel does). */
function scan(reverse: boolean): Translate {
  return (t) => {
    const { b, size } = t;
    const x = t.read(1);
    const zero = t.eqz(size, x);
    let result = reverse ? t.sub(size, t.constant(size, size * 8 - 1), leading(t, size, x)) : trailing(t, size, x);
    if (size === 4) {
      b.set(G[t.reg]!, b.select64(zero, b.get(G[t.reg]!), b.extu(result)));
    } else {
      result = t.select(size, zero, t.readRaw(0), result);
      t.write(0, result);
    }
    t.cc.setPopcnt(size, x);
  };
}

function count(which: (t: X86Translator, size: Size, x: Value) => Value): Translate {
  return (t) => {
    const { size } = t;
    const x = t.read(1);
    const result = which(t, size, x);
    t.write(0, result);
    t.cc.setWithCarry(KIND_RESCF, size, result, t.eqz(size, x));
  };
}

const popcnt: Translate = (t) => {
  const { b, size } = t;
  const x = t.read(1);
  t.write(0, size === 8 ? b.popcnt64(x) : b.popcnt32(x));
  t.cc.setPopcnt(size, x);
};

// --- BMI1. ---

const invert = (t: X86Translator, v: Value): Value => t.xor(t.size, v, t.constant(t.size, -1));

const andn: Translate = (t) => {
  const result = t.and(t.size, t.read(2), invert(t, t.read(1)));
  t.write(0, result);
  t.cc.setLogic(t.size, result);
};

/** Bits below position n (an i32); n at or above the width gives all. */
function lowMask(t: X86Translator, n: Value): Value {
  const { b, size } = t;
  const all = t.constant(size, -1);
  const place = size === 8 ? b.extu(n) : n;
  const mask = t.sub(size, t.shl(size, t.constant(size, 1), place), t.constant(size, 1));
  return t.select(size, b.gtu32(n, b.i32(size * 8 - 1)), all, mask);
}

/** An i32 byte of a control operand. */
function controlByte(t: X86Translator, v: Value, shift: number): Value {
  const { b } = t;
  const low = t.toI32(t.size, v);
  return b.and32(shift === 0 ? low : b.shr32(low, b.i32(shift)), b.i32(0xff));
}

const bextr: Translate = (t) => {
  const { b, size } = t;
  const source = t.read(1);
  const control = t.read(2);
  const start = controlByte(t, control, 0);
  const shifted = t.shr(size, source, size === 8 ? b.extu(start) : start);
  const past = b.gtu32(start, b.i32(size * 8 - 1));
  const field = t.select(size, past, t.constant(size, 0), shifted);
  const result = t.and(size, field, lowMask(t, controlByte(t, control, 8)));
  t.write(0, result);
  t.cc.setLogic(size, result);
};

const bzhi: Translate = (t) => {
  const { b, size } = t;
  const source = t.read(1);
  const n = controlByte(t, t.read(2), 0);
  const result = t.and(size, source, lowMask(t, n));
  t.write(0, result);
  t.cc.setWithCarry(KIND_RESCF, size, result, b.gtu32(n, b.i32(size * 8 - 1)));
};

/** BLSR, BLSMSK (CF = source is zero) and BLSI (CF = source is not zero). */
function lowestBit(combine: (t: X86Translator, x: Value) => Value, carryWhenZero: boolean): Translate {
  return (t) => {
    const { size } = t;
    const x = t.read(1);
    const result = combine(t, x);
    const zero = t.eqz(size, x);
    t.write(0, result);
    t.cc.setWithCarry(KIND_RESCF, size, result, carryWhenZero ? zero : t.b.eqz32(zero));
  };
}
const minusOne = (t: X86Translator, x: Value): Value => t.sub(t.size, x, t.constant(t.size, 1));
const negated = (t: X86Translator, x: Value): Value => t.sub(t.size, t.constant(t.size, 0), x);

// --- BMI2: shifts without flags, PDEP and PEXT. ---

function shiftX(how: 'shl' | 'shr' | 'sar'): Translate {
  return (t) => t.write(0, t[how](t.size, t.read(1), t.read(2)));
}

const rorx: Translate = (t) => {
  const { b, size } = t;
  const n = t.immediate() & (size * 8 - 1);
  const x = t.read(1);
  t.write(0, size === 8 ? b.rotr64(x, b.i64(n)) : b.rotr32(x, b.i32(n)));
};

/**
 * For each of six rounds, the mask bits that move by 1, 2, 4 ... 32 places when the masked
 * bits are gathered at the low end: a bit moves as far as there are zeros below it.
 */
function moves(b: Builder, mask: Value): Value[] {
  const result: Value[] = [];
  let m = mask;
  let zeros = b.shl64(b.xor64(mask, b.i64(-1)), b.i64(1));
  for (let round = 0; round < 6; round++) {
    let parity = zeros;
    for (let n = 1; n < 64; n *= 2) parity = b.xor64(parity, b.shl64(parity, b.i64(n)));
    const move = b.and64(parity, m);
    m = b.or64(b.xor64(m, move), b.shr64(move, b.i64(1 << round)));
    zeros = b.and64(zeros, b.xor64(parity, b.i64(-1)));
    result.push(move);
  }
  return result;
}

function gather(b: Builder, source: Value, mask: Value): Value {
  let x = b.and64(source, mask);
  moves(b, mask).forEach((move, round) => {
    const moved = b.and64(x, move);
    x = b.or64(b.xor64(x, moved), b.shr64(moved, b.i64(1 << round)));
  });
  return x;
}

function scatter(b: Builder, source: Value, mask: Value): Value {
  const list = moves(b, mask);
  let x = source;
  for (let round = 5; round >= 0; round--) {
    const move = list[round]!;
    const moved = b.and64(b.shl64(x, b.i64(1 << round)), move);
    x = b.or64(b.and64(x, b.xor64(move, b.i64(-1))), moved);
  }
  return b.and64(x, mask);
}

const BIT_FIELDS = definePureHelper({
  name: 'bitFields',
  params: [I32, I64, I64],
  result: I64,
  arms: 2,
  arm: (b, index, params) => (index === 0 ? scatter : gather)(b, params[0]!, params[1]!),
});

function bitFields(selector: number): Translate {
  return (t) => {
    const { b, size } = t;
    const source = t.toU64(size, t.read(1));
    const mask = t.toU64(size, t.read(2));
    t.write(0, t.fromI64(size, b.call(BIT_FIELDS, b.i32(selector), source, mask)));
  };
}

// --- CRC32 (Castagnoli), bit-reflected polynomial. ---

const POLYNOMIAL = 0x82f63b78;

function crcArm(b: Builder, sizeLog2: number, crc: Value, data: Value): Value {
  let x = b.xor64(crc, data);
  const polynomial = b.i64(POLYNOMIAL | 0, 0);
  const one = b.i64(1);
  for (let n = 0; n < 8 << sizeLog2; n++) {
    const odd = b.sub64(b.i64(0), b.and64(x, one));
    x = b.xor64(b.shr64(x, one), b.and64(polynomial, odd));
  }
  return x;
}

const CRC = definePureHelper({
  name: 'crc32',
  params: [I32, I64, I64],
  result: I64,
  arms: 4,
  arm: (b, index, params) => crcArm(b, index, params[0]!, params[1]!),
});

const crc32: Translate = (t) => {
  const { b } = t;
  const bytes = t.bytes(1);
  const data = t.toU64(bytes, t.readRaw(1));
  const crc = b.extu(t.low32(t.reg));
  const result = b.call(CRC, b.i32(Math.log2(bytes)), crc, data);
  b.set(G[t.reg]!, b.and64(result, b.i64(-1, 0)));
};

const bmi1 = { feature: 'bmi1' };
const bmi2 = { feature: 'bmi2' };

function bitTestRows(): Row[] {
  const names = ['BT', 'BTS', 'BTR', 'BTC'];
  const opcodes = ['A3', 'AB', 'B3', 'BB'];
  return [BT, BTS, BTR, BTC].flatMap((how) => [
    row(`0F ${opcodes[how]!} /r`, names[how]!, 'Ev,Gv', bitTest(how), { lock: how !== BT }),
    row(`0F BA /${4 + how}`, names[how]!, 'Ev,Ib', bitTest(how), { lock: how !== BT }),
  ]);
}

export const BIT_ROWS: readonly Row[] = [
  ...bitTestRows(),
  row('0F BC /r', 'BSF', 'Gv,Ev', scan(false)),
  row('0F BD /r', 'BSR', 'Gv,Ev', scan(true)),
  row('F3 0F BC /r', 'TZCNT', 'Gv,Ev', count(trailing), bmi1),
  row('F3 0F BD /r', 'LZCNT', 'Gv,Ev', count(leading), { feature: 'abm' }),
  row('F3 0F B8 /r', 'POPCNT', 'Gv,Ev', popcnt, { feature: 'popcnt' }),
  row('F2 0F38 F0 /r', 'CRC32', 'Gr,Eb', crc32, { feature: 'sse4.2' }),
  row('F2 0F38 F1 /r', 'CRC32', 'Gr,Ev', crc32, { feature: 'sse4.2' }),
  row('VEX.L0 0F38 F2 /r', 'ANDN', 'Gr,Br,Er', andn, bmi1),
  row('VEX.L0 0F38 F7 /r', 'BEXTR', 'Gr,Er,Br', bextr, bmi1),
  row(
    'VEX.L0 0F38 F3 /1',
    'BLSR',
    'Br,Er',
    lowestBit((t, x) => t.and(t.size, x, minusOne(t, x)), true),
    bmi1,
  ),
  row(
    'VEX.L0 0F38 F3 /2',
    'BLSMSK',
    'Br,Er',
    lowestBit((t, x) => t.xor(t.size, x, minusOne(t, x)), true),
    bmi1,
  ),
  row(
    'VEX.L0 0F38 F3 /3',
    'BLSI',
    'Br,Er',
    lowestBit((t, x) => t.and(t.size, x, negated(t, x)), false),
    bmi1,
  ),
  row('VEX.L0 0F38 F5 /r', 'BZHI', 'Gr,Er,Br', bzhi, bmi2),
  row('VEX.L0 F2 0F38 F5 /r', 'PDEP', 'Gr,Br,Er', bitFields(0), bmi2),
  row('VEX.L0 F3 0F38 F5 /r', 'PEXT', 'Gr,Br,Er', bitFields(1), bmi2),
  row('VEX.L0 66 0F38 F7 /r', 'SHLX', 'Gr,Er,Br', shiftX('shl'), bmi2),
  row('VEX.L0 F3 0F38 F7 /r', 'SARX', 'Gr,Er,Br', shiftX('sar'), bmi2),
  row('VEX.L0 F2 0F38 F7 /r', 'SHRX', 'Gr,Er,Br', shiftX('shr'), bmi2),
  row('VEX.L0 F2 0F3A F0 /r', 'RORX', 'Gr,Er,Ib', rorx, bmi2),
];

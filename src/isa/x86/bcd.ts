/** Decimal adjustment (not in 64-bit mode), SALC. The algorithms are the SDM's, vol. 2. */
import type { Value } from '../../ir/builder.ts';
import { AF, CF, SF } from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const VECTOR_DE = 0;

/** SF, ZF and PF of an 8-bit value (zero-extended), in their places. */
function resultBits(t: X86Translator, v: Value): Value {
  const { b } = t;
  const sign = b.and32(v, b.i32(SF));
  const zero = b.shl32(b.eqz32(v), b.i32(6));
  const parity = b.and32(b.xor32(b.popcnt32(v), b.i32(1)), b.i32(1));
  return b.or32(sign, b.or32(zero, b.shl32(parity, b.i32(2))));
}

/** DAA and DAS. */
function decimal(subtract: boolean): Translate {
  return (t) => {
    const { b } = t;
    const old = t.cc.bits();
    const al = t.readReg(0, 1);
    const adjust = b.or32(b.gtu32(b.and32(al, b.i32(15)), b.i32(9)), b.ne32(b.and32(old, b.i32(AF)), b.i32(0)));
    const high = b.or32(b.gtu32(al, b.i32(0x99)), b.and32(old, b.i32(CF)));
    const amount = b.add32(b.mul32(adjust, b.i32(6)), b.mul32(high, b.i32(0x60)));
    const result = b.and32(subtract ? b.sub32(al, amount) : b.add32(al, amount), b.i32(0xff));
    // DAS also carries when the low digit's adjustment borrows.
    const borrow = subtract ? b.and32(adjust, b.ltu32(al, b.i32(6))) : b.i32(0);
    t.writeReg(0, 1, result);
    const carry = b.or32(high, borrow);
    t.cc.setBits(b.or32(b.or32(carry, b.shl32(adjust, b.i32(4))), resultBits(t, result)), carry);
  };
}

/** AAA and AAS. */
function ascii(subtract: boolean): Translate {
  return (t) => {
    const { b } = t;
    const old = t.cc.bits();
    const ax = t.readReg(0, 2);
    const adjust = b.or32(b.gtu32(b.and32(ax, b.i32(15)), b.i32(9)), b.ne32(b.and32(old, b.i32(AF)), b.i32(0)));
    const amount = b.mul32(adjust, b.i32(0x106));
    const sum = subtract ? b.sub32(ax, amount) : b.add32(ax, amount);
    const result = b.and32(sum, b.i32(0xff0f));
    t.writeReg(0, 2, result);
    const kept = resultBits(t, b.and32(result, b.i32(0xff)));
    t.cc.setBits(b.or32(kept, b.or32(adjust, b.shl32(adjust, b.i32(4)))), adjust);
  };
}

const aam: Translate = (t) => {
  const { b } = t;
  const base = t.immediate() & 0xff;
  if (base === 0) return t.raise(VECTOR_DE);
  const al = t.readReg(0, 1);
  const low = b.remu32(al, b.i32(base));
  t.writeReg(0, 2, b.or32(low, b.shl32(b.divu32(al, b.i32(base)), b.i32(8))));
  t.cc.setBits(resultBits(t, low));
};

const aad: Translate = (t) => {
  const { b } = t;
  const ax = t.readReg(0, 2);
  const high = b.mul32(b.shr32(ax, b.i32(8)), b.i32(t.immediate() & 0xff));
  const result = b.and32(b.add32(ax, high), b.i32(0xff));
  t.writeReg(0, 2, result);
  t.cc.setBits(resultBits(t, result));
};

const salc: Translate = (t) => t.writeReg(0, 1, t.b.sub32(t.b.i32(0), t.cc.carry()));

const old = { no64: true };

export const BCD_ROWS: readonly Row[] = [
  row('27', 'DAA', '', decimal(false), old),
  row('2F', 'DAS', '', decimal(true), old),
  row('37', 'AAA', '', ascii(false), old),
  row('3F', 'AAS', '', ascii(true), old),
  row('D4', 'AAM', 'Ib', aam, old),
  row('D5', 'AAD', 'Ib', aad, old),
  row('D6', 'SALC', '', salc, old),
];

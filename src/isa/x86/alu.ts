/** Addition, subtraction, logic, comparison; XADD and CMPXCHG (SDM vol. 2). */
import type { Value } from '../../ir/builder.ts';
import { I64 } from '../../ir/ops.ts';
import { KIND_DEC, KIND_INC } from './flags.ts';
import type { Size } from './flags.ts';
import { AF, CF, G, OF, PF, SF } from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

type Operation = (t: X86Translator) => void;

const carryOperand = (t: X86Translator, size: Size, carry: Value): Value => (size === 8 ? t.b.extu(carry) : carry);

/** Operand 1 in operand 0's type. */
function second(t: X86Translator): Value {
  return t.readRaw(1);
}

const add: Operation = (t) => {
  const { size } = t;
  const y = second(t);
  const result = t.add(size, t.readForWrite(0), y);
  t.write(0, result);
  t.cc.setAdd(size, result, y);
};

const adc: Operation = (t) => {
  const { size } = t;
  const y = second(t);
  const x = t.readForWrite(0);
  const carry = t.cc.carry();
  const result = t.add(size, t.add(size, x, y), carryOperand(t, size, carry));
  t.write(0, result);
  t.cc.setAdc(size, result, y, carry);
};

const sub: Operation = (t) => {
  const { size } = t;
  if (isSameRegister(t)) {
    t.write(0, t.constant(size, 0));
    t.cc.setLogic(size, t.constant(size, 0));
    return;
  }
  const y = second(t);
  const x = t.readForWrite(0);
  const result = t.sub(size, x, y);
  t.write(0, result);
  t.cc.setSub(size, x, y, result);
};

const sbb: Operation = (t) => {
  const { size } = t;
  const y = second(t);
  const x = t.readForWrite(0);
  const carry = t.cc.carry();
  const result = t.sub(size, t.sub(size, x, y), carryOperand(t, size, carry));
  t.write(0, result);
  t.cc.setSbb(size, x, y, carry, result);
};

const cmp: Operation = (t) => {
  const y = second(t);
  t.cc.setSub(t.size, t.readRaw(0), y);
};

function logic(combine: (t: X86Translator, size: Size, x: Value, y: Value) => Value): Operation {
  return (t) => {
    const { size } = t;
    const y = second(t);
    const result = combine(t, size, t.readForWrite(0), y);
    t.write(0, result);
    t.cc.setLogic(size, result);
  };
}

const or = logic((t, size, x, y) => t.or(size, x, y));
const and = logic((t, size, x, y) => t.and(size, x, y));
const plainXor = logic((t, size, x, y) => t.xor(size, x, y));

/** The idioms XOR r,r and SUB r,r: no dependence on the register. */
function isSameRegister(t: X86Translator): boolean {
  return t.row!.operands[1]!.place !== 'I' && t.row!.hasModrm && t.isRegister && t.reg === t.rm;
}

const xor: Operation = (t) => {
  if (!isSameRegister(t)) return plainXor(t);
  const zero = t.constant(t.size, 0);
  t.write(0, zero);
  t.cc.setLogic(t.size, zero);
};

const test: Operation = (t) => {
  const { size } = t;
  const y = second(t);
  const x = t.readRaw(0);
  t.cc.setLogic(size, x === y ? x : t.and(size, x, y));
};

function step(kind: number): Operation {
  return (t) => {
    const { size } = t;
    const x = t.readForWrite(0);
    const carry = t.cc.carry();
    const result = t.add(size, x, t.constant(size, kind === KIND_INC ? 1 : -1));
    t.write(0, result);
    t.cc.setWithCarry(kind, size, result, carry);
  };
}

const not: Operation = (t) => {
  const { size } = t;
  t.write(0, t.xor(size, t.readForWrite(0), t.constant(size, -1)));
};

const neg: Operation = (t) => {
  const { size } = t;
  const x = t.readForWrite(0);
  const zero = t.constant(size, 0);
  const result = t.sub(size, zero, x);
  t.write(0, result);
  t.cc.setSub(size, zero, x, result);
};

const xadd: Operation = (t) => {
  const { size } = t;
  const y = t.readRaw(1);
  const x = t.readForWrite(0);
  const result = t.add(size, x, y);
  if (t.isRegister) {
    t.write(1, x);
    t.write(0, result);
  } else {
    t.write(0, result);
    t.write(1, x);
  }
  t.cc.setAdd(size, result, y);
};

const cmpxchg: Operation = (t) => {
  const { b, size } = t;
  const accumulator = t.readReg(0, size);
  const source = t.read(1);
  const old = t.zext(size, t.readForWrite(0));
  const equal = size === 8 ? b.eq64(accumulator, old) : b.eq32(accumulator, old);
  const result = t.select(size, equal, source, old);
  if (size === 4 && t.isRegister) writeWhere(t, t.rm, equal, result);
  else t.write(0, result);
  writeAccumulatorUnless(t, size, equal, old);
  t.cc.setSub(size, accumulator, old);
};

/** A 32-bit register write that leaves all 64 bits alone unless the condition holds. */
function writeWhere(t: X86Translator, n: number, condition: Value, v: Value): void {
  const { b } = t;
  b.set(G[n]!, b.select64(condition, b.extu(v), b.get(G[n]!)));
}

/** rAX = old where not equal; equal leaves all 64 bits of RAX as they are. */
function writeAccumulatorUnless(t: X86Translator, size: Size, equal: Value, old: Value): void {
  const { b } = t;
  if (size !== 4) t.writeReg(0, size, t.select(size, equal, t.readReg(0, size), old));
  else b.set(G[0]!, b.select64(equal, b.get(G[0]!), b.extu(old)));
}

/** ZF alone changes. */
function setZero(t: X86Translator, zero: Value): void {
  const { b } = t;
  const others = b.and32(t.cc.bits(), b.i32(CF | PF | AF | SF | OF));
  t.cc.setBits(b.or32(others, b.shl32(zero, b.i32(6))));
}

const cmpxchg8b: Operation = (t) => {
  const { b } = t;
  const pair = (high: number, low: number): Value => b.or64(b.shl64(b.get(G[high]!), b.i64(32)), b.extu(t.low32(low)));
  const expected = pair(2, 0);
  const address = t.address(8, true);
  const old = b.ld64w(address);
  const equal = b.eq64(expected, old);
  b.st64(address, b.select64(equal, pair(1, 3), old));
  const keep = (n: number, v: Value): void => b.set(G[n]!, b.select64(equal, b.get(G[n]!), v));
  keep(0, b.extu(b.wrap(old)));
  keep(2, b.shr64(old, b.i64(32)));
  setZero(t, equal);
};

const cmpxchg16b: Operation = (t) => {
  const { b } = t;
  t.requireAligned(16, true);
  const address = t.address(16, true);
  const high = b.add64(address, b.i64(8));
  const oldLow = b.ld64w(address);
  const oldHigh = b.ld64w(high);
  const difference = b.or64(b.xor64(oldLow, b.get(G[0]!)), b.xor64(oldHigh, b.get(G[2]!)));
  const equal = b.eqz64(difference);
  b.st64(address, b.select64(equal, b.get(G[3]!), oldLow));
  b.st64(high, b.select64(equal, b.get(G[1]!), oldHigh));
  // Where equal, the registers hold these values already.
  b.set(G[0]!, oldLow);
  b.set(G[2]!, oldHigh);
  setZero(t, equal);
};

/** ADCX (bit 0) and ADOX (bit 11): a carry chain in one flag, the others untouched. */
function addWithFlag(position: number): Operation {
  return (t) => {
    const { b, size } = t;
    const y = t.read(1);
    const x = t.read(0);
    const bits = t.cc.bits();
    const carry = b.and32(b.shr32(bits, b.i32(position)), b.i32(1));
    const partial = t.add(size, x, y);
    const result = t.add(size, partial, carryOperand(t, size, carry));
    const less = (p: Value, q: Value): Value => (b.typeOf(p) === I64 ? b.ltu64(p, q) : b.ltu32(p, q));
    const out = b.or32(less(partial, x), less(result, partial));
    t.write(0, result);
    const others = b.and32(bits, b.i32(~(1 << position)));
    t.cc.setBits(b.or32(others, b.shl32(out, b.i32(position))));
  };
}

const GROUP: readonly [string, Operation, boolean][] = [
  ['ADD', add, true],
  ['OR', or, true],
  ['ADC', adc, true],
  ['SBB', sbb, true],
  ['AND', and, true],
  ['SUB', sub, true],
  ['XOR', xor, true],
  ['CMP', cmp, false],
];

const hex = (n: number): string => n.toString(16).padStart(2, '0').toUpperCase();

function arithmeticRows(): Row[] {
  const rows: Row[] = [];
  GROUP.forEach(([name, translate, lock], i) => {
    const options = { lock };
    const base = i * 8;
    rows.push(
      row(`${hex(base)} /r`, name, 'Eb,Gb', translate, options),
      row(`${hex(base + 1)} /r`, name, 'Ev,Gv', translate, options),
      row(`${hex(base + 2)} /r`, name, 'Gb,Eb', translate),
      row(`${hex(base + 3)} /r`, name, 'Gv,Ev', translate),
      row(hex(base + 4), name, 'AL,Ib', translate),
      row(hex(base + 5), name, 'rAX,Iz', translate),
      row(`80 /${i}`, name, 'Eb,Ib', translate, options),
      row(`81 /${i}`, name, 'Ev,Iz', translate, options),
      row(`82 /${i}`, name, 'Eb,Ib', translate, { ...options, no64: true }),
      row(`83 /${i}`, name, 'Ev,Ib', translate, options),
    );
  });
  return rows;
}

/** A byte and a full-size form of a group's instruction. */
const both = (opcode: string, name: string, translate: Translate): Row[] => [
  row(`${opcode}`.replace('*', '6'), name, 'Eb', translate, { lock: true }),
  row(`${opcode}`.replace('*', '7'), name, 'Ev', translate, { lock: true }),
];

export const ALU_ROWS: readonly Row[] = [
  ...arithmeticRows(),
  row('84 /r', 'TEST', 'Eb,Gb', test),
  row('85 /r', 'TEST', 'Ev,Gv', test),
  row('A8', 'TEST', 'AL,Ib', test),
  row('A9', 'TEST', 'rAX,Iz', test),
  row('F6 /0', 'TEST', 'Eb,Ib', test),
  row('F6 /1', 'TEST', 'Eb,Ib', test),
  row('F7 /0', 'TEST', 'Ev,Iz', test),
  row('F7 /1', 'TEST', 'Ev,Iz', test),
  ...both('F* /2', 'NOT', not),
  ...both('F* /3', 'NEG', neg),
  row('FE /0', 'INC', 'Eb', step(KIND_INC), { lock: true }),
  row('FF /0', 'INC', 'Ev', step(KIND_INC), { lock: true }),
  row('FE /1', 'DEC', 'Eb', step(KIND_DEC), { lock: true }),
  row('FF /1', 'DEC', 'Ev', step(KIND_DEC), { lock: true }),
  row('40+r', 'INC', 'Zv', step(KIND_INC), { no64: true }),
  row('48+r', 'DEC', 'Zv', step(KIND_DEC), { no64: true }),
  row('0F C0 /r', 'XADD', 'Eb,Gb', xadd, { lock: true }),
  row('0F C1 /r', 'XADD', 'Ev,Gv', xadd, { lock: true }),
  row('0F B0 /r', 'CMPXCHG', 'Eb,Gb', cmpxchg, { lock: true }),
  row('0F B1 /r', 'CMPXCHG', 'Ev,Gv', cmpxchg, { lock: true }),
  row('0F C7 /1 mem W0', 'CMPXCHG8B', 'M', cmpxchg8b, { lock: true, feature: 'cx8' }),
  row('0F C7 /1 mem W1', 'CMPXCHG16B', 'M', cmpxchg16b, { lock: true, feature: 'cx16' }),
  row('66 0F38 F6 /r', 'ADCX', 'Gr,Er', addWithFlag(0), { feature: 'adx' }),
  row('F3 0F38 F6 /r', 'ADOX', 'Gr,Er', addWithFlag(11), { feature: 'adx' }),
];

export { setZero };

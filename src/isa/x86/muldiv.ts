/** Multiplication and division. */
import type { Value } from '../../ir/builder.ts';
import { KIND_IMUL, KIND_MUL } from './flags.ts';
import type { Size } from './flags.ts';
import { LEAVE_DIV } from './leave.ts';
import { G, OP0 } from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const RAX = 0;
const RDX = 2;
const VECTOR_DE = 0;

const extend = (t: X86Translator, signed: boolean, size: Size, v: Value): Value => (signed ? t.toS64(size, v) : t.toU64(size, v));

/** Writes a double-width product given as an i64. */
function writeProduct(t: X86Translator, size: Size, product: Value): void {
  const { b } = t;
  if (size === 1) return t.writeReg(RAX, 2, b.wrap(product));
  t.writeReg(RAX, size, b.wrap(product));
  t.writeReg(RDX, size, b.wrap(b.shr64(product, b.i64(size * 8))));
}

function multiplyAccumulator(signed: boolean): Translate {
  return (t) => {
    const { b, size } = t;
    const y = extend(t, signed, size, t.readRaw(0));
    const x = extend(t, signed, size, t.readRegRaw(RAX, size));
    const product = b.mul64(x, y);
    if (size === 8) {
      const high = signed ? b.mulhs64(x, y) : b.mulhu64(x, y);
      b.set(G[RAX]!, product);
      b.set(G[RDX]!, high);
    } else writeProduct(t, size, product);
    t.cc.setMul(signed ? KIND_IMUL : KIND_MUL, size, x, y);
  };
}

function multiplyInto(t: X86Translator, x: Value, y: Value): void {
  const { b, size } = t;
  t.write(0, size === 8 ? b.mul64(x, y) : b.mul32(x, y));
  t.cc.setMul(KIND_IMUL, size, t.toS64(size, x), t.toS64(size, y));
}

const imul2: Translate = (t) => multiplyInto(t, t.readRaw(0), t.readRaw(1));
const imul3: Translate = (t) => multiplyInto(t, t.readRaw(1), t.readRaw(2));

/** 16-bit dividend in AX. */
function divideByte(t: X86Translator, signed: boolean): void {
  const { b } = t;
  const raw = t.readRaw(0);
  const divisor = signed ? t.sext(1, raw) : t.zext(1, raw);
  const dividend = signed ? b.ext16s32(t.low32(RAX)) : t.readReg(RAX, 2);
  const quotient = signed ? b.divs32(dividend, divisor) : b.divu32(dividend, divisor);
  const rest = signed ? b.rems32(dividend, divisor) : b.remu32(dividend, divisor);
  const fits = signed ? b.ext8s32(quotient) : t.zext(1, quotient);
  t.faultIf(b.or32(b.eqz32(divisor), b.ne32(quotient, fits)), VECTOR_DE);
  const low = t.zext(1, quotient);
  t.writeReg(RAX, 2, b.or32(low, b.shl32(t.zext(1, rest), b.i32(8))));
}

function divideWord(t: X86Translator, signed: boolean): void {
  const { b } = t;
  const raw = t.readRaw(0);
  const divisor = signed ? t.sext(2, raw) : t.zext(2, raw);
  const dividend = b.or32(t.readReg(RAX, 2), b.shl32(t.low32(RDX), b.i32(16)));
  const quotient = signed ? b.divs32(dividend, divisor) : b.divu32(dividend, divisor);
  const rest = signed ? b.rems32(dividend, divisor) : b.remu32(dividend, divisor);
  const fits = signed ? b.ext16s32(quotient) : t.zext(2, quotient);
  t.faultIf(b.or32(b.eqz32(divisor), b.ne32(quotient, fits)), VECTOR_DE);
  t.writeReg(RAX, 2, quotient);
  t.writeReg(RDX, 2, rest);
}

function divideDouble(t: X86Translator, signed: boolean): void {
  const { b } = t;
  const divisor = extend(t, signed, 4, t.readRaw(0));
  const high = b.shl64(b.extu(t.low32(RDX)), b.i64(32));
  const dividend = b.or64(high, b.extu(t.low32(RAX)));
  const quotient = signed ? b.divs64(dividend, divisor) : b.divu64(dividend, divisor);
  const rest = signed ? b.rems64(dividend, divisor) : b.remu64(dividend, divisor);
  const narrow = b.wrap(quotient);
  const fits = signed ? b.exts(narrow) : b.extu(narrow);
  t.faultIf(b.or32(b.eqz64(divisor), b.ne64(quotient, fits)), VECTOR_DE);
  t.writeReg(RAX, 4, narrow);
  t.writeReg(RDX, 4, b.wrap(rest));
}

/** Dividends that need both halves, and what raises #DE, are the system code's. */
function divideQuad(t: X86Translator, signed: boolean): void {
  const { b } = t;
  const divisor = t.readRaw(0);
  const low = b.get(G[RAX]!);
  const high = b.get(G[RDX]!);
  let odd = b.eqz64(divisor);
  if (signed) {
    odd = b.or32(odd, b.ne64(high, b.sar64(low, b.i64(63))));
    const overflow = b.and32(b.eq64(divisor, b.i64(-1)), b.eq64(low, b.i64(0, 1 << 31)));
    odd = b.or32(odd, overflow);
  } else odd = b.or32(odd, b.ne64(high, b.i64(0)));
  b.sts64(OP0, divisor);
  b.leaveIf(odd, LEAVE_DIV, t.leaveArgument(signed ? 1 << 8 : 0));
  b.set(G[RAX]!, signed ? b.divs64(low, divisor) : b.divu64(low, divisor));
  b.set(G[RDX]!, signed ? b.rems64(low, divisor) : b.remu64(low, divisor));
}

function divide(signed: boolean): Translate {
  return (t) => {
    switch (t.size) {
      case 1:
        return divideByte(t, signed);
      case 2:
        return divideWord(t, signed);
      case 4:
        return divideDouble(t, signed);
      default:
        return divideQuad(t, signed);
    }
  };
}

/** MULX: operand 0 = high half, operand 1 = low half; no flags. */
const mulx: Translate = (t) => {
  const { b, size } = t;
  const x = t.toU64(size, t.readRegRaw(RDX, size));
  const y = t.toU64(size, t.readRaw(2));
  const product = b.mul64(x, y);
  if (size === 8) {
    const high = b.mulhu64(x, y);
    t.write(1, product);
    t.write(0, high);
  } else {
    t.write(1, b.wrap(product));
    t.write(0, b.wrap(b.shr64(product, b.i64(32))));
  }
};

export const MULDIV_ROWS: readonly Row[] = [
  row('F6 /4', 'MUL', 'Eb', multiplyAccumulator(false)),
  row('F7 /4', 'MUL', 'Ev', multiplyAccumulator(false)),
  row('F6 /5', 'IMUL', 'Eb', multiplyAccumulator(true)),
  row('F7 /5', 'IMUL', 'Ev', multiplyAccumulator(true)),
  row('0F AF /r', 'IMUL', 'Gv,Ev', imul2),
  row('69 /r', 'IMUL', 'Gv,Ev,Iz', imul3),
  row('6B /r', 'IMUL', 'Gv,Ev,Ib', imul3),
  row('F6 /6', 'DIV', 'Eb', divide(false)),
  row('F7 /6', 'DIV', 'Ev', divide(false)),
  row('F6 /7', 'IDIV', 'Eb', divide(true)),
  row('F7 /7', 'IDIV', 'Ev', divide(true)),
  row('VEX.L0 F2 0F38 F6 /r', 'MULX', 'Gr,Br,Er', mulx, { feature: 'bmi2' }),
];

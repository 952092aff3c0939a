/**
 * SSE4.2 string comparisons: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM vol. 2, 4.1).
 *
 * The comparison itself is a helper with an arm for each data format and aggregation; its
 * result has a bit for each element of the second string.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { I32, V128 } from '../../ir/ops.ts';
import type { Size } from './flags.ts';
import { definePureHelper } from './helpers.ts';
import { SSE42, fromLow32, imm8, pick, vector, zero } from './sse-common.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;

// Bits 0 and 1 of the immediate: words instead of bytes, signed. Bits 2 and 3: aggregation.
const WORDS = 1;
const SIGNED = 2;
const EQUAL_ANY = 0;
const RANGES = 1;
const EQUAL_EACH = 2;

/** Two strings while an arm of the helper is being made. */
class Comparison {
  private readonly b: Builder;
  private readonly x: Value;
  private readonly y: Value;
  private readonly words: boolean;
  private readonly signed: boolean;
  /** All ones in the lanes that belong to the string. */
  private readonly validX: Value;
  private readonly validY: Value;
  readonly count: number;

  constructor(b: Builder, format: number, x: Value, y: Value, lengths: Value) {
    this.b = b;
    this.x = x;
    this.y = y;
    this.words = (format & WORDS) !== 0;
    this.signed = (format & SIGNED) !== 0;
    this.count = this.words ? 8 : 16;
    this.validX = this.validLanes(b.and32(lengths, b.i32(0xff)));
    this.validY = this.validLanes(b.shr32(lengths, b.i32(8)));
  }

  private get bytes(): number {
    return this.words ? 2 : 1;
  }

  private validLanes(length: Value): Value {
    const { b } = this;
    if (this.words) return b.ltu16x8(b.v128(0x10000, 0x30002, 0x50004, 0x70006), b.splat16(length));
    return b.ltu8x16(b.v128(0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c), b.splat8(length));
  }

  /** Lane i in all lanes. */
  private spread(v: Value, i: number): Value {
    return pick(this.b, v, v, this.bytes, new Array<number>(this.count).fill(i));
  }

  private equal(x: Value, y: Value): Value {
    return this.words ? this.b.eq16x8(x, y) : this.b.eq8x16(x, y);
  }

  private notGreater(x: Value, y: Value): Value {
    const { b } = this;
    if (this.words) return this.signed ? b.les16x8(x, y) : b.leu16x8(x, y);
    return this.signed ? b.les8x16(x, y) : b.leu8x16(x, y);
  }

  private bits(lanes: Value): Value {
    return this.words ? this.b.bitmask16x8(lanes) : this.b.bitmask8x16(lanes);
  }

  /** Lanes from i on, and zeros after the last one. */
  private from(v: Value, i: number): Value {
    const lanes = Array.from({ length: this.count }, (_, k) => Math.min(k + i, this.count));
    return pick(this.b, v, zero(this.b), this.bytes, lanes);
  }

  private anyOf(of: (i: number) => Value, step: number): Value {
    const { b } = this;
    let found = zero(b);
    for (let i = 0; i < this.count; i += step) found = b.orv(found, of(i));
    return b.andv(found, this.validY);
  }

  private equalAny(): Value {
    const { b } = this;
    return this.anyOf((i) => b.andv(this.equal(this.spread(this.x, i), this.y), this.spread(this.validX, i)), 1);
  }

  private ranges(): Value {
    const { b } = this;
    return this.anyOf((i) => {
      const above = this.notGreater(this.spread(this.x, i), this.y);
      const below = this.notGreater(this.y, this.spread(this.x, i + 1));
      return b.andv(b.andv(above, below), this.spread(this.validX, i + 1));
    }, 2);
  }

  private equalEach(): Value {
    const { b } = this;
    const both = b.andv(this.validX, this.validY);
    const neither = b.notv(b.orv(this.validX, this.validY));
    return b.orv(b.andv(this.equal(this.x, this.y), both), neither);
  }

  /** Does the first string occur here? Where the second one is cut off by the register, too. */
  private equalOrdered(): Value {
    const { b } = this;
    let found = b.v128(-1, -1, -1, -1);
    for (let i = 0; i < this.count; i++) {
      const equal = this.equal(this.spread(this.x, i), this.from(this.y, i));
      const same = b.andv(equal, this.from(this.validY, i));
      const beyond = b.notv(this.from(b.v128(-1, -1, -1, -1), i));
      const ignored = b.orv(b.notv(this.spread(this.validX, i)), beyond);
      found = b.andv(found, b.orv(same, ignored));
    }
    return found;
  }

  result(aggregation: number): Value {
    if (aggregation === EQUAL_ANY) return this.bits(this.equalAny());
    if (aggregation === RANGES) return this.bits(this.ranges());
    return this.bits(aggregation === EQUAL_EACH ? this.equalEach() : this.equalOrdered());
  }
}

/** (format and aggregation, first string, second string, lengths: first | second << 8) => bits. */
const COMPARE_STRINGS = definePureHelper({
  name: 'compareStrings',
  params: [I32, V128, V128, I32],
  result: I32,
  arms: 16,
  arm: (b, index, params) => new Comparison(b, index & 3, params[0]!, params[1]!, params[2]!).result(index >> 2),
});

/** Elements before the first that is zero. */
function implicitLength(b: Builder, words: boolean, v: Value): Value {
  const zeros = words ? b.bitmask16x8(b.eq16x8(v, zero(b))) : b.bitmask8x16(b.eq8x16(v, zero(b)));
  return b.ctz32(b.or32(zeros, b.i32(words ? 1 << 8 : 1 << 16)));
}

/** The register's absolute value, but no more than there are elements. */
function explicitLength(t: X86Translator, words: boolean, register: number): Value {
  const { b } = t;
  const size: Size = t.w && t.code64 ? 8 : 4;
  const most = words ? 8 : 16;
  const n = t.readReg(register, size);
  const none = t.constant(size, 0);
  const negative = size === 8 ? b.lts64(n, none) : b.lts32(n, none);
  const absolute = t.select(size, negative, t.sub(size, none, n), n);
  const limit = t.constant(size, most);
  const fits = size === 8 ? b.ltu64(absolute, limit) : b.ltu32(absolute, limit);
  return b.select32(fits, t.toI32(size, absolute), b.i32(most));
}

/** Bits 4 and 5 of the immediate: 1 = all bits inverted, 3 = those within the second string. */
function applyPolarity(b: Builder, bits: Value, immediate: number, count: number, length: Value): Value {
  const polarity = (immediate >> 4) & 3;
  if (polarity === 1) return b.xor32(bits, b.i32((1 << count) - 1));
  if (polarity !== 3) return bits;
  return b.xor32(bits, b.sub32(b.shl32(b.i32(1), length), b.i32(1)));
}

/** ECX: the first bit set, or the last one; as many as there are elements when there is none. */
function writeIndex(t: X86Translator, bits: Value, last: boolean, count: number): void {
  const { b } = t;
  const none = b.i32(1 << count);
  if (!last) return t.writeReg(RCX, 4, b.ctz32(b.or32(bits, none)));
  const highest = b.sub32(b.i32(31), b.clz32(bits));
  t.writeReg(RCX, 4, b.select32(bits, highest, b.i32(count)));
}

/** xmm0: the bits, or each in a whole element. */
function writeMask(t: X86Translator, bits: Value, whole: boolean, words: boolean): void {
  const { b } = t;
  if (!whole) return t.writeXmm(0, fromLow32(b, bits));
  let lanes: Value;
  if (words) {
    const own = b.v128(0x00020001, 0x00080004, 0x00200010, 0x00800040);
    lanes = b.eq16x8(b.andv(b.splat16(bits), own), own);
  } else {
    const own = b.v128(0x08040201, 0x80402010 | 0, 0x08040201, 0x80402010 | 0);
    const spread = b.splat16(bits);
    const bytes = pick(
      b,
      spread,
      spread,
      1,
      Array.from({ length: 16 }, (_, i) => i >> 3),
    );
    lanes = b.eq8x16(b.andv(bytes, own), own);
  }
  t.writeXmm(0, lanes);
}

function setFlags(t: X86Translator, bits: Value, count: number, lengthX: Value, lengthY: Value): void {
  const { b } = t;
  const place = (bit: Value, position: number): Value => b.shl32(bit, b.i32(position));
  const carry = b.ne32(bits, b.i32(0));
  let flags = b.or32(carry, place(b.ltu32(lengthY, b.i32(count)), 6));
  flags = b.or32(flags, place(b.ltu32(lengthX, b.i32(count)), 7));
  flags = b.or32(flags, place(b.and32(bits, b.i32(1)), 11));
  t.cc.setBits(flags, carry);
}

const compareStrings = (explicit: boolean, toMask: boolean): Translate =>
  vector((t) => {
    const { b } = t;
    const immediate = imm8(t);
    const words = (immediate & WORDS) !== 0;
    const count = words ? 8 : 16;
    const y = t.readXmmRm(16);
    const x = t.readXmm(t.reg);
    const lengthX = explicit ? explicitLength(t, words, RAX) : implicitLength(b, words, x);
    const lengthY = explicit ? explicitLength(t, words, RDX) : implicitLength(b, words, y);
    const lengths = b.or32(lengthX, b.shl32(lengthY, b.i32(8)));
    const raw = b.call(COMPARE_STRINGS, b.i32(immediate & 15), x, y, lengths);
    const bits = applyPolarity(b, raw, immediate, count, lengthY);
    if (toMask) writeMask(t, bits, (immediate & 0x40) !== 0, words);
    else writeIndex(t, bits, (immediate & 0x40) !== 0, count);
    setFlags(t, bits, count, lengthX, lengthY);
  });

export const SSE_STRING_ROWS: readonly Row[] = [
  row('66 0F3A 60 /r', 'PCMPESTRM', 'Vo,Wo,Ib', compareStrings(true, true), SSE42),
  row('66 0F3A 61 /r', 'PCMPESTRI', 'Vo,Wo,Ib', compareStrings(true, false), SSE42),
  row('66 0F3A 62 /r', 'PCMPISTRM', 'Vo,Wo,Ib', compareStrings(false, true), SSE42),
  row('66 0F3A 63 /r', 'PCMPISTRI', 'Vo,Wo,Ib', compareStrings(false, false), SSE42),
];

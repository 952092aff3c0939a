/** F16C: conversions between half and single precision. */
import type { Builder, Value } from '../../ir/builder.ts';
import { all32, imm8, pick, vector, zero } from './sse-common.ts';
import { inspect, isExact, operand, raise } from './sse-exact.ts';
import { MXCSR } from './state.ts';
import { row } from './tables.ts';
import type { Row } from './tables.ts';
import type { X86Translator } from './translator.ts';
import { OE, PE, UE } from './x87/common.ts';

const F16C = { feature: 'f16c' };

const SIGN = 0x80000000 | 0;
const MAGNITUDE = 0x7fffffff;
/** Singles: infinity, the least normal half, and one in the place below the last of a half's ten. */
const INFINITY = 0x7f800000;
const LEAST_NORMAL = 0x38800000;
const FRACTION_SHIFT = 13;
/** What is to be added to a half's exponent, in a single's place. */
const REBIAS = 112 << 23;
const TWO_TO_24 = 0x4b800000;
const TWO_TO_MINUS_24 = 0x33800000;
const HALF_INFINITY = 0x7c00;

// --- To single precision: exact. ---

/** Halves in the low words of four lanes. */
function widen(b: Builder, x: Value): Value {
  const magnitude = b.andv(x, all32(b, 0x7fff));
  const sign = b.andv(b.shl32x4(x, b.i32(16)), all32(b, SIGN));
  const shifted = b.shl32x4(magnitude, b.i32(FRACTION_SHIFT));
  const normal = b.add32x4(shifted, all32(b, REBIAS));
  const tiny = b.mulf32x4(b.s32x4tof32x4(magnitude), all32(b, TWO_TO_MINUS_24));
  const special = b.orv(shifted, all32(b, INFINITY));
  const quieted = b.orv(special, b.andv(b.gtu32x4(magnitude, all32(b, HALF_INFINITY)), all32(b, 0x400000)));
  const finite = b.bitselect(tiny, normal, b.ltu32x4(magnitude, all32(b, 0x400)));
  const result = b.bitselect(quieted, finite, b.geu32x4(magnitude, all32(b, HALF_INFINITY)));
  return b.orv(result, sign);
}

/** Signalling NaNs are the only exception; halves that are denormal do not count as such. */
function inspectHalves(t: X86Translator, halves: Value): void {
  const { b } = t;
  const signalling = b.andv(
    b.gtu32x4(b.andv(halves, all32(b, 0x7fff)), all32(b, HALF_INFINITY)),
    b.eq32x4(b.andv(halves, all32(b, 0x200)), zero(b)),
  );
  raise(t, b.anytrue(signalling));
}

const vcvtph2ps = vector((t) => {
  const { b } = t;
  const x = t.readXmmRm(t.vexL ? 16 : 8);
  const low = b.extlowu16x8(x);
  if (isExact(t)) inspectHalves(t, low);
  if (!t.vexL) return t.writeXmm(t.reg, widen(b, low));
  const high = b.exthighu16x8(x);
  if (isExact(t)) inspectHalves(t, high);
  t.writeYmm(t.reg, widen(b, low), widen(b, high));
});

// --- To half precision. ---

const NEAREST = 0;
const DOWN = 1;
const UP = 2;
const ROUNDINGS = ['nearest', 'floor', 'ceil', 'trunc'] as const;

/** Magnitudes rounded by a mode: as halves, and what exceptions depend on. */
interface Rounded {
  readonly halves: Value;
  /** Lanes too large for a half. */
  readonly overflow: Value;
  /** Lanes that are less than the least normal half even when rounded to its precision. */
  readonly tiny: Value;
  /** As singles, rounded to a half's precision, as if exponents had no end. */
  readonly unbounded: Value;
}

/** @param how rounding of the signed number  @param negative lanes (whole) */
function roundMagnitudes(b: Builder, magnitude: Value, negative: Value, how: number): Rounded {
  const cut = (1 << FRACTION_SHIFT) - 1;
  const odd = b.andv(b.shr32x4(magnitude, b.i32(FRACTION_SHIFT)), all32(b, 1));
  const away = how === UP ? b.notv(negative) : how === DOWN ? negative : zero(b);
  const increment = how === NEAREST ? b.add32x4(odd, all32(b, cut >> 1)) : b.andv(away, all32(b, cut));
  const unbounded = b.andnotv(b.add32x4(magnitude, increment), all32(b, cut));
  const normal = b.shr32x4(b.sub32x4(unbounded, all32(b, REBIAS)), b.i32(FRACTION_SHIFT));
  // Denormals are multiples of 2^-24. Directed rounding is that of the signed number.
  const scaled = b.mulf32x4(magnitude, all32(b, TWO_TO_24));
  const directed =
    how === UP || how === DOWN
      ? b.bitselect(b.ceilf32x4(scaled), b.floorf32x4(scaled), away)
      : b[`${ROUNDINGS[how]!}f32x4`](scaled);
  const small = b.ltu32x4(magnitude, all32(b, LEAST_NORMAL));
  const rounded = b.bitselect(b.f32x4tos32x4(directed), normal, small);
  const overflow = b.gtu32x4(rounded, all32(b, HALF_INFINITY - 1));
  const largest = how === NEAREST ? all32(b, HALF_INFINITY) : b.sub32x4(all32(b, HALF_INFINITY), b.andnotv(all32(b, 1), away));
  return {
    halves: b.bitselect(largest, rounded, overflow),
    overflow,
    tiny: b.andv(b.ltu32x4(unbounded, all32(b, LEAST_NORMAL)), b.ne32x4(magnitude, zero(b))),
    unbounded,
  };
}

function roundedBy(t: X86Translator, magnitude: Value, negative: Value): Rounded {
  const { b } = t;
  const immediate = imm8(t);
  if (!(immediate & 4)) return roundMagnitudes(b, magnitude, negative, immediate & 3);
  let result = roundMagnitudes(b, magnitude, negative, NEAREST);
  if (!isExact(t)) return result;
  const mode = b.and32(b.shr32(b.lds32(MXCSR), b.i32(13)), b.i32(3));
  for (let how = 1; how < 4; how++) {
    const chosen = b.eq32(mode, b.i32(how));
    const other = roundMagnitudes(b, magnitude, negative, how);
    const either = (x: Value, y: Value): Value => b.selectv(chosen, x, y);
    result = {
      halves: either(other.halves, result.halves),
      overflow: either(other.overflow, result.overflow),
      tiny: either(other.tiny, result.tiny),
      unbounded: either(other.unbounded, result.unbounded),
    };
  }
  return result;
}

/** Overflow, underflow and inexact results of finite lanes; MXCSR's flush to zero does not count here. */
function inspectNarrowed(t: X86Translator, magnitude: Value, r: Rounded, finite: Value): void {
  const { b } = t;
  const any = (lanes: Value): Value => b.anytrue(b.andv(lanes, finite));
  /** All ones when the exception is not masked. */
  const unmasked = (exception: number): Value =>
    b.splat32(b.sub32(b.i32(0), b.eqz32(b.and32(b.lds32(MXCSR), b.i32(exception << 7)))));
  const differs = b.ne32x4(widen(b, r.halves), magnitude);
  // A result that nobody will see is inexact by what precision alone takes away, and if x is a denormal.
  const unseen = b.orv(b.andv(r.tiny, unmasked(UE)), b.andv(r.overflow, unmasked(OE)));
  const denormal = b.ltu32x4(magnitude, all32(b, 0x800000));
  const byPrecision = b.orv(b.ne32x4(r.unbounded, magnitude), denormal);
  const inexact = b.bitselect(byPrecision, differs, unseen);
  const underflow = b.andv(r.tiny, b.orv(inexact, unmasked(UE)));
  const flag = (lanes: Value, exception: number): Value => b.select32(any(lanes), b.i32(exception), b.i32(0));
  raise(t, b.or32(flag(r.overflow, OE), b.or32(flag(underflow, UE), flag(inexact, PE))));
}

/** Four singles as halves in the low words of their lanes. */
function narrow(t: X86Translator, original: Value): Value {
  const { b } = t;
  const x = operand(t, 'f32x4', original);
  inspect(t, 'f32x4', [x], { denormals: true });
  const magnitude = b.andv(x, all32(b, MAGNITUDE));
  const r = roundedBy(t, magnitude, b.sar32x4(x, b.i32(31)));
  const finite = b.ltu32x4(magnitude, all32(b, INFINITY));
  if (isExact(t)) inspectNarrowed(t, magnitude, r, finite);
  const nan = b.orv(b.andv(b.shr32x4(magnitude, b.i32(FRACTION_SHIFT)), all32(b, 0x3ff)), all32(b, 0x7e00));
  const special = b.bitselect(nan, all32(b, HALF_INFINITY), b.nef32x4(x, x));
  const half = b.bitselect(r.halves, special, finite);
  return b.orv(half, b.andv(b.shr32x4(x, b.i32(16)), all32(b, 0x8000)));
}

const vcvtps2ph = vector((t) => {
  const { b } = t;
  const halves = (x: Value): Value => narrow(t, x);
  const [low, high] = t.vexL ? t.readYmm(t.reg) : [t.readXmm(t.reg), -1];
  const first = halves(low);
  // Words of the lanes side by side.
  const packed = pick(
    b,
    first,
    high < 0 ? zero(b) : halves(high),
    2,
    high < 0 ? [0, 2, 4, 6, 8, 8, 8, 8] : [0, 2, 4, 6, 8, 10, 12, 14],
  );
  if (t.isRegister) return t.writeXmm(t.rm, packed);
  // As processors have it, exceptions of the numbers come before those of memory.
  t.prepareWrite();
  const address = t.address(t.vexL ? 16 : 8, true);
  if (t.vexL) b.stv(address, packed);
  else b.st64(address, b.lane64(packed, 0));
});

export const f16cForms = (): readonly Row[] => [
  row('VEX.L0.W0 66 0F38 13 /r', 'VCVTPH2PS', 'Vo,Wq', vcvtph2ps, F16C),
  row('VEX.L1.W0 66 0F38 13 /r', 'VCVTPH2PS', 'Vy,Wo', vcvtph2ps, F16C),
  row('VEX.L0.W0 66 0F3A 1D /r', 'VCVTPS2PH', 'Wq,Vo,Ib', vcvtps2ph, F16C),
  row('VEX.L1.W0 66 0F3A 1D /r', 'VCVTPS2PH', 'Wo,Vy,Ib', vcvtps2ph, F16C),
];

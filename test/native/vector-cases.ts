/** Cases of vector instructions, and how their results are compared. */
import type { Row } from '../../src/isa/x86/tables.ts';
import { Random, makeCase } from './generate.ts';
import { WINDOW } from './native.ts';
import type { Case } from './native.ts';

const AT_XMM = 160;
const XMM_BYTES = 256;

/** Displacements are multiples of 16 more often than chance has it: most operands must be aligned. */
export class AlignedRandom extends Random {
  override below(n: number): number {
    if (n === 64 && super.below(100) < 60) return super.below(2) * 32;
    return super.below(n);
  }
}

const SINGLES = [
  0,
  -0,
  1,
  -1,
  1.5,
  2.5,
  -2.5,
  0.5,
  -0.5,
  1e10,
  -1e10,
  2147483648,
  2147483520,
  -2147483648,
  9.3e18,
  -9.3e18,
  1e-40,
  3.4e38,
  -3.4e38,
  Infinity,
  -Infinity,
  NaN,
  0.1,
  3,
  1e-30,
  8388609,
];
const DOUBLES = [
  ...SINGLES,
  2147483647.5,
  2147483646.5,
  -2147483648.5,
  -2147483649,
  9223372036854774784,
  9223372036854775807,
  -9223372036854775808,
  1e300,
  1e-300,
  5e-324,
  4503599627370497.5,
  3.5e38,
  1e-46,
];

/** Fills bytes with numbers of one kind, so that operations meet interesting values. */
function fill(bytes: Uint8Array, random: Random): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = random.below(5);
  for (let i = 0; i < bytes.length; i += 8) {
    if (kind === 0) view.setBigUint64(i, random.wide(), true);
    else if (kind === 1) {
      for (let k = 0; k < 8; k++) bytes[i + k] = [0, 1, 0x7f, 0x80, 0xff, random.below(256)][random.below(6)]!;
    } else if (kind === 2) {
      for (const k of [0, 4]) view.setFloat32(i + k, single(random), true);
    } else if (kind === 3) view.setFloat64(i, double(random), true);
    else view.setBigUint64(i, (BigInt(random.next()) << 32n) | BigInt(random.next()), true);
    // A signalling NaN and one with a payload; setFloat would make them quiet.
    if (kind === 2 && random.chance(6)) view.setUint32(i, random.chance(50) ? 0x7fa00001 : 0xffc12345, true);
    if (kind === 3 && random.chance(6)) view.setUint32(i + 4, random.chance(50) ? 0x7ff40001 : 0xfff81234, true);
  }
}

const single = (random: Random): number =>
  random.chance(60) ? SINGLES[random.below(SINGLES.length)]! : (random.next() - 2 ** 31) / 2 ** random.below(40);
const double = (random: Random): number =>
  random.chance(60) ? DOUBLES[random.below(DOUBLES.length)]! : (random.next() - 2 ** 31) / 2 ** random.below(60);

/** The mmx registers, and the stack they are found in. */
function fillFpu(fx: Uint8Array, random: Random): void {
  fx[3] = random.below(8) << 3;
  fx[4] = random.below(256);
  for (let i = 0; i < 8; i++) {
    fill(fx.subarray(32 + 16 * i, 40 + 16 * i), random);
    fx[40 + 16 * i] = random.below(256);
    fx[41 + 16 * i] = random.below(256);
  }
}

/** All registers get small numbers, so that whichever is the index finds memory. */
function fillIndices(one: Case, random: Random): void {
  for (const bytes of [one.fx.subarray(AT_XMM, AT_XMM + XMM_BYTES), one.ymm]) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const wide = random.chance(50);
    for (let at = 0; at < bytes.length; at += wide ? 8 : 4) {
      const value = random.below(random.chance(5) ? 4096 : 40) - 20;
      if (random.chance(30)) view.setUint32(at + (wide ? 4 : 0), random.next() | 0x80000000, true);
      else if (wide) view.setBigInt64(at, BigInt(value), true);
      else view.setInt32(at, value, true);
    }
  }
}

export function vectorCase(row: Row, random: Random, mode32: boolean): Case {
  const one = makeCase(row, random, mode32);
  fill(one.fx.subarray(AT_XMM, AT_XMM + XMM_BYTES), random);
  fill(one.ymm, random);
  fill(one.data, random);
  fillFpu(one.fx, random);
  if (row.options.vsib) fillIndices(one, random);
  if (/^V?MASKMOV[DQ]/.test(row.name)) one.gpr[7] = BigInt(WINDOW + 16 * random.below(8) + random.below(2));
  if (/^V?PCMPE/.test(row.name) && random.chance(80)) {
    one.gpr[0] = BigInt.asUintN(mode32 ? 32 : 64, BigInt(random.below(40) - 20));
    one.gpr[2] = BigInt.asUintN(mode32 ? 32 : 64, BigInt(random.below(40) - 20));
  }
  return one;
}

/** Lanes of their own: the manual does not say which one a fault names, nor how far a gather gets. */
export const LANES = /MASKMOV|GATHER/;

/** RCP and RSQRT: the manual gives an error bound, and processors differ. */
export const APPROXIMATE = /^V?(RCP|RSQRT)/;

function closeEnough(x: number, y: number): boolean {
  if (Object.is(x, y) || (Number.isNaN(x) && Number.isNaN(y))) return true;
  const scale = Math.max(Math.abs(x), Math.abs(y));
  // The border to denormal results, which become zeros.
  if (scale < 2 ** -125) return true;
  return Math.abs(x - y) <= scale * 1.5 * 2 ** -12;
}

export function vectorDifferences(row: Row, native: Case, ours: Case): string[] {
  const list: string[] = [];
  const all = (one: Case): DataView =>
    new DataView(Uint8Array.from([...one.fx.subarray(AT_XMM, AT_XMM + XMM_BYTES), ...one.ymm]).buffer);
  const [x, y] = [all(native), all(ours)];
  const hex = (view: DataView, n: number): string =>
    [12, 8, 4, 0]
      .map((at) =>
        view
          .getUint32(n * 16 + at, true)
          .toString(16)
          .padStart(8, '0'),
      )
      .join('_');
  for (let n = 0; n < (APPROXIMATE.test(row.name) ? 32 : 16); n++) {
    if (hex(x, n) === hex(y, n)) continue;
    const close = [0, 4, 8, 12].every((at) => closeEnough(x.getFloat32(n * 16 + at, true), y.getFloat32(n * 16 + at, true)));
    if (!APPROXIMATE.test(row.name) || !close) list.push(`xmm${n} ${hex(x, n)} / ${hex(y, n)}`);
  }
  return list;
}

/** Status word's TOP, tags and registers of the x87 unit. */
export function mmxDifferences(native: Case, ours: Case): string[] {
  const text = (fx: Uint8Array): string => {
    const registers = Array.from({ length: 8 }, (_, i) => Buffer.from(fx.subarray(32 + 16 * i, 42 + 16 * i)).toString('hex'));
    return `top ${(fx[3]! >> 3) & 7} tags ${fx[4]!.toString(16)} ${registers.join(' ')}`;
  };
  return text(native.fx) === text(ours.fx) ? [] : [`${text(native.fx)} / ${text(ours.fx)}`];
}

export function mxcsrDifferences(native: Case, ours: Case): string[] {
  const [x, y] = [native, ours].map((one) => new DataView(one.fx.buffer, one.fx.byteOffset).getUint32(24, true).toString(16));
  return x === y ? [] : [`mxcsr ${x} / ${y}`];
}

export function describeVectors(before: Case): string {
  const bytes = Buffer.from(before.code).toString('hex');
  const xmm = [...Array(8).keys()].map((n) =>
    Buffer.from(before.fx.subarray(AT_XMM + n * 16, AT_XMM + n * 16 + 16))
      .reverse()
      .toString('hex'),
  );
  return `${before.name} ${bytes} (xmm before: ${xmm.join(' ')})`;
}

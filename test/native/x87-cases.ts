/** Cases of x87 instructions, and how their results are compared. */
import type { Row } from '../../src/isa/x86/tables.ts';
import type { Random } from './generate.ts';
import { CODE_START, SIGTRAP, TAIL, WINDOW, YMM_BYTES } from './native.ts';
import type { Case } from './native.ts';

const OPERAND = 128;
const STATUS = 2;
const REGISTERS = 32;

const SIGNIFICANDS = [
  0n,
  1n,
  1n << 63n,
  (1n << 63n) | 1n,
  (1n << 64n) - 1n,
  (1n << 64n) - 2n,
  3n << 62n,
  (3n << 62n) | 5n,
  (1n << 63n) | (1n << 61n),
  0xfffffffffffff800n,
  0xfffffffffffffc00n,
  0xfffffffffffffbffn,
  0xffffff0000000000n,
  0xffffff8000000000n,
  0x8000008000000000n,
  0x8000000000000400n,
  0x8000000000000c00n,
  1n << 62n,
  0x7fffffffffffffffn,
  0xc90fdaa22168c235n,
  0xaaaaaaaaaaaaaaaan,
  0xde0b6b3a763ffff8n,
  0xde0b6b3a763ffff0n,
];
const EXPONENTS = [
  0, 0, 1, 2, 63, 64, 65, 0x7fff, 0x7fff, 0x7ffe, 0x7ffd, 0x3fff, 0x3fff, 0x3ffe, 0x3ffd, 0x4000, 0x4001, 0x400d, 0x400e, 0x400f,
  0x401d, 0x401e, 0x401f, 0x403a, 0x403b, 0x403c, 0x403d, 0x403e, 0x403f, 0x3fbf, 0x3fc0, 0x3fdf, 0x3f80, 0x3f81, 0x3f82, 0x3f6a,
  0x407e, 0x407f, 0x3c00, 0x3c01, 0x3c02, 0x3bcd, 0x43fe, 0x43ff, 0x5fff, 0x2000, 0x1fff,
];

const wide = (random: Random): bigint => (BigInt(random.next()) << 32n) | BigInt(random.next());

function significand(random: Random): bigint {
  if (random.chance(45)) return SIGNIFICANDS[random.below(SIGNIFICANDS.length)]!;
  const bits = wide(random) | (random.chance(95) ? 1n << 63n : 0n);
  return random.chance(30) ? ((bits >> BigInt(random.below(63))) << BigInt(random.below(63))) & ((1n << 64n) - 1n) : bits;
}

function putExtended(random: Random, bytes: Uint8Array, at: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let exponent = random.chance(50) ? EXPONENTS[random.below(EXPONENTS.length)]! : 0x3fff + random.below(140) - 70;
  let sig = significand(random);
  // Mostly numbers that are what they seem.
  if (random.chance(85) && exponent !== 0) sig |= 1n << 63n;
  if (random.chance(8)) [sig, exponent] = [0n, 0];
  view.setBigUint64(at, sig, true);
  view.setUint16(at + 8, exponent | (random.chance(50) ? 0x8000 : 0), true);
}

/** A double, a single or an integer at the operand's place. */
function putOperand(row: Row, random: Random, data: Uint8Array): void {
  const view = new DataView(data.buffer, data.byteOffset);
  for (let i = 0; i < data.length; i += 16) putExtended(random, data, i);
  if (row.name === 'FBLD') {
    for (let i = 0; i < 10; i++) data[OPERAND + i] = random.below(10) | (random.below(10) << 4);
    if (random.chance(50)) data[OPERAND + 9] = random.below(2) << 7;
    return;
  }
  const size = row.operands[0]?.size ?? 0;
  const few = random.chance(50);
  if (size === 8 && !row.name.startsWith('FI')) {
    const exponents = [0, 0, 1, 2, 0x7fe, 0x7ff, 0x7ff, 0x3ff, 0x3fe, 0x400, 0x432, 0x433];
    const exponent = few ? exponents[random.below(exponents.length)]! : random.below(2048);
    const fraction = random.chance(40) ? [0n, 1n, 1n << 51n, (1n << 52n) - 1n][random.below(4)]! : wide(random) >> 12n;
    view.setBigUint64(OPERAND, (BigInt(random.below(2)) << 63n) | (BigInt(exponent) << 52n) | fraction, true);
  } else if (size === 4 && !row.name.startsWith('FI')) {
    const exponents = [0, 0, 1, 2, 254, 255, 255, 127, 126, 128];
    const exponent = few ? exponents[random.below(exponents.length)]! : random.below(256);
    const fraction = random.chance(40) ? [0, 1, 1 << 22, (1 << 23) - 1][random.below(4)]! : random.next() >>> 9;
    view.setUint32(OPERAND, ((random.below(2) << 31) | (exponent << 23) | fraction) >>> 0, true);
  } else if (size > 0) view.setBigUint64(OPERAND, random.wide(), true);
}

/** Control word, status, stack. Exceptions in the status word are such as the masks let rest. */
function fillFpu(fx: Uint8Array, random: Random): void {
  const view = new DataView(fx.buffer, fx.byteOffset);
  const masks = random.chance(70) ? 0x3f : random.below(64);
  const control = random.chance(30) ? 0x37f : 0x40 | masks | ([0, 2, 3, 3][random.below(4)]! << 8) | (random.below(4) << 10);
  view.setUint16(0, control, true);
  const flags = random.chance(50) ? 0 : random.below(64) & control;
  // An exception of an earlier instruction, not reported yet.
  const pending = random.chance(3) ? ~control & 0x3f : 0;
  const summary = pending === 0 ? 0 : 0x8080 | pending;
  view.setUint16(STATUS, summary | flags | (random.next() & 0x4740) | (random.below(8) << 11), true);
  fx[4] = random.chance(75) ? 0xff : random.below(256);
  // Room for pushes.
  if (random.chance(60)) fx[4]! &= ~(1 << ((((view.getUint16(STATUS, true) >> 11) & 7) - 1) & 7));
  for (let i = 0; i < 8; i++) putExtended(random, fx, REGISTERS + 16 * i);
  // Close operands, for cancellation.
  if (random.chance(20)) {
    fx.copyWithin(REGISTERS + 16, REGISTERS, REGISTERS + 10);
    view.setUint8(REGISTERS + 16 * random.below(2), random.below(256));
    if (random.chance(50)) view.setUint8(REGISTERS + 25, fx[REGISTERS + 25]! ^ 0x80);
  }
  // Exponents that lie close together, for remainders.
  if (random.chance(25)) {
    const exponent = (view.getUint16(REGISTERS + 24, true) & 0x7fff) + random.below(150) - 10;
    view.setUint16(REGISTERS + 8, Math.min(0x7ffe, Math.max(0, exponent)) | (random.below(2) << 15), true);
  }
}

/** Beyond these exponents the functions' results are undefined. */
const LIMITS: Record<string, number> = { F2XM1: 0x3ffe, FYL2XP1: 0x3ffc };

function limitOperand(row: Row, fx: Uint8Array): void {
  const limit = LIMITS[row.name];
  const view = new DataView(fx.buffer, fx.byteOffset);
  const se = view.getUint16(REGISTERS + 8, true);
  if (limit === undefined || (se & 0x7fff) <= limit || (se & 0x7fff) === 0x7fff) return;
  view.setUint16(REGISTERS + 8, (se & 0x8000) | (limit - (se & 63)), true);
}

/** Denormals that FSCALE is to leave where they are. */
function scaleByZero(row: Row, random: Random, fx: Uint8Array): void {
  if (row.name !== 'FSCALE' || !random.chance(50)) return;
  const view = new DataView(fx.buffer, fx.byteOffset);
  view.setUint16(REGISTERS + 8, view.getUint16(REGISTERS + 8, true) & 0x8000, true);
  fx.fill(0, REGISTERS + 16, REGISTERS + 25);
}

/** The least normal number, whose sine is below it and yet not tiny. */
function leastAngle(row: Row, random: Random, fx: Uint8Array): void {
  if (!/^(FSIN|FSINCOS|FPTAN)$/.test(row.name) || !random.chance(5)) return;
  const view = new DataView(fx.buffer, fx.byteOffset);
  view.setBigUint64(REGISTERS, 1n << 63n, true);
  view.setUint16(REGISTERS + 8, (view.getUint16(REGISTERS + 8, true) & 0x8000) | 1, true);
}

function opcodeBytes(row: Row, random: Random): number[] {
  const modrm = row.modrm >= 0 ? row.modrm : row.form === 1 ? (row.digit << 3) | 3 : 0xc0 | (row.digit << 3) | random.below(8);
  const prefix = row.form === 1 && /ENV|SAVE|RSTOR/.test(row.name) && random.chance(40) ? [0x66] : [];
  return [...prefix, row.opcode, ...(row.hasModrm ? [modrm] : [])];
}

export function x87Case(row: Row, random: Random, mode32: boolean): Case {
  const fx = new Uint8Array(512);
  const data = new Uint8Array(512);
  fillFpu(fx, random);
  limitOperand(row, fx);
  scaleByZero(row, random, fx);
  leastAngle(row, random, fx);
  fx[25] = 0x1f;
  fx[24] = 0x80;
  putOperand(row, random, data);
  if (/LDENV|RSTOR/.test(row.name)) {
    const view = new DataView(data.buffer);
    const step = random.chance(60) ? 4 : 2;
    for (const [i, v] of [fx[0]! | (fx[1]! << 8), random.next() & 0x7fff, random.next()].entries()) {
      view.setUint16(OPERAND + i * step, v & 0xffff, true);
    }
  }
  const gpr = Array.from({ length: 16 }, () => BigInt(random.next()));
  // Now and then the memory is not there: then nothing may have changed. (A store that an
  // unmasked exception suppresses does not touch its memory here.)
  const missing = (fx[0]! & 0x3f) === 0x3f && random.chance(3);
  gpr[3] = BigInt(missing ? 0x1000 : WINDOW + OPERAND);
  gpr[4] = BigInt(WINDOW + 256 + 64);
  return {
    name: `${row.name} [${row.encoding}]`,
    code: Uint8Array.from(opcodeBytes(row, random)),
    mode32,
    gpr: mode32 ? gpr.map((value, n) => (n < 8 ? value : 0n)) : gpr,
    rip: BigInt(CODE_START),
    flags: 0x202 | (random.next() & 0x8d5),
    signal: 0,
    fx,
    data,
    ymm: new Uint8Array(YMM_BYTES),
    tail: new Uint8Array(TAIL),
    vector: 0,
    error: 0,
    address: 0n,
  };
}

/** Series whose last places differ between processors. */
const APPROXIMATE = /^(F2XM1|FSIN|FCOS|FSINCOS|FPTAN|FPATAN|FYL2X|FYL2XP1)$/;

const registerText = (fx: Uint8Array, i: number): string =>
  Buffer.from(fx.subarray(REGISTERS + 16 * i, REGISTERS + 10 + 16 * i))
    .reverse()
    .toString('hex');

/** Distance of two registers in units of the last place. */
function distance(x: string, y: string): bigint {
  const [a, b] = [BigInt(`0x${x}`), BigInt(`0x${y}`)];
  // The integer bit of numbers that are not denormal does not count as a place.
  const place = (v: bigint): bigint => ((v >> 64n) << 63n) | (v & ((1n << 63n) - 1n));
  const d = place(a) - place(b);
  return d < 0n ? -d : d;
}

export function fpuDifferences(row: Row, native: Case, ours: Case): string[] {
  const list: string[] = [];
  const loose = APPROXIMATE.test(row.name);
  const word = (fx: Uint8Array, at: number): number => fx[at]! | (fx[at + 1]! << 8);
  if (word(native.fx, 0) !== word(ours.fx, 0))
    list.push(`control ${word(native.fx, 0).toString(16)} / ${word(ours.fx, 0).toString(16)}`);
  const ignored = loose ? 0x4720 & ~0x400 : undefinedConditions(row);
  const [x, y] = [word(native.fx, STATUS) & ~ignored, word(ours.fx, STATUS) & ~ignored];
  if (x !== y) list.push(`status ${x.toString(16)} / ${y.toString(16)}`);
  // Not all processors record the place of an instruction that raises nothing.
  if (native.signal === SIGTRAP && native.fx[STATUS]! & 0x80 && !loose) {
    const end = row.form === 1 ? 24 : 16;
    const [a, b] = [native, ours].map((one) => Buffer.from(one.fx.subarray(6, end)).toString('hex'));
    if (a !== b) list.push(`place ${a} / ${b}`);
  }
  if (native.fx[4] !== ours.fx[4]) list.push(`tags ${native.fx[4]!.toString(2)} / ${ours.fx[4]!.toString(2)}`);
  for (let i = 0; i < 8; i++) {
    const [a, b] = [registerText(native.fx, i), registerText(ours.fx, i)];
    if (a !== b && !(loose && distance(a, b) <= 1n)) list.push(`st${i} ${a} / ${b}`);
  }
  return list;
}

/** Condition bits in which processors differ: Intel's clear C1 in FCOMI, AMD's leave it. */
function undefinedConditions(row: Row): number {
  return /^FU?COMI/.test(row.name) ? 0x200 : 0;
}

export function describeFpu(before: Case): string {
  const registers = [0, 1, 2].map((i) => registerText(before.fx, i)).join(' ');
  const fx = Buffer.from(before.fx.subarray(0, 5)).toString('hex');
  const data = Buffer.from(before.data.subarray(OPERAND, OPERAND + 10))
    .reverse()
    .toString('hex');
  return `${Buffer.from(before.code).toString('hex')} fcw,fsw,tags ${fx} st ${registers} memory ${data}`;
}

/** Environment images: what is recorded of the last instruction differs between processors. */
export function withoutPointers(row: Row, one: Case): Case {
  if (!/STENV|SAVE/.test(row.name)) return one;
  const bytes = one.code[0] === 0x66 ? 2 : 4;
  one.data.fill(0, OPERAND + 3 * bytes, OPERAND + 7 * bytes);
  return one;
}

/**
 * The x87 environment and whole state in memory: FLDENV, FNSTENV, FRSTOR, FNSAVE (SDM vol. 1,
 * 8.1.10). Everything is read before anything changes, and written before anything changes.
 */
import type { Value } from '../../ir/builder.ts';
import { I32 } from '../../ir/ops.ts';
import { defineHelper } from './helpers.ts';
import { FCS, FCW, FDP, FDS, FIP, FOP, FPREG, FSW, FTAG, FTOP } from './state.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';
import { clearMarks, initialise, requireFpu, requireNoError, statusWord } from './x87-control.ts';

const TAG_WORD = defineHelper({
  name: 'x87.tagWord',
  params: [],
  result: I32,
  touchesGlobals: false,
  mayFault: false,
  body: { kind: 'wasm', export: 'tagWord' },
});

const FPU = { feature: 'fpu' };
const ALL_MASKED = 0x3f;
const FIELDS = 7;
// Places of the seven fields.
const CONTROL = 0;
const STATUS = 1;
const TAGS = 2;
const IP = 3;
const SELECTOR_AND_OPCODE = 4;
const DP = 5;
const DATA_SELECTOR = 6;

/** Bytes of a field. */
const width = (t: X86Translator): 2 | 4 => (t.opSize === 2 ? 2 : 4);
const environmentBytes = (t: X86Translator): number => width(t) * FIELDS;

const at = (t: X86Translator, address: Value, offset: number): Value =>
  offset === 0 ? address : t.b.add64(address, t.b.i64(offset));

/** Real and V86 mode: linear pointers in pieces of 16 bits and the rest above bit 12. */
function realModeFields(t: X86Translator): Value[] {
  const { b } = t;
  const linear = (pointer: number, selector: number): Value => b.add32(b.lds32(pointer), b.shl32(b.lds16(selector), b.i32(4)));
  const high = (v: Value): Value => b.shl32(b.shr32(v, b.i32(16)), b.i32(12));
  const low = (v: Value): Value => b.and32(v, b.i32(0xffff));
  const [ip, dp] = [linear(FIP, FCS), linear(FDP, FDS)];
  return [low(ip), b.or32(high(ip), b.lds32(FOP)), low(dp), high(dp)];
}

function pointerFields(t: X86Translator): Value[] {
  const { b } = t;
  if (!t.protectedMode) return realModeFields(t);
  const opcode = width(t) === 4 ? b.shl32(b.lds32(FOP), b.i32(16)) : b.i32(0);
  return [b.lds32(FIP), b.or32(b.lds16(FCS), opcode), b.lds32(FDP), b.lds16(FDS)];
}

/** Stores the environment. The upper halves of the fields for words are all ones. */
function storeEnvironment(t: X86Translator, address: Value): void {
  const { b } = t;
  const bytes = width(t);
  const upper = b.i32(-0x10000);
  const words = [b.lds32(FCW), statusWord(t), b.call(TAG_WORD)].map((v) => b.or32(v, upper));
  const pointers = pointerFields(t);
  if (t.protectedMode) pointers[3] = b.or32(pointers[3]!, upper);
  [...words, ...pointers].forEach((v, i) => t.store(bytes, at(t, address, i * bytes), v));
}

const fnstenv: Translate = (t) => {
  if (!requireFpu(t)) return;
  const { b } = t;
  storeEnvironment(t, t.address(environmentBytes(t), true));
  t.fpu.forget();
  b.sts32(FCW, b.or32(b.lds32(FCW), b.i32(ALL_MASKED)));
  b.sts32(FSW, b.and32(b.lds32(FSW), b.i32(~0x8080)));
};

function readEnvironment(t: X86Translator, address: Value): Value[] {
  const bytes = width(t);
  return Array.from({ length: FIELDS }, (_, i) => t.load(bytes, at(t, address, i * bytes)));
}

function setPointers(t: X86Translator, fields: readonly Value[]): void {
  const { b } = t;
  const word = (v: Value): Value => b.and32(v, b.i32(0xffff));
  const opcode = (v: Value): Value => b.and32(v, b.i32(0x7ff));
  const pointer = (place: number, low: Value): void => b.sts64(place, b.extu(low));
  const mixed = fields[SELECTOR_AND_OPCODE]!;
  if (t.protectedMode) {
    pointer(FIP, fields[IP]!);
    pointer(FDP, fields[DP]!);
    b.sts16(FCS, mixed);
    b.sts16(FDS, fields[DATA_SELECTOR]!);
    b.sts32(FOP, width(t) === 4 ? opcode(b.shr32(mixed, b.i32(16))) : b.i32(0));
    return;
  }
  const high = (v: Value): Value => b.shl32(b.and32(b.shr32(v, b.i32(12)), b.i32(0xffff)), b.i32(16));
  pointer(FIP, b.or32(word(fields[IP]!), high(mixed)));
  pointer(FDP, b.or32(word(fields[DP]!), high(fields[DATA_SELECTOR]!)));
  b.sts16(FCS, b.i32(0));
  b.sts16(FDS, b.i32(0));
  b.sts32(FOP, opcode(mixed));
}

function setEnvironment(t: X86Translator, fields: readonly Value[]): void {
  const { b } = t;
  const control = b.or32(b.and32(fields[CONTROL]!, b.i32(0x1f7f)), b.i32(0x40));
  const status = b.and32(fields[STATUS]!, b.i32(0xffff));
  const unmasked = b.and32(b.and32(status, b.xor32(control, b.i32(-1))), b.i32(0x3f));
  const clean = b.and32(status, b.i32(~0xb880));
  b.sts32(FCW, control);
  b.sts32(FSW, b.select32(unmasked, b.or32(clean, b.i32(0x8080)), clean));
  b.sts32(FTOP, b.and32(b.shr32(status, b.i32(11)), b.i32(7)));
  t.fpu.forget();
  clearMarks(t);
  for (let i = 0; i < 8; i++) {
    const tag = b.and32(b.shr32(fields[TAGS]!, b.i32(2 * i)), b.i32(3));
    b.sts8(FTAG + i, b.eq32(tag, b.i32(3)));
  }
  setPointers(t, fields);
}

const fldenv: Translate = (t) => {
  if (!requireFpu(t)) return;
  requireNoError(t);
  setEnvironment(t, readEnvironment(t, t.address(environmentBytes(t), false)));
};

/** Slot of st(i), by a TOP that may be about to be loaded. */
const slotOf = (t: X86Translator, top: Value, i: number): Value =>
  t.b.shl32(t.b.and32(t.b.add32(top, t.b.i32(i)), t.b.i32(7)), t.b.i32(4));

const fnsave: Translate = (t) => {
  if (!requireFpu(t)) return;
  const { b } = t;
  const base = environmentBytes(t);
  const address = t.address(base + 80, true);
  storeEnvironment(t, address);
  const top = b.lds32(FTOP);
  for (let i = 0; i < 8; i++) {
    const slot = slotOf(t, top, i);
    b.st64(at(t, address, base + 10 * i), b.lds64(FPREG, slot));
    b.st16(at(t, address, base + 10 * i + 8), b.lds16(FPREG + 8, slot));
  }
  initialise(t);
};

const frstor: Translate = (t) => {
  if (!requireFpu(t)) return;
  requireNoError(t);
  const { b } = t;
  const base = environmentBytes(t);
  const address = t.address(base + 80, false);
  const fields = readEnvironment(t, address);
  const registers = Array.from({ length: 8 }, (_, i) => [
    b.ld64(at(t, address, base + 10 * i)),
    b.ld16u(at(t, address, base + 10 * i + 8)),
  ]);
  setEnvironment(t, fields);
  const top = b.lds32(FTOP);
  registers.forEach(([sig, se], i) => {
    const slot = slotOf(t, top, i);
    b.sts64(FPREG, sig!, slot);
    b.sts32(FPREG + 8, se!, slot);
  });
};

export const X87_ENVIRONMENT_ROWS: readonly Row[] = [
  row('D9 /4 mem', 'FLDENV', 'M', fldenv, FPU),
  row('D9 /6 mem', 'FNSTENV', 'M', fnstenv, FPU),
  row('DD /4 mem', 'FRSTOR', 'M', frstor, FPU),
  row('DD /6 mem', 'FNSAVE', 'M', fnsave, FPU),
];

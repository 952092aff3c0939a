/** Every mode, any bytes: translation ends, and what it makes is sound IR. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Builder, CTX_UNKNOWN } from '../../ir/builder.ts';
import { printBlock } from '../../ir/printer.ts';
import { verify } from '../../ir/verifier.ts';
import type { CodeReader } from '../isa.ts';
import { CC_OPS, KIND_SUB, ccOp } from './flags.ts';
import { X86_HELPERS } from './helpers.ts';
import { x86Isa } from './isa.ts';
import { LEAVE_LOAD_SEG, LEAVE_POPF, LEAVE_POPF_HERE } from './leave.ts';
import { allRows, ROW_FEATURES, rowsOf } from './rows.ts';
import {
  BF_CODE32,
  BF_CODE64,
  BF_CS_BASE,
  BF_IO_FREE,
  BF_LONG,
  BF_PROTECTED,
  BF_SEG_CHECK,
  BF_STACK32,
  BF_TF,
  BF_V86,
  X86_GLOBALS,
} from './state.ts';
import { OpcodeTable, type Row, SPACE_LEGACY, SPACE_VEX } from './tables.ts';

const X86_ROWS = allRows();

const ALL_OF_X86 = x86Isa(() => true);

const NAMES = { globals: X86_GLOBALS, helpers: X86_HELPERS };

class ArrayReader implements CodeReader {
  offset = 0;
  pageEnd = 4096;
  private readonly bytes: ArrayLike<number>;
  constructor(bytes: ArrayLike<number>) {
    this.bytes = bytes;
  }
  u8(): number {
    return this.bytes[this.offset++] ?? 0xf4;
  }
}

const USER = 3 << 6;
const LONG = BF_CODE64 | BF_CODE32 | BF_STACK32 | BF_LONG | BF_PROTECTED;
const MODES: Record<string, number> = {
  'long mode, kernel': LONG | BF_IO_FREE,
  'long mode, user': LONG | USER,
  'long mode, single step': LONG | USER | BF_TF,
  'protected, 32 bits, flat': BF_CODE32 | BF_STACK32 | BF_PROTECTED | BF_IO_FREE,
  'protected, 32 bits, segments': BF_CODE32 | BF_STACK32 | BF_PROTECTED | BF_SEG_CHECK | BF_CS_BASE,
  'protected, 16 bits': BF_PROTECTED | BF_SEG_CHECK | BF_CS_BASE,
  'real mode': BF_SEG_CHECK | BF_CS_BASE | BF_IO_FREE,
  'virtual 8086 mode': BF_PROTECTED | BF_V86 | BF_SEG_CHECK | BF_CS_BASE | USER,
};

function translate(bytes: ArrayLike<number>, flags: number, ctx = CTX_UNKNOWN): Builder {
  const b = new Builder(X86_GLOBALS);
  b.reset(ctx);
  ALL_OF_X86.translate(b, new ArrayReader(bytes), flags, 64);
  return b;
}

const print = (bytes: number[], flags: number, ctx = CTX_UNKNOWN): string => printBlock(translate(bytes, flags, ctx), NAMES);

let state = 12345;
function random(): number {
  state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
  return state >>> 8;
}

function check(bytes: number[], flags: number, mode: string, ctx: number): void {
  const b = translate(bytes, flags, ctx);
  const problems = verify(b, NAMES);
  const hex = Buffer.from(bytes.slice(0, 16)).toString('hex');
  assert.deepEqual(problems, [], `${mode}: ${hex}\n${printBlock(b, NAMES)}`);
}

for (const [mode, flags] of Object.entries(MODES)) {
  test(`random bytes give sound blocks: ${mode}`, () => {
    for (let i = 0; i < 3000; i++) {
      const bytes = Array.from({ length: 24 }, () => random() & 0xff);
      if (i % 3 === 0) bytes.unshift(0x0f);
      check(bytes, flags, mode, i % 2 ? CTX_UNKNOWN : (random() % (CC_OPS - 4)) + 4);
    }
  });

  test(`every row gives sound blocks: ${mode}`, () => {
    const maps = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];
    const prefixes = [[], [0x66], [0xf3], [0xf2]];
    for (const row of X86_ROWS) {
      if (row.space !== SPACE_LEGACY && row.space !== SPACE_VEX) continue;
      for (let i = 0; i < 8 * row.opcodes; i++) {
        const modrm = row.modrm >= 0 ? row.modrm : row.digit >= 0 ? (random() & 0xc7) | (row.digit << 3) : random() & 0xff;
        const tail = [row.opcode + (i % row.opcodes), modrm, ...Array.from({ length: 8 }, () => random() & 0xff)];
        const prefix = row.prefix > 0 ? prefixes[row.prefix]! : i % 4 === 3 ? [0x67] : [];
        const head =
          row.space === SPACE_VEX
            ? [0xc4, 0xe0 | row.map, (random() & 0x78) | Math.max(0, row.prefix)]
            : [...prefix, ...maps[row.map]!];
        check([...head, ...tail], flags, mode, CTX_UNKNOWN);
      }
    }
  });
}

const TABLE = new OpcodeTable(rowsOf, () => true);

test('no two rows claim the same encoding', () => {
  for (let place = 0; place < 3 << 10; place++) {
    const entry = TABLE.find(place >> 10, (place >> 8) & 3, place & 0xff);
    if (!entry) continue;
    const seen = new Set<string>();
    for (const r of entry.rows) {
      const key = [r.prefix, r.digit, r.form, r.modrm, r.w, r.l, r.options.no64 ?? false, r.options.only64 ?? false].join();
      assert.ok(!seen.has(key), `${r.encoding} ${r.name}`);
      seen.add(key);
    }
  }
});

test('every row is in the table, in its own place and in no other', () => {
  const places = new Map<Row, number>();
  for (let place = 0; place < 3 << 10; place++) {
    for (const r of TABLE.find(place >> 10, (place >> 8) & 3, place & 0xff)?.rows ?? []) {
      assert.deepEqual([r.space, r.map], [place >> 10, (place >> 8) & 3], r.encoding);
      places.set(r, (places.get(r) ?? 0) + 1);
    }
  }
  for (const r of X86_ROWS) assert.equal(places.get(r), r.opcodes, r.encoding);
});

test('the features that rows need are listed', () => {
  const needed = new Set(X86_ROWS.flatMap((r) => r.options.feature?.split(' ') ?? []));
  assert.deepEqual([...ROW_FEATURES].sort(), [...needed].sort());
});

test('CMP and a conditional branch become one comparison of the operands', () => {
  const text = print([0x48, 0x39, 0xd8, 0x72, 0x10], LONG);
  assert.match(text, /ltu64 v1, v2|ltu64 v2, v1/);
  assert.doesNotMatch(text, /calli|sub64/);
});

test('a condition of an unknown context asks the helper', () => {
  assert.match(print([0x74, 0x10], LONG), /getctx[\s\S]*calli ccBits/);
  assert.doesNotMatch(print([0x74, 0x10], LONG, ccOp(KIND_SUB, 8)), /calli/);
});

test('an instruction longer than 15 bytes is a general protection fault', () => {
  const text = print([...new Array<number>(15).fill(0x66), 0x90], LONG);
  assert.match(text, /leave 16, 33\d\d, 0/);
});

test('LOCK is undefined on what cannot be locked', () => {
  assert.match(print([0xf0, 0x01, 0xd8], LONG), /leave 16, 15\d\d, 0/);
  assert.match(print([0xf0, 0x01, 0x18, 0xf4], LONG), /ld32w/);
});

test('a block ends before an instruction that crosses the page, unless it is the first', () => {
  const bytes = [0x90, 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8];
  const b = new Builder(X86_GLOBALS);
  b.reset(CTX_UNKNOWN);
  const reader = new ArrayReader(bytes);
  reader.pageEnd = 5;
  ALL_OF_X86.translate(b, reader, LONG, 64);
  assert.equal(b.insns, 1);
  assert.equal(reader.offset, 1);
  b.reset(CTX_UNKNOWN);
  ALL_OF_X86.translate(b, reader, LONG, 64);
  assert.equal(b.insns, 1);
  assert.equal(reader.offset, 11);
});

test('RIP-relative addresses count from the next instruction', () => {
  const text = print([0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0xf4], LONG);
  assert.match(text, /pcbase[\s\S]*const64 23/);
});

test('POPF goes on unless it changes more than arithmetic flags, DF and what IF may be', () => {
  const [code, leave] = [[0x9d, 0x90], new RegExp(`leave ${LEAVE_POPF},`)];
  for (const mode of ['long mode, kernel', 'long mode, user', 'protected, 32 bits, segments', 'real mode']) {
    assert.match(print(code, MODES[mode]!), new RegExp(`leaveif v\\d+, ${LEAVE_POPF_HERE},`), mode);
    assert.doesNotMatch(print(code, MODES[mode]!), leave, mode);
  }
  assert.match(print(code, MODES['virtual 8086 mode']!), leave);
});

test('segments of real and virtual-8086 mode are loaded in place, but for SS', () => {
  const leave = new RegExp(`leave ${LEAVE_LOAD_SEG},`);
  // mov ax, ds; pop es; mov ax, ss
  for (const mode of ['real mode', 'virtual 8086 mode']) {
    assert.doesNotMatch(print([0x8e, 0xd8], MODES[mode]!), leave);
    assert.doesNotMatch(print([0x07], MODES[mode]!), leave);
    assert.match(print([0x8e, 0xd0], MODES[mode]!), leave);
  }
  assert.match(print([0x8e, 0xd8], MODES['protected, 16 bits']!), leave);
});

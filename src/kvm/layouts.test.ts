import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CAPABILITIES, EXIT, INTERNAL_ERROR, KVM_API_VERSION, NUMBERS } from './constants.ts';
import { REQUESTS } from './ioctls.ts';
import * as layouts from './layouts.ts';
import type { AnyLayout, FieldType } from './struct.ts';
import { decodeList, encode, encodeList, read, struct, union, viewOf, write } from './struct.ts';

const noCompiler =
  spawnSync('gcc', ['--version']).status !== 0
    ? 'there is no gcc'
    : !existsSync('/usr/include/linux/kvm.h') && 'there is no linux/kvm.h (linux-libc-dev)';

/** Names within `kvm_run` whose union has no name in C. */
const ANONYMOUS = /^exit\./;

interface Line {
  /** C, a number. */
  readonly expression: string;
  readonly ours: bigint;
}

const isLayout = (type: unknown): type is AnyLayout => typeof type === 'object' && !Array.isArray(type);

/** Offsets of all fields of a structure, also of those in structures and unions within it. */
function linesOf(name: string, layout: AnyLayout, path: string, base: number): Line[] {
  return Object.entries<{ type: FieldType; offset: number }>(layout.fields).flatMap(([field, { type, offset }]) => {
    const here = path + field;
    const inC = here.replace(ANONYMOUS, '');
    const at = base + offset;
    const below = isLayout(type) ? linesOf(name, type, `${here}.`, at) : [];
    return inC === 'exit' ? below : [{ expression: `offsetof(struct ${name}, ${inC})`, ours: BigInt(at) }, ...below];
  });
}

test('sizes, offsets and numbers are those of <linux/kvm.h>', { skip: noCompiler }, () => {
  const structures = Object.values(layouts).filter(({ name }) => name !== '');
  const lines: Line[] = [
    ...structures.map(({ name, size }) => ({ expression: `sizeof(struct ${name})`, ours: BigInt(size) })),
    ...structures.flatMap((layout) => linesOf(layout.name, layout as AnyLayout, '', 0)),
    ...Object.values(REQUESTS).map(({ name, number }) => ({ expression: name, ours: number })),
    ...[CAPABILITIES, EXIT, INTERNAL_ERROR, NUMBERS, { KVM_API_VERSION }].flatMap((table) =>
      Object.entries(table).map(([name, value]) => ({ expression: name, ours: BigInt(value) })),
    ),
  ];
  const folder = mkdtempSync(join(tmpdir(), 'virelay-kvm-'));
  try {
    const source = join(folder, 'layouts.c');
    const program = join(folder, 'layouts');
    writeFileSync(
      source,
      `#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n#include <linux/kvm.h>\nint main(void) {\n${lines
        .map(({ expression }) => `  printf("%llu\\n", (unsigned long long)(${expression}));`)
        .join('\n')}\n  return 0;\n}\n`,
    );
    execFileSync('gcc', ['-o', program, source]);
    const theirs = execFileSync(program, { encoding: 'utf8' }).trim().split('\n').map(BigInt);
    const wrong = lines
      .map(({ expression, ours }, index) => ({ expression, ours, theirs: theirs[index] }))
      .filter((line) => line.ours !== line.theirs);
    assert.deepEqual(wrong, []);
    assert.ok(lines.length > 600, `${lines.length} facts`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const PAIR = struct('pair', { small: 'u8', large: 'u64' });
const MIXED = struct('mixed', {
  byte: 'u8',
  half: 'u16',
  word: 's32',
  bytes: ['u8', 3],
  words: ['u32', 2],
  pairs: [PAIR, 2],
  either: union({ number: 'u32', bytes: ['u8', 5] }),
});

test('fields lie at multiples of their alignment', () => {
  assert.deepEqual(
    Object.values(MIXED.fields).map(({ offset }) => offset),
    [0, 2, 4, 8, 12, 24, 56],
  );
  assert.equal(PAIR.size, 16);
  assert.equal(MIXED.size, 64);
});

test('what is written is read again, and what is left out stays', () => {
  const bytes = encode(MIXED, {
    byte: 1,
    half: 0xfffe,
    word: -3,
    bytes: Uint8Array.of(4, 5, 6),
    words: [7, 0xffff_fff8],
    pairs: [{ small: 9 }, { small: 10, large: 0xffff_ffff_ffff_fff5n }],
    either: { number: 0x0403_0201 },
  });
  write(MIXED, viewOf(bytes), { half: 12, pairs: [{ large: 13n }] });
  assert.deepEqual(read(MIXED, viewOf(bytes)), {
    byte: 1,
    half: 12,
    word: -3,
    bytes: Uint8Array.of(4, 5, 6),
    words: [7, 0xffff_fff8],
    pairs: [
      { small: 9, large: 13n },
      { small: 10, large: 0xffff_ffff_ffff_fff5n },
    ],
    either: { number: 0x0403_0201, bytes: Uint8Array.of(1, 2, 3, 4, 0) },
  });
});

test('an array does not run over the next field', () => {
  assert.throws(() => encode(MIXED, { bytes: new Uint8Array(4) }), /4 elements for a field of 3/);
});

test('lists follow the structure that counts them', () => {
  const header = struct('header', { count: 'u32' });
  const list = [
    { small: 1, large: 2n },
    { small: 3, large: 4n },
  ];
  const bytes = encodeList(header, { count: list.length }, PAIR, list);
  assert.equal(bytes.length, header.size + 2 * PAIR.size);
  assert.deepEqual(decodeList(header, PAIR, bytes, 2), list);
});

/**
 * Flags across instructions: one sets them, others use them, in the same block (where conditions
 * are comparisons of the setter's operands) and in the next (where the operation is only known at run time).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { differences } from './compare.ts';
import { Random, makeCase } from './generate.ts';
import { Guest } from './guest.ts';
import { runNative, unavailable } from './native.ts';
import type { Case } from './native.ts';
import { allRows } from '../../src/isa/x86/rows.ts';

const X86_ROWS = allRows();

const CASES = Number(process.env.VIRELAY_FUZZ_CASES ?? 60) * 100;
const SEED = Number(process.env.VIRELAY_FUZZ_SEED ?? 4711);

/** All but AF, which logic and shifts leave undefined. */
const COMPARED = 0x8c5;

const WIDTHS = [[], [0x66], [0x40], [0x48]] as const;

/** A register form whose flags (but AF) are all defined. */
function setter(random: Random): number[] {
  const width = random.below(5);
  const prefix = width === 0 ? [0x40] : WIDTHS[width - 1]!;
  const byte = width === 0 ? 0 : 1;
  const modrm = (digit: number): number => 0xc0 | (digit << 3) | random.below(8);
  switch (random.below(6)) {
    case 0:
    case 1:
      return [...prefix, random.below(8) * 8 + byte, modrm(random.below(8))];
    case 2:
      return byte
        ? [...prefix, 0x83, modrm(random.below(8)), random.below(256)]
        : [0x80, modrm(random.below(8)), random.below(256)];
    case 3:
      return [...prefix, 0xfe + byte, modrm(random.below(2))];
    case 4:
      return [...prefix, 0xd0 + byte, modrm([4, 5, 7][random.below(3)]!)];
    default:
      return random.chance(50) ? [...prefix, 0xf6 + byte, modrm(3)] : [...prefix, 0x84 + byte, modrm(random.below(8))];
  }
}

function user(random: Random): number[] {
  const condition = random.below(16);
  const modrm = 0xc0 | random.below(64);
  switch (random.below(9)) {
    case 0:
    case 1:
    case 2:
      return [0x40, 0x0f, 0x90 + condition, 0xc0 | random.below(8)];
    case 3:
    case 4:
      return [0x48, 0x0f, 0x40 + condition, modrm];
    case 5:
      return [0x70 + condition, 0x00];
    case 6:
      return [0x48, random.chance(50) ? 0x11 : 0x19, modrm];
    case 7:
      return [0xf5];
    default:
      return [0x48, 0xff, 0xc0 | random.below(16)];
  }
}

const BLOCK_END = [0xeb, 0x00];

function sequence(random: Random): number[] {
  const bytes = setter(random);
  if (random.chance(50)) bytes.push(...BLOCK_END);
  for (let i = 0; i < 4; i++) {
    bytes.push(...user(random));
    if (random.chance(15)) bytes.push(...setter(random));
    if (random.chance(20)) bytes.push(...BLOCK_END);
  }
  return bytes.slice(0, 32);
}

function makeSequence(random: Random): Case {
  const row = X86_ROWS.find((one) => one.name === 'ADD')!;
  let code = sequence(random);
  while (code.length > 30) code = sequence(random);
  return { ...makeCase(row, random), name: Buffer.from(code).toString('hex'), code: Uint8Array.from(code) };
}

const reason = unavailable();

for (const compile of [false, true]) {
  test(`flags live on to their users, ${compile ? 'compiled' : 'interpreted'}`, { skip: reason ?? false }, () => {
    const random = new Random(SEED);
    const count = compile ? Math.ceil(CASES / 12) : CASES;
    const cases = Array.from({ length: count }, () => makeSequence(random));
    const guest = new Guest({ compile });
    const failures: string[] = [];
    runNative(cases).forEach((native, i) => {
      const list = differences(COMPARED, false, native, guest.run(cases[i]!));
      if (list.length > 0) failures.push(`${cases[i]!.name} flags ${cases[i]!.flags.toString(16)}: ${list.join('; ')}`);
    });
    assert.equal(failures.length, 0, failures.slice(0, 20).join('\n'));
  });
}

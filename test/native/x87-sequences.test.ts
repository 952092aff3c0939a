/**
 * Several x87 instructions in a row, and that in a loop: once it is compiled, what one leaves in a register is passed on to the
 * next without going through the state block, and so is what is known of tags, control and status word.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allRows } from '../../src/isa/x86/rows.ts';
import { CC_FLAGS } from '../../src/isa/x86/state.ts';
import { differences } from './compare.ts';
import { Random } from './generate.ts';
import { Guest } from './guest.ts';
import { SIGTRAP, WINDOW, runNative, unavailable } from './native.ts';
import type { Case } from './native.ts';
import { describeFpu, fpuDifferences, x87Case } from './x87-cases.ts';

const CASES = Number(process.env.VIRELAY_FUZZ_CASES ?? 400) * 2;
const SEED = Number(process.env.VIRELAY_FUZZ_SEED ?? 1980);
/** The harness has room for 32, of which the loop's end takes two. */
const MOST_BYTES = 28;
const ROUNDS = 3n;
const STATUS = 2;
const C1 = 0x200;

const ROW = allRows().find((row) => row.name === 'FADD')!;

/** First and second byte of forms of st(0) and st(i), and how often they are wanted. */
const REGISTER_FORMS: readonly (readonly [opcode: number, modrm: number, weight: number])[] = [
  [0xd9, 0xc0, 6], // FLD
  [0xd9, 0xc8, 4], // FXCH
  [0xdd, 0xd0, 2], // FST
  [0xdd, 0xd8, 5], // FSTP
  ...[0xc0, 0xc8, 0xe0, 0xe8].flatMap((modrm) => [0xd8, 0xdc, 0xde].map((opcode) => [opcode, modrm, 2] as const)),
  [0xd8, 0xf0, 1], // FDIV
  [0xde, 0xf8, 1],
  [0xdb, 0xf0, 1], // FCOMI
  [0xdf, 0xe8, 1], // FUCOMIP
  [0xd8, 0xd0, 1], // FCOM
  [0xda, 0xc8, 1], // FCMOVE
  [0xdd, 0xc0, 1], // FFREE
];
/** FCHS, FABS, FLD1, FLDZ, FSQRT, FXTRACT, FDECSTP, FINCSTP, FNCLEX. */
const PLAIN_FORMS = [0xd9e0, 0xd9e1, 0xd9e8, 0xd9ee, 0xd9fa, 0xd9f4, 0xd9f6, 0xd9f7, 0xdbe2] as const;
/** By [rbx]: FLD and FSTP of 80, 64 and 32 bits, FILD, FIST, FADD, FLDCW, FNSTENV (whose pointers differ) never. */
const MEMORY_FORMS = [
  0xdb2b, 0xdb2b, 0xdb3b, 0xdb3b, 0xdd03, 0xd903, 0xdd1b, 0xd91b, 0xdb03, 0xdf2b, 0xdb13, 0xd803, 0xd96b,
] as const;

const FORMS = REGISTER_FORMS.flatMap((form) => Array.from({ length: form[2] }, () => form));

function instruction(random: Random): number[] {
  const kind = random.below(10);
  if (kind < 7) {
    const [opcode, modrm] = FORMS[random.below(FORMS.length)]!;
    return [opcode, modrm + random.below(random.chance(80) ? 3 : 8)];
  }
  if (kind === 7) {
    const bytes = PLAIN_FORMS[random.below(PLAIN_FORMS.length)]!;
    return [bytes >> 8, bytes & 0xff];
  }
  const bytes = MEMORY_FORMS[random.below(MEMORY_FORMS.length)]!;
  // FLDCW takes the word behind what the others read and write.
  return bytes === 0xd96b ? [0xd9, 0x6b, 16] : [bytes >> 8, bytes & 0xff];
}

function sequenceCase(random: Random): Case {
  const code: number[] = [];
  for (;;) {
    const next = instruction(random);
    if (code.length + next.length > MOST_BYTES || random.chance(3)) break;
    code.push(...next);
  }
  // LOOP, back to the first.
  code.push(0xe2, 256 - code.length - 2);
  const made = x87Case(ROW, random, false);
  made.gpr[1] = ROUNDS;
  made.gpr[3] = BigInt(WINDOW + 128);
  const { fx, data } = made;
  // Most programs mask all exceptions and have numbers of one size.
  if (random.chance(80)) {
    fx[0] = 0x7f;
    fx[1] = random.chance(70) ? 3 : fx[1]!;
    fx[STATUS]! &= 0x7f;
    fx[STATUS + 1]! &= 0x7f;
  }
  if (random.chance(60)) for (const bytes of [fx, data]) for (let at = 32; at < 160; at += 16) tame(bytes, at, random);
  data[128 + 16] = random.chance(80) ? 0x7f : 0x40 | random.below(64);
  data[128 + 17] = random.below(16);
  return { ...made, name: Buffer.from(code).toString('hex'), code: Uint8Array.from(code) };
}

function tame(bytes: Uint8Array, at: number, random: Random): void {
  bytes[at + 7]! |= 0x80;
  bytes[at + 8] = 0xfc + random.below(4);
  bytes[at + 9] = 0x3f | (bytes[at + 9]! & 0x80);
}

const hasFcomi = (code: Uint8Array): boolean =>
  code.some((byte, i) => (byte === 0xdb || byte === 0xdf) && code[i + 1]! >= 0xe8 && code[i + 1]! < 0xf8);

/** Processors differ in C1 after FCOMI. */
function withoutC1(one: Case): Case {
  if (hasFcomi(one.code)) one.fx[STATUS + 1]! &= ~(C1 >> 8);
  return one;
}

for (const [how, options] of [
  ['interpreted', { compile: false }],
  ['compiled', { compile: true }],
  ["as the host's code", { compile: false, native: true }],
] as const) {
  test(`x87 registers live on to their users, ${how}`, { skip: unavailable() ?? false }, () => {
    const random = new Random(SEED);
    const cases = Array.from({ length: options.compile ? CASES : CASES * 4 }, () => sequenceCase(random));
    const guest = new Guest(options);
    const failures: string[] = [];
    runNative(cases).forEach((native, i) => {
      const ours = guest.run(cases[i]!);
      const list = differences(CC_FLAGS, false, withoutC1(native), withoutC1(ours));
      // Processors differ in which memory operand they record beside an instruction that has none.
      const fpu = fpuDifferences(ROW, native, ours).filter((text) => !text.startsWith('place'));
      if (native.signal === ours.signal || native.signal === SIGTRAP) list.push(...fpu);
      if (list.length > 0) failures.push(`${list.slice(0, 4).join('; ')}: ${describeFpu(cases[i]!)}`);
    });
    const most = how === 'compiled' ? cases.length / 20 : cases.length / 1.5;
    assert.ok(guest.notCompiled < most, `${guest.notCompiled} not compiled`);
    assert.equal(failures.length, 0, `native / translated differ in ${failures.length}\n${failures.slice(0, 12).join('\n')}`);
  });
}

/**
 * Several SSE instructions in a row, on few registers: scalar values are passed on within a block
 * without going through the vector, and comparisons meet the users of their flags.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allRows } from '../../src/isa/x86/rows.ts';
import { CC_FLAGS } from '../../src/isa/x86/state.ts';
import type { Row } from '../../src/isa/x86/tables.ts';
import { differences } from './compare.ts';
import { Random, makeCase } from './generate.ts';
import { Guest } from './guest.ts';
import { runNative, unavailable } from './native.ts';
import type { Case } from './native.ts';

const X86_ROWS = allRows();

const CASES = Number(process.env.VIRELAY_FUZZ_CASES ?? 60) * 100;
const SEED = Number(process.env.VIRELAY_FUZZ_SEED ?? 815);
const AT_XMM = 160;
const MOST_BYTES = 30;

/** Register numbers below 4. */
class FewRegisters extends Random {
  override below(n: number): number {
    return super.below(n === 16 ? 4 : n);
  }
}

const SCALAR =
  /^(MOV(SS|SD|Q|D|DDUP|APS|HLPS|LHPS|DQA)|(ADD|SUB|MUL|DIV|MIN|MAX|SQRT)S[SD]|CVT.*|UNPCKLP[SD]|PUNPCKLQDQ|PINSR[DQW]|ROUNDS[SD]|CMPS[SD]|PXOR|XORPS|SHUFPD)$/;
const COMPARISON = /^U?COMIS[SD]$/;

const isRegisterForm = (row: Row): boolean =>
  row.space === 0 &&
  row.form !== 1 &&
  row.operands.some((spec) => /[VWU]/.test(spec.place)) &&
  !row.operands.some((spec) => /[PQN]/.test(spec.place));

const scalarRows = X86_ROWS.filter((row) => SCALAR.test(row.name) && isRegisterForm(row));
const comparisonRows = X86_ROWS.filter((row) => COMPARISON.test(row.name));

const one = (rows: readonly Row[], random: Random): number[] => {
  const row = rows[random.below(rows.length)]!;
  const ofRegisters = Object.create(row, { form: { value: 2 } }) as Row;
  return [...makeCase(ofRegisters, random).code];
};

/** SETcc, CMOVcc, Jcc to the next instruction, ADC. */
function user(random: Random): number[] {
  const condition = random.below(16);
  const modrm = 0xc0 | (random.next() % 64);
  switch (random.below(4)) {
    case 0:
      return [0x40, 0x0f, 0x90 + condition, 0xc0 | random.below(8)];
    case 1:
      return [0x48, 0x0f, 0x40 + condition, modrm];
    case 2:
      return [0x70 + condition, 0x00];
    default:
      return [0x48, 0x11, modrm];
  }
}

const BLOCK_END = [0xeb, 0x00];

function part(random: Random): number[] {
  const kind = random.below(10);
  if (kind < 6) return one(scalarRows, random);
  if (kind === 6) return BLOCK_END;
  const bytes = one(comparisonRows, random);
  if (random.chance(40)) bytes.push(...BLOCK_END);
  return [...bytes, ...user(random), ...user(random)];
}

function sequence(random: Random): number[] {
  let bytes: number[] = [];
  for (;;) {
    const next = [...bytes, ...part(random)];
    if (next.length > MOST_BYTES) return bytes;
    bytes = next;
  }
}

const NUMBERS = [0, -0, 1, -1, 1.5, -2.5, 0.1, 3, 1e10, -1e10, 2147483648, 1e19, 1e-320, 1e300, Infinity, -Infinity, NaN];

function makeSequence(random: Random): Case {
  const made = makeCase(scalarRows[0]!, random);
  const view = new DataView(made.fx.buffer, AT_XMM, 256);
  for (let at = 0; at < 256; at += 8) {
    const value = NUMBERS[random.below(NUMBERS.length)]!;
    if (random.chance(50)) view.setFloat64(at, value, true);
    else {
      view.setFloat32(at, value, true);
      view.setFloat32(at + 4, NUMBERS[random.below(NUMBERS.length)]!, true);
    }
  }
  const code = Uint8Array.from(sequence(random));
  return { ...made, name: Buffer.from(code).toString('hex'), code };
}

function vectorDifferences(native: Case, ours: Case): string[] {
  const list: string[] = [];
  for (let n = 0; n < 16; n++) {
    const text = (fx: Uint8Array): string =>
      Buffer.from(fx.subarray(AT_XMM + 16 * n, AT_XMM + 16 * n + 16))
        .reverse()
        .toString('hex');
    if (text(native.fx) !== text(ours.fx)) list.push(`xmm${n} ${text(native.fx)} / ${text(ours.fx)}`);
  }
  return list;
}

for (const compile of [false, true]) {
  const skip = unavailable() ?? false;
  test(`SSE instructions in a row, ${compile ? 'compiled' : 'interpreted'}`, { skip }, () => {
    const random = new FewRegisters(SEED);
    const cases = Array.from({ length: compile ? Math.ceil(CASES / 12) : CASES }, () => makeSequence(random));
    const guest = new Guest({ compile });
    const failures: string[] = [];
    runNative(cases).forEach((native, i) => {
      const ours = guest.run(cases[i]!);
      const list = [...differences(CC_FLAGS, false, native, ours), ...vectorDifferences(native, ours)];
      if (list.length > 0) failures.push(`${cases[i]!.name}: ${list.join('; ')}`);
    });
    assert.ok(guest.notCompiled < cases.length / 20, `${guest.notCompiled} not compiled`);
    assert.equal(failures.length, 0, `${failures.length} differ\n${failures.slice(0, 20).join('\n')}`);
  });
}

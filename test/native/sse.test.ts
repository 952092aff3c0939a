/** The host's CPU judges the SSE, AVX and MMX instructions: vectors, mmx and x87, general registers, flags, memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allRows } from '../../src/isa/x86/rows.ts';
import { CC_FLAGS } from '../../src/isa/x86/state.ts';
import type { Row } from '../../src/isa/x86/tables.ts';
import { differences } from './compare.ts';
import { Guest } from './guest.ts';
import { hostCannotJudge, isVendorsAffair } from './host-cpu.ts';
import { SIGTRAP, runNative, unavailable } from './native.ts';
import type { Case } from './native.ts';
import {
  APPROXIMATE,
  AlignedRandom,
  LANES,
  describeVectors,
  mmxDifferences,
  mxcsrDifferences,
  vectorCase,
  vectorDifferences,
} from './vector-cases.ts';

const X86_ROWS = allRows();

const CASES_PER_ROW = Number(process.env.VIRELAY_FUZZ_CASES ?? 24);
const SEED = Number(process.env.VIRELAY_FUZZ_SEED ?? 20260102);
const ONLY = process.env.VIRELAY_FUZZ_ONLY;

const VECTOR_PLACES = /[VWUPQN]/;

function testable(row: Row, mode32: boolean): boolean {
  if ((mode32 ? row.options.only64 : row.options.no64) || hostCannotJudge(row, mode32)) return false;
  if (ONLY !== undefined && !new RegExp(`^(${ONLY})$`).test(row.name)) return false;
  return row.name === 'EMMS' || row.operands.some((spec) => VECTOR_PLACES.test(spec.place));
}

interface Plan {
  readonly compile: boolean;
  readonly mode32: boolean;
  readonly perRow: number;
  /** Bits of MXCSR beyond the default. */
  readonly mxcsr: number;
  /** Bits of MXCSR's default that are clear. */
  readonly unmasked?: number;
  /** MXCSR's flags count. */
  readonly exact?: boolean;
  readonly names: RegExp;
}

function compareWithHost(plan: Plan): void {
  const { compile, mode32, perRow, mxcsr, names } = plan;
  const random = new AlignedRandom(SEED);
  const rows: Row[] = [];
  const cases: Case[] = [];
  for (const row of X86_ROWS.filter((row) => testable(row, mode32) && names.test(row.name))) {
    for (let i = 0; i < perRow; i++) {
      const one = vectorCase(row, random, mode32);
      const value = (0x1f80 | mxcsr) & ~(plan.unmasked ?? 0);
      one.fx[24] = value & 0xff;
      one.fx[25] = value >> 8;
      rows.push(row);
      cases.push(one);
    }
  }
  const guest = new Guest({ compile, mode32, watch: plan.exact === true });
  const failures = new Map<string, string>();
  let faults = 0;
  runNative(cases).forEach((native, i) => {
    const before = cases[i]!;
    const ours = guest.run(before);
    if (native.signal !== SIGTRAP) faults++;
    const row = rows[i]!;
    if (isVendorsAffair(row, before, native, ours)) return;
    const skip = APPROXIMATE.test(row.name) || (row.options.vsib === true && native.signal !== SIGTRAP);
    const list = differences(CC_FLAGS, false, native, ours, { skip, pageOnly: LANES.test(row.name) });
    if (native.signal === SIGTRAP) {
      list.push(...vectorDifferences(rows[i]!, native, ours), ...mmxDifferences(native, ours));
    }
    if (plan.exact) list.push(...mxcsrDifferences(native, ours));
    if (list.length > 0 && !failures.has(before.name)) {
      failures.set(before.name, `${list.slice(0, 4).join('; ')}: ${describeVectors(before)}`);
    }
  });
  const summary = `${cases.length} cases, ${faults} faulted, ${guest.notCompiled} not compiled`;
  if (process.env.VIRELAY_FUZZ_VERBOSE) console.log(summary);
  assert.ok(guest.notCompiled < cases.length / 20, summary);
  assert.equal(failures.size, 0, `native / translated differ; ${summary}\n${[...failures.values()].join('\n')}`);
}

const options = { skip: unavailable() ?? false };

for (const mode32 of [false, true]) {
  const name = `SSE and MMX instructions of ${mode32 ? 32 : 64}-bit code do what the host CPU does`;
  const plan = { mode32, mxcsr: 0, names: /./ };
  test(`interpreted ${name}`, options, () => compareWithHost({ ...plan, compile: false, perRow: CASES_PER_ROW }));
  test(`compiled ${name}`, options, () => compareWithHost({ ...plan, compile: true, perRow: Math.ceil(CASES_PER_ROW / 12) }));
}

const FLOATING = /^V?(ROUND|CVT|CMPS|CMPP|U?COMI|FN?M(ADD|SUB)|(ADD|SUB|MUL|DIV|MIN|MAX|SQRT|ADDSUB|HADD|HSUB|DP)[SP][SD]$)/;
/**
 * Rounding down, up, to zero; flushing results and operands; some together; flags looked at in the
 * default mode; and (with the sign bit's place set) exceptions unmasked: all, each alone.
 */
const MODES = [0x2000, 0x4000, 0x6000, 0x8000, 0x0040, 0xe040, 0];
const UNMASKED = [0x1f80, 0x80, 0x100, 0x200, 0x400, 0x800, 0x1000, 0x8800];

for (const [mxcsr, unmasked] of [
  ...MODES.map((mode) => [mode, 0]),
  ...UNMASKED.map((bits) => [bits & 0x8000, bits & 0x1f80]),
] as [number, number][]) {
  const plan = { mode32: false, mxcsr, unmasked, exact: true, names: FLOATING };
  const name = `MXCSR with ${mxcsr.toString(16)}, without ${unmasked.toString(16)}`;
  test(`${name}, interpreted`, options, () => compareWithHost({ ...plan, compile: false, perRow: Math.ceil(CASES_PER_ROW / 3) }));
  test(`${name}, compiled`, options, () => compareWithHost({ ...plan, compile: true, perRow: Math.ceil(CASES_PER_ROW / 24) }));
}

for (const mxcsr of [0x8000, 0x0040, 0x8040]) {
  const plan = { mode32: false, mxcsr, exact: false, names: FLOATING };
  test(`MXCSR with ${mxcsr.toString(16)}, nobody looking at flags`, options, () => {
    compareWithHost({ ...plan, compile: false, perRow: CASES_PER_ROW });
    compareWithHost({ ...plan, compile: true, perRow: Math.ceil(CASES_PER_ROW / 24) });
  });
}

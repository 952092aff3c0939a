/** The host's CPU judges the x87 instructions: registers, tags, control and status word, flags, memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allRows } from '../../src/isa/x86/rows.ts';
import { CC_FLAGS } from '../../src/isa/x86/state.ts';
import type { Row } from '../../src/isa/x86/tables.ts';
import { differences } from './compare.ts';
import { Random } from './generate.ts';
import { Guest } from './guest.ts';
import type { GuestOptions } from './guest.ts';
import { isVendorsAffair } from './host-cpu.ts';
import { SIGTRAP, WINDOW, runNative, unavailable } from './native.ts';
import type { Case } from './native.ts';
import { describeFpu, fpuDifferences, withoutPointers, x87Case } from './x87-cases.ts';

const X86_ROWS = allRows();

const CASES_PER_ROW = Number(process.env.VIRELAY_FUZZ_CASES ?? 400);
const SEED = Number(process.env.VIRELAY_FUZZ_SEED ?? 20260103);
const ONLY = process.env.VIRELAY_FUZZ_ONLY;

const testable = (row: Row): boolean =>
  /^D[89A-F] /.test(row.encoding) && (ONLY === undefined || new RegExp(`^(${ONLY})$`).test(row.name));

function compareWithHost(how: Pick<GuestOptions, 'compile' | 'native'>, mode32: boolean, perRow: number): void {
  const random = new Random(SEED);
  const rows: Row[] = [];
  const cases: Case[] = [];
  for (const row of X86_ROWS.filter(testable)) {
    for (let i = 0; i < perRow; i++) {
      rows.push(row);
      cases.push(x87Case(row, random, mode32));
    }
  }
  const guest = new Guest({ ...how, mode32 });
  const failures = new Map<string, { text: string; count: number }>();
  runNative(cases).forEach((native, i) => {
    const before = cases[i]!;
    const ours = guest.run(before);
    if (isVendorsAffair(rows[i]!, before, native, ours)) return;
    withoutPointers(rows[i]!, native);
    withoutPointers(rows[i]!, ours);
    const list = differences(CC_FLAGS, false, native, ours);
    if (native.signal === ours.signal || native.signal === SIGTRAP) list.push(...fpuDifferences(rows[i]!, native, ours));
    if (list.length === 0) return;
    const known = failures.get(before.name);
    if (known) known.count++;
    else failures.set(before.name, { text: `${list.slice(0, 4).join('; ')}: ${describeFpu(before)}`, count: 1 });
  });
  const summary = `${cases.length} cases, ${guest.notCompiled} not compiled`;
  if (process.env.VIRELAY_FUZZ_VERBOSE) console.log(summary);
  // Code of the host's processor stays when the same bytes come again, and not each instruction has some.
  assert.ok(guest.notCompiled < cases.length * (how.native ? 0.8 : 0.05), summary);
  const lines = [...failures].map(([name, { text, count }]) => `${name} (${count}) ${text}`);
  assert.equal(failures.size, 0, `native / translated differ; ${summary}\n${lines.join('\n')}`);
}

const options = { skip: unavailable() ?? false };

for (const mode32 of [false, true]) {
  const name = `x87 instructions of ${mode32 ? 32 : 64}-bit code do what the host CPU does`;
  test(`interpreted ${name}`, options, () => compareWithHost({ compile: false }, mode32, CASES_PER_ROW));
  test(`compiled ${name}`, options, () => compareWithHost({ compile: true }, mode32, Math.ceil(CASES_PER_ROW / 50)));
  test(`as the host's code, ${name}`, options, () =>
    compareWithHost({ compile: false, native: true }, mode32, Math.ceil(CASES_PER_ROW / 10)),
  );
}

test("code for which the host's x87 unit cannot be had is left to a region", options, () => {
  const guest = new Guest({ compile: true, native: true });
  const made = x87Case(X86_ROWS.find((row) => row.name === 'FNOP')!, new Random(SEED), false);
  // FXCH st(1), LOOP, in a program that has no exception masked.
  const one = { ...made, code: Uint8Array.of(0xd9, 0xc9, 0xe2, 0xfc) };
  one.gpr[1] = 5000n;
  one.gpr[3] = BigInt(WINDOW);
  one.fx.set([0x40, 3, 0, 0, 0xff]);
  const after = guest.run(one);
  assert.equal(after.rip, one.rip + 5n);
  assert.ok(guest.regions > 0);
});

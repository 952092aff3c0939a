/** The host's CPU judges the integer instructions: same bytes, registers, flags and memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allRows } from '../../src/isa/x86/rows.ts';
import type { Row } from '../../src/isa/x86/tables.ts';
import { differences, hex } from './compare.ts';
import { Random, makeCase } from './generate.ts';
import { Guest } from './guest.ts';
import { hostCannotJudge, isVendorsAffair } from './host-cpu.ts';
import { DF, maskOf, undefinedResult } from './integer-cases.ts';
import { SIGTRAP, runNative, unavailable } from './native.ts';
import type { Case } from './native.ts';

const X86_ROWS = allRows();

const CASES_PER_ROW = Number(process.env.VIRELAY_FUZZ_CASES ?? 60);
const SEED = Number(process.env.VIRELAY_FUZZ_SEED ?? 20260101);

/** Instructions that differ by nature between the two, or that would end the test program. */
const EXCLUDED =
  /^(CPUID|RD|WR|XGETBV|SYSCALL|SYSENTER|SYSEXIT|SYSRET|INT|INTO|HLT|IN|OUT|INS|OUTS|INB|OUTB|INSB|OUTSB|XSAVE|FX|XRSTOR|CLFLUSH|CLWB|SGDT|SIDT|SLDT|STR|SMSW|LAR|LSL|VERR|VERW|MONITOR|MWAIT|POPF|JMPF|CALLF|RETF|IRET|LSS|LFS|LGS|POP FS|POP GS|PUSH FS|PUSH GS|UD|LDMXCSR|STMXCSR|STAC|CLAC|STI|CLI|RSM|PREFETCHW|SWAPGS|INV|WBINVD|CLTS|LMSW|L[GI]DT|LLDT|LTR|NOP|BOUND|ARPL|PUSH ES|PUSH CS|PUSH SS|PUSH DS|POP ES|POP SS|POP DS|LES|LDS)/;

/** Rows that this test leaves to the tests of their own groups. */
const VECTOR_PLACES = /[VWUHPQN]/;

function testable(row: Row, mode32: boolean): boolean {
  if ((mode32 ? row.options.only64 : row.options.no64) || EXCLUDED.test(row.name) || hostCannotJudge(row, mode32)) return false;
  if (row.operands.some((spec) => VECTOR_PLACES.test(spec.place) || /[SCD]/.test(spec.place))) return false;
  return row.encoding.match(/^(D[89A-F]|9B)/) === null;
}

const reason = unavailable();

function compareWithHost(compile: boolean, mode32: boolean, perRow: number): void {
  const random = new Random(SEED);
  const rows: Row[] = [];
  const cases: Case[] = [];
  for (const row of X86_ROWS.filter((row) => testable(row, mode32))) {
    for (let i = 0; i < perRow; i++) {
      const one = makeCase(row, random, mode32);
      if (undefinedResult(row, one)) continue;
      rows.push(row);
      cases.push(one);
    }
  }
  const guest = new Guest({ compile, mode32 });
  const failures = new Map<string, string>();
  let faults = 0;
  runNative(cases).forEach((native, i) => {
    const before = cases[i]!;
    const ours = guest.run(before);
    if (native.signal !== SIGTRAP) faults++;
    const list = differences(maskOf(rows[i]!, before) | DF, rows[i]!.options.f64 ?? false, native, ours);
    if (list.length === 0 || isVendorsAffair(rows[i]!, before, native, ours)) return;
    const bytes = Buffer.from(before.code).toString('hex');
    const key = before.name;
    if (!failures.has(key))
      failures.set(
        key,
        `${key}  ${bytes}: ${list.slice(0, 5).join('; ')} (before: flags ${before.flags.toString(16)} rax ${hex(before.gpr[0]!)} rcx ${hex(before.gpr[1]!)})`,
      );
  });
  const summary = `${cases.length} cases, ${faults} faulted, ${guest.notCompiled} not compiled`;
  if (process.env.VIRELAY_FUZZ_VERBOSE) console.log(summary);
  assert.equal(failures.size, 0, `native / translated differ; ${summary}\n${[...failures.values()].join('\n')}`);
}

const options = { skip: reason ?? false };

for (const mode32 of [false, true]) {
  const name = `integer instructions of ${mode32 ? 32 : 64}-bit code do what the host CPU does`;
  test(`interpreted ${name}`, options, () => {
    compareWithHost(false, mode32, CASES_PER_ROW);
  });
  test(`compiled ${name}`, options, () => {
    compareWithHost(true, mode32, Math.ceil(CASES_PER_ROW / 12));
  });
}

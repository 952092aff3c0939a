/** The host's CPU judges the integer instructions: same bytes, registers, flags and memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { X86_ROWS } from '../../src/isa/x86/rows.ts';
import type { Row } from '../../src/isa/x86/tables.ts';
import { differences, hex } from './compare.ts';
import { Random, makeCase } from './generate.ts';
import { Guest, UNSUPPORTED } from './guest.ts';
import { SIGTRAP, runNative, unavailable } from './native.ts';
import type { Case } from './native.ts';

const CASES_PER_ROW = Number(process.env.VIRELAY_FUZZ_CASES ?? 60);
const SEED = Number(process.env.VIRELAY_FUZZ_SEED ?? 20260101);

const OF = 0x800;
const SF = 0x80;
const ZF = 0x40;
const AF = 0x10;
const PF = 0x04;
const CF = 0x01;
const DF = 0x400;
const ALL = OF | SF | ZF | AF | PF | CF;

/** Flags that the manual leaves undefined (SDM vol. 2, each instruction's page). */
function undefinedFlags(name: string, code: Uint8Array): number {
  if (/^(AND|OR|XOR|TEST|ANDN)$/.test(name)) return AF | (name === 'ANDN' ? PF : 0);
  if (/^(MUL|IMUL)$/.test(name)) return SF | ZF | AF | PF;
  if (/^(DIV|IDIV)$/.test(name)) return ALL;
  if (/^(SHL|SHR|SAR)$/.test(name)) return AF | OF | (code.length > 0 ? CF : 0);
  if (/^(SHLD|SHRD)$/.test(name)) return AF | OF;
  if (/^(ROL|ROR|RCL|RCR)$/.test(name)) return OF;
  if (/^BT[SRC]?$/.test(name)) return OF | SF | AF | PF;
  if (/^BS[FR]$/.test(name)) return OF | SF | AF | PF | CF;
  if (/^(TZCNT|LZCNT)$/.test(name)) return OF | SF | AF | PF;
  if (/^BLS|BZHI/.test(name)) return AF | PF;
  if (/^(DAA|DAS)$/.test(name)) return OF;
  if (/^(AAA|AAS)$/.test(name)) return OF | SF | ZF | PF;
  if (/^(AAM|AAD)$/.test(name)) return OF | AF | CF;
  if (name === 'BEXTR') return SF | AF | PF;
  return 0;
}

/** Instructions that differ by nature between the two, or that would end the test program. */
const EXCLUDED =
  /^(CPUID|RD|WR|XGETBV|SYSCALL|SYSENTER|SYSEXIT|SYSRET|INT|INTO|HLT|IN|OUT|INS|OUTS|INB|OUTB|INSB|OUTSB|XSAVE|FX|XRSTOR|CLFLUSH|CLWB|SGDT|SIDT|SLDT|STR|SMSW|LAR|LSL|VERR|VERW|MONITOR|MWAIT|POPF|JMPF|CALLF|RETF|IRET|LSS|LFS|LGS|POP FS|POP GS|PUSH FS|PUSH GS|UD|LDMXCSR|STMXCSR|STAC|CLAC|STI|CLI|RSM|PREFETCHW|SWAPGS|INV|WBINVD|CLTS|LMSW|L[GI]DT|LLDT|LTR|NOP|BOUND|ARPL|PUSH ES|PUSH CS|PUSH SS|PUSH DS|POP ES|POP SS|POP DS|LES|LDS)/;

/** Rows that this test leaves to the tests of their own groups. */
const VECTOR_PLACES = /[VWUHPQN]/;

function testable(row: Row, mode32: boolean): boolean {
  if ((mode32 ? row.options.only64 : row.options.no64) || EXCLUDED.test(row.name)) return false;
  if (row.operands.some((spec) => VECTOR_PLACES.test(spec.place) || /[SCD]/.test(spec.place))) return false;
  return row.encoding.match(/^(D[89A-F]|9B)/) === null;
}

/** Bits of a shift's count, where CF and OF depend on it; -1 when the row is no shift. */
function shiftCount(row: Row, one: Case): number {
  if (!/^(SHL|SHR|SAR|SHLD|SHRD|ROL|ROR|RCL|RCR)$/.test(row.name)) return -1;
  const last = row.operands.at(-1)!;
  if (last.place === '1') return 1;
  return last.place === 'c' ? Number(one.gpr[1]! & 0xffn) : one.code.at(-1)!;
}

function maskOf(row: Row, one: Case): number {
  let mask = undefinedFlags(row.name, one.code);
  const wide = !one.mode32 && one.code.some((byte) => (byte & 0xf8) === 0x48);
  const count = shiftCount(row, one);
  if (count < 0) return ALL & ~mask;
  const masked = count & (wide ? 63 : 31);
  if (masked === 0) return ALL;
  if (masked === 1) mask &= ~(OF | CF);
  else if (!/^SH[LR]D$/.test(row.name) && masked < 8) mask &= ~CF;
  return ALL & ~mask;
}

const reason = unavailable();

/** The manual leaves 16-bit double shifts by more than 16 undefined. */
function undefinedResult(row: Row, one: Case): boolean {
  if (!/^SH[LR]D$/.test(row.name)) return false;
  return one.code[0] === 0x66 && (shiftCount(row, one) & 31) > 16;
}

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
  const guest = new Guest(compile, mode32);
  const failures = new Map<string, string>();
  let skipped = 0;
  let faults = 0;
  runNative(cases).forEach((native, i) => {
    const before = cases[i]!;
    const ours = guest.run(before);
    if (ours.signal === UNSUPPORTED) return void skipped++;
    if (native.signal !== SIGTRAP) faults++;
    const list = differences(maskOf(rows[i]!, before) | DF, rows[i]!.options.f64 ?? false, native, ours);
    if (list.length === 0) return;
    const bytes = Buffer.from(before.code).toString('hex');
    const key = before.name;
    if (!failures.has(key)) failures.set(key, `${key}  ${bytes}: ${list.slice(0, 5).join('; ')} (before: flags ${before.flags.toString(16)} rax ${hex(before.gpr[0]!)} rcx ${hex(before.gpr[1]!)})`);
  });
  const summary = `${cases.length} cases, ${skipped} left to system code, ${faults} faulted, ${guest.notCompiled} not compiled`;
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

/**
 * Cases made from the instruction table, run on the host's CPU and here, interpreted and compiled.
 * Every round has a case of each row that user mode can run, and sequences of several instructions.
 */
import { allRows } from '../../src/isa/x86/rows.ts';
import type { Row } from '../../src/isa/x86/tables.ts';
import { Random } from './generate.ts';
import { Guest } from './guest.ts';
import { hostFaultsOtherwise } from './host-cpu.ts';
import { maskOf } from './integer-cases.ts';
import { compareJudged, describeCase, exclusion, judgedCase, kindOf } from './judge.ts';
import type { Judged } from './judge.ts';
import { SIGTRAP, runNative } from './native.ts';
import type { Case } from './native.ts';
import { APPROXIMATE, AlignedRandom, mmxDifferences, vectorCase, vectorDifferences } from './vector-cases.ts';

const X86_ROWS = allRows();

export interface FuzzOptions {
  readonly seed: number;
  /** How long, in seconds; a round that has begun is finished. */
  readonly seconds: number;
  /** Names of rows. */
  readonly only: RegExp;
  /** At most so many rounds. */
  readonly rounds: number;
  /** Of the cases of a round so many are compiled, too: one in this number. */
  readonly compileOneIn: number;
}

/** What a row was judged by. */
export interface Coverage {
  readonly row: Row;
  /** Cases in 64-bit and in 32-bit code. */
  readonly cases: [number, number];
  register: number;
  memory: number;
  faults: number;
  compiled: number;
  differences: number;
  /** Why it was not judged, by mode. */
  readonly excluded: [string | null, string | null];
}

export interface FuzzResult {
  readonly coverage: readonly Coverage[];
  /** A line for each instruction, or sequence, that differs. */
  readonly failures: readonly string[];
  readonly cases: number;
  readonly rounds: number;
}

const MODES = [false, true];
const SEQUENCES_PER_ROUND = 300;
const LONGEST = 31;

/** Rows that leave nothing undefined, and do not branch: what sequences are made of. */
function inSequences(row: Row, random: Random): boolean {
  if (exclusion(row, false) !== null || kindOf(row) === 'x87' || APPROXIMATE.test(row.name) || row.options.vsib) return false;
  if (hostFaultsOtherwise(row)) return false;
  if (row.options.f64 || row.options.d64 || /^(J|LOOP|CALL|RET|INT|UD|HLT|IN|OUT|ENTER|LEAVE|XLAT|BOUND|CMPXCHG)/.test(row.name))
    return false;
  if (row.operands.some((spec) => spec.place === 'O' || spec.place === 'J')) return false;
  if (kindOf(row) === 'vector') return !/^(LDMXCSR|STMXCSR|V?MASKMOV|V?PCMP[EI]STR)/.test(row.name);
  const one = judgedCase(row, random, false);
  return one !== null && maskOf(row, one.before) === ARITHMETIC && !/^(SH[LR]|SAR|RO[LR]|RC[LR])D?$/.test(row.name);
}

const ARITHMETIC = 0x8d5;

export class Fuzz {
  private readonly options: FuzzOptions;
  private readonly random: Random;
  private readonly rows: readonly Row[];
  private readonly sequenceRows: readonly Row[];
  private readonly coverage = new Map<Row, Coverage>();
  private readonly failures = new Map<string, string>();
  /** For each mode: all that there are, the interpreted one first, and the others by what they are. */
  private readonly guests: readonly (readonly [how: string, guest: Guest][])[];
  private cases = 0;

  constructor(options: FuzzOptions) {
    this.options = options;
    this.random = new AlignedRandom(options.seed);
    this.rows = X86_ROWS.filter((row) => options.only.test(row.name));
    this.sequenceRows = this.rows.filter((row) => inSequences(row, this.random));
    for (const row of this.rows) {
      this.coverage.set(row, {
        row,
        cases: [0, 0],
        register: 0,
        memory: 0,
        faults: 0,
        compiled: 0,
        differences: 0,
        excluded: [exclusion(row, false), exclusion(row, true)],
      });
    }
    this.guests = MODES.map((mode32) => [
      ['interpreted', new Guest({ compile: false, mode32 })],
      ['compiled', new Guest({ compile: true, mode32 })],
      ["as the host's code", new Guest({ compile: false, native: true, mode32 })],
    ]);
  }

  run(): FuzzResult {
    const { seconds, rounds } = this.options;
    const end = performance.now() + seconds * 1000;
    let round = 0;
    do this.round();
    while (++round < rounds && performance.now() < end);
    return { coverage: [...this.coverage.values()], failures: [...this.failures.values()], cases: this.cases, rounds: round };
  }

  private round(): void {
    const judged: Judged[] = [];
    for (const mode32 of MODES) {
      for (const row of this.rows) {
        if (exclusion(row, mode32) !== null) continue;
        const one = judgedCase(row, this.random, mode32);
        if (one) judged.push(one);
      }
    }
    const sequences = this.sequenceRows.length === 0 ? [] : Array.from({ length: SEQUENCES_PER_ROUND }, () => this.sequence());
    const natives = runNative([...judged.map((one) => one.before), ...sequences]);
    judged.forEach((one, i) => this.judge(one, natives[i]!));
    sequences.forEach((one, i) => this.judgeSequence(one, natives[judged.length + i]!));
  }

  private guestsOf(one: Case): (readonly [how: string, guest: Guest])[] {
    const guests = this.guests[one.mode32 ? 1 : 0]!;
    return guests.slice(0, this.random.below(this.options.compileOneIn) === 0 ? guests.length : 1);
  }

  private judge(one: Judged, native: Case): void {
    const { before, row } = one;
    const entry = this.coverage.get(row)!;
    this.cases++;
    entry.cases[before.mode32 ? 1 : 0]++;
    if (!row.hasModrm || row.modrm >= 0 || row.form === 2) entry.register++;
    else if (row.form === 1 || !isRegisterForm(row, before.code)) entry.memory++;
    else entry.register++;
    if (native.signal !== SIGTRAP) entry.faults++;
    for (const [how, guest] of this.guestsOf(before)) {
      if (how === 'compiled') entry.compiled++;
      const list = compareJudged(one, structuredClone(native), guest.run(before, one.exact));
      if (list.length === 0) continue;
      entry.differences++;
      const text = `${how} ${before.name}: ${list.slice(0, 4).join('; ')}: ${describeCase(one)}`;
      if (!this.failures.has(before.name)) this.failures.set(before.name, text);
    }
  }

  /** Several instructions; whatever registers they leave is what the next ones address memory by. */
  private sequence(): Case {
    const { random } = this;
    const rows: string[] = [];
    const pick = (): Row => this.sequenceRows[random.below(this.sequenceRows.length)]!;
    const start = vectorCase(pick(), random, false);
    const code: number[] = [];
    while (code.length < LONGEST && rows.length < 6) {
      const row = pick();
      const one = kindOf(row) === 'vector' ? vectorCase(row, random, false) : judgedCase(row, random, false)?.before;
      if (!one || code.length + one.code.length > LONGEST) break;
      code.push(...one.code);
      rows.push(row.name);
      if (rows.length === 1) one.gpr.forEach((value, i) => void (start.gpr[i] = value));
    }
    return { ...start, name: `sequence ${rows.join(', ')}`, code: Uint8Array.from(code) };
  }

  private judgeSequence(before: Case, native: Case): void {
    this.cases++;
    for (const [how, guest] of this.guestsOf(before)) {
      const ours = guest.run(before, false);
      const list = compareJudged({ row: this.sequenceRows[0]!, before, exact: false }, structuredClone(native), ours);
      if (native.signal === SIGTRAP) {
        list.push(...vectorDifferences(this.sequenceRows[0]!, native, ours), ...mmxDifferences(native, ours));
      }
      if (list.length === 0) continue;
      const text = `${how} ${before.name}: ${list.slice(0, 4).join('; ')}: ${describeCase({ row: this.sequenceRows[0]!, before, exact: false })}`;
      if (this.failures.size < MOST_FAILURES) this.failures.set(text, text);
    }
  }
}

const MOST_FAILURES = 200;

/** Does the ModRM byte of these instruction bytes name a register? It follows the opcode. */
function isRegisterForm(row: Row, code: Uint8Array): boolean {
  for (let at = code.length - 2; at >= 0; at--) {
    if (code[at] === row.opcode || (code[at]! >= row.opcode && code[at]! < row.opcode + row.opcodes)) {
      if (isOpcodeAt(row, code, at)) return code[at + 1]! >= 0xc0;
    }
  }
  return false;
}

/** The bytes before must be those of the map (or a VEX prefix). */
function isOpcodeAt(row: Row, code: Uint8Array, at: number): boolean {
  if (row.space !== 0) return code[at - 3] === 0xc4;
  const map = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][row.map]!;
  return map.every((byte, i) => code[at - map.length + i] === byte);
}

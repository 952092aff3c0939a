/** For each row of the instruction table: can the host's user mode judge it, by which cases, and what must agree. */
import { CC_FLAGS } from '../../src/isa/x86/state.ts';
import type { Row } from '../../src/isa/x86/tables.ts';
import { differences } from './compare.ts';
import { makeCase } from './generate.ts';
import type { Random } from './generate.ts';
import { hostCannotJudge, isVendorsAffair } from './host-cpu.ts';
import { DF, maskOf, undefinedResult } from './integer-cases.ts';
import { SIGTRAP } from './native.ts';
import type { Case } from './native.ts';
import {
  APPROXIMATE,
  LANES,
  describeVectors,
  mmxDifferences,
  mxcsrDifferences,
  vectorCase,
  vectorDifferences,
} from './vector-cases.ts';
import { fpuDifferences, withoutPointers, x87Case } from './x87-cases.ts';

export type Kind = 'integer' | 'vector' | 'x87';

export function kindOf(row: Row): Kind {
  if (/^D[89A-F] /.test(row.encoding)) return 'x87';
  return /^(EMMS|VZERO|LDMXCSR|STMXCSR)/.test(row.name) || row.operands.some((spec) => /[VWUHPQNL]/.test(spec.place))
    ? 'vector'
    : 'integer';
}

/** Why rows cannot be judged in user mode. */
const EXCLUDED: readonly (readonly [reason: string, names: RegExp])[] = [
  ['tells of the host', /^(CPUID|RDTSCP?|RDPID|RDRAND|RDSEED|RDPMC|XGETBV|S[GI]DT|SLDT|STR|SMSW|LAR|LSL|VER[RW]|RD[FG]SBASE)$/],
  ["calls the host's kernel", /^(SYSCALL|SYSENTER|INT)$/],
  ['changes what the test program lives on', /^(WR[FG]SBASE|POP [DEFGS]S|L[DEFGS]S|XRSTORS?|FXRSTOR|JMPF|CALLF|RETF|IRET|POPF)$/],
  ["writes an image with components that are the host's", /^(XSAVE|XSAVEC|XSAVEOPT|XSAVES|FXSAVE)$/],
  ['is not the same on all hosts', /^(MONITOR|MWAIT|SERIALIZE|SYSRET)$/],
];

/** @returns why this row cannot be judged, or null */
export function exclusion(row: Row, mode32: boolean): string | null {
  if (mode32 ? row.options.only64 : row.options.no64) return 'not in this mode';
  if (row.operands[0]?.place === 'S') return 'changes what the test program lives on';
  return EXCLUDED.find(([, names]) => names.test(row.name))?.[0] ?? hostCannotJudge(row, mode32);
}

/** String instructions with REP run a few times. */
function withRepeat(one: Case, random: Random): Case {
  one.gpr[1] = BigInt(random.below(12));
  return { ...one, code: Uint8Array.from([random.chance(50) ? 0xf3 : 0xf2, ...one.code]) };
}

const STRINGS = /^(MOVS|CMPS|STOS|LODS|SCAS)[BWDQ]?$/;

/** Prefixes that change nothing, or make the instruction an invalid one. */
function withPrefixes(row: Row, one: Case, random: Random): Case {
  const { code } = one;
  if (code.length > 13 || row.operands.some((spec) => /[JO]/.test(spec.place))) return one;
  const memory = row.hasModrm && row.form !== 2;
  const bytes: number[] = [];
  if (row.options.lock && random.chance(20)) bytes.push(0xf0);
  else if (random.chance(1)) bytes.push(0xf0);
  if (memory && random.chance(6)) bytes.push([0x26, 0x2e, 0x36, 0x3e][random.below(4)]!);
  // With 32-bit addresses registers count by their lower halves: the data lies below 4 GiB.
  if (memory && !one.mode32 && random.chance(4)) bytes.push(0x67);
  return { ...one, code: Uint8Array.from([...bytes, ...code]) };
}

export interface Judged {
  readonly row: Row;
  readonly before: Case;
  /** MXCSR's flags must agree. */
  readonly exact: boolean;
}

const PLAIN_MXCSR = 0x1f80;

function setMxcsr(one: Case, value: number): void {
  new DataView(one.fx.buffer, one.fx.byteOffset).setUint32(24, value, true);
}

/** A random case of a row, or null when chance made one whose result is undefined. */
export function judgedCase(row: Row, random: Random, mode32: boolean): Judged | null {
  const kind = kindOf(row);
  if (kind === 'x87') return { row, before: x87Case(row, random, mode32), exact: false };
  if (kind === 'vector') {
    const before = withPrefixes(row, vectorCase(row, random, mode32), random);
    const exact = random.chance(40);
    const masks = random.chance(60) ? PLAIN_MXCSR : random.next() & PLAIN_MXCSR;
    setMxcsr(before, exact ? masks | (random.next() & 0xe07f & (random.chance(50) ? 0x3f : -1)) : PLAIN_MXCSR);
    return { row, before, exact };
  }
  const plain = makeCase(row, random, mode32);
  if (undefinedResult(row, plain)) return null;
  const repeat = STRINGS.test(row.name) && random.chance(40);
  return { row, before: repeat ? withRepeat(plain, random) : withPrefixes(row, plain, random), exact: false };
}

function vectorResults(row: Row, native: Case, ours: Case, exact: boolean): string[] {
  const list = native.signal === SIGTRAP ? [...vectorDifferences(row, native, ours), ...mmxDifferences(native, ours)] : [];
  return exact ? [...list, ...mxcsrDifferences(native, ours)] : list;
}

/** What differs after a case. */
export function compareJudged({ row, before, exact }: Judged, native: Case, ours: Case): string[] {
  const kind = kindOf(row);
  if (isVendorsAffair(row, before, native, ours)) return [];
  if (kind === 'integer') {
    // Without anything to adjust, ARPL needs no permission to write on some processors.
    if (row.name === 'ARPL' && native.signal === SIGTRAP && ours.vector === 14) return [];
    return differences(maskOf(row, before) | DF, row.options.f64 ?? false, native, ours);
  }
  if (kind === 'vector') {
    const skip = APPROXIMATE.test(row.name) || (row.options.vsib === true && native.signal !== SIGTRAP);
    const rules = { skip, pageOnly: LANES.test(row.name) };
    return [...differences(CC_FLAGS, false, native, ours, rules), ...vectorResults(row, native, ours, exact)];
  }
  withoutPointers(row, native);
  withoutPointers(row, ours);
  const list = differences(CC_FLAGS, false, native, ours);
  if (native.signal === ours.signal || native.signal === SIGTRAP) list.push(...fpuDifferences(row, native, ours));
  return list;
}

/** One line on the state before. */
export function describeCase({ before }: Judged): string {
  const gpr = before.gpr.map((value) => value.toString(16)).join(' ');
  const mxcsr = new DataView(before.fx.buffer, before.fx.byteOffset).getUint32(24, true).toString(16);
  return `${before.mode32 ? '32' : '64'}-bit ${describeVectors(before)} gpr ${gpr} flags ${before.flags.toString(16)} mxcsr ${mxcsr}`;
}

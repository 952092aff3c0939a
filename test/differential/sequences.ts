/** Short sequences of system and ordinary instructions for each mode. */
import { allRows } from '../../src/isa/x86/rows.ts';
import type { Row } from '../../src/isa/x86/tables.ts';
import type { Random } from '../native/generate.ts';
import { WINDOW } from '../native/native.ts';
import { maskOf } from '../native/integer-cases.ts';
import { exclusion, judgedCase, kindOf } from '../native/judge.ts';
import { is16, is64, isUser, type Mode, SELECTORS } from './guest.ts';

const X86_ROWS = allRows();

export interface Sequence {
  readonly name: string;
  readonly code: Uint8Array;
  /** General registers that its operands want; null for any. */
  readonly gpr: readonly bigint[] | null;
  /** Bits of RFLAGS that it leaves undefined. */
  readonly undefinedFlags: number;
}

const ARITHMETIC = 0x8d5;
/** Branches, the stack's frames and ports; what a processor answers by what it is. */
const LEFT_OUT = /^(J|LOOP|CALL|RET|INT|IN|INS|OUT|OUTS|HLT|MONITOR|MWAIT|CMPXCHG|XCHG8|PREFETCH|UD|SYSEXIT)/;

function usable(row: Row, mode32: boolean): boolean {
  if (exclusion(row, mode32) !== null || LEFT_OUT.test(row.name) || kindOf(row) !== 'integer' || row.options.vsib) return false;
  return !row.operands.some((spec) => /[OJSCD]/.test(spec.place)) && !row.options.f64;
}

/** What sequences are made of. */
export interface Choice {
  readonly narrow: readonly Row[];
  readonly wide: readonly Row[];
}

/** @param has which CPU features there are: a KVM may run also what it does not tell of */
export function choiceFor(has: (feature: string) => boolean): Choice {
  const needs = ({ name, options }: Row): string[] =>
    /^(STAC|CLAC)$/.test(name) ? ['smap'] : (options.feature?.split(' ') ?? []);
  const rows = X86_ROWS.filter((row) => needs(row).every(has));
  return { narrow: rows.filter((row) => usable(row, true)), wide: rows.filter((row) => usable(row, false)) };
}

type Ordinary = { name: string; code: readonly number[]; gpr: readonly bigint[]; undefinedFlags: number };

function ordinary(mode: Mode, random: Random, choice: Choice): Ordinary | null {
  const rows = is64(mode) ? choice.wide : choice.narrow;
  const row = rows[random.below(rows.length)]!;
  const judged = judgedCase(row, random, !is64(mode));
  if (judged === null) return null;
  const { before } = judged;
  // What LOCK may stand before is for test/native to tell.
  if (before.code[0] === 0xf0) return null;
  return { name: row.name, code: [...before.code], gpr: before.gpr, undefinedFlags: ARITHMETIC & ~maskOf(row, before) };
}

/** Register forms of 16-bit code, and memory through BX and SI. */
function ordinary16(random: Random): { name: string; code: number[] } {
  const memory = random.chance(30);
  const modrm = (memory ? random.below(8) : 0xc0 | random.below(8)) | (random.below(8) << 3);
  // Without a displacement, 6 is an address by itself.
  const safe = memory && (modrm & 7) === 6 ? modrm & ~7 : modrm;
  const operation = random.below(8);
  const byte = random.below(2);
  const prefix = random.chance(30) ? [0x66] : [];
  const choices: readonly (readonly [string, readonly number[]])[] = [
    ['arithmetic', [...prefix, operation * 8 + byte + 2 * random.below(2), safe]],
    ['MOV', [...prefix, 0x88 + byte + 2 * random.below(2), safe]],
    ['INC', [...prefix, 0x40 + random.below(16)]],
    ['PUSH', [...prefix, 0x50 + random.below(4)]],
    ['POP', [...prefix, 0x58 + random.below(4)]],
    ['NEG', [...prefix, 0xf6 + byte, (safe & 0xc7) | 0x18]],
    ['XCHG', [...prefix, 0x86 + byte, safe]],
    ['MOVZX', [...prefix, 0x0f, 0xb6 + byte, safe]],
    ['CBW', [...prefix, 0x98 + byte]],
    ['LEA', [...prefix, 0x8d, safe & 0x3f]],
  ];
  const [name, code] = choices[random.below(choices.length)]!;
  return { name, code: [...code] };
}

/** MSRs that a sequence reads or writes, and values that may be in them. */
const MSRS = [
  0xc0000080, 0xc0000081, 0xc0000082, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0x174, 0x175, 0x176, 0x277, 0xc0000103,
  0x12345,
];

type System = readonly [name: string, make: (random: Random, mode: Mode) => readonly number[], only?: (mode: Mode) => boolean];

const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff];
const dword = (value: number): number[] => [...word(value), ...word(value >>> 16)];
const selector = (random: Random): number => SELECTORS[random.below(SELECTORS.length)]!;
/** mov eax, value; in 16-bit code with its prefix. */
const load = (mode: Mode, register: number, value: number): number[] => [
  ...(is16(mode) ? [0x66] : []),
  0xb8 + register,
  ...dword(value),
];
const register = (random: Random): number => 0xc0 | random.below(8) | (random.below(8) << 3);
const kernel = (mode: Mode): boolean => !isUser(mode);
/** An operand in the data. */
const memory = (mode: Mode, digit: number): number[] =>
  is16(mode)
    ? [(digit << 3) | 6, ...word(0x800)]
    : is64(mode)
      ? [(digit << 3) | 4, 0x25, ...dword(WINDOW + 64)]
      : [(digit << 3) | 5, ...dword(WINDOW + 64)];

const SYSTEM: readonly System[] = [
  ['MOV r,CR', (random) => [0x0f, 0x20, 0xc0 | ([0, 2, 3, 4][random.below(4)]! << 3) | random.below(4)]],
  ['MOV CR2', (random, mode) => [...load(mode, 0, random.next()), 0x0f, 0x22, 0xd0]],
  ['MOV CR0', (random, mode) => [0x0f, 0x20, 0xc0, ...flip(mode, [1, 2, 3, 16, 18, 5][random.below(6)]!), 0x0f, 0x22, 0xc0]],
  ['MOV CR4', (random, mode) => [0x0f, 0x20, 0xe0, ...flip(mode, [2, 3, 7, 9, 10, 18, 31][random.below(7)]!), 0x0f, 0x22, 0xe0]],
  ['MOV CR3', () => [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8], kernel],
  ['MOV r,DR', (random) => [0x0f, 0x21, 0xc0 | (random.below(8) << 3) | random.below(4)]],
  ['MOV DR', (random, mode) => [...load(mode, 0, random.next()), 0x0f, 0x23, 0xc0 | (random.below(4) << 3)]],
  ['MOV DR6', (random, mode) => [...load(mode, 0, random.next()), 0x0f, 0x23, 0xf0]],
  ['CLTS', () => [0x0f, 0x06]],
  ['SMSW', (random) => [0x0f, 0x01, 0xe0 | random.below(4)]],
  ['SMSW m', (_, mode) => [0x0f, 0x01, ...memory(mode, 4)]],
  [
    'LMSW',
    (random, mode) => [...load(mode, 0, random.below(16) | (mode === 'real16' ? 0 : 1)), 0x0f, 0x01, 0xf0],
    (mode) => mode !== 'real16',
  ],
  ['SGDT', (_, mode) => [0x0f, 0x01, ...memory(mode, 0)]],
  ['SIDT', (_, mode) => [0x0f, 0x01, ...memory(mode, 1)]],
  ['SGDT, LGDT', (_, mode) => [0x0f, 0x01, ...memory(mode, 0), 0x0f, 0x01, ...memory(mode, 2)]],
  ['SIDT, LIDT', (_, mode) => [0x0f, 0x01, ...memory(mode, 1), 0x0f, 0x01, ...memory(mode, 3)]],
  ['SLDT', (random) => [0x0f, 0x00, 0xc0 | random.below(4)]],
  ['STR', (random) => [0x0f, 0x00, 0xc8 | random.below(4)]],
  ['LLDT', (random, mode) => [...load(mode, 0, selector(random)), 0x0f, 0x00, 0xd0]],
  ['LTR', (random, mode) => [...load(mode, 0, selector(random)), 0x0f, 0x00, 0xd8]],
  ['VERR', (random, mode) => [...load(mode, 0, selector(random)), 0x0f, 0x00, 0xe0]],
  ['VERW', (random, mode) => [...load(mode, 0, selector(random)), 0x0f, 0x00, 0xe8]],
  ['LAR', (random, mode) => [...load(mode, 0, selector(random)), 0x0f, 0x02, 0xc8]],
  ['LSL', (random, mode) => [...load(mode, 0, selector(random)), 0x0f, 0x03, 0xc8]],
  [
    'MOV Sreg',
    (random, mode) => [
      ...load(mode, 0, is16(mode) ? random.below(0x1000) : selector(random)),
      0x8e,
      0xc0 | ([0, 2, 3, 4, 5][random.below(5)]! << 3),
    ],
  ],
  ['MOV r,Sreg', (random) => [0x8c, 0xc0 | (random.below(6) << 3) | random.below(4)]],
  ['PUSH Sreg, POP Sreg', (random) => [0x0f, random.chance(50) ? 0xa0 : 0xa8, 0x0f, random.chance(50) ? 0xa1 : 0xa9]],
  ['PUSH ES, POP DS', () => [0x06, 0x1f], (mode) => !is64(mode)],
  ['PUSHF', () => [0x9c]],
  ['PUSHF, POPF', (random, mode) => [...(is16(mode) || random.chance(70) ? [] : [0x66]), 0x9c, 0x9d]],
  [
    'PUSH, POPF',
    (random, mode) =>
      (is16(mode) ? [0x68, ...word(random.next() & ~0x100)] : [0x68, ...dword(random.next() & 0x7e_fe_ff)]).concat(0x9d),
  ],
  ['CLI', () => [0xfa]],
  ['STI', () => [0xfb]],
  ['STI, NOP', () => [0xfb, 0x90]],
  ['INT3', () => [0xcc]],
  ['INT n', (random) => [0xcd, random.below(256)]],
  ['INTO', () => [0xce], (mode) => !is64(mode)],
  ['INT1', () => [0xf1]],
  ['UD2', () => [0x0f, 0x0b]],
  ['INVLPG', (_, mode) => [0x0f, 0x01, ...memory(mode, 7)]],
  ['WBINVD', () => [0x0f, 0x09]],
  ['RDMSR', (random, mode) => [...load(mode, 1, MSRS[random.below(MSRS.length)]!), 0x0f, 0x32]],
  ['RDMSR, WRMSR', (random, mode) => [...load(mode, 1, MSRS[random.below(MSRS.length)]!), 0x0f, 0x32, 0x0f, 0x30]],
  [
    'WRMSR',
    (random, mode) => [
      ...load(mode, 1, MSRS[1 + random.below(MSRS.length - 1)]!),
      ...load(mode, 0, random.next()),
      ...load(mode, 2, random.chance(50) ? 0 : random.next()),
      0x0f,
      0x30,
    ],
  ],
  ['SWAPGS', () => [0x0f, 0x01, 0xf8]],
  ['SYSCALL', () => [0x0f, 0x05]],
  ['SYSENTER', () => [0x0f, 0x34]],
  ['XGETBV', (random, mode) => [...load(mode, 1, random.chance(80) ? 0 : 2), 0x0f, 0x01, 0xd0]],
  ['XSETBV', (random, mode) => [...load(mode, 1, 0), ...load(mode, 2, 0), ...load(mode, 0, random.below(8)), 0x0f, 0x01, 0xd1]],
  ['DIV by zero', () => [0x31, 0xc9, 0xf7, 0xf1]],
  ['BOUND', (_, mode) => [0x62, ...memory(mode, 0)], (mode) => !is64(mode)],
  ['ARPL', (random) => [0x63, register(random)], (mode) => !is64(mode)],
  ['FNINIT', () => [0xdb, 0xe3]],
  ['FLD1', () => [0xd9, 0xe8]],
  ['FNSTSW', () => [0xdf, 0xe0]],
  ['MOVAPS', (random) => [0x0f, 0x28, register(random)]],
  ['PADDD', (random) => [0x66, 0x0f, 0xfe, register(random)]],
  ['MOVD', (random) => [0x66, 0x0f, random.chance(50) ? 0x6e : 0x7e, register(random)]],
  [
    'read of what is not there',
    (_, mode) => (is64(mode) ? [0x8b, 0x04, 0x25, ...dword(0x20014000)] : [0xa1, ...dword(0x20014000)]),
    (mode) => !is16(mode),
  ],
  [
    'write of what is read-only',
    (_, mode) => (is64(mode) ? [0x89, 0x04, 0x25, ...dword(0x20013000)] : [0xa3, ...dword(0x20013000)]),
    (mode) => !is16(mode),
  ],
  ['not canonical', () => [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8b, 0x00], is64],
  ['RDGSBASE', (random) => [0xf3, 0x48, 0x0f, 0xae, 0xc8 | random.below(4)], is64],
  [
    'far JMP',
    (random, mode) => [0xea, ...(is16(mode) ? word(0x4000 + 4 * 0xf3) : dword(0x4000 + 4 * 0xf3)), ...word(selector(random))],
    (mode) => !is64(mode),
  ],
  [
    'far CALL',
    (random, mode) => [0x9a, ...(is16(mode) ? word(0x4000 + 4 * 0xf4) : dword(0x4000 + 4 * 0xf4)), ...word(selector(random))],
    (mode) => !is64(mode),
  ],
];

/** Turns a bit of EAX over. */
function flip(mode: Mode, bit: number): number[] {
  // xor eax, bit
  return [...(is16(mode) ? [0x66] : []), 0x35, ...dword(1 << bit)];
}

const LONGEST = 60;
const REPEATED = /^(MOVS|CMPS|STOS|LODS|SCAS)[BWDQ]?$/;

export function makeSequence(mode: Mode, random: Random, choice: Choice): Sequence {
  const names: string[] = [];
  const code: number[] = [];
  let gpr: readonly bigint[] | null = null;
  let undefinedFlags = 0;
  const add = (name: string, bytes: readonly number[]): void => {
    if (code.length + bytes.length > LONGEST) return;
    names.push(name);
    code.push(...bytes);
  };
  const count = 1 + random.below(5);
  while (names.length < count) {
    if (random.chance(55)) {
      const [name, make, only] = SYSTEM[random.below(SYSTEM.length)]!;
      if (only === undefined || only(mode)) add(name, make(random, mode));
    } else if (is16(mode)) {
      const { name, code: bytes } = ordinary16(random);
      add(name, bytes);
    } else {
      const one = ordinary(mode, random, choice);
      // What is undefined is so only at the end: another instruction might use it.
      if (one === null || (one.undefinedFlags !== 0 && names.length > 0)) continue;
      // Nobody knows by then how often it would be repeated.
      if (names.length > 0 && REPEATED.test(one.name)) continue;
      gpr ??= one.gpr;
      undefinedFlags |= one.undefinedFlags;
      add(one.name, one.code);
      if (one.undefinedFlags !== 0) break;
    }
  }
  return { name: names.join('; '), code: Uint8Array.from(code), gpr, undefinedFlags };
}

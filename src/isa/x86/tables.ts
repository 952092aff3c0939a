/**
 * The opcode tables, built from lists of rows.
 *
 * A row says how an instruction is encoded, what its operands are and which function
 * translates it. Each group of instructions has a file with a list of rows (`ALU_ROWS`,
 * ...), and `rows.ts` joins the lists. To add a group (SSE, x87, AVX), export a `Row[]`
 * from a file of its own and add it there.
 *
 * Encoding: words in this order
 *   VEX | VEX.L0.W1     in the VEX space; L0, L1, W0, W1 where they are fixed
 *   NP | 66 | F3 | F2   mandatory prefix; a row without one accepts any (66 and REP then
 *                       have their ordinary meaning). Rows with one are tried first.
 *   0F | 0F38 | 0F3A    opcode map, none for the one-byte map
 *   8B | 50+r | 70+c    opcode; +r = 8 opcodes by register, +c = 16 opcodes by condition
 *   /r | /0 ... /7      a ModRM byte follows; fixed reg field
 *   mem | reg           ModRM must name memory, or a register
 *   =F8                 the whole ModRM byte is fixed
 *   W0 | W1             REX.W must be so
 *
 * Operands, separated by commas: a letter for the place and one for the size.
 *   E general register or memory (ModRM rm)     G general register (ModRM reg)
 *   M memory only        R general register (ModRM rm)      Z register in the opcode
 *   B general register of VEX.vvvv              S segment register (ModRM reg)
 *   C D control, debug register (ModRM reg)     O memory at the address in the instruction
 *   I immediate, sign-extended to operand 0     J branch displacement
 *   A far pointer        L xmm in the upper bits of an immediate byte
 *   AL CL AX DX rAX 1    fixed places
 *   V xmm (ModRM reg)    W xmm or memory (ModRM rm)   U xmm (ModRM rm)   H xmm (VEX.vvvv)
 *   P mmx (ModRM reg)    Q mmx or memory (rm)   N mmx (rm)
 *   sizes: b w d q o(16 bytes) y(32 bytes) = fixed; v = operand size (2, 4, 8); z = the same, 4 at
 *   most; r = 4, with REX.W or VEX.W 8; p = pointer; none = no access of its own (LEA, INVLPG)
 */
import type { X86Translator } from './translator.ts';

export type Translate = (t: X86Translator) => void;

export interface RowOptions {
  /** CPUID features it needs, by the names of system/models.ts. */
  feature?: string;
  /** Operand size is 64 by default in 64-bit mode (stack operations). */
  d64?: boolean;
  /** Operand size is always 64 in 64-bit mode (near branches). */
  f64?: boolean;
  /** Not in 64-bit mode. */
  no64?: boolean;
  /** In 64-bit mode only. */
  only64?: boolean;
  /** May have LOCK when operand 0 is memory. */
  lock?: boolean;
  /** The mod field is ignored: always registers. */
  registerOnly?: boolean;
  /** #UD in real and V86 mode. */
  protectedOnly?: boolean;
  /** The index register of the memory operand is a vector (VSIB). */
  vsib?: boolean;
}

export const SPACE_LEGACY = 0;
export const SPACE_VEX = 1;
export const SPACE_EVEX = 2;

export const MAP_1 = 0;
export const MAP_0F = 1;
export const MAP_0F38 = 2;
export const MAP_0F3A = 3;

export const PREFIX_NONE = 0;
export const PREFIX_66 = 1;
export const PREFIX_F3 = 2;
export const PREFIX_F2 = 3;

/** Sizes of operands that depend on prefixes; positive numbers are bytes. */
export const SIZE_V = -1;
export const SIZE_Z = -2;
export const SIZE_R = -3;
export const SIZE_P = -4;

export interface OperandSpec {
  readonly text: string;
  /** Letter of the place; fixed places: 'a' accumulator, 'c' CL, 'd' DX, '1'. */
  readonly place: string;
  /** Bytes, or SIZE_*; 0 = none. */
  readonly size: number;
}

export interface Row {
  readonly encoding: string;
  readonly name: string;
  readonly space: number;
  readonly map: number;
  readonly opcode: number;
  /** How many opcodes from `opcode` on: 1, 8 or 16. */
  readonly opcodes: number;
  /** PREFIX_*, or -1 for any. */
  readonly prefix: number;
  readonly hasModrm: boolean;
  /** Fixed reg field, or -1. */
  readonly digit: number;
  /** 0 any, 1 memory, 2 register. */
  readonly form: number;
  /** The whole ModRM byte, or -1. */
  readonly modrm: number;
  readonly w: number;
  readonly l: number;
  readonly operands: readonly OperandSpec[];
  /** Operands that are read from the bytes after ModRM. */
  readonly immediates: readonly OperandSpec[];
  /** VEX.vvvv names a register; where it does not it must be 1111. */
  readonly usesV: boolean;
  readonly translate: Translate;
  readonly options: RowOptions;
}

const SIZES: Record<string, number> = {
  '': 0,
  b: 1,
  w: 2,
  d: 4,
  q: 8,
  o: 16,
  y: 32,
  v: SIZE_V,
  z: SIZE_Z,
  r: SIZE_R,
  p: SIZE_P,
};

const FIXED: Record<string, OperandSpec> = {
  AL: { text: 'AL', place: 'a', size: 1 },
  AX: { text: 'AX', place: 'a', size: 2 },
  EAX: { text: 'EAX', place: 'a', size: 4 },
  rAX: { text: 'rAX', place: 'a', size: SIZE_V },
  CL: { text: 'CL', place: 'c', size: 1 },
  DX: { text: 'DX', place: 'd', size: 2 },
  1: { text: '1', place: '1', size: 1 },
};

function parseOperand(text: string): OperandSpec {
  const fixed = FIXED[text];
  if (fixed) return fixed;
  const size = SIZES[text.slice(1)];
  if (size === undefined) throw new Error(`operand ${text}`);
  return { text, place: text[0]!, size };
}

type Operands = Pick<Row, 'operands' | 'immediates' | 'usesV'>;
/** What has been parsed: two thousand rows have a few hundred lists of operands. */
const parsedOperands = new Map<string, Operands>();

function parseOperands(text: string): Operands {
  let parsed = parsedOperands.get(text);
  if (parsed === undefined) {
    const operands = text === '' ? [] : text.split(',').map(parseOperand);
    parsed = {
      operands,
      immediates: operands.filter((operand) => IMMEDIATE_PLACES.includes(operand.place)),
      usesV: operands.some((operand) => operand.place === 'B' || operand.place === 'H'),
    };
    parsedOperands.set(text, parsed);
  }
  return parsed;
}

const MAPS: Record<string, number> = { '0F': MAP_0F, '0F38': MAP_0F38, '0F3A': MAP_0F3A };
const PREFIXES: Record<string, number> = {
  NP: PREFIX_NONE,
  66: PREFIX_66,
  F3: PREFIX_F3,
  F2: PREFIX_F2,
};

interface Encoding {
  space: number;
  map: number;
  opcode: number;
  opcodes: number;
  prefix: number;
  hasModrm: boolean;
  digit: number;
  form: number;
  modrm: number;
  w: number;
  l: number;
}

function parseSuffix(e: Encoding, word: string): void {
  if (word === '/r') e.hasModrm = true;
  else if (word === 'mem') e.form = 1;
  else if (word === 'reg') e.form = 2;
  else if (word === 'W0' || word === 'W1') e.w = Number(word[1]);
  else if (word[0] === '/') {
    e.hasModrm = true;
    e.digit = Number(word[1]);
  } else if (word[0] === '=') {
    e.hasModrm = true;
    e.modrm = parseInt(word.slice(1), 16);
  } else throw new Error(`encoding ${word}`);
}

function parseEncoding(encoding: string): Encoding {
  const e: Encoding = {
    space: SPACE_LEGACY,
    map: MAP_1,
    opcode: -1,
    opcodes: 1,
    prefix: -1,
    hasModrm: false,
    digit: -1,
    form: 0,
    modrm: -1,
    w: -1,
    l: -1,
  };
  for (const word of encoding.split(' ')) {
    if (word.startsWith('VEX')) {
      e.space = SPACE_VEX;
      e.prefix = PREFIX_NONE;
      for (const part of word.split('.').slice(1)) {
        if (part[0] === 'L') e.l = Number(part[1]);
        else e.w = Number(part[1]);
      }
    } else if (e.opcode >= 0) {
      parseSuffix(e, word);
    } else if (word in PREFIXES && e.map === MAP_1) {
      e.prefix = PREFIXES[word]!;
    } else if (word in MAPS && e.map === MAP_1) {
      e.map = MAPS[word]!;
    } else {
      e.opcode = parseInt(word, 16);
      if (word.endsWith('+r')) e.opcodes = 8;
      if (word.endsWith('+c')) e.opcodes = 16;
    }
  }
  return e;
}

const IMMEDIATE_PLACES = 'IJOAL';

type Parsed = Encoding & Operands;

/**
 * A row as it is written. It is parsed when somebody looks: most of two thousand rows are for instructions that a guest never
 * executes, and parsing them all took a fifth of the translator's start.
 */
class WrittenRow implements Row {
  readonly encoding: string;
  readonly name: string;
  readonly translate: Translate;
  readonly options: RowOptions;
  private readonly text: string;
  private read: Parsed | null = null;

  constructor(encoding: string, name: string, operands: string, translate: Translate, options: RowOptions) {
    this.encoding = encoding;
    this.name = name;
    this.text = operands;
    this.translate = translate;
    this.options = options;
  }

  private get parsed(): Parsed {
    return (this.read ??= Object.assign(parseEncoding(this.encoding), parseOperands(this.text)));
  }

  get space(): number {
    return this.parsed.space;
  }
  get map(): number {
    return this.parsed.map;
  }
  get opcode(): number {
    return this.parsed.opcode;
  }
  get opcodes(): number {
    return this.parsed.opcodes;
  }
  get prefix(): number {
    return this.parsed.prefix;
  }
  get hasModrm(): boolean {
    return this.parsed.hasModrm;
  }
  get digit(): number {
    return this.parsed.digit;
  }
  get form(): number {
    return this.parsed.form;
  }
  get modrm(): number {
    return this.parsed.modrm;
  }
  get w(): number {
    return this.parsed.w;
  }
  get l(): number {
    return this.parsed.l;
  }
  get operands(): readonly OperandSpec[] {
    return this.parsed.operands;
  }
  get immediates(): readonly OperandSpec[] {
    return this.parsed.immediates;
  }
  get usesV(): boolean {
    return this.parsed.usesV;
  }
}

/** Describes one instruction form. */
export function row(encoding: string, name: string, operands: string, translate: Translate, options: RowOptions = {}): Row {
  return new WrittenRow(encoding, name, operands, translate, options);
}

/** All forms of one opcode, the most specific first. */
export interface OpcodeEntry {
  readonly rows: Row[];
  hasModrm: boolean;
}

type OpcodeMap = (OpcodeEntry | null)[];

function specificity(r: Row): number {
  return (r.modrm >= 0 ? 4 : 0) + (r.prefix >= 0 ? 2 : 0) + (r.w >= 0 ? 1 : 0);
}

/** The opcode map that an encoding is in; tells without parsing the rest. */
function mapOf(encoding: string): number {
  if (encoding.includes('0F38 ')) return MAP_0F38;
  if (encoding.includes('0F3A ')) return MAP_0F3A;
  return encoding.includes('0F ') ? MAP_0F : MAP_1;
}

function buildMap(rows: readonly Row[]): OpcodeMap {
  const map: OpcodeMap = new Array<OpcodeEntry | null>(256).fill(null);
  for (const r of rows) {
    for (let i = 0; i < r.opcodes; i++) {
      const entry = (map[r.opcode + i] ??= { rows: [], hasModrm: false });
      entry.rows.push(r);
      if (r.hasModrm) entry.hasModrm = true;
    }
  }
  for (const entry of map)
    if (entry !== null && entry.rows.length > 1) entry.rows.sort((x, y) => specificity(y) - specificity(x));
  return map;
}

/** Rows by space, map and opcode. A map is built when its first instruction is decoded. */
export class OpcodeTable {
  private readonly rows: (space: number) => readonly Row[];
  private readonly has: (feature: string) => boolean;
  /** Index: space << 2 | map. */
  private readonly maps: (OpcodeMap | null)[] = new Array<OpcodeMap | null>(3 << 2).fill(null);

  /**
   * @param rows those of a space
   * @param has which CPUID features there are: rows of others are left out, so that they raise #UD, or
   *   mean what the opcode means without them
   */
  constructor(rows: (space: number) => readonly Row[], has: (feature: string) => boolean) {
    this.rows = rows;
    this.has = has;
  }

  find(space: number, map: number, opcode: number): OpcodeEntry | null {
    return (this.maps[(space << 2) | map] ??= this.build(space, map))[opcode]!;
  }

  private build(space: number, map: number): OpcodeMap {
    const present = (r: Row): boolean => r.options.feature === undefined || r.options.feature.split(' ').every(this.has);
    return buildMap(this.rows(space).filter((r) => mapOf(r.encoding) === map && present(r)));
  }
}

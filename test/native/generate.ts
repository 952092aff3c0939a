/** Makes instruction cases from rows of the opcode tables. */
import { PREFIX_66, PREFIX_F2, PREFIX_F3, SIZE_P, SIZE_R, SIZE_V, SIZE_Z, SPACE_VEX } from '../../src/isa/x86/tables.ts';
import type { Row } from '../../src/isa/x86/tables.ts';
import { CODE_START, READ_ONLY, TAIL, WINDOW, YMM_BYTES } from './native.ts';
import type { Case } from './native.ts';

/** A small reproducible generator of random numbers (xorshift). */
export class Random {
  private state: number;
  constructor(seed: number) {
    this.state = seed | 0 || 1;
  }
  next(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x;
    return x >>> 0;
  }
  below(n: number): number {
    return this.next() % n;
  }
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
  /** A 64-bit number, often one at an edge. */
  wide(): bigint {
    const edges = [
      0n,
      1n,
      0xffffffffffffffffn,
      0x80n,
      0x7fn,
      0x8000n,
      0x7fffn,
      0x80000000n,
      0x7fffffffn,
      0xffffffffn,
      0x8000000000000000n,
      0x7fffffffffffffffn,
      0xffn,
      0x10n,
    ];
    if (this.chance(35)) return edges[this.below(edges.length)]!;
    const value = (BigInt(this.next()) << 32n) | BigInt(this.next());
    return this.chance(30) ? value >> BigInt(this.below(64)) : value;
  }
}

/** Where memory operands lie. */
const MIDDLE = BigInt(WINDOW + 256);

function immediateBytes(row: Row, w: boolean, op: boolean, mode32: boolean): number {
  let sum = 0;
  const v = row.options.f64 && !mode32 ? 8 : w ? 8 : op ? 2 : 4;
  for (const spec of row.immediates) {
    if (spec.place === 'O') sum += mode32 ? 4 : 8;
    else if (spec.size === SIZE_V) sum += v;
    else if (spec.size === SIZE_Z || spec.size === SIZE_P) sum += Math.min(4, v);
    else if (spec.place === 'L') sum += 1;
    else if (spec.size === SIZE_R) sum += 4;
    else sum += spec.size;
  }
  return sum;
}

/** How often memory operands lie at the edge of a page that cannot be written, or is not there. */
const EDGE_PERCENT = 4;

/** ModRM byte, SIB byte and displacement; memory operands lie around the window's middle. */
function modrm(row: Row, random: Random, pinned: Map<number, bigint>, registers: number): { bytes: number[]; rex: number } {
  if (row.modrm >= 0) return { bytes: [row.modrm], rex: 0 };
  const reg = row.digit >= 0 ? row.digit : random.below(registers);
  let rex = reg > 7 ? 4 : 0;
  const memory = row.form === 1 || (row.form === 0 && random.chance(40));
  if (!memory) {
    const rm = random.below(registers);
    if (rm > 7) rex |= 1;
    return { bytes: [0xc0 | ((reg & 7) << 3) | (rm & 7)], rex };
  }
  const base = random.below(registers);
  const disp = random.below(64) - 32;
  if (base > 7) rex |= 1;
  pinned.set(base, random.chance(EDGE_PERCENT) ? BigInt(READ_ONLY + 0x1000 * random.below(2) - random.below(48)) : MIDDLE);
  if (row.options.vsib) {
    const index = random.below(registers);
    if (index > 7) rex |= 2;
    return { bytes: [0x40 | ((reg & 7) << 3) | 4, (random.below(4) << 6) | ((index & 7) << 3) | (base & 7), disp & 0xff], rex };
  }
  if ((base & 7) !== 4 && random.chance(60)) {
    return { bytes: [0x40 | ((reg & 7) << 3) | (base & 7), disp & 0xff], rex };
  }
  const index = random.below(registers);
  if (index > 7) rex |= 2;
  if (index !== 4 && !pinned.has(index)) pinned.set(index, BigInt.asUintN(64, BigInt(random.below(9) - 4)));
  const scale = index === base ? -1 : random.below(4);
  const sib = scale < 0 ? (4 << 3) | (base & 7) : (scale << 6) | ((index & 7) << 3) | (base & 7);
  if (scale < 0) rex &= ~2;
  return { bytes: [0x40 | ((reg & 7) << 3) | 4, sib, disp & 0xff], rex };
}

const PREFIX_BYTES: Record<number, number> = { [PREFIX_66]: 0x66, [PREFIX_F3]: 0xf3, [PREFIX_F2]: 0xf2 };
const MAP_BYTES: readonly (readonly number[])[] = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];

function legacy(row: Row, random: Random, pinned: Map<number, bigint>, mode32: boolean): number[] {
  const bytes: number[] = [];
  // With 66, near branches of 64-bit code differ between makers of processors.
  const op = row.prefix < 0 && !row.options.f64 && random.chance(20);
  const registers = mode32 ? 8 : 16;
  let rex = random.chance(40) && row.w !== 0 && !mode32 ? 8 : 0;
  if (row.w === 1) rex = 8;
  if (op) bytes.push(0x66);
  if (row.prefix > 0) bytes.push(PREFIX_BYTES[row.prefix]!);
  const opcode = row.opcode + random.below(row.opcodes);
  const tail: number[] = [];
  if (row.hasModrm) {
    const made = modrm(row, random, pinned, registers);
    tail.push(...made.bytes);
    rex |= made.rex;
  } else if (row.operands.some((spec) => spec.place === 'Z') && !mode32 && random.chance(50)) rex |= 1;
  if (rex !== 0 || (!mode32 && random.chance(20))) bytes.push(0x40 | rex);
  bytes.push(...MAP_BYTES[row.map]!, opcode, ...tail);
  return appendImmediates(row, random, bytes, (rex & 8) !== 0, op, mode32);
}

function vex(row: Row, random: Random, pinned: Map<number, bigint>, mode32: boolean): number[] {
  const made = row.hasModrm ? modrm(row, random, pinned, mode32 ? 8 : 16) : { bytes: [], rex: 0 };
  const w = row.w >= 0 ? row.w : random.below(2);
  const l = row.l >= 0 ? row.l : random.below(2);
  const v = row.usesV ? random.below(mode32 ? 8 : 16) : 0;
  const inverted = ~((made.rex & 4 ? 0x80 : 0) | (made.rex & 2 ? 0x40 : 0) | (made.rex & 1 ? 0x20 : 0)) & 0xe0;
  const bytes = [0xc4, inverted | row.map, (w << 7) | ((~v & 15) << 3) | (l << 2) | row.prefix, row.opcode];
  bytes.push(...made.bytes);
  return appendImmediates(row, random, bytes, w === 1 && !mode32, false, mode32);
}

function appendImmediates(row: Row, random: Random, bytes: number[], w: boolean, op: boolean, mode32: boolean): number[] {
  const count = immediateBytes(row, w, op, mode32);
  const places = row.immediates.map((spec) => spec.place).join('');
  if (places === 'J') {
    // A target among the INT3 around.
    bytes.push(random.below(100), ...new Array<number>(count - 1).fill(0));
  } else if (places === 'O') {
    let at = BigInt(WINDOW + random.below(400));
    for (let i = 0; i < count; i++, at >>= 8n) bytes.push(Number(at & 255n));
  } else for (let i = 0; i < count; i++) bytes.push(random.chance(20) ? 0xff : random.below(256));
  return bytes;
}

/** One random case of a row. */
export function makeCase(row: Row, random: Random, mode32 = false): Case {
  const pinned = new Map<number, bigint>();
  const code = (row.space === SPACE_VEX ? vex : legacy)(row, random, pinned, mode32);
  const gpr = Array.from({ length: 16 }, () => random.wide());
  // Counts are of interest around the operand size.
  if (random.chance(50)) gpr[1] = (gpr[1]! & ~0xffn) | BigInt(random.below(70));
  gpr[4] = MIDDLE - 64n;
  if (/MOVS|CMPS|STOS|LODS|SCAS|XLAT|LEAVE/.test(row.name)) {
    gpr[3] = BigInt(WINDOW + 64);
    gpr[5] = BigInt(WINDOW + 128);
    gpr[6] = BigInt(WINDOW + 64 + random.below(64));
    gpr[7] = BigInt(WINDOW + 256 + random.below(64));
  }
  for (const [n, value] of pinned) gpr[n] = value;
  if (row.operands.some((spec) => spec.place === 'E') && /^(JMP|CALL)$/.test(row.name)) {
    // Indirect branches go to an INT3.
    for (let n = 0; n < 16; n++) if (n !== 4 && !pinned.has(n)) gpr[n] = BigInt(CODE_START + 64 + random.below(100));
  }
  return {
    name: `${row.name} ${row.operands.map((spec) => spec.text).join(',')} [${row.encoding}]`,
    code: Uint8Array.from(code),
    mode32,
    gpr: mode32 ? gpr.map((value, n) => (n < 8 ? value & 0xffffffffn : 0n)) : gpr,
    rip: BigInt(CODE_START),
    flags: 0x202 | (random.next() & 0x8d5) | (/MOVS|CMPS|STOS|LODS|SCAS/.test(row.name) ? random.next() & 0x400 : 0),
    signal: 0,
    fx: blankFx(random),
    data: /^(JMP|CALL|RET)$/.test(row.name) ? codeAddresses() : randomData(random),
    ymm: randomBytes(random, YMM_BYTES),
    tail: randomBytes(random, TAIL),
    vector: 0,
    error: 0,
    address: 0n,
  };
}

function blankFx(random: Random): Uint8Array {
  const fx = new Uint8Array(512);
  fx[0] = 0x7f;
  fx[1] = 0x03;
  fx[24] = 0x80;
  fx[25] = 0x1f;
  for (let i = 160; i < 416; i++) fx[i] = random.below(256);
  return fx;
}

export function randomBytes(random: Random, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, () => random.below(256));
}

function randomData(random: Random): Uint8Array {
  const data = new Uint8Array(512);
  for (let i = 0; i < 512; i += 8) {
    new DataView(data.buffer).setBigUint64(i, random.wide(), true);
  }
  return data;
}

function codeAddresses(): Uint8Array {
  const data = new Uint8Array(512);
  const view = new DataView(data.buffer);
  for (let i = 0; i < 512; i += 8) view.setBigUint64(i, BigInt(CODE_START + 64), true);
  return data;
}

/**
 * The instruction decoder: prefixes, opcode, ModRM, SIB, displacement, immediates
 * (SDM vol. 2 chapter 2). It fills a `Decoded`, which is used again for each instruction.
 */
import type { CodeReader } from '../isa.ts';
import { DS, ES, CS, SS, FS, GS, BF_CODE32, BF_CODE64, BF_PROTECTED, BF_V86 } from './state.ts';
import {
  MAP_0F,
  MAP_0F38,
  MAP_0F3A,
  MAP_1,
  PREFIX_66,
  PREFIX_F2,
  PREFIX_F3,
  PREFIX_NONE,
  SIZE_P,
  SIZE_R,
  SIZE_V,
  SIZE_Z,
  SPACE_EVEX,
  SPACE_LEGACY,
  SPACE_VEX,
} from './tables.ts';
import type { OpcodeTable, OperandSpec, Row } from './tables.ts';

export const VECTOR_UD = 6;
export const VECTOR_GP = 13;

/** The instruction cannot be executed: raise this vector. */
export const DECODE_OK = -1;

export const MAX_LENGTH = 15;

/** Thrown inside the decoder when an instruction is longer than 15 bytes. */
class TooLong extends Error {}

export const NO_REGISTER = -1;
/** Base "register" of RIP-relative addresses. */
export const RIP = 16;

export class Decoded {
  flags = 0;
  code64 = false;
  /** Offsets from the block's base pc: first byte, and the byte after the last. */
  start = 0;
  end = 0;

  opPrefix = false;
  addrPrefix = false;
  lock = false;
  /** 0, 0xf2 or 0xf3: the last of them. */
  rep = 0;
  /** Segment of the last effective override prefix, or -1. */
  override = -1;
  /** The REX byte, 0 = none. */
  rex = 0;
  space = SPACE_LEGACY;
  /** REX.W or VEX.W. */
  w = 0;
  // Register number extensions: 0 or 8.
  extR = 0;
  extX = 0;
  extB = 0;
  vexL = 0;
  /** VEX.vvvv, not inverted any more. */
  vexV = 0;
  mandatory = PREFIX_NONE;

  map = MAP_1;
  opcode = 0;
  row: Row | null = null;
  /** Operand size in bytes: 2, 4, 8. */
  opSize = 4;
  addrSize = 4;

  modrm = 0;
  mod = 0;
  /** ModRM.reg with its extension. */
  reg = 0;
  /** ModRM.rm with its extension (register forms). */
  rm = 0;
  // Memory operand.
  base = NO_REGISTER;
  index = NO_REGISTER;
  scale = 0;
  /** Displacement; the high word only matters for 64-bit moffs. */
  disp = 0;
  dispHigh = 0;
  defaultSegment = DS;

  /** Immediates in the order of their operands: 64-bit sign-extended words. */
  readonly immLow = [0, 0];
  readonly immHigh = [0, 0];

  get length(): number {
    return this.end - this.start;
  }

  /** ModRM names a register. */
  get isRegister(): boolean {
    return this.mod === 3;
  }
}

export class Decoder {
  private readonly table: OpcodeTable;
  private readonly d: Decoded;
  private code!: CodeReader;
  /** A byte that has been read ahead, -1 = none: readers do not go back. */
  private peeked = -1;

  constructor(table: OpcodeTable, decoded: Decoded) {
    this.table = table;
    this.d = decoded;
  }

  /**
   * Decodes the instruction at `code.offset`.
   * @returns DECODE_OK or the vector of the exception to raise
   * @throws FetchFault
   */
  decode(code: CodeReader, flags: number): number {
    const { d } = this;
    this.code = code;
    this.begin(flags);
    try {
      const vector = this.parse();
      d.end = code.offset;
      return vector;
    } catch (error) {
      if (!(error instanceof TooLong)) throw error;
      d.end = code.offset;
      return VECTOR_GP;
    }
  }

  private begin(flags: number): void {
    const { d } = this;
    this.peeked = -1;
    d.flags = flags;
    d.code64 = (flags & BF_CODE64) !== 0;
    d.start = this.code.offset;
    d.opPrefix = d.addrPrefix = d.lock = false;
    d.rep = 0;
    d.override = -1;
    d.rex = d.w = d.extR = d.extX = d.extB = d.vexL = d.vexV = 0;
    d.space = SPACE_LEGACY;
    d.mandatory = PREFIX_NONE;
    d.row = null;
    d.modrm = d.mod = d.reg = d.rm = 0;
    d.base = d.index = NO_REGISTER;
    d.scale = d.disp = d.dispHigh = 0;
    d.defaultSegment = DS;
  }

  private u8(): number {
    if (this.peeked >= 0) {
      const byte = this.peeked;
      this.peeked = -1;
      return byte;
    }
    if (this.code.offset - this.d.start >= MAX_LENGTH) throw new TooLong();
    return this.code.u8();
  }
  private s8(): number {
    return (this.u8() << 24) >> 24;
  }
  private u16(): number {
    return this.u8() | (this.u8() << 8);
  }
  private s16(): number {
    return (this.u16() << 16) >> 16;
  }
  private s32(): number {
    return this.u16() | (this.u16() << 16);
  }

  private parse(): number {
    const { d } = this;
    let byte = this.prefixes();
    if (this.isVex(byte)) {
      byte = this.vexPrefix(byte);
      if (byte < 0) return VECTOR_UD;
    } else {
      this.selectMap(byte);
      d.mandatory = d.rep === 0xf3 ? PREFIX_F3 : d.rep === 0xf2 ? PREFIX_F2 : d.opPrefix ? PREFIX_66 : PREFIX_NONE;
    }
    const entry = this.table.find(d.space, d.map, d.opcode);
    if (!entry) return VECTOR_UD;
    if (entry.hasModrm) {
      d.modrm = this.u8();
      d.mod = d.modrm >> 6;
      d.reg = ((d.modrm >> 3) & 7) | d.extR;
      d.rm = (d.modrm & 7) | d.extB;
    }
    const row = this.match(entry.rows);
    if (!row) return VECTOR_UD;
    d.row = row;
    this.sizes(row);
    if (row.options.registerOnly) d.mod = 3;
    if (row.hasModrm && d.mod !== 3) {
      this.memoryOperand();
      d.dispHigh = d.disp >> 31;
    }
    for (let i = 0; i < row.immediates.length; i++) this.immediate(row.immediates[i]!, i);
    return this.validate(row);
  }

  /** Reads prefixes. @returns the byte after them */
  private prefixes(): number {
    const { d } = this;
    for (;;) {
      const byte = this.u8();
      if (d.code64 && (byte & 0xf0) === 0x40) {
        d.rex = byte;
        continue;
      }
      if (!this.legacyPrefix(byte)) {
        if (d.rex !== 0) this.applyRex();
        return byte;
      }
      // SDM vol. 2, 2.2.1: a REX prefix that does not stand right before the opcode is ignored.
      d.rex = 0;
    }
  }

  private applyRex(): void {
    const { d } = this;
    d.w = (d.rex >> 3) & 1;
    d.extR = (d.rex & 4) << 1;
    d.extX = (d.rex & 2) << 2;
    d.extB = (d.rex & 1) << 3;
  }

  private legacyPrefix(byte: number): boolean {
    const { d } = this;
    switch (byte) {
      case 0x66:
        d.opPrefix = true;
        return true;
      case 0x67:
        d.addrPrefix = true;
        return true;
      case 0xf0:
        d.lock = true;
        return true;
      case 0xf2:
      case 0xf3:
        d.rep = byte;
        return true;
      case 0x26:
        return this.setOverride(ES);
      case 0x2e:
        return this.setOverride(CS);
      case 0x36:
        return this.setOverride(SS);
      case 0x3e:
        return this.setOverride(DS);
      case 0x64:
        d.override = FS;
        return true;
      case 0x65:
        d.override = GS;
        return true;
      default:
        return false;
    }
  }

  private setOverride(segment: number): true {
    if (!this.d.code64) this.d.override = segment;
    return true;
  }

  private selectMap(byte: number): void {
    const { d } = this;
    d.map = MAP_1;
    d.opcode = byte;
    if (byte !== 0x0f) return;
    d.opcode = this.u8();
    d.map = MAP_0F;
    if (d.opcode === 0x38) d.map = MAP_0F38;
    else if (d.opcode === 0x3a) d.map = MAP_0F3A;
    else return;
    d.opcode = this.u8();
  }

  /** C4, C5 and 62 are LES, LDS and BOUND where the next byte would be a ModRM byte naming memory. */
  private isVex(byte: number): boolean {
    const { d } = this;
    if (byte !== 0xc4 && byte !== 0xc5 && byte !== 0x62) return false;
    if (d.code64) return true;
    this.peeked = this.u8();
    return this.peeked >= 0xc0;
  }

  private vexPrefix(byte: number): number {
    const { d } = this;
    const protectedMode = (d.flags & BF_PROTECTED) !== 0 && (d.flags & BF_V86) === 0;
    if (!protectedMode || d.opPrefix || d.lock || d.rep !== 0 || d.rex !== 0) return -1;
    if (byte === 0x62) {
      d.space = SPACE_EVEX;
      return -1;
    }
    d.space = SPACE_VEX;
    let last = this.u8();
    d.extR = (last & 0x80) ^ 0x80 ? 8 : 0;
    d.map = MAP_0F;
    if (byte === 0xc4) {
      d.extX = last & 0x40 ? 0 : 8;
      d.extB = last & 0x20 ? 0 : 8;
      d.map = last & 31;
      if (d.map < MAP_0F || d.map > MAP_0F3A) return -1;
      last = this.u8();
      d.w = last >> 7;
    }
    d.vexV = (~last >> 3) & 15;
    d.vexL = (last >> 2) & 1;
    d.mandatory = last & 3;
    if (!d.code64) {
      d.extR = d.extX = d.extB = 0;
      d.vexV &= 7;
    }
    d.opcode = this.u8();
    return d.opcode;
  }

  private match(rows: readonly Row[]): Row | null {
    const { d } = this;
    for (const r of rows) {
      if (r.prefix >= 0 && r.prefix !== d.mandatory) continue;
      if (r.digit >= 0 && r.digit !== ((d.modrm >> 3) & 7)) continue;
      if (r.form !== 0 && (r.form === 2) !== (d.mod === 3)) continue;
      if (r.modrm >= 0 && r.modrm !== d.modrm) continue;
      if (r.w >= 0 && r.w !== d.w) continue;
      if (r.l >= 0 && r.l !== d.vexL) continue;
      if (d.code64 ? r.options.no64 : r.options.only64) continue;
      return r;
    }
    return null;
  }

  private sizes(row: Row): void {
    const { d } = this;
    if (d.code64) {
      d.addrSize = d.addrPrefix ? 4 : 8;
      if (row.options.f64) d.opSize = 8;
      else if (d.w) d.opSize = 8;
      else if (d.opPrefix) d.opSize = 2;
      else d.opSize = row.options.d64 ? 8 : 4;
      return;
    }
    const code32 = (d.flags & BF_CODE32) !== 0;
    d.opSize = code32 !== d.opPrefix ? 4 : 2;
    d.addrSize = code32 !== d.addrPrefix ? 4 : 2;
    d.w = d.space === SPACE_LEGACY ? 0 : d.w;
  }

  private validate(row: Row): number {
    const { d } = this;
    if (d.lock && !(row.options.lock && row.hasModrm && d.mod !== 3)) return VECTOR_UD;
    if (d.space === SPACE_VEX && d.vexV !== 0 && !row.usesV) return VECTOR_UD;
    if (row.options.vsib && (d.addrSize === 2 || (d.modrm & 7) !== 4)) return VECTOR_UD;
    if (row.options.protectedOnly && (!(d.flags & BF_PROTECTED) || d.flags & BF_V86)) return VECTOR_UD;
    return DECODE_OK;
  }

  private memoryOperand(): void {
    if (this.d.addrSize === 2) this.memory16();
    else this.memory32();
  }

  private memory16(): void {
    const { d } = this;
    const rm = d.modrm & 7;
    if (d.mod === 0 && rm === 6) {
      d.disp = this.s16();
      return;
    }
    d.base = BASE16[rm]!;
    d.index = INDEX16[rm]!;
    if (d.base === 5) d.defaultSegment = SS;
    if (d.mod === 1) d.disp = this.s8();
    else if (d.mod === 2) d.disp = this.s16();
  }

  private memory32(): void {
    const { d } = this;
    const rm = d.modrm & 7;
    if (rm === 4) this.sib();
    else if (rm === 5 && d.mod === 0) {
      d.disp = this.s32();
      d.base = d.code64 ? RIP : NO_REGISTER;
      return;
    } else d.base = rm | d.extB;
    if (d.base === 4 || d.base === 5) d.defaultSegment = SS;
    if (d.mod === 1) d.disp = this.s8();
    else if (d.mod === 2) d.disp = this.s32();
  }

  private sib(): void {
    const { d } = this;
    const byte = this.u8();
    d.scale = byte >> 6;
    const index = ((byte >> 3) & 7) | d.extX;
    d.index = index === 4 && !d.row!.options.vsib ? NO_REGISTER : index;
    if ((byte & 7) === 5 && d.mod === 0) {
      d.base = NO_REGISTER;
      d.disp = this.s32();
    } else d.base = (byte & 7) | d.extB;
  }

  /** An operand's size in bytes. */
  sizeOf(spec: OperandSpec): number {
    return operandBytes(this.d, spec);
  }

  private immediate(spec: OperandSpec, slot: number): void {
    const { d } = this;
    const bytes = spec.place === 'O' ? d.addrSize : this.sizeOf(spec);
    let low: number;
    let high: number | null = null;
    if (bytes === 1 || spec.place === 'L') low = this.s8();
    else if (bytes === 2) low = this.s16();
    else low = this.s32();
    if (bytes === 8 && spec.place !== 'L') high = this.s32();
    if (spec.place === 'O') {
      d.disp = low;
      d.dispHigh = high ?? low >> 31;
    } else {
      d.immLow[slot] = low;
      d.immHigh[slot] = high ?? low >> 31;
      if (spec.place === 'A') d.immLow[1] = this.u16();
    }
  }
}

const BASE16 = [3, 3, 5, 5, 6, 7, 5, 3] as const;
const INDEX16 = [6, 7, 6, 7, -1, -1, -1, -1] as const;

export function operandBytes(d: Decoded, spec: OperandSpec): number {
  switch (spec.size) {
    case SIZE_V:
      return d.opSize;
    case SIZE_Z:
    case SIZE_P:
      return d.opSize === 2 ? 2 : 4;
    case SIZE_R:
      return d.w && d.code64 ? 8 : 4;
    default:
      return spec.size;
  }
}

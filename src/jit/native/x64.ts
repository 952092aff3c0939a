/**
 * Writes x86-64 instructions (Intel SDM volume 2). Registers are numbers as the encoding has them; memory operands are
 * what the code of blocks needs: the machine's memory (BASE) by a constant or a register.
 */
export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const RBP = 5;
export const RSI = 6;
export const RDI = 7;
export const R8 = 8;
export const R9 = 9;
export const R10 = 10;
export const R11 = 11;
export const R12 = 12;
export const R13 = 13;
export const R14 = 14;
export const R15 = 15;

/** Register that holds the address of the machine's memory while code of blocks runs. */
export const BASE = RBX;

/** Operations with two operands, by the opcode of "register, register or memory". */
export const ADD = 0x03;
export const OR = 0x0b;
export const AND = 0x23;
export const SUB = 0x2b;
export const XOR = 0x33;
export const CMP = 0x3b;
/** Second byte of the opcode where it begins with 0Fh. */
export const IMUL = 0x1af;

/** Moves by SSE, and a register emptied; see `sse`. */
export const MOVD = 0x66_016e;
export const MOVD_FROM = 0x66_017e;
export const MOVDQU = 0xf3_016f;
export const MOVDQU_STORE = 0xf3_017f;
export const PXOR = 0x66_01ef;

/** Numbers of shifts in the opcode's extension. */
export const ROL = 0;
export const ROR = 1;
export const SHL = 4;
export const SHR = 5;
export const SAR = 7;

/** Conditions. */
export const CC_O = 0;
export const CC_B = 2;
export const CC_AE = 3;
export const CC_E = 4;
export const CC_NE = 5;
export const CC_BE = 6;
export const CC_A = 7;
export const CC_S = 8;
export const CC_L = 12;
export const CC_GE = 13;
export const CC_LE = 14;
export const CC_G = 15;

/** Extension of the immediate forms (80h-83h) of an operation above. */
const extension = (op: number): number => op >> 3;

export class X64 {
  readonly bytes: Uint8Array;
  /** Offset in `bytes` of what comes next. */
  at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  byte(value: number): void {
    this.bytes[this.at++] = value;
  }

  i32(value: number): void {
    const { bytes, at } = this;
    bytes[at] = value;
    bytes[at + 1] = value >> 8;
    bytes[at + 2] = value >> 16;
    bytes[at + 3] = value >> 24;
    this.at = at + 4;
  }

  /** REX prefix, if there is anything for it to say, or a byte register that needs one. */
  private rex(wide: boolean, reg: number, index: number, rm: number, always = false): void {
    const value = (wide ? 8 : 0) | ((reg >> 1) & 4) | ((index >> 2) & 2) | (rm >> 3);
    if (value !== 0 || always) this.byte(0x40 | value);
  }

  private opcode(op: number): void {
    if (op > 255) {
      this.byte(0x0f);
      if (op > 511) this.byte(op >> 8);
    }
    this.byte(op & 255);
  }

  /** An instruction with a register, or an extension, and a register. Opcodes 100h-1FFh begin with 0Fh. */
  rr(op: number, wide: boolean, reg: number, rm: number, bytes = false): void {
    this.rex(wide, reg, 0, rm, bytes && (reg > 3 || rm > 3));
    this.opcode(op);
    this.byte(0xc0 | ((reg & 7) << 3) | (rm & 7));
  }

  /** The same with the memory at BASE + offset. */
  rm(op: number, wide: boolean, reg: number, offset: number, bytes = false): void {
    this.rex(wide, reg, 0, BASE, bytes && reg > 3);
    this.opcode(op);
    this.byte(0x80 | ((reg & 7) << 3) | BASE);
    this.i32(offset);
  }

  /** The same with the memory at BASE + a register + offset. */
  rx(op: number, wide: boolean, reg: number, index: number, offset: number, bytes = false): void {
    this.rex(wide, reg, index, BASE, bytes && reg > 3);
    this.opcode(op);
    const short = offset >= -128 && offset < 128;
    this.byte((offset === 0 ? 0 : short ? 0x40 : 0x80) | ((reg & 7) << 3) | 4);
    this.byte(((index & 7) << 3) | BASE);
    if (offset === 0) return;
    if (short) this.byte(offset);
    else this.i32(offset);
  }

  /** The same with the memory at a register + offset, no BASE. */
  rb(op: number, wide: boolean, reg: number, base: number, offset: number): void {
    this.rex(wide, reg, 0, base);
    this.opcode(op);
    const short = offset >= -128 && offset < 128;
    this.byte((short ? 0x40 : 0x80) | ((reg & 7) << 3) | (base & 7));
    if ((base & 7) === RSP) this.byte(0x24);
    if (short) this.byte(offset);
    else this.i32(offset);
  }

  mov(wide: boolean, to: number, from: number): void {
    this.rr(0x8b, wide, to, from);
  }

  load(wide: boolean, to: number, offset: number): void {
    this.rm(0x8b, wide, to, offset);
  }

  store(wide: boolean, offset: number, from: number): void {
    this.rm(0x89, wide, from, offset);
  }

  /** Sets a register to a constant of 64 bits. Flags stay as they are. */
  constant(to: number, low: number, high: number): void {
    if (high === 0) {
      this.rex(false, 0, 0, to);
      this.byte(0xb8 | (to & 7));
      this.i32(low);
    } else if (high === low >> 31) {
      this.rr(0xc7, true, 0, to);
      this.i32(low);
    } else {
      this.rex(true, 0, 0, to);
      this.byte(0xb8 | (to & 7));
      this.i32(low);
      this.i32(high);
    }
  }

  /** An operation above with an immediate of 32 bits, which is sign-extended. */
  ri(op: number, wide: boolean, reg: number, value: number): void {
    const short = value >= -128 && value < 128;
    this.rr(short ? 0x83 : 0x81, wide, extension(op), reg);
    if (short) this.byte(value);
    else this.i32(value);
  }

  /** The same with the memory at BASE + offset. */
  mi(op: number, wide: boolean, offset: number, value: number): void {
    const short = value >= -128 && value < 128;
    this.rm(short ? 0x83 : 0x81, wide, extension(op), offset);
    if (short) this.byte(value);
    else this.i32(value);
  }

  /** Stores an immediate of 32 bits, sign-extended, at BASE + offset. */
  storeImmediate(wide: boolean, offset: number, value: number): void {
    this.rm(0xc7, wide, 0, offset);
    this.i32(value);
  }

  shift(op: number, wide: boolean, reg: number, count: number): void {
    this.rr(0xc1, wide, op, reg);
    this.byte(count);
  }

  /** By CL. */
  shiftBy(op: number, wide: boolean, reg: number): void {
    this.rr(0xd3, wide, op, reg);
  }

  lea(wide: boolean, to: number, base: number, offset: number): void {
    this.rb(0x8d, wide, to, base, offset);
  }

  /** A jump on a condition to a place that `land` or `patch` names later. @returns what names the jump */
  jcc(condition: number): number {
    this.byte(0x0f);
    this.byte(0x80 | condition);
    this.i32(0);
    return this.at;
  }

  jmp(): number {
    this.byte(0xe9);
    this.i32(0);
    return this.at;
  }

  /** The jump leads to what comes next. */
  land(jump: number): void {
    this.patch(jump, this.at);
  }

  patch(jump: number, target: number): void {
    const { at } = this;
    this.at = jump - 4;
    this.i32(target - jump);
    this.at = at;
  }

  jmpTo(target: number): void {
    this.patch(this.jmp(), target);
  }

  jccTo(condition: number, target: number): void {
    this.patch(this.jcc(condition), target);
  }

  jmpRegister(reg: number): void {
    this.rr(0xff, false, 4, reg);
  }

  push(reg: number): void {
    this.rex(false, 0, 0, reg);
    this.byte(0x50 | (reg & 7));
  }

  pop(reg: number): void {
    this.rex(false, 0, 0, reg);
    this.byte(0x58 | (reg & 7));
  }

  ret(): void {
    this.byte(0xc3);
  }

  not(reg: number): void {
    this.rr(0xf7, false, 2, reg);
  }

  /** TEST of the lower half of a register. */
  testBits(reg: number, bits: number): void {
    this.rr(0xf7, false, 0, reg);
    this.i32(bits);
  }

  /** An instruction on registers of the x87 unit, and those without operands, by its two bytes. */
  x87(opcode: number, modrm: number): void {
    this.byte(opcode);
    this.byte(modrm);
  }

  /** SETcc of a byte register. */
  setcc(condition: number, reg: number): void {
    this.rr(0x190 | condition, false, 0, reg, true);
  }

  cmov(condition: number, wide: boolean, to: number, from: number): void {
    this.rr(0x140 | condition, wide, to, from);
  }

  bswap(wide: boolean, reg: number): void {
    this.rex(wide, 0, 0, reg);
    this.byte(0x0f);
    this.byte(0xc8 | (reg & 7));
  }

  /** An SSE instruction, its prefix << 16 | opcode, with two registers. */
  sse(code: number, reg: number, rm: number, wide = false): void {
    const prefix = (code >> 16) & 255;
    if (prefix !== 0) this.byte(prefix);
    this.rr(code & 0xffff, wide, reg, rm);
  }

  /** The same with the memory at BASE + offset. */
  sseM(code: number, reg: number, offset: number): void {
    const prefix = (code >> 16) & 255;
    if (prefix !== 0) this.byte(prefix);
    this.rm(code & 0xffff, false, reg, offset);
  }

  /** The same with the memory at BASE + a register + offset. */
  sseX(code: number, reg: number, index: number, offset: number): void {
    const prefix = (code >> 16) & 255;
    if (prefix !== 0) this.byte(prefix);
    this.rx(code & 0xffff, false, reg, index, offset);
  }

  /** The same with the memory at an address of the process below 2 GiB. */
  sseA(code: number, reg: number, address: number): void {
    const prefix = (code >> 16) & 255;
    if (prefix !== 0) this.byte(prefix);
    this.rex(false, reg, 0, 0);
    this.opcode(code & 0xffff);
    this.byte(((reg & 7) << 3) | 4);
    this.byte(0x25);
    this.i32(address);
  }

  /** Calls the function whose address is in a table of 8 bytes each, below 2 GiB, in the place that a register says. */
  callTable(index: number, table: number): void {
    this.rex(false, 2, index, 0);
    this.byte(0xff);
    this.byte(0x14);
    this.byte(0xc5 | ((index & 7) << 3));
    this.i32(table);
  }

  callTo(target: number): void {
    this.byte(0xe8);
    this.i32(target - this.at - 4);
  }
}

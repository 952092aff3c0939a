/**
 * What the functions in the opcode tables work with: the decoded instruction, access to
 * its operands, and the ways out of a block.
 *
 * Integer values of 1, 2 and 4 bytes are i32, of 8 bytes i64. `read` gives 1- and 2-byte
 * values zero-extended; `readRaw` leaves anything in the bits above the width.
 *
 * Order within an instruction (precise exceptions): first everything that may fault (reads,
 * memory writes, `faultIf`), then `write` to registers, then flags.
 */
import type { CodeReader } from '../isa.ts';
import type { Builder, Value } from '../../ir/builder.ts';
import { STRIDE } from '../../ir/builder.ts';
import { I64, Op } from '../../ir/ops.ts';
import { Decoded, NO_REGISTER, RIP, VECTOR_UD, operandBytes } from './decode.ts';
import { Flags, signExtend, zeroExtend } from './flags.ts';
import type { Size } from './flags.ts';
import { LEAVE_BREAKPOINT, LEAVE_EXCEPTION, LEAVE_SEGMENT_FAULT, LEAVE_SINGLE_STEP } from './leave.ts';
import {
  BF_AC_CHECK,
  BF_BREAKPOINTS,
  BF_CODE32,
  BF_CPL_SHIFT,
  BF_CS_BASE,
  BF_IO_FREE,
  BF_PROTECTED,
  BF_RESUME,
  BF_SEG_CHECK,
  BF_STACK32,
  BF_TF,
  BF_V86,
  BREAKPOINTS,
  CS,
  FS,
  G,
  G_XMM,
  G_YMM_HIGH,
  INTERRUPT_SHADOW,
  OP0,
  OP1,
  OP2,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_NULL,
  SEG_SIZE,
  SHADOW_SS,
  SS,
} from './state.ts';
import { SPACE_VEX } from './tables.ts';
import type { OperandSpec } from './tables.ts';
import { X87Stack } from './x87-stack.ts';

const RSP = 4;

/** Widest branch displacements for which wrapping of EIP and IP is not looked at. */
const NEAR_32 = 1 << 24;
const NEAR_16 = 1 << 11;

const VECTOR_AC = 17;
/** What alignment checking asks of operands, by their bytes (SDM vol. 3, table 7-7). */
const ALIGNMENTS: Readonly<Record<number, number>> = {
  2: 2,
  4: 4,
  6: 4,
  8: 8,
  10: 8,
  14: 2,
  28: 4,
  94: 2,
  108: 4,
};

const SIZE_CODE = [0, 0, 1, 1, 2, 2, 2, 2, 3] as const;

export class X86Translator extends Decoded {
  readonly b: Builder;
  readonly cc: Flags;
  /** The stack of x87 registers. */
  readonly fpu: X87Stack;

  /** Half of the ymm registers that `readXmm` and `writeXmm` work on: see `eachHalf`. */
  half: 0 | 1 = 0;
  // Register number and value of the write that `eachHalf` holds back, -1 = none.
  private heldRegister = -1;
  private heldValue = -1;
  private holding = false;
  /** The halves of a 32-byte memory operand while there are halves. */
  private loaded: readonly Value[] = [];
  /** What to do before this instruction writes its first register or memory, once. */
  beforeWrite: ((t: X86Translator) => void) | null = null;

  /** Where the code comes from. */
  code!: CodeReader;

  // Memo of this instruction's memory operand, -1 = not computed yet.
  private linearAddress = -1;
  // Memos valid for the whole block.
  private readonly wrapped = new Int32Array(16);
  private readonly wrappedOf = new Int32Array(16);
  private readonly segmentBases = new Int32Array(8);
  private pcBaseValue = -1;

  constructor(b: Builder) {
    super();
    this.b = b;
    this.cc = new Flags(b);
    this.fpu = new X87Stack(b);
  }

  beginBlock(): void {
    this.wrappedOf.fill(-1);
    this.segmentBases.fill(-1);
    this.pcBaseValue = -1;
    this.cc.reset();
    this.fpu.forget();
  }

  /** What follows this instruction: bytes of code, as far as its page goes. */
  ahead(bytes: number): number[] {
    const { code } = this;
    const length = Math.max(0, Math.min(bytes, code.pageEnd - code.offset));
    return Array.from({ length }, (_, i) => code.peek?.(i) ?? 0);
  }

  /** How many instructions a block may have. */
  limitInsns(flags: number, wanted: number): number {
    return flags & (BF_TF | BF_RESUME) ? 1 : wanted;
  }

  beginInsn(): void {
    this.linearAddress = -1;
    this.heldRegister = -1;
    this.holding = false;
    this.half = 0;
    this.beforeWrite = null;
    this.b.insn(this.start);
    if (this.flags & BF_BREAKPOINTS) this.checkBreakpoints();
  }

  /** Is this instruction at one of the breakpoints, and not the one after MOV SS? */
  private checkBreakpoints(): void {
    const { b } = this;
    let pc = this.pcAt(this.start);
    if (!this.code64) pc = b.extu(b.add32(b.wrap(pc), b.wrap(this.segmentBase(CS))));
    let hit = b.eq64(pc, b.lds64(BREAKPOINTS));
    for (let n = 1; n < 4; n++) hit = b.or32(hit, b.eq64(pc, b.lds64(BREAKPOINTS + 8 * n)));
    const shadowed = b.eq32(b.lds32(INTERRUPT_SHADOW), b.i32(SHADOW_SS));
    b.leaveIf(b.and32(hit, b.eqz32(shadowed)), LEAVE_BREAKPOINT, this.length);
  }

  // --- Mode. ---

  get cpl(): number {
    return (this.flags >> BF_CPL_SHIFT) & 3;
  }
  get protectedMode(): boolean {
    return (this.flags & BF_PROTECTED) !== 0 && (this.flags & BF_V86) === 0;
  }
  get v86(): boolean {
    return (this.flags & BF_V86) !== 0;
  }
  /** CPL <= IOPL (in V86 mode: IOPL = 3). */
  get ioFree(): boolean {
    return (this.flags & BF_IO_FREE) !== 0;
  }
  /** Bytes of the stack pointer: 2, 4 or 8. */
  get stackSize(): Size {
    return this.code64 ? 8 : this.flags & BF_STACK32 ? 4 : 2;
  }
  /** Bytes of the instruction pointer outside 64-bit mode. */
  private get ipMask(): number {
    return this.flags & BF_CODE32 ? -1 : 0xffff;
  }

  // --- Arithmetic by size: i64 for 8 bytes, else i32. ---

  constant(size: Size, low: number, high: number = low >> 31): Value {
    return size === 8 ? this.b.i64(low, high) : this.b.i32(low);
  }
  add(size: Size, x: Value, y: Value): Value {
    return size === 8 ? this.b.add64(x, y) : this.b.add32(x, y);
  }
  sub(size: Size, x: Value, y: Value): Value {
    return size === 8 ? this.b.sub64(x, y) : this.b.sub32(x, y);
  }
  and(size: Size, x: Value, y: Value): Value {
    return size === 8 ? this.b.and64(x, y) : this.b.and32(x, y);
  }
  or(size: Size, x: Value, y: Value): Value {
    return size === 8 ? this.b.or64(x, y) : this.b.or32(x, y);
  }
  xor(size: Size, x: Value, y: Value): Value {
    return size === 8 ? this.b.xor64(x, y) : this.b.xor32(x, y);
  }
  shl(size: Size, x: Value, y: Value): Value {
    return size === 8 ? this.b.shl64(x, y) : this.b.shl32(x, y);
  }
  shr(size: Size, x: Value, y: Value): Value {
    return size === 8 ? this.b.shr64(x, y) : this.b.shr32(x, y);
  }
  sar(size: Size, x: Value, y: Value): Value {
    return size === 8 ? this.b.sar64(x, y) : this.b.sar32(x, y);
  }
  eqz(size: Size, x: Value): Value {
    return size === 8 ? this.b.eqz64(x) : this.b.eqz32(zeroExtend(this.b, size, x));
  }
  select(size: Size, condition: Value, x: Value, y: Value): Value {
    return size === 8 ? this.b.select64(condition, x, y) : this.b.select32(condition, x, y);
  }
  zext(size: Size, v: Value): Value {
    return zeroExtend(this.b, size, v);
  }
  sext(size: Size, v: Value): Value {
    return signExtend(this.b, size, v);
  }
  /** To i64, zero-extended. */
  toU64(size: Size, v: Value): Value {
    return size === 8 ? v : this.b.extu(zeroExtend(this.b, size, v));
  }
  /** To i64, sign-extended. */
  toS64(size: Size, v: Value): Value {
    return size === 8 ? v : this.b.exts(signExtend(this.b, size, v));
  }
  /** An i64 cut to the size's type. */
  fromI64(size: Size, v: Value): Value {
    return size === 8 ? v : this.b.wrap(v);
  }

  /** The low 32 bits of a value of the size. */
  toI32(size: Size, v: Value): Value {
    return size === 8 ? this.b.wrap(v) : v;
  }

  // --- General registers. ---

  /** Low 32 bits of a register. */
  low32(n: number): Value {
    const { b } = this;
    const value = b.get(G[n]!);
    if (this.wrappedOf[n] === value) return this.wrapped[n]!;
    const op = b.opOf(value);
    const first = b.words[value * STRIDE + 1]!;
    const result = op === Op.extu || op === Op.exts ? first : op === Op.const64 ? b.i32(first) : b.wrap(value);
    this.wrappedOf[n] = value;
    this.wrapped[n] = result;
    return result;
  }

  /** Is register n as an 8-bit operand one of AH, CH, DH, BH? */
  private isHighByte(n: number): boolean {
    return n >= 4 && n < 8 && this.rex === 0 && this.space === 0;
  }

  readRegRaw(n: number, size: Size): Value {
    const { b } = this;
    if (size === 8) return b.get(G[n]!);
    if (size === 1 && this.isHighByte(n)) return b.shr32(this.low32(n - 4), b.i32(8));
    return this.low32(n);
  }

  readReg(n: number, size: Size): Value {
    return zeroExtend(this.b, size, this.readRegRaw(n, size));
  }

  writeReg(n: number, size: Size, v: Value): void {
    const { b } = this;
    if (size === 8) b.set(G[n]!, v);
    else if (size === 4) b.set(G[n]!, b.extu(v));
    else if (size === 1 && this.isHighByte(n)) {
      const old = b.and64(b.get(G[n - 4]!), b.i64(~0xff00));
      const part = b.extu(b.shl32(zeroExtend(b, 1, v), b.i32(8)));
      b.set(G[n - 4]!, b.or64(old, part));
    } else {
      const old = b.and64(b.get(G[n]!), b.i64(size === 1 ? ~0xff : ~0xffff));
      b.set(G[n]!, b.or64(old, b.extu(zeroExtend(b, size, v))));
    }
  }

  /** AH. */
  writeHighAccumulator(v: Value): void {
    const { b } = this;
    const part = b.extu(b.shl32(zeroExtend(b, 1, v), b.i32(8)));
    b.set(G[0]!, b.or64(b.and64(b.get(G[0]!), b.i64(~0xff00)), part));
  }

  // --- Memory. ---

  load(size: Size, address: Value): Value {
    const { b } = this;
    if (size === 8) return b.ld64(address);
    return size === 4 ? b.ld32(address) : size === 2 ? b.ld16u(address) : b.ld8u(address);
  }

  /** First half of a read-modify-write. */
  loadForWrite(size: Size, address: Value): Value {
    const { b } = this;
    if (size === 8) return b.ld64w(address);
    return size === 4 ? b.ld32w(address) : size === 2 ? b.ld16w(address) : b.ld8w(address);
  }

  store(size: Size, address: Value, v: Value): void {
    const { b } = this;
    if (size === 8) b.st64(address, v);
    else if (size === 4) b.st32(address, v);
    else if (size === 2) b.st16(address, v);
    else b.st8(address, v);
  }

  /** Base of a segment, an i64. */
  segmentBase(segment: number): Value {
    const known = this.segmentBases[segment]!;
    if (known >= 0) return known;
    const base = this.b.lds64(SEG + SEG_SIZE * segment + SEG_BASE);
    this.segmentBases[segment] = base;
    return base;
  }

  /** Base of a segment for a leave reason, an i64. */
  baseOf(segment: number): Value {
    return this.isFlat(segment) ? this.b.i64(0) : this.segmentBase(segment);
  }

  /** Does a segment have neither base nor limit in this mode? */
  private isFlat(segment: number): boolean {
    if (segment >= FS) return false;
    if (this.code64) return true;
    return (this.flags & BF_SEG_CHECK) === 0 && (segment !== CS || (this.flags & BF_CS_BASE) === 0);
  }

  /**
   * Linear address (i64) of an offset in a segment, with the segment's checks.
   * @param offset i64 with 64-bit addresses, else an i32
   * @param bytes size of the access; 0 = no access, no checks
   */
  linear(segment: number, offset: Value, bytes: number, write: boolean): Value {
    const address = this.unaligned(segment, offset, bytes, write);
    const alignment = this.flags & BF_AC_CHECK ? ALIGNMENTS[bytes] : undefined;
    if (alignment !== undefined) {
      const { b } = this;
      const rest = b.and32(b.wrap(address), b.i32(alignment - 1));
      this.faultIf(b.ne32(rest, b.i32(0)), VECTOR_AC);
    }
    return address;
  }

  private unaligned(segment: number, offset: Value, bytes: number, write: boolean): Value {
    const { b } = this;
    const is64 = b.typeOf(offset) === I64;
    // Code segments cannot be written, flat or not.
    const readOnly = write && segment === CS && this.protectedMode && !this.code64;
    if (this.isFlat(segment) && !readOnly) return is64 ? offset : b.extu(offset);
    if (this.code64) return b.add64(this.segmentBase(segment), is64 ? offset : b.extu(offset));
    if (bytes > 0) this.checkSegment(segment, offset, bytes, write);
    return b.extu(b.add32(b.wrap(this.segmentBase(segment)), offset));
  }

  /** Limit and type checks (SDM vol. 3, 5.3 and 5.4). */
  private checkSegment(segment: number, offset: Value, bytes: number, write: boolean): void {
    const { b } = this;
    const at = SEG + SEG_SIZE * segment;
    const limit = b.extu(b.lds32(at + SEG_LIMIT));
    const last = b.add64(b.extu(offset), b.i64(bytes - 1));
    let bad = b.gtu64(last, limit);
    if (this.protectedMode) {
      const attributes = b.lds32(at + SEG_ATTR);
      bad = b.select32(this.expandsDown(attributes), this.outsideExpandDown(offset, last, limit, attributes), bad);
      bad = b.or32(bad, this.wrongType(attributes, write));
    }
    b.leaveIf(bad, LEAVE_SEGMENT_FAULT, this.length | (segment << 8));
  }

  private expandsDown(attributes: Value): Value {
    const { b } = this;
    return b.eq32(b.and32(attributes, b.i32(0xc)), b.i32(4));
  }

  private outsideExpandDown(offset: Value, last: Value, limit: Value, attributes: Value): Value {
    const { b } = this;
    const big = b.and32(attributes, b.i32(1 << 14));
    const top = b.select64(big, b.i64(-1, 0), b.i64(0xffff));
    return b.or32(b.leu64(b.extu(offset), limit), b.gtu64(last, top));
  }

  private wrongType(attributes: Value, write: boolean): Value {
    const { b } = this;
    if (write) return b.ne32(b.and32(attributes, b.i32(SEG_NULL | 0xa)), b.i32(2));
    const executeOnly = b.eq32(b.and32(attributes, b.i32(0xa)), b.i32(8));
    return b.or32(executeOnly, b.and32(attributes, b.i32(SEG_NULL)));
  }

  /** Segment of the memory operand. */
  get segment(): number {
    return this.override >= 0 ? this.override : this.defaultSegment;
  }

  private register(n: number): Value {
    return this.addrSize === 8 ? this.b.get(G[n]!) : this.low32(n);
  }

  /**
   * The memory operand's offset in its segment: i64 with 64-bit addresses, else i32.
   * @param extra a value to add (i64 or i32 likewise), -1 = none
   */
  effectiveOffset(extra: Value = -1): Value {
    const { b, addrSize } = this;
    if (this.base === RIP) return this.ripRelative(extra);
    let sum = extra;
    const plus = (v: Value): void => {
      sum = sum < 0 ? v : this.add(addrSize, sum, v);
    };
    if (this.base !== NO_REGISTER) plus(this.register(this.base));
    if (this.index !== NO_REGISTER) {
      const index = this.register(this.index);
      plus(this.scale === 0 ? index : this.shl(addrSize, index, this.constant(addrSize, this.scale)));
    }
    if (this.disp !== 0 || this.dispHigh !== 0 || sum < 0) {
      plus(this.constant(addrSize, this.disp, this.dispHigh));
    }
    return addrSize === 2 ? zeroExtend(b, 2, sum) : sum;
  }

  private ripRelative(extra: Value): Value {
    const { b } = this;
    let address = this.pcAt(this.end + this.disp);
    if (this.addrSize === 4) {
      const narrow = b.wrap(address);
      return extra < 0 ? narrow : b.add32(narrow, extra);
    }
    if (extra >= 0) address = b.add64(address, extra);
    return address;
  }

  /** Linear address of the memory operand; computed once an instruction. */
  address(bytes: number, write: boolean): Value {
    if (this.linearAddress < 0) {
      this.linearAddress = this.linear(this.segment, this.effectiveOffset(), bytes, write);
    }
    return this.linearAddress;
  }

  // --- Operands by their number in the row. ---

  /** Bytes of operand i. */
  bytes(i: number): Size {
    return operandBytes(this, this.row!.operands[i]!);
  }
  /** Bytes of operand 0. */
  get size(): Size {
    return this.bytes(0);
  }

  private registerOf(spec: OperandSpec): number {
    switch (spec.place) {
      case 'G':
        return this.reg;
      case 'Z':
        return (this.opcode & 7) | this.extB;
      case 'B':
        return this.vexV;
      case 'a':
        return 0;
      case 'c':
        return 1;
      case 'd':
        return 2;
      case 'E':
      case 'R':
        return this.mod === 3 ? this.rm : -1;
      default:
        return -1;
    }
  }

  /** Low word of the first (or other) immediate. */
  immediate(slot = 0): number {
    return this.immLow[slot]!;
  }

  private readImmediate(size: Size): Value {
    return this.constant(size, this.immLow[0]!, this.immHigh[0]!);
  }

  readRaw(i: number): Value {
    const spec = this.row!.operands[i]!;
    const n = this.registerOf(spec);
    const size = operandBytes(this, spec);
    if (n >= 0) return this.readRegRaw(n, size);
    if (spec.place === 'I') return this.readImmediate(this.size);
    if (spec.place === '1') return this.b.i32(1);
    return this.load(size, this.address(size, false));
  }

  read(i: number): Value {
    return zeroExtend(this.b, this.bytes(i), this.readRaw(i));
  }

  /** Reads operand i, which will be written: its memory access asks for write permission. */
  readForWrite(i: number): Value {
    const spec = this.row!.operands[i]!;
    const n = this.registerOf(spec);
    const size = operandBytes(this, spec);
    if (n >= 0) return this.readRegRaw(n, size);
    return this.loadForWrite(size, this.address(size, true));
  }

  write(i: number, v: Value): void {
    const spec = this.row!.operands[i]!;
    const n = this.registerOf(spec);
    const size = operandBytes(this, spec);
    if (n >= 0) this.writeReg(n, size, v);
    else this.store(size, this.address(size, true), v);
  }

  /** General register or memory of ModRM rm. */
  readRm(size: Size): Value {
    if (this.mod === 3) return this.readReg(this.rm, size);
    return this.load(size, this.address(size, false));
  }
  writeRm(size: Size, v: Value): void {
    if (this.mod === 3) this.writeReg(this.rm, size, v);
    else this.store(size, this.address(size, true), v);
  }

  // --- Vector registers. ---

  /** Is this a VEX-encoded instruction? */
  get isVex(): boolean {
    return this.space === SPACE_VEX;
  }
  /** Register of the first source: VEX names it apart, in the older forms it is the destination. */
  get first(): number {
    return this.isVex ? this.vexV : this.reg;
  }

  /** Bytes of ModRM rm in instructions whose second source it is. */
  get secondBytes(): Size {
    return this.bytes(this.isVex ? 2 : 1);
  }

  /** Called before anything is written that is not a vector register: those do it themselves. */
  prepareWrite(): void {
    this.beforeWrite?.(this);
    this.beforeWrite = null;
  }

  readXmm(n: number): Value {
    return this.b.get(this.half === 0 ? G_XMM[n]! : G_YMM_HIGH[n]!);
  }
  /** VEX forms zero the upper half, unless `eachHalf` is about to write it, too. */
  writeXmm(n: number, v: Value): void {
    if (this.holding) {
      this.heldRegister = n;
      this.heldValue = v;
      return;
    }
    this.prepareWrite();
    this.b.set(G_XMM[n]!, v);
    if (this.isVex) this.b.set(G_YMM_HIGH[n]!, this.b.v128(0, 0, 0, 0));
  }

  readYmm(n: number): readonly [low: Value, high: Value] {
    return [this.b.get(G_XMM[n]!), this.b.get(G_YMM_HIGH[n]!)];
  }
  writeYmm(n: number, low: Value, high: Value): void {
    this.prepareWrite();
    this.b.set(G_XMM[n]!, low);
    this.b.set(G_YMM_HIGH[n]!, high);
  }

  /**
   * Translates an instruction for each half of its ymm registers. A memory operand is read before
   * anything is done; what the instruction writes, one register, is written when all is done.
   */
  eachHalf(translate: (t: this) => void): void {
    this.holding = true;
    if (this.mod !== 3) this.loaded = this.loadYmm();
    translate(this);
    const low = this.heldValue;
    this.half = 1;
    translate(this);
    this.half = 0;
    this.holding = false;
    if (this.heldRegister >= 0) this.writeYmm(this.heldRegister, low, this.heldValue);
    this.heldRegister = -1;
  }

  /**
   * xmm register or memory of ModRM rm as a v128. From memory, 2, 4 or 8 bytes come with zeros above.
   * Alignment of 16-byte operands is the caller's business (`requireAligned`).
   */
  readXmmRm(bytes: number): Value {
    const { b } = this;
    if (this.mod === 3) return this.readXmm(this.rm);
    if (bytes === 16) return this.holding ? this.loaded[this.half]! : b.ldv(this.address(16, false));
    const address = this.address(bytes, false);
    const zero = b.v128(0, 0, 0, 0);
    if (bytes === 8) return b.setlane64(zero, b.ld64(address), 0);
    return b.setlane32(zero, this.load(bytes, address), 0);
  }

  /** The 32-byte memory operand. */
  private loadYmm(): readonly [low: Value, high: Value] {
    const { b } = this;
    const address = this.address(32, false);
    const low = b.ldv(address);
    return [low, b.ldv(b.add64(address, b.i64(16)))];
  }

  /** ymm register or 32 bytes of memory at ModRM rm. */
  readYmmRm(): readonly [low: Value, high: Value] {
    return this.mod === 3 ? this.readYmm(this.rm) : this.loadYmm();
  }

  /** #GP(0) unless the memory operand is aligned to its size. No effect on register forms. */
  requireAligned(bytes: number, write: boolean): void {
    if (this.mod === 3) return;
    const { b } = this;
    const low = b.wrap(this.address(bytes, write));
    this.faultIf(b.ne32(b.and32(low, b.i32(bytes - 1)), b.i32(0)), 13);
  }

  // --- Stack. ---

  /** Stack pointer plus a constant, wrapped to the stack's size: i64, or i32. */
  stackOffset(delta: number): Value {
    const { b, stackSize } = this;
    if (stackSize === 8) {
      const rsp = b.get(G[RSP]!);
      return delta === 0 ? rsp : b.add64(rsp, b.i64(delta));
    }
    const rsp = this.low32(RSP);
    return zeroExtend(b, stackSize, delta === 0 ? rsp : b.add32(rsp, b.i32(delta)));
  }

  setStackPointer(offset: Value): void {
    this.writeReg(RSP, this.stackSize, offset);
  }

  /** Writes below the stack pointer; the caller sets the stack pointer to the offset returned. */
  storeBelow(size: Size, v: Value, distance: number = size): Value {
    const offset = this.stackOffset(-distance);
    this.store(size, this.linear(SS, offset, size, true), v);
    return offset;
  }

  /** PUSH. */
  push(size: Size, v: Value): void {
    this.setStackPointer(this.storeBelow(size, v));
  }

  /** Reads from the top of the stack, `distance` bytes above the stack pointer. */
  peek(size: Size, distance = 0): Value {
    return this.load(size, this.linear(SS, this.stackOffset(distance), size, false));
  }

  // --- Program counter and ways out. ---

  /** pc at an offset from the block's base, an i64, wrapped to the mode's width. */
  pcAt(offset: number): Value {
    const { b } = this;
    if (this.pcBaseValue < 0) this.pcBaseValue = b.emit(Op.pcbase, 0, 0, 0, 0, 0, 0);
    const pc = offset === 0 ? this.pcBaseValue : b.add64(this.pcBaseValue, b.i64(offset));
    return this.code64 ? pc : b.extu(b.and32(b.wrap(pc), b.i32(this.ipMask)));
  }

  get singleStep(): boolean {
    return (this.flags & (BF_TF | BF_RESUME)) !== 0;
  }

  /** Does a branch to this offset possibly wrap EIP or IP? */
  private mayWrap(offset: number): boolean {
    if (this.code64) return false;
    const code32 = (this.flags & BF_CODE32) !== 0;
    if (code32 && this.opSize === 2) return true;
    return Math.abs(offset - this.end) >= (code32 ? NEAR_32 : NEAR_16);
  }

  private wrappedTarget(offset: number): Value {
    const { b } = this;
    const pc = this.pcAt(offset);
    return this.opSize === 2 ? b.and64(pc, b.i64(0xffff)) : pc;
  }

  /** May a branch of this instruction go beyond the code segment's limit? */
  private get branchMayLeave(): boolean {
    if (this.code64) return false;
    // In real and virtual-8086 mode, 16 bits reach no further than the limit.
    return this.protectedMode ? (this.flags & BF_SEG_CHECK) !== 0 : this.opSize !== 2;
  }

  /**
   * #GP(0) when a branch target lies beyond the limit of CS (SDM vol. 2, JMP).
   * @param pc i64, cut to the operand size  @param condition i32: only when it is not zero, -1 = always
   */
  checkTarget(pc: Value, condition: Value = -1): void {
    if (!this.branchMayLeave) return;
    const { b } = this;
    const beyond = b.gtu64(pc, b.extu(b.lds32(SEG + SEG_SIZE * CS + SEG_LIMIT)));
    const bad = condition < 0 ? beyond : b.and32(b.ne32(condition, b.i32(0)), beyond);
    b.leaveIf(bad, LEAVE_SEGMENT_FAULT, this.length | (CS << 8));
  }

  /** The same for a target at an offset from the block's base pc. */
  checkOffset(offset: number, condition: Value = -1): void {
    if (!this.branchMayLeave) return;
    const { b } = this;
    const pc = b.add32(b.wrap(this.pcAt(this.end)), b.i32(offset - this.end));
    this.checkTarget(b.extu(this.opSize === 2 ? b.and32(pc, b.i32(0xffff)) : pc), condition);
  }

  /** Ends the block; the next instruction begins another. */
  goOn(offset: number): void {
    if (this.singleStep) this.b.leave(LEAVE_SINGLE_STEP, 0, offset);
    else this.b.goto(offset);
  }

  /** Ends the block with a branch to an offset from its base pc. */
  goTo(offset: number): void {
    if (this.singleStep || this.mayWrap(offset)) this.jump(this.wrappedTarget(offset));
    else this.b.goto(offset);
  }

  /** Ends the block with a conditional branch; not taken is the next instruction. */
  goToIf(condition: Value, taken: number): void {
    const { b } = this;
    if (this.singleStep || this.mayWrap(taken)) {
      this.jump(b.select64(condition, this.wrappedTarget(taken), this.pcAt(this.end)), condition);
    } else b.condGoto(condition, taken, this.end);
  }

  /**
   * Ends the block with a branch to a computed pc, already cut to the operand size (i64).
   * @param taken i32: whether the pc is not merely the next instruction's; -1 = it is a branch
   */
  jump(pc: Value, taken: Value = -1): void {
    if (this.singleStep) {
      this.b.sts64(OP0, pc);
      this.b.sts64(OP1, this.pcAt(this.start));
      this.b.sts32(OP2, taken < 0 ? this.b.i32(1) : taken);
      this.b.leave(LEAVE_SINGLE_STEP, 1 << 8, this.end);
    } else this.b.jump(pc);
  }

  /** Ends the block with a leave reason at the next instruction. @param extra bits 8 and up */
  leaveWith(reason: number, extra = 0, size: Size = this.opSize): void {
    this.b.leave(reason, this.leaveArgument(extra, size), this.end);
  }

  /** Argument of a leave reason. */
  leaveArgument(extra: number, size: Size = this.opSize): number {
    return this.length | (SIZE_CODE[size]! << 4) | extra;
  }

  /** Ends the block with an exception (a fault) of this instruction. */
  raise(vector: number): void {
    this.b.leave(LEAVE_EXCEPTION, (vector << 8) | (this.length & 15), this.start);
  }

  undefined(): void {
    this.raise(VECTOR_UD);
  }

  /** Raises an exception of this instruction when the condition (i32) is not zero. */
  faultIf(condition: Value, vector: number): void {
    this.b.leaveIf(condition, LEAVE_EXCEPTION, (vector << 8) | this.length);
  }

  /** An operand of `leave`: i64 or i32 (zero-extended). */
  setOperand(place: number, v: Value): void {
    this.b.sts64(place, this.b.typeOf(v) === I64 ? v : this.b.extu(v));
  }
}

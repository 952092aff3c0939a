/**
 * Where code of the host's processor is being written for one block: the place in it, what registers hold, and the ways out to
 * the interpreter.
 *
 *     rbx            the machine's memory
 *     r13            pc of the running block
 *     rsi rdi rbp r8-r12   the ISA's first globals ("pinned")
 *     rax rdx r14 r15      the pool: temporaries, and copies of other slots, within a block
 *     rcx, xmm0-xmm3       scratch
 *
 * Everything else of a block's state is where the interpreter has it, so that it can go on from any operation once the
 * registers have been stored.
 */
import { CTL_BASE, CTL_BUDGET, TEMPS, VCPU_BLOCK_SIZE } from '../../ir/vcpu-block.ts';
import { I64 } from '../../ir/ops.ts';
import type { Global } from '../../ir/builder.ts';
import { CONSTANTS, VCPU_BASE } from '../layout.ts';
import { UNIT, X_CALL, isLong } from '../opcodes.ts';
import * as k from './units.ts';
import { ADD, CMP, R10, R11, R12, R13, R14, R15, R8, R9, RAX, RBP, RCX, RDI, RDX, RSI, X64 } from './x64.ts';

export const PINNED = [RSI, RDI, RBP, R8, R9, R10, R11, R12];
export const POOL = [RAX, RDX, R14, R15];
const POOL_SIZE = POOL.length;
/** What it costs to take a register of the pool away, beyond its age: a store, or a store and a load. */
const OF_GLOBAL = 0x10000000;
const OF_TEMPORARY = 0x20000000;
/** Places of an operand that are not a register's number. */
export const MEMORY = 16;
export const CONSTANT = 17;
const PCBASE = VCPU_BASE + CTL_BASE;
const FIRST_TEMP = VCPU_BASE + TEMPS;
const TEMP_COUNT = (VCPU_BLOCK_SIZE - TEMPS) >> 3;
/** Number of the temporary that a slot is, or -1. */
const tempOf = (slot: number): number => {
  const temp = (slot - FIRST_TEMP) >> 3;
  return temp < TEMP_COUNT ? Math.max(temp, -1) : -1;
};
export const field = (offset: number): number => VCPU_BASE + offset;

/** A way out to the interpreter, written behind the block's code. */
export interface Exit {
  /** Set before the exits are written. */
  jump: number;
  /** Operation to go on with. */
  ip: number;
  /** Registers of the pool to be stored, two words each: register, slot. */
  readonly stores: number[];
  /** Instructions that have been taken from the budget and are not executed. */
  readonly refund: number;
  /** The block's execution has been counted, and the interpreter will count it again. */
  readonly isCounted: boolean;
  /** Writes what is to be done first, once registers of the pool have been stored: it may use them. */
  readonly before: (() => void) | null;
}

export class BlockWriter {
  readonly x: X64;
  readonly words: Int32Array;
  /** Slots of the pinned globals, in the order of PINNED. */
  readonly pinnedSlots: number[] = [];
  /** Slot of the stack pointer, or -1. */
  private readonly stackPointer: number;
  /** Number of the block in which a temporary was a constant away from the stack pointer. */
  private readonly onStack = new Int32Array(TEMP_COUNT);
  private block = 0;
  /** Operation that is being written. */
  ip = 0;
  /** Where the code lies that leaves with the result in eax. */
  exit = 0;
  /** The constant that `where` has found. */
  low = 0;
  high = 0;
  /** Registers of the pool that are not to be given away, a bit each. */
  locked = 0;
  /** Host register by position of a global's slot in the vCPU's block, in units of 8 bytes; 0 = none. */
  private readonly pinned = new Uint8Array(TEMPS / 8);
  // The pool: what its registers hold. Slot 0: nothing.
  private readonly held = new Int32Array(POOL_SIZE);
  private readonly dirty = new Uint8Array(POOL_SIZE);
  private readonly age = new Int32Array(POOL_SIZE);
  private clock = 0;
  /** Reads of each temporary that are still to come. */
  private readonly uses = new Uint16Array(TEMP_COUNT);
  private exits: Exit[] = [];
  /** Operation that exits go on with, 0 = the one that is being written. */
  goOnAt = 0;
  /** Makes `before` of an exit. */
  beforeExit: (() => (() => void) | null) | null = null;
  private literals: { at: number; words: readonly number[] }[] = [];
  /** Host address of the first byte of code. */
  private readonly origin: number;

  /** @param words the machine's memory  @param bytes where code goes  @param origin host address of the first */
  constructor(words: Int32Array, bytes: Uint8Array, origin: number, globals: readonly Global[], stackPointer?: Global) {
    this.origin = origin;
    this.words = words;
    this.x = new X64(bytes);
    this.stackPointer = stackPointer === undefined ? -1 : VCPU_BASE + stackPointer.offset;
    for (const { type, offset } of globals) {
      if (type !== I64 || this.pinnedSlots.length === PINNED.length) break;
      this.pinned[offset >> 3] = PINNED[this.pinnedSlots.length]!;
      this.pinnedSlots.push(VCPU_BASE + offset);
    }
  }

  /** @param ip first operation of a block */
  begin(ip: number): void {
    this.ip = ip;
    this.block++;
    this.exits = [];
    this.literals = [];
    this.held.fill(0);
    this.locked = 0;
    this.countUses(ip);
  }

  opcode(ip: number): number {
    const op = this.words[ip >> 2]! & 0xffff;
    return op < X_CALL ? k.FIRST[op]! : op;
  }

  /** The operation after one. */
  after(op: number, ip: number): number {
    return ip + (isLong(op) ? 2 * UNIT : UNIT);
  }

  /** A word of the operation. */
  word(at: number): number {
    return this.words[(this.ip + at) >> 2]!;
  }

  // How often temporaries are read.

  private countUses(ip: number): void {
    for (;;) {
      const op = this.opcode(ip);
      this.addReads(op, ip, 1);
      if (op >= X_CALL || k.SETS[op]) {
        const temp = tempOf(this.words[(ip >> 2) + 1]!);
        if (temp >= 0) this.uses[temp] = 0;
      }
      if (op < X_CALL && k.endsBlock(op)) return;
      ip = this.after(op, ip);
    }
  }

  /** What an operation reads is read so many times more. */
  private addReads(op: number, ip: number, count: number): void {
    const reads = op >= X_CALL ? k.CALL_READS : k.READS[op]!;
    for (let word = 1; reads >> word !== 0; word++) {
      if (((reads >> word) & 1) === 0) continue;
      const temp = tempOf(this.words[(ip >> 2) + word]!);
      if (temp >= 0) this.uses[temp]! += count;
    }
  }

  /** This operation's reads are over. */
  consume(op: number): void {
    this.addReads(op, this.ip, -1);
  }

  /** Reads of a temporary that are still to come; -1 for other slots. */
  usesOf(slot: number): number {
    const temp = tempOf(slot);
    return temp >= 0 ? this.uses[temp]! : -1;
  }

  /** Registers of temporaries that nobody reads any more are free. */
  releaseDead(): void {
    for (let i = 0; i < POOL_SIZE; i++) if (this.usesOf(this.held[i]!) === 0) this.held[i] = 0;
    this.locked = 0;
  }

  /** Is the slot's value the stack pointer, or a constant away from it? */
  isStack(slot: number): boolean {
    if (slot === this.stackPointer) return true;
    const temp = tempOf(slot);
    return temp >= 0 && this.onStack[temp] === this.block;
  }

  markStack(slot: number): void {
    const temp = tempOf(slot);
    if (temp >= 0) this.onStack[temp] = this.block;
  }

  // Registers.

  /** @returns the register that holds a slot's value, MEMORY, or CONSTANT (`low`, `high`) */
  where(slot: number): number {
    if (slot >= CONSTANTS) {
      this.low = this.words[slot >> 2]!;
      this.high = this.words[(slot >> 2) + 1]!;
      return CONSTANT;
    }
    if (slot === PCBASE) return R13;
    const pinned = this.pinnedOf(slot);
    if (pinned !== 0) return pinned;
    for (let i = 0; i < POOL_SIZE; i++) {
      if (this.held[i] !== slot) continue;
      this.locked |= 1 << i;
      this.age[i] = ++this.clock;
      return POOL[i]!;
    }
    return MEMORY;
  }

  private costOf(i: number): number {
    if (this.held[i] === 0) return 0;
    if (!this.dirty[i]) return this.age[i]! + 1;
    return this.age[i]! + (this.usesOf(this.held[i]!) < 0 ? OF_GLOBAL : OF_TEMPORARY);
  }

  /** A register of the pool for something new. @param fixed its place, or -1 for any */
  allocate(fixed = -1): number {
    let best = fixed;
    if (best < 0) {
      let least = 0x7fffffff;
      for (let i = 0; i < POOL_SIZE; i++) {
        if ((this.locked >> i) & 1) continue;
        const cost = this.costOf(i);
        if (cost >= least) continue;
        least = cost;
        best = i;
      }
    }
    if (this.held[best] !== 0 && this.dirty[best]) this.x.store(true, this.held[best]!, POOL[best]!);
    this.held[best] = 0;
    this.locked |= 1 << best;
    this.age[best] = ++this.clock;
    return POOL[best]!;
  }

  /** Leaves a slot's value in a register: its own, or one of the pool. */
  inRegister(slot: number): number {
    const place = this.where(slot);
    if (place < MEMORY) return place;
    const { low, high } = this;
    const reg = this.allocate();
    if (place === CONSTANT) this.x.constant(reg, low, high);
    else this.x.load(true, reg, slot);
    return reg;
  }

  /** Moves a slot's value to a register. Flags stay. */
  moveTo(reg: number, slot: number, wide: boolean): void {
    const place = this.where(slot);
    if (place === CONSTANT) this.x.constant(reg, this.low, wide ? this.high : 0);
    else if (place === MEMORY) this.x.load(wide, reg, slot);
    else if (place !== reg || !wide) this.x.mov(wide, reg, place);
  }

  /** A slot changes: what a register has of it is old. */
  forget(slot: number): void {
    for (let i = 0; i < POOL_SIZE; i++) if (this.held[i] === slot) this.held[i] = 0;
  }

  /** Register for a slot's new value: a global's own, or one of the pool. */
  target(slot: number): number {
    const place = this.pinnedOf(slot);
    return place !== 0 ? place : this.allocate();
  }

  /** The same; it may be the register of an operand that is not read any more. @param reg of the operand */
  targetOver(slot: number, operand: number, reg: number): number {
    const place = this.pinnedOf(slot);
    if (place !== 0) return place;
    if (reg < MEMORY && (operand === slot || this.usesOf(operand) === 0)) {
      const i = POOL.indexOf(reg);
      if (i >= 0) {
        this.held[i] = 0;
        return reg;
      }
    }
    return this.allocate();
  }

  /** The slot's new value is in a register that `target` gave. */
  define(slot: number, reg: number): void {
    const i = POOL.indexOf(reg);
    if (i < 0) return;
    const uses = this.usesOf(slot);
    this.forget(slot);
    // A global is stored when the block ends or leaves, or when its register is needed: perhaps it changes again before.
    this.held[i] = uses === 0 ? 0 : slot;
    this.dirty[i] = 1;
  }

  /** The slot's new value is in rcx, or in a register of the pool that has been allocated. */
  defineFrom(slot: number, reg: number, wide = true): void {
    if (this.pinnedOf(slot) === 0 && POOL.includes(reg)) return this.define(slot, reg);
    const target = this.target(slot);
    this.x.mov(wide, target, reg);
    this.define(slot, target);
  }

  /** Stores globals that have changed. Flags stay. */
  storeGlobals(): void {
    for (let i = 0; i < POOL_SIZE; i++) {
      const slot = this.held[i]!;
      if (slot === 0 || !this.dirty[i] || this.usesOf(slot) >= 0) continue;
      this.x.store(true, slot, POOL[i]!);
      this.dirty[i] = 0;
    }
  }

  pinnedOf(slot: number): number {
    return slot < FIRST_TEMP && (slot & 7) === 0 ? this.pinned[(slot - VCPU_BASE) >> 3]! : 0;
  }

  testZero(a: number, wide: boolean): void {
    const { x } = this;
    const place = this.where(a);
    if (place === MEMORY) x.mi(CMP, wide, a, 0);
    else {
      const reg = place === CONSTANT ? this.inRegister(a) : place;
      x.rr(0x85, wide, reg, reg);
    }
  }

  /** Sets the result to 1 when the condition holds, else 0. */
  defineBy(condition: number): void {
    const { x } = this;
    const d = this.word(4);
    x.setcc(condition, RCX);
    const target = this.target(d);
    x.rr(0x1b6, false, target, RCX, true);
    this.define(d, target);
  }

  /** Puts everything that is still needed into its slot: registers of the pool are about to be overwritten. */
  flush(): void {
    for (let i = 0; i < POOL_SIZE; i++) {
      const slot = this.held[i]!;
      if (slot !== 0 && this.dirty[i] && this.usesOf(slot) !== 0) this.x.store(true, slot, POOL[i]!);
      this.held[i] = 0;
    }
  }

  /** The next four bytes that are written are the address of a literal of four words. Use: an instruction by `X64.sseA`. */
  literal(words: readonly number[]): void {
    this.literals.push({ at: this.x.at - 4, words });
  }

  // Ways out.

  /** The jump leads to where the interpreter goes on with this operation. */
  leaveAt(jump: number, ip = this.goOnAt || this.ip, refund = 0, isCounted = false): Exit {
    const stores: number[] = [];
    for (let i = 0; i < POOL_SIZE; i++) if (this.held[i] !== 0 && this.dirty[i]) stores.push(POOL[i]!, this.held[i]!);
    const exit = { jump, ip, stores, refund, isCounted, before: this.beforeExit?.() ?? null };
    this.exits.push(exit);
    return exit;
  }

  get hasExits(): boolean {
    return this.exits.length > 0;
  }

  leaveAlways(): void {
    this.leaveAt(this.x.jmp());
  }

  writeExits(): void {
    const { x } = this;
    for (const { jump, ip, stores, refund, isCounted, before } of this.exits) {
      x.land(jump);
      if (refund !== 0) x.mi(ADD, false, field(CTL_BUDGET), refund);
      if (isCounted) x.mi(ADD, false, ip + 4, 1);
      for (let i = 0; i < stores.length; i += 2) x.store(true, stores[i + 1]!, stores[i]!);
      before?.();
      x.constant(RAX, ip, 0);
      x.jmpTo(this.exit);
    }
    if (this.literals.length > 0) this.writeLiterals();
  }

  private writeLiterals(): void {
    const { x } = this;
    x.at = (x.at + 15) & ~15;
    for (const { at, words } of this.literals) {
      const place = x.at;
      for (const word of words) x.i32(word);
      const end = x.at;
      x.at = at;
      x.i32(this.origin + place);
      x.at = end;
    }
  }
}

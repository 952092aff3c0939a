/**
 * What is known, operation by operation, of the values by which translated code names x87 registers: their numbers count from TOP as
 * the block found it. From that it follows which operations are for the host's own registers, and which are only about these names.
 */
import type { FloatOperation, FloatStack } from '../../isa/float-stack.ts';
import {
  ARITHMETIC,
  COMPARE,
  COMPARE_FLAGS,
  COMPARE_MEMORY,
  EXCHANGE,
  LOAD_REGISTER,
  STORE_EXTENDED,
  STORE_REGISTER,
} from '../../isa/float-stack.ts';
import { LOAD, LOAD_EXTENDED, MOVE_IF, SIGN, STORE, STORE_INTEGER } from '../../isa/float-stack.ts';
import type { Helper } from '../../ir/helpers.ts';
import { Op } from '../../ir/ops.ts';
import { CONSTANTS, VCPU_BASE } from '../layout.ts';
import { AT_A, AT_B, AT_D, UNIT, X_CALL } from '../opcodes.ts';
import * as k from './units.ts';

/** What an operation is while x87 registers are in the host's. */
export const ORDINARY = 0; // it is not about them
export const SILENT = 1; // nothing has to be done
export const OPERATION = 2; // `operation`
export const END = 3; // they must be where the interpreter has them

// What a temporary is, which nobody has computed: kind << 3 | how far it is from the first TOP.
export const NUMBER = 1;
export const SLOT = 2;
export const SUM = 3; // a number before it is taken modulo 8
export const ZERO = 4;
export const STATUS = 5; // the status word after a store
export const ERROR = 6; // the status word, to be tested for an exception that waits
/** Bits of a comparison's result, which have been computed. */
const FLAGS = 7;
/** Summary of unmasked exceptions in the status word. */
const SUMMARY = 0x80;

const ADD32 = Op.add32;
const AND32 = Op.and32;
const SHL32 = Op.shl32;
const SHR32 = Op.shr32;
const LDS32 = Op.lds32;
const STS8 = Op.sts8;
const STS16 = Op.sts16;
const STS32 = Op.sts32;
const STS64 = Op.sts64;

/** What may be followed by a pop. */
const POPPING = new Set([
  ARITHMETIC,
  COMPARE,
  COMPARE_MEMORY,
  COMPARE_FLAGS,
  STORE,
  STORE_EXTENDED,
  STORE_INTEGER,
  STORE_REGISTER,
]);

export class X87Tracker {
  readonly kinds = new Map<number, number>();
  /** Temporaries of `kinds` that have been computed after all. */
  readonly real = new Set<number>();
  /** How far TOP has moved since the block's first use. */
  moved = 0;
  /** OPERATION: which one. */
  operation: FloatOperation | null = null;
  /** The last operation of the instruction under way, 0 = none. */
  operationAt = 0;
  /** SILENT: it empties the register that is st(0). */
  pops = false;
  /** SILENT: TOP moves by so much. */
  moves = 0;
  readonly stack: FloatStack;
  readonly words: Int32Array;
  private readonly helpers: readonly Helper[];

  constructor(stack: FloatStack, words: Int32Array, helpers: readonly Helper[]) {
    this.stack = stack;
    this.words = words;
    this.helpers = helpers;
  }

  begin(): void {
    this.kinds.clear();
    this.real.clear();
    this.moved = 0;
    this.operationAt = 0;
  }

  copyFrom(other: X87Tracker): void {
    this.begin();
    for (const [slot, kind] of other.kinds) this.kinds.set(slot, kind);
    for (const slot of other.real) this.real.add(slot);
    this.moved = other.moved;
  }

  private word(ip: number, at: number): number {
    return this.words[(ip + at) >> 2]!;
  }

  private kindAt(ip: number, at: number): number {
    return (this.kinds.get(this.word(ip, at)) ?? 0) >> 3;
  }

  /** Is an operand this constant? */
  private isConstant(ip: number, at: number, value: number): boolean {
    const slot = this.word(ip, at);
    return slot >= CONSTANTS && this.words[slot >> 2] === value;
  }

  /** Which register a slot names, st(i), or -1. */
  registerAt(ip: number, at: number): number {
    const kind = this.kinds.get(this.word(ip, at)) ?? 0;
    return kind >> 3 === SLOT ? (kind - this.moved) & 7 : -1;
  }

  private define(ip: number, kind: number, place = 0): number {
    this.kinds.set(this.word(ip, AT_D), (kind << 3) | (place & 7));
    return SILENT;
  }

  /** @param op of the operation at `ip`  @returns what it is */
  step(op: number, ip: number): number {
    this.pops = false;
    this.moves = 0;
    if (op >= X_CALL) return this.call(op, ip);
    switch (op) {
      case LDS32:
        return this.load(ip);
      case ADD32:
      case AND32:
      case SHL32:
      case SHR32:
        return this.compute(op, ip);
      case STS8:
      case STS16:
      case STS32:
        return this.store(op, ip);
      case Op.leaveif:
        return this.kindAt(ip, AT_A) === ZERO ? SILENT : this.ordinary(op, ip);
      default:
        if (op === STS64 && this.word(ip, AT_B) === VCPU_BASE + this.stack.place) this.operationAt = 0;
        return this.ordinary(op, ip);
    }
  }

  private call(op: number, ip: number): number {
    const operation = this.stack.operations.get(op - X_CALL);
    if (operation === undefined) return this.helpers[op - X_CALL]!.body.kind === 'ir' ? this.ordinary(op, ip) : END;
    this.operation = operation;
    if (!this.named(operation, ip)) return END;
    this.operationAt = ip;
    const { kind } = operation;
    if (kind === COMPARE_FLAGS) this.define(ip, FLAGS);
    else if (kind !== STORE && kind !== STORE_EXTENDED && kind !== STORE_INTEGER) this.define(ip, ZERO);
    return OPERATION;
  }

  /** Are the operation's operands registers that are known, and st(0) where it must be? */
  private named({ kind }: FloatOperation, ip: number): boolean {
    const [a, b] = [this.registerAt(ip, AT_A), this.registerAt(ip, AT_B)];
    switch (kind) {
      case ARITHMETIC:
        return a >= 0 && b >= 0 && (a === 0 || b === 0);
      case COMPARE:
      case COMPARE_FLAGS:
      case EXCHANGE:
      case STORE_REGISTER:
        return a === 0 && b >= 0;
      case LOAD_REGISTER:
        return a === 7 && b >= 0;
      case LOAD:
      case LOAD_EXTENDED:
        return a === 7;
      case SIGN:
      case STORE_EXTENDED:
        return a === 0;
      case MOVE_IF:
        return b >= 0;
      default:
        return true;
    }
  }

  private load(ip: number): number {
    const { stack } = this;
    const at = this.word(ip, AT_B) - VCPU_BASE;
    if (at === stack.top) return this.define(ip, NUMBER, this.moved);
    if (at === stack.statusAfter && this.operationAt !== 0) return this.define(ip, STATUS);
    if (at === stack.status && this.isErrorTest(ip)) return this.define(ip, ERROR);
    return this.ordinary(LDS32, ip);
  }

  /** The status word is looked at for its summary only, and the instruction left if that is set. */
  private isErrorTest(ip: number): boolean {
    const [test, leave] = [ip + UNIT, ip + 2 * UNIT];
    const opcode = (at: number): number => k.FIRST[this.word(at, 0) & 0xffff] ?? -1;
    return (
      opcode(test) === AND32 &&
      this.word(test, AT_A) === this.word(ip, AT_D) &&
      this.isConstant(test, AT_B, SUMMARY) &&
      opcode(leave) === Op.leaveif &&
      this.word(leave, AT_A) === this.word(test, AT_D)
    );
  }

  private compute(op: number, ip: number): number {
    const kind = this.kinds.get(this.word(ip, AT_A)) ?? 0;
    const constant = this.word(ip, AT_B);
    const value = constant >= CONSTANTS ? this.words[constant >> 2]! : -1;
    switch (kind >> 3) {
      case NUMBER:
        if (op === ADD32 && constant >= CONSTANTS) return this.define(ip, SUM, kind + value);
        if (op === SHL32 && value === 4) return this.define(ip, SLOT, kind);
        break;
      case SUM:
        if (op === AND32 && value === 7) return this.define(ip, NUMBER, kind);
        break;
      case STATUS:
        if (op === AND32 && value === this.stack.suppressed) return this.define(ip, ZERO);
        break;
      case ERROR:
        if (op === AND32 && value === SUMMARY) return this.define(ip, ZERO);
        break;
      case FLAGS:
        if (op === SHR32 && value === this.stack.stoppedShift) return this.define(ip, ZERO);
        break;
      default:
    }
    return this.ordinary(op, ip);
  }

  private store(op: number, ip: number): number {
    const { stack } = this;
    const at = this.word(ip, AT_B) - VCPU_BASE;
    if (op === STS16 && at === stack.registers + stack.mark) return this.empty(ip);
    if (op === STS8 && at === stack.tags) {
      const number = this.kinds.get(this.word(ip, AT_A)) ?? 0;
      const top = number === ((NUMBER << 3) | this.moved);
      return top && this.isConstant(ip, AT_D, 1) && this.operationAt !== 0 ? SILENT : END;
    }
    if (op === STS32 && at === stack.top) return this.move(ip);
    if (op === STS32 && at === stack.status && this.kindAt(ip, AT_D) === STATUS) return SILENT;
    return this.ordinary(op, ip);
  }

  private empty(ip: number): number {
    const { operation, operationAt } = this;
    if (operationAt === 0 || !POPPING.has(operation!.kind)) return END;
    if (this.registerAt(ip, AT_A) !== 0 || !this.isConstant(ip, AT_D, 0)) return END;
    this.pops = true;
    return SILENT;
  }

  private move(ip: number): number {
    const number = this.kinds.get(this.word(ip, AT_D)) ?? 0;
    if (number >> 3 !== NUMBER || this.operationAt === 0) {
      // Whoever reads TOP next begins to count anew.
      this.kinds.clear();
      this.moved = 0;
      return END;
    }
    this.moves = ((number - this.moved + 1) & 7) - 1;
    this.moved = number & 7;
    return SILENT;
  }

  /** An operation that is not about these registers, unless it touches them, or wants a value that nobody has computed. */
  private ordinary(op: number, ip: number): number {
    if (op < X_CALL && k.endsBlock(op)) return END;
    const state = op < X_CALL && k.isStateAccess(op);
    if (state) {
      const at = this.word(ip, AT_B) - VCPU_BASE;
      if (at >= this.stack.from && at <= this.stack.to) return END;
    }
    const reads = op >= X_CALL ? k.CALL_READS : k.READS[op]!;
    for (let word = 1; reads >> word !== 0; word++) {
      if (((reads >> word) & 1) === 0) continue;
      const slot = this.words[(ip >> 2) + word]!;
      const kind = (this.kinds.get(slot) ?? 0) >> 3;
      if (kind !== 0 && kind !== FLAGS && !this.real.has(slot)) return END;
    }
    return ORDINARY;
  }
}

/**
 * What is known, operation by operation, of the values by which translated code names x87 registers: their numbers count from TOP as
 * the block found it. From that it follows which operations are for the host's own registers, and which are only about these names.
 */
import type { FloatOperation, FloatStack } from '../../isa/float-stack.ts';
import {
  ARITHMETIC,
  ARITHMETIC_MEMORY,
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
import { ACCESS } from '../access.ts';
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
  private readonly stack: FloatStack;
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

/** What is between the first x87 operation and where the registers must be back, as it is found beforehand. */
export interface X87Stretch {
  /** The first operation after it. */
  readonly end: number;
  /** Registers that it needs full, from st(0) on, and empty, from the one before on. */
  readonly full: number;
  readonly empty: number;
  /** Pops by operation. */
  readonly pops: ReadonlyMap<number, number>;
  /** Operations by the load of their operand, and stores by the operation whose result they store: nothing else is between them. */
  readonly loads: ReadonlyMap<number, number>;
  readonly stores: ReadonlyMap<number, number>;
  /** Operations that such a store does along: the other part of a value of 80 bits is read and stored. */
  readonly parts: ReadonlySet<number>;
  /** Positions whose value is to be kept where the operation pops them: nobody writes there again. */
  readonly kept: ReadonlyMap<number, readonly number[]>;
}

/** Looks ahead. Positions count from TOP at the stretch's beginning: 0 is st(0) there, what is pushed is below. */
export class X87Scan {
  private readonly tracker: X87Tracker;
  private readonly opcode: (ip: number) => number;
  private readonly next: (op: number, ip: number) => number;
  private depth = 0;
  private full = 0;
  private empty = 0;
  private pops = new Map<number, number>();
  private kept = new Map<number, number[]>();
  private loads = new Map<number, number>();
  private stores = new Map<number, number>();
  /** The last load, or the last operation that has a result for a store, while nothing else has come since; 0 = none. */
  private loadAt = 0;
  private resultAt = 0;
  private parts = new Set<number>();
  /** The last read of the upper part of a value of 80 bits, and the store of its lower part. */
  private partAt = 0;
  private lowerAt = 0;
  /** By position: the operation that popped it last, while nobody has written there again. */
  private readonly popped = new Map<number, number>();
  private valid = true;

  constructor(tracker: X87Tracker, opcode: (ip: number) => number, next: (op: number, ip: number) => number) {
    this.tracker = tracker;
    this.opcode = opcode;
    this.next = next;
  }

  /** @returns null where there is nothing to gain */
  run(from: X87Tracker, ip: number, units: number): X87Stretch | null {
    const { tracker } = this;
    tracker.copyFrom(from);
    tracker.operationAt = 0;
    this.depth = this.full = this.empty = 0;
    this.pops = new Map();
    this.kept = new Map();
    this.loads = new Map();
    this.stores = new Map();
    this.parts = new Set();
    this.partAt = this.lowerAt = 0;
    this.loadAt = this.resultAt = 0;
    this.popped.clear();
    this.valid = true;
    let count = 0;
    let compared = false;
    for (; units > 0; units--) {
      const op = this.opcode(ip);
      const what = tracker.step(op, ip);
      if (what === END) break;
      if (what === OPERATION) {
        if (compared || !this.require(tracker.operation!, ip)) break;
        compared = tracker.operation!.kind === COMPARE || tracker.operation!.kind === COMPARE_MEMORY;
        count++;
        this.joinLoad(ip);
      } else if (what === SILENT) this.silent();
      else this.joinStore(op, ip);
      ip = this.next(op, ip);
    }
    for (const [position, at] of this.popped) this.keep(position, at);
    const { full, empty, pops, loads, stores, parts, kept } = this;
    return this.valid && count > 0 && units > 0 ? { end: ip, full, empty, pops, loads, stores, parts, kept } : null;
  }

  private word(ip: number, at: number): number {
    return this.tracker.words[(ip + at) >> 2]!;
  }

  /** An operation may take its operand from the guest's memory. */
  private joinLoad(ip: number): void {
    const { kind, opcode } = this.tracker.operation!;
    const { loadAt } = this;
    this.loadAt = 0;
    this.resultAt = kind === STORE || kind === STORE_INTEGER || kind === STORE_EXTENDED ? ip : 0;
    this.partAt = this.lowerAt = 0;
    if (loadAt === 0) return;
    const operand = kind === LOAD ? AT_B : kind === ARITHMETIC_MEMORY || kind === COMPARE_MEMORY ? AT_A : 0;
    if (operand === 0 || this.word(ip, operand) !== this.word(loadAt, AT_D)) return;
    const bytes = opcode === 0xd8 || opcode === 0xd9 ? 4 : opcode === 0xda ? 0 : 8;
    if (ACCESS[this.opcode(loadAt)]!.bytes === bytes) this.loads.set(loadAt, ip);
  }

  /** A store may take its value from an operation. */
  private joinStore(op: number, ip: number): void {
    const { resultAt } = this;
    if (resultAt !== 0 && this.tracker.operation!.kind === STORE_EXTENDED) return this.joinParts(op, ip);
    this.loadAt = op < X_CALL && k.KIND[op] === k.LOAD ? ip : 0;
    this.resultAt = 0;
    if (resultAt === 0 || op >= X_CALL || k.KIND[op] !== k.STORE) return;
    if (this.word(ip, AT_D) === this.word(resultAt, AT_D)) this.stores.set(resultAt, ip);
  }

  /** The upper part is read, then the lower one stored, then the upper one; the memory lies in one piece. */
  private joinParts(op: number, ip: number): void {
    const { resultAt, partAt } = this;
    const kind = op < X_CALL ? k.KIND[op]! : k.NONE;
    if (kind === k.STATE_LOAD && partAt === 0) this.partAt = ip;
    else if (kind === k.STORE && this.word(ip, AT_D) === this.word(resultAt, AT_D)) this.lowerAt = ip;
    else if (kind === k.STORE && this.lowerAt !== 0 && this.word(ip, AT_D) === this.word(partAt, AT_D)) {
      this.stores.set(resultAt, this.lowerAt);
      this.parts.add(partAt).add(ip);
      this.resultAt = 0;
    } else if (kind !== k.ALU) this.resultAt = 0;
  }

  private keep(position: number, at: number): void {
    const positions = this.kept.get(at);
    if (positions) positions.push(position);
    else this.kept.set(at, [position]);
  }

  /** @returns whether there are registers for it */
  private require({ kind }: FloatOperation, ip: number): boolean {
    const { tracker, depth } = this;
    let { full, empty } = this;
    const use = (at: number): void => {
      full = Math.max(full, depth + tracker.registerAt(ip, at) + 1);
    };
    if (kind === LOAD || kind === LOAD_EXTENDED || kind === LOAD_REGISTER) {
      empty = Math.max(empty, 1 - depth);
      if (kind === LOAD_REGISTER) use(AT_B);
    } else {
      if (kind === ARITHMETIC) use(AT_A);
      if (kind === ARITHMETIC || kind === COMPARE || kind === COMPARE_FLAGS) use(AT_B);
      if (kind === EXCHANGE || kind === STORE_REGISTER || kind === MOVE_IF) use(AT_B);
      full = Math.max(full, depth + 1);
    }
    if (full + empty > 8) return false;
    this.full = full;
    this.empty = empty;
    return true;
  }

  private silent(): void {
    const { tracker, popped } = this;
    if (tracker.pops) this.pop(tracker.operationAt);
    if (tracker.moves === 0) return;
    if (tracker.moves < -1 || tracker.moves > 1) this.valid = false;
    this.depth += tracker.moves;
    if (tracker.moves < 0) popped.delete(this.depth);
  }

  private pop(at: number): void {
    const { tracker, depth, popped } = this;
    const before = this.pops.get(at) ?? 0;
    this.pops.set(at, before + 1);
    const { kind } = tracker.operation!;
    // A result that is popped: nothing that a compiler writes.
    if (kind === ARITHMETIC && before === 0 && this.resultIsTop(at)) this.valid = false;
    if (before > 0 && kind !== COMPARE) this.valid = false;
    popped.set(depth, at);
    // To keep a value takes the register below it.
    const below = popped.get(depth - 1);
    if (below === undefined || below === at) return;
    this.keep(depth - 1, below);
    popped.delete(depth - 1);
  }

  private resultIsTop(at: number): boolean {
    return this.tracker.registerAt(at, AT_A) === 0;
  }
}

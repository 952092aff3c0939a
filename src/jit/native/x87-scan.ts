/** Looks ahead over what a block does with x87 registers: as far as it can be done on the host's, and what that takes. */
import {
  ARITHMETIC,
  ARITHMETIC_MEMORY,
  COMPARE,
  COMPARE_FLAGS,
  COMPARE_MEMORY,
  EXCHANGE,
  LOAD,
  LOAD_EXTENDED,
  LOAD_REGISTER,
  MOVE_IF,
  STORE,
  STORE_EXTENDED,
  STORE_INTEGER,
  STORE_REGISTER,
} from '../../isa/float-stack.ts';
import type { FloatOperation } from '../../isa/float-stack.ts';
import { ACCESS } from '../access.ts';
import { AT_A, AT_B, AT_D, X_CALL } from '../opcodes.ts';
import * as k from './units.ts';
import { field } from './writer.ts';
import { END, OPERATION, SILENT } from './x87-tracker.ts';
import type { X87Tracker } from './x87-tracker.ts';

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
    const isPart = kind === k.STATE_LOAD && this.word(ip, AT_B) === field(this.tracker.stack.highPart);
    if (isPart && partAt === 0) this.partAt = ip;
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

/**
 * Builds one block of IR.
 *
 * A block is a list of fixed records in one Int32Array; a value is the number of
 * the record that defines it.
 *
 *   word 0   operation
 *   words 1… value operands, then immediates (`OpInfo` says how many of each)
 *   calls:   word 1 = helper number, words 2-5 = operands (-1 = none)
 */
import { I32, I64, F64, NONE, OPS, Op, OP_RESULT, V128 } from './ops.ts';
import type { MemoryRows, PureRows } from './ops.ts';
import type { Helper } from './helpers.ts';
import {
  CTL_CODE_KEY,
  CTL_JUMP_BASE,
  CTL_MAPPING,
  CTL_OTHER_JUMPS,
  CTL_OTHER_KEY,
  CTL_OTHER_MAPPING,
  CTL_OTHER_TLB,
  CTL_STACK_LIMIT,
  CTL_TLB_BASE,
} from './vcpu-block.ts';

/** Words in a record. */
export const STRIDE = 7;

/** A value: the number of its record. */
export type Value = number;

/** "The context is what the block was entered with": unknown at translation time. */
export const CTX_UNKNOWN = -1;

/** A typed guest register with a place in the vCPU's state block. */
export interface Global {
  readonly name: string;
  /** Position in the ISA's list of globals. */
  readonly index: number;
  readonly type: number;
  /** Byte offset in the state block; v128 needs 16-byte alignment, the others 8. */
  readonly offset: number;
}

type Operands<S extends string> = S extends `${string}${infer Rest}` ? [Value, ...Operands<Rest>] : [];
type Immediates<N> = N extends 1 ? [number] : N extends 4 ? [number, number, number, number] : [];
type MethodOf<R> = R extends readonly [`${infer A}>${string}`, unknown, infer N]
  ? (...args: [...Operands<A>, ...Immediates<N>]) => Value
  : R extends readonly [`${infer A}>${string}`, ...unknown[]]
    ? (...args: Operands<A>) => Value
    : never;

/** One method for each pure and each memory operation, named as in the table. */
type OpMethods = { [K in Exclude<keyof PureRows, `const${string}`>]: MethodOf<PureRows[K]> } & {
  [K in keyof MemoryRows]: MethodOf<MemoryRows[K]>;
};

// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
export interface Builder extends OpMethods {}

export class Builder {
  words: Int32Array = new Int32Array(STRIDE * 256);
  /** Number of records. */
  count = 0;
  /** Guest instructions begun so far. */
  insns = 0;
  /** Current value of each global within the block, -1 when not read or written yet. */
  private readonly current: Int32Array;
  /**
   * The instruction context (an opaque number of the ISA's, x86: the condition-code
   * operation) as it stands; stored with each `insn` marker and each exit.
   */
  ctx: number = CTX_UNKNOWN;
  /** The block read the context it was entered with, so it is worth specialising on it. */
  usesContext = false;
  ended = false;

  constructor(globals: readonly Global[]) {
    this.current = new Int32Array(globals.length).fill(-1);
  }

  /** Starts a new block. @param ctx the context known at its entry, or CTX_UNKNOWN */
  reset(ctx: number): void {
    this.count = 0;
    this.insns = 0;
    this.forgetGlobals();
    this.ctx = ctx;
    this.usesContext = false;
    this.ended = false;
  }

  /** For so few words a loop is several times faster than `fill`. */
  private forgetGlobals(): void {
    const { current } = this;
    for (let i = 0; i < current.length; i++) current[i] = -1;
  }

  private record(op: number): number {
    const at = this.count++ * STRIDE;
    if (at + STRIDE > this.words.length) {
      const larger = new Int32Array(this.words.length * 2);
      larger.set(this.words);
      this.words = larger;
    }
    this.words[at] = op;
    return at;
  }

  /** @internal The generated methods' common part; up to three operands or immediates. */
  emit(op: number, a: number, b: number, c: number, d: number, e: number, f: number): Value {
    const at = this.record(op);
    const w = this.words;
    w[at + 1] = a;
    w[at + 2] = b;
    w[at + 3] = c;
    w[at + 4] = d;
    w[at + 5] = e;
    w[at + 6] = f;
    return this.count - 1;
  }

  /** A 32-bit constant. */
  i32(value: number): Value {
    return this.emit(Op.const32, value | 0, 0, 0, 0, 0, 0);
  }

  /** A 64-bit constant: the sign-extended 32-bit number `low`, or the words low and high. */
  i64(low: number, high: number = low >> 31): Value {
    return this.emit(Op.const64, low | 0, high | 0, 0, 0, 0, 0);
  }

  v128(w0: number, w1: number, w2: number, w3: number): Value {
    return this.emit(Op.constv, w0 | 0, w1 | 0, w2 | 0, w3 | 0, 0, 0);
  }

  /** Type of a value. */
  typeOf(value: Value): number {
    return OP_RESULT[this.words[value * STRIDE]!]!;
  }

  /** The record's operation, for frontends that look at a value's definition. */
  opOf(value: Value): number {
    return this.words[value * STRIDE]!;
  }

  /** Is the value a 32- or 64-bit constant whose low word is this and whose high word is its sign? */
  isConst(value: Value, constant: number): boolean {
    const at = value * STRIDE;
    const op = this.words[at]!;
    if (op === Op.const32) return this.words[at + 1] === (constant | 0);
    return op === Op.const64 && this.words[at + 1] === (constant | 0) && this.words[at + 2] === constant >> 31;
  }

  /** The global's value at this point. Never costs more than one read a block. */
  get(global: Global): Value {
    const known = this.current[global.index]!;
    if (known >= 0) return known;
    const value = this.emit(GET_OP[global.type]!, global.index, 0, 0, 0, 0, 0);
    this.current[global.index] = value;
    return value;
  }

  set(global: Global, value: Value): void {
    this.current[global.index] = value;
    this.emit(SET_OP[global.type]!, value, global.index, 0, 0, 0, 0);
  }

  /** The context the block was entered with; only while `ctx` is still CTX_UNKNOWN. */
  entryContext(): Value {
    this.usesContext = true;
    return this.emit(Op.getctx, 0, 0, 0, 0, 0, 0);
  }

  private stateOp(op: number, index: Value, offset: number): Value {
    return this.emit(op, index, offset, 0, 0, 0, 0);
  }

  private get zero(): Value {
    return this.i32(0);
  }

  /** State-block loads: constant byte offset plus an optional i32 value in bytes. */
  lds8(offset: number, index: Value = this.zero): Value {
    return this.stateOp(Op.lds8, index, offset);
  }
  lds16(offset: number, index: Value = this.zero): Value {
    return this.stateOp(Op.lds16, index, offset);
  }
  lds32(offset: number, index: Value = this.zero): Value {
    return this.stateOp(Op.lds32, index, offset);
  }
  lds64(offset: number, index: Value = this.zero): Value {
    return this.stateOp(Op.lds64, index, offset);
  }
  ldsf64(offset: number, index: Value = this.zero): Value {
    return this.stateOp(Op.ldsf64, index, offset);
  }
  ldsv(offset: number, index: Value = this.zero): Value {
    return this.stateOp(Op.ldsv, index, offset);
  }
  /** State-block stores. Never of a global's place: use `set`. */
  sts8(offset: number, value: Value, index: Value = this.zero): void {
    this.emit(Op.sts8, index, value, offset, 0, 0, 0);
  }
  sts16(offset: number, value: Value, index: Value = this.zero): void {
    this.emit(Op.sts16, index, value, offset, 0, 0, 0);
  }
  sts32(offset: number, value: Value, index: Value = this.zero): void {
    this.emit(Op.sts32, index, value, offset, 0, 0, 0);
  }
  sts64(offset: number, value: Value, index: Value = this.zero): void {
    this.emit(Op.sts64, index, value, offset, 0, 0, 0);
  }
  stsf64(offset: number, value: Value, index: Value = this.zero): void {
    this.emit(Op.stsf64, index, value, offset, 0, 0, 0);
  }
  stsv(offset: number, value: Value, index: Value = this.zero): void {
    this.emit(Op.stsv, index, value, offset, 0, 0, 0);
  }

  /**
   * Calls a helper. What it may do is declared in its `Helper`: when it reads or
   * writes globals, values read before are stale, so `get` reads them anew.
   */
  call(helper: Helper, a: Value = -1, b: Value = -1, c: Value = -1, d: Value = -1): Value {
    const value = this.emit(CALL_OP[helper.result]!, helper.index, a, b, c, d, 0);
    if (helper.touchesGlobals) this.forgetGlobals();
    return value;
  }

  /** Begins a guest instruction. @param offset of its pc from the block's base pc */
  insn(offset: number): void {
    this.insns++;
    this.emit(Op.insn, offset, this.ctx, 0, 0, 0, 0);
  }

  /** Leaves the block when `condition` is non-zero, with the pc at the current instruction. */
  leaveIf(condition: Value, reason: number, argument: number): void {
    this.emit(Op.leaveif, condition, reason, argument, 0, 0, 0);
  }

  goto(offset: number): void {
    this.emit(Op.goto, offset, this.ctx, 0, 0, 0, 0);
    this.ended = true;
  }

  condGoto(condition: Value, taken: number, notTaken: number): void {
    this.emit(Op.condgoto, condition, taken, notTaken, this.ctx, 0, 0);
    this.ended = true;
  }

  /** @param elsewhere what comes is code under other flags: it never belongs to the same region */
  jump(pc: Value, elsewhere = false): void {
    this.emit(Op.jump, pc, this.ctx, elsewhere ? 1 : 0, 0, 0, 0);
    this.ended = true;
  }

  /**
   * Changes to the other supervisor context, which must be ready (CTL_OTHER_TLB). The block must end here, with a
   * jump elsewhere.
   */
  changeContext(): void {
    this.exchange(CTL_TLB_BASE, CTL_OTHER_TLB);
    this.exchange(CTL_JUMP_BASE, CTL_OTHER_JUMPS);
    this.exchange(CTL_MAPPING, CTL_OTHER_MAPPING);
    const key = this.lds64(CTL_CODE_KEY);
    this.sts64(CTL_CODE_KEY, this.lds64(CTL_OTHER_KEY));
    this.sts64(CTL_OTHER_KEY, key);
    // The page that the stack was seen in may be one that only the other permits.
    this.sts64(CTL_STACK_LIMIT, this.i64(0));
  }

  private exchange(a: number, b: number): void {
    const first = this.lds32(a);
    this.sts32(a, this.lds32(b));
    this.sts32(b, first);
  }

  /** Leaves translated code for the ISA's own `leave`. @param offset the pc it shall see */
  leave(reason: number, argument: number, offset: number): void {
    this.emit(Op.leave, reason, argument, offset, this.ctx, 0, 0);
    this.ended = true;
  }
}

const GET_OP: readonly number[] = [Op.getg32, Op.getg64, -1, Op.getgf64, Op.getgv];
const SET_OP: readonly number[] = [Op.setg32, Op.setg64, -1, Op.setgf64, Op.setgv];
const CALL_OP: readonly number[] = [];
(CALL_OP as number[])[I32] = Op.calli;
(CALL_OP as number[])[I64] = Op.calll;
(CALL_OP as number[])[F64] = Op.calld;
(CALL_OP as number[])[V128] = Op.callv;
(CALL_OP as number[])[NONE] = Op.call;

function addOpMethods(): void {
  const prototype = Builder.prototype as unknown as Record<string, unknown>;
  for (const { name, index } of OPS) {
    if (name in prototype) continue;
    prototype[name] = function (this: Builder, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0): Value {
      return this.emit(index, a, b, c, d, e, f);
    };
  }
}
addOpMethods();

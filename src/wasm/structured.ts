/**
 * A thin layer over `Code` in which generated routines read like routines: expressions,
 * locals, if, loops. An expression is emitted where it is used, each time anew, so what is
 * needed twice, or must not see later changes, goes into a local (`Body.let`).
 */
import { I32, I64, NONE } from '../ir/ops.ts';
import {
  BLOCK,
  BR,
  BR_IF,
  CALL,
  Code,
  DROP,
  ELSE,
  I32_EQZ,
  I64_EXTEND_U,
  LOOP,
  RETURN,
  RETURN_CALL,
  SELECT,
  typeByte,
} from './wasm.ts';
import type { ModuleWriter } from './wasm.ts';

export type Operand = Expr | number | bigint;

/** Operand of an `Inline`, by a number that no other value has; what it names then is a part of no other's. */
export const NAMELESS = -1;

/**
 * A field that code in place of calls may have in a local for a while, beside memory: one place, or one for each operand
 * that names it.
 */
export interface Field {
  /** Different for each. */
  readonly id: number;
  readonly type: number;
  /** Where it lies: the first byte that it can have, the number of its bytes, and the number of bytes that it may lie in. */
  readonly offset: number;
  readonly bytes: number;
  readonly span: number;
  /** No call changes it. It is recalled before the first way out then. */
  readonly fixed?: boolean;
  /** It is of use until the next operation in place of a call. */
  readonly brief?: boolean;
}

/** Which fields are in locals, see `Body.recall`. Operands that name none are null. */
export interface Fields {
  find(field: Field, of: Expr | null): Local | undefined;
  /** The local that has the field from now on, and how it is loaded; undefined when it cannot have one. */
  keep(field: Field, of: Expr | null, load: Expr): Local | undefined;
  exchange(field: Field, a: Expr, b: Expr): void;
  /** What the field is known to be. */
  constantOf(field: Field, of: Expr): number | undefined;
  setConstant(field: Field, of: Expr, value: number): void;
}

/** Opcodes for i32, i64, f32 and f64 operands. */
type Opcodes = readonly [number, number, number?, number?];

export class Expr {
  readonly type: number;
  readonly emit: (c: Code) => void;

  constructor(type: number, emit: (c: Code) => void) {
    this.type = type;
    this.emit = emit;
  }

  private binary(opcodes: Opcodes, y: Operand, result: number = this.type): Expr {
    const other = asExpr(y, this.type);
    if (other.type !== this.type) throw new Error('operand types differ');
    return new Expr(result, (c) => {
      this.emit(c);
      other.emit(c);
      c.op(opcodes[this.type]!);
    });
  }
  /** One instruction that takes this value. */
  apply(opcode: number | readonly number[], result: number): Expr {
    return new Expr(result, (c) => {
      this.emit(c);
      c.raw(typeof opcode === 'number' ? [opcode] : opcode);
    });
  }

  add(y: Operand): Expr {
    return this.binary([0x6a, 0x7c, 0x92, 0xa0], y);
  }
  sub(y: Operand): Expr {
    return this.binary([0x6b, 0x7d, 0x93, 0xa1], y);
  }
  mul(y: Operand): Expr {
    return this.binary([0x6c, 0x7e, 0x94, 0xa2], y);
  }
  divs(y: Operand): Expr {
    return this.binary([0x6d, 0x7f], y);
  }
  /** Unsigned quotient; of floats, the quotient. */
  div(y: Operand): Expr {
    return this.binary([0x6e, 0x80, 0x95, 0xa3], y);
  }
  rem(y: Operand): Expr {
    return this.binary([0x70, 0x82], y);
  }
  and(y: Operand): Expr {
    return this.binary([0x71, 0x83], y);
  }
  or(y: Operand): Expr {
    return this.binary([0x72, 0x84], y);
  }
  xor(y: Operand): Expr {
    return this.binary([0x73, 0x85], y);
  }
  shl(y: Operand): Expr {
    return this.binary([0x74, 0x86], y);
  }
  sar(y: Operand): Expr {
    return this.binary([0x75, 0x87], y);
  }
  shr(y: Operand): Expr {
    return this.binary([0x76, 0x88], y);
  }
  eq(y: Operand): Expr {
    return this.binary([0x46, 0x51], y, I32);
  }
  ne(y: Operand): Expr {
    return this.binary([0x47, 0x52], y, I32);
  }
  lts(y: Operand): Expr {
    return this.binary([0x48, 0x53], y, I32);
  }
  ltu(y: Operand): Expr {
    return this.binary([0x49, 0x54], y, I32);
  }
  gts(y: Operand): Expr {
    return this.binary([0x4a, 0x55], y, I32);
  }
  gtu(y: Operand): Expr {
    return this.binary([0x4b, 0x56], y, I32);
  }
  les(y: Operand): Expr {
    return this.binary([0x4c, 0x57], y, I32);
  }
  leu(y: Operand): Expr {
    return this.binary([0x4d, 0x58], y, I32);
  }
  ges(y: Operand): Expr {
    return this.binary([0x4e, 0x59], y, I32);
  }
  geu(y: Operand): Expr {
    return this.binary([0x4f, 0x5a], y, I32);
  }
  not(): Expr {
    return this.apply(this.type === I32 ? I32_EQZ : 0x50, I32);
  }
  clz(): Expr {
    return this.apply(this.type === I32 ? 0x67 : 0x79, this.type);
  }
  ctz(): Expr {
    return this.apply(this.type === I32 ? 0x68 : 0x7a, this.type);
  }
  wrap(): Expr {
    return this.apply(0xa7, I32);
  }
  extu(): Expr {
    return this.apply(I64_EXTEND_U, I64);
  }
  exts(): Expr {
    return this.apply(0xac, I64);
  }
  neg(): Expr {
    return asExpr(0, this.type).sub(this);
  }

  /** This as a condition: `yes` or `no`, both computed. */
  select(yes: Operand, no: Operand, type: number = typeOf(yes, no)): Expr {
    const [a, b] = [asExpr(yes, type), asExpr(no, type)];
    return new Expr(type, (c) => {
      a.emit(c);
      b.emit(c);
      this.emit(c);
      c.op(SELECT);
    });
  }
}

const typeOf = (x: Operand, y: Operand): number =>
  x instanceof Expr ? x.type : y instanceof Expr ? y.type : typeof x === 'bigint' ? I64 : I32;

export function constant(type: number, value: number | bigint): Expr {
  return new Expr(type, (c) => {
    if (type === I32) c.i32(Number(BigInt.asIntN(32, BigInt(value))));
    else if (type === I64) {
      const bits = BigInt.asUintN(64, BigInt(value));
      c.i64(Number(bits & 0xffffffffn) | 0, Number(bits >> 32n) | 0);
    } else throw new Error('integer constants only');
  });
}

export const i32 = (value: number): Expr => constant(I32, value);
export const i64 = (value: number | bigint): Expr => constant(I64, value);

function asExpr(value: Operand, type: number): Expr {
  return value instanceof Expr ? value : constant(type, value);
}

export class Local extends Expr {
  readonly index: number;
  /** See `Fields`. */
  readonly name: number;
  constructor(type: number, index: number, name = NAMELESS) {
    super(type, (c) => c.get(index));
    this.index = index;
    this.name = name;
  }
}

/** A function of the module being made. */
export interface Routine {
  readonly index: number;
  readonly params: readonly number[];
  readonly result: number;
}

export class Body {
  readonly code: Code;
  private readonly base: number;
  private readonly take: (type: number) => number;
  private readonly fields: Fields | null;

  /**
   * @param code of a function that has begun
   * @param base address that field offsets count from
   * @param take finds a local of a type; one that has been used before will do where `variable` is not asked for any
   * @param fields that may be in locals as well
   */
  constructor(
    code: Code,
    base: number,
    take: (type: number) => number = (type) => code.local(type),
    fields: Fields | null = null,
  ) {
    this.code = code;
    this.base = base;
    this.take = take;
    this.fields = fields;
  }

  /** A local that has a field: the one that it is in already, or else a new one. Not to be set. @param load its value */
  recall(field: Field, of: Expr | null, load: Expr): Local {
    const known = this.fields?.find(field, of);
    if (known) return known;
    const local = this.fields?.keep(field, of, load);
    if (!local) return this.let(load);
    this.set(local, load);
    return local;
  }
  /** What the field is to be, for a store of it: from now on that is in a local as well. @param load its value, once stored */
  record(field: Field, of: Expr | null, load: Expr, value: Expr): Expr {
    const local = this.fields?.keep(field, of, load);
    if (!local) return value;
    this.set(local, value);
    return local;
  }
  /** Two fields have been exchanged in memory: so they are in their locals, if both have some. */
  exchange(field: Field, a: Expr, b: Expr): void {
    this.fields?.exchange(field, a, b);
  }
  /** What a field is known to be. */
  constantOf(field: Field, of: Expr): number | undefined {
    return this.fields?.constantOf(field, of);
  }
  setConstant(field: Field, of: Expr, value: number): void {
    this.fields?.setConstant(field, of, value);
  }

  /** A new local; its value is the expression's now. */
  let(value: Expr): Local {
    const local = new Local(value.type, this.take(value.type));
    this.set(local, value);
    return local;
  }
  /** A new local whose value is 0. */
  variable(type: number): Local {
    return new Local(type, this.take(type));
  }
  set(local: Local, value: Operand): void {
    asExpr(value, local.type).emit(this.code);
    this.code.set(local.index);
  }

  if(condition: Expr, then: () => void, otherwise?: () => void, likely?: boolean): void {
    condition.emit(this.code);
    this.code.if(likely);
    then();
    if (otherwise) {
      this.code.op(ELSE);
      otherwise();
    }
    this.code.end();
  }
  unlikely(condition: Expr, then: () => void): void {
    this.if(condition, then, undefined, false);
  }
  while(condition: Expr, body: () => void): void {
    const c = this.code;
    c.block(BLOCK);
    c.block(LOOP);
    condition.not().emit(c);
    c.br(BR_IF, 1);
    body();
    c.br(BR, 0);
    c.end();
    c.end();
  }

  return(value?: Operand, type: number = I32): void {
    if (value !== undefined) asExpr(value, type).emit(this.code);
    this.code.op(RETURN);
  }
  call(routine: Routine, ...args: Operand[]): Expr {
    return new Expr(routine.result, (c) => {
      args.forEach((arg, i) => asExpr(arg, routine.params[i]!).emit(c));
      c.call(CALL, routine.index);
    });
  }
  /** Returns what the routine returns. */
  tail(routine: Routine, ...args: Operand[]): void {
    args.forEach((arg, i) => asExpr(arg, routine.params[i]!).emit(this.code));
    this.code.call(RETURN_CALL, routine.index);
  }
  /** Evaluates for its effect. */
  do(value: Expr): void {
    value.emit(this.code);
    if (value.type !== NONE) this.code.op(DROP);
  }

  private static address(c: Code, index: Operand): void {
    if (index instanceof Expr) {
      index.emit(c);
      c.indexToAddress();
    } else c.address(Number(index));
  }
  /** Loads a field; `index` (i32, bytes) is added to its offset. */
  load(opcode: number, type: number, field: number, index: Operand = 0): Expr {
    return new Expr(type, (c) => {
      Body.address(c, index);
      c.memory(opcode, this.base + field);
    });
  }
  store(opcode: number, field: number, value: Operand, type: number, index: Operand = 0): void {
    Body.address(this.code, index);
    asExpr(value, type).emit(this.code);
    this.code.memory(opcode, this.base + field);
  }
  load8(field: number, index: Operand = 0): Expr {
    return this.load(0x2d, I32, field, index);
  }
  load16(field: number, index: Operand = 0): Expr {
    return this.load(0x2f, I32, field, index);
  }
  load32(field: number, index: Operand = 0): Expr {
    return this.load(0x28, I32, field, index);
  }
  load64(field: number, index: Operand = 0): Expr {
    return this.load(0x29, I64, field, index);
  }
  store8(field: number, value: Operand, index: Operand = 0): void {
    this.store(0x3a, field, value, I32, index);
  }
  store32(field: number, value: Operand, index: Operand = 0): void {
    this.store(0x36, field, value, I32, index);
  }
  store64(field: number, value: Operand, index: Operand = 0): void {
    this.store(0x37, field, value, I64, index);
  }
}

/**
 * What a routine does most of the time, for the routine itself and for those who would rather have it in place of a call: emits it.
 * Before anything has changed, `out` ends it where an i32 says that this is not such a time; it must not be called within an `if`.
 * Not `variable`, whose locals would have to be new.
 *
 * @returns the result, nothing for a status of 0
 */
export type Inline = (f: Body, out: (otherwise: Expr) => void, ...operands: Expr[]) => Expr | undefined;

/** Routines of one module; those that are named are exported. */
export class Program {
  private readonly module: ModuleWriter;
  private readonly base: number;

  constructor(module: ModuleWriter, base: number) {
    this.module = module;
    this.base = base;
  }

  routine(name: string | null, params: readonly number[], result: number, build: (f: Body, ...params: Local[]) => void): Routine {
    const code = this.module.code();
    code.begin(params);
    const f = new Body(code, this.base);
    build(f, ...params.map((type, i) => new Local(type, i)));
    // Bodies end in `return`; the end of the function is never reached.
    if (result !== NONE) f.code.op(0x00);
    const index = this.module.function(params, result, f.code);
    if (name !== null) this.module.export(name, index);
    return { index, params, result };
  }
}

/** Defines a routine of an exported name by its fast path, and the routine for everything else. */
export function defineFast(program: Program, name: string, inline: Inline, slow: Routine): Routine {
  return program.routine(name, slow.params, slow.result, (f, ...params) => {
    const result = inline(f, (otherwise) => f.unlikely(otherwise, () => f.tail(slow, ...params)), ...params);
    f.return(result ?? 0);
  });
}

/** `if` as an expression with only one side computed. */
export function choose(condition: Expr, yes: Expr, no: Expr): Expr {
  return new Expr(yes.type, (c) => {
    condition.emit(c);
    c.raw([0x04, typeByte(yes.type)]);
    yes.emit(c);
    c.op(ELSE);
    no.emit(c);
    c.end();
  });
}

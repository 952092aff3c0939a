/**
 * IR to wasm for one block at a time: values live in wasm locals or are computed
 * where they are used, guest registers live in the function's own locals.
 * The region compiler and the IR helpers supply what surrounds the block.
 */
import {
  BULK,
  CALL as K_CALL,
  I32,
  I64,
  MEMORY,
  NONE,
  OPS,
  OP_KIND,
  OP_OPERANDS,
  OP_RESULT,
  IS_SUM,
  Op,
  PURE,
  SIDE_EXIT,
  STATE,
} from '../ir/ops.ts';
import { STRIDE } from '../ir/builder.ts';
import { BlockAnalysis, CALL_OPERANDS, IS_GET, IS_SET } from '../ir/analysis.ts';
import type { Helper } from '../ir/helpers.ts';
import { CTL_CTX, CTL_FAULT } from '../ir/vcpu-block.ts';
import { ACCESS, bytesNamed, emitLoad, emitPair, emitStore, isInPlace } from './access.ts';
import type { AccessContext, AccessInfo, PageLocals } from './access.ts';
import { BY_OTHER, BY_STACK, BY_TLB, type GroupRoles } from './access-groups.ts';
import { EXPANSIONS, Scratch, emitImmediates } from './expand.ts';
import { VCPU_BASE } from './layout.ts';
import { Body, Expr, Local, NAMELESS } from '../wasm/structured.ts';
import type { Inline } from '../wasm/structured.ts';
import { BLOCK, BR, BR_IF, CALL, DROP, I32_LOAD, SELECT, typeByte } from '../wasm/wasm.ts';
import type { Code } from '../wasm/wasm.ts';
import { FieldLocals } from './fields.ts';

/** What surrounds a block. */
export interface Surroundings {
  /** Local that holds a global. */
  globalLocal(global: number): number;
  /** A global's local has been written. */
  wrote(global: number): void;
  /** Leaves the block's base pc on the stack. */
  basePc(): void;
  /** The record of the next instruction was passed. */
  instruction(): void;
  /** Where the i32 on the stack says so, a fault in the current instruction, inside `depth` conditionals. */
  faultIf(depth: number): void;
  /** Leaves with reason and argument, pc at the current instruction, inside `depth` conditionals; never falls through. */
  sideExit(reason: number, argument: number, depth: number): void;
  slow(name: string): number;
  helper(helper: Helper): number;
  /** Writes all changed globals to the state block / reads those in locals from it. */
  spill(): void;
  reload(): void;
  readonly tlb: number;
  /** The block may run many times in a row: registers are worth a page that they remember. */
  readonly inLoop: boolean;
  /** Accesses look the TLB up in place. */
  readonly inline: boolean;
  /** Global that points to the stack, or -1. */
  readonly stackPointer: number;
  /** Whether locals for the page that accesses by a global remember are worth it in loops, and these. */
  remembersPage(global: number): boolean;
  page(global: number, store: boolean): PageLocals;
  /** Accesses of the block that look the TLB up together (access-groups.ts), and a local for what they find. */
  readonly groups: GroupRoles | undefined;
  groupAddend(slot: number): number;
}

/** Pools of locals that blocks of one function share. */
class LocalPool {
  private readonly free: number[][] = [[], [], [], [], []];
  private readonly code: Code;
  private readonly taken: [number, number][] = [];

  constructor(code: Code) {
    this.code = code;
  }

  take(type: number): number {
    const local = this.free[type]!.pop() ?? this.code.local(type);
    this.taken.push([type, local]);
    return local;
  }

  /** How many are taken, for `release`. */
  get count(): number {
    return this.taken.length;
  }

  /** All locals taken since there were `count` may be used again. */
  release(count: number): void {
    while (this.taken.length > count) {
      const [type, local] = this.taken.pop()!;
      this.free[type]!.push(local);
    }
  }

  forget(): void {
    for (const list of this.free) list.length = 0;
    this.taken.length = 0;
  }
}

const NO_LOCAL = -1;

/** Bytes that a store to the state block writes, by operation. */
const STATE_BYTES: readonly number[] = OPS.map(({ name }) => {
  const match = /^sts(v|f?\d+)$/.exec(name);
  return match ? bytesNamed(match[1]!) : 0;
});

export class BlockEmitter {
  private readonly code: Code;
  private readonly helpers: readonly Helper[];
  private readonly inlines: ReadonlyMap<number, Inline>;
  private readonly analysis: BlockAnalysis;
  private readonly scratch: Scratch;
  private readonly pool: LocalPool;
  private readonly fields: FieldLocals;
  private words: Int32Array = new Int32Array(0);
  /** Wasm local of each value that has one. */
  private locals = new Int32Array(256);
  /** Value that is the current content of a global's local and was read from it, or -1. */
  private readonly alias: Int32Array;
  private around!: Surroundings;
  /** A record that has been emitted with the one before it. */
  private done = -1;
  private address = NO_LOCAL;
  private found = NO_LOCAL;
  private entry = NO_LOCAL;
  private addend = NO_LOCAL;

  constructor(code: Code, globals: number, helpers: readonly Helper[], inlines: ReadonlyMap<number, Inline> = new Map()) {
    this.code = code;
    this.helpers = helpers;
    this.inlines = inlines;
    this.analysis = new BlockAnalysis(globals);
    this.scratch = new Scratch(code);
    this.pool = new LocalPool(code);
    this.fields = new FieldLocals(code);
    this.alias = new Int32Array(globals);
  }

  /** A new function has begun: its locals are all gone. */
  beginFunction(): void {
    this.scratch.clear();
    this.pool.forget();
    this.fields.beginFunction();
    this.address = NO_LOCAL;
    this.entry = NO_LOCAL;
  }

  /**
   * Emits all records but the exit, whose operand can then be had by `pushValue`.
   * @param count records, the exit included
   */
  emitBody(words: Int32Array, count: number, around: Surroundings): void {
    this.words = words;
    this.around = around;
    this.alias.fill(-1);
    this.pool.release(0);
    this.fields.clear();
    if (this.locals.length < count) this.locals = new Int32Array(count * 2);
    this.locals.fill(NO_LOCAL, 0, count);
    this.analysis.run(words, count, this.helpers, true);
    this.done = -1;
    for (let i = 0; i < count - 1; i++) {
      if (!this.analysis.dead[i] && i !== this.done) this.emitRecord(i);
    }
  }

  /** The local where a parameter of an IR helper lives. */
  bindLocal(value: number, local: number): void {
    if (this.locals.length <= value) {
      const larger = new Int32Array(value * 2 + 16).fill(NO_LOCAL);
      larger.set(this.locals);
      this.locals = larger;
    }
    this.locals[value] = local;
  }

  private emitRecord(i: number): void {
    const w = this.words;
    const at = i * STRIDE;
    const op = w[at]!;
    const kind = OP_KIND[op]!;
    if (kind === PURE) {
      if (this.isRematerialised(op) || this.analysis.position[i]! !== i) return;
      this.compute(i);
      this.keep(i);
    } else if (IS_SET[op]) this.emitSet(i);
    else if (IS_GET[op]) this.alias[w[at + 1]!] = i;
    else if (kind === STATE) this.emitState(i);
    else if (kind === MEMORY) this.emitMemory(i);
    else if (kind === BULK) this.emitBulk(i);
    else if (kind === K_CALL) this.emitCall(i);
    else if (op === Op.insn) this.around.instruction();
    else if (kind === SIDE_EXIT) {
      this.pushValue(w[at + 1]!);
      this.emitSideExit(i, 0);
    }
  }

  /** Leaves where the i32 on the stack says so, inside `depth` conditionals. */
  private emitSideExit(i: number, depth: number): void {
    const at = i * STRIDE;
    this.code.if(false);
    this.around.sideExit(this.words[at + 2]!, this.words[at + 3]!, depth + 1);
    this.code.end();
  }

  private isRematerialised(op: number): boolean {
    return op === Op.const32 || op === Op.const64 || op === Op.constv;
  }

  /** Moves the computed value from the stack to a local of its own. */
  private keep(i: number): void {
    const local = this.pool.take(OP_RESULT[this.words[i * STRIDE]!]!);
    this.locals[i] = local;
    this.code.set(local);
  }

  /** Leaves a value on the stack. */
  pushValue(value: number): void {
    const local = this.locals[value]!;
    if (local !== NO_LOCAL) {
      this.code.get(local);
      return;
    }
    const op = this.words[value * STRIDE]!;
    if (IS_GET[op]) this.code.get(this.around.globalLocal(this.words[value * STRIDE + 1]!));
    else this.compute(value);
  }

  private compute(i: number): void {
    const c = this.code;
    const w = this.words;
    const at = i * STRIDE;
    const op = w[at]!;
    if (op === Op.const32) return c.i32(w[at + 1]!);
    if (op === Op.const64) return c.i64(w[at + 1]!, w[at + 2]!);
    if (op === Op.constv) return this.pushVectorConstant(at);
    if (op === Op.pcbase) return this.around.basePc();
    const info = OPS[op]!;
    const operands = OP_OPERANDS[op]!;
    if (operands === 3 && info.name.startsWith('select')) {
      this.pushValue(w[at + 2]!);
      this.pushValue(w[at + 3]!);
      this.pushValue(w[at + 1]!);
      if (info.result <= I64) c.op(SELECT);
      else c.raw([0x1c, 1, typeByte(info.result)]);
      return;
    }
    for (let k = 1; k <= operands; k++) this.pushValue(w[at + k]!);
    const expansion = EXPANSIONS[op];
    if (expansion) return expansion(c, this.scratch);
    c.raw(info.wasm!);
    if (info.immediates > 0) emitImmediates(c, info.name, w, at + 1 + operands);
  }

  private pushVectorConstant(at: number): void {
    this.code.raw([0xfd, 12]);
    for (let k = 1; k <= 4; k++) {
      const word = this.words[at + k]!;
      this.code.raw([word & 255, (word >> 8) & 255, (word >> 16) & 255, word >>> 24]);
    }
  }

  /** Saves the value that was read from a global and is still needed after the global changes. */
  private saveAlias(global: number, at: number): void {
    const value = this.alias[global]!;
    if (value < 0) return;
    this.alias[global] = -1;
    if (this.analysis.last[value]! <= at || this.locals[value] !== NO_LOCAL) return;
    this.code.get(this.around.globalLocal(global));
    this.keep(value);
  }

  private emitSet(i: number): void {
    const at = i * STRIDE;
    const value = this.words[at + 1]!;
    const global = this.words[at + 2]!;
    const source = this.words[value * STRIDE]!;
    // Writing back what was read from the same place changes nothing.
    if (this.alias[global] === value && IS_GET[source]) return;
    this.pushValue(value);
    this.saveAlias(global, i);
    this.code.set(this.around.globalLocal(global));
    this.around.wrote(global);
  }

  private pushStateAddress(index: number): number {
    const w = this.words;
    const op = w[index * STRIDE]!;
    if (op === Op.const32) {
      this.code.address(0);
      return w[index * STRIDE + 1]!;
    }
    this.pushValue(index);
    this.code.indexToAddress();
    return 0;
  }

  private emitState(i: number): void {
    const c = this.code;
    const w = this.words;
    const at = i * STRIDE;
    const op = w[at]!;
    const info = OPS[op]!;
    if (op === Op.pcbase) {
      this.around.basePc();
      this.keep(i);
      return;
    }
    if (op === Op.getctx) {
      c.loadAt(I32_LOAD, VCPU_BASE + CTL_CTX);
      this.keep(i);
      return;
    }
    if (info.result === NONE) return this.emitStateStore(at);
    const known = op === Op.lds32 && this.indexName(w[at + 1]!) === 0 ? this.fields.at(w[at + 2]!) : undefined;
    if (known) c.get(known.index);
    else {
      const constant = this.pushStateAddress(w[at + 1]!);
      c.memory(info.wasm!, VCPU_BASE + w[at + 2]! + constant);
    }
    this.keep(i);
  }

  private emitStateStore(at: number): void {
    const { code: c, words: w, fields } = this;
    const op = w[at]!;
    const name = this.indexName(w[at + 1]!);
    const constant = this.pushStateAddress(w[at + 1]!);
    const offset = w[at + 3]! + constant;
    const value = w[at + 2]!;
    this.pushValue(value);
    const known = op === Op.sts32 && name === 0 ? fields.at(offset) : undefined;
    if (known) c.tee(known.index);
    else fields.stored(name, offset, STATE_BYTES[op]!, w[value * STRIDE] === Op.const32 ? w[value * STRIDE + 1]! : null);
    c.memory(OPS[op]!.wasm!, VCPU_BASE + offset);
  }

  /** What names an index for those who have fields in locals (fields.ts): a multiple is named as the number is. 0 = it is constant. */
  private indexName(value: number): number {
    const op = this.words[value * STRIDE]!;
    return op === Op.const32 ? 0 : op === Op.shl32 ? this.words[value * STRIDE + 1]! : value;
  }

  /**
   * Accesses by one register stay on a page for long: in a structure, along a string. In loops they remember it.
   */
  private pageFor(base: number, store: boolean): PageLocals | undefined {
    return this.remembersPage(base) ? this.around.page(base, store) : undefined;
  }

  private remembersPage(base: number): boolean {
    const { stackPointer, inLoop } = this.around;
    return stackPointer >= 0 && base !== stackPointer && base >= 0 && inLoop && this.around.remembersPage(base);
  }

  /** The global that the value is, plus or minus constants, with 32 bits or with 64; -1 when it is none. */
  private baseOf(value: number, depth: number): number {
    const w = this.words;
    const at = value * STRIDE;
    const op = w[at]!;
    if (op === Op.getg64) return w[at + 1]!;
    if (op === Op.extu || op === Op.wrap) return this.baseOf(w[at + 1]!, depth);
    if (depth === 0 || !IS_SUM[op]) return -1;
    const constant = w[w[at + 2]! * STRIDE]!;
    return constant === Op.const64 || constant === Op.const32 ? this.baseOf(w[at + 1]!, depth - 1) : -1;
  }

  /** Locals for an address and a TLB entry, made when first needed. */
  private makeAddressLocals(): void {
    if (this.address === NO_LOCAL) {
      this.address = this.code.local(I64);
      this.found = this.code.local(I64);
      this.entry = this.code.local(this.code.addressType);
      this.addend = this.code.local(this.code.addressType);
    }
  }

  /** How an access by an address (a value) finds its page: see access-groups.ts. */
  wayOf(words: Int32Array, address: number, around: Surroundings): number {
    this.words = words;
    this.around = around;
    const base = this.baseOf(address, 3);
    if (base >= 0 && base === around.stackPointer) return BY_STACK;
    return around.inline && !this.remembersPage(base) ? BY_TLB : BY_OTHER;
  }

  private accessContext(record: number, store: boolean): AccessContext {
    this.makeAddressLocals();
    const around = this.around;
    const base = this.baseOf(this.words[record * STRIDE + 1]!, 3);
    const role = around.groups?.get(record);
    return {
      code: this.code,
      address: this.address,
      found: this.found,
      entry: this.entry,
      addend: this.addend,
      tlb: around.tlb,
      slow: (name) => around.slow(name),
      faultIf: (depth) => around.faultIf(depth),
      page: this.pageFor(base, store),
      group: role && { ...role, addend: around.groupAddend(role.slot) },
      stack: base >= 0 && base === around.stackPointer,
      inline: around.inline,
    };
  }

  private emitMemory(i: number): void {
    const at = i * STRIDE;
    const info = ACCESS[this.words[at]!]!;
    const ctx = this.accessContext(i, info.store);
    if (isInPlace(ctx) && this.isTenBytes(i)) return this.emitTenBytes(i, ctx, info);
    if (!info.store) {
      this.pushValue(this.words[at + 1]!);
      emitLoad(ctx, info);
      if (this.analysis.uses[i]! > 0) this.keep(i);
      else this.code.op(0x1a);
      return;
    }
    const value = this.words[at + 2]!;
    if (!isInPlace(ctx)) {
      this.pushValue(this.words[at + 1]!);
      return emitStore(ctx, info, () => this.pushValue(value));
    }
    // The value is needed in several places.
    this.pushValue(value);
    const local = this.pool.take(info.type);
    this.code.set(local);
    this.pushValue(this.words[at + 1]!);
    emitStore(ctx, info, () => this.code.get(local));
  }

  /** Is this an access to eight bytes, and the third record from here one of the same kind to the two that follow? */
  private isTenBytes(i: number): boolean {
    const w = this.words;
    const [at, constant, sum, second] = [0, 1, 2, 3].map((k) => (i + k) * STRIDE) as [number, number, number, number];
    const kinds = (w[at] === Op.ld64 && w[second] === Op.ld16u) || (w[at] === Op.st64 && w[second] === Op.st16);
    return (
      kinds &&
      w[constant] === Op.const64 &&
      w[constant + 1] === 8 &&
      w[constant + 2] === 0 &&
      w[sum] === Op.add64 &&
      w[sum + 1] === w[at + 1] &&
      w[sum + 2] === i + 1 &&
      w[second + 1] === i + 2 &&
      this.analysis.uses[i + 2] === 1 &&
      !this.around.groups?.get(i + 3)?.leads
    );
  }

  /** Both at once. */
  private emitTenBytes(i: number, ctx: AccessContext, info: AccessInfo): void {
    const { code: c, words: w, pool } = this;
    const second = ACCESS[w[(i + 3) * STRIDE]!]!;
    const values = [pool.take(info.type), pool.take(second.type)] as const;
    for (const [k, local] of values.entries()) {
      const at = (i + 3 * k) * STRIDE;
      if (!info.store) this.locals[i + 3 * k] = local;
      else {
        this.pushValue(w[at + 2]!);
        c.set(local);
      }
    }
    this.pushValue(w[i * STRIDE + 1]!);
    emitPair(ctx, [info, second], values);
    this.done = i + 3;
  }

  private emitBulk(i: number): void {
    const at = i * STRIDE;
    for (let k = 1; k <= 3; k++) this.pushValue(this.words[at + k]!);
    this.code.call(CALL, this.around.slow(OPS[this.words[at]!]!.name));
    this.keep(i);
  }

  private emitCall(i: number): void {
    const c = this.code;
    const w = this.words;
    const at = i * STRIDE;
    const helper = this.helpers[w[at + 1]!]!;
    const inline = this.around.inLoop ? this.inlines.get(helper.index) : undefined;
    if (inline) return this.emitInline(i, helper, inline);
    if (helper.body.kind !== 'ir') this.fields.clear();
    if (helper.touchesGlobals) {
      for (let g = 0; g < this.alias.length; g++) this.saveAlias(g, i);
      this.around.spill();
    }
    for (let k = 2; k < 2 + CALL_OPERANDS && w[at + k]! >= 0; k++) this.pushValue(w[at + k]!);
    c.call(CALL, this.around.helper(helper));
    if (helper.result !== NONE) {
      if (this.analysis.uses[i]! > 0) this.keep(i);
      else c.op(0x1a);
    }
    // Before the check: what the helper did to registers until it faulted stays done.
    if (helper.touchesGlobals) this.around.reload();
    if (helper.mayFault) {
      c.loadAt(I32_LOAD, VCPU_BASE + CTL_FAULT);
      this.around.faultIf(0);
    }
  }

  /** A value as an expression that lives as long as the block, since it may name fields. */
  private operand(value: number, type: number): Expr {
    const name = type === I32 ? this.indexName(value) : NAMELESS;
    const local = this.locals[value]!;
    if (local !== NO_LOCAL) return new Local(type, local, name);
    const text = new Expr(type, () => this.pushValue(value));
    if (this.isRematerialised(this.words[value * STRIDE]!)) return text;
    const own = new Local(type, this.pool.take(type), name);
    text.emit(this.code);
    this.code.set(own.index);
    return own;
  }

  /** A helper's fast path, else a call of it. When the block leaves by what it returns, there is nothing to look at after the first. */
  private emitInline(i: number, helper: Helper, inline: Inline): void {
    const { code: c, words: w, analysis, pool, fields } = this;
    const at = i * STRIDE;
    const next = at + STRIDE;
    const leaves = w[next] === Op.leaveif && w[next + 1] === i && analysis.uses[i] === 1;
    const wanted = !leaves && analysis.uses[i]! > 0;
    const result = wanted ? pool.take(helper.result) : NO_LOCAL;
    fields.dropBrief();
    const operands = helper.params.map((type, k) => this.operand(w[at + 2 + k]!, type));
    const before = pool.count;
    const f = new Body(c, VCPU_BASE, (type) => pool.take(type), fields);
    c.block(BLOCK);
    c.block(BLOCK);
    const out = (otherwise: Expr): void => {
      otherwise.emit(c);
      c.hint(false);
      c.br(BR_IF, 0);
    };
    const value = inline(f, out, ...operands);
    if (wanted) f.set(new Local(helper.result, result), value ?? 0);
    c.br(BR, 1);
    c.end();
    for (const operand of operands) operand.emit(c);
    c.call(CALL, this.around.helper(helper));
    if (leaves) this.emitSideExit(i + 1, 1);
    else if (wanted) c.set(result);
    else c.op(DROP);
    fields.reload(f, operands);
    c.end();
    pool.release(before);
    this.locals[i] = result;
    if (leaves) this.done = i + 1;
  }
}

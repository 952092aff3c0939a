/**
 * IR to interpreter code. Reading a guest register, narrowing and zero-extending
 * cost nothing: they are other names for the same slot.
 *
 * An encoded block in memory: its constants, 16 bytes each; a header unit
 * (auxiliary = instructions, d = countdown to compilation, a = address of the
 * instruction table, b = the block's number); the units, after a computed jump the
 * targets seen.
 *
 * The instruction table lies apart, since it is needed for faults only and would thin out
 * what runs: after 16 bytes that begin with the address where the units end,
 * { u32 unit offset from the header, i32 pc offset, i32 context, 0 } an instruction,
 * ended by an offset of all ones.
 */
import { BULK, CALL, EXIT, MEMORY, OPS, OP_KIND, OP_OPERANDS, OP_RESULT, Op, PURE, STATE, V128 } from '../ir/ops.ts';
import { CTX_UNKNOWN, STRIDE } from '../ir/builder.ts';
import type { Builder, Global } from '../ir/builder.ts';
import { BlockAnalysis, CALL_OPERANDS, IS_GET, IS_SET, isAlias } from '../ir/analysis.ts';
import type { Helper } from '../ir/helpers.ts';
import { CTL_BASE, CTL_CTX, TEMPS, VCPU_BLOCK_SIZE } from '../ir/vcpu-block.ts';
import { ACCESS } from './access.ts';
import { JUMP_TARGETS, NO_TARGET, UNIT, X_BRANCH_OF, X_CALL, X_HEADER, X_MOVE, X_MOVE_V, isLong, joined } from './opcodes.ts';
import { CONSTANTS, CONSTANT_MAX, CONSTANT_MIN, VCPU_BASE } from './layout.ts';

const WORDS = UNIT / 4;
const TEMPS_END = VCPU_BASE + VCPU_BLOCK_SIZE;

/** Bytes of a lane for operations that name one. */
const LANE_BYTES = Uint8Array.from(OPS, (op) => {
  const match = /^(?:set)?lanef?(\d+)/.exec(op.name);
  return match ? Number(match[1]) / 8 : 0;
});

/** Fills the slots of the small constants. */
export function writeSharedConstants(words: Int32Array): void {
  for (let value = CONSTANT_MIN; value <= CONSTANT_MAX; value++) {
    const at = (CONSTANTS + (value - CONSTANT_MIN) * 16) >> 2;
    words[at] = value;
    words[at + 1] = value >> 31;
  }
  // The same negative numbers as 32-bit values: zero-extended.
  for (let value = CONSTANT_MIN; value < 0; value++) {
    const at = (NEGATIVE_32 + (value - CONSTANT_MIN) * 16) >> 2;
    words[at] = value;
    words[at + 1] = 0;
  }
}

const NEGATIVE_32 = CONSTANTS + (CONSTANT_MAX - CONSTANT_MIN + 1) * 16;

export interface EncodedBlock {
  /** Address of the header unit. */
  readonly ip: number;
  /** First address after the block. */
  readonly end: number;
  /** First address of what belongs to it below `tableEnd`. */
  readonly table: number;
}

/** Supplies the entry cell of a block's constant target, 0 for "through the jump cache". */
export type CellOf = (offset: number) => number;

export class Encoder {
  private readonly words: Int32Array;
  private readonly helpers: readonly Helper[];
  private readonly analysis: BlockAnalysis;
  private readonly globals: readonly Global[];
  /** Slot address of each value. */
  private slots = new Int32Array(256);
  private readonly alias: Int32Array[];
  /** Global by position in the vCPU block, in units of 8 bytes; -1 = none. */
  private readonly globalAt = new Int16Array(TEMPS / 8).fill(-1);
  private readonly aliasCount: Int32Array;
  private ir: Int32Array = new Int32Array(0);
  private count = 0;
  private readonly temps: number;
  private temp = 0;
  /** Word index of the next unit. */
  private at = 0;
  private header = 0;
  /** Rows of the instruction table that is being made, and how many there are. */
  private insnRows = new Int32Array(3 * 64);
  private insnCount = 0;
  /** Word index of the unit that the last operation's sequence begins with, and the opcode there. */
  private first = 0;
  private opcode = 0;
  /** For each value: the `setg` that it is computed for directly, or -1. */
  private direct = new Int32Array(256);
  /** Reads of each global, chained backwards. */
  private readonly lastGet: Int32Array;
  private previousGet = new Int32Array(256);

  /** @param temps offset of the first temporary in the vCPU's block */
  constructor(words: Int32Array, globals: readonly Global[], helpers: readonly Helper[], temps = TEMPS) {
    this.temps = VCPU_BASE + temps;
    this.words = words;
    this.globals = globals;
    this.helpers = helpers;
    this.analysis = new BlockAnalysis(globals.length);
    this.alias = globals.map(() => new Int32Array(64));
    this.aliasCount = new Int32Array(globals.length);
    this.lastGet = new Int32Array(globals.length);
    for (const global of globals) this.globalAt[global.offset >> 3] = global.index;
  }

  /** Upper bound of the bytes that a block of so many records takes. */
  static bound(records: number): number {
    return records * (UNIT * 3 + 16) + 256;
  }

  /** Are there temporaries enough for a block of so many records, whatever they are? */
  static fits(records: number): boolean {
    return records * 16 <= VCPU_BLOCK_SIZE - TEMPS;
  }

  /**
   * @param address where to put it (16-byte aligned)  @param block its number
   * @param countdown executions until the block is reported as hot
   * @param tableEnd address below which the instruction table goes (16-byte aligned)
   */
  encode(b: Builder, address: number, tableEnd: number, block: number, countdown: number, cellOf: CellOf): EncodedBlock {
    this.ir = b.words;
    this.count = b.count;
    this.temp = this.temps;
    for (let g = 0; g < this.aliasCount.length; g++) this.aliasCount[g] = 0;
    this.insnCount = 0;
    if (this.slots.length < b.count) {
      this.slots = new Int32Array(b.count * 2);
      this.direct = new Int32Array(b.count * 2);
      this.previousGet = new Int32Array(b.count * 2);
    }
    this.analysis.run(this.ir, this.count, this.helpers, false);
    this.findDirectSets();
    this.at = address >> 2;
    this.placeConstants();
    this.header = this.at;
    this.unit(X_HEADER, b.insns, countdown, 0, block);
    for (let i = 0; i < this.count; i++) {
      if (!this.analysis.dead[i] && !this.analysis.folded[i]) this.encodeRecord(i, cellOf);
    }
    const table = this.writeInsnTable(tableEnd);
    return { ip: this.header << 2, end: this.at << 2, table };
  }

  private unit(op: number, aux: number, d: number, a: number, b: number): void {
    const w = this.words;
    const at = this.at;
    const sequence = joined(this.opcode, op);
    if (sequence !== 0) w[this.first]! ^= this.opcode ^ sequence;
    else this.first = at;
    this.opcode = sequence !== 0 ? sequence : op;
    w[at] = op | (aux << 16);
    w[at + 1] = d;
    w[at + 2] = a;
    w[at + 3] = b;
    this.at = at + WORDS;
  }

  private addInsnRow(pc: number, context: number): void {
    const at = 3 * this.insnCount++;
    if (at === this.insnRows.length) {
      const larger = new Int32Array(2 * at);
      larger.set(this.insnRows);
      this.insnRows = larger;
    }
    this.insnRows[at] = (this.at - this.header) << 2;
    this.insnRows[at + 1] = pc;
    this.insnRows[at + 2] = context;
  }

  /** @returns address of its first byte */
  private writeInsnTable(end: number): number {
    const { words, insnRows, insnCount } = this;
    let at = (end >> 2) - WORDS * (insnCount + 2);
    const start = at << 2;
    words[at] = this.at << 2;
    at += WORDS;
    words[this.header + 2] = at << 2;
    for (let i = 0; i < 3 * insnCount; i += 3) {
      words[at] = insnRows[i]!;
      words[at + 1] = insnRows[i + 1]!;
      words[at + 2] = insnRows[i + 2]!;
      at += WORDS;
    }
    words[at] = -1;
    return start;
  }

  /** Constants stand before the code, so that their addresses are known when it is written. */
  private placeConstants(): void {
    const { ir, slots, words, analysis } = this;
    for (let i = 0; i < this.count; i++) {
      const at = i * STRIDE;
      const op = ir[at]!;
      if (analysis.dead[i] || analysis.uses[i] === 0) continue;
      const low = ir[at + 1]!;
      if (op === Op.const32 || op === Op.const64) {
        const high = op === Op.const64 ? ir[at + 2]! : 0;
        if (low >= CONSTANT_MIN && low <= CONSTANT_MAX && (op === Op.const32 || high === low >> 31)) {
          const base = op === Op.const32 && low < 0 ? NEGATIVE_32 : CONSTANTS;
          slots[i] = base + (low - CONSTANT_MIN) * 16;
          continue;
        }
        words[this.at] = low;
        words[this.at + 1] = high;
      } else if (op === Op.constv) {
        for (let k = 0; k < 4; k++) words[this.at + k] = ir[at + 1 + k]!;
      } else continue;
      slots[i] = this.at << 2;
      this.at += WORDS;
    }
  }

  /**
   * A value that is set into a register right after it has been computed is computed
   * there: allowed when nothing between reads the register's old value or may leave.
   */
  private findDirectSets(): void {
    const { ir, direct, analysis, lastGet, previousGet } = this;
    for (let g = 0; g < lastGet.length; g++) lastGet[g] = -1;
    for (let i = 0; i < this.count; i++) {
      direct[i] = -1;
      if (IS_GET[ir[i * STRIDE]!]) {
        const global = ir[i * STRIDE + 1]!;
        previousGet[i] = lastGet[global]!;
        lastGet[global] = i;
      }
      if (analysis.dead[i] || !IS_SET[ir[i * STRIDE]!]) continue;
      const value = this.widened(ir[i * STRIDE + 1]!);
      if (this.mayComputeInPlace(value, i)) direct[value] = i;
    }
  }

  /** The value that a zero-extension is another name for: its slot has zeros above it already. */
  private widened(value: number): number {
    const { ir } = this;
    const op = ir[value * STRIDE]!;
    const source = ir[value * STRIDE + 1]!;
    return op === Op.extu && isAlias(ir, op, source) ? source : value;
  }

  private mayComputeInPlace(value: number, set: number): boolean {
    const { ir, analysis } = this;
    const op = ir[value * STRIDE]!;
    const kind = OP_KIND[op]!;
    if (this.analysis.folded[value]) return false;
    const computed = (kind === PURE && OP_OPERANDS[op]! > 0 && !isAlias(ir, op, ir[value * STRIDE + 1]!)) || kind === MEMORY;
    if (!computed || this.direct[value]! >= 0 || set - value > 12) return false;
    const global = ir[set * STRIDE + 2]!;
    for (let k = value + 1; k < set; k++) {
      if (analysis.dead[k]) continue;
      const other = ir[k * STRIDE]!;
      const otherKind = OP_KIND[other]!;
      if (otherKind >= MEMORY) return false;
      if (otherKind === STATE && !IS_SET[other] && !IS_GET[other]) return false;
      if (IS_SET[other] && ir[k * STRIDE + 2] === global) return false;
    }
    // Values that still name the register's old content must not be needed after the computation.
    for (let k = this.lastGet[global]!; k >= 0; k = this.previousGet[k]!) {
      if (k < set && analysis.last[k]! > value) return false;
    }
    return true;
  }

  private newTemp(type: number): number {
    if (type === V128) this.temp = (this.temp + 15) & ~15;
    const slot = this.temp;
    this.temp += type === V128 ? 16 : 8;
    if (this.temp > TEMPS_END) throw new Error('interpreter: a block needs more temporaries than there are');
    return slot;
  }

  private globalSlot(global: number): number {
    return VCPU_BASE + this.globals[global]!.offset;
  }

  private addAlias(global: number, value: number): void {
    const count = this.aliasCount[global]!;
    if (count === this.alias[global]!.length) {
      const larger = new Int32Array(count * 2);
      larger.set(this.alias[global]!);
      this.alias[global] = larger;
    }
    this.alias[global]![count] = value;
    this.aliasCount[global] = count + 1;
  }

  /** The global whose place this slot is, or -1. */
  private globalOfSlot(slot: number): number {
    const position = (slot - VCPU_BASE) >> 3;
    return position >= 0 && position < this.globalAt.length ? this.globalAt[position]! : -1;
  }

  /** Before a register changes: moves its old content aside when some value still needs it. */
  private saveAliases(global: number, at: number): void {
    const slot = this.globalSlot(global);
    const list = this.alias[global]!;
    const count = this.aliasCount[global]!;
    let copy = -1;
    for (let k = 0; k < count; k++) {
      const value = list[k]!;
      if (this.slots[value] !== slot || this.analysis.last[value]! <= at) continue;
      if (copy < 0) {
        const type = this.globals[global]!.type;
        copy = this.newTemp(type);
        this.unit(type === V128 ? X_MOVE_V : X_MOVE, 0, copy, slot, 0);
      }
      this.slots[value] = copy;
    }
    this.aliasCount[global] = 0;
  }

  /** Slot for a record's result: the register it is computed for, or a temporary. */
  private resultSlot(i: number): number {
    const set = this.direct[i]!;
    const type = OP_RESULT[this.ir[i * STRIDE]!]!;
    if (set < 0) return this.newTemp(type);
    const global = this.ir[set * STRIDE + 2]!;
    // Operands of this very record may read the old content: they end here.
    this.saveAliases(global, i);
    const slot = this.globalSlot(global);
    return slot;
  }

  private finishResult(i: number, slot: number): void {
    this.slots[i] = slot;
    const set = this.direct[i]!;
    if (set >= 0) this.addAlias(this.ir[set * STRIDE + 2]!, i);
  }

  private encodeRecord(i: number, cellOf: CellOf): void {
    const { ir, slots } = this;
    const at = i * STRIDE;
    const op = ir[at]!;
    const kind = OP_KIND[op]!;
    if (kind === PURE) this.encodePure(i, op);
    else if (IS_GET[op]) {
      slots[i] = this.globalSlot(ir[at + 1]!);
      this.addAlias(ir[at + 1]!, i);
    } else if (IS_SET[op]) this.encodeSet(i);
    else if (kind === STATE) this.encodeState(i, op);
    else if (kind === MEMORY) this.encodeMemory(i, op);
    else if (kind === BULK) this.encodeBulk(i, op);
    else if (kind === CALL) this.encodeCall(i);
    else if (op === Op.insn) {
      this.addInsnRow(ir[at + 1]!, ir[at + 2]!);
    } else if (op === Op.leaveif) this.unit(op, 0, ir[at + 2]!, slots[ir[at + 1]!]!, ir[at + 3]!);
    else if (kind === EXIT) this.encodeExit(i, op, cellOf);
  }

  private encodePure(i: number, op: number): void {
    const { ir, slots } = this;
    const at = i * STRIDE;
    if (op === Op.const32 || op === Op.const64 || op === Op.constv) return;
    if (isAlias(ir, op, ir[at + 1]!)) {
      const source = slots[ir[at + 1]!]!;
      slots[i] = source;
      const global = this.globalOfSlot(source);
      if (global >= 0) this.addAlias(global, i);
      return;
    }
    const a = slots[ir[at + 1]!]!;
    const operands = OP_OPERANDS[op]!;
    const b = operands > 1 ? slots[ir[at + 2]!]! : 0;
    const c = operands > 2 ? slots[ir[at + 3]!]! : 0;
    const d = this.resultSlot(i);
    const lane = LANE_BYTES[op]!;
    if (lane > 0 && operands === 1) this.unit(op, 0, d, a + ir[at + 2]! * lane, 0);
    else if (lane > 0) this.unit(op, ir[at + 3]! * lane, d, a, b);
    else this.unit(op, 0, d, a, b);
    if (op === Op.vshuffle) this.extend(ir[at + 3]!, ir[at + 4]!, ir[at + 5]!, ir[at + 6]!);
    else if (isLong(op)) this.extend(c, 0, 0, 0);
    this.finishResult(i, d);
  }

  private extend(c: number, e: number, f: number, g: number): void {
    const w = this.words;
    w[this.at] = c;
    w[this.at + 1] = e;
    w[this.at + 2] = f;
    w[this.at + 3] = g;
    this.at += WORDS;
  }

  private encodeSet(i: number): void {
    const { ir, slots } = this;
    const value = ir[i * STRIDE + 1]!;
    if (this.direct[value] === i) return;
    const global = ir[i * STRIDE + 2]!;
    const slot = this.globalSlot(global);
    if (slots[value] === slot) return;
    this.saveAliases(global, i);
    this.unit(this.globals[global]!.type === V128 ? X_MOVE_V : X_MOVE, 0, slot, slots[value]!, 0);
  }

  private encodeState(i: number, op: number): void {
    const { ir, slots } = this;
    const at = i * STRIDE;
    if (op === Op.pcbase) {
      slots[i] = VCPU_BASE + CTL_BASE;
    } else if (op === Op.getctx) {
      slots[i] = this.newTemp(OP_RESULT[op]!);
      this.unit(Op.lds32, 0, slots[i]!, CONSTANTS - CONSTANT_MIN * 16, VCPU_BASE + CTL_CTX);
    } else if (OP_OPERANDS[op] === 2) {
      this.unit(op, 0, slots[ir[at + 2]!]!, slots[ir[at + 1]!]!, VCPU_BASE + ir[at + 3]!);
    } else {
      slots[i] = this.newTemp(OP_RESULT[op]!);
      this.unit(op, 0, slots[i]!, slots[ir[at + 1]!]!, VCPU_BASE + ir[at + 2]!);
    }
  }

  private encodeMemory(i: number, op: number): void {
    const { ir, slots } = this;
    const at = i * STRIDE;
    const value = ir[at + 1]!;
    const folded = this.analysis.folded[value] === 1;
    const address = slots[folded ? ir[value * STRIDE + 1]! : value]!;
    const displacement = folded ? ir[ir[value * STRIDE + 2]! * STRIDE + 1]! : 0;
    if (ACCESS[op]!.store) {
      this.unit(op, 0, slots[ir[at + 2]!]!, address, displacement);
      return;
    }
    const d = this.resultSlot(i);
    this.unit(op, 0, d, address, displacement);
    this.finishResult(i, d);
  }

  private encodeBulk(i: number, op: number): void {
    const { ir, slots } = this;
    const at = i * STRIDE;
    const d = this.newTemp(OP_RESULT[op]!);
    this.unit(op, 0, d, slots[ir[at + 1]!]!, slots[ir[at + 2]!]!);
    this.extend(slots[ir[at + 3]!]!, 0, 0, 0);
    slots[i] = d;
  }

  private encodeCall(i: number): void {
    const { ir, slots } = this;
    const at = i * STRIDE;
    const helper = this.helpers[ir[at + 1]!]!;
    if (helper.touchesGlobals) for (let g = 0; g < this.globals.length; g++) this.saveAliases(g, i);
    const operand = (k: number): number => (k < CALL_OPERANDS && ir[at + 2 + k]! >= 0 ? slots[ir[at + 2 + k]!]! : 0);
    const type = OP_RESULT[ir[at]!]!;
    const d = type <= V128 ? this.newTemp(type) : 0;
    this.unit(X_CALL + helper.index, 0, d, operand(0), operand(1));
    this.extend(operand(2), operand(3), 0, 0);
    slots[i] = d;
  }

  private encodeExit(i: number, op: number, cellOf: CellOf): void {
    const { ir, slots } = this;
    const at = i * STRIDE;
    const known = (ctx: number): number => (ctx === CTX_UNKNOWN ? 0 : 1);
    if (op === Op.goto) {
      const cell = cellOf(ir[at + 1]!);
      this.unit(op, known(ir[at + 2]!), cell, ir[at + 1]!, ir[at + 2]!);
      if (cell === 0) this.extend(0, 0, 0, 0);
    } else if (op === Op.condgoto) {
      const ctx = ir[at + 4]!;
      const condition = ir[at + 1]!;
      const compare = condition * STRIDE;
      const folded = this.analysis.folded[condition] === 1;
      const opcode = folded ? X_BRANCH_OF[ir[compare]!]! : op;
      const a = slots[folded ? ir[compare + 1]! : condition]!;
      const b = folded && OP_OPERANDS[ir[compare]!]! > 1 ? slots[ir[compare + 2]!]! : 0;
      this.unit(opcode, known(ctx), cellOf(ir[at + 2]!), a, cellOf(ir[at + 3]!));
      this.extend(ir[at + 2]!, ir[at + 3]!, ctx, b);
    } else if (op === Op.jump) {
      this.unit(op, known(ir[at + 2]!), 0, slots[ir[at + 1]!]!, ir[at + 2]!);
      for (let k = 0; k < JUMP_TARGETS; k++) this.words[this.at++] = NO_TARGET;
    } else {
      this.unit(op, known(ir[at + 4]!), ir[at + 1]!, ir[at + 3]!, ir[at + 4]!);
      this.extend(ir[at + 2]!, 0, 0, 0);
    }
  }
}

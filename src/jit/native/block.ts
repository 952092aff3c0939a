/** Interpreter code to code of the host's processor, a block at a time: each operation by the group that it belongs to. */
import { OP_KIND, PURE } from '../../ir/ops.ts';
import type { Isa } from '../../isa/isa.ts';
import { ACCESS } from '../access.ts';
import { UNIT, X_CALL } from '../opcodes.ts';
import { Accesses } from './accesses.ts';
import { COUNT_ALL, COUNT_LOOK, COUNT_NONE } from './count.ts';
import { Ends } from './ends.ts';
import { Floats } from './floats.ts';
import { Helpers } from './helpers.ts';
import { Integers } from './integers.ts';
import { Links } from './links.ts';
import * as k from './units.ts';
import { Vectors } from './vectors.ts';
import { BlockWriter } from './writer.ts';
import { X87 } from './x87.ts';
import { CC_NE } from './x64.ts';

/** Bytes of host code for a unit, with its way out, at the most. */
const UNIT_BOUND = 300;
/** Units that a block has at the most; what follows is the interpreter's. */
const MAX_UNITS = 500;
/** Operations on vectors from which on a block is better off in a region, which keeps them in registers. */
const MANY_VECTORS = 8;
const BLOCK_BOUND = UNIT_BOUND * MAX_UNITS;

export class BlockCompiler {
  private readonly w: BlockWriter;
  private readonly integers: Integers;
  private readonly floats: Floats;
  private readonly vectors: Vectors;
  private readonly accesses: Accesses;
  private readonly ends: Ends;
  private readonly helpers: Helpers;
  private readonly floatStack: X87 | null;
  private readonly links: Links;
  /** Host address of the first byte. */
  private readonly origin: number;
  /** Of the last block: has it operations that take much longer here than in a region? */
  isSlow = false;
  /** Of the last block: does it use the host's x87 unit, which no region does? */
  usesX87 = false;
  /** Where code of blocks begins: what lies before it is shared. */
  private readonly start: number;

  /**
   * @param words the machine's memory  @param base its address in the process
   * @param bytes where code goes, at the host address `origin`  @param exact see Ends
   */
  constructor(words: Int32Array, base: bigint, bytes: Uint8Array, origin: number, isa: Isa, exact: boolean) {
    this.origin = origin;
    const writer = new BlockWriter(words, bytes, origin, isa.globals, isa.stackPointer);
    this.w = writer;
    this.integers = new Integers(writer);
    this.floats = new Floats(writer);
    this.vectors = new Vectors(writer);
    this.accesses = new Accesses(writer);
    this.links = new Links(words, writer.x, origin);
    this.floatStack = isa.floatStack ? new X87(writer, this.accesses, isa.floatStack, isa.helpers) : null;
    this.ends = new Ends(writer, this.integers, this.links, this.floatStack?.shared ?? null, exact);
    this.ends.writeShared(base);
    this.accesses.writeShared();
    this.floatStack?.shared.write();
    this.helpers = new Helpers(writer, isa.helpers, origin, (op) => this.writeOperation(op));
    this.start = writer.x.at;
  }

  /** Is there room for any block? */
  get hasRoom(): boolean {
    const { bytes, at } = this.w.x;
    return bytes.length - at > BLOCK_BOUND;
  }

  /** @param address of the code that the block of an entry cell has now, 0 = none */
  change(cell: number, address: number): void {
    if (address === 0) this.ends.forgetJumps();
    this.links.change(cell, address);
  }

  /** Forgets all blocks. */
  clear(): void {
    this.w.x.at = this.start;
    this.helpers.clear();
    this.links.clear();
    this.ends.forgetJumps();
  }

  /**
   * @param ip address of a block's header  @param counts which blocks are to count their executions on: COUNT_*
   * @returns address of its code for the host, or 0 when the interpreter does better, until there is a region
   */
  compile(ip: number, counts: number): number {
    const { w } = this;
    const start = w.x.at;
    this.accesses.begin(ip + UNIT);
    w.begin(ip + UNIT);
    this.floatStack?.begin(ip);
    this.lookOver(ip);
    this.ends.header(ip, this.countOf(counts));
    for (let units = 0; ; units++) {
      const op = w.opcode(w.ip);
      if (this.usesX87 && this.floatStack!.take(op, MAX_UNITS - units)) {
        w.ip = w.after(op, w.ip);
        continue;
      }
      if (op >= X_CALL && this.helpers.isNew(op)) {
        w.x.at = start;
        this.helpers.prepare(op);
        // The helper's code has taken some of the room that there was.
        return this.hasRoom ? this.compile(ip, counts) : 0;
      }
      if (units === MAX_UNITS || !(op >= X_CALL ? this.helpers.call(op) : this.write(op))) {
        if (op >= X_CALL ? this.helpers.isSlow(op) : k.KIND[op] === k.NONE && OP_KIND[op] === PURE) {
          w.x.at = start;
          return 0;
        }
        w.leaveAlways();
        break;
      }
      if (op < X_CALL && k.endsBlock(op)) break;
      w.ip = w.after(op, w.ip);
    }
    this.accesses.writeLooks();
    w.writeExits();
    this.ends.writeChains();
    return this.origin + start;
  }

  /** What the block counts. */
  private countOf(counts: number): number {
    if (counts === COUNT_NONE) return COUNT_NONE;
    if (this.usesX87) return COUNT_LOOK;
    return counts === COUNT_ALL || this.isSlow ? COUNT_ALL : COUNT_NONE;
  }

  /** What kinds of operations has the block? */
  private lookOver(ip: number): void {
    const { w, floatStack } = this;
    this.usesX87 = false;
    let vectors = 0;
    for (let at = ip + UNIT; ; ) {
      const op = w.opcode(at);
      if (op >= X_CALL) this.usesX87 ||= floatStack?.isOperation(op) === true;
      else if (k.endsBlock(op)) break;
      else if (k.isVectorArithmetic(op)) vectors++;
      at = w.after(op, at);
    }
    this.isSlow = vectors >= MANY_VECTORS;
  }

  /** @returns whether it could */
  private write(op: number): boolean {
    if (k.KIND[op] === k.NONE) return false;
    this.w.consume(op);
    if (k.endsBlock(op)) this.w.storeGlobals();
    const done = this.writeOperation(op) || this.writeExit(op);
    this.w.releaseDead();
    return done;
  }

  /** @returns whether it is one that ends no block, and could be written */
  private writeOperation(op: number): boolean {
    const kind = k.KIND[op]!;
    const wide = k.WIDE[op] === 1;
    const parameter = k.PARAMETER[op]!;
    if (kind === k.NONE || kind >= k.FIRST_EXIT) return false;
    if (kind >= k.FIRST_VECTOR) this.vectors.write(kind, parameter);
    else if (kind >= k.FIRST_FLOAT) this.floats.write(kind, parameter, wide);
    else if (kind === k.LOAD) this.accesses.load(ACCESS[op]!, parameter, wide);
    else if (kind === k.STORE) this.accesses.store(ACCESS[op]!, parameter, wide);
    else this.integers.write(op, kind, parameter, wide);
    return true;
  }

  private writeExit(op: number): boolean {
    const { ends, w } = this;
    switch (k.KIND[op]) {
      case k.LEAVE_IF:
        w.testZero(w.word(8), false);
        w.leaveAt(w.x.jcc(CC_NE));
        return true;
      case k.BRANCH:
        ends.branch(k.PARAMETER[op]!, k.WIDE[op] === 1, (k.READS[op]! & k.COMPARED) !== 0);
        return true;
      case k.COND_GOTO:
        ends.condGoto();
        return true;
      case k.GOTO:
        ends.goto();
        return true;
      case k.JUMP:
        ends.jump();
        return true;
      default:
        return false;
    }
  }
}

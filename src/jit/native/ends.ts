/** How code of blocks begins, and where it goes: on to other code of the host's, or out. */
import {
  CTL_NATIVE_JUMPS,
  CTL_BASE,
  CTL_BUDGET,
  CTL_CTX,
  CTL_JUMP_BASE,
  CTL_KICK,
  CTL_MAPPING,
  CTL_NATIVE,
  CTL_PC,
} from '../../ir/vcpu-block.ts';
import {
  FN_NATIVE,
  JUMP_FOLD_HIGH,
  JUMP_FOLD_LOW,
  JUMP_LOW_BITS,
  JUMP_PAGE_BITS,
  LINK_CELL,
  LINK_MAPPING,
  NATIVE_JUMPS,
  NATIVE_JUMP_BITS,
} from '../layout.ts';
import { AT_AUX, UNIT } from '../opcodes.ts';
import { COUNT_ALL, COUNT_NONE } from './count.ts';
import type { Integers } from './integers.ts';
import type { Links } from './links.ts';
import { RESULT_CELL, RESULT_FIND } from './results.ts';
import { PINNED, field } from './writer.ts';
import type { BlockWriter } from './writer.ts';
import type { X87Shared } from './x87-shared.ts';
import { ADD, AND, CC_E, CC_NE, CC_S, CMP, OR, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RSP, SHL, SHR, SUB, XOR } from './x64.ts';
import type { X64 } from './x64.ts';

/** Instructions of other blocks, for each time that a block looks at the budget. */
const BETWEEN_CHECKS = 8;

const PROBE_LINK = 0;
const PROBE_TABLE = 1;
/** Registers that belong to the caller. */
const SAVED = [RBX, RBP, R12, R13, R14, R15];

export class Ends {
  private readonly w: BlockWriter;
  private readonly x: X64;
  private readonly integers: Integers;
  private exitCell = 0;
  private exitFind = 0;
  private probeLink = 0;
  private probeTable = 0;
  private chains: { cell: number; over: number; jump: number }[] = [];
  private readonly links: Links;
  private readonly exact: boolean;
  private readonly floats: X87Shared | null;
  /** What the block takes from the budget where it looks at it. */
  private cost = 0;

  /** @param exact instructions are counted exactly: every block looks at the budget before it begins, not only where control goes back */
  constructor(writer: BlockWriter, integers: Integers, links: Links, floats: X87Shared | null, exact: boolean) {
    this.links = links;
    this.exact = exact;
    this.floats = floats;
    this.w = writer;
    this.x = writer.x;
    this.integers = integers;
  }

  /** Writes what all blocks share; it begins with the way in. @param base address of the machine's memory in the process */
  writeShared(base: bigint): void {
    const { x } = this;
    for (const reg of SAVED) x.push(reg);
    x.ri(SUB, true, RSP, 8);
    x.constant(RBX, Number(base & 0xffffffffn) | 0, Number(base >> 32n) | 0);
    this.w.pinnedSlots.forEach((slot, i) => x.load(true, PINNED[i]!, slot));
    x.load(true, R13, field(CTL_PC));
    this.floats?.writeEnter();
    x.load(false, RAX, field(CTL_NATIVE));
    x.jmpRegister(RAX);
    this.exitFind = x.at;
    x.constant(RAX, RESULT_FIND, 0);
    const toExit = x.jmp();
    this.exitCell = x.at;
    x.lea(false, RAX, RCX, RESULT_CELL);
    x.land(toExit);
    this.w.exit = x.at;
    this.w.pinnedSlots.forEach((slot, i) => x.store(true, slot, PINNED[i]!));
    x.store(true, field(CTL_PC), R13);
    x.store(true, field(CTL_BASE), R13);
    this.floats?.writeLeave();
    x.ri(ADD, true, RSP, 8);
    for (const reg of [...SAVED].reverse()) x.pop(reg);
    x.ret();
    this.probeLink = x.at;
    this.probe(PROBE_LINK);
    this.probeTable = x.at;
    this.probe(PROBE_TABLE);
  }

  /** What a block begins with, as the interpreter's header. @param count one of COUNT_* */
  header(ip: number, count: number): void {
    const { x } = this;
    const insns = this.w.words[ip >> 2]! >>> 16;
    this.chains = [];
    if (this.exact) {
      x.load(false, RAX, field(CTL_BUDGET));
      x.ri(SUB, false, RAX, insns);
      this.w.leaveAt(x.jcc(CC_S), ip);
      x.store(false, field(CTL_BUDGET), RAX);
    } else this.cost = insns + BETWEEN_CHECKS;
    if (count === COUNT_NONE) return;
    // The interpreter counts the last one itself.
    x.mi(count === COUNT_ALL ? SUB : CMP, false, ip + 4, 1);
    this.w.leaveAt(x.jcc(CC_E), ip, this.exact ? insns : 0, count === COUNT_ALL);
  }

  /**
   * Where control goes back, or anywhere, somebody must look at whether it is to go on. Instructions are taken from the budget there,
   * too, unless they are counted exactly: about as many as have been executed since the last time.
   * @returns the jump that is taken if it is not
   */
  private check(): number {
    const { x } = this;
    x.load(false, RAX, field(CTL_BUDGET));
    if (!this.exact) {
      x.ri(SUB, false, RAX, this.cost);
      x.store(false, field(CTL_BUDGET), RAX);
    }
    x.rm(OR, false, RAX, field(CTL_KICK));
    return x.jcc(CC_S);
  }

  private context(known: number, context: number): void {
    if (known !== 0) this.x.storeImmediate(false, field(CTL_CTX), context);
  }

  private get aux(): number {
    return this.w.words[this.w.ip >> 2]! >>> (8 * AT_AUX);
  }

  branch(condition: number, wide: boolean, binary: boolean): void {
    this.context(this.aux, this.w.word(24));
    if (binary) this.integers.compare(this.w.word(8), this.w.word(28), wide);
    else this.w.testZero(this.w.word(8), wide);
    this.twoWays(condition);
  }

  condGoto(): void {
    this.context(this.aux, this.w.word(24));
    this.w.testZero(this.w.word(8), false);
    this.twoWays(CC_NE);
  }

  private twoWays(condition: number): void {
    const { x } = this;
    const taken = x.jcc(condition);
    this.goOn(this.w.word(20), this.w.word(12));
    x.land(taken);
    this.goOn(this.w.word(16), this.w.word(4));
  }

  goto(): void {
    const { x } = this;
    this.context(this.aux, this.w.word(12));
    const cell = this.w.word(4);
    if (cell !== 0) return this.goOn(this.w.word(8), cell);
    this.movePc(this.w.word(8));
    if (this.w.word(8) <= 0) x.patch(this.check(), this.exitFind);
    const link = this.w.ip + UNIT;
    x.load(false, RAX, field(CTL_MAPPING));
    x.rm(CMP, false, RAX, link + LINK_MAPPING);
    const other = x.jcc(CC_NE);
    x.load(false, RCX, link + LINK_CELL);
    this.through();
    x.land(other);
    x.constant(R14, link, 0);
    x.jmpTo(this.probeLink);
  }

  private movePc(offset: number): void {
    if (offset !== 0) this.x.ri(ADD, true, R13, offset);
  }

  /** Goes on at an offset from the block's pc. @param cell of the code there, or 0 when the jump cache must be asked */
  private goOn(offset: number, cell: number): void {
    const { x } = this;
    this.movePc(offset);
    if (cell === 0) {
      if (offset <= 0) x.patch(this.check(), this.exitFind);
      return this.byTable();
    }
    const over = offset <= 0 ? this.check() : 0;
    this.chains.push({ cell, over, jump: x.jmp() });
  }

  /** Behind a block's code: what its ways to other blocks are led to when there is no code of the host's. */
  writeChains(): void {
    const { x } = this;
    for (const { cell, over, jump } of this.chains) {
      const slow = x.at;
      x.constant(RCX, cell, 0);
      x.jmpTo(this.exitCell);
      if (over !== 0) x.patch(over, slow);
      x.patch(jump, slow);
      this.links.add(cell, jump, slow);
    }
    this.chains = [];
  }

  /** Goes on through the entry cell whose address rcx has. */
  private through(): void {
    const { x } = this;
    x.rx(0x8b, true, RAX, RCX, 0);
    x.ri(CMP, false, RAX, FN_NATIVE);
    x.jccTo(CC_NE, this.exitCell);
    x.shift(SHR, true, RAX, 32);
    x.jmpRegister(RAX);
  }

  jump(): void {
    this.context(this.aux, this.w.word(12));
    this.w.moveTo(R13, this.w.word(8), true);
    this.x.patch(this.check(), this.exitFind);
    this.byTable();
  }

  /** Leaves the place of the pc's entry among the computed jumps in rax. */
  private placeInTable(): void {
    const { x } = this;
    x.mov(false, RAX, R13);
    x.shift(SHR, false, RAX, NATIVE_JUMP_BITS);
    x.rr(XOR, false, RAX, R13);
    x.ri(AND, false, RAX, (1 << NATIVE_JUMP_BITS) - 1);
    x.shift(SHL, false, RAX, 4);
  }

  /** Goes on at the pc where that has led before. */
  private byTable(): void {
    const { x } = this;
    this.placeInTable();
    x.rx(CMP, true, R13, RAX, NATIVE_JUMPS);
    x.jccTo(CC_NE, this.probeTable);
    x.load(false, RCX, field(CTL_MAPPING));
    x.rx(CMP, false, RCX, RAX, NATIVE_JUMPS + 8);
    x.jccTo(CC_NE, this.probeTable);
    x.rx(0x8b, false, RCX, RAX, NATIVE_JUMPS + 12);
    x.jmpRegister(RCX);
  }

  /** Forgets where computed jumps have led: some code is not there any more. */
  forgetJumps(): void {
    const { words } = this.w;
    const noted = field(CTL_NATIVE_JUMPS) >> 2;
    if (words[noted] === 0) return;
    words[noted] = 0;
    words.fill(0, NATIVE_JUMPS >> 2, (NATIVE_JUMPS >> 2) + (4 << NATIVE_JUMP_BITS));
  }

  /** Goes on at the pc by the jump cache. @param note where to note the cell: the link that r14 has the address of, or the table */
  private probe(note: number): void {
    const { x } = this;
    x.mov(true, RAX, R13);
    x.shift(SHR, true, RAX, JUMP_FOLD_LOW);
    x.mov(true, RCX, R13);
    x.shift(SHR, true, RCX, JUMP_FOLD_HIGH);
    x.rr(XOR, false, RAX, RCX);
    x.rr(XOR, false, RAX, R13);
    x.ri(AND, false, RAX, (1 << JUMP_LOW_BITS) - 1);
    x.shift(SHL, false, RAX, 4);
    x.mov(false, RCX, R13);
    x.shift(SHR, false, RCX, 12);
    x.ri(AND, false, RCX, (1 << JUMP_PAGE_BITS) - 1);
    x.shift(SHL, false, RCX, JUMP_LOW_BITS + 4);
    x.rr(OR, false, RAX, RCX);
    x.rm(ADD, false, RAX, field(CTL_JUMP_BASE));
    x.rx(0x3b, true, R13, RAX, 0);
    x.jccTo(CC_NE, this.exitFind);
    x.rx(0x8b, false, RCX, RAX, 8);
    if (note === PROBE_TABLE) {
      x.rx(0x8b, true, R14, RCX, 0);
      x.ri(CMP, false, R14, FN_NATIVE);
      x.jccTo(CC_NE, this.exitCell);
      x.shift(SHR, true, R14, 32);
      this.placeInTable();
      x.rx(0x89, true, R13, RAX, NATIVE_JUMPS);
      x.rx(0x89, false, R14, RAX, NATIVE_JUMPS + 12);
      x.load(false, RCX, field(CTL_MAPPING));
      x.rx(0x89, false, RCX, RAX, NATIVE_JUMPS + 8);
      x.storeImmediate(false, field(CTL_NATIVE_JUMPS), 1);
      return x.jmpRegister(R14);
    } else {
      x.rx(0x89, false, RCX, R14, LINK_CELL);
      x.load(false, RAX, field(CTL_MAPPING));
      x.rx(0x89, false, RAX, R14, LINK_MAPPING);
    }
    this.through();
  }
}

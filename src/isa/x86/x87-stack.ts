/**
 * What is known of the x87 register stack while a block is translated: TOP is read once in a block, and how far instructions have
 * moved it since is counted here, so that the slot of each register is computed once. The state block always has TOP as it is.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { FTOP } from './state.ts';

export class X87Stack {
  private readonly b: Builder;
  /** TOP when it was read, -1 = not yet. */
  private top: Value = -1;
  /** Places that it has moved since. */
  private moved = 0;
  /** Physical numbers of registers and their slots (x87/common.ts), by how far from `top` they are. */
  private readonly numbers = new Int32Array(8).fill(-1);
  private readonly slots = new Int32Array(8).fill(-1);
  /** No unmasked exception waits to be raised. */
  clean = false;

  constructor(b: Builder) {
    this.b = b;
  }

  /** To be called where a block begins, and by instructions that set TOP otherwise. */
  forget(): void {
    this.clean = false;
    if (this.top < 0) return;
    this.top = -1;
    this.moved = 0;
    this.numbers.fill(-1);
    this.slots.fill(-1);
  }

  /** Physical number of st(i). @param i may be negative: what a push will make st(0) is st(-1) */
  number(i: number): Value {
    const { b, numbers } = this;
    if (this.top < 0) this.top = numbers[0] = b.lds32(FTOP);
    const at = (this.moved + i) & 7;
    if (numbers[at]! < 0) numbers[at] = b.and32(b.add32(this.top, b.i32(at)), b.i32(7));
    return numbers[at]!;
  }

  /** Slot of st(i): what routines call a register by. */
  slot(i: number): Value {
    const { b, slots } = this;
    const number = this.number(i);
    const at = (this.moved + i) & 7;
    if (slots[at]! < 0) slots[at] = b.shl32(number, b.i32(4));
    return slots[at]!;
  }

  /** Moves TOP. */
  move(by: number): void {
    const top = this.number(by);
    this.moved = (this.moved + by) & 7;
    this.b.sts32(FTOP, top);
  }
}

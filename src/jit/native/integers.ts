/** Operations on integers. */
import * as k from './units.ts';
import { CONSTANT, MEMORY } from './writer.ts';
import type { BlockWriter } from './writer.ts';
import { ADD, CC_NE, CMP, IMUL, RAX, RCX, RDX, SUB, XOR } from './x64.ts';
import type { X64 } from './x64.ts';

export class Integers {
  private readonly w: BlockWriter;
  private readonly x: X64;

  constructor(writer: BlockWriter) {
    this.w = writer;
    this.x = writer.x;
  }

  write(op: number, kind: number, parameter: number, wide: boolean): void {
    const { w } = this;
    switch (kind) {
      case k.ALU:
        return this.alu(parameter, wide, k.COMMUTES[op] === 1);
      case k.SHIFT:
        return this.shift(parameter, wide);
      case k.COMPARE:
        this.compare(w.word(8), w.word(12), wide);
        return w.defineBy(parameter);
      case k.EQZ:
        w.testZero(w.word(8), wide);
        return w.defineBy(parameter);
      case k.EXTEND:
        return this.extend(parameter, wide);
      case k.SELECT:
        return this.select(wide);
      case k.MUL_HIGH:
        return this.mulHigh(parameter);
      case k.DIVIDE:
        return this.divide((parameter & 1) !== 0, (parameter & 2) !== 0, wide);
      case k.COUNT:
        return this.countBits(parameter, wide);
      case k.POPCNT:
        return this.popcnt(wide);
      case k.BSWAP:
        return this.byteSwap(wide);
      case k.MOVE:
        return this.move();
      case k.LANE:
        return this.lane(parameter, wide);
      case k.STATE_LOAD:
        return this.stateLoad(parameter, wide);
      default:
        this.stateStore(op, parameter, wide);
    }
  }

  private alu(code: number, wide: boolean, commutes: boolean): void {
    const { x } = this;
    let [a, b] = [this.w.word(8), this.w.word(12)] as const;
    const d = this.w.word(4);
    let first = this.w.where(a);
    if (commutes && first === CONSTANT) {
      [a, b] = [b, a];
      first = this.w.where(a);
    }
    const second = this.w.where(b);
    const { low, high } = this.w;
    const stack = second === CONSTANT && wide && (code === ADD || code === SUB) && this.w.isStack(a);
    const target = this.w.targetOver(d, a, first);
    if (second === CONSTANT) {
      if (!wide || high === low >> 31) this.withImmediate(code, wide, target, first, a, low);
      else {
        if (first !== target) this.w.moveTo(target, a, wide);
        x.constant(RCX, low, high);
        x.rr(code, wide, target, RCX);
      }
    } else if (second === target && first !== target) {
      if (commutes) this.operate(code, wide, target, first, a);
      else {
        this.w.moveTo(RCX, a, wide);
        x.rr(code, wide, RCX, second);
        x.mov(wide, target, RCX);
      }
    } else {
      if (first !== target) this.w.moveTo(target, a, wide);
      this.operate(code, wide, target, second, b);
    }
    this.w.define(d, target);
    if (stack) this.w.markStack(d);
  }

  private withImmediate(code: number, wide: boolean, target: number, first: number, a: number, value: number): void {
    const { x } = this;
    if (first === CONSTANT) {
      this.w.moveTo(target, a, wide);
      first = target;
    }
    if (code === IMUL) {
      if (first === MEMORY) x.rm(0x69, wide, target, a);
      else x.rr(0x69, wide, target, first);
      return x.i32(value);
    }
    if (first < MEMORY && first !== target && (code === ADD || (code === SUB && value !== -0x80000000))) {
      return x.lea(wide, target, first, code === ADD ? value : -value);
    }
    if (first !== target) this.w.moveTo(target, a, wide);
    x.ri(code, wide, target, value);
  }

  /** register = register op slot */
  private operate(code: number, wide: boolean, reg: number, place: number, slot: number): void {
    const { x } = this;
    if (place < MEMORY) x.rr(code, wide, reg, place);
    else if (place === MEMORY) x.rm(code, wide, reg, slot);
    else {
      this.w.moveTo(RCX, slot, wide);
      x.rr(code, wide, reg, RCX);
    }
  }

  private shift(code: number, wide: boolean): void {
    const { x } = this;
    const [d, a, b] = [this.w.word(4), this.w.word(8), this.w.word(12)];
    const count = this.w.where(b);
    const bits = this.w.low & (wide ? 63 : 31);
    if (count !== CONSTANT) this.w.moveTo(RCX, b, false);
    const first = this.w.where(a);
    const target = this.w.targetOver(d, a, first);
    if (first !== target) this.w.moveTo(target, a, wide);
    else if (!wide) x.mov(false, target, target);
    if (count !== CONSTANT) x.shiftBy(code, wide, target);
    else if (bits !== 0) x.shift(code, wide, target, bits);
    this.w.define(d, target);
  }

  /** Sets the host's flags by two slots. */
  compare(a: number, b: number, wide: boolean): void {
    const { x } = this;
    let first = this.w.where(a);
    if (first === CONSTANT) {
      first = this.w.allocate();
      this.w.moveTo(first, a, wide);
    }
    const second = this.w.where(b);
    const { low, high } = this.w;
    if (second === CONSTANT && (!wide || high === low >> 31)) {
      if (first === MEMORY) x.mi(CMP, wide, a, low);
      else if (low === 0) x.rr(0x85, wide, first, first);
      else x.ri(CMP, wide, first, low);
      return;
    }
    if (first === MEMORY) {
      if (second < MEMORY) return x.rm(0x39, wide, second, a);
      first = this.w.allocate();
      x.load(wide, first, a);
    }
    this.operate(CMP, wide, first, second, b);
  }

  private extend(code: number, wide: boolean): void {
    const { x } = this;
    const [d, a] = [this.w.word(4), this.w.word(8)];
    const from = this.w.where(a);
    const target = this.w.targetOver(d, a, from);
    if (from === CONSTANT) {
      this.w.moveTo(RCX, a, true);
      x.rr(code, wide, target, RCX, true);
    } else if (from === MEMORY) x.rm(code, wide, target, a);
    else x.rr(code, wide, target, from, true);
    this.w.define(d, target);
  }

  private select(wide: boolean): void {
    const { x } = this;
    const [d, condition, yes, no] = [this.w.word(4), this.w.word(8), this.w.word(12), this.w.word(16)];
    const place = this.w.where(yes) === CONSTANT ? this.w.inRegister(yes) : this.w.where(yes);
    this.w.moveTo(RCX, no, wide);
    this.w.testZero(condition, false);
    if (place === MEMORY) x.rm(0x140 | CC_NE, wide, RCX, yes);
    else x.cmov(CC_NE, wide, RCX, place);
    this.w.defineFrom(d, RCX, wide);
  }

  private mulHigh(code: number): void {
    const { x } = this;
    const [d, a, b] = [this.w.word(4), this.w.word(8), this.w.word(12)];
    this.w.moveTo(RCX, a, true);
    // Both halves have their places; what was there goes to its slot.
    for (let i = 0; i < 2; i++) this.w.allocate(i);
    this.w.moveTo(RAX, b, true);
    x.rr(0xf7, true, code, RCX);
    this.w.defineFrom(d, RDX);
  }

  private countBits(code: number, wide: boolean): void {
    const { x } = this;
    const [d, a] = [this.w.word(4), this.w.word(8)];
    const from = this.w.inRegister(a);
    const width = wide ? 64 : 32;
    const above = code === 0x1bd;
    // Of nothing: the highest "is" at -1 (as ^ sees it), the lowest at the width.
    x.rr(code, wide, RCX, from);
    const some = x.jcc(CC_NE);
    x.constant(RCX, above ? 2 * width - 1 : width, 0);
    x.land(some);
    if (above) x.ri(XOR, false, RCX, width - 1);
    this.w.defineFrom(d, RCX, false);
  }

  private popcnt(wide: boolean): void {
    const { x } = this;
    const [d, a] = [this.w.word(4), this.w.word(8)];
    this.w.moveTo(RCX, a, wide);
    const target = this.w.target(d);
    x.byte(0xf3);
    x.rr(0x1b8, wide, target, RCX);
    this.w.define(d, target);
  }

  /** Total: by zero gives 0, the least number by -1 itself. */
  private divide(signed: boolean, remainder: boolean, wide: boolean): void {
    const { x } = this;
    const [d, a, b] = [this.w.word(4), this.w.word(8), this.w.word(12)];
    this.w.moveTo(RCX, b, wide);
    for (let i = 0; i < 2; i++) this.w.allocate(i);
    this.w.moveTo(RAX, a, wide);
    x.rr(0x85, wide, RCX, RCX);
    const some = x.jcc(CC_NE);
    x.rr(XOR, false, RAX, RAX);
    x.rr(XOR, false, RDX, RDX);
    const overZero = x.jmp();
    x.land(some);
    let overNegated = 0;
    if (signed) {
      x.ri(CMP, wide, RCX, -1);
      const other = x.jcc(CC_NE);
      x.rr(0xf7, wide, 3, RAX); // NEG
      x.rr(XOR, false, RDX, RDX);
      overNegated = x.jmp();
      x.land(other);
      if (wide) x.byte(0x48);
      x.byte(0x99); // CDQ, CQO
    } else x.rr(XOR, false, RDX, RDX);
    x.rr(0xf7, wide, signed ? 7 : 6, RCX);
    x.land(overZero);
    if (signed) x.land(overNegated);
    this.w.defineFrom(d, remainder ? RDX : RAX);
  }

  /** Vectors are always in their slots. */
  private lane(code: number, wide: boolean): void {
    const [d, a] = [this.w.word(4), this.w.word(8)];
    const target = this.w.target(d);
    this.x.rm(code, wide, target, a);
    this.w.define(d, target);
  }

  private byteSwap(wide: boolean): void {
    const { x } = this;
    const [d, a] = [this.w.word(4), this.w.word(8)];
    const from = this.w.where(a);
    const target = this.w.targetOver(d, a, from);
    if (from !== target) this.w.moveTo(target, a, wide);
    x.bswap(wide, target);
    this.w.define(d, target);
  }

  private move(): void {
    const [d, a] = [this.w.word(4), this.w.word(8)];
    const { x } = this;
    const from = this.w.where(a);
    const { low, high } = this.w;
    const pinned = this.w.pinnedOf(d);
    if (pinned !== 0) return this.w.moveTo(pinned, a, true);
    if (from === CONSTANT && high === low >> 31 && this.w.usesOf(d) < 0) {
      this.w.forget(d);
      return x.storeImmediate(true, d, low);
    }
    if (from < MEMORY && this.w.usesOf(d) < 0) {
      this.w.forget(d);
      return x.store(true, d, from);
    }
    const target = this.w.targetOver(d, a, from);
    if (from !== target) this.w.moveTo(target, a, true);
    this.w.define(d, target);
  }

  private stateLoad(code: number, wide: boolean): void {
    const { x } = this;
    const [d, a, b] = [this.w.word(4), this.w.word(8), this.w.word(12)];
    const place = this.w.where(a);
    const { low } = this.w;
    if (place !== CONSTANT) this.w.moveTo(RCX, a, false);
    const target = this.w.target(d);
    if (place === CONSTANT) x.rm(code, wide, target, b + low);
    else x.rx(code, wide, target, RCX, b);
    this.w.define(d, target);
  }

  private stateStore(op: number, code: number, wide: boolean): void {
    const { x } = this;
    const [value, a, b] = [this.w.word(4), this.w.word(8), this.w.word(12)];
    const place = this.w.where(a);
    const { low } = this.w;
    const reg = this.w.inRegister(value);
    if (place !== CONSTANT) this.w.moveTo(RCX, a, false);
    if (op === k.STS16) x.byte(0x66);
    if (place === CONSTANT) x.rm(code, wide, reg, b + low, code === 0x88);
    else x.rx(code, wide, reg, RCX, b, code === 0x88);
  }
}

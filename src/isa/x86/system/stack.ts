/** Pushes and pops of system code, on the current stack or one that is not in force yet. */
import { CPL, SS } from '../state.ts';
import { ATTR_DB, ATTR_EXPAND_DOWN, SS_FAULT } from './core.ts';
import type { Core } from './core.ts';
import { AS_CURRENT, AS_SYSTEM, AS_USER } from './mmu.ts';
import type { Mmu } from './mmu.ts';

const RSP = 4;
const HIGH = 0x1_0000_0000;

export class Stack {
  private readonly core: Core;
  private readonly mmu: Mmu;
  /** Stack pointer: the register is written by `commit` only. */
  low = 0;
  high = 0;
  private base = 0;
  private limit = 0;
  private attributes = 0;
  /** Width of the stack pointer as a mask; 64-bit stacks are flat. */
  private mask = 0;
  private wide = false;
  private how = AS_CURRENT;
  /** Error code of #SS: a selector when the stack is being switched to. */
  private code = 0;

  constructor(core: Core, mmu: Mmu) {
    this.core = core;
    this.mmu = mmu;
  }

  useCurrent(): void {
    const { core } = this;
    this.low = core.regLow(RSP);
    this.high = core.regHigh(RSP);
    this.wide = core.code64;
    this.base = core.segBaseLow(SS);
    this.setShape(core.segLimit(SS), core.segAttr(SS));
    this.how = core.get(CPL) === 3 ? AS_USER : AS_SYSTEM;
    this.code = 0;
  }

  private setShape(limit: number, attributes: number): void {
    this.limit = limit;
    this.attributes = attributes;
    this.mask = attributes & ATTR_DB ? -1 : 0xffff;
    if (!this.wide) this.low &= this.mask;
  }

  /** A stack of a 16- or 32-bit segment. @param cpl that it will be used at */
  use(selector: number, base: number, limit: number, attributes: number, pointer: number, cpl: number): void {
    this.wide = false;
    this.low = pointer;
    this.high = 0;
    this.base = base;
    this.setShape(limit, attributes);
    this.how = cpl === 3 ? AS_USER : AS_SYSTEM;
    this.code = selector & 0xfffc;
  }

  useWide(low: number, high: number, cpl: number): void {
    this.wide = true;
    this.low = low;
    this.high = high;
    this.how = cpl === 3 ? AS_USER : AS_SYSTEM;
    this.code = 0;
  }

  private add(delta: number): void {
    const sum = (this.low >>> 0) + delta;
    if (this.wide) this.high = (this.high + (sum >= HIGH ? 1 : sum < 0 ? -1 : 0)) | 0;
    this.low = this.wide ? sum | 0 : sum & this.mask;
  }

  private check(size: number): void {
    this.checkAt(this.low, this.high, size);
  }

  /** That an offset can be used by way of the stack segment. @throws FAULT, #SS */
  checkAt(low: number, high: number, size: number): void {
    const { core } = this;
    if (this.wide) {
      if (!core.isCanonical(low, high)) core.fault(SS_FAULT, this.code | core.ext);
      return;
    }
    const first = low >>> 0;
    const last = first + size - 1;
    const down = (this.attributes & (ATTR_EXPAND_DOWN | 8)) === ATTR_EXPAND_DOWN;
    const bad = down ? first <= this.limit || last > (this.attributes & ATTR_DB ? 0xffffffff : 0xffff) : last > this.limit;
    if (bad) core.fault(SS_FAULT, this.code | core.ext);
  }

  /** @param size 2, 4 or 8 bytes */
  push(size: number, low: number, high: number): void {
    this.add(-size);
    this.check(size);
    const at = this.wide ? this.low : (this.base + this.low) | 0;
    const atHigh = this.wide ? this.high : 0;
    if (size === 8) this.mmu.write64(at, atHigh, low, high, this.how);
    else this.mmu.write(at, atHigh, size, low, this.how);
  }

  /** Leaves the value in core.low and core.high. @returns its low word */
  pop(size: number): number {
    this.check(size);
    const { core } = this;
    const at = this.wide ? this.low : (this.base + this.low) | 0;
    const atHigh = this.wide ? this.high : 0;
    if (size === 8) this.mmu.read64(at, atHigh, this.how);
    else {
      core.low = this.mmu.read(at, atHigh, size, this.how);
      core.high = 0;
    }
    this.add(size);
    return core.low;
  }

  skip(bytes: number): void {
    this.add(bytes);
  }

  /** Writes the stack pointer register. */
  commit(): void {
    if (this.wide) this.core.setReg(RSP, this.low, this.high);
    else this.core.writeReg(RSP, this.mask === -1 ? 4 : 2, this.low, 0);
  }
}

/** Guest memory: the TLB is looked up in place, what it has not is the interpreter's. */
import { CTL_TLB_BASE } from '../../ir/vcpu-block.ts';
import type { AccessInfo } from '../access.ts';
import { TLB_ADDEND, TLB_ENTRIES, TLB_ENTRY_SHIFT } from '../layout.ts';
import { MEMORY, field } from './writer.ts';
import type { BlockWriter } from './writer.ts';
import { ADD, AND, CC_NE, CMP, RCX, SHR } from './x64.ts';
import type { X64 } from './x64.ts';

export class Accesses {
  private readonly w: BlockWriter;
  private readonly x: X64;

  constructor(writer: BlockWriter) {
    this.w = writer;
    this.x = writer.x;
  }

  /**
   * Leaves the address in this memory of an access in rcx, or leaves. What is held in registers is untouched until then.
   */
  private address({ bytes, tag }: AccessInfo): void {
    const { x } = this;
    const [a, displacement] = [this.w.word(8), this.w.word(12)];
    const place = this.w.where(a);
    if (place < MEMORY) {
      if (displacement === 0) x.mov(true, RCX, place);
      else x.lea(true, RCX, place, displacement);
    } else {
      this.w.moveTo(RCX, a, true);
      if (displacement !== 0) x.ri(ADD, true, RCX, displacement);
    }
    const entry = this.w.allocate();
    const page = this.w.allocate();
    x.mov(true, entry, RCX);
    x.shift(SHR, true, entry, 12 - TLB_ENTRY_SHIFT);
    x.ri(AND, false, entry, (TLB_ENTRIES - 1) << TLB_ENTRY_SHIFT);
    x.rm(ADD, false, entry, field(CTL_TLB_BASE));
    if (bytes > 1) x.lea(true, page, RCX, bytes - 1);
    else x.mov(true, page, RCX);
    x.ri(AND, true, page, -4096);
    x.rx(CMP, true, page, entry, tag);
    this.w.leaveAt(x.jcc(CC_NE));
    x.rx(ADD, true, RCX, entry, TLB_ADDEND);
  }

  load(access: AccessInfo, code: number, wide: boolean): void {
    const { x } = this;
    const d = this.w.word(4);
    this.address(access);
    if (access.bytes === 16) {
      x.byte(0xf3);
      x.rx(0x16f, false, 0, RCX, 0);
      x.byte(0xf3);
      return x.rm(0x17f, false, 0, d);
    }
    // The registers that the address took are free again.
    this.w.locked = 0;
    const target = this.w.target(d);
    x.rx(code, wide, target, RCX, 0);
    this.w.define(d, target);
  }

  store(access: AccessInfo, code: number, wide: boolean): void {
    const { x } = this;
    const value = this.w.word(4);
    if (access.bytes === 16) {
      this.address(access);
      x.byte(0xf3);
      x.rm(0x16f, false, 0, value);
      x.byte(0xf3);
      return x.rx(0x17f, false, 0, RCX, 0);
    }
    const reg = this.w.inRegister(value);
    this.address(access);
    if (access.bytes === 2) x.byte(0x66);
    x.rx(code, wide, reg, RCX, 0, code === 0x88);
  }
}

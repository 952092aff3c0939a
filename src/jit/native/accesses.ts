/** Guest memory: the TLB is looked up in place, what it has not is the interpreter's. */
import { HOST_PAGES, CTL_STACK_ADDEND, CTL_STACK_LIMIT, CTL_STACK_PAGE, CTL_TLB_BASE } from '../../ir/vcpu-block.ts';
import { PAGE_LIMIT } from '../access.ts';
import type { AccessInfo } from '../access.ts';
import { TLB_ADDEND, TLB_ENTRIES, TLB_ENTRY_SHIFT, TLB_WRITE } from '../layout.ts';
import { PageGroups } from './page-groups.ts';
import { MEMORY, field } from './writer.ts';
import type { BlockWriter, Exit } from './writer.ts';
import { ADD, AND, CC_AE, CC_B, CC_NE, CMP, MOVDQU, MOVDQU_STORE, RAX, RCX, RDX, SHR, SUB } from './x64.ts';
import type { X64 } from './x64.ts';

const PAGE = 4096;
const pageOf = (group: number): number => field(HOST_PAGES + 16 * group);
const addendOf = (group: number): number => field(HOST_PAGES + 16 * group + 8);
const CLC = 0xf8;
const STC = 0xf9;

export class Accesses {
  private readonly w: BlockWriter;
  private readonly x: X64;
  private findStack = 0;
  private looks: { jump: number; again: number; exit: Exit }[] = [];
  private readonly groups: PageGroups;
  /** Groups of which one has left what it has found, a bit each. */
  private left = 0;
  /** Those whose page may be written to. */
  private leftWritable = 0;
  private elsewhere: { jump: number; offset: number; bytes: number; tag: number; exit: Exit; again: number }[] = [];

  constructor(writer: BlockWriter) {
    this.w = writer;
    this.x = writer.x;
    this.groups = new PageGroups(writer);
  }

  /**
   * Leaves the address in this memory of an access in rcx, or leaves. What is held in registers is untouched until then.
   */
  address({ bytes, tag }: AccessInfo): void {
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
    if (this.w.isStack(a)) return this.stackAddress(entry);
    const known = this.groups.looks(this.w.ip);
    const left = tag === TLB_WRITE ? this.leftWritable : this.left;
    if (known >= 0 && (left >> known) & 1) return this.knownAddress(entry, known, bytes, tag);
    const page = this.w.allocate();
    this.toEntry(entry);
    if (bytes > 1) x.lea(true, page, RCX, bytes - 1);
    else x.mov(true, page, RCX);
    x.ri(AND, true, page, -4096);
    x.rx(CMP, true, page, entry, tag);
    this.w.leaveAt(x.jcc(CC_NE));
    const group = this.groups.leaves(this.w.ip);
    if (group < 0) return x.rx(ADD, true, RCX, entry, TLB_ADDEND);
    this.left |= 1 << group;
    if (tag === TLB_WRITE) this.leftWritable |= 1 << group;
    else this.leftWritable &= ~(1 << group);
    x.store(true, pageOf(group), page);
    x.rx(0x8b, true, entry, entry, TLB_ADDEND);
    x.store(true, addendOf(group), entry);
    x.rr(ADD, true, RCX, entry);
  }

  /** The same where an access of its group has been. @param offset a register for the offset in its page */
  private knownAddress(offset: number, group: number, bytes: number, tag: number): void {
    const { x } = this;
    x.mov(true, offset, RCX);
    x.rm(SUB, true, offset, pageOf(group));
    x.ri(CMP, true, offset, PAGE - bytes + 1);
    const jump = x.jcc(CC_AE);
    const exit = this.w.leaveAt(0);
    x.rm(ADD, true, RCX, addendOf(group));
    this.elsewhere.push({ jump, offset, bytes, tag, exit, again: x.at });
  }

  /** Leaves the address of the TLB's entry for the address in rcx in a register. */
  private toEntry(reg: number): void {
    const { x } = this;
    x.mov(true, reg, RCX);
    x.shift(SHR, true, reg, 12 - TLB_ENTRY_SHIFT);
    x.ri(AND, false, reg, (TLB_ENTRIES - 1) << TLB_ENTRY_SHIFT);
    x.rm(ADD, false, reg, field(CTL_TLB_BASE));
  }

  /** The same by the page that the stack was last seen in. @param offset a register for the offset in it */
  private stackAddress(offset: number): void {
    const { x } = this;
    const again = x.at;
    x.mov(true, offset, RCX);
    x.rm(SUB, true, offset, field(CTL_STACK_PAGE));
    x.rm(CMP, true, offset, field(CTL_STACK_LIMIT));
    this.looks.push({ jump: x.jcc(CC_AE), again, exit: this.w.leaveAt(0) });
    x.rm(ADD, true, RCX, field(CTL_STACK_ADDEND));
  }

  /** A block begins; one before may have been given up. @param ip of its first operation */
  begin(ip: number): void {
    this.looks = [];
    this.elsewhere = [];
    this.left = this.leftWritable = 0;
    this.groups.begin(ip);
  }

  /** Behind a block's code: looks for the stack's page, and on from there, or out. */
  writeLooks(): void {
    const { x } = this;
    for (const { jump, again, exit } of this.looks) {
      x.land(jump);
      x.callTo(this.findStack);
      exit.jump = x.jcc(CC_B);
      x.jmpTo(again);
    }
    this.looks = [];
    for (const one of this.elsewhere) this.writeElsewhere(one);
    this.elsewhere = [];
  }

  /** An access that is to another page than its group: by the TLB. */
  private writeElsewhere({ jump, offset, bytes, tag, exit, again }: (typeof this.elsewhere)[number]): void {
    const { x } = this;
    x.land(jump);
    this.toEntry(offset);
    x.push(RCX);
    if (bytes > 1) x.lea(true, RCX, RCX, bytes - 1);
    x.ri(AND, true, RCX, -PAGE);
    x.rx(CMP, true, RCX, offset, tag);
    x.pop(RCX);
    exit.jump = x.jcc(CC_NE);
    x.rx(ADD, true, RCX, offset, TLB_ADDEND);
    x.jmpTo(again);
  }

  /**
   * Writes what all blocks share: a function that enters the page of the address in rcx as the stack's, when the TLB has it for
   * writing. The carry flag says that it has not, or that the address is at the page's end; no register changes.
   */
  writeShared(): void {
    const { x } = this;
    this.findStack = x.at;
    for (const reg of [RAX, RDX]) x.push(reg);
    x.mov(true, RDX, RCX);
    x.ri(AND, true, RDX, 4095);
    x.ri(CMP, true, RDX, PAGE_LIMIT);
    const atEnd = x.jcc(CC_AE);
    this.toEntry(RAX);
    x.mov(true, RDX, RCX);
    x.ri(AND, true, RDX, -4096);
    x.rx(CMP, true, RDX, RAX, TLB_WRITE);
    const missing = x.jcc(CC_NE);
    x.store(true, field(CTL_STACK_PAGE), RDX);
    x.rx(0x8b, true, RDX, RAX, TLB_ADDEND);
    x.store(true, field(CTL_STACK_ADDEND), RDX);
    x.storeImmediate(true, field(CTL_STACK_LIMIT), PAGE_LIMIT);
    for (const reg of [RDX, RAX]) x.pop(reg);
    x.byte(CLC);
    x.ret();
    x.land(atEnd);
    x.land(missing);
    for (const reg of [RDX, RAX]) x.pop(reg);
    x.byte(STC);
    x.ret();
  }

  load(access: AccessInfo, code: number, wide: boolean): void {
    const { x } = this;
    const d = this.w.word(4);
    this.address(access);
    if (access.bytes === 16) {
      x.sseX(MOVDQU, 0, RCX, 0);
      return x.sseM(MOVDQU_STORE, 0, d);
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
      x.sseM(MOVDQU, 0, value);
      return x.sseX(MOVDQU_STORE, 0, RCX, 0);
    }
    const reg = this.w.inRegister(value);
    this.address(access);
    if (access.bytes === 2) x.byte(0x66);
    x.rx(code, wide, reg, RCX, 0, code === 0x88);
  }
}

/** Of the host's x87 unit, what all blocks share: how code of blocks is entered and left, and functions that it calls. */
import { CTL_HOST_CONTROL, CTL_HOST_STATUS, HOST_FLOATS } from '../../ir/vcpu-block.ts';
import type { FloatStack } from '../../isa/float-stack.ts';
import { field } from './writer.ts';
import { ADD, AND, CC_E, CC_NE, CMP, OR, R14, R15, RAX, RCX, RDX, RSI, SHL, SHR } from './x64.ts';
import type { X64 } from './x64.ts';

/** Positions (x87.ts) are -8 to 7; bit or index of one. */
export const at = (position: number): number => position + 8;
const POSITIONS = Array.from({ length: 16 }, (_, i) => i - 8);

/** The control word that a process begins with and other code expects: as after FNINIT. */
const DEFAULT_CONTROL = 0x37f;
export const EXCEPTIONS = 0x3f;

/** FXSAVE's image: status word, registers (SDM vol. 1, table 10-2). */
const IMAGE_STATUS = 2;
const IMAGE_REGISTERS = 32;

export class X87Shared {
  /** Where the functions lie: see what writes them. */
  storeAll = 0;
  setControl = 0;
  clearStatus = 0;
  private readonly x: X64;
  private readonly stack: FloatStack;

  constructor(x: X64, stack: FloatStack) {
    this.x = x;
    this.stack = stack;
  }

  /** Writes the functions. */
  write(): void {
    this.writeSetControl();
    this.writeClearStatus();
    this.writeStoreAll();
  }

  /** Makes the host's control word that in ecx. The zero flag says whether it could: no exception may be unmasked. */
  private writeSetControl(): void {
    const { x, stack } = this;
    this.setControl = x.at;
    x.mov(false, RAX, RCX);
    x.not(RAX);
    x.ri(AND, false, RAX, EXCEPTIONS);
    const unmasked = x.jcc(CC_NE);
    x.rm(0xd9, false, 5, field(stack.control)); // FLDCW
    x.store(false, field(CTL_HOST_CONTROL), RCX);
    x.land(unmasked);
    x.ret();
  }

  /** Clears exceptions in the host's status word that the guest's has not: ecx has that one inverted. */
  private writeClearStatus(): void {
    const { x } = this;
    this.clearStatus = x.at;
    x.x87(0xdf, 0xe0); // FNSTSW AX
    x.ri(AND, false, RAX, EXCEPTIONS);
    x.rm(0x88, false, RAX, field(CTL_HOST_STATUS));
    x.rr(0x85, false, RAX, RCX);
    const none = x.jcc(CC_E);
    x.x87(0xdb, 0xe2); // FNCLEX
    x.storeImmediate(false, field(CTL_HOST_STATUS), 0);
    x.land(none);
    x.ret();
  }

  /** To be written where code of blocks leaves: other code expects the control word as it was. */
  writeLeave(): void {
    const { x } = this;
    x.mi(CMP, false, field(CTL_HOST_CONTROL), DEFAULT_CONTROL);
    const same = x.jcc(CC_E);
    x.storeImmediate(false, field(CTL_HOST_CONTROL), DEFAULT_CONTROL);
    x.rm(0xd9, false, 5, field(CTL_HOST_CONTROL));
    x.land(same);
  }

  /** To be written where code of blocks is entered: nothing is known of the host's exceptions. */
  writeEnter(): void {
    this.x.storeImmediate(false, field(CTL_HOST_STATUS), EXCEPTIONS);
  }

  /**
   * A function that stores everything and empties the host's stack. eax: positions to store, a bit each; bits 16-23: the host's
   * position of st(0), modulo 8; bits 24-: the guest's. r14d: positions to be tagged as full, and in the upper half as empty.
   * edx: bits of the status word that are the host's. rax, rcx, rdx, r14 and r15 change.
   */
  private writeStoreAll(): void {
    const { x, stack } = this;
    this.storeAll = x.at;
    x.push(RSI);
    x.rm(0x1ae, false, 0, field(HOST_FLOATS)); // FXSAVE
    x.x87(0xdb, 0xe3); // FNINIT
    x.storeImmediate(false, field(CTL_HOST_CONTROL), DEFAULT_CONTROL);
    x.storeImmediate(false, field(CTL_HOST_STATUS), 0);
    x.rm(0x1b7, false, RCX, field(HOST_FLOATS + IMAGE_STATUS));
    x.rr(AND, false, RCX, RDX);
    x.ri(AND, false, RDX, ~EXCEPTIONS);
    x.not(RDX);
    x.rm(AND, false, RDX, field(stack.status));
    x.rr(OR, false, RCX, RDX);
    x.store(false, field(stack.status), RCX);
    x.load(false, R15, field(stack.top));
    for (const position of POSITIONS) {
      this.storeImage(position);
      this.storeTagIf(at(position), position, 0);
      this.storeTagIf(at(position) + 16, position, 1);
    }
    x.shift(SHR, false, RAX, 24);
    x.rr(ADD, false, RAX, R15);
    x.ri(AND, false, RAX, 7);
    x.store(false, field(stack.top), RAX);
    x.pop(RSI);
    x.ret();
  }

  /** Stores a register's value from FXSAVE's image if eax says so. */
  private storeImage(position: number): void {
    const { x, stack } = this;
    x.testBits(RAX, 1 << at(position));
    const skip = x.jcc(CC_E);
    x.mov(false, RDX, RAX);
    x.shift(SHR, false, RDX, 16);
    x.rr(0xf7, false, 3, RDX); // NEG
    x.ri(ADD, false, RDX, position);
    x.ri(AND, false, RDX, 7);
    x.shift(SHL, false, RDX, 4);
    x.lea(false, RCX, R15, position);
    x.ri(AND, false, RCX, 7);
    x.shift(SHL, false, RCX, 4);
    x.rx(0x8b, true, RSI, RDX, field(HOST_FLOATS + IMAGE_REGISTERS));
    x.rx(0x89, true, RSI, RCX, field(stack.registers));
    x.rx(0x1b7, false, RSI, RDX, field(HOST_FLOATS + IMAGE_REGISTERS + 8));
    x.rx(0x89, false, RSI, RCX, field(stack.registers + 8));
    x.land(skip);
  }

  private storeTagIf(bit: number, position: number, tag: number): void {
    const { x, stack } = this;
    x.testBits(R14, 1 << bit);
    const skip = x.jcc(CC_E);
    x.lea(false, RCX, R15, position);
    x.ri(AND, false, RCX, 7);
    x.rx(0xc6, false, 0, RCX, field(stack.tags));
    x.byte(tag);
    if (tag !== 0) {
      x.shift(SHL, false, RCX, 4);
      this.clearMark();
    }
    x.land(skip);
  }

  /** No mark at the register whose offset is in a register. */
  clearMark(reg = RCX): void {
    const { x, stack } = this;
    x.byte(0x66);
    x.rx(0xc7, false, 0, reg, field(stack.registers + stack.mark));
    x.byte(0);
    x.byte(0);
  }
}

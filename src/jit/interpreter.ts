/**
 * Generates the interpreter, one wasm function that runs encoded blocks (opcodes.ts), from the
 * operation table.
 */
import { BULK, F32, I32, I64, MEMORY, NONE, OPS, Op, PURE, V128 } from '../ir/ops.ts';
import type { OpInfo } from '../ir/ops.ts';
import type { Helper } from '../ir/helpers.ts';
import {
  CTL_BASE,
  CTL_BUDGET,
  CTL_CTX,
  CTL_EXIT_ARG,
  CTL_EXIT_REASON,
  CTL_FAULT,
  CTL_FAULT_IP,
  CTL_KICK,
  CTL_MAPPING,
  CTL_PC,
  EXIT_BUDGET,
  EXIT_FAULT,
  EXIT_HOT,
} from '../ir/vcpu-block.ts';
import { emitJumpCacheProbe } from './dispatch.ts';
import { ACCESS, emitLoad, emitStore, pushTlb } from './access.ts';
import { EXPANSIONS, Scratch } from './expand.ts';
import {
  AT_A,
  AT_AUX,
  AT_B,
  AT_C,
  AT_D,
  AT_E,
  COMPARISONS,
  JUMP_TARGETS,
  SEQUENCES,
  UNIT,
  X_BRANCH,
  X_CALL,
  X_HEADER,
  X_MOVE,
  X_MOVE_V,
  X_SEQUENCE,
  isLong,
} from './opcodes.ts';
import { CELL_ARGUMENT, CELL_FUNCTION, FN_INTERPRETER, LINK_CELL, LINK_MAPPING, VCPU_BASE } from './layout.ts';
import {
  BLOCK,
  BR,
  BR_IF,
  BR_TABLE,
  CALL as WASM_CALL,
  ELSE,
  I32_ADD,
  I32_EQ,
  I32_EQZ,
  I32_LOAD,
  I32_AND,
  I32_OR,
  I32_LOAD16_U,
  I32_LT_S,
  I32_SHL,
  I32_SHR_U,
  I32_STORE,
  I32_SUB,
  I32_WRAP,
  I32_XOR,
  I64_ADD,
  I64_EXTEND_U,
  I64_LOAD,
  I64_EQZ,
  I64_STORE,
  I64_SUB,
  LOAD_OP,
  LOOP,
  RETURN,
  RETURN_CALL,
  RETURN_CALL_INDIRECT,
  STORE_OP,
} from '../wasm/wasm.ts';
import type { Code, ModuleWriter } from '../wasm/wasm.ts';

const I64_LOAD32_S = 0x34;

export class InterpreterWriter {
  private readonly c: Code;
  private readonly scratch: Scratch;
  private readonly module: ModuleWriter;
  private readonly helpers: readonly Helper[];
  private readonly slow: (name: string) => number;
  private readonly helperIndex: (helper: Helper) => number;
  private ip = 0;
  private address = 0;
  private found = 0;
  private entry = 0;
  private addend = 0;
  private tlb = 0;
  private cell = 0;
  /** Branch depths from the text of the current case. */
  private toNext = 0;
  /** Function that goes on at a pc that the jump cache has not. */
  private readonly find: number;
  private toChain = 0;
  private toLookup = 0;
  /** In a sequence: byte offset of the current unit from `ip`, and how many operations follow. */
  private at = 0;
  private following = 0;

  constructor(
    module: ModuleWriter,
    helpers: readonly Helper[],
    slow: (name: string) => number,
    helperIndex: (helper: Helper) => number,
    find: number,
  ) {
    this.module = module;
    this.helpers = helpers;
    this.slow = slow;
    this.helperIndex = helperIndex;
    this.find = find;
    this.c = module.code();
    this.scratch = new Scratch(this.c);
  }

  /** Writes the function `(address: i32) => void`. @returns its index */
  write(): number {
    const c = this.c;
    c.begin([I32]);
    this.ip = c.local(c.addressType);
    this.address = c.local(I64);
    this.found = c.local(I64);
    this.entry = c.local(c.addressType);
    this.addend = c.local(c.addressType);
    this.tlb = c.local(c.addressType);
    this.cell = c.local(c.addressType);
    c.get(0);
    if (c.addressType === I64) c.op(I64_EXTEND_U);
    c.set(this.ip);
    const cases = X_CALL + this.helpers.length;
    c.block(LOOP);
    c.block(BLOCK);
    c.block(BLOCK);
    for (let i = 0; i < cases; i++) c.block(BLOCK);
    c.get(this.ip);
    c.memory(I32_LOAD16_U, 0);
    c.op(BR_TABLE);
    c.uleb(cases - 1);
    for (let i = 0; i < cases; i++) c.uleb(i);
    for (let i = 0; i < cases; i++) {
      c.end();
      this.toLookup = cases - 1 - i;
      this.toChain = this.toLookup + 1;
      this.toNext = this.toLookup + 2;
      this.writeCase(i);
    }
    c.end();
    this.writeProbe();
    c.end();
    this.writeChain();
    c.end();
    return this.module.function([I32], NONE, c);
  }

  private writeCase(i: number): void {
    if (i >= X_CALL) return this.writeCall(this.helpers[i - X_CALL]!, i);
    if (i === X_HEADER) return this.writeHeader();
    if (i === X_MOVE || i === X_MOVE_V) return this.writeMove(i === X_MOVE ? I64 : V128);
    if (i >= X_SEQUENCE) return this.writeSequence(SEQUENCES[i - X_SEQUENCE]!);
    if (i >= X_BRANCH) return this.writeCompareAndBranch(COMPARISONS[i - X_BRANCH]!);
    const info = OPS[i]!;
    if (info.kind === PURE) this.writePure(info);
    else if (info.kind === MEMORY) this.writeMemory(info);
    else if (info.kind === BULK) this.writeBulk(info);
    else if (info.name.startsWith('lds')) this.writeStateLoad(info);
    else if (info.name.startsWith('sts')) this.writeStateStore(info);
    else if (i === Op.leaveif) this.writeSideExit();
    else if (i === Op.goto) this.writeGoto();
    else if (i === Op.condgoto) this.writeCondGoto();
    else if (i === Op.jump) this.writeJump();
    else if (i === Op.leave) this.writeLeave();
    else this.c.op(0x00); // constants, register moves and marks are never encoded
  }

  private writeSequence(opcodes: readonly number[]): void {
    this.following = opcodes.length;
    for (const opcode of opcodes) {
      this.following--;
      this.writeCase(opcode);
    }
    this.at = 0;
  }

  /** Address of the slot that a field of the unit names. */
  private field(at: number): void {
    this.c.get(this.ip);
    this.c.loadAddress32(this.at + at);
  }

  private immediate(at: number, opcode: number | readonly number[] = I32_LOAD): void {
    this.c.get(this.ip);
    this.c.memory(opcode, this.at + at);
  }

  /** Stores what `value` leaves on the stack in a field of the unit. */
  private setField(at: number, value: () => void): void {
    this.c.get(this.ip);
    value();
    this.c.memory(I32_STORE, this.at + at);
  }

  private operand(at: number, type: number): void {
    this.field(at);
    this.c.memory(LOAD_OP[type]!, 0);
  }

  /** Stores the value on the stack; its address must be below it. */
  private result(type: number): void {
    if (type === I32) {
      this.c.op(I64_EXTEND_U);
      this.c.memory(I64_STORE, 0);
    } else this.c.memory(STORE_OP[type]!, 0);
  }

  private advance(units: number): void {
    const c = this.c;
    this.at += units * UNIT;
    if (this.following > 0) return;
    c.get(this.ip);
    c.address(this.at);
    this.at = 0;
    c.addAddress();
    c.set(this.ip);
    c.br(BR, this.toNext);
  }

  private set(fieldOffset: number, value: () => void, opcode = I32_STORE): void {
    this.c.storeAt(opcode, VCPU_BASE + fieldOffset, value);
  }

  private load(fieldOffset: number, opcode = I32_LOAD): void {
    this.c.loadAt(opcode, VCPU_BASE + fieldOffset);
  }

  private writePure(info: OpInfo): void {
    const c = this.c;
    if (info.name.startsWith('const')) {
      c.op(0x00);
      return;
    }
    if (info.immediates > 0) return this.writeLane(info);
    const positions = [AT_A, AT_B, AT_C];
    this.field(AT_D);
    if (info.name.startsWith('select')) {
      this.operand(AT_B, info.result);
      this.operand(AT_C, info.result);
      this.operand(AT_A, I32);
      if (info.result <= I64) c.op(0x1b);
      else c.raw([0x1c, 1, [0x7f, 0x7e, 0x7d, 0x7c, 0x7b][info.result]!]);
    } else {
      info.operands.forEach((type, k) => this.operand(positions[k]!, type));
      const expansion = EXPANSIONS[info.index];
      if (expansion) expansion(c, this.scratch);
      else c.raw(info.wasm!);
    }
    this.result(info.result);
    this.advance(info.operands.length === 3 ? 2 : 1);
  }

  /** Lanes are reached through memory: the encoder has added the lane's offset to a, or put it in aux. */
  private writeLane(info: OpInfo): void {
    const c = this.c;
    if (info.name === 'vshuffle') return this.writeShuffle();
    const extract = info.operands.length === 1;
    const bits = Number(/\d+/.exec(info.name)![0]);
    if (extract) {
      const signed = info.name.endsWith('s');
      this.field(AT_D);
      this.field(AT_A);
      const narrow = bits === 8 ? (signed ? 0x2c : 0x2d) : signed ? 0x2e : 0x2f;
      c.memory(bits < 32 ? narrow : LOAD_OP[info.result]!, 0);
      this.result(info.result);
    } else {
      this.field(AT_D);
      this.operand(AT_A, V128);
      c.memory(STORE_OP[V128]!, 0);
      this.field(AT_D);
      this.immediate(AT_AUX, I32_LOAD16_U);
      if (c.addressType === I64) c.op(I64_EXTEND_U);
      c.addAddress();
      this.operand(AT_B, info.operands[1]!);
      c.memory(bits === 8 ? 0x3a : bits === 16 ? 0x3b : STORE_OP[info.operands[1]!]!, 0);
    }
    this.advance(1);
  }

  /** swizzle(a, i) | swizzle(b, i - 16): lanes out of range give 0. */
  private writeShuffle(): void {
    const c = this.c;
    const swizzle = OPS[Op.vswizzle]!.wasm!;
    this.field(AT_D);
    this.operand(AT_A, V128);
    this.immediate(UNIT, LOAD_OP[V128]!);
    c.raw(swizzle);
    this.operand(AT_B, V128);
    this.immediate(UNIT, LOAD_OP[V128]!);
    c.i32(16);
    c.raw(OPS[Op.splat8]!.wasm!);
    c.raw(OPS[Op.sub8x16]!.wasm!);
    c.raw(swizzle);
    c.raw(OPS[Op.orv]!.wasm!);
    this.result(V128);
    this.advance(2);
  }

  private writeMove(type: number): void {
    this.field(AT_D);
    this.operand(AT_A, type);
    this.result(type);
    this.advance(1);
  }

  private writeMemory(info: OpInfo): void {
    const c = this.c;
    const access = ACCESS[info.index]!;
    pushTlb(c);
    c.set(this.tlb);
    // The place of a load's result lies under its address.
    if (!access.store) this.field(AT_D);
    this.operand(AT_A, I64);
    this.immediate(AT_B, I64_LOAD32_S);
    c.op(I64_ADD);
    const ctx = {
      code: c,
      address: this.address,
      found: this.found,
      entry: this.entry,
      addend: this.addend,
      tlb: this.tlb,
      slow: this.slow,
      faultIf: () => this.writeFaultIf(),
      inline: true,
      stack: false,
    };
    if (access.store) emitStore(ctx, access, () => this.operand(AT_D, access.type));
    else {
      emitLoad(ctx, access);
      if (access.type === F32) c.memory(STORE_OP[F32]!, 0);
      else this.result(access.type);
    }
    this.advance(1);
  }

  private writeBulk(info: OpInfo): void {
    this.field(AT_D);
    [AT_A, AT_B, AT_C].forEach((at, k) => this.operand(at, info.operands[k]!));
    this.c.call(WASM_CALL, this.slow(info.name));
    this.result(info.result);
    this.advance(2);
  }

  /** Leaves the address of the current unit on the stack as an i32. */
  private pushIp(): void {
    const c = this.c;
    c.get(this.ip);
    if (c.addressType === I64) c.op(I32_WRAP);
    if (this.at === 0) return;
    c.i32(this.at);
    c.op(I32_ADD);
  }

  private writeFaultIf(): void {
    this.c.if(false);
    this.writeFault();
    this.c.end();
  }

  private writeFault(): void {
    this.set(CTL_FAULT_IP, () => this.pushIp());
    this.set(CTL_EXIT_REASON, () => this.c.i32(EXIT_FAULT));
    this.c.op(RETURN);
  }

  private writeStateLoad(info: OpInfo): void {
    this.field(AT_D);
    this.pushStateAddress();
    this.c.memory(info.wasm!, 0);
    this.result(info.result);
    this.advance(1);
  }

  private pushStateAddress(): void {
    const { c } = this;
    this.operand(AT_A, I32);
    if (c.addressType === I64) c.op(I64_EXTEND_U);
    this.field(AT_B);
    c.addAddress();
  }

  private writeStateStore(info: OpInfo): void {
    this.pushStateAddress();
    this.operand(AT_D, info.operands[1]!);
    this.c.memory(info.wasm!, 0);
    this.advance(1);
  }

  private writeCall(helper: Helper, opcode: number): void {
    const c = this.c;
    if (helper.result !== NONE) this.field(AT_D);
    const positions = [AT_A, AT_B, AT_C, AT_E];
    helper.params.forEach((type, k) => this.operand(positions[k]!, type));
    c.call(WASM_CALL, this.helperIndex(helper));
    if (helper.result !== NONE) this.result(helper.result);
    if (helper.mayFault) {
      this.load(CTL_FAULT);
      c.if(false);
      this.writeFault();
      c.end();
    }
    this.advance(isLong(opcode) ? 2 : 1);
  }

  private writeHeader(): void {
    this.writeEntry();
    this.advance(1);
  }

  /** What a block's header stands for. */
  private writeEntry(): void {
    const c = this.c;
    const left = this.scratch.local(I32, 6);
    const count = this.scratch.local(I32, 7);
    this.load(CTL_BUDGET);
    this.immediate(AT_AUX, I32_LOAD16_U);
    c.op(I32_SUB);
    c.tee(left);
    this.load(CTL_KICK);
    c.op(I32_OR);
    c.i32(0);
    c.op(I32_LT_S);
    c.if(false);
    this.set(CTL_EXIT_REASON, () => c.i32(EXIT_BUDGET));
    c.op(RETURN);
    c.end();
    this.setField(AT_D, () => {
      this.immediate(AT_D);
      c.i32(1);
      c.op(I32_SUB);
      c.tee(count);
    });
    c.get(count);
    c.op(I32_EQZ);
    c.if(false);
    this.set(CTL_EXIT_REASON, () => c.i32(EXIT_HOT));
    this.set(CTL_EXIT_ARG, () => this.immediate(AT_B));
    c.op(RETURN);
    c.end();
    this.set(CTL_BUDGET, () => c.get(left));
    this.set(CTL_BASE, () => this.load(CTL_PC, I64_LOAD), I64_STORE);
  }

  /** Stores the context in field `at` when the unit says that it is known. */
  private writeContext(at: number): void {
    const c = this.c;
    this.immediate(AT_AUX, I32_LOAD16_U);
    c.if();
    this.set(CTL_CTX, () => this.immediate(at));
    c.end();
  }

  private writePc(at: number): void {
    this.set(
      CTL_PC,
      () => {
        this.load(CTL_BASE, I64_LOAD);
        this.immediate(at, I64_LOAD32_S);
        this.c.op(I64_ADD);
      },
      I64_STORE,
    );
  }

  /** A cell field of 0 stands for a target that is found through the jump cache. */
  private goThrough(cellField: number, depth: number): void {
    this.field(cellField);
    this.c.tee(this.cell);
    this.c.op(this.c.addressType === I32 ? I32_EQZ : I64_EQZ);
    this.c.br(BR_IF, this.toLookup + depth);
    this.c.br(BR, this.toChain + depth);
  }

  private writeGoto(): void {
    this.writeContext(AT_B);
    this.writePc(AT_A);
    const c = this.c;
    this.field(AT_D);
    c.tee(this.cell);
    c.op(c.addressType === I32 ? I32_EQZ : I64_EQZ);
    c.if();
    this.writeLink();
    c.end();
    c.br(BR, this.toChain);
  }

  /** Finds the target on another page by the link in the second unit, or by the jump cache, and then notes it there. */
  private writeLink(): void {
    const c = this.c;
    this.immediate(UNIT + LINK_MAPPING);
    this.load(CTL_MAPPING);
    c.op(I32_EQ);
    c.if();
    this.field(UNIT + LINK_CELL);
    c.set(this.cell);
    c.op(ELSE);
    this.writeProbe();
    this.setField(UNIT + LINK_CELL, () => {
      c.get(this.cell);
      if (c.addressType === I64) c.op(I32_WRAP);
    });
    this.setField(UNIT + LINK_MAPPING, () => this.load(CTL_MAPPING));
    c.end();
  }

  private writeCondGoto(): void {
    this.writeContext(AT_C + 8);
    this.operand(AT_A, I32);
    this.writeBranch();
  }

  private writeCompareAndBranch(compare: OpInfo): void {
    this.writeContext(AT_C + 8);
    this.operand(AT_A, compare.operands[0]!);
    if (compare.operands.length > 1) this.operand(AT_C + 12, compare.operands[1]!);
    this.c.raw(compare.wasm!);
    this.writeBranch();
  }

  /** Goes one of two ways by the condition on the stack. */
  private writeBranch(): void {
    const c = this.c;
    c.if();
    this.writePc(AT_C);
    this.goThrough(AT_D, 1);
    c.end();
    this.writePc(AT_E);
    this.goThrough(AT_B, 0);
  }

  private writeJump(): void {
    this.writeContext(AT_B);
    this.set(CTL_PC, () => this.operand(AT_A, I64), I64_STORE);
    this.recordTarget();
    this.c.br(BR, this.toLookup);
  }

  private recordTarget(): void {
    const c = this.c;
    const target = this.scratch.local(I32, 6);
    this.operand(AT_A, I64);
    this.load(CTL_BASE, I64_LOAD);
    c.op(I64_SUB);
    c.op(I32_WRAP);
    c.set(target);
    c.get(this.ip);
    c.get(target);
    c.get(target);
    c.i32(4);
    c.op(I32_SHR_U);
    c.op(I32_XOR);
    c.i32(JUMP_TARGETS - 1);
    c.op(I32_AND);
    c.i32(2);
    c.op(I32_SHL);
    if (c.addressType === I64) c.op(I64_EXTEND_U);
    c.addAddress();
    c.get(target);
    c.memory(I32_STORE, this.at + UNIT);
  }

  private writeLeave(): void {
    this.writeContext(AT_B);
    this.writePc(AT_A);
    this.set(CTL_EXIT_REASON, () => this.immediate(AT_D));
    this.set(CTL_EXIT_ARG, () => this.immediate(UNIT));
    this.c.op(RETURN);
  }

  private writeSideExit(): void {
    const c = this.c;
    this.operand(AT_A, I32);
    c.if(false);
    this.set(CTL_FAULT_IP, () => this.pushIp());
    this.set(CTL_EXIT_REASON, () => this.immediate(AT_D));
    this.set(CTL_EXIT_ARG, () => this.immediate(AT_B));
    c.op(RETURN);
    c.end();
    this.advance(1);
  }

  /** Sets `cell` to what the jump cache has for the pc, or leaves by `find`. */
  private writeProbe(): void {
    emitJumpCacheProbe(this.c, this.entry, () => {
      this.c.i32(0);
      this.c.call(RETURN_CALL, this.find);
    });
    this.c.set(this.cell);
  }

  private writeChain(): void {
    const c = this.c;
    c.get(this.cell);
    c.memory(I32_LOAD, CELL_FUNCTION);
    c.i32(FN_INTERPRETER);
    c.op(I32_EQ);
    c.if();
    c.get(this.cell);
    c.loadAddress32(CELL_ARGUMENT);
    c.set(this.ip);
    // Every block begins with a header: no need to look.
    this.toNext = 1;
    this.writeHeader();
    c.end();
    c.get(this.cell);
    c.memory(I32_LOAD, CELL_ARGUMENT);
    c.get(this.cell);
    c.memory(I32_LOAD, CELL_FUNCTION);
    c.indirect(RETURN_CALL_INDIRECT, this.module.type([I32], []));
  }
}

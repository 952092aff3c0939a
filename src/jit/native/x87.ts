/**
 * A guest's x87 instructions by the host's own x87 unit. From the first one of a block to the last, as far as nothing else looks at
 * the registers (a "stretch", x87-scan.ts), the host's stack is the guest's: what the block needs of it is loaded at the
 * beginning, each instruction is the same instruction, and what has changed is stored at the end. Results, exceptions and C1 are the
 * host's, and so exact. An exit in between has the registers stored by a function that all exits share.
 *
 * Loaded registers are named by positions: 0 is what was st(0) at the beginning, what has been pushed since is below 0. TOP and tags
 * in the vCPU's block are those of the beginning until the end.
 */
import { CTL_HOST_CONTROL, CTL_HOST_STATUS, CTL_OPERANDS } from '../../ir/vcpu-block.ts';
import * as f from '../../isa/float-stack.ts';
import type { FloatOperation, FloatStack } from '../../isa/float-stack.ts';
import type { Helper } from '../../ir/helpers.ts';
import { ACCESS } from '../access.ts';
import { AT_A, AT_B, AT_C, AT_D, X_CALL } from '../opcodes.ts';
import * as k from './units.ts';
import type { Accesses } from './accesses.ts';
import { MEMORY, field } from './writer.ts';
import type { BlockWriter } from './writer.ts';
import { X87Scan } from './x87-scan.ts';
import type { X87Stretch } from './x87-scan.ts';
import { EXCEPTIONS, X87Shared, at } from './x87-shared.ts';
import * as t from './x87-tracker.ts';
import { ADD, AND, CC_E, CC_G, CC_NE, CMP, OR, R14, RAX, RCX, RDX, ROR, SHL, SUB, XOR } from './x64.ts';
import type { X64 } from './x64.ts';

const SUMMARY = 0x80;
const C1 = 0x200;
/** C0, C2 and C3: comparisons set them. */
const CODES = 0x4500;

/** What it costs a block that its stretch is not for the registers as they are: after so many times it is left to a region. */
const MISSES = 2048;
/** Executions of a block with stretches that are left: never so few that a region takes it in. */
export const X87_COUNT = MISSES << 19;

const PUSH = -1;
const EXTENDED_BYTES = 10;

export class X87 {
  private readonly w: BlockWriter;
  private readonly x: X64;
  private readonly accesses: Accesses;
  private readonly stack: FloatStack;
  private readonly tracker: t.X87Tracker;
  private readonly scan: X87Scan;
  /** Header of the block. */
  private header = 0;
  private stretch: X87Stretch | null = null;
  /** Position of st(0): the guest's, and the host's, which is ahead while an instruction pops. */
  private depth = 0;
  private hostDepth = 0;
  /** How far TOP had moved in the block before the stretch. */
  private base = 0;
  /** By `at`: the host's register is newer than the guest's. */
  private dirty = 0;
  /** A load that waits for the operation that takes its operand from the guest's memory then; 0 = none. */
  private load = 0;
  /** An operation that waits for the store that has its result; 0 = none. */
  private result = 0;
  /** The last operation waited: its store does all of it. */
  private waits = false;
  /** What an exit does first that goes on with the one that waits. */
  private waitingExit: (() => void) | null = null;
  /** An instruction that sets C1 has been executed; one that sets the other codes has. */
  private began = false;
  private compared = false;
  readonly shared: X87Shared;

  constructor(writer: BlockWriter, accesses: Accesses, stack: FloatStack, helpers: readonly Helper[]) {
    this.w = writer;
    this.accesses = accesses;
    this.x = writer.x;
    this.stack = stack;
    this.shared = new X87Shared(writer.x, stack);
    const tracker = (): t.X87Tracker => new t.X87Tracker(stack, writer.words, helpers);
    this.tracker = tracker();
    this.scan = new X87Scan(
      tracker(),
      (ip) => writer.opcode(ip),
      (op, ip) => writer.after(op, ip),
    );
  }

  /** Begins a block. @param ip its header's address */
  begin(ip: number): void {
    this.header = ip;
    this.stretch = null;
    this.load = this.result = 0;
    this.tracker.begin();
    this.w.beforeExit = null;
  }

  /** Is a call an operation for the host's unit? */
  isOperation(op: number): boolean {
    return this.stack.operations.has(op - X_CALL);
  }

  /**
   * To be shown each operation before it is written. Stretches begin and end here.
   * @param units that may still be written
   * @returns whether nothing else is to be done for it
   */
  take(op: number, units: number): boolean {
    const { w, tracker } = this;
    if (this.stretch?.end === w.ip) this.end();
    if (!this.stretch) {
      const stretch = this.mayBegin(op) ? this.scan.run(tracker, w.ip, units) : null;
      if (stretch) this.start(stretch);
    }
    const what = tracker.step(op, w.ip);
    if (!this.stretch) {
      // It is computed like any other.
      if (what === t.SILENT) tracker.real.add(w.word(AT_D));
      return false;
    }
    if (what === t.ORDINARY) return this.join(op);
    if (what === t.END) return false;
    w.consume(op);
    if (what === t.OPERATION) this.operate(tracker.operation!);
    else this.depth += tracker.moves;
    w.releaseDead();
    return true;
  }

  /** An operation that is not about the registers. @returns whether nothing else is to be done for it */
  private join(op: number): boolean {
    const { w } = this;
    const stretch = this.stretch!;
    if (this.waits && stretch.parts.has(w.ip)) {
      w.consume(op);
      w.releaseDead();
      return true;
    }
    if (this.result !== 0 && stretch.stores.get(this.result) === w.ip) {
      w.consume(op);
      this.storeResult(op);
      w.releaseDead();
      return true;
    }
    if (!stretch.loads.has(w.ip) || w.usesOf(w.word(AT_D)) !== 1) return false;
    this.load = w.ip;
    this.waitingExit = this.exit();
    return true;
  }

  private mayBegin(op: number): boolean {
    const { w, stack } = this;
    if (op >= X_CALL) return this.isOperation(op);
    return k.KIND[op] === k.STATE_LOAD && w.word(AT_B) === field(stack.top);
  }

  // The beginning and the end.

  private start(stretch: X87Stretch): void {
    const { x, w, stack } = this;
    const { full, empty } = stretch;
    w.allocate(0);
    x.load(false, RCX, field(stack.control));
    x.rm(CMP, false, RCX, field(CTL_HOST_CONTROL));
    const same = x.jcc(CC_E);
    x.callTo(this.shared.setControl);
    this.missAt(x.jcc(CC_NE));
    x.land(same);
    x.load(false, RCX, field(stack.status));
    x.testBits(RCX, SUMMARY);
    this.missAt(x.jcc(CC_NE));
    x.not(RCX);
    x.rm(0x85, false, RCX, field(CTL_HOST_STATUS)); // TEST
    const clear = x.jcc(CC_E);
    x.callTo(this.shared.clearStatus);
    x.land(clear);
    this.checkTags(full, empty);
    for (let position = full - 1; position >= 0; position--) {
      this.register(position);
      x.rx(0xdb, false, 5, RCX, field(stack.registers));
    }
    w.locked = 0;
    this.stretch = stretch;
    this.base = this.tracker.moved;
    this.depth = this.hostDepth = 0;
    this.dirty = 0;
    this.began = this.compared = false;
    w.beforeExit = () => this.exit();
  }

  /** Leaves where tags are not as they must be. */
  private checkTags(full: number, empty: number): void {
    const { x, stack } = this;
    x.load(false, RCX, field(stack.top));
    x.shift(SHL, false, RCX, 3);
    x.load(true, RAX, field(stack.tags));
    x.shiftBy(ROR, true, RAX);
    // Byte n is the tag of st(n).
    const mask = [0, 0];
    const wanted = [0, 0];
    for (let position = -empty; position < full; position++) {
      const place = position & 7;
      mask[place >> 2]! |= 0xff << (8 * (place & 3));
      if (position < 0) wanted[place >> 2]! |= 1 << (8 * (place & 3));
    }
    x.constant(RCX, wanted[0]!, wanted[1]!);
    x.rr(XOR, true, RAX, RCX);
    x.constant(RCX, mask[0]!, mask[1]!);
    x.rr(0x85, true, RAX, RCX);
    this.missAt(x.jcc(CC_NE));
  }

  /** The jump leads to the interpreter; one that is taken often is an error of the block's, see MISSES. */
  private missAt(jump: number): void {
    const { x, w, header } = this;
    w.beforeExit = () => () => {
      x.mi(SUB, false, header + 4, X87_COUNT / MISSES);
      const some = x.jcc(CC_G);
      x.storeImmediate(false, header + 4, 1);
      x.land(some);
    };
    w.leaveAt(jump);
    w.beforeExit = null;
  }

  /** Leaves the byte offset of a position's register among the guest's in a register. Flags are lost. */
  private register(position: number, reg = RCX): void {
    this.number(position, reg);
    this.x.shift(SHL, false, reg, 4);
  }

  private number(position: number, reg = RCX): void {
    const { x } = this;
    x.load(false, reg, field(this.stack.top));
    if (position !== 0) x.ri(ADD, false, reg, position);
    x.ri(AND, false, reg, 7);
  }

  /** Everything where the interpreter has it. */
  private end(): void {
    const { x, w, stack, depth } = this;
    const { full } = this.stretch!;
    w.allocate(0);
    x.x87(0xdf, 0xe0); // FNSTSW AX
    x.load(false, RCX, field(stack.status));
    x.ri(AND, false, RCX, ~this.statusMask | EXCEPTIONS);
    x.ri(AND, false, RAX, this.statusMask);
    x.rm(0x88, false, RAX, field(CTL_HOST_STATUS));
    x.rr(OR, false, RCX, RAX);
    x.store(false, field(stack.status), RCX);
    for (let position = depth; position < full; position++) this.storeRegister(position);
    for (let position = 0; position < depth; position++) this.storeTag(position, 1);
    if (depth !== 0) {
      this.number(depth);
      x.store(false, field(stack.top), RCX);
    }
    this.stretch = null;
    w.beforeExit = null;
    this.defineNames(this.base + depth);
    w.locked = 0;
  }

  /** Bits of the status word that are the host's. */
  private get statusMask(): number {
    return EXCEPTIONS | (this.began ? C1 : 0) | (this.compared ? CODES : 0);
  }

  /** Takes a register from the host's stack. */
  private storeRegister(position: number): void {
    const { x, stack } = this;
    if (position < 0) this.storeTag(position, 0);
    if (!((this.dirty >> at(position)) & 1)) {
      x.x87(0xdd, 0xd8); // FSTP ST(0)
      return;
    }
    this.register(position);
    x.rx(0xdb, false, 7, RCX, field(stack.registers));
    this.shared.clearMark();
  }

  private storeTag(position: number, tag: number): void {
    const { x, stack } = this;
    this.number(position);
    x.rx(0xc6, false, 0, RCX, field(stack.tags));
    x.byte(tag);
    if (tag === 0) return;
    x.shift(SHL, false, RCX, 4);
    this.shared.clearMark();
  }

  /** Names of registers that nobody has computed and somebody will still want: slot and kind. */
  private names(): (readonly [slot: number, kind: number])[] {
    const { w, tracker } = this;
    return [...tracker.kinds].filter(
      ([slot, kind]) => !tracker.real.has(slot) && w.usesOf(slot) > 0 && kind >> 3 >= t.NUMBER && kind >> 3 <= t.ERROR,
    );
  }

  /** Computes them. @param moved how far TOP in memory has moved in the block */
  private defineNames(moved: number): void {
    for (const [slot, kind] of this.names()) {
      this.defineName(slot, kind, moved);
      this.tracker.real.add(slot);
    }
  }

  private defineName(slot: number, kind: number, moved: number): void {
    const { x, stack } = this;
    switch (kind >> 3) {
      case t.ZERO:
        return x.storeImmediate(true, slot, 0);
      case t.STATUS:
      case t.ERROR:
        x.load(false, RCX, field(stack.status));
        break;
      default:
        this.number((kind & 7) - moved);
        if (kind >> 3 === t.SLOT) x.shift(SHL, false, RCX, 4);
    }
    x.store(true, slot, RCX);
  }

  // Exits.

  /** What an exit from here does first: the stack is stored, and names that the interpreter will want. */
  private exit(): () => void {
    const { x, depth, hostDepth, base } = this;
    const { full, empty } = this.stretch!;
    let tags = 0;
    for (let position = -empty; position < full; position++) tags |= 1 << (at(position) + (position < depth ? 16 : 0));
    const written = this.dirty;
    const mask = this.statusMask;
    const names = this.names();
    return () => {
      x.constant(RAX, written | ((hostDepth & 7) << 16) | ((depth & 7) << 24), 0);
      x.constant(R14, tags, 0);
      x.constant(RDX, mask, 0);
      x.callTo(this.shared.storeAll);
      for (const [slot, kind] of names) this.defineName(slot, kind, base + depth);
    };
  }

  // Instructions.

  private touch(register: number): void {
    this.dirty |= 1 << at(this.depth + register);
  }

  /** Where a value of 64 bits or less is in memory: its slot, or a copy. */
  private inMemory(slot: number): number {
    const { w, x } = this;
    if (w.where(slot) >= MEMORY) return slot;
    w.moveTo(RCX, slot, true);
    x.store(true, field(CTL_OPERANDS), RCX);
    return field(CTL_OPERANDS);
  }

  /** Keeps what the instruction of an operation is about to pop. @param reg may be overwritten */
  private keep(ip: number, reg: number): void {
    const { x, stack } = this;
    const stretch = this.stretch!;
    for (const position of stretch.kept.get(ip) ?? []) {
      if (!((this.dirty >> at(position)) & 1)) continue;
      this.dirty &= ~(1 << at(position));
      this.register(position, reg);
      const place = position - this.depth;
      const hasRoom = stretch.full - this.depth < 8;
      if (hasRoom)
        this.x.x87(0xd9, 0xc0 | place); // FLD ST(i)
      else if (place > 0) this.x.x87(0xd9, 0xc8 | place); // FXCH
      x.rx(0xdb, false, 7, reg, field(stack.registers));
      if (!hasRoom) x.rx(0xdb, false, 5, reg, field(stack.registers));
      if (!hasRoom && place > 0) this.x.x87(0xd9, 0xc8 | place);
      this.shared.clearMark(reg);
    }
  }

  private operate(operation: FloatOperation): void {
    const { w } = this;
    const { pops: all, stores } = this.stretch!;
    this.waits = stores.has(w.ip) && w.usesOf(w.word(AT_D)) === 1;
    if (this.waits) {
      this.result = w.ip;
      this.waitingExit = this.exit();
      return;
    }
    const pops = all.get(w.ip) ?? 0;
    if (pops > 0) this.keep(w.ip, RCX);
    // That leaves C1 as it is.
    if (operation.kind !== f.MOVE_IF) this.began = true;
    this.write(operation, pops);
    this.hostDepth = this.depth + pops;
    if (operation.kind === f.LOAD || operation.kind === f.LOAD_EXTENDED || operation.kind === f.LOAD_REGISTER) {
      this.hostDepth = this.depth + PUSH;
      this.touch(PUSH);
    }
  }

  /** A store that an operation has waited for: nothing has happened yet if it must leave. */
  private storeResult(op: number): void {
    const { x, w, tracker } = this;
    const reg = w.allocate();
    this.locate(op, this.result, tracker.operation!.kind === f.STORE_EXTENDED ? EXTENDED_BYTES : 0);
    const store = w.ip;
    w.ip = this.result;
    const pops = this.stretch!.pops.get(w.ip) ?? 0;
    if (pops > 0) this.keep(w.ip, reg);
    const [opcode, code] = this.storing(tracker.operation!, pops);
    w.ip = store;
    x.rx(opcode, false, code, RCX, 0);
    this.began = true;
    this.hostDepth = this.depth + pops;
    this.result = 0;
  }

  /** Leaves the address of an access in rcx, or leaves. @param goOnAt operation that an exit goes on with  @param bytes if it has others */
  private locate(op: number, goOnAt: number, bytes = 0): void {
    const { w, waitingExit } = this;
    const { beforeExit } = w;
    w.goOnAt = goOnAt;
    w.beforeExit = () => waitingExit;
    this.accesses.address(bytes === 0 ? ACCESS[op]! : { ...ACCESS[op]!, bytes });
    w.beforeExit = beforeExit;
    w.goOnAt = 0;
  }

  /** An instruction with an operand in memory: the guest's, or a temporary. */
  private withMemory(opcode: number, code: number, place: number): void {
    const { x, w } = this;
    if (this.load === 0) return x.rm(opcode, false, code, this.inMemory(w.word(place)));
    const { ip } = w;
    w.ip = this.load;
    this.load = 0;
    const op = w.opcode(w.ip);
    this.locate(op, w.ip);
    w.consume(op);
    w.ip = ip;
    x.rx(opcode, false, code, RCX, 0);
  }

  private write({ kind, opcode, code }: FloatOperation, pops: number): void {
    const { w, tracker } = this;
    const register = (place: number): number => tracker.registerAt(w.ip, place);
    switch (kind) {
      case f.ARITHMETIC:
        return this.arithmetic(code, register(AT_A), register(AT_B), pops);
      case f.ARITHMETIC_MEMORY:
        this.withMemory(opcode, code, AT_A);
        return this.touch(0);
      case f.COMPARE:
        return this.compare(register(AT_B), this.constant(AT_C) !== 0, pops);
      case f.COMPARE_MEMORY:
        this.compared = true;
        return this.withMemory(opcode, code + pops, AT_A);
      case f.COMPARE_FLAGS:
        return this.compareFlags(register(AT_B), this.constant(AT_C) !== 0, pops);
      case f.LOAD:
        return this.withMemory(opcode, code, AT_B);
      case f.LOAD_EXTENDED:
        return this.loadExtended();
      case f.LOAD_REGISTER:
        return this.x.x87(opcode, 0xc0 | register(AT_B));
      case f.STORE:
      case f.STORE_INTEGER:
        return this.store(...this.storing({ kind, opcode, code }, pops));
      case f.STORE_EXTENDED:
        return this.storeExtended();
      case f.STORE_REGISTER:
        this.x.x87(opcode, (pops > 0 ? 0xd8 : 0xd0) | register(AT_B));
        if (register(AT_B) > 0) this.touch(register(AT_B));
        return;
      case f.EXCHANGE:
        this.x.x87(opcode, 0xc8 | register(AT_B));
        this.touch(register(AT_B));
        return this.touch(0);
      case f.SIGN:
        this.x.x87(opcode, this.constant(AT_C) !== 0 ? 0xe0 : 0xe1); // FCHS, FABS
        return this.touch(0);
      case f.UNARY:
        this.x.x87(opcode, code);
        return this.touch(0);
      default:
        w.testZero(w.word(AT_A), false);
        this.x.x87(opcode, 0xc8 | register(AT_B)); // FCMOVNE
        this.touch(0);
    }
  }

  private constant(place: number): number {
    const { w } = this;
    w.where(w.word(place));
    return w.low;
  }

  private arithmetic(code: number, d: number, s: number, pops: number): void {
    if (d === 0 && pops === 0) this.x.x87(0xd8, 0xc0 | (code << 3) | s);
    // Where st(i) is the destination, the encodings of reversed and plain are exchanged.
    else this.x.x87(pops > 0 ? 0xde : 0xdc, 0xc0 | ((code < 4 ? code : code ^ 1) << 3) | d);
    this.touch(d);
  }

  private compare(s: number, quiet: boolean, pops: number): void {
    this.compared = true;
    if (pops === 2) return this.x.x87(quiet ? 0xda : 0xde, quiet ? 0xe9 : 0xd9);
    this.x.x87(quiet ? 0xdd : 0xd8, (quiet ? 0xe0 : 0xd0) | (pops << 3) | s);
  }

  private compareFlags(s: number, quiet: boolean, pops: number): void {
    const { x, w } = this;
    w.allocate(0);
    this.x.x87(pops > 0 ? 0xdf : 0xdb, (quiet ? 0xe8 : 0xf0) | s);
    x.byte(0x9f); // LAHF
    x.rr(0x1b6, false, RCX, 4); // AH
    x.ri(AND, false, RCX, 0x45);
    w.defineFrom(w.word(AT_D), RCX);
  }

  private loadExtended(): void {
    const { x, w } = this;
    w.moveTo(RCX, w.word(AT_B), true);
    x.store(true, field(CTL_OPERANDS), RCX);
    w.moveTo(RCX, w.word(AT_C), false);
    x.store(false, field(CTL_OPERANDS) + 8, RCX);
    x.rm(0xdb, false, 5, field(CTL_OPERANDS));
  }

  /** Opcode and extension of the instruction that stores. */
  private storing({ kind, opcode, code }: FloatOperation, pops: number): [opcode: number, code: number] {
    if (kind === f.STORE) return [opcode, code + pops];
    if (kind === f.STORE_EXTENDED) return [opcode, code];
    const bits = this.constant(AT_A);
    const chop = this.constant(AT_B) !== 0;
    const first = bits === 16 ? 0xdf : bits === 32 ? 0xdb : chop ? 0xdd : 0xdf;
    return [first, chop ? 1 : bits === 64 ? 7 : 2 + pops];
  }

  /** A store whose value is wanted otherwise than by a store. */
  private store(opcode: number, code: number): void {
    const { x, w } = this;
    x.storeImmediate(true, w.word(AT_D), 0);
    x.rm(opcode, false, code, w.word(AT_D));
  }

  private storeExtended(): void {
    const { x, w, stack } = this;
    x.rm(0xdb, false, 7, field(CTL_OPERANDS));
    x.load(true, RCX, field(CTL_OPERANDS));
    x.store(true, w.word(AT_D), RCX);
    x.rm(0x1b7, false, RCX, field(CTL_OPERANDS) + 8);
    x.store(false, field(stack.highPart), RCX);
  }
}

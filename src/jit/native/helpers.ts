/** Helpers made of IR, as functions that code of blocks calls: one for each arm, found by the selector. */
import type { Helper, IrSwitch } from '../../ir/helpers.ts';
import { Builder, CTX_UNKNOWN } from '../../ir/builder.ts';
import type { Global } from '../../ir/builder.ts';
import { I32, I64 } from '../../ir/ops.ts';
import { CTL_OPERANDS, VCPU_BLOCK_SIZE } from '../../ir/vcpu-block.ts';
import { Encoder } from '../encode.ts';
import { SCRATCH_CODE, SCRATCH_SIZE } from '../layout.ts';
import { AT_A, AT_B, AT_C, AT_D, AT_E, UNIT, X_CALL } from '../opcodes.ts';
import * as k from './units.ts';
import { CONSTANT, field } from './writer.ts';
import type { BlockWriter } from './writer.ts';
import { CC_AE, CMP, RAX, RCX } from './x64.ts';

const OPERANDS = [AT_A, AT_B, AT_C, AT_E];
/** Bytes of temporaries for arms, at the end of those that there are: a block's own begin at the other end. */
const ARM_TEMPS = 8192;

const isInteger = (type: number): boolean => type === I32 || type === I64;

/** Code of a helper: host addresses of its arms, and of the table that has them. */
interface Arms {
  readonly addresses: readonly number[];
  readonly table: number;
}

export class Helpers {
  private readonly w: BlockWriter;
  private readonly helpers: readonly Helper[];
  private readonly origin: number;
  private readonly writeOperation: (op: number) => boolean;
  /** By number; null: it cannot be done. */
  private readonly known = new Map<number, Arms | null>();

  /** @param writeOperation writes an operation that ends no block, if it can */
  constructor(writer: BlockWriter, helpers: readonly Helper[], origin: number, writeOperation: (op: number) => boolean) {
    this.w = writer;
    this.helpers = helpers;
    this.origin = origin;
    this.writeOperation = writeOperation;
  }

  clear(): void {
    this.known.clear();
  }

  /** Must `prepare` be called before this call can be written? */
  isNew(op: number): boolean {
    return !this.known.has(op - X_CALL);
  }

  /** Regions have many of these helpers in place of the call. */
  isSlow(op: number): boolean {
    return this.helpers[op - X_CALL]!.body.kind === 'wasm';
  }

  /** Makes a helper's code. No block may be being written. */
  prepare(op: number): void {
    const helper = this.helpers[op - X_CALL]!;
    this.known.set(op - X_CALL, this.make(helper));
  }

  private make({ body, params, result }: Helper): Arms | null {
    if (body.kind !== 'ir' || !isInteger(result) || !params.every(isInteger)) return null;
    const { x } = this.w;
    const start = x.at;
    const globals = params.slice(1).map((type, index) => ({ name: `p${index}`, index, type, offset: CTL_OPERANDS + 8 * index }));
    const builder = new Builder(globals);
    const encoder = new Encoder(this.w.words, globals, [], VCPU_BLOCK_SIZE - ARM_TEMPS);
    const addresses: number[] = [];
    for (let arm = 0; arm < body.ir.arms; arm++) {
      addresses.push(this.origin + x.at);
      if (this.writeArm(body.ir, arm, builder, encoder, globals, result)) continue;
      x.at = start;
      return null;
    }
    x.at = (x.at + 7) & ~7;
    const table = this.origin + x.at;
    for (const address of addresses) {
      x.i32(address);
      x.i32(0);
    }
    return { addresses, table };
  }

  private writeArm(ir: IrSwitch, arm: number, b: Builder, encoder: Encoder, globals: readonly Global[], result: number): boolean {
    const { w } = this;
    b.reset(CTX_UNKNOWN);
    const value = ir.arm(
      b,
      arm,
      globals.map((global) => b.get(global)),
    );
    b.jump(result === I32 ? b.extu(value) : value);
    const { ip } = encoder.encode(b, SCRATCH_CODE, SCRATCH_CODE + SCRATCH_SIZE, 0, 0, () => 0);
    w.begin(ip + UNIT);
    for (;;) {
      const op = w.opcode(w.ip);
      if (op >= X_CALL || k.KIND[op]! >= k.FIRST_VECTOR) break;
      w.consume(op);
      if (!this.writeOperation(op)) break;
      w.releaseDead();
      w.ip = w.after(op, w.ip);
    }
    if (k.KIND[w.opcode(w.ip)] !== k.JUMP || w.hasExits) return false;
    w.moveTo(RAX, w.word(AT_A), true);
    w.x.ret();
    return true;
  }

  /** Writes a helper's call. @returns whether it could */
  call(op: number): boolean {
    const { w } = this;
    const arms = this.known.get(op - X_CALL);
    if (!arms) return false;
    const { x } = w;
    const { params } = this.helpers[op - X_CALL]!;
    w.consume(op);
    for (let i = 1; i < params.length; i++) {
      const slot = w.word(OPERANDS[i]!);
      w.moveTo(RCX, slot, true);
      x.store(true, field(CTL_OPERANDS + 8 * (i - 1)), RCX);
    }
    const selector = w.word(AT_A);
    const known = w.where(selector) === CONSTANT ? arms.addresses[w.low] : undefined;
    if (known === undefined) {
      w.moveTo(RCX, selector, false);
      x.ri(CMP, false, RCX, arms.addresses.length);
      w.leaveAt(x.jcc(CC_AE));
    }
    w.flush();
    if (known === undefined) x.callTable(RCX, arms.table);
    else x.callTo(known - this.origin);
    w.allocate(0);
    w.defineFrom(w.word(AT_D), RAX);
    w.releaseDead();
    return true;
  }
}

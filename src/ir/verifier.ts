/**
 * Checks the rules of a block on which precise exceptions and the back ends rest:
 * operands are defined before they are used and have the right types, instructions
 * begin with markers, nothing is written to a register before the instruction's last
 * operation that may fault, and there is exactly one exit, at the end.
 */
import { STRIDE } from './builder.ts';
import { CALL, EXIT, MEMORY, NONE, OPS, Op, SIDE_EXIT, TYPE_NAMES } from './ops.ts';
import type { OpInfo } from './ops.ts';
import { printRecord } from './printer.ts';
import type { Block, Names } from './printer.ts';

const SET_TYPE = new Map<number, number>([
  [Op.setg32, 0],
  [Op.setg64, 1],
  [Op.setgf64, 3],
  [Op.setgv, 4],
  [Op.getg32, 0],
  [Op.getg64, 1],
  [Op.getgf64, 3],
  [Op.getgv, 4],
]);

class Verifier {
  private readonly block: Block;
  private readonly names: Names;
  readonly problems: string[] = [];
  /** Record of this instruction's first register write, -1 = none so far. */
  private written = -1;

  constructor(block: Block, names: Names) {
    this.block = block;
    this.names = names;
  }

  private complain(i: number, what: string): void {
    this.problems.push(`${what}: ${i}: ${printRecord(this.block, i, this.names).trim()}`);
  }

  private operand(i: number, which: number, type: number): void {
    const used = this.block.words[i * STRIDE + which]!;
    if (used < 0 || used >= i) return this.complain(i, `operand ${which} is not defined before`);
    const found = OPS[this.block.words[used * STRIDE]!]!.result;
    if (found !== type) {
      this.complain(i, `operand ${which} is ${TYPE_NAMES[found]!} instead of ${TYPE_NAMES[type]!}`);
    }
  }

  private call(i: number, op: OpInfo): void {
    const at = i * STRIDE;
    const helper = this.names.helpers[this.block.words[at + 1]!];
    if (!helper) return this.complain(i, 'no such helper');
    if (helper.result !== op.result) this.complain(i, 'the helper gives another type');
    helper.params.forEach((type, k) => this.operand(i, k + 2, type));
    for (let k = helper.params.length; k < 4; k++) {
      if (this.block.words[at + 2 + k]! >= 0) this.complain(i, 'more operands than the helper takes');
    }
    if (helper.mayFault) this.mayFault(i);
  }

  private mayFault(i: number): void {
    if (this.written >= 0) this.complain(i, `may fault after record ${this.written} wrote a register`);
  }

  private global(i: number, op: OpInfo): void {
    const type = SET_TYPE.get(op.index);
    if (type === undefined) return;
    const isSet = op.result === NONE;
    const global = this.names.globals[this.block.words[i * STRIDE + (isSet ? 2 : 1)]!];
    if (global?.type !== type) this.complain(i, 'no such global of this type');
    if (isSet && this.written < 0) this.written = i;
  }

  private record(i: number): void {
    const op = OPS[this.block.words[i * STRIDE]!];
    if (!op) {
      this.problems.push(`no such operation: ${i}`);
      return;
    }
    if (op.index === Op.insn) this.written = -1;
    else if (i === 0) this.complain(i, 'the block does not begin with an instruction');
    if (op.kind === CALL) this.call(i, op);
    else op.operands.forEach((type, k) => this.operand(i, k + 1, type));
    this.global(i, op);
    if (op.kind === MEMORY || op.kind === SIDE_EXIT) this.mayFault(i);
    const last = i === this.block.count - 1;
    if ((op.kind === EXIT) !== last) this.complain(i, last ? 'the block has no exit' : 'exit before the end');
  }

  run(): void {
    if (this.block.count === 0) this.problems.push('the block is empty');
    for (let i = 0; i < this.block.count; i++) this.record(i);
  }
}

/** @returns what is wrong with the block, a line each */
export function verify(block: Block, names: Names): string[] {
  const verifier = new Verifier(block, names);
  verifier.run();
  return verifier.problems;
}

/** IR as text, one record a line, for traces and tests. */
import { STRIDE } from './builder.ts';
import type { Global } from './builder.ts';
import type { Helper } from './helpers.ts';
import { CALL, NONE, OPS, Op } from './ops.ts';
import type { OpInfo } from './ops.ts';

/** What the printer needs to know of a block; a `Builder` is one. */
export interface Block {
  readonly words: Int32Array;
  readonly count: number;
}

export interface Names {
  readonly globals: readonly Global[];
  readonly helpers: readonly Helper[];
}

const value = (n: number): string => `v${n}`;

function constant64(low: number, high: number): string {
  const bits = (BigInt(high) << 32n) | BigInt(low >>> 0);
  const small = bits > -4096n && bits < 4096n;
  return small ? String(bits) : `0x${BigInt.asUintN(64, bits).toString(16)}`;
}

function call(words: Int32Array, at: number, op: OpInfo, names: Names): string {
  const operands: string[] = [];
  for (let k = 2; k < 6; k++) if (words[at + k]! >= 0) operands.push(value(words[at + k]!));
  return `${op.name} ${names.helpers[words[at + 1]!]?.name ?? words[at + 1]!}(${operands.join(', ')})`;
}

function body(words: Int32Array, at: number, op: OpInfo, names: Names): string {
  if (op.kind === CALL) return call(words, at, op, names);
  if (op.index === Op.const64) return `const64 ${constant64(words[at + 1]!, words[at + 2]!)}`;
  const parts = op.operands.map((_, k) => value(words[at + 1 + k]!));
  for (let k = 0; k < op.immediates; k++) {
    const immediate = words[at + 1 + op.operands.length + k]!;
    const isGlobal = op.name.startsWith('getg') || op.name.startsWith('setg');
    parts.push(isGlobal ? (names.globals[immediate]?.name ?? `g${immediate}`) : String(immediate));
  }
  return [op.name, parts.join(', ')].join(' ').trimEnd();
}

/** One line for record `i`. */
export function printRecord(block: Block, i: number, names: Names): string {
  const at = i * STRIDE;
  const op = OPS[block.words[at]!]!;
  const text = body(block.words, at, op, names);
  if (op.index === Op.insn) return text;
  return op.result === NONE ? `  ${text}` : `  ${value(i)} = ${text}`;
}

export function printBlock(block: Block, names: Names): string {
  const lines: string[] = [];
  for (let i = 0; i < block.count; i++) lines.push(printRecord(block, i, names));
  return lines.join('\n');
}

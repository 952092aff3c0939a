/**
 * Wasm text of the pure operations that are more than one wasm instruction. Each
 * is a function of its operands on the stack, kept in locals of its own.
 */
import { I32, I64, OPS, Op } from '../ir/ops.ts';
import {
  ELSE,
  END,
  I32_SUB,
  I64_ADD,
  I64_AND,
  I64_MUL,
  I64_OR,
  I64_SHL,
  I64_SHR_S,
  I64_SHR_U,
  I64_SUB,
  IF,
  SELECT,
  typeByte,
} from '../wasm/wasm.ts';
import type { Code } from '../wasm/wasm.ts';

/** Scratch locals of a function, made when first needed. */
export class Scratch {
  private readonly made = new Map<number, number[]>();
  private readonly code: Code;

  constructor(code: Code) {
    this.code = code;
  }

  clear(): void {
    this.made.clear();
  }

  /** The n-th scratch local of a type. */
  local(type: number, n: number): number {
    let list = this.made.get(type);
    if (!list) this.made.set(type, (list = []));
    while (list.length <= n) list.push(this.code.local(type));
    return list[n]!;
  }
}

type Expansion = (c: Code, s: Scratch) => void;

const I32_DIV_S = 0x6d;
const I64_DIV_S = 0x7f;
/** Divisions follow each other in opcode order: div_s, div_u, rem_s, rem_u. */
function division(type: number, which: 0 | 1 | 2 | 3): Expansion {
  const wide = type === I64;
  const eqz = wide ? 0x50 : 0x45;
  const zero = (c: Code): void => (wide ? c.i64(0) : c.i32(0));
  return (c, s) => {
    const a = s.local(type, 0);
    const b = s.local(type, 1);
    c.set(b);
    c.set(a);
    c.get(b);
    c.op(eqz);
    c.op(IF);
    c.op(typeByte(type));
    zero(c);
    c.op(ELSE);
    if (which === 0) {
      // INT_MIN / -1 traps in wasm; x / -1 is 0 - x, which wraps.
      c.get(b);
      if (wide) c.i64(-1);
      else c.i32(-1);
      c.op(wide ? 0x51 : 0x46);
      c.op(IF);
      c.op(typeByte(type));
      zero(c);
      c.get(a);
      c.op(wide ? I64_SUB : I32_SUB);
      c.op(ELSE);
    }
    c.get(a);
    c.get(b);
    c.op((wide ? I64_DIV_S : I32_DIV_S) + which);
    if (which === 0) c.op(END);
    c.op(END);
  };
}

function select(c: Code, s: Scratch, type: number): void {
  // Operands come as condition, a, b; wasm wants the condition on top.
  const condition = s.local(I32, 2);
  const a = s.local(type, 0);
  const b = s.local(type, 1);
  c.set(b);
  c.set(a);
  c.set(condition);
  c.get(a);
  c.get(b);
  c.get(condition);
  if (type <= I64) c.op(SELECT);
  else c.raw([0x1c, 1, typeByte(type)]);
}

function bswap32(c: Code, s: Scratch): void {
  const x = s.local(I32, 0);
  c.tee(x);
  c.i32(8);
  c.op(0x77); // rotl
  c.i32(0x00ff00ff);
  c.op(0x71);
  c.get(x);
  c.i32(8);
  c.op(0x78); // rotr
  c.i32(0xff00ff00 | 0);
  c.op(0x71);
  c.op(0x72);
}

function bswap64(c: Code, s: Scratch): void {
  const x = s.local(I64, 0);
  c.set(x);
  /** Swaps neighbouring groups of `bits`: (x >> bits & mask) | (x & mask) << bits. */
  const swap = (bits: number, low: number, high: number): void => {
    c.get(x);
    c.i64(bits);
    c.op(I64_SHR_U);
    c.i64(low, high);
    c.op(I64_AND);
    c.get(x);
    c.i64(low, high);
    c.op(I64_AND);
    c.i64(bits);
    c.op(I64_SHL);
    c.op(I64_OR);
  };
  swap(8, 0x00ff00ff, 0x00ff00ff);
  c.set(x);
  swap(16, 0x0000ffff, 0x0000ffff);
  c.i64(32);
  c.op(0x89); // rotl
}

/** High half of a product from four 32-bit products (Hacker's Delight, 8-2). */
function multiplyHigh(signed: boolean): Expansion {
  const shift = signed ? I64_SHR_S : I64_SHR_U;
  return (c, s) => {
    const [a, b, a1, b1, t, u] = [0, 1, 2, 3, 4, 5].map((n) => s.local(I64, n)) as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const low = (local: number): void => {
      c.get(local);
      c.i64(-1, 0);
      c.op(I64_AND);
    };
    const high = (local: number, opcode: number): void => {
      c.get(local);
      c.i64(32);
      c.op(opcode);
    };
    c.set(b);
    c.set(a);
    high(a, shift);
    c.set(a1);
    high(b, shift);
    c.set(b1);
    // t = a1 * b0 + (a0 * b0 >> 32)
    c.get(a1);
    low(b);
    c.op(I64_MUL);
    low(a);
    low(b);
    c.op(I64_MUL);
    c.i64(32);
    c.op(I64_SHR_U);
    c.op(I64_ADD);
    c.set(t);
    // u = a0 * b1 + (t & 2^32-1)
    low(a);
    c.get(b1);
    c.op(I64_MUL);
    low(t);
    c.op(I64_ADD);
    c.set(u);
    c.get(a1);
    c.get(b1);
    c.op(I64_MUL);
    high(t, shift);
    c.op(I64_ADD);
    high(u, shift);
    c.op(I64_ADD);
  };
}

const table: Record<string, Expansion> = {
  divs32: division(I32, 0),
  divu32: division(I32, 1),
  rems32: division(I32, 2),
  remu32: division(I32, 3),
  divs64: division(I64, 0),
  divu64: division(I64, 1),
  rems64: division(I64, 2),
  remu64: division(I64, 3),
  mulhs64: multiplyHigh(true),
  mulhu64: multiplyHigh(false),
  bswap32,
  bswap64,
  select32: (c, s) => select(c, s, OPS[Op.select32]!.result),
  select64: (c, s) => select(c, s, OPS[Op.select64]!.result),
  selectf32: (c, s) => select(c, s, OPS[Op.selectf32]!.result),
  selectf64: (c, s) => select(c, s, OPS[Op.selectf64]!.result),
  selectv: (c, s) => select(c, s, OPS[Op.selectv]!.result),
};

/** Expansion of an operation by number, or null when it is one wasm instruction. */
export const EXPANSIONS: readonly (Expansion | null)[] = OPS.map((op) => table[op.name] ?? null);

/** Appends the immediates of a lane or shuffle operation; they follow its opcode. */
export function emitImmediates(c: Code, name: string, words: Int32Array, at: number): void {
  if (name === 'vshuffle') {
    for (let lane = 0; lane < 16; lane++) c.u8((words[at + (lane >> 2)]! >>> ((lane & 3) * 8)) & 31);
  } else c.u8(words[at]!);
}

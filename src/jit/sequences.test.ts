/** Sequences of interpreter operations: each does what its operations do one by one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MEMORY, OPS, OP_KIND, Op } from '../ir/ops.ts';
import { CTL_FAULT, CTL_JUMP_BASE, CTL_PC, CTL_SLOW_ADDR, CTL_TLB_BASE, ISA_STATE } from '../ir/vcpu-block.ts';
import { newMemory } from '../wasm/memory.ts';
import { CODE, FN_LOOKUP, GUEST_MEMORY, NULL_CELL, VCPU_BASE } from './layout.ts';
import { JUMP_TARGETS, SEQUENCES, X_BRANCH, X_CALL, X_SEQUENCE, isLong, joined } from './opcodes.ts';
import { makeRuntime, startRuntime } from './runtime.ts';
import { EXEC, READ, TestIsa, WRITE, randomNumbers } from './test-kit.ts';
import { Tlb } from './tlb.ts';

/** Slots that the operations work on, and among them those that addresses are in. */
const SLOTS = VCPU_BASE + ISA_STATE;
const SLOT_COUNT = 12;
const ADDRESSES = 4;
/** The one page that there is, at the same virtual address. */
const PAGE = 0x5000;
/** An entry cell that leads to a look-up. */
const CELL = 0x50000;
/** A slot that stays zero, behind the others. */
const ZERO = SLOTS + 8 * SLOT_COUNT;
const MEMORY_PAGES = (GUEST_MEMORY >> 16) + 1;
const ROUNDS = 40;

const memory = newMemory(MEMORY_PAGES);
const words = new Int32Array(memory.buffer);
const view = new DataView(memory.buffer);
const tlb = new Tlb(memory.buffer);
/** What the slow path was asked for. */
let asked: bigint[] = [];
const runtime = startRuntime(
  makeRuntime(new TestIsa(), MEMORY_PAGES, true).engine,
  [],
  memory,
  new WebAssembly.Table({ initial: 64, element: 'anyfunc' }),
  {
    slow: () => {
      asked.push(view.getBigUint64(VCPU_BASE + CTL_SLOW_ADDR, true));
      view.setInt32(VCPU_BASE + CTL_FAULT, 1, true);
    },
    guard: () => 0,
    native: () => 0,
    helper: () => () => 0,
  },
  {},
);
tlb.fill(PAGE, 0, GUEST_MEMORY, READ | WRITE | EXEC, true);
words[(VCPU_BASE + CTL_TLB_BASE) >> 2] = tlb.tlbAddress;
words[(VCPU_BASE + CTL_JUMP_BASE) >> 2] = tlb.jumpAddress;
for (const cell of [CELL, NULL_CELL]) words[cell >> 2] = FN_LOOKUP;

const random = randomNumbers(11);
const below = (n: number): number => random() % n;
const slot = (from = 0): number => SLOTS + 8 * (from + below(SLOT_COUNT - from));
const cell = (): number => (below(2) ? CELL : 0);

/** Words of an operation's units: op | d | a | b, and what follows. */
function units(opcode: number): number[] {
  if (opcode >= X_BRANCH && opcode < X_SEQUENCE) {
    return [opcode | (below(2) << 16), cell(), slot(), cell(), below(64), below(64), below(4), slot()];
  }
  if (opcode === Op.goto) {
    const target = cell();
    return [opcode | (below(2) << 16), target, below(64), below(4), ...(target === 0 ? [0, 0, 0, 0] : [])];
  }
  if (opcode === Op.jump) return [opcode, 0, slot(), 0, ...new Array<number>(JUMP_TARGETS).fill(-1)];
  if (OP_KIND[opcode] === MEMORY) return [opcode, slot(ADDRESSES), SLOTS + 8 * below(ADDRESSES), below(64)];
  if (OPS[opcode]?.name.startsWith('lds')) return [opcode, slot(), ZERO, slot()];
  return [opcode, slot(), slot(), slot(), ...(isLong(opcode) ? [slot(), 0, 0, 0] : [])];
}

/** Everything that code can change, which begins the same each time. @param opcode of the first unit */
function outcome(code: readonly number[], opcode: number, seed: number): string {
  const numbers = randomNumbers(seed);
  const start = CODE >> 2;
  words.set(code, start);
  words[start] = (code[0]! & ~0xffff) | opcode;
  words.fill(0, (VCPU_BASE + CTL_PC) >> 2, (VCPU_BASE + CTL_TLB_BASE) >> 2);
  words.fill(0, (VCPU_BASE + CTL_FAULT) >> 2, (VCPU_BASE + ISA_STATE) >> 2);
  for (let i = 0; i < 2 * SLOT_COUNT; i++) words[(SLOTS >> 2) + i] = numbers() % 3 ? numbers() : numbers() % 4;
  for (let i = 0; i < ADDRESSES; i++) {
    const page = numbers() % 8 === 0 ? PAGE + 0x1000 : PAGE;
    view.setBigUint64(SLOTS + 8 * i, BigInt(page + (numbers() % 0xff0)), true);
  }
  for (let i = 0; i < 1024; i++) words[(GUEST_MEMORY >> 2) + i] = numbers();
  asked = [];
  runtime.interpret(CODE);
  const parts = [
    words.slice(VCPU_BASE >> 2, ZERO >> 2),
    words.slice(GUEST_MEMORY >> 2, (GUEST_MEMORY >> 2) + 1024),
    words.slice(start + 1, start + code.length),
  ];
  return [...parts.map((part) => part.join()), asked.join()].join('|');
}

test('every sequence does what its operations do one by one, faults included', () => {
  let faults = 0;
  SEQUENCES.forEach((sequence, place) => {
    for (let round = 0; round < ROUNDS; round++) {
      const code = [...sequence.flatMap(units), Op.leave, 17, 0, 0, 5, 0, 0, 0];
      const seed = random();
      const expected = outcome(code, sequence[0]!, seed);
      faults += asked.length;
      assert.equal(outcome(code, X_SEQUENCE + place, seed), expected, `sequence ${place}: ${sequence.join()}`);
    }
  });
  assert.ok(faults > 100);
});

test('a sequence is found operation by operation', () => {
  SEQUENCES.forEach((sequence, place) => {
    let opcode = sequence[0]!;
    for (const next of sequence.slice(1)) opcode = joined(opcode, next);
    assert.equal(opcode, X_SEQUENCE + place);
  });
  assert.equal(joined(X_CALL, SEQUENCES[0]![1]!), 0, 'helpers are in none');
  assert.equal(joined(Op.goto, Op.add64), 0);
});

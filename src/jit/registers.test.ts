/** Where registers are in a region: which are in locals, which have changed, what faults leave behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlockAnalysis } from '../ir/analysis.ts';
import { Builder, STRIDE } from '../ir/builder.ts';
import type { Global } from '../ir/builder.ts';
import { I64 } from '../ir/ops.ts';
import { CHANGED, IN_LOCAL, RegisterFinder } from './registers.ts';
import { buildRegion, constantTargets } from './region.ts';
import type { RegionBlock, RegionNode } from './region.ts';

const GLOBALS: readonly Global[] = ['a', 'b', 'c'].map((name, index) => ({ name, index, type: I64, offset: 256 + 8 * index }));
const [A, B, C] = GLOBALS as [Global, Global, Global];

type Write = (b: Builder) => void;

/** @param blocks what each block does, by its offset; the last thing must be an exit */
function regionOf(blocks: Readonly<Record<number, Write>>) {
  const b = new Builder(GLOBALS);
  const translate = (offset: number, ctx: number): RegionBlock | null => {
    const write = blocks[offset];
    if (!write) return null;
    b.reset(ctx);
    b.insn(offset);
    write(b);
    const words = b.words.slice(0, b.count * STRIDE);
    const targets = constantTargets(words, b.count);
    return { words, count: b.count, insns: b.insns, usesContext: b.usesContext, targets, computed: false };
  };
  const nodes = buildRegion({ translate, worthwhile: () => true })!;
  const registers = new RegisterFinder(GLOBALS.length, [], new BlockAnalysis(GLOBALS.length)).find(nodes);
  const at = (offset: number) => registers.of.get(nodes.find((node: RegionNode) => node.offset === offset)!)!;
  return { at, faultSets: registers.faultSets.map((set) => [...set]) };
}

const increment =
  (global: Global): Write =>
  (b) =>
    b.set(global, b.add64(b.get(global), b.i64(1)));

test('straight code holds what it has used so far, and has changed what it has written', () => {
  const { at } = regionOf({
    0: (b) => {
      increment(A)(b);
      b.goto(16);
    },
    16: (b) => {
      b.set(B, b.get(A));
      b.goto(32);
    },
    32: (b) => b.leave(16, 0, 32),
  });
  assert.deepEqual([...at(0).entry], [0, 0, 0]);
  assert.deepEqual([...at(0).needs], [1, 0, 0]);
  assert.deepEqual([...at(16).entry], [IN_LOCAL | CHANGED, 0, 0]);
  // b is written before it is read: nothing to load.
  assert.deepEqual([...at(16).needs], [1, 0, 0]);
  assert.deepEqual([...at(32).entry], [IN_LOCAL | CHANGED, IN_LOCAL | CHANGED, 0]);
});

test('what one of two ways has changed is in its local where they meet; what one has only read is not', () => {
  const { at } = regionOf({
    0: (b) => b.condGoto(b.i32(1), 16, 32),
    16: (b) => {
      increment(A)(b);
      b.goto(48);
    },
    32: (b) => {
      b.set(C, b.get(B));
      b.goto(48);
    },
    48: (b) => b.leave(16, 0, 48),
  });
  assert.deepEqual([...at(48).entry], [IN_LOCAL | CHANGED, 0, IN_LOCAL | CHANGED]);
});

test('a loop holds all that it uses from its beginning on', () => {
  const { at } = regionOf({
    0: (b) => b.goto(16),
    16: (b) => {
      increment(A)(b);
      b.condGoto(b.i32(1), 32, 64);
    },
    32: (b) => {
      b.set(C, b.get(B));
      b.goto(16);
    },
    64: (b) => b.leave(16, 0, 64),
  });
  const everything = [IN_LOCAL | CHANGED, IN_LOCAL, IN_LOCAL | CHANGED];
  assert.deepEqual([...at(0).exit], [0, 0, 0]);
  assert.deepEqual([...at(16).entry], everything);
  assert.deepEqual([...at(64).entry], everything);
});

test('an access that faults leaves what instructions before it have changed, not what its own would have', () => {
  const { at, faultSets } = regionOf({
    0: (b) => {
      increment(A)(b);
      b.insn(4);
      b.set(B, b.ld64(b.get(C)));
      b.insn(8);
      b.set(C, b.ld64(b.get(B)));
      b.leave(16, 0, 12);
    },
  });
  const sets = at(0).faultSet.map((number) => (number < 0 ? null : faultSets[number]));
  assert.deepEqual(sets.slice(0, 3), [null, [1, 0, 0], [1, 1, 0]]);
});

test('an instruction that writes before it may fault leaves that write, too, and has the register loaded for it', () => {
  const { at, faultSets } = regionOf({
    0: (b) => {
      b.set(A, b.i64(5));
      b.set(B, b.ld64(b.get(C)));
      b.leave(16, 0, 4);
    },
  });
  assert.deepEqual([...at(0).needs], [1, 0, 1]);
  assert.deepEqual(faultSets[at(0).faultSet[0]!], [1, 0, 0]);
});

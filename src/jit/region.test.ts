/** Regions from control-flow graphs: order, dominators, loops, contexts, limits. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CTX_UNKNOWN } from '../ir/builder.ts';
import { buildRegion } from './region.ts';
import type { RegionNode } from './region.ts';
import { graphSource } from './test-regions.ts';
import type { GraphOptions } from './test-regions.ts';
import { randomNumbers } from './test-kit.ts';

type Edges = Record<number, readonly number[]>;

function build(edges: Edges, options: GraphOptions = {}): Map<number, RegionNode> {
  const nodes = buildRegion(graphSource(edges, options))!;
  return new Map(nodes.map((node) => [node.offset, node]));
}

test('dominators and merges of a diamond with a tail', () => {
  const nodes = build({ 0: [1, 2], 1: [3], 2: [3], 3: [4], 4: [] });
  assert.deepEqual([...nodes.keys()].length, 5);
  const idom = (offset: number): number => nodes.get(offset)!.idom!.offset;
  assert.deepEqual([1, 2, 3, 4].map(idom), [0, 0, 0, 3]);
  assert.equal(nodes.get(3)!.forwardEdges, 2);
  assert.ok([...nodes.values()].every((node) => !node.isLoopHeader));
});

test('loops: the header is marked, with the instructions in it', () => {
  const nodes = build({ 0: [1], 1: [2, 4], 2: [2, 3], 3: [1], 4: [] });
  assert.deepEqual(
    [...nodes.values()]
      .filter((node) => node.isLoopHeader)
      .map((node) => node.offset)
      .sort(),
    [1, 2],
  );
  assert.ok(nodes.get(1)!.loopInsns >= 6);
  assert.equal(nodes.get(1)!.forwardEdges, 1);
});

test('a loop that goes back only by a computed jump is a switch', () => {
  const inSwitch = (edges: Edges): number[] => {
    const loops = [...build(edges).values()].filter((node) => node.inLoop);
    return loops.filter((node) => node.inSwitch).map((node) => node.offset);
  };
  assert.deepEqual(inSwitch({ 0: [1, 2, 3], 1: [0], 2: [], 3: [] }), [], 'goes back by a constant jump');
  assert.deepEqual(inSwitch({ 0: [1], 1: [0, 2, 3], 2: [], 3: [] }), [0, 1]);
  assert.deepEqual(inSwitch({ 0: [1], 1: [1, 2], 2: [0, 3, 4], 3: [], 4: [] }), [0, 2], 'with a loop inside that is none');
});

test('a jump into the middle of a loop is cut', () => {
  const nodes = build({ 0: [1, 2], 1: [2, 3], 2: [1, 4], 3: [], 4: [] });
  const edges = [...nodes.values()].flatMap((node) => node.successors.map((next) => next !== null));
  assert.equal(edges.filter((kept) => !kept).length, 1);
});

test('targets that are cold or cannot be translated stay outside', () => {
  const nodes = build({ 0: [1, 2], 1: [7], 2: [] }, { cold: [2] });
  assert.deepEqual([...nodes.keys()].sort(), [0, 1]);
  assert.equal(nodes.get(0)!.successors[1], null);
  assert.equal(nodes.get(1)!.successors[0], null);
  assert.equal(buildRegion(graphSource({})), null);
});

test('both ways of a branch to one place, a block to itself, a jump to several places', () => {
  const nodes = build({ 0: [1, 1], 1: [1, 2], 2: [0, 1, 2, 3], 3: [] });
  assert.equal(nodes.get(1)!.forwardEdges, 2);
  assert.ok(nodes.get(1)!.isLoopHeader && nodes.get(2)!.isLoopHeader && nodes.get(0)!.isLoopHeader);
  assert.equal(nodes.get(2)!.successors.filter(Boolean).length, 4);
});

test('a block that reads its context is made for the contexts it is entered with, two at most', () => {
  const edges = { 0: [1, 2], 1: [5], 2: [3, 4], 3: [5], 4: [5], 5: [] };
  const all = buildRegion(graphSource(edges, { readers: [5], contexts: { 1: 11, 3: 13, 4: 14 } }))!;
  const contexts = all.filter((node) => node.offset === 5).map((node) => node.ctx);
  assert.equal(contexts.length, 3);
  assert.ok(contexts.includes(CTX_UNKNOWN));
  const plain = buildRegion(graphSource(edges, { contexts: { 1: 11, 3: 13, 4: 14 } }))!;
  assert.equal(plain.filter((node) => node.offset === 5).length, 1, 'a block that does not read it is shared');
});

test('a region has an end', () => {
  const edges: Record<number, number[]> = {};
  for (let i = 0; i < 500; i++) edges[i] = [i + 1, 0];
  edges[500] = [];
  const nodes = buildRegion(graphSource(edges))!;
  assert.ok(nodes.length > 10 && nodes.length <= 64);
  const large = buildRegion(graphSource(edges, { insns: 60 }))!;
  assert.ok(large.reduce((sum, node) => sum + node.block.insns, 0) <= 600);
});

/** Dominators by definition: what cannot be reached without a node is dominated by it. */
function reachable(nodes: RegionNode[], without: RegionNode | null): Set<RegionNode> {
  const seen = new Set<RegionNode>();
  const visit = (node: RegionNode): void => {
    if (node === without || seen.has(node)) return;
    seen.add(node);
    for (const next of node.successors) if (next) visit(next);
  };
  visit(nodes[0]!);
  return seen;
}

test('random graphs: orders, dominators and loops are as defined', () => {
  const random = randomNumbers(11);
  for (let round = 0; round < 300; round++) {
    const size = 2 + (random() % 20);
    const edges: Record<number, number[]> = {};
    for (let i = 0; i < size; i++) edges[i] = Array.from({ length: random() % 4 }, () => random() % size);
    const nodes = buildRegion(graphSource(edges))!;
    nodes.forEach((node, i) => assert.equal(node.order, i));
    assert.equal(reachable(nodes, null).size, nodes.length, 'cutting leaves every node in reach');
    for (const node of nodes) {
      const idom = node.idom!;
      if (node !== nodes[0]) assert.ok(idom.children.includes(node));
      const dominators = nodes.filter((other) => other !== node && !reachable(nodes, other).has(node));
      if (node !== nodes[0]) assert.equal(idom, dominators.at(-1));
      for (const next of node.successors) {
        if (!next || next.order > node.order) continue;
        assert.ok(next.isLoopHeader);
        assert.ok(next === node || !reachable(nodes, next).has(node), 'a loop is entered through its header only');
      }
      const forward = nodes.flatMap((other) => other.successors.filter((next) => next === node && other.order < node.order));
      assert.equal(node.forwardEdges, forward.length);
    }
  }
});

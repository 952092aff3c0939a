/** Regions through the flat form in which they reach a compiler. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STRIDE } from '../ir/builder.ts';
import { Op } from '../ir/ops.ts';
import { BatchWriter, readBatch } from './batch.ts';
import type { RegionToCompile } from './batch.ts';
import { buildRegion } from './region.ts';
import { graphSource } from './test-regions.ts';

function regionOf(edges: Record<number, number[]>, slot: number): RegionToCompile {
  const nodes = buildRegion(graphSource(edges))!;
  nodes.forEach((node, i) => {
    node.faultBase = 10 * i;
    node.cells = node.block.targets.map((target) => target * 8);
  });
  return { pc: [slot, -1], nodes, slot, dispatchCell: 0x40008, guardList: 0x1238, inline: slot === 17, fallbackCell: 0x40010 };
}

test('a batch of regions comes back as it went', () => {
  const writer = new BatchWriter();
  const regions = [regionOf({ 0: [4, 8], 4: [8], 8: [0, 12], 12: [] }, 16), regionOf({ 0: [0] }, 17), regionOf({ 0: [] }, 18)];
  for (const region of regions) writer.add(region);
  const words = writer.take();
  assert.equal(writer.take().length, 0);
  const back = readBatch(words);
  assert.equal(back.length, 3);
  back.forEach((region, i) => {
    const { nodes, slot, dispatchCell, fallbackCell, guardList } = regions[i]!;
    assert.deepEqual([region.slot, region.dispatchCell, region.fallbackCell], [slot, dispatchCell, fallbackCell]);
    assert.equal(region.guardList, guardList);
    assert.equal(region.nodes.length, nodes.length);
    region.nodes.forEach((node, k) => {
      const original = nodes[k]!;
      for (const field of ['offset', 'ctx', 'order', 'forwardEdges', 'isLoopHeader', 'loopInsns', 'faultBase'] as const) {
        assert.equal(node[field], original[field], field);
      }
      assert.deepEqual(node.cells, original.cells);
      assert.equal(node.idom!.order, original.idom!.order);
      assert.deepEqual(node.children.map((child) => child.order), original.children.map((child) => child.order));
      assert.deepEqual(node.successors.map((next) => next?.order), original.successors.map((next) => next?.order));
      assert.deepEqual(node.block.targets, original.block.targets);
      assert.deepEqual([...node.block.words], [...original.block.words.subarray(0, original.block.count * STRIDE)]);
      assert.equal(node.block.words[0], Op.insn);
    });
  });
});

test('a batch grows as large as it must', () => {
  const writer = new BatchWriter();
  const region = regionOf({ 0: [4, 8], 4: [8], 8: [0] }, 1);
  for (let i = 0; i < 2000; i++) writer.add(region);
  assert.equal(writer.regions, 2000);
  assert.equal(readBatch(writer.take()).length, 2000);
  assert.equal(writer.regions, 0);
});

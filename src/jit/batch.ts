/**
 * Regions on their way to a compiler, which may be another thread: flat words, so
 * that a batch is one transferable buffer, and back again.
 *
 * A region: pc (two words), slot, fallback cell, dispatch cell, guard list, inline, number of nodes; then
 * for each node, in reverse post-order, the fields that `writeNode` puts.
 */
import { STRIDE } from '../ir/builder.ts';
import type { RegionNode } from './region.ts';

export interface RegionToCompile {
  /** Linear address of the entry when it was made, low and high half: its name in profiles. */
  readonly pc: readonly [number, number];
  readonly nodes: RegionNode[];
  /** Table slot that the function goes to. */
  readonly slot: number;
  /** Cell through which to go on at a computed pc. */
  readonly dispatchCell: number;
  /** Cell that runs the entry block in the interpreter, when a guard does not hold. */
  readonly fallbackCell: number;
  /** Address of the guards for pages beyond the entry's own that the region has code in, 0 = none. */
  readonly guardList: number;
  /** Look the TLB up in place outside loops, too: faster, but larger. */
  readonly inline: boolean;
}

export class BatchWriter {
  private words = new Int32Array(1 << 14);
  private length = 0;
  regions = 0;

  private room(count: number): void {
    if (this.length + count <= this.words.length) return;
    const larger = new Int32Array(Math.max(this.words.length * 2, this.length + count));
    larger.set(this.words);
    this.words = larger;
  }

  private put(...values: number[]): void {
    this.room(values.length);
    for (const value of values) this.words[this.length++] = value;
  }

  private putList(values: readonly number[]): void {
    this.put(values.length, ...values);
  }

  add(region: RegionToCompile): void {
    const { nodes } = region;
    this.put(...region.pc, region.slot, region.fallbackCell, region.dispatchCell, region.guardList);
    this.put(region.inline ? 1 : 0, nodes.length);
    for (const node of nodes) this.writeNode(node);
    this.regions++;
  }

  private writeNode(node: RegionNode): void {
    const { block } = node;
    this.put(node.offset, node.ctx, node.idom!.order, node.forwardEdges, (node.isLoopHeader ? 1 : 0) | (node.inLoop ? 2 : 0));
    this.put(node.loopInsns, node.faultBase, block.insns, block.count);
    this.putList(block.targets);
    this.putList(node.successors.map((successor) => (successor ? successor.order : -1)));
    this.putList(node.cells);
    const words = block.count * STRIDE;
    this.room(words);
    this.words.set(block.words.subarray(0, words), this.length);
    this.length += words;
  }

  /** The batch so far, and an empty one to go on with. */
  take(): Int32Array {
    const words = this.words.slice(0, this.length);
    this.length = 0;
    this.regions = 0;
    return words;
  }
}

class BatchReader {
  private readonly words: Int32Array;
  private at = 0;

  constructor(words: Int32Array) {
    this.words = words;
  }

  get done(): boolean {
    return this.at >= this.words.length;
  }

  private next(): number {
    return this.words[this.at++]!;
  }

  private list(): number[] {
    const length = this.next();
    const values = Array.from(this.words.subarray(this.at, this.at + length));
    this.at += length;
    return values;
  }

  region(): RegionToCompile {
    const pc = [this.next(), this.next()] as const;
    const [slot, fallbackCell, dispatchCell] = [this.next(), this.next(), this.next()];
    const [guardList, inline] = [this.next(), this.next() === 1];
    const nodeCount = this.next();
    const nodes: RegionNode[] = [];
    const successors: number[][] = [];
    const dominators: number[] = [];
    for (let order = 0; order < nodeCount; order++) nodes.push(this.node(order, successors, dominators));
    nodes.forEach((node, i) => {
      node.successors = successors[i]!.map((successor) => (successor < 0 ? null : nodes[successor]!));
      node.idom = nodes[dominators[i]!]!;
      if (node.idom !== node) node.idom.children.push(node);
    });
    return { pc, nodes, slot, dispatchCell, fallbackCell, guardList, inline };
  }

  private node(order: number, successors: number[][], dominators: number[]): RegionNode {
    const [offset, ctx] = [this.next(), this.next()];
    dominators.push(this.next());
    const [forwardEdges, loop, loopInsns] = [this.next(), this.next(), this.next()];
    const [faultBase, insns, count] = [this.next(), this.next(), this.next()];
    const targets = this.list();
    successors.push(this.list());
    const cells = this.list();
    const words = this.words.subarray(this.at, this.at + count * STRIDE);
    this.at += count * STRIDE;
    return {
      offset, ctx, order, forwardEdges, isLoopHeader: (loop & 1) !== 0, inLoop: (loop & 2) !== 0, loopInsns, faultBase, cells, idom: null, children: [], successors: [],
      block: { words, count, insns, usesContext: false, targets, computed: false },
    };
  }
}

export function readBatch(words: Int32Array): RegionToCompile[] {
  const reader = new BatchReader(words);
  const regions: RegionToCompile[] = [];
  while (!reader.done) regions.push(reader.region());
  return regions;
}

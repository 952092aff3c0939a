/**
 * Regions: what is compiled as one function. A region starts at a hot block and
 * takes in the blocks that it reaches by constant jumps and that have run before.
 */
import { STRIDE, CTX_UNKNOWN } from '../ir/builder.ts';
import type { Builder } from '../ir/builder.ts';
import { Op } from '../ir/ops.ts';

/** One block as the region sees it. */
export interface RegionBlock {
  /** IR records, the exit last. */
  words: Int32Array;
  count: number;
  insns: number;
  usesContext: boolean;
  /** Offsets from the region's base pc where it may go on: by exit slot, or the seen targets of a computed jump. */
  targets: number[];
  /** It ends with a computed jump: its targets have been chosen already. */
  computed: boolean;
}

export interface RegionNode {
  /** Byte offset of its pc from the region's base pc. */
  readonly offset: number;
  /** Instruction context known on entry, or CTX_UNKNOWN. */
  readonly ctx: number;
  readonly block: RegionBlock;
  /** Successor nodes in the region by exit slot (0 = taken or only, 1 = not taken), null = outside. */
  successors: (RegionNode | null)[];
  /** Reverse post-order number. */
  order: number;
  /** Immediate dominator. */
  idom: RegionNode | null;
  /** Nodes that this one dominates immediately, in order. */
  children: RegionNode[];
  forwardEdges: number;
  isLoopHeader: boolean;
  /** It lies in some loop. */
  inLoop: boolean;
  /** It lies only in loops that go back by computed jumps, as those of a byte-code interpreter: a round is like no other. */
  inSwitch: boolean;
  /** Instructions in the loop it heads. */
  loopInsns: number;
  /** Fault number of its first instruction; the others follow. */
  faultBase: number;
  /** Addresses of the guards for the pages that it has code in, beyond the region's first (layout.ts, GUARD_*). */
  guards: number[];
  /** By exit slot: entry cell of a target outside the region, 0 = through the dispatcher. */
  cells: number[];
}

/** Supplies blocks; null when the target is not to be in the region. */
export interface RegionSource {
  translate(offset: number, ctx: number): RegionBlock | null;
  /** Whether a target has run often enough to be taken in. */
  worthwhile(offset: number): boolean;
  readonly limits?: RegionLimits;
}

/** How large a region may be. */
export interface RegionLimits {
  readonly nodes: number;
  readonly insns: number;
}
/** What is beyond becomes hot by itself and has its own: larger ones would be about the same blocks several times over. */
const USUAL: RegionLimits = { nodes: 12, insns: 400 };
/** Variants of one block by known context, beyond which it is entered with its context unknown. */
const MAX_VARIANTS = 2;

/** Byte offsets of a block's constant targets, by exit slot. */
export function constantTargets(words: Int32Array, count: number): number[] {
  const at = (count - 1) * STRIDE;
  const op = words[at]!;
  if (op === Op.goto) return [words[at + 1]!];
  if (op === Op.condgoto) return [words[at + 2]!, words[at + 3]!];
  return [];
}

/** The block that has been translated, with these targets. */
export function takeBlock(b: Builder, computed: boolean, targets: number[]): RegionBlock {
  return {
    words: b.words.slice(0, b.count * STRIDE),
    count: b.count,
    insns: b.insns,
    usesContext: b.usesContext,
    targets,
    computed,
  };
}

/** The context that a block's exit leaves behind. */
export function exitContext(block: RegionBlock): number {
  const at = (block.count - 1) * STRIDE;
  const op = block.words[at]!;
  const slot = op === Op.goto || op === Op.jump ? 2 : 4;
  return block.words[at + slot]!;
}

class RegionBuilder {
  private readonly source: RegionSource;
  private readonly nodes = new Map<string, RegionNode>();
  private readonly variants = new Map<number, number>();
  private readonly generic = new Map<number, RegionBlock | null>();
  private insns = 0;

  constructor(source: RegionSource) {
    this.source = source;
  }

  private genericBlock(offset: number): RegionBlock | null {
    let block = this.generic.get(offset);
    if (block === undefined) {
      block = this.source.translate(offset, CTX_UNKNOWN);
      this.generic.set(offset, block);
    }
    return block;
  }

  /** The node for entering `offset` with context `ctx`; makes it when there is room. */
  private node(offset: number, ctx: number, queue: RegionNode[]): RegionNode | null {
    const generic = this.genericBlock(offset);
    if (!generic) return null;
    let known = ctx;
    if (!generic.usesContext) known = CTX_UNKNOWN;
    const key = `${offset}:${known}`;
    const existing = this.nodes.get(key);
    if (existing) return existing;
    if (known !== CTX_UNKNOWN) {
      const variants = this.variants.get(offset) ?? 0;
      if (variants >= MAX_VARIANTS) return this.node(offset, CTX_UNKNOWN, queue);
      this.variants.set(offset, variants + 1);
    }
    const { nodes, insns } = this.source.limits ?? USUAL;
    if (this.nodes.size >= nodes || this.insns + generic.insns > insns) return null;
    const block = known === CTX_UNKNOWN ? generic : this.source.translate(offset, known);
    if (!block) return null;
    this.insns += block.insns;
    const node: RegionNode = {
      offset,
      ctx: known,
      block,
      successors: [],
      order: -1,
      idom: null,
      children: [],
      forwardEdges: 0,
      isLoopHeader: false,
      inLoop: false,
      inSwitch: true,
      loopInsns: 0,
      faultBase: 0,
      guards: [],
      cells: [],
    };
    this.nodes.set(key, node);
    queue.push(node);
    return node;
  }

  build(): RegionNode | null {
    const queue: RegionNode[] = [];
    const entry = this.node(0, CTX_UNKNOWN, queue);
    if (!entry) return null;
    for (let node = queue.shift(); node; node = queue.shift()) {
      const out = exitContext(node.block);
      const ctx = out === CTX_UNKNOWN ? node.ctx : out;
      for (const target of node.block.targets) {
        const known = target === 0 || this.generic.has(target) || node.block.computed || this.source.worthwhile(target);
        node.successors.push(known ? this.node(target, ctx, queue) : null);
      }
    }
    return entry;
  }
}

/** Numbers the reachable nodes in reverse post-order. */
function numberNodes(entry: RegionNode): RegionNode[] {
  const done: RegionNode[] = [];
  const stack: [RegionNode, number][] = [[entry, 0]];
  const seen = new Set<RegionNode>([entry]);
  while (stack.length > 0) {
    const top = stack[stack.length - 1]!;
    const [node, next] = top;
    if (next < node.successors.length) {
      top[1]++;
      const successor = node.successors[next]!;
      if (successor && !seen.has(successor)) {
        seen.add(successor);
        stack.push([successor, 0]);
      }
    } else {
      done.push(node);
      stack.pop();
    }
  }
  done.reverse();
  done.forEach((node, i) => (node.order = i));
  return done;
}

function intersect(a: RegionNode, b: RegionNode): RegionNode {
  while (a !== b) {
    while (a.order > b.order) a = a.idom!;
    while (b.order > a.order) b = b.idom!;
  }
  return a;
}

/** Immediate dominators (Cooper, Harvey, Kennedy: A Simple, Fast Dominance Algorithm). */
function findDominators(nodes: RegionNode[]): void {
  const predecessors = nodes.map((): RegionNode[] => []);
  for (const node of nodes) {
    for (const successor of node.successors) if (successor) predecessors[successor.order]!.push(node);
  }
  nodes[0]!.idom = nodes[0]!;
  for (let changed = true; changed; ) {
    changed = false;
    for (let i = 1; i < nodes.length; i++) {
      let idom: RegionNode | null = null;
      for (const predecessor of predecessors[i]!) {
        if (predecessor.idom) idom = idom ? intersect(predecessor, idom) : predecessor;
      }
      if (nodes[i]!.idom !== idom) {
        nodes[i]!.idom = idom;
        changed = true;
      }
    }
  }
}

function dominates(a: RegionNode, b: RegionNode): boolean {
  while (b.order > a.order) b = b.idom!;
  return a === b;
}

/** Cuts edges that jump backwards into a loop's middle: they leave the region instead. */
function cutIrreducible(nodes: RegionNode[]): boolean {
  let cut = false;
  for (const node of nodes) {
    node.successors.forEach((successor, slot) => {
      if (successor && successor.order <= node.order && !dominates(successor, node)) {
        node.successors[slot] = null;
        cut = true;
      }
    });
  }
  return cut;
}

function markLoops(nodes: RegionNode[]): void {
  for (const node of nodes) {
    if (node.idom !== node) node.idom!.children.push(node);
    for (const successor of node.successors) {
      if (!successor) continue;
      if (successor.order <= node.order) {
        successor.isLoopHeader = true;
        for (let i = successor.order; i <= node.order; i++) {
          if (!dominates(successor, nodes[i]!)) continue;
          nodes[i]!.inLoop = true;
          if (!node.block.computed) nodes[i]!.inSwitch = false;
          successor.loopInsns += nodes[i]!.block.insns;
        }
      } else successor.forwardEdges++;
    }
  }
}

/**
 * Builds the region of the block at offset 0.
 * @returns its nodes in reverse post-order, the entry first, or null when it cannot be translated
 */
export function buildRegion(source: RegionSource): RegionNode[] | null {
  const entry = new RegionBuilder(source).build();
  if (!entry) return null;
  let nodes = numberNodes(entry);
  findDominators(nodes);
  if (cutIrreducible(nodes)) {
    for (const node of nodes) node.idom = null;
    nodes = numberNodes(entry);
    findDominators(nodes);
  }
  markLoops(nodes);
  return nodes;
}

/**
 * The arm of a conditional that stays in the region is the likely one: what has run as often is in it. V8 puts the others
 * behind all that is likely, where they are in nobody's way.
 * @returns whether that is the first arm; undefined when both stay, or none does
 */
export function staysBy({ successors: [taken, notTaken] }: RegionNode): boolean | undefined {
  return !taken === !notTaken ? undefined : !!taken;
}

/** Instructions up to which a loop of one block stands several times in a row, and how often. */
const UNROLL_INSNS = 6;
const COPIES = 4;

/** How often a block stands in a row that is a loop by itself: then the budget is looked at once for all. */
export function copiesOf(node: RegionNode, nodes: readonly RegionNode[]): number {
  const { block, order, successors, isLoopHeader } = node;
  if (!isLoopHeader || block.insns > UNROLL_INSNS) return 1;
  if (block.words[(block.count - 1) * STRIDE] !== Op.condgoto || (successors[0] === node) === (successors[1] === node)) return 1;
  return nodes.some((other) => other.order > order && other.successors.includes(node)) ? 1 : COPIES;
}

/**
 * Where a region's guest registers are: in the vCPU's block only, or in wasm locals, too. A register comes into
 * its local before its first use on each way through the region, once for a whole loop; what leaves the region
 * stores only what may have changed on the way there.
 */
import { IS_GET, IS_SET } from '../ir/analysis.ts';
import type { BlockAnalysis } from '../ir/analysis.ts';
import { STRIDE } from '../ir/builder.ts';
import type { Helper } from '../ir/helpers.ts';
import { CALL, MEMORY, OP_KIND, Op, SIDE_EXIT } from '../ir/ops.ts';
import type { RegionNode } from './region.ts';

/** Flags of a register at some place: it is in its local; the local may be newer than the block. */
export const IN_LOCAL = 1;
export const CHANGED = 2;

/** A number for each global. No typed array: that of a hundred bytes is a call of malloc, and there are several of a node. */
export type ByGlobal = number[];

/** What is known of registers at a node. */
export interface Residence {
  readonly entry: ByGlobal;
  readonly exit: ByGlobal;
  /** What the node reads before it writes it. */
  readonly needs: ByGlobal;
  /** By instruction of the node: which set of registers to store when it faults, see `faultSets`. */
  readonly faultSet: number[];
}

export interface RegionRegisters {
  readonly of: ReadonlyMap<RegionNode, Residence>;
  /** The distinct sets of registers that faulting instructions leave changed. */
  readonly faultSets: readonly ByGlobal[];
}

/** A node on the way to its `Residence`. */
interface Draft extends Residence {
  readonly node: RegionNode;
  readonly writes: ByGlobal;
  /** Written after the last helper that looks at all registers. */
  readonly changes: ByGlobal;
  storesAll: boolean;
  readonly predecessors: Draft[];
  /** What some loop that the node heads uses. */
  readonly loopUses: ByGlobal;
}

/** May the operation end the instruction early, with a fault or by leaving? */
function mayLeave(words: Int32Array, at: number, helpers: readonly Helper[]): boolean {
  const kind = OP_KIND[words[at]!]!;
  return kind === MEMORY || kind === SIDE_EXIT || (kind === CALL && helpers[words[at + 1]!]!.mayFault);
}

function seesAll(words: Int32Array, at: number, helpers: readonly Helper[]): boolean {
  return OP_KIND[words[at]!] === CALL && helpers[words[at + 1]!]!.touchesGlobals;
}

export class RegisterFinder {
  private readonly count: number;
  private readonly helpers: readonly Helper[];
  private readonly analysis: BlockAnalysis;
  /** Globals that the region uses: few of all. */
  private used: number[] = [];

  constructor(globals: number, helpers: readonly Helper[], analysis: BlockAnalysis) {
    this.count = globals;
    this.helpers = helpers;
    this.analysis = analysis;
  }

  /** @param nodes in reverse post-order */
  find(nodes: readonly RegionNode[]): RegionRegisters {
    const drafts = nodes.map((node) => this.draft(node));
    this.used = [];
    for (let g = 0; g < this.count; g++) if (drafts.some(({ needs, writes }) => needs[g] || writes[g])) this.used.push(g);
    for (const draft of drafts) {
      for (const successor of draft.node.successors) if (successor) drafts[successor.order]!.predecessors.push(draft);
    }
    for (const draft of drafts) if (draft.node.isLoopHeader) this.gatherLoop(draft, drafts);
    while (this.spreadChanges(drafts));
    for (const { exit } of drafts) for (const g of this.used) exit[g]! |= IN_LOCAL;
    while (this.spreadLocals(drafts));
    const faultSets = this.findFaultSets(drafts);
    return { of: new Map(drafts.map((draft) => [draft.node, draft])), faultSets };
  }

  private draft(node: RegionNode): Draft {
    const set = (): ByGlobal => new Array<number>(this.count).fill(0);
    const draft: Draft = {
      node,
      entry: set(),
      exit: set(),
      needs: set(),
      writes: set(),
      changes: set(),
      loopUses: set(),
      storesAll: false,
      predecessors: [],
      faultSet: [],
    };
    this.readBlock(draft);
    return draft;
  }

  private readBlock(draft: Draft): void {
    const { needs, writes, changes } = draft;
    const { words, count } = draft.node.block;
    const { analysis, helpers } = this;
    analysis.run(words, count, helpers, true);
    // Written by the current instruction and not before in this block.
    let recent: number[] = [];
    for (let i = 0; i < count; i++) {
      if (analysis.dead[i]) continue;
      const at = i * STRIDE;
      const op = words[at]!;
      if (op === Op.insn) recent = [];
      else if (IS_GET[op]) needs[words[at + 1]!]! |= writes[words[at + 1]!]! ^ 1;
      else if (IS_SET[op]) {
        const global = words[at + 2]!;
        if (!writes[global]) recent.push(global);
        writes[global] = changes[global] = 1;
      } else {
        if (seesAll(words, at, helpers)) {
          draft.storesAll = true;
          changes.fill(0);
        }
        // Should it fault, the register is stored whether it has been written yet or not.
        if (mayLeave(words, at, helpers)) for (const global of recent) needs[global] = 1;
      }
    }
  }

  /** What the loop of a header uses is in locals all the time. */
  private gatherLoop(header: Draft, drafts: readonly Draft[]): void {
    const within = new Set<Draft>([header]);
    const open = header.predecessors.filter(({ node }) => node.order >= header.node.order);
    for (let draft = open.pop(); draft; draft = open.pop()) {
      if (within.has(draft)) continue;
      within.add(draft);
      open.push(...draft.predecessors);
    }
    for (const draft of drafts) {
      if (!within.has(draft)) continue;
      for (const g of this.used) header.loopUses[g]! |= draft.needs[g]! | draft.writes[g]!;
    }
  }

  /** @returns whether anything new was found */
  private spreadChanges(drafts: readonly Draft[]): boolean {
    let news = false;
    for (const { entry, exit, changes, storesAll, predecessors } of drafts) {
      for (const g of this.used) {
        if (entry[g] === 0 && predecessors.some((before) => before.exit[g] === CHANGED)) {
          entry[g] = CHANGED;
          news = true;
        }
        if (exit[g] === 0 && (changes[g] === 1 || (entry[g] === CHANGED && !storesAll))) {
          exit[g] = CHANGED;
          news = true;
        }
      }
    }
    return news;
  }

  /** Starts from "everything is in locals everywhere" and takes away. @returns whether anything was taken */
  private spreadLocals(drafts: readonly Draft[]): boolean {
    let news = false;
    for (const { node, entry, exit, needs, writes, loopUses, predecessors } of drafts) {
      for (const g of this.used) {
        const everywhere = node.order > 0 && predecessors.every((before) => (before.exit[g]! & IN_LOCAL) !== 0);
        const local = everywhere || loopUses[g] === 1 || (entry[g]! & CHANGED) !== 0;
        entry[g] = (entry[g]! & CHANGED) | (local ? IN_LOCAL : 0);
        if (exit[g]! & IN_LOCAL && !local && !needs[g] && !writes[g]) {
          exit[g]! &= ~IN_LOCAL;
          news = true;
        }
      }
    }
    return news;
  }

  private findFaultSets(drafts: readonly Draft[]): ByGlobal[] {
    const sets: ByGlobal[] = [];
    const known = new Map<string, number>();
    const numberOf = (set: ByGlobal): number => {
      const key = this.keyOf(set);
      let number = known.get(key);
      if (number === undefined) {
        known.set(key, (number = sets.length));
        sets.push(set.slice());
      }
      return number;
    };
    for (const draft of drafts) this.numberFaults(draft, numberOf);
    return sets;
  }

  /** Alike for equal sets of globals that the region uses, and only for them. */
  private keyOf(set: ByGlobal): string {
    const { used } = this;
    let key = '';
    for (let i = 0; i < used.length; i += 16) {
      let bits = 0;
      for (let k = i; k < i + 16 && k < used.length; k++) bits |= set[used[k]!]! << (k - i);
      key += String.fromCharCode(bits);
    }
    return key;
  }

  private numberFaults({ node, entry, faultSet }: Draft, numberOf: (set: ByGlobal) => number): void {
    const { words, count } = node.block;
    const changed = entry.map((flags) => flags >> 1);
    // A fault finds what instructions before have changed, and what its own has when it is one to be gone on with.
    let leaves = false;
    let before = changed.slice();
    for (let i = 0; i <= count; i++) {
      const at = i * STRIDE;
      const op = i < count ? words[at]! : Op.insn;
      if (op === Op.insn) {
        if (faultSet.length > 0) faultSet[faultSet.length - 1] = leaves ? numberOf(before) : -1;
        faultSet.push(-1);
        leaves = false;
        before = changed.slice();
      } else if (IS_SET[op]) changed[words[at + 2]!] = 1;
      else if (seesAll(words, at, this.helpers)) changed.fill(0);
      if (op !== Op.insn && mayLeave(words, at, this.helpers)) {
        leaves = true;
        for (const g of this.used) before[g]! |= changed[g]!;
      }
    }
  }
}

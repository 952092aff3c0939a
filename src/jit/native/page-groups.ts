/**
 * Accesses of one block that are likely to be to one page: their addresses are the same register or temporary, or constants away from
 * it. The first one of a group leaves the page and the addend that it has found for the others, which look whether they are
 * there. Nothing that is known of pages changes within a block.
 */
import { Op } from '../../ir/ops.ts';
import { ACCESS } from '../access.ts';
import { AT_A, AT_B, AT_D, X_CALL, X_MOVE } from '../opcodes.ts';
import { CONSTANTS, TLB_WRITE } from '../layout.ts';
import * as k from './units.ts';
import type { BlockWriter } from './writer.ts';

/** Groups of a block that there is room for. */
const MAX_GROUPS = 4;

/** What an access does, beside its number of a group. */
const LEAVES = 0x100;
const LOOKS = 0x200;

interface Group {
  /** The last access that has to find the page itself, and whether it may be written to. */
  finder: number;
  writes: boolean;
  cell: number;
}

export class PageGroups {
  private readonly w: BlockWriter;
  private readonly groups = new Map<number, Group>();
  /** What is known of slots: the number of the value that they are constants away from. */
  private readonly roots = new Map<number, number>();
  private readonly plan = new Map<number, number>();
  private cells = 0;
  private nextRoot = 0;

  constructor(writer: BlockWriter) {
    this.w = writer;
  }

  /** @param ip of a block's first operation */
  begin(ip: number): void {
    this.groups.clear();
    this.roots.clear();
    this.plan.clear();
    this.cells = this.nextRoot = 0;
    for (let at = ip; ; ) {
      const op = this.w.opcode(at);
      if (op < X_CALL && k.endsBlock(op)) return;
      if (op < X_CALL && (k.KIND[op] === k.LOAD || k.KIND[op] === k.STORE)) this.access(op, at);
      this.define(op, at);
      at = this.w.after(op, at);
    }
  }

  /** Number of the group for which the access at `ip` leaves what it finds, or -1. */
  leaves(ip: number): number {
    const plan = this.plan.get(ip) ?? 0;
    return plan & LEAVES ? plan & 0xff : -1;
  }

  /** Number of the group of which one has left what it has found, or -1. */
  looks(ip: number): number {
    const plan = this.plan.get(ip) ?? 0;
    return plan & LOOKS ? plan & 0xff : -1;
  }

  private word(ip: number, at: number): number {
    return this.w.words[(ip + at) >> 2]!;
  }

  private rootOf(slot: number): number {
    let root = this.roots.get(slot);
    if (root === undefined) this.roots.set(slot, (root = ++this.nextRoot));
    return root;
  }

  private define(op: number, ip: number): void {
    if (op < X_CALL && k.SETS[op] === 0) return;
    const slot = this.word(ip, AT_D);
    const stays = op === X_MOVE || ((op === Op.add64 || op === Op.sub64) && this.word(ip, AT_B) >= CONSTANTS);
    this.roots.set(slot, stays ? this.rootOf(this.word(ip, AT_A)) : ++this.nextRoot);
  }

  private access(op: number, ip: number): void {
    const root = this.rootOf(this.word(ip, AT_A));
    const writes = ACCESS[op]!.tag === TLB_WRITE;
    const group = this.groups.get(root);
    if (group === undefined || (writes && !group.writes)) {
      this.groups.set(root, { finder: ip, writes, cell: group?.cell ?? -1 });
      return;
    }
    if (group.cell < 0) {
      if (this.cells === MAX_GROUPS) return;
      group.cell = this.cells++;
    }
    this.plan.set(group.finder, (this.plan.get(group.finder) ?? 0) | LEAVES | group.cell);
    this.plan.set(ip, LOOKS | group.cell);
  }
}

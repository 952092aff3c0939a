/**
 * Accesses of a region that look for their page once for all of them: those to fields of one structure, to one frame of the stack, and
 * a store to what has been read to be changed. Their addresses differ by constants, so the first, the group's leader, can see whether all lie in one
 * page that the TLB has. Where they do, the others go there without another look; where not, each is done by a call.
 *
 * A group is of one block and of those that are reached from it only, one after the other: whoever comes to a
 * member has passed the leader, and nothing else since.
 */
import { IS_SET } from '../ir/analysis.ts';
import { STRIDE } from '../ir/builder.ts';
import { IS_SUM, Op } from '../ir/ops.ts';
import { ACCESS, type GroupAccess } from './access.ts';
import { TLB_WRITE } from './layout.ts';
import type { RegionNode } from './region.ts';

/** Bytes that a group's accesses may lie apart: the more, the likelier is it that a page ends between them. */
const MOST_APART = 256;
/** Groups that are known of at a time: each has a local. */
const KNOWN = 6;
/** Constants beyond are no distances within a structure. */
const FAR = 1 << 16;

export interface GroupRole extends Omit<GroupAccess, 'addend'> {
  /** Number of the local that holds what leads to the page. */
  readonly slot: number;
}

/** By record. */
export type GroupRoles = ReadonlyMap<number, GroupRole>;

/** How an access finds its page: by the TLB in place, by what is known of the stack's page (which may be written to), or else. */
export const BY_OTHER = 0;
export const BY_TLB = 1;
export const BY_STACK = 2;
export type WayOf = (node: RegionNode, address: number) => number;

/** What an address is: a distance from something that is not known. Twice its number, and one more for sums of 32 bits. */
interface Place {
  readonly root: number;
  readonly offset: number;
}

interface Access {
  readonly record: number;
  /** Roots are numbers of globals as the block finds them, or of values beyond. */
  readonly place: Place;
  readonly bytes: number;
  /** The page must be one that may be written to. */
  readonly write: boolean;
}

interface Summary {
  readonly accesses: readonly Access[];
  /** By global: where it points at the block's end. */
  readonly globals: readonly Place[];
  /** Nodes that are reached from this one only. */
  readonly heirs: readonly RegionNode[];
}

/** A group as the blocks after its leader's know it. */
interface Group {
  readonly slot: number;
  readonly write: boolean;
  /** Bytes from the root on that are known to be in the page. */
  readonly first: number;
  readonly end: number;
}

type Known = Map<number, Group[]>;

const heirsOf = ({ children }: RegionNode): RegionNode[] =>
  children.filter(({ forwardEdges, isLoopHeader }) => forwardEdges === 1 && !isLoopHeader);

/** Sums of 32 bits are not followed into another block. */
const isFollowed = (root: number): boolean => (root & 1) === 0;

/** The constant that a sum adds to its first operand, or null where it is none or a large one. */
function addedBy(words: Int32Array, at: number): number | null {
  const op = words[at]!;
  if (!IS_SUM[op]) return null;
  const constant = words[at + 2]! * STRIDE;
  const low = words[constant + 1]!;
  const isSmall = words[constant] === Op.const32 || (words[constant] === Op.const64 && words[constant + 2] === low >> 31);
  if (!isSmall || Math.abs(low) > FAR) return null;
  return op === Op.sub32 || op === Op.sub64 ? -low : low;
}

export class AccessGroups {
  private readonly globals: number;
  private readonly summaries = new Map<RegionNode, Summary>();
  private readonly roles = new Map<RegionNode, Map<number, GroupRole>>();
  private next = 0;

  constructor(globals: number) {
    this.globals = globals;
  }

  /**
   * @param nodes in reverse post-order
   * @param wayOf how the access by an address (a value) would find its page
   */
  find(nodes: readonly RegionNode[], wayOf: WayOf): void {
    this.summaries.clear();
    this.roles.clear();
    this.next = 0;
    for (const node of nodes) this.summaries.set(node, this.summarize(node, wayOf));
    const inherited = new Map<RegionNode, Known>();
    for (const node of nodes) this.choose(node, inherited.get(node) ?? new Map(), inherited);
  }

  of(node: RegionNode): GroupRoles | undefined {
    return this.roles.get(node);
  }

  private summarize(node: RegionNode, wayOf: WayOf): Summary {
    const { words, count } = node.block;
    const globals: Place[] = Array.from({ length: this.globals }, (_, global) => ({ root: 2 * global, offset: 0 }));
    const places: Place[] = [];
    const accesses: Access[] = [];
    for (let i = 0; i < count; i++) {
      const at = i * STRIDE;
      const op = words[at]!;
      const access = ACCESS[op];
      places.push(this.placeOf(words, i, places, globals));
      if (IS_SET[op]) globals[words[at + 2]!] = places[words[at + 1]!]!;
      if (!access) continue;
      const way = wayOf(node, words[at + 1]!);
      if (way === BY_OTHER) continue;
      const place = places[words[at + 1]!]!;
      accesses.push({ record: i, place, bytes: access.bytes, write: way === BY_STACK || access.tag === TLB_WRITE });
    }
    return { accesses, globals, heirs: heirsOf(node) };
  }

  private placeOf(words: Int32Array, i: number, places: readonly Place[], globals: readonly Place[]): Place {
    const at = i * STRIDE;
    const op = words[at]!;
    if (op === Op.getg64) return globals[words[at + 1]!]!;
    const itself = { root: 2 * (this.globals + i), offset: 0 };
    // Sums of 32 bits wrap elsewhere than those of 64: distances are the same among themselves only.
    if (op === Op.wrap || op === Op.extu) {
      const { root, offset } = places[words[at + 1]!]!;
      return op === Op.wrap || (root & 1) !== 0 ? { root: root | 1, offset } : itself;
    }
    const added = addedBy(words, at);
    const wide = op === Op.add64 || op === Op.sub64;
    const place = added === null ? undefined : places[words[at + 1]!];
    if (place === undefined || (wide && (place.root & 1) !== 0)) return itself;
    return { root: place.root, offset: place.offset + added! };
  }

  /** @param known groups by root that there are when the node begins */
  private choose(node: RegionNode, known: Known, inherited: Map<RegionNode, Known>): void {
    const { accesses, globals, heirs } = this.summaries.get(node)!;
    const roles = new Map<number, GroupRole>();
    accesses.forEach((access, i) => {
      const { record, place, write } = access;
      const groups = known.get(place.root) ?? [];
      // What may be written to may be read.
      const group = groups.find((one) => (one.write || !write) && lies(access, one));
      if (group) return roles.set(record, { leads: false, slot: group.slot, below: 0, span: 0 });
      const range = { first: place.offset, end: place.offset + access.bytes };
      if (!this.gather(range, place.root, write, node, i + 1, 0)) return;
      const slot = this.takeSlot(known);
      known.set(place.root, [...(known.get(place.root) ?? []), { slot, write, ...range }]);
      roles.set(record, { leads: true, slot, below: place.offset - range.first, span: range.end - range.first });
    });
    if (roles.size > 0) this.roles.set(node, roles);
    for (const heir of heirs) inherited.set(heir, handDown(known, globals));
  }

  /**
   * Widens a range by the accesses from one of a node's on, and by those of its heirs.
   * @param shift what must be added to a node's offsets  @returns whether there are any
   */
  private gather(
    range: { first: number; end: number },
    root: number,
    write: boolean,
    node: RegionNode,
    from: number,
    shift: number,
  ): boolean {
    const { accesses, globals, heirs } = this.summaries.get(node)!;
    let found = false;
    for (let i = from; i < accesses.length; i++) {
      const { place, bytes, write: writes } = accesses[i]!;
      if (place.root !== root || (writes && !write)) continue;
      const first = Math.min(range.first, place.offset + shift);
      const end = Math.max(range.end, place.offset + shift + bytes);
      if (end - first > MOST_APART) continue;
      range.first = first;
      range.end = end;
      found = true;
    }
    if (!isFollowed(root)) return found;
    for (const heir of heirs) {
      globals.forEach((place, global) => {
        if (place.root === root && this.gather(range, 2 * global, write, heir, 0, shift + place.offset)) found = true;
      });
    }
    return found;
  }

  /** @returns the number of a local, which the group that had it has no more */
  private takeSlot(known: Known): number {
    const slot = this.next;
    this.next = (this.next + 1) % KNOWN;
    for (const [root, groups] of known) {
      known.set(
        root,
        groups.filter((group) => group.slot !== slot),
      );
    }
    return slot;
  }
}

function lies({ place: { offset }, bytes }: Access, { first, end }: Group): boolean {
  return offset >= first && offset + bytes <= end;
}

/** Groups by what the next block has in its globals. */
function handDown(known: Known, globals: readonly Place[]): Known {
  const handed: Known = new Map();
  globals.forEach(({ root, offset }, global) => {
    const groups = known.get(root);
    if (!groups || !isFollowed(root)) return;
    handed.set(
      2 * global,
      groups.map((group) => ({ ...group, first: group.first - offset, end: group.end - offset })),
    );
  });
  return handed;
}

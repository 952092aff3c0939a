/**
 * Compiles regions to WebAssembly functions with structured control flow
 * (N. Ramsey, Beyond Relooper, ICFP 2022: the dominator tree gives the nesting).
 *
 * A function takes an unused i32 and runs guest code from the pc in the state
 * block until it leaves. Its shape:
 *
 *     block $done
 *       block $fault1
 *         block $fault0
 *           ...nodes...       a way out stores what may have changed and the pc, then tail-calls through a cell
 *         end
 *         an access has faulted, or something else leaves by the side: store one set of changed globals; br $done
 *       end
 *       the same with another set ...
 *     end
 *     note $faultId, which says where, and why; return
 *
 * Where globals are in locals, and which have changed, is found beforehand (registers.ts).
 */
import { I32, I64, IS_SUM, NONE, Op } from '../ir/ops.ts';
import { CTX_UNKNOWN, STRIDE } from '../ir/builder.ts';
import type { Global } from '../ir/builder.ts';
import type { Helper } from '../ir/helpers.ts';
import { BlockAnalysis, IS_GET, IS_SET } from '../ir/analysis.ts';
import {
  CTL_BASE,
  CTL_BUDGET,
  CTL_CTX,
  CTL_EXIT_ARG,
  CTL_EXIT_REASON,
  CTL_FAULT_IP,
  CTL_KICK,
  CTL_MAPPING,
  CTL_PC,
  EXIT_BUDGET,
  EXIT_FAULT,
  EXIT_HOT,
} from '../ir/vcpu-block.ts';
import { AccessGroups, type GroupRoles } from './access-groups.ts';
import { pushTlb } from './access.ts';
import type { PageLocals } from './access.ts';
import { DISPATCH, FIND, FOLLOW, GUARD, LINK, THROUGH, emitFollow, emitJumpCacheProbe, emitThrough } from './dispatch.ts';
import { BlockEmitter } from './emit.ts';
import type { Surroundings } from './emit.ts';
import { CELL_SIZE, GUARD_MAPPING, MAX_LINKS, VCPU_BASE } from './layout.ts';
import { CHANGED, IN_LOCAL, RegisterFinder } from './registers.ts';
import type { ByGlobal, RegionRegisters, Residence } from './registers.ts';
import type { RegionNode } from './region.ts';
import { copiesOf, exitContext, staysBy } from './region.ts';
import { RUNTIME_FUNCTIONS, type Signature } from './signatures.ts';
import {
  BLOCK,
  BR,
  BR_IF,
  CALL,
  Code,
  ELSE,
  I32_EQZ,
  I32_LOAD,
  I32_OR,
  I32_LT_S,
  I32_NE,
  I32_STORE,
  I32_SUB,
  I32_ADD,
  I64_ADD,
  I64_EQ,
  I64_LOAD,
  I64_STORE,
  I64_SUB,
  LOAD_OP,
  LOOP,
  ModuleWriter,
  RETURN,
  RETURN_CALL,
  STORE_OP,
} from '../wasm/wasm.ts';
import type { Inline } from '../wasm/structured.ts';

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
  /** Address of room for MAX_LINKS links (layout.ts, LINK_*). */
  readonly links: number;
  /** Address of a word that counts down how often the region is entered, and says so at the end; 0 = nobody counts. */
  readonly entries: number;
  /** Number of the entry block. */
  readonly block: number;
  /** Look the TLB up in place outside loops, too: faster, but larger. */
  readonly inline: boolean;
}

export interface CompilerOptions {
  readonly globals: readonly Global[];
  readonly helpers: readonly Helper[];
  /** See Isa.inlines. */
  readonly inlines?: ReadonlyMap<number, Inline> | undefined;
  /** Count every block exactly (instruction-counted clock) instead of loops only. */
  readonly exactCount: boolean;
  /** Number of the global that points to the stack, -1 = none. */
  readonly stackPointer: number;
}

function hexadecimal([low, high]: readonly [number, number]): string {
  return ((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16);
}

/** A step of so many bytes leaves a page too soon for remembering it to pay. */
const FAR = 128;

/** Size of the constant that a value is a sum or difference with, with 32 bits or with 64; 0 = it is none. */
function stepOf(words: Int32Array, value: number): number {
  let at = value * STRIDE;
  if (words[at] === Op.extu) at = words[at + 1]! * STRIDE;
  if (!IS_SUM[words[at]!]) return 0;
  const constant = words[at + 2]! * STRIDE;
  const op = words[constant];
  return op === Op.const64 || op === Op.const32 ? Math.abs(words[constant + 1]!) : 0;
}

/** Control constructs around the place being emitted, innermost last. */
type Label = RegionNode | null;

export class RegionCompiler implements Surroundings {
  private readonly options: CompilerOptions;
  private readonly code: Code;
  private readonly emitter: BlockEmitter;
  private readonly module: ModuleWriter;
  private readonly functions: ReadonlyMap<string, Signature>;
  private region!: RegionToCompile;
  private readonly globalLocals: Int32Array;
  private readonly used: Uint8Array;
  /** Globals that go far with each step in some loop: from page to page soon. */
  private readonly strides: Uint8Array;
  private labels: Label[] = [];
  private base = 0;
  /** The pc that a computed jump goes to. */
  private exitPc = 0;
  private faultId = 0;
  /** EXIT_FAULT until something leaves by the side for another reason. */
  private exitReason = 0;
  private exitArgument = 0;
  private budget = 0;
  private node!: RegionNode;
  private registers!: RegionRegisters;
  private readonly finder: RegisterFinder;
  /** Of the registers where code is being emitted, see registers.ts. */
  private readonly flags: ByGlobal;
  /** Of the node's instructions, the one being emitted. */
  private insnNumber = -1;
  private conditionals = 0;
  /** Links that the region has so far. */
  private linked = 0;
  tlb = 0;
  readonly stackPointer: number;
  /** Of the block being emitted, see `Surroundings`. */
  inLoop = false;
  inline = false;
  /** By global and kind of access; made when first needed. */
  private readonly pages = new Map<number, PageLocals>();
  private readonly finderOfGroups: AccessGroups;
  groups: GroupRoles | undefined;
  private readonly addends: number[] = [];

  constructor(options: CompilerOptions, module: ModuleWriter) {
    this.options = options;
    this.module = module;
    this.code = module.code();
    this.functions = RUNTIME_FUNCTIONS[this.code.addressType]!;
    this.globalLocals = new Int32Array(options.globals.length);
    this.flags = options.globals.map(() => 0);
    this.finder = new RegisterFinder(options.globals.length, options.helpers, new BlockAnalysis(options.globals.length));
    this.finderOfGroups = new AccessGroups(options.globals.length);
    this.used = new Uint8Array(options.globals.length);
    this.strides = new Uint8Array(options.globals.length);
    this.stackPointer = options.stackPointer;
    this.emitter = new BlockEmitter(this.code, options.globals.length, options.helpers, options.inlines);
  }

  slow(name: string): number {
    const { params, result } = this.functions.get(name)!;
    return this.module.import(name, params, result);
  }

  helper({ index, params, result }: Helper): number {
    return this.module.import(`h${index}`, params, result);
  }

  remembersPage(global: number): boolean {
    return this.strides[global] === 0;
  }

  page(global: number, store: boolean): PageLocals {
    const key = global * 2 + (store ? 1 : 0);
    let page = this.pages.get(key);
    if (!page) this.pages.set(key, (page = this.newPage()));
    return page;
  }

  groupAddend(slot: number): number {
    return (this.addends[slot] ??= this.code.local(this.code.addressType));
  }

  private findGroups(nodes: readonly RegionNode[]): void {
    this.finderOfGroups.find(nodes, (node, address) => {
      this.setPlace(node);
      return this.emitter.wayOf(node.block.words, address, this);
    });
  }

  /** Locals that remember a page. */
  private newPage(): PageLocals {
    const c = this.code;
    return { tag: c.local(I64), addend: c.local(c.addressType), limit: c.local(I64) };
  }

  globalLocal(global: number): number {
    return this.globalLocals[global]!;
  }

  basePc(): void {
    this.code.get(this.base);
  }

  instruction(): void {
    this.insnNumber++;
  }

  /** What CTL_FAULT_IP is set to when the current instruction leaves by the side: negative. */
  private currentFault(): number {
    return -1 - (this.node.faultBase + this.insnNumber);
  }

  /** Leaves the pc to the host, which finds it by the fault number. Short: there is one for each access. */
  faultIf(depth: number): void {
    const set = this.residence(this.node).faultSet[this.insnNumber]!;
    this.code.i32(this.currentFault());
    this.code.set(this.faultId);
    this.code.br(BR_IF, this.labels.length + this.conditionals + depth + set);
  }

  /** As short as that, for the same reason: what is to be stored is as after a fault, which may be more than has changed. */
  sideExit(reason: number, argument: number, depth: number): void {
    const c = this.code;
    const set = this.residence(this.node).faultSet[this.insnNumber]!;
    c.i32(this.currentFault());
    c.set(this.faultId);
    c.i32(reason);
    c.set(this.exitReason);
    c.i32(argument);
    c.set(this.exitArgument);
    c.br(BR, this.labels.length + this.conditionals + depth + set);
  }

  private storeAt(field: number, value: () => void, opcode = I32_STORE): void {
    this.code.storeAt(opcode, VCPU_BASE + field, value);
  }

  private storeGlobal(index: number): void {
    const { type, offset } = this.options.globals[index]!;
    this.code.storeAt(STORE_OP[type]!, VCPU_BASE + offset, () => this.code.get(this.globalLocals[index]!));
  }

  private loadGlobal(index: number): void {
    const { type, offset } = this.options.globals[index]!;
    this.code.loadAt(LOAD_OP[type]!, VCPU_BASE + offset);
    this.code.set(this.globalLocals[index]!);
  }

  /** @param flags see registers.ts */
  private storeChanged(flags: ByGlobal): void {
    for (let g = 0; g < flags.length; g++) if (flags[g]! & CHANGED) this.storeGlobal(g);
  }

  /** Loads what is wanted in locals at one place and has not been at another. */
  private loadMissing(wanted: ByGlobal, there: ByGlobal | null): void {
    for (let g = 0; g < wanted.length; g++) {
      if (wanted[g]! & IN_LOCAL && !(there && there[g]! & IN_LOCAL)) this.loadGlobal(g);
    }
  }

  wrote(global: number): void {
    this.flags[global] = IN_LOCAL | CHANGED;
  }

  spill(): void {
    this.storeChanged(this.flags);
    for (let g = 0; g < this.flags.length; g++) this.flags[g]! &= ~CHANGED;
  }

  reload(): void {
    this.loadMissing(this.flags, null);
  }

  /** Which globals the region uses at all. */
  private findGlobals(): void {
    this.used.fill(0);
    this.strides.fill(0);
    for (const { block, inLoop } of this.region.nodes) {
      const { words } = block;
      for (let at = 0; at < block.count * STRIDE; at += STRIDE) {
        const op = words[at]!;
        if (IS_GET[op]) this.used[words[at + 1]!] = 1;
        else if (IS_SET[op]) {
          const global = words[at + 2]!;
          this.used[global] = 1;
          if (inLoop && stepOf(words, words[at + 1]!) > FAR) this.strides[global] = 1;
        }
      }
    }
  }

  /** Adds the region's function to the module and puts it into its table slot. */
  compile(region: RegionToCompile): void {
    const c = this.code;
    this.region = region;
    c.begin([I32]);
    this.emitter.beginFunction();
    this.findGlobals();
    this.base = c.local(I64);
    this.exitPc = c.local(I64);
    this.faultId = c.local(I32);
    this.exitReason = c.local(I32);
    this.exitArgument = c.local(I32);
    c.i32(EXIT_FAULT);
    c.set(this.exitReason);
    this.budget = c.local(I32);
    this.tlb = c.local(c.addressType);
    this.options.globals.forEach((global, i) => {
      if (this.used[i]) this.globalLocals[i] = c.local(global.type);
    });
    this.registers = this.finder.find(region.nodes);
    const entry = region.nodes[0]!;
    c.loadAt(I64_LOAD, VCPU_BASE + CTL_PC);
    c.set(this.base);
    pushTlb(c);
    c.set(this.tlb);
    this.labels = [];
    this.conditionals = 0;
    this.linked = 0;
    this.pages.clear();
    this.addends.length = 0;
    this.findGroups(region.nodes);
    this.mergeLabels.clear();
    this.emitEntryGuards();
    if (!this.options.exactCount) this.emitEntryBudget(entry);
    this.loadMissing(this.residence(entry).entry, null);
    c.block(BLOCK);
    for (let i = 0; i < this.registers.faultSets.length; i++) c.block(BLOCK);
    this.emitTree(entry);
    this.emitFaults();
    const index = this.module.function([I32], NONE, c);
    this.module.name(index, `region_${hexadecimal(region.pc)}`);
    this.module.element(region.slot, index);
  }

  private residence(node: RegionNode): Residence {
    return this.registers.of.get(node)!;
  }

  /** Ends the blocks around the nodes: what faulting accesses and side exits branch to. */
  private emitFaults(): void {
    const c = this.code;
    const { faultSets } = this.registers;
    faultSets.forEach((set, i) => {
      c.end();
      for (let g = 0; g < set.length; g++) if (set[g]) this.storeGlobal(g);
      c.br(BR, faultSets.length - 1 - i);
    });
    c.end();
    if (faultSets.length === 0) return;
    this.storeAt(CTL_FAULT_IP, () => c.get(this.faultId));
    this.storeAt(CTL_EXIT_REASON, () => c.get(this.exitReason));
    this.storeAt(CTL_EXIT_ARG, () => c.get(this.exitArgument));
    this.storeAt(CTL_BASE, () => c.get(this.base), I64_STORE);
    this.writeBudgetBack();
  }

  /** Goes to the interpreter when the entry block runs into a page that is not mapped where it was. */
  private emitEntryGuards(): void {
    for (const guard of this.region.nodes[0]!.guards) {
      this.emitGuard(guard, () => emitThrough(this.code, this.module, () => this.code.address(this.region.fallbackCell)));
    }
  }

  /**
   * Another page may be mapped elsewhere now. A guard holds as long as the mapping has not changed since
   * it did. @param otherwise what to do when it does not hold; never falls through
   */
  private emitGuard(guard: number, otherwise: () => void): void {
    const c = this.code;
    c.loadAt(I32_LOAD, VCPU_BASE + CTL_MAPPING);
    c.loadAt(I32_LOAD, guard + GUARD_MAPPING);
    c.op(I32_NE);
    c.if(false);
    c.address(guard);
    c.get(this.base);
    c.call(CALL, this.slow(GUARD));
    c.op(I32_EQZ);
    c.if(false);
    otherwise();
    c.end();
    c.end();
  }

  /**
   * A node and all that it dominates. A loop looks at the budget where it goes back, not where it begins,
   * since many end in their first round:
   *
   *     loop
   *       block            what goes back branches here
   *         the node ...   never falls through
   *       end
   *       budget; br 0
   *     end
   */
  private emitTree(node: RegionNode): void {
    const c = this.code;
    const copies = this.options.exactCount ? 1 : copiesOf(node, this.region.nodes);
    const loop = node.isLoopHeader && copies === 1;
    if (loop) {
      c.block(LOOP);
      c.block(BLOCK);
      this.labels.push(null, node);
    }
    const merges = node.children.filter((child) => child.forwardEdges > 1);
    merges.sort((a, b) => b.order - a.order);
    this.emitWithin(node, merges, 0, copies);
    if (loop) {
      this.labels.pop();
      c.end();
      if (!this.options.exactCount) this.emitBudget(node, 1);
      c.br(BR, 0);
      this.labels.pop();
      c.end();
    }
  }

  /**
   * The copies of a block that is a loop by itself:
   *
   *     block
   *       loop
   *         copy; br_if 1 when it is over; ... copy; br_if 1; budget; br 0
   *       end
   *     end
   *     the way out
   */
  private emitCopies(node: RegionNode, copies: number): void {
    const c = this.code;
    const { words, count } = node.block;
    const condition = words[(count - 1) * STRIDE + 1]!;
    const again = node.successors[0] === node ? 0 : 1;
    const ctx = this.contextAfter(node);
    c.block(BLOCK);
    c.block(LOOP);
    this.labels.push(null, null);
    this.node = node;
    for (let copy = 0; copy < copies; copy++) {
      this.emitBody(node);
      if (node.ctx === CTX_UNKNOWN) this.storeContext(ctx);
      this.emitter.pushValue(condition);
      if (again === 0) c.op(I32_EQZ);
      c.br(BR_IF, 1);
    }
    this.emitBudget(node, copies);
    c.br(BR, 0);
    this.labels.length -= 2;
    c.end();
    c.end();
    this.emitEdge(node, 1 - again, words[(count - 1) * STRIDE + 3 - again]!, ctx);
  }

  private contextAfter(node: RegionNode): number {
    const out = exitContext(node.block);
    return out === CTX_UNKNOWN ? node.ctx : out;
  }

  private emitBody(node: RegionNode): void {
    this.insnNumber = -1;
    const { entry, needs } = this.residence(node);
    entry.forEach((flags, g) => (this.flags[g] = flags));
    for (let g = 0; g < needs.length; g++) {
      if (!needs[g] || this.flags[g]! & IN_LOCAL) continue;
      this.loadGlobal(g);
      this.flags[g] = IN_LOCAL;
    }
    this.setPlace(node);
    this.groups = this.finderOfGroups.of(node);
    this.emitter.emitBody(node.block.words, node.block.count, this);
  }

  private setPlace(node: RegionNode): void {
    this.inLoop = node.inLoop && !node.inSwitch;
    this.inline = node.inLoop || this.region.inline;
  }

  private emitWithin(node: RegionNode, merges: RegionNode[], next: number, copies: number): void {
    if (next === merges.length) {
      if (copies > 1) this.emitCopies(node, copies);
      else this.emitNode(node);
      return;
    }
    const merge = merges[next]!;
    this.code.block(BLOCK);
    // A block label stands for the merge node that follows its end.
    this.labels.push(merge);
    this.mergeLabels.add(this.labels.length - 1);
    this.emitWithin(node, merges, next + 1, copies);
    this.mergeLabels.delete(this.labels.length - 1);
    this.labels.pop();
    this.code.end();
    this.emitTree(merge);
  }

  private readonly mergeLabels = new Set<number>();

  private emitNode(node: RegionNode): void {
    this.node = node;
    if (this.options.exactCount) this.emitBudget(node, 1);
    this.emitBody(node);
    this.emitExit(node);
  }

  /** Instructions that are counted when control passes the node. @param rounds that a loop does before the next look */
  private cost(node: RegionNode, rounds: number): number {
    return this.options.exactCount ? node.block.insns : Math.max(node.block.insns, (node.loopInsns * rounds) >> 1);
  }

  /**
   * Leaves "the slice is over" on the stack: nothing is left of the budget, or a device wants attention.
   * @param counted or of the entries, see `countEntry`
   */
  private pushOver(counted = false): void {
    const c = this.code;
    c.get(this.budget);
    if (counted) {
      c.get(this.faultId);
      c.op(I32_OR);
    }
    if (!this.options.exactCount) {
      c.loadAt(I32_LOAD, VCPU_BASE + CTL_KICK);
      c.op(I32_OR);
    }
    c.i32(0);
    c.op(I32_LT_S);
  }

  /** Begins the region's count; where the slice is over, leaves before anything has been done. */
  private emitEntryBudget(entry: RegionNode): void {
    const c = this.code;
    c.loadAt(I32_LOAD, VCPU_BASE + CTL_BUDGET);
    c.i32(this.cost(entry, 1));
    c.op(I32_SUB);
    c.set(this.budget);
    const { entries, block } = this.region;
    if (entries !== 0) this.countEntry(entries);
    this.pushOver(entries !== 0);
    c.if(false);
    this.storeAt(CTL_EXIT_REASON, () => c.i32(EXIT_BUDGET));
    if (entries !== 0) this.sayHot(block);
    c.op(RETURN);
    c.end();
  }

  /** Where the entries are over, that is why the region is left. */
  private sayHot(block: number): void {
    const c = this.code;
    c.get(this.faultId);
    c.i32(0);
    c.op(I32_LT_S);
    c.if(false);
    this.storeAt(CTL_EXIT_REASON, () => c.i32(EXIT_HOT));
    this.storeAt(CTL_EXIT_ARG, () => c.i32(block));
    c.end();
  }

  /** Leaves what is left of the entries in `faultId`, which is free here. */
  private countEntry(entries: number): void {
    const c = this.code;
    c.storeAt(I32_STORE, entries, () => {
      c.loadAt(I32_LOAD, entries);
      c.i32(1);
      c.op(I32_SUB);
      c.tee(this.faultId);
    });
  }

  /** Counts the slice down; where it is over, leaves with the pc at this node. @param rounds see `cost` */
  private emitBudget(node: RegionNode, rounds: number): void {
    const { exactCount } = this.options;
    const cost = this.cost(node, rounds);
    const c = this.code;
    if (exactCount) c.loadAt(I32_LOAD, VCPU_BASE + CTL_BUDGET);
    else c.get(this.budget);
    c.i32(cost);
    c.op(I32_SUB);
    c.set(this.budget);
    if (exactCount) this.storeAt(CTL_BUDGET, () => c.get(this.budget));
    this.pushOver();
    c.if(false);
    // What has not run is not counted.
    c.get(this.budget);
    c.i32(cost);
    c.op(I32_ADD);
    c.set(this.budget);
    if (exactCount) this.storeAt(CTL_BUDGET, () => c.get(this.budget));
    this.storeChanged(this.residence(node).entry);
    this.storeContext(node.ctx);
    this.storeAt(CTL_EXIT_REASON, () => c.i32(EXIT_BUDGET));
    this.storeAt(CTL_PC, () => this.pushPc(node.offset), I64_STORE);
    this.writeBudgetBack();
    c.op(RETURN);
    c.end();
  }

  /** Unless instructions are counted exactly, the budget is in a local from the entry to here. */
  private writeBudgetBack(): void {
    if (!this.options.exactCount) this.storeAt(CTL_BUDGET, () => this.code.get(this.budget));
  }

  private storeContext(ctx: number): void {
    if (ctx !== CTX_UNKNOWN) this.storeAt(CTL_CTX, () => this.code.i32(ctx));
  }

  private pushPc(offset: number): void {
    this.code.get(this.base);
    if (offset !== 0) {
      this.code.i64(offset);
      this.code.op(I64_ADD);
    }
  }

  private emitExit(node: RegionNode): void {
    const { words, count } = node.block;
    const at = (count - 1) * STRIDE;
    const op = words[at]!;
    const ctx = this.contextAfter(node);
    if (op === Op.goto) this.emitEdge(node, 0, words[at + 1]!, ctx);
    else if (op === Op.condgoto) {
      const likely = staysBy(node);
      this.emitter.pushValue(words[at + 1]!);
      this.code.if(likely);
      this.conditionals++;
      this.emitEdge(node, 0, words[at + 2]!, ctx, likely !== undefined);
      this.code.op(ELSE);
      this.emitEdge(node, 1, words[at + 3]!, ctx, likely !== undefined);
      this.conditionals--;
      this.code.end();
      this.code.op(0x00); // both arms have gone elsewhere
    } else if (op === Op.jump) {
      this.emitter.pushValue(words[at + 1]!);
      this.code.set(this.exitPc);
      const seen = this.emitSeenTargets(node, ctx);
      this.storeContext(ctx);
      this.leaveByJump(node, seen === 1);
    } else this.emitLeave(node, at, ctx);
  }

  /** A computed jump that goes where it went before stays in the region. @returns the number of such targets */
  private emitSeenTargets(node: RegionNode, ctx: number): number {
    const c = this.code;
    const { length } = node.successors.filter((target) => target);
    if (length === 0) return 0;
    const offset = c.local(I64);
    c.get(this.exitPc);
    c.get(this.base);
    c.op(I64_SUB);
    c.set(offset);
    node.successors.forEach((target, slot) => {
      if (!target) return;
      c.get(offset);
      c.i64(target.offset);
      c.op(I64_EQ);
      c.if(length === 1 ? true : undefined);
      this.conditionals++;
      this.emitEdge(node, slot, target.offset, ctx);
      this.conditionals--;
      c.end();
    });
    return length;
  }

  /** Leaves the region behind a node for the pc in `exitPc`, by way of the jump cache. @param seldom small, not fast */
  private leaveByJump(node: RegionNode, seldom: boolean): void {
    const c = this.code;
    const pushPc = (): void => c.get(this.exitPc);
    this.storeAt(CTL_PC, pushPc, I64_STORE);
    this.storeChanged(this.residence(node).exit);
    this.writeBudgetBack();
    if (seldom) {
      c.i32(0);
      return c.call(RETURN_CALL, this.slow(DISPATCH));
    }
    const cell = c.local(c.addressType);
    const miss = (): void => {
      c.i32(0);
      c.call(RETURN_CALL, this.slow(FIND));
    };
    emitJumpCacheProbe(c, cell, miss, pushPc);
    c.set(cell);
    emitThrough(c, this.module, () => c.get(cell));
  }

  /** What the state block must have when the region is left behind a node. @param offset of the pc that comes next */
  private storeForExit(node: RegionNode, offset: number, ctx: number): void {
    this.storeContext(ctx);
    this.storeAt(CTL_PC, () => this.pushPc(offset), I64_STORE);
    this.storeChanged(this.residence(node).exit);
    this.writeBudgetBack();
  }

  private emitLeave(node: RegionNode, at: number, ctx: number): void {
    const { words } = node.block;
    this.storeForExit(node, words[at + 3]!, ctx);
    this.storeAt(CTL_EXIT_REASON, () => this.code.i32(words[at + 1]!));
    this.storeAt(CTL_EXIT_ARG, () => this.code.i32(words[at + 2]!));
    this.code.op(RETURN);
  }

  /** @param seldom where the edge leaves the region, that is to be small, not fast */
  private emitEdge(node: RegionNode, slot: number, offset: number, ctx: number, seldom = false): void {
    const target = node.successors[slot];
    const cell = node.cells[slot]!;
    if (!target) return cell ? this.emitLeaving(node, offset, ctx, cell, seldom) : this.emitCrossing(node, offset, ctx, seldom);
    for (const guard of target.guards) {
      if (!node.guards.includes(guard))
        this.emitGuard(guard, () => this.emitLeaving(node, offset, ctx, this.region.dispatchCell, true));
    }
    // A target that was compiled without knowing the context finds it in the state block.
    if (target.ctx === CTX_UNKNOWN) this.storeContext(ctx);
    this.loadMissing(this.residence(target).entry, this.residence(node).exit);
    if (target.order <= node.order || target.forwardEdges > 1) {
      this.code.br(BR, this.depthOf(target, target.order <= node.order) + this.conditionals);
      return;
    }
    // The only way in: the target's text stands right here, inside the enclosing conditionals.
    const outer = this.conditionals;
    for (let i = 0; i < outer; i++) this.labels.push(null);
    this.conditionals = 0;
    this.emitTree(target);
    this.conditionals = outer;
    this.labels.length -= outer;
  }

  /** @param cell to go on through  @param seldom see emitEdge */
  private emitLeaving(node: RegionNode, offset: number, ctx: number, cell: number, seldom: boolean): void {
    this.storeForExit(node, offset, ctx);
    if (!seldom) return emitThrough(this.code, this.module, () => this.code.address(cell));
    this.code.address(cell);
    this.code.call(RETURN_CALL, this.slow(THROUGH));
  }

  /** Leaves for a place on another page: the end of the way there is remembered while the mapping stays the same. */
  private emitCrossing(node: RegionNode, offset: number, ctx: number, seldom: boolean): void {
    if (this.linked === MAX_LINKS) return this.emitLeaving(node, offset, ctx, this.region.dispatchCell, seldom);
    const c = this.code;
    const link = this.region.links + CELL_SIZE * this.linked++;
    this.storeForExit(node, offset, ctx);
    if (seldom) {
      c.address(link);
      return c.call(RETURN_CALL, this.slow(FOLLOW));
    }
    emitFollow(
      c,
      this.module,
      () => c.address(0),
      link,
      () => c.call(RETURN_CALL, this.slow(LINK)),
    );
  }

  private depthOf(target: RegionNode, backwards: boolean): number {
    for (let i = this.labels.length - 1; i >= 0; i--) {
      if (this.labels[i] === target && this.mergeLabels.has(i) !== backwards) return this.labels.length - 1 - i;
    }
    throw new Error(`region compiler: no label for the node at offset ${target.offset}`);
  }
}

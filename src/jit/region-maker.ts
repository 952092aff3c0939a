/** From requests to modules: builds the regions of hot blocks and compiles them, in whatever thread. */
import { Builder, CTX_UNKNOWN, STRIDE } from '../ir/builder.ts';
import { Op } from '../ir/ops.ts';
import type { Isa } from '../isa/isa.ts';
import { RegionCompiler } from './compile.ts';
import { CELL_SIZE, GUARD_HOST, GUARD_OFFSET, GUARD_SIZE, MAX_LINKS } from './layout.ts';
import { CodeMemory, CodeSource, hotIn, MAX_GUARDS } from './region-source.ts';
import { RehearsalSource } from './rehearsal-source.ts';
import type { OtherPage } from './region-source.ts';
import { buildRegion } from './region.ts';
import type { RegionNode } from './region.ts';
import { readRequests } from './request.ts';
import type { CompiledBatch, MadeRegion, RegionRequest } from './request.ts';
import { ModuleWriter } from '../wasm/wasm.ts';

/** What a compiler must know of the machine; can be sent to another thread. */
export interface MakerSettings {
  /** Count every block exactly (instruction-counted clock) instead of loops only. */
  readonly exactCount: boolean;
  /** Executions at which a block becomes hot, see `hotIn`. */
  readonly hot: number;
  /** Blocks become code of the host's processor before they are hot. */
  readonly native?: boolean;
  /** Cell through which to go on at a computed pc. */
  readonly dispatchCell: number;
  /** Functions are compiled with their module: in a thread that has the time. */
  readonly early?: boolean;
}

/** A region that nobody will enter. */
const NOWHERE = {
  pc: [0, 0],
  slot: 0,
  dispatchCell: 0,
  fallbackCell: 0,
  links: 0,
  entries: 0,
  block: 0,
  inline: true,
} as const;

const NOT_MADE: MadeRegion = { ranges: [], faultBase: 0, faults: new Int32Array(0) };

export class RegionMaker {
  private readonly isa: Isa;
  private readonly settings: MakerSettings;
  private readonly memory: CodeMemory;
  private readonly builder: Builder;
  private readonly pages: number;
  private readonly shared: boolean;
  private nextFault: number;
  private readonly makeBest: (bytes: Uint8Array<ArrayBuffer>) => WebAssembly.Module;

  /**
   * @param firstFault number that is free for instructions that may fault
   * @param makeBest makes modules of wide regions
   */
  constructor(
    isa: Isa,
    buffer: ArrayBufferLike,
    settings: MakerSettings,
    firstFault = 0,
    makeBest = (bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module => new WebAssembly.Module(bytes),
  ) {
    this.nextFault = firstFault;
    this.makeBest = makeBest;
    this.isa = isa;
    this.settings = settings;
    this.memory = new CodeMemory(buffer, (flags) => hotIn(isa, settings.hot, flags), settings.native === true);
    this.builder = new Builder(isa.globals);
    this.pages = buffer.byteLength / 65536;
    this.shared = buffer instanceof SharedArrayBuffer;
  }

  /** @param words what `writeRequests` made  @param fresh all code from before has been dropped */
  compile(words: Int32Array, fresh: boolean): CompiledBatch {
    if (fresh) {
      this.nextFault = 0;
      this.memory.clear();
    }
    const module = this.newModule(this.settings.early);
    const compiler = this.compilerFor(module);
    const requests = readRequests(words);
    const regions = requests.map((request) => this.tryToMake(request, compiler));
    if (!regions.some(({ ranges }) => ranges.length > 0)) return { module: null, regions };
    // What has been entered so often is worth V8's optimiser at once; until that is done, it has its narrow region.
    const best = requests.some(({ wide }) => wide !== 0);
    return { module: best ? this.makeBest(module.finish()) : new WebAssembly.Module(module.finish()), regions };
  }

  /** See Isa.rehearsal. What is made is of no use. */
  rehearse(): void {
    if (!this.isa.rehearsal) return;
    const module = this.newModule(true);
    const nodes = buildRegion(new RehearsalSource(this.isa, this.builder));
    for (const node of nodes ?? []) node.cells = node.block.targets.map(() => 0);
    if (nodes) this.compilerFor(module).compile({ ...NOWHERE, nodes });
    new WebAssembly.Module(module.finish());
  }

  private newModule(early: boolean | undefined): ModuleWriter {
    const module = new ModuleWriter(this.pages, this.pages, this.shared);
    if (early) module.compileEarly();
    return module;
  }

  private compilerFor(module: ModuleWriter): RegionCompiler {
    const { isa } = this;
    return new RegionCompiler(
      {
        globals: isa.globals,
        helpers: isa.helpers,
        inlines: isa.inlines,
        exactCount: this.settings.exactCount,
        stackPointer: isa.stackPointer?.index ?? -1,
      },
      module,
    );
  }

  /** A region that cannot be made for a mistake in here costs speed, not the machine. */
  private tryToMake(request: RegionRequest, compiler: RegionCompiler): MadeRegion {
    try {
      return this.make(request, compiler);
    } catch (error) {
      return { ...NOT_MADE, error: String(error) };
    }
  }

  private make(request: RegionRequest, compiler: RegionCompiler): MadeRegion {
    const { isa, memory } = this;
    const source = new CodeSource(memory, isa, this.builder, request);
    const wide = request.wide !== 0;
    if (!memory.begin(source.entryCode, wide)) return NOT_MADE;
    const nodes = buildRegion(source);
    if (!nodes) return NOT_MADE;
    for (const { offset } of nodes) if (offset !== 0) memory.covered(source.codeAt(offset));
    const faultBase = this.nextFault;
    const faults: number[] = [];
    const inline = isa.favoursSpeed?.(request.flags) ?? true;
    const guards = this.writeGuards(request.guards, source.otherPages());
    for (const node of nodes) {
      this.prepareNode(node, source, faults);
      node.guards = source.pagesOf(node.offset).flatMap((page) => guards.get(page) ?? []);
    }
    compiler.compile({
      pc: [request.low, request.high],
      nodes,
      slot: request.slot,
      dispatchCell: this.settings.dispatchCell,
      fallbackCell: request.fallbackCell,
      links: request.guards + MAX_GUARDS * GUARD_SIZE,
      entries: inline && !wide ? request.guards + MAX_GUARDS * GUARD_SIZE + MAX_LINKS * CELL_SIZE : 0,
      block: request.block,
      inline,
    });
    return { ranges: source.ranges(nodes), faultBase, faults: Int32Array.from(faults) };
  }

  /** Adds what a node's place decides: entry cells of targets outside, numbers of instructions that may fault. */
  private prepareNode(node: RegionNode, source: CodeSource, faults: number[]): void {
    const { block } = node;
    node.cells = block.targets.map((target, slot) => (node.successors[slot] ? 0 : source.targetCell(target)));
    node.faultBase = this.nextFault;
    let left = block.insns;
    for (let at = 0; at < block.count * STRIDE; at += STRIDE) {
      if (block.words[at] !== Op.insn) continue;
      const ctx = block.words[at + 2]!;
      faults.push(block.words[at + 1]!, ctx === CTX_UNKNOWN ? node.ctx : ctx, left--);
      this.nextFault++;
    }
  }

  /** @param at address of room for them  @returns their addresses by page */
  private writeGuards(at: number, pages: readonly OtherPage[]): Map<number, number> {
    const { words } = this.memory;
    const guards = new Map<number, number>();
    for (const { page, offset, host } of pages) {
      words[(at + GUARD_OFFSET) >> 2] = offset;
      words[(at + GUARD_OFFSET + 4) >> 2] = offset >> 31;
      words[(at + GUARD_HOST) >> 2] = host | 0;
      words[(at + GUARD_HOST + 4) >> 2] = Math.floor(host / 0x100000000);
      guards.set(page, at);
      at += GUARD_SIZE;
    }
    return guards;
  }
}

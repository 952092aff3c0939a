/**
 * Runs one vCPU by translation: the loop around the translated code, the slow path
 * of memory accesses, and the services that the ISA's system code needs.
 */
import { Builder, CTX_UNKNOWN } from '../ir/builder.ts';
import {
  CTL_BASE,
  CTL_BASE_MASK,
  CTL_BUDGET,
  CTL_CODE_KEY,
  CTL_CTX,
  CTL_EXIT_ARG,
  CTL_EXIT_REASON,
  CTL_FAULT,
  CTL_FAULT_IP,
  CTL_HOST_ADDR,
  CTL_JUMP_BASE,
  CTL_KICK,
  CTL_MAPPING,
  CTL_OTHER_JUMPS,
  CTL_OTHER_KEY,
  CTL_OTHER_MAPPING,
  CTL_OTHER_TLB,
  CTL_PC,
  CTL_SLOW_ADDR,
  CTL_SLOW_SIZE,
  CTL_SLOW_VALUE,
  CTL_TLB_BASE,
  EXIT_BUDGET,
  EXIT_FAULT,
  EXIT_HOT,
  EXIT_LOOKUP,
  FAULT_EXCEPTION,
  FAULT_NONE,
  FAULT_RESTART,
  KICK_ANSWER,
  KICK_STOP,
} from '../ir/vcpu-block.ts';
import { ACCESS_EXEC, ACCESS_READ, ACCESS_WRITE } from '../isa/isa.ts';
import type { EngineServices, Translation, Vcpu } from '../isa/isa.ts';
import { KIND_MODIFY, KIND_SIGNED, KIND_WRITE } from './access.ts';
import { BlockTable, MAX_BLOCK_INSNS, PAGE_HAS_CODE } from './blocks.ts';
import { CodeIndex, INDEX_CROSSING } from './dispatch.ts';
import type { Block } from './blocks.ts';
import type { EngineMemory, EngineOptions } from './engine-options.ts';
import { Encoder, writeSharedConstants } from './encode.ts';
import {
  CODE_END,
  FIRST_CODE,
  FN_DISPATCH,
  FN_LOOKUP,
  LARGE_BITS,
  NULL_CELL,
  SCRATCH_CODE,
  SCRATCH_SIZE,
  VCPU_BASE,
} from './layout.ts';
import { compilerBeside, compilerHere } from './compilers.ts';
import type { BatchCompiler } from './compilers.ts';
import { COUNT_ALL, COUNT_NONE, COUNT_SLOW } from './native/count.ts';
import { NativeCode } from './native/native.ts';
import { FETCH_FAULT, PageReader } from './page-reader.ts';
import { RegionQueue } from './queue.ts';
import { ENTRIES_PER_HOT, HOT, NATIVE_AFTER, hotAgain, hotIn } from './region-source.ts';
import { I32 } from '../ir/ops.ts';
import { addressTypeFor } from '../wasm/wasm.ts';
import { makeRuntime, startRuntime } from './runtime.ts';
import type { Runtime } from './runtime.ts';
import { Tlb } from './tlb.ts';
import { ENTRIES, entryTrace, traceBlock } from './trace-block.ts';
import { ModuleWriter } from '../wasm/wasm.ts';

const COLD = 0x7fffffff;
/** Entry cells that a block may need: its own, and for its targets. */
const MAX_BLOCK_CELLS = 1024;
const PAGE = 4096;

export class Engine implements EngineServices {
  readonly memory: WebAssembly.Memory;
  readonly vcpuBase = VCPU_BASE;
  readonly tlb: Tlb;
  readonly blocks: BlockTable;
  private readonly codeIndex: CodeIndex;
  private readonly options: EngineOptions;
  private readonly words: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly physical: EngineMemory;
  private readonly runtime: Runtime;
  private readonly builder: Builder;
  private readonly encoder: Encoder;
  private readonly reader: PageReader;
  private readonly native: NativeCode | null;
  private readonly queue: RegionQueue | null;
  private readonly hot: number;
  /** See `RegionHost`. */
  readonly widenAfter: number;
  private readonly traceEntry: ReturnType<typeof entryTrace> | null;
  private readonly codeEnd: number;
  private vcpu!: Vcpu;
  private flags = 0;
  private nextCode = FIRST_CODE;
  /** Lowest address of the instruction tables, which grow downwards. */
  private tables: number;
  private readonly lin = new Int32Array(2);
  private readonly walked: Translation = { page: 0, permissions: 0, global: false, bits: 12 };
  /** One instruction is running alone: it may write to translated code. */
  private stepping = false;
  /** Instructions executed before the current grant, and the grant (`budget` counts it down). */
  private executed = 0;
  private granted = 0;
  readonly table: WebAssembly.Table;
  readonly exactCount: boolean;
  dispatchCell = 0;
  readonly trace: EngineOptions['trace'];
  statistics = { blocks: 0, native: 0, regions: 0, failures: 0, lookups: 0, flushes: 0 };

  constructor(options: EngineOptions) {
    this.options = options;
    this.trace = options.trace;
    this.exactCount = options.exactCount;
    this.traceEntry = options.tracesBlocks?.(ENTRIES) ? entryTrace(options.trace ?? (() => undefined)) : null;
    this.hot = options.hotThreshold ?? HOT;
    this.codeEnd = options.codeEnd ?? CODE_END;
    this.tables = this.codeEnd;
    this.memory = options.memory;
    this.physical = options.physical;
    const buffer = options.memory.buffer;
    this.words = new Int32Array(buffer);
    this.bytes = new Uint8Array(buffer);
    this.tlb = new Tlb(buffer);
    this.codeIndex = new CodeIndex(buffer);
    this.blocks = new BlockTable(buffer, options.physical.pageFlags);
    this.table = new WebAssembly.Table({ initial: 4096, element: 'anyfunc' });
    writeSharedConstants(this.words);
    const { globals, helpers } = options.isa;
    this.builder = new Builder(globals);
    this.encoder = new Encoder(this.words, globals, helpers);
    this.reader = new PageReader(this.bytes, (low, high) => this.codeHost(low, high));
    const { machineCode } = options;
    // Asked to compile early, the engine is being tested: regions then come on top of all code.
    const counts = !options.compile ? COUNT_NONE : options.hotThreshold === undefined ? COUNT_SLOW : COUNT_ALL;
    this.native = machineCode ? new NativeCode(machineCode, buffer, options.isa, counts, options.exactCount) : null;
    this.blocks.onNative = (cell, address) => this.native?.change(cell, address);
    this.runtime = this.startRuntime();
    this.blocks.onCrossing = (block) => {
      this.forgetPlaces();
      this.codeIndex.remove(block.page * PAGE + block.offset, this.codeKey(block.flags));
    };
    this.reserveCells();
    this.widenAfter = this.hot * ENTRIES_PER_HOT;
    this.queue = options.compile ? new RegionQueue(this, this.regionCompiler(), this.runtime.imports) : null;
    options.physical.onCodeWrite = (host, length) => {
      this.blocks.invalidate(host, length);
    };
    this.setContextFields();
  }

  private regionCompiler(): BatchCompiler {
    const { isa, memory, compileBeside, compiler } = this.options;
    const make = compiler ?? (compileBeside ? compilerBeside : compilerHere);
    return make(isa, memory, {
      exactCount: this.exactCount,
      hot: this.hot,
      native: this.native !== null,
      dispatchCell: this.dispatchCell,
    });
  }

  private reserveCells(): void {
    this.blocks.setCell(NULL_CELL, FN_LOOKUP, 0);
    this.dispatchCell = this.blocks.newCell(FN_DISPATCH, 0);
  }

  private startRuntime(): Runtime {
    const { isa, memory } = this.options;
    const pages = this.words.byteLength / 65536;
    const made = addressTypeFor(this.words.byteLength) === I32 ? this.options.runtime : undefined;
    const { engine, isa: own } = made ?? makeRuntime(isa, pages, this.words.buffer instanceof SharedArrayBuffer);
    const isaExports = own === null ? {} : (isa.instantiate?.(memory, VCPU_BASE, own) ?? {});
    const host = {
      slow: () => this.slow(),
      guard: () => this.guard(),
      native: this.native?.run ?? (() => 0),
      helper: (name: string) => () => this.vcpu.helpers![name]!(),
    };
    return startRuntime(engine, isa.helpers, memory, this.table, host, isaExports);
  }

  newModule(): ModuleWriter {
    const pages = this.words.byteLength / 65536;
    return new ModuleWriter(pages, pages, this.words.buffer instanceof SharedArrayBuffer);
  }

  attach(vcpu: Vcpu): void {
    this.vcpu = vcpu;
  }

  // Services for the ISA's system code.

  flushAll(): void {
    this.statistics.flushes++;
    this.tlb.flushAll();
    this.setContextFields();
  }

  flushAddressSpace(asid: number): void {
    this.tlb.flushAddressSpace(asid);
    this.setContextFields();
  }

  flushPage(low: number, high: number): void {
    this.tlb.flushPage(low, high);
    this.setContextFields();
  }

  selectContext(context: number, asid: number, flags: number, otherFlags = -1): void {
    this.tlb.select(context, asid, flags, otherFlags);
    this.flags = flags;
    this.setContextFields();
  }

  /** Translated code may have changed to the other supervisor context. */
  private followContext(): void {
    if (this.field(CTL_TLB_BASE) === this.tlb.tlbAddress) return;
    this.flags = this.tlb.changeContext();
    this.vcpu.contextChanged!();
  }

  private forgetPlaces(): void {
    this.tlb.forgetPlaces();
    this.setContextFields();
  }

  private setContextFields(): void {
    this.setField(CTL_TLB_BASE, this.tlb.tlbAddress);
    this.setField(CTL_JUMP_BASE, this.tlb.jumpAddress);
    this.setField(CTL_MAPPING, this.tlb.mapping);
    this.setField(CTL_CODE_KEY + 4, this.codeKey(this.flags));
    this.setField(CTL_OTHER_TLB, this.tlb.otherTlbAddress);
    if (this.tlb.otherTlbAddress !== 0) {
      this.setField(CTL_OTHER_JUMPS, this.tlb.otherJumpAddress);
      this.setField(CTL_OTHER_MAPPING, this.tlb.otherMapping);
      this.setField(CTL_OTHER_KEY + 4, this.codeKey(this.tlb.otherFlags));
    }
    const mask = (this.options.isa.codeIsLinear?.(this.flags) ?? true) ? 0 : -1;
    this.setField(CTL_BASE_MASK, mask);
    this.setField(CTL_BASE_MASK + 4, mask);
  }

  /** Upper half of a mode's key in the code index. */
  codeKey(flags: number): number {
    return (this.blocks.flagSet(flags) + 1) << 16;
  }

  kick(): void {
    this.settle();
    this.setField(CTL_KICK, KICK_STOP);
  }

  instructions(): number {
    return this.executed + this.granted - this.budget;
  }

  /** Goes on counting from there. */
  countFrom(instructions: number): void {
    this.settle();
    this.executed = instructions;
  }

  /** Leaves the memory as another engine may take it over. */
  close(): void {
    this.flushCode();
    this.queue?.close();
    this.native?.close();
  }

  /** Instructions that may still run; translated code may have written its own count over a void one. */
  private get budget(): number {
    return this.field(CTL_KICK) === KICK_STOP ? 0 : Math.max(0, this.field(CTL_BUDGET));
  }

  /** Ends the current grant: what is executed is counted, nothing more may run. */
  private settle(): void {
    this.executed = this.instructions();
    this.granted = 0;
    this.setField(CTL_BUDGET, 0);
  }

  private grant(instructions: number): void {
    this.settle();
    this.granted = instructions;
    this.setField(CTL_KICK, 0);
    this.setField(CTL_BUDGET, instructions);
  }

  /** Is so much left of the last grant? */
  private isGranted(instructions: number): boolean {
    return this.granted > 0 && this.field(CTL_BUDGET) === instructions && this.field(CTL_KICK) >= 0;
  }

  private field(offset: number): number {
    return this.words[(VCPU_BASE + offset) >> 2]!;
  }

  private setField(offset: number, value: number): void {
    this.words[(VCPU_BASE + offset) >> 2] = value;
  }

  // The loop.

  /**
   * Runs until `count` instructions have been executed (about, unless counted exactly),
   * the vCPU halts, or `stop` says so after some exit.
   */
  run(count: number, stop: () => boolean): void {
    const end = this.instructions() + count;
    const { vcpu } = this;
    while (!stop()) {
      let shadow = false;
      if (vcpu.interruptShadow) {
        shadow = true;
        if (vcpu.interruptWaiting && this.instructions() < end) {
          this.stepOne();
          vcpu.clearShadow();
          continue;
        }
      } else vcpu.pollInterrupts();
      if (vcpu.halted) break;
      const left = end - this.instructions();
      if (left <= 0) break;
      if (!this.isGranted(left)) this.grant(left);
      this.setField(CTL_EXIT_REASON, EXIT_BUDGET);
      this.traceEntry?.(this.field(CTL_PC + 4), this.field(CTL_PC), this.flags, this.instructions());
      this.runtime.enter();
      if (shadow) vcpu.clearShadow();
      this.handleExit(end);
      if (this.field(CTL_KICK) === KICK_ANSWER) this.takeAnswers();
    }
    this.settle();
    this.queue?.sliceEnded();
  }

  /** Puts regions into service that have come meanwhile: the slice goes on with them. */
  private takeAnswers(): void {
    this.setField(CTL_KICK, 0);
    this.queue?.takeAnswers();
  }

  private handleExit(end: number): void {
    // A block that is run by the look-up itself ends with an exit of its own.
    while (this.field(CTL_FAULT_IP) === 0 && this.field(CTL_EXIT_REASON) === EXIT_LOOKUP) {
      if (!this.lookup()) return;
    }
    this.followContext();
    if (this.field(CTL_FAULT_IP) !== 0) this.locateFault();
    const reason = this.field(CTL_EXIT_REASON);
    switch (reason) {
      case EXIT_BUDGET:
        // There is budget left.
        if (this.field(CTL_KICK) === KICK_ANSWER) break;
        // A block longer than what is left: go on one by one to the exact count.
        if (this.exactCount && this.granted > 0) {
          while (end - this.instructions() > 0 && !this.vcpu.halted && this.granted > 0) this.stepOne();
        } else this.setField(CTL_BUDGET, Math.min(0, this.field(CTL_BUDGET)));
        break;
      case EXIT_HOT:
        this.becameHot(this.blocks.all[this.field(CTL_EXIT_ARG)]!);
        break;
      case EXIT_FAULT: {
        const fault = this.field(CTL_FAULT);
        this.setField(CTL_FAULT, FAULT_NONE);
        if (fault === FAULT_RESTART) this.stepOne();
        else this.vcpu.deliverFault();
        break;
      }
      default:
        this.vcpu.leave(reason, this.field(CTL_EXIT_ARG));
    }
  }

  /**
   * Sets pc and context to those of the instruction at which code left by the side, and takes back
   * the count of those after it: a block is counted whole when it begins. An instruction that faults
   * counts, or a guest whose handler faults for ever would never end its slice.
   */
  private locateFault(): void {
    const ip = this.field(CTL_FAULT_IP);
    this.setField(CTL_FAULT_IP, 0);
    const [offset, ctx, left] = ip < 0 ? this.queue!.faultPlace(ip) : this.interpreterPlace(ip);
    if (ctx !== CTX_UNKNOWN) this.setField(CTL_CTX, ctx);
    this.setPc(offset);
    if (!this.exactCount) return;
    const again = this.field(CTL_EXIT_REASON) === EXIT_FAULT && this.field(CTL_FAULT) === FAULT_RESTART;
    const untouched = again ? left : left - 1;
    if (this.granted > 0) this.setField(CTL_BUDGET, this.field(CTL_BUDGET) + untouched);
    else this.executed -= untouched;
  }

  /** pc = base + offset. */
  private setPc(offset: number): void {
    const base = (VCPU_BASE + CTL_BASE) >> 2;
    const low = (this.words[base]! >>> 0) + offset;
    const carry = low > 0xffffffff ? 1 : low < 0 ? -1 : 0;
    this.setField(CTL_PC, low | 0);
    this.setField(CTL_PC + 4, this.words[base + 1]! + carry);
  }

  /** [pc offset, context, instructions of the block from there on] of an interpreter operation. */
  private interpreterPlace(ip: number): readonly [number, number, number] {
    const header = this.headerOf(ip);
    const first = this.words[(header + 8) >> 2]! >> 2;
    const distance = ip - header;
    let at = first;
    while (this.words[at + 4]! >>> 0 <= distance) at += 4;
    const insns = this.words[header >> 2]! >>> 16;
    return [this.words[at + 1]!, this.words[at + 2]!, insns - (at - first) / 4];
  }

  /** Address of the header of the block that an operation belongs to. */
  private headerOf(ip: number): number {
    if (ip < SCRATCH_CODE + SCRATCH_SIZE) return this.stepIp;
    const order = this.codeIps;
    let low = 0;
    let high = this.codeCount - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (order[middle]! <= ip) low = middle;
      else high = middle - 1;
    }
    return order[low]!;
  }

  /** Headers of all blocks in ascending order of address. */
  private codeIps = new Int32Array(65536);
  private codeCount = 0;
  private stepIp = 0;

  // Finding and translating code.

  /** Address in the wasm memory of the code byte at a linear address, or -1 with the fault recorded. */
  codeHost(low: number, high: number): number {
    const host = this.tlb.probe(low, high, ACCESS_EXEC);
    return host >= 0 ? host : this.translate(low, high, ACCESS_EXEC);
  }

  /**
   * Walks the page tables and fills the TLB.
   * @returns address in the wasm memory; -1 after a fault; -2 when no memory is there for this access
   * (device, nothing, a write to ROM), with its physical address in `walked`
   */
  private translate(low: number, high: number, access: number): number {
    const walked = this.walked;
    if (!this.vcpu.walk(low, high, access, walked)) return -1;
    const host = this.physical.hostPage(walked.page);
    if (host < 0) return -2;
    let permissions = walked.permissions;
    const flags = this.physical.pageFlags[Math.floor(host / PAGE)]!;
    const writable = this.physical.isWritable(walked.page);
    if (flags !== 0 || !writable) permissions &= ~(1 << ACCESS_WRITE);
    this.tlb.fill(low, high, host, permissions, walked.global, walked.bits);
    if (walked.bits >= LARGE_BITS && access !== ACCESS_EXEC && !this.vcpu.watching)
      this.tlb.fillLarge(low, high, access, walked, this.physical);
    if (access === ACCESS_WRITE && !writable) return -2;
    return host + (low & 0xfff);
  }

  /** Finds or makes the code at pc. @returns whether it has been run, too, so that there is another exit */
  private lookup(): boolean {
    this.statistics.lookups++;
    this.followContext();
    const { lin } = this;
    this.vcpu.codeAddress(lin);
    const host = this.codeHost(lin[0]!, lin[1]!);
    if (host < 0) {
      this.codeMissing(host);
      return false;
    }
    if (this.knownPlace(host)) return false;
    const page = Math.floor(host / PAGE);
    const offset = host - page * PAGE;
    let block = this.blocks.get(page, offset, this.flags);
    if (block.ip === 0 || block.variants) {
      const made = this.revive(block) ? block : (this.knownVariant(block) ?? this.translateBlock(block, host, lin[0]!, lin[1]!));
      if (!made) {
        this.fetchFailed();
        return false;
      }
      block = made;
    } else this.index(block);
    // The jump cache goes by pc; with a code segment base the same pc can be other code.
    const pc = this.field(CTL_PC);
    if (pc === lin[0] && this.field(CTL_PC + 4) === lin[1]) {
      this.tlb.setJump(lin[0], lin[1], block.cell, block.secondPage >= 0);
      return false;
    }
    this.setField(CTL_EXIT_REASON, EXIT_BUDGET);
    this.runtime.interpret(block.ip);
    return true;
  }

  /** Enters the code at `lin` into the jump cache, if its place is all that matters and the code index has it. */
  private knownPlace(host: number): boolean {
    const { lin } = this;
    if (this.field(CTL_PC) !== lin[0] || this.field(CTL_PC + 4) !== lin[1]) return false;
    const cell = this.codeIndex.find(host, this.codeKey(this.flags));
    if (cell === 0 || !this.blocks.leadsToCode(cell)) return false;
    this.tlb.setJump(lin[0]!, lin[1]!, cell, false);
    return true;
  }

  /** The code of a block at `lin` that crosses into the page that follows there now, when it has been translated for that. */
  private knownVariant({ variants, offset }: Block): Block | null {
    if (variants === null) return null;
    const low = (this.lin[0]! >>> 0) + PAGE - offset;
    const host = this.codeHost(low | 0, (this.lin[1]! + (low > 0xffffffff ? 1 : 0)) | 0);
    if (host < 0) return null;
    const page = Math.floor(host / PAGE);
    return variants.find((variant) => variant.secondPage === page && variant.ip !== 0) ?? null;
  }

  /** There is nothing to execute at pc, which counts as an instruction, see `locateFault`. @param host what `translate` said */
  private codeMissing(host: number): void {
    this.executed++;
    if (host === -1) this.vcpu.deliverFault();
    else this.vcpu.fetchFromNowhere(this.walked.page);
  }

  /** The first instruction runs into a page that cannot be fetched. */
  private fetchFailed(): void {
    this.codeMissing(this.reader.nowhere ? -2 : -1);
  }

  /** @returns the block (a variant when it crosses pages), or null with the fetch fault recorded */
  private translateBlock(block: Block, host: number, low: number, high: number): Block | null {
    const { reader, builder } = this;
    let insns = MAX_BLOCK_INSNS;
    try {
      do {
        builder.reset(CTX_UNKNOWN);
        reader.begin(host, low, high, 0);
        this.options.isa.translate(builder, reader, this.flags, insns);
        insns >>= 1;
      } while (!Encoder.fits(builder.count) && insns > 0);
    } catch (error) {
      if (error === FETCH_FAULT) return null;
      throw error;
    }
    if (this.nextCode + Encoder.bound(builder.count) > this.tables || this.blocks.cellsLeft < MAX_BLOCK_CELLS) {
      this.flushCode();
      block = this.blocks.get(block.page, block.offset, block.flags);
    }
    let target = block;
    if (reader.secondPage >= 0) target = this.blocks.variant(block, reader.secondPage);
    if (target.ip !== 0) return target;
    target.length = reader.offset;
    target.insns = builder.insns;
    this.install(target);
    return target;
  }

  /** Code of a page that is written to comes and goes; mostly it is still what it was. */
  private revive(block: Block): boolean {
    if (!this.blocks.revive(block)) return false;
    if (this.native && block.native === 0) this.words[(block.ip + 4) >> 2] = NATIVE_AFTER;
    this.index(block);
    for (const page of this.blocks.installed(block)) this.tlb.protect(page * PAGE);
    return true;
  }

  private traceBlock(block: Block, codeBytes: number): void {
    const { isa, trace, tracesBlocks } = this.options;
    const at = block.page * PAGE + block.offset;
    const pc = [CTL_PC + 4, CTL_PC].map((word) => (this.field(word) >>> 0).toString(16).padStart(8, '0')).join('');
    const guest = this.bytes.slice(at, Math.min(at + block.length, (block.page + 1) * PAGE));
    const { globals, helpers } = isa;
    traceBlock({ pc, guest, builder: this.builder, globals, helpers, codeBytes }, tracesBlocks!, trace ?? (() => undefined));
  }

  private install(block: Block): void {
    const { encoder, builder } = this;
    const countdown = this.native ? NATIVE_AFTER : this.queue ? this.hotIn(block.flags) : COLD;
    const code = encoder.encode(builder, this.nextCode, this.tables, block.id, countdown, (offset) =>
      this.cellFor(block, offset),
    );
    if (this.options.tracesBlocks) this.traceBlock(block, code.end - this.nextCode);
    this.nextCode = (code.end + 15) & ~15;
    this.tables = code.table;
    block.ip = code.ip;
    if (this.codeCount === this.codeIps.length) {
      const larger = new Int32Array(this.codeCount * 2);
      larger.set(this.codeIps);
      this.codeIps = larger;
    }
    this.codeIps[this.codeCount++] = code.ip;
    this.statistics.blocks++;
    this.index(block);
    for (const page of this.blocks.installed(block)) this.tlb.protect(page * PAGE);
  }

  /** Enters a block into the code index; of one that crosses pages its place is not all that matters. */
  private index(block: Block): void {
    const key = this.codeKey(block.flags) | (block.secondPage < 0 ? 0 : INDEX_CROSSING);
    this.codeIndex.add(block.page * PAGE + block.offset, key, block.cell, block.ip);
  }

  /** Entry cell of a constant target, or 0 when only its virtual address leads there. */
  private cellFor(block: Block, offset: number): number {
    const place = block.offset + offset;
    if (place < 0 || place >= PAGE || block.secondPage >= 0) return 0;
    return this.blocks.get(block.page, place, block.flags).cell;
  }

  /** Forgets all translated code: the code area is full. */
  private flushCode(): void {
    this.options.trace?.('jit', `translated code dropped: ${this.codeCount} blocks`);
    this.blocks.clear();
    this.reserveCells();
    this.forgetPlaces();
    this.codeIndex.clear();
    this.queue?.clear();
    this.native?.clear();
    this.nextCode = FIRST_CODE;
    this.tables = this.codeEnd;
    this.codeCount = 0;
  }

  /** Executes the one instruction at pc, whatever code it may write to. */
  private stepOne(): void {
    const { lin, reader, builder } = this;
    this.vcpu.codeAddress(lin);
    const host = this.codeHost(lin[0]!, lin[1]!);
    if (host < 0) return this.codeMissing(host);
    builder.reset(CTX_UNKNOWN);
    reader.begin(host, lin[0]!, lin[1]!, 0);
    try {
      this.options.isa.translate(builder, reader, this.flags, 1);
    } catch (error) {
      if (error === FETCH_FAULT) return this.fetchFailed();
      throw error;
    }
    this.stepIp = this.encoder.encode(builder, SCRATCH_CODE, SCRATCH_CODE + SCRATCH_SIZE, 0, COLD, () => this.dispatchCell).ip;
    this.stepping = true;
    const left = this.budget;
    // Where a compiler's answer comes before the instruction has begun, its budget is still there.
    do {
      this.grant(1);
      this.setField(CTL_EXIT_REASON, EXIT_BUDGET);
      this.runtime.interpret(this.stepIp);
    } while (this.field(CTL_KICK) === KICK_ANSWER && this.field(CTL_BUDGET) === 1);
    this.followContext();
    this.stepping = false;
    const reason = this.field(CTL_EXIT_REASON);
    const executed = this.granted > 0 ? 1 : 0;
    // The next block found its budget gone (or is unknown): that is the normal end.
    if (reason !== EXIT_BUDGET && reason !== EXIT_LOOKUP && reason !== EXIT_HOT) this.handleExit(0);
    else if (reason === EXIT_HOT) this.setField(CTL_BUDGET, 0);
    if (executed && this.granted > 0) this.grant(Math.max(0, left - 1));
    this.vcpu.stepped?.();
  }

  private hotIn(flags: number): number {
    return hotIn(this.options.isa, this.hot, flags);
  }

  private becameHot(block: Block): void {
    if (block.ip === 0) return;
    if (this.native && !block.tried) return this.makeNative(this.native, block);
    if (!this.queue) return;
    // Also when its region waits or serves: should that be dropped, the block runs here again.
    this.words[(block.ip + 4) >> 2] = hotAgain(this.hotIn(block.flags), this.options.compileBeside === true);
    const { lin } = this;
    this.vcpu.codeAddress(lin);
    this.queue.hot(block, lin[0]!, lin[1]!);
  }

  private makeNative(native: NativeCode, block: Block): void {
    block.tried = true;
    const count = (block.ip + 4) >> 2;
    this.words[count] = this.queue ? this.hotIn(block.flags) : COLD;
    if (!native.hasRoom) return;
    const countdown = native.compile(block);
    if (block.native === 0) return;
    if (countdown > 0) this.words[count] = countdown;
    this.blocks.showCode(block);
    this.statistics.native++;
  }

  /** Is the code page at CTL_SLOW_ADDR the one at CTL_HOST_ADDR? Enters it into the TLB. */
  private guard(): number {
    this.followContext();
    const host = this.codeHost(this.field(CTL_SLOW_ADDR), this.field(CTL_SLOW_ADDR + 4));
    const expected = (this.field(CTL_HOST_ADDR) >>> 0) + this.field(CTL_HOST_ADDR + 4) * 0x100000000;
    return host === expected ? 1 : 0;
  }

  // The slow path of memory accesses.

  private slow(): void {
    this.followContext();
    const low = this.field(CTL_SLOW_ADDR);
    const high = this.field(CTL_SLOW_ADDR + 4);
    const kind = this.field(CTL_SLOW_SIZE);
    const size = kind & 0xff;
    const store = (kind & KIND_WRITE) !== 0;
    const access = store || kind & KIND_MODIFY ? ACCESS_WRITE : ACCESS_READ;
    const slot = VCPU_BASE + CTL_SLOW_VALUE;
    if (!store) this.words[slot >> 2] = 0;
    if (this.vcpu.watching && this.vcpu.watch!(low, high, size, access === ACCESS_WRITE) && !this.stepping) {
      return this.setField(CTL_FAULT, FAULT_RESTART);
    }
    if ((low & 0xfff) + size > PAGE) this.crossPage(low, high, size, access, store);
    else {
      const host = this.reach(low, high, access);
      if (host === -1) this.setField(CTL_FAULT, FAULT_EXCEPTION);
      else if (host < 0) this.deviceAccess(this.walked.page + (low & 0xfff), slot, size, store);
      else this.memoryAccess(host, slot, size, store);
    }
    if (kind & KIND_SIGNED) {
      const shift = 32 - size * 8;
      this.words[slot >> 2] = (this.words[slot >> 2]! << shift) >> shift;
    }
  }

  /** Like codeHost, for data; a page that is only watched for writes is found in the TLB by its read tag. */
  reach(low: number, high: number, access: number): number {
    const host = this.tlb.probe(low, high, access);
    return host >= 0 ? host : this.translate(low, high, access);
  }

  private memoryAccess(host: number, slot: number, size: number, store: boolean): void {
    if (!store) {
      for (let i = 0; i < size; i++) this.bytes[slot + i] = this.bytes[host + i]!;
      return;
    }
    if (this.hasCode(host) && (this.isThere(host, slot, size) || !this.codeWrite(host, size))) return;
    for (let i = 0; i < size; i++) this.bytes[host + i] = this.bytes[slot + i]!;
  }

  /** Are these bytes what the memory holds already? Programs that patch code often put in what is there. */
  private isThere(host: number, slot: number, size: number): boolean {
    for (let i = 0; i < size; i++) if (this.bytes[host + i] !== this.bytes[slot + i]) return false;
    return true;
  }

  /** A store to a page with code. @returns false when the instruction must be run again, alone */
  private codeWrite(host: number, size: number): boolean {
    if (!this.blocks.invalidate(host, size) || this.stepping) return true;
    // The code that is running may be what has just gone.
    this.setField(CTL_FAULT, FAULT_RESTART);
    return false;
  }

  private deviceAccess(address: number, slot: number, size: number, store: boolean): void {
    const { physical, words, bytes } = this;
    for (let i = 0; i < size; i += 4) {
      const part = Math.min(4, size - i);
      const at = (slot + i) >> 2;
      if (!store) words[at] = physical.read(address + i, part) & (0xffffffff >>> (32 - 8 * part));
      else {
        let value = 0;
        for (let k = part - 1; k >= 0; k--) value = (value * 256 + bytes[slot + i + k]!) >>> 0;
        physical.write(address + i, part, value);
      }
    }
  }

  private crossPage(low: number, high: number, size: number, access: number, store: boolean): void {
    const first = PAGE - (low & 0xfff);
    const sum = (low >>> 0) + first;
    const nextLow = sum | 0;
    const nextHigh = sum > 0xffffffff ? (high + 1) | 0 : high;
    // Both pages must be reachable before anything is written.
    const hostA = this.reach(low, high, access);
    const pageA = this.walked.page;
    if (hostA === -1) return this.setField(CTL_FAULT, FAULT_EXCEPTION);
    const hostB = this.reach(nextLow, nextHigh, access);
    const pageB = this.walked.page;
    if (hostB === -1) return this.setField(CTL_FAULT, FAULT_EXCEPTION);
    const slot = VCPU_BASE + CTL_SLOW_VALUE;
    if (store && hostA >= 0 && this.hasCode(hostA) && !this.codeWrite(hostA, first)) return;
    if (store && hostB >= 0 && this.hasCode(hostB) && !this.codeWrite(hostB, size - first)) return;
    for (let i = 0; i < size; i++) {
      const inFirst = i < first;
      const host = inFirst ? hostA : hostB;
      const place = inFirst ? i : i - first;
      if (host >= 0) {
        if (store) this.bytes[host + place] = this.bytes[slot + i]!;
        else this.bytes[slot + i] = this.bytes[host + place]!;
        continue;
      }
      const address = inFirst ? pageA + (low & 0xfff) + i : pageB + place;
      if (store) this.physical.write(address, 1, this.bytes[slot + i]!);
      else this.bytes[slot + i] = this.physical.read(address, 1);
    }
  }

  private hasCode(host: number): boolean {
    return (this.physical.pageFlags[Math.floor(host / PAGE)]! & PAGE_HAS_CODE) !== 0;
  }
}

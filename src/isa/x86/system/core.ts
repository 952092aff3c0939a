/**
 * The vCPU's registers as system code sees them, the mode derived from them, and the
 * exception on its way. Addresses travel as two 32-bit words: they have up to 64 bits.
 */
import type { EngineServices } from '../../isa.ts';
import { CTL_PC } from '../../../ir/vcpu-block.ts';
import type { InterruptController, TscSource } from '../../../machine/interfaces.ts';
import { writeArithmeticFlags } from '../flags.ts';
import {
  AC,
  BF_AC_CHECK,
  BF_AVX,
  BF_BREAKPOINTS,
  BF_RESUME,
  BF_CODE32,
  BF_CODE64,
  BF_CPL_SHIFT,
  BF_CS_BASE,
  BF_FPU_OFF,
  BF_IO_FREE,
  BF_LONG,
  BF_MXCSR_EXACT,
  BF_MXCSR_FLUSH,
  BF_PROTECTED,
  BF_SEG_CHECK,
  BF_SMAP,
  BF_SMAP_OVERRIDE,
  BF_SSE_OFF,
  BF_STACK32,
  BF_TF,
  BF_TS,
  BF_TSD,
  BF_UMIP,
  BF_V86,
  CC_FLAGS,
  CPL,
  CR0,
  CR3,
  CR4,
  CS,
  DS,
  EFER,
  EFLAGS,
  ES,
  GPR,
  MXCSR,
  MXCSR_DEFAULT,
  MXCSR_FLUSHING,
  OP0,
  RF,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_NULL,
  SEG_SELECTOR,
  SEG_SIZE,
  SS,
  TF,
  VM,
  XCR0,
} from '../state.ts';
import { arithmeticFlags } from './condition-codes.ts';
import { Branches } from './branches.ts';
import type { CpuModel } from './models.ts';

/** Guest-physical memory as the vCPU reaches it (machine/address-space.ts). */
export interface PhysicalMemory {
  /** Offset in the shared memory of the page holding `addr`, or -1 where no RAM or ROM is. */
  hostPage(addr: number): number;
  isWritable(addr: number): boolean;
  read(addr: number, size: number): number;
  write(addr: number, size: number, value: number): void;
  /** By host page: non-zero when a write must go through `write` (translated code, logging). */
  readonly pageFlags: Uint8Array;
}

export interface IoPorts {
  in(port: number, size: number): number;
  out(port: number, size: number, value: number): void;
}

export type ShutdownReason = 'triple-fault';

export interface Platform {
  readonly mem: PhysicalMemory;
  readonly io: IoPorts;
  readonly intc: InterruptController;
  readonly tsc: TscSource;
  readonly model: CpuModel;
  /** What RDRAND and RDSEED draw from: any 32 bits. */
  random32(): number;
  /** Unix time, in seconds, when the virtual clock stood at 0. */
  readonly bootTime: number;
  onShutdown(reason: ShutdownReason): void;
  /** The vCPU enters or leaves system management mode, whose memory only it sees. */
  onSystemManagement?: (inside: boolean) => void;
  /** An x87 error is to be reported by IRQ 13 (CR0.NE clear). */
  fpuError?: () => void;
  trace?: ((category: string, line: string) => void) | undefined;
  /** All registers are traced with each event and transfer. */
  readonly tracesRegisters?: boolean;
}

/** Thrown, always this one object, when a guest exception has been recorded in the core. */
export const FAULT = { guestFault: true } as const;

export const NO_ERROR_CODE = -1;

// Exception vectors.
export const DE = 0;
export const DB = 1;
export const NMI = 2;
export const BP = 3;
export const OF_TRAP = 4;
export const BR = 5;
export const UD = 6;
export const NM = 7;
export const DF_ABORT = 8;
export const TS = 10;
export const NP = 11;
export const SS_FAULT = 12;
export const GP = 13;
export const PF_FAULT = 14;
export const MF = 16;
export const XM = 19;
export const AC_FAULT = 17;

// Control register bits.
export const CR0_PE = 1 << 0;
export const CR0_MP = 1 << 1;
export const CR0_EM = 1 << 2;
export const CR0_TS = 1 << 3;
export const CR0_ET = 1 << 4;
export const CR0_NE = 1 << 5;
export const CR0_WP = 1 << 16;
export const CR0_AM = 1 << 18;
export const CR0_NW = 1 << 29;
export const CR0_CD = 1 << 30;
export const CR0_PG = 1 << 31;
export const CR4_VME = 1 << 0;
export const CR4_PVI = 1 << 1;
export const CR4_TSD = 1 << 2;
export const CR4_DE = 1 << 3;
export const CR4_PSE = 1 << 4;
export const CR4_PAE = 1 << 5;
export const CR4_MCE = 1 << 6;
export const CR4_PGE = 1 << 7;
export const CR4_PCE = 1 << 8;
export const CR4_OSFXSR = 1 << 9;
export const CR4_OSXMMEXCPT = 1 << 10;
export const CR4_UMIP = 1 << 11;
export const CR4_LA57 = 1 << 12;
export const CR4_FSGSBASE = 1 << 16;
export const CR4_PCIDE = 1 << 17;
export const CR4_OSXSAVE = 1 << 18;
export const CR4_SMEP = 1 << 20;
export const CR4_SMAP = 1 << 21;
export const EFER_SCE = 1 << 0;
export const EFER_LME = 1 << 8;
export const EFER_LMA = 1 << 10;
export const EFER_NXE = 1 << 11;

// Segment attributes (see state.ts).
export const ATTR_CODE = 1 << 3;
export const ATTR_CONFORMING = 1 << 2;
export const ATTR_WRITABLE = 1 << 1;
export const ATTR_READABLE = 1 << 1;
export const ATTR_EXPAND_DOWN = 1 << 2;
export const ATTR_S = 1 << 4;
export const ATTR_P = 1 << 7;
export const ATTR_L = 1 << 13;
export const ATTR_DB = 1 << 14;
export const ATTR_G = 1 << 15;
export const attrDpl = (attributes: number): number => (attributes >> 5) & 3;

const IS_FLAT_DATA = ATTR_P | ATTR_S | ATTR_WRITABLE;

const MOST_WATCHERS = 64;
/** Address spaces from here on are those without paging; PCIDs lie below. */
const UNPAGED_SPACES = 0x1000;

export class Core {
  readonly services: EngineServices;
  readonly platform: Platform;
  readonly model: CpuModel;
  readonly base: number;
  readonly i32: Int32Array;
  readonly u8: Uint8Array;
  readonly i64: BigInt64Array;
  readonly view: DataView;
  private readonly w: number;

  /** The recorded exception. */
  vector = 0;
  code = NO_ERROR_CODE;
  faultLow = 0;
  faultHigh = 0;
  /** 1 while an event that did not come from an INT instruction is being delivered. */
  ext = 0;

  /** Length of the instruction that left, for faults of software interrupts. */
  insnLength = 0;

  /**
   * The next event pushes RF = 1 whatever its kind: it comes between two elements of a string instruction, or
   * is a general-detect fault (SDM vol. 3, 19.3.1.1).
   */
  returnsWithRf = false;

  /** Block flags in force, and whether something they derive from may have changed. */
  flags = 0;
  changed = true;
  /** Some instruction breakpoint is enabled (debug.ts). */
  breakpoints = false;
  private context = -1;
  private asid = -1;
  private readonly unpagedSpaces = new Map<number, number>();
  /** The address space that selectContext last heard of must be announced again. */
  spaceChanged = true;

  readonly branches = new Branches();

  /** Address spaces whose programs look at MXCSR's exception flags, the most recent ones last. */
  readonly watchers = new Set<number>();

  /** Result words of the 64-bit operations here and in the MMU. */
  low = 0;
  high = 0;

  constructor(services: EngineServices, platform: Platform) {
    this.services = services;
    this.platform = platform;
    this.model = platform.model;
    this.base = services.vcpuBase;
    this.w = this.base >> 2;
    const buffer = services.memory.buffer;
    this.i32 = new Int32Array(buffer);
    this.u8 = new Uint8Array(buffer);
    this.i64 = new BigInt64Array(buffer, 0, Math.floor(buffer.byteLength / 8));
    this.view = new DataView(buffer);
  }

  // --- State by offset. ---

  get(offset: number): number {
    return this.i32[this.w + (offset >> 2)]!;
  }
  set(offset: number, value: number): void {
    this.i32[this.w + (offset >> 2)] = value;
  }
  /** Sets 64 bits from two words. */
  set2(offset: number, low: number, high: number): void {
    const at = this.w + (offset >> 2);
    this.i32[at] = low;
    this.i32[at + 1] = high;
  }
  /** Puts the time-stamp counter into OP0. */
  readTsc(): void {
    this.platform.tsc.readWords(this.i32, this.w + (OP0 >> 2));
  }
  getBig(offset: number): bigint {
    return this.i64[(this.base + offset) >> 3]!;
  }
  getBigUnsigned(offset: number): bigint {
    return BigInt.asUintN(64, this.getBig(offset));
  }
  setBig(offset: number, value: bigint): void {
    this.i64[(this.base + offset) >> 3] = BigInt.asIntN(64, value);
  }

  // --- General registers. ---

  regLow(n: number): number {
    return this.i32[this.w + (GPR >> 2) + 2 * n]!;
  }
  regHigh(n: number): number {
    return this.i32[this.w + (GPR >> 2) + 2 * n + 1]!;
  }
  setReg(n: number, low: number, high: number): void {
    const at = this.w + (GPR >> 2) + 2 * n;
    this.i32[at] = low;
    this.i32[at + 1] = high;
  }
  /** Writes a register as an instruction of the operand size would. @param size 1 (low byte), 2, 4 or 8 */
  writeReg(n: number, size: number, low: number, high: number): void {
    if (size === 8) this.setReg(n, low, high);
    else if (size === 4) this.setReg(n, low, 0);
    else {
      const mask = size === 2 ? 0xffff : 0xff;
      this.i32[this.w + (GPR >> 2) + 2 * n] = (this.regLow(n) & ~mask) | (low & mask);
    }
  }

  // --- Program counter. ---

  get pcLow(): number {
    return this.get(CTL_PC);
  }
  get pcHigh(): number {
    return this.get(CTL_PC + 4);
  }
  setPc(low: number, high: number): void {
    this.set2(CTL_PC, low, high);
  }
  /** Moves pc by a few bytes, wrapped to the code size. */
  movePc(delta: number): void {
    const sum = (this.pcLow >>> 0) + delta;
    if (this.code64) {
      const carry = sum > 0xffffffff ? 1 : sum < 0 ? -1 : 0;
      this.setPc(sum | 0, (this.pcHigh + carry) | 0);
    } else this.setPc(sum & (this.segAttr(CS) & ATTR_DB ? -1 : 0xffff), 0);
  }

  // --- EFLAGS. ---

  readFlags(): number {
    return (this.get(EFLAGS) & ~CC_FLAGS) | arithmeticFlags(this.i32, this.view, this.base) | 2;
  }
  /** Replaces all of EFLAGS. */
  writeFlags(value: number): void {
    this.set(EFLAGS, (value & ~CC_FLAGS) | 2);
    writeArithmeticFlags(this.view, this.base, value);
    this.changed = true;
  }
  /** Replaces the arithmetic flags in the mask. */
  setArithmetic(value: number, mask: number): void {
    const old = mask === CC_FLAGS ? 0 : arithmeticFlags(this.i32, this.view, this.base);
    writeArithmeticFlags(this.view, this.base, (old & ~mask) | (value & mask));
  }
  /** EFLAGS without the arithmetic flags. */
  get eflags(): number {
    return this.get(EFLAGS);
  }

  /**
   * RF, where an instruction may set it. It lasts one instruction and is seen by breakpoints only:
   * without them nobody need remember it.
   */
  get resumeFlag(): number {
    return this.breakpoints ? RF : 0;
  }

  // --- Segments. ---

  segAt(segment: number): number {
    return SEG + SEG_SIZE * segment;
  }
  segAttr(segment: number): number {
    return this.get(SEG + SEG_SIZE * segment + SEG_ATTR);
  }
  segLimit(segment: number): number {
    return this.get(SEG + SEG_SIZE * segment + SEG_LIMIT) >>> 0;
  }
  segSelector(segment: number): number {
    return this.get(SEG + SEG_SIZE * segment + SEG_SELECTOR);
  }
  segBaseLow(segment: number): number {
    return this.get(SEG + SEG_SIZE * segment + SEG_BASE);
  }
  segBaseHigh(segment: number): number {
    return this.get(SEG + SEG_SIZE * segment + SEG_BASE + 4);
  }
  setSegment(segment: number, selector: number, baseLow: number, baseHigh: number, limit: number, attributes: number): void {
    const at = SEG + SEG_SIZE * segment;
    this.set2(at + SEG_BASE, baseLow, baseHigh);
    this.set(at + SEG_LIMIT, limit | 0);
    this.set(at + SEG_ATTR, attributes);
    this.set(at + SEG_SELECTOR, selector);
    this.changed = true;
  }

  // --- Mode. ---

  get cpl(): number {
    return this.get(CPL);
  }
  set cpl(value: number) {
    this.set(CPL, value);
    this.changed = true;
  }
  get cr0(): number {
    return this.get(CR0);
  }
  get cr4(): number {
    return this.get(CR4);
  }
  get efer(): number {
    return this.get(EFER);
  }
  get paging(): boolean {
    return (this.get(CR0) & CR0_PG) !== 0;
  }
  get longMode(): boolean {
    return (this.get(EFER) & EFER_LMA) !== 0;
  }
  get code64(): boolean {
    return this.longMode && (this.segAttr(CS) & ATTR_L) !== 0;
  }
  get v86(): boolean {
    return (this.get(EFLAGS) & VM) !== 0;
  }
  /** Protected mode proper: neither real nor virtual-8086 mode. */
  get isProtected(): boolean {
    return (this.get(CR0) & CR0_PE) !== 0 && !this.v86;
  }
  get iopl(): number {
    return (this.get(EFLAGS) >> 12) & 3;
  }
  /**
   * VIF stands for IF in code that may not change IF: in virtual-8086 mode by CR4.VME, else at CPL 3 by CR4.PVI
   * (SDM vol. 3, 22.3 and 22.4).
   */
  get hasVirtualInterrupts(): boolean {
    return this.cpl === 3 && (this.get(CR4) & (this.v86 ? CR4_VME : CR4_PVI)) !== 0;
  }
  get linearBits(): number {
    return this.get(CR4) & CR4_LA57 ? 57 : 48;
  }
  isCanonical(low: number, high: number): boolean {
    void low;
    const spare = this.get(CR4) & CR4_LA57 ? 7 : 16;
    return (high << spare) >> spare === high;
  }

  // --- Exceptions. ---

  /** Records an exception without delivering it. */
  record(vector: number, code: number): void {
    this.vector = vector;
    this.code = code;
  }
  /** Records an exception and unwinds to whoever delivers it. */
  fault(vector: number, code: number): never {
    this.vector = vector;
    this.code = code;
    throw FAULT;
  }
  /** #GP(0), or with a selector or vector index in the code. */
  gp(code = 0): never {
    this.fault(GP, code | this.ext);
  }
  ud(): never {
    this.fault(UD, NO_ERROR_CODE);
  }
  /** An exception whose error code names a selector. */
  selectorFault(vector: number, selector: number): never {
    this.fault(vector, (selector & 0xfffc) | this.ext);
  }
  /** #GP(0) unless the CPL is 0. */
  requireSupervisor(): void {
    if (this.cpl !== 0) this.gp();
  }

  // --- What translated code depends on. ---

  /** Tells the engine of a changed mode, if it has changed. */
  refresh(): void {
    if (!this.changed) return;
    this.changed = false;
    const flags = this.deriveFlags();
    const cr4 = this.get(CR4);
    const paging = (this.get(CR0) & CR0_PG) !== 0;
    const context = !paging || this.get(CPL) === 3 ? 2 : cr4 & CR4_SMAP && this.get(EFLAGS) & AC ? 1 : 0;
    const asid = !paging ? this.unpagedSpace(flags) : cr4 & CR4_PCIDE ? this.get(CR3) & 0xfff : 0;
    if (flags === this.flags && context === this.context && asid === this.asid && !this.spaceChanged) return;
    this.flags = flags;
    this.context = context;
    this.asid = asid;
    this.spaceChanged = false;
    // STAC and CLAC change between the supervisor's two.
    const mayChange = context < 2 && (flags & BF_SMAP) !== 0 && this.get(CPL) === 0;
    this.services.selectContext(context, asid, flags, mayChange ? flags ^ BF_SMAP_OVERRIDE : -1);
  }

  /** STAC or CLAC has been executed by translated code. */
  contextChanged(): void {
    this.flags ^= BF_SMAP_OVERRIDE;
    this.context ^= 1;
  }

  /**
   * Without paging, each mode has an address space of its own: what is known of code in one mode
   * is not forgotten when a program goes to another and back.
   */
  private unpagedSpace(flags: number): number {
    const known = this.unpagedSpaces.get(flags);
    if (known !== undefined) return known;
    const space = UNPAGED_SPACES + this.unpagedSpaces.size;
    this.unpagedSpaces.set(flags, space);
    return space;
  }

  get currentAsid(): number {
    return this.get(CR4) & CR4_PCIDE ? this.get(CR3) & 0xfff : 0;
  }

  private deriveFlags(): number {
    const cpl = this.get(CPL);
    const eflags = this.get(EFLAGS);
    let flags = (cpl << BF_CPL_SHIFT) | this.deriveCodeFlags() | this.deriveFpuFlags();
    if (this.get(CR0) & CR0_PE) {
      flags |= BF_PROTECTED;
      if (eflags & VM) flags |= BF_V86;
    }
    if (cpl <= ((eflags >> 12) & 3)) flags |= BF_IO_FREE;
    if (eflags & TF || this.branches.records) flags |= BF_TF;
    if (this.breakpoints) flags |= eflags & RF ? BF_RESUME : BF_BREAKPOINTS;
    if (eflags & AC && cpl === 3 && this.get(CR0) & CR0_AM) flags |= BF_AC_CHECK;
    const cr4 = this.get(CR4);
    if (cr4 & CR4_SMAP) {
      flags |= BF_SMAP;
      if (cpl < 3 && eflags & AC) flags |= BF_SMAP_OVERRIDE;
    }
    if (cr4 & CR4_UMIP) flags |= BF_UMIP;
    if (cr4 & CR4_TSD) flags |= BF_TSD;
    return flags;
  }

  private deriveCodeFlags(): number {
    const long = this.longMode;
    const code = this.segAttr(CS);
    if (long && code & ATTR_L) return BF_LONG | BF_CODE64;
    let flags = long ? BF_LONG : 0;
    if (code & ATTR_DB) flags |= BF_CODE32;
    if (this.segAttr(SS) & ATTR_DB) flags |= BF_STACK32;
    if (this.segBaseLow(CS) !== 0) flags |= BF_CS_BASE;
    if (!this.isFlat(ES) || !this.isFlat(SS) || !this.isFlat(DS) || !this.isFlatCode()) {
      flags |= BF_SEG_CHECK;
    }
    return flags;
  }

  private isFlat(segment: number): boolean {
    const wanted = IS_FLAT_DATA;
    const attributes = this.segAttr(segment);
    if ((attributes & (wanted | ATTR_CODE | ATTR_EXPAND_DOWN | SEG_NULL)) !== wanted) return false;
    return this.segBaseLow(segment) === 0 && this.segLimit(segment) === 0xffffffff;
  }

  private isFlatCode(): boolean {
    if (this.segLimit(CS) !== 0xffffffff) return false;
    const attributes = this.segAttr(CS);
    return (attributes & ATTR_CODE) === 0 || (attributes & ATTR_READABLE) !== 0;
  }

  /** The address space in use, without what PCIDs add. */
  private get space(): number {
    return (this.get(CR3 + 4) & 0xfffff) * 2 ** 20 + (this.get(CR3) >>> 12);
  }

  /** Does the program that runs look at MXCSR's exception flags? */
  private get watchesExceptions(): boolean {
    return this.watchers.size > 0 && this.get(CPL) === 3 && this.watchers.has(this.space);
  }

  /**
   * A program has loaded MXCSR, or stored it with its flags: from now on these are exact in hot code, too.
   * Others run without the cost; they have the flags that cold code has set.
   */
  watchExceptions(): void {
    if (this.get(CPL) !== 3) return;
    this.watchers.delete(this.space);
    this.watchers.add(this.space);
    for (const oldest of this.watchers) {
      if (this.watchers.size <= MOST_WATCHERS) break;
      this.watchers.delete(oldest);
    }
    this.changed = true;
  }

  private deriveFpuFlags(): number {
    const cr0 = this.get(CR0);
    const cr4 = this.get(CR4);
    let flags = 0;
    if (cr0 & (CR0_EM | CR0_TS)) flags |= BF_FPU_OFF;
    if (cr0 & CR0_EM || !(cr4 & CR4_OSFXSR)) flags |= BF_SSE_OFF;
    if (cr0 & CR0_TS) flags |= BF_TS;
    if (cr4 & CR4_OSXSAVE && (this.get(XCR0) & 6) === 6) flags |= BF_AVX;
    // Status flags (bits 0-5) do not matter unless the program looks at them, all else must be the default.
    const control = this.get(MXCSR) & ~0x3f;
    const watched = this.watchesExceptions;
    if (control !== MXCSR_DEFAULT || watched) flags |= BF_MXCSR_EXACT;
    if ((control & ~MXCSR_FLUSHING) === MXCSR_DEFAULT && control !== MXCSR_DEFAULT && !watched) flags |= BF_MXCSR_FLUSH;
    return flags;
  }
}

export function hex64(high: number, low: number): string {
  return (high >>> 0).toString(16).padStart(8, '0') + (low >>> 0).toString(16).padStart(8, '0');
}

/** Code segment and pc, for traces. */
export function describePlace(core: Core): string {
  return `${core.segSelector(CS).toString(16)}:${hex64(core.pcHigh, core.pcLow)}`;
}

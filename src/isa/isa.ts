/** What the engine needs to know of a guest instruction set, and what it offers to one. */
import type { Builder, Global } from '../ir/builder.ts';
import type { Helper } from '../ir/helpers.ts';
import type { Inline } from '../wasm/structured.ts';
import type { FloatStack } from './float-stack.ts';
import type { ModuleWriter } from '../wasm/wasm.ts';

/** Reads guest code bytes, ahead from the pc being translated. */
export interface CodeReader {
  /** Byte offset of the next byte from the block's base pc. */
  offset: number;
  /** Offset at which the page of the block's first byte ends: instructions that cross it stand alone. */
  readonly pageEnd: number;
  /** Next byte. @throws FetchFault when its page is not executable */
  u8(): number;
  /** The byte `distance` beyond the next one, which must lie on the first byte's page. */
  peek?(distance: number): number;
}

/** Thrown by CodeReader when a code byte cannot be fetched. */
export class FetchFault extends Error {}

/** How another thread makes an equal Isa: the module exports `makeIsa(argument)`. */
export interface IsaOrigin {
  /** URL of the module. */
  readonly module: string;
  /** Something that can be sent to a thread. */
  readonly argument: unknown;
}

export interface Isa {
  readonly name: string;
  /** Without it, all work is done in the machine's thread. */
  readonly origin?: IsaOrigin;
  readonly globals: readonly Global[];
  readonly helpers: readonly Helper[];
  /** By number of the helper: what stands in place of a call of it in code that is run often. Field offsets count from the vCPU's block. */
  readonly inlines?: ReadonlyMap<number, Inline>;
  /**
   * Code of a loop with instructions that have inlines, and a mode for it: a compiler in a thread of its own does it once before
   * it is asked for anything, since what runs for the first time takes several times as long.
   */
  readonly rehearsal?: { readonly code: Uint8Array; readonly flags: number };
  /** x87 registers, if it has any. */
  readonly floatStack?: FloatStack;
  /** The register that points to the stack: accesses through it stay on one page for long. */
  readonly stackPointer?: Global;
  /**
   * Translates one block: instructions from `code.offset` on, until one that ends it,
   * `maxInsns`, or the end of the page. Ends with exactly one exit. When the first
   * byte of an instruction but the block's first cannot be fetched, the block ends
   * before it; a FetchFault in the first instruction is the caller's.
   *
   * @param flags the vCPU's mode as `Vcpu.blockFlags` gave it
   */
  translate(b: Builder, code: CodeReader, flags: number, maxInsns: number): void;
  /**
   * Programs stay in few places, kernels wander through many: is code under these flags likely to be
   * run so often that larger, faster translations pay?
   */
  favoursSpeed?(flags: number): boolean;
  /** Flags to translate hot code under that runs under `flags`: what such code need not do may be left out. */
  hotFlags?(flags: number): number;
  /** Under these flags a pc is a linear address of code as it stands (x86: the CS base is 0). */
  codeIsLinear?(flags: number): boolean;
  /** Offset in the vCPU's block of what is added to pcs under other flags, an i64. */
  readonly codeBase?: number;
  /**
   * Makes the ISA's own runtime module (helpers of kind 'wasm'), the same for all machines whose addresses have the same size.
   * @param module an empty module that imports the memory
   * @param vcpuBase address of the vCPU's block in the memory
   */
  runtimeModule?(module: ModuleWriter, vcpuBase: number): Uint8Array<ArrayBuffer>;
  /**
   * @param bytes what `runtimeModule` makes
   * @returns its exports
   */
  instantiate?(
    memory: WebAssembly.Memory,
    vcpuBase: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): Record<string, WebAssembly.ImportValue>;
}

/** Access kinds of the software TLB. */
export const ACCESS_READ = 0;
export const ACCESS_WRITE = 1;
export const ACCESS_EXEC = 2;

/** Result of a page walk, filled in by the ISA. */
export interface Translation {
  /** Physical address of the 4 KiB page (2^53 at most). */
  page: number;
  /** What the mapping permits in the current mode: bits 1 << ACCESS_*. */
  permissions: number;
  /** Outlives an address-space switch (x86: global page). */
  global: boolean;
  /** Address bits within the guest's page: 12, or more when the 4 KiB are a piece of a larger one. */
  bits: number;
}

/** One guest CPU as the engine drives it. Implemented by each ISA. */
export interface Vcpu {
  /**
   * Walks the page tables for a linear address (two 32-bit words), setting accessed and dirty bits.
   * @returns true with `out` filled, or false with the guest exception recorded for `deliverFault`
   */
  walk(low: number, high: number, access: number, out: Translation): boolean;
  /** Virtual pc (ctl pc) to the linear address of code: x86 adds the CS base. Writes [low, high]. */
  codeAddress(out: Int32Array): void;
  /** Mode bits that decide how code is translated. */
  blockFlags(): number;
  /** Delivers the exception that `walk` or `leave` recorded; pc and context are at the instruction. */
  deliverFault(): void;
  /** Handles an exit with one of the ISA's reasons; pc is what the exit reported. */
  leave(reason: number, argument: number): void;
  /** Takes a pending interrupt if there is one and it may be taken now. */
  pollInterrupts(): void;
  /** The vCPU waits for an interrupt. */
  readonly halted: boolean;
  /** Interrupts wait until one more instruction has been executed. */
  readonly interruptShadow: boolean;
  clearShadow(): void;
  /** An interrupt could be taken were it not for the shadow. */
  readonly interruptWaiting: boolean;
  /** Some data accesses must be told to `watch` (breakpoints); their pages get no tags in the TLB. */
  readonly watching?: boolean;
  /**
   * A data access that is about to happen.
   * @returns whether its instruction must run alone, so that `stepped` can say what comes of it
   */
  watch?(low: number, high: number, size: number, write: boolean): boolean;
  /** An instruction has been executed alone. */
  stepped?(): void;
  /** The pc points where no memory is. @param page physical address of the page */
  fetchFromNowhere(page: number): void;
  reset(): void;
  /** Translated code has changed to the other supervisor context. */
  contextChanged?(): void;
  /** What helpers of kind 'vcpu' call, by name. */
  readonly helpers?: Readonly<Record<string, () => number>>;
}

/** What the engine offers to an ISA's system code. */
export interface EngineServices {
  /** View over the whole shared memory, and the vCPU block's byte offset in it. */
  readonly memory: WebAssembly.Memory;
  readonly vcpuBase: number;
  /** Drops TLB and jump-cache entries of every address space, global ones too. */
  flushAll(): void;
  /** Drops the non-global entries of the current address space (all of them if `asid` < 0). */
  flushAddressSpace(asid: number): void;
  /** Drops one page of the current address space, and global entries for it. */
  flushPage(low: number, high: number): void;
  /**
   * Selects the TLB and jump cache for a mode and address space.
   * @param context 0 = supervisor, 1 = supervisor with user access allowed (SMAP override), 2 = user
   * @param asid an address space's number (x86: PCID, or a mode without paging); only user contexts
   * are kept apart by it
   * @param flags the block flags that will be in force (code translated under other flags is not found)
   * @param otherFlags the flags that would be in force in the other supervisor context, all else being the same, if
   * translated code may change to it (Builder.changeContext)
   */
  selectContext(context: number, asid: number, flags: number, otherFlags?: number): void;
  /**
   * Has the TLB hold a page that the current privilege may access so: translated code that left for want of it need not the next time.
   * @param access ACCESS_READ or ACCESS_WRITE
   * @returns address in the memory, negative where there is none
   */
  reach(low: number, high: number, access: number): number;
  /** Makes translated code leave at its next check. */
  kick(): void;
  /** Instructions executed so far. */
  instructions(): number;
  /** They are counted exactly, but only where translated code has left: time that derives from them must be asked for there. */
  readonly exactCount: boolean;
}

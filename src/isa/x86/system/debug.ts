/**
 * Debug registers: breakpoints and how they are reported (SDM vol. 3, chapter 19).
 *
 * Instruction breakpoints are compared with pc by code that is translated while DR7 enables one
 * (BF_BREAKPOINTS); data breakpoints keep their pages out of the TLB, so that each access to them
 * comes here; while none is enabled they cost nothing.
 */
import { BREAKPOINTS, DR, DR6, DR7, DR7_LOCAL, EFLAGS, RF } from '../state.ts';
import { CR4_DE, DB, NO_ERROR_CODE } from './core.ts';
import type { Core } from './core.ts';

const KIND_EXECUTE = 0;
const KIND_WRITE = 1;
const KIND_PORT = 2;
/** DR6: breakpoint conditions met, and traps. */
const HITS = 15;
export const DR6_BD = 1 << 13;
export const DR6_BS = 1 << 14;
export const DR6_BT = 1 << 15;
export const DR7_GD = 1 << 13;

/** Bytes that a breakpoint covers, by its LEN field. */
const LENGTHS = [1, 2, 8, 4] as const;

export class Debug {
  private readonly core: Core;
  /** Some data breakpoint is enabled. */
  watching = false;
  private watchesPorts = false;
  /** DR6 bits of traps that are due after the current instruction. */
  private due = 0;
  /** The same, put off by MOV SS until after the next one (SDM vol. 3, 7.8.3). */
  held = 0;

  constructor(core: Core) {
    this.core = core;
  }

  /** Takes over the registers after they have changed. */
  configure(): void {
    const { core } = this;
    const watched = this.watching;
    this.watching = this.watchesPorts = false;
    let executes = false;
    for (let n = 0; n < 4; n++) {
      const at = BREAKPOINTS + 8 * n;
      // Not an address that code can have.
      core.set2(at, -1, 0x7fffffff);
      if (!this.enabled(n)) continue;
      const kind = this.kind(n);
      if (kind === KIND_PORT) this.watchesPorts = (core.cr4 & CR4_DE) !== 0;
      else if (kind !== KIND_EXECUTE) this.watching = true;
      else {
        executes = true;
        core.set2(at, core.get(DR + 8 * n), core.get(DR + 8 * n + 4));
      }
    }
    core.breakpoints = executes;
    if (!executes) core.set(EFLAGS, core.eflags & ~RF);
    core.changed = true;
    if (watched || this.watching) core.services.flushAll();
  }

  private enabled(n: number): boolean {
    return ((this.core.get(DR7) >> (2 * n)) & 3) !== 0;
  }
  private kind(n: number): number {
    return (this.core.get(DR7) >> (16 + 4 * n)) & 3;
  }
  private bytes(n: number): number {
    return LENGTHS[(this.core.get(DR7) >> (18 + 4 * n)) & 3]!;
  }

  /**
   * DR6 bits of all conditions that are met, if one of them is enabled. Those of registers that are
   * not enabled are told, too (SDM vol. 3, 19.2.3).
   */
  private conditions(met: (n: number) => boolean): number {
    let hits = 0;
    let wanted = false;
    for (let n = 0; n < 4; n++) {
      if (!met(n)) continue;
      hits |= 1 << n;
      if (this.enabled(n)) wanted = true;
    }
    return wanted ? hits : 0;
  }

  // --- Data and ports: traps. ---

  /** Does some enabled breakpoint lie in the page? @returns bits 1 read, 2 write: what must be watched */
  watchedPage(low: number, high: number): number {
    const { core } = this;
    let access = 0;
    for (let n = 0; n < 4; n++) {
      const kind = this.kind(n);
      if (!this.enabled(n) || (kind & 1) === 0) continue;
      const at = DR + 8 * n;
      if ((core.get(at) ^ low) & ~0xfff || core.get(at + 4) !== high) continue;
      access |= kind === KIND_WRITE ? 2 : 3;
    }
    return access;
  }

  /** A data access. @returns whether it met a breakpoint, which is then due */
  access(low: number, high: number, size: number, write: boolean): boolean {
    const { core } = this;
    const first = low >>> 0;
    const hits = this.conditions((n) => {
      const kind = this.kind(n);
      if ((kind & 1) === 0 || (kind === KIND_WRITE && !write)) return false;
      const bytes = this.bytes(n);
      const at = DR + 8 * n;
      const start = (core.get(at) & ~(bytes - 1)) >>> 0;
      return core.get(at + 4) === high && first < start + bytes && first + size > start;
    });
    this.due |= hits;
    return hits !== 0;
  }

  port(port: number, size: number): void {
    if (!this.watchesPorts) return;
    const { core } = this;
    this.due |= this.conditions((n) => {
      const bytes = this.bytes(n);
      const start = core.get(DR + 8 * n) & ~(bytes - 1);
      return this.kind(n) === KIND_PORT && port < start + bytes && port + size > start;
    });
  }

  /** A trap of another kind is due after this instruction. */
  trap(bits: number): void {
    this.due |= bits;
  }

  /** The instruction has faulted: what it met does not count. */
  forget(): void {
    this.due = 0;
  }

  /** After an instruction. @param hold it was MOV or POP SS @returns whether a #DB must be delivered; DR6 is set then */
  take(hold: boolean): boolean {
    if (hold) {
      this.held |= this.due;
      this.due = 0;
      return false;
    }
    const { due } = this;
    this.due = 0;
    if (due === 0) return false;
    this.report(due);
    return true;
  }

  get isDue(): boolean {
    return this.due !== 0;
  }

  /** The instruction after MOV SS has been executed. */
  release(): void {
    this.due |= this.held;
    this.held = 0;
  }

  /** Something waits for the next instruction's end. */
  get isHeld(): boolean {
    return this.held !== 0;
  }

  /** Sets DR6; breakpoint conditions replace earlier ones. */
  private report(bits: number): void {
    const { core } = this;
    const old = core.get(DR6);
    core.set(DR6, (bits & HITS ? old & ~HITS : old) | bits);
  }

  // --- Instructions: faults. ---

  /** The instruction at a linear address is one of the breakpoints: #DB. */
  executed(low: number, high: number): never {
    const { core } = this;
    this.report(
      this.conditions((n) => {
        const at = DR + 8 * n;
        return this.kind(n) === KIND_EXECUTE && core.get(at) === low && core.get(at + 4) === high;
      }),
    );
    this.core.fault(DB, NO_ERROR_CODE);
  }

  /** A task switch disables local breakpoints (SDM vol. 3, 19.2.4). */
  clearLocal(): void {
    const { core } = this;
    if (!(core.get(DR7) & DR7_LOCAL)) return;
    core.set(DR7, core.get(DR7) & ~DR7_LOCAL);
    this.configure();
  }

  /** @param held traps of a saved state that wait for the next instruction's end */
  reset(held = 0): void {
    this.due = 0;
    this.held = held;
    this.configure();
  }
}

/**
 * What IA32_DEBUGCTL asks for: single steps from branch to branch, and the addresses of the last branch
 * (SDM vol. 3, 19.4.3 and 19.12; AMD APM vol. 2, 13.1.1). While either is on, code runs an instruction at a time.
 */

export const MSR_DEBUGCTL = 0x1d9;
/** Last branch from, to; last interrupt or exception: what branch came before it, from, to. */
const MSR_LAST_BRANCH = 0x1db;
const REGISTERS = 4;

/** Last branches are recorded. */
const LBR = 1;
/** EFLAGS.TF traps after branches only. */
const BTF = 2;

/** Value of a model-specific register: low and high half. */
export type Pair = [low: number, high: number];

export class Branches {
  /** IA32_DEBUGCTL. */
  readonly control: Pair = [0, 0];
  /** The four registers from MSR_LAST_BRANCH on, which software can only read. */
  readonly last: readonly (readonly [number: number, value: Pair])[] = Array.from({ length: REGISTERS }, (_, i) => [
    MSR_LAST_BRANCH + i,
    [0, 0],
  ]);
  /** The instruction that has just been executed was a branch, and taken. */
  taken = false;
  private readonly place: Pair = [0, 0];

  get records(): boolean {
    return (this.control[0] & LBR) !== 0;
  }

  /** Do single steps go from branch to branch? */
  get trapsBranches(): boolean {
    return (this.control[0] & BTF) !== 0;
  }

  /** Where the instruction is that may branch. */
  setPlace(low: number, high: number): void {
    this.place[0] = low;
    this.place[1] = high;
  }

  /** The branch was taken, to this address. */
  record(low: number, high: number): void {
    this.set(0, ...this.place);
    this.set(1, low, high);
  }

  /** An event is about to be recorded as the last branch. */
  beforeEvent(): void {
    this.set(2, ...this.last[0]![1]);
    this.set(3, ...this.last[1]![1]);
  }

  /** A debug exception ends both. */
  stop(): void {
    this.control[0] &= ~(LBR | BTF);
  }

  /** Is this a value that IA32_DEBUGCTL can have? */
  static isControl(low: number, high: number): boolean {
    return high === 0 && (low & ~(LBR | BTF)) === 0;
  }

  private set(index: number, low: number, high: number): void {
    const [, value] = this.last[index]!;
    value[0] = low;
    value[1] = high;
  }
}

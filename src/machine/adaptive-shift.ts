/**
 * `-icount shift=auto`: an instruction's duration follows how far virtual time is ahead of the host's
 * or behind it, so that over seconds the two agree.
 */
import type { InstructionClock } from './clock.ts';

/** The shift that a machine starts with, and the largest. */
export const FIRST_SHIFT = 3;
const MAX_SHIFT = 10;
/** Host nanoseconds between two looks. */
const INTERVAL_NS = 100e6;
/** How far apart the clocks may be before something is done, in nanoseconds. */
const TOLERANCE_NS = 100e6;

export class AdaptiveShift {
  private readonly clock: InstructionClock;
  private readonly host: () => number;
  private shift = FIRST_SHIFT;
  /** Host time minus virtual time when they last were said to agree. */
  private base = 0;
  private nextLook = 0;
  private lastAhead = 0;

  /** @param host monotonic nanoseconds */
  constructor(clock: InstructionClock, host: () => number = () => performance.now() * 1e6) {
    this.clock = clock;
    this.host = host;
  }

  /** The machine begins to run, or goes on: time while it stood still does not count. */
  resume(): void {
    const host = this.host();
    this.shift = Math.log2(this.clock.nsPerInstruction);
    this.base = host - this.clock.now() + this.lastAhead;
    this.nextLook = host + INTERVAL_NS;
  }

  /** Looks at both clocks now and then; to be called often. */
  adjust(): void {
    const host = this.host();
    if (host < this.nextLook) return;
    this.nextLook = host + INTERVAL_NS;
    const ahead = this.clock.now() - (host - this.base);
    const before = this.lastAhead;
    this.lastAhead = ahead;
    // Only when the distance does not shrink by itself, fast enough to be gone soon.
    if (ahead > 0 && before + TOLERANCE_NS < ahead * 2) this.set(this.shift - 1);
    else if (ahead < 0 && before - TOLERANCE_NS > ahead * 2) this.set(this.shift + 1);
  }

  private set(shift: number): void {
    this.shift = Math.max(0, Math.min(MAX_SHIFT, shift));
    this.clock.setShift(this.shift);
  }
}

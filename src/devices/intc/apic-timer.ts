/** The local APIC's timer: SDM volume 3, section 12.5.4. Its input clock runs at 1 GHz. */
import type { Timer, TscSource, VirtualClock } from '../../machine/interfaces.ts';

/** LVT timer entry, bits 17-18. */
export const TIMER_MODE = { oneShot: 0, periodic: 1, deadline: 2 } as const;

/** Shortest period served, so that a guest cannot drown the machine in its own ticks. */
const MIN_PERIOD_NS = 10_000;

export type ApicTimerState = {
  initialCount: number;
  divide: number;
  mode: number;
  /** Virtual time at which the count was `initialCount`; -1 when not counting. */
  startNs: number;
  /** Armed deadline in TSC ticks; 0 when none. */
  tscDeadline: bigint;
};

export class ApicTimer {
  private readonly s: ApicTimerState;
  private readonly clock: VirtualClock;
  private readonly tsc: TscSource;
  /** For whoever saves its deadline. */
  readonly timer: Timer;
  private readonly fire: () => void;
  private dormant = false;

  static powerOn(): ApicTimerState {
    return { initialCount: 0, divide: 0, mode: 0, startNs: -1, tscDeadline: 0n };
  }

  constructor(state: ApicTimerState, clock: VirtualClock, tsc: TscSource, fire: () => void) {
    this.s = state;
    this.clock = clock;
    this.tsc = tsc;
    this.fire = fire;
    this.timer = clock.timer((now) => this.expired(now));
  }

  get initialCount(): number {
    return this.s.initialCount;
  }

  get divideConfiguration(): number {
    return this.s.divide;
  }

  get tscDeadline(): bigint {
    return this.s.tscDeadline;
  }

  currentCount(): number {
    const s = this.s;
    if (s.startNs < 0 || s.mode === TIMER_MODE.deadline) return 0;
    const ticks = Math.floor((this.clock.now() - s.startNs) / this.divisor());
    if (s.mode === TIMER_MODE.periodic) return s.initialCount - (ticks % s.initialCount);
    return Math.max(0, s.initialCount - ticks);
  }

  /** Write of the initial count register: starts over, or stops on zero. */
  start(count: number): void {
    this.s.initialCount = count;
    this.s.startNs = count === 0 ? -1 : this.clock.now();
    this.armCount();
  }

  setDivide(value: number): void {
    const left = this.currentCount();
    this.s.divide = value & 0xb;
    if (this.s.startNs < 0) return;
    // The count goes on from where it is, at the new rate.
    this.s.startNs = this.clock.now() - (this.s.initialCount - left) * this.divisor();
    this.armCount();
  }

  setMode(mode: number): void {
    const s = this.s;
    if (mode === s.mode) return;
    // Into or out of TSC-deadline mode the timer is disarmed (12.5.4.1).
    if (mode === TIMER_MODE.deadline || s.mode === TIMER_MODE.deadline) {
      s.startNs = -1;
      s.tscDeadline = 0n;
    }
    s.mode = mode;
    this.restore();
  }

  setTscDeadline(value: bigint): void {
    this.s.tscDeadline = value;
    this.armDeadline();
  }

  /** Arms the clock as the registers say. */
  restore(): void {
    if (this.dormant) this.timer.cancel();
    else if (this.s.mode === TIMER_MODE.deadline) this.armDeadline();
    else this.armCount();
  }

  setDormant(dormant: boolean): void {
    this.dormant = dormant;
    this.restore();
  }

  private divisor(): number {
    const code = (this.s.divide & 3) | ((this.s.divide & 8) >> 1);
    return code === 7 ? 1 : 2 << code;
  }

  private armCount(): void {
    const s = this.s;
    if (s.startNs < 0 || s.initialCount === 0) return this.timer.cancel();
    const period = s.initialCount * this.divisor();
    if (s.mode !== TIMER_MODE.periodic) return this.timer.arm(s.startNs + period);
    const elapsed = Math.max(0, Math.floor((this.clock.now() - s.startNs) / period));
    this.timer.arm(s.startNs + (elapsed + 1) * period);
  }

  private armDeadline(): void {
    const { tscDeadline } = this.s;
    if (tscDeadline === 0n) this.timer.cancel();
    else this.timer.arm(Math.max(this.clock.now(), this.tsc.toNanoseconds(tscDeadline)));
  }

  private expired(now: number): void {
    const s = this.s;
    if (s.mode === TIMER_MODE.deadline) {
      // The guest may have set its TSC back since.
      if (this.tsc.read() < s.tscDeadline) return this.armDeadline();
      s.tscDeadline = 0n;
    } else if (s.mode === TIMER_MODE.periodic) {
      this.armCount();
      this.timer.arm(Math.max(this.timer.deadline, now + MIN_PERIOD_NS));
    } else {
      s.startNs = -1;
    }
    this.fire();
  }
}

/** The machine's virtual clock, over host time or counted instructions, and the guest's TSC. */
import type { Timer, TscSource, VirtualClock } from './interfaces.ts';

class QueuedTimer implements Timer {
  deadline = Infinity;
  /** Place in the heap, -1 when not armed. */
  slot = -1;
  readonly fire: (now: number) => void;
  /** Which of the clock's timers it is, in the order of their making. */
  readonly number: number;
  private readonly queue: TimerQueue;

  constructor(queue: TimerQueue, number: number, fire: (now: number) => void) {
    this.queue = queue;
    this.number = number;
    this.fire = fire;
  }

  arm(deadline: number): void {
    if (deadline === Infinity || Number.isNaN(deadline)) return this.cancel();
    this.queue.arm(this, deadline);
  }

  cancel(): void {
    this.queue.cancel(this);
  }
}

/** Binary heap by deadline; each timer knows its slot, so re-arming needs no search. */
class TimerQueue {
  private readonly heap: QueuedTimer[] = [];

  next(): number {
    return this.heap.length === 0 ? Infinity : this.heap[0]!.deadline;
  }

  arm(timer: QueuedTimer, deadline: number): void {
    timer.deadline = deadline;
    if (timer.slot < 0) {
      timer.slot = this.heap.length;
      this.heap.push(timer);
    }
    this.settle(timer);
  }

  cancel(timer: QueuedTimer): void {
    const slot = timer.slot;
    if (slot < 0) return;
    timer.slot = -1;
    timer.deadline = Infinity;
    const last = this.heap.pop()!;
    if (last === timer) return;
    last.slot = slot;
    this.heap[slot] = last;
    this.settle(last);
  }

  /**
   * Fires what is due, in order of deadline, each timer at most once: one that re-arms itself
   * in the past waits for the next call, so no guest setting can keep this loop going. Of those that are due
   * at once the one made first comes first, whatever order they were armed in: a machine that goes on from a saved
   * state has armed them anew.
   */
  run(now: number): void {
    if (this.next() > now) return;
    const due = this.heap.filter((timer) => timer.deadline <= now);
    due.sort((a, b) => a.deadline - b.deadline || a.number - b.number);
    for (const timer of due) {
      if (timer.deadline > now) continue;
      this.cancel(timer);
      timer.fire(now);
    }
  }

  private settle(timer: QueuedTimer): void {
    this.up(timer);
    this.down(timer);
  }

  private up(timer: QueuedTimer): void {
    while (timer.slot > 0) {
      const parent = this.heap[(timer.slot - 1) >> 1]!;
      if (parent.deadline <= timer.deadline) return;
      this.swap(timer, parent);
    }
  }

  private down(timer: QueuedTimer): void {
    for (;;) {
      const left = this.heap[2 * timer.slot + 1];
      const right = this.heap[2 * timer.slot + 2];
      if (left === undefined) return;
      const child = right !== undefined && right.deadline < left.deadline ? right : left;
      if (child.deadline >= timer.deadline) return;
      this.swap(timer, child);
    }
  }

  private swap(a: QueuedTimer, b: QueuedTimer): void {
    const slot = a.slot;
    a.slot = b.slot;
    b.slot = slot;
    this.heap[a.slot] = a;
    this.heap[b.slot] = b;
  }
}

abstract class BaseClock implements VirtualClock {
  private readonly queue = new TimerQueue();
  private timers = 0;

  abstract now(): number;

  timer(fire: (now: number) => void): Timer {
    return new QueuedTimer(this.queue, this.timers++, fire);
  }

  nextDeadline(): number {
    return this.queue.next();
  }

  runTimers(): void {
    this.queue.run(this.now());
  }
}

/** What a reading of the clock and an instruction may take at most while the guest's pace holds. */
const PACE_READING_NS = 3000;
const PACE_INSTRUCTION_NS = 20;

/** Runs with the host's monotonic clock while the machine runs. Created paused. */
export class HostClock extends BaseClock {
  private readonly source: () => number;
  private readonly instructions: (() => number) | null;
  private running = false;
  /** Virtual time when paused; while running, virtual time minus host time. */
  private base = 0;
  /** Until this virtual time the guest's pace holds, see `paceUntil`. */
  private pacedUntil = -Infinity;
  private pacedTime = 0;
  private pacedInstructions = 0;

  /** @param source monotonic nanoseconds  @param instructions how many the guest has executed, if that is known */
  constructor(source: () => number = () => performance.now() * 1e6, instructions: (() => number) | null = null) {
    super();
    this.source = source;
    this.instructions = instructions;
  }

  override now(): number {
    if (!this.running) return this.base;
    const now = Math.floor(this.base + this.source());
    return this.pacedUntil === -Infinity ? now : this.paced(now);
  }

  /**
   * Until then, no more time passes than the guest's instructions account for: what it measures is one
   * clock against another, and pauses of the host (translation, the event loop) would spoil that.
   * @param end virtual nanoseconds
   */
  paceUntil(end: number): void {
    if (this.instructions === null) return;
    this.pacedUntil = -Infinity;
    this.pacedTime = this.now();
    this.pacedInstructions = this.instructions();
    this.pacedUntil = end;
  }

  /** Time passes with the host's again: the guest waits. */
  endPace(): void {
    this.pacedUntil = -Infinity;
  }

  private paced(now: number): number {
    const instructions = this.instructions!();
    const most = PACE_READING_NS + (instructions - this.pacedInstructions) * PACE_INSTRUCTION_NS;
    const excess = now - this.pacedTime - most;
    if (excess > 0) {
      this.base -= excess;
      now -= excess;
    }
    this.pacedTime = now;
    this.pacedInstructions = instructions;
    if (now >= this.pacedUntil) this.pacedUntil = -Infinity;
    return now;
  }

  /** Sets the virtual time, e.g. from a saved machine. */
  set(now: number): void {
    this.base = this.running ? now - this.source() : now;
  }

  pause(): void {
    if (!this.running) return;
    this.base = this.now();
    this.running = false;
  }

  resume(): void {
    if (this.running) return;
    this.base -= this.source();
    this.running = true;
  }
}

/** Derives time from executed instructions (`-icount`), so that every run is the same. */
export class InstructionClock extends BaseClock {
  private readonly instructions: () => number;
  nsPerInstruction: number;
  private warp = 0;

  /** @param shift each instruction lasts 2^shift nanoseconds */
  constructor(instructions: () => number, shift: number) {
    super();
    this.instructions = instructions;
    this.nsPerInstruction = 2 ** shift;
  }

  override now(): number {
    return this.instructions() * this.nsPerInstruction + this.warp;
  }

  /** From now on, each instruction lasts 2^shift nanoseconds. */
  setShift(shift: number): void {
    const now = this.now();
    this.nsPerInstruction = 2 ** shift;
    this.warp += now - this.now();
  }

  /** An idle machine executes nothing: its clock jumps to the next event instead. */
  advanceTo(ns: number): void {
    const now = this.now();
    if (ns > now && ns !== Infinity) this.warp += ns - now;
  }

  set(now: number): void {
    this.warp += now - this.now();
  }

  pause(): void {
    // Time stands still by itself when no instructions are executed.
  }

  resume(): void {
    // See pause().
  }
}

const U64 = 0xffff_ffff_ffff_ffffn;

const GIGA = 1_000_000_000n;
/** One tick is one virtual nanosecond. */
export const DEFAULT_TSC_HZ = 1e9;

/** A TSC that counts the clock's time at a rate of its own. */
export class ClockTsc implements TscSource {
  /** Changes only with the state of another machine, which is loaded. */
  frequency: number;
  private readonly clock: VirtualClock;
  private ahead = 0n;
  private aheadLow = 0;
  private aheadHigh = 0;

  /** @param frequency ticks a second, a whole number */
  constructor(clock: VirtualClock, frequency = DEFAULT_TSC_HZ) {
    this.clock = clock;
    this.frequency = frequency;
  }

  /** Ticks the guest's counter is ahead of the clock, a signed integer of 64 bits. */
  get offset(): bigint {
    return this.ahead;
  }

  set offset(ticks: bigint) {
    this.ahead = ticks;
    this.aheadLow = Number(BigInt.asUintN(32, ticks));
    this.aheadHigh = Number(BigInt.asIntN(32, ticks >> 32n));
  }

  read(): bigint {
    return (this.elapsed() + this.offset) & U64;
  }

  readWords(out: Int32Array, at: number): void {
    if (this.frequency !== DEFAULT_TSC_HZ) {
      const ticks = this.read();
      out[at] = Number(BigInt.asIntN(32, ticks));
      out[at + 1] = Number(BigInt.asIntN(32, ticks >> 32n));
      return;
    }
    const ns = Math.floor(this.clock.now());
    const high = Math.floor(ns / 0x100000000);
    const low = ns - high * 0x100000000 + this.aheadLow;
    out[at] = low | 0;
    out[at + 1] = (high + this.aheadHigh + (low > 0xffffffff ? 1 : 0)) | 0;
  }

  write(value: bigint): void {
    this.offset = BigInt.asIntN(64, value - this.elapsed());
  }

  toNanoseconds(ticks: bigint): number {
    const since = ticks - this.offset;
    if (this.frequency === DEFAULT_TSC_HZ) return Number(since);
    const rate = BigInt(this.frequency);
    // Rounded up: by then the counter has got there.
    return Number((since * GIGA + rate - 1n) / rate);
  }

  /** Ticks of the clock's whole time. */
  private elapsed(): bigint {
    const ns = BigInt(Math.floor(this.clock.now()));
    return this.frequency === DEFAULT_TSC_HZ ? ns : (ns * BigInt(this.frequency)) / GIGA;
  }
}

/**
 * A thread that runs a vCPU and has an event loop to look after. While it is in the guest, a second thread (the kicker)
 * waits for its event loop to have something to do, and a timer of the kernel for the time that it has set; either makes
 * KVM_RUN return.
 *
 *     this thread                  kicker
 *     enter: OUTSIDE -> INSIDE     waits for INSIDE
 *     KVM_RUN, exits, KVM_RUN ...  poll(2) of this thread's event loop
 *                       <--signal- INSIDE -> LOOP_WANTS
 *     leave: -> OUTSIDE            waits for INSIDE
 *     events
 *
 * Events are found by level, not by edge, and a signal that comes before KVM_RUN makes it return at once: nothing is lost.
 * Whatever happens, the guest is left several times a second, so that the thread can be ended even if the kicker has died.
 */
import { MessageChannel, Worker } from 'node:worker_threads';
import { acceptKicks } from './accept-kicks.ts';
import { KICK_SIGNAL } from './kick-signal.ts';
import { CELLS, INSIDE, LOOP_WANTS, OUTSIDE, READY, STATE, THREAD, THREAD_WANTS } from './kicker-cells.ts';
import type { KickerData } from './kicker-thread.ts';
import { type Libc, SystemCallError } from './libc.ts';
import type { Vcpu } from './vcpu.ts';

/** Milliseconds in the guest at a stretch, at most. */
const LONGEST = 250;
/** As long as there is no kicker, the event loop has its turn so often. */
const LONGEST_ALONE = 2;

export class Kicker {
  /** Shared with the kicker and with other vCPUs' threads (`callOut`). */
  readonly cells = new Int32Array(new SharedArrayBuffer(4 * CELLS));
  private readonly libc: Libc;
  private readonly timer: bigint;
  private readonly worker: Worker;
  private readonly turn = new MessageChannel();
  private readonly waiting: (() => void)[] = [];
  /** When the timer goes off, by `performance.now`; in the past when it has. */
  private alarm = 0;
  /** The event loop is to have its turn although nobody has kicked. */
  private due = false;
  private closed = false;

  /** For the calling thread, which is the one that enters the guest and lives until `close`. @throws SystemCallError */
  constructor(libc: Libc) {
    this.libc = libc;
    this.timer = libc.createTimer(KICK_SIGNAL);
    if (this.timer < 0n) throw new SystemCallError('timer_create', Number(-this.timer));
    this.cells[THREAD] = libc.gettid();
    this.worker = new Worker(new URL('./kicker-thread.ts', import.meta.url), {
      execArgv: ['--no-warnings'],
      workerData: { cells: this.cells, loop: libc.loopDescriptor() } satisfies KickerData,
      // It makes nothing: most of what a thread takes is room for new objects.
      resourceLimits: { maxYoungGenerationSizeMb: 1 },
    });
    this.worker.on('error', () => undefined);
    this.worker.on('exit', () => Atomics.store(this.cells, READY, 0));
    this.worker.unref();
    this.turn.port1.unref();
    // This end holds the process: a loop that nothing holds never sleeps, nor says for how long.
    this.turn.port2.on('message', () => setImmediate(this.waiting.shift()!).unref());
  }

  /** Has a vCPU leave the guest when this thread is wanted. @throws SystemCallError */
  watch(vcpu: Vcpu): void {
    acceptKicks(vcpu.libc, vcpu.fd);
  }

  /**
   * Before the guest is entered for the first time, and again after each exit that may have begun something: the kicker
   * does not see what the event loop has not begun to wait for.
   * @param milliseconds in which the guest is to be left at the latest
   * @returns false when the thread must not stay, because its event loop has something to do or another thread has
   */
  enter(milliseconds: number): boolean {
    const { cells } = this;
    const state = Atomics.load(cells, STATE);
    if (state === LOOP_WANTS || state === THREAD_WANTS) return false;
    const now = performance.now();
    const idle = this.libc.loopTimeout();
    // A loop knows the time of its last turn: only the alarm tells that its timers are due.
    this.due = idle === 0 || milliseconds <= 0 || (state === INSIDE && this.alarm <= now);
    if (this.due) return false;
    const ready = Atomics.load(cells, READY) !== 0;
    this.setAlarm(now, Math.min(milliseconds, idle > 0 ? idle : LONGEST, ready ? LONGEST : LONGEST_ALONE));
    if (state === OUTSIDE) {
      Atomics.store(cells, STATE, INSIDE);
      Atomics.notify(cells, STATE);
    }
    return true;
  }

  /**
   * Nobody wants the thread out since `enter` has said that it may stay. Costs nothing, where `enter` takes a
   * microsecond between two exits, and is enough after an exit that has begun nothing.
   */
  get mayStay(): boolean {
    return Atomics.load(this.cells, STATE) === INSIDE;
  }

  /**
   * When `enter` says no: the guest has been left. Requests of other threads are looked for after this.
   * @returns whether the loop is to have its turn now; else, the guest may be entered again
   */
  leave(): boolean {
    return Atomics.exchange(this.cells, STATE, OUTSIDE) === LOOP_WANTS || this.due || this.alarm <= performance.now();
  }

  /** Has the timer go off no later than this; earlier does not matter, since the guest is entered again. */
  private setAlarm(now: number, span: number): void {
    if (this.alarm > now && this.alarm <= now + span) return;
    this.alarm = now + span;
    this.libc.setTimer(this.timer, span);
  }

  /**
   * Goes on when the event loop has had its turn, and knows all that it waits for. `setImmediate` alone would not do: while
   * a call of it that holds the process is on its way, the loop always has something to do. One that does not hold it is
   * carried out in the same turn as the message, behind all events.
   */
  afterEvents(run: () => void): void {
    this.waiting.push(run);
    this.turn.port1.postMessage(null);
  }

  /** Takes effect once. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.libc.deleteTimer(this.timer);
    this.turn.port1.close();
    void this.worker.terminate();
  }
}

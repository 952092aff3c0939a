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
import { acceptKicks, KICK_SIGNAL } from './kick-signal.ts';
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
  /** When the timer goes off, by `performance.now`; in the past when it has. */
  private alarm = 0;
  private closed = false;

  /** For the calling thread, which is the one that enters the guest. @throws SystemCallError */
  constructor(libc: Libc) {
    this.libc = libc;
    this.timer = libc.createTimer(KICK_SIGNAL);
    if (this.timer < 0n) throw new SystemCallError('timer_create', Number(-this.timer));
    this.cells[THREAD] = libc.gettid();
    this.worker = new Worker(new URL('./kicker-thread.ts', import.meta.url), {
      execArgv: ['--no-warnings'],
      workerData: { cells: this.cells, loop: libc.loopDescriptor() } satisfies KickerData,
    });
    this.worker.on('error', () => undefined);
    this.worker.on('exit', () => Atomics.store(this.cells, READY, 0));
    this.worker.unref();
    this.turn.port1.unref();
    this.turn.port2.on('message', () => undefined);
    this.turn.port2.unref();
  }

  /** Has a vCPU leave the guest when this thread is wanted. @throws SystemCallError */
  watch(vcpu: Vcpu): void {
    acceptKicks(vcpu);
  }

  /**
   * Before the guest is entered: cheap enough (a fifth of a microsecond) to be asked again after each exit that may have
   * begun something, which is necessary: the kicker does not see what the event loop has not begun to wait for.
   * @param milliseconds in which the guest is to be left at the latest
   * @returns false when the thread must not stay, because its event loop has something to do or another thread has
   */
  enter(milliseconds: number): boolean {
    const { cells } = this;
    const state = Atomics.load(cells, STATE);
    if (state === LOOP_WANTS || state === THREAD_WANTS) return false;
    const now = performance.now();
    if (state === INSIDE && this.alarm <= now) return false;
    const idle = this.libc.loopTimeout();
    if (idle === 0 || milliseconds <= 0) return false;
    const ready = Atomics.load(cells, READY) !== 0;
    this.setAlarm(now, Math.min(milliseconds, idle > 0 ? idle : LONGEST, ready ? LONGEST : LONGEST_ALONE));
    if (state === OUTSIDE) {
      Atomics.store(cells, STATE, INSIDE);
      Atomics.notify(cells, STATE);
    }
    return true;
  }

  /**
   * The guest has been left, and the event loop may have its turn. Requests of other threads are looked for after this.
   * @returns whether the loop is to have its turn now; else, the guest may be entered again
   */
  leave(): boolean {
    // A loop knows the time of its last turn: only the alarm tells that its timers are due.
    return Atomics.exchange(this.cells, STATE, OUTSIDE) === LOOP_WANTS || this.alarm <= performance.now();
  }

  /** Has the timer go off no later than this; earlier does not matter, since the guest is entered again. */
  private setAlarm(now: number, milliseconds: number): void {
    if (this.alarm > now && this.alarm <= now + milliseconds) return;
    this.alarm = now + milliseconds;
    this.libc.setTimer(this.timer, milliseconds);
  }

  /**
   * Goes on when the event loop has had its turn. Other than within `setImmediate`, what it has to do is known then:
   * Node.js keeps its loop busy while a call of `setImmediate` that holds the process is on its way.
   */
  afterEvents(run: () => void): void {
    setImmediate(run).unref();
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

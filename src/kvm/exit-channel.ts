/**
 * How a vCPU with a thread of its own has its exits answered by the machine's thread. What an exit is about is in the
 * vCPU's shared pages, which both threads see; these cells only say whose turn it is:
 *
 *     0  REQUEST   0: the vCPU's; else the machine's: 1 + KVM_EXIT_..., or the negated error of KVM_RUN
 *     1  ORDER     what the machine wants of the vCPU
 *     2  STATE     what the vCPU is doing
 *     3  THREAD    its number, for tgkill
 *
 *     vCPU's thread                       machine's thread
 *     KVM_RUN
 *     REQUEST = 1 + reason
 *     calls it out, or sends a message -> `request`, carries out what the pages say, `answer`
 *     waits for REQUEST = 0            <-
 *     KVM_RUN
 */
import { kick } from './kick-signal.ts';
import { callOut, THREAD_WANTS } from './kicker-cells.ts';
import type { Libc } from './libc.ts';

const REQUEST = 0;
const ORDER = 1;
const STATE = 2;
const THREAD = 3;
const CELLS = 4;

const RUN = 0;
const PAUSE = 1;
const END = 2;
type Order = typeof RUN | typeof PAUSE | typeof END;

/** STATE is 0 as long as the thread is being started. */
const RUNNING = 1;
const PAUSED = 2;
const ENDED = 3;

/** Milliseconds between two looks at a vCPU that is to pause: it may ask something first. */
const PATIENCE = 1;

export const makeExitCells = (): Int32Array => new Int32Array(new SharedArrayBuffer(4 * CELLS));

/** The machine's end. */
export class ExitChannel {
  readonly cells: Int32Array;
  private readonly libc: Libc;

  /** @param paused the vCPU does not enter the guest before it is told to */
  constructor(libc: Libc, paused: boolean) {
    this.libc = libc;
    this.cells = makeExitCells();
    this.cells[ORDER] = paused ? PAUSE : RUN;
  }

  /** Why the vCPU waits for us: KVM_EXIT_..., or the negated error of KVM_RUN; null when it does not. */
  get request(): number | null {
    const request = Atomics.load(this.cells, REQUEST);
    return request === 0 ? null : request > 0 ? request - 1 : request;
  }

  /** Its request has been carried out: it goes on. */
  answer(): void {
    Atomics.store(this.cells, REQUEST, 0);
    Atomics.notify(this.cells, REQUEST);
  }

  /** Makes it leave the guest, and enter again unless it is told otherwise. */
  kick(): void {
    if (Atomics.load(this.cells, STATE) === RUNNING) kick(this.libc, Atomics.load(this.cells, THREAD));
  }

  /**
   * Returns when the vCPU is out of the guest and stays there: its state can be read and changed.
   * @param serve carries a request out that comes first
   */
  pause(serve: (reason: number) => void): void {
    this.beginPause();
    while (!this.awaitPause()) {
      serve(this.request!);
      this.answer();
    }
  }

  /** Orders it; `awaitPause` returns when it is so. */
  beginPause(): void {
    this.order(PAUSE);
  }

  /**
   * Returns when the vCPU is out of the guest.
   * @returns whether it stays there; false when it waits for an answer, and does not enter before it has got it
   */
  awaitPause(): boolean {
    const { cells } = this;
    for (;;) {
      if (this.request !== null) return false;
      const state = Atomics.load(cells, STATE);
      // A thread that is being started looks at its order first.
      if (state !== RUNNING) return true;
      Atomics.wait(cells, STATE, state, PATIENCE);
    }
  }

  resume(): void {
    this.order(RUN);
  }

  /** The vCPU's thread ends, whatever it waits for. */
  end(): void {
    this.order(END);
    this.answer();
  }

  /** Also without having been told to: when the vCPU's thread has failed. */
  markEnded(): void {
    Atomics.store(this.cells, STATE, ENDED);
    Atomics.notify(this.cells, STATE);
  }

  get ended(): boolean {
    return Atomics.load(this.cells, STATE) === ENDED;
  }

  private order(order: Order): void {
    Atomics.store(this.cells, ORDER, order);
    Atomics.notify(this.cells, ORDER);
    this.kick();
  }
}

/** The vCPU's end. */
export class ExitChannelEnd {
  private readonly libc: Libc;
  private readonly cells: Int32Array;
  private readonly machine: Int32Array;
  private readonly callMachine: () => void;

  /**
   * @param machine cells of the machine's thread (kicker-cells.ts)
   * @param callMachine has the machine's event loop look for requests
   */
  constructor(libc: Libc, cells: Int32Array, machine: Int32Array, callMachine: () => void) {
    this.libc = libc;
    this.cells = cells;
    this.machine = machine;
    this.callMachine = callMachine;
    Atomics.store(cells, THREAD, libc.gettid());
  }

  /** Before the guest is entered: waits while the vCPU is to pause. @returns false when it is to end */
  mayRun(): boolean {
    const { cells } = this;
    for (;;) {
      switch (Atomics.load(cells, ORDER)) {
        case END:
          return false;
        case PAUSE:
          this.setState(PAUSED);
          Atomics.wait(cells, ORDER, PAUSE);
          break;
        default:
          this.setState(RUNNING);
          // Whoever has given another order before that did not kick.
          if (Atomics.load(cells, ORDER) === RUN) return true;
      }
    }
  }

  /** Returns when the machine's thread has carried it out. @param reason KVM_EXIT_..., or the negated error of KVM_RUN */
  ask(reason: number): void {
    const request = reason >= 0 ? reason + 1 : reason;
    Atomics.store(this.cells, REQUEST, request);
    // A thread outside the guest looks for requests before it enters: then, or by the message.
    if (!callOut(this.libc, this.machine, THREAD_WANTS)) this.callMachine();
    while (Atomics.load(this.cells, REQUEST) === request) Atomics.wait(this.cells, REQUEST, request);
  }

  end(): void {
    this.setState(ENDED);
  }

  private setState(state: number): void {
    if (Atomics.exchange(this.cells, STATE, state) !== state) Atomics.notify(this.cells, STATE);
  }
}

/** Types on the guest's keyboard at a pace that firmware and programs can follow. */
import type { Timer, VirtualClock } from './interfaces.ts';

/** Virtual time between two changes of keys. */
const PAUSE = 10e6;

export class Typist {
  private readonly clock: VirtualClock;
  private readonly send: (sequence: readonly number[]) => void;
  private readonly timer: Timer;
  private readonly waiting: { sequence: readonly number[]; done: () => void }[] = [];

  /** @param send gives the keyboard the scancodes of one change of a key */
  constructor(clock: VirtualClock, send: (sequence: readonly number[]) => void) {
    this.clock = clock;
    this.send = send;
    this.timer = clock.timer(() => this.next());
  }

  /** @param done called when all of it has been typed */
  type(sequences: readonly (readonly number[])[], done: () => void): void {
    if (sequences.length === 0) return done();
    sequences.forEach((sequence, i) =>
      this.waiting.push({
        sequence,
        done: i === sequences.length - 1 ? done : () => undefined,
      }),
    );
    if (this.timer.deadline === Infinity) this.timer.arm(this.clock.now());
  }

  private next(): void {
    const first = this.waiting.shift();
    if (first === undefined) return;
    this.send(first.sequence);
    first.done();
    if (this.waiting.length > 0) this.timer.arm(this.clock.now() + PAUSE);
  }
}

/** Types on the guest's keyboard at a pace that firmware and programs can follow. */
import type { DeviceState, StateOwner, Timer, VirtualClock } from './interfaces.ts';

/** Virtual time between two changes of keys. */
const PAUSE = 10e6;

/** Changes of keys that are kept for a machine that goes on from a saved state. */
const MOST_SAVED = 1 << 16;

export class Typist implements StateOwner {
  readonly id = 'machine/typist';
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

  saveState(): DeviceState {
    const { deadline } = this.timer;
    const waiting = this.waiting.map(({ sequence }) => Uint8Array.from(sequence));
    return { version: 1, fields: { waiting, due: deadline === Infinity ? -1 : deadline } };
  }

  loadState({ version, fields }: DeviceState): void {
    const { waiting, due } = fields;
    if (version !== 1) throw new Error(`typist: saved state has version ${version}, this one has 1`);
    if (!Array.isArray(waiting) || waiting.length > MOST_SAVED || !waiting.every((one) => one instanceof Uint8Array)) {
      throw new Error('typist: field "waiting" is not a list of scancodes');
    }
    if (typeof due !== 'number' || !Number.isFinite(due)) throw new Error('typist: field "due" is not a time');
    // Whoever asked for it to be typed is not here to be told.
    this.waiting.splice(0, Infinity, ...waiting.map((sequence) => ({ sequence: [...sequence], done: () => undefined })));
    if (this.waiting.length > 0 && due >= 0) this.timer.arm(due);
    else this.timer.cancel();
  }
}

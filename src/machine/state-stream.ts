/** A machine's state on its way between its thread and the handle: pieces are asked for, and given, one at a time. */
import { loadMachine, saveMachine } from '../migration/machine-state.ts';
import { afterEvents } from '#threads';
import type { LocalMachine } from './machine.ts';

/** Bytes of one message: a stream consists of many small pieces. */
const MESSAGE = 1 << 20;

/** What is behind the machine's drives, as far as a machine that stands still is concerned. */
export interface Drainable {
  /** Requests that have not ended, those aside that wait for the machine to go on. */
  readonly underWay: number;
  /** Why the machine cannot be saved, one line, or null. */
  readonly obstacle: string | null;
  /** What has been written is in the images. */
  flush(): Promise<void>;
}

const turn = (): Promise<void> => new Promise((resolve) => afterEvents(resolve));

/**
 * Waits until a machine that stands still has nothing under way any more: every request of its devices has ended, and
 * what follows from that has happened.
 */
export async function drain(machine: LocalMachine, drives: Drainable | null): Promise<void> {
  // What an end leads to may begin another request: one turn for what settles, one for what waits for a turn.
  for (let quiet = 0; quiet < 2; ) {
    await turn();
    const busy = (drives?.underWay ?? 0) > 0 || machine.board.devices.some((device) => device.underWay === true);
    quiet = busy ? 0 : quiet + 1;
  }
}

/** Saves a machine, which is paused and stays so. */
export class StateSource {
  private readonly pieces: AsyncGenerator<Uint8Array>;
  private rest: Uint8Array | null = null;

  /** @param compress whether the stream is to be small rather than quick to make */
  private constructor(machine: LocalMachine, compress: boolean) {
    this.pieces = saveMachine(machine.stateParts(), compress);
  }

  /** @throws Error, one line, when the machine cannot be saved; it goes on then */
  static async begin(machine: LocalMachine, drives: Drainable | null, compress: boolean): Promise<StateSource> {
    if (drives !== null && drives.obstacle !== null) throw new Error(`the machine cannot be saved: ${drives.obstacle}`);
    const ran = machine.state === 'running';
    machine.standStill();
    try {
      await drain(machine, drives);
      await drives?.flush();
      const source = new StateSource(machine, compress);
      // The first piece comes when everything has agreed to be saved.
      const { value } = await source.pieces.next();
      source.rest = value ?? null;
      return source;
    } catch (error) {
      if (ran) machine.start();
      throw error;
    }
  }

  /** @returns the next bytes, in a buffer of their own, or null at the end */
  async next(): Promise<Uint8Array | null> {
    const out = new Uint8Array(MESSAGE);
    let used = 0;
    while (used < MESSAGE) {
      const piece = this.rest ?? (await this.pieces.next()).value;
      if (piece === undefined || piece === null) break;
      const part = piece.subarray(0, MESSAGE - used);
      out.set(part, used);
      used += part.length;
      this.rest = part.length < piece.length ? piece.subarray(part.length) : null;
    }
    return used === 0 ? null : used === MESSAGE ? out : out.slice(0, used);
  }

  async end(): Promise<void> {
    await this.pieces.return(undefined);
  }
}

/** Loads a machine from pieces as they come. */
export class StateSink {
  /** Settles when all has been loaded; rejects with one line. */
  readonly loaded: Promise<void>;
  private waiting: ((result: IteratorResult<Uint8Array>) => void) | null = null;
  private piece: Uint8Array | null = null;
  private taken: (() => void) | null = null;
  private over = false;

  constructor(machine: LocalMachine) {
    const next = (): Promise<IteratorResult<Uint8Array>> =>
      new Promise((resolve) => {
        this.waiting = resolve;
        this.hand();
      });
    this.loaded = loadMachine(machine.stateParts(), { [Symbol.asyncIterator]: () => ({ next }) });
    // Whoever waits for a piece to be taken is told that none will be any more.
    const end = (): void => {
      this.over = true;
      this.taken?.();
    };
    this.loaded.then(end, end);
  }

  /** @param piece null at the end @returns settles when it has been taken, or nothing more will be */
  put(piece: Uint8Array | null): Promise<void> {
    return new Promise((resolve) => {
      this.taken = resolve;
      if (this.over) return resolve();
      this.piece = piece ?? NOTHING;
      this.hand();
    });
  }

  private hand(): void {
    const { waiting, piece } = this;
    if (waiting === null || piece === null) return;
    this.waiting = null;
    // The end stays the end, however often it is asked for.
    if (piece !== NOTHING) this.piece = null;
    waiting(piece === NOTHING ? { value: undefined, done: true } : { value: piece, done: false });
    this.taken?.();
  }
}

const NOTHING = new Uint8Array(0);

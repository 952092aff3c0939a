/** The filter `copy-on-read`: what comes from a backing file is kept in the image above it. */
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import { Filter } from './filter.ts';
import { node, type Schema } from './schema.ts';
import { run, type Task, wait } from './task.ts';

type Range = { start: number; end: number; ended: PromiseWithResolvers<void> };

/** Copies are whole units of this: an image's clusters are not larger as a rule. */
const UNIT = 65536;

export class CopyOnRead extends Filter {
  readonly driver = 'copy-on-read';
  /** Copies and writes under way: a copy must not undo what the guest writes meanwhile. */
  private readonly busy = new Set<Range>();

  override read(offset: number, into: Uint8Array): Completion {
    return this.readOnly ? this.below.read(offset, into) : run(this.readTask(offset, into));
  }

  private *readTask(offset: number, into: Uint8Array): Task<void> {
    yield* this.copy(offset, offset + into.length);
    const reading = this.below.read(offset, into);
    if (reading !== undefined) yield reading;
  }

  private *copy(offset: number, end: number): Task<void> {
    for (let at = offset; at < end; ) {
      const found = yield* wait(this.below.status(at, end - at));
      if (found.allocated || this.below.backing === null) {
        at += found.length;
        continue;
      }
      const start = at - (at % UNIT);
      const stop = Math.min(this.size, Math.ceil((at + found.length) / UNIT) * UNIT, start + 32 * UNIT);
      yield* this.copyRange(start, stop);
      at = stop;
    }
  }

  private *copyRange(start: number, stop: number): Task<void> {
    const range = yield* this.reserve(start, stop);
    try {
      const data = new Uint8Array(stop - start);
      const reading = this.below.read(start, data);
      if (reading !== undefined) yield reading;
      // Only what is still not the image's own.
      for (let at = start; at < stop; ) {
        const now = yield* wait(this.below.status(at, stop - at));
        if (!now.allocated) {
          const writing = this.below.write(at, data.subarray(at - start, at - start + now.length));
          if (writing !== undefined) yield writing;
        }
        at += now.length;
      }
    } finally {
      this.release(range);
    }
  }

  private *reserve(start: number, end: number): Task<Range> {
    for (;;) {
      const other = [...this.busy].find((one) => one.start < end && start < one.end);
      if (other === undefined) break;
      yield other.ended.promise;
    }
    const range = { start, end, ended: Promise.withResolvers<void>() };
    this.busy.add(range);
    return range;
  }

  private release(range: Range): void {
    this.busy.delete(range);
    range.ended.resolve();
  }

  private *exclusively(offset: number, length: number, act: () => Completion): Task<void> {
    const range = yield* this.reserve(offset, offset + length);
    try {
      const acting = act();
      if (acting !== undefined) yield acting;
    } finally {
      this.release(range);
    }
  }

  override write(offset: number, from: Uint8Array): Completion {
    return run(this.exclusively(offset, from.length, () => this.below.write(offset, from)));
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    return run(this.exclusively(offset, length, () => this.below.writeZeroes(offset, length, mayUnmap)));
  }

  override discard(offset: number, length: number): Completion {
    return run(this.exclusively(offset, length, () => this.below.discard(offset, length)));
  }
}

const OPTIONS = { file: node } satisfies Schema;

export const copyOnReadDriver = driver({
  name: 'copy-on-read',
  protocol: false,
  options: OPTIONS,
  open: async (values, { child }) => new CopyOnRead(await child(values.file, {}, true)),
});

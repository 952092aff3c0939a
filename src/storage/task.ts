/**
 * Operations in steps that wait only where there is something to wait for.
 *
 * A `Task` is a generator that yields promises: one source serves machines whose every operation must be over when
 * it returns (its files answer at once, so that it never yields) and those whose guest runs on meanwhile.
 */
import type { Completion } from '../machine/interfaces.ts';

export type Task<T> = Generator<Promise<unknown>, T, void>;
export type Maybe<T> = T | Promise<T>;

/** @returns the result, or a promise for it if the task had to wait. @throws what the task throws before it waits */
export function run<T>(task: Task<T>): Maybe<T> {
  const step = task.next();
  return step.done === true ? step.value : finish(task, step.value);
}

async function finish<T>(task: Task<T>, waiting: Promise<unknown>): Promise<T> {
  for (;;) {
    let failure: unknown;
    let failed = false;
    try {
      await waiting;
    } catch (error) {
      failed = true;
      failure = error;
    }
    const step: IteratorResult<Promise<unknown>, T> = failed ? task.throw(failure) : task.next();
    if (step.done === true) return step.value;
    waiting = step.value;
  }
}

/** Waits for a value that may be there already. */
export function* wait<T>(value: Maybe<T>): Task<T> {
  if (!(value instanceof Promise)) return value;
  let result: T;
  yield value.then((settled) => {
    result = settled;
  });
  return result!;
}

/** Several completions of one request, which is over when all are: a buffer must not change after a failure was told. */
export class Several {
  private waiting: Promise<void>[] | null = null;
  private error: unknown = null;
  private failed = false;

  add(one: Completion): void {
    if (one === undefined) return;
    this.waiting ??= [];
    this.waiting.push(one.catch((error: unknown) => this.fail(error)));
  }

  fail(error: unknown): void {
    if (this.failed) return;
    this.failed = true;
    this.error = error;
  }

  /** @throws the first error of all */
  *end(): Task<void> {
    if (this.waiting !== null) yield Promise.all(this.waiting);
    if (this.failed) throw this.error;
  }
}

/** One task at a time, in the order of asking. */
export class Lock {
  private held = false;
  private readonly waiters: (() => void)[] = [];

  *acquire(): Task<void> {
    if (!this.held) {
      this.held = true;
      return;
    }
    // The one who releases hands the lock over without letting go of it.
    yield new Promise<void>((resolve) => this.waiters.push(resolve));
  }

  release(): void {
    const next = this.waiters.shift();
    if (next === undefined) this.held = false;
    else next();
  }
}

/** A thread that may be begun before it is known what for: loading its code takes time. */
import { startThread } from '#threads';
import type { Thread } from './host.ts';

export class EarlyThread<Send, Receive> {
  private readonly entry: URL;
  private begun: Thread<Send, Receive> | null = null;

  /** @param entry the thread's module */
  constructor(entry: URL) {
    this.entry = entry;
  }

  /** Begins the thread that `take` will return next, unless it has been. */
  begin(): Thread<Send, Receive> {
    this.begun ??= startThread<Send, Receive>(this.entry);
    return this.begun;
  }

  /** @returns the thread that was begun, else a new one */
  take(): Thread<Send, Receive> {
    const thread = this.begin();
    this.begun = null;
    return thread;
  }

  /** Ends the thread that was begun if nobody has taken it. */
  drop(): void {
    this.begun?.terminate();
    this.begun = null;
  }
}

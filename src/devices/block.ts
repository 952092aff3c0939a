/** What drives of all kinds need to work with a backend that may or may not answer at once. */
import type { Completion } from '../machine/interfaces.ts';

/**
 * Runs an operation and says how it ended, at once if it can.
 * @param done called exactly once, with the error or null
 */
export function settle(operation: () => Completion, done: (error: Error | null) => void): void {
  let running: Completion;
  try {
    running = operation();
  } catch (error) {
    return done(error as Error);
  }
  if (running === undefined) return done(null);
  running.then(
    () => done(null),
    (error: Error) => done(error),
  );
}

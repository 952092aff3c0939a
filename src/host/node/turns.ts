/** Going on after the event loop has had its turn. */

/**
 * A message to oneself would not do: Node.js hands up to a thousand messages of one port over
 * before it looks at any other, and input would wait for seconds.
 */
export function afterEvents(run: () => void): void {
  setImmediate(run);
}

/** Going on after the event loop has had its turn. */

const waiting: (() => void)[] = [];
const channel = new MessageChannel();
channel.port1.onmessage = () => waiting.shift()?.();

/** Timers are held back to some milliseconds by web pages; messages are not. */
export function afterEvents(run: () => void): void {
  waiting.push(run);
  channel.port2.postMessage(null);
}

const nobody = new Int32Array(new SharedArrayBuffer(4));

/** Sleeps in place. @param ms milliseconds  @returns whether the event loop should have its turn */
export function sleepUntilEvent(ms: number): boolean {
  Atomics.wait(nobody, 0, 0, ms);
  return true;
}

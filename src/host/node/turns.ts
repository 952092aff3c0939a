/** Going on after the event loop has had its turn, and sleeping until it needs one. */

/**
 * A message to oneself would not do: Node.js hands up to a thousand messages of one port over
 * before it looks at any other, and input would wait for seconds.
 */
export function afterEvents(run: () => void): void {
  setImmediate(run);
}

/** Sleeps so many milliseconds. @returns whether the event loop has something to do */
type Sleep = (ms: number) => boolean;

let sleep: Sleep | null = null;

/**
 * Sleeps in place, as finely as the host can, until the event loop has something to do. The loop must have had its turn
 * since something was asked of it: what it has not begun to wait for does not end the sleep.
 * @param ms milliseconds, at most  @returns whether the event loop should have its turn
 */
export function sleepUntilEvent(ms: number): boolean {
  sleep ??= watchfulSleep() ?? blindSleep();
  return sleep(ms);
}

/** poll(2) on the event loop's own descriptor: its timers are too coarse for what a guest waits for. */
function watchfulSleep(): Sleep | null {
  try {
    const { dlopen, getCurrentEventLoop } = process.getBuiltinModule('node:ffi');
    const { uv_backend_fd, ppoll } = dlopen(null, {
      uv_backend_fd: { arguments: ['pointer'], return: 'i32' },
      ppoll: { arguments: ['buffer', 'u64', 'buffer', 'pointer'], return: 'i32' },
    }).functions;
    // struct pollfd: descriptor, 16 bits of wanted and of found events; struct timespec: seconds, nanoseconds.
    const file = new Int32Array([uv_backend_fd(getCurrentEventLoop()), POLLIN]);
    const time = new BigInt64Array(2);
    return (ms) => {
      time[1] = BigInt(Math.floor(ms * 1e6));
      return ppoll(file, 1n, time, 0n) !== 0;
    };
  } catch {
    return null;
  }
}

const POLLIN = 1;

function blindSleep(): Sleep {
  const nobody = new Int32Array(new SharedArrayBuffer(4));
  return (ms) => {
    Atomics.wait(nobody, 0, 0, ms);
    return true;
  };
}

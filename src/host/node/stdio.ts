/** Standard input and output, and the terminal's mode. */
import type { Channel } from '../host.ts';

const CTRL_C = 3;
const CTRL_BACKSLASH = 28;

let raw = false;

/** Puts the terminal back as it was found; harmless when nothing was changed. */
export function restoreTerminal(): void {
  if (!raw) return;
  raw = false;
  try {
    process.stdin.setRawMode(false);
  } catch {
    // The terminal has gone: nothing is left to be restored.
  }
}

function enterRawMode(): void {
  if (!process.stdin.isTTY || raw) return;
  process.stdin.setRawMode(true);
  raw = true;
  process.once('exit', restoreTerminal);
  // A shell that gets the terminal back by Ctrl-Z elsewhere leaves its own mode behind.
  process.on('SIGCONT', () => {
    if (raw) process.stdin.setRawMode(true);
  });
}

/** In raw mode the terminal raises no signals by itself. */
function raiseSignals(data: Uint8Array): Uint8Array {
  if (data.includes(CTRL_C)) process.kill(process.pid, 'SIGINT');
  if (data.includes(CTRL_BACKSLASH)) process.kill(process.pid, 'SIGQUIT');
  return data.filter((byte) => byte !== CTRL_C && byte !== CTRL_BACKSLASH);
}

function input(signals: boolean): ReadableStream<Uint8Array> {
  const { stdin } = process;
  return new ReadableStream<Uint8Array>({
    start: (controller) => {
      stdin.on('data', (chunk: Buffer) => {
        const data = new Uint8Array(chunk);
        const passed = signals && stdin.isTTY ? raiseSignals(data) : data;
        if (passed.length > 0) controller.enqueue(passed);
        if ((controller.desiredSize ?? 0) <= 0) stdin.pause();
      });
      const close = (): void => {
        try {
          controller.close();
        } catch {
          // Already closed or cancelled.
        }
      };
      stdin.on('end', close);
      stdin.on('error', close);
    },
    pull: () => {
      stdin.resume();
    },
    cancel: () => {
      stdin.pause();
    },
  });
}

function output(): WritableStream<Uint8Array> {
  const { stdout } = process;
  // A reader that has gone ends the output, not the machine.
  let broken = false;
  stdout.on('error', () => {
    broken = true;
  });
  return new WritableStream<Uint8Array>({
    write: (data) => {
      if (broken) return;
      return new Promise((resolve) => {
        stdout.write(data, () => resolve());
      });
    },
  });
}

/** @param signals Ctrl-C and Ctrl-\ end the emulator instead of reaching the guest */
export function openStdio({ signals }: { signals: boolean }): Channel {
  enterRawMode();
  return {
    readable: input(signals),
    writable: output(),
    close: () => {
      process.stdin.pause();
      restoreTerminal();
    },
  };
}

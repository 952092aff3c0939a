/** Standard input and output, and the terminal's mode. */
import { writeSync } from 'node:fs';
import type { Channel } from '../host.ts';

const CTRL_C = 3;
const CTRL_BACKSLASH = 28;

let raw = false;
/** What is written to give a terminal back that has been taken over. */
let undo = '';

/** Puts the terminal back as it was found; harmless when nothing was changed. */
export function restoreTerminal(): void {
  giveBack();
  if (!raw) return;
  raw = false;
  try {
    process.stdin.setRawMode(false);
  } catch {
    // The terminal has gone: nothing is left to be restored.
  }
}

/** At once, for the process may be about to end. */
function giveBack(): void {
  const text = undo;
  undo = '';
  try {
    if (text !== '') writeSync(1, text);
  } catch {
    // As below.
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

/** Has Node.js make, while there is time, what `openStdio` needs of it (10 ms of cold code); the terminal stays as it is. */
export function prepareStdio(): void {
  for (const needed of [process.stdin, process.stdout, ReadableStream, WritableStream]) void needed;
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

/** The terminal as a screen with a keyboard. */
export interface Terminal {
  readonly columns: number;
  readonly rows: number;
  /** It has not been given back yet. */
  readonly taken: boolean;
  /** What was written has reached the terminal. */
  readonly ready: boolean;
  write(text: string): void;
  onInput(take: (data: Uint8Array) => void): void;
  onResize(resized: () => void): void;
}

/**
 * Takes the whole terminal, until `restoreTerminal`.
 * @param begin what is written first  @param end what is written last
 */
export function takeTerminal(begin: string, end: string): Terminal {
  const { stdin, stdout } = process;
  enterRawMode();
  undo = end;
  stdout.on('error', () => restoreTerminal());
  stdout.write(begin);
  return {
    get columns() {
      return stdout.columns || 80;
    },
    get rows() {
      return stdout.rows || 25;
    },
    get taken() {
      return undo !== '';
    },
    get ready() {
      return stdout.writableLength === 0;
    },
    write: (text) => {
      if (text !== '' && undo !== '') stdout.write(text);
    },
    onInput: (take) => void stdin.on('data', (chunk: Buffer) => take(new Uint8Array(chunk))),
    onResize: (resized) => void stdout.on('resize', resized),
  };
}

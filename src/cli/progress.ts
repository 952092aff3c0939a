/** Progress of a longer job: a bar on a terminal, a line for each step elsewhere. */
import { writeSync } from 'node:fs';

export interface Progress {
  step(what: string): void;
  percent(value: number): void;
  done(): void;
}

export const SILENT: Progress = {
  step: () => undefined,
  percent: () => undefined,
  done: () => undefined,
};

const WIDTH = 30;

/** On standard error: standard output is the guest's. */
export function terminalProgress(): Progress {
  const tty = process.stderr.isTTY === true;
  const put = (text: string): void => {
    writeSync(2, text);
  };
  let current = '';
  const bar = (percent: number): void => {
    const full = Math.round((percent / 100) * WIDTH);
    const drawn = '#'.repeat(full) + '.'.repeat(WIDTH - full);
    put(`\r\x1b[K[${drawn}] ${Math.floor(percent).toString().padStart(3)} % ${current}`);
  };
  return {
    step: (what) => {
      current = what;
      if (tty) bar(0);
      else put(`${what}\n`);
    },
    percent: (value) => {
      if (tty) bar(Math.max(0, Math.min(100, value)));
    },
    done: () => {
      if (tty) put('\r\x1b[K');
    },
  };
}

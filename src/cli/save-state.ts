/** A machine's state in files: `-incoming file:FILE` and `-save-state FILE`. */
import { closeSync, createReadStream, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { describeError } from '../host/node/errors.ts';
import { ConfigError, Machine, type MachineConfig } from '../index.ts';
import { OptionError } from './command-line.ts';

/** Goes on from a file; the machine is left paused. @throws OptionError when it cannot, ConfigError, one line */
export async function restoreFrom(path: string, config: Partial<MachineConfig>): Promise<Machine> {
  const bad = (why: string): OptionError => new OptionError('-incoming', `file:${path}`, why);
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw bad(describeError(error));
  }
  try {
    return await Machine.restore(createReadStream(path, { fd, highWaterMark: 1 << 20 }), { ...config, startPaused: true });
  } catch (error) {
    throw error instanceof ConfigError ? error : bad((error as Error).message);
  }
}

/** Writes the whole state, and only then gives the file its name. @throws Error, one line */
async function saveTo(machine: Machine, path: string): Promise<void> {
  const draft = `${path}.part`;
  try {
    const fd = openSync(draft, 'w', 0o600);
    try {
      for await (const piece of machine.save()) for (let at = 0; at < piece.length; ) at += writeSync(fd, piece, at);
    } finally {
      closeSync(fd);
    }
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw new Error(describeError(error));
  }
}

/**
 * What Ctrl-A S does: the machine is saved, and the program ends; if it cannot be saved, it goes on.
 * @param exit ends the program
 */
export function saver(machine: Machine, path: string, exit: () => void, say: (text: string) => void): () => void {
  let busy = false;
  return () => {
    if (busy) return;
    busy = true;
    const ran = machine.state === 'running';
    saveTo(machine, path).then(
      () => {
        say(`the machine is saved in ${path}; -incoming file:${path} goes on from there\r`);
        exit();
      },
      (error: Error) => {
        say(`-save-state ${path}: ${error.message}\r`);
        busy = false;
        if (ran) void machine.start();
      },
    );
  };
}

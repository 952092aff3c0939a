/** A process that is one machine: how it ends, and in what state it leaves the terminal. */
import { writeSync } from 'node:fs';
import type { Channel } from '../host/host.ts';
import { restoreTerminal } from '../host/node/stdio.ts';
import type { Machine } from '../index.ts';

/** A machine, or a peer, that does not answer for so long is not waited for any more. */
const QUIT_PATIENCE_MS = 2000;

/** timeout(1) and shells signal a process and then its group: what comes so soon is the same wish, not a second one. */
const ECHO_MS = 300;

/** Synchronously, so that it appears whatever comes next. */
export function report(program: string, text: string): void {
  writeSync(2, `${program}: ${text}\n`);
}

export function guardTerminal(program: string): void {
  process.on('uncaughtException', (error) => {
    restoreTerminal();
    report(program, `internal error: ${error.stack ?? error.message}`);
    process.exit(1);
  });
}

export function leave(status: number): never {
  restoreTerminal();
  process.exit(status);
}

/** @returns what ends the machine, and at the second call the process */
export function quitter(machine: Machine): () => void {
  let asked = false;
  return () => {
    if (asked) leave(0);
    asked = true;
    setTimeout(() => leave(0), QUIT_PATIENCE_MS).unref();
    machine.quit().catch(() => leave(1));
  };
}

export function handleSignals(program: string, quit: () => void): void {
  let last = -Infinity;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) {
    process.on(signal, () => {
      const now = performance.now();
      if (now - last < ECHO_MS) return;
      last = now;
      if (signal !== 'SIGHUP') report(program, `terminating on ${signal}`);
      quit();
    });
  }
}

/** Waits for the machine's end and its last output. @returns the exit status */
export async function finish(machine: Machine, channels: readonly Channel[], outputs: readonly Promise<void>[]): Promise<number> {
  const { status } = await machine.ended;
  const patience = new Promise((resolve) => setTimeout(resolve, QUIT_PATIENCE_MS).unref());
  await Promise.race([Promise.allSettled(outputs), patience]);
  await Promise.all(channels.map((channel) => channel.close()));
  return status;
}

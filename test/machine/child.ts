/** Emulators as processes: how they end, and what they print. */
import type { ChildProcess } from 'node:child_process';

/** @returns the exit status, or the signal's name */
export const ended = (child: ChildProcess): Promise<number | string | null> =>
  new Promise((resolve) => child.on('close', (status, signal) => resolve(status ?? signal)));

/** Keeps what comes, and waits for some of it. */
export function collect(stream: NodeJS.ReadableStream) {
  const seen = { text: '' };
  stream.on('data', (chunk: Buffer) => {
    seen.text += chunk.toString();
  });
  const until = async (wanted: string): Promise<void> => {
    while (!seen.text.includes(wanted)) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  return { seen, until };
}

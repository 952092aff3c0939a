/** The guests of this folder as they were assembled, and what they should log (record.ts makes these files). */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export const GUESTS = join(import.meta.dirname, 'guests');
export const RECORDED = join(import.meta.dirname, 'recorded');

export interface Recording {
  /** Hash of the source that the program was assembled from. */
  readonly source: string;
  readonly cpu: string;
  /** Times that the guest goes through its program, printing the last time: translated code gets compiled. */
  readonly passes: number;
  /** Lines, the last of which says how the guest ended: "end" or "reset". */
  readonly log: readonly string[];
  /** Base 64. */
  readonly program: string;
}

export function sourceHash(name: string): string {
  const hash = createHash('sha256');
  for (const file of ['kit.inc', `${name}.asm`]) hash.update(readFileSync(join(GUESTS, file)));
  return hash.digest('hex').slice(0, 16);
}

export function recordedNames(): string[] {
  return readdirSync(RECORDED)
    .filter((file) => file.endsWith('.json'))
    .map((file) => file.slice(0, -5));
}

export function readRecording(name: string): Recording {
  return JSON.parse(readFileSync(join(RECORDED, `${name}.json`), 'utf8')) as Recording;
}

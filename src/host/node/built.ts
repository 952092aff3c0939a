/** Files that scripts/build.ts makes beside the modules. */
import { readFileSync } from 'node:fs';

/** @returns null where there is no such file: the sources run by themselves */
export function readBuilt(name: string): Uint8Array<ArrayBuffer> | null {
  try {
    return new Uint8Array(readFileSync(new URL(name, import.meta.url)));
  } catch {
    return null;
  }
}

/** Compares what a saved machine was made of with what the one that is to go on is made of. */
import type { StateValue } from '../machine/interfaces.ts';
import type { Fields } from './values.ts';

const isRecord = (value: StateValue | undefined): value is Fields =>
  typeof value === 'object' && !Array.isArray(value) && !(value instanceof Uint8Array);

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

function shown(value: StateValue | undefined): string {
  if (value === undefined) return 'not there';
  if (value instanceof Uint8Array) return hex(value);
  if (typeof value === 'string') return value === '' ? 'nothing' : JSON.stringify(value);
  if (typeof value === 'object') return JSON.stringify(value, (_, item) => (typeof item === 'bigint' ? String(item) : item));
  return String(value);
}

function isEqual(a: StateValue | undefined, b: StateValue | undefined): boolean {
  if (a instanceof Uint8Array && b instanceof Uint8Array) return hex(a) === hex(b);
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, i) => isEqual(item, b[i]));
  return Object.is(a, b);
}

/** @returns one line about the first difference, which names the part and the field; null when there is none */
export function difference(saved: Fields, mine: Fields): string | null {
  for (const part of new Set([...Object.keys(saved), ...Object.keys(mine)])) {
    const [there, here] = [saved[part], mine[part]];
    if (isRecord(there) && isRecord(here)) {
      const found = part === 'devices' ? devicesDiffer(there, here) : fieldsDiffer(part, there, here);
      if (found !== null) return found;
    } else if (!isEqual(there, here)) return differs(part, there, here);
  }
  return null;
}

const differs = (what: string, there: StateValue | undefined, here: StateValue | undefined): string =>
  `${what} was ${shown(there)} when it was saved, and is ${shown(here)} here`;

function devicesDiffer(there: Fields, here: Fields): string | null {
  for (const id of new Set([...Object.keys(there), ...Object.keys(here)])) {
    const [a, b] = [there[id], here[id]];
    if (b === undefined) return `it has a device "${id}" (${nameOf(a)}), which this machine lacks`;
    if (a === undefined) return `it lacks the device "${id}" (${nameOf(b)}), which this machine has`;
    if (!isRecord(a) || !isRecord(b)) return `device "${id}" is not described`;
    const found = fieldsDiffer(`device "${id}"`, a, b);
    if (found !== null) return found;
  }
  return null;
}

const nameOf = (device: StateValue | undefined): string => (isRecord(device) ? String(device['type']) : 'unknown');

function fieldsDiffer(part: string, there: Fields, here: Fields): string | null {
  for (const name of new Set([...Object.keys(there), ...Object.keys(here)])) {
    if (!isEqual(there[name], here[name])) return differs(`${part}: ${name}`, there[name], here[name]);
  }
  return null;
}

/** Passwords as `-object secret` and `--object secret` give them. */
import { readFileSync } from 'node:fs';
import { describeError } from '../host/node/errors.ts';
import { ValueError } from './values.ts';

/** @param values `data` or `file`, and `format` */
export function readSecret(values: ReadonlyMap<string, string>): Uint8Array {
  const data = values.get('data');
  const file = values.get('file');
  if ((data === undefined) === (file === undefined)) throw new ValueError('needs either data= or file=');
  const format = values.get('format') ?? 'raw';
  if (format !== 'raw' && format !== 'base64') throw new ValueError(`format=${format} is not one of raw, base64`);
  const bytes = data === undefined ? readSecretFile(file!) : new TextEncoder().encode(data);
  if (format === 'raw') return bytes;
  return new Uint8Array(Buffer.from(new TextDecoder().decode(bytes), 'base64'));
}

function readSecretFile(path: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(path));
  } catch (error) {
    throw new ValueError(`${path}: ${describeError(error)}`);
  }
}

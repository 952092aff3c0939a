/** Options of new LUKS headers. */
import type { CreateValues } from './create.ts';
import { createLuks } from './luks.ts';

const DEFAULT_TIME = 2000;

/**
 * @param prefix of the options' names
 * @throws Error where something is asked for that there is not
 */
export function luksFromOptions(values: CreateValues, prefix: string, secrets: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const option = (name: string): string | undefined => {
    const value = values[`${prefix}${name}`];
    return value === undefined ? undefined : String(value);
  };
  const only = (name: string, ...known: string[]): string => {
    const value = option(name) ?? known[0]!;
    if (!known.includes(value)) throw new Error(`${prefix}${name}=${value} is not available (only ${known.join(', ')})`);
    return value;
  };
  const id = option('key-secret');
  if (id === undefined) throw new Error(`Parameter '${prefix}key-secret' is required for cipher`);
  const password = secrets.get(id);
  if (password === undefined) throw new Error(`No secret with id '${id}'`);
  only('cipher-mode', 'xts');
  only('ivgen-alg', 'plain64');
  const bits = only('cipher-alg', 'aes-256', 'aes-128') === 'aes-256' ? 256 : 128;
  const hash = only('hash-alg', 'sha256', 'sha1', 'sha512');
  return createLuks(password, Number(option('iter-time') ?? DEFAULT_TIME), hash, (2 * bits) / 8);
}

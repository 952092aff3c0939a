/**
 * Options of drivers: one schema each, from which checks, types and the reading of text derive.
 * Values come as JSON has them, or as text, as they do from `key=value` lists.
 */
import { ValueError } from './values.ts';

type Read<T> = (value: unknown, name: string) => T;

export interface Field<T> {
  readonly read: Read<T>;
  /** Absent: the option must be given. */
  readonly otherwise?: () => T;
  /** For help and error messages. */
  readonly expects: string;
}

export type Schema = { readonly [name: string]: Field<unknown> };
export type Values<S extends Schema> = { readonly [K in keyof S]: S[K] extends Field<infer T> ? T : never };

/** Options as given: JSON, whose leaves may all be text. */
export type Given = { readonly [name: string]: unknown };

const wrong = (name: string, expected: string): ValueError =>
  new ValueError(`Invalid parameter type for '${name}', expected: ${expected}`);

function field<T>(expects: string, read: Read<T>): Field<T> {
  return { expects, read };
}

/** Makes an option one that may be left out. */
export function optional<T, D = T>(of: Field<T>, otherwise: D): Field<T | D> {
  return { expects: of.expects, read: of.read, otherwise: () => otherwise };
}

export const text = field('string', (value, name) => {
  if (typeof value !== 'string') throw wrong(name, 'string');
  return value;
});

export const flag = field('boolean', (value, name) => {
  if (typeof value === 'boolean') return value;
  if (value === 'on' || value === 'yes' || value === 'true' || value === 'y') return true;
  if (value === 'off' || value === 'no' || value === 'false' || value === 'n') return false;
  if (typeof value === 'string') throw new ValueError(`Parameter '${name}' expects 'on' or 'off'`);
  throw wrong(name, 'boolean');
});

export function integer(least: number, most: number): Field<number> {
  return field('integer', (value, name) => {
    const number = typeof value === 'string' && /^-?(0x[0-9a-f]+|\d+)$/i.test(value) ? Number(value) : value;
    if (typeof number !== 'number' || !Number.isSafeInteger(number)) throw wrong(name, 'integer');
    if (number < least || number > most) {
      throw new ValueError(`Parameter '${name}' expects a number from ${least} to ${most}`);
    }
    return number;
  });
}

/** Bytes; text may have a suffix, K to E. */
export const size = field('size', (value, name) => {
  const bytes = typeof value === 'string' ? sizeOf(value) : value;
  if (bytes === null) {
    throw new ValueError(
      `Parameter '${name}' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.`,
    );
  }
  if (typeof bytes !== 'number' || !Number.isInteger(bytes) || bytes < 0) throw wrong(name, 'size');
  return bytes;
});

const SUFFIXES = 'bkmgtpe';

/** @returns bytes, or null where the text is none */
export function sizeOf(value: string, unit = 'b'): number | null {
  const match = /^(0x[0-9a-f]+|\d+(?:\.\d+)?)([bkmgtpe])?$/i.exec(value);
  if (match === null) return null;
  const power = SUFFIXES.indexOf((match[2] ?? unit).toLowerCase());
  const bytes = Math.trunc(Number(match[1]) * 1024 ** power);
  // Larger ones than can be exact are too large for everything, which whoever wants them will say.
  return bytes < 2 ** 63 ? bytes : null;
}

export function choice<const T extends string>(...names: readonly T[]): Field<T> {
  return field('string', (value, name) => {
    if (typeof value !== 'string') throw wrong(name, 'string');
    if (!names.includes(value as T)) throw new ValueError(`Parameter '${name}' does not accept value '${value}'`);
    return value as T;
  });
}

/** A node: its options in place, or the name of one that is there already. */
export const node = field('BlockdevRef', (value, name): Given | string => {
  if (typeof value === 'string') return value;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(name, 'BlockdevRef');
  return value as Given;
});

/** The same, or null for none. */
export const nodeOrNull = field('BlockdevRefOrNull', (value, name): Given | string | null =>
  value === null || value === '' ? null : node.read(value, name),
);

export function group<S extends Schema>(schema: S): Field<Values<S>> {
  return {
    expects: 'object',
    read: (value, name) => {
      if (typeof value !== 'object' || value === null) throw wrong(name, 'object');
      return readOptions(schema, value as Given, `${name}.`);
    },
    otherwise: () => readOptions(schema, {}, ''),
  };
}

export function list<T>(of: Field<T>): Field<readonly T[]> {
  return {
    expects: 'array',
    read: (value, name) => {
      if (!Array.isArray(value)) throw wrong(name, 'array');
      return value.map((one, i) => of.read(one, `${name}.${i}`));
    },
    otherwise: () => [],
  };
}

/**
 * Checks options against a schema.
 * @param prefix of names in messages
 * @throws ValueError, one line, that names the option
 */
export function readOptions<S extends Schema>(schema: S, given: Given, prefix = ''): Values<S> {
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(schema, name)) throw new ValueError(`Invalid parameter '${prefix}${name}'`);
  }
  const values: Record<string, unknown> = {};
  for (const [name, { read, otherwise }] of Object.entries(schema)) {
    const value = given[name];
    if (value !== undefined) values[name] = read(value, `${prefix}${name}`);
    else if (otherwise !== undefined) values[name] = otherwise();
    else throw new ValueError(`Parameter '${prefix}${name}' is missing`);
  }
  return values as Values<S>;
}

/** Options in text: `key=value` lists with dotted keys, JSON, and names of images that carry options. */
import type { Given } from './schema.ts';

/** Options that cannot be used; one line that says which and why. */
export class ValueError extends Error {}

/** Splits at single commas; a doubled comma stands for itself. */
function splitCommas(text: string): string[] {
  const parts: string[] = [];
  let part = '';
  for (let i = 0; i < text.length; i++) {
    if (text[i] !== ',') part += text[i];
    else if (text[i + 1] === ',') {
      part += ',';
      i++;
    } else {
      parts.push(part);
      part = '';
    }
  }
  parts.push(part);
  return parts;
}

type Tree = { [name: string]: unknown };

/** Puts a value at `a.b.c`; what has only the keys 0, 1, 2... becomes a list later. */
function plant(tree: Tree, key: string, value: unknown): void {
  const path = key.split('.');
  const last = path.pop()!;
  let at = tree;
  for (const name of path) {
    const next = Object.hasOwn(at, name) ? at[name] : undefined;
    if (next === undefined) {
      const made: Tree = Object.create(null) as Tree;
      at[name] = made;
      at = made;
    } else if (typeof next === 'object' && next !== null) at = next as Tree;
    else
      throw new ValueError(`Parameters '${key}' and '${path.slice(0, path.indexOf(name) + 1).join('.')}' cannot both be given`);
  }
  if (Object.hasOwn(at, last) && typeof at[last] === 'object' && at[last] !== null) {
    throw new ValueError(`Parameters '${key}.*' used inconsistently`);
  }
  at[last] = value;
}

function withLists(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const entries = Object.entries(value).map(([name, one]) => [name, withLists(one)] as const);
  const listed = entries.length > 0 && entries.every(([name]) => /^\d+$/.test(name));
  if (!listed) return Object.fromEntries(entries);
  return entries.sort(([a], [b]) => Number(a) - Number(b)).map(([, one]) => one);
}

/**
 * `driver=qcow2,file.driver=file,file.filename=x.qcow2`.
 * @param implied key of a first part without "="
 */
export function parseKeyValues(source: string, implied: string | null = null): Given {
  const tree: Tree = Object.create(null) as Tree;
  splitCommas(source).forEach((part, i) => {
    if (part === '' && source === '') return;
    const at = part.indexOf('=');
    if (at > 0) plant(tree, part.slice(0, at), part.slice(at + 1));
    else if (at < 0 && i === 0 && implied !== null) plant(tree, implied, part);
    else throw new ValueError(at === 0 ? `Invalid parameter '${part}'` : `Expected '=' after parameter '${part}'`);
  });
  return withLists(tree) as Given;
}

/** Dotted keys at the top of JSON options, which `json:` names may have, become groups. */
export function unflatten(given: Given): Given {
  const tree: Tree = Object.create(null) as Tree;
  for (const [key, value] of Object.entries(given)) plant(tree, key, value);
  return withLists(tree) as Given;
}

export function parseJson(source: string): Given {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch {
    throw new ValueError('Could not parse the JSON options');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ValueError('Invalid JSON object given');
  }
  return unflatten(value as Given);
}

/** What follows `-blockdev` and `--image-opts`. */
export function parseOptionText(source: string): Given {
  return source.trimStart().startsWith('{') ? parseJson(source) : parseKeyValues(source, 'driver');
}

/** Values of options as QEMU writes them: sizes, switches, lists of `key=value`. */

/** A value that cannot be used; the command line turns it into one line that names the option. */
export class ValueError extends Error {}

const UNITS: Record<string, number> = {
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  p: 2 ** 50,
  e: 2 ** 60,
};

/** @param unit what a number without a suffix is counted in */
export function parseSize(text: string, unit: 'b' | 'm'): number {
  const match = /^(0x[0-9a-f]+|\d+(?:\.\d+)?)([bkmgtpe])?$/i.exec(text);
  if (match === null) {
    throw new ValueError(`"${text}" is not a size (a number, then optionally B, K, M, G or T)`);
  }
  const bytes = Number(match[1]) * UNITS[match[2]?.toLowerCase() ?? unit]!;
  if (!Number.isSafeInteger(bytes)) throw new ValueError(`size "${text}" is out of range`);
  return bytes;
}

export function parseNumber(text: string, least: number, most: number): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most)) {
    throw new ValueError(`"${text}" is not a number from ${least} to ${most}`);
  }
  return value;
}

export function parseSwitch(key: string, text: string): boolean {
  if (['on', 'yes', 'true', 'y'].includes(text)) return true;
  if (['off', 'no', 'false', 'n'].includes(text)) return false;
  throw new ValueError(`${key} takes on or off, not "${text}"`);
}

/** Splits at single commas; a doubled comma stands for itself. */
export function splitCommas(text: string): string[] {
  const parts: string[] = [''];
  for (let i = 0; i < text.length; i++) {
    if (text[i] !== ',') parts[parts.length - 1] += text[i];
    else if (text[i + 1] === ',') {
      parts[parts.length - 1] += ',';
      i++;
    } else parts.push('');
  }
  return parts;
}

/**
 * `first,key=value,flag,noflag`; a bare word means `word=on`, or `word=off` after "no" (as QEMU
 * has it for the switches in `switches`).
 * @param implied key of a first part without "="
 */
export function parseList(text: string, implied: string | null, switches: readonly string[] = []): Map<string, string> {
  const values = new Map<string, string>();
  splitCommas(text).forEach((part, i) => {
    if (part === '') {
      if (i === 0 && text === '') return;
      throw new ValueError('an empty item in the list');
    }
    const at = part.indexOf('=');
    if (at >= 0) values.set(part.slice(0, at), part.slice(at + 1));
    else if (i === 0 && implied !== null) values.set(implied, part);
    else if (part.startsWith('no') && switches.includes(part.slice(2))) {
      values.set(part.slice(2), 'off');
    } else values.set(part, 'on');
  });
  return values;
}

/** The same, or an object of JSON with plain values, as management writes it. */
export function listOrJson(text: string, implied: string): Map<string, string> {
  if (!text.trimStart().startsWith('{')) return parseList(text, implied);
  let object: unknown;
  try {
    object = JSON.parse(text);
  } catch {
    throw new ValueError('not JSON');
  }
  return new Map(Object.entries(object as object).map(([key, value]) => [key, String(value)]));
}

/** @throws ValueError when the list has a key beyond these */
export function onlyKeys(values: ReadonlyMap<string, string>, known: readonly string[]): void {
  for (const key of values.keys()) {
    if (!known.includes(key)) {
      throw new ValueError(`"${key}" is not known here (known: ${known.join(', ')})`);
    }
  }
}

/** @returns the 16 bytes of a UUID in text order */
export function parseUuid(text: string): Uint8Array {
  const digits = text.replaceAll('-', '');
  if (!/^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$/i.test(text)) {
    throw new ValueError(`"${text}" is not a UUID`);
  }
  return Uint8Array.from({ length: 16 }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

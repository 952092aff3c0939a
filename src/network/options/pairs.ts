/** Keys and values as options list them. */

/** What an option lists: keys may come several times. */
export class Pairs {
  private readonly pairs: readonly (readonly [key: string, value: string])[];

  constructor(pairs: Iterable<readonly [key: string, value: string]>) {
    this.pairs = [...pairs];
  }

  /** @param text an object in JSON  @throws Error */
  static fromJson(text: string): Pairs {
    try {
      return Pairs.fromObject(JSON.parse(text));
    } catch (error) {
      throw new Error(`JSON parse error, ${(error as Error).message}`);
    }
  }

  /** Management's objects: nested names are joined by dots, lists are several of the same. */
  static fromObject(object: unknown): Pairs {
    return new Pairs(flatten('', object));
  }

  has(key: string): boolean {
    return this.pairs.some(([name]) => name === key);
  }

  /** The last one counts. */
  get(key: string): string | null {
    return this.pairs.findLast(([name]) => name === key)?.[1] ?? null;
  }

  all(key: string): string[] {
    return this.pairs.filter(([name]) => name === key).map(([, value]) => value);
  }

  flag(key: string): boolean | null {
    const value = this.get(key);
    if (value === null) return null;
    if (['on', 'yes', 'true', 'y'].includes(value)) return true;
    if (['off', 'no', 'false', 'n'].includes(value)) return false;
    throw new Error(`Parameter '${key}' expects 'on' or 'off'`);
  }

  number(key: string): number | null {
    const value = this.get(key);
    if (value === null) return null;
    if (!/^(\d+|0x[0-9a-f]+)$/i.test(value) || Number(value) > 0x7fff_ffff) {
      throw new Error(`Parameter '${key}' expects a number`);
    }
    return Number(value);
  }

  /** @throws Error when there are others */
  only(keys: readonly string[]): void {
    const strange = this.pairs.find(([key]) => !keys.includes(key));
    if (strange !== undefined) throw new Error(`Invalid parameter '${strange[0]}'`);
  }

  /** Those that are not among `keys`. */
  others(keys: readonly string[]): Record<string, string> {
    return Object.fromEntries(this.pairs.filter(([key]) => !keys.includes(key)));
  }

  identifier(): string | null {
    const id = this.get('id');
    if (id !== null && !/^[a-z][\w.-]*$/i.test(id)) throw new Error("Parameter 'id' expects an identifier");
    return id;
  }
}

function flatten(name: string, part: unknown): (readonly [string, string])[] {
  if (Array.isArray(part)) return part.flatMap((one) => flatten(name, isText(one) ? one.str : one));
  if (typeof part === 'object' && part !== null) {
    return Object.entries(part).flatMap(([key, one]) => flatten(name === '' ? key : `${name}.${key}`, one));
  }
  return [[name, part === true ? 'on' : part === false ? 'off' : String(part)]];
}

const isText = (value: unknown): value is { str: string } =>
  typeof value === 'object' && value !== null && typeof (value as { str?: unknown }).str === 'string';

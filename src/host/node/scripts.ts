/**
 * Loads what scripts/build.ts makes for processes and threads, together with what the JavaScript engine has compiled of it before.
 * Node.js's own compile cache has a module as it is before anything of it has run, when its functions have not been compiled yet:
 * they are when they are first called, and of a start that is a third. Here it is kept a while later, with all that has run.
 *
 *     dist/app/NAME.js     entry of a process or a thread: this file, and a call of `runScript`
 *     dist/app/NAME.cjs    a script: MARK, and an expression, which is a function of (exports, require, scriptAddress)
 *     CACHE/VERSION/PLACE/OPTIONS/NAME.cjs    what has been compiled of it: MARK again, and the engine's data
 *
 * MARK tells scripts of different contents from each other. The engine sees by itself whether data are its own. It takes them under the
 * options alone that they were made under, which may change while threads are loaded (`tuneForTranslation`): there are data for each.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Script } from 'node:vm';

/** Bytes of a mark: a multiple of eight, since the engine copies data that are not aligned so. */
export const MARK_BYTES = 16;
/** Bytes before what depends on a script's contents, but for their length. */
const HEADER_BYTES = 16;
/** Milliseconds after the last script was loaded, when what it was loaded for is over, and not yet forgotten by the engine. */
const SETTLED_MS = 1000;

type Require = (name: string) => unknown;
type Body = (exports: unknown, require: Require, scriptAddress: string) => void;

interface Loaded {
  readonly mark: Buffer;
  readonly script: Script;
  /** What the engine's options were. */
  readonly options: Buffer;
  readonly exports: unknown;
  /** What has been compiled is in the cache. */
  kept: boolean;
}

/** Scripts of one folder, in one thread. */
class Scripts {
  private readonly folder: string;
  /** Null where there is no place for one. */
  private readonly cache: string | null;
  private readonly loaded = new Map<string, Loaded>();
  private timer: NodeJS.Timeout | null = null;

  /** @param folder of the scripts, with a slash at the end */
  constructor(folder: string) {
    this.folder = folder;
    this.cache = cacheFor(folder);
  }

  /** @returns what the script exports */
  load(name: string): unknown {
    const before = this.loaded.get(name);
    if (before !== undefined) return before.exports;
    const text = readFileSync(this.folder + name);
    const mark = text.subarray(0, MARK_BYTES);
    const options = engineOptions();
    const cachedData = this.compiled(name, options, mark);
    // One byte a character: the build sees to it.
    const script = new Script(text.toString('latin1', MARK_BYTES), {
      filename: this.folder + name,
      ...(cachedData && { cachedData }),
    });
    const kept = cachedData !== null && script.cachedDataRejected !== true;
    const exports = {};
    this.loaded.set(name, { mark, script, options, exports, kept });
    if (!kept && this.cache !== null) this.keepSoon(this.cache);
    const body = script.runInThisContext() as Body;
    body(exports, (other) => this.require(other), `file://${this.folder}${name}`);
    return exports;
  }

  private require(name: string): unknown {
    if (name.startsWith('node:')) return process.getBuiltinModule(name);
    // By name (./NAME) or by address.
    return this.load(name.slice(name.lastIndexOf('/') + 1));
  }

  /** @returns null when there is nothing for a script with this mark */
  private compiled(name: string, options: Buffer, mark: Buffer): Buffer | null {
    if (this.cache === null) return null;
    try {
      const data = readFileSync(`${this.cache}${sumOf(options)}/${name}`);
      return data.subarray(0, MARK_BYTES).equals(mark) ? data.subarray(MARK_BYTES) : null;
    } catch {
      return null;
    }
  }

  private keepSoon(cache: string): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = setTimeout(() => this.keep(cache), SETTLED_MS).unref();
  }

  private keep(cache: string): void {
    for (const [name, one] of this.loaded) {
      if (one.kept) continue;
      one.kept = true;
      const folder = `${cache}${sumOf(one.options)}/`;
      const data = one.script.createCachedData();
      restoreOptions(data, one.options);
      // Whoever reads it meanwhile has the old one or the new one; other threads may do the same.
      const draft = `${folder}${name}.${process.pid}.${Math.random()}`;
      try {
        mkdirSync(folder, { recursive: true, mode: 0o700 });
        writeFileSync(draft, Buffer.concat([one.mark, data]), { mode: 0o600, flush: true });
        renameSync(draft, folder + name);
      } catch {
        // Without a cache, starts take longer.
        return;
      }
    }
  }
}

/** What data begin with: versions of the engine and of their form, length of the script, options. Were it otherwise, none would be taken. */
const engineOptions = (): Buffer => new Script('').createCachedData().subarray(0, HEADER_BYTES);

/** Data say under which options they were written down; what they hold was made under those that were in force when the script was loaded. */
function restoreOptions(data: Buffer, before: Buffer): void {
  engineOptions().forEach((byte, at) => {
    if (byte !== before[at]) data[at] = before[at]!;
  });
}

/** Other programs start with other functions, and with other options of the engine. */
function cacheFor(folder: string): string | null {
  const { env } = process;
  const root = env['XDG_CACHE_HOME'] || (env['HOME'] && `${env['HOME']}/.cache`);
  if (!root) return null;
  const place = sumOf(Buffer.from(folder));
  const expects = env['VIRELAY_EXPECTS'] ?? 'any';
  return `${root}/virelay/scripts/${process.version}-${process.arch}/${place}-${expects}/`;
}

/** To tell folders from each other. */
function sumOf(bytes: Buffer): string {
  let sum = 0;
  for (const byte of bytes) sum = (Math.imul(sum, 31) + byte) >>> 0;
  return sum.toString(16);
}

/**
 * Runs a script that lies beside the calling module, and those that it names.
 * @param name of the script's file
 * @param address of the calling module (`import.meta.url`)
 * @returns what it exports
 */
export function runScript(name: string, address: string): unknown {
  return new Scripts(fileURLToPath(new URL('.', address))).load(name);
}

/** What commands of the image tool share: output, cache modes, secrets, opening images. */
import { writeSync } from 'node:fs';
import type { How } from '../storage/driver.ts';
import { Graph, HOW } from '../storage/graph.ts';
import type { BlockNode } from '../storage/node.ts';
import { skipFilters } from '../storage/chain.ts';
import { sizeOf } from '../storage/schema.ts';
import { parseOptionText } from '../storage/values.ts';
import { type Arguments, CommandError, has, lastOf, PROGRAM } from './img-args.ts';
import { readSecret } from './secret.ts';
import { parseList } from './values.ts';

export function print(text: string): void {
  write(1, text);
}

/** All of it: a pipe takes what it has room for. */
function write(fd: number, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }
}

export function complain(text: string): void {
  write(2, text.endsWith('\n') ? text : `${text}\n`);
}

export const report = (text: string): void => complain(`${PROGRAM}: ${text}`);

/** Bits of `cache` modes, as block nodes have them. */
export function cacheOf(mode: string | null): { direct: boolean; noFlush: boolean; writeThrough: boolean } {
  switch (mode) {
    case null:
    case 'writeback':
      return { direct: false, noFlush: false, writeThrough: false };
    case 'none':
    case 'off':
      return { direct: true, noFlush: false, writeThrough: false };
    case 'writethrough':
      return { direct: false, noFlush: false, writeThrough: true };
    case 'directsync':
      return { direct: true, noFlush: false, writeThrough: true };
    case 'unsafe':
      return { direct: false, noFlush: true, writeThrough: false };
    default:
      throw new CommandError(`Invalid cache option: ${mode}`);
  }
}

export interface OpenOptions {
  readonly format: string | null;
  /** The name is a list of options. */
  readonly imageOpts: boolean;
  readonly how: Partial<How>;
}

/** Images of one command, and what it opens them with. */
export class Images {
  readonly graph = new Graph();
  readonly secrets = new Map<string, Uint8Array>();
  private readonly forceShare: boolean;

  /** @param args `--object secret,…` and `-U` are taken from there */
  constructor(args: Arguments) {
    this.forceShare = has(args, 'U') || has(args, 'force-share');
    for (const text of args.options.get('object') ?? []) {
      const values = parseList(text, 'qom-type');
      const id = values.get('id');
      if (values.get('qom-type') !== 'secret' || id === undefined)
        throw new CommandError(`invalid object type: ${values.get('qom-type') ?? text}`);
      this.secrets.set(id, readSecret(values));
    }
  }

  /** @throws CommandError in QEMU's words */
  async open(name: string, { format, imageOpts, how }: OpenOptions): Promise<BlockNode> {
    const used: How = {
      ...HOW,
      immediate: true,
      resize: true,
      // Raw disks may be a running machine's; formats keep others out by themselves.
      share: true,
      secrets: this.secrets,
      forceShare: this.forceShare,
      warn: (line) => report(line),
      ...how,
    };
    try {
      if (imageOpts) {
        const node = await this.graph.open(parseOptionText(name), used);
        if (node.filename === '') node.filename = name;
        return node;
      }
      const node = await this.graph.openImage(name, format, used);
      if (format === null && used.writable && skipFilters(node).driver === 'raw') warnGuess(name);
      return node;
    } catch (error) {
      throw new CommandError(`Could not open '${name}': ${(error as Error).message}`);
    }
  }

  close(): Promise<void> {
    return this.graph.closeAll();
  }
}

function warnGuess(name: string): void {
  complain(
    `WARNING: Image format was not specified for '${name}' and probing guessed raw.\n` +
      '         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n' +
      "         Specify the 'raw' format explicitly to remove the restrictions.",
  );
}

/** `-f`, or null. */
export const formatOf = (args: Arguments, option = 'f'): string | null => lastOf(args, option);

/** @param output of `--output` */
export function wantsJson(output: string | null): boolean {
  if (output === null || output === 'human') return false;
  if (output === 'json') return true;
  throw new CommandError('--output must be used with human or json as argument.');
}

/** Bytes from text, as sizes in arguments are. @throws CommandError */
export function sizeArgument(what: string, text: string): number {
  const bytes = sizeOf(text);
  if (bytes === null) {
    throw new CommandError(
      `Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for\n${PROGRAM}: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.`,
    );
  }
  return bytes;
}

const UNITS = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

/** Three digits that count. */
export function humanSize(bytes: number): string {
  const scaled = bytes / (1000 / 1024);
  const unit = bytes === 0 ? 0 : Math.max(0, Math.floor(Math.floor(Math.log2(scaled)) / 10));
  return `${Number((bytes / 2 ** (10 * unit)).toPrecision(3))} ${UNITS[unit]}B`;
}

/** JSON as QEMU prints it. */
export const prettyJson = (value: unknown): string => `${JSON.stringify(value, null, 4)}\n`;

/** A line that shows how far something is, on a terminal and otherwise. */
export class Progress {
  private readonly total: number;
  private last = 0;

  /** @param on `-p`  @param total what counts as all */
  static start(on: boolean, total: number): Progress | null {
    if (!on) return null;
    const made = new Progress(total);
    made.show(0);
    return made;
  }

  private constructor(total: number) {
    this.total = total;
  }

  set(done: number): void {
    const percent = this.total === 0 ? 100 : Math.min(100, (done / this.total) * 100);
    if (percent >= this.last + 1 || percent === 100) this.show(percent);
  }

  end(): void {
    this.show(100);
    print('\n');
  }

  private show(percent: number): void {
    this.last = percent;
    print(`    (${percent.toFixed(2)}/100%)\r`);
  }
}

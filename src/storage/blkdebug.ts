/** The filter `blkdebug`: fails requests as its rules say, to see what becomes of it. */
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import { Filter } from './filter.ts';
import { errnoWords } from './nbd-protocol.ts';
import type { BlockNode, Extent } from './node.ts';
import { choice, flag, group, integer, list, node, optional, type Schema, type Values } from './schema.ts';
import type { Maybe } from './task.ts';

const IO_TYPES = ['read', 'write', 'write-zeroes', 'discard', 'flush', 'block-status'] as const;
type IoType = (typeof IO_TYPES)[number];

/** Events that requests raise here; what goes on within formats raises none. */
const EVENTS: Record<string, IoType | null> = { none: null, read_aio: 'read', write_aio: 'write', flush_to_disk: 'flush' };

const RULE = {
  event: choice('none', 'read_aio', 'write_aio', 'flush_to_disk'),
  state: optional(integer(0, 2 ** 31), 0),
  iotype: optional(choice(...IO_TYPES), null),
  errno: optional(integer(1, 4095), 5),
  /** Request that touches this sector; -1 for any. */
  sector: optional(integer(-1, 2 ** 53 - 1), -1),
  once: optional(flag, false),
  immediately: optional(flag, false),
} satisfies Schema;
const STATE = {
  event: choice('none', 'read_aio', 'write_aio', 'flush_to_disk'),
  state: optional(integer(0, 2 ** 31), 0),
  new_state: integer(1, 2 ** 31),
} satisfies Schema;
const OPTIONS = {
  image: node,
  'inject-error': list(group(RULE)),
  'set-state': list(group(STATE)),
} satisfies Schema;

type Options = Values<typeof OPTIONS>;

const CODES: Record<number, string> = { 5: 'EIO', 28: 'ENOSPC', 1: 'EPERM', 12: 'ENOMEM' };

class Blkdebug extends Filter {
  readonly driver = 'blkdebug';
  private state = 1;
  private readonly rules: Options['inject-error'][number][];
  private readonly changes: Options['set-state'];

  constructor(below: BlockNode, values: Options) {
    super(below);
    this.rules = [...values['inject-error']];
    this.changes = values['set-state'];
  }

  override read(offset: number, into: Uint8Array): Completion {
    return this.attempt('read', offset, into.length, () => this.below.read(offset, into));
  }

  override write(offset: number, from: Uint8Array): Completion {
    return this.attempt('write', offset, from.length, () => this.below.write(offset, from));
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    return this.attempt('write-zeroes', offset, length, () => this.below.writeZeroes(offset, length, mayUnmap));
  }

  override discard(offset: number, length: number): Completion {
    return this.attempt('discard', offset, length, () => this.below.discard(offset, length));
  }

  override flush(): Completion {
    return this.attempt('flush', 0, 0, () => this.below.flush());
  }

  override status(offset: number, length: number): Maybe<Extent> {
    const error = this.match('block-status', offset, length);
    if (error !== null) throw error.error;
    return this.below.status(offset, length);
  }

  private attempt(type: IoType, offset: number, length: number, go: () => Completion): Completion {
    const found = this.match(type, offset, length);
    for (const { event, state, new_state: next } of this.changes) {
      if (EVENTS[event] === type && (state === 0 || state === this.state)) this.state = next;
    }
    if (found === null) return go();
    if (found.immediately) throw found.error;
    return Promise.reject(found.error);
  }

  private match(type: IoType, offset: number, length: number): { error: Error; immediately: boolean } | null {
    const at = this.rules.findIndex((rule) => {
      const wanted = rule.iotype ?? EVENTS[rule.event] ?? null;
      if (wanted !== null && wanted !== type) return false;
      if (rule.state !== 0 && rule.state !== this.state) return false;
      return rule.sector === -1 || (rule.sector * 512 < offset + length && offset < (rule.sector + 1) * 512);
    });
    if (at < 0) return null;
    const { errno, once, immediately } = this.rules[at]!;
    if (once) this.rules.splice(at, 1);
    const error = Object.assign(new Error(errnoWords(errno)), { code: CODES[errno] ?? 'EIO' });
    return { error, immediately };
  }
}

export const blkdebugDriver = driver({
  name: 'blkdebug',
  protocol: false,
  options: OPTIONS,
  open: async (values, { child }) => new Blkdebug(await child(values.image, {}, true), values),
});

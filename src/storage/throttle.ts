/** Limits of how much is read and written in a second: the driver `throttle`, and `throttling.*` of drives. */
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import { Filter } from './filter.ts';
import type { BlockNode } from './node.ts';
import { integer, node, optional, type Schema, text } from './schema.ts';

/** Seconds of the average rate that may come at once where no burst is named, as QEMU has it. */
const USUAL_BURST = 0.1;

export interface Limits {
  /** Units a second; 0 for no limit. */
  readonly rate: number;
  /** Units a second for a time, 0 for none. */
  readonly burst: number;
  /** Seconds that a burst may last. */
  readonly burstLength: number;
}

/** Lets through what flows out of it at a rate; fuller than it may be, it makes wait. */
class Bucket {
  private readonly limits: Limits;
  private level = 0;
  private burstLevel = 0;
  private last = performance.now();

  constructor(limits: Limits) {
    this.limits = limits;
  }

  /** @returns milliseconds until the next request may begin */
  delay(): number {
    const { rate, burst, burstLength } = this.limits;
    if (rate === 0) return 0;
    this.leak();
    // What a burst may bring at once, or the usual little.
    const room = burst > 0 ? burst * burstLength : rate * USUAL_BURST;
    const wait = Math.max(0, (this.level - room) / rate);
    if (burst === 0 || burstLength <= 1) return wait * 1000;
    return Math.max(wait, Math.max(0, (this.burstLevel - burst * USUAL_BURST) / burst)) * 1000;
  }

  add(units: number): void {
    if (this.limits.rate === 0) return;
    this.leak();
    this.level += units;
    this.burstLevel += units;
  }

  private leak(): void {
    const now = performance.now();
    const passed = (now - this.last) / 1000;
    this.last = now;
    this.level = Math.max(0, this.level - passed * this.limits.rate);
    this.burstLevel = Math.max(0, this.burstLevel - passed * this.limits.burst);
  }
}

type Direction = 'read' | 'write';
const KINDS = ['bps-total', 'bps-read', 'bps-write', 'iops-total', 'iops-read', 'iops-write'] as const;
type Kind = (typeof KINDS)[number];

/** What several nodes may do together. */
export class ThrottleGroup {
  private readonly buckets: Readonly<Record<Kind, Bucket>>;
  /** Bytes that count as one request; larger ones count as several. */
  private readonly iopsSize: number;
  private readonly queues: Record<Direction, Promise<void>> = { read: Promise.resolve(), write: Promise.resolve() };

  /** @throws Error where the limits contradict each other */
  constructor(limits: Readonly<Record<Kind, Limits>>, iopsSize: number) {
    for (const unit of ['bps', 'iops'] as const) {
      if (limits[`${unit}-total`].rate > 0 && limits[`${unit}-read`].rate + limits[`${unit}-write`].rate > 0) {
        throw new Error('bps/iops/max total values and read/write values cannot be used at the same time');
      }
    }
    for (const kind of KINDS) {
      const { rate, burst } = limits[kind];
      if (burst > 0 && rate === 0) throw new Error('bps_max/iops_max require corresponding bps/iops values');
      if (burst > 0 && burst < rate) throw new Error('bps_max/iops_max cannot be lower than bps/iops');
    }
    this.buckets = Object.fromEntries(KINDS.map((kind) => [kind, new Bucket(limits[kind])])) as Record<Kind, Bucket>;
    this.iopsSize = iopsSize;
  }

  /** @returns a promise where the request must wait; requests of one direction begin in order */
  admit(direction: Direction, bytes: number): Completion {
    if (this.waiting[direction] === 0 && this.delay(direction) <= 0) return this.count(direction, bytes);
    this.waiting[direction]++;
    const turn = this.queues[direction].then(async () => {
      for (let delay = this.delay(direction); delay > 0; delay = this.delay(direction)) {
        await new Promise((resolve) => setTimeout(resolve, Math.ceil(delay)));
      }
      this.waiting[direction]--;
      this.count(direction, bytes);
    });
    this.queues[direction] = turn;
    return turn;
  }

  private readonly waiting: Record<Direction, number> = { read: 0, write: 0 };

  private delay(direction: Direction): number {
    const { buckets } = this;
    return Math.max(
      buckets['bps-total'].delay(),
      buckets['iops-total'].delay(),
      buckets[`bps-${direction}`].delay(),
      buckets[`iops-${direction}`].delay(),
    );
  }

  private count(direction: Direction, bytes: number): void {
    const { buckets, iopsSize } = this;
    const requests = iopsSize > 0 && bytes > iopsSize ? bytes / iopsSize : 1;
    buckets['bps-total'].add(bytes);
    buckets[`bps-${direction}`].add(bytes);
    buckets['iops-total'].add(requests);
    buckets[`iops-${direction}`].add(requests);
  }
}

/** Options of `throttling.*`, by their names there. */
export const THROTTLING = {
  ...Object.fromEntries(
    KINDS.flatMap((kind) => [
      [kind, optional(integer(0, 1e15), 0)],
      [`${kind}-max`, optional(integer(0, 1e15), 0)],
      [`${kind}-max-length`, optional(integer(1, 3600), 1)],
    ]),
  ),
  'iops-size': optional(integer(0, 2 ** 31), 0),
  group: optional(text, null),
} as Schema;

/** @param values of the options above */
export function groupOf(values: { readonly [name: string]: unknown }): ThrottleGroup {
  const limits = Object.fromEntries(
    KINDS.map((kind) => [kind, { rate: values[kind], burst: values[`${kind}-max`], burstLength: values[`${kind}-max-length`] }]),
  );
  return new ThrottleGroup(limits as Record<Kind, Limits>, Number(values['iops-size']));
}

export class ThrottleNode extends Filter {
  readonly driver = 'throttle';
  private readonly group: ThrottleGroup;

  constructor(below: BlockNode, group: ThrottleGroup) {
    super(below);
    this.group = group;
  }

  override read(offset: number, into: Uint8Array): Completion {
    const waiting = this.group.admit('read', into.length);
    return waiting === undefined ? this.below.read(offset, into) : waiting.then(() => this.below.read(offset, into));
  }

  override write(offset: number, from: Uint8Array): Completion {
    const waiting = this.group.admit('write', from.length);
    return waiting === undefined ? this.below.write(offset, from) : waiting.then(() => this.below.write(offset, from));
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    const waiting = this.group.admit('write', length);
    const go = (): Completion => this.below.writeZeroes(offset, length, mayUnmap);
    return waiting === undefined ? go() : waiting.then(go);
  }
}

const OPTIONS = { file: node, 'throttle-group': text } satisfies Schema;

export const throttleDriver = driver({
  name: 'throttle',
  protocol: false,
  options: OPTIONS,
  open: async (values, { how, child }) => {
    const group = how.throttleGroups.get(values['throttle-group']);
    if (group === undefined) throw new Error(`Throttle group '${values['throttle-group']}' does not exist`);
    return new ThrottleNode(await child(values.file, {}, true), group);
  },
});

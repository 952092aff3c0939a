/** Opens what is behind a machine's drives. */
import type { Pieces } from '../host/pieces.ts';
import type { BlockOptions, DriveConfig, MachineConfig } from '../machine/config.ts';
import { ConfigError } from '../machine/config.ts';
import type { BlockBackend, Completion } from '../machine/interfaces.ts';
import type { How } from './driver.ts';
import { Graph, HOW } from './graph.ts';
import { MemoryNode } from './memory.ts';
import type { BlockNode } from './node.ts';
import { MemoryOverlay } from './overlay.ts';
import { ErrorPolicy, WriteThrough } from './policy.ts';
import { flag, readOptions } from './schema.ts';
import type { ThrottleGroup } from './throttle.ts';
import { unflatten } from './values.ts';

export interface DriveEvents {
  /** A request has failed, and the drive's options say that the machine is to stop then. */
  stop(line: string): void;
  warn(line: string): void;
}

/** A drive's node, whose requests are counted while they last. */
class Counted implements BlockBackend {
  private readonly node: BlockNode;
  private readonly all: Drives;
  private underWay = 0;
  private onIdle: (() => void) | null = null;

  constructor(node: BlockNode, all: Drives) {
    this.node = node;
    this.all = all;
  }

  get size(): number {
    return this.node.size;
  }

  get readOnly(): boolean {
    return this.node.readOnly;
  }

  read(offset: number, into: Uint8Array): Completion {
    return this.count(this.node.read(offset, into));
  }

  write(offset: number, from: Uint8Array): Completion {
    return this.count(this.node.write(offset, from));
  }

  readPieces(offset: number, into: Pieces): Completion {
    return this.count(this.node.readPieces(offset, into));
  }

  writePieces(offset: number, from: Pieces): Completion {
    return this.count(this.node.writePieces(offset, from));
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    return this.count(this.node.writeZeroes(offset, length, mayUnmap));
  }

  flush(): Completion {
    return this.count(this.node.flush());
  }

  discard(offset: number, length: number): Completion {
    return this.count(this.node.discard(offset, length));
  }

  close(): Completion {
    return this.node.close();
  }

  private count(running: Completion): Completion {
    if (running === undefined) return undefined;
    const { all } = this;
    all.requests++;
    this.underWay++;
    return running.finally(() => {
      all.requests--;
      if (--this.underWay === 0) this.onIdle?.();
    });
  }

  /** No more requests are made: settles when the last one is over. */
  idle(): Promise<void> {
    if (this.underWay === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.onIdle = resolve;
    });
  }
}

/** What a drive is over. */
type Below = {
  readonly name: string;
  readonly node: BlockNode;
  /** The node goes with the drive. */
  readonly own: boolean;
  /** What is written is forgotten with the machine. */
  readonly forgets: boolean;
  readonly policy: ErrorPolicy | null;
  /** The disk is nothing but memory that may be written to. */
  readonly memory: MemoryNode | null;
};

/** The open drives of a machine. */
export class Drives {
  /** Requests that have not ended. */
  requests = 0;
  /** One for each drive of the configuration; null where it has no medium. */
  readonly backends: (BlockBackend | null)[] = [];
  private readonly graph = new Graph();
  /** What each drive is over: a node of its own, or one that has a name and stays. */
  private readonly below = new Map<Counted, Below>();
  private readonly policies: ErrorPolicy[] = [];
  private readonly groups = new Map<string, ThrottleGroup>();
  private readonly events: DriveEvents;
  private readonly how: How;

  private constructor(config: MachineConfig, events: DriveEvents) {
    this.events = events;
    this.how = {
      ...HOW,
      writable: true,
      resize: true,
      // Requests that take the host's time would make runs differ.
      immediate: config.icount !== null,
      secrets: new Map(Object.entries(config.secrets)),
      throttleGroups: this.groups,
      warn: events.warn,
    };
  }

  /** @throws ConfigError naming the drive or node */
  static async open(config: MachineConfig, events: DriveEvents): Promise<Drives> {
    const drives = new Drives(config, events);
    try {
      await drives.openAll(config);
    } catch (error) {
      await drives.close();
      throw error;
    }
    return drives;
  }

  private async openAll({ blockdevs, drives, throttleGroups }: MachineConfig): Promise<void> {
    for (const [name, given] of Object.entries(throttleGroups)) {
      await named('throttleGroups', name, async () => {
        const { groupOf, THROTTLING } = await import('./throttle.ts');
        this.groups.set(name, groupOf(readOptions(THROTTLING, given)));
      });
    }
    for (const [i, given] of blockdevs.entries()) await named('blockdevs', `node ${i}`, () => this.addNode(given));
    for (const [i, drive] of drives.entries()) await named('drives', `drive ${i}`, async () => void (await this.add(drive)));
  }

  /** Opens a node by its options (`blockdev-add`). @throws Error, one line */
  async addNode(given: BlockOptions): Promise<void> {
    if (typeof given['node-name'] !== 'string') throw new Error("Parameter 'node-name' is missing");
    await this.graph.open(given, { ...this.how, autoReadOnly: given['auto-read-only'] === true });
  }

  hasNode(name: string): boolean {
    return this.graph.nodes.has(name);
  }

  /** Closes a node that nobody uses (`blockdev-del`). @throws Error, one line */
  async removeNode(name: string): Promise<void> {
    const node = this.graph.nodes.get(name);
    if (node === undefined) throw new Error(`Failed to find node with node-name='${name}'`);
    for (const { node: used } of this.below.values()) if (used === node) throw new Error(`Node ${name} is in use`);
    if (this.graph.isUsed(node)) throw new Error(`Block device ${name} is in use`);
    await this.graph.close(node);
  }

  /** Opens what is in a drive. @returns null for a drive without a medium @throws Error, one line */
  async add(drive: DriveConfig): Promise<BlockBackend | null> {
    const backend = await this.openDrive(drive);
    this.backends.push(backend);
    return backend;
  }

  /** The drive has no device any more: its image is closed when requests are over. */
  async remove(backend: BlockBackend | null): Promise<void> {
    this.backends.splice(this.backends.indexOf(backend), 1);
    if (!(backend instanceof Counted)) return;
    const { node, own, policy } = this.below.get(backend)!;
    await backend.idle();
    this.below.delete(backend);
    if (policy !== null) this.policies.splice(this.policies.indexOf(policy), 1);
    if (own) await this.graph.close(node);
    else await node.flush();
  }

  /** What has been written is in the files afterwards. */
  async close(): Promise<void> {
    await this.graph.closeAll();
  }

  /** The machine goes on: requests that stopped it are tried again. */
  retry(): void {
    for (const policy of this.policies) policy.retry();
  }

  /** Requests that will end by themselves: those aside that have failed and wait for the machine to go on. */
  get underWay(): number {
    return this.policies.reduce((sum, { waits }) => sum - waits, this.requests);
  }

  /** What has been written is in the images, whoever opens them next. @throws Error */
  async flush(): Promise<void> {
    // Beneath the policies: nobody waits here for better times.
    for (const { node } of this.below.values()) if (!node.readOnly) await node.flush();
  }

  /** Disks in memory, by their drives: what is written to them is part of the machine. */
  get memories(): { readonly id: string; readonly node: MemoryNode }[] {
    return [...this.below.values()].flatMap(({ name, memory }) => (memory === null ? [] : [{ id: name, node: memory }]));
  }

  /** Why the machine cannot be saved: a drive's writes end with it. One line, or null. */
  get obstacle(): string | null {
    for (const { name, node, forgets } of this.below.values()) {
      if (forgets) return `${name} (${node.filename}): what is written to it ends with this machine (snapshot=on)`;
    }
    return null;
  }

  private async openDrive(drive: DriveConfig): Promise<BlockBackend | null> {
    const writes = !drive.readOnly && !drive.snapshot;
    const base = await this.openNode(drive, writes);
    if (base === null) return null;
    if (this.how.immediate) checkRepeatable(base);
    const forgets = drive.snapshot && !drive.readOnly;
    const node = forgets ? await this.withSnapshot(drive, base) : base;
    const stable = drive.writeThrough && !node.readOnly ? new WriteThrough(node) : node;
    const guarded = this.withPolicy(drive, stable);
    const backend = new Counted(guarded, this);
    const own = drive.node === null && this.graph.nodes.get(node.nodeName) === node;
    this.below.set(backend, {
      ...{ node, own, forgets },
      name: drive.id === null ? `drive ${this.backends.length}` : `drive ${drive.id}`,
      policy: guarded instanceof ErrorPolicy ? guarded : null,
      memory: base instanceof MemoryNode && writes ? base : null,
    });
    return backend;
  }

  /** Writes that are forgotten need no permission: they go to a file without a name, or stay in memory. */
  private async withSnapshot(drive: DriveConfig, base: BlockNode): Promise<BlockNode> {
    if (base.nodeName === '') return new MemoryOverlay(base);
    const { snapshotOver } = await import('./snapshot.ts');
    const { immediate } = this.how;
    const discard = drive.block['discard'];
    return snapshotOver(this.graph, base, immediate, discard === 'unmap' || discard === 'on');
  }

  private async openNode(drive: DriveConfig, writable: boolean): Promise<BlockNode | null> {
    const { file, node } = drive;
    if (node !== null) return this.namedNode(node, drive);
    if (file !== null && typeof file !== 'string') return new MemoryNode(file.data, !writable);
    const { throttling, 'copy-on-read': copies, ...options } = withLongNames(unflatten(drive.block));
    if (file === null && options['file'] === undefined && options['driver'] === undefined) return null;
    const how: How = { ...this.how, writable, immediate: this.how.immediate || drive.interface === 'pflash' };
    const opened = await this.openOptions(file, drive.format, options, how);
    return this.withFilters(opened, throttling, copies, drive.id);
  }

  /** What `throttling.*` and `copy-on-read` of a drive put over its image. */
  private async withFilters(node: BlockNode, throttling: unknown, copies: unknown, id: string | null): Promise<BlockNode> {
    let top = node;
    if (copies !== undefined && flag.read(copies, 'copy-on-read') && !node.readOnly) {
      const { CopyOnRead } = await import('./copy-on-read.ts');
      top = new CopyOnRead(top);
      this.graph.add(top, '');
    }
    if (throttling === undefined) return top;
    const { groupOf, THROTTLING, ThrottleNode } = await import('./throttle.ts');
    const values = readOptions(THROTTLING, throttling as BlockOptions, 'throttling.');
    const name = values['group'] === null ? (id ?? `drive${this.backends.length}`) : String(values['group']);
    // Drives of one group share what the first of them was given.
    const group = this.groups.get(name) ?? groupOf(values);
    this.groups.set(name, group);
    const throttled = new ThrottleNode(top, group);
    this.graph.add(throttled, '');
    return throttled;
  }

  private async openOptions(file: string | null, format: string | null, options: BlockOptions, how: How): Promise<BlockNode> {
    if (file === null) return this.graph.open(format === null ? options : { ...options, driver: format }, how);
    return this.graph.openImage(file, format, how, options);
  }

  private namedNode(name: string, drive: DriveConfig): BlockNode {
    const found = this.graph.nodes.get(name);
    if (found === undefined) throw new Error(`there is no block node "${name}"`);
    if (found.readOnly && !drive.readOnly && drive.media === 'disk') throw new Error(`block node "${name}" is read-only`);
    return found;
  }

  private withPolicy({ readError, writeError }: DriveConfig, node: BlockNode): BlockNode {
    if (readError === 'report' && writeError === 'report') return node;
    const stop = (error: Error): void => this.events.stop(`${node.filename}: ${error.message}`);
    const policy = new ErrorPolicy(node, readError, writeError, this.how.immediate ? null : stop);
    this.policies.push(policy);
    return policy;
  }
}

/** `bps_rd` and its like, as drives had them before `throttling.*`. */
const SHORT_LIMITS: Record<string, string> = {
  bps: 'bps-total',
  bps_rd: 'bps-read',
  bps_wr: 'bps-write',
  iops: 'iops-total',
  iops_rd: 'iops-read',
  iops_wr: 'iops-write',
  iops_size: 'iops-size',
};

function withLongNames(given: BlockOptions): BlockOptions {
  const long: Record<string, unknown> = {};
  const limits: Record<string, unknown> = { ...(given['throttling'] as BlockOptions | undefined) };
  for (const [key, value] of Object.entries(given)) {
    const [, base = '', suffix = ''] = /^(.*?)((?:_max(?:_length)?)?)$/.exec(key) ?? [];
    if (Object.hasOwn(SHORT_LIMITS, base)) limits[`${SHORT_LIMITS[base]!}${suffix.replaceAll('_', '-')}`] = value;
    else if (key !== 'throttling') long[key] = value;
  }
  return Object.keys(limits).length === 0 ? long : { ...long, throttling: limits };
}

/** Drivers that cannot answer at once. */
const REMOTE = ['nbd', 'http', 'https'];

/** @throws Error where a node would make runs differ */
function checkRepeatable(node: BlockNode): void {
  if (REMOTE.includes(node.driver)) throw new Error(`${node.driver} answers when it can, which -icount does not allow`);
  if (node.file !== null) checkRepeatable(node.file);
  if (node.backing !== null) checkRepeatable(node.backing);
}

async function named(field: 'drives' | 'blockdevs' | 'throttleGroups', what: string, open: () => Promise<void>): Promise<void> {
  try {
    await open();
  } catch (error) {
    throw new ConfigError(field, `${what}: ${(error as Error).message.replaceAll('\n', '. ')}`);
  }
}

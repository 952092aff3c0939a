/** Writes kept in memory over a node that stays as it is (`snapshot=on` where there are no files). */
import type { Completion } from '../machine/interfaces.ts';
import { BlockNode, type Extent } from './node.ts';
import { type Maybe, run, type Task, wait } from './task.ts';

const CLUSTER = 65536;

export class MemoryOverlay extends BlockNode {
  readonly driver = 'overlay';
  private readonly base: BlockNode;
  /** By cluster number: what has been written to, whole. */
  private readonly clusters = new Map<number, Uint8Array>();

  constructor(base: BlockNode) {
    super();
    this.base = base;
    this.filename = base.filename;
  }

  get size(): number {
    return this.base.size;
  }

  override get backing(): BlockNode {
    return this.base;
  }

  read(offset: number, into: Uint8Array): Completion {
    return run(this.readTask(offset, into));
  }

  private *readTask(offset: number, into: Uint8Array): Task<void> {
    for (let at = 0; at < into.length; ) {
      const cluster = Math.floor((offset + at) / CLUSTER);
      const own = this.clusters.get(cluster);
      const within = (offset + at) % CLUSTER;
      let end = Math.min(into.length, at + CLUSTER - within);
      if (own !== undefined) into.set(own.subarray(within, within + end - at), at);
      else {
        // Whatever is not here either is read in one go.
        for (let next = cluster + 1; end < into.length && !this.clusters.has(next); next++)
          end = Math.min(into.length, end + CLUSTER);
        const reading = this.base.read(offset + at, into.subarray(at, end));
        if (reading !== undefined) yield reading;
      }
      at = end;
    }
  }

  write(offset: number, from: Uint8Array): Completion {
    return run(this.writeTask(offset, from));
  }

  private *writeTask(offset: number, from: Uint8Array): Task<void> {
    for (let at = 0; at < from.length; ) {
      const cluster = Math.floor((offset + at) / CLUSTER);
      const within = (offset + at) % CLUSTER;
      const length = Math.min(from.length - at, CLUSTER - within);
      const own = this.clusters.get(cluster) ?? (yield* this.adopt(cluster));
      own.set(from.subarray(at, at + length), within);
      at += length;
    }
  }

  /** Copies a cluster from the base. */
  private *adopt(cluster: number): Task<Uint8Array> {
    const start = cluster * CLUSTER;
    const copy = new Uint8Array(Math.min(CLUSTER, this.size - start));
    const reading = this.base.read(start, copy);
    if (reading !== undefined) yield reading;
    // Another write may have been quicker.
    const there = this.clusters.get(cluster);
    if (there !== undefined) return there;
    this.clusters.set(cluster, copy);
    return copy;
  }

  flush(): Completion {
    // What is in memory will not outlive the machine anyway.
  }

  override status(offset: number, length: number): Maybe<Extent> {
    return run(this.statusTask(offset, length));
  }

  private *statusTask(offset: number, length: number): Task<Extent> {
    const count = Math.min(length, CLUSTER - (offset % CLUSTER));
    if (this.clusters.has(Math.floor(offset / CLUSTER))) {
      return { length: count, data: true, zero: false, allocated: true, offset: null, file: null };
    }
    const below = yield* wait(this.base.status(offset, count));
    return { ...below, allocated: false };
  }

  close(): void {
    this.clusters.clear();
  }
}

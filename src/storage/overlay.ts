/** Writes kept in memory over a backend that stays as it is (`snapshot=on`). */
import type { BlockBackend, Completion } from '../machine/interfaces.ts';

const CLUSTER = 65536;

export class MemoryOverlay implements BlockBackend {
  readonly size: number;
  readonly readOnly = false;
  private readonly base: BlockBackend;
  /** By cluster number: what has been written to, whole. */
  private readonly clusters = new Map<number, Uint8Array>();

  constructor(base: BlockBackend) {
    this.base = base;
    this.size = base.size;
  }

  read(offset: number, into: Uint8Array): Completion {
    return inOrder(
      this.pieces(offset, into.length).map(({ cluster, within, at, length }) => () => {
        const part = into.subarray(at, at + length);
        const own = this.clusters.get(cluster);
        if (own === undefined) return this.base.read(offset + at, part);
        part.set(own.subarray(within, within + length));
        return undefined;
      }),
    );
  }

  write(offset: number, from: Uint8Array): Completion {
    return inOrder(
      this.pieces(offset, from.length).map(({ cluster, within, at, length }) => () => {
        const put = (own: Uint8Array): void => own.set(from.subarray(at, at + length), within);
        const own = this.clusters.get(cluster);
        if (own !== undefined) return put(own);
        return this.adopt(cluster, put);
      }),
    );
  }

  flush(): Completion {
    // What is in memory will not outlive the machine anyway.
  }

  discard(): Completion {
    // The contents may stay.
  }

  close(): void {
    this.base.close();
  }

  /** Copies a cluster from the base. */
  private adopt(cluster: number, then: (own: Uint8Array) => void): Completion {
    const start = cluster * CLUSTER;
    const own = new Uint8Array(Math.min(CLUSTER, this.size - start));
    const finish = (): void => {
      this.clusters.set(cluster, own);
      then(own);
    };
    const reading = this.base.read(start, own);
    return reading === undefined ? finish() : reading.then(finish);
  }

  private pieces(offset: number, length: number) {
    const found: { cluster: number; within: number; at: number; length: number }[] = [];
    for (let at = 0; at < length; ) {
      const cluster = Math.floor((offset + at) / CLUSTER);
      const within = (offset + at) % CLUSTER;
      const size = Math.min(CLUSTER - within, length - at);
      found.push({ cluster, within, at, length: size });
      at += size;
    }
    return found;
  }
}

/** One step after the other, without waiting where there is nothing to wait for. */
function inOrder(steps: readonly (() => Completion)[], from = 0): Completion {
  for (let i = from; i < steps.length; i++) {
    const running = steps[i]!();
    if (running !== undefined) return running.then(() => inOrder(steps, i + 1));
  }
}

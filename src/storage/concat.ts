/** Several disks one after the other, to read from. */
import type { Completion } from '../machine/interfaces.ts';
import { BlockNode, type Extent } from './node.ts';
import { type ChainExtent, chainStatus } from './chain.ts';
import { type Maybe, run, type Task, wait } from './task.ts';

export class ConcatNode extends BlockNode {
  readonly driver = 'concat';
  readonly size: number;
  private readonly parts: readonly { node: BlockNode; start: number }[];

  constructor(nodes: readonly BlockNode[]) {
    super();
    let start = 0;
    this.parts = nodes.map((node) => {
      const part = { node, start };
      start += node.size;
      return part;
    });
    this.size = start;
    this.readOnly = true;
  }

  read(offset: number, into: Uint8Array): Completion {
    return run(this.readTask(offset, into));
  }

  private partAt(offset: number): { node: BlockNode; start: number } {
    return this.parts.findLast(({ start, node }) => start <= offset && offset < start + node.size)!;
  }

  private *readTask(offset: number, into: Uint8Array): Task<void> {
    for (let at = 0; at < into.length; ) {
      const { node, start } = this.partAt(offset + at);
      const within = offset + at - start;
      const part = into.subarray(at, at + Math.min(into.length - at, node.size - within));
      const reading = node.read(within, part);
      if (reading !== undefined) yield reading;
      at += part.length;
    }
  }

  override status(offset: number, length: number): Maybe<Extent> {
    return run(this.statusTask(offset, length));
  }

  private *statusTask(offset: number, length: number): Task<ChainExtent> {
    const { node, start } = this.partAt(offset);
    const within = offset - start;
    return yield* wait(chainStatus(node, within, Math.min(length, node.size - within), null, true));
  }

  write(): Completion {
    throw new Error('the image is read-only');
  }

  flush(): Completion {
    // Nothing is written.
  }

  close(): void {
    // The parts are closed by whoever opened them.
  }
}

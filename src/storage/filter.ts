/** Nodes that show the one below as it is, and do something on the way. */
import type { Completion } from '../machine/interfaces.ts';
import { BlockNode, type CheckResult, type Extent, type Fix, type NodeInfo } from './node.ts';
import type { Maybe } from './task.ts';

export abstract class Filter extends BlockNode {
  protected readonly below: BlockNode;

  constructor(below: BlockNode) {
    super();
    this.below = below;
    this.filename = below.filename;
    this.readOnly = below.readOnly;
  }

  override get isFilter(): boolean {
    return true;
  }

  override get file(): BlockNode {
    return this.below;
  }

  get size(): number {
    return this.below.size;
  }

  override get zeroInit(): boolean {
    return this.below.zeroInit;
  }

  read(offset: number, into: Uint8Array): Completion {
    return this.below.read(offset, into);
  }

  write(offset: number, from: Uint8Array): Completion {
    return this.below.write(offset, from);
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    return this.below.writeZeroes(offset, length, mayUnmap);
  }

  override discard(offset: number, length: number): Completion {
    return this.below.discard(offset, length);
  }

  flush(): Completion {
    return this.below.flush();
  }

  override status(offset: number, length: number): Maybe<Extent> {
    return this.below.status(offset, length);
  }

  override resize(size: number, preallocation: string): Maybe<void> {
    return this.below.resize(size, preallocation);
  }

  override info(): Maybe<NodeInfo> {
    return this.below.info();
  }

  override check(fix: Fix, report: (line: string) => void): Maybe<CheckResult | null> {
    return this.below.check(fix, report);
  }

  close(): Completion {
    // The node below is closed by whoever opened it.
  }
}

/** The `raw` format: the bytes of the file below, or a part of them. */
import type { Pieces } from '../host/pieces.ts';
import type { Completion } from '../machine/interfaces.ts';
import { driver, type How } from './driver.ts';
import { BlockNode, type Extent, SECTOR } from './node.ts';
import { probe } from './probe.ts';
import { node, optional, type Schema, size } from './schema.ts';
import { type Maybe, run, type Task, wait } from './task.ts';

const OPTIONS = {
  file: node,
  offset: optional(size, 0),
  size: optional(size, null),
} satisfies Schema;

/** A last sector that is not whole reads as if zeros followed. */
const wholeSectors = (bytes: number): number => Math.ceil(bytes / SECTOR) * SECTOR;

export class RawNode extends BlockNode {
  readonly driver = 'raw';
  private readonly below: BlockNode;
  private readonly offset: number;
  private readonly fixed: number | null;
  /** A guest could make the next start take the image for another format. */
  private readonly guarded: boolean;

  constructor(below: BlockNode, offset: number, fixed: number | null, { writable, probed }: Pick<How, 'writable' | 'probed'>) {
    super();
    if (offset > below.size)
      throw new Error(`Offset (${offset}) cannot be greater than size of the containing file (${below.size})`);
    if (fixed !== null && offset + fixed > below.size) {
      throw new Error(
        `The sum of offset (${offset}) and size (${fixed}) has to be smaller or equal to the actual size of the containing file (${below.size})`,
      );
    }
    this.below = below;
    this.offset = offset;
    this.fixed = fixed;
    this.guarded = probed;
    this.readOnly = !writable || below.readOnly;
  }

  override get file(): BlockNode {
    return this.below;
  }

  get size(): number {
    return wholeSectors(this.fixed ?? this.below.size - this.offset);
  }

  override get zeroInit(): boolean {
    return this.below.zeroInit && this.offset === 0;
  }

  read(offset: number, into: Uint8Array): Completion {
    return this.below.read(this.offset + offset, into);
  }

  write(offset: number, from: Uint8Array): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    if (this.guarded && offset < SECTOR && offset + from.length >= SECTOR) this.guard(offset, from);
    return this.below.write(this.offset + offset, from);
  }

  override readPieces(offset: number, into: Pieces): Completion {
    return this.below.readPieces(this.offset + offset, into);
  }

  override writePieces(offset: number, from: Pieces): Completion {
    if (this.readOnly || (this.guarded && offset < SECTOR)) return super.writePieces(offset, from);
    return this.below.writePieces(this.offset + offset, from);
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    return this.below.writeZeroes(this.offset + offset, length, mayUnmap && this.unmap);
  }

  override discard(offset: number, length: number): Completion {
    if (this.unmap && !this.readOnly) return this.below.discard(this.offset + offset, length);
  }

  flush(): Completion {
    return this.below.flush();
  }

  override status(offset: number, length: number): Maybe<Extent> {
    return run(this.statusTask(offset, length));
  }

  private *statusTask(offset: number, length: number): Task<Extent> {
    return yield* wait(this.below.status(this.offset + offset, length));
  }

  override resize(to: number, preallocation: string): Maybe<void> {
    if (this.fixed !== null) throw new Error('Cannot resize fixed-size raw disks');
    return this.below.resize(this.offset + to, preallocation);
  }

  close(): Completion {
    // Nothing of its own.
  }

  private guard(offset: number, from: Uint8Array): void {
    const head = new Uint8Array(SECTOR);
    head.set(from.subarray(0, SECTOR - offset), offset);
    if (offset === 0 && probe(head, '') !== 'raw') {
      throw new Error('a guessed raw image must not be turned into another format; name the format raw to permit it');
    }
  }
}

export const rawDriver = driver({
  name: 'raw',
  protocol: false,
  options: OPTIONS,
  open: async (values, { how, child }) => {
    // What is in a raw image is the guest's: whether others may write to it is for the guest's device to say.
    const below = await child(values.file, { share: how.share, unmap: true });
    return new RawNode(below, values.offset, values.size, how);
  },
});

/** `null-co` and `null-aio`: a disk that keeps nothing; for measuring what is above it. */
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import { BlockNode, type Extent } from './node.ts';
import { flag, integer, optional, type Schema, size, type Values } from './schema.ts';

const OPTIONS = {
  size: optional(size, 2 ** 30),
  'latency-ns': optional(integer(0, 1e12), 0),
  'read-zeroes': optional(flag, false),
} satisfies Schema;

class NullNode extends BlockNode {
  readonly driver: string;
  readonly size: number;
  private readonly latency: number;
  private readonly zeroes: boolean;

  constructor(name: string, values: Values<typeof OPTIONS>, readOnly: boolean) {
    super();
    this.driver = name;
    this.size = values.size;
    this.latency = values['latency-ns'] / 1e6;
    this.zeroes = values['read-zeroes'];
    this.readOnly = readOnly;
  }

  override get zeroInit(): boolean {
    return this.zeroes;
  }

  read(_offset: number, into: Uint8Array): Completion {
    if (this.zeroes) into.fill(0);
    return this.done();
  }

  write(): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    return this.done();
  }

  override writeZeroes(): Completion {
    return this.write();
  }

  flush(): Completion {
    return this.done();
  }

  override status(offset: number, length: number): Extent {
    return { length, data: !this.zeroes, zero: this.zeroes, allocated: true, offset, file: this };
  }

  override allocatedBytes(): number {
    return 0;
  }

  close(): void {
    // Nothing to release.
  }

  private done(): Completion {
    if (this.latency > 0) return new Promise((resolve) => setTimeout(resolve, this.latency));
  }
}

const named = (name: string) =>
  driver({
    name,
    protocol: true,
    options: OPTIONS,
    open: async (values, { how }) => new NullNode(name, values, !how.writable),
    fromName: () => ({}),
  });

export const nullCoDriver = named('null-co');
export const nullAioDriver = named('null-aio');

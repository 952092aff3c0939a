/** `detect-zeroes`: zeros that are written take no space. */
import type { Completion } from '../machine/interfaces.ts';
import { Filter } from './filter.ts';
import { type BlockNode, isZero } from './node.ts';

export class ZeroDetector extends Filter {
  readonly driver: string;
  private readonly mayUnmap: boolean;

  /** @param mayUnmap the space of what becomes zero is given back */
  constructor(below: BlockNode, mayUnmap: boolean) {
    super(below);
    this.driver = below.driver;
    this.mayUnmap = mayUnmap;
  }

  override write(offset: number, from: Uint8Array): Completion {
    if (isZero(from)) return this.below.writeZeroes(offset, from.length, this.mayUnmap);
    return this.below.write(offset, from);
  }
}

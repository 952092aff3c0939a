/**
 * Ways from block to block within code of the host's processor: jumps that lead straight to a block's code while it has some,
 * else out, where the entry cell tells what to run.
 */
import { CELLS, CELLS_END, CELL_ARGUMENT, CELL_FUNCTION, CELL_SIZE, FN_NATIVE } from '../layout.ts';
import type { X64 } from './x64.ts';

/** A jump: its end in the code, where it leads to without code, and the next jump to the same cell. */
const NODE = 3;

export class Links {
  private readonly words: Int32Array;
  private readonly x: X64;
  private readonly origin: number;
  /** By cell: the first jump's number; 0 = none. */
  private readonly first = new Int32Array((CELLS_END - CELLS) / CELL_SIZE);
  private nodes = new Int32Array(NODE * 4096);
  private count = 1;

  /** @param origin host address of the first byte of code */
  constructor(words: Int32Array, x: X64, origin: number) {
    this.words = words;
    this.x = x;
    this.origin = origin;
  }

  /** A jump to a cell's block has been written. @param slow where it leads to when there is no code */
  add(cell: number, jump: number, slow: number): void {
    const place = (cell - CELLS) / CELL_SIZE;
    const at = NODE * this.count;
    if (at === this.nodes.length) {
      const larger = new Int32Array(2 * at);
      larger.set(this.nodes);
      this.nodes = larger;
    }
    this.nodes[at] = jump;
    this.nodes[at + 1] = slow;
    this.nodes[at + 2] = this.first[place]!;
    this.first[place] = this.count++;
    if (this.words[(cell + CELL_FUNCTION) >> 2] === FN_NATIVE) {
      this.x.patch(jump, this.words[(cell + CELL_ARGUMENT) >> 2]! - this.origin);
    }
  }

  /** @param address of the code that a cell's block has now, 0 = none */
  change(cell: number, address: number): void {
    const { nodes } = this;
    for (let node = this.first[(cell - CELLS) / CELL_SIZE]!; node !== 0; node = nodes[NODE * node + 2]!) {
      this.x.patch(nodes[NODE * node]!, address !== 0 ? address - this.origin : nodes[NODE * node + 1]!);
    }
  }

  clear(): void {
    this.first.fill(0);
    this.count = 1;
  }
}

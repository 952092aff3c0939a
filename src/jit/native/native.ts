/** Blocks as code of the host's processor: where a host has memory for that. */
import type { MachineCode } from '../../host/host.ts';
import type { Isa } from '../../isa/isa.ts';
import type { Block } from '../blocks.ts';
import { UNCOUNTED } from '../region-source.ts';
import { BlockCompiler } from './block.ts';
import { COUNT_ALL } from './count.ts';
import { X87_COUNT } from './x87.ts';

export class NativeCode {
  /** Runs what CTL_NATIVE names, see RESULT_*. */
  readonly run: () => number;
  private readonly code: MachineCode;
  private readonly compiler: BlockCompiler;
  private readonly counts: number;

  /** @param counts which blocks count their executions, COUNT_*  @param exact see Ends */
  constructor(code: MachineCode, buffer: ArrayBufferLike, isa: Isa, counts: number, exact: boolean) {
    this.code = code;
    this.counts = counts;
    this.run = code.call;
    const words = new Int32Array(buffer);
    this.compiler = new BlockCompiler(words, code.addressOf(buffer), code.bytes, code.address, isa, exact);
  }

  /** Is there room for any block? */
  get hasRoom(): boolean {
    return this.compiler.hasRoom;
  }

  /**
   * Makes a block's code.
   * @returns what its countdown is to be, or 0: as without this code, since a region is better
   */
  compile(block: Block): number {
    const { compiler, counts } = this;
    block.native = compiler.compile(block.ip, counts);
    if (compiler.usesX87) return X87_COUNT;
    return counts === COUNT_ALL || compiler.isSlow ? 0 : UNCOUNTED;
  }

  /** @param address of the code that the block of an entry cell has now, 0 = none */
  change(cell: number, address: number): void {
    this.compiler.change(cell, address);
  }

  clear(): void {
    this.compiler.clear();
  }

  close(): void {
    this.code.release();
  }
}

/** Blocks as code of the host's processor: where a host has memory for that. */
import type { MachineCode } from '../../host/host.ts';
import type { Isa } from '../../isa/isa.ts';
import type { Block } from '../blocks.ts';
import { BlockCompiler } from './block.ts';

export class NativeCode {
  /** Runs what CTL_NATIVE names, see RESULT_*. */
  readonly run: () => number;
  private readonly code: MachineCode;
  private readonly compiler: BlockCompiler;

  constructor(code: MachineCode, buffer: ArrayBufferLike, isa: Isa, exact: boolean) {
    this.code = code;
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
   * @param count whether its executions are counted on
   * @returns whether a region would do much better
   */
  compile(block: Block, count: boolean): boolean {
    block.native = this.compiler.compile(block.ip, count);
    return this.compiler.isSlow;
  }

  /** @param address of the code that the block of an entry cell has now, 0 = none */
  change(cell: number, address: number): void {
    this.compiler.links.change(cell, address);
  }

  clear(): void {
    this.compiler.clear();
  }

  close(): void {
    this.code.release();
  }
}

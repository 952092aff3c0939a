/** Blocks as code of the host's processor: where a host has memory for that. */
import type { MachineCode } from '../../host/host.ts';
import type { Isa } from '../../isa/isa.ts';
import type { Block } from '../blocks.ts';
import { PATIENT } from '../region-source.ts';
import { BlockCompiler } from './block.ts';
import { X87_COUNT } from './x87.ts';

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
   * @returns executions after which a region is to be made, or 0: as soon as without this code
   */
  compile(block: Block, count: boolean): number {
    const { compiler } = this;
    block.native = compiler.compile(block.ip, count);
    return compiler.usesX87 ? X87_COUNT : compiler.isSlow ? 0 : PATIENT;
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

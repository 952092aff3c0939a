/**
 * Compressed loop devices (KNOPPIX), which are only read. Numbers are big-endian.
 *
 *   0 a shell script of 128 bytes   128 block size   132 blocks   136 offsets of 64 bits, one more than blocks
 */
import { inflate } from '#host/compression';
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import { BlockNode, type Extent, type NodeInfo, readBytes } from './node.ts';
import { node, type Schema } from './schema.ts';
import { run, type Task, wait } from './task.ts';

const MAX_BLOCK = 64 * 2 ** 20;
const MAX_OFFSETS = 512 * 2 ** 20;
const OPTIONS = { file: node } satisfies Schema;

class CloopNode extends BlockNode {
  readonly driver = 'cloop';
  readonly size: number;
  private readonly below: BlockNode;
  private readonly blockSize: number;
  private readonly offsets: DataView;
  private block: { number: number; bytes: Uint8Array } | null = null;

  constructor(below: BlockNode, blockSize: number, blocks: number, offsets: Uint8Array) {
    super();
    this.below = below;
    this.blockSize = blockSize;
    this.size = blocks * blockSize;
    this.offsets = new DataView(offsets.buffer, offsets.byteOffset, offsets.byteLength);
    this.readOnly = true;
  }

  override get file(): BlockNode {
    return this.below;
  }

  private *unpack(number: number): Task<Uint8Array> {
    if (this.block?.number === number) return this.block.bytes;
    const [start, end] = [number, number + 1].map((i) => Number(this.offsets.getBigUint64(i * 8)));
    if (!(end! > start! && end! <= this.below.size) || end! - start! > 2 * this.blockSize + 1024) {
      throw new Error(`the offset of compressed block ${number} cannot be`);
    }
    const packed = new Uint8Array(end! - start!);
    const reading = this.below.read(start!, packed);
    if (reading !== undefined) yield reading;
    const bytes = yield* wait(inflate(packed, this.blockSize));
    this.block = { number, bytes };
    return bytes;
  }

  read(offset: number, into: Uint8Array): Completion {
    return run(this.readTask(offset, into));
  }

  private *readTask(offset: number, into: Uint8Array): Task<void> {
    for (let at = 0; at < into.length; ) {
      const within = (offset + at) % this.blockSize;
      const bytes = yield* this.unpack(Math.floor((offset + at) / this.blockSize));
      const part = bytes.subarray(within, within + into.length - at);
      into.set(part, at);
      at += part.length;
    }
  }

  write(): Completion {
    throw new Error('the image is read-only');
  }

  flush(): Completion {
    // Nothing is written.
  }

  override status(_offset: number, length: number): Extent {
    return { length, data: true, zero: false, allocated: true, offset: null, file: null, compressed: true };
  }

  override info(): NodeInfo {
    return {};
  }

  close(): void {
    this.block = null;
  }
}

export const cloopDriver = driver({
  name: 'cloop',
  protocol: false,
  options: OPTIONS,
  open: async (values, { how, child }) => {
    if (how.writable && !how.autoReadOnly) throw new Error('cloop images can only be read');
    const below = await child(values.file, { writable: false, share: false });
    const view = new DataView((await readBytes(below, 128, 8)).buffer);
    const [blockSize, blocks] = [view.getUint32(0), view.getUint32(4)];
    if (blockSize === 0 || blockSize % 512 !== 0 || blockSize > MAX_BLOCK)
      throw new Error(`block_size ${blockSize} must be a multiple of 512 and ${MAX_BLOCK} at most`);
    if ((blocks + 1) * 8 > MAX_OFFSETS) throw new Error('image requires too many offsets, try increasing block size');
    return new CloopNode(below, blockSize, blocks, await readBytes(below, 136, (blocks + 1) * 8));
  },
});

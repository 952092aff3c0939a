/**
 * Growing disks of Bochs (bochs.sourceforge.io, "redolog"), which are only read. Numbers are little-endian.
 *
 *   0 "Bochs Virtual HD Image"  32 "Redolog"  48 "Growing"  64 version  68 header size
 *   72 catalog entries  76 bitmap size  80 extent size  88 disk size (84 in version 1)
 * A catalog entry is the number of an extent: a bitmap of its sectors, then the sectors.
 */
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import { BlockNode, type Extent, MAX_SIZE, type NodeInfo, readBytes } from './node.ts';
import { node, type Schema } from './schema.ts';
import { type Maybe, run, type Task } from './task.ts';

const SECTOR = 512;
const HEADER_BYTES = 512;
const MAX_CATALOG = 2 ** 20;
const OPTIONS = { file: node } satisfies Schema;

class BochsNode extends BlockNode {
  readonly driver = 'bochs';
  readonly size: number;
  private readonly below: BlockNode;
  private readonly catalog: DataView;
  private readonly dataOffset: number;
  private readonly bitmapBytes: number;
  private readonly extentSize: number;

  constructor(below: BlockNode, size: number, catalog: Uint8Array, dataOffset: number, bitmapBytes: number, extentSize: number) {
    super();
    this.below = below;
    this.size = size;
    this.catalog = new DataView(catalog.buffer, catalog.byteOffset, catalog.byteLength);
    this.dataOffset = dataOffset;
    this.bitmapBytes = Math.ceil(bitmapBytes / SECTOR) * SECTOR;
    this.extentSize = extentSize;
    this.readOnly = true;
  }

  override get file(): BlockNode {
    return this.below;
  }

  /** @returns where a sector lies, -1 for nowhere */
  private *find(offset: number): Task<number> {
    const index = Math.floor(offset / this.extentSize);
    const entry = this.catalog.getUint32(index * 4, true);
    if (entry === 0xffffffff) return -1;
    const extent = this.dataOffset + entry * (this.bitmapBytes + Math.ceil(this.extentSize / SECTOR) * SECTOR);
    const sector = Math.floor((offset % this.extentSize) / SECTOR);
    const bits = new Uint8Array(1);
    const reading = this.below.read(extent + (sector >> 3), bits);
    if (reading !== undefined) yield reading;
    return (bits[0]! >> (sector & 7)) & 1 ? extent + this.bitmapBytes + sector * SECTOR : -1;
  }

  read(offset: number, into: Uint8Array): Completion {
    return run(this.readTask(offset, into));
  }

  private *readTask(offset: number, into: Uint8Array): Task<void> {
    for (let at = 0; at < into.length; at += SECTOR) {
      const part = into.subarray(at, at + SECTOR);
      const host = yield* this.find(offset + at);
      if (host < 0) part.fill(0);
      else {
        const reading = this.below.read(host, part);
        if (reading !== undefined) yield reading;
      }
    }
  }

  write(): Completion {
    throw new Error('the image is read-only');
  }

  flush(): Completion {
    // Nothing is written.
  }

  override status(_offset: number, length: number): Maybe<Extent> {
    return { length, data: true, zero: false, allocated: true, offset: null, file: null };
  }

  override info(): NodeInfo {
    return {};
  }

  close(): void {
    // Nothing of its own.
  }
}

export const bochsDriver = driver({
  name: 'bochs',
  protocol: false,
  options: OPTIONS,
  open: async (values, { how, child }) => {
    if (how.writable && !how.autoReadOnly) throw new Error('bochs images can only be read');
    const below = await child(values.file, { writable: false, share: false });
    const header = await readBytes(below, 0, HEADER_BYTES);
    const view = new DataView(header.buffer);
    const text = (at: number): string => new TextDecoder('latin1').decode(header.subarray(at, at + 32)).split('\0')[0]!;
    const version = view.getUint32(64, true);
    if (
      text(0) !== 'Bochs Virtual HD Image' ||
      text(32).slice(0, 7) !== 'Redolog' ||
      text(48).slice(0, 7) !== 'Growing' ||
      (version !== 0x10000 && version !== 0x20000)
    ) {
      throw new Error('Image not in Bochs format');
    }
    const [headerSize, entries, bitmap, extent] = [68, 72, 76, 80].map((at) => view.getUint32(at, true)) as [
      number,
      number,
      number,
      number,
    ];
    const size = Number(view.getBigUint64(version === 0x10000 ? 84 : 88, true));
    if (size > MAX_SIZE) throw new Error('the disk is too large');
    if (entries > MAX_CATALOG) throw new Error('Catalog size is too large');
    if (extent < SECTOR || (extent & (extent - 1)) !== 0 || extent > 2 ** 23)
      throw new Error(`Extent size ${extent} is out of range`);
    if (bitmap < extent / SECTOR / 8) throw new Error('Bitmap of extents is too small');
    if (entries < Math.ceil(size / extent)) throw new Error('Catalog size is too small for this disk size');
    const catalog = await readBytes(below, headerSize, entries * 4);
    return new BochsNode(below, size - (size % SECTOR), catalog, headerSize + entries * 4, bitmap, extent);
  },
});

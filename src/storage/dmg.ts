/**
 * Apple's disk images ("UDIF"), which are only read: chunks that are raw, zero or compressed by zlib. Big-endian.
 *
 * The file ends with "koly" (512 bytes): 24 data fork's offset  40 resource fork's offset, 48 its length
 *   216 offset and 224 length of a property list  492 sectors of the disk. Either has blocks "mish" in it, in base64 in the list:
 *   8 first sector  16 sectors  24 data offset  200 number of chunks, then chunks of 40 bytes:
 *   0 type  8 first sector, counted from the block's  16 sectors  24 offset in the file  32 length there
 */
import { inflate } from '#host/compression';
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import { BlockNode, type Extent, MAX_SIZE, type NodeInfo, readBytes } from './node.ts';
import { node, type Schema } from './schema.ts';
import { run, type Task, wait } from './task.ts';

const SECTOR = 512;
const TYPE = { zero: 0, raw: 1, ignore: 2, zlib: 0x80000005, comment: 0x7ffffffe, end: 0xffffffff } as const;
const MAX_LIST = 64 * 2 ** 20;
/** What a compressed chunk may hold. */
const MAX_CHUNK = 64 * 2 ** 20;
const OPTIONS = { file: node } satisfies Schema;

/** All in bytes. */
type Chunk = { type: number; start: number; length: number; offset: number; stored: number };

class DmgNode extends BlockNode {
  readonly driver = 'dmg';
  readonly size: number;
  private readonly below: BlockNode;
  private readonly chunks: readonly Chunk[];
  private unpacked: { chunk: Chunk; bytes: Uint8Array } | null = null;

  constructor(below: BlockNode, chunks: readonly Chunk[], size: number) {
    super();
    this.below = below;
    this.chunks = chunks;
    this.size = size;
    this.readOnly = true;
  }

  override get file(): BlockNode {
    return this.below;
  }

  /** The last chunk that begins at or before an offset; null where it ends before. */
  private find(offset: number): Chunk | null {
    let [low, high] = [0, this.chunks.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.chunks[middle]!.start <= offset) low = middle;
      else high = middle - 1;
    }
    const found = this.chunks[low];
    return found !== undefined && offset >= found.start && offset < found.start + found.length ? found : null;
  }

  read(offset: number, into: Uint8Array): Completion {
    return run(this.readTask(offset, into));
  }

  private *readTask(offset: number, into: Uint8Array): Task<void> {
    for (let at = 0; at < into.length; ) {
      const chunk = this.find(offset + at);
      if (chunk === null) throw new Error(`nothing is known of sector ${Math.floor((offset + at) / SECTOR)}`);
      const within = offset + at - chunk.start;
      const part = into.subarray(at, at + chunk.length - within);
      if (chunk.type === TYPE.raw) {
        const reading = this.below.read(chunk.offset + within, part);
        if (reading !== undefined) yield reading;
      } else if (chunk.type === TYPE.zlib) {
        const bytes = yield* this.unpack(chunk);
        part.set(bytes.subarray(within, within + part.length));
      } else part.fill(0);
      at += part.length;
    }
  }

  private *unpack(chunk: Chunk): Task<Uint8Array> {
    if (this.unpacked?.chunk === chunk) return this.unpacked.bytes;
    const packed = new Uint8Array(chunk.stored);
    const reading = this.below.read(chunk.offset, packed);
    if (reading !== undefined) yield reading;
    const bytes = yield* wait(inflate(packed, chunk.length));
    this.unpacked = { chunk, bytes };
    return bytes;
  }

  write(): Completion {
    throw new Error('the image is read-only');
  }

  flush(): Completion {
    // Nothing is written.
  }

  override status(_offset: number, length: number): Extent {
    return { length, data: true, zero: false, allocated: true, offset: null, file: null };
  }

  override info(): NodeInfo {
    return {};
  }

  close(): void {
    this.unpacked = null;
  }
}

function parseBlock(bytes: Uint8Array, fork: number, fileSize: number, into: Chunk[]): void {
  if (bytes.length < 204) return;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== 0x6d697368) return;
  const [first, data, count] = [Number(view.getBigUint64(8)), Number(view.getBigUint64(24)), view.getUint32(200)];
  for (let i = 0; i < count; i++) {
    const at = 204 + 40 * i;
    if (at + 40 > bytes.length) throw new Error('a table of chunks ends within a chunk');
    const type = view.getUint32(at);
    if (type === TYPE.comment || type === TYPE.end) continue;
    const long = (from: number): number => Number(view.getBigUint64(at + from));
    const chunk = {
      type,
      start: (first + long(8)) * SECTOR,
      length: long(16) * SECTOR,
      offset: fork + data + long(24),
      stored: long(32),
    };
    if (!([TYPE.zero, TYPE.raw, TYPE.ignore, TYPE.zlib] as number[]).includes(type)) {
      throw new Error(`chunks of type 0x${type.toString(16)} are not supported (only raw, zero and zlib)`);
    }
    if (!(chunk.start + chunk.length <= MAX_SIZE)) throw new Error('a chunk lies beyond what a disk can be');
    const stored = type === TYPE.raw || type === TYPE.zlib;
    if (stored && !(chunk.offset + chunk.stored <= fileSize)) throw new Error('a chunk lies beyond the end of the file');
    if (type === TYPE.raw && chunk.stored < chunk.length) throw new Error('a chunk has less data than it should');
    if (type === TYPE.zlib && (chunk.length > MAX_CHUNK || chunk.stored > 2 * MAX_CHUNK))
      throw new Error('a compressed chunk is too large');
    if (chunk.length > 0) into.push(chunk);
  }
}

async function readChunks(below: BlockNode): Promise<{ chunks: Chunk[]; size: number }> {
  const tail = await readBytes(below, Math.max(0, below.size - 512), 512);
  const koly = new DataView(tail.buffer);
  if (koly.getUint32(0) !== 0x6b6f6c79) throw new Error('could not locate UDIF trailer');
  const long = (at: number): number => Number(koly.getBigUint64(at));
  const fork = long(24);
  const chunks: Chunk[] = [];
  if (long(224) > 0) {
    if (long(224) > MAX_LIST) throw new Error('the property list is too large');
    const list = new TextDecoder('latin1').decode(await readBytes(below, long(216), long(224)));
    for (const [, text] of list.matchAll(/<data>([A-Za-z0-9+/=\s]*)<\/data>/g)) {
      const packed = atob(text!.replaceAll(/\s/g, ''));
      parseBlock(
        Uint8Array.from(packed, (letter) => letter.charCodeAt(0)),
        fork,
        below.size,
        chunks,
      );
    }
  } else await readResources(below, long(40), long(48), fork, chunks);
  if (chunks.length === 0) throw new Error('the image has no chunks');
  if (long(492) > MAX_SIZE / SECTOR) throw new Error('the disk is too large');
  return { chunks: chunks.sort((a, b) => a.start - b.start), size: long(492) * SECTOR };
}

/** The resource fork: 0 offset of the data, 8 their length; resources are a length and as many bytes. */
async function readResources(below: BlockNode, offset: number, length: number, fork: number, chunks: Chunk[]): Promise<void> {
  if (length < 16 || length > MAX_LIST) throw new Error('the image has neither a property list nor a resource fork');
  const bytes = await readBytes(below, offset, length);
  const view = new DataView(bytes.buffer);
  const end = Math.min(bytes.length, view.getUint32(0) + view.getUint32(8));
  for (let at = view.getUint32(0); at + 4 <= end; ) {
    const size = view.getUint32(at);
    if (at + 4 + size > end) throw new Error('a resource ends beyond the resource fork');
    parseBlock(bytes.subarray(at + 4, at + 4 + size), fork, below.size, chunks);
    at += 4 + size;
  }
}

export const dmgDriver = driver({
  name: 'dmg',
  protocol: false,
  options: OPTIONS,
  open: async (values, { how, child }) => {
    if (how.writable && !how.autoReadOnly) throw new Error('dmg images can only be read');
    const below = await child(values.file, { writable: false, share: false });
    const { chunks, size } = await readChunks(below);
    return new DmgNode(below, chunks, size);
  },
});

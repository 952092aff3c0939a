/**
 * VDI, the format of VirtualBox. Numbers are little-endian.
 *
 *   64 signature  68 version  72 header size  76 type (1 dynamic, 2 static)  340 block map's offset  344 data's offset
 *   360 sector size  368 disk size (64 bits)  376 block size  380 extra  384 blocks  388 blocks allocated
 *   392 UUID  408 of the last snapshot  424 of the link  440 of the parent
 */
import { ClusterNode, EntryTable, ZEROED } from './clusters.ts';
import type { Creation } from './create.ts';
import { driver } from './driver.ts';
import { type BlockNode, type CheckResult, NO_FINDINGS, type NodeInfo, readBytes } from './node.ts';
import { node, type Schema } from './schema.ts';
import { run, type Task } from './task.ts';
import type { Completion } from '../machine/interfaces.ts';

const SIGNATURE = 0xbeda107f;
const VERSION = 0x00010001;
const HEADER_BYTES = 512;
const BLOCK = 2 ** 20;
const UNALLOCATED = 0xffffffff;
const DISCARDED = 0xfffffffe;
/** Largest map: what a disk of 512 TiB needs. */
const MAX_BLOCKS = 0x1fffff80;
const AT = {
  type: 76,
  mapOffset: 340,
  dataOffset: 344,
  sectorSize: 360,
  size: 368,
  blockSize: 376,
  extra: 380,
  blocks: 384,
  allocated: 388,
} as const;

const OPTIONS = { file: node } satisfies Schema;

class VdiNode extends ClusterNode {
  readonly driver = 'vdi';
  readonly clusterSize = BLOCK;
  readonly size: number;
  private readonly header: EntryTable;
  private readonly map: EntryTable;
  private readonly dataOffset: number;
  private readonly blocks: number;

  constructor(below: BlockNode, readOnly: boolean, header: Uint8Array, map: Uint8Array) {
    super(below, null, readOnly);
    this.header = new EntryTable(below, 0, header);
    const { view } = this.header;
    this.size = Number(view.getBigUint64(AT.size, true));
    this.blocks = view.getUint32(AT.blocks, true);
    this.dataOffset = view.getUint32(AT.dataOffset, true);
    this.map = new EntryTable(below, view.getUint32(AT.mapOffset, true), map);
  }

  private get allocated(): number {
    return this.header.view.getUint32(AT.allocated, true);
  }

  protected find(cluster: number): number {
    const entry = this.map.view.getUint32(cluster * 4, true);
    // What lies nowhere is zero by itself: there is nothing behind.
    if (entry >= DISCARDED) return ZEROED;
    if (entry >= this.allocated) throw new Error(`block ${cluster} lies beyond the blocks that the image has`);
    return this.dataOffset + entry * BLOCK;
  }

  protected take(): number {
    return this.dataOffset + this.allocated * BLOCK;
  }

  protected link(cluster: number, host: number): Completion {
    return run(this.linkTask(cluster, host));
  }

  private *linkTask(cluster: number, host: number): Task<void> {
    const { view } = this.header;
    view.setUint32(AT.allocated, this.allocated + 1, true);
    // A block that is counted and not used is lost space; one that is used and not counted would be an error.
    yield* this.header.saved(AT.allocated);
    this.map.view.setUint32(cluster * 4, (host - this.dataOffset) / BLOCK, true);
    yield* this.map.saved(cluster * 4);
  }

  override info(): NodeInfo {
    return { clusterSize: BLOCK };
  }

  override check(_fix: unknown, report: (line: string) => void): CheckResult {
    const seen = new Set<number>();
    let errors = 0;
    let used = 0;
    for (let i = 0; i < this.blocks; i++) {
      const entry = this.map.view.getUint32(i * 4, true);
      if (entry >= DISCARDED) continue;
      used++;
      if (entry < this.allocated && !seen.has(entry)) {
        seen.add(entry);
        continue;
      }
      report(`ERROR: block index ${i} ${entry < this.allocated ? 'also used by another block' : 'out of range'}, is ${entry}`);
      errors++;
    }
    if (used !== this.allocated) {
      report(`ERROR: allocated blocks mismatch, is ${used}, should be ${this.allocated}`);
      errors++;
    }
    return { ...NO_FINDINGS, errors };
  }
}

/** @throws Error in one line */
function checkHeader(header: Uint8Array): DataView {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const word = (at: number): number => view.getUint32(at, true);
  if (word(64) !== SIGNATURE) throw new Error('Image not in VDI format (bad signature)');
  if (word(68) !== VERSION) throw new Error(`unsupported VDI image (version ${word(68) >>> 16}.${word(68) & 0xffff})`);
  const size = view.getBigUint64(AT.size, true);
  const blocks = word(AT.blocks);
  if (word(AT.sectorSize) !== 512) throw new Error(`unsupported VDI image (sector size ${word(AT.sectorSize)} is not 512)`);
  if (word(AT.blockSize) !== BLOCK) throw new Error(`unsupported VDI image (block size ${word(AT.blockSize)} is not ${BLOCK})`);
  if (blocks > MAX_BLOCKS) throw new Error(`unsupported VDI image (too many blocks ${blocks}, max is ${MAX_BLOCKS})`);
  if (size > BigInt(blocks) * BigInt(BLOCK))
    throw new Error(`unsupported VDI image (disk size ${size}, image bitmap has room for ${blocks} blocks)`);
  if (size % 512n !== 0n) throw new Error('unsupported VDI image (disk size is not whole sectors)');
  if (word(AT.mapOffset) % 512 !== 0 || word(AT.dataOffset) % 512 !== 0)
    throw new Error('unsupported VDI image (an offset is not aligned)');
  if (header.subarray(440, 456).some((value) => value !== 0)) throw new Error('unsupported VDI image (non-NULL parent UUID)');
  if (header.subarray(424, 440).some((value) => value !== 0)) throw new Error('unsupported VDI image (non-NULL link UUID)');
  return view;
}

export const vdiDriver = driver({
  name: 'vdi',
  protocol: false,
  options: OPTIONS,
  open: async (values, { how, child }) => {
    const below = await child(values.file, { share: false, resize: true });
    const header = await readBytes(below, 0, HEADER_BYTES);
    const view = checkHeader(header);
    const map = await readBytes(
      below,
      view.getUint32(AT.mapOffset, true),
      Math.ceil((view.getUint32(AT.blocks, true) * 4) / 512) * 512,
    );
    return new VdiNode(below, !how.writable || below.readOnly, header, map);
  },
});

export const vdiCreation: Creation = {
  options: [
    { name: 'size', type: 'size', help: 'Virtual disk size' },
    { name: 'static', type: 'bool', help: 'VDI static (pre-allocated) image', otherwise: false },
    { name: 'preallocation', type: 'str', help: 'Preallocation mode (allowed values: off, metadata)', hidden: true },
  ],
  create: async (values, target) => {
    const whole = values['static'] === true;
    const mode = values['preallocation'] ?? 'off';
    if (mode !== 'off') throw new Error(`Unsupported preallocation mode: ${String(mode)}`);
    const size = Math.ceil(values.size / 512) * 512;
    const blocks = Math.ceil(size / BLOCK);
    if (blocks > MAX_BLOCKS)
      throw new Error(`Unsupported VDI image size (size is ${size}, max supported is ${MAX_BLOCKS * BLOCK})`);
    const mapBytes = Math.ceil((blocks * 4) / 512) * 512;
    const bytes = new Uint8Array(HEADER_BYTES + mapBytes);
    const view = new DataView(bytes.buffer);
    bytes.set(new TextEncoder().encode('<<< Oracle VM VirtualBox Disk Image >>>\n'));
    const put = (at: number, value: number): void => view.setUint32(at, value, true);
    put(64, SIGNATURE);
    put(68, VERSION);
    put(72, 0x180);
    put(AT.type, whole ? 2 : 1);
    put(AT.mapOffset, HEADER_BYTES);
    put(AT.dataOffset, HEADER_BYTES + mapBytes);
    put(AT.sectorSize, 512);
    view.setBigUint64(AT.size, BigInt(size), true);
    put(AT.blockSize, BLOCK);
    put(AT.blocks, blocks);
    put(AT.allocated, whole ? blocks : 0);
    bytes.set(crypto.getRandomValues(new Uint8Array(16)), 392);
    bytes.set(crypto.getRandomValues(new Uint8Array(16)), 408);
    for (let i = 0; i < mapBytes / 4; i++) put(HEADER_BYTES + i * 4, whole && i < blocks ? i : i < blocks ? UNALLOCATED : 0);
    const file = await target.newFile(target.filename);
    try {
      await file.write(0, bytes);
      if (whole) await file.resize(HEADER_BYTES + mapBytes + blocks * BLOCK, 'off');
    } finally {
      await file.close();
    }
  },
};

/** Block device: virtio 1.2, section 5.2. */
import type { BlockBackend, Completion, DeviceState } from '../../machine/interfaces.ts';
import { PieceList } from '../pieces.ts';
import type { Chain } from './chain.ts';
import { put16, put32, put64, readBytes } from './config-space.ts';
import { VirtioDevice, type VirtioParts } from './device.ts';
import { DEVICE, featureSet } from './features.ts';
import { checkChains, type SavedChain, type Virtqueue } from './queue.ts';

const SECTOR = 512;

/** Feature bits (5.2.3). */
const FEATURE = {
  segMax: 2,
  geometry: 4,
  readOnly: 5,
  blockSize: 6,
  flush: 9,
  topology: 10,
  configWriteCache: 11,
  multiQueue: 12,
  discard: 13,
  writeZeroes: 14,
} as const;

/** Configuration space (5.2.4). */
const CONFIG = {
  capacity: 0,
  segMax: 12,
  geometry: 16,
  blockSize: 20,
  physicalBlockExponent: 24,
  minIoSize: 26,
  optimalIoSize: 28,
  writeback: 32,
  queues: 34,
  maxDiscardSectors: 36,
  maxDiscardSegments: 40,
  discardAlignment: 44,
  maxWriteZeroesSectors: 48,
  maxWriteZeroesSegments: 52,
  writeZeroesMayUnmap: 56,
} as const;
const CONFIG_SIZE = 60;

/** Requests (5.2.6): a header, data, and a byte of status at the end. */
const REQUEST = { read: 0, write: 1, flush: 4, getId: 8, discard: 11, writeZeroes: 13 } as const;
const HEADER = 16;
const STATUS = { ok: 0, error: 1, unsupported: 2 } as const;
const ID_LENGTH = 20;
/** Ranges to discard: sector 64, count 32, flags 32, of which bit 0 allows unmapping. */
const RANGE = 16;
const MAY_UNMAP = 1;
const MAX_RANGE_SECTORS = 0x3fffff;

/** Of what does not lie in one place in memory, so much is read or written at a time. */
const PART = 1 << 20;

export type BlkOptions = {
  backend: BlockBackend;
  queues: number;
  queueSize: number;
  serial: string;
  /** Bytes, powers of two from 512 up. */
  logicalBlockSize: number;
  physicalBlockSize: number;
  /** Bytes; 0 for nothing in particular. */
  minIoSize: number;
  optIoSize: number;
  discard: boolean;
  writeZeroes: boolean;
};

export class VirtioBlk extends VirtioDevice {
  readonly deviceType = DEVICE.block;
  readonly configSize = CONFIG_SIZE;
  private readonly backend: BlockBackend;
  private readonly options: BlkOptions;
  private readonly config = new Uint8Array(CONFIG_SIZE);
  private readonly serial: Uint8Array;
  private readonly free: Request[] = [];
  /** Requests of before the last reset are forgotten. */
  private epoch = 0;
  private flushing = false;
  /** Requests that were not over at once. */
  private readonly waiting = new Set<Request>();
  /** Of a state that has been loaded. */
  private loaded: readonly SavedChain[] = [];

  constructor(parts: VirtioParts, options: BlkOptions) {
    super(parts, new Array<number>(options.queues).fill(options.queueSize));
    this.options = options;
    this.backend = options.backend;
    this.serial = new TextEncoder().encode(options.serial).subarray(0, ID_LENGTH);
    this.fillConfig();
  }

  get sectors(): number {
    return Math.floor(this.backend.size / SECTOR);
  }

  protected deviceFeatures(): bigint {
    const { backend, options } = this;
    const { segMax, geometry, blockSize, flush, topology, configWriteCache } = FEATURE;
    const writable = backend.readOnly ? [FEATURE.readOnly] : [];
    return featureSet(
      ...[segMax, geometry, blockSize, flush, topology, configWriteCache],
      ...writable,
      ...(options.queues > 1 ? [FEATURE.multiQueue] : []),
      ...(options.discard && !backend.readOnly ? [FEATURE.discard] : []),
      ...(options.writeZeroes && !backend.readOnly ? [FEATURE.writeZeroes] : []),
    );
  }

  override readConfig(offset: number, size: number): number {
    return readBytes(this.config, offset, size);
  }

  override writeConfig(offset: number, _size: number, value: number): void {
    if (offset === CONFIG.writeback) this.config[CONFIG.writeback] = value & 1;
  }

  protected override onReset(): void {
    this.epoch++;
    this.config[CONFIG.writeback] = 1;
  }

  protected queueNotified(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) this.begin(queue, chain);
    queue.flush();
  }

  private begin(queue: Virtqueue, chain: Chain): void {
    const request = this.free.pop() ?? new Request(this);
    if (!request.start(queue, chain, this.epoch)) this.waiting.add(request);
  }

  /** Requests that have failed and wait for the machine to go on are done again, from their beginning. */
  protected override deviceState() {
    return {
      save: (): DeviceState => {
        const requests = [...this.waiting].filter(({ epoch }) => epoch === this.epoch);
        const saved = requests.map(({ queue, chain }) => queue.save(chain));
        return { version: 1, fields: { writeback: this.config[CONFIG.writeback] === 1, requests: saved } };
      },
      load: ({ fields }: DeviceState): void => {
        const { writeback, requests } = fields;
        if (typeof writeback !== 'boolean') throw new Error(`${this.id}: field "writeback" is not true or false`);
        this.config[CONFIG.writeback] = writeback ? 1 : 0;
        this.epoch++;
        this.waiting.clear();
        this.loaded = checkChains(requests, this.queues.length);
      },
    };
  }

  override afterLoad(): void {
    for (const saved of this.loaded) {
      const queue = this.queues[saved.queue]!;
      const chain = queue.retake(saved);
      if (chain !== null) this.begin(queue, chain);
      queue.flush();
    }
    this.loaded = [];
  }

  /** A request is over. @param written bytes that the driver finds in its buffers */
  finish(request: Request, written: number, at: { once: boolean }): void {
    const { queue, chain, epoch } = request;
    if (!at.once) this.waiting.delete(request);
    if (epoch === this.epoch) {
      queue.push(chain, written);
      if (!at.once) this.flushSoon();
    }
    this.free.push(request);
  }

  get currentEpoch(): number {
    return this.epoch;
  }

  get disk(): BlockBackend {
    return this.backend;
  }

  get idBytes(): Uint8Array {
    return this.serial;
  }

  /** Every write is to be stable when it is over: the driver knows of no cache, or has turned it off (5.2.6.2). */
  get writeThrough(): boolean {
    if (this.has(FEATURE.configWriteCache)) return this.config[CONFIG.writeback] === 0;
    return !this.has(FEATURE.flush);
  }

  /** What ends within one turn of the event loop is one interrupt. */
  private flushSoon(): void {
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(() => {
      this.flushing = false;
      for (const queue of this.queues) queue.flush();
    });
  }

  private fillConfig(): void {
    const { config, options, sectors } = this;
    const heads = 16;
    const perTrack = 63;
    put64(config, CONFIG.capacity, sectors);
    put32(config, CONFIG.segMax, options.queueSize - 2);
    put16(config, CONFIG.geometry, Math.min(16383, Math.max(2, Math.floor(sectors / (heads * perTrack)))));
    config[CONFIG.geometry + 2] = heads;
    config[CONFIG.geometry + 3] = perTrack;
    put32(config, CONFIG.blockSize, options.logicalBlockSize);
    config[CONFIG.physicalBlockExponent] = Math.max(0, Math.log2(options.physicalBlockSize / options.logicalBlockSize));
    put16(config, CONFIG.minIoSize, options.minIoSize / options.logicalBlockSize);
    put32(config, CONFIG.optimalIoSize, options.optIoSize / options.logicalBlockSize);
    config[CONFIG.writeback] = 1;
    put16(config, CONFIG.queues, options.queues);
    put32(config, CONFIG.maxDiscardSectors, MAX_RANGE_SECTORS);
    put32(config, CONFIG.maxDiscardSegments, 1);
    put32(config, CONFIG.discardAlignment, options.logicalBlockSize / SECTOR);
    put32(config, CONFIG.maxWriteZeroesSectors, MAX_RANGE_SECTORS);
    put32(config, CONFIG.maxWriteZeroesSegments, 1);
    config[CONFIG.writeZeroesMayUnmap] = 1;
  }
}

const header = new Uint8Array(HEADER);
const headerView = new DataView(header.buffer);

/** One request on its way; objects are used again. */
class Request {
  queue!: Virtqueue;
  chain!: Chain;
  epoch = 0;
  private readonly device: VirtioBlk;
  private type = 0;
  /** Bytes on the disk where the next piece goes, and bytes of the request that are done. */
  private offset = 0;
  private done = 0;
  private total = 0;
  /** The part under way: bytes, and where it is if that is one place; else its places. */
  private part = 0;
  private partAt = -1;
  private readonly places = new PieceList();
  /** The caller is still in `start`. */
  private readonly at = { once: false };
  private over = false;

  constructor(device: VirtioBlk) {
    this.device = device;
  }

  /** @returns whether it is over */
  start(queue: Virtqueue, chain: Chain, epoch: number): boolean {
    this.queue = queue;
    this.chain = chain;
    this.epoch = epoch;
    this.over = false;
    this.at.once = true;
    this.begin();
    this.at.once = false;
    return this.over;
  }

  private begin(): void {
    const { chain, device } = this;
    if (chain.read(0, header) < HEADER || chain.writable === 0) {
      device.broken('a request without header or status');
      return;
    }
    this.type = headerView.getUint32(0, true);
    const sector = headerView.getUint32(12, true) * 2 ** 32 + headerView.getUint32(8, true);
    switch (this.type) {
      case REQUEST.read:
        return this.transfer(sector, chain.writable - 1);
      case REQUEST.write:
        if (device.disk.readOnly) return this.end(STATUS.error);
        return this.transfer(sector, chain.readable - HEADER);
      case REQUEST.flush:
        return this.run(() => device.disk.flush());
      case REQUEST.getId:
        return this.id();
      case REQUEST.discard:
      case REQUEST.writeZeroes:
        return this.range();
      default:
        return this.end(STATUS.unsupported);
    }
  }

  private transfer(sector: number, bytes: number): void {
    if (bytes % SECTOR !== 0 || sector + bytes / SECTOR > this.device.sectors) return this.end(STATUS.error);
    this.offset = sector * SECTOR;
    this.done = 0;
    this.total = bytes;
    this.parts();
  }

  /** Part after part, for as long as they are over at once. */
  private parts(): void {
    while (this.done < this.total) {
      const running = this.startPart();
      if (running === null) return;
      if (running !== undefined) {
        running.then(
          () => {
            this.endPart();
            this.parts();
          },
          () => this.end(STATUS.error),
        );
        return;
      }
      this.endPart();
    }
    if (this.type === REQUEST.write && this.device.writeThrough) return this.run(() => this.device.disk.flush());
    this.end(STATUS.ok);
  }

  /** @returns null when it has failed */
  private startPart(): Completion | null {
    const { chain, done } = this;
    const reading = this.type === REQUEST.read;
    const left = this.total - done;
    const at = reading ? chain.writableAt(done, left) : chain.readableAt(HEADER + done, left);
    this.partAt = at;
    this.part = at >= 0 ? left : Math.min(left, PART);
    try {
      return at >= 0 ? this.inOnePlace(reading) : this.inPieces(reading);
    } catch {
      this.end(STATUS.error);
      return null;
    }
  }

  private inOnePlace(reading: boolean): Completion {
    const { disk } = this.device;
    const bytes = this.chain.view(this.partAt, this.part);
    return reading ? disk.read(this.offset + this.done, bytes) : disk.write(this.offset + this.done, bytes);
  }

  private inPieces(reading: boolean): Completion {
    const { chain, places, done, part } = this;
    const { disk } = this.device;
    if (reading) {
      chain.writablePieces(places, done, part);
      return disk.readPieces(this.offset + done, places);
    }
    chain.readablePieces(places, HEADER + done, part);
    return disk.writePieces(this.offset + done, places);
  }

  private endPart(): void {
    const { chain, partAt, part } = this;
    if (this.type === REQUEST.read) {
      if (partAt >= 0) chain.wrote(partAt, part);
      else chain.wrotePieces(this.places);
    }
    this.done += part;
  }

  private id(): void {
    const bytes = new Uint8Array(Math.min(ID_LENGTH, this.chain.writable - 1));
    bytes.set(this.device.idBytes.subarray(0, bytes.length));
    this.done = this.chain.write(0, bytes);
    this.end(STATUS.ok);
  }

  private range(): void {
    const { chain, device } = this;
    const { disk } = device;
    if (disk.readOnly) return this.end(STATUS.error);
    if (chain.readable !== HEADER + RANGE) return this.end(STATUS.unsupported);
    const range = new Uint8Array(RANGE);
    chain.read(HEADER, range);
    const view = new DataView(range.buffer);
    const sector = view.getUint32(4, true) * 2 ** 32 + view.getUint32(0, true);
    const count = view.getUint32(8, true);
    const flags = view.getUint32(12, true);
    const zero = this.type === REQUEST.writeZeroes;
    if ((flags & ~(zero ? MAY_UNMAP : 0)) !== 0) return this.end(STATUS.unsupported);
    if (count > MAX_RANGE_SECTORS || sector + count > device.sectors) return this.end(STATUS.error);
    const [offset, length] = [sector * SECTOR, count * SECTOR];
    if (!zero) return this.run(() => disk.discard(offset, length));
    this.run(() => zeroes(disk, offset, length, (flags & MAY_UNMAP) !== 0));
  }

  /** An operation that moves no data. */
  private run(operation: () => Completion): void {
    let running: Completion;
    try {
      running = operation();
    } catch {
      return this.end(STATUS.error);
    }
    if (running === undefined) return this.end(STATUS.ok);
    running.then(
      () => this.end(STATUS.ok),
      () => this.end(STATUS.error),
    );
  }

  private end(status: number): void {
    const { chain, device } = this;
    const read = this.type === REQUEST.read || this.type === REQUEST.getId;
    if (this.epoch === device.currentEpoch) chain.writeByte(chain.writable - 1, status);
    const written = read && status === STATUS.ok ? this.done + 1 : 1;
    this.done = 0;
    this.over = true;
    device.finish(this, written, this.at);
  }
}

function zeroes(disk: BlockBackend, offset: number, length: number, mayUnmap: boolean): Completion {
  return disk.writeZeroes === undefined ? writeZeroes(disk, offset, length) : disk.writeZeroes(offset, length, mayUnmap);
}

/** For backends that cannot do that themselves. */
async function writeZeroes(disk: BlockBackend, offset: number, length: number): Promise<void> {
  const zeros = new Uint8Array(Math.min(length, PART));
  for (let done = 0; done < length; done += zeros.length) {
    await disk.write(offset + done, zeros.subarray(0, Math.min(zeros.length, length - done)));
  }
}

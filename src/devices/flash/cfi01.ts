/**
 * Parallel NOR flash with the Intel command set (CFI primary vendor command set 0001h), one byte
 * wide: Common Flash Interface Publication 100 (JEP137B) and Intel's 28F640J3 data sheet (290667).
 *
 * While it shows its array the memory is mapped like any ROM and costs nothing; writes arrive here.
 * A command other than "read array" takes the mapping away, so that reads arrive here, too.
 */
import type { BlockBackend, Device, DeviceState, IoHandler, MappedRegion } from '../../machine/interfaces.ts';
import { settle } from '../block.ts';
import { StateBlock } from '../state.ts';

/** Erase block, bytes. */
export const FLASH_BLOCK = 4096;
/** Write buffer, bytes (CFI query 2Ah: two to this power). */
const BUFFER_SHIFT = 11;
const SECTOR = 512;

/** Commands (290667, table 4). */
const COMMAND = {
  program: 0x40,
  programToo: 0x10,
  erase: 0x20,
  clearStatus: 0x50,
  lock: 0x60,
  readStatus: 0x70,
  readId: 0x90,
  query: 0x98,
  confirm: 0xd0,
  bufferedProgram: 0xe8,
  readArray: 0xff,
} as const;
/** Status register (290667, table 17). */
const STATUS = { ready: 0x80, eraseError: 0x20, programError: 0x10 } as const;
const MANUFACTURER = 0x89;
const DEVICE = 0x18;

/** What reads show. */
const SHOWS = { array: 0, status: 1, id: 2, query: 3 } as const;

export type FlashWiring = {
  id: string;
  /** The array, a view of memory that the CPU maps directly; whole erase blocks. */
  bytes: Uint8Array;
  /** What is behind it: its first `bytes.length` bytes are the array. */
  backend: BlockBackend;
  readOnly: boolean;
  /** Shows the array at its place, for reads. */
  map: () => MappedRegion;
  /** The array has changed: translated code there is void. */
  changed: (at: number, length: number) => void;
};

export class ParallelFlash implements Device {
  readonly type = 'cfi.pflash01';
  readonly id: string;
  readonly mmio: IoHandler;

  private readonly wiring: FlashWiring;
  private readonly queryTable: Uint8Array;
  private mapping: MappedRegion | null = null;
  /** Sectors that differ from the backend's; one write is under way at a time. */
  private readonly dirty = new Set<number>();
  private storing = false;
  private readonly state = new StateBlock(
    'cfi.pflash01',
    1,
    () => ({
      shows: SHOWS.array as number,
      /** The command that waits for more, or 0. */
      command: 0,
      status: STATUS.ready as number,
      /** Buffered programming: bytes still to come (-1 before their number is known), and their place. */
      expected: 0,
      block: 0,
      buffer: new Uint8Array(1 << BUFFER_SHIFT),
      filled: new Uint8Array(1 << BUFFER_SHIFT),
    }),
    { shows: 3, command: 255, status: 255, block: 2 ** 32 },
  );

  /** @throws Error when the array is not made of whole erase blocks */
  constructor(wiring: FlashWiring) {
    if (wiring.bytes.length === 0 || wiring.bytes.length % FLASH_BLOCK !== 0) {
      throw new Error(`size is not a multiple of ${FLASH_BLOCK} bytes`);
    }
    this.id = wiring.id;
    this.wiring = wiring;
    this.queryTable = queryTable(wiring.bytes.length);
    this.mmio = {
      read: (offset, size) => this.read(offset, size),
      write: (offset, size, value) => this.write(offset, size, value),
    };
    this.remap();
  }

  reset(): void {
    this.state.reset();
    this.remap();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
    this.remap();
  }

  /** The array came with the machine's memory: whatever image is behind it here becomes like it. */
  afterLoad(): void {
    const { bytes, readOnly } = this.wiring;
    if (readOnly) return;
    for (let sector = 0; sector < bytes.length / SECTOR; sector++) this.dirty.add(sector);
    this.store();
  }

  private read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.readByte(offset + i) << (8 * i);
    return value >>> 0;
  }

  private readByte(offset: number): number {
    const { shows, status } = this.state.value;
    switch (shows) {
      case SHOWS.status:
        return status;
      case SHOWS.id:
        return [MANUFACTURER, DEVICE][offset & 0xff] ?? 0;
      case SHOWS.query:
        return this.queryTable[offset & 0xff] ?? 0;
      default:
        return this.wiring.bytes[offset]!;
    }
  }

  /** Wider accesses are bytes one after the other, of which data may consist but no command. */
  private write(offset: number, size: number, value: number): void {
    const { command, expected } = this.state.value;
    const data = command === COMMAND.program || (command === COMMAND.bufferedProgram && expected > 0);
    const count = data ? size : 1;
    for (let i = 0; i < count; i++) {
      // All bytes of a wide access are programmed by the one command that came before it.
      if (command === COMMAND.program) this.state.value.command = command;
      this.writeByte(offset + i, (value >>> (8 * i)) & 0xff);
    }
    this.remap();
  }

  private writeByte(offset: number, value: number): void {
    const s = this.state.value;
    switch (s.command) {
      case 0:
        return this.begin(offset, value);
      case COMMAND.program:
        s.command = 0;
        s.status |= STATUS.ready;
        return this.program(offset, Uint8Array.of(value));
      case COMMAND.erase:
        if (value === COMMAND.confirm) this.erase(offset);
        else s.status |= STATUS.eraseError | STATUS.programError;
        s.command = 0;
        if (value === COMMAND.readArray) s.shows = SHOWS.array;
        return;
      case COMMAND.lock:
        // Block locks are accepted and not kept.
        s.command = 0;
        s.status |= STATUS.ready;
        if (value === COMMAND.readArray) s.shows = SHOWS.array;
        return;
      case COMMAND.bufferedProgram:
        return this.fill(offset, value);
      default:
        s.command = 0;
    }
  }

  /** The first cycle of a command. */
  private begin(offset: number, value: number): void {
    const s = this.state.value;
    s.shows = SHOWS.status;
    switch (value) {
      case COMMAND.program:
      case COMMAND.programToo:
        s.command = COMMAND.program;
        break;
      case COMMAND.erase:
      case COMMAND.lock:
        s.command = value;
        break;
      case COMMAND.bufferedProgram:
        s.command = value;
        s.expected = -1;
        s.block = offset - (offset % (1 << BUFFER_SHIFT));
        s.filled.fill(0);
        s.status |= STATUS.ready;
        break;
      case COMMAND.clearStatus:
        // "Ready" goes, too, until the next operation: firmware tells flash from RAM by that.
        s.status = 0;
        s.shows = SHOWS.array;
        break;
      case COMMAND.readStatus:
        break;
      case COMMAND.readId:
        s.shows = SHOWS.id;
        break;
      case COMMAND.query:
        s.shows = SHOWS.query;
        break;
      default:
        s.shows = SHOWS.array;
    }
  }

  /** Buffered programming: count less one, then the data, then a confirmation. */
  private fill(offset: number, value: number): void {
    const s = this.state.value;
    if (s.expected < 0) {
      s.expected = value + 1;
    } else if (s.expected > 0) {
      const at = offset - s.block;
      if (at >= 0 && at < s.buffer.length) {
        s.buffer[at] = value;
        s.filled[at] = 1;
      } else {
        s.status |= STATUS.programError;
      }
      s.expected--;
    } else {
      s.command = 0;
      if (value === COMMAND.confirm) this.programBuffer();
      else s.status |= STATUS.programError | STATUS.eraseError;
    }
  }

  private programBuffer(): void {
    const { buffer, filled, block } = this.state.value;
    for (let from = 0; from < buffer.length; from++) {
      if (filled[from] === 0) continue;
      let to = from;
      while (to < buffer.length && filled[to] !== 0) to++;
      this.program(block + from, buffer.subarray(from, to));
      from = to;
    }
    this.state.value.status |= STATUS.ready;
  }

  /** Programming only ever clears bits. */
  private program(offset: number, data: Uint8Array): void {
    const { bytes, readOnly } = this.wiring;
    if (readOnly || offset + data.length > bytes.length) {
      this.state.value.status |= STATUS.programError;
      return;
    }
    for (let i = 0; i < data.length; i++) bytes[offset + i]! &= data[i]!;
    this.changed(offset, data.length);
  }

  private erase(offset: number): void {
    const { bytes, readOnly } = this.wiring;
    this.state.value.status |= STATUS.ready;
    if (readOnly) {
      this.state.value.status |= STATUS.eraseError;
      return;
    }
    const start = offset - (offset % FLASH_BLOCK);
    bytes.fill(0xff, start, start + FLASH_BLOCK);
    this.changed(start, FLASH_BLOCK);
  }

  private changed(at: number, length: number): void {
    this.wiring.changed(at, length);
    const last = Math.floor((at + length - 1) / SECTOR);
    for (let sector = Math.floor(at / SECTOR); sector <= last; sector++) this.dirty.add(sector);
    this.store();
  }

  /** Writes the lowest run of sectors that differ; what the backend refuses shows in the status. */
  private store(): void {
    while (!this.storing && this.dirty.size > 0) {
      const first = Math.min(...this.dirty);
      let end = first;
      while (this.dirty.delete(end)) end++;
      this.storing = true;
      const { bytes, backend } = this.wiring;
      settle(
        () => backend.write(first * SECTOR, bytes.slice(first * SECTOR, end * SECTOR)),
        (error) => {
          this.storing = false;
          if (error !== null) this.state.value.status |= STATUS.programError;
          else this.store();
        },
      );
    }
  }

  private remap(): void {
    const array = this.state.value.shows === SHOWS.array;
    if (array === (this.mapping !== null)) return;
    this.mapping?.remove();
    this.mapping = array ? this.wiring.map() : null;
  }
}

/** Query structure (JEP137B, 2.3): command set, timing and geometry, from 10h on. */
function queryTable(size: number): Uint8Array {
  const table = new Uint8Array(0x40);
  const blocks = size / FLASH_BLOCK - 1;
  // "QRY", command set 0001h with its extended table at 31h, no alternate one.
  table.set([0x51, 0x52, 0x59, 0x01, 0x00, 0x31, 0x00, 0x00, 0x00, 0x00, 0x00], 0x10);
  // 4.5 to 5.5 V; typical times of programming a byte, a buffer and of erasing, powers of two; maxima.
  table.set([0x45, 0x55, 0x00, 0x00, 0x07, 0x07, 0x0a, 0x00, 0x04, 0x04, 0x04, 0x00], 0x1b);
  // Size as a power of two, eight bits wide, write buffer, one region of equal blocks.
  table.set([Math.ceil(Math.log2(size)), 0x00, 0x00, BUFFER_SHIFT, 0x00, 0x01], 0x27);
  table.set([blocks & 0xff, blocks >> 8, (FLASH_BLOCK >> 8) & 0xff, FLASH_BLOCK >> 16], 0x2d);
  // Extended table "PRI" 1.0, without optional features.
  table.set([0x50, 0x52, 0x49, 0x31, 0x30], 0x31);
  return table;
}

/**
 * The bus master of one channel: Programming Interface for Bus Master IDE Controller, revision 1.0.
 * Buffers are described by a table in guest memory: address, byte count (0 for 64 KiB), and an end
 * mark in the last entry.
 */
import type { GuestMemory, IoHandler } from '../../machine/interfaces.ts';
import type { DmaPort } from './ata.ts';
import type { PieceList } from '../pieces.ts';
import type { IdeChannel } from './channel.ts';
import { type Region, Regions } from './regions.ts';

const COMMAND = { start: 0x01, toMemory: 0x08 } as const;
const STATUS = { active: 0x01, error: 0x02, interrupt: 0x04, capable: 0x60 } as const;
const END = 0x80000000;
/** The table ends where 64 KiB do, whether it has an end mark or not. */
const MAX_ENTRIES = 8192;

export type BusMasterState = { command: number; status: number; table: number };

export class BusMaster implements DmaPort {
  /** Eight ports: command, status at 2, table address at 4. */
  readonly ports: IoHandler;

  private readonly memory: GuestMemory;
  private readonly channel: IdeChannel;
  private readonly state: BusMasterState;
  private readonly regions: Regions;
  /** The table's last entry has been read. */
  private last = false;

  /** @param state kept by the controller that the bus master belongs to */
  constructor(memory: GuestMemory, channel: IdeChannel, state: BusMasterState) {
    this.memory = memory;
    this.channel = channel;
    this.state = state;
    this.regions = new Regions(memory, { entry: (index, into) => this.entry(index, into) });
    channel.onDmaRequest = () => this.begin();
    channel.onInterrupt = () => {
      state.status |= STATUS.interrupt;
    };
    this.ports = {
      read: (offset, size) => this.read(offset, size),
      write: (offset, size, value) => this.write(offset, size, value),
    };
  }

  private read(offset: number, size: number): number {
    const s = this.state;
    const mask = size === 4 ? 0xffffffff : size === 2 ? 0xffff : 0xff;
    if (offset >= 4) return (s.table >>> (8 * (offset - 4))) & mask;
    return ((s.command | (s.status << 16)) >>> (8 * offset)) & mask;
  }

  private write(offset: number, size: number, value: number): void {
    const s = this.state;
    if (offset >= 4) {
      const shift = 8 * (offset - 4);
      const mask = (size === 4 ? 0xffffffff : size === 2 ? 0xffff : 0xff) << shift;
      s.table = ((s.table & ~mask) | ((value << shift) & mask & ~3)) >>> 0;
      return;
    }
    for (let i = 0; i < size; i++) this.writeByte(offset + i, (value >>> (8 * i)) & 0xff);
  }

  private writeByte(offset: number, value: number): void {
    const s = this.state;
    if (offset === 2) {
      s.status = (s.status & ~STATUS.capable & ~(value & (STATUS.error | STATUS.interrupt))) | (value & STATUS.capable);
    } else if (offset === 0) {
      const started = (value & COMMAND.start) !== 0 && (s.command & COMMAND.start) === 0;
      s.command = value & (COMMAND.start | COMMAND.toMemory);
      if (started) {
        s.status |= STATUS.active;
        this.begin();
      } else if ((value & COMMAND.start) === 0) s.status &= ~STATUS.active;
    }
  }

  /** Moves data once the device has asked for it and the host has started the engine. */
  private begin(): void {
    const device = this.channel.selected;
    if ((this.state.status & STATUS.active) === 0 || device === null || !device.dmaWaits) return;
    this.regions.restart(device.transferAt);
    device.runDma(this);
  }

  private entry(index: number, into: Region): boolean {
    if (index === 0) this.last = false;
    if (this.last || index === MAX_ENTRIES) return false;
    const at = this.state.table + 8 * index;
    const second = this.memory.read(at + 4, 4);
    into.address = (this.memory.read(at, 4) & ~1) >>> 0;
    into.length = second & 0xfffe || 0x10000;
    this.last = (second & END) !== 0 || index === MAX_ENTRIES - 1;
    return true;
  }

  // --- The transfer, for the device.

  toMemory(bytes: Uint8Array): number {
    return this.within(bytes.length, this.regions.toMemory(bytes));
  }

  fromMemory(into: Uint8Array): number {
    return this.within(into.length, this.regions.fromMemory(into));
  }

  /** @returns bytes moved */
  private within(length: number, moved: number): number {
    if (moved < length) this.state.status &= ~STATUS.active;
    return moved;
  }

  places(into: PieceList, most: number, unit: number): number {
    return this.regions.places(into, most, unit);
  }

  changed(places: PieceList): void {
    places.changed(this.memory);
  }

  moved(): void {
    // Nobody is told how far it has come.
  }

  /** Buffers beyond the transfer's end leave the engine active. */
  done(): void {
    if (this.last && this.regions.between) this.state.status &= ~STATUS.active;
  }
}

/**
 * The bus master of one channel: Programming Interface for Bus Master IDE Controller, revision 1.0.
 * Buffers are described by a table in guest memory: address, byte count (0 for 64 KiB), and an end
 * mark in the last entry.
 */
import type { GuestMemory, IoHandler } from '../../machine/interfaces.ts';
import type { DmaPort } from './ata.ts';
import type { IdeChannel } from './channel.ts';

const COMMAND = { start: 0x01, toMemory: 0x08 } as const;
const STATUS = { active: 0x01, error: 0x02, interrupt: 0x04, capable: 0x60 } as const;
const END = 0x80000000;
/** The table ends where 64 KiB do, whether it has an end mark or not. */
const MAX_ENTRIES = 8192;

export type BusMasterState = { command: number; status: number; table: number };

export class BusMaster {
  /** Eight ports: command, status at 2, table address at 4. */
  readonly ports: IoHandler;

  private readonly memory: GuestMemory;
  private readonly channel: IdeChannel;
  private readonly state: BusMasterState;

  /** @param state kept by the controller that the bus master belongs to */
  constructor(memory: GuestMemory, channel: IdeChannel, state: BusMasterState) {
    this.memory = memory;
    this.channel = channel;
    this.state = state;
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
    device.runDma(this.walk(device.transferAt));
  }

  /** Goes through the table once, from one piece of the transfer to the next. @param skip bytes that have been moved */
  private walk(skip: number): DmaPort {
    const s = this.state;
    let over = skip;
    let entry = 0;
    let address = 0;
    let left = 0;
    let last = false;
    const next = (): boolean => {
      if (last || entry === MAX_ENTRIES) return false;
      const at = s.table + 8 * entry++;
      address = this.memory.read(at, 4) & ~1;
      const second = this.memory.read(at + 4, 4);
      left = second & 0xfffe || 0x10000;
      const passed = Math.min(over, left);
      over -= passed;
      address += passed;
      left -= passed;
      last = (second & END) !== 0;
      return true;
    };
    const move = (bytes: Uint8Array, each: (at: number, part: Uint8Array) => void): number => {
      let done = 0;
      while (done < bytes.length && (left > 0 || next())) {
        if (left === 0) continue;
        const length = Math.min(left, bytes.length - done);
        each(address >>> 0, bytes.subarray(done, done + length));
        address += length;
        left -= length;
        done += length;
      }
      if (done < bytes.length) s.status &= ~STATUS.active;
      return done;
    };
    return {
      toMemory: (bytes) => move(bytes, (at, part) => this.memory.writeBytes(at, part)),
      fromMemory: (into) => move(into, (at, part) => this.memory.readBytes(at, part)),
      // Buffers beyond the transfer's end leave the engine active.
      done: () => {
        if (left === 0 && (last || entry === MAX_ENTRIES)) s.status &= ~STATUS.active;
      },
    };
  }
}

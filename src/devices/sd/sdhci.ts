/**
 * An SD host controller: SD Host Controller Simplified Specification 3.00. Data go by a port of the driver's
 * (PIO), to one place in memory (SDMA), or to many that a table names (ADMA2).
 */
import type { DeviceState, GuestMemory, IoHandler, IrqLine, Timer, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import type { SdBus } from './bus.ts';
import { SdTransfer } from './sdhci-transfer.ts';
import { AT, CLOCK, COMMAND, ERROR, MODE, PRESENT, REGISTER_BYTES, RESET, STATUS, WRITABLE } from './sdhci-registers.ts';

export type SdhciOptions = {
  id: string;
  memory: GuestMemory;
  clock: VirtualClock;
  bus: SdBus;
  irq: IrqLine;
  capabilities: bigint;
  currents: bigint;
  /** Of the specification: 2 or 3. */
  version: number;
};

/** Commands that stop what goes on. */
const STOP = 12;
const COUNT = 23;
const VENDOR = 0x24;

export const transferPowerOn = () => ({
  active: false,
  reading: false,
  dma: false,
  multiple: false,
  /** Bytes that are left; -1 where nobody has said how many. */
  left: 0,
  /** Bytes of the block under way that have been moved. */
  inBlock: 0,
  /** Waits at a boundary until the driver writes an address. */
  suspended: false,
  /** Place and rest of what the table's current line names. */
  address: 0,
  length: 0,
  last: false,
  /** The block between the port and the card. */
  block: new Uint8Array(4096),
  blockAt: 0,
  blockReady: false,
});

const powerOn = () => ({ registers: new Uint8Array(REGISTER_BYTES), transfer: transferPowerOn() });
export type SdhciState = ReturnType<typeof powerOn>;

export class Sdhci {
  readonly mmio: IoHandler;
  readonly bus: SdBus;
  private readonly options: SdhciOptions;
  private readonly state: StateBlock<SdhciState>;
  private readonly view: DataView;
  private readonly transfer: SdTransfer;
  private readonly later: Timer;

  constructor(options: SdhciOptions) {
    this.options = options;
    this.bus = options.bus;
    this.state = new StateBlock(options.id, 1, powerOn);
    this.view = new DataView(this.state.value.registers.buffer);
    this.transfer = new SdTransfer(this, options.memory, this.state.value.transfer);
    this.later = options.clock.timer(() => this.transfer.run());
    this.mmio = {
      read: (offset, size) => this.read(offset, size),
      write: (offset, size, value) => this.write(offset, size, value),
    };
    this.putConstants();
  }

  reset(): void {
    this.transfer.cancel();
    this.later.cancel();
    this.state.reset();
    this.putConstants();
    this.updateInterrupt();
  }

  save(): DeviceState {
    return this.state.save();
  }

  load(state: DeviceState): void {
    this.transfer.cancel();
    this.state.load(state);
    this.updateInterrupt();
    // What was under way goes on.
    if (this.state.value.transfer.active) this.runLater();
  }

  // --- For transfers.

  get16(at: number): number {
    return this.view.getUint16(at, true);
  }

  get32(at: number): number {
    return this.view.getUint32(at, true);
  }

  put16(at: number, value: number): void {
    this.view.setUint16(at, value, true);
  }

  put32(at: number, value: number): void {
    this.view.setUint32(at, value >>> 0, true);
  }

  /** Shows what has happened, as far as the driver has enabled it. */
  raise(status: number, errors = 0): void {
    this.put16(AT.status, this.get16(AT.status) | (status & this.get16(AT.statusEnable)));
    this.put16(AT.errors, this.get16(AT.errors) | (errors & this.get16(AT.errorEnable)));
    this.updateInterrupt();
  }

  /** Goes on with a transfer when the guest has had its turn. */
  runLater(): void {
    this.later.arm(this.options.clock.now());
  }

  /** All data have been moved. */
  transferDone(): void {
    const mode = this.get16(AT.transferMode);
    if ((mode & MODE.multiple) !== 0 && (mode & MODE.auto) === MODE.autoStop) {
      const answer = this.bus.card?.command(STOP, 0);
      if (answer?.kind === 'short') this.put32(AT.response + 12, answer.value);
    }
    this.raise(STATUS.transferComplete);
  }

  // --- Registers.

  private putConstants(): void {
    const { capabilities, currents, version } = this.options;
    this.view.setBigUint64(AT.capabilities, capabilities, true);
    this.view.setBigUint64(AT.currents, currents, true);
    this.put16(AT.version, (VENDOR << 8) | (version - 1));
  }

  private read(offset: number, size: number): number {
    if (offset >= AT.buffer && offset < AT.buffer + 4) return this.transfer.readPort(size);
    this.showPresent();
    let value = 0;
    for (let i = 0; i < size; i++) value |= (this.state.value.registers[offset + i] ?? 0) << (8 * i);
    return value >>> 0;
  }

  private write(offset: number, size: number, value: number): void {
    if (offset >= AT.buffer && offset < AT.buffer + 4) return this.transfer.writePort(size, value);
    for (let i = 0; i < size && offset + i < REGISTER_BYTES; i++) this.writeByte(offset + i, (value >>> (8 * i)) & 0xff);
    this.updateInterrupt();
  }

  private writeByte(at: number, byte: number): void {
    const { registers } = this.state.value;
    if (at >= AT.status && at < AT.status + 4) {
      // Written ones clear; that there are errors follows from them.
      registers[at] = registers[at]! & ~byte;
      return;
    }
    const mask = ((WRITABLE[at & ~3] ?? 0) >>> (8 * (at & 3))) & 0xff;
    registers[at] = (registers[at]! & ~mask) | (byte & mask);
    switch (at) {
      case AT.systemAddress + 3:
        return this.transfer.resume();
      case AT.command + 1:
        return this.start();
      case AT.clock:
        registers[at] = (byte & 1) !== 0 ? registers[at]! | CLOCK.stable : registers[at]! & ~CLOCK.stable;
        return;
      case AT.reset:
        return this.softReset(byte);
      case AT.forceError:
      case AT.forceError + 1:
        return this.raise(0, byte << (8 * (at & 1)));
    }
  }

  private softReset(parts: number): void {
    if ((parts & RESET.all) !== 0) return this.reset();
    if ((parts & RESET.data) !== 0) {
      this.transfer.cancel();
      this.later.cancel();
      this.put16(AT.status, this.get16(AT.status) & STATUS.commandComplete);
    }
    if ((parts & RESET.command) !== 0) this.put16(AT.status, this.get16(AT.status) & ~STATUS.commandComplete);
  }

  private showPresent(): void {
    const { card } = this.bus;
    const { active, reading, blockReady, dma } = this.state.value.transfer;
    let present: number = PRESENT.lines;
    if (card !== null) present |= PRESENT.inserted | PRESENT.detect | (card.writeProtected ? 0 : PRESENT.writable);
    present |= PRESENT.stable;
    if (active) {
      present |= PRESENT.dataInhibit | PRESENT.lineActive | (reading ? PRESENT.readActive : PRESENT.writeActive);
      if (!dma && blockReady) present |= reading ? PRESENT.bufferRead : PRESENT.bufferWrite;
    }
    this.put32(AT.present, present);
  }

  private updateInterrupt(): void {
    const status = this.get16(AT.status) & ~STATUS.error;
    const errors = this.get16(AT.errors);
    this.put16(AT.status, errors === 0 ? status : status | STATUS.error);
    const level = (status & this.get16(AT.statusSignal)) !== 0 || (errors & this.get16(AT.errorSignal)) !== 0;
    this.put16(AT.slotStatus, level ? 1 : 0);
    this.options.irq.set(level);
  }

  // --- Commands.

  private start(): void {
    const command = this.get16(AT.command);
    const mode = this.get16(AT.transferMode);
    const index = (command >> COMMAND.indexShift) & 63;
    const { card } = this.bus;
    const clocked = (this.get16(AT.clock) & CLOCK.card) !== 0;
    if (card === null || !clocked) return this.raise(0, ERROR.commandTimeout);
    const hasData = (command & COMMAND.data) !== 0;
    if (index === STOP) this.transfer.cancel();
    if (hasData && (mode & MODE.auto) === MODE.autoCount && card.command(COUNT, this.get32(AT.systemAddress)).kind === 'none') {
      this.put16(AT.autoErrors, this.get16(AT.autoErrors) | 2);
      return this.raise(0, ERROR.auto);
    }
    const answer = card.command(index, this.get32(AT.argument));
    const wanted = command & COMMAND.response;
    if (wanted !== 0 && answer.kind === 'none') return this.raise(0, ERROR.commandTimeout);
    if (answer.kind === 'short') this.put32(AT.response, answer.value);
    if (answer.kind === 'long') this.putLong(answer.bytes);
    if (hasData) this.transfer.begin(mode);
    this.raise(STATUS.commandComplete);
    if (hasData) this.transfer.run();
    // The card is busy for no time.
    else if (wanted === COMMAND.busy) this.raise(STATUS.transferComplete);
  }

  /** Bits 127 to 8 of the answer, from the lowest response register on (2.2.6). */
  private putLong(bytes: Uint8Array): void {
    for (let i = 0; i < 15; i++) this.state.value.registers[AT.response + i] = bytes[14 - i]!;
    this.state.value.registers[AT.response + 15] = 0;
  }
}

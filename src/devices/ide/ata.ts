/**
 * What every ATA device has, whatever it is attached to: the task file, the data that is on its way
 * by PIO or DMA, and the protocols of ATA/ATAPI-7 (T13/1532D), volume 2, clause 9.
 */
import type { Completion, DeviceState } from '../../machine/interfaces.ts';
import { settle } from '../block.ts';
import { StateBlock } from '../state.ts';

/** Status register (ATA/ATAPI-7 volume 1, 6.15) */
export const STATUS = {
  error: 0x01,
  request: 0x08,
  seekComplete: 0x10,
  fault: 0x20,
  ready: 0x40,
  busy: 0x80,
} as const;
/** Error register (6.9) */
export const ERROR = { abort: 0x04, notFound: 0x10, changed: 0x20, uncorrectable: 0x40 } as const;

/** Registers by their place in the command block; 0 and 7 are the channel's business. */
export const REGISTER = {
  features: 1,
  count: 2,
  lbaLow: 3,
  lbaMid: 4,
  lbaHigh: 5,
  device: 6,
} as const;

export const DEVICE_LBA = 0x40;
const DEVICE_HEAD = 0x0f;
/** Device control register: a second set of register values shows. */
export const CONTROL_HOB = 0x80;

/** Bytes of the data buffer: more than any DRQ block or ATAPI byte count has. */
const BUFFER = 65536;

/** What a device tells whatever it is attached to. */
export interface AtaHost {
  /** The device's interrupt request. */
  setInterrupt(level: boolean): void;
  /** A DMA command waits to be carried out by `AtaDevice.runDma`. */
  dmaRequested(): void;
}

/** One direction of a DMA transfer, as a bus master offers it. */
export interface DmaPort {
  /** @returns bytes that found room in the guest's buffers */
  toMemory(bytes: Uint8Array): number;
  /** @returns bytes that the guest's buffers had */
  fromMemory(into: Uint8Array): number;
  /** The transfer is over. */
  done(): void;
}

/** A transfer's bytes: each is called for one piece of it. */
export type Producer = (into: Uint8Array, at: number) => Completion;
export type Consumer = (from: Uint8Array, at: number) => Completion;

type Transfer = {
  direction: 'in' | 'out';
  dma: boolean;
  /** Bytes in all, and how many of them have been produced or consumed. */
  total: number;
  at: number;
  /** Bytes of a DRQ block, each of which is announced by an interrupt. */
  block: number;
  produce: Producer | null;
  consume: Consumer | null;
  finish: () => void;
};

export abstract class AtaDevice {
  readonly id: string;
  host: AtaHost | null = null;

  protected readonly state: StateBlock<ReturnType<typeof powerOn>>;
  private transfer: Transfer | null = null;
  /** Counts resets and commands: what an earlier one started is void. */
  private generation = 0;

  constructor(id: string) {
    this.id = id;
    this.state = new StateBlock(id, 1, powerOn, {
      status: 255,
      error: 255,
      control: 255,
      command: 255,
      registers: 255,
      previous: 255,
      position: BUFFER,
      length: BUFFER,
      multiple: 16,
      dmaMode: 255,
      heads: 16,
      sectors: 255,
      senseKey: 15,
      senseCode: 255,
      senseQualifier: 255,
    });
  }

  /** Carries out a command; every path ends in `finished`, `failed` or a transfer. */
  protected abstract execute(command: number): void;
  /** Leaves in the registers what tells the kind of device (ATA/ATAPI-7 volume 2, 9.12). */
  protected abstract putSignature(): void;

  // --- What the channel does.

  get status(): number {
    return this.state.value.status;
  }

  /** A DMA command waits for its bus master. */
  get dmaWaits(): boolean {
    return this.transfer !== null && this.transfer.dma;
  }

  /** Power-on, hardware and software reset. @param hard settings go back to their defaults, too */
  reset(hard: boolean): void {
    const s = this.state.value;
    this.abandon();
    if (hard) this.state.reset();
    s.control &= ~CONTROL_HOB;
    this.host?.setInterrupt(false);
    s.error = 1;
    this.putSignature();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  /** A command that was on its way is reported as aborted: drivers repeat it. */
  loadState(state: DeviceState): void {
    this.state.load(state);
    this.abandon();
    const s = this.state.value;
    if ((s.status & (STATUS.busy | STATUS.request)) === 0) return;
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.error;
    s.error = ERROR.abort;
  }

  readRegister(index: number): number {
    const s = this.state.value;
    if (index === REGISTER.features) return s.error;
    if (index === REGISTER.device) return s.registers[REGISTER.device]!;
    return (s.control & CONTROL_HOB) !== 0 ? s.previous[index]! : s.registers[index]!;
  }

  writeRegister(index: number, value: number): void {
    const s = this.state.value;
    s.control &= ~CONTROL_HOB;
    if (index === REGISTER.device) {
      s.registers[index] = value;
      return;
    }
    s.previous[index] = s.registers[index]!;
    s.registers[index] = value;
  }

  writeControl(value: number): void {
    this.state.value.control = value & 0xff;
  }

  start(command: number): void {
    const s = this.state.value;
    this.abandon();
    s.control &= ~CONTROL_HOB;
    s.command = command;
    s.error = 0;
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.busy;
    this.host?.setInterrupt(false);
    this.execute(command);
  }

  /** A read of the data port. @param size 2 or 4 (1 where software does so) */
  readData(size: number): number {
    const s = this.state.value;
    if ((s.status & STATUS.request) === 0 || this.dmaWaits) return 0;
    const { buffer, position } = s;
    const count = Math.min(size, s.length - position);
    let value = 0;
    for (let i = 0; i < count; i++) value |= buffer[position + i]! << (8 * i);
    this.pioAdvance(count);
    return value >>> 0;
  }

  writeData(size: number, value: number): void {
    const s = this.state.value;
    if ((s.status & STATUS.request) === 0 || this.dmaWaits) return;
    const { buffer, position } = s;
    const count = Math.min(size, s.length - position);
    for (let i = 0; i < count; i++) buffer[position + i] = value >>> (8 * i);
    this.pioAdvance(count);
  }

  /** The bytes of the current DRQ block that are left; empty outside PIO transfers. */
  get pioData(): Uint8Array {
    const s = this.state.value;
    if ((s.status & STATUS.request) === 0 || this.dmaWaits) return s.buffer.subarray(0, 0);
    return s.buffer.subarray(s.position, s.length);
  }

  /** So many bytes of `pioData` have been read or filled in. */
  pioAdvance(bytes: number): void {
    const s = this.state.value;
    s.position += bytes;
    if (s.position < s.length || this.transfer === null) return;
    if (this.transfer.direction === 'out') this.blockFilled();
    else this.blockTaken();
  }

  /** Carries out the DMA command that waits. */
  runDma(port: DmaPort): void {
    const { transfer } = this;
    if (transfer === null || !transfer.dma) return;
    transfer.dma = false;
    const s = this.state.value;
    s.status = (s.status & ~STATUS.request) | STATUS.busy;
    this.dmaStep(transfer, port);
  }

  // --- What commands use.

  /** Sets the status that a command which has nothing (more) to do ends with. */
  protected finished(): void {
    const s = this.state.value;
    this.transfer = null;
    s.status = STATUS.ready | STATUS.seekComplete;
    this.host?.setInterrupt(true);
  }

  /** @param error bits of the error register */
  protected failed(error: number): void {
    const s = this.state.value;
    this.transfer = null;
    s.error = error;
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.error;
    this.host?.setInterrupt(true);
  }

  /** What is not (yet) over when the device is reset or given a new command never ends. */
  protected run(operation: () => Completion, then: () => void, fail: () => void): void {
    const { generation } = this;
    settle(operation, (error) => {
      if (generation !== this.generation) return;
      if (error === null) then();
      else fail();
    });
  }

  /** PIO data to the host. @param fail called when a block cannot be produced, with its place */
  protected pioIn(total: number, block: number, produce: Producer, finish: () => void): void {
    this.transfer = {
      direction: 'in',
      dma: false,
      total,
      at: 0,
      block,
      produce,
      consume: null,
      finish,
    };
    this.nextBlock(this.transfer);
  }

  /** PIO data from the host. @param announce whether the first block, too, has an interrupt */
  protected pioOut(total: number, block: number, announce: boolean, consume: Consumer, finish: () => void): void {
    const transfer: Transfer = {
      direction: 'out',
      dma: false,
      total,
      at: 0,
      block,
      produce: null,
      consume,
      finish,
    };
    this.transfer = transfer;
    this.requestBlock(transfer, announce);
  }

  protected dmaIn(total: number, produce: Producer, finish: () => void): void {
    this.transfer = {
      direction: 'in',
      dma: true,
      total,
      at: 0,
      block: BUFFER,
      produce,
      consume: null,
      finish,
    };
    this.requestDma();
  }

  protected dmaOut(total: number, consume: Consumer, finish: () => void): void {
    this.transfer = {
      direction: 'out',
      dma: true,
      total,
      at: 0,
      block: BUFFER,
      produce: null,
      consume,
      finish,
    };
    this.requestDma();
  }

  /** The backend refused; `at` bytes of the transfer had gone well. */
  protected abstract transferFailed(at: number): void;
  /** A DRQ block is about to be announced: the time to set registers. */
  protected blockReady(_length: number): void {
    // Disks have nothing to add.
  }

  protected get header(): number {
    return this.state.value.registers[REGISTER.device]! & DEVICE_HEAD;
  }

  private abandon(): void {
    this.generation++;
    this.transfer = null;
    const s = this.state.value;
    s.position = 0;
    s.length = 0;
  }

  private requestDma(): void {
    const s = this.state.value;
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.request;
    this.host?.dmaRequested();
  }

  private nextBlock(transfer: Transfer): void {
    const s = this.state.value;
    const length = Math.min(transfer.block, transfer.total - transfer.at, BUFFER);
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.busy;
    const into = s.buffer.subarray(0, length);
    this.run(
      () => transfer.produce!(into, transfer.at),
      () => {
        s.position = 0;
        s.length = length;
        this.blockReady(length);
        s.status = STATUS.ready | STATUS.seekComplete | STATUS.request;
        this.host?.setInterrupt(true);
      },
      () => this.transferFailed(transfer.at),
    );
  }

  private blockTaken(): void {
    const transfer = this.transfer!;
    const s = this.state.value;
    transfer.at += s.length;
    s.position = s.length = 0;
    if (transfer.at < transfer.total) return this.nextBlock(transfer);
    s.status &= ~STATUS.request;
    this.transfer = null;
    transfer.finish();
  }

  private requestBlock(transfer: Transfer, announce: boolean): void {
    const s = this.state.value;
    s.position = 0;
    s.length = Math.min(transfer.block, transfer.total - transfer.at, BUFFER);
    this.blockReady(s.length);
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.request;
    if (announce) this.host?.setInterrupt(true);
  }

  private blockFilled(): void {
    const transfer = this.transfer!;
    const s = this.state.value;
    const { length } = s;
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.busy;
    s.position = s.length = 0;
    this.run(
      () => transfer.consume!(s.buffer.subarray(0, length), transfer.at),
      () => {
        transfer.at += length;
        if (transfer.at < transfer.total) this.requestBlock(transfer, true);
        else transfer.finish();
      },
      () => this.transferFailed(transfer.at),
    );
  }

  /** Moves one piece after the other, without recursion while the backend answers at once. */
  private dmaStep(transfer: Transfer, port: DmaPort): void {
    let again = true;
    let running = false;
    const step = (): void => {
      again = true;
      if (running) return;
      running = true;
      while (again) {
        again = false;
        this.dmaPiece(transfer, port, step);
      }
      running = false;
    };
    step();
  }

  private dmaPiece(transfer: Transfer, port: DmaPort, next: () => void): void {
    const length = Math.min(BUFFER, transfer.total - transfer.at);
    if (length === 0) {
      transfer.finish();
      return port.done();
    }
    const piece = this.state.value.buffer.subarray(0, length);
    const fail = (): void => {
      this.transferFailed(transfer.at);
      port.done();
    };
    if (transfer.direction === 'in') {
      this.run(
        () => transfer.produce!(piece, transfer.at),
        () => {
          const moved = port.toMemory(piece);
          transfer.at += moved;
          if (moved === length) next();
        },
        fail,
      );
      return;
    }
    const moved = port.fromMemory(piece);
    // Buffers that are too short leave the command hanging, as on the real thing.
    if (moved < length) return;
    this.run(
      () => transfer.consume!(piece, transfer.at),
      () => {
        transfer.at += length;
        next();
      },
      fail,
    );
  }
}

function powerOn() {
  return {
    status: STATUS.ready | (STATUS.seekComplete as number),
    error: 1,
    control: 0,
    command: 0,
    /** Registers 1 to 6 as last written, and the values they had before that (for 48-bit commands). */
    registers: new Uint8Array(8),
    previous: new Uint8Array(8),
    buffer: new Uint8Array(BUFFER),
    /** What part of the buffer the host still has to move. */
    position: 0,
    length: 0,
    /** Sectors of a DRQ block of the MULTIPLE commands. */
    multiple: 16,
    /** Transfer mode chosen by SET FEATURES, as its count register gave it. */
    dmaMode: 0x45,
    writeCache: true,
    /** Geometry set by INITIALIZE DEVICE PARAMETERS; zeros for the disk's own. */
    heads: 0,
    sectors: 0,
    /** ATAPI: sense data of the last command (key, code, qualifier), and what waits to be told. */
    senseKey: 0,
    senseCode: 0,
    senseQualifier: 0,
    mediumChanged: false,
    trayOpen: false,
    trayLocked: false,
    newMedium: false,
  };
}

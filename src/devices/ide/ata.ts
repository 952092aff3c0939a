/**
 * What every ATA device has, whatever it is attached to: the task file, the data that is on its way
 * by PIO or DMA, and the protocols of ATA/ATAPI-7 (T13/1532D), volume 2, clause 9.
 */
import type { BlockBackend, Completion, DeviceState } from '../../machine/interfaces.ts';
import { settle } from '../block.ts';
import { PieceList } from '../pieces.ts';
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
/** Most bytes that go between medium and memory at a time, and what they come in. */
const PART = 1 << 20;
const UNIT = 512;

/** What a device tells whatever it is attached to. */
export interface AtaHost {
  /** The device's interrupt request. */
  setInterrupt(level: boolean): void;
  /** A DMA command waits to be carried out by `AtaDevice.runDma`. */
  dmaRequested(): void;
}

/** The guest's buffers for a DMA transfer, as a bus master offers them: each call goes on where the last one ended. */
export interface DmaPort {
  /** @returns bytes that found room in the guest's buffers */
  toMemory(bytes: Uint8Array): number;
  /** @returns bytes that the guest's buffers had */
  fromMemory(into: Uint8Array): number;
  /**
   * Finds out where the next bytes of the buffers lie, as far as that is plain memory.
   * @param most bytes  @param unit that they come in  @returns bytes; 0 where the other two are needed
   */
  places(into: PieceList, most: number, unit: number): number;
  /** There may be other bytes in such places now. */
  changed(places: PieceList): void;
  /** So many bytes in such places have been read or written. */
  moved(bytes: number): void;
  /** The transfer is over. */
  done(): void;
}

/** Directions of a transfer, seen from the host. */
export const DIRECTION = { none: 0, in: 1, out: 2 } as const;

/** Data that is on its way. */
const noTransfer = () => ({
  direction: DIRECTION.none as number,
  /** It waits for the bus master. */
  dma: false,
  /** Bytes in all, and how many of them have been produced or consumed. */
  total: 0,
  at: 0,
  /** Bytes of a DRQ block, each of which is announced by an interrupt. */
  block: 0,
  /** What the data is, by a number of the device's own, and the sectors that it comes from or goes to. */
  job: 0,
  lba: 0,
  count: 0,
});

/** What has been asked of the medium, and has not been answered. */
const REQUEST = { none: 0, blockIn: 1, blockOut: 2, dma: 3, flush: 4 } as const;

/** Bytes of answers that are not on the medium. */
const ANSWER = 1024;

export abstract class AtaDevice {
  readonly id: string;
  host: AtaHost | null = null;

  protected readonly state: StateBlock<ReturnType<typeof powerOn>>;
  /** Counts resets and commands: what an earlier one started is void. */
  private generation = 0;
  /** Where in memory the piece lies that is under way between there and the medium. */
  private places = new PieceList();

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
      request: REQUEST.flush,
      limit: 0xffff,
    });
  }

  /** Carries out a command; every path ends in `finished`, `failed` or a transfer. */
  protected abstract execute(command: number): void;
  /** Leaves in the registers what tells the kind of device (ATA/ATAPI-7 volume 2, 9.12). */
  protected abstract putSignature(): void;
  /** Bytes of the transfer under way: called for one piece of it. */
  protected abstract produce(into: Uint8Array, at: number): Completion;
  protected abstract consume(from: Uint8Array, at: number): Completion;
  /** Where a job's data comes from or goes to, when that is a medium; and where on it the transfer begins, in bytes. */
  protected abstract mediumOf(job: number): BlockBackend | null;
  protected abstract get mediumStart(): number;
  /** All bytes of the transfer have been moved. @param job see `noTransfer` */
  protected abstract transferred(job: number): void;
  /** What has been written is safe. */
  protected abstract flushed(): Completion;

  // --- What the channel does.

  get status(): number {
    return this.state.value.status;
  }

  /** A DMA command waits for its bus master. */
  get dmaWaits(): boolean {
    return this.state.value.transfer.dma;
  }

  /** Bytes of the transfer under way that have been moved already. */
  get transferAt(): number {
    return this.state.value.transfer.at;
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

  loadState(state: DeviceState): void {
    this.state.load(state);
    this.generation++;
    const { transfer, position, length } = this.state.value;
    const { direction, total, at, block, lba, count } = transfer;
    const whole = [direction, total, at, block, lba, count].every((value) => Number.isSafeInteger(value) && value >= 0);
    if (!whole || direction > DIRECTION.out || at > total || position > length || (direction !== 0 && block === 0)) {
      throw new Error(`${this.id}: field "transfer" is no transfer`);
    }
  }

  /** What the medium had not answered when the state was saved is asked again. */
  afterLoad(): void {
    switch (this.state.value.request) {
      case REQUEST.blockIn:
        return this.nextBlock();
      case REQUEST.blockOut:
        return this.takeBlock();
      case REQUEST.dma:
        return this.requestDma();
      case REQUEST.flush:
        return this.flushThen();
    }
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
    if (s.position < s.length || s.transfer.direction === DIRECTION.none) return;
    if (s.transfer.direction === DIRECTION.out) this.blockFilled();
    else this.blockTaken();
  }

  /** Carries out the DMA command that waits. */
  runDma(port: DmaPort): void {
    const s = this.state.value;
    if (!s.transfer.dma) return;
    s.transfer.dma = false;
    s.status = (s.status & ~STATUS.request) | STATUS.busy;
    this.dmaStep(port);
  }

  // --- What commands use.

  /** Sets the status that a command which has nothing (more) to do ends with. */
  protected finished(): void {
    const s = this.state.value;
    Object.assign(s.transfer, noTransfer());
    s.status = STATUS.ready | STATUS.seekComplete;
    this.host?.setInterrupt(true);
  }

  /** @param error bits of the error register */
  protected failed(error: number): void {
    const s = this.state.value;
    Object.assign(s.transfer, noTransfer());
    s.error = error;
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.error;
    this.host?.setInterrupt(true);
  }

  /**
   * What is not (yet) over when the device is reset or given a new command never ends.
   * @param request see `REQUEST`  @param over is called in any case
   */
  private ask(request: number, operation: () => Completion, then: () => void, fail: () => void, over?: () => void): void {
    const { generation } = this;
    const s = this.state.value;
    s.request = request;
    settle(operation, (error) => {
      over?.();
      if (generation !== this.generation) return;
      s.request = REQUEST.none;
      if (error === null) then();
      else fail();
    });
  }

  /** Makes what has been written safe; the command ends with it. */
  protected flushThen(): void {
    this.ask(
      REQUEST.flush,
      () => this.flushed(),
      () => this.flushEnded(),
      () => this.failed(ERROR.abort),
    );
  }

  protected flushEnded(): void {
    this.finished();
  }

  private begin(direction: number, dma: boolean, total: number, block: number, job: number, lba: number, count: number): void {
    Object.assign(this.state.value.transfer, { direction, dma, total, at: 0, block, job, lba, count });
  }

  /** PIO data to the host, of a job that `produce` knows. */
  protected pioIn(job: number, total: number, block: number, lba = 0, count = 0): void {
    this.begin(DIRECTION.in, false, total, block, job, lba, count);
    this.nextBlock();
  }

  /** PIO data from the host. The first block is asked for without an interrupt. */
  protected pioOut(job: number, total: number, block: number, lba = 0, count = 0): void {
    this.begin(DIRECTION.out, false, total, block, job, lba, count);
    this.requestBlock(false);
  }

  protected dmaIn(job: number, total: number, lba = 0, count = 0): void {
    this.begin(DIRECTION.in, true, total, BUFFER, job, lba, count);
    this.requestDma();
  }

  protected dmaOut(job: number, total: number, lba = 0, count = 0): void {
    this.begin(DIRECTION.out, true, total, BUFFER, job, lba, count);
    this.requestDma();
  }

  /** Keeps an answer until it has been moved. */
  protected keepAnswer(data: Uint8Array): void {
    this.state.value.answer.set(data);
  }

  protected produceAnswer(into: Uint8Array, at: number): void {
    into.set(this.state.value.answer.subarray(at, at + into.length));
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
    const s = this.state.value;
    // The medium may still be at it.
    if (s.request === REQUEST.dma) this.places = new PieceList();
    Object.assign(s.transfer, noTransfer());
    s.request = REQUEST.none;
    s.position = 0;
    s.length = 0;
  }

  private requestDma(): void {
    const s = this.state.value;
    s.transfer.dma = true;
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.request;
    this.host?.dmaRequested();
  }

  /** Bytes of the piece that comes next. */
  private get pieceLength(): number {
    const { block, total, at } = this.state.value.transfer;
    return Math.min(block, total - at, BUFFER);
  }

  private nextBlock(): void {
    const s = this.state.value;
    const length = this.pieceLength;
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.busy;
    const into = s.buffer.subarray(0, length);
    this.ask(
      REQUEST.blockIn,
      () => this.produce(into, s.transfer.at),
      () => {
        s.position = 0;
        s.length = length;
        this.blockReady(length);
        s.status = STATUS.ready | STATUS.seekComplete | STATUS.request;
        this.host?.setInterrupt(true);
      },
      () => this.transferFailed(s.transfer.at),
    );
  }

  private blockTaken(): void {
    const s = this.state.value;
    const { transfer } = s;
    transfer.at += s.length;
    s.position = s.length = 0;
    if (transfer.at < transfer.total) return this.nextBlock();
    s.status &= ~STATUS.request;
    this.end();
  }

  private end(): void {
    const { transfer } = this.state.value;
    const { job } = transfer;
    transfer.direction = DIRECTION.none;
    this.transferred(job);
  }

  private requestBlock(announce: boolean): void {
    const s = this.state.value;
    s.position = 0;
    s.length = this.pieceLength;
    this.blockReady(s.length);
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.request;
    if (announce) this.host?.setInterrupt(true);
  }

  private blockFilled(): void {
    const s = this.state.value;
    s.status = STATUS.ready | STATUS.seekComplete | STATUS.busy;
    s.position = s.length = 0;
    this.takeBlock();
  }

  /** The block in the buffer is consumed. */
  private takeBlock(): void {
    const s = this.state.value;
    const { transfer } = s;
    const length = this.pieceLength;
    this.ask(
      REQUEST.blockOut,
      () => this.consume(s.buffer.subarray(0, length), transfer.at),
      () => {
        transfer.at += length;
        if (transfer.at < transfer.total) this.requestBlock(true);
        else this.end();
      },
      () => this.transferFailed(transfer.at),
    );
  }

  /** Moves one piece after the other, without recursion while the backend answers at once. */
  private dmaStep(port: DmaPort): void {
    let again = true;
    let running = false;
    const step = (): void => {
      again = true;
      if (running) return;
      running = true;
      while (again) {
        again = false;
        this.dmaPiece(port, step);
      }
      running = false;
    };
    step();
  }

  private dmaPiece(port: DmaPort, next: () => void): void {
    const { total, at, job } = this.state.value.transfer;
    if (at === total) {
      this.end();
      return port.done();
    }
    const fail = (): void => {
      this.transferFailed(at);
      port.done();
    };
    const medium = this.mediumOf(job);
    if (medium !== null && port.places(this.places, Math.min(PART, total - at), UNIT) > 0) {
      this.dmaInPlace(medium, port, next, fail);
    } else this.dmaByBuffer(port, next, fail);
  }

  private dmaInPlace(medium: BlockBackend, port: DmaPort, next: () => void, fail: () => void): void {
    const { places } = this;
    const { transfer } = this.state.value;
    const reading = transfer.direction === DIRECTION.in;
    const offset = this.mediumStart + transfer.at;
    this.ask(
      REQUEST.dma,
      () => (reading ? places.readFrom(medium, offset) : writePlaces(medium, offset, places)),
      () => {
        transfer.at += places.total;
        port.moved(places.total);
        next();
      },
      fail,
      reading ? () => port.changed(places) : undefined,
    );
  }

  private dmaByBuffer(port: DmaPort, next: () => void, fail: () => void): void {
    const s = this.state.value;
    const { transfer } = s;
    const length = this.pieceLength;
    const piece = s.buffer.subarray(0, length);
    if (transfer.direction === DIRECTION.in) {
      this.ask(
        REQUEST.dma,
        () => this.produce(piece, transfer.at),
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
    this.ask(
      REQUEST.dma,
      () => this.consume(piece, transfer.at),
      () => {
        transfer.at += length;
        next();
      },
      fail,
    );
  }
}

function writePlaces(medium: BlockBackend, offset: number, places: PieceList): Completion {
  if (medium.readOnly) throw new Error('the disk is read-only');
  return places.writeTo(medium, offset);
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
    transfer: noTransfer(),
    request: REQUEST.none as number,
    /** What is told the host that is not on the medium. */
    answer: new Uint8Array(ANSWER),
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
    /** The packet that is carried out, and the most bytes of a block of its data. */
    packet: new Uint8Array(12),
    limit: 0,
  };
}

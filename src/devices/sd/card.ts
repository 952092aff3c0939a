/** An SD memory card: SD Specifications Part 1, Physical Layer Simplified Specification 3.01. */
import type { BlockBackend, Completion, Device, DeviceState } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import {
  cardIdentification,
  cardSpecificData,
  configuration,
  isHighCapacity,
  SD_STATUS_LENGTH,
  switchStatus,
} from './card-registers.ts';

export const SECTOR = 512;

/** States (table 4-1), as the card's status names them. */
const STATE = {
  idle: 0,
  ready: 1,
  identification: 2,
  standBy: 3,
  transfer: 4,
  sending: 5,
  receiving: 6,
  programming: 7,
  disconnected: 8,
} as const;
const INACTIVE = 15;

/** Card status (4.10.1): errors are shown once. */
const STATUS = {
  outOfRange: 0x80000000,
  addressError: 1 << 30,
  blockLengthError: 1 << 29,
  eraseSequenceError: 1 << 28,
  eraseParameter: 1 << 27,
  writeProtected: 1 << 26,
  illegalCommand: 1 << 22,
  error: 1 << 19,
  readyForData: 1 << 8,
  applicationCommand: 1 << 5,
} as const;
const STATE_SHIFT = 9;
/** Operating conditions (5.1): power-up is over, capacity, 2.7 to 3.6 V. */
const CONDITIONS = { ready: 0x80000000, highCapacity: 1 << 30, voltages: 0x00ff8000 } as const;

const COMMAND = {
  goIdle: 0,
  allSendIdentification: 2,
  sendAddress: 3,
  setDriverStage: 4,
  switchFunction: 6,
  select: 7,
  interfaceCondition: 8,
  sendSpecificData: 9,
  sendIdentification: 10,
  stop: 12,
  sendStatus: 13,
  goInactive: 15,
  setBlockLength: 16,
  readOne: 17,
  readMany: 18,
  setBlockCount: 23,
  writeOne: 24,
  writeMany: 25,
  eraseFirst: 32,
  eraseLast: 33,
  erase: 38,
  application: 55,
} as const;
const APPLICATION = {
  setBusWidth: 6,
  sendStatus: 13,
  sendWritten: 22,
  setPreErase: 23,
  conditions: 41,
  cardDetect: 42,
  sendConfiguration: 51,
} as const;

/** What a command is answered with: nothing, 32 bits, or 120 bits of a register. */
export type SdResponse =
  | { readonly kind: 'none' }
  | { readonly kind: 'short'; readonly value: number }
  | { readonly kind: 'long'; readonly bytes: Uint8Array };

const NONE: SdResponse = { kind: 'none' };
const short = (value: number): SdResponse => ({ kind: 'short', value: value >>> 0 });
const long = (bytes: Uint8Array): SdResponse => ({ kind: 'long', bytes });
/** Where data come from or go to. */
const SOURCE = { nothing: 0, medium: 1, register: 2 } as const;

const powerOn = () => ({
  state: STATE.idle as number,
  address: 0,
  /** Of the status: errors that have not been shown yet. */
  errors: 0,
  applicationNext: false,
  blockLength: SECTOR,
  source: SOURCE.nothing as number,
  /** Bytes on the medium, or in `register`. */
  position: 0,
  /** Blocks that are left of what `setBlockCount` said; 0 when nothing was said. */
  announced: 0,
  register: new Uint8Array(SD_STATUS_LENGTH),
  registerLength: 0,
  eraseFirst: -1,
  eraseLast: -1,
  written: 0,
  busWidth: 0,
  highSpeed: false,
  /** Half of a sector that is read, or that waits for the rest before it is written. */
  sector: new Uint8Array(SECTOR),
  /** The driver knows cards of high capacity. */
  known: false,
});

export type SdCardOptions = { id: string; backend: BlockBackend; readOnly: boolean };

export class SdCard implements Device {
  readonly type = 'sd-card';
  readonly id: string;
  private readonly backend: BlockBackend;
  private readonly readOnlyMedium: boolean;
  private readonly highCapacity: boolean;
  private readonly state: StateBlock<ReturnType<typeof powerOn>>;

  /** @throws Error when no card has such a size */
  constructor({ id, backend, readOnly }: SdCardOptions) {
    const { size } = backend;
    if (size < SECTOR * 512 || !Number.isInteger(Math.log2(size))) {
      throw new Error(`Invalid SD card size: ${size / 2 ** 20} MiB; SD card size has to be a power of 2, e.g. 128 MiB`);
    }
    this.id = id;
    this.backend = backend;
    this.readOnlyMedium = readOnly || backend.readOnly;
    this.highCapacity = isHighCapacity(size);
    this.state = new StateBlock(id, 1, powerOn, { state: 15, address: 0xffff, source: 2, registerLength: SD_STATUS_LENGTH });
  }

  get writeProtected(): boolean {
    return this.readOnlyMedium;
  }

  reset(): void {
    this.state.reset();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
  }

  /** Carries out a command. @returns what answers it; nothing for a command that is not for the card, or not now */
  command(index: number, argument: number): SdResponse {
    const { value } = this.state;
    const application = value.applicationNext;
    value.applicationNext = false;
    if (value.state === INACTIVE) return NONE;
    const answer = application
      ? (this.applicationCommand(index, argument) ?? this.basic(index, argument))
      : this.basic(index, argument);
    if (answer !== null) return answer;
    value.errors |= STATUS.illegalCommand;
    return NONE;
  }

  /** The card sends data. */
  get sends(): boolean {
    return this.state.value.state === STATE.sending;
  }

  /** The card takes data. */
  get takes(): boolean {
    return this.state.value.state === STATE.receiving;
  }

  /** Reads on from where the last read ended. @param into any number of bytes; what lies behind the end stays as it is */
  read(into: Uint8Array): Completion {
    const { value } = this.state;
    if (value.source === SOURCE.register) {
      const part = value.register.subarray(value.position, value.registerLength);
      into.set(part.subarray(0, into.length));
      value.position += into.length;
      if (value.position >= value.registerLength) this.endData();
      return undefined;
    }
    return this.transfer(into, false);
  }

  write(from: Uint8Array): Completion {
    return this.transfer(from, true);
  }

  /** So many blocks have been moved: a command for one block is over, and one for as many as were announced. */
  blocksMoved(count: number, multiple: boolean): void {
    const { value } = this.state;
    value.written += this.takes ? count : 0;
    if (!multiple) return this.endData();
    if (value.announced === 0) return;
    value.announced = Math.max(0, value.announced - count);
    if (value.announced === 0) this.endData();
  }

  private transfer(data: Uint8Array, writes: boolean): Completion {
    for (let done = 0; done < data.length; ) {
      const part = this.step(data.subarray(done), writes);
      if (part === null) return undefined;
      done += part.length;
      if (part.running === undefined) continue;
      const rest = data.subarray(done);
      return part.running.then(() => this.transfer(rest, writes));
    }
    return undefined;
  }

  /** Moves whole sectors, or a part of one. @returns null at the medium's end */
  private step(data: Uint8Array, writes: boolean): { length: number; running: Completion } | null {
    const { value } = this.state;
    const { position, sector } = value;
    if (position >= this.backend.size) {
      value.errors |= STATUS.outOfRange;
      return null;
    }
    const within = position % SECTOR;
    const whole = Math.min(data.length - (data.length % SECTOR), this.backend.size - position);
    if (within === 0 && whole > 0) {
      value.position += whole;
      const part = data.subarray(0, whole);
      return {
        length: whole,
        running: this.guard(writes, () => (writes ? this.backend.write(position, part) : this.backend.read(position, part))),
      };
    }
    const length = Math.min(data.length, SECTOR - within);
    value.position += length;
    const start = position - within;
    if (writes) {
      sector.set(data.subarray(0, length), within);
      const full = within + length === SECTOR;
      return { length, running: full ? this.guard(true, () => this.backend.write(start, sector)) : undefined };
    }
    const give = (): void => data.set(sector.subarray(within, within + length));
    if (within > 0) {
      give();
      return { length, running: undefined };
    }
    const running = this.guard(false, () => this.backend.read(start, sector));
    if (running === undefined) give();
    return { length, running: running?.then(give) };
  }

  /** A medium that fails is an error of the card's. */
  private guard(writes: boolean, operation: () => Completion): Completion {
    const fail = (): void => {
      this.state.value.errors |= STATUS.error;
    };
    if (writes && this.writeProtected) {
      this.state.value.errors |= STATUS.writeProtected;
      return undefined;
    }
    try {
      return operation()?.catch(fail);
    } catch {
      return fail();
    }
  }

  private endData(): void {
    const { value } = this.state;
    value.state = STATE.transfer;
    value.source = SOURCE.nothing;
  }

  // --- Commands.

  private basic(index: number, argument: number): SdResponse | null {
    const { value } = this.state;
    const mine = argument >>> 16 === value.address;
    switch (index) {
      case COMMAND.goIdle:
        this.state.reset();
        return NONE;
      case COMMAND.allSendIdentification:
        if (value.state !== STATE.ready) return null;
        value.state = STATE.identification;
        return long(cardIdentification());
      case COMMAND.sendAddress:
        if (value.state !== STATE.identification && value.state !== STATE.standBy) return null;
        value.address = (value.address + 0x4567) & 0xffff || 1;
        return this.addressed();
      case COMMAND.setDriverStage:
        return NONE;
      case COMMAND.select:
        return this.select(mine);
      case COMMAND.interfaceCondition:
        // 2.7 to 3.6 V, and the pattern comes back.
        return value.state === STATE.idle && ((argument >> 8) & 15) === 1 ? short(argument & 0xfff) : NONE;
      case COMMAND.sendSpecificData:
        return value.state === STATE.standBy && mine
          ? long(cardSpecificData(this.backend.size, value.highSpeed, this.writeProtected))
          : null;
      case COMMAND.sendIdentification:
        return value.state === STATE.standBy && mine ? long(cardIdentification()) : null;
      case COMMAND.sendStatus:
        return mine ? this.status() : NONE;
      case COMMAND.goInactive:
        if (mine) value.state = INACTIVE;
        return NONE;
      case COMMAND.application:
        if (value.state !== STATE.idle && !mine) return NONE;
        value.applicationNext = true;
        return this.status();
      case COMMAND.stop:
        return this.stop();
      default:
        return value.state === STATE.transfer ? this.inTransfer(index, argument) : null;
    }
  }

  private inTransfer(index: number, argument: number): SdResponse | null {
    const { value } = this.state;
    switch (index) {
      case COMMAND.switchFunction: {
        const { bytes, highSpeed } = switchStatus(argument, value.highSpeed);
        value.highSpeed = highSpeed;
        return this.sendRegister(bytes);
      }
      case COMMAND.setBlockLength:
        if (argument > SECTOR) value.errors |= STATUS.blockLengthError;
        else if (!this.highCapacity) value.blockLength = argument;
        return this.status();
      case COMMAND.setBlockCount:
        value.announced = argument;
        return this.status();
      case COMMAND.readOne:
      case COMMAND.readMany:
        return this.begin(argument, STATE.sending);
      case COMMAND.writeOne:
      case COMMAND.writeMany:
        if (this.writeProtected) value.errors |= STATUS.writeProtected;
        value.written = 0;
        return this.begin(argument, STATE.receiving);
      case COMMAND.eraseFirst:
        value.eraseFirst = this.placeOf(argument);
        return this.status();
      case COMMAND.eraseLast:
        if (value.eraseFirst < 0) value.errors |= STATUS.eraseSequenceError;
        value.eraseLast = this.placeOf(argument);
        return this.status();
      case COMMAND.erase:
        return this.erase();
      default:
        return null;
    }
  }

  /** @returns null for what is an ordinary command, too */
  private applicationCommand(index: number, argument: number): SdResponse | null {
    const { value } = this.state;
    if (index === APPLICATION.conditions) return this.conditions(argument);
    if (value.state !== STATE.transfer) return null;
    switch (index) {
      case APPLICATION.setBusWidth:
        value.busWidth = argument & 3;
        return this.status(true);
      case APPLICATION.sendStatus: {
        const bytes = new Uint8Array(SD_STATUS_LENGTH);
        bytes[0] = value.busWidth << 6;
        return this.sendRegister(bytes, true);
      }
      case APPLICATION.sendWritten: {
        const bytes = new Uint8Array(4);
        new DataView(bytes.buffer).setUint32(0, value.written);
        return this.sendRegister(bytes, true);
      }
      case APPLICATION.setPreErase:
      case APPLICATION.cardDetect:
        return this.status(true);
      case APPLICATION.sendConfiguration:
        return this.sendRegister(configuration(this.highCapacity), true);
      default:
        return null;
    }
  }

  /** Initialization (4.2.3): the driver says what it knows, and asks until the card is ready, which it is at once. */
  private conditions(argument: number): SdResponse | null {
    const { value } = this.state;
    if (value.state !== STATE.idle) return null;
    const capacity = this.highCapacity ? CONDITIONS.highCapacity : 0;
    if ((argument & CONDITIONS.voltages) === 0) return short(CONDITIONS.voltages);
    value.known = (argument & CONDITIONS.highCapacity) !== 0;
    // A card of high capacity is never ready for a driver that does not know such.
    if (this.highCapacity && !value.known) return short(CONDITIONS.voltages);
    value.state = STATE.ready;
    return short(CONDITIONS.ready | CONDITIONS.voltages | capacity);
  }

  /** R6: the new address, and some bits of the status. */
  private addressed(): SdResponse {
    const { value } = this.state;
    const status = this.statusBits(false);
    value.state = STATE.standBy;
    const bits = ((status >>> 8) & 0xc000) | ((status >>> 6) & 0x2000) | (status & 0x1fff);
    return short((value.address << 16) | bits);
  }

  private select(mine: boolean): SdResponse | null {
    const { value } = this.state;
    if (value.state < STATE.standBy) return null;
    if (!mine) {
      value.state = STATE.standBy;
      value.source = SOURCE.nothing;
      return NONE;
    }
    if (value.state !== STATE.standBy) return null;
    const answer = this.status();
    value.state = STATE.transfer;
    return answer;
  }

  private stop(): SdResponse | null {
    const { value } = this.state;
    if (value.state !== STATE.sending && value.state !== STATE.receiving) return null;
    const answer = this.status();
    value.announced = 0;
    this.endData();
    return answer;
  }

  private begin(argument: number, state: number): SdResponse {
    const { value } = this.state;
    const place = this.placeOf(argument);
    if (place >= this.backend.size) {
      value.errors |= STATUS.outOfRange;
      value.announced = 0;
      return this.status();
    }
    if (state === STATE.receiving && place % SECTOR !== 0) {
      value.errors |= STATUS.addressError;
      return this.status();
    }
    const answer = this.status();
    value.state = state;
    value.source = SOURCE.medium;
    value.position = place;
    return answer;
  }

  private sendRegister(bytes: Uint8Array, application = false): SdResponse {
    const { value } = this.state;
    const answer = this.status(application);
    value.state = STATE.sending;
    value.source = SOURCE.register;
    value.register.set(bytes);
    value.registerLength = bytes.length;
    value.position = 0;
    return answer;
  }

  private erase(): SdResponse {
    const { value } = this.state;
    const { eraseFirst, eraseLast } = value;
    value.eraseFirst = -1;
    value.eraseLast = -1;
    if (eraseFirst < 0 || eraseLast < 0) value.errors |= STATUS.eraseSequenceError;
    else if (eraseLast < eraseFirst || eraseLast >= this.backend.size) value.errors |= STATUS.eraseParameter;
    else {
      // Whole sectors; what they hold then is anything.
      const start = eraseFirst - (eraseFirst % SECTOR);
      const length = eraseLast - (eraseLast % SECTOR) + SECTOR - start;
      void this.guard(true, () => this.backend.discard(start, length));
    }
    return this.status();
  }

  /** Cards of high capacity are addressed by sectors, others by bytes. */
  private placeOf(argument: number): number {
    return (argument >>> 0) * (this.highCapacity ? SECTOR : 1);
  }

  private status(application = this.state.value.applicationNext): SdResponse {
    return short(this.statusBits(application));
  }

  private statusBits(application: boolean): number {
    const { value } = this.state;
    const { errors } = value;
    value.errors = 0;
    const ready = value.state === STATE.transfer ? STATUS.readyForData : 0;
    return (errors | ready | (value.state << STATE_SHIFT) | (application ? STATUS.applicationCommand : 0)) >>> 0;
  }
}

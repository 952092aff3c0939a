/** Floppy disk controller: Intel 82078 (order 290468), in PC/AT mode, and two drives. */
import type {
  BlockBackend,
  Completion,
  Device,
  DeviceState,
  IoHandler,
  IrqLine,
  VirtualClock,
} from '../../machine/interfaces.ts';
import { settle } from '../block.ts';
import { StateBlock } from '../state.ts';
import type { DmaChannel } from './isa-dma.ts';
import { type FloppyFormat, formatOf } from './media.ts';

export { floppyType } from './media.ts';

const SECTOR = 512;
/** Code N of sectors of 512 bytes. */
const SECTOR_CODE = 2;
/** A sector takes about this long to pass under the head, in nanoseconds: less than in reality. */
const SECTOR_TIME = 20_000;

const DOR = { drive: 0x03, running: 0x04, dma: 0x08 } as const;
const MSR = { busy: 0x10, pio: 0x20, toHost: 0x40, request: 0x80 } as const;
const ST0 = { seekEnd: 0x20, abnormal: 0x40, invalid: 0x80, polled: 0xc0 } as const;
const ST1 = { noMark: 0x01, readOnly: 0x02, noData: 0x04, crc: 0x20, endOfTrack: 0x80 } as const;
const DSR_RESET = 0x80;
const CONFIG_DEFAULT = 0x20;
const CONFIG_IMPLIED_SEEK = 0x40;

/** Phases of a command. */
const IDLE = 0;
const PARAMETERS = 1;
const EXECUTING = 2;
const RESULT = 3;

/** Bytes of parameters by command code (without the MT, MFM and SK bits); others are invalid. */
const PARAMETER_COUNT = new Map<number, number>([
  [0x02, 8],
  [0x03, 2],
  [0x04, 1],
  [0x05, 8],
  [0x06, 8],
  [0x07, 1],
  [0x08, 0],
  [0x09, 8],
  [0x0a, 1],
  [0x0c, 8],
  [0x0d, 5],
  [0x0e, 0],
  [0x0f, 2],
  [0x10, 0],
  [0x12, 1],
  [0x13, 3],
  [0x14, 0],
  [0x16, 8],
  [0x18, 0],
]);
const COMMAND_MASK = 0x1f;
const MULTI_TRACK = 0x80;

function powerOn() {
  const drive = () => ({ track: 0, changed: true });
  return {
    dor: DOR.running | (DOR.dma as number),
    tape: 0,
    rate: RATE_250,
    phase: IDLE,
    command: 0,
    parameters: new Uint8Array(9),
    parameterCount: 0,
    parametersWanted: 0,
    result: new Uint8Array(16),
    resultLength: 0,
    resultAt: 0,
    /** Results of seeks and resets that SENSE INTERRUPT STATUS has not told of yet, by drive; -1 for none. */
    pending: [-1, -1, -1, -1],
    interrupt: false,
    drives: [drive(), drive()],
    stepRate: 0,
    headTime: 0,
    withoutDma: false,
    config: CONFIG_DEFAULT,
    precompensation: 0,
    perpendicular: 0,
    locked: false,
    /** The sector that is being transferred, and how far it is when the host moves the bytes. */
    cylinder: 0,
    head: 0,
    sector: 0,
    buffer: new Uint8Array(SECTOR),
    at: 0,
    st1: 0,
    st2: 0,
    /** What comes when the timer fires (`STEP`), and the status that it ends with if it is a failure. */
    step: STEP.none as number,
    /** What has been asked of the medium (`REQUEST`). */
    request: REQUEST.none as number,
    failure: [0, 0],
  };
}
const REQUEST = { none: 0, read: 1, write: 2, format: 3 } as const;
const STEP = { none: 0, sector: 1, identification: 2, failure: 3, format: 4 } as const;
const RATE_250 = 2;

export type FloppyDrive = { backend: BlockBackend | null; readOnly: boolean };

export type FdcWiring = {
  clock: VirtualClock;
  irq: IrqLine;
  dma: DmaChannel;
  /** Drives A and B; null where there is none. */
  drives: readonly (FloppyDrive | null)[];
};

export class FloppyController implements Device {
  readonly type = 'isa-fdc';
  readonly id: string;
  /** Ports 3F0h to 3F5h. */
  readonly ports: IoHandler;
  /** Port 3F7h. */
  readonly lastPort: IoHandler;

  private readonly wiring: FdcWiring;
  private readonly state = new StateBlock('fdc', 1, powerOn, {
    phase: 3,
    at: SECTOR,
    parameterCount: 9,
    parametersWanted: 9,
    resultLength: 16,
    resultAt: 16,
    rate: 3,
    command: 0xff,
    dor: 0xff,
    config: 0xff,
    cylinder: 0xff,
    head: 1,
    sector: 0xff,
    step: 4,
    request: 3,
    failure: 0xff,
  });
  private readonly timer;
  private generation = 0;

  constructor(wiring: FdcWiring, id = 'fdc') {
    this.id = id;
    this.wiring = wiring;
    this.timer = wiring.clock.timer(() => this.next());
    this.state.keepTimers({ step: this.timer });
    this.ports = {
      read: (offset) => this.read(offset),
      write: (offset, _size, value) => this.write(offset, value & 0xff),
    };
    this.lastPort = {
      // Bit 7: the disk has been changed since the drive last stepped.
      read: () => (this.drive === null || this.drive.state.changed ? 0x80 : 0),
      write: (_offset, _size, value) => {
        this.state.value.rate = value & 3;
      },
    };
  }

  reset(): void {
    this.abandon();
    const { drives } = this.state.value;
    const changed = drives.map((drive) => drive.changed);
    this.state.reset();
    changed.forEach((value, i) => {
      drives[i]!.changed = value;
    });
    this.wiring.irq.set(false);
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
    this.generation++;
    this.setInterrupt(this.state.value.interrupt);
    this.state.armTimers();
  }

  /** What could not be read or written when the machine was saved is tried again. */
  afterLoad(): void {
    const { request } = this.state.value;
    if (request === REQUEST.read) this.readSector();
    else if (request === REQUEST.write) this.storeSector();
    else if (request === REQUEST.format) this.storeFormatted();
  }

  /** Puts a disk into a drive, or takes it out. */
  changeMedium(index: number, medium: BlockBackend | null): void {
    const drive = this.wiring.drives[index];
    if (drive === null || drive === undefined) return;
    drive.backend = medium;
    this.state.value.drives[index]!.changed = true;
  }

  // --- Registers.

  private get drive() {
    const index = this.state.value.dor & DOR.drive;
    const drive = this.wiring.drives[index] ?? null;
    return drive === null ? null : { ...drive, state: this.state.value.drives[index]! };
  }

  private get selected(): number {
    return this.state.value.dor & DOR.drive;
  }

  private read(offset: number): number {
    const s = this.state.value;
    switch (offset) {
      case 0:
        return (s.interrupt ? 0x80 : 0) | (this.drive?.state.track === 0 ? 0 : 0x10);
      case 1:
        return 0xc0 | ((s.dor & 1) << 5) | ((s.dor >> 4) & 3);
      case 2:
        return s.dor;
      case 3:
        return s.tape;
      case 4:
        return this.mainStatus();
      default:
        return this.readData();
    }
  }

  private write(offset: number, value: number): void {
    const s = this.state.value;
    switch (offset) {
      case 2:
        this.writeDor(value);
        break;
      case 3:
        s.tape = value & 3;
        break;
      case 4:
        s.rate = value & 3;
        if ((value & DSR_RESET) !== 0) this.softReset();
        break;
      case 5:
        this.writeData(value);
        break;
      default:
        break;
    }
  }

  private mainStatus(): number {
    const s = this.state.value;
    if ((s.dor & DOR.running) === 0) return 0;
    switch (s.phase) {
      case IDLE:
        return MSR.request;
      case PARAMETERS:
        return MSR.request | MSR.busy;
      case RESULT:
        return MSR.request | MSR.toHost | MSR.busy;
      default: {
        if (!s.withoutDma || this.timer.deadline !== Infinity) return MSR.busy;
        const toHost = this.writes ? 0 : MSR.toHost;
        return MSR.busy | MSR.pio | MSR.request | toHost;
      }
    }
  }

  private writeDor(value: number): void {
    const s = this.state.value;
    const before = s.dor;
    s.dor = value;
    const runs = (value & DOR.running) !== 0;
    if ((before & DOR.running) !== 0 && !runs) {
      this.abandon();
      s.phase = IDLE;
      this.setInterrupt(false);
    }
    if ((before & DOR.running) === 0 && runs) this.softReset();
    else this.setInterrupt(s.interrupt);
  }

  /** After a reset each drive is reported as having been polled (82078, 6.2). */
  private softReset(): void {
    const s = this.state.value;
    this.abandon();
    s.phase = IDLE;
    s.pending.forEach((_, i) => {
      s.pending[i] = ST0.polled | i;
    });
    if (!s.locked) s.config = CONFIG_DEFAULT;
    this.setInterrupt(true);
  }

  private abandon(): void {
    this.generation++;
    this.timer.cancel();
    Object.assign(this.state.value, { step: STEP.none, request: REQUEST.none });
  }

  private setInterrupt(level: boolean): void {
    const s = this.state.value;
    s.interrupt = level;
    // Bit 3 gates interrupt and DMA request alike.
    this.wiring.irq.set(level && (s.dor & DOR.dma) !== 0);
  }

  // --- Command, execution and result phase.

  private writeData(value: number): void {
    const s = this.state.value;
    if ((s.dor & DOR.running) === 0) return;
    if (s.phase === IDLE) this.begin(value);
    else if (s.phase === PARAMETERS) {
      s.parameters[s.parameterCount++] = value;
      if (s.parameterCount === s.parametersWanted) this.execute();
    } else if (s.phase === EXECUTING && s.withoutDma && this.writes) {
      this.setInterrupt(false);
      s.buffer[s.at++] = value;
      if (s.at === SECTOR) this.storeSector();
    }
  }

  private readData(): number {
    const s = this.state.value;
    if (s.phase === EXECUTING && s.withoutDma && !this.writes && s.at < SECTOR) {
      this.setInterrupt(false);
      const value = s.buffer[s.at++]!;
      if (s.at === SECTOR) this.advance();
      return value;
    }
    if (s.phase !== RESULT) return 0;
    this.setInterrupt(false);
    const value = s.result[s.resultAt++]!;
    if (s.resultAt === s.resultLength) s.phase = IDLE;
    return value;
  }

  private begin(code: number): void {
    const s = this.state.value;
    s.command = code;
    s.parameterCount = 0;
    const wanted = PARAMETER_COUNT.get(code & COMMAND_MASK);
    if (wanted === undefined) return this.finish(ST0.invalid);
    s.parametersWanted = wanted;
    s.phase = PARAMETERS;
    if (wanted === 0) this.execute();
  }

  /** Enters the result phase. */
  private finish(...bytes: number[]): void {
    const s = this.state.value;
    s.result.set(bytes);
    s.resultLength = bytes.length;
    s.resultAt = 0;
    s.phase = RESULT;
  }

  private get writes(): boolean {
    const code = this.state.value.command & COMMAND_MASK;
    return code === 0x05 || code === 0x09 || code === 0x0d;
  }

  private execute(): void {
    const s = this.state.value;
    const [first, second, third] = s.parameters;
    s.phase = IDLE;
    switch (s.command & COMMAND_MASK) {
      case 0x03:
        s.stepRate = first!;
        s.headTime = second! >> 1;
        s.withoutDma = (second! & 1) !== 0;
        break;
      case 0x04:
        this.finish(this.driveStatus(first!));
        break;
      case 0x07:
        this.seek(first! & 3, 0);
        break;
      case 0x0f:
        this.seek(first! & 3, second!);
        break;
      case 0x08:
        this.senseInterrupt();
        break;
      case 0x0e:
        this.dumpRegisters();
        break;
      case 0x10:
        this.finish(0x90);
        break;
      case 0x12:
        s.perpendicular = first!;
        break;
      case 0x13:
        s.config = second!;
        s.precompensation = third!;
        break;
      case 0x14:
        s.locked = (s.command & 0x80) !== 0;
        this.finish(s.locked ? 0x10 : 0);
        break;
      case 0x18:
        this.finish(0x41);
        break;
      case 0x0a:
        this.readId();
        break;
      case 0x0d:
        this.formatTrack();
        break;
      default:
        this.transfer();
    }
  }

  private driveStatus(select: number): number {
    const drive = this.wiring.drives[select & 3] ?? null;
    const track = this.state.value.drives[select & 3]?.track;
    const protectedDisk = drive !== null && (drive.readOnly || drive.backend?.readOnly === true);
    return 0x28 | (select & 7) | (protectedDisk ? 0x40 : 0) | (track === 0 ? 0x10 : 0);
  }

  private dumpRegisters(): void {
    const s = this.state.value;
    const [a, b] = s.drives;
    this.finish(
      a!.track,
      b!.track,
      0,
      0,
      s.stepRate,
      (s.headTime << 1) | (s.withoutDma ? 1 : 0),
      this.format?.sectors ?? 0,
      (s.locked ? 0x80 : 0) | s.perpendicular,
      s.config,
      s.precompensation,
    );
  }

  private seek(index: number, track: number): void {
    const s = this.state.value;
    const drive = this.wiring.drives[index] ?? null;
    const state = s.drives[index];
    if (drive !== null && state !== undefined) {
      state.track = track;
      if (drive.backend !== null) state.changed = false;
    }
    s.pending[index] = ST0.seekEnd | index;
    this.setInterrupt(true);
  }

  private senseInterrupt(): void {
    const s = this.state.value;
    const index = s.pending.findIndex((status) => status >= 0);
    this.setInterrupt(false);
    if (index < 0) return this.finish(ST0.invalid);
    const status = s.pending[index]!;
    s.pending[index] = -1;
    this.finish(status, s.drives[index]?.track ?? 0);
  }

  // --- Transfers.

  private get format(): FloppyFormat | null {
    const backend = this.drive?.backend ?? null;
    return backend === null ? null : formatOf(backend.size);
  }

  /** Drive and head come with most commands; the drive counts from then on. */
  private select(parameter: number): void {
    const s = this.state.value;
    s.dor = (s.dor & ~DOR.drive) | (parameter & DOR.drive);
    s.head = (parameter >> 2) & 1;
  }

  private readId(): void {
    const s = this.state.value;
    this.select(s.parameters[0]!);
    s.cylinder = this.drive?.state.track ?? 0;
    s.sector = 1;
    this.after(SECTOR_TIME, STEP.identification);
  }

  private identified(): void {
    const s = this.state.value;
    const readable =
      this.format?.rates.includes(s.rate) === true && s.head < this.format.heads && s.cylinder < this.format.tracks;
    if (readable) this.endTransfer(0, 0, 0);
    else this.endTransfer(ST0.abnormal, ST1.noMark | ST1.noData, 0);
  }

  private transfer(): void {
    const s = this.state.value;
    const [select, cylinder, head, sector] = s.parameters;
    this.select(select!);
    s.cylinder = cylinder!;
    s.head = head! & 1;
    s.sector = sector!;
    s.st1 = s.st2 = 0;
    const { drive, format } = this;
    if ((s.config & CONFIG_IMPLIED_SEEK) !== 0 && drive !== null) drive.state.track = cylinder!;
    if (format === null || !format.rates.includes(s.rate)) return this.failLater(ST1.noMark | ST1.noData);
    if (this.writes && this.protected) return this.failLater(ST1.readOnly);
    if (drive!.state.track !== cylinder || !this.exists(format)) return this.failLater(ST1.noData, 0x10);
    this.after(SECTOR_TIME, STEP.sector);
  }

  private failLater(st1: number, st2 = 0): void {
    this.state.value.failure.splice(0, 2, st1, st2);
    this.after(SECTOR_TIME, STEP.failure);
  }

  private get protected(): boolean {
    const { drive } = this;
    return drive === null || drive.readOnly || drive.backend?.readOnly === true;
  }

  private exists(format: FloppyFormat): boolean {
    const { cylinder, head, sector } = this.state.value;
    return cylinder < format.tracks && head < format.heads && sector >= 1 && sector <= format.sectors;
  }

  /** The timer has fired. */
  private next(): void {
    const s = this.state.value;
    const { step } = s;
    s.step = STEP.none;
    switch (step) {
      case STEP.sector:
        return this.startSector();
      case STEP.identification:
        return this.identified();
      case STEP.failure:
        return this.endTransfer(ST0.abnormal, s.failure[0]!, s.failure[1]!);
      case STEP.format:
        return this.formatSector();
    }
  }

  private after(time: number, step: number): void {
    const s = this.state.value;
    s.phase = EXECUTING;
    s.step = step;
    this.timer.arm(this.wiring.clock.now() + time);
  }

  private offset(format: FloppyFormat): number {
    const { cylinder, head, sector } = this.state.value;
    return ((cylinder * format.heads + head) * format.sectors + sector - 1) * SECTOR;
  }

  /** Runs an operation of the backend unless a reset comes between. */
  private run(request: number, operation: (backend: BlockBackend, offset: number) => Completion, then: () => void): void {
    const backend = this.drive?.backend ?? null;
    const { format, generation } = this;
    if (backend === null || format === null) {
      return this.endTransfer(ST0.abnormal, ST1.noMark | ST1.noData, 0);
    }
    const offset = this.offset(format);
    // An image that is smaller than its format has no such sector.
    const inside = offset + SECTOR <= backend.size;
    this.state.value.request = request;
    settle(
      () => (inside ? operation(backend, offset) : Promise.reject(new Error('beyond the end'))),
      (error) => {
        if (generation !== this.generation) return;
        this.state.value.request = REQUEST.none;
        if (error !== null) this.endTransfer(ST0.abnormal, ST1.crc, 0x20);
        else then();
      },
    );
  }

  private startSector(): void {
    const s = this.state.value;
    s.at = 0;
    if (!this.writes) return this.readSector();
    if (s.withoutDma) return this.setInterrupt(true);
    // What the count leaves of the last sector is written as zeros.
    s.buffer.fill(0, this.wiring.dma.fromMemory(s.buffer));
    this.storeSector();
  }

  private readSector(): void {
    const s = this.state.value;
    const verifies = (s.command & COMMAND_MASK) === 0x16;
    this.run(
      REQUEST.read,
      (backend, offset) => backend.read(offset, s.buffer),
      () => {
        if (verifies) return this.advance();
        if (s.withoutDma) return this.setInterrupt(true);
        this.wiring.dma.toMemory(s.buffer);
        this.advance();
      },
    );
  }

  private storeSector(): void {
    const { buffer } = this.state.value;
    this.run(
      REQUEST.write,
      (backend, offset) => backend.write(offset, buffer),
      () => this.advance(),
    );
  }

  /** On to the next sector, or to the result. */
  private advance(): void {
    const s = this.state.value;
    const { format } = this;
    if (format === null) return this.endTransfer(ST0.abnormal, ST1.noMark | ST1.noData, 0);
    const over = !s.withoutDma && (this.wiring.dma.over || (s.command & COMMAND_MASK) === 0x16);
    const endOfTrack = s.sector === s.parameters[5] || s.sector >= format.sectors;
    const multi = (s.command & MULTI_TRACK) !== 0;
    if (!endOfTrack) s.sector++;
    else {
      s.sector = 1;
      if (multi && s.head === 0 && format.heads === 2) {
        s.head = 1;
      } else {
        if (multi) s.head = 0;
        s.cylinder++;
        if (!over && s.withoutDma) return this.endTransfer(ST0.abnormal, ST1.endOfTrack, 0);
        return this.endTransfer(0, over ? 0 : ST1.endOfTrack, 0);
      }
    }
    if (over) return this.endTransfer(0, 0, 0);
    this.after(SECTOR_TIME, STEP.sector);
  }

  private formatTrack(): void {
    const s = this.state.value;
    this.select(s.parameters[0]!);
    const { format } = this;
    s.cylinder = this.drive?.state.track ?? 0;
    s.sector = 1;
    s.st1 = s.st2 = 0;
    if (format === null || this.protected) return this.failLater(format === null ? ST1.noMark : ST1.readOnly);
    this.after(SECTOR_TIME, STEP.format);
  }

  private formatSector(): void {
    const s = this.state.value;
    const { format } = this;
    if (format === null || s.sector > Math.min(s.parameters[2]!, format.sectors) || !this.exists(format)) {
      return this.endTransfer(0, 0, 0);
    }
    // The identification of each sector; they stay where they are.
    if (!s.withoutDma) this.wiring.dma.fromMemory(new Uint8Array(4));
    s.buffer.fill(s.parameters[4]!);
    this.storeFormatted();
  }

  private storeFormatted(): void {
    const s = this.state.value;
    this.run(
      REQUEST.format,
      (backend, offset) => backend.write(offset, s.buffer),
      () => {
        s.sector++;
        this.after(SECTOR_TIME, STEP.format);
      },
    );
  }

  private endTransfer(st0: number, st1: number, st2: number): void {
    const s = this.state.value;
    const { cylinder, head, sector } = s;
    this.finish(st0 | (head << 2) | this.selected, st1, st2, cylinder, head, sector, SECTOR_CODE);
    this.setInterrupt(true);
  }
}

/** One port of an AHCI controller: Serial ATA AHCI 1.3.1, sections 3.3 (registers) and 4.2 (memory). */
import type { GuestMemory } from '../../machine/interfaces.ts';
import type { PieceList } from '../pieces.ts';
import { type AtaDevice, type DmaPort, REGISTER, STATUS } from './ata.ts';
import { type Region, Regions } from './regions.ts';

/** Register offsets within a port. */
export const PORT = {
  listBase: 0x00,
  listBaseHigh: 0x04,
  fisBase: 0x08,
  fisBaseHigh: 0x0c,
  interrupts: 0x10,
  enables: 0x14,
  command: 0x18,
  taskFile: 0x20,
  signature: 0x24,
  sataStatus: 0x28,
  sataControl: 0x2c,
  sataError: 0x30,
  issue: 0x38,
} as const;
/** Command register (3.3.7). */
export const CMD = {
  start: 1 << 0,
  override: 1 << 3,
  receive: 1 << 4,
  receiving: 1 << 14,
  running: 1 << 15,
} as const;
const CMD_WRITABLE = 0xff00_0017 | 0;
/** Interrupt status (3.3.5). */
export const IS = { deviceFis: 1 << 0, pioFis: 1 << 1, overflow: 1 << 24, taskError: 1 << 30 } as const;
const IS_CLEARABLE = 0xfd80_00af;

const SLOTS = 32;
/** Device present, communication established, generation 1, interface active. */
const LINK_UP = 0x113;
const DETECT = 0x0f;
const DETECT_INIT = 1;

/** Command header (4.2.2), first word. */
const HEADER = { write: 1 << 6 } as const;
/** Command table (4.2.3). */
const TABLE = { packet: 0x40, regions: 0x80 } as const;
/** An entry of the table: address, reserved, bytes less 1 (22 bits). */
const REGION = 16;
const REGION_BYTES = 0x3fffff;
const FIS = { toDevice: 0x27, toHost: 0x34, pioSetup: 0x5f } as const;
/** Within the area for received FISes (4.2.1). */
const RECEIVED = { pioSetup: 0x20, register: 0x40 } as const;
const PACKET = 0xa0;
const CONTROL_RESET = 0x04;

export type PortState = {
  listBase: number;
  listBaseHigh: number;
  fisBase: number;
  fisBaseHigh: number;
  interrupts: number;
  enables: number;
  command: number;
  sataControl: number;
  issue: number;
  signature: number;
  /** Slot of the command under way, or 32 for none. */
  slot: number;
  /** It is a packet command, and its packet has been sent. */
  packet: boolean;
  packetSent: boolean;
  softReset: boolean;
  /** A command has failed. */
  halted: boolean;
  /** Bytes of the command that have been moved. */
  moved: number;
};

export const portPowerOn = (): PortState => ({
  listBase: 0,
  listBaseHigh: 0,
  fisBase: 0,
  fisBaseHigh: 0,
  interrupts: 0,
  enables: 0,
  command: 0,
  sataControl: 0,
  issue: 0,
  signature: 0xffffffff,
  slot: SLOTS,
  packet: false,
  packetSent: false,
  softReset: false,
  halted: false,
  moved: 0,
});

export class AhciPort implements DmaPort {
  device: AtaDevice | null = null;
  /** `interrupts` or `enables` have changed. */
  onInterrupt: (() => void) | undefined;

  private readonly memory: GuestMemory;
  private readonly state: PortState;
  private readonly regions: Regions;
  /** Where the command under way has its table of regions, and how many it has. */
  private list = 0;
  private listed = 0;
  /** The port itself writes to memory, which a guest may have made the controller's own registers. */
  private mastering = false;
  private pumpAgain = false;

  constructor(memory: GuestMemory, state: PortState) {
    this.memory = memory;
    this.state = state;
    this.regions = new Regions(memory, { entry: (index, into) => this.region(index, into) });
  }

  attach(device: AtaDevice): void {
    this.device = device;
    device.host = {
      setInterrupt: (level) => {
        if (level) this.pump();
      },
      dmaRequested: () => this.pump(),
    };
    this.showSignature();
  }

  /** Whether an enabled interrupt waits. */
  get pending(): boolean {
    return (this.state.interrupts & this.state.enables) !== 0;
  }

  reset(): void {
    Object.assign(this.state, portPowerOn());
    this.device?.reset(true);
    this.showSignature();
  }

  read(offset: number): number {
    const s = this.state;
    switch (offset) {
      case PORT.listBase:
        return s.listBase;
      case PORT.listBaseHigh:
        return s.listBaseHigh;
      case PORT.fisBase:
        return s.fisBase;
      case PORT.fisBaseHigh:
        return s.fisBaseHigh;
      case PORT.interrupts:
        return s.interrupts;
      case PORT.enables:
        return s.enables;
      case PORT.command:
        return s.command | (Math.min(s.slot, SLOTS - 1) << 8);
      case PORT.taskFile:
        return this.taskFile();
      case PORT.signature:
        return s.signature;
      case PORT.sataStatus:
        return this.device === null ? 0 : LINK_UP;
      case PORT.sataControl:
        return s.sataControl;
      case PORT.issue:
        return s.issue;
      default:
        return 0;
    }
  }

  write(offset: number, value: number): void {
    if (this.mastering) return;
    const s = this.state;
    switch (offset) {
      case PORT.listBase:
        s.listBase = (value & ~0x3ff) >>> 0;
        break;
      case PORT.listBaseHigh:
        s.listBaseHigh = value;
        break;
      case PORT.fisBase:
        s.fisBase = (value & ~0xff) >>> 0;
        break;
      case PORT.fisBaseHigh:
        s.fisBaseHigh = value;
        break;
      case PORT.interrupts:
        s.interrupts = (s.interrupts & ~(value & IS_CLEARABLE)) >>> 0;
        this.onInterrupt?.();
        break;
      case PORT.enables:
        s.enables = (value & IS_CLEARABLE) >>> 0;
        this.onInterrupt?.();
        break;
      case PORT.command:
        this.writeCommand(value);
        break;
      case PORT.sataControl:
        this.writeSataControl(value);
        break;
      case PORT.issue:
        if ((s.command & CMD.start) === 0) break;
        s.issue = (s.issue | value) >>> 0;
        this.pump();
        break;
    }
  }

  private taskFile(): number {
    const { device } = this;
    if (device === null) return 0x7f;
    return device.status | (device.readRegister(REGISTER.features) << 8);
  }

  private writeCommand(value: number): void {
    const s = this.state;
    const wasOn = (s.command & CMD.start) !== 0;
    let command = value & CMD_WRITABLE;
    if ((command & CMD.receive) !== 0) command |= CMD.receiving;
    if ((command & CMD.start) !== 0) command |= CMD.running;
    s.command = command >>> 0;
    if ((value & CMD.override) !== 0 && (this.taskFile() & (STATUS.busy | STATUS.request)) !== 0) {
      this.device?.reset(false);
    }
    if (wasOn && (command & CMD.start) === 0) {
      s.issue = 0;
      s.slot = SLOTS;
      s.halted = false;
    }
  }

  /** The link is reset when software stops asking for it (10.4.2). */
  private writeSataControl(value: number): void {
    const s = this.state;
    const before = s.sataControl & DETECT;
    s.sataControl = value & 0xfff;
    if (before !== DETECT_INIT || (value & DETECT) !== 0) return;
    s.slot = SLOTS;
    s.issue = 0;
    this.device?.reset(true);
    this.showSignature();
  }

  private showSignature(): void {
    const { device } = this;
    if (device === null) return;
    const r = (index: number): number => device.readRegister(index);
    this.state.signature =
      ((r(REGISTER.lbaHigh) << 24) | (r(REGISTER.lbaMid) << 16) | (r(REGISTER.lbaLow) << 8) | r(REGISTER.count)) >>> 0;
  }

  // --- Commands.

  /** Carries commands on as far as they go without waiting; without recursion. */
  private pump(): void {
    this.pumpAgain = true;
    if (this.mastering) return;
    this.mastering = true;
    while (this.pumpAgain) {
      this.pumpAgain = false;
      if (this.step()) this.pumpAgain = true;
    }
    this.mastering = false;
    this.onInterrupt?.();
  }

  /** @returns whether there may be more to do at once */
  private step(): boolean {
    const s = this.state;
    const { device } = this;
    if (device === null) return false;
    if (s.slot === SLOTS) return this.next();
    const { status } = device;
    if ((status & STATUS.request) !== 0) {
      if (device.dmaWaits) {
        s.moved = device.transferAt;
        this.findRegions(s.moved);
        device.runDma(this);
        return (device.status & STATUS.busy) === 0;
      }
      this.movePio(device);
      return true;
    }
    if ((status & STATUS.busy) !== 0) return false;
    return this.complete(device);
  }

  /** Takes the lowest slot that has been issued. */
  private next(): boolean {
    const s = this.state;
    if (s.issue === 0 || (s.command & CMD.start) === 0) return false;
    // After an error nothing is taken until software has started the port anew (6.2.2).
    if (s.halted) return false;
    s.slot = 31 - Math.clz32(s.issue & -s.issue);
    s.packetSent = false;
    const fis = new Uint8Array(20);
    this.memory.readBytes(this.table, fis);
    if (fis[0] !== FIS.toDevice) return this.complete(this.device!);
    if ((fis[1]! & 0x80) === 0) return this.control(fis[15]!);
    this.start(fis);
    return true;
  }

  private start(fis: Uint8Array): void {
    const s = this.state;
    const device = this.device!;
    const put = (register: number, low: number, high: number): void => {
      device.writeRegister(register, fis[high]!);
      device.writeRegister(register, fis[low]!);
    };
    put(REGISTER.features, 3, 11);
    put(REGISTER.lbaLow, 4, 8);
    put(REGISTER.lbaMid, 5, 9);
    put(REGISTER.lbaHigh, 6, 10);
    put(REGISTER.count, 12, 13);
    device.writeRegister(REGISTER.device, fis[7]!);
    s.packet = fis[2] === PACKET;
    s.moved = 0;
    device.start(fis[2]!);
  }

  /** A software reset takes two of these, of which the second ends it. */
  private control(value: number): boolean {
    const s = this.state;
    s.issue = (s.issue & ~(1 << s.slot)) >>> 0;
    s.slot = SLOTS;
    const reset = (value & CONTROL_RESET) !== 0;
    if (s.softReset && !reset) {
      this.device!.reset(false);
      this.showSignature();
      this.postRegisters(this.device!);
    }
    s.softReset = reset;
    return true;
  }

  private movePio(device: AtaDevice): void {
    const s = this.state;
    const data = device.pioData;
    if (s.packet && !s.packetSent) {
      s.packetSent = true;
      this.memory.readBytes(this.table + TABLE.packet, data);
    } else {
      this.findRegions(s.moved);
      const out = (this.header & HEADER.write) !== 0;
      if (out) this.fromMemory(data);
      else this.toMemory(data);
      this.postPio(device, data.length);
    }
    device.pioAdvance(data.length);
  }

  private complete(device: AtaDevice): boolean {
    const s = this.state;
    this.memory.write(this.headerAddress + 4, 4, s.moved);
    const failed = (device.status & STATUS.error) !== 0;
    if (!failed) s.issue = (s.issue & ~(1 << s.slot)) >>> 0;
    s.slot = SLOTS;
    this.postRegisters(device);
    if (failed) {
      s.halted = true;
      s.interrupts = (s.interrupts | IS.taskError) >>> 0;
    }
    return !failed;
  }

  // --- Memory.

  private get headerAddress(): number {
    const { listBase, listBaseHigh, slot } = this.state;
    return listBaseHigh * 2 ** 32 + listBase + 32 * slot;
  }

  private get header(): number {
    return this.memory.read(this.headerAddress, 4);
  }

  private get table(): number {
    const at = this.headerAddress;
    return this.memory.read(at + 12, 4) * 2 ** 32 + ((this.memory.read(at + 8, 4) & ~0x7f) >>> 0);
  }

  /** The guest's buffers, from a place in them on. */
  private findRegions(at: number): void {
    this.listed = this.header >>> 16;
    this.list = this.table + TABLE.regions;
    this.regions.restart(at);
  }

  private region(index: number, into: Region): boolean {
    if (index >= this.listed) return false;
    const at = this.list + REGION * index;
    into.address = this.memory.read(at + 4, 4) * 2 ** 32 + this.memory.read(at, 4);
    into.length = (this.memory.read(at + 12, 4) & REGION_BYTES) + 1;
    return true;
  }

  // --- The transfer, for the device.

  toMemory(bytes: Uint8Array): number {
    const before = this.mastering;
    this.mastering = true;
    const done = this.regions.toMemory(bytes);
    this.mastering = before;
    return this.within(bytes.length, done);
  }

  fromMemory(into: Uint8Array): number {
    return this.within(into.length, this.regions.fromMemory(into));
  }

  /** @returns bytes moved */
  private within(length: number, done: number): number {
    this.moved(done);
    if (done < length) this.state.interrupts |= IS.overflow;
    return done;
  }

  places(into: PieceList, most: number, unit: number): number {
    return this.regions.places(into, most, unit);
  }

  changed(places: PieceList): void {
    places.changed(this.memory);
  }

  moved(bytes: number): void {
    this.state.moved += bytes;
  }

  done(): void {
    // The command's end is seen from its status.
  }

  // --- What the device sends.

  private registers(type: number, device: AtaDevice): Uint8Array {
    const r = (index: number): number => device.readRegister(index);
    return Uint8Array.of(
      type,
      0x40,
      device.status,
      r(REGISTER.features),
      r(REGISTER.lbaLow),
      r(REGISTER.lbaMid),
      r(REGISTER.lbaHigh),
      r(REGISTER.device),
      0,
      0,
      0,
      0,
      r(REGISTER.count),
      0,
      0,
      0,
      0,
      0,
      0,
      0,
    );
  }

  private postRegisters(device: AtaDevice): void {
    this.post(RECEIVED.register, this.registers(FIS.toHost, device));
    this.state.interrupts |= IS.deviceFis;
  }

  private postPio(device: AtaDevice, length: number): void {
    const fis = this.registers(FIS.pioSetup, device);
    if ((this.header & HEADER.write) === 0) fis[1]! |= 0x20;
    // The status at the end of the transfer, and its length.
    fis[15] = STATUS.ready | STATUS.seekComplete;
    fis[16] = length;
    fis[17] = length >> 8;
    this.post(RECEIVED.pioSetup, fis);
    this.state.interrupts |= IS.pioFis;
  }

  private post(at: number, fis: Uint8Array): void {
    const { command, fisBase, fisBaseHigh } = this.state;
    if ((command & CMD.receive) === 0) return;
    this.memory.writeBytes(fisBaseHigh * 2 ** 32 + fisBase + at, fis);
  }
}

/**
 * NE2000: National Semiconductor's DP8390D with 32 KiB of memory of its own, which the driver reads and writes
 * through a port. On PCI it is Realtek's RTL8029AS.
 */
import type { Device, DeviceState, IoHandler, IrqLine, NetworkPort, PortBus } from '../../machine/interfaces.ts';
import { PciDevice } from '../pci.ts';
import { StateBlock } from '../state.ts';
import { groupHash, HEADER, isBroadcast, isFor, isGroup, padded } from './frame.ts';

/** Ports: 16 registers in three pages, then where data go, then what resets the card. */
const PORT = { data: 0x10, reset: 0x18, count: 0x20 } as const;
export const NE2000_PORTS = PORT.count;

/** Command (10.3): stop, start, transmit, what the data port does, page. */
const COMMAND = { stop: 1, start: 2, transmit: 4, noData: 0x20, data: 0x38, pageShift: 6 } as const;
const INITIAL_COMMAND = COMMAND.stop | COMMAND.noData;
const CAUSE = { received: 1, sent: 2, dataDone: 0x40, reset: 0x80 } as const;
const CAUSES = 0x7f;
/** Receive configuration (10.3). */
const RECEIVE = { short: 2, broadcast: 4, groups: 8, all: 0x10, monitor: 0x20 } as const;
const RECEIVED = { ok: 1, group: 0x20 } as const;
const SENT_OK = 1;
const LOOPBACK = 6;
/** The data port takes words. */
const WORDS = 1;

/** Page 0, as it is read and as it is written. */
const READ = { boundary: 3, sendStatus: 4, cause: 7, identifier: 10, receiveStatus: 12 } as const;
const WRITE = {
  ...{ start: 1, stop: 2, boundary: 3, sendPage: 4, sendLow: 5, sendHigh: 6, cause: 7 },
  ...{ addressLow: 8, addressHigh: 9, countLow: 10, countHigh: 11, receive: 12, send: 13, data: 14, mask: 15 },
} as const;
/** Page 1: the address, the page that is received into, groups. */
const PAGE1 = { mac: 1, current: 7, groups: 8 } as const;
/** By which an RTL8029 is known: "PC". */
const IDENTIFIER = [0x50, 0x43] as const;

/** What the data port sees: the address's memory at 0, the card's from 16 KiB on. */
const MEMORY = { start: 0x4000, end: 0xc000, prom: 32 } as const;
const PAGE = 256;
const FRAME_HEADER = 4;
const LONGEST_FRAME = 1518;
const LARGEST_SENT = 1536;
/**
 * Frames that come before the driver has taken the last interrupt back. Drivers look at so many frames, then take back
 * the interrupt of those that came meanwhile, too; on a wire others follow, here there may be none to wake them.
 */
const FRAMES_AN_INTERRUPT = 8;

const powerOn = () => ({
  command: INITIAL_COMMAND as number,
  start: 0,
  stop: 0,
  boundary: 0,
  sendStatus: 0,
  sendPage: 0,
  sendLength: 0,
  cause: CAUSE.reset as number,
  address: 0,
  count: 0,
  receiveStatus: 0,
  /** Frames since the driver took the interrupt back. */
  untold: 0,
  receive: 0,
  send: 0,
  data: 0,
  mask: 0,
  mac: new Uint8Array(6),
  current: 0,
  groups: new Uint8Array(8),
  memory: new Uint8Array(MEMORY.end - MEMORY.start),
});
const LIMITS = {
  command: 0xff,
  start: 0xff,
  stop: 0xff,
  boundary: 0xff,
  sendPage: 0xff,
  sendLength: 0xffff,
  address: 0xffff,
  count: 0xffff,
  current: 0xff,
};

export type Ne2000Options = { id: string; backend: NetworkPort | null; mac: Uint8Array };

/** The chip, whatever bus it is on. */
export class Ne2000 {
  readonly ports: IoHandler;
  private readonly block: StateBlock<ReturnType<typeof powerOn>>;
  private readonly backend: NetworkPort | null;
  private readonly prom: Uint8Array;
  private readonly irq: IrqLine;
  private starved = false;

  constructor({ id, backend, mac }: Ne2000Options, irq: IrqLine) {
    this.backend = backend;
    this.irq = irq;
    this.block = new StateBlock(id, 1, powerOn, LIMITS);
    this.prom = promOf(mac);
    this.ports = {
      read: (offset, size) => this.read(offset, size),
      write: (offset, size, value) => this.write(offset, size, value),
    };
    if (backend === null) return;
    backend.onReceive = (frame) => this.receive(frame);
    backend.onWritable = () => this.transmit();
  }

  reset(): void {
    const memory = this.block.value.memory.slice();
    this.block.reset();
    // Nothing forgets what it holds but for power.
    this.block.value.memory.set(memory);
    this.starved = false;
    this.update();
  }

  save(): DeviceState {
    return this.block.save();
  }

  load(state: DeviceState): void {
    this.block.load(state);
    this.starved = true;
    this.update();
    this.transmit();
    this.resume();
  }

  // --- Ports.

  private read(offset: number, size: number): number {
    if (offset >= PORT.reset) {
      this.reset();
      return 0;
    }
    if (offset >= PORT.data) return this.readData(size);
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.readRegister(offset + i) << (8 * i);
    return value >>> 0;
  }

  private write(offset: number, size: number, value: number): void {
    if (offset >= PORT.reset) return;
    if (offset >= PORT.data) return this.writeData(size, value);
    for (let i = 0; i < size; i++) this.writeRegister(offset + i, (value >>> (8 * i)) & 0xff);
  }

  private readRegister(at: number): number {
    const { value: s } = this.block;
    if (at === 0) return s.command;
    switch (s.command >> COMMAND.pageShift) {
      case 0:
        return this.readPage0(at);
      case 1:
        return at < PAGE1.current ? s.mac[at - PAGE1.mac]! : at === PAGE1.current ? s.current : s.groups[at - PAGE1.groups]!;
      case 2:
        return { [WRITE.start]: s.start, [WRITE.stop]: s.stop, [WRITE.sendPage]: s.sendPage }[at] ?? 0;
      default:
        return 0;
    }
  }

  private readPage0(at: number): number {
    const { value: s } = this.block;
    switch (at) {
      case READ.boundary:
        return s.boundary;
      case READ.sendStatus:
        return s.sendStatus;
      case READ.cause:
        return s.cause;
      case WRITE.addressLow:
        return s.address & 0xff;
      case WRITE.addressHigh:
        return s.address >> 8;
      case READ.identifier:
      case READ.identifier + 1:
        return IDENTIFIER[at - READ.identifier]!;
      case READ.receiveStatus:
        return s.receiveStatus;
      default:
        return 0;
    }
  }

  private writeRegister(at: number, byte: number): void {
    const { value: s } = this.block;
    if (at === 0) return this.writeCommand(byte);
    const page = s.command >> COMMAND.pageShift;
    if (page === 0) this.writePage0(at, byte);
    if (page !== 1) return;
    if (at < PAGE1.current) s.mac[at - PAGE1.mac] = byte;
    else if (at === PAGE1.current) s.current = byte;
    else s.groups[at - PAGE1.groups] = byte;
  }

  private writePage0(at: number, byte: number): void {
    const { value: s } = this.block;
    const low = (word: number): number => (word & 0xff00) | byte;
    const high = (word: number): number => (word & 0xff) | (byte << 8);
    switch (at) {
      case WRITE.start:
        s.start = byte;
        return;
      case WRITE.stop:
        s.stop = byte;
        return;
      case WRITE.boundary:
        s.boundary = byte;
        return this.resume();
      case WRITE.sendPage:
        s.sendPage = byte;
        return;
      case WRITE.sendLow:
        s.sendLength = low(s.sendLength);
        return;
      case WRITE.sendHigh:
        s.sendLength = high(s.sendLength);
        return;
      case WRITE.cause:
        s.cause &= ~(byte & CAUSES);
        this.update();
        if ((byte & CAUSE.received) === 0) return;
        s.untold = 0;
        return this.resume();
      case WRITE.addressLow:
        s.address = low(s.address);
        return;
      case WRITE.addressHigh:
        s.address = high(s.address);
        return;
      case WRITE.countLow:
        s.count = low(s.count);
        return;
      case WRITE.countHigh:
        s.count = high(s.count);
        return;
      case WRITE.receive:
        s.receive = byte;
        return;
      case WRITE.send:
        s.send = byte;
        return;
      case WRITE.data:
        s.data = byte;
        return;
      case WRITE.mask:
        s.mask = byte;
        this.update();
    }
  }

  private writeCommand(byte: number): void {
    const { value: s } = this.block;
    s.command = byte;
    if ((byte & COMMAND.stop) !== 0) return;
    s.cause &= ~CAUSE.reset;
    // Nothing to move is moved at once.
    if ((byte & COMMAND.data) < COMMAND.noData && (byte & COMMAND.data) !== 0 && s.count === 0) this.raise(CAUSE.dataDone);
    this.transmit();
    this.resume();
  }

  private raise(cause: number): void {
    this.block.value.cause |= cause;
    this.update();
  }

  private update(): void {
    const { cause, mask } = this.block.value;
    this.irq.set((cause & mask & CAUSES) !== 0);
  }

  // --- The card's memory.

  private readData(size: number): number {
    let value = 0;
    const bytes = this.bytesAtPort(size);
    for (let i = 0; i < bytes; i++) value |= this.peek(this.block.value.address + i) << (8 * i);
    this.advance(bytes);
    return value >>> 0;
  }

  private writeData(size: number, value: number): void {
    const { value: s } = this.block;
    if (s.count === 0) return;
    const bytes = this.bytesAtPort(size);
    for (let i = 0; i < bytes; i++) {
      const at = s.address + i;
      if (at >= MEMORY.start && at < MEMORY.end) s.memory[at - MEMORY.start] = value >>> (8 * i);
    }
    this.advance(bytes);
  }

  /** Set to bytes, it takes one at a time however wide the access is; set to words, two at least. */
  private bytesAtPort(size: number): number {
    return (this.block.value.data & WORDS) === 0 ? 1 : Math.max(2, size);
  }

  private peek(at: number): number {
    if (at < MEMORY.prom) return this.prom[at]!;
    return this.block.value.memory[at - MEMORY.start] ?? 0xff;
  }

  private advance(bytes: number): void {
    const { value: s } = this.block;
    s.address = (s.address + bytes) & 0xffff;
    // What is read of the ring goes on at its start.
    if (s.address === s.stop * PAGE) s.address = s.start * PAGE;
    if (s.count === 0) return;
    s.count = Math.max(0, s.count - bytes);
    if (s.count === 0) this.raise(CAUSE.dataDone);
  }

  // --- Frames.

  private transmit(): void {
    const { value: s } = this.block;
    if ((s.command & COMMAND.transmit) === 0 || (s.command & COMMAND.stop) !== 0) return;
    const from = s.sendPage * PAGE - MEMORY.start;
    const length = s.sendLength;
    const fits = from >= 0 && length <= LARGEST_SENT && from + length <= s.memory.length;
    if (fits && length >= HEADER) {
      const frame = s.memory.slice(from, from + length);
      if ((s.send & LOOPBACK) !== 0) this.receive(frame);
      else if (this.backend !== null && !this.backend.send(frame, null)) return;
    }
    s.command &= ~COMMAND.transmit;
    s.sendStatus = SENT_OK;
    this.raise(CAUSE.sent);
  }

  private resume(): void {
    if (!this.starved) return;
    this.starved = false;
    this.backend?.resume();
  }

  /** @returns false when there is no room yet */
  private receive(given: Uint8Array): boolean {
    const { value: s } = this.block;
    if ((s.command & COMMAND.stop) !== 0 || (s.receive & RECEIVE.monitor) !== 0) return true;
    if (given.length < HEADER || given.length > LONGEST_FRAME || !this.passes(given)) return true;
    const frame = padded(given);
    const pages = s.stop - s.start;
    const total = frame.length + FRAME_HEADER;
    const needed = Math.ceil(total / PAGE);
    if (pages <= 0 || s.current < s.start || s.current >= s.stop || needed >= pages) return true;
    const used = (s.current - s.boundary + pages) % pages;
    if (used + needed >= pages || s.untold >= FRAMES_AN_INTERRUPT) {
      this.starved = true;
      return false;
    }
    const next = s.start + ((s.current - s.start + needed) % pages);
    const status = RECEIVED.ok | (isGroup(frame) ? RECEIVED.group : 0);
    this.putInRing(s.current * PAGE, Uint8Array.of(status, next, total & 0xff, total >> 8, ...frame));
    s.receiveStatus = status;
    s.current = next;
    s.untold++;
    this.raise(CAUSE.received);
    return true;
  }

  private putInRing(at: number, bytes: Uint8Array): void {
    const { memory, start, stop } = this.block.value;
    const first = Math.min(bytes.length, stop * PAGE - at);
    const put = (place: number, part: Uint8Array): void => {
      const to = place - MEMORY.start;
      if (to >= 0 && to < memory.length) memory.set(part.subarray(0, memory.length - to), to);
    };
    put(at, bytes.subarray(0, first));
    put(start * PAGE, bytes.subarray(first));
  }

  private passes(frame: Uint8Array): boolean {
    const { receive, mac, groups } = this.block.value;
    if (isBroadcast(frame)) return (receive & RECEIVE.broadcast) !== 0;
    if ((receive & RECEIVE.all) !== 0 && !isGroup(frame)) return true;
    if (!isGroup(frame)) return isFor(frame, mac);
    const hash = groupHash(frame);
    return (receive & RECEIVE.groups) !== 0 && (groups[hash >> 3]! & (1 << (hash & 7))) !== 0;
  }
}

/** 16 bytes, each twice, as they are seen in steps of a word: the address, and the sign of a card for words. */
function promOf(mac: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(MEMORY.prom / 2);
  bytes.set(mac);
  bytes.set([0x57, 0x57], 14);
  return Uint8Array.from({ length: MEMORY.prom }, (_, i) => bytes[i >> 1]!);
}

const IDENTITY = { vendor: 0x10ec, device: 0x8029, subsystemVendor: 0x1af4, subsystem: 0x1100 } as const;
const PCI_PORTS = 256;

/** `ne2k_pci`. */
export class Ne2kPci extends PciDevice {
  readonly type = 'ne2k_pci';

  constructor(options: Ne2000Options) {
    super(options.id, { ...IDENTITY, classCode: 0x020000, interruptPin: 1 });
    const chip = new Ne2000(options, { set: (level) => this.setIntx(level) });
    const handler: IoHandler = {
      read: (offset, size) => (offset < PORT.count ? chip.ports.read(offset, size) : 0),
      write: (offset, size, value) => {
        if (offset < PORT.count) chip.ports.write(offset, size, value);
      },
    };
    this.addBar(0, { kind: 'io', size: PCI_PORTS, handler, name: this.type });
    this.addPart('ne2000', chip);
  }
}

/** `ne2k_isa`, whose place and interrupt its driver must know. */
export class Ne2kIsa implements Device {
  readonly type = 'ne2k_isa';
  readonly id: string;
  private readonly chip: Ne2000;

  constructor(options: Ne2000Options, { ports, base, irq }: { ports: PortBus; base: number; irq: IrqLine }) {
    this.id = options.id;
    this.chip = new Ne2000(options, irq);
    ports.register(base, PORT.count, this.chip.ports, this.id);
  }

  reset(): void {
    this.chip.reset();
  }

  saveState(): DeviceState {
    return this.chip.save();
  }

  loadState(state: DeviceState): void {
    this.chip.load(state);
  }
}

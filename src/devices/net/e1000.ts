/** Intel 82540EM (`e1000`): PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (317453). */
import type {
  DeviceState,
  GuestMemory,
  IoHandler,
  NetworkPort,
  PacketOffload,
  Timer,
  VirtualClock,
} from '../../machine/interfaces.ts';
import { PciDevice, type PciIdentity } from '../pci.ts';
import { StateBlock } from '../state.ts';
import { EEPROM_CONTROL, EEPROM_FAST, Eeprom, type EepromModel, eepromPowerOn, Phy, phyPowerOn } from './e1000-eeprom.ts';
import {
  canCut,
  contextPowerOn,
  finishFrame,
  insertChecksum,
  type OffloadContext,
  Rest,
  segmentCount,
  segmentOf,
  setContext,
  type Work,
} from './offload.ts';
import {
  AT,
  CAUSE,
  CAUSES,
  CONTROL,
  COUNT,
  initialRegisters,
  RECEIVE,
  registerAt,
  type RegisterName,
  REGISTERS,
  STATUS_AT_SPEED,
  STATUS_LINK,
  TABLE,
  TRANSMIT_ENABLE,
  WIDE_COUNTS,
} from './e1000-registers.ts';
import { FCS, HEADER, isBroadcast, LARGEST_FRAME, SMALLEST_FRAME } from './frame.ts';

const IDENTITY = { vendor: 0x8086, device: 0x100e, revision: 3, subsystemVendor: 0x1af4, subsystem: 0x1100 } as const;
const REGISTER_BYTES = 0x20000;
const WINDOW_BYTES = 64;

/** Bytes of a frame on the wire, with its FCS, that are not "long" (13.4.22), and that ever are received. */
const ORDINARY_FRAME = 1522;
const LONG_FRAME = 16384;
const TAG = 4;
const TAG_AT = 12;
/** Descriptors that are worked on at a time; the rest comes after the guest had its turn. */
const AT_ONCE = 4096;
const THROTTLE_NS = 256;

/*
 * Descriptors to transmit (3.3), 16 bytes:
 *
 *   legacy    0 address   8 length   10 checksum field   11 command   12 status   13 checksum start   14 tag
 *   context   0 the IP checksum   4 the transport's   8 payload length, type, command   12 status   13 header   14 segment size
 *   data      0 address   8 length (20 bits), type (4)   11 command   12 status   13 options   14 tag
 */
const DESCRIPTOR = 16;
const COMMAND = { end: 1, checksum: 4, segments: 4, report: 8, extended: 0x20, tag: 0x40 } as const;
const OPTION = { ipChecksum: 1, checksum: 2 } as const;
const DONE = 1;
/** Status of a received descriptor (3.2.3): done, the frame's last, checksums have not been looked at, a tag was there. */
const RECEIVED = { done: 1, end: 2, unchecked: 4, tagged: 8 } as const;

const powerOn = () => ({
  registers: initialRegisters(),
  statistics: Array.from({ length: TABLE.statistics }, () => 0),
  multicast: Array.from({ length: TABLE.multicast }, () => 0),
  addresses: Array.from({ length: TABLE.addresses }, () => 0),
  vlans: Array.from({ length: TABLE.vlans }, () => 0),
  eeprom: eepromPowerOn(),
  phy: phyPowerOn(),
  /** For checksums alone, and for segments. */
  context: contextPowerOn(),
  segmentContext: contextPowerOn(),
  /** Segments of the next frame that the network has taken already. */
  segmentsSent: 0,
  /** Register that the I/O window shows. */
  window: 0,
  interrupt: false,
  /** No interrupt comes before this time, virtual nanoseconds. */
  quietUntil: 0,
});
const LIMITS = {
  ...{ registers: 0xffffffff, statistics: 0xffffffff, multicast: 0xffffffff, addresses: 0xffffffff, vlans: 0xffffffff },
  ...{ eeprom: 0xffffffff, phy: 0xffffffff, context: 0xffff, segmentContext: 0xffff, segmentsSent: 0xfffff, window: 0xffffffff },
};

export type E1000Options = {
  id: string;
  memory: GuestMemory;
  clock: VirtualClock;
  backend: NetworkPort | null;
  /** 6 bytes. */
  mac: Uint8Array;
  /** Interrupts come no faster than the driver says. */
  mitigation: boolean;
};

/** What a frame's descriptors say of it. */
type Sent = { next: number; length: number; descriptors: number };

/** What tells cards of the family apart. */
export type E1000Model = {
  identity: PciIdentity;
  /** Status of a card that works, without its link. */
  status: number;
  phy: readonly (readonly [register: number, value: number])[];
  eeprom: EepromModel;
};

const MODEL: E1000Model = {
  identity: { ...IDENTITY, classCode: 0x020000, interruptPin: 1 },
  status: STATUS_AT_SPEED,
  phy: [],
  eeprom: {
    ids: [IDENTITY.subsystem, IDENTITY.subsystemVendor, IDENTITY.device, IDENTITY.vendor],
    control: EEPROM_CONTROL,
    fast: EEPROM_FAST,
  },
};

export class E1000 extends PciDevice {
  readonly type: string = 'e1000';
  protected readonly memory: GuestMemory;
  protected readonly clock: VirtualClock;
  protected readonly backend: NetworkPort | null;
  private readonly model: E1000Model;
  private readonly mac: Uint8Array;
  private readonly mitigation: boolean;
  protected readonly block: StateBlock<ReturnType<typeof powerOn>>;
  private readonly eeprom: Eeprom;
  private readonly phy: Phy;
  private readonly interruptTimer: Timer;
  private readonly transmitTimer: Timer;
  private readonly rest = new Rest();
  private readonly work: Work = { ipChecksum: false, checksum: false, segments: false };
  private readonly sent: Sent = { next: 0, length: 0, descriptors: 0 };
  private scratch = new Uint8Array(2048);
  private readonly shaped = new Uint8Array(LONG_FRAME);
  /** A frame was refused: the driver's next buffers are good news. */
  private starved = false;
  private sending = false;

  constructor({ id, memory, clock, backend, mac, mitigation }: E1000Options, model = MODEL) {
    super(id, model.identity);
    this.model = model;
    this.memory = memory;
    this.clock = clock;
    this.backend = backend;
    this.mac = mac;
    this.mitigation = mitigation;
    this.block = new StateBlock(id, 1, powerOn, LIMITS);
    const { eeprom, phy } = this.block.value;
    this.eeprom = new Eeprom(mac, model.eeprom, eeprom);
    this.phy = new Phy(phy, () => this.linkUp, model.phy);
    this.interruptTimer = clock.timer(() => this.updateInterrupt());
    this.transmitTimer = clock.timer(() => this.transmit());
    this.block.keepTimers({ interrupt: this.interruptTimer, transmit: this.transmitTimer });
    this.addBar(0, { kind: 'mem32', size: REGISTER_BYTES, name: 'e1000-mmio', handler: this.mmio() });
    this.addWindow();
    this.takeAddress();
    if (backend === null) return;
    backend.onReceive = (frame) => this.receive(frame);
    backend.onWritable = () => this.transmit();
    backend.onLinkChange = () => this.raise(CAUSE.link);
  }

  /** Registers by way of two ports. */
  protected addWindow(): void {
    this.addBar(1, { kind: 'io', size: WINDOW_BYTES, name: 'e1000-io', handler: this.ioWindow() });
  }

  protected override extraState(): { save(): DeviceState; load(state: DeviceState): void } {
    return this.block;
  }

  protected override onReset(): void {
    this.block.reset();
    this.phy.reset();
    this.takeAddress();
    this.quiet();
  }

  protected override onLoad(): void {
    this.starved = true;
    this.block.armTimers();
  }

  /** Frames that waited for a network that was full. */
  afterLoad(): void {
    if (this.transmitTimer.deadline === Infinity) this.transmit();
  }

  protected override onConfigWrite(offset: number): void {
    // The card may have been made a bus master.
    if (offset === 4) this.resume();
  }

  protected get registers(): Record<RegisterName, number> {
    return this.block.value.registers;
  }

  protected get linkUp(): boolean {
    return this.backend?.linkUp === true;
  }

  /** `CTRL.RST` (13.4.1): all but what lies beside the card. */
  protected resetRegisters(): void {
    const { value } = this.block;
    Object.assign(value.registers, initialRegisters());
    for (const table of [value.statistics, value.multicast, value.addresses, value.vlans]) table.fill(0);
    value.segmentsSent = 0;
    this.takeAddress();
    this.quiet();
  }

  private quiet(): void {
    this.starved = false;
    this.block.value.quietUntil = 0;
    this.transmitTimer.cancel();
    this.updateInterrupt();
  }

  /** The first receive address comes from the EEPROM. */
  private takeAddress(): void {
    const { mac } = this;
    const { addresses } = this.block.value;
    addresses[0] = (mac[0]! | (mac[1]! << 8) | (mac[2]! << 16) | (mac[3]! << 24)) >>> 0;
    addresses[1] = (mac[4]! | (mac[5]! << 8) | 0x80000000) >>> 0;
  }

  // --- Registers.

  private mmio(): IoHandler {
    return {
      read: (offset, size) => this.readPart(offset, size),
      write: (offset, size, value) => {
        // Registers are words; parts of them are not written on their own.
        if (size === 4 && offset % 4 === 0) this.write(offset, value);
      },
    };
  }

  /** An address and a word at it (13.2.2). */
  protected ioWindow(): IoHandler {
    const { value: state } = this.block;
    return {
      read: (offset, size) => {
        if (offset < 4) return state.window;
        return offset < 8 && state.window < REGISTER_BYTES ? this.readPart(state.window & ~3, size) : 0;
      },
      write: (offset, size, value) => {
        if (size !== 4) return;
        if (offset === 0) state.window = value >>> 0;
        else if (offset === 4 && state.window < REGISTER_BYTES) this.write(state.window & ~3, value);
      },
    };
  }

  private readPart(offset: number, size: number): number {
    const word = this.read(offset & ~3) >>> (8 * (offset & 3));
    return size === 4 ? word : word & (size === 2 ? 0xffff : 0xff);
  }

  protected read(offset: number): number {
    const name = registerAt(offset);
    if (name === 'cause') return this.takeCause();
    if (name !== undefined) return this.registers[name];
    switch (offset) {
      case AT.status:
        return this.model.status | (this.linkUp ? STATUS_LINK : 0);
      case AT.eeprom:
        return this.eeprom.readWires();
      case AT.eepromRead:
        return this.eeprom.readFast();
      case AT.phy:
        return this.phy.readMdi();
      default:
        return this.readTable(offset);
    }
  }

  protected write(offset: number, value: number): void {
    const name = registerAt(offset);
    if (name !== undefined) return this.writeRegister(name, value);
    switch (offset) {
      case AT.eeprom:
        return this.eeprom.writeWires(value);
      case AT.eepromRead:
        return this.eeprom.writeFast(value);
      case AT.phy: {
        const { interrupt, link } = this.phy.writeMdi(value);
        return this.raise((interrupt ? CAUSE.phy : 0) | (link && this.linkUp ? CAUSE.link : 0));
      }
      case AT.causeSet:
        return this.raise(value & this.causes);
      case AT.maskClear:
        this.registers.mask &= ~value;
        return this.updateInterrupt();
      default:
        this.writeTable(offset, value >>> 0);
    }
  }

  private writeRegister(name: RegisterName, value: number): void {
    const { registers } = this;
    if (name === 'cause') registers.cause &= ~value;
    else if (name === 'mask') registers.mask |= value & this.causes;
    else registers[name] = (value & REGISTERS[name][2]) >>> 0;
    switch (name) {
      case 'control':
        registers.control = (value & ~(CONTROL.reset | CONTROL.phyReset)) >>> 0;
        if ((value & CONTROL.phyReset) !== 0) this.phy.reset();
        if ((value & CONTROL.reset) !== 0) this.resetRegisters();
        return;
      case 'extendedControl':
        // The EEPROM is read anew at once.
        registers.extendedControl &= ~(1 << 13);
        return;
      case 'cause':
      case 'mask':
        return this.updateInterrupt();
      case 'packetBuffer':
        // What does not receive transmits: 64 KiB in all.
        registers.packetBuffer |= Math.max(0, 64 - value) << 16;
        return;
      case 'receiveTail':
      case 'receiveControl':
        return this.resume();
      case 'transmitHead':
        this.block.value.segmentsSent = 0;
        return;
      case 'transmitTail':
      case 'transmitControl':
        return this.transmit();
      default:
    }
  }

  private readTable(offset: number): number {
    const { statistics, multicast, addresses, vlans } = this.block.value;
    const within = (start: number, words: number): boolean => offset >= start && offset < start + 4 * words;
    if (within(AT.statistics, TABLE.statistics)) return this.takeStatistic(statistics, (offset - AT.statistics) >> 2);
    if (within(AT.multicast, TABLE.multicast)) return multicast[(offset - AT.multicast) >> 2]!;
    if (within(AT.addresses, TABLE.addresses)) return addresses[(offset - AT.addresses) >> 2]!;
    if (within(AT.vlans, TABLE.vlans)) return vlans[(offset - AT.vlans) >> 2]!;
    return 0;
  }

  private writeTable(offset: number, value: number): void {
    const { multicast, addresses, vlans } = this.block.value;
    const put = (table: number[], start: number, mask: number): void => {
      const index = (offset - start) >> 2;
      if (index >= 0 && index < table.length) table[index] = (value & mask) >>> 0;
    };
    put(multicast, AT.multicast, 0xffffffff);
    put(addresses, AT.addresses, (offset & 4) === 0 ? 0xffffffff : 0x8003ffff);
    put(vlans, AT.vlans, 0xffffffff);
  }

  // --- Statistics (13.7): each is cleared when it is read, those of 64 bits with their upper half.

  private takeStatistic(statistics: number[], index: number): number {
    const value = statistics[index]!;
    if (WIDE_COUNTS.includes(index)) return value;
    if (WIDE_COUNTS.includes(index - 1)) statistics[index - 1] = 0;
    statistics[index] = 0;
    return value;
  }

  protected count(index: number, by = 1): void {
    const { statistics } = this.block.value;
    statistics[index] = Math.min(statistics[index]! + by, 0xffffffff);
  }

  private countBytes(index: number, bytes: number): void {
    const { statistics } = this.block.value;
    const low = statistics[index]! + bytes;
    statistics[index] = low >>> 0;
    if (low > 0xffffffff) statistics[index + 1] = (statistics[index + 1]! + 1) >>> 0;
  }

  /** Lengths that count: by `64`, and by size classes of 127, 255, 511, 1023 and more bytes, which follow it. */
  private countFrame(frame: Uint8Array, length: number, sent: boolean): void {
    const size = Math.max(length, SMALLEST_FRAME) + FCS;
    const place = size <= 64 ? 0 : Math.min(Math.floor(Math.log2(size)) - 5, 5);
    this.count((sent ? COUNT.transmitted64 : COUNT.received64) + place);
    this.count(sent ? COUNT.transmitted : COUNT.received);
    this.count(sent ? COUNT.goodTransmitted : COUNT.goodReceived);
    this.countBytes(sent ? COUNT.bytesTransmitted : COUNT.bytesReceived, size);
    this.countBytes(sent ? COUNT.goodBytesTransmitted : COUNT.goodBytesReceived, size);
    if ((frame[0]! & 1) === 0) return;
    const broadcast = isBroadcast(frame);
    if (sent) this.count(broadcast ? COUNT.broadcastTransmitted : COUNT.multicastTransmitted);
    else this.count(broadcast ? COUNT.broadcastReceived : COUNT.multicastReceived);
  }

  // --- Interrupts (13.4.17 to 13.4.21).

  /** Bits that software may set. */
  protected get causes(): number {
    return CAUSES;
  }

  protected takeCause(): number {
    const { cause } = this.registers;
    this.registers.cause = 0;
    this.updateInterrupt();
    return cause;
  }

  protected raise(cause: number): void {
    if (cause === 0) return;
    this.registers.cause |= cause;
    this.updateInterrupt();
  }

  protected updateInterrupt(): void {
    const { value: state } = this.block;
    const { cause, mask, throttle } = state.registers;
    if ((cause & mask) === 0) {
      this.interruptTimer.cancel();
      state.interrupt = false;
      this.signal(false);
      return;
    }
    if (state.interrupt) return;
    const now = this.clock.now();
    if (this.mitigation && throttle !== 0 && now < state.quietUntil) {
      // A time that is too far away is not one that the driver has asked for.
      this.interruptTimer.arm(Math.min(state.quietUntil, now + throttle * THROTTLE_NS));
      return;
    }
    state.quietUntil = now + throttle * THROTTLE_NS;
    state.interrupt = true;
    this.signal(true);
  }

  /** The card's interrupt has come or gone. */
  protected signal(level: boolean): void {
    this.setIntx(level);
  }

  // --- Transmitting.

  /** @returns where in RAM a ring lies, or -1 when it is no ring or lies elsewhere */
  private ringAt(low: number, high: number, length: number): number {
    return length === 0 || !this.busMaster ? -1 : this.memory.ramOffset(high * 2 ** 32 + low, length);
  }

  private transmit(): void {
    if (this.sending) return;
    this.sending = true;
    try {
      this.sendFrames();
    } finally {
      this.sending = false;
    }
  }

  private sendFrames(): void {
    const { registers, sent } = this;
    const { transmitLow, transmitHigh, transmitLength, transmitTail, transmitControl } = registers;
    if ((transmitControl & TRANSMIT_ENABLE) === 0) return;
    const ring = this.ringAt(transmitLow, transmitHigh, transmitLength);
    const count = transmitLength / DESCRIPTOR;
    if (ring < 0 || transmitTail >= count || registers.transmitHead >= count) return;
    let cause = 0;
    let budget = AT_ONCE;
    while (registers.transmitHead !== transmitTail) {
      const whole = this.measure(ring, count);
      if (!whole) break;
      if (budget < 0) {
        this.transmitTimer.arm(this.clock.now() + THROTTLE_NS);
        break;
      }
      if (!this.sendNext(ring, count)) break;
      budget -= sent.descriptors;
      cause |= this.writeBack(ring, count);
      this.block.value.segmentsSent = 0;
      if (registers.transmitHead === transmitTail) cause |= CAUSE.emptied;
    }
    this.raise(cause);
  }

  private isContext(at: number): boolean {
    const { ram } = this.memory;
    return (ram[at + 11]! & COMMAND.extended) !== 0 && ram[at + 10]! >> 4 === 0;
  }

  /** Finds the end of the frame at the ring's head, or takes a context as one. @returns false when its end is yet to come */
  private measure(ring: number, count: number): boolean {
    const { registers, sent } = this;
    const { ram } = this.memory;
    let index = registers.transmitHead;
    sent.length = sent.descriptors = 0;
    while (index !== registers.transmitTail) {
      const at = ring + DESCRIPTOR * index;
      const command = ram[at + 11]!;
      index = index + 1 === count ? 0 : index + 1;
      sent.descriptors++;
      sent.next = index;
      if (this.isContext(at)) {
        if (sent.descriptors === 1) return true;
        continue;
      }
      sent.length += lengthOf(ram, at);
      if ((command & COMMAND.end) !== 0) return true;
    }
    // A frame that fills the ring will never end: it is lost.
    sent.length = LARGEST_FRAME + 1;
    return sent.descriptors >= count - 1;
  }

  /** @returns false when the network is full */
  private sendNext(ring: number, count: number): boolean {
    const { sent } = this;
    const { ram } = this.memory;
    const first = ring + DESCRIPTOR * this.registers.transmitHead;
    if (sent.descriptors === 1 && this.isContext(first)) {
      const { context, segmentContext } = this.block.value;
      const view = new DataView(ram.buffer, ram.byteOffset + first, DESCRIPTOR);
      setContext((ram[first + 11]! & COMMAND.segments) === 0 ? context : segmentContext, view);
      return true;
    }
    // What is no frame, or too much of one, is lost as on a real wire.
    if (sent.length < HEADER || sent.length > LARGEST_FRAME || this.backend === null) return true;
    const last = ring + DESCRIPTOR * ((sent.next === 0 ? count : sent.next) - 1);
    const tagged = (ram[last + 11]! & COMMAND.tag) !== 0 && (this.registers.control & CONTROL.vlanMode) !== 0;
    const tag = tagged ? ram[last + 14]! | (ram[last + 15]! << 8) : -1;
    if ((ram[first + 11]! & COMMAND.extended) === 0) return this.sendLegacy(ring, count, last, tag);
    return this.sendExtended(ring, count, first, tag);
  }

  private sendLegacy(ring: number, count: number, last: number, tag: number): boolean {
    const { ram } = this.memory;
    const sums = (ram[last + 11]! & COMMAND.checksum) !== 0;
    const frame = this.gather(ring, count, sums);
    if (frame === null) return true;
    if (sums) insertChecksum(frame, ram[last + 13]!, ram[last + 10]!, 0);
    return this.pass(frame, tag, null);
  }

  private sendExtended(ring: number, count: number, first: number, tag: number): boolean {
    const { work, rest, backend } = this;
    const { ram } = this.memory;
    const { offloads } = backend!;
    const options = ram[first + 13]!;
    work.segments = (ram[first + 11]! & COMMAND.segments) !== 0;
    work.ipChecksum = (options & OPTION.ipChecksum) !== 0;
    work.checksum = (options & OPTION.checksum) !== 0;
    const { context, segmentContext } = this.block.value;
    if (work.segments) {
      const frame = this.gather(ring, count, true);
      if (frame === null || !canCut(segmentContext, frame.length)) return true;
      this.count(COUNT.segmented);
      const left = tag < 0 && work.checksum && rest.leaveSegments(frame, segmentContext, offloads);
      return left ? this.pass(frame, tag, rest) : this.sendSegments(frame, segmentContext, tag);
    }
    const left = work.checksum && rest.leaveChecksum(context, this.sent.length, offloads);
    if (left) work.checksum = false;
    const changes = work.ipChecksum || work.checksum;
    const frame = this.gather(ring, count, changes);
    if (frame === null) return true;
    if (changes) finishFrame(frame, context, work);
    return this.pass(frame, tag, left ? rest : null);
  }

  private sendSegments(frame: Uint8Array, context: OffloadContext, tag: number): boolean {
    const { value: state } = this.block;
    const count = segmentCount(context, frame.length);
    for (; state.segmentsSent < count; state.segmentsSent++) {
      if (!this.pass(segmentOf(frame, context, this.work, state.segmentsSent), tag, null)) return false;
    }
    return true;
  }

  /** @param own the frame will be changed  @returns the frame in one piece, or null when some of it lies outside RAM */
  private gather(ring: number, count: number, own: boolean): Uint8Array | null {
    const { memory, sent } = this;
    const { ram } = memory;
    let index = this.registers.transmitHead;
    let done = 0;
    if (this.scratch.length < sent.length) this.scratch = new Uint8Array(LARGEST_FRAME);
    for (let i = 0; i < sent.descriptors; i++) {
      const at = ring + DESCRIPTOR * index;
      index = index + 1 === count ? 0 : index + 1;
      const length = this.isContext(at) ? 0 : lengthOf(ram, at);
      if (length === 0) continue;
      const from = memory.ramOffset(addressOf(ram, at), length);
      if (from < 0) return null;
      if (!own && sent.descriptors === 1) return ram.subarray(from, from + length);
      if (done + length > sent.length) return null;
      this.scratch.set(ram.subarray(from, from + length), done);
      done += length;
    }
    return this.scratch.subarray(0, done);
  }

  /** @param tag put before the frame's type, or -1  @returns false when the network is full */
  private pass(frame: Uint8Array, tag: number, rest: Rest | null): boolean {
    let whole = frame;
    if (tag >= 0) {
      whole = new Uint8Array(frame.length + TAG);
      whole.set(frame.subarray(0, TAG_AT));
      whole.set(frame.subarray(TAG_AT), TAG_AT + TAG);
      const type = this.registers.vlanType;
      whole.set([type >> 8, type, tag >> 8, tag], TAG_AT);
      if (rest !== null) rest.checksumStart += TAG;
    }
    if (!this.deliver(whole, rest)) return false;
    this.countFrame(whole, whole.length, true);
    return true;
  }

  private deliver(frame: Uint8Array, rest: PacketOffload | null): boolean {
    const loops = (this.registers.receiveControl & RECEIVE.loopback) !== 0 || this.phy.loops;
    if (!loops) return this.backend!.send(frame, rest);
    this.receive(frame);
    return true;
  }

  /** Reports the frame's descriptors as done. @returns the causes of interrupts */
  private writeBack(ring: number, count: number): number {
    const { registers, sent, memory } = this;
    let cause = 0;
    for (let index = registers.transmitHead; index !== sent.next; index = index + 1 === count ? 0 : index + 1) {
      const at = ring + DESCRIPTOR * index;
      if ((memory.ram[at + 11]! & COMMAND.report) === 0) continue;
      memory.ram[at + 12] = memory.ram[at + 12]! | DONE;
      memory.ramChanged(at, DESCRIPTOR);
      cause = CAUSE.written;
    }
    registers.transmitHead = sent.next;
    return cause;
  }

  // --- Receiving.

  protected resume(): void {
    this.transmit();
    if (!this.starved) return;
    this.starved = false;
    this.backend?.resume();
  }

  /** @returns false when there are no buffers yet */
  private receive(frame: Uint8Array): boolean {
    const { registers } = this;
    const { receiveControl, receiveLow, receiveHigh, receiveLength, receiveHead, receiveTail } = registers;
    if ((receiveControl & RECEIVE.enable) === 0 || frame.length < HEADER) return true;
    const ring = this.ringAt(receiveLow, receiveHigh, receiveLength);
    const count = receiveLength / DESCRIPTOR;
    if (ring < 0 || receiveHead >= count || receiveTail >= count) return true;
    if (!this.fits(frame) || !this.passes(frame)) return true;
    const strips = (registers.control & CONTROL.vlanMode) !== 0 && this.isTagged(frame);
    const data = this.shape(frame, strips);
    const total = data.length + ((receiveControl & RECEIVE.stripChecksum) === 0 ? FCS : 0);
    const size = bufferSize(receiveControl);
    const needed = Math.ceil(total / size);
    const free = (receiveTail - receiveHead + count) % count;
    if (needed >= count) return true;
    if (needed > free) {
      this.starved = true;
      this.count(COUNT.noBuffers);
      return false;
    }
    const tag = strips ? (frame[TAG_AT + 2]! << 8) | frame[TAG_AT + 3]! : -1;
    this.fill(ring, count, data, total, size, tag);
    this.countFrame(frame, frame.length, false);
    const low = free - needed <= count >> (1 + ((receiveControl >> 8) & 3));
    this.raise(CAUSE.received | (low ? CAUSE.low : 0));
    return true;
  }

  /** Puts a frame into buffers. The FCS, where the driver wants one, is zeros: nobody has looked at the wire. */
  private fill(ring: number, count: number, data: Uint8Array, total: number, size: number, tag: number): void {
    const { memory, registers } = this;
    const { ram } = memory;
    for (let done = 0; done < total; done += size) {
      const at = ring + DESCRIPTOR * registers.receiveHead;
      const part = Math.min(size, total - done);
      const to = memory.ramOffset(addressOf(ram, at), part);
      if (to >= 0) {
        const bytes = data.subarray(Math.min(done, data.length), done + part);
        ram.set(bytes, to);
        ram.fill(0, to + bytes.length, to + part);
        memory.ramChanged(to, part);
      }
      this.reportReceived(at, part, tag, done + size >= total);
      memory.ramChanged(at, DESCRIPTOR);
      registers.receiveHead = registers.receiveHead + 1 === count ? 0 : registers.receiveHead + 1;
    }
  }

  /** Writes to a descriptor what its buffer holds now. @param tag of a VLAN, or -1 @param last the frame ends there */
  protected reportReceived(at: number, length: number, tag: number, last: boolean): void {
    const { ram } = this.memory;
    const status = RECEIVED.end | RECEIVED.unchecked | (tag < 0 ? 0 : RECEIVED.tagged);
    ram[at + 8] = length;
    ram[at + 9] = length >> 8;
    ram[at + 10] = ram[at + 11] = ram[at + 13] = 0;
    ram[at + 14] = tag < 0 ? 0 : tag;
    ram[at + 15] = tag < 0 ? 0 : tag >> 8;
    ram[at + 12] = RECEIVED.done | (last ? status : 0);
  }

  private fits(frame: Uint8Array): boolean {
    const long = (this.registers.receiveControl & RECEIVE.long) !== 0;
    const fits = frame.length + FCS <= (long ? LONG_FRAME : ORDINARY_FRAME);
    if (!fits) this.count(COUNT.tooLong);
    return fits;
  }

  private isTagged(frame: Uint8Array): boolean {
    return frame.length >= HEADER + TAG && ((frame[TAG_AT]! << 8) | frame[TAG_AT + 1]!) === this.registers.vlanType;
  }

  /** Takes the tag out, and makes a short frame as long as it must be on a wire. */
  private shape(frame: Uint8Array, strips: boolean): Uint8Array {
    if (!strips && frame.length >= SMALLEST_FRAME) return frame;
    const { shaped } = this;
    const skip = strips ? TAG : 0;
    const length = frame.length - skip;
    shaped.set(frame.subarray(0, TAG_AT));
    shaped.set(frame.subarray(TAG_AT + skip), TAG_AT);
    if (length < SMALLEST_FRAME) shaped.fill(0, length, SMALLEST_FRAME);
    return shaped.subarray(0, Math.max(length, SMALLEST_FRAME));
  }

  /** Filters of addresses and VLANs (3.2.1, 9.3). */
  private passes(frame: Uint8Array): boolean {
    const { receiveControl } = this.registers;
    const { vlans } = this.block.value;
    if ((receiveControl & RECEIVE.filterVlans) !== 0 && this.isTagged(frame)) {
      const id = ((frame[TAG_AT + 2]! & 15) << 8) | frame[TAG_AT + 3]!;
      if (((vlans[id >> 5]! >>> (id & 31)) & 1) === 0) return false;
    }
    const group = (frame[0]! & 1) !== 0;
    if ((receiveControl & (group ? RECEIVE.allMulticast : RECEIVE.allUnicast)) !== 0) return true;
    if ((receiveControl & RECEIVE.broadcast) !== 0 && isBroadcast(frame)) return true;
    return this.isOwn(frame) || (group && this.inMulticast(frame));
  }

  protected isOwn(frame: Uint8Array): boolean {
    const { addresses } = this.block.value;
    const low = (frame[0]! | (frame[1]! << 8) | (frame[2]! << 16) | (frame[3]! << 24)) >>> 0;
    // Valid, and for a frame's destination.
    const high = (frame[4]! | (frame[5]! << 8) | 0x80000000) >>> 0;
    for (let i = 0; i < TABLE.addresses; i += 2) if (addresses[i] === low && addresses[i + 1] === high) return true;
    return false;
  }

  /** 12 bits of the address choose a bit of the table (13.5.1); which ones, the driver says. */
  private inMulticast(frame: Uint8Array): boolean {
    const shift = [4, 3, 2, 0][(this.registers.receiveControl >> 12) & 3]!;
    const hash = (((frame[5]! << 8) | frame[4]!) >> shift) & 0xfff;
    return ((this.block.value.multicast[hash >> 5]! >>> (hash & 31)) & 1) !== 0;
  }
}

function lengthOf(ram: Uint8Array, at: number): number {
  const low = ram[at + 8]! | (ram[at + 9]! << 8);
  return (ram[at + 11]! & COMMAND.extended) === 0 ? low : low | ((ram[at + 10]! & 15) << 16);
}

function addressOf(ram: Uint8Array, at: number): number {
  const low = (ram[at]! | (ram[at + 1]! << 8) | (ram[at + 2]! << 16) | (ram[at + 3]! << 24)) >>> 0;
  const high = (ram[at + 4]! | (ram[at + 5]! << 8) | (ram[at + 6]! << 16) | (ram[at + 7]! << 24)) >>> 0;
  return high * 2 ** 32 + low;
}

/** Bytes of a receive buffer (13.4.22). */
function bufferSize(receiveControl: number): number {
  const size = 2048 >> ((receiveControl >> 16) & 3);
  return (receiveControl & RECEIVE.sizeTimes16) !== 0 && size < 2048 ? size * 16 : size;
}

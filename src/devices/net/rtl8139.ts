/**
 * Realtek RTL8139C+ (`rtl8139`): datasheet 1.6. Its driver chooses for each direction: four buffers to send and one
 * ring of bytes to receive into, as the RTL8139 had, or rings of descriptors.
 */
import type {
  DeviceState,
  GuestMemory,
  IoHandler,
  NetworkPort,
  PacketOffload,
  Timer,
  VirtualClock,
} from '../../machine/interfaces.ts';
import { PciDevice } from '../pci.ts';
import { StateBlock } from '../state.ts';
import { FCS, groupHash, HEADER, isBroadcast, isFor, isGroup, padded } from './frame.ts';
import { EEPROM_WORDS, Microwire, microwirePowerOn } from './microwire.ts';
import {
  AT,
  CAUSE,
  COMMAND,
  EEPROM,
  INITIAL,
  MEDIA,
  PHY,
  PLUS,
  POLL,
  RECEIVE,
  REGISTER_BYTES,
  SEND,
  SLOT,
  WRITABLE,
  WRITABLE_UNLOCKED,
} from './rtl8139-registers.ts';
import { PlusReceiver, PlusSender, plusPowerOn } from './rtl8139-rings.ts';

const IDENTITY = { vendor: 0x10ec, device: 0x8139, revision: 0x20, subsystemVendor: 0x1af4, subsystem: 0x1100 } as const;
const EEPROM_SIGNATURE = 0x8129;
/** Word of the EEPROM where the MAC begins. */
const EEPROM_MAC = 7;
/** The timer counts at the bus's 33 MHz. */
const NS_PER_TICK = 30;
/** Nobody says when there is room again: it is looked after so often. */
const RETRY_NS = 1_000_000;
const SLOTS = 4;
/** A ring of bytes of this many, times a power of two; it has some more behind for what is not wrapped. */
const SMALLEST_RING = 8192;
/** The driver's place in the ring is written 16 bytes short. */
const POINTER_BIAS = 16;
/** Before each frame: status, length with FCS. */
const RING_HEADER = 4;
const RING_STATUS = { ok: 1, broadcast: 1 << 13, own: 1 << 14, group: 1 << 15 } as const;
const LONGEST_FRAME = 1518;

const powerOn = () => ({
  registers: initialRegisters(),
  eeprom: microwirePowerOn(),
  /** Buffer that is sent next. */
  slot: 0,
  /** Time of the timer's zero, virtual nanoseconds. */
  timerStart: 0,
  plus: plusPowerOn(),
  /** The network had no room for the last frame. */
  networkFull: false,
});

export type Rtl8139Options = {
  id: string;
  memory: GuestMemory;
  clock: VirtualClock;
  backend: NetworkPort | null;
  mac: Uint8Array;
};

export class Rtl8139 extends PciDevice {
  readonly type = 'rtl8139';
  readonly memory: GuestMemory;
  readonly backend: NetworkPort | null;
  private readonly clock: VirtualClock;
  private readonly mac: Uint8Array;
  private readonly block: StateBlock<ReturnType<typeof powerOn>>;
  private readonly view: DataView;
  private readonly chip: Microwire;
  private readonly sender: PlusSender;
  private readonly receiver: PlusReceiver;
  private readonly timer: Timer;
  private readonly retry: Timer;
  private readonly sendLater: Timer;
  /** A frame was refused. */
  private starved = false;

  constructor({ id, memory, clock, backend, mac }: Rtl8139Options) {
    super(id, { ...IDENTITY, classCode: 0x020000, interruptPin: 1 });
    this.memory = memory;
    this.clock = clock;
    this.backend = backend;
    this.mac = mac;
    this.block = new StateBlock(id, 1, powerOn, { slot: SLOTS - 1 });
    const { value } = this.block;
    this.view = new DataView(value.registers.buffer);
    this.chip = new Microwire(eepromWords(mac), value.eeprom);
    this.sender = new PlusSender(this, value.plus);
    this.receiver = new PlusReceiver(this, value.plus);
    this.timer = clock.timer(() => this.timeOut());
    this.retry = clock.timer(() => this.resume());
    this.sendLater = clock.timer(() => this.sender.run());
    this.block.keepTimers({ timer: this.timer, retry: this.retry, sendLater: this.sendLater });
    const handler: IoHandler = {
      read: (offset, size) => this.read(offset, size),
      write: (offset, size, written) => this.write(offset, size, written),
    };
    this.addBar(0, { kind: 'io', size: REGISTER_BYTES, name: 'rtl8139-io', handler });
    this.addBar(1, { kind: 'mem32', size: REGISTER_BYTES, name: 'rtl8139-mmio', handler });
    value.registers.set(mac, AT.mac);
    if (backend === null) return;
    backend.onReceive = (frame) => this.receive(frame);
    backend.onWritable = () => this.sender.run();
    backend.onLinkChange = () => this.raise(CAUSE.linkChange);
  }

  protected override extraState(): { save(): DeviceState; load(state: DeviceState): void } {
    return this.block;
  }

  protected override onReset(): void {
    this.resetRegisters();
  }

  protected override onLoad(): void {
    this.starved = true;
    this.block.armTimers();
  }

  /** Frames that waited for a network that was full. */
  afterLoad(): void {
    if (this.block.value.networkFull) this.sender.run();
    this.resume();
  }

  protected override onConfigWrite(offset: number): void {
    if (offset === 4) this.resume();
  }

  // --- For the rings.

  get32(at: number): number {
    return this.view.getUint32(at, true);
  }

  /** @returns the registers say that this is on */
  has(at: number, bit: number): boolean {
    return (this.block.value.registers[at]! & bit) !== 0;
  }

  get isMaster(): boolean {
    return this.busMaster;
  }

  raise(cause: number): void {
    if (cause === 0) return;
    this.view.setUint16(AT.cause, this.view.getUint16(AT.cause, true) | cause, true);
    this.updateInterrupt();
  }

  /** Goes on with sending when the guest has had its turn. */
  continueSending(): void {
    this.sendLater.arm(this.clock.now());
  }

  /** @returns false when the network is full */
  pass(frame: Uint8Array, rest: PacketOffload | null): boolean {
    if ((this.get32(AT.sendConfiguration) & SEND.loopback) === SEND.loopback) {
      this.receive(frame.slice());
      return true;
    }
    const taken = this.backend === null || this.backend.send(frame, rest);
    this.block.value.networkFull = !taken;
    return taken;
  }

  // --- Registers.

  private resetRegisters(): void {
    this.block.reset();
    this.block.value.registers.set(this.mac, AT.mac);
    this.starved = false;
    for (const timer of [this.timer, this.retry, this.sendLater]) timer.cancel();
    this.updateInterrupt();
  }

  private read(offset: number, size: number): number {
    this.refresh(offset);
    let value = 0;
    for (let i = 0; i < size; i++) value |= (this.block.value.registers[offset + i] ?? 0) << (8 * i);
    return value >>> 0;
  }

  /** Registers that follow from something else are put in place when they are read. */
  private refresh(offset: number): void {
    const { registers, timerStart } = this.block.value;
    const up = this.backend?.linkUp === true;
    switch (offset & ~3) {
      case AT.command & ~3:
        registers[AT.command] =
          (registers[AT.command]! & ~COMMAND.bufferEmpty) | (this.ringUsed() === 0 ? COMMAND.bufferEmpty : 0);
        return;
      case AT.timer:
        this.view.setUint32(AT.timer, Math.floor((this.clock.now() - timerStart) / NS_PER_TICK) >>> 0, true);
        return;
      case AT.eeprom & ~3:
        registers[AT.eeprom] = (registers[AT.eeprom]! & ~EEPROM.out) | this.chip.out;
        return;
      case AT.media & ~3:
        registers[AT.media] = up ? registers[AT.media]! & ~MEDIA.linkFailed : registers[AT.media]! | MEDIA.linkFailed;
        return;
      case AT.sendSummary:
        this.view.setUint16(AT.sendSummary, this.summary(), true);
        return;
      case AT.phyStatus:
        registers[AT.phyStatus] = up ? registers[AT.phyStatus]! | PHY.linkUp : registers[AT.phyStatus]! & ~PHY.linkUp;
    }
  }

  private write(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.writeByte(offset + i, (value >>> (8 * i)) & 0xff);
    if (size === 4 && offset >= AT.sendStatus && offset < AT.sendAddress && offset % 4 === 0) this.sendStatusWritten(offset);
    const touches = (at: number, length: number): boolean => offset < at + length && offset + size > at;
    if (touches(AT.mask, 4)) this.updateInterrupt();
    if (touches(AT.timer, 4)) this.block.value.timerStart = this.clock.now();
    if (touches(AT.timer, 4) || touches(AT.timerInterrupt, 4)) this.armTimer();
    if (touches(AT.receiveRing, 8)) this.block.value.plus.receiveIndex = 0;
    if (touches(AT.sendRing, 8)) this.block.value.plus.sendIndex = 0;
    if (touches(AT.priorityRing, 8)) this.block.value.plus.priorityIndex = 0;
    // Whatever the driver does, it may have made room.
    this.resume();
  }

  private writeByte(at: number, byte: number): void {
    const { registers } = this.block.value;
    switch (at) {
      case AT.command:
        if ((byte & COMMAND.reset) !== 0) return this.resetRegisters();
        return this.enable(byte);
      case AT.cause:
      case AT.cause + 1:
        registers[at] = registers[at]! & ~byte;
        return;
      case AT.eeprom:
        registers[at] = byte & ~EEPROM.out;
        if ((byte & EEPROM.mode) !== EEPROM.program) return;
        return this.chip.set((byte & EEPROM.select) !== 0, (byte & EEPROM.clock) !== 0, (byte & EEPROM.in) !== 0);
      case AT.poll:
        if ((byte & POLL.software) !== 0) this.raise(CAUSE.software);
        if ((byte & (POLL.ordinary | POLL.priority)) !== 0) this.sender.poll((byte & POLL.priority) !== 0);
        return;
      case AT.phyControl + 1:
        // Both are over at once.
        registers[at] = byte & ~((PHY.reset | PHY.restart) >> 8);
        return;
    }
    if (at >= AT.sendConfiguration && at < AT.sendConfiguration + 4) {
      const mask = (SEND.writable >>> (8 * (at & 3))) & 0xff;
      registers[at] = (registers[at]! & ~mask) | (byte & mask);
      return;
    }
    const unlocked = (registers[AT.eeprom]! & EEPROM.mode) === EEPROM.unlocked;
    const mask = WRITABLE[at]! | (unlocked ? WRITABLE_UNLOCKED[at]! : 0);
    registers[at] = (registers[at]! & ~mask) | (byte & mask);
  }

  private enable(byte: number): void {
    const { registers } = this.block.value;
    const before = registers[AT.command]!;
    registers[AT.command] = byte & (COMMAND.send | COMMAND.receive);
    if ((byte & ~before & COMMAND.receive) === 0) return;
    // The ring of bytes starts anew.
    this.view.setUint16(AT.writePointer, 0, true);
    this.view.setUint16(AT.readPointer, 0xfff0, true);
  }

  private updateInterrupt(): void {
    this.setIntx((this.view.getUint16(AT.cause, true) & this.view.getUint16(AT.mask, true)) !== 0);
  }

  private armTimer(): void {
    const ticks = this.get32(AT.timerInterrupt);
    const due = this.block.value.timerStart + ticks * NS_PER_TICK;
    if (ticks === 0 || due <= this.clock.now()) this.timer.cancel();
    else this.timer.arm(due);
  }

  private timeOut(): void {
    this.raise(CAUSE.timeOut);
  }

  // --- Four buffers to send.

  /** Words 10h to 1Fh: with descriptors, the first two say where statistics go. */
  private sendStatusWritten(at: number): void {
    if (this.has(AT.plusCommand, PLUS.send)) return at === AT.tally ? this.sender.dumpTally() : undefined;
    this.sendSlots();
  }

  /** Sends what the driver has given, in turn; a buffer that the network does not take is lost. */
  private sendSlots(): void {
    const { value } = this.block;
    for (let i = 0; i < SLOTS; i++) {
      const at = AT.sendStatus + 4 * value.slot;
      const status = this.get32(at);
      if ((status & SLOT.owned) !== 0 || !this.has(AT.command, COMMAND.send)) return;
      const length = status & SLOT.length;
      const from = this.memory.ramOffset(this.get32(AT.sendAddress + 4 * value.slot), length);
      if (from >= 0 && length > 0 && this.busMaster) this.pass(this.memory.ram.subarray(from, from + length), null);
      this.view.setUint32(at, (status | SLOT.owned | SLOT.ok) >>> 0, true);
      value.slot = (value.slot + 1) % SLOTS;
      this.raise(CAUSE.sent);
    }
  }

  /** Status of all four: owned by the card, then sent. */
  private summary(): number {
    let bits = 0;
    for (let slot = 0; slot < SLOTS; slot++) {
      const status = this.get32(AT.sendStatus + 4 * slot);
      if ((status & SLOT.owned) !== 0) bits |= 1 << slot;
      if ((status & SLOT.ok) !== 0) bits |= 1 << (slot + 12);
    }
    return bits;
  }

  // --- Receiving.

  private resume(): void {
    if (!this.starved) return;
    this.starved = false;
    this.retry.cancel();
    this.backend?.resume();
  }

  /** @returns false when there is no room yet */
  private receive(frame: Uint8Array): boolean {
    if (!this.has(AT.command, COMMAND.receive) || !this.busMaster || frame.length < HEADER) return true;
    if (frame.length > LONGEST_FRAME + FCS || !this.passes(frame)) return true;
    const whole = padded(frame);
    const taken = this.has(AT.plusCommand, PLUS.receive) ? this.receiver.take(whole) : this.toRing(whole);
    if (taken) this.raise(CAUSE.received);
    else {
      this.starved = true;
      this.retry.arm(this.clock.now() + RETRY_NS);
      this.raise(CAUSE.overflow);
    }
    return taken;
  }

  private passes(frame: Uint8Array): boolean {
    const control = this.get32(AT.receiveConfiguration);
    if ((control & RECEIVE.all) !== 0) return true;
    if (isBroadcast(frame)) return (control & RECEIVE.broadcast) !== 0;
    const { registers } = this.block.value;
    if (!isGroup(frame)) return (control & RECEIVE.own) !== 0 && isFor(frame, registers.subarray(AT.mac, AT.mac + 6));
    const hash = groupHash(frame);
    return (control & RECEIVE.groups) !== 0 && (registers[AT.groups + (hash >> 3)]! & (1 << (hash & 7))) !== 0;
  }

  private get ringSize(): number {
    return SMALLEST_RING << ((this.get32(AT.receiveConfiguration) >> RECEIVE.lengthShift) & 3);
  }

  /** Bytes of the ring that the driver has not read. */
  private ringUsed(): number {
    const size = this.ringSize;
    const [read, written] = [this.view.getUint16(AT.readPointer, true), this.view.getUint16(AT.writePointer, true)];
    return (((written - read - POINTER_BIAS) % size) + 2 * size) % size;
  }

  private toRing(frame: Uint8Array): boolean {
    const { memory, ringSize: size } = this;
    const length = frame.length + FCS;
    const room = (RING_HEADER + length + 3) & ~3;
    if (this.ringUsed() + room >= size) return false;
    const bytes = new Uint8Array(room);
    const status =
      RING_STATUS.ok | (isBroadcast(frame) ? RING_STATUS.broadcast : isGroup(frame) ? RING_STATUS.group : RING_STATUS.own);
    bytes.set([status & 0xff, status >> 8, length & 0xff, length >> 8]);
    bytes.set(frame, RING_HEADER);
    const base = this.get32(AT.buffer);
    const at = this.view.getUint16(AT.writePointer, true) % size;
    // A frame runs on behind the ring's end, or goes on at its start.
    const wraps = (this.get32(AT.receiveConfiguration) & RECEIVE.wrap) === 0 || size === SMALLEST_RING << 3;
    const before = wraps ? Math.min(room, size - at) : room;
    memory.writeBytes(base + at, bytes.subarray(0, before));
    if (before < room) memory.writeBytes(base, bytes.subarray(before));
    this.view.setUint16(AT.writePointer, (at + room) % size, true);
    return true;
  }
}

function initialRegisters(): Uint8Array {
  const bytes = new Uint8Array(REGISTER_BYTES);
  for (const [at, size, value] of INITIAL) for (let i = 0; i < size; i++) bytes[at + i] = value >>> (8 * i);
  for (let slot = 0; slot < SLOTS; slot++) bytes[AT.sendStatus + 4 * slot + 1] = SLOT.owned >> 8;
  return bytes;
}

function eepromWords(mac: Uint8Array): Uint16Array {
  const words = new Uint16Array(EEPROM_WORDS);
  words.set([EEPROM_SIGNATURE, IDENTITY.vendor, IDENTITY.device, IDENTITY.subsystemVendor, IDENTITY.subsystem]);
  for (let i = 0; i < 3; i++) words[EEPROM_MAC + i] = mac[2 * i]! | (mac[2 * i + 1]! << 8);
  return words;
}

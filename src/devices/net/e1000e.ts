/** Intel 82574L (`e1000e`): Intel 82574 GbE Controller Family Datasheet (317694). One queue of each kind. */
import type { DeviceState } from '../../machine/interfaces.ts';
import type { PciPart } from '../pci.ts';
import { StateBlock } from '../state.ts';
import { E1000, type E1000Model, type E1000Options } from './e1000.ts';
import {
  AT,
  CAUSE,
  CONTROL_NO_MASTER,
  EXTENDED,
  FILTER_EXTENDED,
  OTHER_CAUSES,
  PLAIN,
  RECEIVE_CAUSES,
  SEMAPHORE_TAKEN,
  STATUS,
  STATUS_MASTER,
  TRANSMIT_CAUSES,
  VECTOR_OF,
  VECTOR_VALID,
} from './e1000e-registers.ts';
import { AT as COMMON_AT, CAUSES as COMMON_CAUSES } from './e1000-registers.ts';

const IDENTITY = {
  vendor: 0x8086,
  device: 0x10d3,
  classCode: 0x020000,
  subsystemVendor: 0x8086,
  subsystem: 0,
  interruptPin: 1,
} as const;
const MODEL: E1000Model = {
  identity: IDENTITY,
  status: STATUS,
  // An 82574's own PHY.
  phy: [[3, 0x0cb1]],
  eeprom: {
    ids: [IDENTITY.subsystem, IDENTITY.subsystemVendor, IDENTITY.device, IDENTITY.subsystemVendor],
    // It is there, has been read, and has 64 words.
    control: 0x300,
    fast: { start: 1, done: 2, address: 2, addresses: 0x3fff, data: 16 },
  },
};

/** Base address registers, and capabilities by their place in configuration space. */
const BAR = { flash: 1, ports: 2, vectors: 3 } as const;
const FLASH_BYTES = 0x20000;
const VECTORS = { count: 5, bytes: 0x4000, table: 0, pending: 0x2000 } as const;
const CAPABILITY = { power: 0xc8, msi: 0xd0, express: 0xe0, msix: 0xa0 } as const;
const POWER_ID = 1;
/** Power management 1.1, version 2, and what it can do. */
const POWER = [0x22, 0, 0, 0, 0, 0] as const;
const EXPRESS_ID = 0x10;
/** An endpoint of version 1, one lane of 2.5 GT/s. */
const EXPRESS = [0x01, 0, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0x11, 0x04, 0, 0, 0, 0, 0x11, 0] as const;
const EXPRESS_CONTROL = 8;

/** Time stands still until its increment is set; then it goes on by that every 40 ns. */
const TIME_TICK_NS = 40;
const INCREMENT = 0xffffff;
const PERIOD_SHIFT = 24;

/*
 * What an extended descriptor holds once its buffer is filled (7.1.4): hash 64, status 20, errors 12, length 16, tag 16.
 */
const RECEIVED = { done: 1, end: 2, unchecked: 4, tagged: 8 } as const;

const powerOn = () => ({
  plain: PLAIN.flatMap(([, count, initial]) => new Array<number>(count).fill(initial)),
  /** Causes that a message has been sent for. */
  told: 0,
  timeSet: 0n,
  timeSince: 0,
});

/** Place of a register in `plain`, and its writable bits, by its offset. */
const PLACES = new Map<number, readonly [place: number, writable: number]>();
for (let row = 0, place = 0; row < PLAIN.length; row++) {
  const [at, count, , writable] = PLAIN[row]!;
  for (let i = 0; i < count; i++) PLACES.set(at + 4 * i, [place++, writable]);
}

export class E1000e extends E1000 {
  override readonly type = 'e1000e';
  private readonly more = new StateBlock('e1000e', 1, powerOn, { plain: 0xffffffff, told: 0xffffffff });

  constructor(options: E1000Options) {
    super(options, MODEL);
    this.addBar(BAR.flash, {
      kind: 'mem32',
      size: FLASH_BYTES,
      name: 'e1000e-flash',
      handler: { read: () => 0, write: () => undefined },
    });
    this.addCapability(CAPABILITY.power, POWER_ID, POWER);
    this.setWritable(CAPABILITY.power + 4, [0x03, 0x01]);
    this.addMsi(CAPABILITY.msi, { vectors: 1, masking: false });
    this.addCapability(CAPABILITY.express, EXPRESS_ID, EXPRESS);
    this.setWritable(CAPABILITY.express + EXPRESS_CONTROL, [0xff, 0x7f]);
    this.addVectors();
    const { more } = this;
    const part: PciPart = { reset: () => undefined, save: () => more.save(), load: (state: DeviceState) => more.load(state) };
    this.addPart('e1000e', part);
  }

  protected override addWindow(): void {
    this.addBar(BAR.ports, { kind: 'io', size: 32, name: 'e1000e-io', handler: this.ioWindow() });
  }

  private addVectors(): void {
    const { count, bytes, table, pending } = VECTORS;
    const msix = this.addMsix(CAPABILITY.msix, count, { bar: BAR.vectors, table, pending });
    const handler = {
      read: (at: number, size: number) => (at < pending ? msix.table.read(at, size) : msix.pendingBits.read(at - pending, size)),
      write: (at: number, size: number, value: number) => {
        if (at < pending) msix.table.write(at, size, value);
      },
    };
    this.addBar(BAR.vectors, { kind: 'mem32', size: bytes, name: 'e1000e-msix', handler });
  }

  protected override onReset(): void {
    this.more.reset();
    super.onReset();
  }

  protected override resetRegisters(): void {
    this.more.reset();
    super.resetRegisters();
  }

  // --- Registers.

  protected override read(offset: number): number {
    if (offset === COMMON_AT.status) {
      const noMaster = (this.registers.control & CONTROL_NO_MASTER) !== 0;
      return noMaster ? super.read(offset) & ~STATUS_MASTER : super.read(offset);
    }
    if (offset === AT.timeLow) return Number(this.time & 0xffffffffn);
    if (offset === AT.timeHigh) return Number(this.time >> 32n);
    const place = PLACES.get(offset);
    if (place === undefined) return super.read(offset);
    const { plain } = this.more.value;
    const value = plain[place[0]]!;
    if (offset === AT.semaphore) plain[place[0]] = value | SEMAPHORE_TAKEN;
    return value;
  }

  protected override write(offset: number, value: number): void {
    if (offset === COMMON_AT.causeSet) return this.raise((value & ~CAUSE.asserted) >>> 0);
    if (offset === AT.timeLow || offset === AT.timeHigh) return this.setTime(offset, value);
    // The rate at which time passes changes from now on.
    if (offset === AT.timeIncrement) this.setTime(AT.timeLow, Number(this.time & 0xffffffffn));
    if (offset === EXTENDED.at) {
      this.registers.extendedControl = value & EXTENDED.writable;
      return;
    }
    const place = PLACES.get(offset);
    if (place === undefined) return super.write(offset, value);
    this.more.value.plain[place[0]] = (value & place[1]) >>> 0;
  }

  private plain(at: number): number {
    return this.more.value.plain[PLACES.get(at)![0]]!;
  }

  private get time(): bigint {
    const { timeSet, timeSince } = this.more.value;
    const rate = this.plain(AT.timeIncrement);
    const period = Math.max(1, rate >>> PERIOD_SHIFT);
    const ticks = Math.floor((this.clock.now() - timeSince) / (TIME_TICK_NS * period));
    return (timeSet + BigInt(Math.max(0, ticks)) * BigInt(rate & INCREMENT)) & 0xffffffffffffffffn;
  }

  private setTime(at: number, value: number): void {
    const { more } = this;
    const now = this.time;
    const written = BigInt(value >>> 0);
    more.value.timeSet = at === AT.timeLow ? (now & ~0xffffffffn) | written : (now & 0xffffffffn) | (written << 32n);
    more.value.timeSince = this.clock.now();
  }

  // --- Interrupts (7.4): one for everything, or a message for each queue and one for the rest.

  protected override get causes(): number {
    return COMMON_CAUSES | CAUSE.receive0 | CAUSE.receive1 | CAUSE.transmit0 | CAUSE.transmit1 | CAUSE.other;
  }

  protected override raise(cause: number): void {
    let all = cause;
    if ((cause & RECEIVE_CAUSES) !== 0) all |= CAUSE.receive0;
    if ((cause & TRANSMIT_CAUSES) !== 0) all |= CAUSE.transmit0;
    if ((cause & OTHER_CAUSES) !== 0) all |= CAUSE.other;
    // What comes again is told again.
    this.more.value.told &= ~all;
    super.raise(all >>> 0);
  }

  protected override takeCause(): number {
    const { registers } = this;
    const asserted = (registers.cause & registers.mask) !== 0 ? CAUSE.asserted : 0;
    if (asserted !== 0 && (registers.extendedControl & EXTENDED.autoMask) !== 0) registers.mask &= ~this.plain(AT.causeAutoMask);
    return (super.takeCause() | asserted) >>> 0;
  }

  protected override updateInterrupt(): void {
    if (this.msix?.enabled !== true) return super.updateInterrupt();
    const { registers } = this;
    const state = this.more.value;
    const vectors = this.plain(AT.vectors);
    const autoClear = this.plain(AT.causeAutoClear);
    state.told &= registers.cause & registers.mask;
    for (const [cause, shift] of VECTOR_OF) {
      if ((registers.cause & registers.mask & ~state.told & cause) === 0) continue;
      state.told |= cause;
      const vector = (vectors >>> shift) & 15;
      if ((vector & VECTOR_VALID) !== 0) this.msix.notify(vector & 7);
      if ((autoClear & cause) === 0) continue;
      registers.cause &= ~cause;
      if ((registers.extendedControl & EXTENDED.messageAutoMask) !== 0) registers.mask &= ~cause;
    }
  }

  protected override signal(level: boolean): void {
    if (this.msi?.enabled !== true) return super.signal(level);
    if (level) this.msi.notify(0);
  }

  // --- Receiving.

  protected override reportReceived(at: number, length: number, tag: number, last: boolean): void {
    if ((this.plain(AT.receiveFilter) & FILTER_EXTENDED) === 0) return super.reportReceived(at, length, tag, last);
    const { ram } = this.memory;
    ram.fill(0, at, at + 16);
    ram[at + 8] = RECEIVED.done | (last ? RECEIVED.end | RECEIVED.unchecked | (tag < 0 ? 0 : RECEIVED.tagged) : 0);
    ram[at + 12] = length;
    ram[at + 13] = length >> 8;
    if (tag < 0) return;
    ram[at + 14] = tag;
    ram[at + 15] = tag >> 8;
  }
}

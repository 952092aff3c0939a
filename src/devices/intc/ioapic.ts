/** I/O APIC with 24 pins: Intel 82093AA data sheet (290566), with version 20h's EOI register. */
import type { Device, DeviceState, IoHandler, IrqLine, Msi } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import { type ApicBus, type ApicMessage, DELIVERY, msiOf } from './apic-bus.ts';

const PINS = 24;
const VERSION = 0x20 | ((PINS - 1) << 16);

/** Redirection entry, low word (section 3.2.4). */
const REMOTE_IRR = 1 << 14;
const DELIVERY_STATUS = 1 << 12;
const LEVEL = 1 << 15;
const MASKED = 1 << 16;
const LOGICAL = 1 << 11;
const WRITABLE = 0x1afff;

export class IoApic implements Device {
  readonly type = 'ioapic';
  readonly id: string;
  readonly mmio: IoHandler;

  /** Told when an entry has been written, or all of them have changed. */
  onEntries: (() => void) | null = null;
  private readonly bus: ApicBus;
  private readonly state = new StateBlock(
    'ioapic',
    1,
    () => ({
      select: 0,
      apicId: 0,
      /** Current level of each pin, one bit per pin. */
      lines: 0,
      low: new Array<number>(PINS).fill(MASKED),
      high: new Array<number>(PINS).fill(0),
    }),
    { select: 0xff, apicId: 15, lines: 0xffffff, low: 0xffffffff, high: 0xffffffff },
  );

  constructor(bus: ApicBus, id = 'ioapic') {
    this.bus = bus;
    this.id = id;
    bus.addEoiListener(this);
    this.mmio = {
      read: (offset) => this.read(offset),
      write: (offset, _size, value) => this.write(offset, value),
    };
  }

  /** The polarity bit is not looked at: a line's level here means "asserted". */
  line(pin: number): IrqLine {
    return { set: (level) => this.setLine(pin, level) };
  }

  endOfInterrupt(vector: number): void {
    const s = this.state.value;
    for (let pin = 0; pin < PINS; pin++) {
      const low = s.low[pin]!;
      if ((low & 0xff) !== vector || (low & REMOTE_IRR) === 0) continue;
      s.low[pin] = (low & ~REMOTE_IRR) >>> 0;
      this.serveLevel(pin);
    }
  }

  reset(): void {
    // Pins belong to the devices that drive them: their levels outlive a reset of this chip.
    const { lines } = this.state.value;
    this.state.reset();
    this.state.value.lines = lines;
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
  }

  private setLine(pin: number, level: boolean): void {
    const s = this.state.value;
    const bit = 1 << pin;
    const was = (s.lines & bit) !== 0;
    if (was === level) return;
    s.lines = level ? s.lines | bit : s.lines & ~bit;
    if (!level) return;
    if ((s.low[pin]! & LEVEL) !== 0) this.serveLevel(pin);
    // Edges at a masked pin are neither delivered nor held (section 3.2.4, bit 16).
    else if ((s.low[pin]! & MASKED) === 0) this.sendPin(pin);
  }

  private serveLevel(pin: number): void {
    const s = this.state.value;
    const low = s.low[pin]!;
    if ((low & LEVEL) === 0 || (low & (MASKED | REMOTE_IRR)) !== 0) return;
    if ((s.lines & (1 << pin)) === 0) return;
    const delivery = (low >>> 8) & 7;
    if (delivery === DELIVERY.fixed || delivery === DELIVERY.lowest) {
      s.low[pin] = (low | REMOTE_IRR) >>> 0;
    }
    this.sendPin(pin);
  }

  private sendPin(pin: number): void {
    this.bus.send(this.messageOf(pin));
  }

  private messageOf(pin: number): ApicMessage {
    const s = this.state.value;
    const low = s.low[pin]!;
    return {
      delivery: (low >>> 8) & 7,
      vector: low & 0xff,
      level: (low & LEVEL) !== 0,
      logical: (low & LOGICAL) !== 0,
      destination: s.high[pin]! >>> 24,
    };
  }

  /** What pins send whose interrupts' ends are of interest here: those that are level-triggered, masked or not. */
  levelMessages(): ReadonlyMap<number, Msi> {
    const { low } = this.state.value;
    return new Map(low.flatMap((word, pin) => ((word & LEVEL) === 0 ? [] : [[pin, msiOf(this.messageOf(pin))] as const])));
  }

  private read(offset: number): number {
    if (offset === 0) return this.state.value.select;
    return offset === 0x10 ? this.readRegister() : 0;
  }

  private write(offset: number, value: number): void {
    if (offset === 0) this.state.value.select = value & 0xff;
    else if (offset === 0x10) this.writeRegister(value);
    else if (offset === 0x40) this.endOfInterrupt(value & 0xff);
  }

  private readRegister(): number {
    const s = this.state.value;
    if (s.select === 0 || s.select === 2) return s.apicId << 24;
    if (s.select === 1) return VERSION;
    const pin = (s.select - 0x10) >> 1;
    if (pin < 0 || pin >= PINS) return 0;
    return (s.select & 1) !== 0 ? s.high[pin]! : s.low[pin]!;
  }

  private writeRegister(value: number): void {
    const s = this.state.value;
    if (s.select === 0) s.apicId = (value >>> 24) & 15;
    const pin = (s.select - 0x10) >> 1;
    if (pin < 0 || pin >= PINS) return;
    if ((s.select & 1) !== 0) {
      s.high[pin] = value >>> 0;
      this.onEntries?.();
      return;
    }
    let low = (s.low[pin]! & (REMOTE_IRR | DELIVERY_STATUS)) | (value & WRITABLE);
    // An edge-triggered pin has no remote IRR; software switches modes to clear a stuck one.
    if ((low & LEVEL) === 0) low &= ~REMOTE_IRR;
    s.low[pin] = low >>> 0;
    this.onEntries?.();
    this.serveLevel(pin);
  }
}

/**
 * The PC's pair of 8259A interrupt controllers with the edge/level registers at 4D0h.
 * Intel 8259A data sheet (order 231468); ELCR: Intel 82371SB data sheet, section 2.5.7.
 */
import type { Device, DeviceState, IoHandler, IrqLine } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';

export type ChipState = {
  irr: number;
  isr: number;
  imr: number;
  lines: number;
  elcr: number;
  vectorBase: number;
  lowest: number;
  initStep: number;
  needIcw4: boolean;
  single: boolean;
  readIsr: boolean;
  autoEoi: boolean;
  rotateOnAutoEoi: boolean;
  specialMask: boolean;
  fullyNested: boolean;
  poll: boolean;
};

function powerOn(): ChipState {
  return {
    irr: 0,
    isr: 0,
    imr: 0,
    lines: 0,
    elcr: 0,
    vectorBase: 0,
    /** Input of lowest priority; 7 gives the usual order with input 0 highest. */
    lowest: 7,
    /**
     * Initialisation command word expected next at the odd port: 2, 3 or 4; 0 when done, 1 before
     * the first one. Until it is done the chip requests nothing.
     */
    initStep: 1,
    needIcw4: false,
    single: false,
    readIsr: false,
    autoEoi: false,
    rotateOnAutoEoi: false,
    specialMask: false,
    fullyNested: false,
    poll: false,
  };
}

const CHIP_LIMITS = { irr: 255, isr: 255, imr: 255, lines: 255, elcr: 255, lowest: 7 };

class Chip {
  readonly s: ChipState;
  /** Inputs whose trigger mode is fixed to edge (ELCR bits that do not exist). */
  private readonly elcrMask: number;
  private readonly isMaster: boolean;
  private readonly changed: () => void;

  constructor(state: ChipState, isMaster: boolean, changed: () => void) {
    this.s = state;
    this.isMaster = isMaster;
    this.elcrMask = isMaster ? 0xf8 : 0xde;
    this.changed = changed;
  }

  setLine(input: number, level: boolean): void {
    const s = this.s;
    const bit = 1 << input;
    const was = (s.lines & bit) !== 0;
    if (level === was) return;
    s.lines = level ? s.lines | bit : s.lines & ~bit;
    // A request that falls before its acknowledge is withdrawn in both modes (and then turns
    // spurious): the edge latch follows a falling input.
    s.irr = level ? s.irr | bit : s.irr & ~bit;
    this.changed();
  }

  /** Input to serve now, or -1. */
  pending(): number {
    const s = this.s;
    if (s.initStep !== 0) return -1;
    let blocked = s.isr;
    if (s.specialMask) blocked &= ~s.imr;
    const requests = s.irr & ~s.imr;
    if (requests === 0) return -1;
    for (let i = 1; i <= 8; i++) {
      const input = (s.lowest + i) & 7;
      const bit = 1 << input;
      // Special fully nested mode: the cascade input may interrupt itself.
      const nested = s.fullyNested && this.isMaster && input === 2;
      if ((blocked & bit) !== 0 && !nested && !s.specialMask) return -1;
      if ((requests & bit) !== 0 && ((blocked & bit) === 0 || nested)) return input;
      if ((blocked & bit) !== 0 && !s.specialMask) return -1;
    }
    return -1;
  }

  /** The INTA cycle's effect on the chip's registers. */
  accept(input: number): void {
    const s = this.s;
    const bit = 1 << input;
    if (s.autoEoi) {
      if (s.rotateOnAutoEoi) s.lowest = input;
    } else {
      s.isr |= bit;
    }
    // A level-triggered request stays for as long as its line does.
    if ((s.elcr & bit) === 0) s.irr &= ~bit;
  }

  read(offset: number): number {
    const s = this.s;
    if (s.poll) return this.readPoll();
    if (offset === 1) return s.imr;
    return s.readIsr ? s.isr : s.irr;
  }

  write(offset: number, value: number): void {
    if (offset === 1) this.writeData(value);
    else if ((value & 0x10) !== 0) this.startInit(value);
    else if ((value & 0x08) !== 0) this.writeOcw3(value);
    else this.writeOcw2(value);
    this.changed();
  }

  readElcr(): number {
    return this.s.elcr;
  }

  writeElcr(value: number): void {
    this.s.elcr = value & this.elcrMask;
  }

  /** Poll command: a read stands in for the INTA cycle. */
  private readPoll(): number {
    this.s.poll = false;
    const input = this.pending();
    if (input < 0) return 0;
    this.accept(input);
    this.changed();
    return 0x80 | input;
  }

  private startInit(icw1: number): void {
    const s = this.s;
    const { lines, elcr } = s;
    // The edge-sense circuit is reset: inputs must rise anew, unless they are level-triggered.
    Object.assign(s, powerOn(), { lines, elcr, irr: lines & elcr });
    s.initStep = 2;
    s.needIcw4 = (icw1 & 1) !== 0;
    s.single = (icw1 & 2) !== 0;
  }

  private writeData(value: number): void {
    const s = this.s;
    if (s.initStep <= 1) {
      s.imr = value;
    } else if (s.initStep === 2) {
      s.vectorBase = value & 0xf8;
      s.initStep = s.single ? (s.needIcw4 ? 4 : 0) : 3;
    } else if (s.initStep === 3) {
      s.initStep = s.needIcw4 ? 4 : 0;
    } else {
      s.autoEoi = (value & 2) !== 0;
      s.fullyNested = (value & 0x10) !== 0;
      s.initStep = 0;
    }
  }

  private writeOcw3(value: number): void {
    const s = this.s;
    if ((value & 4) !== 0) s.poll = true;
    if ((value & 2) !== 0) s.readIsr = (value & 1) !== 0;
    if ((value & 0x40) !== 0) s.specialMask = (value & 0x20) !== 0;
  }

  private writeOcw2(value: number): void {
    const s = this.s;
    const level = value & 7;
    switch (value >> 5) {
      case 0:
        s.rotateOnAutoEoi = false;
        break;
      case 4:
        s.rotateOnAutoEoi = true;
        break;
      case 1:
        this.endOfInterrupt(false);
        break;
      case 5:
        this.endOfInterrupt(true);
        break;
      case 3:
        s.isr &= ~(1 << level);
        break;
      case 6:
        s.lowest = level;
        break;
      case 7:
        s.isr &= ~(1 << level);
        s.lowest = level;
        break;
      default:
        break;
    }
  }

  /** Non-specific EOI: ends the in-service interrupt of highest priority. */
  private endOfInterrupt(rotate: boolean): void {
    const s = this.s;
    const candidates = s.specialMask ? s.isr & ~s.imr : s.isr;
    for (let i = 1; i <= 8; i++) {
      const input = (s.lowest + i) & 7;
      if ((candidates & (1 << input)) === 0) continue;
      s.isr &= ~(1 << input);
      if (rotate) s.lowest = input;
      return;
    }
  }
}

export class I8259Pair implements Device {
  readonly type = 'isa-i8259';
  readonly id: string;
  /** Ports 20h, A0h (two each) and 4D0h (two). */
  readonly master: IoHandler;
  readonly slave: IoHandler;
  readonly elcr: IoHandler;
  /** The INTR output (`intr`) may have changed. */
  onIntr: (() => void) | undefined;

  private readonly state: StateBlock<{ master: ChipState; slave: ChipState }>;
  private readonly chips: readonly [Chip, Chip];

  constructor(id = 'pic') {
    this.id = id;
    this.state = new StateBlock(id, 1, () => ({ master: powerOn(), slave: powerOn() }));
    const { master, slave } = this.state.value;
    const first = new Chip(master, true, () => this.update());
    const second = new Chip(slave, false, () => this.update());
    this.chips = [first, second];
    this.master = chipHandler(first);
    this.slave = chipHandler(second);
    this.elcr = {
      read: (offset) => this.chips[offset & 1]!.readElcr(),
      write: (offset, _size, value) => this.chips[offset & 1]!.writeElcr(value),
    };
  }

  /** @param irq 0 to 15; 2 is the cascade and has no line of its own */
  line(irq: number): IrqLine {
    const chip = this.chips[irq >> 3]!;
    return { set: (level) => chip.setLine(irq & 7, level) };
  }

  get intr(): boolean {
    return this.chips[0].pending() >= 0;
  }

  /** The two INTA cycles. @returns the vector; without a request, the spurious one of input 7 */
  acknowledge(): number {
    const [master, slave] = this.chips;
    const input = master.pending();
    if (input < 0) return master.s.vectorBase | 7;
    master.accept(input);
    let vector = master.s.vectorBase | input;
    if (input === 2) {
      const second = slave.pending();
      // A spurious interrupt of the slave leaves the master's input 2 in service (page 18).
      if (second >= 0) slave.accept(second);
      vector = slave.s.vectorBase | (second < 0 ? 7 : second);
    }
    this.update();
    return vector;
  }

  reset(): void {
    // Inputs belong to the devices that drive them: their levels outlive a reset of the chips.
    const lines = this.chips.map(({ s }) => s.lines);
    this.state.reset();
    this.chips.forEach(({ s }, i) => (s.lines = lines[i]!));
    this.update();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
    for (const chip of this.chips) clampChip(chip.s);
    this.update();
  }

  private update(): void {
    const [master, slave] = this.chips;
    // Reading `pending` afresh keeps the cascade's request after the master has served one.
    const cascade = slave.pending() >= 0;
    if (cascade !== ((master.s.lines & 4) !== 0)) {
      master.setLine(2, cascade);
      return;
    }
    if (cascade) master.s.irr |= 4;
    this.onIntr?.();
  }
}

function clampChip(s: ChipState): void {
  s.irr &= CHIP_LIMITS.irr;
  s.isr &= CHIP_LIMITS.isr;
  s.imr &= CHIP_LIMITS.imr;
  s.lines &= CHIP_LIMITS.lines;
  s.elcr &= CHIP_LIMITS.elcr;
  s.lowest &= CHIP_LIMITS.lowest;
}

function chipHandler(chip: Chip): IoHandler {
  return {
    read: (offset) => chip.read(offset & 1),
    write: (offset, _size, value) => chip.write(offset & 1, value & 0xff),
  };
}

/**
 * High precision event timer: IA-PC HPET specification 1.0a. Three comparators without FSB
 * delivery; the main counter is 64 bits wide and ticks every 10 ns.
 */
import type { Device, DeviceState, IoHandler, IrqLine, Timer, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';

const COMPARATORS = 3;
const TICK_NS = 10;
const PERIOD_FS = TICK_NS * 1_000_000;
const MIN_PERIOD_NS = 10_000;
const U64 = 0xffff_ffff_ffff_ffffn;
const U32 = 0xffff_ffffn;

/** General configuration (2.3.5). */
const ENABLE = 1;
const LEGACY = 2;
/** Comparator configuration (2.3.8). */
const TN = {
  level: 1 << 1,
  interrupt: 1 << 2,
  periodic: 1 << 3,
  canPeriodic: 1 << 4,
  is64: 1 << 5,
  setValue: 1 << 6,
  force32: 1 << 8,
  route: 0x3e00,
} as const;
const TN_WRITABLE = TN.level | TN.interrupt | TN.periodic | TN.setValue | TN.force32 | TN.route;
/** I/O APIC pins each comparator may be routed to: 2, 8, and 16 to 23. */
const ROUTES = 0x00ff0104;
/** 7-0: revision; 12-8: last comparator; 13: 64-bit counter; 15: legacy route; vendor 8086h. */
const CAPABILITIES = 0x80860000 | 1 | ((COMPARATORS - 1) << 8) | (1 << 13) | (1 << 15);

function comparatorPowerOn() {
  return { config: TN.canPeriodic | TN.is64, comparator: U64, period: 0n };
}

type ComparatorState = ReturnType<typeof comparatorPowerOn>;

export class Hpet implements Device {
  readonly type = 'hpet';
  readonly id: string;
  readonly mmio: IoHandler;
  /** Legacy replacement took IRQ 0 and 8 over, or gave them back. */
  onLegacyRoute: ((on: boolean) => void) | undefined;

  private readonly clock: VirtualClock;
  private readonly lines: readonly IrqLine[];
  private readonly timers: Timer[];
  private readonly state = new StateBlock(
    'hpet',
    1,
    () => ({
      config: 0,
      /** One bit per level-triggered comparator that asserts its line. */
      status: 0,
      /** One bit per comparator that holds its line high. */
      raised: 0,
      /** Counter while stopped; while running, counter minus virtual ticks. */
      offset: 0n,
      comparators: Array.from({ length: COMPARATORS }, comparatorPowerOn),
    }),
    { config: 3, status: 7, raised: 7 },
  );

  /** @param lines the 24 interrupt lines by number of the I/O APIC's pin; 0 and 8 go to the 8259 */
  constructor(clock: VirtualClock, lines: readonly IrqLine[], id = 'hpet') {
    this.id = id;
    this.clock = clock;
    this.lines = lines;
    this.timers = Array.from({ length: COMPARATORS }, (_, i) => clock.timer((now) => this.expired(i, now)));
    this.state.keepTimers(Object.fromEntries(this.timers.map((timer, i) => [`comparator${i}`, timer])));
    this.mmio = {
      read: (offset, size) => this.readMmio(offset, size),
      write: (offset, size, value) => this.writeMmio(offset, size, value),
    };
  }

  reset(): void {
    const legacy = this.legacy;
    for (let i = 0; i < COMPARATORS; i++) this.lower(i);
    this.state.reset();
    for (const timer of this.timers) timer.cancel();
    if (legacy) this.onLegacyRoute?.(false);
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    for (let i = 0; i < COMPARATORS; i++) this.lineOf(i)?.set(false);
    this.state.load(state);
    const s = this.state.value;
    s.offset = BigInt.asUintN(64, s.offset);
    for (const c of s.comparators) {
      c.config = (c.config & TN_WRITABLE) | TN.canPeriodic | TN.is64;
      c.comparator = BigInt.asUintN(64, c.comparator);
      c.period = BigInt.asUintN(64, c.period);
    }
    for (let i = 0; i < COMPARATORS; i++) {
      if ((s.raised & (1 << i)) !== 0) this.lineOf(i)?.set(true);
    }
    this.state.armTimers();
  }

  private get running(): boolean {
    return (this.state.value.config & ENABLE) !== 0;
  }

  private get legacy(): boolean {
    return (this.state.value.config & LEGACY) !== 0;
  }

  private virtualTicks(): bigint {
    return BigInt(Math.floor(this.clock.now() / TICK_NS));
  }

  private counter(): bigint {
    const { offset } = this.state.value;
    return this.running ? (offset + this.virtualTicks()) & U64 : offset;
  }

  /** Accesses narrower than 32 bits are outside the specification (2.1); they see whole words. */
  private readMmio(offset: number, size: number): number {
    const word = this.readWord(offset & ~3) >>> (8 * (offset & 3));
    return size === 4 ? word : size === 2 ? word & 0xffff : word & 0xff;
  }

  private readWord(offset: number): number {
    const s = this.state.value;
    const half = offset & 4;
    switch (offset & ~7) {
      case 0x00:
        return half === 0 ? CAPABILITIES >>> 0 : PERIOD_FS;
      case 0x10:
        return half === 0 ? s.config : 0;
      case 0x20:
        return half === 0 ? s.status : 0;
      case 0xf0:
        return wordOf(this.counter(), half);
      default:
        break;
    }
    const c = s.comparators[(offset - 0x100) >> 5];
    if (offset < 0x100 || c === undefined) return 0;
    switch (offset & 0x18) {
      case 0x00:
        return half === 0 ? c.config : ROUTES;
      case 0x08:
        return wordOf(c.comparator, half);
      default:
        return 0;
    }
  }

  private writeMmio(offset: number, size: number, value: number): void {
    if (size !== 4 || (offset & 3) !== 0) return;
    const s = this.state.value;
    const half = offset & 4;
    switch (offset & ~7) {
      case 0x10:
        return half === 0 ? this.writeConfig(value) : undefined;
      case 0x20:
        return half === 0 ? this.writeStatus(value) : undefined;
      case 0xf0:
        // The counter may only be written while it stands still (2.3.7).
        if (!this.running) s.offset = withWord(s.offset, half, value);
        return;
      default:
        break;
    }
    const index = (offset - 0x100) >> 5;
    if (offset < 0x100 || index >= COMPARATORS) return;
    const register = offset & 0x1c;
    if (register === 0) this.writeComparatorConfig(index, value);
    else if (register === 8 || register === 12) this.writeComparator(index, half, value);
  }

  private writeConfig(value: number): void {
    const s = this.state.value;
    const was = s.config;
    const current = this.counter();
    s.config = value & (ENABLE | LEGACY);
    s.offset = this.running ? (current - this.virtualTicks()) & U64 : current;
    if (((was ^ s.config) & LEGACY) !== 0) this.onLegacyRoute?.(this.legacy);
    this.armAll();
  }

  /** Level-triggered lines fall when software writes 1 to their status bit (2.3.6). */
  private writeStatus(value: number): void {
    for (let i = 0; i < COMPARATORS; i++) {
      if ((value & this.state.value.status & (1 << i)) !== 0) this.lower(i);
    }
  }

  private writeComparatorConfig(index: number, value: number): void {
    const c = this.state.value.comparators[index]!;
    const changed = c.config ^ value;
    if ((changed & (TN.level | TN.route | TN.interrupt)) !== 0) this.lower(index);
    c.config = (c.config & ~TN_WRITABLE) | (value & TN_WRITABLE);
    if ((c.config & TN.force32) !== 0) {
      c.comparator &= U32;
      c.period &= U32;
    }
    this.arm(index);
  }

  private writeComparator(index: number, half: number, value: number): void {
    const c = this.state.value.comparators[index]!;
    const only32 = (c.config & TN.force32) !== 0;
    if (only32 && half !== 0) return;
    const periodic = (c.config & TN.periodic) !== 0;
    // In periodic mode a write sets the period, and the comparator too if "set value" allows it
    // (2.3.9.2.2); that bit clears itself.
    if (!periodic || (c.config & TN.setValue) !== 0) {
      c.comparator = withWord(c.comparator, half, value);
    }
    if (periodic) c.period = withWord(c.period, half, value);
    // A 64-bit write arrives as two: the bit must last until the high half.
    if (half !== 0 || only32) c.config &= ~TN.setValue;
    if (only32) c.comparator &= U32;
    this.arm(index);
  }

  private armAll(): void {
    for (let i = 0; i < COMPARATORS; i++) this.arm(i);
  }

  private arm(index: number, earliest = 0): void {
    const c = this.state.value.comparators[index]!;
    const timer = this.timers[index]!;
    // A comparator without interrupt enable has no effect anyone could see: status stays 0 too.
    if (!this.running || (c.config & TN.interrupt) === 0) return timer.cancel();
    const now = this.counter();
    const width = (c.config & TN.force32) !== 0 ? 32 : 64;
    if ((c.config & TN.periodic) !== 0) catchUp(c, now, width);
    // The counter matches again after it has wrapped: distance 0 means "right now".
    const distance = BigInt.asUintN(width, c.comparator - now);
    const at = (Math.floor(this.clock.now() / TICK_NS) + Number(distance)) * TICK_NS;
    timer.arm(Math.max(at, earliest));
  }

  private expired(index: number, now: number): void {
    const c = this.state.value.comparators[index]!;
    this.raise(index);
    if ((c.config & TN.periodic) === 0) {
      // One shot: the next match is a whole wrap of the counter away.
      if ((c.config & TN.force32) !== 0) this.timers[index]!.arm(now + 2 ** 32 * TICK_NS);
      return;
    }
    if (c.period === 0n) return;
    c.comparator = BigInt.asUintN((c.config & TN.force32) !== 0 ? 32 : 64, c.comparator + c.period);
    this.arm(index, now + MIN_PERIOD_NS);
  }

  private lineOf(index: number): IrqLine | undefined {
    if (this.legacy && index < 2) return this.lines[index === 0 ? 0 : 8];
    return this.lines[(this.state.value.comparators[index]!.config & TN.route) >> 9];
  }

  private raise(index: number): void {
    const s = this.state.value;
    const line = this.lineOf(index);
    if ((s.comparators[index]!.config & TN.level) !== 0) {
      s.status |= 1 << index;
    } else {
      // The edge comes from below; the line then rests high, so that a masked CPU cannot miss it.
      line?.set(false);
    }
    s.raised |= 1 << index;
    line?.set(true);
  }

  private lower(index: number): void {
    const s = this.state.value;
    s.status &= ~(1 << index);
    s.raised &= ~(1 << index);
    this.lineOf(index)?.set(false);
  }
}

/** Skips periods that have passed unserved, e.g. while the machine was not scheduled. */
function catchUp(c: ComparatorState, now: bigint, width: number): void {
  if (c.period === 0n) return;
  const behind = BigInt.asIntN(width, now - c.comparator);
  if (behind > 0n) {
    c.comparator = BigInt.asUintN(width, c.comparator + (behind / c.period + 1n) * c.period);
  }
}

function wordOf(value: bigint, half: number): number {
  return Number(half === 0 ? value & U32 : value >> 32n);
}

function withWord(value: bigint, half: number, word: number): bigint {
  const bits = BigInt(word >>> 0);
  return half === 0 ? (value & ~U32 & U64) | bits : (value & U32) | (bits << 32n);
}

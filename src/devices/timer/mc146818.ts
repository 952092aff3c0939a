/**
 * MC146818 real-time clock and CMOS memory: Motorola MC146818A data sheet (ADI-856), with the
 * PC/AT's century byte and NMI mask.
 */
import type { Device, DeviceState, IoHandler, IrqLine, Timer, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import { type Calendar, fromCalendar, nextAlarm, toCalendar } from './calendar.ts';

const SECOND = 1e9;
/** UIP rises 244 us before an update (data sheet, table 6, t_BUC). */
const UPDATE_NOTICE_NS = 244_140;

const REG = {
  seconds: 0,
  secondsAlarm: 1,
  minutes: 2,
  minutesAlarm: 3,
  hours: 4,
  hoursAlarm: 5,
  weekday: 6,
  day: 7,
  month: 8,
  year: 9,
  a: 10,
  b: 11,
  c: 12,
  d: 13,
  century: 0x32,
} as const;
/** Nanoseconds since what a saved state tells of: three hundred years. */
const MOST_AGO = 1e19;
const A_UIP = 0x80;
const B = {
  set: 0x80,
  periodic: 0x40,
  alarm: 0x20,
  update: 0x10,
  binary: 0x04,
  hours24: 0x02,
} as const;
const C = { irq: 0x80, periodic: 0x40, alarm: 0x20, update: 0x10 } as const;

export type RtcOptions = {
  /** Seconds since 1970 that the guest's calendar shows at virtual time zero. */
  baseSeconds: number;
  /** The host's clock instead of the virtual one (`-rtc clock=host`): nanoseconds that never go back. */
  hostNow?: () => number;
};

/** @param base `utc`, `localtime` or a date as `-rtc base=` takes it */
export function rtcBaseSeconds(base: string, now: Date = new Date()): number {
  const seconds = Math.floor(now.getTime() / 1000);
  if (base === 'utc') return seconds;
  if (base === 'localtime') return seconds - now.getTimezoneOffset() * 60;
  const parsed = /^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d)?$/.test(base)
    ? Date.parse(base.length === 10 ? `${base}T00:00:00Z` : `${base}Z`)
    : NaN;
  if (Number.isNaN(parsed)) {
    throw new Error(`rtc base "${base}" is not utc, localtime or a date like 2026-01-31T12:00:00`);
  }
  return Math.floor(parsed / 1000);
}

export class Mc146818 implements Device {
  readonly type = 'mc146818rtc';
  readonly id: string;
  /** Ports 70h and 71h. */
  readonly ports: IoHandler;
  /** Bit 7 of port 70h: non-maskable interrupts are kept from the CPU. */
  get nmiMasked(): boolean {
    return this.state.value.nmiMasked;
  }

  private readonly now: () => number;
  /** Milliseconds since 1970 where the calendar follows the host's, else 0. */
  private readonly wallNow: () => number;
  private readonly clock: VirtualClock;
  private readonly irq: IrqLine;
  private readonly timer: Timer;
  private readonly baseSeconds: number;
  private readonly state = new StateBlock(
    'rtc',
    1,
    () => ({
      index: 0,
      nmiMasked: false,
      cmos: new Uint8Array(128),
      /** The calendar showed `epochSeconds` at `epochNs` and has run since, unless it is stopped. */
      epochSeconds: 0,
      epochNs: 0,
      /** Up to here, flags of register C have been derived from the passing of time. */
      flagsNs: 0,
      /** HPET legacy replacement cut the interrupt off. */
      irqCut: false,
    }),
    { index: 127, epochSeconds: 2 ** 40 },
  );

  constructor(clock: VirtualClock, irq: IrqLine, options: RtcOptions, id = 'rtc') {
    this.id = id;
    this.clock = clock;
    this.irq = irq;
    this.now = options.hostNow ?? (() => clock.now());
    this.baseSeconds = options.baseSeconds;
    this.timer = clock.timer(() => this.update());
    this.state.keepTimers({ event: this.timer });
    this.wallNow = options.hostNow === undefined ? () => 0 : () => Date.now();
    this.ports = {
      read: (offset) => (offset === 0 ? 0xff : this.readCmos(this.state.value.index)),
      write: (offset, _size, value) => this.writePort(offset, value & 0xff),
    };
    const s = this.state.value;
    s.epochNs = this.now();
    s.flagsNs = s.epochNs;
    s.epochSeconds = this.baseSeconds;
    s.cmos[REG.a] = 0x26;
    s.cmos[REG.b] = B.hours24;
    this.storeCalendar();
  }

  /** Sets a byte of battery-backed memory, as the board does for memory sizes. */
  setCmos(index: number, value: number): void {
    this.state.value.cmos[index & 127] = value;
  }

  setIrqCut(cut: boolean): void {
    this.state.value.irqCut = cut;
    this.update();
  }

  /** The RESET pin clears interrupt enables and flags; time and memory run on (section 3). */
  reset(): void {
    const s = this.state.value;
    s.index = 0;
    s.nmiMasked = false;
    s.cmos[REG.b] = s.cmos[REG.b]! & ~(B.periodic | B.alarm | B.update);
    s.cmos[REG.c] = 0;
    s.flagsNs = this.now();
    this.update();
  }

  /** Times of the host's clock mean nothing to another host: it is saved how long they are ago. */
  saveState(): DeviceState {
    const state = this.state.save();
    const now = this.now();
    const { epochNs, flagsNs } = this.state.value;
    Object.assign(state.fields, { epochNs: now - epochNs, flagsNs: now - flagsNs, wallMs: this.wallNow() });
    return state;
  }

  loadState(state: DeviceState): void {
    const { wallMs, ...fields } = state.fields;
    if (typeof wallMs !== 'number' || !Number.isFinite(wallMs)) throw new Error(`${this.id}: field "wallMs" is not a time`);
    for (const name of ['epochNs', 'flagsNs']) {
      const ago = fields[name];
      if (typeof ago === 'number' && Math.abs(ago) > MOST_AGO)
        throw new Error(`${this.id}: field "${name}" is ${ago}, which is no time`);
    }
    this.state.load({ ...state, fields });
    const s = this.state.value;
    const now = this.now();
    // The host's calendar has gone on while there was no machine.
    const meanwhile = Math.max(0, this.wallNow() - wallMs) * 1e6;
    s.epochNs = now - s.epochNs - meanwhile;
    s.flagsNs = now - s.flagsNs - meanwhile;
    this.drive();
    this.state.armTimers();
  }

  private writePort(offset: number, value: number): void {
    const s = this.state.value;
    if (offset === 0) {
      s.index = value & 0x7f;
      s.nmiMasked = (value & 0x80) !== 0;
    } else {
      this.writeCmos(s.index, value);
    }
  }

  private readCmos(index: number): number {
    const { cmos } = this.state.value;
    if (isCalendar(index)) {
      if (this.ticking) this.storeCalendar();
      return cmos[index]!;
    }
    switch (index) {
      case REG.a:
        return (cmos[REG.a]! & 0x7f) | (this.updateInProgress() ? A_UIP : 0);
      case REG.c:
        return this.readFlags();
      case REG.d:
        return 0x80;
      default:
        return cmos[index]!;
    }
  }

  private writeCmos(index: number, value: number): void {
    const { cmos } = this.state.value;
    if (index === REG.c || index === REG.d) return;
    if (index === REG.a || index === REG.b) return this.writeControl(index, value);
    if (isCalendar(index) && this.ticking) {
      // Writing while the clock runs changes one field of the current time.
      this.storeCalendar();
      cmos[index] = value;
      this.restartAt(this.phase());
    } else {
      this.collectFlags();
      cmos[index] = value;
    }
    this.update();
  }

  private writeControl(index: number, value: number): void {
    const { cmos } = this.state.value;
    this.collectFlags();
    const wasTicking = this.ticking;
    if (wasTicking) this.storeCalendar();
    const phase = this.phase();
    const wasHeld = this.dividerHeld;
    cmos[index] = index === REG.a ? value & 0x7f : value;
    // SET aborts an update and thereby its interrupt (register B, bit 7).
    if (index === REG.b && (value & B.set) !== 0) cmos[REG.b] = cmos[REG.b]! & ~B.update;
    // The first update follows half a second after the divider's reset ends (register A).
    if (!wasTicking && this.ticking) this.restartAt(wasHeld ? SECOND / 2 : phase);
    this.update();
  }

  private get dividerHeld(): boolean {
    return (this.state.value.cmos[REG.a]! & 0x60) === 0x60;
  }

  private get ticking(): boolean {
    return (this.state.value.cmos[REG.b]! & B.set) === 0 && !this.dividerHeld;
  }

  /** Nanoseconds into the current second. */
  private phase(): number {
    return modulo(this.now() - this.state.value.epochNs, SECOND);
  }

  private seconds(now: number): number {
    const s = this.state.value;
    return s.epochSeconds + Math.floor((now - s.epochNs) / SECOND);
  }

  private updateInProgress(): boolean {
    return this.ticking && this.phase() >= SECOND - UPDATE_NOTICE_NS;
  }

  private encode(value: number): number {
    const binary = (this.state.value.cmos[REG.b]! & B.binary) !== 0;
    return binary ? value : (Math.floor(value / 10) << 4) | (value % 10);
  }

  private decode(value: number): number {
    const binary = (this.state.value.cmos[REG.b]! & B.binary) !== 0;
    return binary ? value : (value >> 4) * 10 + (value & 15);
  }

  private encodeHour(hour: number): number {
    if ((this.state.value.cmos[REG.b]! & B.hours24) !== 0) return this.encode(hour);
    return this.encode(hour % 12 === 0 ? 12 : hour % 12) | (hour >= 12 ? 0x80 : 0);
  }

  private decodeHour(value: number): number {
    if ((this.state.value.cmos[REG.b]! & B.hours24) !== 0) return this.decode(value);
    return (this.decode(value & 0x7f) % 12) + ((value & 0x80) !== 0 ? 12 : 0);
  }

  /** Writes the current time into the calendar registers. */
  private storeCalendar(): void {
    const { cmos } = this.state.value;
    const c = toCalendar(this.seconds(this.now()));
    cmos[REG.seconds] = this.encode(c.second);
    cmos[REG.minutes] = this.encode(c.minute);
    cmos[REG.hours] = this.encodeHour(c.hour);
    cmos[REG.weekday] = this.encode(c.weekday);
    cmos[REG.day] = this.encode(c.day);
    cmos[REG.month] = this.encode(c.month);
    cmos[REG.year] = this.encode(c.year % 100);
    // Always BCD on the PC, whatever register B says.
    cmos[REG.century] = (Math.floor(c.year / 1000) << 4) | (Math.floor(c.year / 100) % 10);
  }

  private loadCalendar(): Calendar {
    const { cmos } = this.state.value;
    const century = (cmos[REG.century]! >> 4) * 10 + (cmos[REG.century]! & 15);
    return {
      second: this.decode(cmos[REG.seconds]!),
      minute: this.decode(cmos[REG.minutes]!),
      hour: this.decodeHour(cmos[REG.hours]!),
      day: this.decode(cmos[REG.day]!),
      month: this.decode(cmos[REG.month]!),
      year: century * 100 + this.decode(cmos[REG.year]!),
      weekday: 0,
    };
  }

  private restartAt(phase: number): void {
    const s = this.state.value;
    s.epochSeconds = fromCalendar(this.loadCalendar());
    s.epochNs = this.now() - phase;
  }

  // --- flags and interrupts

  /** Period of the periodic interrupt in nanoseconds (table 5), 0 for none. */
  private period(): number {
    const rate = this.state.value.cmos[REG.a]! & 15;
    if (rate === 0 || this.dividerHeld) return 0;
    // Rates 1 and 2 repeat 8 and 9 with the PC's 32,768 Hz crystal.
    return (SECOND * 2 ** ((rate < 3 ? rate + 7 : rate) - 1)) / 32768;
  }

  private alarmPattern(): { hour: number; minute: number; second: number } {
    const { cmos } = this.state.value;
    const field = (index: number) => (cmos[index]! >= 0xc0 ? -1 : this.decode(cmos[index]!));
    const hours = cmos[REG.hoursAlarm]!;
    return {
      second: field(REG.secondsAlarm),
      minute: field(REG.minutesAlarm),
      hour: hours >= 0xc0 ? -1 : this.decodeHour(hours),
    };
  }

  /** Sets the flags for what has happened since they were last derived. */
  private collectFlags(): void {
    const s = this.state.value;
    const now = this.now();
    const from = s.flagsNs;
    s.flagsNs = now;
    if (now <= from) return;
    let flags = 0;
    const period = this.period();
    if (period !== 0) {
      const before = Math.floor((from - s.epochNs) / period);
      if (Math.floor((now - s.epochNs) / period) !== before) flags |= C.periodic;
    }
    if (this.ticking) {
      const then = this.seconds(from);
      const current = this.seconds(now);
      if (current !== then) flags |= C.update;
      if (current > then && nextAlarm(then, this.alarmPattern()) <= current) flags |= C.alarm;
    }
    s.cmos[REG.c] = s.cmos[REG.c]! | flags;
  }

  private readFlags(): number {
    this.collectFlags();
    const { cmos } = this.state.value;
    const value = this.flags();
    cmos[REG.c] = 0;
    this.update();
    return value;
  }

  private flags(): number {
    const { cmos } = this.state.value;
    const raised = cmos[REG.c]! & 0x70;
    return raised | ((raised & cmos[REG.b]!) !== 0 ? C.irq : 0);
  }

  private drive(): void {
    this.irq.set((this.flags() & C.irq) !== 0 && !this.state.value.irqCut);
  }

  /** Drives the line and arms the clock for the next enabled event. */
  private update(): void {
    this.collectFlags();
    const asserted = (this.flags() & C.irq) !== 0;
    this.drive();
    const next = asserted ? Infinity : this.nextEvent();
    if (next === Infinity) this.timer.cancel();
    else this.timer.arm(this.clock.now() + Math.max(1, Math.ceil(next - this.now())));
  }

  private nextEvent(): number {
    const s = this.state.value;
    const enables = s.cmos[REG.b]!;
    const now = this.now();
    let next = Infinity;
    const period = this.period();
    if ((enables & B.periodic) !== 0 && period !== 0) {
      next = s.epochNs + (Math.floor((now - s.epochNs) / period) + 1) * period;
    }
    if (!this.ticking) return next;
    const current = this.seconds(now);
    const second = (at: number) => s.epochNs + (at - s.epochSeconds) * SECOND;
    if ((enables & B.update) !== 0) next = Math.min(next, second(current + 1));
    if ((enables & B.alarm) !== 0) {
      next = Math.min(next, second(nextAlarm(current, this.alarmPattern())));
    }
    return next;
  }
}

function isCalendar(index: number): boolean {
  return (
    index === REG.century ||
    (index < REG.a && index !== REG.secondsAlarm && index !== REG.minutesAlarm && index !== REG.hoursAlarm)
  );
}

function modulo(value: number, by: number): number {
  return ((value % by) + by) % by;
}

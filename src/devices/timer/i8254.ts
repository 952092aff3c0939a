/**
 * 8254 programmable interval timer with port 61h: Intel 8254 data sheet (order 231164).
 *
 * Counters are not stepped: count and output are computed from the time since the count was
 * loaded, and channel 0 keeps one clock timer armed for its next rising edge.
 */
import type { Device, DeviceState, IoHandler, IrqLine, Timer, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';

const FREQUENCY = 1_193_182;
const NS_PER_TICK = 1e9 / FREQUENCY;
/** Shortest period served: a count of 2 must not drown the machine in ticks. */
const MIN_PERIOD_NS = 10_000;

/** Access modes of a control word (RW1 RW0). */
const ACCESS = { low: 1, high: 2, both: 3 } as const;

function channelPowerOn(gate: boolean) {
  return {
    mode: 3,
    access: ACCESS.both as number,
    bcd: false,
    /** Initial count, 1 to 65536; 0 when none was loaded yet. */
    count: 0,
    gate,
    /** Ticks counted before `startNs`, where a low gate stopped counting. */
    heldTicks: 0,
    /** Virtual time from which ticks count, -1 while stopped. */
    startNs: -1,
    /** The next data byte is the high one. */
    readHigh: false,
    writeHigh: false,
    writeLow: 0,
    /** Bytes of latched count still to be read, and the count. */
    latchedBytes: 0,
    latchedCount: 0,
    statusLatched: false,
    status: 0,
  };
}

export type ChannelState = ReturnType<typeof channelPowerOn>;

class Channel {
  readonly s: ChannelState;
  private readonly now: () => number;

  constructor(state: ChannelState, now: () => number) {
    this.s = state;
    this.now = now;
  }

  writeControl(value: number): void {
    const s = this.s;
    const access = (value >> 4) & 3;
    if (access === 0) return this.latchCount();
    const mode = (value >> 1) & 7;
    s.access = access;
    s.mode = mode > 5 ? mode - 4 : mode;
    s.bcd = (value & 1) !== 0;
    s.count = 0;
    s.startNs = -1;
    s.heldTicks = 0;
    s.readHigh = false;
    s.writeHigh = false;
    s.latchedBytes = 0;
    s.statusLatched = false;
  }

  latchCount(): void {
    const s = this.s;
    if (s.latchedBytes !== 0) return;
    s.latchedCount = this.counterValue();
    s.latchedBytes = s.access === ACCESS.both ? 2 : 1;
  }

  latchStatus(): void {
    const s = this.s;
    if (s.statusLatched) return;
    const nullCount = s.count === 0;
    s.status = (this.output() ? 0x80 : 0) | (nullCount ? 0x40 : 0) | (s.access << 4) | (s.mode << 1) | (s.bcd ? 1 : 0);
    s.statusLatched = true;
  }

  read(): number {
    const s = this.s;
    if (s.statusLatched) {
      s.statusLatched = false;
      return s.status;
    }
    const latched = s.latchedBytes !== 0;
    const value = latched ? s.latchedCount : this.counterValue();
    const high = s.access === ACCESS.high || (s.access === ACCESS.both && s.readHigh);
    if (s.access === ACCESS.both) s.readHigh = !s.readHigh;
    if (latched) s.latchedBytes--;
    return high ? value >> 8 : value & 0xff;
  }

  /** @returns true when a new count was loaded */
  write(value: number): boolean {
    const s = this.s;
    if (s.access === ACCESS.both && !s.writeHigh) {
      s.writeLow = value;
      s.writeHigh = true;
      // In mode 0 the first byte already stops counting (mode definitions, mode 0).
      if (s.mode === 0) this.hold();
      return false;
    }
    s.writeHigh = false;
    const raw = s.access === ACCESS.high ? value << 8 : s.access === ACCESS.low ? value : s.writeLow | (value << 8);
    this.load(s.bcd ? fromBcd(raw) || 10000 : raw || 65536);
    return true;
  }

  setGate(level: boolean): void {
    const s = this.s;
    if (level === s.gate) return;
    s.gate = level;
    if (s.count === 0) return;
    if (s.mode === 1 || s.mode === 5) {
      if (level) this.restart();
    } else if (s.mode === 2 || s.mode === 3) {
      if (level) this.restart();
      else this.hold();
    } else if (level) {
      s.startNs = this.now();
    } else {
      this.hold();
    }
  }

  /** Level of OUT at a time. */
  output(now = this.now()): boolean {
    const s = this.s;
    if (s.count === 0) return s.mode !== 0;
    const ticks = this.ticks(now);
    switch (s.mode) {
      case 0:
        return ticks >= s.count;
      case 1:
        return !this.triggered() || ticks >= s.count;
      case 2:
        return !s.gate || ticks % s.count !== s.count - 1;
      case 3:
        return !s.gate || ticks % s.count < (s.count + 1) >> 1;
      default:
        return !this.triggered() || ticks !== s.count;
    }
  }

  /** Time of the first rising edge of OUT after `now`, or Infinity. */
  nextRise(now: number): number {
    const s = this.s;
    if (s.count === 0 || s.startNs < 0) return Infinity;
    const ticks = this.ticks(now);
    let rise = s.mode >= 4 ? s.count + 1 : s.count;
    if (s.mode === 2 || s.mode === 3) rise *= Math.floor(ticks / s.count) + 1;
    if (rise <= ticks) return Infinity;
    // Rounded up, or the edge would not have happened yet when the timer fires.
    return s.startNs + Math.ceil((rise - s.heldTicks) * NS_PER_TICK);
  }

  private load(count: number): void {
    const s = this.s;
    s.count = count;
    s.heldTicks = 0;
    // Modes 1 and 5 wait for their trigger; the others count while the gate is high.
    s.startNs = s.gate && s.mode !== 1 && s.mode !== 5 ? this.now() : -1;
  }

  private restart(): void {
    this.s.heldTicks = 0;
    this.s.startNs = this.now();
  }

  private hold(): void {
    this.s.heldTicks = this.ticks(this.now());
    this.s.startNs = -1;
  }

  private triggered(): boolean {
    return this.s.mode === 4 || this.s.startNs >= 0;
  }

  private ticks(now: number): number {
    const s = this.s;
    if (s.startNs < 0) return s.heldTicks;
    // The nudge undoes the rounding of nextRise's quotient.
    return s.heldTicks + Math.floor((now - s.startNs) / NS_PER_TICK + 1e-9);
  }

  /** The counting element as a read sees it. */
  private counterValue(): number {
    const s = this.s;
    if (s.count === 0) return 0;
    const ticks = this.ticks(this.now());
    const modulus = s.bcd ? 10000 : 65536;
    let value: number;
    if (s.mode === 2) value = s.count - (ticks % s.count);
    else if (s.mode === 3) value = s.count - ((2 * ticks) % s.count);
    else value = (((s.count - ticks) % modulus) + modulus) % modulus;
    value %= modulus;
    return s.bcd ? toBcd(value) : value;
  }
}

export class I8254 implements Device {
  readonly type = 'isa-pit';
  readonly id: string;
  /** Ports 40h to 43h. */
  readonly ports: IoHandler;
  /** Port 61h: speaker and channel 2's gate. */
  readonly speaker: IoHandler;

  /** Channel 2 counts down once: the guest measures another clock against it. @param end virtual nanoseconds */
  onMeasure: ((end: number) => void) | undefined;

  private readonly clock: VirtualClock;
  private readonly irq: IrqLine;
  private readonly timer: Timer;
  private readonly state = new StateBlock('pit', 1, () => ({
    channels: [channelPowerOn(true), channelPowerOn(true), channelPowerOn(false)],
    speakerOn: false,
    refresh: false,
    /** Level of the interrupt line: between rises it is not driven anew. */
    line: false,
    /** Set by HPET legacy replacement: OUT0 is cut off from IRQ 0. */
    irqCut: false,
  }));
  private readonly channels: Channel[];
  private dormant = false;

  constructor(clock: VirtualClock, irq: IrqLine, id = 'pit') {
    this.id = id;
    this.clock = clock;
    this.irq = irq;
    this.channels = this.state.value.channels.map((s) => new Channel(s, () => clock.now()));
    this.timer = clock.timer((now) => this.rise(now));
    this.state.keepTimers({ rise: this.timer });
    this.ports = {
      read: (offset) => (offset === 3 ? 0xff : this.channels[offset]!.read()),
      write: (offset, _size, value) => this.write(offset, value & 0xff),
    };
    this.speaker = {
      read: () => this.readSpeaker(),
      write: (_offset, _size, value) => {
        this.state.value.speakerOn = (value & 2) !== 0;
        this.channels[2]!.setGate((value & 1) !== 0);
      },
    };
  }

  /** The HPET's legacy replacement route takes IRQ 0 over. */
  setIrqCut(cut: boolean): void {
    this.state.value.irqCut = cut;
    if (cut) this.setLine(false);
    this.restart();
  }

  /** Another timer stands in for this one, which keeps its registers but no time. */
  setDormant(dormant: boolean): void {
    this.dormant = dormant;
    this.irq.set(false);
    this.restart();
  }

  reset(): void {
    this.state.reset();
    this.restart();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
    for (const { s } of this.channels) {
      s.mode = Math.min(5, s.mode & 7);
      s.count = Math.max(0, Math.min(65536, Math.floor(s.count)));
    }
    this.irq.set(this.state.value.line);
    this.state.armTimers();
  }

  private write(offset: number, value: number): void {
    if (offset !== 3) {
      const loaded = this.channels[offset]!.write(value);
      if (offset === 0) this.restart(loaded);
      const { mode, gate, count } = this.channels[2]!.s;
      if (offset === 2 && loaded && mode === 0 && gate) this.onMeasure?.(this.clock.now() + count * NS_PER_TICK);
      return;
    }
    const select = value >> 6;
    if (select === 3) return this.readBack(value);
    this.channels[select]!.writeControl(value);
    if (select === 0 && (value & 0x30) !== 0) this.restart();
  }

  /** Read-back command: bits 5 and 4 low latch count and status (figure 12). */
  private readBack(value: number): void {
    this.channels.forEach((channel, i) => {
      if ((value & (2 << i)) === 0) return;
      if ((value & 0x20) === 0) channel.latchCount();
      if ((value & 0x10) === 0) channel.latchStatus();
    });
  }

  private readSpeaker(): number {
    const s = this.state.value;
    // Bit 4 toggles with each DRAM refresh; old delay loops count its changes.
    s.refresh = !s.refresh;
    const two = this.channels[2]!;
    return (two.s.gate ? 1 : 0) | (s.speakerOn ? 2 : 0) | (s.refresh ? 0x10 : 0) | (two.output() ? 0x20 : 0);
  }

  private restart(rearm = true): void {
    if (this.dormant) return this.timer.cancel();
    this.drive();
    if (rearm) this.armRise(this.clock.now());
  }

  private drive(): void {
    if (!this.state.value.irqCut) this.setLine(this.channels[0]!.output());
  }

  private setLine(level: boolean): void {
    this.state.value.line = level;
    this.irq.set(level);
  }

  /**
   * IRQ 0 is edge-triggered, so only rising edges are waited for: in the periodic modes the line
   * stays high until just before the next one.
   */
  private armRise(now: number): void {
    const next = this.channels[0]!.nextRise(now);
    this.timer.arm(next === Infinity ? next : Math.max(next, now + this.minimum()));
  }

  private minimum(): number {
    const { mode } = this.channels[0]!.s;
    return mode === 2 || mode === 3 ? MIN_PERIOD_NS : 0;
  }

  private rise(now: number): void {
    if (!this.state.value.irqCut) this.setLine(false);
    this.drive();
    this.armRise(now);
  }
}

function toBcd(value: number): number {
  return (
    (value % 10) |
    ((Math.floor(value / 10) % 10) << 4) |
    ((Math.floor(value / 100) % 10) << 8) |
    ((Math.floor(value / 1000) % 10) << 12)
  );
}

function fromBcd(value: number): number {
  return (value & 15) + ((value >> 4) & 15) * 10 + ((value >> 8) & 15) * 100 + ((value >> 12) & 15) * 1000;
}

/**
 * ACPI fixed hardware: PM1 event and control blocks, power management timer and GPE0 block.
 * ACPI specification 6.4, section 4.8; register layout of the 82371AB (PIIX4), section 7.2.
 */
import type { Device, DeviceState, IoHandler, IrqLine, PowerEvent, Timer, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';

const TIMER_HZ = 3_579_545;
const NS_PER_TICK = 1e9 / TIMER_HZ;
const TIMER_MASK = 0xffffff;

/** PM1 status and enable bits (4.8.3.1). */
const PM1 = { timer: 1 << 0, global: 1 << 5, powerButton: 1 << 8, rtc: 1 << 10, wake: 1 << 15 };
const PM1_STATUS = PM1.timer | PM1.global | PM1.powerButton | PM1.rtc | PM1.wake;
const PM1_ENABLE = PM1.timer | PM1.global | PM1.powerButton | PM1.rtc;
/** PM1 control bits (4.8.3.2). */
const SCI_ENABLE = 1;
const SLEEP_ENABLE = 1 << 13;

/** SLP_TYP value of S5, which the DSDT's \_S5 object must name. */
export const SLEEP_TYPE_S5 = 0;
/** Values for the SMI command port that switch ACPI mode on and off. */
export const ACPI_ENABLE = 0xf1;
export const ACPI_DISABLE = 0xf0;

export class AcpiPm implements Device {
  readonly type = 'acpi-pm';
  readonly id: string;
  /** Offsets: 0 PM1 status, 2 PM1 enable, 4 PM1 control, 8 timer. */
  readonly ports: IoHandler;
  /** Status bytes 0-1, enable bytes 2-3. */
  readonly gpe: IoHandler;
  /** Port B2h (command) and B3h (data). */
  readonly smi: IoHandler;

  /** A command for system management code was written, other than those that switch ACPI mode. */
  onCommand: (() => void) | undefined;

  private readonly clock: VirtualClock;
  private readonly sci: IrqLine;
  private readonly onPower: (event: PowerEvent) => void;
  private readonly timer: Timer;
  private readonly state = new StateBlock(
    'acpi-pm',
    1,
    () => ({
      status: 0,
      enable: 0,
      control: 0,
      gpeStatus: 0,
      gpeEnable: 0,
      smiCommand: 0,
      smiData: 0,
      /** Timer half-periods (2^23 ticks) whose overflow has been noted in `status`. */
      overflowsSeen: 0,
    }),
    { status: 0xffff, enable: 0xffff, control: 0xffff, gpeStatus: 0xffff, gpeEnable: 0xffff },
  );

  constructor(clock: VirtualClock, sci: IrqLine, onPower: (event: PowerEvent) => void, id = 'acpi-pm') {
    this.id = id;
    this.clock = clock;
    this.sci = sci;
    this.onPower = onPower;
    this.timer = clock.timer(() => this.update());
    this.state.keepTimers({ overflow: this.timer });
    this.ports = {
      read: (offset, size) => this.readPorts(offset, size),
      write: (offset, size, value) => this.writePorts(offset, size, value),
    };
    this.gpe = {
      read: (offset) => this.readGpe(offset),
      write: (offset, _size, value) => this.writeGpe(offset, value),
    };
    this.smi = {
      read: (offset) => (offset === 0 ? this.state.value.smiCommand : this.state.value.smiData),
      write: (offset, _size, value) => this.writeSmi(offset, value),
    };
  }

  /** Someone pressed the power button: the guest decides what follows. */
  powerButton(): void {
    this.state.value.status |= PM1.powerButton;
    this.update();
  }

  /** Raises a general-purpose event, 0 to 15. */
  raiseGpe(event: number): void {
    this.state.value.gpeStatus |= 1 << (event & 15);
    this.update();
  }

  reset(): void {
    this.state.reset();
    this.state.value.overflowsSeen = this.overflows();
    this.update();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
    this.drive();
    this.state.armTimers();
  }

  private ticks(): number {
    return Math.floor(this.clock.now() / NS_PER_TICK);
  }

  /** The status bit is set whenever the timer's highest bit changes (4.8.3.3). */
  private overflows(): number {
    return Math.floor(this.ticks() / 2 ** 23);
  }

  private readPorts(offset: number, size: number): number {
    if (offset === 8 && size === 4) return this.ticks() % (TIMER_MASK + 1);
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.readByte(offset + i) << (8 * i);
    return value >>> 0;
  }

  private readByte(offset: number): number {
    const s = this.state.value;
    this.noteOverflow();
    const shift = 8 * (offset & 1);
    switch (offset >> 1) {
      case 0:
        return (s.status >> shift) & 0xff;
      case 1:
        return (s.enable >> shift) & 0xff;
      case 2:
        return (s.control >> shift) & 0xff;
      case 4:
      case 5:
        return ((this.ticks() % (TIMER_MASK + 1)) >> (8 * (offset - 8))) & 0xff;
      default:
        return 0;
    }
  }

  private writePorts(offset: number, size: number, value: number): void {
    const s = this.state.value;
    this.noteOverflow();
    for (let i = 0; i < size; i++) {
      const byte = (value >>> (8 * i)) & 0xff;
      const at = offset + i;
      const shift = 8 * (at & 1);
      const merge = (old: number) => (old & ~(0xff << shift)) | (byte << shift);
      if (at >> 1 === 0) s.status &= ~(byte << shift);
      else if (at >> 1 === 1) s.enable = merge(s.enable) & PM1_ENABLE;
      else if (at >> 1 === 2) s.control = merge(s.control) & ~0xc1f8;
    }
    this.sleep();
    this.update();
  }

  private sleep(): void {
    const s = this.state.value;
    if ((s.control & SLEEP_ENABLE) === 0) return;
    // The bit is write-only and always reads zero.
    s.control &= ~SLEEP_ENABLE;
    if (((s.control >> 10) & 7) === SLEEP_TYPE_S5) this.onPower('poweroff');
  }

  private writeSmi(offset: number, value: number): void {
    const s = this.state.value;
    if (offset !== 0) {
      s.smiData = value & 0xff;
      return;
    }
    s.smiCommand = value & 0xff;
    if (value === ACPI_ENABLE) s.control |= SCI_ENABLE;
    else if (value === ACPI_DISABLE) s.control &= ~SCI_ENABLE;
    else this.onCommand?.();
    this.update();
  }

  private readGpe(offset: number): number {
    const s = this.state.value;
    const word = offset < 2 ? s.gpeStatus : s.gpeEnable;
    return (word >> (8 * (offset & 1))) & 0xff;
  }

  private writeGpe(offset: number, value: number): void {
    const s = this.state.value;
    const shift = 8 * (offset & 1);
    const byte = (value & 0xff) << shift;
    if (offset < 2) s.gpeStatus &= ~byte;
    else s.gpeEnable = (s.gpeEnable & ~(0xff << shift)) | byte;
    this.update();
  }

  private noteOverflow(): void {
    const s = this.state.value;
    const overflows = this.overflows();
    if (overflows !== s.overflowsSeen) s.status |= PM1.timer;
    s.overflowsSeen = overflows;
  }

  private drive(): void {
    const s = this.state.value;
    const events = (s.status & s.enable & PM1_STATUS) | (s.gpeStatus & s.gpeEnable);
    this.sci.set(events !== 0 && (s.control & SCI_ENABLE) !== 0);
  }

  private update(): void {
    this.noteOverflow();
    this.drive();
    const s = this.state.value;
    if ((s.enable & PM1.timer) === 0 || (s.status & PM1.timer) !== 0) return this.timer.cancel();
    this.timer.arm(Math.ceil((s.overflowsSeen + 1) * 2 ** 23 * NS_PER_TICK) + 1);
  }
}

/** Reset control register at port CF9h (82371AB, section 4.2.3). */
export class ResetControl implements Device {
  readonly type = 'reset-control';
  readonly id: string;
  readonly ports: IoHandler;
  private readonly state = new StateBlock('reset-control', 1, () => ({ value: 0 }), { value: 255 });

  constructor(onReset: () => void, id = 'reset-control') {
    this.id = id;
    this.ports = {
      read: () => this.state.value.value,
      write: (_offset, _size, value) => {
        const s = this.state.value;
        // The reset happens on the rise of bit 2; bit 1 tells hard from soft.
        const rises = (s.value & 4) === 0 && (value & 4) !== 0;
        s.value = value & 0x06;
        if (rises) onReset();
      },
    };
  }

  reset(): void {
    this.state.reset();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
  }
}

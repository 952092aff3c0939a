/**
 * What a machine with ACPI's reduced hardware has instead of fixed registers: a device that raises one interrupt for all
 * events and says which there were (ACPI 6.4, 5.6.9), and registers to sleep and to reset by (4.8.3.7, 4.8.3.6).
 *
 *     0    events since the last look, 32 bits: reading ends the interrupt
 *     200h sleep control    201h sleep status    202h reset
 */
import type { Device, DeviceState, IoHandler, IrqLine } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';

export const GED_SIZE = 0x300;
const EVENTS = 0x00;
export const GED_SLEEP_CONTROL = 0x200;
export const GED_SLEEP_STATUS = 0x201;
export const GED_RESET = 0x202;
/** What is to be written there. */
export const GED_RESET_VALUE = 0x42;
/** SLP_TYP of S5, which the DSDT's \_S5 object must name. */
export const GED_SLEEP_TYPE_S5 = 5;
const SLEEP_ENABLE = 1 << 5;
/** The event of the power button. */
export const GED_POWER_BUTTON = 1 << 1;

/** What a guest asks for by the registers. */
interface PowerRequests {
  reset(): void;
  poweroff(): void;
}

export class GenericEvents implements Device {
  readonly type = 'acpi-ged';
  readonly id = 'acpi-ged';
  readonly mmio: IoHandler;
  private readonly irq: IrqLine;
  private readonly asked: PowerRequests;
  private readonly state = new StateBlock('acpi-ged', 1, () => ({ events: 0 }), { events: 0xffffffff });

  constructor(irq: IrqLine, asked: PowerRequests) {
    this.irq = irq;
    this.asked = asked;
    this.mmio = {
      read: (offset) => (offset === EVENTS ? this.take() : 0),
      write: (offset, _size, value) => this.write(offset, value & 0xff),
    };
  }

  /** Someone pressed it: the guest decides what follows. */
  powerButton(): void {
    this.put(this.state.value.events | GED_POWER_BUTTON);
  }

  reset(): void {
    this.put(0);
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
    this.put(this.state.value.events);
  }

  private put(events: number): void {
    this.state.value.events = events;
    this.irq.set(events !== 0);
  }

  private take(): number {
    const { events } = this.state.value;
    this.put(0);
    return events;
  }

  private write(offset: number, value: number): void {
    if (offset === GED_RESET && value === GED_RESET_VALUE) this.asked.reset();
    const sleeps = offset === GED_SLEEP_CONTROL && (value & SLEEP_ENABLE) !== 0;
    if (sleeps && ((value >> 2) & 7) === GED_SLEEP_TYPE_S5) this.asked.poweroff();
  }
}

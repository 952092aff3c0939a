/** A slot behind a port of PCI Express, whose devices come and go by its registers: PCI Express Base 3.0, 6.7 and 7.8.9 to 7.8.11. */
import type { DeviceState } from '../machine/interfaces.ts';
import type { BusHotplug } from './device-type.ts';
import type { PciBus, PciDevice, PciPart } from './pci.ts';
import { StateBlock } from './state.ts';

/** Slot capabilities: buttons, lights, a switch for power, a lock; devices may come, and go without being asked. */
export const SLOT_CAPABILITIES = 0x2007b;
/** Slot control. */
const CONTROL = {
  /** Enables events; bits 0 to 4 are those of the status. */
  events: 0x1f,
  interrupt: 1 << 5,
  attentionOff: 3 << 6,
  powerLight: 3 << 8,
  powerLightOn: 1 << 8,
  powerLightBlinks: 2 << 8,
  powerLightOff: 3 << 8,
  powerOff: 1 << 10,
  lock: 1 << 11,
  linkEvent: 1 << 12,
} as const;
export const SLOT_CONTROL_WRITABLE = [0xff, 0x1f] as const;
/** Slot status. */
const STATUS = {
  button: 1 << 0,
  presenceChanged: 1 << 3,
  commandCompleted: 1 << 4,
  present: 1 << 6,
  locked: 1 << 7,
  linkChanged: 1 << 8,
} as const;
/** Bits of the status that software clears. */
export const SLOT_STATUS_CLEARS = [0x1f, 0x01] as const;

/** What a port gives of itself. */
export interface SlotPort {
  readonly id: string;
  getControl(): number;
  setControl(value: number): void;
  getStatus(): number;
  setStatus(value: number): void;
  /** An interrupt: a message for each rise, or the pin. */
  interrupt(level: boolean): void;
  readonly bus: PciBus;
}

export class ExpressSlot implements BusHotplug, PciPart {
  private readonly port: SlotPort;
  private readonly state = new StateBlock('slot', 1, () => ({ interrupt: false, unplugging: false }));
  /** Off for ports whose slot is said not to take devices. */
  private readonly enabled: boolean;

  constructor(port: SlotPort, enabled: boolean) {
    this.port = port;
    this.enabled = enabled;
  }

  reset(): void {
    this.state.reset();
    const light = this.occupied ? CONTROL.powerLightOn : CONTROL.powerLightOff | CONTROL.powerOff;
    this.port.setControl(CONTROL.attentionOff | light);
    this.port.interrupt(false);
  }

  save(): DeviceState {
    return this.state.save();
  }

  load(state: DeviceState): void {
    this.state.load(state);
  }

  plugged(device: PciDevice): void {
    if (!this.enabled) throw new Error(`Hot-plug failed: unsupported by the port device '${this.port.id}'`);
    // Functions beyond the first one are there already when that comes.
    if ((device.devfn & 7) === 0) this.event(STATUS.presenceChanged | STATUS.button);
  }

  /** Presses the attention button: some seconds later the guest turns power off, unless somebody presses again. */
  requestUnplug(device: PciDevice): void {
    if (!this.enabled) throw new Error(`Hot-unplug failed: unsupported by the port device '${this.port.id}'`);
    const control = this.port.getControl();
    if (isOff(control)) return this.eject();
    if ((control & CONTROL.powerLight) === CONTROL.powerLightBlinks) {
      throw new Error('Hot-unplug failed: guest is busy (power indicator blinking)');
    }
    if (this.state.value.unplugging) throw new Error(`Device ${device.id} is already in the process of unplug`);
    this.state.value.unplugging = true;
    this.event(STATUS.button);
  }

  /** Slot control has been written. @param before what stood there */
  controlWritten(before: number): void {
    const { port } = this;
    let control = port.getControl();
    let status = port.getStatus();
    if ((control & CONTROL.lock) !== 0) status ^= STATUS.locked;
    control &= ~CONTROL.lock;
    port.setControl(control);
    port.setStatus(status | STATUS.commandCompleted);
    if (isOff(control) && !isOff(before) && this.occupied) this.eject();
    this.update();
  }

  /** Enabled or pending events have changed. */
  update(): void {
    const [control, status] = [this.port.getControl(), this.port.getStatus()];
    const link = (status & STATUS.linkChanged) !== 0 && (control & CONTROL.linkEvent) !== 0;
    const level = (control & CONTROL.interrupt) !== 0 && ((control & status & CONTROL.events) !== 0 || link);
    if (level === this.state.value.interrupt) return;
    this.state.value.interrupt = level;
    this.port.interrupt(level);
  }

  /** Status bits that follow from what is in the slot. */
  statusNow(status: number): number {
    return this.occupied ? status | STATUS.present : status & ~STATUS.present;
  }

  private get occupied(): boolean {
    return this.port.bus.all().length > 0;
  }

  private eject(): void {
    const { bus } = this.port;
    this.state.value.unplugging = false;
    for (const device of bus.all()) if (device.removable) bus.onEject?.(device);
    this.event(STATUS.presenceChanged);
  }

  private event(bits: number): void {
    this.port.setStatus(this.port.getStatus() | bits);
    this.update();
  }
}

const isOff = (control: number): boolean =>
  (control & CONTROL.powerOff) !== 0 && (control & CONTROL.powerLight) === CONTROL.powerLightOff;

/** One parallel ATA channel: its ports, and the two devices on its cable. */
import type { IoHandler, IrqLine } from '../../machine/interfaces.ts';
import { type AtaDevice, CONTROL_HOB, REGISTER } from './ata.ts';

const CONTROL = { noInterrupt: 0x02, reset: 0x04 } as const;
const DEVICE_SELECT = 0x10;
const DATA = 0;
const COMMAND = 7;
/** EXECUTE DEVICE DIAGNOSTIC is for both devices at once. */
const DIAGNOSTIC = 0x90;

export type ChannelState = { selected: number; control: number; interrupts: [boolean, boolean] };

export class IdeChannel {
  /** Eight command block registers (1F0h or 170h). */
  readonly commandPorts: IoHandler;
  /** Device control and alternate status (3F6h or 376h). */
  readonly controlPort: IoHandler;
  readonly devices: (AtaDevice | null)[] = [null, null];
  /** A device wants its data moved, or has stopped wanting it. */
  onDmaRequest: (() => void) | undefined;
  /** The selected device has asked for an interrupt. */
  onInterrupt: (() => void) | undefined;

  private readonly irq: IrqLine;
  private readonly state: ChannelState;

  /** @param state kept by the controller that the channel belongs to */
  constructor(irq: IrqLine, state: ChannelState) {
    this.irq = irq;
    this.state = state;
    this.commandPorts = {
      read: (offset, size) => this.read(offset, size),
      write: (offset, size, value) => this.write(offset, size, value),
    };
    this.controlPort = {
      read: () => this.selected?.status ?? 0,
      write: (_offset, _size, value) => this.writeControl(value),
    };
  }

  /** @param place 0 for device 0 (master), 1 for device 1 */
  attach(device: AtaDevice, place: number): void {
    this.devices[place] = device;
    device.host = {
      setInterrupt: (level) => this.setInterrupt(place, level),
      dmaRequested: () => this.onDmaRequest?.(),
    };
  }

  get selected(): AtaDevice | null {
    return this.devices[this.state.selected]!;
  }

  reset(): void {
    this.state.selected = 0;
    this.state.control = 0;
    for (const device of this.devices) device?.reset(true);
    this.drive();
  }

  /** Puts the interrupt line where the state says it is. */
  drive(): void {
    const { interrupts, control, selected } = this.state;
    this.irq.set(interrupts[selected]! && (control & CONTROL.noInterrupt) === 0);
  }

  private setInterrupt(place: number, level: boolean): void {
    this.state.interrupts[place] = level;
    this.drive();
    if (level && place === this.state.selected) this.onInterrupt?.();
  }

  private read(offset: number, size: number): number {
    const device = this.selected;
    if (device === null) return 0;
    if (offset === DATA) return device.readData(size);
    // All other registers are bytes; wider reads float.
    if (size !== 1) return size === 2 ? 0xffff : 0xffffffff;
    if (offset !== COMMAND) return device.readRegister(offset);
    this.setInterrupt(this.state.selected, false);
    return device.status;
  }

  private write(offset: number, size: number, value: number): void {
    if (offset === DATA) return this.selected?.writeData(size, value);
    if (size !== 1) return;
    if (offset === COMMAND) return this.command(value);
    if (offset === REGISTER.device) {
      this.state.selected = (value & DEVICE_SELECT) !== 0 ? 1 : 0;
      this.drive();
    }
    // Both devices listen to writes.
    for (const device of this.devices) device?.writeRegister(offset, value);
  }

  private command(code: number): void {
    if (code !== DIAGNOSTIC) {
      this.selected?.start(code);
      return;
    }
    for (const device of this.devices) device?.reset(false);
    this.state.selected = 0;
    this.setInterrupt(0, true);
  }

  private writeControl(value: number): void {
    const before = this.state.control;
    this.state.control = value & ~CONTROL_HOB;
    for (const device of this.devices) device?.writeControl(value);
    if ((before & CONTROL.reset) === 0 && (value & CONTROL.reset) !== 0) {
      for (const device of this.devices) device?.reset(false);
      this.state.selected = 0;
    }
    this.drive();
  }
}

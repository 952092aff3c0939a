/** AHCI controller (Serial ATA AHCI 1.3.1), as the ICH9 has it (316972), section 15. */
import type { DeviceState, GuestMemory, IoHandler } from '../../machine/interfaces.ts';
import { PciDevice } from '../pci.ts';
import { StateBlock } from '../state.ts';
import { AhciPort, portPowerOn } from './ahci-port.ts';
import type { AtaDevice } from './ata.ts';

export const AHCI_PORTS = 6;
const PORT_BASE = 0x100;
const PORT_SIZE = 0x80;

/** Generic host control (3.1). */
const HBA = { capabilities: 0x00, control: 0x04, interrupts: 0x08, ports: 0x0c, version: 0x10 } as const;
/** 64-bit addresses, command list override, generation 1, AHCI mode only, 32 slots. */
const CAPABILITIES = (0x80000000 | (1 << 24) | (1 << 20) | (1 << 18) | (31 << 8) | (AHCI_PORTS - 1)) >>> 0;
const CONTROL = { reset: 1, interrupts: 2, ahci: 0x80000000 } as const;
const VERSION = 0x00010000;

const powerOn = () => ({
  control: CONTROL.ahci as number,
  interrupts: 0,
  index: 0,
  ports: Array.from({ length: AHCI_PORTS }, portPowerOn),
});

export class Ahci extends PciDevice {
  readonly type = 'ich9-ahci';
  readonly ports: readonly AhciPort[];
  private readonly registers: StateBlock<ReturnType<typeof powerOn>>;

  constructor(memory: GuestMemory, id = 'ahci') {
    super(id, {
      vendor: 0x8086,
      device: 0x2922,
      revision: 2,
      classCode: 0x010601,
      subsystemVendor: 0x1af4,
      subsystem: 0x1100,
      interruptPin: 1,
    });
    this.registers = new StateBlock(id, 1, powerOn);
    // Serial ATA capability: index and data registers in the ports of BAR 4.
    this.addCapability(0xa8, 0x12, [0x10, 0x00, 0x48, 0x00, 0x00, 0x00]);
    this.addMsi(0x80, { vectors: 1, masking: false });
    this.ports = this.registers.value.ports.map((state) => new AhciPort(memory, state));
    for (const port of this.ports) port.onInterrupt = () => this.updateInterrupt();
    const mmio: IoHandler = {
      read: (offset, size) => this.readBytes(offset, size),
      write: (offset, size, value) => {
        // Registers are words; parts of them are not written on their own.
        if (size === 4 && offset % 4 === 0) this.write(offset, value);
      },
    };
    this.addBar(4, { kind: 'io', size: 32, name: 'ahci-index', handler: this.indexPorts() });
    this.addBar(5, { kind: 'mem32', size: 4096, name: 'ahci', handler: mmio });
  }

  /** @param place port, 0 to 5 */
  attach(device: AtaDevice, place: number): void {
    this.ports[place]!.attach(device);
  }

  protected override extraState() {
    return {
      save: (): DeviceState => {
        const state = this.registers.save();
        this.ports.forEach(({ device }, i) => {
          if (device !== null) state.fields[`drive${i}`] = device.saveState().fields;
        });
        return state;
      },
      load: (state: DeviceState): void => this.loadRegisters(state),
    };
  }

  private loadRegisters(state: DeviceState): void {
    const fields = { ...state.fields };
    const loads: (() => void)[] = [];
    this.ports.forEach(({ device }, i) => {
      if (device === null) return;
      const drive = fields[`drive${i}`];
      if (drive === undefined || typeof drive !== 'object') {
        throw new Error(`${this.id}: field "drive${i}" is missing`);
      }
      delete fields[`drive${i}`];
      const own = drive as DeviceState['fields'];
      loads.push(() => device.loadState({ version: state.version, fields: own }));
    });
    this.registers.load({ version: state.version, fields });
    for (const load of loads) load();
  }

  protected override onReset(): void {
    this.resetController();
  }

  afterLoad(): void {
    for (const port of this.ports) port.device?.afterLoad();
  }

  private resetController(): void {
    const s = this.registers.value;
    s.control = CONTROL.ahci;
    s.interrupts = 0;
    for (const port of this.ports) port.reset();
    this.updateInterrupt();
  }

  private indexPorts(): IoHandler {
    const s = this.registers.value;
    return {
      read: (offset, size) => {
        if (offset < 0x10) return 0;
        return offset < 0x14 ? s.index : this.readBytes(s.index, size);
      },
      write: (offset, size, value) => {
        if (size !== 4) return;
        if (offset === 0x10) s.index = value & 0xffc;
        else if (offset === 0x14) this.write(s.index, value);
      },
    };
  }

  private readBytes(offset: number, size: number): number {
    const word = this.read(offset & ~3) >>> (8 * (offset & 3));
    return size === 4 ? word : word & (size === 2 ? 0xffff : 0xff);
  }

  private read(offset: number): number {
    const s = this.registers.value;
    if (offset >= PORT_BASE) return this.portAt(offset)?.read(offset % PORT_SIZE) ?? 0;
    switch (offset) {
      case HBA.capabilities:
        return CAPABILITIES;
      case HBA.control:
        return s.control;
      case HBA.interrupts:
        return s.interrupts;
      case HBA.ports:
        return 2 ** AHCI_PORTS - 1;
      case HBA.version:
        return VERSION;
      default:
        return 0;
    }
  }

  private write(offset: number, value: number): void {
    const s = this.registers.value;
    if (offset >= PORT_BASE) {
      this.portAt(offset)?.write(offset % PORT_SIZE, value);
    } else if (offset === HBA.control) {
      if ((value & CONTROL.reset) !== 0) return this.resetController();
      s.control = (CONTROL.ahci | (value & CONTROL.interrupts)) >>> 0;
      this.updateInterrupt();
    } else if (offset === HBA.interrupts) {
      s.interrupts = (s.interrupts & ~value) >>> 0;
      this.updateInterrupt();
    }
  }

  private portAt(offset: number): AhciPort | undefined {
    return this.ports[Math.floor((offset - PORT_BASE) / PORT_SIZE)];
  }

  private updateInterrupt(): void {
    const s = this.registers.value;
    this.ports.forEach((port, i) => {
      if (port.pending) s.interrupts |= 1 << i;
    });
    const wanted = (s.control & CONTROL.interrupts) !== 0 && s.interrupts !== 0;
    const messages = this.msi?.enabled === true;
    // What software has not seen to when it clears some of it is told again.
    if (wanted && messages) this.msi?.notify(0);
    this.setIntx(wanted && !messages);
  }
}

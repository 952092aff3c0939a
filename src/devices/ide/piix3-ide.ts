/** The IDE function of the south bridge: 82371SB (PIIX3, order 290550), sections 2.3 and 2.6. */
import type { DeviceState, GuestMemory, IoHandler, IrqLine, PortBus } from '../../machine/interfaces.ts';
import { PciDevice } from '../pci.ts';
import { StateBlock } from '../state.ts';
import type { AtaDevice } from './ata.ts';
import { BusMaster } from './bus-master.ts';
import { IdeChannel } from './channel.ts';

/** Command block, and the control port, of both channels. */
const PORTS = [
  [0x1f0, 0x3f6],
  [0x170, 0x376],
] as const;
/** IDE timing registers: bit 15 makes a channel decode its ports. */
const TIMING = 0x40;

function powerOn() {
  const channel = () => ({
    selected: 0,
    control: 0,
    interrupts: [false, false] as [boolean, boolean],
    master: { command: 0, status: 0, table: 0 },
  });
  return { channels: [channel(), channel()] };
}

export class Piix3Ide extends PciDevice {
  readonly type = 'piix3-ide';
  readonly channels: readonly IdeChannel[];

  private readonly registers: StateBlock<ReturnType<typeof powerOn>>;

  /** @param irqs of the primary and the secondary channel */
  constructor(memory: GuestMemory, ports: PortBus, irqs: readonly [IrqLine, IrqLine], id = 'ide') {
    super(id, { vendor: 0x8086, device: 0x7010, classCode: 0x010180, subsystemVendor: 0x1af4, subsystem: 0x1100 });
    this.registers = new StateBlock(id, 1, powerOn);
    this.setInitial(0x06, [0x80, 0x02]);
    for (let i = 0; i < 4; i++) this.writable[TIMING + i] = 0xff;
    for (const at of [0x44, 0x48, 0x4a, 0x4b]) this.writable[at] = 0xff;
    const states = this.registers.value.channels;
    this.channels = states.map((state, i) => new IdeChannel(irqs[i]!, state));
    const masters = this.channels.map((channel, i) => new BusMaster(memory, channel, states[i]!.master).ports);
    this.addBar(4, { kind: 'io', size: 16, name: 'ide-bus-master', handler: split(masters) });
    this.channels.forEach((channel, i) => {
      const [command, control] = PORTS[i]!;
      ports.register(command, 8, channel.commandPorts, `ide${i}`);
      ports.register(control, 1, channel.controlPort, `ide${i}-control`);
    });
  }

  /** @param place 0 and 1 on the first channel, 2 and 3 on the second */
  attach(device: AtaDevice, place: number): void {
    this.channels[place >> 1]!.attach(device, place & 1);
  }

  protected override extraState() {
    return {
      save: (): DeviceState => {
        const state = this.registers.save();
        this.eachDevice((device, place) => {
          state.fields[`drive${place}`] = device.saveState().fields;
        });
        return state;
      },
      load: (state: DeviceState): void => this.loadRegisters(state),
    };
  }

  private loadRegisters(state: DeviceState): void {
    const fields = { ...state.fields };
    const drives: { device: AtaDevice; fields: DeviceState['fields'] }[] = [];
    this.eachDevice((device, place) => {
      const name = `drive${place}`;
      const drive = fields[name];
      if (drive === undefined || typeof drive !== 'object') {
        throw new Error(`${this.id}: field "${name}" is missing`);
      }
      delete fields[name];
      drives.push({ device, fields: drive as DeviceState['fields'] });
    });
    this.registers.load({ version: state.version, fields });
    for (const { device, fields: drive } of drives) {
      device.loadState({ version: state.version, fields: drive });
    }
  }

  private eachDevice(visit: (device: AtaDevice, place: number) => void): void {
    this.channels.forEach(({ devices }, i) =>
      devices.forEach((device, k) => {
        if (device !== null) visit(device, 2 * i + k);
      }),
    );
  }

  protected override onReset(): void {
    this.registers.reset();
    for (const channel of this.channels) channel.reset();
  }

  protected override onLoad(): void {
    for (const { selected, interrupts } of this.registers.value.channels) {
      if (![0, 1].includes(selected) || interrupts.length !== 2) throw new Error(`${this.id}: field "channels" names no drive`);
    }
    for (const channel of this.channels) channel.drive();
  }

  afterLoad(): void {
    this.eachDevice((device) => device.afterLoad());
  }
}

/** The first eight ports are the first channel's, the others the second one's. */
function split(parts: readonly IoHandler[]): IoHandler {
  return {
    read: (offset, size) => parts[offset >> 3]!.read(offset & 7, size),
    write: (offset, size, value) => parts[offset >> 3]!.write(offset & 7, size, value),
  };
}

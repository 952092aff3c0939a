/** What changes a machine that is there: devices and what is behind them come and go, memory, input; QMP's `device_add` and its like. */
import type { Drives } from '../storage/open.ts';
import { type DeviceConfig, type DriveConfig, drive, driveName } from './config.ts';
import type { BuiltDevice, DeviceBuilder } from './device-builder.ts';
import type { MemoryBalloon } from './interfaces.ts';
import type { LocalMachine } from './machine.ts';
import type { Calls, DeletedDevice } from './messages.ts';
import { loadDeviceTypes } from './device-types.ts';

export interface ChangesHost {
  openChannel(id: string, channel: number): void;
  closeChannel(id: string): void;
  hasChannel(id: string): boolean;
  /** A device has left. */
  deleted(device: DeletedDevice): void;
}

type Handlers = { [K in keyof Calls]: (given: Calls[K]['given']) => Calls[K]['answer'] | Promise<Calls[K]['answer']> };

export class Changes {
  private readonly machine: LocalMachine;
  private readonly builder: DeviceBuilder;
  private readonly drives: Drives;
  private readonly host: ChangesHost;
  /** Drives that were made for a device that named a block node, by the device. */
  private readonly ownDrives = new Map<string, string>();
  private readonly handlers: Handlers = {
    setBalloon: (bytes) => {
      this.balloon.setTarget(bytes);
      return null;
    },
    getBalloon: () => this.balloon.actual,
    sendInput: (events) => this.machine.board.pointers.send(events),
    addDevice: (given) => this.addDevice(given),
    removeDevice: (id) => {
      this.builder.requestUnplug(id);
      return null;
    },
    addDrive: (given) => this.addDrive(given),
    removeDrive: (id) => this.removeDrive(id),
    addBlockdev: async (given) => {
      await this.drives.addNode(given);
      return null;
    },
    removeBlockdev: async (name) => {
      await this.drives.removeNode(name);
      return null;
    },
    addNetdev: async (given) => {
      await this.machine.networks.add(given);
      return null;
    },
    removeNetdev: (id) => {
      this.machine.networks.remove(id);
      return null;
    },
    addChardev: ({ id, channel }) => {
      if (this.host.hasChannel(id)) throw new Error(`Chardev with id '${id}' already exists`);
      this.host.openChannel(id, channel);
      return null;
    },
    removeChardev: (id) => {
      if (!this.host.hasChannel(id)) throw new Error(`Chardev '${id}' not found`);
      if (this.builder.isTaken('chardev', id)) throw new Error(`Chardev '${id}' is busy`);
      this.host.closeChannel(id);
      return null;
    },
  };

  constructor(machine: LocalMachine, drives: Drives, host: ChangesHost) {
    this.machine = machine;
    this.drives = drives;
    this.host = host;
    this.builder = machine.board.builder!;
    this.builder.onRemoved = (gone) => this.gone(gone);
  }

  /** @throws Error, one line */
  async run<K extends keyof Calls>(call: K, given: Calls[K]['given']): Promise<Calls[K]['answer']> {
    return await this.handlers[call](given);
  }

  private async addDevice(given: DeviceConfig): Promise<DeviceConfig> {
    await loadDeviceTypes([given.driver]);
    const name = given['drive'];
    const made = typeof name === 'string' && this.find(name) < 0 && this.drives.hasNode(name) ? nodeDrive(name, given) : null;
    if (made !== null) await this.addDrive(made);
    try {
      const placed = this.builder.hotPlug(given);
      if (made !== null && given.id != null) this.ownDrives.set(given.id, made.id!);
      return placed;
    } catch (error) {
      if (made !== null) await this.removeDrive(made.id!);
      throw error;
    }
  }

  private async addDrive(given: DriveConfig): Promise<null> {
    const name = driveName(given);
    if (name === null) throw new Error("Parameter 'id' is missing");
    if (this.find(name) >= 0) throw new Error(`Duplicate ID '${name}' for drive`);
    this.builder.links.drives.push({ config: given, backend: await this.drives.add(given) });
    return null;
  }

  private async removeDrive(name: string): Promise<null> {
    const at = this.find(name);
    if (at < 0) throw new Error(`Device '${name}' not found`);
    if (this.builder.isTaken('drive', name)) throw new Error(`Device '${name}' is in use`);
    const [gone] = this.builder.links.drives.splice(at, 1);
    await this.drives.remove(gone!.backend);
    return null;
  }

  private get balloon(): MemoryBalloon {
    const { balloon } = this.builder;
    if (balloon === null) throw new Error('No balloon device has been activated');
    return balloon;
  }

  private find(name: string): number {
    return this.builder.links.drives.findIndex(({ config }) => driveName(config) === name);
  }

  private gone({ id, type }: BuiltDevice): void {
    const drive = id === null ? undefined : this.ownDrives.get(id);
    const tell = (): void =>
      this.host.deleted({
        device: id,
        path: id === null ? `/machine/peripheral-anon/${type.name}` : `/machine/peripheral/${id}`,
      });
    if (drive === undefined) return tell();
    this.ownDrives.delete(id!);
    // Whoever is told may close the node at once.
    this.removeDrive(drive).then(tell, tell);
  }
}

/** The drive that a device wants when it names a block node instead. */
function nodeDrive(name: string, { driver, rerror, werror }: DeviceConfig): DriveConfig {
  const policy = (value: unknown): DriveConfig['readError'] =>
    typeof value === 'string' && value !== 'auto' ? (value as DriveConfig['readError']) : 'report';
  const cd = driver.endsWith('-cd') ? ({ media: 'cdrom', readOnly: true } as const) : {};
  return drive({ id: name, interface: 'none', node: name, readError: policy(rerror), writeError: policy(werror), ...cd });
}

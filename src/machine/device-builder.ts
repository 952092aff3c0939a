/** Makes the devices that a configuration names, and plugs each into its bus. */
import { type DeviceBus, type DeviceContext, type DeviceType, parseProperties, type PciAddress } from '../devices/device-type.ts';
import type { HostNetwork } from '../host/network.ts';
import type { FileTree } from '../host/file-tree.ts';
import { PCI, PciBus, PciDevice } from '../devices/pci.ts';
import { ConfigError, type DeviceConfig, driveName, type WantedDevice } from './config.ts';
import { Holdings } from './device-holdings.ts';
import { findDeviceType } from './device-types.ts';
import type {
  CharBackend,
  Device,
  GuestMemory,
  InputPointer,
  MemoryBalloon,
  NetworkPort,
  PortBus,
  Trace,
  VirtualClock,
} from './interfaces.ts';
import type { Drive } from './pc-storage.ts';

/** What devices may refer to by name. */
export interface DeviceLinks {
  readonly drives: Drive[];
  /** @returns null when there is none of that name */
  network(name: string): NetworkPort | null;
  character(name: string): CharBackend | null;
  folder(name: string): FileTree | null;
  readonly hostNetwork: HostNetwork | null;
}

export type BuilderParts = {
  memory: GuestMemory;
  memorySize: number;
  clock: VirtualClock;
  random: () => number;
  trace?: Trace | undefined;
  links: DeviceLinks;
  ports: PortBus;
  irq: DeviceContext['irq'];
  exit: (code: number) => void;
  /** The board's own buses, with the devices that provide them. */
  buses: readonly (readonly [DeviceBus, Device | null])[];
  /** @returns a function that takes it away again */
  addKeyboard: (take: Parameters<DeviceContext['addKeyboard']>[0]) => () => void;
  /** The same. */
  addPointer: (pointer: InputPointer) => () => void;
  /** Takes a device into the machine, and out of it. */
  add: (device: Device) => void;
  remove: (device: Device) => void;
};

/** A device that was built, and what goes with it when it leaves. */
export type BuiltDevice = {
  readonly device: Device;
  readonly config: DeviceConfig;
  /** Null for a device without a name. */
  readonly id: string | null;
  readonly type: DeviceType;
  readonly bus: DeviceBus;
  /** Buses that it provides. */
  readonly buses: readonly DeviceBus[];
  readonly holdings: Holdings;
};

/** Where firmware finds a device that it is to boot from. */
export type BootEntry = { index: number; path: string };

/** What is said of every device. */
const OWN_KEYS = ['driver', 'id', 'bus'];
const IDENTIFIER = /^[a-z][-a-z0-9._]*$/i;

export class DeviceBuilder {
  readonly bootEntries: BootEntry[] = [];
  /** What was built, in the order of building. */
  readonly built: BuiltDevice[] = [];
  /** What takes memory away from the guest. */
  balloon: MemoryBalloon | null = null;
  /** A device has left by its guest's will. */
  onRemoved: ((gone: BuiltDevice) => void) | null = null;
  private readonly parts: BuilderParts;
  private readonly buses: DeviceBus[];
  /** Devices by the buses that they provide. */
  private readonly owners = new Map<DeviceBus, Device>();
  private readonly ids = new Set<string>();
  private readonly taken = new Set<string>();
  private readonly counts = new Map<string, number>();

  constructor(parts: BuilderParts) {
    this.parts = parts;
    this.buses = [];
    for (const [bus, owner] of parts.buses) this.provide(bus, owner);
  }

  /** @throws Error, one line */
  build(config: DeviceConfig): void {
    this.make(config, false);
  }

  /**
   * The same while the machine runs (`device_add`): the guest is told.
   * @returns the configuration with the place that the device was given
   * @throws Error, one line; nothing remains then
   */
  hotPlug(config: DeviceConfig): DeviceConfig {
    const { device, bus } = this.make(config, true);
    return { ...config, ...placeOf(bus, device) };
  }

  /** Whether some device has taken it. @param kind "drive", "netdev" or "chardev" */
  isTaken(kind: string, name: string): boolean {
    return this.taken.has(`${kind} ${name}`);
  }

  get links(): DeviceLinks {
    return this.parts.links;
  }

  /** Asks the guest to let a device go (`device_del`). @throws Error, one line */
  requestUnplug(id: string): void {
    const found = this.built.find((one) => one.id === id);
    if (found === undefined) throw new Error(`Device '${id}' not found`);
    const { bus, device, type } = found;
    if (bus.hotplug == null) throw new Error(`Bus '${bus.name}' does not support hotplugging`);
    if (type.hotpluggable === false) throw new Error(`Device '${type.name}' does not support hotplugging`);
    bus.hotplug.requestUnplug(device);
  }

  /** Takes a device out, and before it those that are plugged into it. */
  remove(device: unknown): void {
    const gone = this.built.find((one) => one.device === device);
    if (gone === undefined) return;
    for (const one of [...this.built]) if (gone.buses.includes(one.bus)) this.remove(one.device);
    // Ends what is under way, interrupts, and what it has put into address spaces.
    gone.device.reset();
    gone.bus.unplug?.(gone.device as never);
    gone.holdings.release();
    this.parts.remove(gone.device);
    this.built.splice(this.built.indexOf(gone), 1);
    for (const bus of gone.buses) {
      this.buses.splice(this.buses.indexOf(bus), 1);
      this.owners.delete(bus);
    }
    this.onRemoved?.(gone);
  }

  private make(config: DeviceConfig, hot: boolean): BuiltDevice {
    if (typeof config.driver !== 'string') throw new Error("Parameter 'driver' is missing");
    const type = findDeviceType(config.driver);
    if (type === null) throw new Error(`'${config.driver}' is not a valid device model name`);
    if (hot && type.hotpluggable === false) throw new Error("Parameter 'driver' expects a pluggable device type");
    const given = Object.fromEntries(Object.entries(config).filter(([key, value]) => !OWN_KEYS.includes(key) && value != null));
    const bus = this.findBus(type, config.bus ?? null);
    if (hot && bus.hotplug == null) throw new Error(`Bus '${bus.name}' does not support hotplugging`);
    const values = parseProperties(type.name, type.properties, given);
    const holdings = new Holdings();
    try {
      const id = this.identify(type, config.id ?? null, holdings, hot);
      const device = type.create(values as never, this.context(id, bus, holdings)) as Device;
      if (bus instanceof PciBus && device instanceof PciDevice) this.plug(bus, device, values);
      holdings.add(() => device.close?.());
      const built = {
        device,
        config,
        id: config.id ?? null,
        type,
        bus,
        buses: type.buses?.(device) ?? [],
        holdings,
      };
      this.take(built);
      if (hot) this.announce(bus, device);
      else this.noteBoot(bus, device, values);
      return built;
    } catch (error) {
      holdings.release();
      throw error;
    }
  }

  private take(built: BuiltDevice): void {
    const { device, type, buses } = built;
    if (device instanceof PciDevice) device.removable = type.hotpluggable !== false;
    if (type.ofController !== true) this.parts.add(device);
    this.built.push(built);
    for (const bus of buses) this.provide(bus, device);
  }

  private announce(bus: DeviceBus, device: Device): void {
    device.reset();
    try {
      bus.hotplug!.plugged(device);
    } catch (error) {
      this.remove(device);
      throw error;
    }
  }

  private provide(bus: DeviceBus, owner: Device | null): void {
    this.buses.push(bus);
    if (owner !== null) this.owners.set(bus, owner);
    bus.onEject = (device: unknown) => this.remove(device);
  }

  private identify(type: DeviceType, given: string | null, holdings: Holdings, hot: boolean): string {
    // Names of what has none cannot be given by anybody.
    const id = given ?? `${type.name}#${this.next(type.name)}`;
    if (given !== null && !IDENTIFIER.test(given)) throw new Error("Parameter 'id' expects an identifier");
    if (this.ids.has(id)) throw new Error(hot ? `Duplicate device ID '${id}'` : `Duplicate ID '${id}' for device`);
    holdings.claim(this.ids, id);
    return id;
  }

  private findBus({ name, bus: kind }: DeviceType, given: string | null): DeviceBus {
    if (given === null) {
      const bus = this.buses.find((one) => one.kind === kind && one.full !== true) ?? this.buses.find((one) => one.kind === kind);
      if (bus === undefined) throw new Error(`No '${kind}' bus found for device '${name}'`);
      return bus;
    }
    const bus = this.buses.find((one) => one.name === given);
    if (bus === undefined) throw new Error(`Bus '${given}' not found`);
    if (bus.kind !== kind) throw new Error(`Device '${name}' can't go on ${bus.kind} bus`);
    return bus;
  }

  private plug(bus: PciBus, device: PciDevice, values: { readonly [name: string]: unknown }): void {
    const address = (values['addr'] ?? null) as PciAddress | null;
    device.acpiIndex = this.acpiIndexOf(values);
    const slot = address?.slot ?? bus.freeSlot();
    const func = address?.func ?? 0;
    const first = bus.find(slot * 8);
    if (slot >= 0 && !bus.hasSlot(slot))
      throw new Error(`PCI: slot ${slot} is not valid for ${device.type}, parent device only allows plugging into slot 0.`);
    if (slot < 0) throw new Error(`PCI: no slot/function available for ${device.type}, all in use`);
    const other = bus.find(slot * 8 + func);
    if (other !== undefined) {
      const where = `slot ${slot} function ${func}`;
      throw new Error(`PCI: ${where} not available for ${device.type}, in use by ${other.type},id=${other.id}`);
    }
    if (func > 0 && first !== undefined && (first.config[PCI.headerType]! & 0x80) === 0) {
      throw new Error(`PCI: single function device can't be populated in function ${slot.toString(16)}.${func}`);
    }
    if (func === 0 && (device.config[PCI.headerType]! & 0x80) === 0) {
      const beyond = bus.all().find(({ devfn }) => devfn >> 3 === slot);
      const [name, where] = [slot.toString(16), beyond === undefined ? 0 : beyond.devfn & 7];
      if (beyond !== undefined) {
        throw new Error(`PCI: ${name}.0 indicates single function, but ${name}.${where} is already populated.`);
      }
    }
    bus.plug(device, slot, func);
  }

  /** @throws Error where another device has it */
  private acpiIndexOf(values: { readonly [name: string]: unknown }): number {
    const index = (values['acpi-index'] ?? 0) as number;
    const other = this.built.some(({ device }) => device instanceof PciDevice && device.acpiIndex === index);
    if (index !== 0 && other) throw new Error(`a PCI device with acpi-index = ${index} already exist`);
    return index;
  }

  private noteBoot(bus: DeviceBus, device: Device, values: { readonly [name: string]: unknown }): void {
    const index = values['bootindex'];
    const path = typeof index === 'number' && index >= 0 ? this.bootPath(bus, device) : null;
    if (path !== null) this.bootEntries.push({ index: index as number, path });
  }

  private bootPath(bus: DeviceBus, device: Device): string | null {
    if (device instanceof PciDevice) return `${pciPath(device)}${BOOT_NAMES[classOf(device)]?.[1] ?? ''}`;
    const owner = this.owners.get(bus);
    const below = bus.bootPath?.(device) ?? null;
    return owner instanceof PciDevice && below !== null ? `${pciPath(owner)}${below}` : null;
  }

  private context(id: string, bus: DeviceBus, holdings: Holdings): DeviceContext {
    const { memory, memorySize, clock, random, trace, links, addKeyboard, addPointer, ports, irq, exit } = this.parts;
    const found = <T>(kind: string, property: string, name: string, what: T | null | undefined): T => {
      if (what == null) throw new Error(`Property '${property}' can't find value '${name}'`);
      const key = `${kind} ${name}`;
      if (this.taken.has(key)) throw new Error(`Property '${property}' can't take value '${name}', it's in use`);
      holdings.claim(this.taken, key);
      return what;
    };
    return {
      id,
      bus,
      memory,
      memorySize,
      clock: holdings.clock(clock),
      random,
      trace,
      addKeyboard: (take) => holdings.add(addKeyboard(take)),
      addPointer: (pointer) => holdings.add(addPointer(pointer)),
      ports,
      irq,
      exit,
      setBalloon: (balloon) => {
        if (this.balloon !== null) throw new Error('Only one balloon device is supported');
        this.balloon = balloon;
        holdings.add(() => {
          this.balloon = null;
        });
      },
      hostNetwork: links.hostNetwork,
      next: (kind) => this.next(kind),
      drive: (property, name) => {
        const drive = links.drives.find(({ config }) => driveName(config) === name);
        const { config, backend } = found('drive', property, name, drive);
        return { backend, serial: config.serial, readOnly: config.readOnly };
      },
      network: (property, name) => holdings.network(found('netdev', property, name, links.network(name))),
      character: (property, name) => holdings.character(found('chardev', property, name, links.character(name))),
      // Several devices may show one folder.
      folder: (property, name) => {
        const tree = links.folder(name);
        if (tree === null) throw new Error(`Property '${property}' can't find value '${name}'`);
        return tree;
      },
    };
  }

  private next(kind: string): number {
    const count = this.counts.get(kind) ?? 0;
    this.counts.set(kind, count + 1);
    return count;
  }
}

/** @throws ConfigError naming the device */
export function buildAll(builder: DeviceBuilder, wanted: readonly WantedDevice[]): void {
  for (const { config, field, index } of wanted) {
    try {
      builder.build(config);
    } catch (error) {
      const name = { drives: `drive ${index}`, devices: `device ${index}`, network: `network "${String(config['netdev'])}"` }[
        field
      ];
      throw new ConfigError(field, `${name}: ${(error as Error).message}`);
    }
  }
}

/** The properties that put a device where it is. */
export function placeOf(bus: DeviceBus, device: Device): { bus: string; addr?: string } {
  if (!(device instanceof PciDevice)) return { bus: bus.name };
  return { bus: bus.name, addr: `${(device.devfn >> 3).toString(16)}.${device.devfn & 7}` };
}

/** Open Firmware's names by class code, as SeaBIOS and OVMF write them. */
const BOOT_NAMES: Record<number, readonly [node: string, child: string]> = {
  256: ['scsi', '/disk@0,0'],
  257: ['ide', ''],
  264: ['pci1b36,0010', '/namespace@1,0'],
  1540: ['pci-bridge', ''],
  262: ['pci8086,2922', ''],
  512: ['ethernet', '/ethernet-phy@0'],
};

const classOf = (device: PciDevice): number => device.configRead(0x0a, 2);

function pciPath(device: PciDevice): string {
  const [slot, func] = [device.devfn >> 3, device.devfn & 7];
  const node = BOOT_NAMES[classOf(device)]?.[0] ?? 'pci';
  const bridge = device.parent?.bridge ?? null;
  return `${bridge === null ? '/pci@i0cf8' : pciPath(bridge)}/${node}@${slot.toString(16)}${func === 0 ? '' : `,${func}`}`;
}

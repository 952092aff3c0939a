/** Bridges to further PCI buses: PCI-to-PCI Bridge Architecture 1.2, and root ports (PCI Express Base 3.0, 7.8). */
import { PCI, PciBus, PciDevice, type PciIdentity, type PciSpaces } from './pci.ts';
import { SHPC_BODY, SHPC_BYTES, SHPC_CAPABILITY, SHPC_ID, StandardHotplug } from './pci-shpc.ts';
import { ExpressSlot, SLOT_CAPABILITIES, SLOT_CONTROL_WRITABLE, SLOT_STATUS_CLEARS } from './pci-slot.ts';

/** Configuration space of a bridge (3.2). */
const BRIDGE = {
  secondary: 0x19,
  subordinate: 0x1a,
  ioBase: 0x1c,
  secondaryStatus: 0x1e,
  memoryBase: 0x20,
  prefetchBase: 0x24,
  ioUpper: 0x30,
  control: 0x3e,
} as const;
const SECONDARY_RESET = 1 << 6;
const HEADER_TYPE = 1;

/** Of the subsystem: its vendor and number, which a bridge's header has no room for (PCI-to-PCI Bridge 1.2, 3.2.5.13). */
const SUBSYSTEM = { id: 0x0d, offset: 0x40 } as const;
/** Slots that are the first of a chassis (3.2.5.17 and chapter 13), and power management. */
const CHASSIS = { id: 0x04, offset: 0x48, first: 0x20 } as const;
const POWER = { id: 0x01, body: [0x03, 0, 0, 0, 0, 0], control: [0x03, 0] } as const;
/** Capabilities, 66 MHz, fast cycles one after the other. */
const CONVENTIONAL_STATUS = 0xb0;
const SHPC_AT = 0x40;
/** Where a root port has its one vector. */
const MSIX = { offset: 0x48, bar: 0, size: 0x1000, table: 0, pending: 0x800 } as const;

/** PCI Express capability (7.8), by offsets from its id. */
export const EXPRESS_ID = 0x10;
const EXPRESS_SIZE = 0x3c;
const EXPRESS = {
  flags: 0x02,
  capabilities: 0x04,
  control: 0x08,
  linkCapabilities: 0x0c,
  linkControl: 0x10,
  linkStatus: 0x12,
  slotCapabilities: 0x14,
  slotControl: 0x18,
  slotStatus: 0x1a,
  rootControl: 0x1c,
  capabilities2: 0x24,
  linkCapabilities2: 0x2c,
  linkControl2: 0x30,
} as const;
const VERSION = 2;
export const EXPRESS_TYPE = { endpoint: 0, rootPort: 4, toPci: 7 } as const;
type ExpressType = (typeof EXPRESS_TYPE)[keyof typeof EXPRESS_TYPE];
const SLOT_IMPLEMENTED = 0x100;
const ROLE_BASED_ERRORS = 0x8000;
/** One lane of 2.5 GT/s, and a link that is up. */
const LINK = 0x11;
const LINK_UP = 0x2000;
/** The link may rest (L0s). */
const LINK_STANDBY = 0x400;
/** A root port: 32 lanes of 16 GT/s, which says when its link is up, and how wide it has become. */
const PORT = { link: 0x604, reports: 0x300000, idle: 0x204, capabilities2: 0x300020, speeds: 0x1e, speed: 4 } as const;

/** @param port number of the port @param slot number of the slot @returns a capability's bytes after its id and link */
export function expressBody(type: ExpressType, port = 0, slot = 0): number[] {
  const bytes = new Uint8Array(EXPRESS_SIZE);
  const view = new DataView(bytes.buffer);
  const root = type === EXPRESS_TYPE.rootPort;
  view.setUint16(EXPRESS.flags, VERSION | (type << 4) | (root ? SLOT_IMPLEMENTED : 0), true);
  view.setUint32(EXPRESS.capabilities, ROLE_BASED_ERRORS, true);
  view.setUint32(EXPRESS.linkCapabilities, (root ? PORT.link | PORT.reports | (port << 24) : LINK | LINK_STANDBY) >>> 0, true);
  view.setUint16(EXPRESS.linkStatus, root ? PORT.idle : LINK, true);
  view.setUint32(EXPRESS.capabilities2, PORT.capabilities2, true);
  if (!root) return [...bytes.subarray(2)];
  view.setUint32(EXPRESS.slotCapabilities, (SLOT_CAPABILITIES | (slot << 19)) >>> 0, true);
  view.setUint32(EXPRESS.linkCapabilities2, PORT.speeds, true);
  view.setUint16(EXPRESS.linkControl2, PORT.speed, true);
  return [...bytes.subarray(2)];
}

export type BridgeOptions = {
  type: string;
  /** Name of the bus behind it. */
  busName: string;
  /** Places on that bus. */
  slots: number;
  /** The bus is a link of PCI Express. */
  express: boolean;
  capability: { offset: number; type: ExpressType } | null;
  /** A root port, and whether devices may come to its slot and go. */
  port?: { number: number; slot: number; hotplug: boolean } | null;
  /** A bridge to a conventional bus. */
  conventional?: ConventionalOptions | null;
};

export type ConventionalOptions = {
  /** Place of its messages; null for none. */
  messages: number | null;
  /** Place of its power management; null for none. */
  power: number | null;
  /** Which chassis its slots are in, 1 to 255; null where it does not say. */
  chassis: number | null;
  /** There is a standard hot-plug controller. */
  hotplug: boolean;
};

/** The bus behind a bridge: interrupts come out at the bridge's own pins, moved on by the slot (9.1). */
class SecondaryBus extends PciBus {
  private readonly pins = Array.from({ length: 4 }, () => new Set<PciDevice>());
  private readonly owner: PciBridge;

  constructor(owner: PciBridge, spaces: PciSpaces, { busName, slots, express }: BridgeOptions) {
    super(spaces, undefined, busName, { slots, express, bridge: owner });
    this.owner = owner;
  }

  override setPin(device: PciDevice, pin: number, level: boolean): void {
    const at = (pin + (device.devfn >> 3)) & 3;
    const sources = this.pins[at]!;
    if (level) sources.add(device);
    else sources.delete(device);
    this.owner.parent?.setPin(this.owner, at, sources.size > 0);
  }
}

/**
 * Decodes everything that devices behind it decode, whatever its windows say: software that sets both sees no
 * difference.
 */
export class PciBridge extends PciDevice {
  readonly type: string;
  private readonly options: BridgeOptions;
  private secondaryBus: PciBus | null = null;
  private slot: ExpressSlot | null = null;
  private shpc: StandardHotplug | null = null;

  constructor(id: string, identity: PciIdentity, options: BridgeOptions) {
    super(id, { ...identity, headerType: HEADER_TYPE });
    this.type = options.type;
    this.options = options;
    this.writable.set([0xff, 0xff, 0xff], BRIDGE.secondary - 1);
    this.writable.set([0xf0, 0xf0], BRIDGE.ioBase);
    this.setInitial(BRIDGE.ioBase, [0x01, 0x01]);
    this.writable.set([0xf0, 0xff, 0xf0, 0xff], BRIDGE.memoryBase);
    this.writable.set([0xf0, 0xff, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], BRIDGE.prefetchBase);
    this.setInitial(BRIDGE.prefetchBase, [0x01, 0, 0x01, 0]);
    this.writable.set([0xff, 0xff, 0xff, 0xff], BRIDGE.ioUpper);
    this.writeOneClears[BRIDGE.secondaryStatus + 1] = 0xf9;
    this.writable[BRIDGE.control] = 0x7f;
    const { conventional = null } = options;
    if (conventional?.messages != null) this.addMsi(conventional.messages, { vectors: 1, masking: true });
    if (conventional?.power != null) this.addPower(conventional.power);
    if (options.capability !== null) this.addExpress(options.capability);
    if (conventional !== null) this.addConventional(conventional);
    if (options.port == null) return;
    this.addVector();
    this.addCapability(SUBSYSTEM.offset, SUBSYSTEM.id, [0, 0, identity.vendor & 0xff, identity.vendor >> 8, 0, 0]);
    this.addSlot(options.port.hotplug);
  }

  /** Devices behind it may come and go. */
  get takesDevices(): boolean {
    return this.options.port?.hotplug !== false;
  }

  /** There is one when the bridge has been plugged in. */
  get secondary(): PciBus {
    return this.secondaryBus!;
  }

  override plug(bus: PciBus, devfn: number, spaces: PciSpaces): void {
    super.plug(bus, devfn, spaces);
    this.secondaryBus = new SecondaryBus(this, spaces, this.options);
    this.secondaryBus.hotplug = this.slot ?? this.shpc;
  }

  /** Numbers of the buses that are reached by this bridge; none while it has not been set up. */
  reaches(number: number): boolean {
    const first = this.config[BRIDGE.secondary]!;
    return first !== 0 && number >= first && number <= this.config[BRIDGE.subordinate]!;
  }

  get secondaryNumber(): number {
    return this.config[BRIDGE.secondary]!;
  }

  override configRead(offset: number, size: number): number {
    this.showSlot();
    this.showShpc(offset, size);
    return super.configRead(offset, size);
  }

  override configWrite(offset: number, size: number, value: number): void {
    const at = this.slot === null ? 0 : this.options.capability!.offset + EXPRESS.slotControl;
    const touched = (first: number): boolean => this.slot !== null && offset < first + 2 && offset + size > first;
    const before = super.configRead(at, 2);
    super.configWrite(offset, size, value);
    const data = SHPC_AT + SHPC_CAPABILITY.data;
    if (offset >= data && offset < data + 4) this.shpc?.memory.write(this.shpcWord + offset - data, size, value);
    if (touched(at)) this.slot!.controlWritten(before);
    else if (touched(at + 2)) this.slot!.update();
  }

  protected override onConfigWrite(offset: number, size: number): void {
    const reset = offset <= BRIDGE.control && offset + size > BRIDGE.control;
    if (!reset || (this.config[BRIDGE.control]! & SECONDARY_RESET) === 0) return;
    for (const device of this.secondaryBus?.all() ?? []) device.reset();
  }

  protected override onReset(): void {
    this.slot?.reset();
    this.shpc?.reset();
  }

  private addPower(at: number): void {
    this.addCapability(at, POWER.id, POWER.body);
    this.setWritable(at + 4, POWER.control);
  }

  private addConventional({ chassis, hotplug }: ConventionalOptions): void {
    this.setInitial(PCI.status, [CONVENTIONAL_STATUS]);
    if (chassis !== null) this.addCapability(CHASSIS.offset, CHASSIS.id, [CHASSIS.first, chassis]);
    if (!hotplug) return;
    this.addCapability(SHPC_AT, SHPC_ID, SHPC_BODY);
    this.setWritable(SHPC_AT + SHPC_CAPABILITY.select, [0xff]);
    const bridge = this;
    const shpc = new StandardHotplug({
      interrupt: (level) => this.slotInterrupt(level),
      get bus() {
        return bridge.secondary;
      },
    });
    this.shpc = shpc;
    this.addBar(0, { kind: 'mem64', size: SHPC_BYTES, handler: shpc.memory, name: 'shpc' });
    this.addPart('shpc', { reset: () => undefined, save: () => shpc.save(), load: (state) => shpc.load(state) });
  }

  /** The register that configuration space shows, by its offset. */
  private get shpcWord(): number {
    return 4 * this.config[SHPC_AT + SHPC_CAPABILITY.select]!;
  }

  private showShpc(offset: number, size: number): void {
    const data = SHPC_AT + SHPC_CAPABILITY.data;
    if (this.shpc === null || offset >= data + 4 || offset + size <= data) return;
    const word = this.shpc.read(this.shpcWord);
    for (let i = 0; i < 4; i++) this.config[data + i] = word >>> (8 * i);
  }

  private addExpress({ offset, type }: NonNullable<BridgeOptions['capability']>): void {
    const { port } = this.options;
    this.addCapability(offset, EXPRESS_ID, expressBody(type, port?.number, port?.slot));
    this.setWritable(offset + EXPRESS.control, [0xff, 0x7f]);
    // Bit 5 trains the link anew, which is over at once.
    this.setWritable(offset + EXPRESS.linkControl, [0xdb, 0x0f]);
    if (port == null) return;
    this.setWritable(offset + EXPRESS.slotControl, SLOT_CONTROL_WRITABLE);
    this.writeOneClears.set(SLOT_STATUS_CLEARS, offset + EXPRESS.slotStatus);
    this.setWritable(offset + EXPRESS.rootControl, [0x1f, 0]);
  }

  private addVector(): void {
    const { offset, bar, size, table, pending } = MSIX;
    const msix = this.addMsix(offset, 1, { bar, table, pending });
    const handler = {
      read: (at: number, width: number) =>
        at < pending ? msix.table.read(at, width) : msix.pendingBits.read(at - pending, width),
      write: (at: number, width: number, value: number) => {
        if (at < pending) msix.table.write(at, width, value);
      },
    };
    this.addBar(bar, { kind: 'mem32', size, handler, name: `${this.options.type}-msix` });
  }

  private addSlot(enabled: boolean): void {
    const at = this.options.capability!.offset;
    const word = (offset: number) => ({
      get: () => super.configRead(at + offset, 2),
      set: (value: number) => this.config.set([value & 0xff, value >> 8], at + offset),
    });
    const [control, status] = [word(EXPRESS.slotControl), word(EXPRESS.slotStatus)];
    const port = this;
    this.slot = new ExpressSlot(
      {
        id: this.id,
        getControl: control.get,
        setControl: control.set,
        getStatus: status.get,
        setStatus: status.set,
        interrupt: (level) => this.slotInterrupt(level),
        get bus() {
          return port.secondary;
        },
      },
      enabled,
    );
    const { slot } = this;
    this.addPart('slot', { reset: () => undefined, save: () => slot.save(), load: (state) => slot.load(state) });
  }

  private slotInterrupt(level: boolean): void {
    const messages = this.msix ?? this.msi;
    if (messages?.enabled !== true) this.setIntx(level);
    else if (level) messages.notify(0);
  }

  /** Presence, and a link that is up while there is something at its other end. */
  private showSlot(): void {
    const { slot, secondaryBus } = this;
    if (slot === null || secondaryBus === null) return;
    const at = this.options.capability!.offset;
    const status = at + EXPRESS.slotStatus;
    this.config[status] = slot.statusNow(this.config[status]!);
    const link = secondaryBus.all().length > 0 ? LINK | LINK_UP : PORT.idle;
    this.config.set([link & 0xff, link >> 8], at + EXPRESS.linkStatus);
  }
}

/** Finds a function by the number of its bus, through bridges if need be. */
export function findFunction(root: PciBus, number: number, devfn: number): PciDevice | undefined {
  if (number === 0) return root.find(devfn);
  return below(root, number, devfn);
}

function below(bus: PciBus, number: number, devfn: number): PciDevice | undefined {
  for (const device of bus.all()) {
    if (!(device instanceof PciBridge) || !device.reaches(number)) continue;
    return device.secondaryNumber === number ? device.secondary.find(devfn) : below(device.secondary, number, devfn);
  }
  return undefined;
}

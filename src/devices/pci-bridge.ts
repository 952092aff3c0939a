/** Bridges to further PCI buses: PCI-to-PCI Bridge Architecture 1.2, and root ports (PCI Express Base 3.0, 7.8). */
import { PciBus, PciDevice, type PciIdentity, type PciSpaces } from './pci.ts';

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

/** PCI Express capability: what follows its id and link. */
const EXPRESS_ID = 0x10;
const EXPRESS_SIZE = 0x3c;
const EXPRESS = {
  control: 0x08,
  linkControl: 0x10,
  linkStatus: 0x12,
  slotControl: 0x18,
  slotStatus: 0x1a,
  rootControl: 0x1c,
} as const;
const VERSION = 2;
export const EXPRESS_TYPE = { endpoint: 0, rootPort: 4, toPci: 7 } as const;
type ExpressType = (typeof EXPRESS_TYPE)[keyof typeof EXPRESS_TYPE];
const SLOT_IMPLEMENTED = 0x100;
const ROLE_BASED_ERRORS = 0x8000;
/** One lane of 2.5 GT/s, and a link that is up. */
const LINK = 0x11;
const LINK_UP = 0x2000;
const PRESENT = 0x40;

/** @param slot number of the slot that a port leads to @returns a capability's bytes after its id and link */
export function expressBody(type: ExpressType, slot: number): number[] {
  const bytes = new Uint8Array(EXPRESS_SIZE);
  const view = new DataView(bytes.buffer);
  const port = type === EXPRESS_TYPE.rootPort;
  view.setUint16(2, VERSION | (type << 4) | (port ? SLOT_IMPLEMENTED : 0), true);
  view.setUint32(4, ROLE_BASED_ERRORS, true);
  view.setUint32(0x0c, LINK | (slot << 24), true);
  view.setUint16(EXPRESS.linkStatus, LINK | LINK_UP, true);
  if (port) view.setUint32(0x14, slot << 19, true);
  return [...bytes.subarray(2)];
}

export { EXPRESS_ID };

export type BridgeOptions = {
  type: string;
  /** Name of the bus behind it. */
  busName: string;
  /** Places on that bus. */
  slots: number;
  /** The bus is a link of PCI Express. */
  express: boolean;
  capability: { offset: number; type: ExpressType; slot: number } | null;
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
    if (options.capability !== null) this.addExpress(options.capability);
  }

  /** There is one when the bridge has been plugged in. */
  get secondary(): PciBus {
    return this.secondaryBus!;
  }

  override plug(bus: PciBus, devfn: number, spaces: PciSpaces): void {
    super.plug(bus, devfn, spaces);
    this.secondaryBus = new SecondaryBus(this, spaces, this.options);
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
    this.showPresence();
    return super.configRead(offset, size);
  }

  protected override onConfigWrite(offset: number, size: number): void {
    const reset = offset <= BRIDGE.control && offset + size > BRIDGE.control;
    if (!reset || (this.config[BRIDGE.control]! & SECONDARY_RESET) === 0) return;
    for (const device of this.secondaryBus?.all() ?? []) device.reset();
  }

  private addExpress({ offset, type, slot }: NonNullable<BridgeOptions['capability']>): void {
    this.addCapability(offset, EXPRESS_ID, expressBody(type, slot));
    this.setWritable(offset + EXPRESS.control, [0xff, 0x7f]);
    this.setWritable(offset + EXPRESS.linkControl, [0xfb, 0x0f]);
    if (type !== EXPRESS_TYPE.rootPort) return;
    this.setWritable(offset + EXPRESS.slotControl, [0xff, 0x1f]);
    this.setWritable(offset + EXPRESS.rootControl, [0x1f, 0]);
  }

  private showPresence(): void {
    const { capability } = this.options;
    if (capability?.type !== EXPRESS_TYPE.rootPort) return;
    const present = (this.secondaryBus?.all().length ?? 0) > 0;
    this.config[capability.offset + EXPRESS.slotStatus] = present ? PRESENT : 0;
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

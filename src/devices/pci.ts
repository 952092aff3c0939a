/** PCI functions and their bus: PCI Local Bus Specification 3.0, chapter 6. */
import type {
  Device,
  DeviceState,
  IoHandler,
  MappedRegion,
  MmioBus,
  MsiSink,
  PortBus,
  StateValue,
} from '../machine/interfaces.ts';
import type { BusHotplug } from './device-type.ts';
import { Msi, MSI_ID, type MsiOptions } from './pci-msi.ts';
import { Msix, MSIX_ID, type MsixPlace } from './pci-msix.ts';
import { type StateFields, StateBlock } from './state.ts';

/** Configuration space offsets (6.1). */
export const PCI = {
  vendor: 0x00,
  device: 0x02,
  command: 0x04,
  status: 0x06,
  revision: 0x08,
  classCode: 0x09,
  cacheLine: 0x0c,
  headerType: 0x0e,
  bar0: 0x10,
  subsystemVendor: 0x2c,
  subsystem: 0x2e,
  rom: 0x30,
  capabilities: 0x34,
  interruptLine: 0x3c,
  interruptPin: 0x3d,
} as const;

/** Command register (6.2.2). */
export const PCI_COMMAND = {
  io: 1 << 0,
  memory: 1 << 1,
  master: 1 << 2,
  parity: 1 << 6,
  serr: 1 << 8,
  intxOff: 1 << 10,
} as const;
const COMMAND_WRITABLE = 0x547;
const STATUS_INTX = 1 << 3;
const STATUS_CAPABILITIES = 1 << 4;

/** While software sizes a 32-bit register it holds all ones: nothing may appear up there then. */
const LOW_LIMIT = 2 ** 32 - 4096;

/** Address spaces that base address registers map into, and where interrupt messages go. */
export type PciSpaces = { memory: MmioBus; ports: PortBus; messages?: MsiSink };

/** Registers beside the configuration space that a function saves under a name of their own. */
export interface PciPart {
  reset(): void;
  save(): DeviceState;
  load(state: DeviceState): void;
}

export type BarKind = 'io' | 'mem32' | 'mem64';

export type BarOptions = {
  kind: BarKind;
  /** A power of two: at least 4 bytes for ports, 16 for memory. */
  size: number;
  prefetchable?: boolean;
  handler: IoHandler;
  name: string;
  /** Replaces the plain mapping of `handler`, e.g. for memory that the CPU accesses directly. */
  map?: (base: number) => MappedRegion;
};

/** Expansion ROM (6.2.5.2): bit 0 of its register makes it decode its address. */
const ROM_ENABLE = 1;

/** Vendor and device, revision and class, header type; what base addresses can be; subsystem. */
const IDENTITY = [
  [0x00, 4],
  [0x08, 4],
  [0x0e, 1],
  [0x10, 24],
] as const;

type Rom = { size: number; map: (base: number) => MappedRegion; mapping: MappedRegion | null; base: number };
type Bar = { index: number; options: BarOptions; mapping: MappedRegion | null; base: number };

export type PciIdentity = {
  vendor: number;
  device: number;
  revision?: number;
  /** Class, subclass and programming interface in 24 bits. */
  classCode: number;
  subsystemVendor?: number;
  subsystem?: number;
  multifunction?: boolean;
  /** Layout of the header: 0, or 1 for a bridge, which has no subsystem in it. */
  headerType?: 0 | 1;
  /** 1 to 4 for INTA to INTD; 0 or nothing for none. */
  interruptPin?: number;
};

/**
 * One function. Subclasses add registers by `config`, `writable` (bits that software may change)
 * and `onConfigWrite`, base address registers by `addBar`, and their own state by `extraState`.
 */
export abstract class PciDevice implements Device {
  abstract readonly type: string;
  readonly id: string;
  /** Device number times 8 plus function; -1 before the device is plugged. */
  devfn = -1;
  /** By which the system may name it (PCI Firmware Specification 3.1, 4.6.7); 0 for none. */
  acpiIndex = 0;
  /** May leave while the machine runs, which the board's own functions may not. */
  removable = false;

  /** Interrupt messages are to reach the host's kernel by eventfds. */
  protected messagesByEventfd = false;
  /** Bits of configuration space that software may change. */
  protected readonly writable = new Uint8Array(256);
  /** Bits that a written 1 clears. */
  protected readonly writeOneClears = new Uint8Array(256);

  private readonly base: StateBlock<{ config: Uint8Array; intx: boolean }>;
  private readonly initial = new Uint8Array(256);
  private readonly bars: Bar[] = [];
  private readonly parts = new Map<string, PciPart>();
  /** Offset of the MSI-X capability, and its registers. */
  private msixAt = 0;
  protected msix: Msix | null = null;
  protected msi: Msi | null = null;
  private rom: Rom | null = null;
  private spaces: PciSpaces | null = null;
  private bus: PciBus | null = null;
  private lastCapability = 0;

  constructor(id: string, identity: PciIdentity) {
    this.id = id;
    this.base = new StateBlock(id, 1, () => ({ config: new Uint8Array(256), intx: false }));
    const view = new DataView(this.initial.buffer);
    view.setUint16(PCI.vendor, identity.vendor, true);
    view.setUint16(PCI.device, identity.device, true);
    view.setUint32(PCI.revision, (identity.classCode << 8) | (identity.revision ?? 0), true);
    const { headerType = 0 } = identity;
    if (headerType === 0) {
      view.setUint16(PCI.subsystemVendor, identity.subsystemVendor ?? 0, true);
      view.setUint16(PCI.subsystem, identity.subsystem ?? 0, true);
    }
    this.initial[PCI.headerType] = headerType | (identity.multifunction === true ? 0x80 : 0);
    this.initial[PCI.interruptPin] = identity.interruptPin ?? 0;
    this.writable[PCI.command] = COMMAND_WRITABLE & 0xff;
    this.writable[PCI.command + 1] = COMMAND_WRITABLE >> 8;
    this.writeOneClears[PCI.status + 1] = 0xf9;
    this.writable[PCI.cacheLine] = 0xff;
    this.writable[PCI.interruptLine] = 0xff;
    this.config.set(this.initial);
  }

  /** The bus that it is plugged into. */
  get parent(): PciBus | null {
    return this.bus;
  }

  get config(): Uint8Array {
    return this.base.value.config;
  }

  /** Called once by the bus. */
  plug(bus: PciBus, devfn: number, spaces: PciSpaces): void {
    this.bus = bus;
    this.devfn = devfn;
    this.spaces = spaces;
  }

  configRead(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.config[(offset + i) & 0xff]! << (8 * i);
    return value >>> 0;
  }

  configWrite(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) {
      const at = (offset + i) & 0xff;
      const byte = (value >>> (8 * i)) & 0xff;
      const mask = this.writable[at]!;
      const clears = byte & this.writeOneClears[at]!;
      this.config[at] = ((this.config[at]! & ~mask) | (byte & mask)) & ~clears;
    }
    // Command, base addresses, ROM.
    if (offset < PCI.rom + 4) this.remap();
    this.driveIntx();
    if (offset < this.msixAt + 4 && offset + size > this.msixAt + 2) this.msix?.controlChanged();
    this.msi?.changed();
    this.onConfigWrite(offset, size);
  }

  reset(): void {
    this.base.value.config.set(this.initial);
    this.setIntx(false);
    this.remap();
    for (const part of this.parts.values()) part.reset();
    this.onReset();
  }

  saveState(): DeviceState {
    const state = this.base.save();
    const extra = this.extraState();
    if (extra !== null) state.fields.device = extra.save().fields;
    for (const [name, part] of this.parts) state.fields[name] = part.save().fields;
    return state;
  }

  loadState(state: DeviceState): void {
    const { version } = state;
    const fields = { ...state.fields };
    const extra = this.extraState();
    for (const [name, part] of [...this.parts, ...(extra === null ? [] : [['device', extra] as const])]) {
      const saved = fields[name];
      if (saved === undefined || typeof saved !== 'object') throw new Error(`${this.id}: field "${name}" is missing`);
      part.load({ version, fields: saved as StateFields });
      delete fields[name];
    }
    this.checkIdentity(fields['config']);
    this.base.load({ version, fields });
    this.remap();
    this.driveIntx();
    this.onLoad();
  }

  /** @throws Error when the saved function was another one, or had other registers in memory */
  private checkIdentity(config: StateValue | undefined): void {
    if (!(config instanceof Uint8Array) || config.length !== this.initial.length) return;
    for (const [at, length] of IDENTITY) {
      for (let i = at; i < at + length; i++) {
        if (((config[i]! ^ this.initial[i]!) & ~this.writable[i]!) === 0) continue;
        const what = at < PCI.bar0 ? 'is another device' : 'has base addresses of other sizes';
        throw new Error(`${this.id}: field "config" ${what} (byte ${i.toString(16)}h)`);
      }
    }
  }

  /** Registers beyond the configuration space. */
  protected extraState(): { save(): DeviceState; load(state: DeviceState): void } | null {
    return null;
  }

  protected onReset(): void {
    // For subclasses.
  }

  protected onLoad(): void {
    // For subclasses.
  }

  protected onConfigWrite(_offset: number, _size: number): void {
    // For subclasses.
  }

  /** Adds registers that are reset, saved and loaded with the function. */
  protected addPart(name: string, part: PciPart): void {
    this.parts.set(name, part);
  }

  /** Sets the value that configuration space has after a reset. */
  protected setInitial(offset: number, bytes: readonly number[]): void {
    this.initial.set(bytes, offset);
    this.config.set(bytes, offset);
  }

  /** Allows software to change these bits. */
  protected setWritable(offset: number, masks: readonly number[]): void {
    this.writable.set(masks, offset);
  }

  /** Sends an interrupt message, if the function may write to memory at all (6.8.3.5). */
  protected sendMessage(address: number, data: number): void {
    if (this.busMaster) this.spaces?.messages?.sendMsi(address, data, this.messagesByEventfd);
  }

  protected get busMaster(): boolean {
    return (this.config[PCI.command]! & PCI_COMMAND.master) !== 0;
  }

  protected addBar(index: number, options: BarOptions): void {
    const { kind, size } = options;
    const smallest = kind === 'io' ? 4 : 16;
    if (size < smallest || !Number.isInteger(Math.log2(size))) {
      throw new Error(`${this.id}: base address register ${index} of ${size} bytes`);
    }
    const at = PCI.bar0 + 4 * index;
    const flags = (kind === 'io' ? 1 : kind === 'mem64' ? 4 : 0) | (options.prefetchable === true ? 8 : 0);
    this.setInitial(at, [flags, 0, 0, 0]);
    const mask = new DataView(this.writable.buffer);
    mask.setUint32(at, size >= 2 ** 32 ? 0 : (2 ** 32 - size) >>> 0, true);
    if (kind === 'mem64') {
      const high = size > 2 ** 32 ? 2 ** 32 - size / 2 ** 32 : 0xffffffff;
      mask.setUint32(at + 4, high >>> 0, true);
    }
    this.bars.push({ index, options, mapping: null, base: -1 });
  }

  /** @param size bytes, a power of two from 2 KiB up @param map puts the ROM at an address */
  protected addRom(size: number, map: (base: number) => MappedRegion): void {
    new DataView(this.writable.buffer).setUint32(PCI.rom, (2 ** 32 - size + ROM_ENABLE) >>> 0, true);
    this.rom = { size, map, mapping: null, base: -1 };
  }

  /** Appends a capability (6.7). @returns its offset */
  protected addCapability(offset: number, id: number, body: readonly number[]): number {
    const link = this.lastCapability === 0 ? PCI.capabilities : this.lastCapability + 1;
    this.setInitial(link, [offset]);
    this.setInitial(offset, [id, 0, ...body]);
    this.setInitial(PCI.status, [this.initial[PCI.status]! | STATUS_CAPABILITIES]);
    this.lastCapability = offset;
    return offset;
  }

  /** Adds the MSI-X capability; the function puts the table and the pending bits where `place` says. */
  protected addMsix(offset: number, vectors: number, place: MsixPlace): Msix {
    const msix = new Msix(this.id, vectors, place, {
      control: () => this.configRead(offset + 2, 2),
      send: (address, data) => this.sendMessage(address, data),
    });
    this.msixAt = this.addCapability(offset, MSIX_ID, msix.body);
    // Enable, and the mask of all vectors.
    this.setWritable(offset + 3, [0xc0]);
    this.addPart('msix', msix);
    this.msix = msix;
    return msix;
  }

  /** Adds the MSI capability. */
  protected addMsi(offset: number, options: MsiOptions): Msi {
    const msi = new Msi(options, {
      read: (at, size) => this.configRead(offset + at, size),
      put: (at, value) => new DataView(this.config.buffer, this.config.byteOffset).setUint32(offset + at, value, true),
      send: (address, data) => this.sendMessage(address, data),
    });
    this.addCapability(offset, MSI_ID, msi.body);
    this.setWritable(offset + 2, msi.writable);
    this.msi = msi;
    return msi;
  }

  /** What registers behind base addresses say of their doorbells has changed. */
  protected doorbellsChanged(): void {
    for (const { mapping } of this.bars) mapping?.doorbellsChanged?.();
  }

  /** Address that software gave a base address register, or -1 while it decodes nothing. */
  barBase(index: number): number {
    return this.bars.find((bar) => bar.index === index)?.base ?? -1;
  }

  /** Drives the function's interrupt pin. */
  setIntx(level: boolean): void {
    this.base.value.intx = level;
    this.driveIntx();
  }

  private driveIntx(): void {
    const { config, intx } = this.base.value;
    const status = config[PCI.status]! & ~STATUS_INTX;
    config[PCI.status] = intx ? status | STATUS_INTX : status;
    const off = (config[PCI.command + 1]! & (PCI_COMMAND.intxOff >> 8)) !== 0;
    const pin = config[PCI.interruptPin]!;
    if (pin >= 1 && pin <= 4) this.bus?.setPin(this, pin - 1, intx && !off);
  }

  private remap(): void {
    for (const bar of this.bars) {
      const base = this.decoded(bar);
      if (base === bar.base) continue;
      bar.mapping?.remove();
      bar.mapping = base < 0 ? null : this.mapBar(bar.options, base);
      bar.base = base;
    }
    this.remapRom();
  }

  private remapRom(): void {
    const { rom } = this;
    if (rom === null) return;
    const register = this.configRead(PCI.rom, 4);
    const decodes = (register & ROM_ENABLE) !== 0 && (this.config[PCI.command]! & PCI_COMMAND.memory) !== 0;
    const address = (register & ~(rom.size - 1)) >>> 0;
    const fits = address !== 0 && address + rom.size <= LOW_LIMIT;
    const base = decodes && fits ? address : -1;
    if (base === rom.base) return;
    rom.mapping?.remove();
    rom.mapping = base < 0 ? null : rom.map(base);
    rom.base = base;
  }

  private mapBar(options: BarOptions, base: number): MappedRegion | null {
    if (options.map !== undefined) return options.map(base);
    if (this.spaces === null) return null;
    const { memory, ports } = this.spaces;
    return options.kind === 'io'
      ? ports.register(base, options.size, options.handler, options.name)
      : memory.addMmio(base, options.size, options.handler, options.name);
  }

  /** Address the register decodes now, or -1. */
  private decoded(bar: Bar): number {
    const { kind, size } = bar.options;
    const command = this.config[PCI.command]!;
    const at = PCI.bar0 + 4 * bar.index;
    const low = this.configRead(at, 4);
    if (kind === 'io') {
      const base = (low & ~3) >>> 0;
      const fits = base !== 0 && base + size <= 0x10000;
      return (command & PCI_COMMAND.io) !== 0 && fits ? base : -1;
    }
    const high = kind === 'mem64' ? this.configRead(at + 4, 4) : 0;
    const base = high * 2 ** 32 + ((low & ~15) >>> 0);
    const limit = kind === 'mem64' ? 2 ** 52 : LOW_LIMIT;
    const fits = base !== 0 && base + size <= limit;
    return (command & PCI_COMMAND.memory) !== 0 && fits ? base : -1;
  }
}

/** Which PIRQ line (0 to 7) a slot's interrupt pin (0 to 3) is wired to. */
export type PirqWiring = (slot: number, pin: number) => number;

const PIRQS = 8;
const SLOTS = 32;

export type PciBusOptions = {
  /** Places for devices. */
  slots?: number;
  /** A link of PCI Express rather than a conventional bus, or the root complex. */
  express?: boolean;
  /** What leads to it; nothing for the board's own. */
  bridge?: PciDevice | null;
};

export class PciBus {
  readonly kind = 'PCI';
  readonly name: string;
  readonly express: boolean;
  readonly bridge: PciDevice | null;
  /** Places for devices. */
  readonly slots: number;
  hotplug: BusHotplug | null = null;
  onEject: ((device: PciDevice) => void) | null = null;
  private readonly devices = new Map<number, PciDevice>();
  private readonly spaces: PciSpaces;
  /** One set per PIRQ of the functions that assert it. */
  private readonly asserted = Array.from({ length: PIRQS }, () => new Set<PciDevice>());
  private readonly wiring: PirqWiring;
  /** A PIRQ line (0 to 7 for A to H) changed its level. */
  onPirq: ((pirq: number, level: boolean) => void) | undefined;

  constructor(spaces: PciSpaces, wiring: PirqWiring = pirqOf, name = 'pci.0', options: PciBusOptions = {}) {
    this.name = name;
    this.slots = options.slots ?? SLOTS;
    this.express = options.express === true;
    this.bridge = options.bridge ?? null;
    this.spaces = spaces;
    this.wiring = wiring;
  }

  /** There is such a place. */
  hasSlot(slot: number): boolean {
    return slot < this.slots;
  }

  /** @throws Error when the place is taken */
  plug(device: PciDevice, slot: number, func = 0): void {
    const devfn = slot * 8 + func;
    if (this.devices.has(devfn)) {
      throw new Error(`${device.id}: PCI slot ${slot} function ${func} is not free`);
    }
    this.devices.set(devfn, device);
    device.plug(this, devfn, this.spaces);
  }

  unplug(device: PciDevice): void {
    for (let pin = 0; pin < 4; pin++) this.setPin(device, pin, false);
    this.devices.delete(device.devfn);
  }

  freeSlot(): number {
    for (let slot = 0; slot < this.slots; slot++) if (!this.devices.has(slot * 8)) return slot;
    return -1;
  }

  find(devfn: number): PciDevice | undefined {
    return this.devices.get(devfn);
  }

  all(): PciDevice[] {
    return [...this.devices.values()];
  }

  level(pirq: number): boolean {
    return this.asserted[pirq]!.size !== 0;
  }

  setPin(device: PciDevice, pin: number, level: boolean): void {
    const pirq = this.wiring(device.devfn >> 3, pin);
    const sources = this.asserted[pirq]!;
    const was = sources.size !== 0;
    if (level) sources.add(device);
    else sources.delete(device);
    if (was !== level || was !== (sources.size !== 0)) this.report(pirq, was);
  }

  private report(pirq: number, was: boolean): void {
    const level = this.level(pirq);
    if (level !== was) this.onPirq?.(pirq, level);
  }
}

/** How the PIIX boards wire INTx of a slot to PIRQ lines; the DSDT's _PRT says the same. */
export function pirqOf(slot: number, pin: number): number {
  return (pin + slot - 1) & 3;
}

/**
 * What can be added to a machine by name: types of devices, each with one table of its properties. Parsing,
 * checks, help and the typed values that a device is made from all follow from that table.
 */
import type { HostNetwork } from '../host/network.ts';
import type { FileTree } from '../host/file-tree.ts';
import type {
  BlockBackend,
  CharBackend,
  GuestMemory,
  InputPointer,
  IrqLine,
  MemoryBalloon,
  NetworkPort,
  PortBus,
  VirtualClock,
} from '../machine/interfaces.ts';

/** One property. Values come as text from a command line, or as JSON has them. */
export interface Property<T> {
  /** As QEMU's help names it. */
  readonly type: string;
  readonly help: string;
  readonly byDefault: T;
  /** As help shows the default; nothing when there is none. */
  readonly shownDefault: string | null;
  /** @throws Error with what was expected, to follow the property's name */
  parse(value: unknown): T;
}

// biome-ignore lint/suspicious/noExplicitAny: a table has properties of all types, which `Values` tells apart
export type Properties = { readonly [name: string]: Property<any> };
export type Values<P extends Properties> = { readonly [K in keyof P]: P[K] extends Property<infer T> ? T : never };

/** A drive as a device sees it. */
export interface DriveLink {
  readonly backend: BlockBackend | null;
  readonly readOnly: boolean;
  readonly serial: string | null;
}

/** What a device may ask of the board while it is made. */
export interface DeviceContext {
  /** Unique within the machine. */
  readonly id: string;
  readonly memory: GuestMemory;
  /** Bytes of RAM. */
  readonly memorySize: number;
  readonly clock: VirtualClock;
  readonly ports: PortBus;
  /** A line at an interrupt of the board's, 0 to 15. */
  irq(input: number): IrqLine;
  /** Ends the machine with a status. */
  exit(code: number): void;
  /** 32 bits that nobody can guess. */
  readonly random: () => number;
  readonly trace: ((category: string, line: string) => void) | undefined;
  /** A number for each device that wants one to tell it from others of its kind. */
  next(kind: string): number;
  /** @throws Error when there is none of that name, or it is in use */
  drive(property: string, name: string): DriveLink;
  network(property: string, name: string): NetworkPort;
  character(property: string, name: string): CharBackend;
  folder(property: string, name: string): FileTree;
  /** Sockets of the host's. */
  readonly hostNetwork: HostNetwork | null;
  /** Keys go to the newest keyboard whose guest listens. @param take is given scancodes (set 1), and says whether it does */
  addKeyboard(take: (codes: readonly number[]) => boolean): void;
  /** Movements go to the newest pointer that knows such and whose guest listens. */
  addPointer(pointer: InputPointer): void;
  /** @throws Error when the machine has one */
  setBalloon(balloon: MemoryBalloon): void;
  /** What the device is plugged into. */
  readonly bus: DeviceBus;
}

/** A place that devices can be plugged into. */
export interface DeviceBus {
  /** QEMU's name, e.g. "pci.0". */
  readonly name: string;
  /** QEMU's kind, e.g. "PCI". */
  readonly kind: string;
  /** There is no room for another device. */
  readonly full?: boolean;
  /** Open Firmware's name of a device on it, to follow that of the device that provides the bus; null for none. */
  bootPath?(device: unknown): string | null;
  /** How devices come and go while the machine runs; nothing where they do not. */
  readonly hotplug?: BusHotplug | null;
  /** Set by the machine: told when the guest has let a device go, which then leaves. */
  onEject?: ((device: never) => void) | null;
  /** Takes a device off, of which nothing is left on the bus. */
  unplug?(device: never): void;
}

/** How the guest learns of devices on a bus. */
export interface BusHotplug {
  /** A device has been put on the bus. */
  plugged(device: unknown): void;
  /** Asks the guest to let a device go, which the bus then ejects. @throws Error, one line */
  requestUnplug(device: unknown): void;
}

export const CATEGORIES = ['bridge', 'storage', 'network', 'input', 'display', 'misc'] as const;
export type Category = (typeof CATEGORIES)[number];

export interface DeviceType<P extends Properties = Properties, D = unknown> {
  /** QEMU's name. */
  readonly name: string;
  readonly alias?: string;
  readonly category: Category;
  /** Kind of the bus that it goes on. */
  readonly bus: string;
  readonly properties: P;
  /** The device is reset, saved and loaded by the controller that it is plugged into. */
  readonly ofController?: boolean;
  /** False for what is there from the start or not at all. */
  readonly hotpluggable?: boolean;
  /** Makes the device, which is not on its bus yet. @throws Error, one line */
  create(values: Values<P>, context: DeviceContext): D;
  /** Buses that it provides. */
  buses?(device: D): readonly DeviceBus[];
}

/** Keeps the types of a row's own properties while it is written, and forgets them afterwards. */
export function deviceType<const P extends Properties, D>(type: DeviceType<P, D>): DeviceType {
  return type as unknown as DeviceType;
}

// --- Kinds of properties.

const SWITCH: Record<string, boolean> = {
  on: true,
  yes: true,
  true: true,
  y: true,
  off: false,
  no: false,
  false: false,
  n: false,
};

export function bool(byDefault: boolean, help = 'on/off'): Property<boolean> {
  return {
    type: 'bool',
    help,
    byDefault,
    shownDefault: String(byDefault),
    parse(value) {
      const found = typeof value === 'boolean' ? value : SWITCH[String(value)];
      if (found === undefined) throw new Error("expects 'on' or 'off'");
      return found;
    },
  };
}

export type OnOffAuto = 'on' | 'off' | 'auto';

export function onOffAuto(byDefault: OnOffAuto, help = 'on/off/auto'): Property<OnOffAuto> {
  return {
    type: 'OnOffAuto',
    help,
    byDefault,
    shownDefault: `"${byDefault}"`,
    parse(value) {
      if (value === 'auto') return 'auto';
      const found = typeof value === 'boolean' ? value : SWITCH[String(value)];
      if (found === undefined) throw new Error(`does not accept value '${String(value)}'`);
      return found ? 'on' : 'off';
    },
  };
}

function integer(value: unknown, type: string, least: number, most: number): number {
  const text = String(value);
  if (!/^-?(0x[0-9a-f]+|\d+)$/i.test(text)) throw new Error('expects integer');
  const number = text.startsWith('-') ? -Number(text.slice(1)) : Number(text);
  if (!(number >= least && number <= most)) throw new Error(`expects ${type}`);
  return number;
}

type Width = 8 | 16 | 32;

/** @param byDefault null for none that help shows: the device chooses, and finds null */
export function uint<T extends number | null>(width: Width, byDefault: T, help = ''): Property<T | number> {
  const type = `uint${width}`;
  return {
    type,
    help,
    byDefault,
    shownDefault: byDefault === null ? null : String(byDefault),
    parse: (value) => integer(value, `${type}_t`, 0, 2 ** width - 1),
  };
}

export function int32<T extends number | null>(byDefault: T, help = ''): Property<T | number> {
  return {
    type: 'int32',
    help,
    byDefault,
    shownDefault: byDefault === null ? null : String(byDefault),
    parse: (value) => integer(value, 'int32_t', -(2 ** 31), 2 ** 31 - 1),
  };
}

/** Up to 2^53: as far as numbers are exact. */
export function uint64(byDefault: number, help = ''): Property<number> {
  return {
    type: 'uint64',
    help,
    byDefault,
    shownDefault: String(byDefault),
    parse: (value) => integer(value, 'uint64_t', 0, Number.MAX_SAFE_INTEGER),
  };
}

const UNITS: Record<string, number> = { '': 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** Bytes, with a suffix if one likes. */
export function size(byDefault: number, help = ''): Property<number> {
  return {
    type: 'size',
    help,
    byDefault,
    shownDefault: String(byDefault),
    parse(value) {
      const match = /^(0x[0-9a-f]+|\d+)([bkmgt]?)$/i.exec(String(value));
      const bytes = match === null ? Number.NaN : Number(match[1]) * UNITS[match[2]!.toLowerCase()]!;
      if (!Number.isSafeInteger(bytes)) throw new Error('expects a size value representable as a 64-bit unsigned integer');
      return bytes;
    },
  };
}

export function text(help = ''): Property<string | null> {
  return { type: 'str', help, byDefault: null, shownDefault: null, parse: (value) => String(value) };
}

export function choice<const T extends string>(type: string, values: readonly T[], byDefault: T, help = ''): Property<T> {
  return {
    type,
    help: help === '' ? values.join('/') : help,
    byDefault,
    shownDefault: `"${byDefault}"`,
    parse(value) {
      if (!values.includes(value as T)) throw new Error(`does not accept value '${String(value)}'`);
      return value as T;
    },
  };
}

export function mac(): Property<Uint8Array | null> {
  return {
    type: 'str',
    help: 'Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56',
    byDefault: null,
    shownDefault: null,
    parse(value) {
      if (value instanceof Uint8Array && value.length === 6) return value;
      const found = /^[0-9a-f]{1,2}(?:([:-])[0-9a-f]{1,2}(?:\1[0-9a-f]{1,2}){4})$/i.test(String(value));
      if (!found) throw new TakesNot(String(value));
      return Uint8Array.from(String(value).split(/[:-]/), (part) => Number.parseInt(part, 16));
    },
  };
}

/** A value of the right type that is no use. */
export class TakesNot extends Error {
  constructor(value: string) {
    super(`doesn't take value '${value}'`);
  }
}

export const DRIVE = text('Node name or ID of a block device to use as a backend');
export const NETDEV = text('ID of a netdev to use as a backend');
export const CHARDEV = text('ID of a chardev to use as a backend');
export const BOOT_INDEX = int32(null);

const ON_ERROR = ['auto', 'report', 'ignore', 'enospc', 'stop'] as const;

/** What follows from a drive's error: `werror`, `rerror`. */
export const onError = (help = ''): Property<(typeof ON_ERROR)[number]> => choice('BlockdevOnError', ON_ERROR, 'auto', help);

/** Slot and function of a PCI device: hexadecimal, as in "1f.2". */
export type PciAddress = { readonly slot: number; readonly func: number };

const PCI_ADDRESS: Property<PciAddress | null> = {
  type: 'int32',
  help: 'Slot and optional function number, example: 06.0 or 06',
  byDefault: null,
  shownDefault: '-1',
  parse(value) {
    if (typeof value === 'number' && value >= 0 && value < 256) return { slot: value >> 3, func: value & 7 };
    const match = /^(?:0x)?([0-9a-f]{1,2})(?:\.(?:0x)?([0-7]))?$/i.exec(String(value));
    const slot = match === null ? 32 : Number.parseInt(match[1]!, 16);
    if (slot > 31) throw new TakesNot(String(value));
    return { slot, func: Number(match![2] ?? 0) };
  },
};

/** Largest number that an on-board device's name may have. */
const MAX_ACPI_INDEX = 16383;

/** What every PCI device has: where it is, and the number by which the system may name it (0 for none). */
export const PCI_PLACE = {
  addr: PCI_ADDRESS,
  'acpi-index': {
    ...uint(32, 0),
    parse(value: unknown): number {
      const index = integer(value, 'uint32_t', 0, 2 ** 32 - 1);
      if (index > MAX_ACPI_INDEX) throw new Error(`should be less or equal to ${MAX_ACPI_INDEX}`);
      return index;
    },
  },
};

/**
 * @param given by name, without those that every device has (driver, id, bus)
 * @returns a value for each property
 * @throws Error naming the property
 */
export function parseProperties<P extends Properties>(
  name: string,
  properties: P,
  given: { readonly [name: string]: unknown },
): Values<P> {
  const values: { [name: string]: unknown } = {};
  for (const [key, { byDefault }] of Object.entries(properties)) values[key] = byDefault;
  for (const [key, value] of Object.entries(given)) {
    const property = Object.hasOwn(properties, key) ? properties[key] : undefined;
    if (property === undefined) throw new Error(`Property '${name}.${key}' not found`);
    try {
      values[key] = property.parse(value);
    } catch (error) {
      const what = error instanceof TakesNot ? `Property '${name}.${key}'` : `Parameter '${key}'`;
      throw new Error(`${what} ${(error as Error).message}`);
    }
  }
  return values as Values<P>;
}

/** The text of `-device TYPE,help`. */
export function describeProperties(name: string, properties: Properties): string {
  const lines = Object.entries(properties)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, { type, help, shownDefault }]) => {
      const left = `  ${key}=<${type}>`;
      const right = [help, shownDefault === null ? '' : `(default: ${shownDefault})`].filter((part) => part !== '').join(' ');
      return right === '' ? left : `${left.padEnd(24)} - ${right}`;
    });
  return [`${name} options:`, ...lines].join('\n');
}

/** What a machine is made of: a plain object that can be sent to the machine's own thread. */
import { type AcceleratorName, ACCELERATORS } from './accelerator.ts';
import { checkNetwork, type NetworkConfig, NO_NETWORK } from './network-config.ts';
import { coresOnly, type CpuTopology, topologyFault } from './cpu-topology.ts';
import type { BlockBackend, CharBackend } from './interfaces.ts';

/** Host ends of the machine's byte streams, as `createMachine` needs them beside the configuration. */
export interface MachineIo {
  /** One per serial port of the configuration; null where it says `none`. */
  readonly serials: readonly (CharBackend | null)[];
  readonly debugcon: CharBackend | null;
  /** By the names that devices use. */
  readonly chardevs: Map<string, CharBackend>;
  /** One per drive of the configuration; null for a drive without a medium. */
  readonly drives: readonly (BlockBackend | null)[];
  /** Requests of theirs are under way. */
  readonly awaitsDisk?: () => boolean;
  /** Those that are nothing but memory: whole pages, which are part of the machine's state. */
  readonly driveMemory?: () => readonly { readonly id: string; readonly bytes: Uint8Array }[];
}

export type SerialConfig = 'connected' | 'none';

export interface NamedFile {
  /** For error messages. */
  readonly name: string;
  readonly data: Uint8Array;
}

export interface RtcConfig {
  /** Time at power-on: the host's, in UTC or local time, or seconds since 1970-01-01 00:00. */
  readonly base: 'utc' | 'localtime' | number;
  /** `vm` follows the machine's virtual clock, `host` the host's. */
  readonly clock: 'host' | 'vm';
}

export interface IcountConfig {
  /** An instruction lasts 2^shift nanoseconds; `auto` lets the machine choose. */
  readonly shift: number | 'auto';
  /** An idle machine waits in host time; otherwise its clock jumps to the next event. */
  readonly sleep: boolean;
}

export type DriveInterface = 'ide' | 'ahci' | 'floppy' | 'pflash' | 'virtio' | 'sd' | 'none';

/** Options of a block node, as after `-blockdev`: text may stand for every value. */
export type BlockOptions = { readonly [name: string]: unknown };

/** What follows from an error: the guest is told, not told, or the machine stops (`enospc`: if the host's disk is full). */
export type OnError = 'report' | 'ignore' | 'stop' | 'enospc';

/** A device beyond what the board has: as QMP's `device_add` takes it, `driver`, `id`, `bus` and the type's properties. */
export interface DeviceConfig {
  readonly driver: string;
  readonly id?: string | null;
  readonly bus?: string | null;
  readonly [property: string]: unknown;
}

/** How owners and permissions that a guest sets are kept: as the host's own, in extended attributes, or in files beside. */
export const SECURITY_MODELS = ['none', 'passthrough', 'mapped-xattr', 'mapped-file'] as const;

/** A folder of the host's that devices let the guest into. */
export interface FolderConfig {
  readonly id: string;
  readonly path: string;
  readonly securityModel: (typeof SECURITY_MODELS)[number];
  readonly readOnly: boolean;
}

/** A drive and what is in it. */
export interface DriveConfig {
  /** Name that others refer to it by; null for none. */
  readonly id: string | null;
  /** `none` is for devices that name it by its `id`. */
  readonly interface: DriveInterface;
  /**
   * IDE: 0 and 1 are master and slave of the first channel, 2 and 3 of the second; or the ports of a
   * Q35's AHCI, 0 to 5; AHCI: ports of a controller of its own, 0 to 5; floppy: A is 0; virtio, sd: any;
   * pflash: 0 ends at 4 GiB and holds the firmware, 1 lies below it. */
  readonly index: number;
  readonly media: 'disk' | 'cdrom';
  /** A path on the machine's host, or the image itself; null for a drive without a medium. */
  readonly file: string | NamedFile | null;
  /** QEMU's name of the image's format; null to look. */
  readonly format: string | null;
  /** Further options of the image's node; dotted keys are groups. */
  readonly block: BlockOptions;
  /** Name of the node in `blockdevs` that is behind the drive, instead of `file`. */
  readonly node: string | null;
  /** A write is over only when it is stable. */
  readonly writeThrough: boolean;
  readonly readError: OnError;
  readonly writeError: OnError;
  readonly readOnly: boolean;
  /** Writes are kept apart (in a file without a name where the host has files) and forgotten with the machine. */
  readonly snapshot: boolean;
  readonly serial: string | null;
  /** Place among the devices that firmware tries to boot, lowest first; null for the usual order. */
  readonly bootIndex: number | null;
}

/** What firmware is told about booting. */
export interface BootConfig {
  /** Devices to try: a, b floppy, c disk, d CD, n network. */
  readonly order: string;
  /** Overrides `order` until the first reset. */
  readonly once: string | null;
  readonly menu: boolean;
  /** Milliseconds that the menu's invitation stays, or null for the firmware's own choice. */
  readonly splashTime: number | null;
  /** Milliseconds until a reset when nothing could be booted, or null for never. */
  readonly rebootTimeout: number | null;
}

export const KERNEL_IRQCHIPS = ['on', 'split'] as const;

export const MACHINES = ['pc', 'q35', 'microvm'] as const;
export type MachineName = (typeof MACHINES)[number];

/** What a `microvm` has beside its virtio devices, by QEMU's names of its properties. */
export interface MicrovmOptions {
  readonly isaSerial: boolean;
  /** A real-time clock. */
  readonly rtc: boolean;
  readonly acpi: boolean;
  /** A kernel without ACPI is told of devices on its command line. */
  readonly autoKernelCmdline: boolean;
}

export interface MachineConfig {
  readonly machine: MachineName;
  readonly microvm: MicrovmOptions;
  /** As after QEMU's `-cpu`: `model,+feature,-feature,property=value`. */
  readonly cpu: string;
  /** How many CPUs. */
  readonly cpus: number;
  /** How they are arranged; null for cores of one package. */
  readonly topology: CpuTopology | null;
  /** Bytes of RAM, a whole number of MiB. */
  readonly memory: number;
  /** What runs the vCPU; of several, the first that can be had. */
  readonly accel: AcceleratorName | readonly AcceleratorName[];
  /** Under KVM: which interrupt chips the host's kernel has, all of them or (`split`) the local APICs alone. */
  readonly kernelIrqchip: (typeof KERNEL_IRQCHIPS)[number];
  /** The translator makes code of the host's own processor, where it can, not WebAssembly alone. */
  readonly nativeCode: boolean;
  /** Time derived from counted instructions, or null for host time. */
  readonly icount: IcountConfig | null;
  readonly rtc: RtcConfig;
  readonly kernel: NamedFile | null;
  readonly initrd: NamedFile | null;
  /** Kernel command line. */
  readonly append: string;
  /** Firmware image, whose size is a multiple of 64 KiB. */
  readonly bios: NamedFile | null;
  /** Display adapter; `none` leaves it out. By default there is one when firmware runs. */
  readonly vga: 'std' | 'none' | null;
  /** Its option ROM, which firmware runs to make it work. */
  readonly vgaBios: NamedFile | null;
  /** Nobody looks at the display: firmware uses the first serial port instead. */
  readonly textOnSerial: boolean;
  readonly drives: readonly DriveConfig[];
  readonly network: NetworkConfig;
  readonly devices: readonly DeviceConfig[];
  readonly folders: readonly FolderConfig[];
  /** Names of byte streams that devices are connected to. */
  readonly chardevs: readonly string[];
  /** Block nodes by themselves, in the order of making, each with a `node-name`. */
  readonly blockdevs: readonly BlockOptions[];
  /** Passwords by the names that options use. */
  readonly secrets: { readonly [id: string]: Uint8Array };
  /** Limits of throttle groups by their names, as after `throttling.` of drives. */
  readonly throttleGroups: { readonly [id: string]: BlockOptions };
  readonly boot: BootConfig;
  /** One per serial port, COM1 first, at most four; `none` leaves the port out. */
  readonly serials: readonly SerialConfig[];
  /** Port that prints what is written to it. */
  readonly debugcon: { readonly iobase: number } | null;
  /** Port that ends the machine with a status. */
  readonly debugExit: { readonly iobase: number; readonly iosize: number } | null;
  /** 16 bytes in text order, for SMBIOS. */
  readonly uuid: Uint8Array | null;
  readonly hpet: boolean;
  /** System management mode, for firmware; null is where there is firmware and the vCPU is translated. */
  readonly smm: boolean | null;
  /** Devices behind bridges come and go by ACPI, not by the registers of PCI Express ports. */
  readonly acpiHotplugBehindBridges: boolean;
  /** A reset ends the machine. */
  readonly noReboot: boolean;
  /** Power-off pauses the machine instead of ending it. */
  readonly noShutdown: boolean;
  readonly startPaused: boolean;
  /** Categories of `-d` that are passed on. */
  readonly trace: readonly string[];
}

export const MIB = 2 ** 20;
export const MAX_SERIALS = 4;
export const DEFAULT_MEMORY = 128 * MIB;

const DEFAULTS: MachineConfig = {
  machine: 'pc',
  microvm: { isaSerial: true, rtc: true, acpi: true, autoKernelCmdline: true },
  cpu: 'max',
  cpus: 1,
  topology: null,
  memory: DEFAULT_MEMORY,
  accel: 'jit',
  kernelIrqchip: 'on',
  nativeCode: true,
  icount: null,
  rtc: { base: 'utc', clock: 'host' },
  kernel: null,
  initrd: null,
  append: '',
  bios: null,
  serials: ['connected'],
  debugcon: null,
  debugExit: null,
  uuid: null,
  hpet: true,
  smm: null,
  acpiHotplugBehindBridges: true,
  noReboot: false,
  noShutdown: false,
  startPaused: false,
  trace: [],
  vga: null,
  vgaBios: null,
  textOnSerial: false,
  drives: [],
  network: NO_NETWORK,
  devices: [],
  chardevs: [],
  folders: [],
  blockdevs: [],
  secrets: {},
  throttleGroups: {},
  boot: { order: 'cad', once: null, menu: false, splashTime: null, rebootTimeout: null },
};

/** A drive with the usual settings, of which some are given. */
export function drive(given: Partial<DriveConfig>): DriveConfig {
  return {
    id: null,
    interface: 'ide',
    index: 0,
    media: 'disk',
    file: null,
    format: null,
    block: {},
    node: null,
    writeThrough: false,
    readError: 'report',
    writeError: 'report',
    readOnly: given.media === 'cdrom',
    snapshot: false,
    serial: null,
    bootIndex: null,
    ...given,
  };
}

/** What devices call a drive that is the board's to place; null for a drive that has its place. */
export function driveName({ interface: kind, id, index }: DriveConfig): string | null {
  return kind === 'virtio' || kind === 'sd' ? (id ?? `${kind}${index}`) : kind === 'none' ? id : null;
}

/** A device, and what in the configuration asked for it. */
export type WantedDevice = {
  readonly config: DeviceConfig;
  readonly field: 'devices' | 'drives' | 'network';
  readonly index: number;
};

/** Devices in the order of their places: cards, drives that bring a controller along, and what is named. */
export function wantedDevices({ machine, network, drives, devices }: MachineConfig): WantedDevice[] {
  const cards = network.nics.map(
    ({ model, id, netdev, mac, properties }, index): WantedDevice => ({
      config: { ...properties, driver: model, id, netdev, mac },
      field: 'network',
      index,
    }),
  );
  const disks = drives.flatMap((one, index): WantedDevice[] => {
    if (one.interface !== 'virtio') return [];
    const driver = machine === 'microvm' ? 'virtio-blk-device' : 'virtio-blk-pci';
    const config = { driver, drive: driveName(one), bootindex: one.bootIndex };
    return [{ config, field: 'drives', index }];
  });
  const named = devices.map((config, index): WantedDevice => ({ config, field: 'devices', index }));
  // Memory cards go where a controller is by then, unless a device has named them.
  const memoryCards = drives.flatMap((one, index): WantedDevice[] => {
    const name = driveName(one);
    if (one.interface !== 'sd' || devices.some((device) => device['drive'] === name)) return [];
    return [{ config: { driver: 'sd-card', drive: name }, field: 'drives', index }];
  });
  return [...cards, ...disks, ...named, ...memoryCards];
}

/** A value that cannot be used; `field` names the member of the configuration. */
export class ConfigError extends Error {
  readonly field: keyof MachineConfig;

  constructor(field: keyof MachineConfig, why: string) {
    super(`${field}: ${why}`);
    this.field = field;
  }
}

export const BIOS_NAME = 'bios-256k.bin';
export const VGA_BIOS_NAME = 'vgabios-stdvga.bin';

/**
 * A machine that is not given a kernel starts firmware, which need not be named.
 * @param find looks a file up where the host keeps such things
 * @throws ConfigError when there is none
 */
export function withFirmware(config: MachineConfig, find: (name: string) => NamedFile | null): MachineConfig {
  const flash = hasFlash(config);
  if (config.kernel !== null && config.bios === null && !flash) {
    return { ...config, vga: config.vga ?? 'none' };
  }
  const bios = config.bios ?? (flash ? null : find(BIOS_NAME));
  if (bios === null && !flash) {
    throw new ConfigError('bios', `there is no kernel, and no firmware "${BIOS_NAME}" is installed`);
  }
  const vga = config.vga ?? 'std';
  const vgaBios = config.vgaBios ?? (vga === 'std' ? find(VGA_BIOS_NAME) : null);
  return { ...config, bios, vga, vgaBios };
}

/** Firmware lies in flash memory. */
const hasFlash = ({ drives }: MachineConfig): boolean => drives.some((one) => one.interface === 'pflash');

/** Fills in what was left out and checks what was given. @throws ConfigError */
export function completeConfig(given: Partial<MachineConfig>): MachineConfig {
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(DEFAULTS, name)) {
      throw new ConfigError(name as keyof MachineConfig, 'no such setting');
    }
  }
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  const config: MachineConfig = { ...DEFAULTS, ...Object.fromEntries(set) };
  checkChoices(config);
  checkMemory(config.memory);
  checkCpus(config);
  checkIcount(config.icount);
  checkRtc(config.rtc);
  checkPorts(config);
  checkFiles(config);
  checkDrives(config);
  if (config.machine === 'microvm') checkMicrovm(config);
  try {
    checkNetwork(config.network);
  } catch (error) {
    throw new ConfigError('network', (error as Error).message);
  }
  return config;
}

function checkChoices({ machine, cpu, accel, kernelIrqchip, serials, uuid }: MachineConfig): void {
  if (!MACHINES.includes(machine)) throw new ConfigError('machine', `"${String(machine)}" is not known`);
  for (const one of typeof accel === 'string' ? [accel] : accel) {
    if (!ACCELERATORS.includes(one)) throw new ConfigError('accel', `"${String(one)}" is not one of ${ACCELERATORS.join(', ')}`);
  }
  if (!KERNEL_IRQCHIPS.includes(kernelIrqchip))
    throw new ConfigError('kernelIrqchip', `"${String(kernelIrqchip)}" is not one of ${KERNEL_IRQCHIPS.join(', ')}`);
  if (typeof cpu !== 'string') throw new ConfigError('cpu', 'not a text');
  if (!Array.isArray(serials) || serials.length > MAX_SERIALS) {
    throw new ConfigError('serials', `at most ${MAX_SERIALS} serial ports`);
  }
  for (const serial of serials) {
    if (serial !== 'connected' && serial !== 'none') {
      throw new ConfigError('serials', `"${String(serial)}" is not one of connected, none`);
    }
  }
  if (uuid !== null && uuid.length !== 16) throw new ConfigError('uuid', 'not 16 bytes');
}

/** It starts kernels, and nothing of a PC's is there to attach drives to. */
function checkMicrovm({ kernel, bios, vga, drives, smm, serials }: MachineConfig): void {
  if (kernel === null) throw new ConfigError('kernel', 'the machine "microvm" starts a kernel, and none is given');
  if (bios !== null) throw new ConfigError('bios', 'the machine "microvm" has no firmware');
  if (vga === 'std') throw new ConfigError('vga', 'the machine "microvm" has no display');
  if (smm === true) throw new ConfigError('smm', 'the machine "microvm" has no system management mode');
  if (serials.length > 1) throw new ConfigError('serials', 'the machine "microvm" has one serial port');
  drives.forEach(({ interface: kind }, i) => {
    if (kind !== 'virtio' && kind !== 'none')
      throw new ConfigError('drives', `drive ${i}: machine type does not support if=${kind} (only virtio, none)`);
  });
}

function checkMemory(memory: number): void {
  if (!Number.isSafeInteger(memory) || memory < MIB || memory % MIB !== 0) {
    throw new ConfigError('memory', `${memory} bytes is not a whole number of MiB from 1 up`);
  }
}

function checkCpus(config: MachineConfig): void {
  const fault = topologyFault(config.cpus, topologyOf(config));
  if (fault !== null) throw new ConfigError(config.topology === null ? 'cpus' : 'topology', fault);
}

export const topologyOf = ({ cpus, topology }: MachineConfig): CpuTopology => topology ?? coresOnly(cpus);

function checkIcount(icount: IcountConfig | null): void {
  if (icount === null || icount.shift === 'auto') return;
  const { shift } = icount;
  if (!Number.isInteger(shift) || shift < 0 || shift > 10) {
    throw new ConfigError('icount', `shift ${shift} is not a number from 0 to 10, nor auto`);
  }
}

function checkRtc({ base, clock }: RtcConfig): void {
  if (clock !== 'host' && clock !== 'vm') {
    throw new ConfigError('rtc', `clock "${String(clock)}" is not one of host, vm`);
  }
  if (base !== 'utc' && base !== 'localtime' && !Number.isFinite(base)) {
    throw new ConfigError('rtc', `base "${base}" is not a time`);
  }
}

function checkPorts({ debugcon, debugExit, chardevs }: MachineConfig): void {
  const twice = chardevs.find((id, i) => chardevs.indexOf(id) !== i);
  if (twice !== undefined) throw new ConfigError('chardevs', `there are two named "${twice}"`);
  const check = (field: 'debugcon' | 'debugExit', base: number, size: number): void => {
    if (!Number.isInteger(base) || base < 0 || base + size > 0x10000) {
      throw new ConfigError(field, `iobase ${base} is not a port number`);
    }
  };
  if (debugcon !== null) check('debugcon', debugcon.iobase, 1);
  if (debugExit === null) return;
  const { iobase, iosize } = debugExit;
  if (![1, 2, 4].includes(iosize)) {
    throw new ConfigError('debugExit', `iosize ${iosize} is not one of 1, 2, 4`);
  }
  check('debugExit', iobase, iosize);
}

function checkFiles({ kernel, initrd, bios, append }: MachineConfig): void {
  if (kernel === null && initrd !== null) throw new ConfigError('initrd', 'needs a kernel');
  if (kernel === null && append !== '') throw new ConfigError('append', 'needs a kernel');
  if (bios !== null && (bios.data.length === 0 || bios.data.length % 0x10000 !== 0)) {
    throw new ConfigError('bios', `${bios.name}: size is not a multiple of 64 KiB`);
  }
}

/** Ports of an AHCI. */
export const AHCI_PLACES = 6;

const PLACES: Record<DriveInterface, number> = {
  ide: 4,
  ahci: AHCI_PLACES,
  floppy: 2,
  pflash: 2,
  virtio: Infinity,
  sd: Infinity,
  none: Infinity,
};

function checkDrives(config: MachineConfig): void {
  const { machine, drives, vga, boot, bios } = config;
  if (vga !== null && vga !== 'std' && vga !== 'none') {
    throw new ConfigError('vga', `"${String(vga)}" is not one of std, none`);
  }
  if (!/^[abcdn]*$/.test(`${boot.order}${boot.once ?? ''}`)) {
    throw new ConfigError('boot', 'the order is made of the letters a, b, c, d and n');
  }
  const taken = new Set<string>();
  drives.forEach(({ interface: kind, index, media, readOnly, snapshot, ...one }, i) => {
    const bad = (why: string): ConfigError => new ConfigError('drives', `drive ${i}: ${why}`);
    const places = kind === 'ide' && machine === 'q35' ? AHCI_PLACES : PLACES[kind];
    if (places === undefined) throw bad(`"${String(kind)}" is not an interface`);
    if (kind === 'none') return;
    if (!Number.isInteger(index) || index < 0 || index >= places) {
      throw bad(`${kind} has no drive ${index}`);
    }
    const place = `${kind} ${index}`;
    if (taken.has(place)) throw bad(`there are two drives ${place}`);
    taken.add(place);
    if (kind === 'pflash' && one.file === null && one.node === null) throw bad('flash memory needs an image');
    if ((kind === 'ide' || kind === 'ahci') && media === 'disk' && readOnly && !snapshot) {
      throw bad('an IDE disk cannot be read-only');
    }
  });
  if (!hasFlash(config)) return;
  if (bios !== null) throw new ConfigError('bios', 'the firmware is in flash memory already');
  if (!taken.has('pflash 0')) throw new ConfigError('drives', "the firmware's flash memory, unit 0, is missing");
}

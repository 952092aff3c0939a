/** What a command line of `virelay-system-x86_64` asks for; QEMU's names and behaviour. */
import { type CharacterSpec, parseCharacter } from '../character/spec.ts';
import { parseCpu } from '../isa/x86/system/models.ts';
import { type AcceleratorName, ACCELERATORS } from '../machine/accelerator.ts';
import {
  type BlockOptions,
  type BootConfig,
  type IcountConfig,
  KERNEL_IRQCHIPS,
  MACHINES,
  type MachineName,
  MAX_SERIALS,
  type MicrovmOptions,
  MIB,
  type RtcConfig,
} from '../machine/config.ts';
import { rtcBaseSeconds } from '../devices/timer/mc146818.ts';
import {
  DriveError,
  type DriveOption,
  parseBoot,
  parseDrive,
  placeDrives,
  shortDrive,
  withDefaultDrives,
} from './drive-options.ts';
import { ONE_CPU } from '../machine/cpu-topology.ts';
import type { NetworkConfig } from '../machine/network-config.ts';
import { NO_NETWORK } from '../machine/network-config.ts';
import {
  finishNetwork,
  NetError,
  type NetOptions,
  noNetOptions,
  parseFilterDump,
  parseNet,
  parseNetdev,
  parseNic,
  parseNicDevice,
} from './net-options.ts';
import { type ChardevOption, parseChardev } from './chardev-options.ts';
import { type FolderOption, parseFsdev, parseVirtfs } from './folder-options.ts';
import { type DeviceOption, hasDiskDevice, helpSubject, parseDevice, withCards, withDeviceDrives } from './device-options.ts';
import { parseOptionText } from '../storage/values.ts';
import { readSecret } from './secret.ts';
import { completeSmp, SMP_KEYS } from './smp.ts';
import { parseTrace } from './trace.ts';
import {
  listOrJson,
  onlyKeys,
  parseList,
  parseNumber,
  parseSize,
  parseSwitch,
  parseUuid,
  splitCommas,
  ValueError,
} from './values.ts';

export type HelpTopic = 'options' | 'version' | 'machine' | 'cpu' | 'accel' | 'device' | 'netdev' | 'nic' | 'trace';

export interface CommandLine {
  help: HelpTopic | null;
  /** What help is wanted about, where the topic is one of many. */
  helpSubject: string | null;
  machine: MachineName;
  microvm: MicrovmOptions;
  cpu: string;
  memory: number;
  smp: ReturnType<typeof completeSmp>;
  /** None is the default. */
  accel: AcceleratorName[];
  kernelIrqchip: (typeof KERNEL_IRQCHIPS)[number];
  nativeCode: boolean;
  icount: IcountConfig | null;
  rtc: RtcConfig;
  kernel: string | null;
  initrd: string | null;
  append: string;
  bios: string | null;
  /** Folders that firmware is looked for in first. */
  firmwareFolders: string[];
  vga: 'std' | 'none' | null;
  drives: DriveOption[];
  devices: readonly DeviceOption[];
  chardevs: readonly ChardevOption[];
  folders: readonly FolderOption[];
  /** Block nodes, and the options that asked for them. */
  blockdevs: { text: string; options: BlockOptions }[];
  secrets: Record<string, Uint8Array>;
  throttleGroups: Record<string, BlockOptions>;
  /** What was said of networks, and what comes of it. */
  net: NetOptions;
  network: NetworkConfig;
  boot: BootConfig;
  /** Writes to all drives are forgotten. */
  snapshot: boolean;
  /** Leave out what a PC has without being asked for. */
  noDefaults: boolean;
  /** As given; null stands for the default of the machine. */
  serials: { text: string; spec: CharacterSpec }[];
  debugcon: { text: string; spec: CharacterSpec; iobase: number } | null;
  uuid: Uint8Array | null;
  hpet: boolean;
  smm: boolean | null;
  acpiHotplugBehindBridges: boolean;
  nographic: boolean;
  /** The display is shown on the terminal. */
  curses: boolean;
  noReboot: boolean;
  noShutdown: boolean;
  startPaused: boolean;
  trace: string[];
  traceFile: string | null;
  pidFile: string | null;
  /** File with the state that the machine goes on from, and the one that Ctrl-A S saves it to. */
  incoming: string | null;
  saveState: string | null;
  warnings: string[];
}

/** What is wrong with which option. */
export class OptionError extends Error {
  constructor(option: string, value: string | null, why: string) {
    super(`${option}${value === null ? '' : ` ${value}`}: ${why}`);
  }
}

type Option = {
  /** Whether a value follows. */
  readonly value: boolean;
  readonly set: (line: CommandLine, value: string) => void;
};

const DEBUGCON_PORT = 0xe9;

function initial(): CommandLine {
  return {
    help: null,
    helpSubject: null,
    machine: 'pc',
    microvm: { isaSerial: true, rtc: true, acpi: true, autoKernelCmdline: true },
    cpu: 'max',
    memory: 128 * MIB,
    smp: { cpus: 1, topology: ONE_CPU },
    accel: [],
    kernelIrqchip: 'on',
    nativeCode: true,
    icount: null,
    rtc: { base: 'utc', clock: 'host' },
    kernel: null,
    initrd: null,
    append: '',
    bios: null,
    firmwareFolders: [],
    vga: null,
    drives: [],
    devices: [],
    chardevs: [],
    folders: [],
    blockdevs: [],
    secrets: {},
    throttleGroups: {},
    net: noNetOptions(),
    network: NO_NETWORK,
    snapshot: false,
    noDefaults: false,
    boot: { order: 'cad', once: null, menu: false, splashTime: null, rebootTimeout: null },
    serials: [],
    debugcon: null,
    uuid: null,
    hpet: true,
    smm: null,
    acpiHotplugBehindBridges: true,
    nographic: false,
    curses: false,
    noReboot: false,
    noShutdown: false,
    startPaused: false,
    trace: [],
    traceFile: null,
    pidFile: null,
    incoming: null,
    saveState: null,
    warnings: [],
  };
}

const flag = (set: (line: CommandLine) => void): Option => ({ value: false, set });
const valued = (set: Option['set']): Option => ({ value: true, set });
const ignored = (): Option => flag(() => undefined);

/** An option of which only some values can be had so far. */
function only(...allowed: string[]): Option {
  return valued((_line, value) => {
    if (!allowed.includes(value)) {
      throw new ValueError(`not available (only ${allowed.join(', ')} so far)`);
    }
  });
}

/** `-hda` and its like. */
function disk(kind: 'ide' | 'floppy', index: number, media: 'disk' | 'cdrom' = 'disk'): Option {
  return valued((line, value) => {
    const letter = 'abcd'[index]!;
    const option = media === 'cdrom' ? '-cdrom' : kind === 'ide' ? `-hd${letter}` : `-fd${letter}`;
    line.drives.push(shortDrive(option, value, kind, index, media));
  });
}

const OPTIONS: Record<string, Option> = {
  help: flag((line) => {
    line.help = 'options';
  }),
  version: flag((line) => {
    line.help = 'version';
  }),
  M: valued(setMachine),
  machine: valued(setMachine),
  cpu: valued(setCpu),
  m: valued(setMemory),
  smp: valued(setSmp),
  accel: valued(setAccel),
  'enable-kvm': flag((line) => setAccelNames(line, ['kvm'])),
  icount: valued(setIcount),
  rtc: valued(setRtc),
  kernel: valued((line, value) => {
    line.kernel = value;
  }),
  initrd: valued((line, value) => {
    line.initrd = value;
  }),
  append: valued((line, value) => {
    line.append = value;
  }),
  bios: valued((line, value) => {
    line.bios = value;
  }),
  L: valued((line, value) => {
    line.firmwareFolders.push(value);
  }),
  hda: disk('ide', 0),
  hdb: disk('ide', 1),
  hdc: disk('ide', 2),
  hdd: disk('ide', 3),
  fda: disk('floppy', 0),
  fdb: disk('floppy', 1),
  cdrom: disk('ide', 2, 'cdrom'),
  drive: valued((line, value) => {
    line.drives.push(parseDrive(value, line.machine));
  }),
  blockdev: valued((line, value) => {
    line.blockdevs.push({ text: value, options: parseOptionText(value) });
  }),
  object: valued(setObject),
  snapshot: flag((line) => {
    line.snapshot = true;
  }),
  boot: valued((line, value) => {
    line.boot = parseBoot(value, line.boot);
  }),
  fsdev: valued((line, value) => addFolder(line, parseFsdev(value))),
  virtfs: valued((line, value) => {
    const { folder, tag } = parseVirtfs(value, line.folders.length);
    addFolder(line, folder);
    const config = { driver: 'virtio-9p-pci', fsdev: folder.config.id, mount_tag: tag };
    line.devices = [...line.devices, { text: value, config, nic: null }];
  }),
  chardev: valued((line, value) => {
    const chardev = parseChardev(value);
    if (line.chardevs.some(({ id }) => id === chardev.id)) throw new ValueError(`Duplicate ID '${chardev.id}' for chardev`);
    line.chardevs = [...line.chardevs, chardev];
  }),
  serial: valued(setSerial),
  parallel: only('none', 'null'),
  debugcon: valued((line, value) => {
    const iobase = line.debugcon?.iobase ?? DEBUGCON_PORT;
    line.debugcon = { text: value, spec: character(value), iobase };
  }),
  device: valued(setDevice),
  global: valued(setGlobal),
  uuid: valued((line, value) => {
    line.uuid = parseUuid(value);
  }),
  name: ignoredValue(),
  nographic: flag((line) => {
    line.nographic = true;
  }),
  display: valued((line, value) => {
    if (value !== 'none' && value !== 'curses') throw new ValueError('not available (only none, curses so far)');
    line.curses = value === 'curses';
  }),
  vga: valued((line, value) => {
    if (value !== 'none' && value !== 'std') throw new ValueError('not available (only none, std so far)');
    line.vga = value;
  }),
  k: ignoredValue(),
  monitor: only('none', 'null'),
  netdev: valued((line, value) => {
    if (parseNetdev(line.net, value)) help(line, 'netdev');
  }),
  nic: valued((line, value) => netHelp(line, parseNic(line.net, value))),
  net: valued((line, value) => netHelp(line, parseNet(line.net, value))),
  'no-reboot': flag((line) => {
    line.noReboot = true;
  }),
  'no-shutdown': flag((line) => {
    line.noShutdown = true;
  }),
  'no-hpet': flag((line) => {
    line.hpet = false;
  }),
  action: valued(setAction),
  S: flag((line) => {
    line.startPaused = true;
  }),
  d: valued(setTrace),
  D: valued((line, value) => {
    line.traceFile = value;
  }),
  incoming: valued((line, value) => {
    if (!value.startsWith('file:') || value === 'file:') throw new Error('only file:PATH is known');
    line.incoming = value.slice('file:'.length);
  }),
  'save-state': valued((line, value) => {
    line.saveState = value;
  }),
  pidfile: valued((line, value) => {
    line.pidFile = value;
  }),
  nodefaults: flag((line) => {
    line.noDefaults = true;
  }),
  'no-user-config': ignored(),
};
const ALIASES: Record<string, string> = { h: 'help', '?': 'help' };

export const OPTION_NAMES: readonly string[] = Object.keys(OPTIONS);

function ignoredValue(): Option {
  return valued(() => undefined);
}

/** @throws OptionError */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const line = initial();
  nameMachine(line, args);
  for (let i = 0; i < args.length; i++) {
    const text = args[i]!;
    const given = text.replace(/^--?/, '');
    if (given === text || given === '') throw new OptionError(text, null, 'not an option');
    const name = Object.hasOwn(ALIASES, given) ? ALIASES[given]! : given;
    if (!Object.hasOwn(OPTIONS, name)) throw new OptionError(text, null, 'unknown option');
    const option = OPTIONS[name]!;
    const value = option.value ? args[++i] : undefined;
    if (option.value && value === undefined) throw new OptionError(text, null, 'needs a value');
    try {
      option.set(line, value ?? '');
    } catch (error) {
      throw new OptionError(text, value ?? null, (error as Error).message);
    }
    if (line.help !== null) return line;
  }
  return finish(line);
}

/** What a drive's bus and unit mean depends on the machine, wherever that is named. */
function nameMachine(line: CommandLine, args: readonly string[]): void {
  args.forEach((text, i) => {
    const value = args[i + 1];
    if (!/^--?(M|machine)$/.test(text) || value === undefined) return;
    const type = /(?:^|,)(?:type=)?((?:pc-)?q35[^,]*|pc[^,]*|microvm)/.exec(value)?.[1];
    if (type !== undefined) line.machine = type === 'microvm' ? type : /q35/.test(type) ? 'q35' : 'pc';
  });
}

/** Ports that name a stream take it from those that devices can have. */
function finishChardevs(line: CommandLine): void {
  line.serials = line.serials.map((serial) => {
    const id = /^chardev:(.*)$/.exec(serial.text)?.[1];
    if (id === undefined) return serial;
    const found = line.chardevs.find((one) => one.id === id);
    if (found === undefined) throw new OptionError('-serial', serial.text, `chardev "${id}" not found`);
    line.chardevs = line.chardevs.filter((one) => one !== found);
    return { text: serial.text, spec: found.spec };
  });
}

function finish(line: CommandLine): CommandLine {
  finishChardevs(line);
  if (line.serials.length === 0) {
    const text = line.nographic ? 'mon:stdio' : 'vc';
    line.serials.push({ text, spec: parseCharacter(text) });
  }
  const specs = [...line.serials, ...(line.debugcon ? [line.debugcon] : []), ...line.chardevs];
  const users = specs.filter(({ spec }) => spec.kind === 'stdio');
  if (users.length > 1) {
    throw new OptionError('-serial', users[1]!.text, 'standard input and output are in use already');
  }
  if (line.curses) {
    if (line.nographic) throw new OptionError('-display', 'curses', 'cannot be used together with -nographic');
    if (users.length > 0) throw new OptionError('-serial', users[0]!.text, 'the display is on standard input and output');
  }
  if (line.kernel === null) {
    if (line.initrd !== null) throw new OptionError('-initrd', line.initrd, 'needs -kernel');
    if (line.append !== '') throw new OptionError('-append', line.append, 'needs -kernel');
  }
  finishDrives(line);
  finishNet(line);
  return line;
}

function netHelp(line: CommandLine, topic: 'netdev' | 'model' | null): void {
  if (topic !== null) help(line, topic === 'model' ? 'nic' : topic);
}

function finishNet(line: CommandLine): void {
  try {
    const { config, warnings } = finishNetwork(line.net, line.noDefaults || line.machine === 'microvm');
    const { devices, network } = withCards(line.devices, config);
    line.devices = devices;
    line.network = network;
    line.warnings.push(...warnings);
  } catch (error) {
    if (!(error instanceof NetError)) throw error;
    throw new OptionError(error.source.option, error.source.text, error.message);
  }
}

function finishDrives(line: CommandLine): void {
  try {
    const nodes = line.blockdevs.map(({ options }) => String(options['node-name']));
    const drives = withDeviceDrives(placeDrives(line.drives, line.machine), line.devices, nodes);
    const firmware = line.kernel === null || line.bios !== null || drives.some(({ config }) => config.interface === 'pflash');
    line.drives = (firmware && !line.noDefaults ? withDefaultDrives(drives, line.machine, hasDiskDevice(line.devices)) : drives)
      .filter(({ config }) => config.interface !== 'none' || config.id !== null)
      .map((one) => (line.snapshot ? { ...one, config: { ...one.config, snapshot: true } } : one));
  } catch (error) {
    if (!(error instanceof DriveError)) throw error;
    throw new OptionError(error.drive.option, error.drive.text, error.message);
  }
}

function character(text: string): CharacterSpec {
  return parseCharacter(text);
}

function setSerial(line: CommandLine, text: string): void {
  if (line.serials.length === MAX_SERIALS) throw new ValueError(`at most ${MAX_SERIALS} serial ports`);
  const named = text.startsWith('chardev:');
  line.serials.push({ text, spec: named ? { kind: 'null' } : character(text) });
}

function setMachine(line: CommandLine, text: string): void {
  if (isHelp(text)) return help(line, 'machine');
  const values = parseList(text, 'type');
  for (const [key, value] of values) {
    switch (key) {
      case 'type':
        // The versioned names are one board here: this project keeps states by name, not by place.
        line.machine = machineNamed(value);
        break;
      case 'accel':
        setAccelNames(line, value.split(':'));
        break;
      case 'hpet':
        line.hpet = parseSwitch(key, value);
        break;
      case 'smm':
        line.smm = value === 'auto' ? null : parseSwitch(key, value);
        break;
      case 'usb':
      case 'vmport':
      case 'graphics':
      case 'dump-guest-core':
      case 'mem-merge':
        break;
      case 'acpi':
        if (line.machine === 'microvm') setMicrovm(line, 'acpi', key, value);
        break;
      case 'isa-serial':
      case 'rtc':
      case 'auto-kernel-cmdline':
        if (line.machine !== 'microvm') throw new ValueError(`machine property "${key}" is not one of ${line.machine}'s`);
        setMicrovm(line, key === 'rtc' ? key : key === 'isa-serial' ? 'isaSerial' : 'autoKernelCmdline', key, value);
        break;
      // They are there, and others are not.
      case 'pic':
      case 'pit':
      case 'x-option-roms':
      case 'pcie':
      case 'ioapic2':
        setMicrovmFixed(line, key, value);
        break;
      case 'kernel-irqchip':
        setIrqchip(line, value);
        break;
      case 'kernel':
        line.kernel = value;
        break;
      case 'initrd':
        line.initrd = value;
        break;
      case 'append':
        line.append = value;
        break;
      default:
        throw new ValueError(`machine property "${key}" is not known`);
    }
  }
}

/** @param key as the user writes it */
function setMicrovm(line: CommandLine, name: keyof MicrovmOptions, key: string, value: string): void {
  line.microvm = { ...line.microvm, [name]: value === 'auto' ? true : parseSwitch(key, value) };
}

/** Properties of a microvm that can have one value only. */
function setMicrovmFixed(line: CommandLine, key: string, value: string): void {
  if (line.machine !== 'microvm') throw new ValueError(`machine property "${key}" is not one of ${line.machine}'s`);
  const fixed = key === 'pic' || key === 'pit';
  const wanted = value === 'auto' ? fixed : parseSwitch(key, value);
  if (key !== 'x-option-roms' && wanted !== fixed) throw new ValueError(`${key}=${value} is not available`);
}

function machineNamed(name: string): CommandLine['machine'] {
  if (name === 'microvm') return name;
  const match = /^(?:(pc)(?:-i440fx-\d+\.\d+)?|(?:pc-)?(q35)(?:-\d+\.\d+)?)$/.exec(name);
  if (match === null) throw new ValueError(`machine type "${name}" is not known (known: ${MACHINES.join(', ')})`);
  return match[1] === undefined ? 'q35' : 'pc';
}

function setCpu(line: CommandLine, text: string): void {
  if (isHelp(text)) return help(line, 'cpu');
  try {
    line.warnings.push(...parseCpu(text).warnings.map((warning) => `-cpu ${text}: ${warning}`));
  } catch (error) {
    throw new ValueError((error as Error).message.replace(/^-cpu[^:]*: /, ''));
  }
  line.cpu = text;
}

function setMemory(line: CommandLine, text: string): void {
  const values = parseList(text, 'size');
  onlyKeys(values, ['size', 'slots', 'maxmem']);
  const size = values.get('size');
  if (size === undefined) return;
  const bytes = Math.ceil(parseSize(size, 'm') / MIB) * MIB;
  if (bytes === 0) throw new ValueError('a machine without memory');
  line.memory = bytes;
}

function setSmp(line: CommandLine, text: string): void {
  const values = parseList(text, 'cpus');
  onlyKeys(values, SMP_KEYS);
  const numbers = new Map(Array.from(values, ([key, value]) => [key, parseNumber(value, 1, 1024)] as const));
  try {
    line.smp = completeSmp(numbers);
  } catch (error) {
    throw new ValueError((error as Error).message);
  }
}

function setAccel(line: CommandLine, text: string): void {
  if (isHelp(text)) return help(line, 'accel');
  const values = parseList(text, 'accel');
  onlyKeys(values, ['accel', 'thread', 'tb-size', 'one-insn-per-tb', 'kernel-irqchip', 'native']);
  const irqchip = values.get('kernel-irqchip');
  if (irqchip !== undefined) setIrqchip(line, irqchip);
  line.nativeCode = parseSwitch('native', values.get('native') ?? 'on');
  setAccelNames(line, (values.get('accel') ?? '').split(':'));
}

function setIrqchip(line: CommandLine, value: string): void {
  if (value === 'off') throw new ValueError('kernel-irqchip=off is not available: KVM has the local APICs here (on, split)');
  const known = KERNEL_IRQCHIPS.find((one) => one === value);
  if (known === undefined) throw new ValueError(`kernel-irqchip takes ${KERNEL_IRQCHIPS.join(', ')}, not "${value}"`);
  line.kernelIrqchip = known;
}

/** Names with colons between them: the first one that can be had is taken. */
function setAccelNames(line: CommandLine, names: readonly string[]): void {
  for (const name of names) {
    const known = ACCELERATORS.find((one) => one === (name === 'tcg' ? 'jit' : name));
    if (known === undefined) {
      throw new ValueError(`accelerator "${name}" is not known (known: ${ACCELERATORS.join(', ')}, tcg)`);
    }
    line.accel.push(known);
  }
}

function setIcount(line: CommandLine, text: string): void {
  const values = parseList(text, 'shift');
  onlyKeys(values, ['shift', 'sleep', 'align']);
  const shift = values.get('shift') ?? 'auto';
  if (parseSwitch('align', values.get('align') ?? 'off')) {
    throw new ValueError('align=on is not available');
  }
  line.icount = {
    shift: shift === 'auto' ? 'auto' : parseNumber(shift, 0, 10),
    sleep: parseSwitch('sleep', values.get('sleep') ?? 'on'),
  };
}

function setRtc(line: CommandLine, text: string): void {
  const values = parseList(text, null);
  onlyKeys(values, ['base', 'clock', 'driftfix']);
  const base = values.get('base') ?? 'utc';
  const clock = values.get('clock') ?? 'host';
  if (clock !== 'host' && clock !== 'vm' && clock !== 'rt') {
    throw new ValueError(`clock "${clock}" is not one of host, rt, vm`);
  }
  const named = base === 'utc' || base === 'localtime';
  line.rtc = { base: named ? base : rtcBaseSeconds(base), clock: clock === 'vm' ? 'vm' : 'host' };
}

function setDevice(line: CommandLine, text: string): void {
  if (isHelp(text)) return help(line, 'device');
  line.helpSubject = helpSubject(text);
  if (line.helpSubject !== null) return help(line, 'device');
  const cards = line.net.nics.length;
  if (parseNicDevice(line.net, text)) return addDevice(line, text, cards);
  const { driver } = parseDevice(text);
  if (driver === 'VGA') {
    line.vga = 'std';
    return;
  }
  addDevice(line, text);
}

function addFolder(line: CommandLine, folder: FolderOption): void {
  const { id } = folder.config;
  if (line.folders.some((other) => other.config.id === id)) throw new ValueError(`Duplicate ID '${id}' for fsdev`);
  line.folders = [...line.folders, folder];
}

function addDevice(line: CommandLine, text: string, nic: number | null = null): void {
  line.devices = [...line.devices, { text, config: parseDevice(text), nic }];
}

function setObject(line: CommandLine, text: string): void {
  const values = listOrJson(text, 'qom-type');
  const kind = values.get('qom-type') ?? '';
  switch (kind) {
    case 'secret':
      return addSecret(line, values);
    case 'throttle-group':
      return addThrottleGroup(line, values);
    case 'rng-random':
    case 'rng-builtin':
      // The host's own randomness is the only source, whatever it is called.
      onlyKeys(values, ['qom-type', 'id', 'filename']);
      if (values.get('id') === undefined) throw new ValueError('needs id=');
      return;
    case 'filter-dump':
      return parseFilterDump(line.net, text);
    default:
      throw new ValueError(`object "${kind}" is not known (known: filter-dump, rng-builtin, rng-random, secret, throttle-group)`);
  }
}

/** `-object throttle-group,id=NAME,x-iops-total=N,…`. */
function addThrottleGroup(line: CommandLine, values: Map<string, string>): void {
  const id = values.get('id');
  if (id === undefined) throw new ValueError('needs id=');
  const limits = [...values].filter(([key]) => key !== 'qom-type' && key !== 'id');
  line.throttleGroups[id] = Object.fromEntries(limits.map(([key, value]) => [key.replace(/^(x-|limits\.)/, ''), value]));
}

/** `-object secret,id=NAME,data=TEXT` or `file=PATH`: a password, in base64 if `format=base64`. */
function addSecret(line: CommandLine, values: Map<string, string>): void {
  onlyKeys(values, ['qom-type', 'id', 'data', 'file', 'format']);
  const id = values.get('id');
  if (id === undefined) throw new ValueError('needs id=');
  line.secrets[id] = readSecret(values);
}

/** Properties of the board's own devices, by the names that `-global` uses. */
const GLOBALS: Record<string, (line: CommandLine, value: string) => void> = {
  'isa-debugcon.iobase': (line, value) => {
    const iobase = parseNumber(value, 0, 0xffff);
    const before = line.debugcon ?? { text: 'null', spec: character('null') };
    line.debugcon = { ...before, iobase };
  },
  'PIIX4_PM.acpi-pci-hotplug-with-bridge-support': setBridgeHotplug,
  'ICH9-LPC.acpi-pci-hotplug-with-bridge-support': setBridgeHotplug,
};

function setBridgeHotplug(line: CommandLine, value: string): void {
  line.acpiHotplugBehindBridges = parseSwitch('acpi-pci-hotplug-with-bridge-support', value);
}

function setGlobal(line: CommandLine, text: string): void {
  const [, name = '', value = ''] = /^([^=]*)=(.*)$/.exec(text) ?? [];
  const set = Object.hasOwn(GLOBALS, name) ? GLOBALS[name] : undefined;
  if (set === undefined) throw new ValueError(`not a known property (known: ${Object.keys(GLOBALS).join(', ')})`);
  set(line, value);
}

function setAction(line: CommandLine, text: string): void {
  const values = parseList(text, null);
  onlyKeys(values, ['reboot', 'shutdown']);
  const choose = (key: string, no: string, yes: string): boolean | undefined => {
    const value = values.get(key);
    if (value === undefined) return undefined;
    if (value !== no && value !== yes) {
      throw new ValueError(`${key} takes ${no} or ${yes}, not "${value}"`);
    }
    return value === yes;
  };
  line.noReboot = choose('reboot', 'reset', 'shutdown') ?? line.noReboot;
  line.noShutdown = choose('shutdown', 'poweroff', 'pause') ?? line.noShutdown;
}

function setTrace(line: CommandLine, text: string): void {
  if (isHelp(text)) return help(line, 'trace');
  line.trace = [...new Set([...line.trace, ...parseTrace(splitCommas(text))])];
}

const isHelp = (text: string): boolean => text === 'help' || text === '?';

function help(line: CommandLine, topic: HelpTopic): void {
  line.help = topic;
}

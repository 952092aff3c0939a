/** Options that name drives, what is in them, and what to boot from. */
import { DRIVER_NAMES } from '../storage/drivers.ts';
import type { BootConfig, DriveConfig, DriveInterface, MachineName, OnError } from '../machine/config.ts';
import { AHCI_PLACES, drive } from '../machine/config.ts';
import { onlyKeys, parseList, parseNumber, parseSwitch, ValueError } from './values.ts';

/** A drive, and the option that asked for it. */
export interface DriveOption {
  readonly option: string;
  readonly text: string;
  readonly config: DriveConfig;
  /** Name that a -device option refers to it by. */
  readonly id: string | null;
  /** Its index was given, so that it must not move. */
  readonly placed: boolean;
}

/** What is the drive's; all other keys are options of its image's block node. */
const DRIVE_KEYS: readonly string[] = [
  'file',
  'format',
  'if',
  'media',
  'readonly',
  'read-only',
  'index',
  'bus',
  'unit',
  'snapshot',
  'id',
  'serial',
  'cache',
  'aio',
  'werror',
  'rerror',
  'cache.writeback',
];

type CacheMode = { readonly direct: boolean; readonly noFlush: boolean; readonly writeThrough: boolean };

const CACHE_MODES: Record<string, CacheMode> = {
  writeback: { direct: false, noFlush: false, writeThrough: false },
  none: { direct: true, noFlush: false, writeThrough: false },
  off: { direct: true, noFlush: false, writeThrough: false },
  writethrough: { direct: false, noFlush: false, writeThrough: true },
  directsync: { direct: true, noFlush: false, writeThrough: true },
  unsafe: { direct: false, noFlush: true, writeThrough: false },
};
const INTERFACES: Record<string, DriveInterface> = {
  ide: 'ide',
  floppy: 'floppy',
  pflash: 'pflash',
  virtio: 'virtio',
  sd: 'sd',
  none: 'none',
};
/** Drives on one IDE bus: a port of an AHCI has one. */
const unitsOfBus = (machine: MachineName): number => (machine === 'q35' ? 1 : 2);
const PLACES: Record<DriveInterface, number> = {
  ide: 4,
  ahci: AHCI_PLACES,
  floppy: 2,
  pflash: 2,
  virtio: Infinity,
  sd: Infinity,
  none: Infinity,
};

/** `-hda FILE` and its like: a file name, not a list. */
export function shortDrive(
  option: string,
  file: string,
  kind: DriveInterface,
  index: number,
  media: 'disk' | 'cdrom',
): DriveOption {
  return {
    option,
    text: file,
    id: null,
    placed: true,
    config: drive({ interface: kind, index, media, file: file === '' ? null : file }),
  };
}

/** @param machine which says how many drives are on a bus */
export function parseDrive(text: string, machine: MachineName): DriveOption {
  const values = parseList(text, null);
  const name = values.get('if') ?? 'ide';
  const kind = INTERFACES[name];
  if (kind === undefined) {
    throw new ValueError(`if=${name} is not known (known: ${Object.keys(INTERFACES).join(', ')})`);
  }
  const format = values.get('format') ?? values.get('driver') ?? null;
  if (format !== null && !DRIVER_NAMES.includes(format)) {
    throw new ValueError(`format=${format} is not known (known: ${DRIVER_NAMES.join(', ')})`);
  }
  const media = values.get('media') ?? 'disk';
  if (media !== 'disk' && media !== 'cdrom') {
    throw new ValueError(`media=${media} is not one of disk, cdrom`);
  }
  const on = (key: string, otherwise: boolean): boolean => (values.has(key) ? parseSwitch(key, values.get(key)!) : otherwise);
  const place = placeOf(values, machine);
  return {
    option: '-drive',
    text,
    id: values.get('id') ?? null,
    placed: place !== null,
    config: drive({
      id: values.get('id') ?? null,
      interface: kind,
      media,
      index: place ?? 0,
      file: values.get('file') || null,
      format,
      ...blockOptions(values),
      ...errorPolicies(values),
      readOnly: on('readonly', on('read-only', media === 'cdrom')),
      snapshot: on('snapshot', false),
      serial: values.get('serial') ?? null,
    }),
  };
}

/** Options of the image's node, and whether writes are to be stable at once. */
function blockOptions(values: ReadonlyMap<string, string>): Pick<DriveConfig, 'block' | 'writeThrough'> {
  const block: Record<string, unknown> = {};
  let writeThrough = false;
  const mode = values.get('cache');
  if (mode !== undefined) {
    const found = Object.hasOwn(CACHE_MODES, mode) ? CACHE_MODES[mode]! : null;
    if (found === null) throw new ValueError(`cache=${mode} is not known (known: ${Object.keys(CACHE_MODES).join(', ')})`);
    block['cache.direct'] = found.direct;
    block['cache.no-flush'] = found.noFlush;
    writeThrough = found.writeThrough;
  }
  // There is one way to access files, which does what each of these does.
  const aio = values.get('aio') ?? 'threads';
  if (!['threads', 'native', 'io_uring'].includes(aio)) {
    throw new ValueError(`aio=${aio} is not known (known: threads, native, io_uring)`);
  }
  for (const [key, value] of values) if (!DRIVE_KEYS.includes(key) && key !== 'driver') block[key] = value;
  const writeback = values.get('cache.writeback');
  if (writeback !== undefined) writeThrough = !parseSwitch('cache.writeback', writeback);
  return { block, writeThrough };
}

function errorPolicies(values: ReadonlyMap<string, string>): Pick<DriveConfig, 'readError' | 'writeError'> {
  const policy = (key: string, known: readonly OnError[]): OnError => {
    const value = values.get(key) ?? 'report';
    if (value === 'auto') return 'report';
    if (!known.includes(value as OnError)) throw new ValueError(`${key}=${value} is not known (known: ${known.join(', ')})`);
    return value as OnError;
  };
  return {
    readError: policy('rerror', ['report', 'ignore', 'stop']),
    writeError: policy('werror', ['report', 'ignore', 'stop', 'enospc']),
  };
}

function placeOf(values: ReadonlyMap<string, string>, machine: MachineName): number | null {
  const value = (key: string): number | null => (values.has(key) ? parseNumber(values.get(key)!, 0, 255) : null);
  const index = value('index');
  if (index !== null) return index;
  const bus = value('bus');
  const unit = value('unit');
  return bus === null && unit === null ? null : (bus ?? 0) * unitsOfBus(machine) + (unit ?? 0);
}

/** Gives each drive without a place the first free one. */
export function placeDrives(drives: readonly DriveOption[], machine: MachineName): DriveOption[] {
  const places = (kind: DriveInterface): number => (kind === 'ide' && machine === 'q35' ? AHCI_PLACES : PLACES[kind]);
  const taken = new Map<string, DriveOption>();
  const key = (kind: string, index: number): string => `${kind} ${index}`;
  for (const one of drives) {
    const { interface: kind, index } = one.config;
    if (kind === 'none' || !one.placed) continue;
    if (index >= places(kind)) throw clash(one, `${kind} has no drive ${index}`);
    const other = taken.get(key(kind, index));
    if (other !== undefined) throw clash(one, `that place is taken by ${other.option} ${other.text}`);
    taken.set(key(kind, index), one);
  }
  return drives.map((one) => {
    const { interface: kind } = one.config;
    if (kind === 'none' || one.placed) return one;
    let index = 0;
    while (taken.has(key(kind, index))) index++;
    if (index >= places(kind)) throw clash(one, `there is no free place for another ${kind} drive`);
    taken.set(key(kind, index), one);
    return { ...one, config: { ...one.config, index } };
  });
}

/** A problem with a drive that shows when all options are known. */
export class DriveError extends Error {
  readonly drive: DriveOption;

  constructor(option: DriveOption, why: string) {
    super(why);
    this.drive = option;
  }
}

const clash = (option: DriveOption, why: string): DriveError => new DriveError(option, why);

/**
 * The empty drives that a machine has unless `-nodefaults` says otherwise.
 * @param hasDisks devices say which drives there are
 */
export function withDefaultDrives(drives: readonly DriveOption[], machine: MachineName, hasDisks: boolean): DriveOption[] {
  const free = (kind: DriveInterface, index: number): boolean =>
    !drives.some(({ config }) => config.interface === kind && config.index === index);
  const has = (want: (config: DriveConfig) => boolean): boolean => drives.some(({ config }) => want(config));
  const added: DriveOption[] = [];
  if (!hasDisks && !has(({ media }) => media === 'cdrom') && free('ide', 2)) {
    added.push(shortDrive('-cdrom', '', 'ide', 2, 'cdrom'));
  }
  if (machine === 'pc' && !has(({ interface: kind }) => kind === 'floppy')) {
    added.push(shortDrive('-fda', '', 'floppy', 0, 'disk'));
  }
  return [...drives, ...added];
}

/** @param before what earlier `-boot` options have set */
export function parseBoot(text: string, before: BootConfig): BootConfig {
  const values = parseList(text, 'order');
  onlyKeys(values, ['order', 'once', 'menu', 'splash-time', 'reboot-timeout', 'strict']);
  const order = (key: string): string | undefined => {
    const letters = values.get(key);
    if (letters !== undefined && !/^[abcdn]+$/.test(letters)) {
      throw new ValueError(`${key}=${letters}: boot devices are the letters a, b, c, d and n`);
    }
    return letters;
  };
  const time = (key: string, otherwise: number | null): number | null =>
    values.has(key) ? parseNumber(values.get(key)!, 0, 65535) : otherwise;
  return {
    order: order('order') ?? before.order,
    once: order('once') ?? before.once,
    menu: values.has('menu') ? parseSwitch('menu', values.get('menu')!) : before.menu,
    splashTime: time('splash-time', before.splashTime),
    rebootTimeout: time('reboot-timeout', before.rebootTimeout),
  };
}

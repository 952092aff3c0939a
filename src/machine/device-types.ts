/** Every type of device that can be added to a machine by name. Only the families that are asked for are loaded. */
import { CATEGORIES, type Category, describeProperties, type DeviceType } from '../devices/device-type.ts';

/** What the names of a family begin with, and how its types are had, a row each. */
type Family = readonly [names: RegExp, load: () => Promise<readonly DeviceType[]>];

const FAMILIES: readonly Family[] = [
  [/bridge|^(?:pcie|ioh|i82801)/, () => import('../devices/pci/bridge-types.ts').then((one) => one.BRIDGE_TYPES)],
  [/^isa-debug-exit/, () => import('../devices/debug/types.ts').then((one) => [one.ISA_DEBUG_EXIT])],
  [/vga/i, () => import('../devices/vga/types.ts').then((one) => [one.VGA_TYPE])],
  [/^(?:ide|ich9-ahci|ahci)/, () => import('../devices/ide/types.ts').then((one) => one.IDE_TYPES)],
  [/^(?:e1000|rtl8139|ne2k)/, () => import('../devices/net/types.ts').then((one) => one.NETWORK_CARDS)],
  [/^nvme/, () => import('../devices/nvme/types.ts').then((one) => [one.NVME_TYPE])],
  [/^virtio-balloon/, () => import('../devices/virtio/balloon-pci.ts').then((one) => one.VIRTIO_BALLOON_PCI)],
  [/^virtio-(?:input|keyboard|mouse|tablet)/, () => import('../devices/virtio/input-pci.ts').then((one) => one.VIRTIO_INPUT_PCI)],
  [/^virtio-blk/, () => import('../devices/virtio/blk-pci.ts').then((one) => one.VIRTIO_BLK_PCI)],
  [/^virtio-net/, () => import('../devices/virtio/net-pci.ts').then((one) => one.VIRTIO_NET_PCI)],
  [/^virtio-9p/, () => import('../devices/virtio/p9/pci.ts').then((one) => one.VIRTIO_9P_PCI)],
  [/^virtio-rng/, () => import('../devices/virtio/rng-pci.ts').then((one) => one.VIRTIO_RNG_PCI)],
  [/^virtio-scsi/, () => import('../devices/virtio/scsi-pci.ts').then((one) => one.VIRTIO_SCSI_PCI)],
  [/^virt(?:io-serial|console|serialport)/, () => import('../devices/virtio/serial-pci.ts').then((one) => one.VIRTIO_SERIAL)],
  [/^scsi/, () => import('../devices/scsi/types.ts').then((one) => one.SCSI_UNITS)],
  [/^sd/, () => import('../devices/sd/types.ts').then((one) => one.SD_TYPES)],
  [/^vhost-vsock/, () => import('../devices/virtio/vsock-pci.ts').then((one) => one.VHOST_VSOCK_PCI)],
];

/** Types of the families that have been loaded, in the families' order. */
const loaded = new Map<Family, readonly DeviceType[]>();

async function load(families: readonly Family[]): Promise<void> {
  const missing = families.filter((family) => !loaded.has(family));
  const types = await Promise.all(missing.map(([, load]) => load()));
  missing.forEach((family, i) => loaded.set(family, types[i]!));
}

/** Has `findDeviceType` know these names, if anybody does. */
export async function loadDeviceTypes(names: readonly string[]): Promise<void> {
  await load(FAMILIES.filter(([pattern]) => names.some((name) => pattern.test(name))));
  // A name that is none of its family's may be anything's.
  if (names.some((name) => findDeviceType(name) === null)) await loadAllDeviceTypes();
}

/** @returns all types that there are */
export async function loadAllDeviceTypes(): Promise<readonly DeviceType[]> {
  await load(FAMILIES);
  return known();
}

const known = (): DeviceType[] => FAMILIES.flatMap((family) => loaded.get(family) ?? []);

/** @returns the type of that name, or null; it must have been loaded */
export function findDeviceType(name: string): DeviceType | null {
  return known().find((type) => type.name === name || type.alias === name) ?? null;
}

const TITLES: Record<Category, string> = {
  bridge: 'Controller/Bridge/Hub devices',
  storage: 'Storage devices',
  network: 'Network devices',
  input: 'Input devices',
  display: 'Display devices',
  misc: 'Misc devices',
};

/** The text of `-device help`. */
export async function listDeviceTypes(): Promise<string> {
  const all = await loadAllDeviceTypes();
  const groups = CATEGORIES.map((category) => ({
    category,
    types: all.filter((type) => type.category === category).sort((a, b) => (a.name < b.name ? -1 : 1)),
  }));
  return groups
    .filter(({ types }) => types.length > 0)
    .map(({ category, types }) => [`${TITLES[category]}:`, ...types.map(line)].join('\n'))
    .join('\n\n');
}

function line({ name, bus, alias }: DeviceType): string {
  return `name "${name}", bus ${bus}${alias === undefined ? '' : `, alias "${alias}"`}`;
}

/** The text of `-device TYPE,help`. @throws Error when there is no such type */
export async function describeDeviceType(name: string): Promise<string> {
  await loadDeviceTypes([name]);
  const type = findDeviceType(name);
  if (type === null) throw new Error(`'${name}' is not a valid device model name`);
  return describeProperties(type.name, type.properties);
}

/** Every type of device that can be added to a machine by name, a row each. */
import { CATEGORIES, type Category, describeProperties, type DeviceType } from '../devices/device-type.ts';
import { ISA_DEBUG_EXIT } from '../devices/debug/types.ts';
import { IDE_TYPES } from '../devices/ide/types.ts';
import { NVME_TYPE } from '../devices/nvme/types.ts';
import { VGA_TYPE } from '../devices/vga/types.ts';
import { NETWORK_CARDS } from '../devices/net/types.ts';
import { BRIDGE_TYPES } from '../devices/pci/bridge-types.ts';
import { SD_TYPES } from '../devices/sd/types.ts';
import { SCSI_UNITS } from '../devices/scsi/types.ts';
import { VIRTIO_BALLOON_PCI } from '../devices/virtio/balloon-pci.ts';
import { VIRTIO_BLK_PCI } from '../devices/virtio/blk-pci.ts';
import { VIRTIO_INPUT_PCI } from '../devices/virtio/input-pci.ts';
import { VIRTIO_NET_PCI } from '../devices/virtio/net-pci.ts';
import { VIRTIO_9P_PCI } from '../devices/virtio/p9/pci.ts';
import { VIRTIO_RNG_PCI } from '../devices/virtio/rng-pci.ts';
import { VIRTIO_SCSI_PCI } from '../devices/virtio/scsi-pci.ts';
import { VHOST_VSOCK_PCI } from '../devices/virtio/vsock-pci.ts';
import { VIRTIO_SERIAL } from '../devices/virtio/serial-pci.ts';

export const DEVICE_TYPES: readonly DeviceType[] = [
  ...BRIDGE_TYPES,
  ISA_DEBUG_EXIT,
  VGA_TYPE,
  ...IDE_TYPES,
  ...NETWORK_CARDS,
  NVME_TYPE,
  ...VIRTIO_BALLOON_PCI,
  ...VIRTIO_INPUT_PCI,
  ...VIRTIO_BLK_PCI,
  ...VIRTIO_NET_PCI,
  ...VIRTIO_9P_PCI,
  ...VIRTIO_RNG_PCI,
  ...VIRTIO_SCSI_PCI,
  ...VIRTIO_SERIAL,
  ...SCSI_UNITS,
  ...SD_TYPES,
  ...VHOST_VSOCK_PCI,
];

/** @returns the type of that name, or null */
export function findDeviceType(name: string): DeviceType | null {
  return DEVICE_TYPES.find((type) => type.name === name || type.alias === name) ?? null;
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
export function listDeviceTypes(): string {
  const groups = CATEGORIES.map((category) => ({
    category,
    types: DEVICE_TYPES.filter((type) => type.category === category).sort((a, b) => (a.name < b.name ? -1 : 1)),
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
export function describeDeviceType(name: string): string {
  const type = findDeviceType(name);
  if (type === null) throw new Error(`'${name}' is not a valid device model name`);
  return describeProperties(type.name, type.properties);
}

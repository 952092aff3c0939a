/** `ich9-ahci`, `ide-hd`, `ide-cd`. */
import {
  BOOT_INDEX,
  bool,
  deviceType,
  type DeviceContext,
  type DeviceType,
  DRIVE,
  onError,
  onOffAuto,
  PCI_PLACE,
  text,
  uint,
} from '../device-type.ts';
import { Ahci, AHCI_PORTS } from './ahci.ts';
import type { AtaDevice } from './ata.ts';
import { type IdeBus, ideBuses } from './bus.ts';
import { IdeCdrom } from './cdrom.ts';
import { IdeDisk } from './disk.ts';

const UNIT = {
  drive: DRIVE,
  bootindex: BOOT_INDEX,
  serial: text(),
  unit: uint(32, null),
  'write-cache': onOffAuto('auto'),
  werror: onError(),
  rerror: onError(),
};

function plug(device: AtaDevice, unit: number | null, { bus }: DeviceContext): AtaDevice {
  (bus as IdeBus).plug(device, unit);
  return device;
}

const serialOf = (given: string | null, context: DeviceContext): string =>
  given ?? `VR${String(context.next('ide-serial') + 1).padStart(5, '0')}`;

export const IDE_TYPES: readonly DeviceType[] = [
  deviceType({
    name: 'ich9-ahci',
    alias: 'ahci',
    category: 'storage',
    bus: 'PCI',
    properties: { ...PCI_PLACE, multifunction: bool(false) },
    create: (_values, { memory, id }) => new Ahci(memory, id),
    buses: (device) => ideBuses(device.id, device, AHCI_PORTS, 1),
  }),
  deviceType({
    name: 'ide-hd',
    category: 'storage',
    bus: 'IDE',
    ofController: true,
    properties: UNIT,
    create(values, context) {
      if (values.drive === null) throw new Error('drive property not set');
      const { backend, readOnly, serial } = context.drive('drive', values.drive);
      if (backend === null) throw new Error('Device needs media, but drive is empty');
      if (readOnly || backend.readOnly) throw new Error('an IDE disk cannot be read-only');
      return plug(new IdeDisk(context.id, backend, serialOf(values.serial ?? serial, context)), values.unit, context);
    },
  }),
  deviceType({
    name: 'ide-cd',
    category: 'storage',
    bus: 'IDE',
    ofController: true,
    properties: UNIT,
    create(values, context) {
      const link = values.drive === null ? null : context.drive('drive', values.drive);
      const serial = serialOf(values.serial ?? link?.serial ?? null, context);
      return plug(new IdeCdrom(context.id, link?.backend ?? null, serial), values.unit, context);
    },
  }),
];

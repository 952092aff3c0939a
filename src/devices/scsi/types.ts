/** `scsi-hd` and `scsi-cd`. */
import {
  BOOT_INDEX,
  bool,
  deviceType,
  type DeviceContext,
  type DeviceType,
  DRIVE,
  onError,
  onOffAuto,
  size,
  text,
  uint,
  uint64,
} from '../device-type.ts';
import type { ScsiBus, ScsiUnit } from '../scsi.ts';
import { ScsiCd } from './cd.ts';
import { ScsiDisk } from './disk.ts';

const COMMON = {
  drive: DRIVE,
  bootindex: BOOT_INDEX,
  serial: text(),
  channel: uint(32, 0),
  'scsi-id': uint(32, null),
  lun: uint(32, null),
  vendor: text(),
  product: text(),
  ver: text(),
  wwn: uint64(0),
  'share-rw': bool(false, ''),
  device_id: text(),
  'write-cache': onOffAuto('auto'),
  werror: onError(),
  rerror: onError(),
};

type CommonValues = {
  readonly drive: string | null;
  readonly serial: string | null;
  readonly channel: number;
  readonly 'scsi-id': number | null;
  readonly lun: number | null;
  readonly vendor: string | null;
  readonly product: string | null;
  readonly ver: string | null;
  readonly wwn: number;
  readonly device_id: string | null;
};

function unitOptions(values: CommonValues, context: DeviceContext, product: string) {
  const link = values.drive === null ? null : context.drive('drive', values.drive);
  return {
    id: context.id,
    backend: link?.backend ?? null,
    readOnly: link?.readOnly ?? true,
    serial: values.serial ?? link?.serial ?? '',
    vendor: values.vendor ?? 'VIRELAY',
    product: values.product ?? product,
    version: values.ver ?? '1.0',
    deviceId: values.device_id,
    wwn: BigInt(values.wwn),
  };
}

function plug<T extends ScsiUnit>(unit: T, values: CommonValues, context: DeviceContext): T {
  if (values.channel !== 0) throw new Error(`bad scsi channel id: ${values.channel}`);
  (context.bus as ScsiBus).plug(unit, values['scsi-id'], values.lun);
  return unit;
}

export const SCSI_UNITS: readonly DeviceType[] = [
  deviceType({
    name: 'scsi-hd',
    category: 'storage',
    bus: 'SCSI',
    properties: {
      ...COMMON,
      removable: bool(false),
      rotation_rate: uint(16, 0),
      logical_block_size: size(512, 'A power of two between 512 B and 2 MiB'),
    },
    create(values, context) {
      if (values.drive === null) throw new Error('drive property not set');
      const options = unitOptions(values, context, 'VIRELAY HARDDISK');
      if (options.backend === null && !values.removable) throw new Error('Device needs media, but drive is empty');
      const { removable, rotation_rate: rotationRate, logical_block_size: blockSize } = values;
      if (blockSize < 512 || blockSize > 2 ** 21 || !Number.isInteger(Math.log2(blockSize))) {
        throw new Error('parameter logical_block_size must be a power of two between 512 and 2097152');
      }
      return plug(new ScsiDisk({ ...options, removable, rotationRate, blockSize }), values, context);
    },
  }),
  deviceType({
    name: 'scsi-cd',
    category: 'storage',
    bus: 'SCSI',
    properties: COMMON,
    create: (values, context) => plug(new ScsiCd(unitOptions(values, context, 'VIRELAY CD-ROM')), values, context),
  }),
];

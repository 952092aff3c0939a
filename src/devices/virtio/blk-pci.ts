/** `virtio-blk-pci`. */
import { BOOT_INDEX, bool, DRIVE, onError, onOffAuto, size, text, uint } from '../device-type.ts';
import { VirtioBlk } from './blk.ts';
import { checkQueueSize } from './queue.ts';
import { virtioTypes } from './type.ts';

const MASS_STORAGE = 0x010000;
const MAX_QUEUES = 1024;
/** A request has two descriptors less, one for each piece of memory: enough for what Linux asks for at once (1,280 KiB), page by page. */
const QUEUE_SIZE = 512;
/** Firmware takes no more where it cannot ask for less: by the legacy interface (SeaBIOS). */
const QUEUE_SIZE_LEGACY = 256;
const ERROR_HELP = 'Error handling policy, report/ignore/enospc/stop/auto';

export const VIRTIO_BLK_PCI = virtioTypes({
  name: 'virtio-blk',
  category: 'storage',
  classCode: MASS_STORAGE,
  transitional: true,
  switches: { 'config-wce': [true, 11] },
  properties: {
    drive: DRIVE,
    bootindex: BOOT_INDEX,
    serial: text(),
    'num-queues': uint(16, null),
    'queue-size': uint(16, null),
    logical_block_size: size(512, 'A power of two between 512 B and 2 MiB'),
    physical_block_size: size(512, 'A power of two between 512 B and 2 MiB'),
    min_io_size: size(0),
    opt_io_size: size(0),
    discard: bool(true),
    'write-zeroes': bool(true),
    'share-rw': bool(false, ''),
    // The driver is told of a cache, which it may turn off.
    'write-cache': onOffAuto('auto'),
    werror: onError(ERROR_HELP),
    rerror: onError(ERROR_HELP),
  },
  create(values, parts, context) {
    if (values.drive === null) throw new Error('drive property not set');
    const { backend, serial } = context.drive('drive', values.drive);
    if (backend === null) throw new Error('Device needs media, but drive is empty');
    const queues = values['num-queues'] ?? 1;
    if (queues < 1 || queues > MAX_QUEUES) throw new Error('num-queues property must be larger than 0');
    for (const key of ['logical_block_size', 'physical_block_size'] as const) checkBlockSize(key, values[key]);
    if (values.logical_block_size > values.physical_block_size) {
      throw new Error('logical_block_size > physical_block_size not supported');
    }
    return new VirtioBlk(parts, {
      backend,
      queues,
      queueSize: checkQueueSize('queue-size', values['queue-size'] ?? (parts.legacyOnly ? QUEUE_SIZE_LEGACY : QUEUE_SIZE)),
      serial: values.serial ?? serial ?? '',
      logicalBlockSize: values.logical_block_size,
      physicalBlockSize: values.physical_block_size,
      minIoSize: values.min_io_size,
      optIoSize: values.opt_io_size,
      discard: values.discard,
      writeZeroes: values['write-zeroes'],
    });
  },
});

function checkBlockSize(key: string, value: number): void {
  if (value < 512 || value > 2 ** 21 || !Number.isInteger(Math.log2(value))) {
    throw new Error(`parameter ${key} must be a power of two between 512 and 2097152`);
  }
}

/** `virtio-scsi-pci`, which provides a SCSI bus. */
import { bool, uint } from '../device-type.ts';
import { ScsiBus } from '../scsi.ts';
import { virtioTypes } from './type.ts';
import { checkQueueSize } from './queue.ts';
import { MAX_LUN, MAX_TARGET, VirtioScsi } from './scsi.ts';

const MASS_STORAGE = 0x010000;
const MAX_QUEUES = 256;

export const VIRTIO_SCSI_PCI = virtioTypes({
  name: 'virtio-scsi',
  category: 'storage',
  classCode: MASS_STORAGE,
  transitional: true,
  properties: {
    num_queues: uint(32, null),
    virtqueue_size: uint(32, 256),
    max_sectors: uint(32, 0xffff),
    cmd_per_lun: uint(32, 128),
    hotplug: bool(true),
    param_change: bool(true),
  },
  create(values, parts, { id, next }) {
    const queues = values.num_queues ?? 1;
    if (queues < 1 || queues > MAX_QUEUES)
      throw new Error(`Invalid number of queues (= ${queues}), must be a positive integer less than ${MAX_QUEUES + 1}.`);
    const name = id.includes('#') ? `scsi.${next('scsi')}` : `${id}.0`;
    return new VirtioScsi(parts, {
      queues,
      queueSize: checkQueueSize('virtqueue_size', values.virtqueue_size),
      maxSectors: values.max_sectors,
      commandsPerLun: values.cmd_per_lun,
      hotplug: values.hotplug,
      bus: new ScsiBus(name, MAX_TARGET, MAX_LUN),
    });
  },
  buses: (device) => [device.bus],
});

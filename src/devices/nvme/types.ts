/** `nvme`. */
import { BOOT_INDEX, bool, deviceType, DRIVE, onOffAuto, PCI_PLACE, size, text, uint } from '../device-type.ts';
import { NvmePci } from './pci.ts';

const MAX_QUEUE_PAIRS = 0xffff;
const MAX_VECTORS = 2048;
/** Data of one command: 2^9 pages of 4 KiB. */
const MAX_MDTS = 9;
/** First of the EUI-64s of namespaces. */
const EUI64 = 0x5254_0000_0000_0000n;

export const NVME_TYPE = deviceType({
  name: 'nvme',
  category: 'storage',
  bus: 'PCI',
  properties: {
    ...PCI_PLACE,
    multifunction: bool(false),
    drive: DRIVE,
    bootindex: BOOT_INDEX,
    serial: text(),
    max_ioqpairs: uint(32, 64),
    msix_qsize: uint(16, 65),
    mdts: uint(8, 7),
    aerl: uint(8, 3),
    logical_block_size: size(0, 'A power of two between 512 B and 2 MiB'),
    physical_block_size: size(0, 'A power of two between 512 B and 2 MiB'),
    'write-cache': onOffAuto('auto'),
    'share-rw': bool(false, ''),
  },
  create(values, context) {
    const { id, memory, clock } = context;
    if (values.drive === null) throw new Error('drive property not set');
    const { backend, serial } = context.drive('drive', values.drive);
    if (backend === null) throw new Error('Device needs media, but drive is empty');
    const { max_ioqpairs: queuePairs, msix_qsize: vectors } = values;
    if (queuePairs < 1 || queuePairs > MAX_QUEUE_PAIRS) throw new Error(`max_ioqpairs must be between 1 and ${MAX_QUEUE_PAIRS}`);
    if (vectors < 1 || vectors > MAX_VECTORS) throw new Error(`msix_qsize must be between 1 and ${MAX_VECTORS}`);
    const name = values.serial ?? serial;
    if (name === null) throw new Error('serial property not set');
    const logicalBlockSize = blockSize('logical_block_size', values.logical_block_size);
    const options = {
      backend,
      serial: name,
      queuePairs,
      vectors,
      // 0 is no limit, which would let a guest have the host copy any amount.
      mdts: values.mdts === 0 ? MAX_MDTS : Math.min(values.mdts, MAX_MDTS),
      aerl: values.aerl,
      logicalBlockSize,
      physicalBlockSize: Math.max(logicalBlockSize, blockSize('physical_block_size', values.physical_block_size)),
      writeCache: values['write-cache'] !== 'off',
      eui64: EUI64 + BigInt(context.next('nvme namespace') + 1),
    };
    return new NvmePci({ id, memory, clock }, options, values.multifunction);
  },
});

/** @returns bytes; what is not given is 512 */
function blockSize(key: string, value: number): number {
  if (value === 0) return 512;
  if (value < 512 || value > 2 ** 21 || !Number.isInteger(Math.log2(value))) {
    throw new Error(`parameter ${key} must be a power of two between 512 and 2097152`);
  }
  return value;
}

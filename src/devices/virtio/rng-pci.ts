/** `virtio-rng-pci`. */
import { text, uint, uint64 } from '../device-type.ts';
import { virtioTypes } from './type.ts';
import { VirtioRng } from './rng.ts';

const OTHERS = 0x00ff00;

export const VIRTIO_RNG_PCI = virtioTypes({
  name: 'virtio-rng',
  category: 'misc',
  classCode: OTHERS,
  transitional: true,
  properties: {
    // There is one source of entropy, the host's.
    rng: text('ID of a source of entropy'),
    'max-bytes': uint64(Number.MAX_SAFE_INTEGER),
    period: uint(32, 65536),
  },
  create(values, parts, { random, clock }) {
    if (values.period < 1) throw new Error("'period' parameter expects a positive integer");
    return new VirtioRng(parts, { random, clock, maxBytes: values['max-bytes'], period: values.period });
  },
});

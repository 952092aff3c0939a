/** `virtio-9p-pci`. */
import { text } from '../../device-type.ts';
import { virtioTypes } from '../type.ts';
import { MAX_TAG, VirtioP9 } from './device.ts';

const OTHERS = 0x000200;

export const VIRTIO_9P_PCI = virtioTypes({
  name: 'virtio-9p',
  category: 'storage',
  classCode: OTHERS,
  transitional: true,
  properties: { fsdev: text('ID of a folder that -fsdev names'), mount_tag: text() },
  create(values, parts, context) {
    if (values.fsdev === null) throw new Error('fsdev property not set');
    const tag = new TextEncoder().encode(values.mount_tag ?? '');
    if (tag.length < 1 || tag.length > MAX_TAG)
      throw new Error(`mount tag '${values.mount_tag ?? ''}' is not 1 to ${MAX_TAG} bytes long`);
    return new VirtioP9(parts, tag, context.folder('fsdev', values.fsdev));
  },
  // The configuration's own, and the queue's.
  vectors: () => 2,
});

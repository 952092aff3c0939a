/** `virtio-balloon-pci`. */
import { bool } from '../device-type.ts';
import { VirtioBalloon } from './balloon.ts';
import { virtioTypes } from './type.ts';

const OTHERS = 0x00ff00;

export const VIRTIO_BALLOON_PCI = virtioTypes({
  name: 'virtio-balloon',
  category: 'misc',
  classCode: OTHERS,
  transitional: true,
  properties: { 'deflate-on-oom': bool(false), 'free-page-reporting': bool(false) },
  create(values, parts, { clock, memorySize, setBalloon }) {
    const device = new VirtioBalloon(parts, {
      clock,
      memorySize,
      deflateOnOom: values['deflate-on-oom'],
      reporting: values['free-page-reporting'],
    });
    setBalloon(device);
    return device;
  },
});

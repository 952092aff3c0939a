/** `VGA`, whose memory the board sets aside: `-vga std` and `-device VGA` ask for the same one. */
import { deviceType, PCI_PLACE } from '../device-type.ts';

export const VGA_TYPE = deviceType({
  name: 'VGA',
  category: 'display',
  bus: 'PCI',
  hotpluggable: false,
  properties: { ...PCI_PLACE },
  create(): never {
    throw new Error('the display adapter is chosen by the setting "vga"');
  },
});

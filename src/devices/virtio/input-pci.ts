/** `virtio-keyboard-pci`, `virtio-mouse-pci`, `virtio-tablet-pci`. */
import { type DeviceType, text } from '../device-type.ts';
import { keyEvents } from './input-keys.ts';
import { ABS, BTN, EV, type InputDescription, REL, VirtioInput } from './input.ts';
import { TABLET_MAX, VirtioPointer } from './input-pointer.ts';
import { virtioTypes } from './type.ts';

const BUS_VIRTUAL = 6;
const VENDOR = 0x0627;
const BUTTONS = [BTN.left, BTN.right, BTN.middle, BTN.side, BTN.extra, BTN.gearDown, BTN.gearUp];
/** Keys of a PC's keyboard have codes from 1 on. */
const KEYS = Array.from({ length: 248 }, (_, i) => i + 1);
const LEDS = [0, 1, 2];

function row(
  kind: string,
  classCode: number,
  product: number,
  description: Omit<InputDescription, 'serial' | 'ids'>,
): DeviceType[] {
  return virtioTypes({
    name: `virtio-${kind}`,
    category: 'input',
    classCode,
    transitional: false,
    properties: { serial: text(), display: text() },
    create(values, parts, context) {
      const ids = [BUS_VIRTUAL, VENDOR, product, 1] as const;
      const device = new VirtioInput(parts, { ...description, serial: values.serial ?? '', ids });
      if (kind === 'keyboard') context.addKeyboard((codes) => takeKeys(device, codes));
      else context.addPointer(new VirtioPointer(device, kind === 'tablet'));
      return device;
    },
    // The configuration's own, and one for both queues.
    vectors: () => 2,
  });
}

function takeKeys(device: VirtioInput, codes: readonly number[]): boolean {
  if (device.listens) device.send(keyEvents(codes));
  return device.listens;
}

export const VIRTIO_INPUT_PCI: readonly DeviceType[] = [
  ...row('keyboard', 0x090000, 1, {
    name: 'QEMU Virtio Keyboard',
    events: { [EV.key]: KEYS, [EV.repeat]: [0, 1], [EV.led]: LEDS },
    axes: {},
  }),
  ...row('mouse', 0x090200, 2, {
    name: 'QEMU Virtio Mouse',
    events: { [EV.key]: BUTTONS, [EV.relative]: [REL.x, REL.y, REL.wheel] },
    axes: {},
  }),
  ...row('tablet', 0x090200, 3, {
    name: 'QEMU Virtio Tablet',
    events: { [EV.key]: BUTTONS, [EV.absolute]: [ABS.x, ABS.y], [EV.relative]: [REL.wheel] },
    axes: { [ABS.x]: [0, TABLET_MAX], [ABS.y]: [0, TABLET_MAX] },
  }),
];

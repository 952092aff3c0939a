/** `virtio-serial-pci`, and the ports on its bus: `virtserialport` and `virtconsole`. */
import { bool, CHARDEV, deviceType, type DeviceType, text, uint } from '../device-type.ts';
import { virtioTypes } from './type.ts';
import { MAX_PORTS, SerialPortDevice, VirtioSerial } from './serial.ts';

const COMMUNICATION = 0x078000;

const CONTROLLER = virtioTypes({
  name: 'virtio-serial',
  category: 'input',
  classCode: COMMUNICATION,
  transitional: true,
  properties: {
    max_ports: uint(32, MAX_PORTS),
    'emergency-write': bool(true),
  },
  create(values, parts) {
    const ports = values.max_ports;
    if (ports < 1 || ports > MAX_PORTS) throw new Error(`maximum ports supported: ${MAX_PORTS}`);
    return new VirtioSerial(parts, ports, values['emergency-write']);
  },
  // The configuration's own, and one for all queues.
  vectors: () => 2,
  buses: (device) => [device],
});

function port(name: string, console: boolean): DeviceType {
  return deviceType({
    name,
    category: 'input',
    bus: 'virtio-serial-bus',
    properties: { chardev: CHARDEV, name: text(), nr: uint(32, null) },
    create(values, context) {
      const backend = values.chardev === null ? null : context.character('chardev', values.chardev);
      const made = new SerialPortDevice({ type: name, id: context.id, name: values.name ?? '', console, backend });
      (context.bus as unknown as VirtioSerial).plug(made, values.nr);
      return made;
    },
  });
}

export const VIRTIO_SERIAL: readonly DeviceType[] = [...CONTROLLER, port('virtserialport', false), port('virtconsole', true)];

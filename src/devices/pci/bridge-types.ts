/** `pcie-root-port`, `pci-bridge`, `pcie-pci-bridge`. */
import { bool, deviceType, type DeviceType, onOffAuto, PCI_PLACE, text, uint } from '../device-type.ts';
import { EXPRESS_TYPE, PciBridge } from '../pci-bridge.ts';

const VENDOR = 0x1b36;
const CLASS = 0x060400;
const ALL_SLOTS = 32;

const COMMON = { ...PCI_PLACE, multifunction: bool(false) };
const secondary = (device: unknown) => [(device as PciBridge).secondary];

export const BRIDGE_TYPES: readonly DeviceType[] = [
  deviceType({
    name: 'pcie-root-port',
    category: 'bridge',
    bus: 'PCI',
    properties: {
      ...COMMON,
      chassis: uint(8, 0),
      slot: uint(16, 0),
      port: uint(8, 0),
      hotplug: bool(true),
      'io-reserve': text(),
      'mem-reserve': text(),
      'pref64-reserve': text(),
      'bus-reserve': text(),
    },
    create: ({ slot, port, hotplug, multifunction }, { id }) =>
      new PciBridge(
        id,
        { vendor: VENDOR, device: 0x000c, classCode: CLASS, interruptPin: 1, multifunction },
        {
          ...{ type: 'pcie-root-port', busName: id, slots: 1, express: true },
          capability: { offset: 0x54, type: EXPRESS_TYPE.rootPort },
          port: { number: port, slot: slot & 0x1fff, hotplug },
        },
      ),
    buses: secondary,
  }),
  deviceType({
    name: 'pci-bridge',
    category: 'bridge',
    bus: 'PCI',
    properties: { ...COMMON, chassis_nr: uint(8, 0), shpc: bool(true), msi: onOffAuto('auto') },
    create({ multifunction, chassis_nr: chassis, shpc, msi }, { id }) {
      if (chassis === 0) {
        throw new Error('Bridge chassis not specified. Each bridge is required to be assigned a unique chassis id > 0.');
      }
      return new PciBridge(
        id,
        { vendor: VENDOR, device: 0x0001, classCode: CLASS, interruptPin: 1, multifunction },
        {
          ...{ type: 'pci-bridge', busName: id, slots: ALL_SLOTS, express: false, capability: null },
          conventional: { messages: msi !== 'off' && shpc ? 0x4c : null, power: null, chassis, hotplug: shpc },
        },
      );
    },
    buses: secondary,
  }),
  deviceType({
    name: 'pcie-pci-bridge',
    category: 'bridge',
    bus: 'PCI',
    properties: { ...COMMON, msi: onOffAuto('auto') },
    create: ({ multifunction, msi }, { id }) =>
      new PciBridge(
        id,
        { vendor: VENDOR, device: 0x000e, classCode: CLASS, interruptPin: 1, multifunction },
        {
          ...{ type: 'pcie-pci-bridge', busName: id, slots: ALL_SLOTS, express: false },
          capability: { offset: 0x48, type: EXPRESS_TYPE.toPci },
          conventional: { messages: msi === 'off' ? null : 0x8c, power: 0x84, chassis: null, hotplug: true },
        },
      ),
    buses: secondary,
  }),
];

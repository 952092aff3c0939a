/** Rows of the table of device types for virtio devices, on PCI and elsewhere: what they all have is written here. */
import {
  bool,
  deviceType,
  type Category,
  type DeviceBus,
  type DeviceContext,
  type DeviceType,
  onOffAuto,
  PCI_PLACE,
  type Properties,
  uint,
  type Values,
} from '../device-type.ts';
import type { PciBus } from '../pci.ts';
import type { VirtioDevice, VirtioParts } from './device.ts';
import { FEATURE } from './features.ts';
import type { VirtioMmioBus } from './mmio-bus.ts';
import type { VirtioMmio } from './mmio.ts';
import { VirtioPci } from './pci.ts';

/** Properties that take one or more features away when they are off. */
export type FeatureSwitches = { readonly [property: string]: readonly [byDefault: boolean, ...bits: number[]] };

const COMMON_SWITCHES: FeatureSwitches = {
  event_idx: [true, FEATURE.eventIndex],
  indirect_desc: [true, FEATURE.indirectDescriptors],
  any_layout: [true, FEATURE.anyLayout],
  packed: [false, FEATURE.packedRing],
  // Addresses are the machine's physical ones either way: there is no translation between.
  iommu_platform: [false, FEATURE.accessPlatform],
};

/**
 * Whether the driver's notifications, and interrupts by MSI-X, go by eventfds of the host's KVM. Without them a device hears of its
 * driver sooner (docs/performance.md), which is what `auto` chooses.
 */
const IOEVENTFD = { ioeventfd: onOffAuto('auto', 'on/off/auto, which is off') };
const COMMON = {
  ...PCI_PLACE,
  'disable-legacy': onOffAuto('auto'),
  'disable-modern': bool(false, ''),
  vectors: uint(32, null),
  ...IOEVENTFD,
  multifunction: bool(false),
};

export type VirtioType<P extends Properties, D extends VirtioDevice> = {
  /** Without "-pci" or "-device". */
  name: string;
  category: Category;
  classCode: number;
  /** There is a legacy interface, which is on unless behind a PCI Express port. */
  transitional: boolean;
  properties: P;
  switches?: FeatureSwitches;
  create(values: Values<P>, parts: VirtioParts, context: DeviceContext): D;
  /** Interrupt vectors when nothing is said: one for the configuration, one for each queue. */
  vectors?: (device: D) => number;
  /** Buses that the device provides. */
  buses?: (device: D) => readonly DeviceBus[];
};

/**
 * A row for PCI, and where there is a legacy interface, the two names that say which interfaces there are; and one for
 * transports with registers in memory.
 */
export function virtioTypes<const P extends Properties, D extends VirtioDevice>(type: VirtioType<P, D>): DeviceType[] {
  const names: [string, OnlyInterface][] = [[`${type.name}-pci`, null]];
  if (type.transitional) {
    names.push([`${type.name}-pci-non-transitional`, 'modern'], [`${type.name}-pci-transitional`, 'both']);
  }
  return [...names.map(([name, only]) => row(type, name, only)), plainRow(type, `${type.name}-device`)];
}

const switchesOf = (switches: FeatureSwitches = {}): FeatureSwitches => ({ ...COMMON_SWITCHES, ...switches });

const flagsOf = (all: FeatureSwitches) =>
  Object.fromEntries(Object.entries(all).map(([key, [byDefault]]) => [key, bool(byDefault)]));

/** @param values with one for each switch @returns the device without the features that are off */
function deviceOf<P extends Properties, D extends VirtioDevice>(
  { switches, create }: VirtioType<P, D>,
  values: unknown,
  context: DeviceContext,
  legacyOnly = false,
): D {
  const { id, memory, trace } = context;
  const chosen = values as { [name: string]: unknown };
  const missing = Object.entries(switchesOf(switches)).flatMap(([key, [, ...bits]]) => (chosen[key] === true ? [] : bits));
  return create(values as Values<P>, { id, memory, trace, without: missing, legacyOnly }, context);
}

/** On a bus of its own, with registers in memory. */
function plainRow<P extends Properties, D extends VirtioDevice>(type: VirtioType<P, D>, full: string): DeviceType {
  const { category, switches, properties, buses } = type;
  return deviceType({
    name: full,
    category,
    bus: 'virtio-bus',
    hotpluggable: false,
    properties: { ...IOEVENTFD, ...flagsOf(switchesOf(switches)), ...properties },
    create: (values, context) => {
      const { ioeventfd } = values as unknown as Values<typeof IOEVENTFD>;
      return (context.bus as VirtioMmioBus).plug(deviceOf(type, values, context), full, ioeventfd === 'on');
    },
    ...(buses === undefined ? {} : { buses: (made) => buses((made as VirtioMmio).device as D) }),
  });
}

type OnlyInterface = 'modern' | 'both' | null;

function row<P extends Properties, D extends VirtioDevice>(
  type: VirtioType<P, D>,
  full: string,
  only: OnlyInterface,
): DeviceType {
  const { name, category, classCode, transitional, properties, switches, vectors, buses } = type;
  return deviceType({
    name: full,
    ...(only === null ? { alias: name } : {}),
    category,
    bus: 'PCI',
    properties: { ...COMMON, ...flagsOf(switchesOf(switches)), ...properties },
    create(values, context) {
      const common = values as unknown as Values<typeof COMMON>;
      const modern = only !== null || !common['disable-modern'];
      const device = deviceOf(type, values, context, !modern);
      // Behind a PCI Express port there are no ports for it to be had by, unless it is asked for.
      const auto = (context.bus as PciBus).express ? 'on' : 'off';
      const disabled = common['disable-legacy'] === 'auto' ? auto : common['disable-legacy'];
      const legacy = only === null ? disabled !== 'on' && transitional : only === 'both';
      return new VirtioPci(device, {
        type: full,
        classCode,
        vectors: common.vectors ?? vectors?.(device) ?? device.queues.length + 1,
        legacy,
        modern,
        multifunction: common.multifunction,
        ioeventfd: common.ioeventfd === 'on',
      });
    },
    ...(buses === undefined ? {} : { buses: (made) => buses((made as VirtioPci).device as D) }),
  });
}

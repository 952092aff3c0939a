/** Rows of the table of device types for virtio devices on PCI: what they all have is written here. */
import {
  bool,
  deviceType,
  type Category,
  type DeviceContext,
  type DeviceType,
  onOffAuto,
  PCI_ADDRESS,
  type Properties,
  uint,
  type Values,
} from '../device-type.ts';
import type { PciBus } from '../pci.ts';
import type { VirtioDevice, VirtioParts } from './device.ts';
import { FEATURE } from './features.ts';
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

const COMMON = {
  addr: PCI_ADDRESS,
  'disable-legacy': onOffAuto('auto'),
  'disable-modern': bool(false, ''),
  vectors: uint(32, null),
  // There is one way to be told of buffers, which costs no thread.
  ioeventfd: bool(true),
  multifunction: bool(false),
};

export type VirtioPciType<P extends Properties, D extends VirtioDevice> = {
  /** Without "-pci". */
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
  buses?: DeviceType['buses'];
};

/** A row, and where there is a legacy interface, the two names that say which interfaces there are. */
export function virtioPciTypes<const P extends Properties, D extends VirtioDevice>(type: VirtioPciType<P, D>): DeviceType[] {
  const names: [string, OnlyInterface][] = [[`${type.name}-pci`, null]];
  if (type.transitional) {
    names.push([`${type.name}-pci-non-transitional`, 'modern'], [`${type.name}-pci-transitional`, 'both']);
  }
  return names.map(([name, only]) => row(type, name, only));
}

type OnlyInterface = 'modern' | 'both' | null;

function row<P extends Properties, D extends VirtioDevice>(
  { name, category, classCode, transitional, properties, switches = {}, create, vectors, buses }: VirtioPciType<P, D>,
  full: string,
  only: OnlyInterface,
): DeviceType {
  const all = { ...COMMON_SWITCHES, ...switches };
  const flags = Object.fromEntries(Object.entries(all).map(([key, [byDefault]]) => [key, bool(byDefault)]));
  return deviceType({
    name: full,
    ...(only === null ? { alias: name } : {}),
    category,
    bus: 'PCI',
    properties: { ...COMMON, ...flags, ...properties },
    create(values, context) {
      const { id, memory, trace } = context;
      const chosen = values as unknown as { [name: string]: unknown };
      const common = values as unknown as Values<typeof COMMON>;
      const missing = Object.entries(all).flatMap(([key, [, ...bits]]) => (chosen[key] === true ? [] : bits));
      const device = create(values as unknown as Values<P>, { id, memory, trace, without: missing }, context);
      // Behind a PCI Express port there are no ports for it to be had by, unless it is asked for.
      const auto = (context.bus as PciBus).express ? 'on' : 'off';
      const disabled = common['disable-legacy'] === 'auto' ? auto : common['disable-legacy'];
      const legacy = only === null ? disabled !== 'on' && transitional : only === 'both';
      return new VirtioPci(device, {
        type: full,
        classCode,
        vectors: common.vectors ?? vectors?.(device) ?? device.queues.length + 1,
        legacy,
        modern: only !== null || !common['disable-modern'],
        multifunction: common.multifunction,
      });
    },
    ...(buses === undefined ? {} : { buses }),
  });
}

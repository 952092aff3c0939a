/** Network cards that are no virtio devices. */
import {
  BOOT_INDEX,
  bool,
  deviceType,
  type DeviceContext,
  type DeviceType,
  mac,
  NETDEV,
  PCI_PLACE,
  uint,
} from '../device-type.ts';
import { E1000 } from './e1000.ts';
import { E1000e } from './e1000e.ts';
import { NE2000_PORTS, Ne2kIsa, Ne2kPci } from './ne2000.ts';
import { Rtl8139 } from './rtl8139.ts';

/** First address of a card that is given none. */
const FIRST_MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56] as const;

const PCI_CARD = { ...PCI_PLACE, netdev: NETDEV, mac: mac(), bootindex: BOOT_INDEX };

/** What every card is given: its network and its address, of which those that nobody chose follow each other. */
function common(values: { readonly netdev: string | null; readonly mac: Uint8Array | null }, context: DeviceContext) {
  const { id, memory, clock } = context;
  const own = Uint8Array.from(FIRST_MAC);
  if (values.mac === null) own[5] = own[5]! + context.next('nic');
  const backend = values.netdev === null ? null : context.network('netdev', values.netdev);
  return { id, memory, clock, backend, mac: values.mac ?? own };
}

export const NETWORK_CARDS: readonly DeviceType[] = [
  deviceType({
    name: 'e1000',
    alias: 'e1000-82540em',
    category: 'network',
    bus: 'PCI',
    properties: { ...PCI_CARD, mitigation: bool(true, 'interrupts no faster than the driver says') },
    create: ({ mitigation, ...values }, context) => new E1000({ ...common(values, context), mitigation }),
  }),
  deviceType({
    name: 'e1000e',
    category: 'network',
    bus: 'PCI',
    properties: PCI_CARD,
    create: (values, context) => new E1000e({ ...common(values, context), mitigation: true }),
  }),
  deviceType({
    name: 'rtl8139',
    category: 'network',
    bus: 'PCI',
    properties: PCI_CARD,
    create: (values, context) => new Rtl8139(common(values, context)),
  }),
  deviceType({
    name: 'ne2k_pci',
    category: 'network',
    bus: 'PCI',
    properties: PCI_CARD,
    create: (values, context) => new Ne2kPci(common(values, context)),
  }),
  deviceType({
    name: 'ne2k_isa',
    category: 'network',
    bus: 'ISA',
    properties: { netdev: NETDEV, mac: mac(), bootindex: BOOT_INDEX, iobase: uint(32, 0x300), irq: uint(32, 9) },
    create({ iobase, irq, ...values }, context) {
      if (iobase + NE2000_PORTS > 0x10000) throw new Error(`iobase ${iobase} is not a port number`);
      if (irq > 15) throw new Error(`irq ${irq} is not one of 0 to 15`);
      return new Ne2kIsa(common(values, context), { ports: context.ports, base: iobase, irq: context.irq(irq) });
    },
  }),
];

/** Network cards that are no virtio devices. */
import { BOOT_INDEX, bool, deviceType, mac, NETDEV, PCI_ADDRESS } from '../device-type.ts';
import { E1000 } from './e1000.ts';

/** First address of a card that is given none. */
const FIRST_MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56] as const;

export const E1000_TYPE = deviceType({
  name: 'e1000',
  alias: 'e1000-82540em',
  category: 'network',
  bus: 'PCI',
  properties: {
    addr: PCI_ADDRESS,
    netdev: NETDEV,
    mac: mac(),
    bootindex: BOOT_INDEX,
    mitigation: bool(true, 'interrupts no faster than the driver says'),
  },
  create({ netdev, mac: given, mitigation }, context) {
    const own = Uint8Array.from(FIRST_MAC);
    if (given === null) own[5] = own[5]! + context.next('nic');
    const { id, memory, clock } = context;
    const backend = netdev === null ? null : context.network('netdev', netdev);
    return new E1000({ id, memory, clock, backend, mac: given ?? own, mitigation });
  },
});

/** `virtio-net-pci`. */
import { BOOT_INDEX, bool, mac, NETDEV, text, uint } from '../device-type.ts';
import { FEATURE } from './net-header.ts';
import { VirtioNet } from './net.ts';
import { virtioTypes } from './type.ts';
import { checkQueueSize } from './queue.ts';

const NETWORK = 0x020000;
/** First address of a card that is given none. */
const FIRST_MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56] as const;

export const VIRTIO_NET_PCI = virtioTypes({
  name: 'virtio-net',
  category: 'network',
  classCode: NETWORK,
  transitional: true,
  switches: {
    csum: [true, FEATURE.checksum],
    guest_csum: [true, FEATURE.guestChecksum],
    guest_tso4: [true, FEATURE.guestTso4],
    guest_tso6: [true, FEATURE.guestTso6],
    guest_ufo: [true, FEATURE.guestUfo],
    guest_uso4: [true, FEATURE.guestUso4],
    guest_uso6: [true, FEATURE.guestUso6],
    host_tso4: [true, FEATURE.hostTso4],
    host_tso6: [true, FEATURE.hostTso6],
    host_ufo: [true, FEATURE.hostUfo],
    host_uso: [true, FEATURE.hostUso],
    gso: [true, FEATURE.hostTso4, FEATURE.hostTso6, FEATURE.hostUfo, FEATURE.hostUso],
    mrg_rxbuf: [true, FEATURE.mergedBuffers],
    status: [true, FEATURE.status],
    ctrl_vq: [true, FEATURE.controlQueue],
    ctrl_rx: [true, FEATURE.controlRx],
    ctrl_vlan: [true, FEATURE.controlVlan],
    ctrl_rx_extra: [true, FEATURE.controlRxExtra],
    ctrl_mac_addr: [true, FEATURE.controlMac],
    ctrl_guest_offloads: [true, FEATURE.guestOffloads],
    guest_announce: [true, FEATURE.guestAnnounce],
  },
  properties: {
    netdev: NETDEV,
    mac: mac(),
    bootindex: BOOT_INDEX,
    mq: bool(false),
    queues: uint(16, 1, 'pairs of queues with mq=on'),
    rx_queue_size: uint(16, 256),
    tx_queue_size: uint(16, 256),
    host_mtu: uint(16, 0),
    tx: text(),
  },
  create(values, parts, context) {
    const { netdev } = values;
    if (values.queues < 1 || values.queues > 256) throw new Error("Parameter 'queues' expects a number from 1 to 256");
    const own = Uint8Array.from(FIRST_MAC);
    if (values.mac === null) own[5] = own[5]! + context.next('nic');
    return new VirtioNet(parts, {
      backend: netdev === null ? null : context.network('netdev', netdev),
      mac: values.mac ?? own,
      pairs: values.mq ? values.queues : 1,
      rxSize: checkQueueSize('rx_queue_size', values.rx_queue_size),
      txSize: checkQueueSize('tx_queue_size', values.tx_queue_size),
      mtu: values.host_mtu,
    });
  },
});

/**
 * Registers of the 82540EM: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (317453),
 * chapter 13. A register that only holds what is written to it is no more than its row here.
 */

/** Offset, value after reset, bits that software may change. */
type Row = readonly [offset: number, initial: number, writable: number];

const ALL = 0xffffffff;

export const REGISTERS = {
  control: [0x0000, 0x00000200, ALL],
  extendedControl: [0x0018, 0, 0x00e0fff0],
  flash: [0x001c, 0, 0],
  flowAddressLow: [0x0028, 0, ALL],
  flowAddressHigh: [0x002c, 0, 0xffff],
  flowType: [0x0030, 0, 0xffff],
  vlanType: [0x0038, 0x8100, 0xffff],
  cause: [0x00c0, 0, 0],
  throttle: [0x00c4, 0, 0xffff],
  mask: [0x00d0, 0, 0],
  receiveControl: [0x0100, 0, 0x07ffffff],
  flowTimer: [0x0170, 0, 0xffff],
  transmitConfiguration: [0x0178, 0, 0xc000ffff],
  transmitControl: [0x0400, 0, 0x07fffffe],
  transmitGap: [0x0410, 0, 0x3fffffff],
  adaptiveSpacing: [0x0458, 0, 0xffff],
  leds: [0x0e00, 0x07068302, ALL],
  packetBuffer: [0x1000, 0x00100030, 0xffff],
  flowLow: [0x2160, 0, 0x8000fff8],
  flowHigh: [0x2168, 0, 0xfff8],
  receiveLow: [0x2800, 0, 0xfffffff0],
  receiveHigh: [0x2804, 0, ALL],
  receiveLength: [0x2808, 0, 0xfff80],
  receiveHead: [0x2810, 0, 0xffff],
  receiveTail: [0x2818, 0, 0xffff],
  receiveDelay: [0x2820, 0, 0xffff],
  receiveThresholds: [0x2828, 0x00010000, ALL],
  receiveMostDelay: [0x282c, 0, 0xffff],
  smallPackets: [0x2c00, 0, 0xfff],
  transmitLow: [0x3800, 0, 0xfffffff0],
  transmitHigh: [0x3804, 0, ALL],
  transmitLength: [0x3808, 0, 0xfff80],
  transmitHead: [0x3810, 0, 0xffff],
  transmitTail: [0x3818, 0, 0xffff],
  transmitDelay: [0x3820, 0, 0xffff],
  transmitThresholds: [0x3828, 0, ALL],
  transmitMostDelay: [0x382c, 0, 0xffff],
  segmentPadding: [0x3830, 0x01000010, ALL],
  receiveChecksums: [0x5000, 0, 0x3ff],
  wakeControl: [0x5800, 0, 0x1ff],
  wakeFilter: [0x5808, 0, 0xfffff],
  wakeAddressValid: [0x5838, 0, ALL],
  management: [0x5820, 0, ALL],
} as const satisfies Record<string, Row>;

export type RegisterName = keyof typeof REGISTERS;
const NAMES = Object.keys(REGISTERS) as RegisterName[];
const BY_OFFSET = new Map<number, RegisterName>(NAMES.map((name) => [REGISTERS[name][0], name]));

export const registerAt = (offset: number): RegisterName | undefined => BY_OFFSET.get(offset);

export function initialRegisters(): Record<RegisterName, number> {
  return Object.fromEntries(NAMES.map((name) => [name, REGISTERS[name][1]])) as Record<RegisterName, number>;
}

/** Registers that do something when they are read or written. */
export const AT = {
  status: 0x0008,
  eeprom: 0x0010,
  eepromRead: 0x0014,
  phy: 0x0020,
  causeSet: 0x00c8,
  maskClear: 0x00d8,
  statistics: 0x4000,
  multicast: 0x5200,
  addresses: 0x5400,
  vlans: 0x5600,
} as const;
/** Words in each table. */
export const TABLE = { statistics: 64, multicast: 128, addresses: 32, vlans: 128 } as const;

/** Device control (13.4.1), and the bits that go off by themselves. */
export const CONTROL = { reset: 1 << 26, vlanMode: 1 << 30, phyReset: 0x80000000 } as const;
/** Device status (13.4.2): full duplex, 1000 Mb/s both as set and as sensed. */
export const STATUS_AT_SPEED = 0x281;
export const STATUS_LINK = 2;

/** Causes of interrupts (13.4.17). */
export const CAUSE = { written: 1, emptied: 2, link: 4, low: 0x10, received: 0x80, phy: 0x200 } as const;
export const CAUSES = 0x1ffff;

/** Receive control (13.4.22). */
export const RECEIVE = {
  enable: 1 << 1,
  allUnicast: 1 << 3,
  allMulticast: 1 << 4,
  long: 1 << 5,
  loopback: 3 << 6,
  broadcast: 1 << 15,
  filterVlans: 1 << 18,
  sizeTimes16: 1 << 25,
  stripChecksum: 1 << 26,
} as const;

export const TRANSMIT_ENABLE = 1 << 1;

/** Statistics (13.7) by their place in the table of words. */
export const COUNT = {
  received64: 0x5c / 4,
  goodReceived: 0x74 / 4,
  broadcastReceived: 0x78 / 4,
  multicastReceived: 0x7c / 4,
  goodTransmitted: 0x80 / 4,
  goodBytesReceived: 0x88 / 4,
  goodBytesTransmitted: 0x90 / 4,
  noBuffers: 0xa0 / 4,
  tooLong: 0xac / 4,
  bytesReceived: 0xc0 / 4,
  bytesTransmitted: 0xc8 / 4,
  received: 0xd0 / 4,
  transmitted: 0xd4 / 4,
  transmitted64: 0xd8 / 4,
  multicastTransmitted: 0xf0 / 4,
  broadcastTransmitted: 0xf4 / 4,
  segmented: 0xf8 / 4,
} as const;
/** Lower halves of those that have 64 bits. */
export const WIDE_COUNTS: readonly number[] = [
  COUNT.goodBytesReceived,
  COUNT.goodBytesTransmitted,
  COUNT.bytesReceived,
  COUNT.bytesTransmitted,
];

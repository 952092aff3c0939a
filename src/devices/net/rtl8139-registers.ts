/** Registers of the RTL8139C+ (Realtek, datasheet 1.6, chapters 5 and 6). */

export const AT = {
  mac: 0x00,
  groups: 0x08,
  sendStatus: 0x10,
  /** With descriptors: where statistics go when they are asked for. */
  tally: 0x10,
  sendAddress: 0x20,
  /** With descriptors: ring of ordinary frames, of those with priority. */
  sendRing: 0x20,
  priorityRing: 0x28,
  buffer: 0x30,
  command: 0x37,
  readPointer: 0x38,
  writePointer: 0x3a,
  mask: 0x3c,
  cause: 0x3e,
  sendConfiguration: 0x40,
  receiveConfiguration: 0x44,
  timer: 0x48,
  missed: 0x4c,
  eeprom: 0x50,
  configuration0: 0x51,
  configuration1: 0x52,
  timerInterrupt: 0x54,
  media: 0x58,
  configuration3: 0x59,
  configuration4: 0x5a,
  revision: 0x5e,
  sendSummary: 0x60,
  phyControl: 0x62,
  phyStatus: 0x64,
  advertised: 0x66,
  partner: 0x68,
  expansion: 0x6a,
  cable: 0x74,
  configuration5: 0xd8,
  poll: 0xd9,
  plusCommand: 0xe0,
  receiveRing: 0xe4,
  sendThreshold: 0xec,
} as const;
export const REGISTER_BYTES = 0x100;

export const COMMAND = { bufferEmpty: 1, send: 4, receive: 8, reset: 16 } as const;
export const CAUSE = {
  received: 1 << 0,
  sent: 1 << 2,
  sendError: 1 << 3,
  /** The ring is full, or has no free descriptor. */
  overflow: 1 << 4,
  linkChange: 1 << 5,
  noDescriptor: 1 << 7,
  software: 1 << 8,
  timeOut: 1 << 14,
} as const;
export const SEND = { loopback: 3 << 17, version: 0x74800000, writable: 0x070307f1 } as const;
export const RECEIVE = { all: 1, own: 2, groups: 4, broadcast: 8, wrap: 1 << 7, lengthShift: 11 } as const;
/** Of the status of a buffer that is sent. */
export const SLOT = { length: 0x1fff, owned: 1 << 13, ok: 1 << 15 } as const;
/** Wires of the EEPROM, and what may be written. */
export const EEPROM = { out: 1, in: 2, clock: 4, select: 8, mode: 0xc0, program: 0x80, unlocked: 0xc0 } as const;
export const MEDIA = { linkFailed: 4, speed10: 8 } as const;
export const POLL = { software: 1, ordinary: 0x40, priority: 0x80 } as const;
export const PLUS = { send: 1, receive: 2, checksums: 0x20, detag: 0x40 } as const;
export const PHY = { linkUp: 0x24, reset: 0x8000, restart: 0x0200 } as const;

/** Values after a reset, by offset; the MAC comes from the EEPROM. */
export const INITIAL: readonly (readonly [at: number, size: 1 | 2 | 4, value: number])[] = [
  [AT.command, 1, COMMAND.bufferEmpty],
  [AT.readPointer, 2, 0xfff0],
  [AT.sendConfiguration, 4, SEND.version],
  [AT.configuration0, 1, 0],
  [AT.configuration1, 1, 0x0c],
  [AT.media, 1, 0x80],
  [AT.configuration3, 1, 0x01],
  [AT.revision, 1, 0x10],
  [AT.phyControl, 2, 0x3100],
  [AT.phyStatus, 2, 0x7809],
  [AT.advertised, 2, 0x05e1],
  [AT.partner, 2, 0x45e1],
  [AT.expansion, 2, 0x0001],
  [AT.cable, 2, 0x03c0],
];

/** Bits that software may change, by the byte. What is not here is read-only, or has its own meaning. */
export const WRITABLE: Uint8Array = masks([
  [AT.groups, 8, 0xff],
  [AT.sendStatus, 16, 0xff],
  [AT.sendAddress, 16, 0xff],
  [AT.buffer, 4, 0xff],
  [AT.readPointer, 2, 0xff],
  [AT.mask, 2, 0xff],
  [AT.receiveConfiguration, 4, 0xff],
  [AT.timerInterrupt, 4, 0xff],
  [0x5c, 2, 0xff],
  [AT.phyControl, 2, 0xff],
  [AT.advertised, 2, 0xff],
  [0x6c, 10, 0xff],
  [0x78, 12, 0xff],
  [0x84, 84, 0xff],
  [AT.plusCommand, 1, 0x7f],
  [AT.plusCommand + 1, 1, 0],
  [AT.receiveRing, 8, 0xff],
  [AT.sendThreshold, 1, 0x3f],
]);
/** The same for what must be unlocked first. */
export const WRITABLE_UNLOCKED: Uint8Array = masks([
  [AT.mac, 6, 0xff],
  [AT.configuration1, 1, 0xf1],
  [AT.configuration3, 1, 0xe5],
  [AT.configuration4, 1, 0xf7],
  [AT.configuration5, 1, 0x7f],
]);

function masks(rows: readonly (readonly [at: number, length: number, mask: number])[]): Uint8Array {
  const bytes = new Uint8Array(REGISTER_BYTES);
  for (const [at, length, mask] of rows) bytes.fill(mask, at, at + length);
  return bytes;
}

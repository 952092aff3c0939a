/** Registers of an SD host controller: SD Specifications Part A2, SD Host Controller Simplified Specification 3.00, chapter 2. */

/**
 *     00 SDMA address, argument 2   04 block size, count   08 argument        0C transfer mode, command
 *     10 response (16 bytes)        20 buffer              24 present state   28 host, power, gap, wakeup
 *     2C clock, timeout, reset      30 status: normal, error                  34 enables   38 signals
 *     3C automatic commands' errors, host 2                40 capabilities    48 currents
 *     50 forced events              54 ADMA error          58 ADMA address    FC slots, version
 */
export const AT = {
  systemAddress: 0x00,
  blockSize: 0x04,
  blockCount: 0x06,
  argument: 0x08,
  transferMode: 0x0c,
  command: 0x0e,
  response: 0x10,
  buffer: 0x20,
  present: 0x24,
  host: 0x28,
  power: 0x29,
  clock: 0x2c,
  reset: 0x2f,
  status: 0x30,
  errors: 0x32,
  statusEnable: 0x34,
  errorEnable: 0x36,
  statusSignal: 0x38,
  errorSignal: 0x3a,
  autoErrors: 0x3c,
  capabilities: 0x40,
  currents: 0x48,
  forceAuto: 0x50,
  forceError: 0x52,
  admaError: 0x54,
  admaAddress: 0x58,
  slotStatus: 0xfc,
  version: 0xfe,
} as const;
export const REGISTER_BYTES = 0x100;

export const MODE = { dma: 1, countBlocks: 2, auto: 0x0c, autoStop: 4, autoCount: 8, reads: 0x10, multiple: 0x20 } as const;
/** Of the command register: kind of the response, what follows. */
export const COMMAND = { response: 3, long: 1, short: 2, busy: 3, data: 0x20, indexShift: 8 } as const;
export const PRESENT = {
  commandInhibit: 1 << 0,
  dataInhibit: 1 << 1,
  lineActive: 1 << 2,
  writeActive: 1 << 8,
  readActive: 1 << 9,
  bufferWrite: 1 << 10,
  bufferRead: 1 << 11,
  inserted: 1 << 16,
  stable: 1 << 17,
  detect: 1 << 18,
  writable: 1 << 19,
  /** Levels of the four data lines and the command line, which are pulled up. */
  lines: 0x1f << 20,
} as const;
export const HOST_DMA = { mask: 0x18, sdma: 0x00, adma32: 0x10, adma64: 0x18 } as const;
export const CLOCK = { internal: 1, stable: 2, card: 4 } as const;
export const RESET = { all: 1, command: 2, data: 4 } as const;
export const STATUS = {
  commandComplete: 1 << 0,
  transferComplete: 1 << 1,
  dma: 1 << 3,
  bufferWrite: 1 << 4,
  bufferRead: 1 << 5,
  error: 1 << 15,
} as const;
export const ERROR = { commandTimeout: 1 << 0, dataTimeout: 1 << 4, auto: 1 << 8, adma: 1 << 9 } as const;

/** Bits that software may change, four bytes a word; what is not named is read-only. */
export const WRITABLE: Readonly<Record<number, number>> = {
  0: 0xffffffff,
  4: 0xffff7fff,
  8: 0xffffffff,
  12: 0x3ffb007f,
  40: 0x070f0fff,
  44: 0x000fffe5,
  52: 0x17ff01ff,
  56: 0x17ff01ff,
  60: 0xc0ff0000,
  88: 0xffffffff,
  92: 0xffffffff,
};

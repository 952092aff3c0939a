/** Registers that the 82574 has and the 82540EM has not: Intel 82574 GbE Controller Family Datasheet (317694), chapter 10. */

export const AT = {
  eepromManagement: 0x01010,
  causeAutoClear: 0x000dc,
  causeAutoMask: 0x000e0,
  vectors: 0x000e4,
  throttles: 0x000e8,
  receiveFilter: 0x05008,
  semaphore: 0x05b50,
  timeLow: 0x0b600,
  timeHigh: 0x0b604,
  timeIncrement: 0x0b608,
} as const;

/** First register, how many, value after a reset, bits that software may change. These hold what is written to them. */
type Row = readonly [at: number, count: number, initial: number, writable: number];

const ALL = 0xffffffff;

export const PLAIN: readonly Row[] = [
  [AT.causeAutoClear, 1, 0, 0x01f00000],
  [AT.causeAutoMask, 1, 0, ALL],
  [AT.vectors, 1, 0, 0x800fffff],
  [AT.throttles, 5, 0, 0xffff],
  [0x00f00, 1, 0, 0x000001e0],
  [0x00f08, 1, 0, 0],
  [0x00f10, 1, 0, 0x4f],
  [0x01008, 1, 0x20, 0x3f],
  [AT.eepromManagement, 1, 0x40000, 0],
  [0x02008, 1, 0, 0x3fff],
  // A second queue of each kind, which nothing is given to.
  [0x02900, 2, 0, ALL],
  [0x02908, 1, 0, 0xfff80],
  [0x02910, 1, 0, 0xffff],
  [0x02918, 1, 0, 0xffff],
  [0x02928, 1, 0x10000, ALL],
  [0x03840, 1, 0x403, ALL],
  [0x03900, 2, 0, ALL],
  [0x03908, 1, 0, 0xfff80],
  [0x03910, 1, 0, 0xffff],
  [0x03918, 1, 0, 0xffff],
  [0x03928, 1, 0, ALL],
  [0x03940, 1, 0x403, ALL],
  [AT.receiveFilter, 1, 0, ALL],
  [0x05810, 1, 0, ALL],
  [0x05818, 1, 0, ALL],
  [0x05860, 1, 0, ALL],
  [0x05b00, 1, 0, ALL],
  [0x05b30, 1, 0, 0],
  [AT.semaphore, 1, 0, 3],
  [0x05b54, 1, 0, 0],
  [0x05b58, 1, 0, 3],
  [0x05b5c, 1, 0, ALL],
  [0x05b64, 1, 0, ALL],
  [0x05c00, 32, 0, ALL],
  [0x05c80, 10, 0, ALL],
  [AT.timeIncrement, 1, 0, ALL],
  [0x0b60c, 2, 0, ALL],
  [0x0b614, 1, 0, 0x10],
  [0x0b620, 1, 0, 0x1e],
];

/** Extended control: interrupts mask themselves when they are read, or by their messages. */
export const EXTENDED = { at: 0x18, autoMask: 1 << 27, messageAutoMask: 1 << 24, writable: 0x19e0dff0 } as const;
export const FILTER_EXTENDED = 1 << 15;
/** Set by reading. */
export const SEMAPHORE_TAKEN = 1;
/** Causes of the two queues of each kind and of everything else, which have messages of their own; an interrupt is up. */
export const CAUSE = {
  receive0: 1 << 20,
  receive1: 1 << 21,
  transmit0: 1 << 22,
  transmit1: 1 << 23,
  other: 1 << 24,
  asserted: 0x80000000,
} as const;
/** Which of the causes that the 82540EM had belong to which queue. */
export const RECEIVE_CAUSES = 0xd0;
export const TRANSMIT_CAUSES = 0x8003;
export const OTHER_CAUSES = 0x00010204;
/** Where a cause's vector stands in the register of vectors: three bits, then one that makes them count. */
export const VECTOR_OF: readonly (readonly [cause: number, shift: number])[] = [
  [CAUSE.receive0, 0],
  [CAUSE.receive1, 4],
  [CAUSE.transmit0, 8],
  [CAUSE.transmit1, 12],
  [CAUSE.other, 16],
];
export const VECTOR_VALID = 8;

/** Device status: what the 82540EM shows, and that the card may be a bus master. */
export const STATUS = 0x80281;
export const STATUS_MASTER = 0x80000;
export const CONTROL_NO_MASTER = 1 << 2;

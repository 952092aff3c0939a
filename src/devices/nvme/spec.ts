/** Names and numbers of NVM Express 1.4; chapters are those of its base specification. */

export const VERSION = 0x00010400;
/** Revision of the firmware that there would be. */
export const FIRMWARE = '1.0';

/** Controller registers (3.1). Doorbells follow, a pair of 32 bits for each queue: its tail, its head (3.1.24). */
export const REGISTER = {
  capLow: 0x00,
  capHigh: 0x04,
  version: 0x08,
  maskSet: 0x0c,
  maskClear: 0x10,
  configuration: 0x14,
  status: 0x1c,
  adminSizes: 0x24,
  adminSubmission: 0x28,
  adminCompletion: 0x30,
  doorbells: 0x1000,
} as const;

/** Entries that a queue may have, and that the admin queues may have. */
export const MAX_ENTRIES = 2048;
export const MAX_ADMIN_ENTRIES = 4096;
/** Largest memory page: 2^(12 + 4) bytes. */
export const MAX_PAGE_SHIFT = 4;

/**
 * CAP (3.1.1): entries less 1 (15:0), queues in one piece (16), time to get ready in half seconds (31:24);
 * in the upper half the NVM command set (bit 5) and the largest page (23:20).
 */
export const CAP_LOW = (MAX_ENTRIES - 1) | (1 << 16) | (15 << 24);
export const CAP_HIGH = (1 << 5) | (MAX_PAGE_SHIFT << 20);

/** CC (3.1.5): enable (0), command set (6:4), page (10:7), arbitration (13:11), shutdown (15:14), entry sizes (19:16, 23:20). */
export const CC = {
  enable: 1,
  commandSet: (7 << 4) | (7 << 11),
  pageAt: 7,
  shutdown: 3 << 14,
  submissionSizeAt: 16,
  completionSizeAt: 20,
  writable: 0x00fffff1,
} as const;

/** CSTS (3.1.6). */
export const CSTS = { ready: 1, fatal: 2, shutdownBusy: 1 << 2, shutdownDone: 2 << 2, shutdown: 3 << 2 } as const;

/** Bytes of entries of the two kinds of queues, as powers of two. */
export const SUBMISSION_SHIFT = 6;
export const COMPLETION_SHIFT = 4;

/** A submission (4.2): opcode, flags, identifier; namespace; PRPs; six words of the command's own. */
export const FIELD = {
  opcode: 0,
  flags: 1,
  id: 2,
  namespace: 4,
  prp1: 24,
  prp2: 32,
  word10: 40,
  word11: 44,
  word12: 48,
  word13: 52,
} as const;
/** Flags: fused operations and SGLs, which there are not. */
export const UNSUPPORTED_FLAGS = 0xc3;

export const ADMIN = {
  deleteSubmission: 0x00,
  createSubmission: 0x01,
  getLogPage: 0x02,
  deleteCompletion: 0x04,
  createCompletion: 0x05,
  identify: 0x06,
  abort: 0x08,
  setFeatures: 0x09,
  getFeatures: 0x0a,
  asyncEvent: 0x0c,
} as const;

/** Commands of the NVM command set (6). */
export const NVM = { flush: 0, write: 1, read: 2, compare: 5, writeZeroes: 8, datasetManagement: 9 } as const;

const DO_NOT_RETRY = 0x4000;
/** Status field without its phase (4.6.1): code (7:0), type (10:8), do not retry (14). */
export const STATUS = {
  success: 0,
  invalidOpcode: 0x001 | DO_NOT_RETRY,
  invalidField: 0x002 | DO_NOT_RETRY,
  dataTransfer: 0x004,
  internal: 0x006,
  invalidNamespace: 0x00b | DO_NOT_RETRY,
  prpOffset: 0x013 | DO_NOT_RETRY,
  writeProtected: 0x020 | DO_NOT_RETRY,
  lbaRange: 0x080 | DO_NOT_RETRY,
  completionQueueInvalid: 0x100 | DO_NOT_RETRY,
  invalidQueue: 0x101 | DO_NOT_RETRY,
  invalidQueueSize: 0x102 | DO_NOT_RETRY,
  asyncLimit: 0x105 | DO_NOT_RETRY,
  invalidVector: 0x108 | DO_NOT_RETRY,
  invalidLogPage: 0x109 | DO_NOT_RETRY,
  invalidQueueDeletion: 0x10c | DO_NOT_RETRY,
  notSaveable: 0x10d | DO_NOT_RETRY,
  notChangeable: 0x10e | DO_NOT_RETRY,
  writeFault: 0x280,
  readError: 0x281,
  compareFailure: 0x285,
} as const;

export const ALL_NAMESPACES = 0xffffffff;
/** The one namespace that there is. */
export const NAMESPACE = 1;

/** Feature identifiers (5.21.1). */
export const FEATURE = {
  arbitration: 0x01,
  power: 0x02,
  temperature: 0x04,
  errorRecovery: 0x05,
  writeCache: 0x06,
  queues: 0x07,
  coalescing: 0x08,
  vectorConfiguration: 0x09,
  writeAtomicity: 0x0a,
  asyncEvents: 0x0b,
} as const;

/** Log pages (5.14.1). */
export const LOG = { error: 1, smart: 2, firmware: 3, effects: 5 } as const;

/** What the controller reports of its own accord (5.2): type (2:0), information (15:8), log page (23:16). */
export const EVENTS = [
  { type: 0, information: 0, log: LOG.error },
  { type: 0, information: 1, log: LOG.error },
  { type: 1, information: 1, log: LOG.smart },
] as const;
/** Indices in `EVENTS`. */
export const EVENT = { doorbellRegister: 0, doorbellValue: 1, temperature: 2 } as const;

/** Kelvin. */
export const TEMPERATURE = { now: 323, warning: 343, critical: 373 } as const;

/** A 64-bit field as a number, which is exact as far as there is any memory. */
export function address(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

/** What the controller says of itself and of its namespace: NVM Express 1.4, 5.15.2. */
import { COMPLETION_SHIFT, FIRMWARE, NAMESPACE, SUBMISSION_SHIFT, TEMPERATURE, VERSION } from './spec.ts';

export const IDENTIFY_SIZE = 4096;

const VENDOR = 0x1b36;
const SUBSYSTEM_VENDOR = 0x1af4;
const SERIAL_LENGTH = 20;

export type Identity = {
  serial: string;
  /** Most data of a command, in pages, as a power of two. */
  mdts: number;
  /** Asynchronous event requests at a time, less 1. */
  aerl: number;
  readOnly: boolean;
  /** Bytes, and how many. */
  blockSize: number;
  blocks: number;
  /** Bytes that a write has to cover, lest something be read first. */
  physicalBlockSize: number;
  /** Tells the namespace from all others. */
  eui64: bigint;
};

/** Kinds of structures that can be asked for (CNS). */
export const CNS = {
  namespace: 0x00,
  controller: 0x01,
  active: 0x02,
  descriptors: 0x03,
  allocated: 0x10,
  allocatedNamespace: 0x11,
} as const;

export function controllerData({ serial, mdts, aerl }: Identity): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, VENDOR, true);
  view.setUint16(2, SUBSYSTEM_VENDOR, true);
  padded(bytes, 4, SERIAL_LENGTH, serial);
  padded(bytes, 24, 40, 'VIRELAY NVMe Ctrl');
  padded(bytes, 64, 8, FIRMWARE);
  // Arbitration burst of 2^6 commands; organization 52:54:00.
  bytes[72] = 6;
  bytes.set([0x00, 0x54, 0x52], 73);
  bytes[77] = mdts;
  view.setUint32(80, VERSION, true);
  // An I/O controller.
  bytes[111] = 1;
  // Abort commands at a time, less 1.
  bytes[258] = 3;
  bytes[259] = aerl;
  // One firmware slot, which is read-only.
  bytes[260] = 0x03;
  // Log pages: of commands' effects, and parts of pages.
  bytes[261] = 0x06;
  view.setUint16(266, TEMPERATURE.warning, true);
  view.setUint16(268, TEMPERATURE.critical, true);
  bytes[512] = SUBMISSION_SHIFT | (SUBMISSION_SHIFT << 4);
  bytes[513] = COMPLETION_SHIFT | (COMPLETION_SHIFT << 4);
  view.setUint32(516, NAMESPACE, true);
  // Compare, dataset management, write zeroes.
  view.setUint16(520, 0x0d, true);
  // A volatile write cache; flushes of all namespaces at once.
  bytes[525] = 0x07;
  bytes.set(new TextEncoder().encode(`nqn.2019-08.org.qemu:${serial}`).subarray(0, 223), 768);
  // One power state: 25 W, 16 µs to enter, 4 µs to leave.
  view.setUint16(2048, 2500, true);
  view.setUint32(2052, 16, true);
  view.setUint32(2056, 4, true);
  return bytes;
}

export function namespaceData({ blocks, blockSize, physicalBlockSize, readOnly, eui64 }: Identity): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_SIZE);
  const view = new DataView(bytes.buffer);
  // Size, capacity, use.
  for (const at of [0, 8, 16]) view.setBigUint64(at, BigInt(blocks), true);
  // Preferred granularities follow below.
  bytes[24] = 0x10;
  // Deallocation may go with writing zeros.
  bytes[33] = 0x08;
  const preferred = Math.max(1, physicalBlockSize / blockSize) - 1;
  for (const at of [64, 66, 68, 70]) view.setUint16(at, preferred, true);
  bytes[99] = readOnly ? 1 : 0;
  view.setBigUint64(120, eui64);
  // The one format: no metadata, blocks of this power of two.
  bytes[130] = Math.log2(blockSize);
  return bytes;
}

/** Names of the namespaces above one. */
export function namespaceList(above: number): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_SIZE);
  if (above < NAMESPACE) bytes[0] = NAMESPACE;
  return bytes;
}

/** Identification descriptors: of EUI-64 (type 1), and of the command set (type 4), which is NVM. */
export function descriptorList({ eui64 }: Identity): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_SIZE);
  bytes.set([1, 8]);
  new DataView(bytes.buffer).setBigUint64(4, eui64);
  bytes.set([4, 1], 12);
  return bytes;
}

/** Printable ASCII, padded with spaces (1.5). */
function padded(bytes: Uint8Array, at: number, length: number, text: string): void {
  bytes.fill(0x20, at, at + length);
  for (let i = 0; i < Math.min(length, text.length); i++) {
    const code = text.charCodeAt(i);
    bytes[at + i] = code >= 0x20 && code < 0x7f ? code : 0x20;
  }
}

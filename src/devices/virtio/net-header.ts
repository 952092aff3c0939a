/** What comes before each packet, and offloads by virtio's names: virtio 1.2, section 5.1.6. */
import type { Offloads, PacketOffload } from '../../machine/interfaces.ts';

/**
 *     0 flags   1 kind of cutting   2 header length   4 segment size   6 checksum start   8 checksum offset   10 buffers
 *
 * The number of buffers is there only with version 1, or with merged buffers.
 */
export const HEADER_SIZE = 12;
export const LEGACY_HEADER_SIZE = 10;
export const BUFFERS_AT = 10;
const NEEDS_CHECKSUM = 1;
const ECN = 0x80;

/** Feature bits (5.1.3). */
export const FEATURE = {
  checksum: 0,
  guestChecksum: 1,
  guestOffloads: 2,
  mtu: 3,
  mac: 5,
  guestTso4: 7,
  guestTso6: 8,
  guestUfo: 10,
  hostTso4: 11,
  hostTso6: 12,
  hostUfo: 14,
  mergedBuffers: 15,
  status: 16,
  controlQueue: 17,
  controlRx: 18,
  controlVlan: 19,
  controlRxExtra: 20,
  guestAnnounce: 21,
  multiQueue: 22,
  controlMac: 23,
  guestUso4: 54,
  guestUso6: 55,
  hostUso: 56,
} as const;

/** What the network does for the driver. */
export function hostFeatures({ checksum, tso4, tso6, ufo, uso }: Offloads): number[] {
  if (!checksum) return [];
  return [
    FEATURE.checksum,
    ...(tso4 ? [FEATURE.hostTso4] : []),
    ...(tso6 ? [FEATURE.hostTso6] : []),
    ...(ufo ? [FEATURE.hostUfo] : []),
    ...(uso ? [FEATURE.hostUso] : []),
  ];
}

/** What a driver can be asked to do itself. */
export const GUEST_FEATURES = [
  FEATURE.guestChecksum,
  FEATURE.guestTso4,
  FEATURE.guestTso6,
  FEATURE.guestUfo,
  FEATURE.guestUso4,
  FEATURE.guestUso6,
] as const;

/** @param has features that the driver has taken, and not turned off since */
export function driverOffloads(has: (feature: number) => boolean): Offloads {
  const checksum = has(FEATURE.guestChecksum);
  return {
    checksum,
    tso4: checksum && has(FEATURE.guestTso4),
    tso6: checksum && has(FEATURE.guestTso6),
    ufo: checksum && has(FEATURE.guestUfo),
    uso: checksum && has(FEATURE.guestUso4) && has(FEATURE.guestUso6),
  };
}

/** A header of the driver's as the network takes it; one object serves all packets. */
export class SentOffload implements PacketOffload {
  checksumStart = -1;
  checksumOffset = 0;
  gso = 0;
  headerLength = 0;
  segmentSize = 0;

  /**
   * @param length bytes of the frame
   * @returns whether anything is left to do; -1 for a header that makes no sense
   */
  parse(header: Uint8Array, length: number): 0 | 1 | -1 {
    const flags = header[0]!;
    this.gso = header[1]! & ~ECN;
    if ((flags & NEEDS_CHECKSUM) === 0) return this.gso === 0 ? 0 : -1;
    this.headerLength = header[2]! | (header[3]! << 8);
    this.segmentSize = header[4]! | (header[5]! << 8);
    this.checksumStart = header[6]! | (header[7]! << 8);
    this.checksumOffset = header[8]! | (header[9]! << 8);
    if (this.checksumStart + this.checksumOffset + 2 > length) return -1;
    return this.gso !== 0 && this.segmentSize === 0 ? -1 : 1;
  }
}

/** Writes what the network left to the driver. */
export function fillHeader(header: Uint8Array, offload: PacketOffload | null): void {
  header.fill(0);
  if (offload === null) return;
  if (offload.checksumStart >= 0) {
    header[0] = NEEDS_CHECKSUM;
    put(header, 6, offload.checksumStart);
    put(header, 8, offload.checksumOffset);
  }
  header[1] = offload.gso;
  put(header, 2, offload.headerLength);
  put(header, 4, offload.segmentSize);
}

function put(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >> 8;
}

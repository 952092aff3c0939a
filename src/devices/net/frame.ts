/** What cards ask of Ethernet frames (IEEE 802.3). */

export const HEADER = 14;
export const FCS = 4;
/** Without FCS. */
export const SMALLEST_FRAME = 60;
/** A frame that is still to be cut: 64 KiB of IP and what comes before. */
export const LARGEST_FRAME = 65536 + 256;
const POLYNOMIAL = 0x04c11db7;

export function isBroadcast(frame: Uint8Array): boolean {
  for (let i = 0; i < 6; i++) if (frame[i] !== 0xff) return false;
  return true;
}

export const isGroup = (frame: Uint8Array): boolean => (frame[0]! & 1) !== 0;

/** @param mac 6 bytes */
export function isFor(frame: Uint8Array, mac: Uint8Array): boolean {
  for (let i = 0; i < 6; i++) if (frame[i] !== mac[i]) return false;
  return true;
}

/** The six highest bits of the destination's CRC, which choose a bit of a card's table of groups. */
export function groupHash(frame: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < 6; i++) {
    for (let bit = 0; bit < 8; bit++) {
      const carry = (crc >>> 31) ^ ((frame[i]! >> bit) & 1);
      crc = carry === 0 ? crc << 1 : (crc << 1) ^ POLYNOMIAL;
    }
  }
  return crc >>> 26;
}

/** @returns the frame as long as it must be on a wire */
export function padded(frame: Uint8Array): Uint8Array {
  if (frame.length >= SMALLEST_FRAME) return frame;
  const whole = new Uint8Array(SMALLEST_FRAME);
  whole.set(frame);
  return whole;
}

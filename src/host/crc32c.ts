/** CRC-32C (Castagnoli; RFC 3720, appendix B.4), eight bytes at a time. */

/** Reflected polynomial. */
const POLYNOMIAL = 0x82f63b78;
const STEPS = 8;

/** `STEPS` tables of 256: a byte's effect after that many more bytes. Made when the first sum is asked for. */
let tables: Int32Array | null = null;

function makeTables(): Int32Array {
  const made = new Int32Array(STEPS * 256);
  for (let n = 0; n < 256; n++) {
    let c = n;
    for (let bit = 0; bit < 8; bit++) c = (c & 1) !== 0 ? (c >>> 1) ^ POLYNOMIAL : c >>> 1;
    made[n] = c;
  }
  for (let i = 256; i < made.length; i++) {
    const before = made[i - 256]!;
    made[i] = made[before & 255]! ^ (before >>> 8);
  }
  return made;
}

/** @param before the sum of what comes before these bytes @returns an unsigned number of 32 bits */
export function crc32c(bytes: Uint8Array, before = 0): number {
  const t = (tables ??= makeTables());
  const { length } = bytes;
  let crc = ~before;
  let at = 0;
  for (const end = length - 7; at < end; at += 8) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc =
      t[1792 + (crc & 255)]! ^
      t[1536 + ((crc >>> 8) & 255)]! ^
      t[1280 + ((crc >>> 16) & 255)]! ^
      t[1024 + (crc >>> 24)]! ^
      t[768 + bytes[at + 4]!]! ^
      t[512 + bytes[at + 5]!]! ^
      t[256 + bytes[at + 6]!]! ^
      t[bytes[at + 7]!]!;
  }
  for (; at < length; at++) crc = t[(crc ^ bytes[at]!) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/**
 * The Internet's checksum (RFC 1071): the one's complement sum of 16-bit words, most significant byte first.
 * Sums are passed on as they come and folded at the end.
 */

/** Words whose sum still fits 31 bits, which engines add fastest. */
const CHUNK = 1 << 14;

/** @returns `sum` plus the words from `start` to `end` (exclusive); an odd last byte counts as a word's high half */
export function addBytes(sum: number, bytes: Uint8Array, start: number, end: number): number {
  let total = sum;
  for (let at = start; at < end; ) {
    const stop = Math.min(at + 2 * CHUNK, end);
    const even = at + ((stop - at) & ~7);
    let part = 0;
    for (; at < even; at += 8) {
      part +=
        ((bytes[at]! << 8) | bytes[at + 1]!) +
        ((bytes[at + 2]! << 8) | bytes[at + 3]!) +
        ((bytes[at + 4]! << 8) | bytes[at + 5]!) +
        ((bytes[at + 6]! << 8) | bytes[at + 7]!);
    }
    for (; at + 1 < stop; at += 2) part += (bytes[at]! << 8) | bytes[at + 1]!;
    if (at < stop) part += bytes[at++]! << 8;
    total += part;
  }
  return total;
}

/** @returns the sum in 16 bits */
export function fold(sum: number): number {
  let left = sum;
  while (left > 0xffff) left = (left % 0x10000) + Math.floor(left / 0x10000);
  return left;
}

/** @returns what goes into a checksum field, or 0 when the sum includes a field that is right */
export const finish = (sum: number): number => ~fold(sum) & 0xffff;

/**
 * The sum of TCP's and UDP's pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1).
 * @param addresses where source and destination address lie, one after the other  @param length of the transport's packet
 */
export function pseudoSum(bytes: Uint8Array, addresses: number, addressBytes: 4 | 16, protocol: number, length: number): number {
  return addBytes(protocol + length, bytes, addresses, addresses + 2 * addressBytes);
}

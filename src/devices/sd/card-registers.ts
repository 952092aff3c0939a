/** What a card tells of itself: Physical Layer Simplified Specification 3.01, chapter 5 and 4.3.10. */

export const SD_STATUS_LENGTH = 64;
/** Up to 2 GiB a card is addressed by bytes, beyond by sectors. */
const STANDARD_CAPACITY = 2 ** 31;

export const isHighCapacity = (bytes: number): boolean => bytes > STANDARD_CAPACITY;

/** CID (5.2), 16 bytes: manufacturer, OEM, product, revision, serial number, date. */
export function cardIdentification(): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes[0] = 0xaa;
  bytes.set(new TextEncoder().encode('VRSDISK'), 1);
  bytes[8] = 0x10;
  new DataView(bytes.buffer).setUint32(9, 1);
  // March 2023: years from 2000 on, then the month.
  bytes.set([0x01, 0x73, 0x01], 13);
  return bytes;
}

/** Bits from `high` down to `low` of a 128-bit register, the highest of which comes first. */
function put(bytes: Uint8Array, high: number, low: number, value: number): void {
  for (let bit = low; bit <= high; bit++) {
    const at = 15 - (bit >> 3);
    const mask = 1 << (bit & 7);
    if (Math.floor(value / 2 ** (bit - low)) % 2 === 1) bytes[at] = bytes[at]! | mask;
  }
}

/** 25 and 50 MHz (5.3.2, TRAN_SPEED). */
const SPEED = { normal: 0x32, high: 0x5a } as const;
/** Classes of commands: basic, reads, writes, erasing, application, switching. */
const CLASSES = 0x535;

/** CSD (5.3), 16 bytes. @param size bytes, a power of two */
export function cardSpecificData(size: number, highSpeed: boolean, writeProtected: boolean): Uint8Array {
  const bytes = new Uint8Array(16);
  const high = isHighCapacity(size);
  const blockLength = high || size < STANDARD_CAPACITY ? 9 : 10;
  put(bytes, 127, 126, high ? 1 : 0);
  put(bytes, 119, 112, high ? 0x0e : 0x26);
  put(bytes, 103, 96, highSpeed ? SPEED.high : SPEED.normal);
  put(bytes, 95, 84, CLASSES);
  put(bytes, 83, 80, blockLength);
  if (high) put(bytes, 69, 48, size / 2 ** 19 - 1);
  else {
    // Parts of blocks can be read.
    put(bytes, 79, 79, 1);
    // Blocks are (size + 1) * 2^(multiplier + 2).
    const blocks = size / 2 ** blockLength;
    const multiplier = Math.min(7, Math.log2(blocks) - 2);
    put(bytes, 73, 62, blocks / 2 ** (multiplier + 2) - 1);
    put(bytes, 49, 47, multiplier);
  }
  // Single blocks can be erased; sectors of 64 KiB.
  put(bytes, 46, 46, 1);
  put(bytes, 45, 39, 127);
  put(bytes, 28, 26, 2);
  put(bytes, 25, 22, blockLength);
  if (writeProtected) put(bytes, 12, 12, 1);
  bytes[15] = 1;
  return bytes;
}

/** SCR (5.6), 8 bytes: version 3.0, one and four lines of data, blocks can be counted beforehand. */
export function configuration(highCapacity: boolean): Uint8Array {
  const security = highCapacity ? 3 : 2;
  return Uint8Array.of(0x02, (security << 4) | 5, 0x80, 0x02, 0, 0, 0, 0);
}

/** Groups of functions: the first has default and high speed, of the others there is the default. */
const GROUPS = [0x8003, 0x8001, 0x8001, 0x8001, 0x8001, 0x8001] as const;
const SET = 0x80000000;
const UNCHANGED = 15;

/** CMD6 (4.3.10). @returns the status that is sent, and whether the card is fast now */
export function switchStatus(argument: number, highSpeed: boolean): { bytes: Uint8Array; highSpeed: boolean } {
  const bytes = new Uint8Array(SD_STATUS_LENGTH);
  const view = new DataView(bytes.buffer);
  // Milliamperes at most.
  view.setUint16(0, 100);
  const chosen = GROUPS.map((functions, group) => {
    const wanted = (argument >>> (4 * group)) & 15;
    const now = group === 0 && highSpeed ? 1 : 0;
    if (wanted === UNCHANGED) return now;
    return (functions & (1 << wanted)) !== 0 ? wanted : UNCHANGED;
  });
  GROUPS.forEach((functions, group) => view.setUint16(12 - 2 * group, functions));
  for (let pair = 0; pair < 3; pair++) bytes[16 - pair] = (chosen[2 * pair + 1]! << 4) | chosen[2 * pair]!;
  // Nothing changes unless all of it can be had.
  const change = (argument & SET) !== 0 && !chosen.includes(UNCHANGED);
  return { bytes, highSpeed: change ? chosen[0] === 1 : highSpeed };
}

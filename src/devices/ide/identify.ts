/** The 512 bytes that devices describe themselves with: ATA/ATAPI-7 volume 1, 6.17. */
import type { Geometry } from './disk.ts';

const WORDS = 256;
const FIRMWARE = '1.0';

/** Transfer modes as SET FEATURES has them: the kind in bits 3 and up, the mode below. */
const MULTIWORD_DMA = 4;
const ULTRA_DMA = 8;

function toBytes(words: Uint16Array): Uint8Array {
  const data = new Uint8Array(2 * WORDS);
  const view = new DataView(data.buffer);
  words.forEach((word, i) => view.setUint16(2 * i, word, true));
  return data;
}

/** Text has the first character of each pair in the high byte. */
function putText(words: Uint16Array, at: number, length: number, text: string): void {
  const padded = text.padEnd(2 * length, ' ');
  for (let i = 0; i < length; i++) {
    words[at + i] = (padded.charCodeAt(2 * i) << 8) | padded.charCodeAt(2 * i + 1);
  }
}

function put32(words: Uint16Array, at: number, value: number): void {
  words[at] = value % 65536;
  words[at + 1] = Math.floor(value / 65536) % 65536;
}

/** Words 63 and 88: modes supported below, the chosen one above. */
function putModes(words: Uint16Array, mode: number): void {
  const chosen = (kind: number): number => (mode >> 3 === kind ? 1 << (8 + (mode & 7)) : 0);
  words[63] = 0x07 | chosen(MULTIWORD_DMA);
  words[88] = 0x3f | chosen(ULTRA_DMA);
  // 80-conductor cable, device 0 has passed its test.
  words[93] = 0x6001;
}

export type DiskDescription = {
  sectors: number;
  geometry: Geometry;
  logical: Geometry;
  serial: string;
  multiple: number;
  maxMultiple: number;
  mode: number;
  writeCache: boolean;
};

export function identifyDisk(d: DiskDescription): Uint8Array {
  const w = new Uint16Array(WORDS);
  const { geometry, logical } = d;
  w[0] = 0x0040;
  w[1] = geometry.cylinders;
  w[3] = geometry.heads;
  w[4] = 512 * geometry.sectors;
  w[5] = 512;
  w[6] = geometry.sectors;
  putText(w, 10, 10, d.serial);
  w[20] = 3;
  w[21] = 512;
  w[22] = 4;
  putText(w, 23, 4, FIRMWARE);
  putText(w, 27, 20, 'VIRELAY HARDDISK');
  w[47] = 0x8000 | d.maxMultiple;
  w[48] = 1;
  // LBA and DMA.
  w[49] = 0x0b00;
  w[51] = w[52] = 0x0200;
  // Words 54-58, 64-70 and 88 are valid.
  w[53] = 7;
  w[54] = logical.cylinders;
  w[55] = logical.heads;
  w[56] = logical.sectors;
  put32(w, 57, logical.cylinders * logical.heads * logical.sectors);
  w[59] = d.multiple === 0 ? 0 : 0x0100 | d.multiple;
  put32(w, 60, Math.min(d.sectors, 2 ** 28 - 1));
  // PIO modes 3 and 4, cycle times in nanoseconds.
  w[64] = 3;
  w[65] = w[66] = w[67] = w[68] = 120;
  // TRIM leaves contents undefined.
  w[69] = 0;
  // ATA-4 to ATA-7.
  w[80] = 0x00f0;
  w[81] = 0x0016;
  // Write cache, look-ahead, power management; FLUSH, FLUSH EXT, 48-bit addresses; FUA.
  w[82] = 0x4068;
  w[83] = 0x7400;
  w[84] = 0x4040;
  w[85] = 0x4048 | (d.writeCache ? 0x20 : 0);
  w[86] = 0x3400;
  w[87] = 0x4040;
  putModes(w, d.mode);
  put32(w, 100, d.sectors);
  w[102] = Math.floor(d.sectors / 2 ** 32);
  // One logical sector in a physical one.
  w[106] = 0x6000;
  w[169] = 1;
  // Not a rotating medium.
  w[217] = 1;
  return toBytes(w);
}

export function identifyCd(serial: string, mode: number): Uint8Array {
  const w = new Uint16Array(WORDS);
  // CD-ROM with removable medium, DRQ within 50 us, packets of 12 bytes.
  w[0] = 0x85c0;
  putText(w, 10, 10, serial);
  w[20] = 3;
  w[21] = 512;
  w[22] = 4;
  putText(w, 23, 4, FIRMWARE);
  putText(w, 27, 20, 'VIRELAY DVD-ROM');
  w[48] = 1;
  w[49] = 0x0b00;
  w[53] = 7;
  w[64] = 3;
  w[65] = w[66] = w[67] = w[68] = 120;
  w[80] = 0x001e;
  // PACKET, DEVICE RESET, power management, removable medium.
  w[82] = w[85] = 0x0218;
  w[83] = w[84] = w[87] = 0x4000;
  putModes(w, mode);
  return toBytes(w);
}

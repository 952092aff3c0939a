/** Boot sectors of a few instructions, and the disks that they are on. */

const SECTOR = 512;
const CD_SECTOR = 2048;
const ORIGIN = 0x7c00;
export const EXIT_PORT = 0xf4;

/** Where on the disk the program looks for texts: head 1, sector 1 by CHS, and this sector by LBA. */
export const LBA_TEXT = 70;

type Item = number | { label: string } | { near: string } | { short: string } | { word: string };

/** Instructions with labels to bytes. */
function assemble(items: readonly Item[]): Uint8Array {
  const size = (item: Item): number => (typeof item === 'number' || 'short' in item ? 1 : 'label' in item ? 0 : 2);
  const labels = new Map<string, number>();
  let at = 0;
  for (const item of items) {
    if (typeof item !== 'number' && 'label' in item) labels.set(item.label, at);
    at += size(item);
  }
  const bytes: number[] = [];
  for (const item of items) {
    if (typeof item === 'number') bytes.push(item);
    else if ('short' in item) bytes.push((labels.get(item.short)! - bytes.length - 1) & 0xff);
    else if ('near' in item) {
      const distance = labels.get(item.near)! - bytes.length - 2;
      bytes.push(distance & 0xff, (distance >> 8) & 0xff);
    } else if ('word' in item) {
      const address = ORIGIN + labels.get(item.word)!;
      bytes.push(address & 0xff, address >> 8);
    }
  }
  return Uint8Array.from(bytes);
}

const text = (value: string): number[] => [...new TextEncoder().encode(value), 0];
const print = (what: Item): Item[] => [0xbe, what, 0xe8, { near: 'print' }];
const printAt = (address: number): Item[] => [0xbe, address & 0xff, address >> 8, 0xe8, { near: 'print' }];

/**
 * Prints a text on the screen (int 10h) and at the first serial port, then texts from the disk that
 * it was started from, which it reads by CHS and by LBA (int 13h), and ends the machine with status 3,
 * or with status 5 when a read has failed.
 */
export function bootSector(reads: { chs: boolean; lba: boolean }): Uint8Array {
  const program = assemble([
    0x31,
    0xc0,
    0x8e,
    0xd8,
    0x8e,
    0xc0,
    0x8e,
    0xd0,
    0xbc,
    0x00,
    0x7c, // ds = es = ss = 0, stack
    0x88,
    0x16,
    { word: 'drive' }, //        mov [drive], dl
    ...print({ word: 'hello' }),
    ...(reads.chs
      ? [
          0xb8,
          0x01,
          0x02,
          0xbb,
          0x00,
          0x80, // mov ax, 0201h; mov bx, 8000h
          0xb9,
          0x01,
          0x00,
          0xb6,
          0x01, //       mov cx, 1; mov dh, 1
          0x8a,
          0x16,
          { word: 'drive' }, //      mov dl, [drive]
          0xcd,
          0x13,
          0x72,
          { short: 'fail' }, // int 13h; jc fail
          ...printAt(0x8000),
        ]
      : []),
    ...(reads.lba
      ? [
          0xb4,
          0x42,
          0xbe,
          { word: 'packet' }, // mov ah, 42h; mov si, packet
          0x8a,
          0x16,
          { word: 'drive' },
          0xcd,
          0x13,
          0x72,
          { short: 'fail' },
          ...printAt(0x9000),
        ]
      : []),
    0xb0,
    0x01,
    0xe6,
    EXIT_PORT, //          mov al, 1; out EXIT_PORT, al
    0xf4,
    { label: 'fail' },
    0xb0,
    0x02,
    0xe6,
    EXIT_PORT,
    0xf4,
    { label: 'print' },
    0xac,
    0x84,
    0xc0,
    0x74,
    { short: 'printed' }, // lodsb; test al, al; jz
    0xba,
    0xf8,
    0x03,
    0xee, //               mov dx, 3F8h; out dx, al
    0xb4,
    0x0e,
    0xbb,
    0x07,
    0x00,
    0xcd,
    0x10, // teletype output
    0xeb,
    { short: 'print' },
    { label: 'printed' },
    0xc3,
    { label: 'packet' },
    16,
    0,
    1,
    0,
    0x00,
    0x90,
    0,
    0,
    LBA_TEXT,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    { label: 'hello' },
    ...text('hello\r\n'),
    { label: 'drive' },
    0,
  ]);
  const sector = new Uint8Array(SECTOR);
  sector.set(program);
  sector.set([0x55, 0xaa], 510);
  return sector;
}

/** @param sectorsPerTrack of the geometry that the BIOS will see */
export function bootDisk(size: number, sectorsPerTrack: number, lba: boolean): Uint8Array {
  const disk = new Uint8Array(size);
  disk.set(bootSector({ chs: true, lba }));
  disk.set(text('by head and sector\r\n'), sectorsPerTrack * SECTOR);
  disk.set(text('by address\r\n'), LBA_TEXT * SECTOR);
  return disk;
}

/** An El Torito CD without emulation: descriptors from sector 16 on, catalog, program. */
export function bootCd(): Uint8Array {
  const cd = new Uint8Array(100 * CD_SECTOR);
  const view = new DataView(cd.buffer);
  const descriptor = (at: number, type: number): void => {
    cd.set([type, ...new TextEncoder().encode('CD001'), 1], at * CD_SECTOR);
  };
  descriptor(16, 1);
  descriptor(17, 0);
  cd.set(new TextEncoder().encode('EL TORITO SPECIFICATION'), 17 * CD_SECTOR + 7);
  view.setUint32(17 * CD_SECTOR + 0x47, 19, true);
  descriptor(18, 255);
  const catalog = 19 * CD_SECTOR;
  cd.set([1, 0, 0, 0], catalog);
  // The words of the validation entry sum to zero.
  cd.set([0xaa, 0x55, 0x55, 0xaa], catalog + 28);
  cd.set([0x88, 0, 0, 0, 0, 0, 4, 0, 20], catalog + 32);
  cd.set(bootSector({ chs: false, lba: true }), 20 * CD_SECTOR);
  cd.set(text('by address\r\n'), LBA_TEXT * CD_SECTOR);
  return cd;
}

/** New VHDX images. */
import type { Creation, Target } from './create.ts';
import { chunkRatio, GUID, guidBytes, HEADER_BYTES, HEADERS_AT, KIB64, readHeader, REGIONS_AT, seal } from './vhdx.ts';
import { resolveBacking } from './names.ts';
import { buildLocator, guidText } from './vhdx-parent.ts';

const MIB = 2 ** 20;
const MAX_DISK = 64 * 2 ** 40;
const SECTOR = 512;
const STATE_ZERO = 2;
const STATE_FULL = 6;
const HAS_PARENT = 2;
/** Blocks of differencing disks: what is copied when one sector of them is written. */
const DIFFERENCING_BLOCK = 2 * MIB;
/** Bytes of the metadata items that every disk has. */
const ITEMS = 64;

/** What Microsoft's and QEMU's programs choose by the size of the disk. */
function usualBlock(size: number): number {
  if (size > 32 * 2 ** 40) return 64 * MIB;
  if (size > 100 * 2 ** 30) return 32 * MIB;
  return size > 2 ** 30 ? 16 * MIB : 8 * MIB;
}

/** @param locator of the parent, or null */
function metadataRegion(size: number, blockSize: number, locator: Uint8Array | null): Uint8Array {
  // The rest of the region stays empty.
  const bytes = new Uint8Array(KIB64 + Math.ceil((ITEMS + (locator?.length ?? 0)) / 4096) * 4096);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('metadata'));
  const items: (readonly [keyof typeof GUID, number, number, (at: number) => void])[] = [
    [
      'fileParameters',
      8,
      4,
      (at) => {
        view.setUint32(at, blockSize, true);
        view.setUint32(at + 4, locator === null ? 0 : HAS_PARENT, true);
      },
    ],
    ['diskSize', 8, 6, (at) => view.setBigUint64(at, BigInt(size), true)],
    ['page83', 16, 6, (at) => bytes.set(crypto.getRandomValues(new Uint8Array(16)), at)],
    ['logicalSector', 4, 6, (at) => view.setUint32(at, SECTOR, true)],
    ['physicalSector', 4, 6, (at) => view.setUint32(at, SECTOR, true)],
  ];
  if (locator !== null) items.push(['parentLocator', locator.length, 4, (at) => bytes.set(locator, at)]);
  view.setUint16(10, items.length, true);
  let data = KIB64;
  items.forEach(([name, length, flags, put], i) => {
    const at = 32 + 32 * i;
    bytes.set(guidBytes(GUID[name]), at);
    view.setUint32(at + 16, data, true);
    view.setUint32(at + 20, length, true);
    view.setUint32(at + 24, flags, true);
    put(data);
    data += length;
  });
  return bytes;
}

function regionTable(bat: { offset: number; length: number }, metadata: number): Uint8Array {
  const bytes = new Uint8Array(KIB64);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('regi'));
  view.setUint32(8, 2, true);
  const put = (i: number, name: keyof typeof GUID, offset: number, length: number): void => {
    const at = 16 + 32 * i;
    bytes.set(guidBytes(GUID[name]), at);
    view.setBigUint64(at + 16, BigInt(offset), true);
    view.setUint32(at + 24, length, true);
    view.setUint32(at + 28, 1, true);
  };
  put(0, 'bat', bat.offset, bat.length);
  put(1, 'metadata', metadata, MIB);
  return seal(bytes);
}

function header(sequence: number, logSize: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('head'));
  view.setBigUint64(8, BigInt(sequence), true);
  bytes.set(crypto.getRandomValues(new Uint8Array(16)), 16);
  bytes.set(crypto.getRandomValues(new Uint8Array(16)), 32);
  view.setUint16(66, 1, true);
  view.setUint32(68, logSize, true);
  view.setBigUint64(72, BigInt(MIB), true);
  return seal(bytes);
}

/** What a differencing disk says of its parent. @throws Error when that is no VHDX */
async function locatorOf({ filename, openFile }: Target, backing: string, format: string): Promise<Uint8Array> {
  if (format !== 'vhdx') throw new Error(`The parent of a VHDX image is one, too, not ${format}`);
  const parent = await openFile(resolveBacking(filename, backing));
  try {
    const linkage = guidText((await readHeader(parent)).bytes.subarray(32, 48));
    const isAbsolute = backing.startsWith('/');
    const path = backing.replaceAll('/', '\\');
    const name = isAbsolute ? (['absolute_win32_path', path] as const) : (['relative_path', `.\\${path}`] as const);
    return buildLocator(guidBytes(GUID.locatorKind), new Map([['parent_linkage', linkage], name]));
  } finally {
    await parent.close();
  }
}

export const vhdxCreation: Creation = {
  options: [
    { name: 'backing_file', type: 'str', help: 'File name of a base image' },
    { name: 'backing_fmt', type: 'str', help: 'Image format of the base image' },
    { name: 'size', type: 'size', help: 'Virtual disk size; max of 64TB.' },
    { name: 'log_size', type: 'size', help: 'Log size; min 1MB.', otherwise: MIB },
    {
      name: 'block_size',
      type: 'size',
      help: 'Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.',
      otherwise: 0,
    },
    { name: 'subformat', type: 'str', help: "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'." },
    {
      name: 'block_state_zero',
      type: 'bool',
      help: "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when using 'qemu-img convert' with subformat=dynamic.",
    },
  ],
  create: async (values, target) => {
    const size = Math.ceil(values.size / SECTOR) * SECTOR;
    const subformat = values['subformat'] ?? 'dynamic';
    const logSize = Math.ceil(Math.max(Number(values['log_size']), MIB) / MIB) * MIB;
    const backing = values['backing_file'] ?? null;
    const locator = backing === null ? null : await locatorOf(target, String(backing), String(values['backing_fmt'] ?? 'vhdx'));
    const blockSize = Number(values['block_size']) || (locator === null ? usualBlock(size) : DIFFERENCING_BLOCK);
    if (size > MAX_DISK) throw new Error('Image size too large; max of 64TB');
    if (subformat !== 'dynamic' && subformat !== 'fixed') throw new Error(`Invalid parameter '${String(subformat)}'`);
    if (blockSize % MIB !== 0) throw new Error('Block size must be a multiple of 1 MB');
    if (!Number.isInteger(Math.log2(blockSize)) || blockSize > 256 * MIB)
      throw new Error('Block size must be a power of two, at most 256 MB');
    if (locator !== null && subformat === 'fixed') throw new Error('A disk with a parent cannot be fixed');
    const blocks = Math.ceil(size / blockSize);
    const ratio = chunkRatio(blockSize, SECTOR);
    const plain = blocks + Math.floor(Math.max(0, blocks - 1) / ratio);
    // With a parent there is an entry for each chunk's bitmap.
    const entries = locator === null ? plain : Math.ceil(blocks / ratio) * (ratio + 1);
    const batBytes = Math.max(MIB, Math.ceil((entries * 8) / MIB) * MIB);
    const bat = { offset: MIB + logSize, length: batBytes };
    const metadata = bat.offset + batBytes;
    const data = metadata + MIB;
    const file = await target.newFile(target.filename);
    try {
      const table = new DataView(new ArrayBuffer(batBytes));
      // Of blocks that are not there the parent's show.
      for (let i = 0; i < blocks && locator === null; i++) {
        const at = (i + Math.floor(i / ratio)) * 8;
        table.setBigUint64(
          at,
          subformat === 'fixed' ? BigInt(data + i * blockSize) | BigInt(STATE_FULL) : BigInt(STATE_ZERO),
          true,
        );
      }
      await file.resize(subformat === 'fixed' ? data + blocks * blockSize : data, 'off');
      await file.write(bat.offset, new Uint8Array(table.buffer, 0, Math.ceil((entries * 8) / 4096) * 4096));
      await file.write(metadata, metadataRegion(size, blockSize, locator));
      for (const at of REGIONS_AT) await file.write(at, regionTable(bat, metadata));
      for (const [i, at] of HEADERS_AT.entries()) await file.write(at, header(i, logSize));
      const identifier = new Uint8Array(KIB64);
      identifier.set(new TextEncoder().encode('vhdxfile'));
      for (const [i, letter] of [...'Virelay'].entries()) identifier[8 + 2 * i] = letter.charCodeAt(0);
      await file.write(0, identifier);
    } finally {
      await file.close();
    }
  },
};

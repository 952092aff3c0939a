/** New VHD images. */
import type { Creation } from './create.ts';
import { checksum, FOOTER_BYTES, HEADER_BYTES, MAX_GEOMETRY, TYPE } from './vpc.ts';

const BLOCK = 2 ** 21;
/** 2000-01-01 00:00:00 UTC. */
const EPOCH = 946684800;
/** What the format takes: 2040 GiB. */
const MAX_SECTORS = 0xff000000;

/** Geometry as the specification's appendix computes it. @param total sectors */
export function vhdGeometry(total: number): { cylinders: number; heads: number; sectors: number } {
  const limited = Math.min(total, MAX_GEOMETRY);
  if (limited >= 65535 * 16 * 63) return { cylinders: Math.floor(limited / (16 * 255)), heads: 16, sectors: 255 };
  let sectors = 17;
  let tracks = Math.floor(limited / 17);
  let heads = Math.max(4, Math.floor((tracks + 1023) / 1024));
  if (tracks >= heads * 1024 || heads > 16) {
    sectors = 31;
    heads = 16;
    tracks = Math.floor(limited / 31);
  }
  if (tracks >= heads * 1024) {
    sectors = 63;
    heads = 16;
    tracks = Math.floor(limited / 63);
  }
  return { cylinders: Math.floor(tracks / heads), heads, sectors };
}

/** The smallest geometry that has room for so many sectors. */
function roomyGeometry(total: number) {
  for (let i = 0; ; i++) {
    const found = vhdGeometry(total + i);
    const have = found.cylinders * found.heads * found.sectors;
    if (have >= Math.min(total, MAX_GEOMETRY)) return found;
    if (i > 100_000) throw new Error('no geometry fits the size of the image');
  }
}

function makeFooter(size: number, type: number, forced: boolean, geometry: ReturnType<typeof vhdGeometry>): Uint8Array {
  const footer = new Uint8Array(FOOTER_BYTES);
  const view = new DataView(footer.buffer);
  const put = (text: string, at: number): void => footer.set(new TextEncoder().encode(text), at);
  put('conectix', 0);
  view.setUint32(8, 2);
  view.setUint32(12, 0x00010000);
  view.setBigUint64(16, type === TYPE.dynamic ? BigInt(FOOTER_BYTES) : 0xffffffffffffffffn);
  view.setUint32(24, Math.floor(Date.now() / 1000) - EPOCH);
  put(forced ? 'qem2' : 'qemu', 28);
  view.setUint16(32, 5);
  view.setUint16(34, 3);
  put('Wi2k', 36);
  view.setBigUint64(40, BigInt(size));
  view.setBigUint64(48, BigInt(size));
  view.setUint16(56, geometry.cylinders);
  view.setUint8(58, geometry.heads);
  view.setUint8(59, geometry.sectors);
  view.setUint32(60, type);
  footer.set(crypto.getRandomValues(new Uint8Array(16)), 68);
  view.setUint32(64, checksum(footer, 64));
  return footer;
}

function makeHeader(entries: number): Uint8Array {
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  header.set(new TextEncoder().encode('cxsparse'));
  view.setBigUint64(8, 0xffffffffffffffffn);
  view.setBigUint64(16, BigInt(FOOTER_BYTES + HEADER_BYTES));
  view.setUint32(24, 0x00010000);
  view.setUint32(28, entries);
  view.setUint32(32, BLOCK);
  view.setUint32(36, checksum(header, 36));
  return header;
}

export const vpcCreation: Creation = {
  options: [
    { name: 'size', type: 'size', help: 'Virtual disk size' },
    {
      name: 'subformat',
      type: 'str',
      help: 'Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ',
    },
    {
      name: 'force_size',
      type: 'bool',
      help: 'Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based calculation',
    },
  ],
  create: async (values, target) => {
    const subformat = values['subformat'] ?? 'dynamic';
    if (subformat !== 'dynamic' && subformat !== 'fixed') {
      throw new Error(`Parameter 'subformat' does not accept value '${String(subformat)}'`);
    }
    const forced = values['force_size'] === true;
    const wanted = Math.ceil(values.size / 512);
    if (wanted > MAX_SECTORS) throw new Error(`VHD images of more than ${MAX_SECTORS * 512} bytes are not possible`);
    const geometry = forced ? vhdGeometry(MAX_GEOMETRY) : roomyGeometry(wanted);
    const byGeometry = geometry.cylinders * geometry.heads * geometry.sectors;
    const total = forced || byGeometry >= MAX_GEOMETRY ? wanted : byGeometry;
    const fixed = subformat === 'fixed';
    const footer = makeFooter(total * 512, fixed ? TYPE.fixed : TYPE.dynamic, forced, geometry);
    const file = await target.newFile(target.filename);
    try {
      if (fixed) {
        await file.resize(total * 512, 'off');
        await file.write(total * 512, footer);
        return;
      }
      const entries = Math.ceil((total * 512) / BLOCK);
      const table = new Uint8Array(Math.ceil((entries * 4) / 512) * 512).fill(255);
      await file.write(FOOTER_BYTES, makeHeader(entries));
      await file.write(FOOTER_BYTES + HEADER_BYTES, table);
      await file.write(FOOTER_BYTES + HEADER_BYTES + table.length, footer);
      await file.write(0, footer);
    } finally {
      await file.close();
    }
  },
};

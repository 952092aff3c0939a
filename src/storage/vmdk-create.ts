/** New VMDK images. */
import type { CreateValues, Creation, Target } from './create.ts';
import type { BlockNode } from './node.ts';
import { FLAG, HEADER_BYTES, SPARSE_MAGIC } from './vmdk.ts';
import { makeDescriptor, parseDescriptor } from './vmdk-descriptor.ts';

const SECTOR = 512;
const GRAIN_SECTORS = 128;
const TABLE_ENTRIES = 512;
const DESCRIPTOR_SECTORS = 20;
/** Is there from the start, as in raw images. */
const FIRST_BLOCK = 4096;
/** What an extent of a disk in pieces has at most. */
const PIECE = 2 ** 31;
const SUBFORMATS = ['monolithicSparse', 'monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat', 'streamOptimized'];
const ADAPTERS = ['ide', 'buslogic', 'lsilogic', 'legacyESX'];

type SparseRequest = { file: BlockNode; bytes: number; compressed: boolean; zeroGrain: boolean; compat6: boolean };

/** @returns where a descriptor may be put, bytes */
async function writeSparse({ file, bytes, compressed, zeroGrain, compat6 }: SparseRequest): Promise<void> {
  const sectors = Math.ceil(bytes / SECTOR);
  const grains = Math.ceil(sectors / GRAIN_SECTORS);
  const tables = Math.ceil(grains / TABLE_ENTRIES);
  const directorySectors = Math.ceil((tables * 4) / SECTOR);
  const tableSectors = Math.ceil((TABLE_ENTRIES * 4) / SECTOR);
  const second = 1 + DESCRIPTOR_SECTORS;
  const first = second + directorySectors + tables * tableSectors;
  const overhead = Math.ceil((first + directorySectors + tables * tableSectors) / GRAIN_SECTORS) * GRAIN_SECTORS;
  const head = new Uint8Array(HEADER_BYTES);
  const view = new DataView(head.buffer);
  const long = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);
  view.setUint32(0, SPARSE_MAGIC, true);
  view.setUint32(4, compat6 ? 2 : compressed ? 3 : zeroGrain ? 2 : 1, true);
  view.setUint32(
    8,
    FLAG.newline | FLAG.second | (compressed ? FLAG.compressed | FLAG.markers : 0) | (zeroGrain ? FLAG.zeroGrain : 0),
    true,
  );
  long(12, sectors);
  long(20, GRAIN_SECTORS);
  long(28, 1);
  long(36, DESCRIPTOR_SECTORS);
  view.setUint32(44, TABLE_ENTRIES, true);
  long(48, second);
  long(56, first);
  long(64, overhead);
  head.set([0x0a, 0x20, 0x0d, 0x0a], 73);
  view.setUint16(77, compressed ? 1 : 0, true);
  for (const start of [second, first]) {
    const directory = new Uint8Array(directorySectors * SECTOR);
    const entries = new DataView(directory.buffer);
    for (let i = 0; i < tables; i++) entries.setUint32(i * 4, start + directorySectors + i * tableSectors, true);
    await file.write(start * SECTOR, directory);
  }
  await file.resize(overhead * SECTOR, 'off');
  await file.write(0, head);
}

async function writeFlat(file: BlockNode, bytes: number): Promise<void> {
  await file.resize(bytes, 'off');
  if (bytes > 0) await file.write(0, new Uint8Array(Math.min(FIRST_BLOCK, bytes)));
}

/** `dir/name.vmdk` to `name-s001.vmdk` or `name-flat.vmdk`, beside it. */
function pieceName(filename: string, mark: string): string {
  const base = filename.slice(filename.lastIndexOf('/') + 1);
  const dot = base.lastIndexOf('.');
  return dot < 0 ? `${base}-${mark}` : `${base.slice(0, dot)}-${mark}${base.slice(dot)}`;
}

async function parentOf(values: CreateValues, target: Target): Promise<{ cid: number; name: string } | null> {
  const name = values['backing_file'];
  if (name === undefined || name === '') return null;
  if (values['backing_fmt'] !== undefined && values['backing_fmt'] !== 'vmdk')
    throw new Error('backing_file must be a vmdk image');
  const { Graph, HOW } = await import('./graph.ts');
  const { resolveBacking } = await import('./names.ts');
  const graph = new Graph();
  const node = await graph.openImage(resolveBacking(target.filename, String(name)), 'vmdk', {
    ...HOW,
    noBacking: true,
    immediate: true,
  });
  const info = await node.info();
  await graph.close(node);
  return { cid: Number(info.specific!.data['cid']), name: String(name) };
}

async function create(values: CreateValues & { readonly size: number }, target: Target): Promise<void> {
  const subformat = String(values['subformat'] ?? 'monolithicSparse');
  const adapter = String(values['adapter_type'] ?? 'ide');
  const hw = values['hwversion'];
  const compat6 = values['compat6'] === true;
  if (!SUBFORMATS.includes(subformat)) throw new Error(`Invalid subformat '${subformat}'`);
  if (!ADAPTERS.includes(adapter)) throw new Error(`Unknown adapter type: '${adapter}'`);
  if (compat6 && hw !== undefined && hw !== 'undefined') throw new Error('compat6 cannot be enabled with hwversion set');
  const size = Math.ceil(values.size / SECTOR) * SECTOR;
  const flat = subformat.endsWith('Flat');
  const split = subformat.startsWith('twoGb');
  const parent = await parentOf(values, target);
  if (flat && parent !== null) throw new Error('Flat image cannot have backing file');
  const extentLines: string[] = [];
  let embedded: BlockNode | null = null;
  const folder = target.filename.slice(0, target.filename.lastIndexOf('/') + 1);
  const sparse = { compressed: subformat === 'streamOptimized', zeroGrain: values['zeroed_grain'] === true, compat6 };
  for (let at = 0, i = 1; at < size || i === 1; i++) {
    const bytes = split ? Math.min(PIECE, size - at) : size;
    const name = split
      ? pieceName(target.filename, `${flat ? 'f' : 's'}${String(i).padStart(3, '0')}`)
      : flat
        ? pieceName(target.filename, 'flat')
        : null;
    const file = await target.newFile(name === null ? target.filename : folder + name);
    if (flat) await writeFlat(file, bytes);
    else await writeSparse({ file, bytes, ...sparse });
    const shown = name ?? target.filename.slice(folder.length);
    extentLines.push(`RW ${bytes / SECTOR} ${flat ? 'FLAT' : 'SPARSE'} "${shown}"${flat ? ' 0' : ''}`);
    if (name === null) embedded = file;
    else await file.close();
    at += bytes;
    if (!split) break;
  }
  const text = makeDescriptor({
    createType: subformat,
    cid: crypto.getRandomValues(new Uint32Array(1))[0]!,
    parent,
    extentLines,
    sectors: size / SECTOR,
    adapter,
    hwVersion: compat6 ? '6' : hw === undefined || hw === 'undefined' ? '4' : String(hw),
    toolsVersion: values['toolsversion'] === undefined ? null : String(values['toolsversion']),
  });
  parseDescriptor(text);
  const bytes = new TextEncoder().encode(text);
  const file = embedded ?? (await target.newFile(target.filename));
  try {
    if (embedded !== null && bytes.length > DESCRIPTOR_SECTORS * SECTOR)
      throw new Error('the description of the image is too long');
    await file.write(embedded === null ? 0 : SECTOR, bytes);
  } finally {
    await file.close();
  }
}

export const vmdkCreation: Creation = {
  options: [
    { name: 'size', type: 'size', help: 'Virtual disk size' },
    {
      name: 'adapter_type',
      type: 'str',
      help: 'Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX',
    },
    { name: 'backing_file', type: 'str', help: 'File name of a base image' },
    { name: 'backing_fmt', type: 'str', help: "Must be 'vmdk' if present" },
    { name: 'compat6', type: 'bool', help: 'VMDK version 6 image', otherwise: false },
    { name: 'hwversion', type: 'str', help: 'VMDK hardware version', otherwise: 'undefined' },
    { name: 'toolsversion', type: 'str', help: 'VMware guest tools version' },
    {
      name: 'subformat',
      type: 'str',
      help: 'VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ',
    },
    { name: 'zeroed_grain', type: 'bool', help: 'Enable efficient zero writes using the zeroed-grain GTE feature' },
  ],
  create,
};

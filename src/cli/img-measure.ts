/** `measure`: how much space an image of a format would take. */
import { chainStatus } from '../storage/chain.ts';
import { findCreation, parseCreateOptions } from '../storage/create.ts';
import { DRIVER_NAMES } from '../storage/drivers.ts';
import type { BlockNode } from '../storage/node.ts';
import { qcow2Size } from '../storage/qcow2/measure.ts';
import { type Arguments, CommandError, has, lastOf, parseArguments, usage } from './img-args.ts';
import { joinOptions } from './img-create.ts';
import { Images, prettyJson, print, sizeArgument, wantsJson } from './img-open.ts';
import { parseList } from './values.ts';

export async function measureCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:l:o:O:U', ['output=', 'size=', 'force-share']);
  const json = wantsJson(lastOf(args, 'output'));
  const sizeText = lastOf(args, 'size');
  const [filename, ...more] = args.rest;
  if (more.length > 0) throw usage('At most one filename argument is allowed.');
  if (filename === undefined && sizeText === null) throw new CommandError('Either --size N or one filename must be specified.');
  if (filename !== undefined && sizeText !== null) throw new CommandError('--size N cannot be used together with a filename.');
  const images = new Images(args);
  try {
    const source =
      filename === undefined
        ? null
        : await images.open(filename, { format: lastOf(args, 'f'), imageOpts: has(args, 'image-opts'), how: {} });
    const size = source?.size ?? sizeArgument('image size', sizeText!);
    const found = await measure(args, source, size);
    if (json) {
      const { required, full, bitmaps } = found;
      print(prettyJson({ ...(bitmaps === null ? {} : { bitmaps }), required, 'fully-allocated': full }));
    } else {
      print(`required size: ${found.required}\nfully allocated size: ${found.full}\n`);
      if (found.bitmaps !== null) print(`bitmaps size: ${found.bitmaps}\n`);
    }
  } finally {
    await images.close();
  }
  return 0;
}

type Measured = { required: number; full: number; bitmaps: number | null };

async function measure(args: Arguments, source: BlockNode | null, size: number): Promise<Measured> {
  const format = lastOf(args, 'O') ?? 'raw';
  const creation = await findCreation(format, DRIVER_NAMES).catch((error: Error) => {
    throw new CommandError(error.message);
  });
  const options = joinOptions(args);
  const values = parseCreateOptions(creation, options === null ? new Map() : parseList(options, null));
  const whole = Math.ceil(size / 512) * 512;
  if (format === 'raw') return { required: whole, full: whole, bitmaps: null };
  if (format !== 'qcow2') throw new CommandError(`Block driver '${format}' does not support size measurement`);
  const clusterSize = Number(values['cluster_size']);
  const full = qcow2Size(whole, clusterSize, Number(values['refcount_bits']), values['extended_l2'] === true);
  const rounded = Math.ceil(whole / clusterSize) * clusterSize;
  const all = values['preallocation'] === 'falloc' || values['preallocation'] === 'full';
  const used = all ? rounded : source === null ? 0 : await usedBytes(source, clusterSize);
  return {
    required: full - rounded + used,
    full,
    bitmaps: source?.driver === 'qcow2' ? await bitmapBytes(source, clusterSize) : null,
  };
}

/** Clusters that are not all zeros, in bytes. */
async function usedBytes(source: BlockNode, clusterSize: number): Promise<number> {
  let used = 0;
  let counted = 0;
  for (let at = 0; at < source.size; ) {
    const extent = await chainStatus(source, at, source.size - at, null, true);
    if (!extent.zero) {
      const first = Math.max(counted, at - (at % clusterSize));
      const end = Math.ceil((at + extent.length) / clusterSize) * clusterSize;
      used += Math.max(0, end - first);
      counted = Math.max(counted, end);
    }
    at += extent.length;
  }
  return used;
}

async function bitmapBytes(source: BlockNode, clusterSize: number): Promise<number | null> {
  const { listBitmaps } = await import('../storage/qcow2/bitmaps.ts');
  const { image } = source as import('../storage/qcow2/node.ts').Qcow2Node;
  if (image.header.version === 2) return null;
  const clusters = (bytes: number): number => Math.ceil(bytes / clusterSize);
  const list = await listBitmaps(image);
  let bytes = 0;
  let directory = 0;
  for (const { name, granularity } of list) {
    const data = clusters(Math.ceil(Math.ceil(source.size / granularity) / 8));
    bytes += (data + clusters(data * 8)) * clusterSize;
    directory += Math.ceil((24 + new TextEncoder().encode(name).length) / 8) * 8;
  }
  return bytes + clusters(directory) * clusterSize;
}

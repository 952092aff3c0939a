/** `convert`. */
import { ConcatNode } from '../storage/concat.ts';
import { type CopyOptions, copyDisk } from '../storage/copy.ts';
import { findCreation } from '../storage/create.ts';
import { DRIVER_NAMES } from '../storage/drivers.ts';
import type { BlockNode } from '../storage/node.ts';
import { skipFilters } from '../storage/chain.ts';
import type { Qcow2Node } from '../storage/qcow2/node.ts';
import { sizeOf } from '../storage/schema.ts';
import { type Arguments, CommandError, has, lastOf, parseArguments } from './img-args.ts';
import { joinOptions, makeImage, optionHelp, wantsOptionHelp } from './img-create.ts';
import { cacheOf, complain, Images, Progress, print, report, sizeArgument } from './img-open.ts';
import { parseList } from './values.ts';

const MOST_PARALLEL = 16;
const DEFAULT_SPARSE = 4096;
const LONG = ['target-image-opts', 'target-is-zero', 'bitmaps', 'skip-broken-bitmaps', 'salvage', 'force-share'] as const;

export async function convertCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:O:B:F:CcpqS:o:l:nm:Wt:T:r:U', LONG);
  const format = lastOf(args, 'O') ?? 'raw';
  const options = joinOptions(args);
  if (wantsOptionHelp(options)) {
    print(await optionHelp(format, args.rest.length > 0));
    return 0;
  }
  const names = args.rest.slice(0, -1);
  const target = args.rest.at(-1);
  if (names.length === 0 || target === undefined) throw new CommandError('Must specify image file name');
  checkCombination(args);
  if (!has(args, 'n') && !has(args, 'target-image-opts')) await known(format);
  const images = new Images(args);
  try {
    await convert(images, args, names, target, format, options);
    await images.close();
  } catch (error) {
    await images.close().catch(() => undefined);
    throw error;
  }
  return 0;
}

function checkCombination(args: Arguments): void {
  const both = (a: string, b: string, words: string): void => {
    if (has(args, a) && has(args, b)) throw new CommandError(words);
  };
  both('c', 'C', 'Cannot enable copy offloading when -c is used');
  if (has(args, 'target-image-opts') && !has(args, 'n')) throw new CommandError('--target-image-opts requires use of -n flag');
  if (has(args, 'target-is-zero') && !has(args, 'n')) throw new CommandError('--target-is-zero requires use of -n flag');
  if (has(args, 'n') && has(args, 'o')) complain('warning: -o has no effect when skipping image creation');
}

async function known(format: string): Promise<void> {
  try {
    await findCreation(format, DRIVER_NAMES);
  } catch (error) {
    throw new CommandError((error as Error).message);
  }
}

async function convert(
  images: Images,
  args: Arguments,
  names: readonly string[],
  target: string,
  format: string,
  options: string | null,
): Promise<void> {
  const source = await openSource(images, args, names);
  const compress = has(args, 'c');
  const backing = lastOf(args, 'B') ?? (options === null ? null : (parseList(options, null).get('backing_file') ?? null));
  if (compress && !['qcow2', 'vmdk'].includes(format)) throw new CommandError('Compression not supported for this file format');
  if (!has(args, 'n')) {
    await makeImage(images, {
      filename: target,
      format,
      options,
      size: source.size,
      backingFile: lastOf(args, 'B'),
      backingFormat: lastOf(args, 'F'),
      unsafe: false,
      quiet: true,
    });
  }
  const cache = cacheOf(lastOf(args, 't') ?? 'unsafe');
  const how = { writable: true, unmap: true, immediate: false, direct: cache.direct, noFlush: cache.noFlush, noBacking: false };
  const imageOpts = has(args, 'target-image-opts');
  const made = await images.open(target, { format: imageOpts ? null : format, imageOpts, how });
  if (made.size < source.size) throw new CommandError('Output file is smaller than input file');
  await copy(args, source, made, backing, compress);
  if (has(args, 'bitmaps')) await copyBitmaps(source, made, has(args, 'skip-broken-bitmaps'));
  await made.flush();
}

async function openSource(images: Images, args: Arguments, names: readonly string[]): Promise<BlockNode> {
  const cache = cacheOf(lastOf(args, 'T'));
  const how = { immediate: false, overlap: true, direct: cache.direct };
  const nodes: BlockNode[] = [];
  for (const name of names)
    nodes.push(await images.open(name, { format: lastOf(args, 'f'), imageOpts: has(args, 'image-opts'), how }));
  const snapshot = lastOf(args, 'l');
  if (snapshot !== null) await showSnapshot(nodes, snapshot);
  return nodes.length === 1 ? nodes[0]! : new ConcatNode(nodes);
}

async function showSnapshot(nodes: readonly BlockNode[], given: string): Promise<void> {
  if (nodes.length > 1) throw new CommandError('No support for concatenating multiple snapshot');
  const real = skipFilters(nodes[0]!);
  const values = given.startsWith('snapshot.') ? parseList(given, null) : new Map([['snapshot.name', given]]);
  const wanted = values.get('snapshot.id') ?? values.get('snapshot.name') ?? given;
  if (real.driver !== 'qcow2')
    throw new CommandError(`Failed to load snapshot: Device '${nodes[0]!.filename}' does not support internal snapshots`);
  const { viewSnapshot } = await import('../storage/qcow2/snapshots.ts');
  try {
    await viewSnapshot(real as Qcow2Node, wanted);
  } catch (error) {
    throw new CommandError(`Failed to load snapshot: ${(error as Error).message}`);
  }
}

async function copy(
  args: Arguments,
  source: BlockNode,
  target: BlockNode,
  backing: string | null,
  compress: boolean,
): Promise<void> {
  const quiet = has(args, 'q');
  const sparseText = lastOf(args, 'S');
  const info = await target.info();
  // Some images take nothing else.
  const packed = compress || info.compressed === true;
  const progress = Progress.start(has(args, 'p') && !quiet, source.size);
  const rate = lastOf(args, 'r');
  const parallel = Number(lastOf(args, 'm') ?? 8);
  if (!Number.isInteger(parallel) || parallel < 1 || parallel > MOST_PARALLEL) {
    throw new CommandError(`Invalid number of coroutines. Allowed number of coroutines is between 1 and ${MOST_PARALLEL}`);
  }
  const behind = backing === null ? null : skipFilters(target).backing;
  const options: CopyOptions = {
    length: source.size,
    targetIsZero: has(args, 'n') ? has(args, 'target-is-zero') : target.zeroInit,
    sparse: sparseText === null ? DEFAULT_SPARSE : sparseSize(sparseText),
    compress: packed,
    clusterSize: info.clusterSize ?? 65536,
    parallel,
    unordered: has(args, 'W') || packed,
    above: behind === null ? null : (skipFilters(source).backing ?? EMPTY),
    behind: behind?.size ?? 0,
    salvage: has(args, 'salvage') ? (at, error) => report(`warning: error while reading offset ${at}: ${error.message}`) : null,
    progress: progress === null ? null : (done) => progress.set(done),
    rate: rate === null ? 0 : sizeArgument('rate limit', rate),
  };
  await copyDisk(source, target, options);
  progress?.end();
}

/** Stands for "no backing file": everything the source has is its own. */
const EMPTY = new ConcatNode([]);

function sparseSize(text: string): number {
  const bytes = sizeOf(text);
  if (bytes === null || bytes % 512 !== 0) {
    throw new CommandError(
      'Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to 2147483136. Select 0 to disable sparse detection (fully allocates output).',
    );
  }
  return bytes;
}

async function copyBitmaps(source: BlockNode, target: BlockNode, skipBroken: boolean): Promise<void> {
  const [from, to] = [skipFilters(source), skipFilters(target)];
  if (from.driver !== 'qcow2') throw new CommandError('Format driver of the source does not support bitmaps');
  if (to.driver !== 'qcow2') throw new CommandError('Format driver does not support bitmaps');
  const { changeBitmap, listBitmaps, readBitmap } = await import('../storage/qcow2/bitmaps.ts');
  for (const { name, granularity, auto, inUse } of await listBitmaps((from as Qcow2Node).image)) {
    if (inUse) {
      if (!skipBroken)
        throw new CommandError(`Cannot copy inconsistent bitmap '${name}'\nTry --skip-broken-bitmaps, or use 'bitmap --remove'`);
      report(`warning: Skipping inconsistent bitmap '${name}'`);
      continue;
    }
    const { bits } = await readBitmap(from as Qcow2Node, name);
    await changeBitmap(to as Qcow2Node, name, { kind: 'add', granularity, disabled: !auto });
    await changeBitmap(to as Qcow2Node, name, { kind: 'merge', bits, granularity });
  }
}

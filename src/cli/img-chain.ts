/** `commit` and `rebase`. */
import { chainOf, skipFilters } from '../storage/chain.ts';
import { keepDifferences, makeEmpty } from '../storage/chain-jobs.ts';
import { PLAIN_COPY, copyDisk } from '../storage/copy.ts';
import { resolveBacking } from '../storage/names.ts';
import type { BlockNode } from '../storage/node.ts';
import { type Arguments, CommandError, has, lastOf, parseArguments, usage } from './img-args.ts';
import { cacheOf, Images, Progress, print, sizeArgument } from './img-open.ts';

export async function commitCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:t:b:dpqr:', []);
  if (args.rest.length !== 1) throw usage('Expecting one image file name');
  const layers = await findLayers(args);
  const images = new Images(args);
  try {
    await commit(images, args, layers);
    await images.close();
  } catch (error) {
    await images.close().catch(() => undefined);
    throw error;
  }
  if (!has(args, 'q')) print('Image committed.\n');
  return 0;
}

type Layer = { name: string; format: string | null };

/** From the image down to the one that takes its data. */
async function findLayers(args: Arguments): Promise<Layer[]> {
  const wanted = lastOf(args, 'b');
  const layers: Layer[] = [{ name: args.rest[0]!, format: lastOf(args, 'f') }];
  const images = new Images(args);
  try {
    const top = await images.open(layers[0]!.name, { format: layers[0]!.format, imageOpts: has(args, 'image-opts'), how: {} });
    const chain = chainOf(top);
    if (chain.length < 2) throw new CommandError('Image does not have a backing file');
    for (const node of chain.slice(1)) {
      layers.push({ name: node.filename, format: node.driver });
      if (wanted === null || wanted === node.filename || wanted === above(chain, node)) return layers;
    }
    throw new CommandError(`Did not find '${wanted!}' in the backing chain of '${layers[0]!.name}'`);
  } finally {
    await images.close();
  }
}

/** A backing file's name as the image above it has it. */
const above = (chain: readonly BlockNode[], node: BlockNode): string | undefined =>
  chain[chain.indexOf(node) - 1]?.backingName?.file;

async function commit(images: Images, args: Arguments, layers: readonly Layer[]): Promise<void> {
  const cache = cacheOf(lastOf(args, 't') ?? 'writeback');
  const how = { writable: true, unmap: true, immediate: false, direct: cache.direct, noFlush: cache.noFlush };
  const target = layers.at(-1)!;
  const base = await images.open(target.name, { format: target.format, imageOpts: false, how });
  let top = base;
  for (const { name, format } of layers.slice(0, -1).reverse()) {
    const writable = name === layers[0]!.name;
    top = await openOver(images, name, format, top, writable);
  }
  if (top.size > base.size) await base.resize(top.size, 'off');
  const progress = Progress.start(has(args, 'p') && !has(args, 'q'), top.size);
  const rate = lastOf(args, 'r');
  await copyDisk(top, base, {
    ...PLAIN_COPY,
    length: top.size,
    targetIsZero: false,
    sparse: 4096,
    parallel: 8,
    above: skipFilters(base),
    behind: base.size,
    progress: progress === null ? null : (done) => progress.set(done),
    rate: rate === null ? 0 : sizeArgument('rate limit', rate),
  });
  await base.flush();
  if (!has(args, 'd') && layers.length === 2) await makeEmpty(skipFilters(top));
  progress?.end();
}

async function openOver(
  images: Images,
  name: string,
  format: string | null,
  below: BlockNode,
  writable: boolean,
): Promise<BlockNode> {
  const { HOW } = await import('../storage/graph.ts');
  const how = { ...HOW, writable, unmap: true, resize: writable, secrets: images.secrets };
  try {
    return await images.graph.openImage(name, format, how, { backing: below.nodeName });
  } catch (error) {
    throw new CommandError(`Could not open '${name}': ${(error as Error).message}`);
  }
}

export async function rebaseCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:F:b:upt:T:qU', ['force-share']);
  if (args.rest.length !== 1) throw usage('Expecting one image file name');
  const wanted = lastOf(args, 'b');
  const unsafe = has(args, 'u');
  if (wanted === null && !unsafe) throw usage('Use backing file (-b) option');
  const images = new Images(args);
  try {
    await rebase(images, args, wanted ?? '', unsafe);
    await images.close();
  } catch (error) {
    await images.close().catch(() => undefined);
    throw error;
  }
  return 0;
}

async function rebase(images: Images, args: Arguments, wanted: string, unsafe: boolean): Promise<void> {
  const cache = cacheOf(lastOf(args, 't') ?? 'writeback');
  const how = { writable: true, unmap: true, immediate: true, direct: cache.direct, noFlush: cache.noFlush, noBacking: unsafe };
  const filename = args.rest[0]!;
  const top = await images.open(filename, { format: lastOf(args, 'f'), imageOpts: has(args, 'image-opts'), how });
  const real = skipFilters(top);
  if (!real.supportsBacking) throw new CommandError(`Could not change the backing file to '${wanted}': Operation not supported`);
  const format = lastOf(args, 'F');
  if (!unsafe) {
    const behind = wanted === '' ? null : await openNew(images, filename, wanted, format);
    const progress = Progress.start(has(args, 'p') && !has(args, 'q'), top.size);
    await keepDifferences(real, behind, (done) => progress?.set(done));
    progress?.end();
  }
  await top.flush();
  if (wanted !== '' && format === null) {
    throw new CommandError(`Could not change the backing file to '${wanted}': backing format must be specified`);
  }
  await real.changeBacking(wanted === '' ? null : wanted, format);
}

async function openNew(images: Images, filename: string, wanted: string, format: string | null): Promise<BlockNode> {
  const name = resolveBacking(filename, wanted);
  try {
    const { HOW } = await import('../storage/graph.ts');
    return await images.graph.openImage(name, format, { ...HOW, immediate: true, secrets: images.secrets });
  } catch (error) {
    throw new CommandError(`Could not open new backing file '${wanted}': ${(error as Error).message}`);
  }
}

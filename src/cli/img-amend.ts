/** `amend` and `bitmap`. */
import { skipFilters } from '../storage/chain.ts';
import { findCreation } from '../storage/create.ts';
import { DRIVER_NAMES } from '../storage/drivers.ts';
import type { BitmapAction } from '../storage/qcow2/bitmaps.ts';
import type { Qcow2Node } from '../storage/qcow2/node.ts';
import { type Arguments, CommandError, has, lastOf, parseArguments, PROGRAM, usage } from './img-args.ts';
import { joinOptions, optionHelp, wantsOptionHelp } from './img-create.ts';
import { Images, Progress, print, sizeArgument } from './img-open.ts';
import { parseList } from './values.ts';

const AMENDABLE = ['compat', 'lazy_refcounts', 'refcount_bits', 'size', 'data_file', 'data_file_raw'];

export async function amendCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:o:pqt:', ['force']);
  const options = joinOptions(args);
  if (options === null) throw usage('Must specify options (-o)');
  if (wantsOptionHelp(options)) {
    print(await optionHelp(lastOf(args, 'f') ?? 'qcow2', args.rest.length > 0));
    return 0;
  }
  if (args.rest.length !== 1) throw usage('Expecting one image file name');
  const images = new Images(args);
  try {
    const how = { writable: true, unmap: true };
    const node = await images.open(args.rest[0]!, { format: lastOf(args, 'f'), imageOpts: has(args, 'image-opts'), how });
    const real = skipFilters(node);
    if (real.driver !== 'qcow2') throw new CommandError(`Format driver '${real.driver}' does not support option amendment`);
    await checkNames(options);
    const progress = Progress.start(has(args, 'p') && !has(args, 'q'), 1);
    const { amendImage } = await import('../storage/qcow2/amend.ts');
    await amendImage(real as Qcow2Node, parseList(options, null));
    progress?.end();
    await images.close();
  } catch (error) {
    await images.close().catch(() => undefined);
    throw error;
  }
  return 0;
}

async function checkNames(options: string): Promise<void> {
  const known = (await findCreation('qcow2', DRIVER_NAMES)).options;
  for (const name of parseList(options, null).keys()) {
    if (name === 'backing_file' || name === 'backing_fmt') {
      throw new CommandError(`Cannot amend the backing file\nYou can use '${PROGRAM} rebase' instead.`);
    }
    if (!AMENDABLE.includes(name)) {
      const forCreation = known.some((one) => one.name === name);
      throw new CommandError(
        `Invalid parameter '${name}'${forCreation ? '\nThis option is only supported for image creation' : ''}`,
      );
    }
  }
}

const ACTIONS = ['add', 'remove', 'clear', 'enable', 'disable', 'merge'] as const;

export async function bitmapCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'b:f:F:g:', ['add', 'remove', 'clear', 'enable', 'disable', 'merge=']);
  const wanted = ACTIONS.filter((name) => has(args, name));
  if (wanted.length === 0) {
    throw new CommandError('Need at least one of --add, --remove, --clear, --enable, --disable, or --merge');
  }
  if (has(args, 'g') && !has(args, 'add')) throw new CommandError('granularity only supported with --add');
  const [filename, name, ...more] = args.rest;
  if (filename === undefined || name === undefined || more.length > 0) throw usage('Expecting filename and bitmap name');
  const images = new Images(args);
  try {
    const how = { writable: true, unmap: true };
    const node = await images.open(filename, { format: lastOf(args, 'f'), imageOpts: has(args, 'image-opts'), how });
    const real = skipFilters(node);
    for (const action of wanted) await actOn(images, args, real as Qcow2Node, name, action);
    await images.close();
  } catch (error) {
    await images.close().catch(() => undefined);
    throw error;
  }
  return 0;
}

async function actOn(
  images: Images,
  args: Arguments,
  node: Qcow2Node,
  name: string,
  action: (typeof ACTIONS)[number],
): Promise<void> {
  const { changeBitmap } = await import('../storage/qcow2/bitmaps.ts');
  try {
    if (node.driver !== 'qcow2') throw new Error(`Block driver '${node.driver as string}' does not support persistent bitmaps`);
    await changeBitmap(node, name, await actionFor(images, args, node, action));
  } catch (error) {
    if (error instanceof CommandError) throw error;
    throw new CommandError(`Operation ${action} on bitmap ${name} failed: ${(error as Error).message}`);
  }
}

async function actionFor(
  images: Images,
  args: Arguments,
  node: Qcow2Node,
  action: (typeof ACTIONS)[number],
): Promise<BitmapAction> {
  const granularity = lastOf(args, 'g');
  if (action === 'add') {
    return {
      kind: 'add',
      granularity: granularity === null ? null : sizeArgument('granularity', granularity),
      disabled: has(args, 'disable'),
    };
  }
  if (action !== 'merge') return { kind: action };
  const { readBitmap } = await import('../storage/qcow2/bitmaps.ts');
  const file = lastOf(args, 'b');
  let from = node;
  if (file !== null) {
    const opened = await images.open(file, { format: lastOf(args, 'F'), imageOpts: false, how: {} });
    from = skipFilters(opened) as Qcow2Node;
    if (from.driver !== 'qcow2') throw new Error(`Block driver '${from.driver as string}' does not support persistent bitmaps`);
  }
  const { bits, entry } = await readBitmap(from, lastOf(args, 'merge')!);
  return { kind: 'merge', bits, granularity: entry.granularity };
}

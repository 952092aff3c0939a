/** `create` and `resize`. */
import {
  CREATABLE,
  type CreateValues,
  type Creation,
  describeCreation,
  findCreation,
  newFile,
  openFile,
  parseCreateOptions,
} from '../storage/create.ts';
import { DRIVER_NAMES } from '../storage/drivers.ts';
import { resolveBacking } from '../storage/names.ts';
import { skipFilters } from '../storage/chain.ts';
import { MAX_SIZE } from '../storage/node.ts';
import { sizeOf } from '../storage/schema.ts';
import { type Arguments, CommandError, has, lastOf, parseArguments, PROGRAM, usage } from './img-args.ts';
import { complain, Images, print, sizeArgument } from './img-open.ts';
import { parseList } from './values.ts';

export interface NewImageRequest {
  readonly filename: string;
  readonly format: string;
  readonly options: string | null;
  readonly size: number | null;
  readonly backingFile: string | null;
  readonly backingFormat: string | null;
  /** The backing file need not be there. */
  readonly unsafe: boolean;
  readonly quiet: boolean;
}

export async function createCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'F:b:f:o:qu', []);
  const [filename, sizeText, ...more] = args.rest;
  const format = lastOf(args, 'f') ?? 'raw';
  const options = joinOptions(args);
  if (wantsOptionHelp(options)) {
    print(await optionHelp(format, filename !== undefined));
    return 0;
  }
  if (filename === undefined) throw usage('Expecting image file name');
  if (more.length > 0) throw usage(`Unexpected argument: ${more[0]!}`);
  const images = new Images(args);
  try {
    await makeImage(images, {
      filename,
      format,
      options,
      size: sizeText === undefined ? null : sizeArgument('image size', sizeText),
      backingFile: lastOf(args, 'b'),
      backingFormat: lastOf(args, 'F'),
      unsafe: has(args, 'u'),
      quiet: has(args, 'q'),
    });
  } finally {
    await images.close();
  }
  return 0;
}

/** All `-o` of a command line as one list. */
export function joinOptions({ options }: Arguments): string | null {
  const given = options.get('o');
  return given === undefined ? null : given.join(',');
}

export const wantsOptionHelp = (options: string | null): boolean => options !== null && /(^|,)(help|\?)(,|$)/.test(options);

/** Lists what a format's images can be made with. */
export async function optionHelp(format: string, withFile: boolean): Promise<string> {
  const { options } = await findCreation(format, DRIVER_NAMES);
  const types = { str: '<str>', size: '<size>', bool: '<bool (on/off)>', num: '<num>' } as const;
  const lines = options
    .filter(({ hidden }) => withFile || hidden !== true)
    .map(({ name, type, help }) => `  ${`${name}=${types[type]}`.padEnd(22)} - ${help}`)
    .sort();
  const tail = withFile
    ? ''
    : '\nThe protocol level may support further options.\nSpecify the target filename to include those options.\n';
  return `Supported ${withFile ? '' : `${format} `}options:\n${lines.join('\n')}\n${tail}`;
}

async function valuesFor(creation: Creation, request: NewImageRequest): Promise<Record<string, CreateValues[string]>> {
  const given = request.options === null ? new Map<string, string>() : parseList(request.options, null);
  const hidden = (await findCreation('raw', DRIVER_NAMES)).options.filter(({ name }) => name !== 'size');
  const known = {
    ...creation,
    options: [...creation.options, ...hidden.filter(({ name }) => !creation.options.some((one) => one.name === name))],
  };
  const values: Record<string, CreateValues[string]> = parseCreateOptions(known, given);
  const set = (name: string, value: string | null, what: string): void => {
    if (value === null) return;
    if (!creation.options.some((one) => one.name === name))
      throw new Error(`${what} not supported for file format '${request.format}'`);
    values[name] = value;
  };
  set('backing_file', request.backingFile, 'Backing file');
  set('backing_fmt', request.backingFormat, 'Backing format');
  if (request.size !== null && given.has('size')) throw new Error('The image size must be specified only once');
  if (request.size !== null) values['size'] = request.size;
  return values;
}

/** Makes an image, and says so. @throws CommandError */
export async function makeImage(images: Images, request: NewImageRequest): Promise<void> {
  const { filename, format } = request;
  try {
    const creation = await findCreation(format, [...DRIVER_NAMES, ...CREATABLE]);
    const values = await valuesFor(creation, request);
    await checkBacking(images, request, values);
    if (values['size'] === undefined) throw new Error('Image creation needs a size parameter');
    if (!request.quiet) print(`${describeCreation(filename, format, creation, values)}\n`);
    if (Number(values['size']) > MAX_SIZE) {
      throw new Error(`The image size is too large for file format '${format}' (try using a larger cluster size)`);
    }
    await creation.create(values as CreateValues & { size: number }, {
      filename,
      secrets: images.secrets,
      newFile,
      openFile,
      reopen: () => reopen(images, filename, format, values),
    });
  } catch (error) {
    throw new CommandError(`${filename}: ${(error as Error).message}`);
  }
}

async function reopen(images: Images, filename: string, format: string, values: CreateValues) {
  const secret = values['encrypt.key-secret'];
  const more = secret === undefined ? {} : { encrypt: { format: 'luks', 'key-secret': secret } };
  const node = await images.graph.openImage(filename, format, { ...(await writable(images)), noBacking: true }, more);
  return { node: skipFilters(node), close: () => images.graph.close(node) };
}

async function writable(images: Images) {
  const { HOW } = await import('../storage/graph.ts');
  return { ...HOW, writable: true, resize: true, unmap: true, immediate: true, secrets: images.secrets };
}

/** The backing file must be there, and says how large the image is if nothing else does. */
async function checkBacking(
  images: Images,
  request: NewImageRequest,
  values: Record<string, CreateValues[string]>,
): Promise<void> {
  const backing = values['backing_file'];
  if (backing === undefined || backing === '') return;
  if (request.unsafe) return;
  const format = values['backing_fmt'] === undefined ? null : String(values['backing_fmt']);
  const name = resolveBacking(request.filename, String(backing));
  if (name === request.filename) throw new Error('Error: Trying to create an image with the same filename as the backing file');
  const { HOW } = await import('../storage/graph.ts');
  let node: Awaited<ReturnType<typeof images.graph.openImage>>;
  try {
    node = await images.graph.openImage(name, format, { ...HOW, immediate: true, secrets: images.secrets });
  } catch (error) {
    if (values['size'] === undefined) throw new Error(`${(error as Error).message}\nCould not open backing image.`);
    complain(
      `warning: Could not verify backing image. This may become an error in future versions.\n${(error as Error).message}`,
    );
    return;
  }
  const { size } = node;
  const { driver } = skipFilters(node);
  await images.graph.close(node);
  if (format === null) throw new Error(`Backing file specified without backing format\nDetected format of ${driver}.`);
  values['size'] ??= size;
}

export async function resizeCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:q', ['preallocation=', 'shrink']);
  const [filename, sizeText, ...more] = args.rest;
  if (filename === undefined || sizeText === undefined) throw usage('Not enough arguments');
  if (more.length > 0) throw usage('Expecting image file name and size');
  const relative = sizeText.startsWith('+') ? 1 : sizeText.startsWith('-') ? -1 : 0;
  const amount = sizeOf(relative === 0 ? sizeText : sizeText.slice(1));
  if (amount === null) {
    throw new CommandError(
      "Parameter 'size' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.",
    );
  }
  const images = new Images(args);
  try {
    const how = { writable: true, unmap: true };
    const node = await images.open(filename, { format: lastOf(args, 'f'), imageOpts: has(args, 'image-opts'), how });
    const size = relative === 0 ? amount : node.size + relative * amount;
    if (size <= 0) throw new CommandError('New image size must be positive');
    const mode = lastOf(args, 'preallocation') ?? 'off';
    if (size < node.size && !has(args, 'shrink')) {
      complain(`${PROGRAM}: Use the --shrink option to perform a shrink operation.`);
      throw new CommandError(
        "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, make sure there is no important data there.",
      );
    }
    if (size <= node.size && mode !== 'off') throw new CommandError('Preallocation can only be used for growing images');
    await node.resize(Math.ceil(size / 512) * 512, mode);
    await images.close();
  } catch (error) {
    await images.close().catch(() => undefined);
    throw error;
  }
  if (!has(args, 'q')) print('Image resized.\n');
  return 0;
}

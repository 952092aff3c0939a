/** `dd`. */
import { PLAIN_COPY, copyDisk } from '../storage/copy.ts';
import { RawNode } from '../storage/raw.ts';
import { CommandError, has, lastOf, parseArguments } from './img-args.ts';
import { makeImage } from './img-create.ts';
import { Images } from './img-open.ts';
import { sizeOf } from '../storage/schema.ts';

const KEYS = ['if', 'of', 'bs', 'count', 'skip'];

export async function ddCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:O:U', ['force-share']);
  const values = new Map<string, string>();
  for (const one of args.rest) {
    const at = one.indexOf('=');
    if (at < 0) throw new CommandError(`unrecognized operand ${one}`);
    if (!KEYS.includes(one.slice(0, at))) throw new CommandError(`unrecognized operand ${one.slice(0, at)}`);
    values.set(one.slice(0, at), one.slice(at + 1));
  }
  const number = (key: string): number | null => {
    const text = values.get(key);
    if (text === undefined) return null;
    const value = sizeOf(text);
    if (value === null) throw new CommandError(`invalid number: '${text}'`);
    if (key === 'bs' && (value === 0 || value >= 2 ** 31))
      throw new CommandError('Invalid bs specified. Must be between 1 and 2147483647.');
    return value;
  };
  const [input, output] = [values.get('if'), values.get('of')];
  if (input === undefined || output === undefined) throw new CommandError('Must specify both input and output files');
  const [bs, count, skip] = [number('bs') ?? 512, number('count'), number('skip') ?? 0];
  const images = new Images(args);
  try {
    const source = await images.open(input, {
      format: lastOf(args, 'f'),
      imageOpts: has(args, 'image-opts'),
      how: { immediate: false },
    });
    const start = Math.min(source.size, skip * bs);
    const size = Math.min(source.size - start, count === null ? Infinity : count * bs);
    const format = lastOf(args, 'O') ?? 'raw';
    const request = {
      filename: output,
      format,
      options: null,
      backingFile: null,
      backingFormat: null,
      unsafe: false,
      quiet: true,
    };
    await makeImage(images, { ...request, size });
    const target = await images.open(output, {
      format,
      imageOpts: false,
      how: { writable: true, unmap: true, immediate: false },
    });
    const part = new RawNode(source, start, size, { writable: false, probed: false });
    await copyDisk(part, target, {
      ...PLAIN_COPY,
      length: size,
      targetIsZero: target.zeroInit,
      sparse: 512,
      parallel: 4,
    });
  } finally {
    await images.close();
  }
  return 0;
}

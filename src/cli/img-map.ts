/** `map`: where the parts of a disk lie. */
import { type ChainExtent, chainStatus } from '../storage/chain.ts';
import { CommandError, has, lastOf, parseArguments, usage } from './img-args.ts';
import { Images, print, sizeArgument, wantsJson } from './img-open.ts';

type Entry = { start: number; extent: ChainExtent };

export async function mapCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:U', ['output=', 'start-offset=', 'max-length=', 'force-share']);
  if (args.rest.length !== 1) throw usage('Expecting one image file name');
  const json = wantsJson(lastOf(args, 'output'));
  const start = lastOf(args, 'start-offset');
  const most = lastOf(args, 'max-length');
  const images = new Images(args);
  try {
    const node = await images.open(args.rest[0]!, { format: lastOf(args, 'f'), imageOpts: has(args, 'image-opts'), how: {} });
    const first = start === null ? 0 : sizeArgument('start offset', start);
    const end = Math.min(node.size, most === null ? node.size : first + sizeArgument('max length', most));
    let entry: Entry | null = null;
    let any = false;
    print(json ? '[' : `${'Offset'.padEnd(16)}${'Length'.padEnd(16)}${'Mapped to'.padEnd(16)}File\n`);
    const show = json ? showJson : showHuman;
    for (let at = first; at < end; ) {
      const extent = await chainStatus(node, at, end - at);
      if (entry !== null && follows(entry, at, extent))
        entry.extent = { ...entry.extent, length: entry.extent.length + extent.length };
      else {
        if (entry !== null) any = show(entry, any);
        entry = { start: at, extent };
      }
      at += extent.length;
    }
    if (entry !== null) show(entry, any);
    if (json) print(']\n');
  } finally {
    await images.close();
  }
  return 0;
}

function follows({ extent }: Entry, _at: number, next: ChainExtent): boolean {
  if (extent.zero !== next.zero || extent.data !== next.data || extent.depth !== next.depth) return false;
  if (extent.allocated !== next.allocated || extent.compressed !== next.compressed) return false;
  if ((extent.offset === null) !== (next.offset === null) || extent.file?.filename !== next.file?.filename) return false;
  return extent.offset === null || extent.offset + extent.length === next.offset;
}

function showJson({ start, extent }: Entry, any: boolean): boolean {
  const { length, depth, allocated, zero, data, offset } = extent;
  print(
    `${any ? ',\n' : ''}{ "start": ${start}, "length": ${length}, "depth": ${depth}, "present": ${allocated}, ` +
      `"zero": ${zero}, "data": ${data}${offset === null ? '' : `, "offset": ${offset}`}}`,
  );
  return true;
}

const hex = (value: number): string => (value === 0 ? '0' : `0x${value.toString(16)}`);

function showHuman({ start, extent }: Entry): boolean {
  const { data, zero, offset, file, length } = extent;
  if (!data || zero) return true;
  if (offset === null) throw new CommandError('File contains external, encrypted or compressed clusters.');
  print(`${hex(start).padEnd(16)}${hex(length).padEnd(16)}${hex(offset).padEnd(16)}${file!.filename}\n`);
  return true;
}

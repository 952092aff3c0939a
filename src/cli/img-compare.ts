/** `compare`: do two images show the same disk? */
import { chainStatus } from '../storage/chain.ts';
import { type BlockNode, isZero } from '../storage/node.ts';
import { CommandError, has, lastOf, parseArguments, usage } from './img-args.ts';
import { Images, Progress, print } from './img-open.ts';

const PART = 2 ** 21;
const SECTOR = 512;
const TROUBLE = 2;

export async function compareCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:F:T:pqsU', ['force-share']);
  if (args.rest.length !== 2) throw usage('Expecting two image file names');
  const images = new Images(args);
  const open = (i: number, format: string): Promise<BlockNode> =>
    images.open(args.rest[i]!, { format: lastOf(args, format), imageOpts: has(args, 'image-opts'), how: { immediate: false } });
  const say = (text: string): void => {
    if (!has(args, 'q')) print(text);
  };
  try {
    const nodes = [await open(0, 'f'), await open(1, 'F')] as const;
    const sizes = [nodes[0].size, nodes[1].size] as const;
    const progress = Progress.start(has(args, 'p') && !has(args, 'q'), Math.max(...sizes));
    const strict = has(args, 's');
    if (strict && sizes[0] !== sizes[1]) {
      say('Strict mode: Image size mismatch!\n');
      return 1;
    }
    const verdict = await compare(nodes, Math.min(...sizes), progress, strict, say);
    if (verdict !== 0) return verdict;
    if (sizes[0] !== sizes[1]) {
      say('Warning: Image size mismatch!\n');
      const longer = sizes[0] > sizes[1] ? nodes[0] : nodes[1];
      const at = await firstNonZero(longer, Math.min(...sizes), longer.size);
      if (at >= 0) {
        say(`Content mismatch at offset ${at}!\n`);
        return 1;
      }
    }
    progress?.end();
    say('Images are identical.\n');
    return 0;
  } catch (error) {
    throw new CommandError((error as Error).message, TROUBLE);
  } finally {
    await images.close();
  }
}

async function compare(
  [a, b]: readonly [BlockNode, BlockNode],
  length: number,
  progress: Progress | null,
  strict: boolean,
  say: (text: string) => void,
): Promise<number> {
  const buffers = [new Uint8Array(PART), new Uint8Array(PART)] as const;
  for (let at = 0; at < length; ) {
    const left = await chainStatus(a, at, length - at, null, true);
    const right = await chainStatus(b, at, length - at, null, true);
    let count = Math.min(left.length, right.length);
    if (strict && left.allocated !== right.allocated) {
      say(`Strict mode: Offset ${at} block status mismatch!\n`);
      return 1;
    }
    if (!left.zero || !right.zero) {
      count = Math.min(count, PART);
      const parts = buffers.map((buffer) => buffer.subarray(0, count)) as [Uint8Array, Uint8Array];
      await Promise.all([
        left.zero ? parts[0].fill(0) : a.read(at, parts[0]),
        right.zero ? parts[1].fill(0) : b.read(at, parts[1]),
      ]);
      if (Buffer.compare(parts[0], parts[1]) !== 0) {
        const byte = parts[0].findIndex((value, i) => value !== parts[1][i]);
        say(`Content mismatch at offset ${at + byte - (byte % SECTOR)}!\n`);
        return 1;
      }
    }
    at += count;
    progress?.set(at);
  }
  return 0;
}

async function firstNonZero(node: BlockNode, from: number, to: number): Promise<number> {
  const buffer = new Uint8Array(PART);
  for (let at = from; at < to; ) {
    const extent = await chainStatus(node, at, to - at, null, true);
    if (extent.zero) {
      at += extent.length;
      continue;
    }
    const part = buffer.subarray(0, Math.min(PART, extent.length));
    await node.read(at, part);
    if (!isZero(part)) {
      const byte = part.findIndex((value) => value !== 0);
      return at + byte - (byte % SECTOR);
    }
    at += part.length;
  }
  return -1;
}

/** `bench`: how fast requests are. */
import { CommandError, has, lastOf, parseArguments, usage } from './img-args.ts';
import { cacheOf, Images, print, sizeArgument } from './img-open.ts';

export async function benchCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'c:d:f:ni:o:qs:S:t:wU', ['flush-interval=', 'no-drain', 'pattern=', 'force-share']);
  if (args.rest.length !== 1) throw usage('Expecting one image file name');
  const number = (name: string, otherwise: number, least: number): number => {
    const text = lastOf(args, name);
    const value = text === null ? otherwise : sizeArgument(`value of -${name}`, text);
    if (value < least) throw new CommandError(`Invalid value of -${name} specified`);
    return value;
  };
  const write = has(args, 'w');
  const flushInterval = number('flush-interval', 0, 0);
  if (!write && flushInterval > 0) throw new CommandError('--flush-interval is only available in write tests');
  const [count, depth, size, start] = [number('c', 75000, 0), number('d', 64, 1), number('s', 4096, 1), number('o', 0, 0)];
  const step = number('S', 0, 0) || size;
  const images = new Images(args);
  try {
    const { direct, noFlush } = cacheOf(lastOf(args, 't') ?? 'writeback');
    const how = { writable: write, unmap: true, immediate: false, direct: direct || has(args, 'n'), noFlush };
    const node = await images.open(args.rest[0]!, { format: lastOf(args, 'f'), imageOpts: has(args, 'image-opts'), how });
    const say = (text: string): void => {
      if (!has(args, 'q')) print(text);
    };
    say(
      `Sending ${count} ${write ? 'write' : 'read'} requests, ${size} bytes each, ${depth} in parallel ` +
        `(starting at offset ${start}, step size ${step})\n`,
    );
    if (flushInterval > 0) say(`Sending flush every ${has(args, 'no-drain') ? '' : 'drained '}${flushInterval} requests\n`);
    const pattern = number('pattern', 0, 0);
    const from = performance.now();
    let sent = 0;
    let at = start;
    const worker = async (): Promise<void> => {
      const buffer = new Uint8Array(size).fill(pattern);
      while (sent < count) {
        const turn = ++sent;
        if (at + size > node.size) at = 0;
        const here = at;
        at += step;
        await (write ? node.write(here, buffer) : node.read(here, buffer));
        if (flushInterval > 0 && turn % flushInterval === 0) await node.flush();
      }
    };
    await Promise.all(Array.from({ length: Math.min(depth, count) }, worker));
    say(`Run completed in ${((performance.now() - from) / 1000).toFixed(3)} seconds.\n`);
  } finally {
    await images.close();
  }
  return 0;
}

/**
 * Writes to an image until it is killed; for `crash.test.ts`. Each round writes some blocks, all at a time, flushes and
 * then says so. What a round writes follows from the seed.
 */
import { writeSync } from 'node:fs';
import { Graph } from '../graph.ts';
import { random, WRITABLE } from '../test-kit.ts';

export const BLOCK = 4096;
const PER_ROUND = 24;

/** What a round does: blocks, and whether they become zero (by writing zeros or by discarding). */
export function roundOf(seed: number, round: number, blocks: number): { block: number; kind: 'write' | 'zero' | 'discard' }[] {
  const next = random(seed * 100_003 + round);
  const chosen = new Set<number>();
  while (chosen.size < PER_ROUND) chosen.add(next(blocks));
  return [...chosen].map((block) => ({
    block,
    kind: (['write', 'write', 'write', 'write', 'zero', 'discard'] as const)[next(6)]!,
  }));
}

export function contentOf(round: number): Uint8Array {
  return new Uint8Array(new Uint32Array(BLOCK / 4).fill(round).buffer);
}

async function main(path: string, seed: number): Promise<void> {
  const node = await new Graph().openImage(path, 'qcow2', WRITABLE);
  const blocks = node.size / BLOCK;
  for (let round = 1; ; round++) {
    const data = contentOf(round);
    await Promise.all(
      roundOf(seed, round, blocks).map(({ block, kind }) => {
        if (kind === 'write') return node.write(block * BLOCK, data);
        if (kind === 'zero') return node.writeZeroes(block * BLOCK, BLOCK, true);
        return node.discard(block * BLOCK, BLOCK);
      }),
    );
    await node.flush();
    writeSync(1, `${round}\n`);
  }
}

if (import.meta.main) await main(process.argv[2]!, Number(process.argv[3]));

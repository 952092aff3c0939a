/** Work on backing chains: `commit` and `rebase`. */
import { chainStatus } from './chain.ts';
import type { BlockNode } from './node.ts';

const PART = 2 ** 21;

/** Gives up everything a node has of its own, so that its backing file shows. @throws Error where it cannot */
export async function makeEmpty(node: BlockNode): Promise<void> {
  if (node.driver !== 'qcow2') throw new Error('the format does not support emptying an image');
  const { emptyImage } = await import('./qcow2/empty.ts');
  await emptyImage(node as import('./qcow2/node.ts').Qcow2Node);
}

/**
 * Writes to `top` what it shows of its backing file and what another one would show differently.
 * @param behind the backing file to be; null for none
 * @param progress bytes that are done
 */
export async function keepDifferences(top: BlockNode, behind: BlockNode | null, progress: (done: number) => void): Promise<void> {
  const buffers = [new Uint8Array(PART), new Uint8Array(PART)] as const;
  for (let at = 0; at < top.size; ) {
    const own = await top.status(at, top.size - at);
    let count = own.length;
    if (!own.allocated) {
      count = Math.min(count, PART);
      await keepPart(top, behind, at, [buffers[0].subarray(0, count), buffers[1].subarray(0, count)]);
    }
    at += count;
    progress(at);
  }
}

async function keepPart(
  top: BlockNode,
  behind: BlockNode | null,
  at: number,
  [now, then]: readonly [Uint8Array, Uint8Array],
): Promise<void> {
  const extent = await chainStatus(top, at, now.length);
  const wasZero = extent.zero && extent.length === now.length;
  if (wasZero && behind === null) return;
  await top.read(at, now);
  then.fill(0);
  const there = behind === null ? 0 : Math.max(0, Math.min(then.length, behind.size - at));
  if (there > 0) await behind!.read(at, then.subarray(0, there));
  for (let from = 0; from < now.length; ) {
    if (same(now, then, from)) {
      from += 512;
      continue;
    }
    let end = from + 512;
    while (end < now.length && !same(now, then, end)) end += 512;
    const part = now.subarray(from, Math.min(end, now.length));
    await top.write(at + from, part);
    from = end;
  }
}

function same(a: Uint8Array, b: Uint8Array, from: number): boolean {
  const end = Math.min(a.length, from + 512);
  for (let i = from; i < end; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Backing chains: an image as its guest sees it, and where each part of it comes from. */
import type { BlockNode, Extent } from './node.ts';
import { type Maybe, run, type Task, wait } from './task.ts';

/** An extent, and how far below the top it was found. */
export type ChainExtent = Extent & { readonly depth: number };

/** The first node below filters. */
export function skipFilters(node: BlockNode): BlockNode {
  let at = node;
  while (at.isFilter && at.file !== null) at = at.file;
  return at;
}

/** The image itself, then its backing file, and so on. */
export function chainOf(node: BlockNode): BlockNode[] {
  const chain: BlockNode[] = [];
  for (let at: BlockNode | null = skipFilters(node); at !== null; at = at.backing === null ? null : skipFilters(at.backing)) {
    chain.push(at);
  }
  return chain;
}

/**
 * @param base where to stop: what only it and those below have is not allocated; null for the whole chain
 * @param intoFile data that are a hole of the file are zeros, too
 * @returns what the guest finds at an offset
 */
export function chainStatus(
  node: BlockNode,
  offset: number,
  length: number,
  base: BlockNode | null = null,
  intoFile = false,
): Maybe<ChainExtent> {
  return run(statusTask(node, offset, length, base, intoFile));
}

function* statusTask(node: BlockNode, offset: number, length: number, base: BlockNode | null, into: boolean): Task<ChainExtent> {
  let count = length;
  let at = skipFilters(node);
  for (let depth = 0; ; depth++) {
    if (offset >= at.size) return { ...none(count), zero: true, depth };
    const found = yield* wait(at.status(offset, Math.min(count, at.size - offset)));
    if (found.allocated) return { ...(into ? yield* refine(found) : found), depth };
    // What lies beyond the end of a shorter backing file is none of its.
    const below = at.backing === null ? null : skipFilters(at.backing);
    count = found.length;
    if (below === null || below === base) return { ...found, ...none(count), zero: below === null, depth };
    at = below;
    if (offset < at.size) count = Math.min(count, at.size - offset);
  }
}

const none = (length: number): Extent => ({ length, data: false, zero: false, allocated: false, offset: null, file: null });

function* refine(found: Extent): Task<Extent> {
  if (!found.data || found.offset === null || found.file === null) return found;
  const { file } = found;
  if (file.file !== null || found.offset >= file.size) return found;
  const below = yield* wait(file.status(found.offset, found.length));
  return { ...found, length: Math.min(found.length, below.length), zero: below.zero };
}

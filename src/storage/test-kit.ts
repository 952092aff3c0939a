/** What tests of storage share: QEMU's own tools, temporary folders, data that is the same every time. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { gather, type Pieces, scatter } from '../host/pieces.ts';
import { Graph, HOW } from './graph.ts';
import type { BlockNode } from './node.ts';

const present = (tool: string): boolean => spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0;

/** For `test`'s options: a reason to skip where QEMU's tools are not installed. */
export const needsQemu: { skip: string | false } = {
  skip: present('qemu-img') && present('qemu-io') ? false : 'qemu-utils is not installed',
};

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'virelay-storage-'));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * What the tool says when the host's count of its CPU time has not moved while it measured key derivation: nothing
 * of the command's, and gone when it is run again.
 */
export const CLOCK_TOO_COARSE = /Unable to get accurate CPU usage/;
const CLOCK_TRIES = 20;

/** Runs a program of QEMU's again when its clock was too coarse. @param run says whether it was */
export function untilMeasured<Result>(run: () => Result, coarse: (result: Result) => boolean): Result {
  let result = run();
  for (let i = 1; i < CLOCK_TRIES && coarse(result); i++) result = run();
  return result;
}

export function qemuImg(...args: string[]): string {
  const { status, stdout, stderr } = untilMeasured(
    () => spawnSync('qemu-img', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }),
    (result) => CLOCK_TOO_COARSE.test(result.stderr),
  );
  if (status !== 0) throw new Error(`qemu-img ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** @returns what it prints @throws Error also where a pattern does not match */
export function qemuIo(image: string, format: string, ...commands: string[]): string {
  return execFileSync('qemu-io', ['-f', format, ...commands.flatMap((one) => ['-c', one]), image], { encoding: 'utf8' });
}

/** Numbers from a seed (mulberry32). */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export const WRITABLE = { ...HOW, writable: true, unmap: true, resize: true };

/** Opens an image, lets something be done with it and closes it. */
export async function using<T>(
  path: string,
  format: string | null,
  how: typeof HOW,
  use: (node: BlockNode) => Promise<T>,
): Promise<T> {
  const graph = new Graph();
  const node = await graph.openImage(path, format, how);
  try {
    return await use(node);
  } finally {
    await graph.close(node);
  }
}

export async function readAll(node: BlockNode): Promise<Uint8Array> {
  const all = new Uint8Array(node.size);
  await node.read(0, all);
  return all;
}

/**
 * Writes, zeros, discards and reads at random, many at a time where they do not overlap, and compares each read
 * with what must be there.
 * @param model what the disk has; changed along
 */
export async function torture(node: BlockNode, model: Uint8Array, seed: number, rounds: number): Promise<void> {
  const next = random(seed);
  for (let round = 0; round < rounds; round++) {
    const slot = Math.floor(node.size / 8 / 512) * 512;
    const jobs: Promise<void>[] = [];
    for (let i = 0; i < 8; i++) jobs.push(step(node, model, i * slot, slot, next));
    await Promise.all(jobs);
    if (next(4) === 0) await node.flush();
  }
}

/** So many bytes in pieces of any length at any place of a memory of their own, last ones first. */
function cut(length: number, next: (below: number) => number): Pieces {
  const sizes: number[] = [];
  for (let left = length; left > 0; left -= sizes.at(-1)!) sizes.push(Math.min(left, 1 + next(length / 2)));
  const lengths = Float64Array.from(sizes);
  const memory = new Uint8Array(length + sizes.length).fill(0xee);
  let end = memory.length;
  const offsets = lengths.map((size) => {
    end -= size + 1;
    return end;
  });
  return { memory, offsets, lengths, count: sizes.length, total: length };
}

async function writeInPieces(node: BlockNode, offset: number, data: Uint8Array, next: (below: number) => number): Promise<void> {
  const pieces = cut(data.length, next);
  scatter(data, pieces);
  await node.writePieces(offset, pieces);
}

async function readInPieces(node: BlockNode, offset: number, into: Uint8Array, next: (below: number) => number): Promise<void> {
  const pieces = cut(into.length, next);
  await node.readPieces(offset, pieces);
  gather(pieces, into);
  const between = pieces.offsets.map((at, i) => at + pieces.lengths[i]!);
  if (between.some((at) => pieces.memory[at] !== 0xee)) throw new Error('a read has written beside its pieces');
}

async function step(
  node: BlockNode,
  model: Uint8Array,
  base: number,
  room: number,
  next: (below: number) => number,
): Promise<void> {
  const most = next(3) === 0 ? room / 512 : 16;
  const length = (1 + next(Math.min(most, room / 512 - 1))) * 512;
  const offset = base + next((room - length) / 512 + 1) * 512;
  const part = model.subarray(offset, offset + length);
  switch (next(6)) {
    case 0:
    case 1:
    case 2: {
      const data = new Uint8Array(length).fill(1 + next(255));
      data[0] = next(256);
      part.set(data);
      await (next(2) === 0 ? node.write(offset, data) : writeInPieces(node, offset, data, next));
      return;
    }
    case 3:
      part.fill(0);
      await node.writeZeroes(offset, length, next(2) === 0);
      return;
    default: {
      const found = new Uint8Array(length);
      await (next(2) === 0 ? node.read(offset, found) : readInPieces(node, offset, found, next));
      const at = found.findIndex((value, i) => value !== part[i]);
      if (at >= 0) throw new Error(`byte ${offset + at} is ${found[at]}, not ${part[at]}`);
    }
  }
}

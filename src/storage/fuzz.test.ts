/**
 * Images that lie: bytes of valid ones are changed at random, mostly in headers and tables. Whatever an image says, there
 * is a clear error or a disk; nothing hangs, reads outside of the file or takes memory that a header merely claims.
 * By hand: `node src/storage/fuzz.test.ts --cases 100000 --seed 5`.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Completion } from '../machine/interfaces.ts';
import { findCreation, newFile, openFile, parseCreateOptions } from './create.ts';
import { Graph, HOW } from './graph.ts';
import { MemoryNode } from './memory.ts';
import { random, temporaryFolder, using, WRITABLE } from './test-kit.ts';

const MIB = 2 ** 20;
const SIZE = 4 * MIB;
/** Bounds that no image of a few megabytes has a reason to exceed. */
const MAX_OPERATIONS = 50_000;
const MAX_TRANSFER = 40 * MIB;
const MAX_FILE = 2 ** 31;
const MAX_READ = 2 * MIB;

const numberAfter = (name: string, otherwise: number): number => {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
};
const CASES = numberAfter('--cases', 120);
const SEED = numberAfter('--seed', 1);

/** A file that watches what is done with it. */
class Watched extends MemoryNode {
  operations = 0;

  private watch(offset: number, length: number): void {
    if (++this.operations > MAX_OPERATIONS) throw new Error('HANG: more operations than an image can need');
    if (!Number.isSafeInteger(offset) || offset < 0) assert.fail(`an operation at offset ${offset}`);
    if (length > MAX_TRANSFER) assert.fail(`an operation of ${length} bytes`);
  }

  override read(offset: number, into: Uint8Array): Completion {
    this.watch(offset, into.length);
    return super.read(offset, into);
  }

  override write(offset: number, from: Uint8Array): Completion {
    this.watch(offset, from.length);
    if (offset + from.length > MAX_FILE) throw Object.assign(new Error('No space left on device'), { code: 'ENOSPC' });
    // Far beyond the end, as sparse files have it: nobody reads that back here.
    if (offset + from.length > 64 * MIB) return undefined;
    return super.write(offset, from);
  }

  override writeZeroes(offset: number, length: number): Completion {
    this.watch(offset, 0);
    if (offset + length > 64 * MIB) return undefined;
    return super.writeZeroes(offset, length);
  }

  override resize(size: number): void {
    if (size > MAX_FILE) throw Object.assign(new Error('No space left on device'), { code: 'ENOSPC' });
    if (size <= 64 * MIB) super.resize(size);
  }
}

const SHAPES: readonly (readonly [format: string, options: string])[] = [
  ['qcow2', ''],
  ['qcow2', 'cluster_size=512,refcount_bits=1'],
  ['qcow2', 'extended_l2=on,cluster_size=16k,compression_type=zstd'],
  ['qcow2', 'compat=0.10'],
  ['qed', 'cluster_size=4k'],
  ['vdi', ''],
  ['vmdk', ''],
  ['vpc', ''],
  ['vhdx', 'block_size=1M'],
  ['parallels', 'cluster_size=64k'],
  ['luks', 'key-secret=s,iter-time=1'],
];
const folder = temporaryFolder();
const secrets = new Map([['s', new TextEncoder().encode('abc')]]);

/** Where an image is made that needs nothing but its file. */
const placeOf = (filename: string) => ({
  filename,
  secrets,
  newFile,
  openFile,
  reopen: () => Promise.reject(new Error('not needed')),
});

/** A valid image with data, zeros, and in qcow2 a snapshot, compressed clusters and a bitmap. */
async function sample(format: string, options: string): Promise<Uint8Array> {
  const path = join(folder, `${format}-${options.replaceAll(/[^a-z0-9]/g, '-')}`);
  const creation = await findCreation(format, []);
  const given = new Map(options === '' ? [] : options.split(',').map((one) => one.split('=') as [string, string]));
  const values = { ...parseCreateOptions(creation, given), size: SIZE };
  await creation.create(values, placeOf(path));
  if (format === 'luks') return new Uint8Array(readFileSync(path));
  await using(path, format, { ...WRITABLE, immediate: true }, async (node) => {
    await node.write(0, new Uint8Array(200_704).fill(1));
    await node.writeZeroes(MIB, 65536, false);
    if (format !== 'qcow2') return;
    if (options.includes('refcount_bits=1')) return;
    const { createSnapshot } = await import('./qcow2/snapshots.ts');
    const qcow2 = node as import('./qcow2/node.ts').Qcow2Node;
    const now = { seconds: 0, nanoseconds: 0, vmStateSize: 0, vmClock: 0n, icount: null };
    await createSnapshot(qcow2, { name: 'one', ...now });
    await node.write(65536, new Uint8Array(65536).fill(2));
    await node.writeCompressed(2 * MIB, new Uint8Array(65536).fill(3));
    if (options.includes('compat')) return;
    const { changeBitmap } = await import('./qcow2/bitmaps.ts');
    await changeBitmap(qcow2, 'b', { kind: 'add', granularity: null, disabled: false });
  });
  return new Uint8Array(readFileSync(path));
}

/** Where headers and tables are, more or less: sectors that are not empty and not filled with data. */
function interesting(bytes: Uint8Array): number[] {
  const found: number[] = [];
  for (let at = 0; at < bytes.length; at += 512) {
    const sector = bytes.subarray(at, at + 512);
    const first = sector[0]!;
    if (!sector.every((value) => value === first)) found.push(at);
  }
  return found;
}

const VALUES = [0, 1, 0x7f, 0x80, 0xff];

function mutate(bytes: Uint8Array, places: readonly number[], next: (below: number) => number): Uint8Array {
  const changed = bytes.slice();
  for (let i = 1 + next(4); i > 0; i--) {
    const sector = next(3) === 0 ? 0 : places[next(places.length)]!;
    const at = sector + next(next(2) === 0 ? 112 : 512);
    const width = [1, 1, 2, 4, 8][next(5)]!;
    const value = next(3) === 0 ? next(256) : VALUES[next(VALUES.length)]!;
    for (let k = 0; k < width && at + k < changed.length; k++) changed[at + k] = value;
  }
  return next(12) === 0 ? changed.slice(0, next(changed.length)) : changed;
}

/** Errors that a program makes, not an image. */
const isBug = (error: unknown): boolean =>
  !(error instanceof Error) ||
  error instanceof TypeError ||
  error instanceof RangeError ||
  error instanceof assert.AssertionError ||
  /HANG/.test(error.message) ||
  error.message === '';

async function tolerate(act: () => unknown): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (isBug(error)) throw error;
  }
}

async function exercise(format: string, bytes: Uint8Array): Promise<void> {
  for (const [writable, immediate] of [
    [false, true],
    [true, false],
  ] as const) {
    const graph = new Graph();
    graph.add(new Watched(bytes.slice(), false), 'hostile');
    const how = { ...HOW, writable, immediate, unmap: true, resize: true, noBacking: true, repairing: false, secrets };
    const more = format === 'luks' ? { 'key-secret': 's' } : {};
    await tolerate(async () => {
      const node = await graph.open({ driver: format, file: 'hostile', ...more }, how);
      await tolerate(() => node.info());
      await tolerate(async () => {
        for (let at = 0, i = 0; at < node.size && i < 200; i++) at += (await node.status(at, node.size - at)).length;
      });
      for (let at = 0; at < Math.min(node.size, MAX_READ); at += 65536) {
        await tolerate(() => node.read(at, new Uint8Array(Math.min(65536, node.size - at))));
      }
      // Requests are within the size, as devices see to.
      const fits = (end: number): boolean => writable && end <= node.size;
      if (fits(65536 + 70_144)) await tolerate(() => node.write(65536, new Uint8Array(70_144).fill(9)));
      if (fits(3 * MIB + 4096)) await tolerate(() => node.write(3 * MIB, new Uint8Array(4096).fill(8)));
      if (fits(131_072)) await tolerate(() => node.writeZeroes(0, 131_072, true));
      if (fits(2 * MIB)) await tolerate(() => node.discard(MIB, MIB));
      if (writable) await tolerate(() => node.flush());
      await tolerate(() => node.check(writable ? 'all' : 'none', () => undefined));
      await tolerate(() => graph.close(node));
    });
  }
}

for (const [format, options] of SHAPES) {
  test(`${format} images that lie (${options || 'as usual'})`, async () => {
    const bytes = await sample(format, options);
    await exercise(format, bytes);
    const places = interesting(bytes);
    // Each look at a key takes its time on purpose.
    const cases = format === 'luks' ? CASES / 10 : CASES;
    for (let i = 0; i < cases; i++) {
      const next = random(SEED * 1_000_003 + i);
      const before = process.memoryUsage().arrayBuffers;
      try {
        await exercise(format, mutate(bytes, places, next));
        assert.ok(process.memoryUsage().arrayBuffers - before < 512 * MIB, 'memory that nothing asked for');
      } catch (error) {
        throw new Error(`case ${i} of seed ${SEED}: ${(error as Error).stack}`);
      }
    }
  });
}

test('descriptors of VMDKs that lie', async () => {
  const { parseDescriptor } = await import('./vmdk-descriptor.ts');
  const text =
    '# Disk DescriptorFile\nversion=1\nCID=123a\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2048 FLAT "a-flat.vmdk" 0\n';
  for (let i = 0; i < 20 * CASES; i++) {
    const next = random(i);
    const letters = [...text];
    for (let k = 1 + next(6); k > 0; k--) letters[next(letters.length)] = '\0"= \n9-Z#'[next(9)]!;
    await tolerate(() => parseDescriptor(letters.join('')));
  }
});

test('a chain of backing files that leads back to itself is refused', async () => {
  const [a, b] = [join(folder, 'loop-a'), join(folder, 'loop-b')];
  const creation = await findCreation('qcow2', []);
  for (const [path, behind] of [
    [a, b],
    [b, a],
  ] as const) {
    const values = { ...parseCreateOptions(creation, new Map()), size: MIB, backing_file: behind, backing_fmt: 'qcow2' };
    await creation.create(values, placeOf(path));
  }
  await assert.rejects(
    using(a, 'qcow2', HOW, async () => undefined),
    /infinite loop/,
  );
  // By options, too.
  const c = join(folder, 'loop-c');
  const options = JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: c } });
  const values = { ...parseCreateOptions(creation, new Map()), size: MIB, backing_file: `json:${options}` };
  await creation.create(values, placeOf(c));
  await assert.rejects(
    using(c, 'qcow2', HOW, async () => undefined),
    /infinite loop/,
  );
});

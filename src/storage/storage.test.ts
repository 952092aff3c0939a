import assert from 'node:assert/strict';
import { constants, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Graph, HOW } from './graph.ts';
import { MemoryNode } from './memory.ts';
import { isZero } from './node.ts';
import { MemoryOverlay } from './overlay.ts';
import { ErrorPolicy } from './policy.ts';
import { RawNode } from './raw.ts';

const folder = mkdtempSync(join(tmpdir(), 'virelay-storage-'));
after(() => rmSync(folder, { recursive: true }));

function file(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** What an open file of this process is, or nothing where it has just been closed. */
function linkTo(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

test('a last sector that is not whole reads as if zeros followed', async () => {
  const graph = new Graph();
  const raw = await graph.openImage(file('odd', new Uint8Array(700).fill(7)), 'raw', HOW);
  assert.equal(raw.size, 1024);
  const sector = new Uint8Array(512).fill(9);
  await raw.read(512, sector);
  assert.deepEqual([sector[187], sector[188], sector[511]], [7, 0, 0]);
  await graph.close(raw);
});

test('operations are over when they return where runs are to repeat; otherwise the host takes its time', async () => {
  const path = file('modes', new Uint8Array(1 << 21));
  for (const immediate of [true, false]) {
    const graph = new Graph();
    const raw = await graph.openImage(path, 'raw', { ...HOW, writable: true, immediate });
    const pending = [raw.read(0, new Uint8Array(1 << 21)), raw.write(0, new Uint8Array(1 << 21)), raw.flush()];
    assert.deepEqual(
      pending.map((one) => one instanceof Promise),
      [!immediate, !immediate, !immediate],
    );
    await Promise.all(pending);
    await graph.close(raw);
  }
});

test('pieces are read to the end of a file, and as zeros beyond it, however the file is accessed', async () => {
  const path = file(
    'pieces',
    Uint8Array.from({ length: 1300 }, (_, i) => i % 251),
  );
  const want = new Uint8Array(1536);
  want.set(readFileSync(path));
  for (const how of [HOW, { ...HOW, immediate: true }, { ...HOW, direct: true }]) {
    const graph = new Graph();
    const raw = await graph.openImage(path, 'raw', how);
    const memory = new Uint8Array(4096).fill(0xee);
    const lengths = Float64Array.of(100, 1000, 436);
    await raw.readPieces(0, { memory, offsets: Float64Array.of(3000, 7, 2000), lengths, count: 3, total: 1536 });
    const found = [memory.subarray(3000, 3100), memory.subarray(7, 1007), memory.subarray(2000, 2436)];
    assert.deepEqual(Buffer.concat(found), Buffer.from(want));
    assert.deepEqual([memory[6], memory[1007], memory[1999], memory[2436]], [0xee, 0xee, 0xee, 0xee]);
    await graph.close(raw);
  }
});

test('an image and its file share a cache, and the file has options of its own', async () => {
  const path = file('cached', new Uint8Array(4096));
  const open = async (more: Record<string, unknown>): Promise<unknown> => {
    const graph = new Graph();
    const raw = await graph.openImage(path, 'raw', { ...HOW, writable: true }, more);
    const flags = readdirSync('/proc/self/fd')
      .filter((fd) => linkTo(fd) === path)
      .map((fd) => Number.parseInt(/flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!, 8));
    const flushing = raw.flush();
    await flushing;
    await graph.close(raw);
    return { direct: flags.some((set) => (set & constants.O_DIRECT) !== 0), stable: flushing instanceof Promise };
  };
  assert.deepEqual(await open({}), { direct: false, stable: true });
  assert.deepEqual(await open({ cache: { direct: true } }), { direct: true, stable: true });
  assert.deepEqual(await open({ cache: { 'no-flush': 'on' } }), { direct: false, stable: false });
  assert.deepEqual(await open({ file: { cache: { 'no-flush': true } } }), { direct: false, stable: false });
  await assert.rejects(open({ file: 'another' }), /is named, and so is the node 'another'/);
  await assert.rejects(open({ file: { bogus: 1 } }), /'file' doesn't support the option 'bogus'/);
});

test('a part of a file is a disk of its own', async () => {
  const path = file(
    'part',
    new Uint8Array(4096).map((_, i) => i >> 9),
  );
  const graph = new Graph();
  const raw = await graph.open(
    { driver: 'raw', offset: '1k', size: 1024, file: { driver: 'file', filename: path } },
    { ...HOW, writable: true },
  );
  const sector = new Uint8Array(512);
  await raw.read(512, sector);
  assert.deepEqual([raw.size, sector[0]], [1024, 3]);
  await raw.write(0, new Uint8Array(512).fill(99));
  await graph.close(raw);
  assert.deepEqual([readFileSync(path)[1023], readFileSync(path)[1024]], [1, 99]);
});

test('what was guessed to be raw is not turned into another format by its guest', async () => {
  const graph = new Graph();
  const raw = await graph.openImage(file('guess', new Uint8Array(4096)), null, { ...HOW, writable: true });
  assert.throws(
    () =>
      raw.write(
        0,
        new Uint8Array(512).fill(0).map((_, i) => [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3][i] ?? 0),
      ),
    /guessed raw/,
  );
  await raw.write(0, new Uint8Array(512).fill(1));
  await graph.close(raw);
});

test('options are checked by the schema of their driver', async () => {
  const open = (given: Record<string, unknown>) => new Graph().open(given, HOW);
  await assert.rejects(open({ driver: 'file' }), /Parameter 'filename' is missing/);
  await assert.rejects(open({ driver: 'nope' }), /Unknown driver 'nope'/);
  await assert.rejects(open({ driver: 'null-co', size: '1Q' }), /Parameter 'size' expects/);
  await assert.rejects(open({ driver: 'null-co', bogus: '1' }), /does.* support the option 'bogus'/);
  await assert.rejects(open({ driver: 'null-co', 'read-only': 'perhaps' }), /'read-only' expects 'on' or 'off'/);
  await assert.rejects(open({ driver: 'raw', file: 'nobody' }), /node-name='nobody'/);
});

test('an overlay keeps writes to itself', async () => {
  const base = new MemoryNode(
    new Uint8Array(204_800).map((_, i) => i % 251),
    false,
  );
  const overlay = new MemoryOverlay(base);
  assert.equal(overlay.size, base.size);
  // Across the border of two clusters.
  await overlay.write(65024, new Uint8Array(1024).fill(255));
  const read = new Uint8Array(2048);
  await overlay.read(64512, read);
  assert.deepEqual([read[0], read[511], read[512], read[1535], read[1536]], [64512 % 251, 65023 % 251, 255, 255, 66048 % 251]);
  const under = new Uint8Array(512);
  await base.read(65024, under);
  assert.equal(under[0], 65024 % 251);
});

test('an overlay over a slow node loses no write', async () => {
  class Slow extends RawNode {
    override async read(offset: number, into: Uint8Array): Promise<void> {
      await new Promise((resolve) => setImmediate(resolve));
      await super.read(offset, into);
    }
  }
  const slow = new MemoryOverlay(
    new Slow(new MemoryNode(new Uint8Array(204_800).fill(3), false), 0, null, { writable: false, probed: false }),
  );
  await Promise.all([slow.write(65024, new Uint8Array(1024).fill(8)), slow.write(512, new Uint8Array(512).fill(9))]);
  const read = new Uint8Array(131072);
  await slow.read(0, read);
  assert.deepEqual([read[0], read[512], read[65024], read[66047], read[66048]], [3, 9, 8, 8, 3]);
});

test('what fails is told, kept quiet, or tried again when the machine goes on', async () => {
  const broken = new MemoryNode(new Uint8Array(512), true);
  await assert.rejects(
    async () => new ErrorPolicy(broken, 'report', 'report', () => undefined).write(0, new Uint8Array(512)),
    /read-only/,
  );
  await new ErrorPolicy(broken, 'report', 'ignore', () => undefined).write(0, new Uint8Array(512));
  let stopped = 0;
  const stopping = new ErrorPolicy(broken, 'report', 'stop', () => stopped++);
  const writing = stopping.write(0, new Uint8Array(512).fill(5));
  assert.equal(stopped, 1);
  broken.readOnly = false;
  stopping.retry();
  await writing;
  const read = new Uint8Array(512);
  broken.read(0, read);
  assert.equal(read[0], 5);
});

test('zeros are told from everything else at every place', () => {
  for (const length of [0, 1, 7, 8, 9, 512, 515]) {
    const bytes = new Uint8Array(length + 3).subarray(3);
    assert.ok(isZero(bytes));
    for (let i = 0; i < length; i++) {
      // The sign bit alone is minus zero as a floating-point number.
      bytes[i] = 0x80;
      assert.ok(!isZero(bytes), `${i} of ${length}`);
      bytes[i] = 0;
    }
  }
});

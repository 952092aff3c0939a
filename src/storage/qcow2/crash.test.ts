/** A process that writes to an image is killed at any moment. By hand: `node src/storage/qcow2/crash.test.ts --times 200`. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { HOW } from '../graph.ts';
import { needsQemu, qemuImg, random, readAll, temporaryFolder, using } from '../test-kit.ts';
import { BLOCK, roundOf } from './test-crash-writer.ts';

const WRITER = fileURLToPath(new URL('./test-crash-writer.ts', import.meta.url));
const IMG = fileURLToPath(new URL('../../cli/img-main.ts', import.meta.url));
const argument = process.argv.indexOf('--times');
const TIMES = argument < 0 ? 6 : Number(process.argv[argument + 1]);
const SIZE = 16 * 2 ** 20;
const SHAPES = [
  'cluster_size=4k',
  'cluster_size=64k',
  'cluster_size=4k,lazy_refcounts=on',
  'extended_l2=on,cluster_size=16k',
  'compat=0.10',
  'cluster_size=512,refcount_bits=64',
];

/** @returns the last round that was flushed */
async function writeAndKill(path: string, seed: number, after: number): Promise<number> {
  const child = spawn(process.execPath, ['--no-warnings', WRITER, path, String(seed)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => {
    // The first round is over: from now on any moment will do.
    if (out === '') setTimeout(() => child.kill('SIGKILL'), after);
    out += chunk.toString();
  });
  await new Promise((resolve) => child.once('close', resolve));
  return Number(out.trimEnd().split('\n').at(-1) ?? 0);
}

/** What a block may have after the last flushed round: that round's, or what the one under way was writing. */
function checkData(data: Uint8Array, seed: number, last: number): void {
  const blocks = data.length / BLOCK;
  const flushed = new Map<number, { round: number; kind: string }>();
  for (let round = 1; round <= last; round++)
    for (const { block, kind } of roundOf(seed, round, blocks)) flushed.set(block, { round, kind });
  const underWay = new Map(roundOf(seed, last + 1, blocks).map(({ block, kind }) => [block, kind]));
  for (let block = 0; block < blocks; block++) {
    const { round, kind } = flushed.get(block) ?? { round: 0, kind: 'zero' };
    // A discard of less than a cluster changes nothing.
    if (kind === 'discard' || underWay.has(block)) continue;
    const found = new Uint32Array(data.buffer, data.byteOffset + block * BLOCK, BLOCK / 4);
    const expected = kind === 'write' ? round : 0;
    assert.ok(
      found.every((value) => value === expected),
      `block ${block}: ${found[0]} instead of ${expected}, last round ${last}`,
    );
  }
}

for (let i = 0; i < TIMES; i++) {
  const shape = SHAPES[i % SHAPES.length]!;
  test(`killed while it writes (${shape}, ${i}): nothing is corrupt, and what was flushed is there`, needsQemu, async (t) => {
    const path = join(temporaryFolder(), 'crash.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-o', shape, path, String(SIZE));
    const seed = TIMES > SHAPES.length ? Date.now() % 1_000_000 : i;
    const last = await writeAndKill(path, seed, random(seed)(150));
    t.diagnostic(`seed ${seed}, ${last} rounds`);
    if (!shape.includes('lazy')) {
      // 3 stands for leaks, which are all that may be there.
      const theirs = spawnSync('qemu-img', ['check', path], { encoding: 'utf8' });
      assert.ok(theirs.status === 0 || theirs.status === 3, theirs.stdout + theirs.stderr);
      const ours = spawnSync(process.execPath, ['--no-warnings', IMG, 'check', path], { encoding: 'utf8' });
      assert.equal(ours.status, theirs.status, ours.stdout + ours.stderr);
    }
    await using(path, 'qcow2', HOW, async (node) => checkData(await readAll(node), seed, last));
    // Repairs, where the dirty bit asks for them, or leaks are.
    const repaired = spawnSync(process.execPath, ['--no-warnings', IMG, 'check', '-q', '-r', 'all', path], { encoding: 'utf8' });
    assert.equal(repaired.status, 0, repaired.stdout + repaired.stderr);
    assert.match(qemuImg('check', path), /^No errors/);
    await using(path, 'qcow2', HOW, async (node) => checkData(await readAll(node), seed, last));
  });
}

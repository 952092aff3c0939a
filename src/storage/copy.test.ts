import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CopyOptions, PLAIN_COPY, copyDisk } from './copy.ts';
import { MemoryNode } from './memory.ts';

const MIB = 2 ** 20;
const LENGTH = 24 * MIB;
const OPTIONS: CopyOptions = { ...PLAIN_COPY, length: LENGTH, targetIsZero: true, sparse: 4096, parallel: 8 };

/** Answers late, the first of several requests last. */
class Slow extends MemoryNode {
  most = 0;
  bad = Infinity;
  private underWay = 0;

  override async read(offset: number, into: Uint8Array): Promise<void> {
    this.most = Math.max(this.most, ++this.underWay);
    await new Promise((resolve) => setTimeout(resolve, 12 - (this.underWay % 4) * 2));
    this.underWay--;
    if (offset >= this.bad) throw new Error('bad sector');
    await super.read(offset, into);
  }
}

class Target extends MemoryNode {
  readonly offsets: number[] = [];

  override write(offset: number, from: Uint8Array): ReturnType<MemoryNode['write']> {
    this.offsets.push(offset);
    return super.write(offset, from);
  }
}

function disks(): { source: Slow; from: Uint8Array; target: Target; to: Uint8Array } {
  const from = new Uint8Array(LENGTH);
  // Every third MiB is zeros.
  for (let at = 0; at < LENGTH; at++) from[at] = Math.floor(at / MIB) % 3 === 2 ? 0 : (at >> 12) % 255 || 1;
  const to = new Uint8Array(LENGTH);
  return { source: new Slow(from, true), from, target: new Target(to, false), to };
}

test('a slow source is asked for more parts at a time, and what it answers is written in order', async () => {
  const { source, from, target, to } = disks();
  await copyDisk(source, target, OPTIONS);
  assert.ok(Buffer.from(from).equals(to));
  assert.equal(target.offsets.length, 16);
  assert.deepEqual(
    target.offsets,
    target.offsets.toSorted((a, b) => a - b),
  );
  assert.ok(source.most > 3 && source.most <= 8, String(source.most));
});

test('what cannot be read ends a copy, with the place, when all that was under way has ended', async () => {
  const { source, target, to } = disks();
  source.bad = 9 * MIB;
  await assert.rejects(copyDisk(source, target, OPTIONS), /^Error: error while reading at byte \d+: bad sector$/);
  assert.ok(to.subarray(9 * MIB).every((byte) => byte === 0));
});

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { gather } from '../../host/pieces.ts';
import { HOW } from '../graph.ts';
import { needsQemu, qemuImg, qemuIo, readAll, temporaryFolder, torture, using, WRITABLE } from '../test-kit.ts';

const folder = temporaryFolder();
const MIB = 2 ** 20;

const SHAPES: readonly string[] = [
  'compat=1.1',
  'compat=0.10',
  'cluster_size=512',
  'cluster_size=2M',
  'cluster_size=4k,refcount_bits=1',
  'cluster_size=16k,refcount_bits=64',
  'lazy_refcounts=on',
  'extended_l2=on,cluster_size=16k',
  'preallocation=metadata',
];

for (const shape of SHAPES) {
  for (const immediate of [false, true]) {
    test(
      `an image of QEMU's (${shape}) is written to, ${immediate ? 'at once' : 'many requests at a time'}`,
      needsQemu,
      async () => {
        const path = join(folder, `${shape}-${immediate}.qcow2`);
        qemuImg('create', '-q', '-f', 'qcow2', '-o', shape, path, '8M');
        const model = new Uint8Array(8 * MIB);
        await using(path, 'qcow2', { ...WRITABLE, immediate }, (node) => torture(node, model, 7, 60));
        assert.match(qemuImg('check', path), /^No errors were found/);
        await using(path, 'qcow2', HOW, async (node) => assert.ok(Buffer.compare(await readAll(node), model) === 0));
        const raw = `${path}.raw`;
        qemuImg('convert', '-O', 'raw', path, raw);
        await using(raw, 'raw', HOW, async (node) => assert.ok(Buffer.compare(await readAll(node), model) === 0));
      },
    );
  }
}

for (const shape of ['compat=1.1', 'compat=0.10', 'extended_l2=on,cluster_size=16k']) {
  test(`a backing file shows through until it is written over (${shape})`, needsQemu, async () => {
    const base = join(folder, `base-${shape}.qcow2`);
    const top = join(folder, `top-${shape}.qcow2`);
    qemuImg('create', '-q', '-f', 'qcow2', base, '3M');
    qemuIo(base, 'qcow2', 'write -P 7 0 3M');
    qemuImg('create', '-q', '-f', 'qcow2', '-o', shape, '-b', base, '-F', 'qcow2', top, '8M');
    const model = new Uint8Array(8 * MIB).fill(7, 0, 3 * MIB);
    await using(top, 'qcow2', WRITABLE, (node) => torture(node, model, 11, 60));
    assert.match(qemuImg('check', top), /^No errors were found/);
    const raw = `${top}.raw`;
    qemuImg('convert', '-O', 'raw', top, raw);
    await using(raw, 'raw', HOW, async (node) => assert.ok(Buffer.compare(await readAll(node), model) === 0));
    assert.match(qemuIo(base, 'qcow2', 'read -P 7 0 3M'), /^read 3145728/);
  });
}

for (const type of ['zlib', 'zstd']) {
  test(`compressed clusters (${type}) are read, and written over`, needsQemu, async () => {
    const plain = join(folder, `plain-${type}.raw`);
    const path = join(folder, `packed-${type}.qcow2`);
    qemuImg('create', '-q', '-f', 'raw', plain, '4M');
    qemuIo(plain, 'raw', 'write -P 1 0 1M', 'write -P 2 1M 100k', 'write -P 3 3M 1M');
    qemuImg('convert', '-c', '-O', 'qcow2', '-o', `compression_type=${type}`, plain, path);
    await using(path, 'qcow2', WRITABLE, async (node) => {
      const model = new Uint8Array(await readAll(node));
      assert.deepEqual([model[0], model[MIB], model[2 * MIB], model[3 * MIB]], [1, 2, 0, 3]);
      await torture(node, model, 3, 40);
      assert.ok(Buffer.compare(await readAll(node), model) === 0);
    });
    assert.match(qemuImg('check', path), /^No errors were found/);
  });
}

test('whole clusters from many places are written to new clusters, however these lie', needsQemu, async () => {
  const path = join(folder, 'pieces.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', path, '4M');
  // Every other cluster of the file becomes free again: nothing new lies in a row.
  const holes = Array.from({ length: 64 }, (_, i) => `discard ${i * 8}k 4k`);
  qemuIo(path, 'qcow2', 'write -P 1 0 512k', ...holes);
  const memory = new Uint8Array(MIB).map((_, i) => i >> 8);
  const lengths = Float64Array.of(100, 4096, 60000, 131072 - 64196);
  const offsets = Float64Array.of(900_000, 5, 200_000, 400_001);
  const pieces = { memory, offsets, lengths, count: 4, total: 131072 };
  const whole = new Uint8Array(pieces.total);
  gather(pieces, whole);
  await using(path, 'qcow2', WRITABLE, async (node) => {
    // Another write to some of the same clusters waits, and so does one that needs a copy.
    await Promise.all([MIB, MIB + 65536, 3 * MIB, 2 * MIB + 512].map((offset) => node.writePieces(offset, pieces)));
    const bytes = await readAll(node);
    for (const offset of [MIB + 65536, 3 * MIB, 2 * MIB + 512]) {
      assert.ok(Buffer.compare(bytes.subarray(offset, offset + whole.length), whole) === 0, `at ${offset}`);
    }
  });
  assert.match(qemuImg('check', path), /^No errors were found/);
});

test('what is around pieces in their clusters comes from the backing file, for few bytes and for many', needsQemu, async () => {
  const base = join(folder, 'behind-pieces.raw');
  const path = join(folder, 'pieces-over.qcow2');
  qemuImg('create', '-q', '-f', 'raw', base, '4M');
  qemuIo(base, 'raw', 'write -P 5 0 4M');
  qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', path);
  const model = new Uint8Array(4 * MIB).fill(5);
  const memory = new Uint8Array(MIB).map((_, i) => i >> 8);
  const write = async (at: number, total: number): Promise<void> => {
    const lengths = Float64Array.of(1000, total - 1000);
    const pieces = { memory, offsets: Float64Array.of(700_000, 3), lengths, count: 2, total };
    gather(pieces, model.subarray(at, at + total));
    await using(path, 'qcow2', WRITABLE, async (node) => node.writePieces(at, pieces));
  };
  await write(512, 4096);
  await write(MIB + 1024, 300 * 1024);
  await write(2 * MIB, 100 * 1024);
  await write(4 * MIB - 200 * 1024, 200 * 1024);
  await using(path, 'qcow2', HOW, async (node) => assert.ok(Buffer.compare(await readAll(node), model) === 0));
  assert.match(qemuImg('check', path), /^No errors were found/);
});

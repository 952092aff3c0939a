import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
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

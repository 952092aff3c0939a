/** What qcow2 images can do beside keeping data: snapshots, bitmaps, files of data, changing size, repairs. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Graph, HOW } from '../graph.ts';
import { needsQemu, qemuImg, qemuIo, readAll, temporaryFolder, torture, using, WRITABLE } from '../test-kit.ts';
import type { Qcow2Node } from './node.ts';

const folder = temporaryFolder();
const MIB = 2 ** 20;
const SIZE = 8 * MIB;
const place = (name: string): string => join(folder, name);
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

function create(name: string, options: string, ...more: string[]): string {
  qemuImg('create', '-q', '-f', 'qcow2', ...(options === '' ? [] : ['-o', options]), ...more, place(name), String(SIZE));
  return place(name);
}

/** What QEMU reads. */
async function theirs(path: string, ...options: string[]): Promise<Uint8Array> {
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', ...options, path, `${path}.raw`);
  return using(`${path}.raw`, 'raw', HOW, readAll);
}

for (const shape of ['', 'cluster_size=4k', 'extended_l2=on,cluster_size=16k', 'compat=0.10']) {
  test(`snapshots keep what was, while the disk is written to (${shape || 'as usual'})`, needsQemu, async () => {
    const { applySnapshot, createSnapshot, deleteSnapshot } = await import('./snapshots.ts');
    const path = create(`snapshots-${shape}`, shape);
    const now = { seconds: 1, nanoseconds: 2, vmStateSize: 0, vmClock: 3n, icount: null };
    const model = new Uint8Array(SIZE);
    const kept: Uint8Array[] = [];
    await using(path, 'qcow2', WRITABLE, async (node) => {
      for (let i = 0; i < 3; i++) {
        await torture(node, model, 20 + i, 15);
        await createSnapshot(node as Qcow2Node, { name: `s${i}`, ...now });
        kept.push(model.slice());
      }
      await torture(node, model, 30, 15);
    });
    assert.match(qemuImg('check', path), /^No errors/);
    for (const [i, then] of kept.entries()) assert.ok(same(await theirs(path, '-l', `s${i}`), then), `snapshot ${i}`);
    await using(path, 'qcow2', WRITABLE, async (node) => {
      await applySnapshot(node as Qcow2Node, 's1');
      assert.ok(same(await readAll(node), kept[1]!));
      await torture(node, kept[1]!, 31, 15);
      await deleteSnapshot(node as Qcow2Node, 's0');
    });
    assert.match(qemuImg('check', path), /^No errors/);
    assert.ok(same(await theirs(path), kept[1]!));
    assert.ok(same(await theirs(path, '-l', 's2'), kept[2]!));
    // QEMU's own deletion finds everything as it should be.
    qemuImg('snapshot', '-d', 's1', path);
    qemuImg('snapshot', '-d', 's2', path);
    assert.match(qemuImg('check', path), /^No errors/);
  });
}

for (const shape of ['data_file=FILE', 'data_file=FILE,data_file_raw=on', 'data_file=FILE,extended_l2=on,cluster_size=16k']) {
  test(`guest data in a file of their own (${shape})`, needsQemu, async () => {
    const name = shape.replaceAll(/[^a-z0-9]/g, '-');
    const path = create(name, shape.replace('FILE', place(`${name}.data`)));
    const model = new Uint8Array(SIZE);
    await using(path, 'qcow2', WRITABLE, (node) => torture(node, model, 40, 40));
    assert.match(qemuImg('check', path), /^No errors/);
    assert.ok(same(await theirs(path), model));
    if (!shape.includes('raw')) return;
    await using(place(`${name}.data`), 'raw', HOW, async (node) => assert.ok(same(await readAll(node), model)));
  });
}

test('the size changes in both directions, and what comes into being is zero', needsQemu, async () => {
  const path = create('resize', 'cluster_size=4k');
  const model = new Uint8Array(SIZE);
  await using(path, 'qcow2', WRITABLE, async (node) => {
    await torture(node, model, 50, 20);
    await node.write(0, new Uint8Array(SIZE).fill(9));
    await node.resize(3 * MIB + 512, 'off');
    await node.resize(2 * SIZE, 'off');
    const all = await readAll(node);
    assert.ok(all.subarray(0, 3 * MIB + 512).every((value) => value === 9));
    assert.ok(all.subarray(3 * MIB + 512).every((value) => value === 0));
    await torture(node, all, 51, 20);
    assert.ok(same(await readAll(node), all));
    await node.flush();
  });
  assert.match(qemuImg('check', path), /^No errors/);
  // An L1 table that has to grow, and more refcounts than one block has.
  await using(path, 'qcow2', WRITABLE, async (node) => {
    await node.resize(2 ** 40, 'off');
    await node.write(2 ** 40 - 512, new Uint8Array(512).fill(1));
  });
  assert.match(qemuImg('check', path), /^No errors/);
  assert.match(qemuIo(path, 'qcow2', `read -P 1 ${2 ** 40 - 512} 512`), /^read/);
});

test('a bitmap says what has been written since, to QEMU, too', needsQemu, async () => {
  const path = create('bitmap', '');
  qemuImg('bitmap', '--add', '-g', '64k', path, 'b');
  await using(path, 'qcow2', WRITABLE, async (node) => {
    await node.write(MIB, new Uint8Array(512).fill(1));
    await node.writeZeroes(4 * MIB, 200_704, true);
  });
  assert.match(qemuImg('info', path), /flags:\s+\[0\]: auto\s+name: b/);
  const socket = place('bitmap.sock');
  const server = spawn('qemu-nbd', ['-k', socket, '-r', '-f', 'qcow2', '-B', 'b', path], { stdio: 'inherit' });
  while (!existsSync(socket)) await new Promise((resolve) => setTimeout(resolve, 10));
  const options = `driver=nbd,server.type=unix,server.path=${socket},x-dirty-bitmap=qemu:dirty-bitmap:b`;
  const map = JSON.parse(qemuImg('map', '--output=json', '--image-opts', options)) as {
    start: number;
    length: number;
    data: boolean;
  }[];
  await new Promise((resolve) => (server.exitCode === null ? server.once('exit', resolve) : resolve(null)));
  // What is dirty is shown as what is no data there.
  const dirty = map.filter(({ data }) => !data).map(({ start, length }) => [start, length]);
  assert.deepEqual(dirty, [
    [MIB, 65536],
    [4 * MIB, 262_144],
  ]);
  // A run that was cut off leaves a bitmap that nobody trusts.
  const graph = new Graph();
  await graph.openImage(path, 'qcow2', WRITABLE);
  assert.match(qemuImg('info', '-U', path), /in-use/);
  await graph.closeAll();
  assert.doesNotMatch(qemuImg('info', path), /in-use/);
});

test('an image that was being written to with lazy refcounts is repaired when it is opened', needsQemu, async () => {
  const path = create('lazy', 'lazy_refcounts=on');
  // Aborts: nothing is closed.
  try {
    qemuIo(path, 'qcow2', 'write -P 7 0 2M', 'flush', 'abort');
  } catch {
    // As asked for.
  }
  assert.match(qemuImg('info', path), /lazy refcounts: true/);
  await using(path, 'qcow2', WRITABLE, async (node) => {
    await node.write(4 * MIB, new Uint8Array(65536).fill(8));
  });
  assert.match(qemuImg('check', path), /^No errors/);
  assert.match(qemuIo(path, 'qcow2', 'read -P 7 0 2M', 'read -P 8 4M 64k'), /^read/);
});

test('an image that contradicts itself is marked corrupt and left alone', needsQemu, async () => {
  const path = create('corrupt', '');
  qemuIo(path, 'qcow2', 'write -P 1 0 64k');
  // The first entry of the L2 table, which is the fifth cluster, refers to the refcount table.
  qemuIo(path, 'raw', 'write -P 0x80 262144 1', 'write -P 0 262145 7', 'write -P 1 262149 1');
  const lines: string[] = [];
  await using(path, 'qcow2', { ...WRITABLE, warn: (line) => lines.push(line) }, async (node) => {
    await assert.rejects(async () => node.write(0, new Uint8Array(512)), /corrupt/);
    await assert.rejects(async () => node.write(MIB, new Uint8Array(512)), /corrupt/);
  });
  assert.match(lines.join(), /Marking image as corrupt: Preventing invalid write on metadata/);
  await assert.rejects(
    using(path, 'qcow2', WRITABLE, async () => undefined),
    /Image is corrupt; cannot be opened read\/write/,
  );
  assert.match(qemuImg('info', path), /corrupt: true/);
});

test('errors of the file leave a disk that goes on, and an image that is whole', needsQemu, async () => {
  const path = create('errors', 'cluster_size=4k');
  const graph = new Graph();
  const rule = { event: 'write_aio', errno: 28, once: true };
  const file = {
    driver: 'blkdebug',
    image: { driver: 'file', filename: path },
    'inject-error': Array.from({ length: 12 }, () => rule),
  };
  const node = await graph.open({ driver: 'qcow2', file }, WRITABLE);
  let failures = 0;
  for (let i = 0; i < 40; i++) {
    const data = new Uint8Array(20_480).fill(i + 1);
    for (;;) {
      try {
        await node.write(i * 20_480, data);
        await node.flush();
        break;
      } catch (error) {
        assert.match((error as Error).message, /No space left/);
        failures++;
      }
    }
  }
  await graph.close(node);
  assert.equal(failures, 12);
  const report = qemuImg('check', path);
  assert.match(report, /No errors were found/);
  await using(path, 'qcow2', HOW, async (again) => {
    const all = await readAll(again);
    for (let i = 0; i < 40; i++) assert.equal(all[i * 20_480 + 7], i + 1);
  });
});

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { test } from 'node:test';
import { findCreation, newFile, openFile, parseCreateOptions } from './create.ts';
import { Graph, HOW } from './graph.ts';
import { needsQemu, qemuImg, qemuIo, readAll, temporaryFolder, torture, using, WRITABLE } from './test-kit.ts';

const folder = temporaryFolder();
const MIB = 2 ** 20;
const SIZE = 8 * MIB;

/** Formats, and what they are made with; `exact` where the size is what one asks for. */
const SHAPES: readonly (readonly [format: string, options: string])[] = [
  ['vdi', ''],
  ['vdi', 'static=on'],
  ['qed', ''],
  ['qed', 'cluster_size=4k,table_size=2'],
  ['vhdx', ''],
  ['vhdx', 'block_size=1M'],
  ['vhdx', 'subformat=fixed'],
  ['parallels', ''],
  ['parallels', 'cluster_size=64k'],
  ['vpc', 'force_size=on'],
  ['vpc', 'subformat=fixed,force_size=on'],
  ['vmdk', ''],
  ['vmdk', 'zeroed_grain=on'],
  ['vmdk', 'subformat=monolithicFlat'],
  ['vmdk', 'subformat=twoGbMaxExtentSparse'],
  ['vmdk', 'subformat=twoGbMaxExtentFlat'],
];

async function create(format: string, path: string, size: number, options: string): Promise<void> {
  const creation = await findCreation(format, []);
  const given = new Map(options === '' ? [] : options.split(',').map((one) => one.split('=') as [string, string]));
  const reopen = async () => {
    const graph = new Graph();
    const node = await graph.openImage(path, format, WRITABLE);
    return { node, close: () => graph.close(node) };
  };
  await creation.create(
    { ...parseCreateOptions(creation, given), size },
    { filename: path, secrets: new Map(), newFile, openFile, reopen },
  );
}

for (const [format, options] of SHAPES) {
  for (const maker of ['QEMU', 'our own']) {
    test(`${format} (${options || 'as usual'}) of ${maker} making, written to here, is read by both`, needsQemu, async () => {
      const path = join(folder, `${maker}-${format}-${options}.${format}`.replaceAll(/[ ,]/g, '-'));
      if (maker === 'QEMU') qemuImg('create', '-q', '-f', format, ...(options === '' ? [] : ['-o', options]), path, String(SIZE));
      else await create(format, path, SIZE, options);
      const model = new Uint8Array(SIZE);
      await using(path, format, WRITABLE, async (node) => {
        assert.equal(node.size, SIZE);
        await torture(node, model, 5, 40);
      });
      await using(path, null, HOW, async (node) =>
        assert.ok(Buffer.compare((await readAll(node)).subarray(0, SIZE), model) === 0),
      ).catch((error) => {
        // A fixed VHD looks like any disk from its beginning.
        if (!/fixed/.test(options)) throw error;
      });
      const raw = `${path}.raw`;
      qemuImg('convert', '-f', format, '-O', 'raw', path, raw);
      await using(raw, 'raw', HOW, async (node) =>
        assert.ok(Buffer.compare((await readAll(node)).subarray(0, SIZE), model) === 0),
      );
      // What is written there is read here.
      qemuIo(path, format, 'write -P 77 1M 3M', 'write -P 78 512 512');
      model.fill(77, MIB, 4 * MIB).fill(78, 512, 1024);
      await using(path, format, HOW, async (node) =>
        assert.ok(Buffer.compare((await readAll(node)).subarray(0, SIZE), model) === 0),
      );
    });
  }
}

for (const format of ['qed', 'vmdk']) {
  test(`a ${format} over a backing file`, needsQemu, async () => {
    const base = join(folder, `base.${format}`);
    const top = join(folder, `top.${format}`);
    qemuImg('create', '-q', '-f', format, base, String(SIZE));
    qemuIo(base, format, 'write -P 7 0 5M');
    qemuImg('create', '-q', '-f', format, '-b', base, '-F', format, top, String(SIZE));
    const model = new Uint8Array(SIZE).fill(7, 0, 5 * MIB);
    await using(top, format, WRITABLE, (node) => torture(node, model, 9, 40));
    qemuImg('convert', '-f', format, '-O', 'raw', top, `${top}.raw`);
    await using(`${top}.raw`, 'raw', HOW, async (node) => assert.ok(Buffer.compare(await readAll(node), model) === 0));
  });
}

test('stream-optimized VMDKs are read, and made by compressed writes', needsQemu, async () => {
  const plain = join(folder, 'plain.raw');
  qemuImg('create', '-q', '-f', 'raw', plain, '4M');
  qemuIo(plain, 'raw', 'write -P 1 0 1M', 'write -P 2 1M 100k', 'write -P 3 3M 1M');
  const theirs = join(folder, 'theirs.vmdk');
  qemuImg('convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', plain, theirs);
  const ours = join(folder, 'ours.vmdk');
  await create('vmdk', ours, 4 * MIB, 'subformat=streamOptimized');
  await using(plain, 'raw', HOW, async (raw) => {
    const expected = await readAll(raw);
    await using(theirs, null, HOW, async (node) => assert.ok(Buffer.compare(await readAll(node), expected) === 0));
    await using(ours, 'vmdk', WRITABLE, async (node) => {
      for (const at of [0, 65536, MIB, MIB + 65536, 3 * MIB]) {
        assert.equal(await node.writeCompressed(at, expected.subarray(at, at + 65536)), true);
      }
    });
  });
  assert.match(
    qemuIo(ours, 'vmdk', 'read -P 1 0 128k', 'read -P 2 1M 100k', 'read -P 3 3M 64k', 'read -P 0 2M 1M'),
    /^(?!.*Pattern)/s,
  );
});

test('a VHDX that was not closed has its log replayed', needsQemu, async () => {
  const path = join(folder, 'crash.vhdx');
  await create('vhdx', path, SIZE, 'block_size=1M');
  const before = readFileSync(path);
  await using(path, 'vhdx', WRITABLE, async (node) => {
    await node.write(0, new Uint8Array(MIB).fill(5));
    // As after a crash: the log has the entry of the table, which did not get there.
    const crashed = readFileSync(path);
    const table = 2 * MIB;
    before.copy(crashed, table, table, table + 4096);
    writeFileSync(`${path}.crashed`, crashed);
  });
  await assert.rejects(
    using(`${path}.crashed`, 'vhdx', HOW, async () => undefined),
    /not closed/,
  );
  copyFileSync(`${path}.crashed`, `${path}.theirs`);
  assert.match(qemuIo(`${path}.theirs`, 'vhdx', 'read -P 5 0 1M'), /^(?!.*Pattern)/s);
  await using(`${path}.crashed`, 'vhdx', WRITABLE, async (node) => assert.equal((await readAll(node))[MIB - 1], 5));
});

test('LUKS disks pass between both tools', needsQemu, async () => {
  const secrets = new Map([['s', new TextEncoder().encode('abc')]]);
  const object = ['--object', 'secret,id=s,data=abc'];
  const theirs = join(folder, 'theirs.luks');
  qemuImg('create', '-q', '-f', 'luks', ...object, '-o', 'key-secret=s,iter-time=10', theirs, '1M');
  const graph = new Graph();
  const node = await graph.openImage(theirs, 'luks', { ...WRITABLE, secrets }, { 'key-secret': 's' });
  await node.write(512, new Uint8Array(65536).fill(9));
  await graph.close(node);
  const read = (path: string, format: string, options: string): string =>
    execFileSync(
      'qemu-io',
      [...object, '--image-opts', '-c', 'read -P 9 512 64k', `driver=${format},${options},file.filename=${path}`],
      { encoding: 'utf8' },
    );
  assert.match(read(theirs, 'luks', 'key-secret=s'), /^(?!.*Pattern)/s);
  await assert.rejects(
    new Graph().openImage(theirs, 'luks', { ...HOW, secrets: new Map([['s', new Uint8Array(3)]]) }, { 'key-secret': 's' }),
    /Invalid password/,
  );
  const ours = join(folder, 'ours.qcow2');
  const creation = await findCreation('qcow2', []);
  const values = parseCreateOptions(
    creation,
    new Map([
      ['encrypt.format', 'luks'],
      ['encrypt.key-secret', 's'],
      ['encrypt.iter-time', '10'],
    ]),
  );
  await creation.create(
    { ...values, size: MIB },
    { filename: ours, secrets, newFile, openFile, reopen: () => Promise.reject(new Error('not needed')) },
  );
  const disk = await graph.openImage(ours, 'qcow2', { ...WRITABLE, secrets }, { encrypt: { format: 'luks', 'key-secret': 's' } });
  const model = new Uint8Array(MIB);
  await torture(disk, model, 2, 20);
  await disk.write(512, new Uint8Array(65536).fill(9));
  await graph.close(disk);
  assert.match(read(ours, 'qcow2', 'encrypt.format=luks,encrypt.key-secret=s'), /^(?!.*Pattern)/s);
});

/** The same disk in formats that QEMU does not make: sectors of 1, of nothing, of 3, of 4. */
const OLD: Record<string, () => Uint8Array> = {
  bochs: () => {
    const bytes = new Uint8Array(512 + 8 + 2 * (512 + 1024));
    const view = new DataView(bytes.buffer);
    for (const [text, at] of [
      ['Bochs Virtual HD Image', 0],
      ['Redolog', 32],
      ['Growing', 48],
    ] as const) {
      bytes.set(new TextEncoder().encode(text), at);
    }
    [0x20000, 512, 2, 512, 1024].forEach((value, i) => view.setUint32(64 + 4 * i, value, true));
    view.setBigUint64(88, 2048n, true);
    view.setUint32(512, 1, true);
    view.setUint32(516, 0, true);
    const [first, second] = [520 + 1536, 520];
    bytes.set([1], first);
    bytes.fill(1, first + 512, first + 1024);
    bytes.set([3], second);
    bytes.fill(3, second + 512, second + 1024).fill(4, second + 1024, second + 1536);
    return bytes;
  },
  cloop: () => {
    const blocks = [new Uint8Array(1024).fill(1, 0, 512), new Uint8Array(1024).fill(3, 0, 512).fill(4, 512)].map((one) =>
      deflateSync(one),
    );
    const bytes = new Uint8Array(136 + 24 + blocks[0]!.length + blocks[1]!.length);
    const view = new DataView(bytes.buffer);
    bytes.set(new TextEncoder().encode('#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n'));
    view.setUint32(128, 1024);
    view.setUint32(132, 2);
    let at = 160;
    blocks.forEach((block, i) => {
      view.setBigUint64(136 + 8 * i, BigInt(at));
      bytes.set(block, at);
      at += block.length;
    });
    view.setBigUint64(152, BigInt(at));
    return bytes;
  },
  dmg: () => {
    const packed = deflateSync(new Uint8Array(1024).fill(3, 0, 512).fill(4, 512));
    const mish = new Uint8Array(204 + 4 * 40);
    const table = new DataView(mish.buffer);
    table.setUint32(0, 0x6d697368);
    table.setBigUint64(16, 4n);
    table.setUint32(200, 4);
    const chunk = (i: number, type: number, ...longs: number[]): void => {
      table.setUint32(204 + 40 * i, type);
      longs.forEach((value, k) => table.setBigUint64(204 + 40 * i + 8 + 8 * k, BigInt(value)));
    };
    chunk(0, 1, 0, 1, 0, 512);
    chunk(1, 0, 1, 1, 0, 0);
    chunk(2, 0x80000005, 2, 2, 512, packed.length);
    chunk(3, 0xffffffff, 4, 0, 0, 0);
    const list = new TextEncoder().encode(
      `<plist><dict><key>blkx</key><array><dict><data>\n${Buffer.from(mish).toString('base64')}\n</data></dict></array></dict></plist>`,
    );
    const koly = new Uint8Array(512);
    const tail = new DataView(koly.buffer);
    tail.setUint32(0, 0x6b6f6c79);
    tail.setUint32(4, 4);
    tail.setUint32(8, 512);
    tail.setBigUint64(216, BigInt(512 + packed.length));
    tail.setBigUint64(224, BigInt(list.length));
    tail.setBigUint64(492, 4n);
    return new Uint8Array([...new Uint8Array(512).fill(1), ...packed, ...list, ...koly]);
  },
};

for (const [format, make] of Object.entries(OLD)) {
  test(`${format} images are read as QEMU reads them`, needsQemu, async () => {
    const path = join(folder, `old.${format}`);
    writeFileSync(path, make());
    await using(path, null, HOW, async (node) => {
      const all = await readAll(node);
      assert.deepEqual([all.length, ...[0, 511, 512, 1024, 1536, 2047].map((at) => all[at])], [2048, 1, 1, 0, 3, 4, 4]);
    });
    const raw = `${path}.raw`;
    const { status } = spawnSync('qemu-img', ['convert', '-f', format, '-O', 'raw', path, raw], { stdio: 'ignore' });
    // Debian has some of these in packages of their own.
    if (status === 0)
      assert.deepEqual(
        [...readFileSync(raw)].filter((_, i) => i % 512 === 0),
        [1, 0, 3, 4],
      );
  });
}

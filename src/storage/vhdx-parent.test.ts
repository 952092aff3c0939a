/** Differencing VHDX disks, which QEMU has none of: libvhdi is the judge where it is installed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { findCreation, newFile, openFile, parseCreateOptions } from './create.ts';
import { HOW } from './graph.ts';
import { readAll, temporaryFolder, torture, using, WRITABLE } from './test-kit.ts';
import { buildLocator, guidText, parseLocator } from './vhdx-parent.ts';

const MIB = 2 ** 20;
const SIZE = 12 * MIB + 512;
const PYTHON = '/usr/bin/python3';
const hasLibvhdi = spawnSync(PYTHON, ['-c', 'import pyvhdi'], { stdio: 'ignore' }).status === 0;

async function create(path: string, size: number, options: Record<string, string>): Promise<void> {
  const creation = await findCreation('vhdx', []);
  const values = { ...parseCreateOptions(creation, new Map(Object.entries(options))), size };
  const reopen = () => Promise.reject(new Error('not needed'));
  await creation.create(values, { filename: path, secrets: new Map(), newFile, openFile, reopen });
}

/** A parent with something on it, and a child of it. */
async function family(): Promise<{ parent: string; child: string; model: Uint8Array }> {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'below'));
  const [parent, child] = [join(folder, 'below', 'parent.vhdx'), join(folder, 'child.vhdx')];
  const model = new Uint8Array(SIZE);
  await create(parent, SIZE, { block_size: String(MIB) });
  await using(parent, 'vhdx', WRITABLE, (node) => torture(node, model, 3, 10));
  await create(child, SIZE, { backing_file: 'below/parent.vhdx', backing_fmt: 'vhdx', block_size: String(MIB) });
  return { parent, child, model };
}

/** @returns what libvhdi reads */
function judged(t: TestContext, child: string, parent: string): Uint8Array | null {
  if (!hasLibvhdi) {
    t.diagnostic('libvhdi is not installed: nobody else has read the image');
    return null;
  }
  const program = `
import pyvhdi, sys
child, parent = pyvhdi.file(), pyvhdi.file()
child.open(sys.argv[1]); parent.open(sys.argv[2])
child.set_parent(parent)
sys.stdout.buffer.write(child.read_buffer_at_offset(child.get_media_size(), 0))
`;
  const { status, stdout, stderr } = spawnSync(PYTHON, ['-c', program, child, parent], { maxBuffer: 64 * MIB });
  assert.equal(status, 0, stderr.toString());
  return stdout;
}

const same = (a: Uint8Array, b: Uint8Array, what: string): void => assert.ok(Buffer.compare(a, b) === 0, what);

test('a child shows its parent, and keeps what is written to it', async (t) => {
  const { parent, child, model } = await family();
  const before = readFileSync(parent);
  await using(child, null, HOW, async (node) => {
    assert.equal(node.driver, 'vhdx');
    assert.equal(node.backing?.driver, 'vhdx');
    same(await readAll(node), model, 'all of it is the parent');
  });
  await using(child, 'vhdx', WRITABLE, (node) => torture(node, model, 7, 20));
  await using(child, 'vhdx', HOW, async (node) => same(await readAll(node), model, 'written and read again'));
  same(readFileSync(parent), before, 'the parent is as it was');
  const theirs = judged(t, child, parent);
  if (theirs !== null) same(theirs, model, 'libvhdi reads the same');
});

/** Makes a block that is there one of which only some sectors are the child's own, as other programs leave them. */
function makePartial(path: string, block: number, own: (sector: number) => boolean): void {
  const bytes = readFileSync(path);
  const ratio = (2 ** 23 * 512) / MIB;
  const bat = bytes.readUInt32LE(192 * 1024 + 16 + 16);
  const entry = bat + 8 * block;
  assert.equal(bytes[entry]! & 7, 6, 'the block is there');
  bytes[entry] = (bytes[entry]! & ~7) | 7;
  const bitmap = new Uint8Array(MIB);
  for (let sector = 0; sector < 2048; sector++) if (own(sector)) bitmap[256 * block + (sector >> 3)]! |= 1 << (sector & 7);
  const place = Math.ceil(bytes.length / MIB) * MIB;
  bytes.writeBigUInt64LE(BigInt(place) | 6n, bat + 8 * ratio);
  const grown = Buffer.alloc(place + MIB);
  bytes.copy(grown);
  grown.set(bitmap, place);
  writeFileSync(path, grown);
}

test("of a block that is there in part the rest is the parent's, until something is written to it", async (t) => {
  const { parent, child, model } = await family();
  const own = (sector: number): boolean => sector % 7 < 3 || sector > 2000;
  await using(child, 'vhdx', WRITABLE, async (node) => node.write(3 * MIB, new Uint8Array(MIB).fill(0x99)));
  makePartial(child, 3, own);
  for (let sector = 0; sector < 2048; sector++) {
    if (own(sector)) model.fill(0x99, 3 * MIB + 512 * sector, 3 * MIB + 512 * (sector + 1));
  }
  await using(child, 'vhdx', HOW, async (node) => {
    same(await readAll(node), model, 'mixed');
    const first = await node.status(3 * MIB, MIB);
    assert.deepEqual([first.length, first.allocated], [3 * 512, true]);
    const second = await node.status(3 * MIB + first.length, MIB);
    assert.deepEqual([second.length, second.allocated], [4 * 512, false]);
  });
  const theirs = judged(t, child, parent);
  if (theirs !== null) same(theirs, model, 'libvhdi reads the same');
  await using(child, 'vhdx', WRITABLE, async (node) => {
    await node.write(3 * MIB + 4 * 512, new Uint8Array(512).fill(0x11));
    model.fill(0x11, 3 * MIB + 4 * 512, 3 * MIB + 5 * 512);
    same(await readAll(node), model, 'written to');
  });
  await using(child, 'vhdx', HOW, async (node) => {
    assert.equal((await node.status(3 * MIB, MIB)).length, MIB, 'all of it is its own');
    same(await readAll(node), model, 'and read again');
  });
});

test('a parent that has changed is not taken for the old one', async () => {
  const { parent, child } = await family();
  copyFileSync(parent, `${parent}.old`);
  await using(parent, 'vhdx', WRITABLE, async (node) => node.write(0, new Uint8Array(512).fill(1)));
  const open = using(child, 'vhdx', HOW, async () => undefined);
  await assert.rejects(open, /the parent has been written to since the differencing disk was made/);
  copyFileSync(`${parent}.old`, parent);
  await using(child, 'vhdx', HOW, async () => undefined);
  await assert.rejects(create(`${child}.2`, SIZE, { backing_file: 'x', backing_fmt: 'raw' }), /is one, too, not raw/);
});

test('locators: pairs of texts, of which damaged ones are refused', () => {
  const pairs = new Map([
    ['parent_linkage', guidText(Uint8Array.from({ length: 16 }, (_, i) => i))],
    ['relative_path', '.\\a b\\ü.vhdx'],
  ]);
  assert.equal(pairs.get('parent_linkage'), '{03020100-0504-0706-0809-0a0b0c0d0e0f}');
  const bytes = buildLocator(new Uint8Array(16), pairs);
  assert.deepEqual(parseLocator(bytes), pairs);
  for (const length of [0, 19, 30, bytes.length - 1]) {
    assert.throws(() => parseLocator(bytes.subarray(0, length)), /the parent locator is not valid/);
  }
});

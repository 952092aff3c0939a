import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { getAttribute } from '../../../host/node/attributes.ts';
import { openFileTree } from '../../../host/node/file-tree.ts';
import { Attributes } from '../../../host/mapped-attributes.ts';
import { FilesBeside } from '../../../host/mapped-files.ts';
import { MappedTree } from '../../../host/mapped-tree.ts';
import { TestDriver } from '../test-driver.ts';
import { VirtioP9 } from './device.ts';
import { Reader, Writer } from './wire.ts';

const ROOT = 1;
const ENOENT = 2;
const EBADF = 9;
const EINVAL = 22;
const EROFS = 30;
const ELOOP = 40;

type Mapping = 'files' | 'attributes' | null;

function start(t: TestContext, { mapped = null as Mapping, readOnly = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'p9-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const inside = join(folder, 'inside');
  mkdirSync(inside);
  writeFileSync(join(folder, 'secret'), 'outside');
  const tree = openFileTree(inside, readOnly);
  const tag = new TextEncoder().encode('tag');
  const store = mapped === 'files' ? new FilesBeside(tree) : mapped === 'attributes' ? new Attributes(tree) : null;
  const shown = store === null ? tree : new MappedTree(tree, store);
  const driver = new TestDriver((memory) => new VirtioP9({ id: 'fs', memory }, tag, shown));
  driver.start();
  /** @returns the answer's type and what follows its tag */
  const ask = (type: number, fill: (out: Writer) => Writer, room = 8192): { type: number; body: Reader; bytes: Uint8Array } => {
    const message = fill(new Writer().u32(0).u8(type).u16(7));
    message.patch(0, message.length);
    const out = driver.writable(room);
    driver.request(0, driver.readable(message.data), out);
    const bytes = driver.bytes(out);
    const body = new Reader(bytes, 4);
    const answer = body.u8();
    assert.equal(body.u16(), 7);
    return { type: answer, body, bytes };
  };
  const errorOf = (...args: Parameters<typeof ask>): number => {
    const { type, body } = ask(...args);
    return type === 7 ? body.u32() : 0;
  };
  ask(100, (out) => out.u32(8192).text('9P2000.L'));
  ask(104, (out) => out.u32(ROOT).u32(0xffffffff).text('').text('').u32(0));
  const walk = (to: number, ...names: string[]): number =>
    errorOf(110, (out) => names.reduce((all, name) => all.text(name), out.u32(ROOT).u32(to).u16(names.length)));
  /** Another device takes the place of this one. */
  const handOver = (): void =>
    driver.handOver(new VirtioP9({ id: 'fs', memory: driver.memory }, tag, openFileTree(inside, readOnly)));
  return { inside, driver, ask, errorOf, walk, handOver };
}

test('a file is made, written, read back, and is on the host', (t) => {
  const { inside, ask, errorOf, walk } = start(t);
  walk(2);
  assert.equal(
    errorOf(14, (out) => out.u32(2).text('file').u32(2).u32(0o640).u32(0)),
    0,
  );
  const written = ask(118, (out) => out.u32(2).u64(3).u32(5).u8(104).u8(101).u8(108).u8(108).u8(111));
  assert.equal(written.body.u32(), 5);
  assert.equal(readFileSync(join(inside, 'file'), 'latin1'), '\0\0\0hello');
  const read = ask(116, (out) => out.u32(2).u64(2).u32(100));
  assert.equal(read.body.u32(), 6);
  assert.equal(String.fromCharCode(...read.bytes.subarray(11, 17)), '\0hello');
  assert.equal(
    errorOf(120, (out) => out.u32(2)),
    0,
  );
  assert.equal(
    errorOf(120, (out) => out.u32(2)),
    EBADF,
  );
});

test('no name leads out of the folder', (t) => {
  const { inside, ask, errorOf, walk } = start(t);
  symlinkSync('..', join(inside, 'up'));
  symlinkSync('../secret', join(inside, 'link'));
  assert.equal(walk(2, 'up', 'secret'), 0, 'the walk stops at the link');
  assert.equal(
    errorOf(120, (out) => out.u32(2)),
    EBADF,
  );
  assert.equal(walk(3, 'link'), 0);
  assert.equal(
    errorOf(12, (out) => out.u32(3).u32(0)),
    ELOOP,
  );
  assert.equal(walk(4, '..', '..'), 0, 'the root is its own parent');
  const { body } = ask(24, (out) => out.u32(4).u64(0x7ff));
  body.u64();
  assert.equal(body.u8(), 0x80);
  for (const name of ['../secret', 'a/b', '', '..']) {
    assert.equal(
      errorOf(72, (out) => out.u32(ROOT).text(name).u32(0o755).u32(0)),
      EINVAL,
      name,
    );
  }
  assert.equal(
    errorOf(76, (out) => out.u32(ROOT).text('..').u32(0x200)),
    EINVAL,
  );
  assert.ok(existsSync(join(inside, '../secret')));
  // What was a folder when it was walked to is a link now.
  mkdirSync(join(inside, 'folder'));
  writeFileSync(join(inside, 'folder', 'secret'), 'inside');
  assert.equal(walk(5, 'folder', 'secret'), 0);
  rmSync(join(inside, 'folder'), { recursive: true });
  symlinkSync('..', join(inside, 'folder'));
  assert.equal(
    errorOf(12, (out) => out.u32(5).u32(0)),
    ELOOP,
  );
});

test('directories are listed piece by piece', (t) => {
  const { inside, ask, walk } = start(t);
  for (let i = 0; i < 50; i++) writeFileSync(join(inside, `file ${i}`), '');
  walk(2);
  ask(12, (out) => out.u32(2).u32(0));
  const names: string[] = [];
  for (let offset = 0n; ; ) {
    const { body } = ask(40, (out) => out.u32(2).u64(offset).u32(500));
    let left = body.u32();
    if (left === 0) break;
    assert.ok(left <= 500);
    while (left > 0) {
      for (let i = 0; i < 13; i++) body.u8();
      offset = body.u64();
      body.u8();
      const name = body.text();
      names.push(name);
      left -= 13 + 8 + 1 + 2 + name.length;
    }
  }
  assert.equal(names.length, 52);
});

test('a read-only folder stays as it is', (t) => {
  const { errorOf, walk } = start(t, { readOnly: true });
  walk(2);
  assert.equal(
    errorOf(14, (out) => out.u32(2).text('file').u32(2).u32(0o640).u32(0)),
    EROFS,
  );
  assert.equal(
    errorOf(72, (out) => out.u32(ROOT).text('d').u32(0o755).u32(0)),
    EROFS,
  );
});

for (const mapped of ['files', 'attributes'] as const)
  test(`owners and special files that the host need not grant, kept in ${mapped}`, (t) => {
    const { inside, ask, errorOf, walk } = start(t, { mapped });
    assert.equal(
      errorOf(18, (out) => out.u32(ROOT).text('disk').u32(0o060640).u32(8).u32(1).u32(5)),
      0,
    );
    assert.equal(walk(2, 'disk'), 0);
    assert.equal(
      errorOf(26, (out) => out.u32(2).u32(6).u32(0).u32(1000).u32(6).u64(0).u64(0).u64(0).u64(0).u64(0)),
      0,
    );
    const { body } = ask(24, (out) => out.u32(2).u64(0x7ff));
    body.u64();
    for (let i = 0; i < 13; i++) body.u8();
    assert.deepEqual([body.u32(), body.u32(), body.u32()], [0o060640, 1000, 6]);
    body.u64();
    assert.equal(body.u64(), 0x801n);
    if (mapped === 'files') {
      assert.equal(readFileSync(join(inside, '.virtfs_metadata', 'disk'), 'utf8').includes('virtfs.uid=1000'), true);
      assert.equal(walk(3, '.virtfs_metadata'), EINVAL);
      return;
    }
    const attribute = (name: string) => getAttribute(Buffer.from(join(inside, 'disk')), `user.virtfs.${name}`, 100);
    assert.deepEqual([...attribute('uid')!], [0xe8, 3, 0, 0]);
    assert.deepEqual([...attribute('mode')!], [0xa0, 0x61, 0, 0]);
    assert.deepEqual([...attribute('rdev')!], [1, 8, 0, 0, 0, 0, 0, 0]);
    assert.equal(attribute('other'), null);
  });

test('messages that are none break the device, not the machine', (t) => {
  const bad: ((driver: TestDriver) => void)[] = [
    (driver) => driver.request(0, driver.readable([1, 2, 3]), driver.writable(100)),
    (driver) => driver.request(0, driver.readable([7, 0, 0, 0, 104, 1, 0]), driver.writable(100)),
    (driver) => driver.request(0, driver.readable([7, 0, 0, 0, 108, 1, 0]), driver.writable(3)),
  ];
  for (const attack of bad) {
    const { driver } = start(t);
    attack(driver);
    assert.ok(driver.device.isBroken);
  }
  const { errorOf } = start(t);
  assert.equal(
    errorOf(116, (out) => out.u32(99).u64(0).u32(0xffffffff)),
    EBADF,
  );
  assert.equal(
    errorOf(22, (out) => out.u32(ROOT)),
    EINVAL,
  );
  assert.equal(start(t).walk(2, 'absent'), ENOENT);
});

test('files and directories that are open are opened again by a device with the saved state', (t) => {
  const { inside, ask, errorOf, walk, handOver, driver } = start(t);
  writeFileSync(join(inside, 'file'), 'some text');
  mkdirSync(join(inside, 'folder'));
  for (const name of ['a', 'b', 'c']) writeFileSync(join(inside, 'folder', name), name);
  walk(2, 'file');
  walk(3, 'folder');
  walk(4, 'file');
  // Read and write, and truncated, which must not happen again.
  assert.equal(
    errorOf(12, (out) => out.u32(4).u32(0o1002)),
    0,
  );
  ask(118, (out) => out.u32(4).u64(0).u32(5).u8(104).u8(101).u8(108).u8(108).u8(111));
  ask(12, (out) => out.u32(2).u32(0));
  ask(12, (out) => out.u32(3).u32(0));
  handOver();
  const read = ask(116, (out) => out.u32(2).u64(0).u32(100));
  assert.equal(read.body.u32(), 5);
  assert.equal(String.fromCharCode(...read.bytes.subarray(11, 16)), 'hello');
  ask(118, (out) => out.u32(4).u64(5).u32(1).u8(33));
  assert.equal(readFileSync(join(inside, 'file'), 'latin1'), 'hello!');
  assert.ok(ask(40, (out) => out.u32(3).u64(2).u32(1000)).body.u32() > 0, 'the directory is read on');
  assert.equal(
    errorOf(116, (out) => out.u32(1).u64(0).u32(1)),
    EBADF,
  );
  const saved = driver.device.save();
  rmSync(join(inside, 'file'));
  assert.throws(() => driver.device.save(), /^Error: fs: "file" is open and has that name no more/);
  const other = new VirtioP9({ id: 'fs', memory: driver.memory }, new Uint8Array(1), openFileTree(inside, false));
  assert.throws(() => other.load(saved), /^Error: fs: "file", which the guest has open, cannot be opened again \(ENOENT\)/);
});

test('a saved state leads nowhere out of the folder', (t) => {
  const { inside, driver } = start(t);
  const { version, fields } = driver.device.save();
  const fid = { number: 2, path: ['..', 'secret'], open: true, flags: 0, directory: false, entries: [] };
  const load = (fids: unknown): void => {
    const device = new VirtioP9({ id: 'fs', memory: driver.memory }, new Uint8Array(1), openFileTree(inside, false));
    device.load({ version, fields: { ...fields, device: { messageSize: 8192, fids: fids as never } } });
  };
  assert.throws(() => load([fid]), /fs: EINVAL/);
  assert.throws(() => load([{ ...fid, path: ['../secret'] }]), /fs: EINVAL/);
  assert.throws(() => load([{ ...fid, path: 'secret' }]), /field "fids" is not a list of fids/);
  assert.throws(() => load({}), /field "fids" is not a list of fids/);
});

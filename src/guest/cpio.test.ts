import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { characterDevice, directory, file, symlink, writeArchive } from './cpio.ts';
import { shellInitramfs } from './initramfs.ts';

/** Reads an archive back by the format's own description. */
function readArchive(archive: Uint8Array) {
  const text = new TextDecoder('latin1').decode(archive);
  const entries: { path: string; mode: number; data: string }[] = [];
  const align = (at: number): number => (at + 3) & ~3;
  for (let at = 0; ; ) {
    assert.equal(text.slice(at, at + 6), '070701');
    const field = (i: number): number => Number.parseInt(text.slice(at + 6 + 8 * i, at + 14 + 8 * i), 16);
    const dataAt = align(at + 110 + field(11));
    const path = text.slice(at + 110, at + 109 + field(11));
    if (path === 'TRAILER!!!') return entries;
    entries.push({ path, mode: field(1), data: text.slice(dataAt, dataAt + field(6)) });
    at = align(dataAt + field(6));
  }
}

test('an archive holds what was put in', () => {
  const archive = writeArchive([
    directory('bin'),
    file('bin/a', 'hello'),
    symlink('bin/b', 'a'),
    characterDevice('tty', 5, 0),
    file('odd', Uint8Array.of(65, 66, 67), 0o644),
  ]);
  assert.equal(archive.length % 4, 0);
  assert.deepEqual(readArchive(archive), [
    { path: 'bin', mode: 0o040755, data: '' },
    { path: 'bin/a', mode: 0o100755, data: 'hello' },
    { path: 'bin/b', mode: 0o120777, data: 'a' },
    { path: 'tty', mode: 0o020600, data: '' },
    { path: 'odd', mode: 0o100644, data: 'ABC' },
  ]);
});

test("the shell's root file system: /init is a script that a shell can read", () => {
  const archive = shellInitramfs({ busybox: Uint8Array.of(1), applets: ['sh', 'busybox', 'ls'] });
  const entries = readArchive(archive);
  const init = entries.find(({ path }) => path === 'init')!;
  assert.match(init.data, /^#!\/bin\/busybox sh\n/);
  assert.equal(spawnSync('sh', ['-n'], { input: init.data }).status, 0);
  assert.deepEqual(
    entries.filter(({ path }) => path.startsWith('bin/')).map(({ path }) => path),
    ['bin/busybox', 'bin/sh', 'bin/ls'],
  );
});

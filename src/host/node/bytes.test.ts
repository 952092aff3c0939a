import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readShared } from './bytes.ts';

test('a file is read into shared memory; one that does not say how long it is, is read all the same', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'virelay-bytes-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'file');
  const data = new Uint8Array(100_000).map((_, at) => at * 7);
  writeFileSync(path, data);
  const read = readShared(path);
  assert.ok(read.buffer instanceof SharedArrayBuffer);
  assert.deepEqual(new Uint8Array(read), data);
  writeFileSync(path, '');
  assert.equal(readShared(path).length, 0);
  assert.match(new TextDecoder().decode(readShared('/proc/self/status')), /^Name:/);
});

test('what is not there or no file is an error with its code', () => {
  assert.throws(() => readShared('/nowhere/at/all'), { code: 'ENOENT' });
  assert.throws(() => readShared('/'), { code: 'EISDIR' });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { completeConfig } from './config.ts';
import { withSharedFiles } from './shared-files.ts';

test('a kernel is copied into shared memory, unless it is there', () => {
  const data = Uint8Array.of(1, 2, 3);
  const config = completeConfig({ kernel: { name: 'k', data }, initrd: null });
  const once = withSharedFiles(config);
  assert.ok(once.kernel!.data.buffer instanceof SharedArrayBuffer);
  assert.deepEqual([...once.kernel!.data], [1, 2, 3]);
  assert.equal(once.initrd, null);
  data[0] = 9;
  assert.equal(once.kernel!.data[0], 1, 'what its owner does afterwards changes nothing');
  assert.equal(withSharedFiles(once).kernel, once.kernel);
});

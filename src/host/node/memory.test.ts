import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { preferLargePages, releasePages } from './memory.ts';

const MIB = 2 ** 20;

/** Bytes of this process in the host's memory. */
function resident(): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
}

test('whole pages are given back and read as zeros, the rest stays', { skip: process.platform !== 'linux' }, () => {
  const memory = new WebAssembly.Memory({ initial: 1024, maximum: 1024, shared: true });
  const bytes = new Uint8Array(memory.buffer).fill(7);
  const before = resident();
  releasePages(bytes, 4096 - 100, 60 * MIB);
  assert.ok(before - resident() > 50 * MIB, 'less is resident');
  const end = 4096 - 100 + 60 * MIB;
  assert.deepEqual(
    [bytes[4095], bytes[4096], bytes[MIB], bytes[end - (end % 4096) - 1], bytes[end - 1], bytes[end]],
    [7, 0, 0, 0, 7, 7],
  );
  releasePages(bytes, 61 * MIB + 1, 4096);
  assert.equal(bytes[61 * MIB + 2000], 7, 'less than a page');
});

/** Kilobytes of mappings for which large pages have been asked. */
function preferred(): number {
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^VmFlags:/m);
  const sizes = mappings.slice(1).map((flags, i) => (/\bhg\b/.test(flags.split('\n')[0]!) ? sizeIn(mappings[i]!) : 0));
  return sizes.reduce((sum, size) => sum + size, 0);
}

const sizeIn = (mapping: string): number => Number(/^Size:\s+(\d+)/m.exec(mapping)![1]);

const NO_LARGE_PAGES = existsSync('/sys/kernel/mm/transparent_hugepage') ? false : 'the host has no large pages';

test('large pages are asked for', { skip: NO_LARGE_PAGES }, () => {
  const memory = new WebAssembly.Memory({ initial: 1024, maximum: 1024, shared: true });
  const before = preferred();
  preferLargePages(new Uint8Array(memory.buffer), 4 * MIB, 32 * MIB);
  assert.equal(preferred() - before, 32 * 1024);
});

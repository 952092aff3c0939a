/** The guests of this folder log what QEMU and the manuals say they should, interpreted and compiled. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { GUESTS, readRecording, recordedNames, sourceHash } from './recorded.ts';
import { runGuest } from './run.ts';

const names = recordedNames();

test('every guest is recorded as its source is now (record.ts records them anew)', () => {
  const sources = readdirSync(GUESTS)
    .filter((file) => file.endsWith('.asm'))
    .map((file) => file.slice(0, -4));
  assert.deepEqual([...names].sort(), sources.sort());
  for (const name of names) assert.equal(readRecording(name).source, sourceHash(name), name);
});

for (const name of names) {
  for (const accel of ['interp', 'jit'] as const) {
    test(`${name} (${accel})`, async () => {
      const recording = readRecording(name);
      assert.deepEqual(await runGuest(recording, accel), recording.log);
    });
  }
}

test('every category of the trace is written to', async () => {
  const categories = ['int', 'cpu', 'pcall', 'mmu', 'in_asm', 'op', 'out_asm', 'machine', 'smi'];
  const lines = new Map<string, number>();
  for (const name of ['long', 'smm']) {
    await runGuest(readRecording(name), 'interp', categories, (category) => lines.set(category, (lines.get(category) ?? 0) + 1));
  }
  assert.deepEqual(
    categories.filter((category) => !lines.has(category)),
    [],
  );
});

/** The guests of this folder log what QEMU and the manuals say they should, interpreted and compiled. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { GUESTS, readRecording, recordedNames, sourceHash } from './recorded.ts';
import { runGuest } from './run.ts';

const names = recordedNames();

test('every guest is recorded as its source is now (record.ts records them anew)', () => {
  const sources = readdirSync(GUESTS).filter((file) => file.endsWith('.asm')).map((file) => file.slice(0, -4));
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

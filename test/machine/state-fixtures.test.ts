/** States that were saved once go on loading, whatever has become of their machines' parts since. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { Machine } from 'virelay';
import { Console, savedAndEnded, streamOf } from '../saved-machine.ts';
import { FIXTURES, MACHINES } from '../state-fixtures.ts';

const stored = (name: string): Uint8Array => gunzipSync(readFileSync(join(FIXTURES, `${name}.state.gz`)));

test('every machine has a state, and every state a machine', () => {
  assert.deepEqual(
    readdirSync(FIXTURES).sort(),
    Object.keys(MACHINES)
      .map((name) => `${name}.state.gz`)
      .sort(),
  );
});

for (const [name, config] of Object.entries(MACHINES)) {
  test(`a state of old loads and runs on (${name})`, async () => {
    const machine = await Machine.restore(streamOf([stored(name)]), config());
    const console = new Console(machine);
    await console.type('defg');
    await console.until('defg');
    // What it has become is saved, and goes on, too.
    const pieces = await savedAndEnded(machine);
    const again = await Machine.restore(streamOf(pieces), { ...config(), accel: 'interp' });
    const last = new Console(again);
    await last.type('hq');
    assert.deepEqual(await again.ended, { event: 'debug-exit', status: 3 });
    await last.done;
    assert.equal(last.text, 'hq');
  });
}

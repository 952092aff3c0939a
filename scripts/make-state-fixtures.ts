/**
 * Saves the machines of test/state-fixtures.ts that have no state yet: `node scripts/make-state-fixtures.ts [NAME...]`; those
 * that are named are saved anew, which is right only where what was saved before never left this house.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { Machine } from 'virelay';
import { Console, savedAndEnded } from '../test/saved-machine.ts';
import { FIXTURES, MACHINES } from '../test/state-fixtures.ts';

mkdirSync(FIXTURES, { recursive: true });
const named = process.argv.slice(2);
for (const [name, config] of Object.entries(MACHINES)) {
  const path = join(FIXTURES, `${name}.state.gz`);
  if (existsSync(path) && !named.includes(name)) continue;
  const machine = await Machine.create(config());
  const console_ = new Console(machine);
  await console_.until('ready');
  await console_.type('abc');
  await console_.until('abc');
  const packed = gzipSync(Buffer.concat(await savedAndEnded(machine)), { level: 9 });
  writeFileSync(path, packed);
  console.log(`${path}: ${packed.length} bytes`);
}

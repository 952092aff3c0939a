/** The index of code by its place. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { CodeIndex, INDEX_CROSSING } from './dispatch.ts';
import { CODE } from './layout.ts';

const KEY = 3 << 16;
let index: CodeIndex;

beforeEach(() => {
  index = new CodeIndex(new ArrayBuffer(CODE));
});

test('code is found by its place and mode, and by nothing else', () => {
  index.add(0x7001234, KEY, 0x40008);
  assert.equal(index.find(0x7001234, KEY), 0x40008);
  assert.equal(index.find(0x7001235, KEY), 0);
  assert.equal(index.find(0x7001234, KEY + (1 << 16)), 0);
  assert.equal(index.find(0x7001234, KEY | INDEX_CROSSING), 0);
});

test('places beyond four gigabytes are told apart', () => {
  index.add(0x1_0700_1234, KEY, 0x40010);
  assert.equal(index.find(0x1_0700_1234, KEY), 0x40010);
  assert.equal(index.find(0x0700_1234, KEY), 0);
});

test('code added again has its new cell; what is removed is gone', () => {
  index.add(0x7000000, KEY, 0x40008);
  index.add(0x7000000, KEY, 0x40018);
  assert.equal(index.find(0x7000000, KEY), 0x40018);
  index.remove(0x7000000, KEY);
  assert.equal(index.find(0x7000000, KEY), 0);
});

test('most code of a large program is found; what another pushed out is never taken for it', () => {
  const places = Array.from({ length: 50_000 }, (_, i) => 0x6000000 + i * 37);
  for (const [i, place] of places.entries()) index.add(place, KEY, 0x40000 + 8 * i);
  let found = 0;
  for (const [i, place] of places.entries()) {
    const cell = index.find(place, KEY);
    if (cell !== 0) assert.equal(cell, 0x40000 + 8 * i);
    if (cell !== 0) found++;
  }
  assert.ok(found > 45_000, `${found} found`);
  index.clear();
  assert.equal(index.find(places[7]!, KEY), 0);
});

/** Finding code: the index by its place, and interpreted jumps from page to page. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { CodeIndex, INDEX_CROSSING } from './dispatch.ts';
import { CODE } from './layout.ts';
import { EXEC, L, READ, TestIsa, TestMachine, add, jumpBy, stop } from './test-kit.ts';

const KEY = 3 << 16;
let index: CodeIndex;

beforeEach(() => {
  index = new CodeIndex(new ArrayBuffer(CODE));
});

test('code is found by its place and mode, and by nothing else', () => {
  index.add(0x7001234, KEY, 0x40008, 0);
  assert.equal(index.find(0x7001234, KEY), 0x40008);
  assert.equal(index.find(0x7001235, KEY), 0);
  assert.equal(index.find(0x7001234, KEY + (1 << 16)), 0);
  assert.equal(index.find(0x7001234, KEY | INDEX_CROSSING), 0);
});

test('places beyond four gigabytes are told apart', () => {
  index.add(0x1_0700_1234, KEY, 0x40010, 0);
  assert.equal(index.find(0x1_0700_1234, KEY), 0x40010);
  assert.equal(index.find(0x0700_1234, KEY), 0);
});

test('code added again has its new cell; what is removed is gone', () => {
  index.add(0x7000000, KEY, 0x40008, 0);
  index.add(0x7000000, KEY, 0x40018, 0);
  assert.equal(index.find(0x7000000, KEY), 0x40018);
  index.remove(0x7000000, KEY);
  assert.equal(index.find(0x7000000, KEY), 0);
});

test('most code of a large program is found; what another pushed out is never taken for it', () => {
  const places = Array.from({ length: 50_000 }, (_, i) => 0x6000000 + i * 37);
  for (const [i, place] of places.entries()) index.add(place, KEY, 0x40000 + 8 * i, 0);
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

/** l0 += 1, then a jump to page 3: l1 += 1. At the physical page 5: l2 += 1. */
function machineWithFarJump(): TestMachine {
  const machine = new TestMachine(new TestIsa(), { compile: false });
  machine.code(0x1000, [add(0, 1), jumpBy(0x1ffe)]);
  machine.code(0x3000, [add(1, 1), stop]);
  machine.code(0x5000, [add(2, 1), stop]);
  return machine;
}

const counts = (machine: TestMachine): bigint[] => [0, 1, 2].map((i) => machine.get(L[i]!));

test('interpreted: a jump to another page goes where that is mapped to now', () => {
  const machine = machineWithFarJump();
  for (let i = 0; i < 4; i++) machine.run(0x1000);
  machine.vcpu.map.set(3n, { page: 0x5000, permissions: READ | EXEC });
  machine.engine.flushPage(0x3000, 0);
  for (let i = 0; i < 4; i++) machine.run(0x1000);
  assert.deepEqual(counts(machine), [8n, 4n, 4n]);
  machine.vcpu.map.delete(3n);
  machine.engine.flushAddressSpace(0);
  for (let i = 0; i < 4; i++) machine.run(0x1000);
  assert.deepEqual(counts(machine), [12n, 8n, 4n]);
});

test('interpreted: the same jump in several address spaces goes to the page of each', () => {
  const machine = machineWithFarJump();
  for (let i = 0; i < 12; i++) {
    machine.vcpu.map.set(3n, { page: i & 1 ? 0x5000 : 0x3000, permissions: READ | EXEC });
    machine.engine.selectContext(2, i & 1, 0);
    machine.run(0x1000);
  }
  assert.deepEqual(counts(machine), [12n, 6n, 6n]);
});

test('interpreted: a jump to another page finds code that has been written anew', () => {
  const machine = machineWithFarJump();
  for (let i = 0; i < 4; i++) machine.run(0x1000);
  machine.code(0x3000, [add(2, 1), stop]);
  for (let i = 0; i < 4; i++) machine.run(0x1000);
  assert.deepEqual(counts(machine), [8n, 4n, 4n]);
});

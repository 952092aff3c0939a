import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seeded } from './test-kit.ts';
import { Budget, ByteRing } from './byte-ring.ts';

test('bytes come out as they went in, over many turns of the ring', () => {
  const random = seeded(7);
  const ring = new ByteRing(1 << 17, new Budget(1 << 20));
  let [put, taken] = [0, 0];
  for (let i = 0; i < 3000; i++) {
    const data = Uint8Array.from({ length: random() % 3000 }, () => put++ & 0xff);
    if (!ring.append(data)) put -= data.length;
    const count = Math.min(ring.length, random() % 3000);
    const out = new Uint8Array(count);
    ring.copyTo(0, out, 0, count);
    const front = ring.front();
    for (let at = 0; at < count; at++) {
      assert.equal(out[at], (taken + at) & 0xff);
      if (at < front.length) assert.equal(front[at], out[at]);
    }
    ring.drop(count);
    taken += count;
  }
});

test('what is placed beyond the end stays in place when the ring grows', () => {
  const ring = new ByteRing(1 << 20, new Budget(1 << 20));
  ring.append(new Uint8Array(16_000));
  ring.drop(16_000);
  ring.append(Uint8Array.of(1, 2));
  assert.ok(ring.reserve(10_000));
  ring.place(9_998, Uint8Array.of(8, 9));
  assert.ok(ring.reserve(100_000));
  ring.length = 10_000;
  const out = new Uint8Array(4);
  ring.copyTo(0, out, 0, 2);
  ring.copyTo(9_998, out, 2, 2);
  assert.deepEqual([...out], [1, 2, 8, 9]);
});

test('a spent budget leaves every queue the least, and is given back', () => {
  const budget = new Budget(1 << 16);
  const greedy = new ByteRing(1 << 20, budget);
  assert.ok(greedy.append(new Uint8Array(60_000)));
  assert.equal(greedy.append(new Uint8Array(60_000)), false);
  const modest = new ByteRing(1 << 20, budget);
  assert.ok(modest.append(new Uint8Array(16_000)));
  assert.equal(modest.append(new Uint8Array(60_000)), false);
  greedy.drop(60_000);
  greedy.trim();
  assert.ok(modest.append(new Uint8Array(40_000)));
});

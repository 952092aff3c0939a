import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock, RecordingLine } from '../mocks.ts';
import { Hpet } from './hpet.ts';

function hpet() {
  const clock = new ManualClock();
  const lines = Array.from({ length: 24 }, () => new RecordingLine());
  const device = new Hpet(clock, lines);
  const write = (at: number, value: number) => device.mmio.write(at, 4, value);
  const read = (at: number) => device.mmio.read(at, 4);
  return { clock, lines, device, write, read };
}

test('capabilities: three 64-bit comparators, 10 ns', () => {
  const h = hpet();
  assert.equal(h.read(0), 0x8086a201);
  assert.equal(h.read(4), 10_000_000);
  assert.equal(h.read(0x100) & 0x30, 0x30);
});

test('the counter runs while enabled and may be written while stopped', () => {
  const h = hpet();
  h.write(0xf0, 0xfffffff0);
  h.write(0xf4, 1);
  h.clock.run(1000);
  assert.equal(h.read(0xf0), 0xfffffff0);
  h.write(0x10, 1);
  h.clock.run(200);
  assert.equal(h.read(0xf0), 4);
  assert.equal(h.read(0xf4), 2);
});

test('one shot by level, cleared by status', () => {
  const h = hpet();
  h.write(0x10, 1);
  h.write(0x100, (20 << 9) | 0x06);
  h.write(0x108, 100);
  h.write(0x10c, 0);
  h.clock.run(999);
  assert.equal(h.lines[20]!.level, false);
  h.clock.run(1);
  assert.equal(h.lines[20]!.level, true);
  assert.equal(h.read(0x20), 1);
  h.write(0x20, 1);
  assert.equal(h.lines[20]!.level, false);
});

test('periodic by legacy replacement, set up as Linux does', () => {
  const h = hpet();
  let legacy = false;
  h.device.onLegacyRoute = (on) => (legacy = on);
  h.write(0x10, 3);
  assert.equal(legacy, true);
  h.write(0x100, 0x14c);
  const now = h.read(0xf0);
  h.write(0x108, now + 100_000);
  h.write(0x108, 100_000);
  h.clock.run(10e6);
  assert.equal(h.lines[0]!.rises, 10);
  h.device.reset();
  assert.equal(legacy, false);
});

test('a tiny period cannot drown the machine, and state goes round', () => {
  const h = hpet();
  h.write(0x10, 3);
  h.write(0x100, 0x14c);
  h.write(0x108, 1);
  h.write(0x108, 1);
  h.clock.run(1e6);
  assert.ok(h.lines[0]!.rises <= 102);
  const copy = hpet();
  copy.clock.runTo(h.clock.now());
  copy.device.loadState(h.device.saveState());
  assert.equal(copy.read(0xf0), h.read(0xf0));
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock } from './mocks.ts';
import { StateBlock } from './state.ts';

const powerOn = () => ({
  number: 1,
  flag: false,
  name: 'a',
  big: 0n,
  bytes: new Uint8Array(3),
  list: [1, 2],
  group: { inner: 5, deeper: { bytes: Uint8Array.of(1) } },
});
const make = () => new StateBlock('device', 1, powerOn, { number: 9, list: 3 });

test('what is saved comes back, into the same arrays and records', () => {
  const [block, other] = [make(), make()];
  const { bytes, list, group } = other.value;
  Object.assign(block.value, { number: 7, flag: true, name: 'b', big: -3n });
  block.value.bytes[1] = 200;
  block.value.list[0] = 3;
  block.value.group.deeper.bytes[0] = 9;
  const saved = block.save();
  other.load(saved);
  assert.deepEqual(other.save(), saved);
  assert.equal(other.value.bytes, bytes);
  assert.equal(other.value.list, list);
  assert.equal(other.value.group.deeper, group.deeper);
  block.value.bytes[0] = 1;
  assert.equal(saved.fields['bytes'] instanceof Uint8Array && saved.fields['bytes'][0], 0, 'a copy');
  block.reset();
  assert.deepEqual(block.save(), make().save());
});

test('what does not fit is named, and changes nothing', () => {
  const block = make();
  const { fields } = block.save();
  const bad = (change: object, message: RegExp): void => {
    assert.throws(() => block.load({ version: 1, fields: { ...fields, number: 5, ...change } }), message);
    assert.deepEqual(block.save(), make().save());
  };
  bad({ number: 10 }, /^Error: device: field "number" is 10, outside 0 to 9$/);
  bad({ number: 1.5 }, /field "number" is 1.5/);
  bad({ number: Infinity }, /field "number" is not a finite number/);
  bad({ list: [1, 4] }, /field "list\[1\]" is 4, outside 0 to 3/);
  bad({ list: [1] }, /field "list" has 1 elements instead of 2/);
  bad({ bytes: new Uint8Array(4) }, /field "bytes" has 4 elements instead of 3/);
  bad({ big: 1 }, /field "big" should be a bigint, is a number/);
  bad({ group: { inner: 5 } }, /field "group.deeper" is missing/);
  bad({ more: 1 }, /field "more" is not known/);
  const { flag: _, ...without } = fields;
  assert.throws(() => block.load({ version: 1, fields: without }), /device: field "flag" is missing/);
  assert.throws(() => block.load({ version: 2, fields }), /device: saved state has version 2, this device has 1/);
});

test('states from before a field was there load with what it was then', () => {
  const older = new StateBlock('device', 1, () => ({ number: 3 }));
  const newer = new StateBlock('device', 1, () => ({ number: 0, speed: 100 }), {}, { speed: 10 });
  newer.load(older.save());
  assert.deepEqual(newer.value, { number: 3, speed: 10 });
  newer.value.speed = 50;
  newer.load(newer.save());
  assert.equal(newer.value.speed, 50);
});

test('timers are armed as they were', () => {
  const clock = new ManualClock();
  const fired: string[] = [];
  const timed = () => {
    const block = new StateBlock('device', 1, () => ({ number: 3 }));
    const timers = { first: clock.timer(() => fired.push('first')), second: clock.timer(() => fired.push('second')) };
    block.keepTimers(timers);
    return { block, timers };
  };
  const [one, other] = [timed(), timed()];
  one.timers.first.arm(500);
  other.timers.second.arm(100);
  const saved = one.block.save();
  assert.deepEqual(saved.fields['timers'], { first: 500, second: -1 });
  one.timers.first.cancel();
  other.block.load(saved);
  other.block.armTimers();
  clock.runTo(1000);
  assert.deepEqual(fired, ['first']);
  const bad = (timers: unknown, message: RegExp): void =>
    assert.throws(() => other.block.load({ version: 1, fields: { number: 3, timers: timers as never } }), message);
  bad(undefined, /device: field "timers" is missing/);
  bad({ first: 1 }, /device: field "timers.second" is missing/);
  bad({ first: -2, second: -1 }, /device: field "timers.first" is -2, which is no time/);
});

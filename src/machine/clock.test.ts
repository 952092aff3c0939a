import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HostClock, InstructionClock, ClockTsc } from './clock.ts';

test('stands still while paused', () => {
  let host = 1000;
  const clock = new HostClock(() => host);
  assert.equal(clock.now(), 0);
  clock.resume();
  host = 1500;
  assert.equal(clock.now(), 500);
  clock.pause();
  host = 9000;
  assert.equal(clock.now(), 500);
  clock.resume();
  host = 9100;
  assert.equal(clock.now(), 600);
  clock.set(5000);
  assert.equal(clock.now(), 5000);
});

test('timers fire in order, once, and may be moved', () => {
  let host = 0;
  const clock = new HostClock(() => host);
  clock.resume();
  const fired: string[] = [];
  const timers = ['a', 'b', 'c', 'd'].map((name) => clock.timer(() => fired.push(name)));
  timers[0]!.arm(300);
  timers[1]!.arm(100);
  timers[2]!.arm(200);
  timers[3]!.arm(50);
  timers[3]!.cancel();
  timers[1]!.arm(250);
  assert.equal(clock.nextDeadline(), 200);
  host = 260;
  clock.runTimers();
  assert.deepEqual(fired, ['c', 'b']);
  assert.equal(timers[2]!.deadline, Infinity);
  assert.equal(clock.nextDeadline(), 300);
});

test('many timers keep their order', () => {
  let host = 0;
  const clock = new HostClock(() => host);
  clock.resume();
  const fired: number[] = [];
  const place = (i: number) => (i * 71) % 200;
  const timers = Array.from({ length: 200 }, (_, i) => clock.timer(() => fired.push(place(i))));
  timers.forEach((timer, i) => timer.arm(place(i) + 1));
  timers.forEach((timer, i) => i % 3 === 0 && timer.cancel());
  for (host = 1; host <= 201; host += 10) clock.runTimers();
  assert.deepEqual(
    fired,
    [...fired].sort((a, b) => a - b),
  );
  assert.equal(fired.length, 200 - 67);
});

test('a timer that re-arms itself in the past cannot hold the loop', () => {
  const clock = new HostClock(() => 0);
  let count = 0;
  const timer = clock.timer(() => {
    count++;
    timer.arm(-5);
  });
  timer.arm(-5);
  clock.runTimers();
  assert.equal(count, 1);
  assert.equal(clock.nextDeadline(), -5);
});

test('counted instructions, with warps while idle', () => {
  let executed = 10;
  const clock = new InstructionClock(() => executed, 3);
  assert.equal(clock.now(), 80);
  clock.advanceTo(1000);
  executed++;
  assert.equal(clock.now(), 1008);
  clock.advanceTo(500);
  assert.equal(clock.now(), 1008);
});

test('the TSC follows the clock from what the guest wrote', () => {
  const clock = new HostClock(() => 0);
  const tsc = new ClockTsc(clock);
  clock.set(100);
  assert.equal(tsc.read(), 100n);
  tsc.write(0xffff_ffff_ffff_fff0n);
  clock.set(120);
  assert.equal(tsc.read(), 4n);
  tsc.write(1000n);
  assert.equal(tsc.toNanoseconds(1500n), 620);
});

test('the TSC as two words is what it is as one number', () => {
  for (const frequency of [1e9, 2_893_202_000]) {
    const clock = new HostClock(() => 0);
    const tsc = new ClockTsc(clock, frequency);
    for (const [now, value] of [
      [0, 0n],
      [0xffff_ffff, 0n],
      [2 ** 40 + 123, 0xffff_ffff_ffff_ff00n],
      [1e15, 0x8000_0000n],
    ] as const) {
      tsc.write(value);
      clock.set(now);
      const words = new Int32Array(3);
      tsc.readWords(words, 1);
      assert.equal((BigInt(words[2]! >>> 0) << 32n) | BigInt(words[1]! >>> 0), tsc.read());
    }
  }
});

test('a TSC of another rate has counted so far when its deadline is there, and not one nanosecond earlier', () => {
  const clock = new HostClock(() => 0);
  const tsc = new ClockTsc(clock, 2_893_202_000);
  clock.set(1e9);
  assert.equal(tsc.read(), 2_893_202_000n);
  tsc.write(5000n);
  for (const ticks of [5001n, 5002n, 123_456_789_123n]) {
    const at = tsc.toNanoseconds(ticks);
    clock.set(at);
    assert.ok(tsc.read() >= ticks);
    clock.set(at - 1);
    assert.ok(tsc.read() < ticks);
  }
});

test('while the guest measures, pauses of the host are no time', () => {
  let host = 0;
  let instructions = 0;
  const clock = new HostClock(
    () => host,
    () => instructions,
  );
  clock.resume();
  host = 1000;
  clock.paceUntil(1_000_000);
  host += 500;
  assert.equal(clock.now(), 1500);
  host += 250_000;
  instructions += 100;
  assert.equal(clock.now(), 1500 + 3000 + 100 * 20);
  instructions += 1_000_000;
  host += 2_000_000;
  assert.equal(clock.now(), 6500 + 2_000_000);
  host += 250_000;
  assert.equal(clock.now(), 2_256_500);
});

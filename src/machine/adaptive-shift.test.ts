import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AdaptiveShift, FIRST_SHIFT } from './adaptive-shift.ts';
import { InstructionClock } from './clock.ts';

/** A guest that executes so many instructions in a host nanosecond. */
function run(speed: number, seconds: number) {
  let host = 0;
  let instructions = 0;
  const clock = new InstructionClock(() => instructions, FIRST_SHIFT);
  const adaptive = new AdaptiveShift(clock, () => host);
  adaptive.resume();
  let last = 0;
  for (let step = 0; step < seconds * 1000; step++) {
    host += 1e6;
    instructions += speed * 1e6;
    adaptive.adjust();
    assert.ok(clock.now() >= last, 'time goes back');
    last = clock.now();
  }
  return { ahead: clock.now() - host, perInstruction: clock.nsPerInstruction };
}

test('virtual time keeps with the host whether the guest is fast or slow', () => {
  for (const speed of [1, 0.25, 0.02, 0.004]) {
    const { ahead } = run(speed, 20);
    assert.ok(Math.abs(ahead) < 2e9, `${speed}: ${ahead}`);
  }
  assert.ok(run(1, 20).perInstruction <= 2);
  assert.ok(run(0.004, 20).perInstruction >= 128);
});

test('a machine that stood still has not fallen behind', () => {
  let host = 0;
  let instructions = 0;
  const clock = new InstructionClock(() => instructions, FIRST_SHIFT);
  const adaptive = new AdaptiveShift(clock, () => host);
  adaptive.resume();
  host += 60e9;
  adaptive.resume();
  for (let i = 0; i < 20; i++) {
    host += 100e6;
    instructions += 100e6 / 8;
    adaptive.adjust();
  }
  assert.equal(clock.nsPerInstruction, 8);
});

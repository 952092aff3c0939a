import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IoSpace } from './io-space.ts';

function recorder(seen: string[], name: string) {
  return {
    read: (offset: number, size: number) => (seen.push(`${name} r${offset}.${size}`), offset + 1),
    write: (offset: number, size: number, value: number) => {
      seen.push(`${name} w${offset}.${size}=${value.toString(16)}`);
    },
  };
}

test('byte-wide registers take wide accesses in pieces', () => {
  const io = new IoSpace();
  const seen: string[] = [];
  io.register(0x40, 4, recorder(seen, 'a'), 'a', { maxSize: 1 });
  assert.equal(io.in(0x40, 4), 0x04030201);
  io.out(0x42, 2, 0xbbaa);
  assert.deepEqual(seen.slice(4), ['a w2.1=aa', 'a w3.1=bb']);
});

test('an access over the end of a region goes on beyond it', () => {
  const io = new IoSpace();
  const seen: string[] = [];
  io.register(0x10, 2, recorder(seen, 'a'), 'a');
  assert.equal(io.in(0x10, 2), 1);
  assert.equal(io.in(0x11, 4), 0xffffff02);
  assert.equal(io.in(0xffff, 4) >>> 0, 0xffffffff);
});

test('the first region wins, and removal uncovers the next', () => {
  const io = new IoSpace();
  const seen: string[] = [];
  const first = io.register(0xcf9, 1, recorder(seen, 'reset'), 'reset');
  io.register(0xcf8, 8, recorder(seen, 'pci'), 'pci');
  io.out(0xcf8, 4, 0x80000000);
  io.out(0xcf9, 1, 6);
  first.remove();
  io.out(0xcf9, 1, 6);
  assert.deepEqual(seen, ['pci w0.4=80000000', 'reset w0.1=6', 'pci w1.1=6']);
});

test('unknown ports read as ones and are traced', () => {
  const io = new IoSpace();
  const lines: string[] = [];
  io.trace = (category, line) => lines.push(`${category} ${line}`);
  assert.deepEqual([io.in(1, 1), io.in(1, 2), io.in(1, 4)], [0xff, 0xffff, 0xffffffff]);
  io.out(0x80, 1, 5);
  assert.equal(lines[3], 'unassigned-io out 1 to 0x80 value 0x5');
});

test('registers are told of that nothing hides, also when doorbells among them have changed', () => {
  const io = new IoSpace();
  let told = 0;
  io.onDoorbells = () => told++;
  const whole = io.register(0x100, 8, recorder([], 'whole'), 'whole');
  const hidden = io.register(0x104, 8, recorder([], 'hidden'), 'hidden');
  assert.deepEqual(
    io.visibleRegisters().map(({ base, size }) => [base, size]),
    [[0x100, 8]],
  );
  whole.remove();
  assert.deepEqual(
    io.visibleRegisters().map(({ base, size }) => [base, size]),
    [[0x104, 8]],
  );
  hidden.doorbellsChanged!();
  assert.equal(told, 4);
});

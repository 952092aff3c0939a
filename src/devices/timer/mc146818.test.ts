import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock, RecordingLine } from '../mocks.ts';
import { Mc146818, rtcBaseSeconds } from './mc146818.ts';

const SECOND = 1e9;

function rtc(base = '2026-03-04T23:59:58') {
  const clock = new ManualClock();
  const irq = new RecordingLine();
  const device = new Mc146818(clock, irq, { baseSeconds: rtcBaseSeconds(base) });
  const read = (index: number) => {
    device.ports.write(0, 1, index);
    return device.ports.read(1, 1);
  };
  const write = (index: number, value: number) => {
    device.ports.write(0, 1, index);
    device.ports.write(1, 1, value);
  };
  const time = () => [0x32, 9, 8, 7, 4, 2, 0].map((i) => read(i).toString(16).padStart(2, '0'));
  return { clock, irq, device, read, write, time };
}

test('shows the time in BCD and carries over', () => {
  const r = rtc();
  assert.equal(r.time().join(' '), '20 26 03 04 23 59 58');
  assert.equal(r.read(6), 4, 'a Wednesday');
  r.clock.run(2 * SECOND);
  assert.equal(r.time().join(' '), '20 26 03 05 00 00 00');
});

test('binary and 12-hour formats', () => {
  const r = rtc();
  r.write(0x0b, 0x04);
  assert.deepEqual([r.read(4), r.read(2), r.read(0)], [0x80 | 11, 59, 58]);
  r.write(0x0b, 0x00);
  assert.equal(r.read(4), 0x80 | 0x11);
});

test('setting the time under SET', () => {
  const r = rtc();
  r.write(0x0b, 0x82);
  for (const [i, v] of [
    [0x32, 0x19],
    [9, 0x99],
    [8, 0x12],
    [7, 0x31],
    [4, 0x12],
    [2, 0],
    [0, 0],
  ]) {
    r.write(i!, v!);
  }
  r.clock.run(10 * SECOND);
  assert.equal(r.read(0), 0, 'stands still');
  r.write(0x0b, 0x02);
  r.clock.run(SECOND);
  assert.equal(r.time().join(' '), '19 99 12 31 12 00 01');
});

test('UIP warns before each update', () => {
  const r = rtc();
  assert.equal(r.read(0x0a) & 0x80, 0);
  r.clock.run(SECOND - 100_000);
  assert.equal(r.read(0x0a) & 0x80, 0x80);
  r.clock.run(100_000);
  assert.equal(r.read(0x0a), 0x26);
});

test('periodic interrupt, cleared by reading register C', () => {
  const r = rtc();
  r.write(0x0b, 0x42);
  r.clock.run(SECOND / 1024 + 1);
  assert.equal(r.irq.level, true);
  assert.equal(r.read(0x0c), 0xc0);
  assert.equal(r.irq.level, false);
  assert.equal(r.read(0x0c), 0);
  for (let i = 0; i < 100; i++) {
    r.clock.run(SECOND / 1024 + 1);
    r.read(0x0c);
  }
  assert.equal(r.irq.rises, 101);
});

test('update-ended and alarm interrupts', () => {
  const r = rtc();
  r.write(0x0b, 0x12);
  r.clock.run(SECOND);
  assert.equal(r.read(0x0c), 0xd0, 'the divider ticks along');
  r.write(0x0b, 0x22);
  for (const [i, v] of [
    [5, 0xff],
    [3, 0x01],
    [1, 0x00],
  ])
    r.write(i!, v!);
  r.read(0x0c);
  r.clock.run(60 * SECOND);
  assert.equal(r.irq.level, false);
  r.clock.run(2 * SECOND);
  assert.equal(r.irq.level, true);
  assert.equal(r.read(0x0c) & 0xa0, 0xa0);
});

test('flags are set for pollers without any interrupt enabled', () => {
  const r = rtc();
  r.clock.run(2 * SECOND);
  assert.equal(r.read(0x0c) & 0xd0, 0x50);
  assert.equal(r.irq.rises, 0);
});

test('NMI mask, memory bytes, and reset keeping time', () => {
  const r = rtc();
  r.write(0x80 | 0x40, 0x55);
  assert.equal(r.device.nmiMasked, true);
  r.clock.run(SECOND);
  r.device.reset();
  assert.equal(r.device.nmiMasked, false);
  assert.equal(r.read(0x40), 0x55);
  assert.equal(r.read(0), 0x59);
});

test('odd register values do no harm', () => {
  const r = rtc();
  for (let i = 0; i < 10; i++) r.write(i, 0xff);
  r.write(0x32, 0xff);
  r.write(0x0b, 0x7f);
  r.clock.run(3 * SECOND);
  for (let i = 0; i < 128; i++) assert.ok(Number.isInteger(r.read(i)));
});

test('base times', () => {
  assert.equal(rtcBaseSeconds('1970-01-02'), 86400);
  assert.throws(() => rtcBaseSeconds('soon'), /rtc base "soon" is not utc/);
});

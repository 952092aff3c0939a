import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock, RecordingLine } from '../mocks.ts';
import { I8254 } from './i8254.ts';

const HZ = 1_193_182;
const ns = (ticks: number) => Math.ceil((ticks * 1e9) / HZ);

function pit() {
  const clock = new ManualClock();
  const irq = new RecordingLine();
  const device = new I8254(clock, irq);
  const write = (port: number, value: number) => device.ports.write(port, 1, value);
  const read = (port: number) => device.ports.read(port, 1);
  const load = (channel: number, control: number, count: number) => {
    write(3, (channel << 6) | control);
    write(channel, count & 0xff);
    write(channel, count >> 8);
  };
  return { clock, irq, device, write, read, load };
}

test('mode 2 ticks at its rate without drift', () => {
  const p = pit();
  p.load(0, 0x34, 11932);
  const before = p.irq.rises;
  p.clock.run(1e9);
  assert.equal(p.irq.rises - before, Math.floor(HZ / 11932));
});

test('mode 3 ticks likewise, and counts by two', () => {
  const p = pit();
  p.load(0, 0x36, 1000);
  p.clock.run(ns(100));
  p.write(3, 0x00);
  assert.equal(p.read(0) | (p.read(0) << 8), 800);
  p.clock.run(ns(9900));
  assert.equal(p.irq.rises, 1 + 10);
});

test('mode 0 interrupts once on terminal count and counts on', () => {
  const p = pit();
  p.load(0, 0x30, 500);
  assert.equal(p.irq.level, false);
  p.clock.run(ns(499));
  assert.equal(p.irq.level, false);
  p.clock.run(ns(2));
  assert.equal(p.irq.level, true);
  p.clock.run(ns(65536));
  assert.equal(p.irq.rises, 1 + 0);
});

test('mode 4 strobes after the count', () => {
  const p = pit();
  p.load(0, 0x38, 100);
  const before = p.irq.rises;
  p.clock.run(ns(102));
  assert.equal(p.irq.rises, before + 1);
  p.clock.run(1e9);
  assert.equal(p.irq.rises, before + 1);
});

test('a latched count stands still; read-back latches status and count', () => {
  const p = pit();
  p.load(0, 0x34, 0x4000);
  p.clock.run(ns(0x100));
  p.write(3, 0x00);
  p.clock.run(ns(0x100));
  const latched = p.read(0) | (p.read(0) << 8);
  assert.equal(latched, 0x4000 - 0x100);
  p.write(3, 0xc2);
  assert.equal(p.read(0), 0x80 | 0x34, 'OUT high, count loaded, access both, mode 2');
  assert.ok(Math.abs((p.read(0) | (p.read(0) << 8)) - (0x4000 - 0x200)) <= 1);
});

test('read-back shows a null count until the count is complete', () => {
  const p = pit();
  p.write(3, 0x34);
  p.write(0, 0x10);
  p.write(3, 0xe2);
  assert.equal(p.read(0) & 0x40, 0x40);
});

test('BCD counts in decimal', () => {
  const p = pit();
  p.load(0, 0x35, 0x1000);
  p.clock.run(ns(1));
  p.write(3, 0);
  assert.equal(p.read(0) | (p.read(0) << 8), 0x0999);
});

test('channel 2 is gated by port 61h, which shows its output', () => {
  const p = pit();
  p.load(2, 0x30, 1000);
  p.clock.run(ns(5000));
  assert.equal(p.device.speaker.read(0, 1) & 0x20, 0);
  p.device.speaker.write(0, 1, 1);
  p.clock.run(ns(900));
  assert.equal(p.device.speaker.read(0, 1) & 0x21, 1);
  p.clock.run(ns(101));
  assert.equal(p.device.speaker.read(0, 1) & 0x20, 0x20);
  assert.notEqual(p.device.speaker.read(0, 1) & 0x10, p.device.speaker.read(0, 1) & 0x10);
});

test('a tiny count cannot drown the machine', () => {
  const p = pit();
  p.load(0, 0x34, 2);
  p.clock.run(1e6);
  assert.ok(p.irq.rises <= 101);
});

test('state goes round in the middle of a count', () => {
  const p = pit();
  p.load(0, 0x30, 1000);
  p.clock.run(ns(500));
  const q = pit();
  q.clock.runTo(p.clock.now());
  q.device.loadState(p.device.saveState());
  q.clock.run(ns(501));
  assert.equal(q.irq.level, true);
});

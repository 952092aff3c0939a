import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock, RecordingBackend, RecordingLine } from '../mocks.ts';
import { Uart16550 } from './uart16550.ts';

function uart() {
  const clock = new ManualClock();
  const irq = new RecordingLine();
  const backend = new RecordingBackend();
  const device = new Uart16550(clock, irq, backend);
  const write = (at: number, value: number) => device.ports.write(at, 1, value);
  const read = (at: number) => device.ports.read(at, 1);
  return { clock, irq, backend, device, write, read };
}

test('output leaves at once', () => {
  const u = uart();
  for (const c of 'hi') u.write(0, c.charCodeAt(0));
  assert.equal(u.backend.output, 'hi');
  assert.equal(u.read(5) & 0x60, 0x60);
});

test('the divisor latch, scratch and FIFO identification', () => {
  const u = uart();
  u.write(3, 0x83);
  u.write(0, 0x34);
  u.write(1, 0x12);
  assert.deepEqual([u.read(0), u.read(1)], [0x34, 0x12]);
  u.write(3, 0x03);
  assert.equal(u.read(1), 0);
  u.write(7, 0xa5);
  assert.equal(u.read(7), 0xa5);
  assert.equal(u.read(2), 0x01);
  u.write(2, 0x01);
  assert.equal(u.read(2), 0xc1);
});

test('THRE: raised when enabled, cleared by reading IIR, raised again by each write', () => {
  const u = uart();
  u.write(1, 0x02);
  assert.equal(u.irq.level, true);
  assert.equal(u.read(2), 0x02);
  assert.equal(u.irq.level, false);
  assert.equal(u.read(2), 0x01);
  u.write(0, 65);
  assert.equal(u.irq.rises, 2);
  u.write(0, 66);
  assert.equal(u.irq.rises, 3, 'an edge for each write');
  u.write(1, 0x00);
  u.write(1, 0x02);
  assert.equal(u.read(2), 0x02, 'toggling the enable raises it anew');
});

test('priorities: line status, data, transmitter, modem', () => {
  const u = uart();
  u.write(1, 0x0f);
  u.write(4, 0x10);
  u.write(4, 0x12);
  u.write(0, 1);
  u.write(0, 2);
  assert.equal(u.read(2), 0x06);
  assert.equal(u.read(5) & 0x03, 0x03, 'overrun');
  assert.equal(u.read(2), 0x04);
  assert.equal(u.read(0), 2);
  assert.equal(u.read(2), 0x02);
  assert.equal(u.read(2), 0x00);
  u.read(6);
  assert.equal(u.read(2), 0x01);
});

test('input takes what fits and asks for more when empty', () => {
  const u = uart();
  u.write(2, 0x81);
  assert.equal(u.backend.type('0123456789abcdefghij'), 16);
  u.write(1, 0x01);
  assert.equal(u.read(2), 0xc4);
  const before = u.backend.resumed;
  let text = '';
  while ((u.read(5) & 1) !== 0) text += String.fromCharCode(u.read(0));
  assert.equal(text, '0123456789abcdef');
  assert.equal(u.backend.resumed, before + 1);
});

test('characters below the trigger level are announced by the timeout', () => {
  const u = uart();
  u.write(2, 0xc1);
  u.write(1, 0x01);
  u.backend.type('x');
  assert.equal(u.irq.level, false);
  u.clock.run(2e6);
  assert.equal(u.irq.level, true);
  assert.equal(u.read(2), 0xcc);
  assert.equal(u.read(0), 0x78);
  assert.equal(u.irq.level, false);
});

test('loopback: modem lines as Linux probes them', () => {
  const u = uart();
  u.write(4, 0x1a);
  assert.equal(u.read(6) & 0xf0, 0x90);
  u.write(0, 0x5a);
  assert.equal(u.backend.output, '');
  assert.equal(u.read(0), 0x5a);
  u.write(4, 0x0b);
  assert.equal(u.read(6) & 0xf0, 0xb0);
});

test('a full backend makes the transmitter busy until it drains', () => {
  const u = uart();
  u.write(2, 0x01);
  u.write(1, 0x02);
  u.read(2);
  u.backend.accepts = false;
  u.write(0, 65);
  u.write(0, 66);
  assert.equal(u.read(5) & 0x60, 0);
  assert.equal(u.backend.output, 'A');
  u.backend.accepts = true;
  u.backend.onDrain?.();
  assert.equal(u.backend.output, 'AB');
  assert.equal(u.read(5) & 0x60, 0x60);
  assert.equal(u.read(2), 0xc2);
});

test('break and clearing the FIFO', () => {
  const u = uart();
  u.write(2, 0x01);
  u.device.receiveBreak();
  assert.equal(u.read(5) & 0x11, 0x11);
  assert.equal(u.read(5) & 0x10, 0);
  u.write(2, 0x03);
  assert.equal(u.read(5) & 1, 0);
});

test('state goes round; a bad count is refused', () => {
  const u = uart();
  u.write(2, 0x01);
  u.backend.type('ab');
  const copy = uart();
  copy.device.loadState(u.device.saveState());
  assert.equal(copy.read(0), 0x61);
  const bad = u.device.saveState();
  bad.fields.receiveCount = 99;
  assert.throws(() => copy.device.loadState(bad), /serial0: field "receiveCount" is 99/);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RecordingLine } from '../mocks.ts';
import { I8042, Port92 } from './i8042.ts';

function controller() {
  const keyboardIrq = new RecordingLine();
  const mouseIrq = new RecordingLine();
  const a20: boolean[] = [];
  let resets = 0;
  const device = new I8042({
    keyboardIrq,
    mouseIrq,
    setA20: (on) => a20.push(on),
    resetCpu: () => resets++,
  });
  const data = (value: number) => device.ports.write(0, 1, value);
  const command = (value: number) => device.ports.write(4, 1, value);
  const status = () => device.ports.read(4, 1);
  const drain = () => {
    const bytes: number[] = [];
    while ((status() & 1) !== 0) bytes.push(device.ports.read(0, 1));
    return bytes;
  };
  const resetCount = () => resets;
  return { keyboardIrq, mouseIrq, a20, device, data, command, status, drain, resetCount };
}

test('self test, interface tests and configuration', () => {
  const c = controller();
  for (const byte of [0xaa, 0xab, 0xa9, 0x20]) c.command(byte);
  assert.deepEqual(c.drain(), [0x55, 0, 0, 0x45]);
  c.command(0x60);
  c.data(0x30);
  c.command(0x20);
  assert.deepEqual(c.drain(), [0x30]);
});

test('keyboard: reset, identify, LEDs, scancodes by interrupt 1', () => {
  const c = controller();
  c.data(0xff);
  assert.deepEqual(c.drain(), [0xfa, 0xaa]);
  c.data(0xf2);
  assert.deepEqual(c.drain(), [0xfa, 0xab, 0x41]);
  c.data(0xed);
  c.data(0x07);
  assert.deepEqual(c.drain(), [0xfa, 0xfa]);
  const before = c.keyboardIrq.rises;
  c.device.injectScancode(0x1e, 0x9e);
  assert.deepEqual(c.drain(), [0x1e, 0x9e]);
  assert.equal(c.keyboardIrq.rises, before + 2, 'an edge for each byte');
});

test('mouse: behind D4h, with the wheel unlocked by three sample rates', () => {
  const c = controller();
  c.command(0x60);
  c.data(0x47);
  const mouse = (...bytes: number[]) => {
    for (const byte of bytes) {
      c.command(0xd4);
      c.data(byte);
    }
  };
  mouse(0xff);
  assert.equal(c.status() & 0x20, 0x20);
  assert.deepEqual(c.drain(), [0xfa, 0xaa, 0x00]);
  mouse(0xf3, 200, 0xf3, 100, 0xf3, 80);
  c.drain();
  mouse(0xf2);
  assert.deepEqual(c.drain(), [0xfa, 3]);
  mouse(0xf4);
  c.drain();
  c.device.injectMouse(5, -3, 1, 0);
  assert.equal(c.mouseIrq.level, true);
  assert.deepEqual(c.drain(), [0x29, 5, 0xfd, 0]);
});

test('A20 and reset, from the controller and from port 92h', () => {
  const c = controller();
  c.command(0xd1);
  c.data(0xdd);
  assert.deepEqual(c.a20, [false]);
  assert.equal(c.device.a20, false);
  let fast = 0;
  const port = new Port92(c.device, () => fast++).ports;
  assert.equal(port.read(0, 1), 0);
  port.write(0, 1, 2);
  assert.deepEqual(c.a20, [false, true]);
  c.command(0xd0);
  assert.equal(c.drain()[0]! & 2, 2);
  port.write(0, 1, 3);
  assert.equal(fast, 1);
  c.command(0xfe);
  assert.equal(c.resetCount(), 1);
  c.command(0xff);
  assert.equal(c.resetCount(), 1, 'FFh pulses nothing');
});

test('a flood of keys is bounded, and no command hurts', () => {
  const c = controller();
  for (let i = 0; i < 1000; i++) c.device.injectScancode(0xe0, 0x48);
  assert.ok(c.drain().length <= 65);
  for (let i = 0; i < 0xf0; i++) {
    c.command(i);
    c.data(i);
    c.device.loadState(c.device.saveState());
  }
});

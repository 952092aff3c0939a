import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IoHandler } from '../../machine/interfaces.ts';
import { RecordingLine } from '../mocks.ts';
import { PciBus } from '../pci.ts';
import { Ich9Lpc, q35PirqOf } from './ich9.ts';
import { Q35Mch } from './q35.ts';

function setUp() {
  const windows = new Map<number, { size: number; handler: IoHandler }>();
  const memory = {
    addMmio: (base: number, size: number, handler: IoHandler) => {
      windows.set(base, { size, handler });
      return { remove: () => void windows.delete(base) };
    },
  };
  const ranges = new Map<number, IoHandler>();
  const ports = {
    register: (base: number, _count: number, handler: IoHandler) => {
      ranges.set(base, handler);
      return { remove: () => void ranges.delete(base) };
    },
  };
  const bus = new PciBus({ memory, ports }, q35PirqOf);
  const mch = new Q35Mch(memory, bus);
  bus.plug(mch, 0);
  const isa = Array.from({ length: 16 }, () => new RecordingLine());
  const inputs = Array.from({ length: 8 }, () => new RecordingLine());
  const none = { read: () => 0, write: () => undefined };
  const lpc = new Ich9Lpc({ smm: true, bus, ports, isa, inputs, pm: none, gpe: none });
  bus.plug(lpc, 31);
  return { windows, ranges, bus, mch, lpc, isa, inputs };
}

test('configuration space shows in memory where and while PCIEXBAR says so', () => {
  const { windows, mch } = setUp();
  mch.configWrite(0x60, 4, 0xb0000001);
  const { size, handler } = windows.get(0xb0000000)!;
  assert.equal(size, 2 ** 28);
  assert.equal(handler.read(0, 4), 0x29c08086);
  assert.equal(handler.read(31 << 15, 2), 0x8086);
  assert.equal(handler.read(0x100, 4), 0xffffffff, 'no extended space');
  assert.equal(handler.read(1 << 20, 4), 0xffffffff, 'no second bus');
  handler.write((31 << 15) + 0x60, 1, 11);
  assert.equal(handler.read((31 << 15) + 0x60, 1), 11);
  mch.configWrite(0x60, 4, 0xe0000001);
  assert.deepEqual([...windows.keys()], [0xe0000000]);
  mch.reset();
  assert.equal(windows.size, 0);
});

test('PIRQs reach their own inputs, and the ISA interrupts that they are routed to', () => {
  const { bus, mch, lpc, isa, inputs } = setUp();
  bus.setPin(mch, 1, true);
  assert.deepEqual([inputs[5]!.level, isa[10]!.level], [true, false]);
  lpc.configWrite(0x69, 1, 10);
  assert.equal(isa[10]!.level, true);
  bus.setPin(mch, 1, false);
  assert.deepEqual([inputs[5]!.level, isa[10]!.level], [false, false]);
  bus.setPin(lpc, 0, true);
  assert.equal(inputs[0]!.level, true);
});

test('SMIs by the control port need both of their bits in SMI_EN', () => {
  const { ranges, lpc } = setUp();
  lpc.configWrite(0x40, 4, 0x601);
  lpc.configWrite(0x44, 1, 0x80);
  const pm = ranges.get(0x600)!;
  pm.write(0x30, 4, 0x20);
  assert.equal(lpc.raisesSmi, false);
  pm.write(0x30, 4, 0x21);
  assert.deepEqual([lpc.raisesSmi, pm.read(0x30, 4)], [true, 0x21]);
  lpc.reset();
  assert.equal(lpc.raisesSmi, false);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FlatMemory, ManualClock, RecordingLine } from '../mocks.ts';
import { VirtioMmio } from './mmio.ts';
import { VirtioRng } from './rng.ts';

const STATUS = 0x70;

function start() {
  const memory = new FlatMemory(1 << 20);
  const irq = new RecordingLine();
  const options = { random: () => 0x07070707, clock: new ManualClock(), maxBytes: Number.MAX_SAFE_INTEGER, period: 1 };
  const device = new VirtioMmio('virtio-mmio0', new VirtioRng({ id: 'rng', memory }, options), irq);
  const read = (offset: number): number => device.mmio.read(offset, 4);
  const write = (offset: number, value: number): void => device.mmio.write(offset, 4, value);
  return { memory, irq, device, read, write };
}

/** Everything that a driver does until a request is answered. */
function request({ memory, read, write }: ReturnType<typeof start>): void {
  write(STATUS, 3);
  write(0x14, 1);
  assert.equal(read(0x10) & 1, 1, 'version 1 is offered');
  write(0x24, 1);
  write(0x20, 1);
  write(STATUS, 11);
  assert.equal(read(STATUS), 11);
  write(0x30, 0);
  write(0x38, 4);
  [0x10000, 0x11000, 0x12000].forEach((address, i) => write(0x80 + 16 * i, address));
  write(0x44, 1);
  write(STATUS, 15);
  memory.write(0x10000, 4, 0x20000);
  memory.write(0x10008, 4, 6);
  memory.write(0x1000c, 2, 2);
  memory.write(0x11002, 2, 1);
  write(0x50, 0);
}

test('a place tells what is in it, or that it is empty', () => {
  const { read } = start();
  assert.deepEqual([0, 4, 8, 0x34].map(read), [0x74726976, 2, 4, 8]);
  const empty = new VirtioMmio('empty', null, new RecordingLine());
  assert.deepEqual([empty.mmio.read(0, 4), empty.mmio.read(8, 4)], [0x74726976, 0]);
});

test('a request, its interrupt, and the acknowledgement', () => {
  const all = start();
  request(all);
  assert.deepEqual([...all.memory.bytes.subarray(0x20000, 0x20008)], [7, 7, 7, 7, 7, 7, 0, 0]);
  assert.equal(all.irq.level, true);
  assert.equal(all.read(0x60), 1);
  all.write(0x64, 1);
  assert.equal(all.irq.level, false);
  all.write(STATUS, 0);
  assert.deepEqual([all.read(STATUS), all.read(0x44)], [0, 0]);
});

test('state: queues and interrupts come back', () => {
  const all = start();
  request(all);
  const other = start();
  other.memory.bytes.set(all.memory.bytes);
  other.device.loadState(all.device.saveState());
  assert.equal(other.irq.level, true);
  other.memory.write(0x11002, 2, 2);
  other.write(0x50, 0);
  assert.equal(other.memory.read(0x12002, 2), 2);
});

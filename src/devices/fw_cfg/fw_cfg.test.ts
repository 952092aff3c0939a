import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FlatMemory } from '../mocks.ts';
import { FW_CFG, FwCfg } from './fw_cfg.ts';

function read(device: FwCfg, key: number, count: number): number[] {
  device.ports.write(0, 2, key);
  return Array.from({ length: count }, () => device.ports.read(1, 1));
}

const be32 = (value: number) => [24, 16, 8, 0].map((shift) => (value >>> shift) & 255);

/** Writes a descriptor at 0x100 and starts it. @returns the control word afterwards */
function dma(device: FwCfg, memory: FlatMemory, control: number, length: number, at: number): number {
  memory.bytes.set([...be32(control), ...be32(length), 0, 0, 0, 0, ...be32(at)], 0x100);
  device.dma.write(0, 4, 0);
  device.dma.write(4, 4, 0x00010000);
  return new DataView(memory.bytes.buffer).getUint32(0x100);
}

test('signature, numbers and zeros beyond the end', () => {
  const device = new FwCfg(new FlatMemory(16));
  assert.equal(String.fromCharCode(...read(device, FW_CFG.signature, 4)), 'QEMU');
  assert.deepEqual(read(device, FW_CFG.id, 5), [3, 0, 0, 0, 0]);
  device.setNumber(FW_CFG.ramSize, 0x1_2345_6789, 8);
  assert.deepEqual(read(device, FW_CFG.ramSize, 8), [0x89, 0x67, 0x45, 0x23, 1, 0, 0, 0]);
  assert.deepEqual(read(device, 0x7777, 2), [0, 0]);
});

test('the directory lists files by name', () => {
  const device = new FwCfg(new FlatMemory(16));
  device.setFile('opt/b', new Uint8Array(5));
  device.setFile('etc/a', Uint8Array.of(7, 8));
  const directory = read(device, FW_CFG.fileDirectory, 4 + 128);
  assert.deepEqual(directory.slice(0, 12), [0, 0, 0, 2, 0, 0, 0, 2, 0, 0x21, 0, 0]);
  assert.equal(String.fromCharCode(...directory.slice(12, 17)), 'etc/a');
  assert.deepEqual(read(device, 0x21, 2), [7, 8]);
  assert.throws(() => device.setFile('x'.repeat(56), new Uint8Array(1)), /not a usable file name/);
});

test('DMA: select and read, skip, past the end, no writing', () => {
  const memory = new FlatMemory(0x1000);
  const device = new FwCfg(memory);
  device.setFile('data', Uint8Array.of(1, 2, 3, 4));
  assert.equal(device.dma.read(0, 4), 0x554d4551);
  assert.equal(device.dma.read(4, 4), 0x47464320);
  memory.bytes.fill(0xee, 0x200, 0x210);
  assert.equal(dma(device, memory, (0x20 << 16) | 8 | 2, 3, 0x200), 0);
  assert.deepEqual([...memory.bytes.slice(0x200, 0x204)], [1, 2, 3, 0xee]);
  assert.equal(dma(device, memory, 2, 3, 0x200), 0);
  assert.deepEqual([...memory.bytes.slice(0x200, 0x204)], [4, 0, 0, 0xee]);
  assert.equal(dma(device, memory, (0x20 << 16) | 8 | 4, 2, 0), 0);
  assert.equal(device.ports.read(1, 1), 3);
  assert.equal(dma(device, memory, 16, 1, 0x200), 1);
});

test('a hostile descriptor is harmless', () => {
  const memory = new FlatMemory(0x1000);
  const device = new FwCfg(memory);
  memory.bytes.set([0, 0, 0, 2, 0, 0, 0, 9, ...be32(0xffffffff), ...be32(0xffffffff)], 0x100);
  device.dma.write(0, 4, 0xffffffff);
  device.dma.write(4, 4, 0xffffffff);
  device.dma.write(4, 4, 0x00010000);
  assert.equal(memory.bytes[0x103], 1);
  device.loadState(device.saveState());
});

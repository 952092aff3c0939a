import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BlockBackend } from '../../machine/interfaces.ts';
import { byPieces, FlatMemory, ManualClock, RecordingLine } from '../mocks.ts';
import { FloppyController } from './fdc.ts';
import { IsaDma } from './isa-dma.ts';
import { capacity, formatOf } from './media.ts';

const SECTOR = 512;
const SIZE = 1474560;

function disk(): BlockBackend & { data: Uint8Array; readOnly: boolean } {
  const data = new Uint8Array(SIZE);
  const view = new DataView(data.buffer);
  for (let i = 0; i < SIZE / SECTOR; i++) view.setUint32(i * SECTOR, i, true);
  const transfers: Pick<BlockBackend, 'read' | 'write'> = {
    read: (offset, into) => into.set(data.subarray(offset, offset + into.length)),
    write: (offset, from) => data.set(from, offset),
  };
  return {
    data,
    size: SIZE,
    readOnly: false,
    ...transfers,
    ...byPieces(transfers),
    flush: () => undefined,
    discard: () => undefined,
    close: () => undefined,
  };
}

function controller(backend: BlockBackend | null = disk(), readOnly = false) {
  const memory = new FlatMemory(1 << 20);
  const clock = new ManualClock();
  const irq = new RecordingLine();
  const dma = new IsaDma(memory);
  const fdc = new FloppyController({
    clock,
    irq,
    dma: dma.channel(2),
    drives: [{ backend, readOnly }, null],
  });
  const status = (): number => fdc.ports.read(4, 1);
  const command = (...bytes: number[]): void => bytes.forEach((byte) => fdc.ports.write(5, 1, byte));
  const result = (count: number): number[] => Array.from({ length: count }, () => fdc.ports.read(5, 1));
  /** Channel 2 for so many bytes at an address below 64 KiB. */
  const setDma = (mode: number, address: number, bytes: number): void => {
    const out = (port: number, value: number): void => dma.first.write(port, 1, value);
    out(0xb, mode | 2);
    out(0xc, 0);
    out(4, address & 0xff);
    out(4, address >> 8);
    out(5, (bytes - 1) & 0xff);
    out(5, (bytes - 1) >> 8);
    dma.pages.write(1, 1, 0);
    out(0xa, 2);
  };
  /** Out of reset with the motor on, at 500 kbit/s. */
  fdc.ports.write(2, 1, 0);
  fdc.ports.write(2, 1, 0x1c);
  for (let i = 0; i < 4; i++) {
    command(8);
    result(2);
  }
  fdc.lastPort.write(0, 1, 0);
  return { fdc, memory, clock, irq, dma, status, command, result, setDma };
}

test('a reset interrupts, and is told of once for each drive', () => {
  const c = controller();
  c.fdc.ports.write(2, 1, 0);
  c.fdc.ports.write(2, 1, 0x1c);
  assert.equal(c.irq.level, true);
  for (let i = 0; i < 4; i++) {
    c.command(8);
    assert.deepEqual(c.result(2), [0xc0 | i, 0]);
  }
  c.command(8);
  assert.deepEqual(c.result(1), [0x80]);
  assert.equal(c.status(), 0x80);
});

test('READ DATA by DMA over both heads, until the count runs out', () => {
  const c = controller();
  c.setDma(0x44, 0x1000, 4 * SECTOR);
  // MT, MFM: cylinder 0, head 0, sector 17 to 18.
  c.command(0xe6, 0x00, 0, 0, 17, 2, 18, 0x1b, 0xff);
  assert.equal(c.status() & 0x90, 0x10, 'busy');
  c.clock.run(1e6);
  assert.equal(c.irq.level, true);
  assert.deepEqual(
    [0, 1, 2, 3].map((i) => c.memory.read(0x1000 + i * SECTOR, 4)),
    [16, 17, 18, 19],
  );
  const [st0, st1, st2, cylinder, head, sector, code] = c.result(7);
  assert.deepEqual([st0! & 0xc0, st1, st2, cylinder, head, sector, code], [0, 0, 0, 0, 1, 3, 2]);
  assert.equal(c.irq.level, false);
});

test('SEEK, then WRITE DATA; the seek is told of and clears the disk change', () => {
  const backend = disk();
  const c = controller(backend);
  assert.equal(c.fdc.lastPort.read(0, 1), 0x80);
  c.command(0x0f, 0, 5);
  assert.equal(c.irq.level, true);
  c.command(8);
  assert.deepEqual(c.result(2), [0x20, 5]);
  assert.equal(c.fdc.lastPort.read(0, 1), 0);
  c.memory.write(0x2000, 4, 0xcafe);
  c.setDma(0x48, 0x2000, SECTOR);
  c.command(0x45, 0x04, 5, 1, 2, 2, 18, 0x1b, 0xff);
  c.clock.run(1e6);
  assert.equal(new DataView(backend.data.buffer).getUint32(((5 * 2 + 1) * 18 + 1) * SECTOR, true), 0xcafe);
});

test('without a disk, at a wrong data rate, write-protected: errors, no hang', () => {
  const failing = (c: ReturnType<typeof controller>, code: number): number[] => {
    c.setDma(code === 0x45 ? 0x48 : 0x44, 0x1000, SECTOR);
    c.command(code, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    c.clock.run(1e6);
    return c.result(7).slice(0, 2);
  };
  assert.deepEqual(failing(controller(null), 0x46), [0x40, 0x05]);
  const slow = controller();
  slow.fdc.lastPort.write(0, 1, 2);
  assert.deepEqual(failing(slow, 0x46), [0x40, 0x05]);
  assert.deepEqual(failing(controller(disk(), true), 0x45), [0x40, 0x02]);
});

test('READ DATA without DMA gives the bytes at the data port', () => {
  const c = controller();
  c.command(0x03, 0xdf, 0x03);
  c.command(0x46, 0, 0, 0, 1, 2, 1, 0x1b, 0xff);
  c.clock.run(1e6);
  assert.equal(c.status() & 0xf0, 0xf0);
  assert.deepEqual(c.result(SECTOR).slice(0, 4), [0, 0, 0, 0]);
  assert.equal(c.status() & 0xd0, 0xd0);
  assert.equal(c.result(7)[1], 0x80, 'end of the track, as nobody has said stop');
});

test('an invalid command, VERSION and DUMPREG', () => {
  const c = controller();
  c.command(0x1f);
  assert.deepEqual(c.result(1), [0x80]);
  c.command(0x10);
  assert.deepEqual(c.result(1), [0x90]);
  c.command(0x0e);
  assert.equal(c.result(10)[6], 18);
  assert.equal(c.status(), 0x80);
});

test('formats by size', () => {
  assert.equal(formatOf(SIZE).sectors, 18);
  assert.equal(formatOf(737280).sectors, 9);
  assert.ok(capacity(formatOf(100_000)) >= 100_000);
  assert.equal(formatOf(2 ** 30).sectors, 36);
});

test('DMA controller: registers by halves, autoinitialization, terminal count', () => {
  const { dma, memory, setDma } = controller();
  const channel = dma.channel(2);
  setDma(0x54, 0x3000, 4);
  assert.equal(channel.toMemory(Uint8Array.of(1, 2, 3, 4, 5)), 4);
  assert.equal(channel.over, true);
  assert.equal(memory.read(0x3000, 4), 0x04030201);
  assert.equal(channel.toMemory(Uint8Array.of(9)), 1, 'begins again');
  assert.equal(memory.read(0x3000, 1), 9);
  dma.first.write(0xc, 1, 0);
  assert.deepEqual([dma.first.read(4, 1), dma.first.read(4, 1)], [0x01, 0x30]);
  assert.equal(channel.fromMemory(new Uint8Array(1)), 0, 'the wrong direction');
});

test('state survives a round trip', () => {
  const a = controller();
  a.command(0x0f, 0, 9);
  const b = controller();
  b.fdc.loadState(a.fdc.saveState());
  b.command(8);
  assert.deepEqual(b.result(2), [0x20, 9]);
});

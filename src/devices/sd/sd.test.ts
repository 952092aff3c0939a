import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FlatMemory, ManualClock, MockDisk, RecordingLine } from '../mocks.ts';
import { SdBus } from './bus.ts';
import { SdCard } from './card.ts';
import { Sdhci } from './sdhci.ts';
import { AT, ERROR, MODE, PRESENT, STATUS } from './sdhci-registers.ts';

const MIB = 2 ** 20;
/** Kinds of responses, with what is checked of them. */
const NONE = 0;
const LONG = 0x09;
const SHORT = 0x1a;
const DATA = 0x20;

function start(size = MIB, { readOnly = false, present = true } = {}) {
  const memory = new FlatMemory(1 << 20);
  const clock = new ManualClock();
  const irq = new RecordingLine();
  const bus = new SdBus();
  // Large cards are not looked into.
  const disk = Object.assign(new MockDisk(MIB), { size });
  const card = new SdCard({ id: 'card', backend: disk, readOnly });
  if (present) bus.plug(card);
  const host = new Sdhci({ id: 'sd', memory, clock, bus, irq, capabilities: 0x057834b4n, currents: 0n, version: 3 });
  const read = (at: number, width = 4): number => host.mmio.read(at, width) >>> 0;
  const write = (at: number, width: number, value: number): void => host.mmio.write(at, width, value);
  write(AT.statusEnable, 4, 0x03ff01ff);
  write(AT.clock, 2, 5);
  const command = (index: number, argument: number, kind: number, mode = 0): number => {
    write(AT.argument, 4, argument);
    write(AT.transferMode, 4, mode | (kind << 16) | (index << 24));
    return read(AT.response);
  };
  const status = (): number => {
    const value = read(AT.status);
    write(AT.status, 4, 0xffffffff);
    return value;
  };
  /** Brings the card to where data are moved. */
  const select = (): void => {
    command(0, 0, NONE);
    command(8, 0x1aa, SHORT);
    command(55, 0, SHORT);
    command(41, 0x40ff8000, SHORT);
    command(2, 0, LONG);
    const address = command(3, 0, SHORT) & 0xffff0000;
    command(7, address, SHORT);
    write(AT.blockSize, 2, 512);
    status();
  };
  return { memory, clock, irq, bus, disk, card, host, read, write, command, status, select };
}

const errors = (bits: number): number => ((bits << 16) | STATUS.error) >>> 0;

test('a card says what it is, step by step', () => {
  const { read, command, status } = start(4096 * MIB);
  assert.equal(command(0, 0, NONE), 0);
  assert.equal(command(8, 0x1aa, SHORT), 0x1aa);
  assert.equal(command(55, 0, SHORT), 0x20, 'idle, an application command follows');
  assert.equal(command(41, 0, SHORT), 0x00ff8000, 'what voltages there are');
  command(55, 0, SHORT);
  assert.equal(command(41, 0x40ff8000, SHORT), 0xc0ff8000, 'ready, of high capacity');
  command(2, 0, LONG);
  assert.equal(read(AT.response + 12), 0x00aa5652, 'manufacturer and OEM');
  const address = command(3, 0, SHORT) & 0xffff0000;
  assert.notEqual(address, 0);
  command(9, address, LONG);
  assert.equal(read(AT.response + 12) >>> 16, 0x40, 'version 2 of the register');
  assert.equal((read(AT.response + 4) >>> 8) & 0x3fffff, 8191, '(size + 1) * 512 KiB');
  assert.equal(command(7, address, SHORT) & 0x1e00, 3 << 9, 'stood by');
  assert.equal(command(13, address, SHORT) & 0x1f00, (4 << 9) | 0x100, 'transfers, ready');
  status();
  command(1, 0, SHORT);
  assert.equal(status(), errors(ERROR.commandTimeout), 'no such command');
  assert.equal(command(13, address, SHORT) & 0x00400000, 0x00400000, 'which its status shows once');
  assert.equal(command(13, address, SHORT) & 0x00400000, 0);
});

test('an empty slot answers no command', () => {
  const { read, command, status } = start(MIB, { present: false });
  assert.equal(read(AT.present) & PRESENT.inserted, 0);
  command(8, 0x1aa, SHORT);
  assert.equal(status(), errors(ERROR.commandTimeout));
});

test('a block goes by the port, an interrupt for each step', () => {
  const { irq, read, write, command, status, select } = start();
  select();
  write(AT.statusSignal, 2, STATUS.bufferRead | STATUS.transferComplete);
  command(17, 3 * 512, SHORT | DATA, MODE.reads);
  assert.equal(irq.level, true);
  assert.equal(status(), STATUS.commandComplete | STATUS.bufferRead);
  assert.equal(irq.level, false);
  assert.notEqual(read(AT.present) & PRESENT.bufferRead, 0);
  for (let at = 0; at < 512; at += 4) assert.equal(read(AT.buffer), 0x03030303);
  assert.equal(status(), STATUS.transferComplete);
  assert.equal(read(AT.present) & (PRESENT.bufferRead | PRESENT.dataInhibit), 0);
  assert.equal(read(AT.buffer), 0, 'no more');
});

test('SDMA stops at its boundary, and goes on at the address that is written', () => {
  const { memory, read, write, command, status, select } = start();
  select();
  write(AT.systemAddress, 4, 0x1000 - 512);
  write(AT.blockCount, 2, 4);
  command(18, 0, SHORT | DATA, MODE.reads | MODE.dma | MODE.multiple | MODE.countBlocks | MODE.autoStop);
  assert.equal(status(), STATUS.commandComplete | STATUS.dma);
  assert.equal(read(AT.systemAddress), 0x1000);
  assert.equal(read(AT.blockCount, 2), 3);
  write(AT.systemAddress, 4, 0x8000);
  assert.equal(status(), STATUS.transferComplete);
  assert.deepEqual([memory.bytes[0x1000 - 1], memory.bytes[0x1000], memory.bytes[0x8000], memory.bytes[0x8400]], [0, 0, 1, 3]);
  assert.equal(read(AT.response + 12) & 0x1e00, 5 << 9, 'the answer to the automatic stop');
});

/** A table of [attributes, length, address]. */
function table(memory: FlatMemory, at: number, lines: readonly (readonly [number, number, number])[]): void {
  lines.forEach(([attributes, length, address], i) => {
    memory.write(at + 8 * i, 2, attributes);
    memory.write(at + 8 * i + 2, 2, length);
    memory.write(at + 8 * i + 4, 4, address);
  });
}

test('ADMA2 gathers from where its table says, in pieces of any size', () => {
  const { memory, disk, write, command, status, select } = start();
  select();
  memory.bytes.fill(0x77, 0x4000, 0x4000 + 2048);
  table(memory, 0x100, [
    [0x01, 0, 0],
    [0x21, 100, 0x4000],
    [0x31, 0, 0x200],
  ]);
  table(memory, 0x200, [[0x23, 924, 0x5000]]);
  memory.bytes.fill(0x88, 0x5000, 0x5000 + 924);
  write(AT.host, 1, 0x10);
  write(AT.admaAddress, 4, 0x100);
  write(AT.blockCount, 2, 2);
  command(25, 8 * 512, SHORT | DATA, MODE.dma | MODE.multiple | MODE.countBlocks | MODE.autoStop);
  assert.equal(status(), STATUS.commandComplete | STATUS.transferComplete);
  const at = 8 * 512;
  assert.deepEqual([disk.data[at + 99], disk.data[at + 100], disk.data[at + 1023], disk.data[at + 1024]], [0x77, 0x88, 0x88, 10]);
});

test('tables that lead nowhere end with an error', () => {
  const { memory, read, write, command, status, select } = start();
  select();
  const run = (lines: Parameters<typeof table>[2]): number => {
    table(memory, 0x100, lines);
    write(AT.host, 1, 0x10);
    write(AT.admaAddress, 4, 0x100);
    write(AT.blockCount, 2, 2);
    command(18, 0, SHORT | DATA, MODE.reads | MODE.dma | MODE.multiple | MODE.countBlocks);
    const result = status();
    command(12, 0, SHORT);
    status();
    return result;
  };
  const broken = (errors(ERROR.adma) | STATUS.commandComplete) >>> 0;
  assert.equal(run([[0x31, 0, 0x100]]), broken, 'a loop');
  assert.equal(run([[0x00, 0, 0]]), broken, 'not valid');
  assert.equal(run([[0x23, 512, 0x4000]]), broken, 'too short');
  assert.equal(read(AT.admaError, 1) & 3, 1);
});

test('data that end behind the medium, or go to nowhere, are an error of the card', () => {
  const { memory, write, command, status, select } = start();
  select();
  table(memory, 0x100, [[0x23, 1024, 0xfff00000]]);
  write(AT.host, 1, 0x10);
  write(AT.admaAddress, 4, 0x100);
  write(AT.blockCount, 2, 2);
  command(18, MIB - 512, SHORT | DATA, MODE.reads | MODE.dma | MODE.multiple | MODE.countBlocks);
  assert.equal(status(), STATUS.commandComplete | STATUS.transferComplete);
  assert.equal(command(12, 0, SHORT) >>> 31, 1, 'out of range');
  command(17, 8 * MIB, SHORT | DATA, MODE.reads);
  assert.equal(status(), (errors(ERROR.dataTimeout) | STATUS.commandComplete) >>> 0);
});

test('a card with its tab down takes nothing, and says so', () => {
  const { disk, read, write, command, select } = start(MIB, { readOnly: true });
  assert.equal(read(AT.present) & PRESENT.writable, 0);
  select();
  write(AT.systemAddress, 4, 0x4000);
  assert.notEqual(command(24, 0, SHORT | DATA, MODE.dma) & (1 << 26), 0);
  assert.deepEqual(disk.calls, []);
});

test('a reset forgets a slow transfer, and so does a reset of the data part alone', async () => {
  const { disk, read, write, command, status, select } = start();
  select();
  disk.slow = true;
  write(AT.systemAddress, 4, 0x4000);
  command(17, 0, SHORT | DATA, MODE.reads | MODE.dma);
  assert.notEqual(read(AT.present) & PRESENT.dataInhibit, 0);
  write(AT.reset, 1, 4);
  assert.equal(read(AT.reset, 1), 0, 'done');
  assert.equal(read(AT.present) & PRESENT.dataInhibit, 0);
  status();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(status(), 0);
});

test('state is saved in the middle of a transfer by the port, and goes on', () => {
  const { host, card, read, command, status, select } = start();
  select();
  command(17, 512, SHORT | DATA, MODE.reads);
  for (let at = 0; at < 100; at += 4) read(AT.buffer);
  const [saved, savedCard] = [host.save(), card.saveState()];
  host.reset();
  card.reset();
  host.load(saved);
  card.loadState(savedCard);
  status();
  for (let at = 100; at < 512; at += 4) assert.equal(read(AT.buffer), 0x01010101);
  assert.equal(status(), STATUS.transferComplete);
});

test('sizes that no card has', () => {
  const make = (size: number) => new SdCard({ id: 'c', backend: { size } as MockDisk, readOnly: false });
  assert.throws(
    () => make(100 * MIB),
    /^Error: Invalid SD card size: 100 MiB; SD card size has to be a power of 2, e.g. 128 MiB$/,
  );
  assert.throws(() => make(512), /Invalid SD card size/);
});

test('drivers that write anything anywhere', async () => {
  const { memory, clock, disk, host, read, write, select } = start();
  let state = 12345;
  const next = (below: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  for (let i = 0; i < 1 << 16; i += 4) memory.write(i, 4, next(4) === 0 ? 0x23 | (next(64) << 22) : next(1 << 20));
  for (let i = 0; i < 30_000; i++) {
    const size = [1, 2, 4][next(3)]!;
    const at = next(0x60) & ~(size - 1);
    if (next(3) === 0) read(at, size);
    else write(at, size, next(2) === 0 ? next(1 << 20) : (next(0x10000) * 0x10000 + next(0x10000)) >>> 0);
    if (next(20) === 0) clock.run(1000);
    if (next(300) === 0) select();
    if (next(500) === 0) host.load(host.save());
    if (next(1000) === 0) {
      disk.slow = !disk.slow;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  host.reset();
  await new Promise((resolve) => setImmediate(resolve));
});

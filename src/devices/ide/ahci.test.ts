import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BlockBackend } from '../../machine/interfaces.ts';
import { byPieces, FlatMemory } from '../mocks.ts';
import { PCI, PCI_COMMAND, PciBus } from '../pci.ts';
import type { IoHandler } from '../../machine/interfaces.ts';
import { Ahci } from './ahci.ts';
import { IS, PORT } from './ahci-port.ts';
import { IdeCdrom } from './cdrom.ts';
import { IdeDisk } from './disk.ts';

const LIST = 0x1000;
const RECEIVED = 0x1400;
const TABLE = 0x2000;
const DATA = 0x4000;
const BAR = 0xe0000000;

function backend(size: number, slow = false): BlockBackend & { data: Uint8Array } {
  const data = Uint8Array.from({ length: size }, (_, i) => (i >> 9) & 0xff);
  const wait = (): Promise<void> | undefined => (slow ? Promise.resolve() : undefined);
  const transfers: Pick<BlockBackend, 'read' | 'write'> = {
    read: (offset, into) => {
      into.set(data.subarray(offset, offset + into.length));
      return wait();
    },
    write: (offset, from) => {
      data.set(from, offset);
      return wait();
    },
  };
  return {
    data,
    size,
    readOnly: false,
    ...transfers,
    ...byPieces(transfers),
    flush: wait,
    discard: () => undefined,
    close: () => undefined,
  };
}

/** A driver with one command slot of each port in use. */
function setUp(slow = false) {
  const memory = new FlatMemory(0x10000);
  let mmio: IoHandler | null = null;
  const mapped = { remove: () => undefined };
  const bus = new PciBus({
    memory: {
      addMmio: (_base, _size, handler) => {
        mmio = handler;
        return mapped;
      },
    },
    ports: { register: () => mapped },
  });
  let level = false;
  bus.onPirq = (_pirq, now) => {
    level = now;
  };
  const disk = backend(1 << 20, slow);
  const ahci = new Ahci(memory);
  ahci.attach(new IdeDisk('hd', disk, 'S'), 0);
  ahci.attach(new IdeCdrom('cd', backend(1 << 16), 'S'), 1);
  bus.plug(ahci, 31, 2);
  ahci.configWrite(PCI.bar0 + 20, 4, BAR);
  ahci.configWrite(PCI.command, 2, PCI_COMMAND.memory | PCI_COMMAND.master);
  const at = (port: number, register: number): number => 0x100 + 0x80 * port + register;
  const read = (port: number, register: number): number => mmio!.read(at(port, register), 4);
  const write = (port: number, register: number, value: number): void => mmio!.write(at(port, register), 4, value);
  mmio!.write(4, 4, 2);
  for (const port of [0, 1]) {
    write(port, PORT.listBase, LIST);
    write(port, PORT.fisBase, RECEIVED);
    write(port, PORT.enables, 0xffffffff);
    write(port, PORT.command, 0x11);
  }
  /** @param fis bytes from the command on, which is the third of them */
  const issue = (port: number, fis: number[], bytes: number, options: { write?: boolean; packet?: number[] } = {}): void => {
    memory.write(LIST, 4, 5 | (options.write === true ? 0x40 : 0) | (2 << 16));
    memory.write(LIST + 8, 4, TABLE);
    memory.writeBytes(TABLE, new Uint8Array(20));
    memory.writeBytes(TABLE, Uint8Array.from([0x27, 0x80, ...fis]));
    memory.writeBytes(TABLE + 0x40, Uint8Array.from(options.packet ?? []));
    // Two buffers, the first of 64 bytes.
    memory.write(TABLE + 0x80, 4, DATA);
    memory.write(TABLE + 0x8c, 4, 63);
    memory.write(TABLE + 0x90, 4, DATA + 0x100);
    memory.write(TABLE + 0x9c, 4, bytes - 65);
    write(port, PORT.issue, 1);
  };
  const moved = (count: number): Uint8Array => {
    const bytes = new Uint8Array(count);
    memory.readBytes(DATA, bytes.subarray(0, 64));
    memory.readBytes(DATA + 0x100, bytes.subarray(64));
    return bytes;
  };
  return { memory, ahci, disk, read, write, issue, moved, hba: () => mmio!, level: () => level };
}

const readDma = (lba: number, count: number): number[] => [0xc8, 0, lba, 0, 0, 0x40, 0, 0, 0, 0, count];

test('the controller says what there is at which port', () => {
  const { hba, read } = setUp();
  assert.equal(hba().read(0, 4) & 0x1f, 5);
  assert.equal(hba().read(0x0c, 4), 0x3f);
  assert.deepEqual(
    [0, 1, 2].map((port) => read(port, PORT.sataStatus)),
    [0x113, 0x113, 0],
  );
  assert.deepEqual(
    [0, 1, 2].map((port) => read(port, PORT.signature)),
    [0x101, 0xeb140101, 0xffffffff],
  );
});

test('DMA goes through all buffers, and its end is a FIS and an interrupt', () => {
  const { read, write, issue, moved, memory, level, hba } = setUp();
  issue(0, readDma(5, 2), 1024);
  assert.equal(read(0, PORT.issue), 0);
  assert.deepEqual([...new Set(moved(1024).subarray(0, 512))], [5]);
  assert.deepEqual([...new Set(moved(1024).subarray(512))], [6]);
  assert.equal(memory.read(LIST + 4, 4), 1024);
  assert.equal(memory.read(RECEIVED + 0x40, 1), 0x34);
  assert.deepEqual([level(), hba().read(8, 4)], [true, 1]);
  write(0, PORT.interrupts, 0xffffffff);
  hba().write(8, 4, 1);
  assert.equal(level(), false);
});

test('PIO and writing', () => {
  const { issue, moved, memory, disk, read } = setUp();
  issue(0, [0xec, 0, 0, 0, 0, 0], 512);
  assert.equal(moved(512)[54 * 2]! !== 0 || moved(512)[60 * 2 + 1]! !== 0, true, 'an identity');
  assert.notEqual(read(0, PORT.interrupts) & IS.pioFis, 0);
  memory.writeBytes(DATA, new Uint8Array(0x400).fill(0xaa));
  issue(0, [0xca, 0, 9, 0, 0, 0x40, 0, 0, 0, 0, 1], 512, { write: true });
  assert.deepEqual([...new Set(disk.data.subarray(9 * 512, 10 * 512))], [0xaa]);
  issue(0, [0x30, 0, 10, 0, 0, 0x40, 0, 0, 0, 0, 1], 512, { write: true });
  assert.deepEqual([...new Set(disk.data.subarray(10 * 512, 11 * 512))], [0xaa]);
});

test('a slow backend holds the command back', async () => {
  const { issue, read, moved } = setUp(true);
  issue(0, readDma(7, 1), 512);
  assert.equal(read(0, PORT.issue), 1);
  await new Promise((resolve) => setTimeout(resolve, 1));
  assert.equal(read(0, PORT.issue), 0);
  assert.deepEqual([...new Set(moved(512))], [7]);
});

test('packet commands of a CD, by PIO and by DMA', () => {
  const { issue, moved, write } = setUp();
  const inquiry = [0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0];
  for (const features of [0, 1]) {
    issue(1, [0xa0, features, 0, 0, 1, 0], 512, { packet: inquiry });
    write(1, PORT.interrupts, 0xffffffff);
    assert.equal(moved(36)[0], 5, 'a CD-ROM');
  }
});

test('an error holds the port until software starts it anew', () => {
  const { issue, read, write, moved } = setUp();
  issue(0, [0xc8, 0, 0, 0, 0xff, 0x4f, 0, 0, 0, 0, 1], 512);
  assert.equal(read(0, PORT.issue), 1);
  assert.equal(read(0, PORT.taskFile) & 1, 1);
  assert.notEqual(read(0, PORT.interrupts) & IS.taskError, 0);
  write(0, PORT.command, 0x10);
  assert.equal(read(0, PORT.issue), 0);
  write(0, PORT.interrupts, 0xffffffff);
  write(0, PORT.command, 0x11);
  issue(0, readDma(3, 1), 512);
  assert.deepEqual([...new Set(moved(512))], [3]);
});

test('what a disk has not answered is asked again by a port that has its state', async () => {
  for (const write of [false, true]) {
    const a = setUp();
    a.disk.read = a.disk.write = () => new Promise<void>(() => undefined);
    Object.assign(a.disk, byPieces(a.disk));
    a.memory.writeBytes(DATA, new Uint8Array(0x500).fill(0xaa));
    a.issue(0, [write ? 0xca : 0xc8, 0, 7, 0, 0, 0x40, 0, 0, 0, 0, 2], 1024, { write });
    assert.equal(a.read(0, PORT.issue), 1);
    const b = setUp();
    const bytes = new Uint8Array(0x10000);
    a.memory.readBytes(0, bytes);
    b.memory.writeBytes(0, bytes);
    b.ahci.loadState(a.ahci.saveState());
    assert.deepEqual(b.ahci.saveState(), a.ahci.saveState());
    assert.deepEqual([b.level(), b.read(0, PORT.issue)], [false, 1]);
    b.ahci.afterLoad();
    await new Promise(setImmediate);
    assert.equal(b.read(0, PORT.issue), 0);
    if (write) assert.ok(b.disk.data.subarray(7 * 512, 9 * 512).every((byte) => byte === 0xaa));
    else assert.deepEqual([b.moved(1024)[0], b.moved(1024)[1023]], [7, 8]);
    assert.deepEqual([b.read(0, PORT.interrupts) & IS.deviceFis, b.level()], [IS.deviceFis, true]);
  }
});

test('a software reset is two FISes, a link reset two writes', () => {
  const { memory, write, read } = setUp();
  const control = (value: number): void => {
    memory.write(LIST, 4, 5);
    memory.write(LIST + 8, 4, TABLE);
    memory.writeBytes(TABLE, Uint8Array.from([0x27, 0, ...new Array<number>(13).fill(0), value]));
    write(1, PORT.issue, 1);
    assert.equal(read(1, PORT.issue), 0);
  };
  control(4);
  control(0);
  assert.equal(read(1, PORT.signature), 0xeb140101);
  write(1, PORT.sataControl, 0x301);
  write(1, PORT.sataControl, 0x300);
  assert.equal(read(1, PORT.sataStatus), 0x113);
});

test('what a guest makes of addresses and lists cannot hang the host', () => {
  const { ahci, write, hba, memory } = setUp();
  for (let at = 0; at < memory.bytes.length; at++) memory.bytes[at] = (at * 167) & 0xff;
  for (let i = 0; i < 200; i++) {
    write(0, PORT.command, 0x10);
    write(0, PORT.interrupts, 0xffffffff);
    write(0, PORT.listBase, (i * 0x400) % 0x10000);
    write(0, PORT.listBaseHigh, i % 3 === 0 ? 0xffffffff : 0);
    write(0, PORT.command, 0x11);
    write(0, PORT.issue, 0xffffffff);
  }
  hba().write(4, 4, 1);
  const state = ahci.saveState();
  ahci.loadState(state);
});

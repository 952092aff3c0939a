import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BlockBackend, Completion, IoHandler } from '../../machine/interfaces.ts';
import { byPieces, FlatMemory, RecordingLine } from '../mocks.ts';
import { PciBus } from '../pci.ts';
import { IdeCdrom } from './cdrom.ts';
import { IdeDisk } from './disk.ts';
import { Piix3Ide } from './piix3-ide.ts';

const SECTOR = 512;

/** Sector n begins with n. */
class Disk implements BlockBackend {
  readonly readPieces = byPieces(this).readPieces;
  readonly writePieces = byPieces(this).writePieces;
  readonly data: Uint8Array;
  readOnly = false;
  flushes = 0;
  /** Operations wait for `release` while this is set. */
  slow = false;
  broken = false;
  readonly waiting: (() => void)[] = [];

  constructor(sectors: number) {
    this.data = new Uint8Array(sectors * SECTOR);
    const view = new DataView(this.data.buffer);
    for (let i = 0; i < sectors; i++) view.setUint32(i * SECTOR, i, true);
  }

  get size(): number {
    return this.data.length;
  }

  private answer(act: () => void): Completion {
    if (this.broken) throw new Error('broken');
    if (!this.slow) return act();
    return new Promise((resolve) =>
      this.waiting.push(() => {
        act();
        resolve();
      }),
    );
  }

  read(offset: number, into: Uint8Array): Completion {
    return this.answer(() => into.set(this.data.subarray(offset, offset + into.length)));
  }

  write(offset: number, from: Uint8Array): Completion {
    return this.answer(() => this.data.set(from, offset));
  }

  flush(): Completion {
    return this.answer(() => {
      this.flushes++;
    });
  }

  discard(): Completion {
    // Not looked at.
  }

  close(): void {
    // Not looked at.
  }
}

type Ports = Map<number, { base: number; handler: IoHandler }>;

function controller(sectors = 1000) {
  const memory = new FlatMemory(1 << 20);
  const map: Ports = new Map();
  const ports = {
    register: (base: number, count: number, handler: IoHandler) => {
      for (let i = 0; i < count; i++) map.set(base + i, { base, handler });
      return { remove: () => undefined };
    },
  };
  const irqs = [new RecordingLine(), new RecordingLine()] as const;
  const ide = new Piix3Ide(memory, ports, [irqs[0], irqs[1]]);
  const bus = new PciBus({ memory: { addMmio: () => ({ remove: () => undefined }) }, ports });
  bus.plug(ide, 1, 1);
  const backend = new Disk(sectors);
  const disc = new Disk(400);
  ide.attach(new IdeDisk('disk', backend, 'S1'), 0);
  ide.attach(new IdeCdrom('cd', disc, 'S2'), 2);
  ide.reset();
  ide.configWrite(0x20, 4, 0xc000);
  ide.configWrite(4, 2, 5);
  const inp = (port: number, size = 1): number => {
    const { base, handler } = map.get(port)!;
    return handler.read(port - base, size);
  };
  const out = (port: number, value: number, size = 1): void => {
    const { base, handler } = map.get(port)!;
    handler.write(port - base, size, value);
  };
  /** Writes features, count, the address bytes, device and command. */
  const command = (base: number, ...values: number[]): void => values.forEach((value, i) => out(base + 1 + i, value));
  const readData = (base: number, bytes: number): Uint8Array => {
    const data = new Uint8Array(bytes);
    const view = new DataView(data.buffer);
    for (let i = 0; i < bytes; i += 2) view.setUint16(i, inp(base, 2), true);
    return data;
  };
  return { ide, memory, backend, disc, irqs, inp, out, command, readData };
}

const DISK = 0x1f0;
const CD = 0x170;
const u32 = (data: Uint8Array, at: number): number => new DataView(data.buffer, data.byteOffset).getUint32(at, true);
const wordText = (data: Uint8Array, word: number, words: number): string => {
  let text = '';
  for (let i = word; i < word + words; i++) text += String.fromCharCode(data[2 * i + 1]!, data[2 * i]!);
  return text.trim();
};

test('IDENTIFY DEVICE: geometry, capacity, names', () => {
  const { command, readData, inp, irqs } = controller();
  command(DISK, 0, 0, 0, 0, 0, 0xa0, 0xec);
  assert.equal(irqs[0].level, true);
  assert.equal(inp(DISK + 7), 0x58);
  assert.equal(irqs[0].level, false, 'reading the status takes the interrupt back');
  const data = readData(DISK, 512);
  assert.equal(inp(DISK + 7), 0x50);
  assert.equal(wordText(data, 10, 10), 'S1');
  assert.equal(u32(data, 120), 1000);
  assert.equal(u32(data, 200), 1000);
});

test('READ SECTORS by LBA and by CHS: an interrupt a sector, addresses left in the registers', () => {
  const { command, readData, inp, irqs } = controller();
  command(DISK, 0, 2, 100, 0, 0, 0xe0, 0x20);
  assert.equal(u32(readData(DISK, SECTOR), 0), 100);
  assert.equal(irqs[0].level, true);
  inp(DISK + 7);
  assert.equal(u32(readData(DISK, SECTOR), 0), 101);
  assert.equal(inp(DISK + 7), 0x50);
  assert.equal(inp(DISK + 3), 101);
  // Head 2, sector 5.
  command(DISK, 0, 1, 5, 0, 0, 0xa2, 0x20);
  assert.equal(u32(readData(DISK, SECTOR), 0), 2 * 63 + 4);
});

test('READ and WRITE MULTIPLE move several sectors for one interrupt', () => {
  const { command, readData, inp, out, irqs, backend } = controller();
  command(DISK, 0, 4, 0, 0, 0, 0xe0, 0xc6);
  inp(DISK + 7);
  const before = irqs[0].rises;
  command(DISK, 0, 6, 10, 0, 0, 0xe0, 0xc4);
  inp(DISK + 7);
  readData(DISK, 4 * SECTOR);
  inp(DISK + 7);
  assert.equal(u32(readData(DISK, 2 * SECTOR), SECTOR), 15);
  assert.equal(irqs[0].rises, before + 2);
  command(DISK, 0, 2, 20, 0, 0, 0xe0, 0xc5);
  for (let i = 0; i < SECTOR; i++) out(DISK, 0xbeef, 2);
  assert.equal(inp(DISK + 7), 0x50);
  assert.equal(u32(backend.data, 21 * SECTOR), 0xbeefbeef);
});

test('48-bit addresses; beyond the end there is nothing', () => {
  const { command, readData, inp, out } = controller();
  for (const [at, value] of [
    [2, 0],
    [3, 0],
    [4, 0],
    [5, 0],
    [2, 1],
    [3, 200],
    [4, 1],
    [5, 0],
  ] as const) {
    out(DISK + at, value);
  }
  out(DISK + 6, 0xe0);
  out(DISK + 7, 0x24);
  assert.equal(u32(readData(DISK, SECTOR), 0), 456);
  command(DISK, 0, 2, 0xe7, 3, 0, 0xe0, 0x20);
  assert.equal(inp(DISK + 7), 0x51);
  assert.equal(inp(DISK + 1), 0x10);
});

test('an absent drive reads as zeros; unknown commands are aborted', () => {
  const { command, inp, out } = controller();
  out(DISK + 6, 0xb0);
  assert.equal(inp(DISK + 7), 0);
  command(DISK, 0, 0, 0, 0, 0, 0xa0, 0x99);
  assert.equal(inp(DISK + 7), 0x51);
  assert.equal(inp(DISK + 1), 0x04);
});

/** A table of buffers at 1000h. */
function prd(memory: FlatMemory, ...entries: readonly [address: number, bytes: number][]): void {
  entries.forEach(([address, bytes], i) => {
    memory.write(0x1000 + 8 * i, 4, address);
    memory.write(0x1004 + 8 * i, 4, (bytes & 0xffff) + (i === entries.length - 1 ? 0x80000000 : 0));
  });
}

test('bus-master DMA through a table of buffers, both ways', () => {
  const { command, memory, out, inp, irqs, backend } = controller();
  prd(memory, [0x2000, 600], [0x8000, 424]);
  out(0xc004, 0x1000, 4);
  out(0xc000, 8);
  command(DISK, 0, 2, 30, 0, 0, 0xe0, 0xc8);
  assert.equal(irqs[0].level, false);
  out(0xc000, 9);
  assert.equal(irqs[0].level, true);
  assert.equal(inp(0xc002) & 7, 4);
  assert.deepEqual([memory.read(0x2000, 4), memory.read(0x2000 + 512, 4)], [30, 31]);
  assert.equal(inp(DISK + 7), 0x50);
  out(0xc000, 0);
  out(0xc002, 4);
  assert.equal(inp(0xc002) & 7, 0);
  memory.write(0x8000, 4, 0x12345678);
  prd(memory, [0x8000, 512]);
  command(DISK, 0, 1, 40, 0, 0, 0xe0, 0xca);
  out(0xc000, 1);
  assert.equal(u32(backend.data, 40 * SECTOR), 0x12345678);
});

test('buffers too short or too long for the command', () => {
  const { command, memory, out, inp, irqs } = controller();
  prd(memory, [0x2000, 512]);
  out(0xc004, 0x1000, 4);
  command(DISK, 0, 2, 30, 0, 0, 0xe0, 0xc8);
  out(0xc000, 9);
  assert.equal(irqs[0].level, false);
  assert.equal(inp(0xc002) & 1, 0);
  prd(memory, [0x2000, 2048]);
  out(0xc000, 0);
  command(DISK, 0, 2, 30, 0, 0, 0xe0, 0xc8);
  out(0xc000, 9);
  assert.equal(inp(0xc002) & 5, 5);
});

test('a slow backend keeps the drive busy; a reset forgets what it was doing', async () => {
  const { command, backend, inp, out, readData, irqs } = controller();
  backend.slow = true;
  command(DISK, 0, 1, 7, 0, 0, 0xe0, 0x20);
  assert.equal(inp(DISK + 7) & 0x80, 0x80);
  backend.waiting.shift()!();
  await Promise.resolve();
  await Promise.resolve();
  assert.equal(irqs[0].level, true);
  assert.equal(u32(readData(DISK, SECTOR), 0), 7);
  command(DISK, 0, 1, 7, 0, 0, 0xe0, 0x20);
  out(0x3f6, 4);
  out(0x3f6, 0);
  backend.waiting.shift()!();
  await Promise.resolve();
  await Promise.resolve();
  assert.equal(inp(DISK + 7), 0x50);
});

test("errors of the backend are the drive's", () => {
  const { command, backend, inp } = controller();
  backend.broken = true;
  command(DISK, 0, 1, 7, 0, 0, 0xe0, 0x20);
  assert.deepEqual([inp(DISK + 7), inp(DISK + 1)], [0x51, 0x40]);
  command(DISK, 0, 0, 0, 0, 0, 0xe0, 0xe7);
  assert.equal(inp(DISK + 7), 0x51);
});

test('FLUSH CACHE reaches the backend, and so does a write without a cache', () => {
  const { command, backend, out } = controller();
  command(DISK, 0, 0, 0, 0, 0, 0xe0, 0xe7);
  assert.equal(backend.flushes, 1);
  command(DISK, 0x82, 0, 0, 0, 0, 0xe0, 0xef);
  command(DISK, 0, 1, 7, 0, 0, 0xe0, 0x30);
  for (let i = 0; i < SECTOR / 2; i++) out(DISK, 0, 2);
  assert.equal(backend.flushes, 3);
});

function packet(c: ReturnType<typeof controller>, limit: number, ...bytes: number[]): void {
  c.command(CD, 0, 0, 0, limit & 0xff, limit >> 8, 0xa0, 0xa0);
  const padded = [...bytes, ...new Array<number>(12 - bytes.length).fill(0)];
  for (let i = 0; i < 12; i += 2) c.out(CD, padded[i]! | (padded[i + 1]! << 8), 2);
}

test("ATAPI: the signature, INQUIRY, capacity, and data in pieces of the host's size", () => {
  const c = controller();
  assert.deepEqual([c.inp(CD + 4), c.inp(CD + 5)], [0x14, 0xeb]);
  packet(c, 36, 0x12, 0, 0, 0, 36);
  assert.deepEqual([...c.readData(CD, 36).subarray(0, 2)], [5, 0x80]);
  packet(c, 8, 0x25);
  assert.deepEqual([...c.readData(CD, 8)], [0, 0, 0, 99, 0, 0, 8, 0]);
  packet(c, 1024, 0x28, 0, 0, 0, 0, 5, 0, 0, 1);
  assert.equal(c.inp(CD + 2), 2);
  assert.equal(c.inp(CD + 4) | (c.inp(CD + 5) << 8), 1024);
  assert.equal(u32(c.readData(CD, 1024), 0), 20);
  assert.equal(u32(c.readData(CD, 1024), 0), 22);
  assert.deepEqual([c.inp(CD + 2), c.inp(CD + 7)], [3, 0x50]);
});

test('ATAPI: an empty drive, an unknown command, a range beyond the end, and sense data', () => {
  const c = controller();
  const sense = (): number[] => {
    packet(c, 18, 0x03, 0, 0, 0, 18);
    const data = c.readData(CD, 18);
    return [data[2]!, data[12]!, data[13]!];
  };
  packet(c, 0, 0xf9);
  assert.equal(c.inp(CD + 7), 0x51);
  assert.deepEqual(sense(), [5, 0x20, 0]);
  packet(c, 2048, 0x28, 0, 0, 0, 0, 100, 0, 0, 1);
  assert.deepEqual(sense(), [5, 0x21, 0]);
  packet(c, 0, 0x1b, 0, 0, 0, 2);
  packet(c, 0, 0x00);
  assert.deepEqual(sense(), [2, 0x3a, 0]);
  packet(c, 0, 0x1b, 0, 0, 0, 3);
  packet(c, 0, 0x00);
  assert.deepEqual(sense(), [6, 0x28, 0], 'a new medium is announced once');
  packet(c, 0, 0x00);
  assert.equal(c.inp(CD + 7), 0x50);
});

test('ATAPI data by DMA', () => {
  const c = controller();
  prd(c.memory, [0x3000, 4096]);
  c.out(0xc00c, 0x1000, 4);
  c.command(CD, 1, 0, 0, 0, 0, 0xa0, 0xa0);
  // READ(12) of two sectors from 3 on: address in bytes 2 to 5, count in bytes 6 to 9, big-endian.
  for (const word of [0xa8, 0, 0x0300, 0, 0x0200, 0]) c.out(CD, word, 2);
  assert.equal(c.irqs[1].level, false);
  c.out(0xc008, 9);
  assert.equal(c.irqs[1].level, true);
  assert.equal(c.inp(CD + 7), 0x50);
  assert.deepEqual([c.memory.read(0x3000, 4), c.memory.read(0x3800, 4)], [12, 16]);
});

/** What the first one's data becomes when it is read half there and half by one that has its state. */
function readAcross(base: number, bytes: number, begin: (c: ReturnType<typeof controller>) => void): [Uint8Array, Uint8Array] {
  const whole = controller();
  begin(whole);
  const expected = whole.readData(base, bytes);
  const a = controller();
  begin(a);
  const first = a.readData(base, 100);
  const b = controller();
  b.ide.loadState(a.ide.saveState());
  b.ide.afterLoad();
  assert.deepEqual(b.ide.saveState(), a.ide.saveState());
  const rest = b.readData(base, bytes - 100);
  assert.equal(b.inp(base + 7), whole.inp(base + 7));
  return [Uint8Array.from([...first, ...rest]), expected];
}

test('data that is read by PIO goes on from a saved state', () => {
  const [disk, expected] = readAcross(DISK, 1024, (c) => c.command(DISK, 0, 2, 100, 0, 0, 0xe0, 0x20));
  assert.deepEqual(disk, expected);
  const [identity, all] = readAcross(DISK, 512, (c) => c.command(DISK, 0, 0, 0, 0, 0, 0xe0, 0xec));
  assert.deepEqual(identity, all);
  const [cd, sectors] = readAcross(CD, 4096, (c) => packet(c, 2048, 0x28, 0, 0, 0, 0, 3, 0, 0, 2));
  assert.deepEqual(cd, sectors);
});

test('what a disk has not answered is asked again by one that has its state', async () => {
  for (const [code, write] of [
    [0x20, false],
    [0xc8, false],
    [0xca, true],
  ] as const) {
    const a = controller();
    a.backend.read = a.backend.write = () => new Promise<void>(() => undefined);
    prd(a.memory, [0x3000, 1024]);
    a.memory.bytes.fill(7, 0x3000, 0x3400);
    a.out(0xc004, 0x1000, 4);
    a.command(DISK, 0, 2, 100, 0, 0, 0xe0, code);
    if (code !== 0x20) a.out(0xc000, write ? 1 : 9);
    assert.equal(a.inp(DISK + 7) & 0x80, 0x80, 'busy');
    const b = controller();
    b.memory.bytes.set(a.memory.bytes);
    b.ide.loadState(a.ide.saveState());
    assert.equal(b.irqs[0].level, false);
    b.ide.afterLoad();
    await new Promise(setImmediate);
    assert.equal(b.irqs[0].level, true);
    if (code === 0x20) assert.equal(u32(b.readData(DISK, 512), 0), 100);
    else if (write) assert.ok(b.backend.data.subarray(100 * 512, 102 * 512).every((byte) => byte === 7));
    else assert.deepEqual([b.memory.read(0x3000, 4), b.memory.read(0x3200, 4)], [100, 101]);
  }
});

test('what is missing in a saved state is named', () => {
  assert.throws(() => controller().ide.loadState({ version: 1, fields: {} }), /ide: field "device" is missing/);
});

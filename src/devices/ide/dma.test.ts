/** Data between a medium and the guest's buffers, through both kinds of bus master. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pieces } from '../../host/pieces.ts';
import type { BlockBackend, Completion } from '../../machine/interfaces.ts';
import { FlatMemory, MockDisk, RecordingLine } from '../mocks.ts';
import { AhciPort, CMD, IS, PORT, portPowerOn } from './ahci-port.ts';
import { STATUS } from './ata.ts';
import { BusMaster } from './bus-master.ts';
import { IdeChannel } from './channel.ts';
import { IdeDisk } from './disk.ts';

const SECTOR = 512;
const MIB = 1 << 20;
const READ = 0x25;
const WRITE = 0x35;
/** Addresses of the controllers' tables; the tests' buffers are behind them. */
const LIST = 0x1000;
const TABLE = 0x2000;
const BUFFERS = 0x10000;

/** From here on it is something else than RAM. */
const DEVICE = 0x600000;

class Memory extends FlatMemory {
  override ramOffset(addr: number, length: number): number {
    return addr + length <= DEVICE ? super.ramOffset(addr, length) : -1;
  }
}

/** Remembers what came in which places, as [offset in memory, length] after the place on the disk. */
class Disk extends MockDisk {
  readonly transfers: [at: number, ...places: [number, number][]][] = [];
  /** Requests beyond this fail. */
  bad = Infinity;

  override readonly readPieces = (offset: number, into: Pieces): Completion => this.byPlace(offset, into, true);
  override readonly writePieces = (offset: number, from: Pieces): Completion => this.byPlace(offset, from, false);

  private byPlace(offset: number, { memory, offsets, lengths, count }: Pieces, reading: boolean): Completion {
    this.transfers.push([offset]);
    let at = offset;
    for (let i = 0; i < count; i++) {
      const place = memory.subarray(offsets[i]!, offsets[i]! + lengths[i]!);
      this.transfers.at(-1)!.push([offsets[i]!, lengths[i]!]);
      if (at + place.length > this.bad) throw new Error('broken');
      if (reading) place.set(this.data.subarray(at, at + place.length));
      else this.data.set(place, at);
      at += place.length;
    }
  }
}

type Region = [address: number, length: number];

/** A drive with a driver: starts commands, and says how they have ended. */
interface Drive {
  start(command: number, lba: number, sectors: number, regions: readonly Region[]): void;
  reset(): void;
  /** Is the command over? */
  over(): boolean;
}

function ahci(memory: Memory, disk: IdeDisk) {
  const state = portPowerOn();
  const port = new AhciPort(memory, state);
  port.attach(disk);
  port.write(PORT.listBase, LIST);
  const run = CMD.start | CMD.receive;
  port.write(PORT.command, run);
  return {
    start(command: number, lba: number, sectors: number, regions: readonly Region[]): void {
      memory.write(LIST, 4, 5 | (command === WRITE ? 0x40 : 0) | (regions.length << 16));
      memory.write(LIST + 8, 4, TABLE);
      memory.writeBytes(TABLE, Uint8Array.from([0x27, 0x80, command, 0, lba, lba >> 8, 0, 0x40, 0, 0, 0, 0]));
      memory.writeBytes(TABLE + 12, Uint8Array.from([sectors, sectors >> 8, 0, 0, 0, 0, 0, 0]));
      for (const [i, [address, length]] of regions.entries()) {
        memory.write(TABLE + 0x80 + 16 * i, 4, address);
        memory.write(TABLE + 0x8c + 16 * i, 4, length - 1);
      }
      port.write(PORT.issue, 1);
    },
    reset(): void {
      port.write(PORT.sataControl, 1);
      port.write(PORT.sataControl, 0);
      port.write(PORT.command, 0);
      port.write(PORT.command, run);
    },
    over: () => (state.interrupts & IS.deviceFis) !== 0,
    moved: () => memory.read(LIST + 4, 4),
    overflow: () => (state.interrupts & IS.overflow) !== 0,
  };
}

function busMaster(memory: Memory, disk: IdeDisk) {
  const irq = new RecordingLine();
  const channel = new IdeChannel(irq, { selected: 0, control: 0, interrupts: [false, false] });
  const state = { command: 0, status: 0, table: 0 };
  const { ports } = new BusMaster(memory, channel, state);
  channel.attach(disk, 0);
  const put = (register: number, ...values: number[]): void => {
    for (const value of values) channel.commandPorts.write(register, 1, value);
  };
  return {
    start(command: number, lba: number, sectors: number, regions: readonly Region[]): void {
      for (const [i, [address, length]] of regions.entries()) {
        memory.write(TABLE + 8 * i, 4, address);
        memory.write(TABLE + 8 * i + 4, 4, (length & 0xffff) + (i === regions.length - 1 ? 0x80000000 : 0));
      }
      ports.write(0, 1, 0);
      ports.write(4, 4, TABLE);
      put(2, sectors >> 8, sectors);
      put(3, 0, lba);
      put(4, 0, lba >> 8);
      put(5, 0, 0);
      put(6, 0x40);
      put(7, command);
      ports.write(0, 1, command === READ ? 9 : 1);
    },
    reset(): void {
      channel.controlPort.write(0, 1, 4);
      channel.controlPort.write(0, 1, 0);
      irq.set(false);
    },
    over: () => irq.level,
  };
}

function setUp<D extends Drive>(kind: (memory: Memory, disk: IdeDisk) => D, disk: Disk & BlockBackend = new Disk(4 * MIB)) {
  const memory = new Memory(8 * MIB);
  const drive = new IdeDisk('disk', disk, 'S');
  return { memory, disk, drive, driver: kind(memory, drive) };
}

/** What is in regions, one after the other. */
function contents(memory: Memory, regions: readonly Region[]): Uint8Array {
  return Buffer.concat(regions.map(([at, length]) => memory.bytes.subarray(at, at + length)));
}

const filled = (length: number): Uint8Array => new Uint8Array(length).map((_, i) => (i * 7) ^ (i >> 8));

for (const kind of [ahci, busMaster]) {
  test(`${kind.name}: a read fills all places at once, and neighbours are one`, () => {
    const { memory, disk, driver } = setUp(kind);
    const regions: Region[] = [
      [BUFFERS, 64],
      [BUFFERS + 0x1000, 510],
      [BUFFERS + 0x11fe, 2],
      [BUFFERS + 0x800, 2 * SECTOR - 64],
    ];
    driver.start(READ, 5, 3, regions);
    assert.ok(driver.over());
    assert.deepEqual(disk.transfers, [[5 * SECTOR, [BUFFERS, 64], [BUFFERS + 0x1000, 512], [BUFFERS + 0x800, 960]]]);
    assert.deepEqual(contents(memory, regions), Buffer.from(disk.data.subarray(5 * SECTOR, 8 * SECTOR)));
    assert.deepEqual(memory.changes, disk.transfers[0]!.slice(1), 'code there is translated anew');
    assert.deepEqual(disk.calls, [], 'nothing was copied');
  });

  test(`${kind.name}: a write takes what is in all places`, () => {
    const { memory, disk, driver } = setUp(kind);
    const regions: Region[] = [
      [BUFFERS + 0x2000, 1000],
      [BUFFERS, 24],
    ];
    memory.bytes.set(filled(0x3000), BUFFERS);
    driver.start(WRITE, 9, 2, regions);
    assert.ok(driver.over());
    assert.deepEqual(disk.data.subarray(9 * SECTOR, 11 * SECTOR), Uint8Array.from(contents(memory, regions)));
    assert.deepEqual([disk.calls, memory.changes], [[], []]);
    driver.start(WRITE, 0, 1, [[BUFFERS, SECTOR]]);
    assert.deepEqual(disk.calls, ['write 0 512'], 'one place is no list');
  });

  for (const command of [READ, WRITE]) {
    test(`${kind.name}: command ${command.toString(16)}h copies only what is not RAM`, () => {
      const { memory, disk, driver } = setUp(kind);
      const before = disk.data.slice(0, 80 * SECTOR);
      const regions: Region[] = [
        [BUFFERS, 4 * SECTOR],
        [BUFFERS + 0x2000, 100],
        [DEVICE, 0x8000],
        [BUFFERS + 0x4000, 76 * SECTOR - 0x8000 - 100],
      ];
      memory.bytes.set(filled(0x1000), DEVICE);
      driver.start(command, 0, 80, regions);
      assert.ok(driver.over());
      // Whole sectors in place; the first that has bytes elsewhere begins what goes through the drive's buffer.
      const name = command === READ ? 'read' : 'write';
      assert.deepEqual(disk.calls, [`${name} 0 ${4 * SECTOR}`, `${name} ${4 * SECTOR} ${76 * SECTOR}`]);
      assert.deepEqual(contents(memory, regions), Buffer.from(command === READ ? before : disk.data.subarray(0, 80 * SECTOR)));
    });
  }

  test(`${kind.name}: a large transfer goes in parts, and fails in the one that is bad`, () => {
    const { memory, disk, drive, driver } = setUp(kind);
    const regions = Array.from({ length: 48 }, (_, i): Region => [BUFFERS + 0x10000 * (47 - i), 0x10000]);
    driver.start(READ, 16, 6144, regions);
    assert.ok(driver.over());
    assert.deepEqual(
      disk.transfers.map(([at, ...places]) => [at, places.length]),
      [16, 2064, 4112].map((sector) => [sector * SECTOR, 16]),
    );
    assert.deepEqual(contents(memory, regions), Buffer.from(disk.data.subarray(16 * SECTOR, 6160 * SECTOR)));
    memory.bytes.fill(0, BUFFERS);
    memory.changes.length = 0;
    disk.bad = (2064 + 5 * 128) * SECTOR;
    driver.start(READ, 16, 6144, regions);
    assert.equal(drive.status & (STATUS.error | STATUS.busy), STATUS.error);
    assert.deepEqual([drive.readRegister(1), drive.readRegister(3), drive.readRegister(4)], [0x40, 2064 & 0xff, 2064 >> 8]);
    assert.deepEqual(contents(memory, regions.slice(0, 16)), Buffer.from(disk.data.subarray(16 * SECTOR, 2064 * SECTOR)));
    assert.equal(memory.changes.length, 32, 'the part that failed may have changed memory, too');
  });

  test(`${kind.name}: a table that is too short leaves the command hanging`, () => {
    const { memory, disk, drive, driver } = setUp(kind);
    driver.start(READ, 1, 4, [
      [BUFFERS, 1000],
      [BUFFERS + 0x1000, 200],
    ]);
    assert.ok(!driver.over());
    assert.equal(drive.status & STATUS.busy, STATUS.busy);
    assert.deepEqual(contents(memory, [[BUFFERS, 1000]]), Buffer.from(disk.data.subarray(SECTOR, SECTOR + 1000)));
    driver.reset();
    driver.start(READ, 3, 1, [[BUFFERS, SECTOR]]);
    assert.ok(driver.over());
    assert.equal(memory.bytes[BUFFERS], 3);
  });

  test(`${kind.name}: what a reset has interrupted does not get into the next transfer`, async () => {
    class Late extends Disk {
      readonly waiting: (() => void)[] = [];
      override readonly readPieces = (offset: number, { memory, offsets, lengths, count }: Pieces): Completion =>
        new Promise((resolve) =>
          this.waiting.push(() => {
            for (let i = 0; i < count; i++) memory.fill(0x80 + offset / SECTOR, offsets[i]!, offsets[i]! + lengths[i]!);
            resolve();
          }),
        );
    }
    const disk = new Late(MIB);
    const { memory, driver } = setUp(kind, disk);
    const places = (at: number): Region[] => [
      [at, 256],
      [at + 0x1000, 256],
    ];
    driver.start(READ, 1, 1, places(BUFFERS));
    driver.reset();
    driver.start(READ, 2, 1, places(BUFFERS + 0x8000));
    disk.waiting[1]!();
    await new Promise(setImmediate);
    assert.ok(driver.over());
    memory.changes.length = 0;
    disk.waiting[0]!();
    await new Promise(setImmediate);
    assert.deepEqual([...new Set(contents(memory, places(BUFFERS + 0x8000)))], [0x82]);
    assert.deepEqual(memory.changes, places(BUFFERS), 'where it did get to is known to have changed');
  });

  test(`${kind.name}: a disk that is read-only refuses`, () => {
    const { memory, disk, drive, driver } = setUp(kind);
    disk.readOnly = true;
    const before = disk.data.slice();
    memory.bytes.fill(0xaa, BUFFERS);
    driver.start(WRITE, 7, 2, [[BUFFERS, 1024]]);
    assert.equal(drive.status & STATUS.error, STATUS.error);
    assert.deepEqual(disk.data, before);
  });
}

test('AHCI counts the bytes, of regions of odd lengths, too', () => {
  const { memory, disk, driver } = setUp(ahci);
  const regions: Region[] = [
    [BUFFERS + 1, 1],
    [BUFFERS + 0x101, 511],
    [BUFFERS + 0x1003, 3],
    [BUFFERS + 0x2000, 509 + SECTOR],
  ];
  driver.start(READ, 4, 3, regions);
  assert.equal(driver.moved(), 3 * SECTOR);
  assert.deepEqual(contents(memory, regions), Buffer.from(disk.data.subarray(4 * SECTOR, 7 * SECTOR)));
  disk.bad = 0;
  driver.start(READ, 4, 3, regions);
  assert.equal(driver.moved(), 0, 'nothing of what failed');
});

test('AHCI tells of buffers that are too short', () => {
  const { driver } = setUp(ahci);
  driver.start(READ, 4, 2, [[BUFFERS, SECTOR]]);
  assert.ok(driver.overflow());
});

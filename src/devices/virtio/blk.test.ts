import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MockDisk } from '../mocks.ts';
import { VirtioBlk } from './blk.ts';
import { TestDriver } from './test-driver.ts';

const READ = 0;
const WRITE = 1;
const FLUSH = 4;
const GET_ID = 8;
const DISCARD = 11;
const WRITE_ZEROES = 13;

const newDisk = (): MockDisk => new MockDisk(64 * 512);

function start(disk = newDisk(), queues = 1) {
  const options = {
    ...{ backend: disk, queues, queueSize: 64, serial: 'a serial', logicalBlockSize: 512, physicalBlockSize: 4096 },
    ...{ minIoSize: 0, optIoSize: 0, discard: true, writeZeroes: true },
  };
  const driver = new TestDriver((memory) => new VirtioBlk({ id: 'disk', memory }, options));
  driver.start();
  return { driver, disk, header: (type: number, sector: number) => driver.readable(headerBytes(type, sector)) };
}

function headerBytes(type: number, sector: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
}

test('reads and writes go to the drive in one piece where memory is in one piece', () => {
  const { driver, disk, header } = start();
  const into = driver.writable(1024);
  const status = driver.writable(1);
  const [used] = driver.request(0, header(READ, 3), into, status);
  assert.equal(used!.length, 1025);
  assert.deepEqual([driver.bytes(into)[0], driver.bytes(into)[1023], driver.bytes(status)[0]], [3, 4, 0]);
  driver.request(0, header(WRITE, 5), driver.readable(new Uint8Array(512).fill(9)), status);
  assert.deepEqual(disk.data.subarray(5 * 512, 6 * 512), new Uint8Array(512).fill(9));
  assert.deepEqual(disk.calls, ['read 1536 1024', 'write 2560 512']);
});

test('any layout: header, data and status cut anywhere', () => {
  const { driver, disk } = start();
  const bytes = new Uint8Array(16 + 1024);
  bytes.set(headerBytes(WRITE, 1));
  bytes.fill(7, 16);
  const status = driver.writable(1);
  driver.request(
    0,
    driver.readable(bytes.subarray(0, 10)),
    driver.readable(bytes.subarray(10, 500)),
    driver.readable(bytes.subarray(500)),
    status,
  );
  assert.equal(driver.bytes(status)[0], 0);
  assert.ok(disk.data.subarray(512, 1536).every((byte) => byte === 7));
  const [a, b] = [driver.writable(100), driver.writable(413)];
  driver.request(0, driver.readable(headerBytes(READ, 1)), a, b);
  assert.ok(driver.bytes(a).every((byte) => byte === 7));
  assert.deepEqual([driver.bytes(b)[411], driver.bytes(b)[412]], [7, 0]);
});

test('requests that take their time end by one interrupt, in any order', async () => {
  const { driver, disk, header } = start();
  disk.slow = true;
  const ring = driver.rings[0]!;
  const parts = [1, 2, 3].map((sector) => ({ sector, into: driver.writable(512), status: driver.writable(1) }));
  for (const { sector, into, status } of parts) ring.add([header(READ, sector), into, status]);
  driver.device.notify(0);
  assert.equal(ring.used().length, 0);
  assert.equal((await driver.settled(0)).length, 3);
  assert.equal(driver.transport.queueInterrupts.length, 1);
  for (const { sector, into, status } of parts) assert.deepEqual([driver.bytes(into)[0], driver.bytes(status)[0]], [sector, 0]);
});

test('a reset forgets requests that are on their way', async () => {
  const { driver, disk, header } = start();
  disk.slow = true;
  driver.rings[0]!.add([header(READ, 1), driver.writable(512), driver.writable(1)]);
  driver.device.notify(0);
  driver.start();
  assert.equal((await driver.settled(0)).length, 0);
  const status = driver.writable(1);
  driver.request(0, header(FLUSH, 0), status);
  assert.equal((await driver.settled(0)).length, 1);
  assert.equal(driver.bytes(status)[0], 0);
});

test('what cannot be done is an error of the request', async () => {
  const { driver, disk, header } = start();
  const status = driver.writable(1);
  const statusOf = (type: number, sector: number, bytes: number): number => {
    const data = type === READ ? driver.writable(bytes) : driver.readable(new Uint8Array(bytes));
    driver.request(0, header(type, sector), data, status);
    return driver.bytes(status)[0]!;
  };
  assert.equal(statusOf(READ, 63, 1024), 1, 'beyond the end');
  assert.equal(statusOf(READ, 2 ** 40, 512), 1);
  assert.equal(statusOf(READ, 0, 100), 1, 'no whole sectors');
  assert.equal(statusOf(99, 0, 512), 2, 'unknown');
  disk.fails = true;
  assert.equal(statusOf(WRITE, 0, 512), 1);
  disk.slow = true;
  driver.request(0, header(READ, 0), driver.writable(512), status);
  await driver.settled(0);
  assert.equal(driver.bytes(status)[0], 1);
  disk.fails = disk.slow = false;
  disk.readOnly = true;
  assert.equal(statusOf(WRITE, 0, 512), 1, 'read-only');
});

test('flush, identity, discard, zeroes', () => {
  const { driver, disk, header } = start();
  const status = driver.writable(1);
  const id = driver.writable(20);
  driver.request(0, header(GET_ID, 0), id, status);
  assert.equal(new TextDecoder().decode(driver.bytes(id)).replaceAll('\0', ''), 'a serial');
  driver.request(0, header(FLUSH, 0), status);
  const range = (sector: number, count: number, flags: number) => {
    const bytes = new Uint8Array(16);
    new DataView(bytes.buffer).setUint32(0, sector, true);
    new DataView(bytes.buffer).setUint32(8, count, true);
    bytes[12] = flags;
    return driver.readable(bytes);
  };
  driver.request(0, header(DISCARD, 0), range(2, 3, 0), status);
  driver.request(0, header(WRITE_ZEROES, 0), range(4, 1, 1), status);
  assert.deepEqual(disk.calls, ['flush', 'discard 1024 1536', 'zero 2048 512 true']);
  assert.equal(driver.bytes(status)[0], 0);
  driver.request(0, header(DISCARD, 0), range(63, 2, 0), status);
  assert.equal(driver.bytes(status)[0], 1);
  driver.request(0, header(DISCARD, 0), range(1, 1, 1), status);
  assert.equal(driver.bytes(status)[0], 2, 'no such flag');
});

test('a driver that turns the cache off has its writes made stable', () => {
  const { driver, disk, header } = start();
  driver.device.writeConfig(32, 1, 0);
  driver.request(0, header(WRITE, 0), driver.readable(new Uint8Array(512)), driver.writable(1));
  assert.deepEqual(disk.calls, ['write 0 512', 'flush']);
});

test('configuration: capacity, blocks, queues', () => {
  const { driver } = start(newDisk(), 3);
  const { device } = driver;
  assert.deepEqual([device.readConfig(0, 4), device.readConfig(20, 4), device.readConfig(24, 1)], [64, 512, 3]);
  assert.equal(device.readConfig(34, 2), 3);
  assert.equal(device.queues.length, 3);
});

test('a request without room for its status breaks the device, not the machine', () => {
  const { driver, header } = start();
  driver.request(0, header(READ, 0));
  assert.ok(driver.device.isBroken);
});

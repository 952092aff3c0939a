import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NO_OFFLOADS, type Offloads, type PacketBackend, type PacketOffload } from '../../machine/interfaces.ts';
import { VirtioNet } from './net.ts';
import { FEATURE } from './net-header.ts';
import { TestDriver } from './test-driver.ts';

const MAC = [2, 0, 0, 0, 0, 1];
const ALL: Offloads = { checksum: true, tso4: true, tso6: true, ufo: true, uso: true };

class Network implements PacketBackend {
  onReceive: PacketBackend['onReceive'] = null;
  onWritable: PacketBackend['onWritable'] = null;
  offloads = ALL;
  accepts = NO_OFFLOADS;
  full = false;
  resumed = 0;
  readonly sent: { frame: Uint8Array; offload: PacketOffload | null }[] = [];

  send(frame: Uint8Array, offload: PacketOffload | null): boolean {
    if (this.full) return false;
    this.sent.push({ frame: frame.slice(), offload: offload === null ? null : { ...offload } });
    return true;
  }

  resume(): void {
    this.resumed++;
  }

  close(): void {
    // Nothing to close.
  }
}

function start(without: readonly number[] = [], pairs = 1) {
  const network = new Network();
  const options = { backend: network, mac: Uint8Array.from(MAC), pairs, rxSize: 64, txSize: 64, mtu: 0 };
  const driver = new TestDriver((memory) => new VirtioNet({ id: 'net0', memory }, options));
  driver.start(without);
  const control = (kind: number, command: number, ...data: number[]): number => {
    const answer = driver.writable(1);
    driver.request(pairs > 1 ? 2 * pairs : 2, driver.readable([kind, command]), driver.readable(data), answer);
    return driver.bytes(answer)[0]!;
  };
  return { network, driver, control };
}

const frame = (length: number, to: readonly number[] = MAC): Uint8Array => Uint8Array.from({ length }, (_, i) => to[i] ?? i);
const header = (...bytes: number[]): Uint8Array => Uint8Array.from({ length: 12 }, (_, i) => bytes[i] ?? 0);

test('frames go out with what is left to do', () => {
  const { network, driver } = start();
  driver.request(1, driver.readable(header()), driver.readable(frame(60)));
  const half = frame(100);
  driver.request(
    1,
    driver.readable(header(1, 1, 54, 0, 0xb4, 5, 34, 0, 16)),
    driver.readable(half.subarray(0, 50)),
    driver.readable(half.subarray(50)),
  );
  assert.deepEqual([...network.sent[0]!.frame], [...frame(60)]);
  assert.equal(network.sent[0]!.offload, null);
  assert.deepEqual([...network.sent[1]!.frame], [...half]);
  assert.deepEqual(
    { ...network.sent[1]!.offload },
    { checksumStart: 34, checksumOffset: 16, gso: 1, headerLength: 54, segmentSize: 1460 },
  );
});

test('headers that make no sense, and what is no frame, are lost', () => {
  const { network, driver } = start();
  const bad = [header(1, 0, 0, 0, 0, 0, 200, 0, 16), header(0, 1, 54, 0, 10), header(1, 1, 54, 0, 0, 0, 34, 0, 16)];
  for (const one of bad) assert.equal(driver.request(1, driver.readable(one), driver.readable(frame(100))).length, 1);
  assert.equal(driver.request(1, driver.readable([1, 2, 3])).length, 1);
  assert.equal(network.sent.length, 0);
});

test('a full network keeps frames in the ring until there is room', () => {
  const { network, driver } = start();
  network.full = true;
  driver.rings[1]!.add([driver.readable(header()), driver.readable(frame(60))]);
  driver.device.notify(1);
  assert.equal(driver.rings[1]!.used().length, 0);
  network.full = false;
  network.onWritable!();
  assert.equal(driver.rings[1]!.used().length, 1);
  assert.equal(network.sent.length, 1);
});

test('a large frame fills several buffers, and says how many', async () => {
  const { network, driver } = start();
  const buffers = Array.from({ length: 4 }, () => driver.writable(1000));
  for (const buffer of buffers) driver.rings[0]!.add([buffer]);
  driver.device.notify(0);
  const large = frame(2500);
  const offload = { checksumStart: 34, checksumOffset: 16, gso: 1, headerLength: 54, segmentSize: 1460 };
  assert.equal(network.onReceive!(large, offload), true);
  const used = await driver.settled(0);
  assert.deepEqual(
    used.map(({ length }) => length),
    [1000, 1000, 512],
  );
  const bytes = buffers.flatMap((buffer) => [...driver.bytes(buffer)]);
  assert.deepEqual(bytes.slice(0, 12), [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 3, 0]);
  assert.deepEqual(bytes.slice(12, 2512), [...large]);
  assert.equal(driver.transport.queueInterrupts.length, 1);
});

test('without room the network keeps the frame, and hears when there is some', async () => {
  const { network, driver } = start();
  driver.rings[0]!.add([driver.writable(100)]);
  driver.device.notify(0);
  const before = network.resumed;
  assert.equal(network.onReceive!(frame(300), null), false);
  driver.rings[0]!.add([driver.writable(1000)]);
  driver.device.notify(0);
  assert.equal(network.resumed, before + 1);
  assert.equal(network.onReceive!(frame(300), null), true);
  assert.equal((await driver.settled(0)).length, 2);
});

test('a driver without merged buffers never gets what does not fit', async () => {
  const { network, driver } = start([FEATURE.mergedBuffers]);
  driver.rings[0]!.add([driver.writable(100)]);
  driver.device.notify(0);
  assert.equal(network.onReceive!(frame(300), null), true, 'it is dropped');
  assert.equal(network.onReceive!(frame(60), null), true);
  assert.deepEqual(
    (await driver.settled(0)).map(({ length }) => length),
    [72],
  );
});

test('what the driver takes is what the network may leave to it', () => {
  assert.deepEqual(start().network.accepts, ALL);
  assert.deepEqual(start([FEATURE.guestTso6, FEATURE.guestUfo]).network.accepts, { ...ALL, tso6: false, ufo: false });
  const { network, control } = start();
  assert.equal(control(5, 0, 2, 0, 0, 0, 0, 0, 0, 0), 0);
  assert.deepEqual(network.accepts, { ...NO_OFFLOADS, checksum: true });
});

test('filters: addresses, groups, broadcasts, VLANs', async () => {
  const { network, driver, control } = start();
  for (let i = 0; i < 20; i++) driver.rings[0]!.add([driver.writable(200)]);
  driver.device.notify(0);
  assert.equal(control(0, 0, 0), 0, 'no longer promiscuous');
  const group = [1, 0, 0x5e, 0, 0, 9];
  const other = [2, 0, 0, 0, 0, 7];
  const arrives = async (...frames: Uint8Array[]): Promise<number> => {
    for (const one of frames) assert.equal(network.onReceive!(one, null), true);
    return (await driver.settled(0)).length;
  };
  assert.equal(await arrives(frame(60, MAC), frame(60, other), frame(60, group), frame(60, new Array(6).fill(0xff))), 2);
  assert.equal(control(1, 0, 1, 0, 0, 0, ...other, 1, 0, 0, 0, ...group), 0);
  assert.equal(await arrives(frame(60, other), frame(60, group)), 2);
  assert.equal(control(1, 0, 9, 0, 0, 0, ...other), 1, 'a table that is not whole');
  const tagged = frame(60);
  tagged.set([0x81, 0, 0, 5], 12);
  assert.equal(await arrives(tagged), 0);
  assert.equal(control(2, 0, 5, 0), 0);
  assert.equal(await arrives(tagged), 1);
  assert.equal(control(1, 1, ...other), 0);
  assert.equal(driver.device.readConfig(5, 1), 7);
  assert.equal(control(0, 99, 1), 1);
  assert.equal(control(77, 0, 1), 1);
});

test('pairs of queues: a connection comes back by the pair that it was sent by', async () => {
  const { network, driver, control } = start([], 4);
  assert.equal(control(4, 0, 4, 0), 0);
  assert.equal(control(4, 0, 5, 0), 1);
  const tcp = (from: number, to: number): Uint8Array => {
    const bytes = frame(80);
    bytes.set([8, 0, 0x45], 12);
    bytes[23] = 6;
    bytes.set([10, 0, 2, 15, 10, 0, 2, 2], 26);
    bytes.set([from >> 8, from & 255, to >> 8, to & 255], 34);
    return bytes;
  };
  for (let i = 0; i < 4; i++) {
    driver.rings[2 * i]!.add([driver.writable(200)]);
    driver.device.notify(2 * i);
  }
  driver.request(5, driver.readable(header()), driver.readable(tcp(1000, 80)));
  assert.equal(network.sent.length, 1);
  const answer = tcp(80, 1000);
  answer.set([10, 0, 2, 2, 10, 0, 2, 15], 26);
  network.onReceive!(answer, null);
  assert.equal((await driver.settled(4)).length, 1);
});

test('state: filters and addresses are saved', () => {
  const { driver, control } = start();
  control(0, 0, 0);
  control(1, 1, 2, 2, 2, 2, 2, 2);
  const saved = driver.device.save();
  driver.start();
  assert.equal(driver.device.readConfig(0, 1), 2);
  driver.device.load(saved);
  assert.equal(driver.device.readConfig(5, 1), 2);
});

/** Devices whose place another one takes, with their state and over the same memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Completion, PacketBackend } from '../../machine/interfaces.ts';
import { NO_OFFLOADS } from '../../machine/interfaces.ts';
import { FlatMemory, ManualClock, MockDisk, RecordingBackend } from '../mocks.ts';
import { ScsiDisk } from '../scsi/disk.ts';
import { ScsiBus } from '../scsi.ts';
import { VirtioBalloon } from './balloon.ts';
import { VirtioBlk } from './blk.ts';
import type { VirtioDevice } from './device.ts';
import { EV, VirtioInput } from './input.ts';
import { VirtioNet } from './net.ts';
import { VirtioScsi } from './scsi.ts';
import { SerialPortDevice, VirtioSerial } from './serial.ts';
import { TestDriver } from './test-driver.ts';

/** A disk that answers some requests never. */
class Silent extends MockDisk {
  answers = 0;

  override read(offset: number, into: Uint8Array): Completion {
    return this.answers-- > 0 ? super.read(offset, into) : new Promise(() => undefined);
  }

  override write(): Completion {
    return new Promise(() => undefined);
  }

  override flush(): Completion {
    return new Promise(() => undefined);
  }
}

const SIZE = 64 * 512;

function disk(memory: FlatMemory, backend: MockDisk, without?: readonly number[]): VirtioBlk {
  const options = {
    ...{ backend, queues: 2, queueSize: 64, serial: 's', logicalBlockSize: 512, physicalBlockSize: 512 },
    ...{ minIoSize: 0, optIoSize: 0, discard: true, writeZeroes: true },
  };
  return new VirtioBlk({ id: 'disk', memory, ...(without === undefined ? {} : { without }) }, options);
}

function request(driver: TestDriver, type: number, sector: number) {
  const bytes = new Uint8Array(16);
  bytes[0] = type;
  bytes[8] = sector;
  const into = driver.writable(512);
  const status = driver.writable(1);
  const data = type === 0 ? [into] : type === 1 ? [driver.readable(new Uint8Array(512).fill(sector))] : [];
  return { into, status, parts: [driver.readable(bytes), ...data, status] };
}

test('a disk makes requests again that had no answer, each once', () => {
  const driver = new TestDriver((memory) => disk(memory, new Silent(SIZE)));
  driver.start();
  const made = [request(driver, 0, 3), request(driver, 1, 5), request(driver, 4, 0)];
  made.forEach(({ parts }, i) => driver.rings[i & 1]!.add(parts));
  driver.device.notify(0);
  driver.device.notify(1);
  driver.device.writeConfig(32, 1, 0);
  const after = new MockDisk(SIZE);
  // On the way through one that does not get an answer either.
  driver.handOver(disk(driver.memory, new Silent(SIZE)));
  assert.equal(driver.rings[0]!.used().length, 0);
  driver.handOver(disk(driver.memory, after));
  assert.deepEqual([driver.rings[0]!.used().length, driver.rings[1]!.used().length], [2, 1]);
  assert.deepEqual(
    made.map(({ status }) => driver.bytes(status)[0]),
    [0, 0, 0],
  );
  assert.equal(driver.bytes(made[0]!.into)[0], 3);
  assert.equal(after.data[5 * 512], 5);
  assert.equal(driver.device.readConfig(32, 1), 0, 'write cache');
  const saved = driver.device.save();
  driver.handOver(disk(driver.memory, after));
  assert.deepEqual(driver.device.save(), saved);
  assert.deepEqual([driver.rings[0]!.used().length, driver.rings[1]!.used().length], [0, 0]);
});

test('requests in a packed ring, as long as nothing was written over them', () => {
  const silent = new Silent(SIZE);
  const driver = new TestDriver((memory) => disk(memory, silent, []));
  driver.start();
  const ring = driver.packedRings[0]!;
  const [first, second] = [request(driver, 0, 1), request(driver, 0, 2)];
  ring.add(first.parts);
  ring.add(second.parts);
  driver.device.notify(0);
  driver.handOver(disk(driver.memory, new MockDisk(SIZE), []));
  assert.equal(ring.used().length, 2);
  assert.deepEqual([driver.bytes(first.into)[0], driver.bytes(second.into)[0]], [1, 2]);

  const other = new TestDriver((memory) => disk(memory, silent, []));
  other.start();
  const [waits, answered] = [request(other, 0, 1), request(other, 0, 2)];
  other.packedRings[0]!.add(waits.parts);
  other.device.notify(0);
  silent.answers = 1;
  other.packedRings[0]!.add(answered.parts);
  other.device.notify(0);
  assert.throws(() => other.device.save(), /queue 0: a request that waits cannot be saved/);
});

test('what a state says of requests is believed only as far as there are rings', () => {
  const driver = new TestDriver((memory) => disk(memory, new Silent(SIZE)));
  driver.start();
  driver.rings[0]!.add(request(driver, 0, 3).parts);
  driver.device.notify(0);
  const { version, fields } = driver.device.save();
  const load = (requests: unknown): VirtioDevice => {
    const device = disk(driver.memory, new MockDisk(SIZE));
    device.attach(driver.transport);
    device.load({ version, fields: { ...fields, device: { writeback: true, requests: requests as never } } });
    device.afterLoad();
    return device;
  };
  const one = { queue: 0, id: 0, start: 0, slots: 1 };
  for (const bad of [1, [1], [{}], [{ ...one, queue: 9 }], [{ ...one, id: -1 }], [{ ...one, start: 0.5 }]]) {
    assert.throws(() => load(bad), /"requests" is not a list of requests/);
  }
  assert.equal(load([{ ...one, id: 60_000 }]).isBroken, true);
  assert.equal(load([]).isBroken, false);
  const queues = structuredClone(fields['queues']) as { size: number }[];
  queues[0]!.size = 2 ** 30;
  assert.throws(
    () => disk(driver.memory, new MockDisk(SIZE)).load({ version, fields: { ...fields, queues } }),
    /field "queues\[0\]\.size" is 1073741824, outside 1 to 64/,
  );
});

test('a SCSI host makes commands again that had no answer', () => {
  const host = (memory: FlatMemory, backend: MockDisk): VirtioScsi => {
    const bus = new ScsiBus('scsi.0', 255, 16383);
    const options = { vendor: 'v', product: 'p', version: '1', serial: 's', wwn: 0n, deviceId: null };
    const unit = { readOnly: false, removable: false, rotationRate: 1, blockSize: 512 };
    bus.plug(new ScsiDisk({ id: 'unit', backend, ...options, ...unit }), 0, 0);
    return new VirtioScsi(
      { id: 'scsi', memory },
      { queues: 1, queueSize: 64, maxSectors: 100, commandsPerLun: 8, bus, hotplug: true },
    );
  };
  const driver = new TestDriver((memory) => host(memory, new Silent(SIZE)));
  driver.start();
  const header = new Uint8Array(19 + 32);
  header[0] = 1;
  // READ (10) of one block from 7 on.
  header.set([0x28, 0, 0, 0, 0, 7, 0, 0, 1], 19);
  const [response, into] = [driver.writable(12 + 96), driver.writable(512)];
  driver.rings[2]!.add([driver.readable(header), response, into]);
  driver.device.notify(2);
  assert.equal(driver.rings[2]!.used().length, 0);
  driver.handOver(host(driver.memory, new MockDisk(SIZE)));
  assert.equal(driver.rings[2]!.used().length, 1);
  assert.deepEqual([driver.bytes(response)[10], driver.bytes(into)[0]], [0, 7]);
});

test('a card sends what the network had no room for', () => {
  const network = (room: boolean) => {
    const sent: number[] = [];
    const backend: PacketBackend = {
      ...{ onReceive: null, onWritable: null, offloads: NO_OFFLOADS, accepts: NO_OFFLOADS },
      send: (frame) => room && sent.push(frame.length) > 0,
      resume: () => undefined,
      close: () => undefined,
    };
    return { sent, backend };
  };
  const card = (memory: FlatMemory, backend: PacketBackend): VirtioNet =>
    new VirtioNet({ id: 'net', memory }, { backend, mac: new Uint8Array(6), pairs: 1, rxSize: 64, txSize: 64, mtu: 0 });
  const driver = new TestDriver((memory) => card(memory, network(false).backend));
  driver.start();
  driver.request(1, driver.readable(new Uint8Array(12)), driver.readable(new Uint8Array(60)));
  driver.request(1, driver.readable(new Uint8Array(12)), driver.readable(new Uint8Array(70)));
  const after = network(true);
  driver.handOver(card(driver.memory, after.backend));
  assert.deepEqual(after.sent, [60, 70]);
  assert.equal(driver.rings[1]!.used().length, 2);
});

test('a port sends what the host had no room for', () => {
  const ports = (memory: FlatMemory, backend: RecordingBackend): VirtioSerial => {
    const device = new VirtioSerial({ id: 's', memory }, 2, true);
    device.plug(new SerialPortDevice({ type: 'p', id: 'p', name: 'n', console: false, backend }), 1);
    return device;
  };
  const full = new RecordingBackend();
  full.accepts = false;
  const driver = new TestDriver((memory) => ports(memory, full));
  driver.start();
  driver.request(5, driver.readable([0x61]));
  driver.request(5, driver.readable([0x62, 0x63]));
  assert.equal(full.output, 'a');
  const after = new RecordingBackend();
  driver.handOver(ports(driver.memory, after));
  assert.equal(after.output, 'bc');
});

test('a balloon keeps the buffer for statistics, and the time of the next', () => {
  const clock = new ManualClock();
  const options = { clock, memorySize: 2 ** 24, deflateOnOom: false, reporting: false };
  const balloon = (memory: FlatMemory): VirtioBalloon => new VirtioBalloon({ id: 'b', memory }, options);
  const driver = new TestDriver(balloon);
  driver.start();
  driver.request(2, driver.readable(new Uint8Array(10)));
  (driver.device as VirtioBalloon).setPollingInterval(2);
  assert.equal(driver.rings[2]!.used().length, 0);
  clock.run(1e9);
  const before = driver.device;
  driver.handOver(balloon(driver.memory));
  (before as VirtioBalloon).setPollingInterval(0);
  clock.run(0.9e9);
  assert.equal(driver.rings[2]!.used().length, 0);
  clock.run(0.2e9);
  assert.equal(driver.rings[2]!.used().length, 1);
});

test('events of input wait for buffers', () => {
  const description = { name: 'n', serial: 's', ids: [1, 2, 3, 4] as const, events: {}, axes: {} };
  const input = (memory: FlatMemory): VirtioInput => new VirtioInput({ id: 'i', memory }, description);
  const driver = new TestDriver(input);
  driver.start();
  (driver.device as VirtioInput).send([{ type: EV.key, code: 30, value: 1 }]);
  driver.handOver(input(driver.memory));
  const buffers = [driver.writable(8), driver.writable(8)];
  for (const buffer of buffers) driver.request(0, buffer);
  assert.deepEqual([...driver.bytes(buffers[0]!)], [EV.key, 0, 30, 0, 1, 0, 0, 0]);
  assert.deepEqual([...driver.bytes(buffers[1]!)], new Array(8).fill(0));
});

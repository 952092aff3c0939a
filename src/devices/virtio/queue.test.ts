import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtioDevice } from './device.ts';
import { FEATURE, STATUS } from './features.ts';
import type { Virtqueue } from './queue.ts';
import { TestDriver } from './test-driver.ts';

/** Answers each request with its own bytes, backwards. */
class Mirror extends VirtioDevice {
  readonly deviceType = 1;
  readonly configSize = 0;
  readonly why: string[] = [];

  protected deviceFeatures(): bigint {
    return 0n;
  }

  protected queueNotified(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      const bytes = chain.readAll(65536).reverse();
      queue.push(chain, chain.write(0, bytes));
    }
    queue.flush();
  }
}

function start(without: readonly number[] = [FEATURE.packedRing]) {
  const why: string[] = [];
  const trace = (_category: string, line: string): void => void why.push(line);
  const driver = new TestDriver((memory) => new Mirror({ id: 'mirror', memory, trace, without: [] }, [64]));
  driver.start(without);
  return { driver, ring: driver.rings[0]!, why };
}

test('a chain of several buffers is one request', () => {
  const { driver } = start();
  const out = [driver.writable(2), driver.writable(8)];
  const [used] = driver.request(0, driver.readable([1, 2, 3]), driver.readable([4, 5]), ...out);
  assert.equal(used!.length, 5);
  assert.deepEqual([...driver.bytes(out[0]!)], [5, 4]);
  assert.deepEqual([...driver.bytes(out[1]!)].slice(0, 4), [3, 2, 1, 0xee]);
});

test('indirect tables', () => {
  const { driver, ring } = start();
  const out = driver.writable(4);
  ring.addIndirect(driver.allocate(64), [driver.readable([7]), driver.readable([8, 9]), out]);
  driver.device.notify(0);
  assert.equal(ring.used()[0]!.length, 3);
  assert.deepEqual([...driver.bytes(out)], [9, 8, 7, 0xee]);
});

test('the ring goes round, and many requests make one interrupt', () => {
  const { driver, ring } = start();
  for (let round = 0; round < 40; round++) {
    for (let i = 0; i < 20; i++) ring.add([driver.readable([i])]);
    driver.device.notify(0);
    assert.equal(ring.used().length, 20);
  }
  assert.equal(driver.transport.queueInterrupts.length, 40);
});

test('an interrupt comes when the used index passes the event, and only then', () => {
  const { driver, ring } = start();
  driver.request(0, driver.readable([1]));
  assert.equal(driver.transport.queueInterrupts.length, 1);
  ring.setUsedEvent(3);
  for (let i = 0; i < 2; i++) {
    ring.add([driver.readable([1])]);
    driver.device.notify(0);
  }
  assert.equal(driver.transport.queueInterrupts.length, 1);
  ring.add([driver.readable([1])]);
  driver.device.notify(0);
  assert.equal(driver.transport.queueInterrupts.length, 2);
  assert.equal(ring.availableEvent, 4, 'the device asks to be told of the next one');
});

test('without event indices, a flag keeps interrupts away', () => {
  const { driver, ring } = start([FEATURE.eventIndex, FEATURE.packedRing]);
  driver.memory.write(ring.available, 2, 1);
  driver.request(0, driver.readable([1]));
  assert.equal(driver.transport.queueInterrupts.length, 0);
  driver.memory.write(ring.available, 2, 0);
  driver.request(0, driver.readable([1]));
  assert.equal(driver.transport.queueInterrupts.length, 1);
});

test('what hostile rings do: the device asks for a reset, and works again after it', () => {
  type Start = ReturnType<typeof start>;
  const beyond = { address: 2 ** 40, length: 16, writable: false };
  const attacks: [RegExp, (at: Start) => void][] = [
    [/loop/, ({ driver, ring }) => loop(ring, driver.readable([1]))],
    [/descriptor 64 in a table of 64/, ({ ring }) => ring.offer(64)],
    [/descriptor 99 in a table/, ({ driver, ring }) => (ring.put(0, driver.readable([1]), 1, 99), ring.offer(0))],
    [/moved by 65 in a ring of 64/, ({ ring }) => ring.setIndex(65)],
    [/16 bytes at 0x10000000000 is not in memory/, ({ ring }) => ring.add([beyond])],
    [/4294967295 bytes/, ({ driver, ring }) => ring.add([{ ...driver.readable([1]), length: 0xffffffff }])],
    [/read follows/, ({ driver, ring }) => ring.add([driver.writable(1), driver.readable([1])])],
    [/indirect table of 8 bytes/, ({ driver, ring }) => (ring.put(0, { ...driver.readable([1]), length: 8 }, 4), ring.offer(0))],
    [/indirect table outside/, ({ ring }) => (ring.put(0, { ...beyond, length: 1600 }, 4), ring.offer(0))],
    [/indirect descriptor with a next/, ({ driver, ring }) => (ring.put(0, driver.readable([1]), 5), ring.offer(0))],
    [/in an indirect table$/, ({ driver, ring }) => nested(driver, ring)],
    [/loop/, ({ driver, ring }) => loopInTable(driver, ring)],
  ];
  for (const [message, attack] of attacks) {
    const begun = start();
    const { driver, why } = begun;
    attack(begun);
    driver.device.notify(0);
    assert.match(why.join(), message);
    assert.ok(driver.device.status & STATUS.needsReset, `${message}`);
    assert.equal(driver.transport.configInterrupts, 1);
    driver.device.notify(0);
    driver.start([FEATURE.packedRing]);
    const out = driver.writable(1);
    assert.equal(driver.request(0, driver.readable([5]), out).length, 1, `works after ${message}`);
  }
});

function loop(ring: TestDriver['rings'][number], part: { address: number; length: number; writable: boolean }): void {
  ring.put(0, part, 1, 1);
  ring.put(1, part, 1, 0);
  ring.offer(0);
}

function nested(driver: TestDriver, ring: TestDriver['rings'][number]): void {
  const table = driver.allocate(32);
  ring.putAt(table, driver.allocate(16), 16, 4, 0);
  ring.put(0, { address: table, length: 32, writable: false }, 4);
  ring.offer(0);
}

function loopInTable(driver: TestDriver, ring: TestDriver['rings'][number]): void {
  const table = driver.allocate(64);
  for (let i = 0; i < 4; i++) ring.putAt(table + 16 * i, driver.allocate(1), 1, 1, (i + 1) % 4);
  ring.put(0, { address: table, length: 64, writable: false }, 4);
  ring.offer(0);
}

test('a ring that lies nowhere breaks the device, not the machine', () => {
  const { driver, why } = start();
  const { device } = driver;
  device.setStatus(0);
  device.setStatus(STATUS.acknowledge | STATUS.driver);
  device.setFeatures(device.offered);
  device.setStatus(STATUS.acknowledge | STATUS.driver | STATUS.featuresOk);
  Object.assign(device.queues[0]!.state, { enabled: true, descriptors: [0, 0x1000], driver: [0, 0], device: [0, 0] });
  device.setStatus(device.status | STATUS.driverOk);
  assert.match(why.join(), /descriptor ring at 0x100000000000 is not in memory/);
  assert.ok(device.status & STATUS.needsReset);
});

test('features that were not offered, or that leave version 1 out, are not agreed on', () => {
  const { driver } = start();
  const { device } = driver;
  device.setStatus(0);
  device.setStatus(STATUS.acknowledge | STATUS.driver);
  device.setFeatures(1n << 50n);
  assert.equal(device.state.features, 0n);
  device.setStatus(STATUS.acknowledge | STATUS.driver | STATUS.featuresOk);
  assert.equal(device.status & STATUS.featuresOk, 0);
});

test('state: a loaded device goes on where the saved one was', () => {
  const { driver, ring } = start();
  for (let i = 0; i < 5; i++) driver.request(0, driver.readable([i]));
  const saved = driver.device.save();
  const other = new Mirror({ id: 'mirror', memory: driver.memory, without: [] }, [64]);
  other.attach(driver.transport);
  other.load(saved);
  const poorer = new Mirror({ id: 'mirror', memory: driver.memory }, [64]);
  assert.throws(() => poorer.load(saved), /mirror: field "features" has 0x200000000, which is not offered here/);
  const out = driver.writable(2);
  ring.add([driver.readable([1, 2]), out]);
  other.notify(0);
  assert.equal(ring.used().length, 1);
  assert.deepEqual([...driver.bytes(out)], [2, 1]);
  assert.throws(() => other.load({ ...saved, fields: { ...saved.fields, queues: [] } }), /queues/);
});

test('packed rings: chains, the way round, wrap counters', () => {
  const { driver } = start([]);
  const ring = driver.packedRings[0]!;
  for (let round = 0; round < 50; round++) {
    const outs = Array.from({ length: 7 }, () => driver.writable(8));
    for (const out of outs) ring.add([driver.readable([round, 2]), driver.readable([3]), out]);
    driver.device.notify(0);
    assert.deepEqual(
      ring.used().map(({ length }) => length),
      outs.map(() => 3),
    );
    assert.deepEqual([...driver.bytes(outs[6]!)].slice(0, 4), [3, 2, round, 0xee]);
  }
});

test('packed rings: indirect tables, and interrupts by event', () => {
  const { driver } = start([]);
  const ring = driver.packedRings[0]!;
  const table = driver.allocate(32);
  const out = driver.writable(4);
  const words = [...le64(driver.readable([1, 2]).address), 2, 0, 0, 0, 0, 0, 0, 0, ...le64(out.address), 4, 0, 0, 0, 0, 0, 2, 0];
  driver.memory.bytes.set(words, table);
  ring.add([{ address: table, length: 32, writable: false }], 4);
  driver.device.notify(0);
  assert.equal(ring.used()[0]!.length, 2);
  assert.deepEqual([...driver.bytes(out)], [2, 1, 0xee, 0xee]);
  assert.equal(driver.transport.queueInterrupts.length, 1);
  driver.memory.write(ring.driverArea, 2, 2 | 0x8000);
  driver.memory.write(ring.driverArea + 2, 2, 2);
  for (const interrupts of [1, 2, 2]) {
    ring.add([driver.readable([1])]);
    driver.device.notify(0);
    assert.equal(driver.transport.queueInterrupts.length, interrupts);
  }
  driver.memory.write(ring.driverArea + 2, 2, 1);
  ring.add([driver.readable([1])]);
  driver.device.notify(0);
  assert.equal(driver.transport.queueInterrupts.length, 2, 'none are wanted');
  assert.equal(driver.memory.read(ring.deviceArea, 2), 5 | 0x8000, 'the device waits for the next descriptor');
});

test('packed rings: a loop and an indirect descriptor in a chain break the device', () => {
  for (const more of [1, 4 | 1]) {
    const { driver, why } = start([]);
    const ring = driver.packedRings[0]!;
    for (let i = 0; i < 64; i++) ring.add([driver.readable([1])], more);
    driver.device.notify(0);
    assert.match(why.join(), more === 1 ? /loop/ : /indirect/);
    assert.ok(driver.device.status & STATUS.needsReset);
  }
});

const le64 = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, 0, 0, 0, 0, 0];

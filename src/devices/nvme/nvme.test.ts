import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ADMIN, FEATURE, NVM, REGISTER } from './spec.ts';
import { newDisk, ENABLE, TestDriver } from './test-driver.ts';

const PAGE = 4096;
const READY = 1;
const FATAL = 2;
const blocks = (first: number, count: number, flags = 0) => [first, 0, ((count - 1) | flags) >>> 0];

test('registers: capabilities, version, and readiness that follows the enable bit', () => {
  const driver = new TestDriver();
  const { controller } = driver;
  assert.equal(controller.readRegister(REGISTER.version), 0x10400);
  assert.equal(controller.readRegister(0) & 0x1ffff, 0x107ff);
  driver.enable();
  assert.equal(driver.status, READY);
  controller.writeRegister(REGISTER.configuration, 0);
  assert.equal(driver.status, 0);
  assert.equal(controller.readRegister(REGISTER.adminSubmission), 0x10000, 'what a controller reset leaves alone');
});

test('what cannot be enabled, or has its queues nowhere, is a fatal status', () => {
  const bad = new TestDriver();
  bad.controller.writeRegister(REGISTER.configuration, ENABLE);
  assert.equal(bad.status, FATAL, 'queues of one entry');
  const nowhere = new TestDriver();
  nowhere.controller.writeRegister(REGISTER.adminSizes, 0x1f001f);
  nowhere.controller.writeRegister(REGISTER.adminSubmission + 4, 0xfffff000);
  nowhere.controller.writeRegister(REGISTER.configuration, ENABLE);
  nowhere.doorbell(0, false, 1);
  assert.equal(nowhere.status, READY | FATAL);
  nowhere.controller.writeRegister(REGISTER.configuration, 0);
  assert.equal(nowhere.enable().status, READY, 'a reset mends it');
});

test('identify: controller, namespace, lists, descriptors', () => {
  const driver = new TestDriver().enable();
  const into = driver.allocate(PAGE);
  const identify = (kind: number, name: number) => driver.admin(ADMIN.identify, { name, prp1: into, words: [kind] }).status;
  const text = (at: number, length: number) => new TextDecoder().decode(driver.bytes(into + at, length));
  assert.equal(identify(1, 0), 0);
  assert.equal(text(4, 20), 'a serial'.padEnd(20));
  assert.deepEqual([...driver.bytes(into + 512, 2)], [0x66, 0x44]);
  assert.equal(identify(0, 1), 0);
  assert.deepEqual([driver.memory.read(into, 4), driver.memory.read(into + 130, 1)], [2048, 9]);
  assert.equal(identify(2, 0), 0);
  assert.deepEqual([driver.memory.read(into, 4), driver.memory.read(into + 4, 4)], [1, 0]);
  assert.equal(identify(3, 1), 0);
  assert.deepEqual([...driver.bytes(into, 2)], [1, 8]);
  assert.equal(identify(0, 2), 0x0b, 'no such namespace');
  assert.equal(identify(0x77, 1), 2);
});

test('features: counts of queues, write cache, thresholds', () => {
  const driver = new TestDriver().enable();
  const get = (feature: number, select = 0) => driver.admin(ADMIN.getFeatures, { words: [feature | (select << 8)] });
  const set = (feature: number, value: number) => driver.admin(ADMIN.setFeatures, { words: [feature, value] });
  assert.equal(set(FEATURE.queues, 0x00ff00ff).result, 0x00030003);
  assert.equal(set(FEATURE.queues, 0xffff).status, 2);
  assert.equal(set(FEATURE.writeCache, 0).status, 0);
  assert.deepEqual([get(FEATURE.writeCache).result, get(FEATURE.writeCache, 1).result], [0, 1]);
  assert.equal(set(FEATURE.temperature, 0x100000 | 300).status, 0);
  assert.equal(get(0x7f).status, 2);
  assert.equal(set(FEATURE.power, 1).status, 2);
  assert.equal(driver.admin(ADMIN.setFeatures, { words: [0x80000000 | FEATURE.writeCache] }).status, 0x10d);
});

test('logs: errors, health, firmware, effects', () => {
  const driver = new TestDriver().start();
  const into = driver.allocate(PAGE);
  driver.io(NVM.read, { prp1: driver.allocate(512), words: blocks(0, 1) });
  const log = (page: number, bytes: number, from = 0) =>
    driver.admin(ADMIN.getLogPage, { name: 0xffffffff, prp1: into, words: [page | ((bytes / 4 - 1) << 16), 0, from] }).status;
  assert.equal(log(2, 512), 0);
  assert.deepEqual([driver.memory.read(into + 1, 2), driver.memory.read(into + 64, 4)], [323, 1]);
  assert.equal(log(2, 64, 64), 0);
  assert.equal(driver.memory.read(into, 4), 1, 'a part of it');
  assert.deepEqual([log(1, 64), log(3, 512), log(5, 4096), log(0x70, 64), log(1, 64, 128)], [0, 0, 0, 0x109, 2]);
});

test('reads and writes: in place by two PRPs and by lists, copied when in many pieces', () => {
  const driver = new TestDriver().start();
  const { disk, memory } = driver;
  const a = driver.allocate(2 * PAGE);
  assert.equal(driver.io(NVM.read, { prp1: a + 512, prp2: a + PAGE, words: blocks(3, 8) }), 0);
  assert.deepEqual([memory.read(a + 512, 1), memory.read(a + PAGE + 511, 1)], [3, 10]);
  assert.deepEqual(disk.calls.splice(0), ['read 1536 4096'], 'neighbours are one');
  const pages = Array.from({ length: 40 }, () => driver.allocate(PAGE)).reverse();
  const list = driver.allocate(PAGE) + PAGE - 16;
  const next = driver.allocate(PAGE);
  driver.put64(list, pages[1]!);
  driver.put64(list + 8, next);
  pages.slice(2).forEach((page, i) => driver.put64(next + 8 * i, page));
  pages.forEach((page, i) => memory.bytes.fill(i + 100, page, page + PAGE));
  assert.equal(driver.io(NVM.write, { prp1: pages[0]!, prp2: list, words: blocks(0, 320) }), 0);
  assert.deepEqual(disk.calls.splice(0), [`write 0 ${40 * PAGE}`]);
  pages.forEach((_, i) => assert.equal(disk.data[i * PAGE + 5], i + 100));
  assert.equal(driver.io(NVM.compare, { prp1: pages[0]!, prp2: list, words: blocks(0, 320) }), 0);
  memory.bytes[pages[39]!] = 1;
  assert.equal(driver.io(NVM.compare, { prp1: pages[0]!, prp2: list, words: blocks(0, 320) }), 0x285);
  assert.equal(driver.io(NVM.read, { prp1: pages[0]!, prp2: list, words: blocks(0, 320) }), 0);
  assert.equal(memory.bytes[pages[39]!], 139);
  assert.ok(
    memory.changes.some(([at]) => at === pages[39]),
    'code in it is dropped',
  );
});

test('flush, forced writes, zeroes, ranges to deallocate', () => {
  const driver = new TestDriver().start();
  const { disk } = driver;
  const at = driver.allocate(PAGE);
  assert.equal(driver.io(NVM.flush, { name: 0xffffffff }), 0);
  assert.equal(driver.io(NVM.write, { prp1: at, words: blocks(0, 1, 1 << 30) }), 0);
  driver.admin(ADMIN.setFeatures, { words: [FEATURE.writeCache, 0] });
  assert.equal(driver.io(NVM.writeZeroes, { words: blocks(4, 2, 1 << 25) }), 0);
  assert.deepEqual(disk.calls.splice(0), ['flush', 'write 0 512', 'flush', 'zero 2048 1024 true', 'flush']);
  const range = (i: number, first: number, count: number) => {
    driver.memory.write(at + 16 * i + 4, 4, count);
    driver.put64(at + 16 * i + 8, first);
  };
  range(0, 8, 2);
  range(1, 100, 1);
  assert.equal(driver.io(NVM.datasetManagement, { prp1: at, words: [1, 4] }), 0);
  assert.deepEqual(disk.calls.splice(0), ['discard 4096 1024', 'discard 51200 512']);
  range(1, 2047, 2);
  assert.equal(driver.io(NVM.datasetManagement, { prp1: at, words: [1, 4] }), 0x80);
  assert.deepEqual(disk.calls, [], 'all ranges are checked first');
});

test('what is wrong with a command is its status', async () => {
  const driver = new TestDriver().start();
  const { disk } = driver;
  const at = driver.allocate(PAGE);
  const read = (fields: object) => driver.io(NVM.read, { prp1: at, words: blocks(0, 1), ...fields });
  assert.equal(driver.io(0x7f, {}), 1, 'opcode');
  assert.equal(read({ name: 2 }), 0x0b);
  assert.equal(read({ flags: 0x40 }), 2, 'SGL');
  assert.equal(read({ words: blocks(2048, 1) }), 0x80);
  assert.equal(read({ words: [0, 0xffffffff, 0] }), 0x80);
  assert.equal(read({ words: blocks(0, 1025) }), 2, 'more than the most');
  assert.equal(read({ prp1: at + 2 }), 0x13);
  assert.equal(read({ prp2: at + 512, words: blocks(0, 16) }), 0x13);
  assert.equal(read({ prp1: 2 ** 40 }), 4);
  assert.equal(read({ prp2: 2 ** 63, words: blocks(0, 100) }), 4, 'a list that is nowhere');
  disk.fails = true;
  assert.equal(read({}), 0x281);
  disk.slow = true;
  driver.submit(1, NVM.write, { name: 1, prp1: at, words: blocks(0, 1) });
  driver.ring(1);
  assert.deepEqual(
    (await driver.settled(1)).map(({ status }) => status),
    [0x280],
  );
  const protectedDisk = newDisk();
  protectedDisk.readOnly = true;
  assert.equal(new TestDriver(protectedDisk).start().io(NVM.write, { prp1: at, words: blocks(0, 1) }), 0x20);
});

test('lists in a circle end', () => {
  const driver = new TestDriver().start();
  const list = driver.allocate(PAGE);
  for (let i = 0; i < 512; i++) driver.put64(list + 8 * i, list);
  assert.equal(driver.io(NVM.write, { prp1: list, prp2: list + PAGE - 8, words: blocks(0, 1000) }), 0);
});

test('many commands run together and end by one interrupt', async () => {
  const driver = new TestDriver().start();
  driver.disk.slow = true;
  driver.port.raised.length = 0;
  const at = driver.allocate(PAGE);
  for (let i = 0; i < 8; i++) driver.submit(1, NVM.read, { name: 1, prp1: at + 512 * i, words: blocks(i, 1) });
  driver.ring(1);
  assert.equal(driver.disk.calls.length, 8);
  assert.deepEqual(driver.answers(1), []);
  const answers = await driver.settled(1);
  assert.deepEqual(
    answers.map(({ status, queue }) => [status, queue]),
    new Array(8).fill([0, 1]),
  );
  assert.equal(driver.memory.read(at + 512 * 7, 1), 7);
  assert.ok(driver.port.raised.length >= 1 && driver.port.raised.length <= 8);
  assert.ok(driver.port.raised.every((vector) => vector === 1));
});

test('rings go round, and commands wait for room in the completion queue', () => {
  const driver = new TestDriver().start(4);
  const at = driver.allocate(512);
  for (let i = 0; i < 20; i++) assert.equal(driver.io(NVM.read, { prp1: at, words: blocks(i, 1) }), 0);
  for (let i = 0; i < 3; i++) driver.submit(1, NVM.flush, { name: 1 });
  driver.ring(1);
  driver.disk.calls.length = 0;
  assert.equal(driver.answers(1, true).length, 3);
  driver.submit(1, NVM.flush, { name: 1 });
  driver.ring(1);
  assert.deepEqual(driver.disk.calls, [], 'the queue is full');
  driver.doorbell(1, true, (20 + 3) % 4);
  assert.equal(driver.answers(1).length, 1);
});

test('a doorbell does so much work, and the rest a little later', () => {
  const driver = new TestDriver().start(100);
  for (let i = 0; i < 99; i++) driver.submit(1, NVM.flush, { name: 1 });
  driver.ring(1);
  assert.equal(driver.answers(1).length, 64);
  driver.clock.run(1);
  assert.equal(driver.answers(1).length, 35);
});

test('queues: numbers, sizes, places, vectors and order of deletion are checked', async () => {
  const driver = new TestDriver().start();
  const at = driver.allocate(PAGE);
  const create = (opcode: number, id: number, size: number, word11: number, prp1 = at) =>
    driver.admin(opcode, { prp1, words: [(((size - 1) << 16) | id) >>> 0, word11] }).status;
  assert.equal(create(ADMIN.createCompletion, 5, 16, 1), 0x101);
  assert.equal(create(ADMIN.createCompletion, 1, 16, 1), 0x101, 'it is there');
  assert.equal(create(ADMIN.createCompletion, 2, 1, 1), 0x102);
  assert.equal(create(ADMIN.createCompletion, 2, 4096, 1), 0x102);
  assert.equal(create(ADMIN.createCompletion, 2, 16, 1, at + 8), 0x13);
  assert.equal(create(ADMIN.createCompletion, 2, 16, 0), 2);
  assert.equal(create(ADMIN.createCompletion, 2, 16, (5 << 16) | 3), 0x108);
  assert.equal(create(ADMIN.createSubmission, 2, 16, (2 << 16) | 1), 0x100);
  const remove = (opcode: number, id: number) => driver.admin(opcode, { words: [id] }).status;
  assert.equal(remove(ADMIN.deleteCompletion, 1), 0x10c);
  assert.equal(remove(ADMIN.deleteSubmission, 3), 0x101);
  driver.disk.slow = true;
  driver.submit(1, NVM.flush, { name: 1 });
  driver.ring(1);
  driver.submit(0, ADMIN.deleteSubmission, { words: [1] });
  driver.ring(0);
  assert.deepEqual(driver.answers(0), [], 'its command is on its way');
  assert.equal((await driver.settled(0)).length, 1);
  assert.equal(driver.answers(1).length, 1);
  assert.equal(remove(ADMIN.deleteCompletion, 1), 0);
});

test('events: invalid doorbells, a temperature, each told of once until its log is read', () => {
  const driver = new TestDriver().enable();
  const request = () => driver.submit(0, ADMIN.asyncEvent, {});
  for (let i = 0; i < 5; i++) request();
  driver.ring(0);
  assert.deepEqual(
    driver.answers(0).map(({ status }) => status),
    [0x105],
  );
  driver.doorbell(3, false, 1);
  driver.doorbell(0, false, 999);
  assert.deepEqual(
    driver.answers(0).map(({ result }) => result),
    [0x010000],
  );
  const log = (page: number) => {
    driver.submit(0, ADMIN.getLogPage, { prp1: driver.allocate(PAGE), words: [page | (15 << 16)] });
    driver.ring(0);
    return driver.answers(0).map(({ result }) => result);
  };
  assert.deepEqual(log(1), [0x010100, 0]);
  driver.submit(0, ADMIN.setFeatures, { words: [FEATURE.asyncEvents, 2] });
  driver.submit(0, ADMIN.setFeatures, { words: [FEATURE.temperature, 300] });
  driver.ring(0);
  assert.ok(driver.answers(0).some(({ result }) => result === 0x020101));
});

test('by the pin: raised while entries wait, unless masked', () => {
  const driver = new TestDriver().enable();
  driver.port.messages = false;
  driver.submit(0, ADMIN.abort, {});
  driver.ring(0);
  assert.ok(driver.port.pin);
  driver.controller.writeRegister(REGISTER.maskSet, 1);
  assert.ok(!driver.port.pin);
  driver.controller.writeRegister(REGISTER.maskClear, 1);
  assert.ok(driver.port.pin);
  assert.equal(driver.answers(0)[0]!.result, 1);
  assert.ok(!driver.port.pin);
});

test('shutdown is complete when the disk is flushed; a reset waits for what is on its way', async () => {
  const driver = new TestDriver().start();
  driver.disk.slow = true;
  driver.controller.writeRegister(REGISTER.configuration, ENABLE | (1 << 14));
  assert.equal(driver.status, READY | 4);
  await driver.settled(1);
  assert.equal(driver.status, READY | 8);
  driver.submit(1, NVM.read, { name: 1, prp1: driver.allocate(512), words: blocks(0, 1) });
  driver.ring(1);
  driver.controller.writeRegister(REGISTER.configuration, 0);
  assert.equal(driver.status & READY, READY);
  assert.deepEqual(await driver.settled(1), [], 'nothing comes of it');
  assert.equal(driver.status & READY, 0);
  assert.equal(driver.enable().status, READY);
});

test('a reset of the function forgets everything', async () => {
  const driver = new TestDriver().start();
  driver.disk.slow = true;
  driver.submit(1, NVM.flush, { name: 1 });
  driver.ring(1);
  driver.controller.reset();
  assert.equal(driver.status, 0);
  driver.start();
  assert.deepEqual(await driver.settled(1), []);
});

test('saved state: queues, features, and commands on their way, which are done again', async () => {
  const driver = new TestDriver().start();
  driver.disk.slow = true;
  const at = driver.allocate(512);
  driver.submit(1, NVM.read, { name: 1, prp1: at, words: blocks(9, 1) });
  driver.ring(1);
  const state = driver.controller.save();
  const memory = driver.memory.bytes.slice();
  const other = new TestDriver(newDisk()).start();
  other.memory.bytes.set(memory);
  other.controller.load(state);
  other.clock.run(1);
  assert.equal(other.memory.read(at, 1), 9);
  assert.deepEqual(
    other.answers(1).map(({ status }) => status),
    [0],
  );
  const bad = structuredClone(state);
  (bad.fields['submissions'] as { head: number }[])[0]!.head = 5000;
  assert.throws(() => other.controller.load(bad), /nvme0: the saved queues make no sense/);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IoHandler } from '../../machine/interfaces.ts';
import { FlatMemory } from '../mocks.ts';
import { PciBus } from '../pci.ts';
import { VirtioDevice } from './device.ts';
import { STATUS } from './features.ts';
import { VirtioPci, type VirtioPciOptions } from './pci.ts';
import type { Virtqueue } from './queue.ts';

class Counter extends VirtioDevice {
  readonly deviceType = 4;
  readonly configSize = 8;

  protected deviceFeatures(): bigint {
    return 1n << 3n;
  }

  protected queueNotified(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) queue.push(chain, 0);
    queue.flush();
  }

  override readConfig(offset: number): number {
    return 0xc0 + offset;
  }
}

function start(more: Partial<VirtioPciOptions> = {}) {
  const memory = new FlatMemory(1 << 20);
  const places = new Map<string, { base: number; handler: IoHandler }>();
  const place = (base: number, _size: number, handler: IoHandler, name: string) => {
    places.set(name, { base, handler });
    return { remove: () => void places.delete(name), doorbellsChanged: () => void changed.push(name) };
  };
  const changed: string[] = [];
  const messages: [number, number][] = [];
  const byEventfd: (boolean | undefined)[] = [];
  const bus = new PciBus({
    memory: { addMmio: place },
    ports: { register: (base, size, handler, name) => place(base, size, handler, `${name}-ports`) },
    messages: {
      sendMsi: (address, data, eventfd) => {
        messages.push([address, data]);
        byEventfd.push(eventfd);
      },
    },
  });
  let level = false;
  bus.onPirq = (_pirq, now) => (level = now);
  const device = new Counter({ id: 'c', memory }, [16, 16]);
  const pci = new VirtioPci(device, { type: 'c', classCode: 0, vectors: 3, legacy: true, modern: true, ...more });
  bus.plug(pci, 3);
  const word = (offset: number): number => pci.configRead(offset, 4);
  pci.configWrite(0x10, 4, 0xc000);
  pci.configWrite(0x14, 4, 0xe0001000);
  pci.configWrite(0x20, 4, 0xe0004000);
  pci.configWrite(0x04, 2, 7);
  const io = (name: string) => places.get(name)!.handler;
  return { memory, pci, device, word, io, messages, byEventfd, changed, pin: () => level };
}

/** Capabilities as [id, structure, offset]. */
function capabilities(word: (offset: number) => number): [number, number, number][] {
  const found: [number, number, number][] = [];
  for (let at = word(0x34) & 0xff; at !== 0; at = (word(at) >> 8) & 0xff) {
    found.push([word(at) & 0xff, word(at) >>> 24, word(at + 8)]);
  }
  return found;
}

test('ids: transitional, modern only, neither', () => {
  assert.equal(start().word(0), 0x10051af4);
  assert.equal(start().word(0x2c), 0x00041af4);
  const modern = start({ legacy: false });
  assert.equal(modern.word(0), 0x10441af4);
  assert.equal(modern.pci.config[8], 1);
  assert.throws(() => start({ legacy: false, modern: false }), /neither modern nor legacy mode is enabled/);
});

test('capabilities tell where the structures are', () => {
  const { word } = start();
  const vendor = capabilities(word).filter(([id]) => id === 9);
  assert.deepEqual(
    vendor.map(([, kind, offset]) => [kind, offset]),
    [
      [1, 0],
      [3, 0x1000],
      [4, 0x2000],
      [2, 0x3000],
      [5, 0],
    ],
  );
  assert.ok(capabilities(word).some(([id]) => id === 0x11));
  assert.deepEqual(capabilities(start({ modern: false, vectors: 0 }).word), []);
});

/** Sets queue 0 up by the modern interface. */
function ready({ io, memory }: ReturnType<typeof start>, vector = 1): void {
  const c = io('c');
  c.write(0x14, 1, STATUS.acknowledge | STATUS.driver);
  c.write(0x08, 4, 1);
  c.write(0x0c, 4, 1);
  c.write(0x14, 1, STATUS.acknowledge | STATUS.driver | STATUS.featuresOk);
  c.write(0x16, 2, 0);
  c.write(0x1a, 2, vector);
  [0x10000, 0x11000, 0x12000].forEach((address, i) => c.write(0x20 + 8 * i, 4, address));
  c.write(0x1c, 2, 1);
  c.write(0x14, 1, STATUS.acknowledge | STATUS.driver | STATUS.featuresOk | STATUS.driverOk);
  memory.write(0x10000, 4, 0x20000);
  memory.write(0x10008, 4, 4);
}

function offer({ io, memory }: ReturnType<typeof start>, index: number): void {
  memory.write(0x11002, 2, index);
  io('c').write(0x3000, 2, 0);
}

test('modern: a request by its notification, and an interrupt by the pin', () => {
  const all = start();
  ready(all);
  assert.equal(all.io('c').read(0x14, 1) & STATUS.featuresOk, STATUS.featuresOk);
  offer(all, 1);
  assert.equal(all.memory.read(0x12002, 2), 1);
  assert.equal(all.pin(), true);
  assert.equal(all.io('c').read(0x1000, 1), 1, 'ISR');
  assert.equal(all.pin(), false);
  assert.equal(all.io('c').read(0x2004, 1), 0xc4, 'configuration');
});

test('MSI-X: vectors, masks, pending bits', () => {
  const all = start();
  const table = all.io('c-msix');
  for (const vector of [0, 1]) {
    table.write(16 * vector, 4, 0xfee00000);
    table.write(16 * vector + 8, 4, 0x40 + vector);
    table.write(16 * vector + 12, 4, 0);
  }
  all.pci.configWrite(0x9a, 2, 0x8000);
  assert.equal(all.io('c').read(0x1a, 2), 0xffff);
  ready(all);
  offer(all, 1);
  assert.deepEqual(all.messages, [[0xfee00000, 0x41]]);
  assert.equal(all.pin(), false);
  table.write(16 + 12, 4, 1);
  offer(all, 2);
  assert.equal(all.messages.length, 1);
  assert.equal(table.read(0x800, 4), 2, 'pending');
  table.write(16 + 12, 4, 0);
  assert.equal(all.messages.length, 2);
  assert.equal(table.read(0x800, 4), 0);
  all.pci.configWrite(0x9a, 2, 0xc000);
  offer(all, 3);
  assert.equal(all.messages.length, 2);
  all.pci.configWrite(0x9a, 2, 0x8000);
  assert.equal(all.messages.length, 3);
  all.io('c').write(0x1a, 2, 3);
  assert.equal(all.io('c').read(0x1a, 2), 0xffff, 'there is no vector 3');
});

test('legacy: one page for a ring, configuration behind the registers', () => {
  const { io, memory, pin, pci } = start();
  const ports = io('c-ports');
  ports.write(0x12, 1, STATUS.acknowledge | STATUS.driver);
  assert.equal(ports.read(0, 4) & 8, 8);
  ports.write(4, 4, 8);
  ports.write(0x0e, 2, 0);
  assert.equal(ports.read(0x0c, 2), 16);
  ports.write(8, 4, 0x10);
  assert.equal(ports.read(8, 4), 0x10);
  ports.write(0x12, 1, STATUS.acknowledge | STATUS.driver | STATUS.driverOk);
  memory.write(0x10000, 4, 0x20000);
  memory.write(0x10008, 4, 4);
  memory.write(0x10102, 2, 1);
  ports.write(0x10, 2, 0);
  assert.equal(memory.read(0x11002, 2), 1, 'the used ring begins at the next page');
  assert.equal(pin(), true);
  assert.equal(ports.read(0x13, 1), 1);
  assert.equal(pin(), false);
  assert.equal(ports.read(0x14, 1), 0xc0);
  pci.configWrite(0x9a, 2, 0x8000);
  assert.equal(ports.read(0x18, 1), 0xc0, 'vectors come in between');
});

test('structures by way of configuration space', () => {
  const { pci } = start();
  pci.configWrite(0x84 + 4, 1, 4);
  pci.configWrite(0x84 + 8, 4, 0x2000);
  pci.configWrite(0x84 + 12, 4, 1);
  assert.equal(pci.configRead(0x84 + 16, 1), 0xc0);
  pci.configWrite(0x84 + 8, 4, 0x14);
  pci.configWrite(0x84 + 16, 1, 1);
  assert.equal(pci.configRead(0x84 + 16, 1), 1);
  pci.configWrite(0x84 + 8, 4, 0x8000);
  assert.equal(pci.configRead(0x84 + 16, 1), 0);
});

test('state: everything that a driver has set comes back', () => {
  const all = start();
  ready(all);
  offer(all, 1);
  const saved = all.pci.saveState();
  const other = start();
  other.memory.bytes.set(all.memory.bytes);
  other.pci.loadState(saved);
  assert.equal(other.pin(), true);
  offer(other, 2);
  assert.equal(other.memory.read(0x12002, 2), 2);
  assert.deepEqual(other.pci.saveState().fields['virtio'], (offer(all, 2), all.pci.saveState().fields['virtio']));
  assert.throws(() => other.pci.loadState({ ...saved, fields: { ...saved.fields, msix: 1 } }), /field "msix" is missing/);
});

test('ioeventfd=on: doorbells and messages are for the kernel while the driver is ready', () => {
  const one = start({ ioeventfd: true });
  const asked = (): (boolean | undefined)[] => [one.io('c'), one.io('c-ports')].map(({ doorbells }) => doorbells![1]!.eventfd);
  assert.deepEqual(one.io('c').doorbells![1], { offset: 0x3004, value: null });
  assert.deepEqual(one.io('c-ports').doorbells![1], { offset: 0x10, value: 1, size: 2 });
  assert.deepEqual(asked(), [undefined, undefined]);
  ready(one);
  assert.deepEqual(asked(), [true, true]);
  assert.ok(one.changed.includes('c') && one.changed.includes('c-ports'), 'and the board hears of it');
  one.io('c-msix').write(16, 4, 0xfee00000);
  one.io('c-msix').write(24, 4, 0x41);
  one.io('c-msix').write(28, 4, 0);
  one.pci.configWrite(0x9a, 2, 0x8000);
  offer(one, 1);
  assert.deepEqual([one.messages, one.byEventfd], [[[0xfee00000, 0x41]], [true]]);
  one.changed.length = 0;
  one.io('c').write(0x14, 1, 0);
  assert.deepEqual(asked(), [undefined, undefined]);
  assert.ok(one.changed.includes('c'));
  const other = start();
  ready(other);
  assert.deepEqual(other.io('c').doorbells![0], { offset: 0x3000, value: null });
  assert.deepEqual(other.changed, []);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PciBus, PciDevice } from './pci.ts';

const MSI = 0x50;
const CONTROL = MSI + 2;
const MASK = MSI + 16;
const PENDING = MSI + 20;

class Card extends PciDevice {
  readonly type = 'card';

  constructor() {
    super('card', { vendor: 1, device: 2, classCode: 0 });
    this.addMsi(MSI, { vectors: 4, masking: true });
  }

  raise(vector: number): void {
    this.msi!.notify(vector);
  }
}

function start() {
  const messages: number[][] = [];
  const none = { remove: () => undefined };
  const bus = new PciBus({
    memory: { addMmio: () => none },
    ports: { register: () => none },
    messages: { sendMsi: (address, data) => void messages.push([address, data]) },
  });
  const card = new Card();
  bus.plug(card, 3);
  card.configWrite(4, 2, 4);
  card.configWrite(MSI + 4, 4, 0xfee01003);
  card.configWrite(MSI + 8, 4, 1);
  card.configWrite(MSI + 12, 2, 0x4043);
  return { card, messages };
}

test('what software sees: four vectors, 64 bits, masks', () => {
  const { card } = start();
  assert.equal(card.configRead(0x34, 1), MSI);
  assert.equal(card.configRead(MSI, 1), 5);
  card.configWrite(CONTROL, 2, 0xffff);
  assert.equal(card.configRead(CONTROL, 2), 0x1f5);
  assert.equal(card.configRead(MSI + 4, 4), 0xfee01000);
});

test('messages carry the number of the vector; those not enabled share the last', () => {
  const { card, messages } = start();
  card.raise(0);
  assert.deepEqual(messages, [], 'not enabled yet');
  card.configWrite(CONTROL, 2, 0x11);
  for (const vector of [0, 1, 3]) card.raise(vector);
  const address = 0x1_fee01000;
  assert.deepEqual(messages, [
    [address, 0x4042],
    [address, 0x4043],
    [address, 0x4043],
  ]);
});

test('a masked vector waits', () => {
  const { card, messages } = start();
  card.configWrite(CONTROL, 2, 0x21);
  card.configWrite(MASK, 4, 4);
  card.raise(2);
  assert.equal(card.configRead(PENDING, 4), 4);
  card.configWrite(PENDING, 4, 0);
  assert.equal(card.configRead(PENDING, 4), 4, 'software cannot take it away');
  card.configWrite(MASK, 4, 0);
  assert.deepEqual(
    messages.map(([, data]) => data),
    [0x4042],
  );
  assert.equal(card.configRead(PENDING, 4), 0);
});

test('a function that may not write to memory sends nothing', () => {
  const { card, messages } = start();
  card.configWrite(CONTROL, 2, 1);
  card.configWrite(4, 2, 0);
  card.raise(0);
  assert.deepEqual(messages, []);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXPRESS_TYPE, findFunction, PciBridge } from './pci-bridge.ts';
import { PciBus, PciDevice } from './pci.ts';

class Card extends PciDevice {
  readonly type = 'card';
  resets = 0;

  constructor(id: string) {
    super(id, { vendor: 1, device: 2, classCode: 0, interruptPin: 1 });
  }

  protected override onReset(): void {
    this.resets++;
  }
}

function start() {
  const none = { remove: () => undefined };
  const root = new PciBus({ memory: { addMmio: () => none }, ports: { register: () => none } });
  const identity = { vendor: 3, device: 4, classCode: 0x060400, interruptPin: 1 };
  const port = new PciBridge('rp', identity, {
    ...{ type: 'port', busName: 'rp', slots: 1, express: true },
    capability: { offset: 0x54, type: EXPRESS_TYPE.rootPort },
    port: { number: 1, slot: 7, hotplug: true },
  });
  const bridge = new PciBridge('b', identity, { type: 'b', busName: 'b', slots: 32, express: false, capability: null });
  const card = new Card('card');
  root.plug(port, 2);
  port.secondary.plug(bridge, 0);
  bridge.secondary.plug(card, 5);
  return { root, port, bridge, card };
}

test('functions are found by the numbers that software gives buses', () => {
  const { root, port, bridge, card } = start();
  assert.equal(findFunction(root, 0, 2 * 8), port);
  assert.equal(findFunction(root, 1, 0), undefined, 'no numbers yet');
  port.configWrite(0x18, 4, 0x00020100);
  bridge.configWrite(0x18, 4, 0x00020201);
  assert.equal(findFunction(root, 1, 0), bridge);
  assert.equal(findFunction(root, 2, 5 * 8), card);
  assert.equal(findFunction(root, 3, 0), undefined);
  port.reset();
  assert.equal(findFunction(root, 1, 0), undefined);
});

test('what software sees: a header of its own kind, a port with something in its slot', () => {
  const { port } = start();
  assert.equal(port.configRead(0x0e, 1), 1);
  assert.equal(port.configRead(0x2c, 4), 0);
  assert.equal(port.configRead(0x54, 1), 0x10);
  assert.equal(port.configRead(0x56, 2), 0x142, 'version 2, root port, slot');
  assert.equal(port.configRead(0x68, 4) >>> 19, 7);
  assert.equal(port.configRead(0x6e, 2), 0x40, 'present');
  port.configWrite(0x20, 4, 0xffffffff);
  assert.equal(port.configRead(0x20, 4), 0xfff0fff0);
});

test('interrupts move on by the slot at each bridge', () => {
  const { root, card } = start();
  const changes: [number, boolean][] = [];
  root.onPirq = (pirq, level) => void changes.push([pirq, level]);
  card.setIntx(true);
  card.setIntx(false);
  // INTA of slot 5 is INTB of the bridge, in slot 0 of the port, which is in slot 2.
  assert.deepEqual(changes, [
    [2, true],
    [2, false],
  ]);
});

test('a reset of the secondary bus resets what is on it', () => {
  const { bridge, card } = start();
  bridge.configWrite(0x3e, 2, 0x40);
  assert.equal(card.resets, 1);
  bridge.configWrite(0x3e, 2, 0);
  assert.equal(card.resets, 1);
});

test('a port has one slot, and says that it has no other', () => {
  const { port } = start();
  assert.equal(port.secondary.freeSlot(), -1);
  assert.equal(port.secondary.hasSlot(1), false);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PciBridge } from '../pci-bridge.ts';
import { PciBus, PciDevice } from '../pci.ts';
import { AcpiPciHotplug } from './pci-hotplug.ts';

class Card extends PciDevice {
  readonly type = 'card';

  constructor(id: string, removable = true) {
    super(id, { vendor: 1, device: 2, classCode: 0x020000 });
    this.removable = removable;
  }
}

const UP = 0;
const DOWN = 4;
const EJECT = 8;
const REMOVABLE = 12;
const SELECT = 16;

function start() {
  const none = { remove: () => undefined };
  const root = new PciBus({ memory: { addMmio: () => none }, ports: { register: () => none } });
  const options = { type: 'b', busName: 'b', slots: 32, express: false, capability: null };
  const bridge = new PciBridge('b', { vendor: 3, device: 4, classCode: 0x060400 }, options);
  bridge.removable = true;
  root.plug(new Card('host', false), 0);
  root.plug(bridge, 2);
  let events = 0;
  const hotplug = new AcpiPciHotplug(root, { own: true, behind: true }, () => events++);
  const ejected: string[] = [];
  for (const bus of [root, bridge.secondary]) {
    bus.onEject = (device) => {
      bus.unplug(device);
      ejected.push(device.id);
    };
  }
  const read = (at: number): number => hotplug.ports.read(at, 4) >>> 0;
  const write = (at: number, value: number): void => hotplug.ports.write(at, 4, value);
  return { root, bridge, hotplug, ejected, read, write, events: () => events };
}

test('a card that comes is shown once, in the slot and on the bus where it is', () => {
  const { root, bridge, hotplug, read, write, events } = start();
  const card = new Card('card');
  bridge.secondary.plug(card, 31);
  hotplug.plugged(card);
  assert.equal(events(), 1);
  assert.equal(read(UP), 0, 'nothing on the root bus');
  write(SELECT, 1);
  assert.equal(read(UP), 0x80000000);
  assert.equal(read(UP), 0, 'seen');
  const second = new Card('second');
  root.plug(second, 5, 1);
  hotplug.plugged(second);
  write(SELECT, 0);
  assert.equal(read(UP), 0, 'the first function is not there yet');
});

test('a card that is asked to go goes when the guest ejects its slot, with all its functions', () => {
  const { root, hotplug, ejected, read, write, events } = start();
  const [first, second] = [new Card('first'), new Card('second')];
  root.plug(first, 5, 0);
  root.plug(second, 5, 1);
  hotplug.requestUnplug(first);
  assert.equal(events(), 1);
  assert.throws(() => hotplug.requestUnplug(first), /^Error: Device first is already in the process of unplug$/);
  assert.equal(read(DOWN), 1 << 5);
  assert.equal(read(DOWN), 1 << 5, 'for as long as it is there');
  write(EJECT, 1 << 5);
  assert.deepEqual(ejected, ['first', 'second']);
  assert.equal(read(DOWN), 0);
});

test('the board keeps its own, whatever a guest ejects', () => {
  const { root, ejected, read, write } = start();
  assert.equal(read(REMOVABLE), 0xfffffffe);
  write(EJECT, 0xffffffff);
  assert.deepEqual(ejected, ['b']);
  assert.equal(root.find(0)?.id, 'host');
  write(SELECT, 77);
  write(EJECT, 0xffffffff);
  assert.equal(read(REMOVABLE), 0, 'there is no such bus');
});

test('what was asked to go is gone after a reset, and what came is found by looking', () => {
  const { root, hotplug, ejected, read } = start();
  const [stays, goes] = [new Card('stays'), new Card('goes')];
  root.plug(stays, 5);
  root.plug(goes, 6);
  hotplug.plugged(stays);
  hotplug.requestUnplug(goes);
  const saved = hotplug.saveState();
  hotplug.reset();
  assert.deepEqual(ejected, ['goes']);
  assert.equal(read(UP), 0);
  assert.equal(read(DOWN), 0);
  hotplug.loadState(saved);
  assert.equal(read(UP), 1 << 5);
  assert.equal(read(DOWN), 1 << 6);
});

test('tables are made of slots that are free or hold what can go, and of bridges', () => {
  const { hotplug } = start();
  const { select, slots, bridges } = hotplug.tree;
  assert.equal(select, 0);
  assert.equal(slots.includes(0), false);
  assert.equal(slots.includes(2), false);
  assert.equal(slots.length, 30);
  assert.equal(bridges[0]?.devfn, 16);
  assert.equal(bridges[0]?.bus.select, 1);
  assert.equal(bridges[0]?.bus.slots.length, 32);
});

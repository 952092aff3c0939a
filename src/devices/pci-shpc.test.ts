import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PciBridge } from './pci-bridge.ts';
import { PciBus, PciDevice } from './pci.ts';

class Card extends PciDevice {
  readonly type = 'card';
  override removable = true;
}

const [COMMAND, STATUS, INTERRUPTS, MASKS, SLOT] = [0x14, 0x16, 0x18, 0x20, 0x24] as const;
const COMMAND_DONE = 1 << 16;
const BUTTON = 1 << 18;
const PRESENCE = 1 << 16;
const EMPTY = 0xc00;

function start() {
  const none = { remove: () => undefined };
  const root = new PciBus({ memory: { addMmio: () => none }, ports: { register: () => none } });
  const options = { type: 'b', busName: 'b', slots: 32, express: false, capability: null };
  const conventional = { messages: 0x4c, power: null, chassis: 3, hotplug: true };
  const bridge = new PciBridge(
    'b',
    { vendor: 0x1b36, device: 1, classCode: 0x060400, interruptPin: 1 },
    { ...options, conventional },
  );
  root.plug(bridge, 2);
  const gone: string[] = [];
  bridge.secondary.onEject = (device) => {
    bridge.secondary.unplug(device);
    gone.push(device.id);
  };
  bridge.reset();
  const { memory } = bridge['shpc']!;
  const read = (at: number, size = 4): number => memory.read(at, size) >>> 0;
  const write = (at: number, size: number, value: number): void => memory.write(at, size, value >>> 0);
  const plug = (slot: number): Card => {
    const card = new Card(`card${slot}`, { vendor: 1, device: 2, classCode: 0 });
    bridge.secondary.plug(card, slot);
    bridge.secondary.hotplug!.plugged(card);
    return card;
  };
  return { root, bridge, gone, read, write, plug, level: () => root.level(1) };
}

test('a bridge says where its slots are, by its registers and by configuration space', () => {
  const { bridge, read } = start();
  assert.equal(bridge.configRead(0x34, 1), 0x4c);
  assert.equal(bridge.configRead(0x4c, 4), 0x01804805, 'messages');
  assert.equal(bridge.configRead(0x48, 4), 0x03204004, 'first in chassis 3');
  assert.equal(bridge.configRead(0x40, 2), 0x000c);
  assert.equal(read(0x0c), (0xa0000000 + (1 << 16) + (1 << 8) + 31) >>> 0);
  assert.equal(read(0x13, 1), 1);
  bridge.configWrite(0x42, 1, 3);
  assert.equal(bridge.configRead(0x44, 4), read(0x0c));
  assert.equal(read(SLOT) & (3 | 0x0c | EMPTY), 3 | 0x0c | EMPTY, 'empty, and off');
});

test('a card comes, is switched on, is asked to go, and goes when its slot is switched off', () => {
  const { bridge, gone, read, write, plug, level } = start();
  const word = SLOT + 4 * 4;
  write(MASKS, 4, 0);
  write(word, 4, 0);
  const card = plug(5);
  assert.equal(read(word) & (EMPTY | BUTTON | PRESENCE), BUTTON | PRESENCE);
  assert.equal(read(INTERRUPTS), 1 << 5);
  assert.equal(level(), true);
  write(word, 4, BUTTON | PRESENCE);
  assert.equal(level(), false);
  write(COMMAND, 2, (5 << 8) | 0x02 | 0x04);
  assert.equal(read(STATUS, 2), 0);
  assert.equal(read(word) & 0x0f, 0x06, 'enabled, its light on');
  assert.equal(read(INTERRUPTS), 1, 'the command is over');
  write(MASKS, 4, COMMAND_DONE);
  assert.equal(level(), false);
  const { hotplug } = bridge.secondary;
  hotplug!.requestUnplug(card);
  assert.equal(read(word) & BUTTON, BUTTON);
  write(COMMAND, 2, (5 << 8) | 0x08);
  assert.throws(() => hotplug!.requestUnplug(card), /guest is busy \(power indicator blinking\)/);
  assert.deepEqual(gone, []);
  write(COMMAND, 2, (5 << 8) | 0x03 | 0x0c);
  assert.deepEqual(gone, ['card5']);
  assert.equal(read(word) & EMPTY, EMPTY);
});

test('device 0 has no slot, unknown commands fail, and what is cold is on after a reset', () => {
  const { bridge, read, write, plug } = start();
  assert.throws(
    () => plug(0),
    /^Error: Unsupported PCI slot 0 for standard hotplug controller. Valid slots are between 1 and 31.$/,
  );
  write(COMMAND, 2, 0x77);
  assert.equal(read(STATUS, 2), 4);
  write(COMMAND, 2, 0x02);
  assert.equal(read(STATUS, 2), 4, 'no such slot');
  plug(1);
  bridge.reset();
  assert.equal(read(SLOT) & (0x0f | EMPTY), 0x06);
  const saved = bridge.saveState();
  write(COMMAND, 2, (1 << 8) | 0x0c);
  bridge.loadState(saved);
  assert.equal(read(SLOT) & 0x0f, 0x06);
});

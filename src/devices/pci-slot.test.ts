import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXPRESS_TYPE, PciBridge } from './pci-bridge.ts';
import { PciBus, PciDevice } from './pci.ts';

class Card extends PciDevice {
  readonly type = 'card';
  override removable = true;
}

const CONTROL = 0x54 + 0x18;
const STATUS = 0x54 + 0x1a;
const LINK_STATUS = 0x54 + 0x12;
const BUTTON = 1;
const PRESENCE = 8;
const COMPLETED = 16;
const PRESENT = 0x40;
/** Interrupts by presence, button and commands. */
const LISTEN = 0x39;
const POWER_OFF = 0x700;
const POWER_ON = 0x100;
const BLINKING = 0x200;

function start(hotplug = true) {
  const none = { remove: () => undefined };
  const messages: number[] = [];
  const root = new PciBus({
    memory: { addMmio: () => none },
    ports: { register: () => none },
    messages: { sendMsi: (_address, data) => void messages.push(data) },
  });
  const port = new PciBridge(
    'rp',
    { vendor: 0x1b36, device: 0x000c, classCode: 0x060400, interruptPin: 1 },
    {
      ...{ type: 'pcie-root-port', busName: 'rp', slots: 1, express: true },
      capability: { offset: 0x54, type: EXPRESS_TYPE.rootPort },
      port: { number: 0, slot: 5, hotplug },
    },
  );
  root.plug(port, 2);
  port.reset();
  const gone: string[] = [];
  port.secondary.onEject = (device) => {
    port.secondary.unplug(device);
    gone.push(device.id);
  };
  const card = new Card('card', { vendor: 1, device: 2, classCode: 0 });
  const plug = (): void => {
    port.secondary.plug(card, 0);
    port.secondary.hotplug!.plugged(card);
  };
  const status = (): number => port.configRead(STATUS, 2);
  const control = (value: number): void => port.configWrite(CONTROL, 2, value);
  const clear = (): void => port.configWrite(STATUS, 2, 0xffff);
  return { root, port, card, gone, messages, plug, status, control, clear };
}

test('an empty slot is off, and says which one it is', () => {
  const { port, status } = start();
  assert.equal(port.configRead(0x54 + 0x14, 4), 0x0002007b | (5 << 19));
  assert.equal(port.configRead(CONTROL, 2), 0x7c0);
  assert.equal(status(), 0);
  assert.equal(port.configRead(LINK_STATUS, 2), 0x204);
});

test('a card that comes presses the button, and interrupts by the pin', () => {
  const { root, port, plug, status, control, clear } = start();
  control(LISTEN | POWER_OFF);
  assert.equal(status(), COMPLETED);
  assert.equal(root.level(1), true, 'a command is over');
  clear();
  assert.equal(root.level(1), false);
  plug();
  assert.equal(status(), BUTTON | PRESENCE | PRESENT);
  assert.equal(root.level(1), true);
  assert.equal(port.configRead(LINK_STATUS, 2), 0x2011);
  clear();
  assert.equal(status(), PRESENT);
  assert.equal(root.level(1), false);
});

test('with messages there is one for each time that something happens', () => {
  const { port, plug, messages, control, clear } = start();
  control(LISTEN | POWER_OFF);
  clear();
  port.configWrite(0x04, 2, 6);
  port.configWrite(0x48 + 2, 2, 0x8000);
  port['msix']!.table.write(8, 4, 0x4711);
  port['msix']!.table.write(12, 4, 0);
  plug();
  assert.deepEqual(messages, [0x4711]);
  clear();
  control(LISTEN | POWER_ON);
  assert.deepEqual(messages, [0x4711, 0x4711]);
});

test('a card leaves when the guest turns its power and its light off', () => {
  const { port, card, plug, gone, status, control, clear } = start();
  plug();
  control(LISTEN | POWER_ON);
  clear();
  const { hotplug } = port.secondary;
  hotplug!.requestUnplug(card);
  assert.equal(status(), BUTTON | PRESENT);
  assert.throws(() => hotplug!.requestUnplug(card), /already in the process of unplug/);
  control(LISTEN | BLINKING);
  assert.throws(() => hotplug!.requestUnplug(card), /^Error: Hot-unplug failed: guest is busy \(power indicator blinking\)$/);
  assert.deepEqual(gone, []);
  clear();
  control(LISTEN | POWER_OFF);
  assert.deepEqual(gone, ['card']);
  assert.equal(status(), PRESENCE | COMPLETED);
});

test('a card behind a slot that is off leaves at once; a slot that takes none says so', () => {
  const { port, card, plug, gone } = start();
  plug();
  port.secondary.hotplug!.requestUnplug(card);
  assert.deepEqual(gone, ['card']);
  assert.throws(start(false).plug, /^Error: Hot-plug failed: unsupported by the port device 'rp'$/);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IoHandler } from '../../machine/interfaces.ts';
import { RecordingLine } from '../mocks.ts';
import { I440Fx, I440FxHost, type PamAccess } from './i440fx.ts';
import { PciBus, PciDevice } from '../pci.ts';
import { Piix3, Piix4Pm } from './piix.ts';

class Spaces {
  readonly regions = new Map<string, string>();

  place(base: number, name: string) {
    this.regions.set(name, base.toString(16));
    return { remove: () => void this.regions.delete(name) };
  }

  addMmio(base: number, _size: number, _handler: IoHandler, name: string) {
    return this.place(base, name);
  }

  register(base: number, _count: number, _handler: IoHandler, name: string) {
    return this.place(base, name);
  }
}

const nothing: IoHandler = { read: () => 0, write: () => undefined };

class Card extends PciDevice {
  readonly type = 'card';

  constructor(id = 'card') {
    super(id, { vendor: 0x1234, device: 0x5678, classCode: 0x020000, interruptPin: 1 });
    this.addBar(0, { kind: 'io', size: 32, handler: nothing, name: 'ports' });
    this.addBar(1, { kind: 'mem32', size: 4096, handler: nothing, name: 'registers' });
    this.addBar(2, {
      kind: 'mem64',
      size: 2 ** 24,
      prefetchable: true,
      handler: nothing,
      name: 'window',
    });
    this.addCapability(0x40, 0x09, [0x10]);
  }
}

function board() {
  const spaces = new Spaces();
  const bus = new PciBus({ memory: spaces, ports: spaces });
  const isa = Array.from({ length: 16 }, () => new RecordingLine());
  const bridge = new I440Fx();
  const piix = new Piix3(bus, isa);
  const card = new Card();
  bus.plug(bridge, 0);
  bus.plug(piix, 1);
  bus.plug(card, 3);
  const { ports } = new I440FxHost(bus);
  const select = (devfn: number, register: number) => {
    ports.write(0, 4, (0x80000000 | (devfn << 8) | (register & 0xfc)) >>> 0);
  };
  const read = (devfn: number, register: number, size = 4) => {
    select(devfn, register);
    return ports.read(4 + (register & 3), size);
  };
  const write = (devfn: number, register: number, value: number, size = 4) => {
    select(devfn, register);
    ports.write(4 + (register & 3), size, value);
  };
  return { spaces, bus, isa, bridge, piix, card, ports, read, write };
}

const CARD = 3 * 8;

test('configuration mechanism: identities, absent functions, disabled address', () => {
  const b = board();
  assert.equal(b.read(0, 0), 0x12378086);
  assert.equal(b.read(8, 0x0e, 1), 0x80);
  assert.equal(b.read(CARD, 2, 2), 0x5678);
  assert.equal(b.read(5 * 8, 0), 0xffffffff);
  b.ports.write(0, 4, 0);
  assert.equal(b.ports.read(4, 4), 0xffffffff);
  b.ports.write(0, 1, 0x80);
  assert.equal(b.ports.read(0, 4), 0, 'byte writes do not reach the address register');
});

test('base address registers are sized by writing ones', () => {
  const b = board();
  const sizes = [0x10, 0x14, 0x18, 0x1c].map((at) => {
    b.write(CARD, at, 0xffffffff);
    return b.read(CARD, at);
  });
  assert.deepEqual(sizes, [0xffffffe1, 0xfffff000, 0xff00000c, 0xffffffff]);
  b.write(CARD, 0x20, 0xffffffff);
  assert.equal(b.read(CARD, 0x20), 0);
});

test('registers move with their base and vanish with the command bits', () => {
  const b = board();
  b.write(CARD, 0x10, 0xc000);
  b.write(CARD, 0x14, 0xe0000000);
  b.write(CARD, 0x18, 0);
  b.write(CARD, 0x1c, 8);
  assert.equal(b.spaces.regions.size, 0);
  b.write(CARD, 4, 3, 2);
  assert.deepEqual(Object.fromEntries(b.spaces.regions), {
    ports: 'c000',
    registers: 'e0000000',
    window: '800000000',
  });
  b.write(CARD, 0x14, 0xe1000000);
  assert.equal(b.spaces.regions.get('registers'), 'e1000000');
  b.write(CARD, 4, 2, 2);
  assert.equal(b.spaces.regions.has('ports'), false);
  b.card.reset();
  assert.equal(b.spaces.regions.size, 0);
});

test('capabilities and read-only registers', () => {
  const b = board();
  assert.equal(b.read(CARD, 6, 2) & 0x10, 0x10);
  assert.equal(b.read(CARD, 0x34, 1), 0x40);
  assert.equal(b.read(CARD, 0x40) & 0xffffff, 0x100009);
  b.write(CARD, 0, 0);
  assert.equal(b.read(CARD, 0), 0x56781234);
});

test('INTx goes by slot to a PIRQ and by route to an ISA interrupt', () => {
  const b = board();
  const line = b.isa[11]!;
  b.card.setIntx(true);
  assert.equal(line.level, false);
  // Slot 3, INTA: PIRQC.
  b.write(8, 0x62, 11, 1);
  assert.equal(line.level, true);
  assert.equal(b.read(CARD, 6, 2) & 8, 8);
  b.write(CARD, 4, 0x400, 2);
  assert.equal(line.level, false);
  b.write(CARD, 4, 0, 2);
  b.write(8, 0x62, 0x80, 1);
  assert.equal(line.level, false);
});

test('two functions share a line until both let go', () => {
  const b = board();
  const other = new Card('other');
  b.bus.plug(other, 7);
  b.write(8, 0x62, 10, 1);
  b.card.setIntx(true);
  other.setIntx(true);
  b.card.setIntx(false);
  assert.equal(b.isa[10]!.level, true);
  b.bus.unplug(other);
  assert.equal(b.isa[10]!.level, false);
  assert.throws(() => b.bus.plug(new Card('third'), 3), /third: PCI slot 3 function 0 is not free/);
});

test('PAM registers tell who answers in the BIOS area', () => {
  const b = board();
  let seen: PamAccess[] = [];
  b.bridge.onPam = (areas) => (seen = areas);
  b.write(0, 0x59, 0x30, 1);
  assert.deepEqual(seen[0], { base: 0xf0000, size: 0x10000, read: true, write: true });
  b.write(0, 0x5a, 0x10, 1);
  assert.deepEqual(seen[2], { base: 0xc4000, size: 0x4000, read: true, write: false });
});

test('the power management function places the ACPI ports', () => {
  const b = board();
  const pm = new Piix4Pm(b.spaces, nothing);
  b.bus.plug(pm, 1, 3);
  b.write(11, 0x40, 0x601);
  assert.equal(b.read(11, 0x40), 0x601);
  assert.equal(b.spaces.regions.size, 0);
  b.write(11, 0x80, 1, 1);
  assert.equal(b.spaces.regions.get('acpi-pm'), '600');
  const saved = pm.saveState();
  pm.reset();
  assert.equal(b.spaces.regions.size, 0);
  pm.loadState(saved);
  assert.equal(b.spaces.regions.get('acpi-pm'), '600');
});

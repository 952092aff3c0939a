import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock, RecordingBackend, RecordingCpu } from '../devices/mocks.ts';
import { ClockTsc } from './clock.ts';
import { loadOwners, saveOwners } from '../migration/machine-state.ts';
import { VGA_MEMORY } from '../devices/vga/vga.ts';
import { MemoryNode } from '../storage/memory.ts';
import { type DeviceConfig, type DriveConfig, drive, type WantedDevice } from './config.ts';
import type { Drive } from './pc-storage.ts';
import { type NetworkPort, NO_OFFLOADS, type PowerEvent, type StateValue } from './interfaces.ts';
import { type PcConfig, PcMachine } from './pc.ts';
import { loadAllDeviceTypes } from './device-types.ts';

await loadAllDeviceTypes();

const RAM = 32 * 2 ** 20;

function machine(extra: Partial<PcConfig> = {}) {
  const clock = new ManualClock();
  const cpu = new RecordingCpu();
  const serial = new RecordingBackend();
  const events: [PowerEvent, number | undefined][] = [];
  const memory = extra.memory ?? { bytes: new Uint8Array(RAM + 0x40000), ramOffset: 0, ramSize: RAM };
  const pc = new PcMachine({
    memory,
    cpuPort: cpu,
    clock,
    tsc: new ClockTsc(clock),
    serials: [serial, null],
    debugExit: {},
    onPower: (event, code) => events.push([event, code]),
    ...extra,
  });
  return { pc, clock, cpu, serial, events, memory };
}

function kernel(): Uint8Array {
  const file = new Uint8Array(0x2000);
  const view = new DataView(file.buffer);
  view.setUint16(0x1fe, 0xaa55, true);
  file[0x201] = 0x6a;
  view.setUint32(0x202, 0x53726448, true);
  view.setUint16(0x206, 0x020f, true);
  file[0x211] = 1;
  view.setUint16(0x236, 1, true);
  view.setUint32(0x238, 2047, true);
  view.setUint32(0x258, 0x1000000, true);
  return file;
}

test('starts a kernel with tables, and again after a reset', () => {
  const { pc } = machine({ kernel: kernel(), append: 'quiet' });
  const state = pc.reset();
  assert.equal(state.mode, 'long64');
  assert.equal(pc.mem.read(0xf0000, 4), 0x20445352, '"RSD "');
  pc.mem.write(state.rip, 4, 0x12345678);
  pc.mem.write(0xf0000, 4, 0);
  assert.deepEqual(pc.reset(), state);
  assert.equal(pc.mem.read(state.rip, 4), 0);
  assert.equal(pc.mem.read(0xf0000, 4), 0x20445352);
});

test('without a kernel the CPU starts at the reset vector', () => {
  assert.equal(machine().pc.reset().mode, 'real16');
});

test('the serial port interrupts through the 8259 and the I/O APIC', () => {
  const { pc, cpu, serial } = machine({ kernel: kernel() });
  pc.reset();
  const out = (port: number, ...values: number[]) => {
    for (const value of values) pc.io.out(port, 1, value);
  };
  out(0x20, 0x11);
  out(0x21, 0x20, 4, 1, 0xef);
  out(0x3f9, 1);
  serial.type('x');
  assert.equal(cpu.intr, true);
  assert.equal(pc.lapic.acknowledge(), 0x24);
  assert.equal(pc.io.in(0x3f8, 1), 0x78);
  out(0x20, 0x20);
  out(0x21, 0xff);
  pc.mem.write(0xfee000f0, 4, 0x1ff);
  pc.mem.write(0xfec00000, 4, 0x10 + 8);
  pc.mem.write(0xfec00010, 4, 0x34);
  serial.type('y');
  assert.equal(pc.lapic.acknowledge(), 0x34);
});

test('the PIT reaches pin 2 of the I/O APIC, unless the HPET cuts it off', () => {
  const { pc, cpu, clock } = machine();
  pc.reset();
  pc.mem.write(0xfee000f0, 4, 0x1ff);
  pc.mem.write(0xfec00000, 4, 0x10 + 4);
  pc.mem.write(0xfec00010, 4, 0x30);
  for (const [port, value] of [
    [0x43, 0x34],
    [0x40, 0],
    [0x40, 0x10],
  ]) {
    pc.io.out(port!, 1, value!);
  }
  clock.run(5e6);
  assert.equal(cpu.intr, true);
  pc.lapic.acknowledge();
  pc.mem.write(0xfee000b0, 4, 0);
  pc.mem.write(0xfed00010, 4, 2);
  clock.run(5e6);
  assert.equal(cpu.intr, false);
});

test('ways to end: S5, resets, debug exit; who asks for a reset is traced', () => {
  const traced: string[] = [];
  const trace = (category: string, line: string) => void traced.push(`${category}: ${line}`);
  const { pc, events } = machine({ kernel: kernel(), trace });
  pc.reset();
  pc.io.out(0x604, 2, 0x2000);
  pc.io.out(0xcf9, 1, 6);
  pc.io.out(0x64, 1, 0xfe);
  pc.io.out(0x501, 1, 3);
  assert.deepEqual(traced, [
    'cpu_reset: the guest asks for it by port cf9h',
    'cpu_reset: the guest asks for it by the keyboard controller',
  ]);
  assert.deepEqual(events, [
    ['poweroff', undefined],
    ['reset', undefined],
    ['reset', undefined],
    ['debug-exit', 7],
  ]);
});

test('the local APIC moves with its base and leaves in x2APIC mode', () => {
  const { pc } = machine();
  pc.lapic.setApicBase(0xfe000900, 0);
  assert.equal(pc.mem.read(0xfe000030, 4), 0x50014);
  assert.equal(pc.mem.read(0xfee00030, 4), 0xffffffff);
  pc.lapic.setApicBase(0xfee00d00, 0);
  assert.equal(pc.mem.read(0xfee00030, 4), 0xffffffff);
});

test('firmware lies below 4 GiB and below 1 MiB, and PAM shadows it', () => {
  const bytes = new Uint8Array(RAM + 0x40000);
  bytes.fill(0xb1, RAM);
  const { pc } = machine({
    memory: { bytes, ramOffset: 0, ramSize: RAM },
    bios: { offset: RAM, size: 0x40000 },
  });
  assert.equal(pc.reset().cs.base, 0xffff0000);
  assert.equal(pc.mem.read(0xfffffff0, 1), 0xb1);
  assert.equal(pc.mem.read(0xffff0, 1), 0xb1);
  const pam = (value: number) => {
    pc.io.out(0xcf8, 4, 0x80000058);
    pc.io.out(0xcfd, 1, value);
  };
  pc.mem.write(0xffff0, 1, 5);
  assert.equal(pc.mem.read(0xffff0, 1), 0xb1);
  pam(0x30);
  pc.mem.write(0xffff0, 1, 5);
  pam(0x10);
  pc.mem.write(0xffff0, 1, 6);
  assert.equal(pc.mem.read(0xffff0, 1), 5);
  pam(0);
  assert.equal(pc.mem.read(0xffff0, 1), 0xb1);
});

test('device states go round; strangers and gaps are named', () => {
  const { pc } = machine({ kernel: kernel() });
  pc.reset();
  const states = saveOwners(pc.stateOwners);
  const copy = machine().pc;
  loadOwners(copy.stateOwners, states);
  assert.deepEqual(saveOwners(copy.stateOwners), states);
  assert.equal(copy.io.in(0x604, 2), 0);
  states.delete('rtc');
  assert.throws(() => loadOwners(copy.stateOwners, states), /section "rtc" is missing/);
});

/** A board with everything that a PC may have. */
function fullMachine(more: Partial<PcConfig> = {}) {
  const bytes = new Uint8Array(RAM + 0x40000 + VGA_MEMORY);
  const disk = (given: Partial<DriveConfig>, size: number): Drive => ({
    config: drive(given),
    backend: new MemoryNode(new Uint8Array(size), false),
  });
  return machine({
    memory: { bytes, ramOffset: 0, ramSize: RAM },
    bios: { offset: RAM, size: 0x40000 },
    vga: { offset: RAM + 0x40000, rom: null },
    drives: [disk({}, 1 << 20), disk({ index: 2, media: 'cdrom' }, 1 << 20), disk({ interface: 'floppy' }, 1474560)],
    ...more,
  });
}

/** A cable that leads nowhere. */
function silence(): NetworkPort {
  return {
    ...{ onReceive: null, onWritable: null, onLinkChange: null, linkUp: true, offloads: NO_OFFLOADS, accepts: NO_OFFLOADS },
    send: () => true,
    resume: () => undefined,
    close: () => undefined,
  };
}

/** A board with one device of each kind, set up as for a kernel. */
function crowded(more: Partial<PcConfig> = {}) {
  const disk = (id: string): Drive => ({
    config: drive({ id, interface: 'none' }),
    backend: new MemoryNode(new Uint8Array(1 << 20), false),
  });
  const named = ['nvme', 'blk', 'hd', 'cd', 'ide', 'sd'].map(disk);
  const configs: DeviceConfig[] = [
    { driver: 'e1000', netdev: 'n0', mac: '52:54:00:12:34:56' },
    { driver: 'rtl8139', netdev: 'n2', mac: '52:54:00:12:34:58' },
    { driver: 'ne2k_pci', netdev: 'n3', mac: '52:54:00:12:34:59' },
    { driver: 'e1000e', netdev: 'n4', mac: '52:54:00:12:34:60' },
    { driver: 'pci-bridge', id: 'bridge', chassis_nr: 1 },
    { driver: 'sdhci-pci', id: 'sd' },
    { driver: 'sd-card', drive: 'sd' },
    { driver: 'nvme', drive: 'nvme', serial: 's' },
    { driver: 'virtio-blk-pci', drive: 'blk', 'num-queues': 2, vectors: 3 },
    { driver: 'virtio-net-pci', netdev: 'n1', mac: '52:54:00:12:34:57' },
    { driver: 'virtio-scsi-pci', id: 'scsi' },
    { driver: 'scsi-hd', drive: 'hd' },
    { driver: 'scsi-cd', drive: 'cd' },
    { driver: 'virtio-serial-pci' },
    { driver: 'virtconsole', chardev: 'c0' },
    { driver: 'virtio-rng-pci' },
    { driver: 'virtio-balloon-pci' },
    { driver: 'virtio-keyboard-pci' },
    { driver: 'ich9-ahci', id: 'sata' },
    { driver: 'ide-hd', bus: 'sata.0', drive: 'ide' },
  ];
  let seed = 1;
  return machine({
    kernel: kernel(),
    drives: named,
    devices: {
      wanted: configs.map((config, index): WantedDevice => ({ config, field: 'devices', index })),
      links: {
        drives: named,
        network: silence,
        character: () => new RecordingBackend(),
        folder: () => null,
        hostNetwork: null,
      },
      random: () => (seed = (Math.imul(seed, 1103515245) + 12345) | 0),
    },
    ...more,
  });
}

/** Pokes at everything that a board has, the same way for each seed. @returns what was read, and where */
function poke({ pc, clock }: ReturnType<typeof machine>, seed: number, count: number): string[] {
  const random = () => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0);
  // Where a guest moves registers to and fro, their order is no part of the state.
  const byPlace = <T extends { base: number; name: string }>(all: T[]): T[] =>
    all.sort((a, b) => a.base - b.base || (a.name < b.name ? -1 : 1));
  const regions = byPlace(pc.mem.describe());
  // Devices that leave are another machine.
  const ports = byPlace(pc.io.describe()).filter(({ name }) => !name.includes('hotplug'));
  const read: string[] = [];
  for (let i = 0; i < count; i++) {
    const size = 1 << ((random() >>> 8) % 3);
    const port = ports[(random() >>> 8) % ports.length]!;
    const at = port.base + ((random() >>> 8) % port.count);
    if ((random() & 0x100) !== 0) pc.io.out(at, size, random() % 2 ** (8 * size));
    const value = pc.io.in(at, size);
    assert.ok(value >= 0 && value < 2 ** (8 * size), `port ${at.toString(16)}: ${value}`);
    const region = regions[(random() >>> 8) % regions.length]!;
    const address = region.base + ((random() >>> 8) % Math.min(region.size, 0x400));
    if ((random() & 0x100) !== 0) pc.mem.write(address, size, random() % 2 ** (8 * size));
    read.push(
      `${port.name} ${at.toString(16)}: ${value}`,
      `${region.name} ${address.toString(16)}: ${pc.mem.read(address, size)}`,
    );
    if (i % 100 === 0) clock.run(random() % 1e6);
    if (i % 500 === 0) {
      read.push(`interrupt ${pc.lapic.acknowledge()}`);
      pc.mem.write(0xfee000b0, 4, 0);
    }
    if (i % 5000 === 0) pc.display?.picture();
  }
  return read;
}

for (const [name, make] of [
  ['started directly', () => machine({ kernel: kernel() })],
  ['with firmware', fullMachine],
  ['a Q35 with firmware', () => fullMachine({ machine: 'q35' })],
  ['a device of each kind', () => crowded()],
  ['a device of each kind on a Q35', () => crowded({ machine: 'q35' })],
] as const) {
  test(`no access throws or hangs (${name})`, () => {
    const one = make();
    one.pc.reset();
    poke(one, 12345, 100_000);
  });

  test(`boards in any state go on from what was saved as if nothing had been (${name})`, () => {
    const one = make();
    one.pc.reset();
    for (let seed = 1; seed <= 12; seed++) {
      poke(one, seed, 1000 * seed);
      const states = saveOwners(one.pc.stateOwners);
      const copy = make();
      copy.pc.reset();
      copy.clock.runTo(one.clock.now());
      const { bytes } = one.memory;
      copy.memory.bytes.set(bytes);
      loadOwners(copy.pc.stateOwners, states);
      assert.deepEqual(saveOwners(copy.pc.stateOwners), states, `seed ${seed}`);
      const [there, here] = [poke(one, seed, 2000), poke(copy, seed, 2000)];
      const differs = there.findIndex((line, i) => line !== here[i]);
      assert.equal(here[differs], there[differs], `seed ${seed}, read ${differs}`);
      assert.deepEqual(saveOwners(copy.pc.stateOwners), saveOwners(one.pc.stateOwners), `seed ${seed}, later`);
    }
  });
}

/** Replaces one value somewhere in a state by one that nobody would have saved. @returns where it is */
function spoil(fields: { [name: string]: StateValue }, random: (below: number) => number): string {
  const names = Object.keys(fields);
  if (names.length === 0) return '';
  const name = names[random(names.length)]!;
  const value = fields[name]!;
  if (Array.isArray(value) && value.length > 0 && random(8) > 0) {
    const list = Object.fromEntries(value.map((item, i) => [String(i), item]));
    const where = spoil(list, random);
    fields[name] = Object.values(list);
    return `${name}[${where}]`;
  }
  const isRecord = typeof value === 'object' && !Array.isArray(value) && !(value instanceof Uint8Array);
  if (isRecord && random(8) > 0) return `${name}.${spoil(value, random)}`;
  const others: StateValue[] = [-1, 0.5, 255, 65536, 2 ** 31, 2 ** 32 - 1, 2 ** 53, 1e300, -1e300, Number.NaN, Infinity];
  const strange: StateValue[] = [true, 'text', -1n, 2n ** 70n, new Uint8Array(3), [], {}, [1, 2, 3]];
  if (typeof value === 'number') fields[name] = random(5) > 0 ? others[random(others.length)]! : strange[random(strange.length)]!;
  else if (typeof value === 'bigint') fields[name] = [-1n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 200n, 1][random(5)]!;
  else if (typeof value === 'boolean') fields[name] = random(3) > 0 ? !value : strange[random(strange.length)]!;
  else if (value instanceof Uint8Array && random(4) > 0) fields[name] = value.map(() => random(256));
  else fields[name] = strange[random(strange.length)]!;
  return name;
}

for (const [name, make] of [
  ['the boards with everything', fullMachine],
  ['a device of each kind', crowded],
] as const) {
  test(`states that nobody saved are refused with a line, or do no harm (${name})`, () => {
    let seed = 5;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % below;
    };
    const one = make();
    one.pc.reset();
    poke(one, 1, 3000);
    const states = saveOwners(one.pc.stateOwners);
    const ids = [...states.keys()];
    const copy = make();
    let loaded = 0;
    for (let i = 0; i < 1500; i++) {
      const id = ids[random(ids.length)]!;
      const changed = new Map(states).set(id, structuredClone(states.get(id)!));
      const where = `${id}: ${spoil(changed.get(id)!.fields, random)}, round ${i}`;
      try {
        loadOwners(copy.pc.stateOwners, changed);
      } catch (error) {
        assert.equal(Object.getPrototypeOf(error), Error.prototype, `${where}: ${(error as Error).stack}`);
        assert.match((error as Error).message, /^saved state: section "[^\n]+$/);
        continue;
      }
      loaded++;
      try {
        poke(copy, i, 40);
        copy.pc.display?.text();
        copy.pc.display?.picture();
        saveOwners(copy.pc.stateOwners);
      } catch (error) {
        throw new Error(where, { cause: error });
      }
    }
    assert.ok(loaded > 100);
  });
}
test('devices that a guest lets go leave no registers, no interrupts and no timers behind, 50 times over', () => {
  const links = { drives: [], network: () => null, character: () => null, folder: () => null, hostNetwork: null };
  const { pc, clock } = machine({ devices: { wanted: [], links, random: () => 1 } });
  pc.reset();
  const builder = pc.builder!;
  const cards = ['virtio-rng-pci', 'e1000e', 'rtl8139', 'ne2k_pci', 'sdhci-pci', 'e1000', 'virtio-net-pci'];
  const [owners, memory, ports, deadline] = [pc.devices.length, pc.mem.describe(), pc.io.describe(), clock.nextDeadline()];
  const gone: (string | null)[] = [];
  builder.onRemoved = ({ id }) => void gone.push(id);
  for (let round = 0; round < 50; round++) {
    const driver = cards[round % cards.length]!;
    builder.hotPlug({ driver, id: 'card', addr: '9' });
    const card = pc.pci.find(9 * 8)!;
    for (let bar = 0; bar < 6; bar++) {
      const kind = card.configRead(0x10 + 4 * bar, 4);
      card.configWrite(0x10 + 4 * bar, 4, (kind & 1) === 0 ? 0xe0000000 + bar * 0x100000 : 0xd000 + bar * 0x100);
      if ((kind & 7) === 4) bar++;
    }
    card.configWrite(4, 2, 7);
    card.setIntx(true);
    assert.ok(pc.mem.describe().length + pc.io.describe().length > memory.length + ports.length, driver);
    builder.requestUnplug('card');
    pc.io.out(0xae10, 4, 0);
    assert.equal(pc.io.in(0xae00, 4), 1 << 9, 'came');
    assert.equal(pc.io.in(0xae04, 4), 1 << 9, 'is to go');
    pc.io.out(0xae08, 4, 1 << 9);
    assert.deepEqual([pc.mem.describe(), pc.io.describe()], [memory, ports], driver);
    for (let pirq = 0; pirq < 4; pirq++) assert.equal(pc.pci.level(pirq), false, driver);
  }
  assert.equal(gone.length, 50);
  assert.equal(pc.devices.length, owners);
  assert.equal(clock.nextDeadline(), deadline);
});

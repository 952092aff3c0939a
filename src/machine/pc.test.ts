import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock, RecordingBackend, RecordingCpu } from '../devices/mocks.ts';
import { ClockTsc } from './clock.ts';
import { loadOwners, saveOwners } from '../migration/machine-state.ts';
import { VGA_MEMORY } from '../devices/vga/vga.ts';
import { MemoryNode } from '../storage/memory.ts';
import { type DriveConfig, drive } from './config.ts';
import type { Drive } from './pc-storage.ts';
import type { PowerEvent } from './interfaces.ts';
import { type PcConfig, PcMachine } from './pc.ts';

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

test('ways to end: S5, resets, debug exit', () => {
  const { pc, events } = machine({ kernel: kernel() });
  pc.reset();
  pc.io.out(0x604, 2, 0x2000);
  pc.io.out(0xcf9, 1, 6);
  pc.io.out(0x64, 1, 0xfe);
  pc.io.out(0x501, 1, 3);
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

/** Pokes at everything that a board has, the same way for each seed. @returns what was read, and where */
function poke({ pc, clock }: ReturnType<typeof machine>, seed: number, count: number): string[] {
  const random = () => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0);
  // Where a guest moves registers to and fro, their order is no part of the state.
  const byPlace = <T extends { base: number; name: string }>(all: T[]): T[] =>
    all.sort((a, b) => a.base - b.base || (a.name < b.name ? -1 : 1));
  const regions = byPlace(pc.mem.describe());
  const ports = byPlace(pc.io.describe());
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

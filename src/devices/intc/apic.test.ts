import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClockTsc } from '../../machine/clock.ts';
import { ManualClock, RecordingCpu } from '../mocks.ts';
import { ApicBus } from './apic-bus.ts';
import { LocalApic } from './apic.ts';
import { IoApic } from './ioapic.ts';

function board(external: { intr: boolean; acknowledge(): number } | null = null) {
  const clock = new ManualClock();
  const tsc = new ClockTsc(clock);
  const cpu = new RecordingCpu();
  const bus = new ApicBus();
  const ioapic = new IoApic(bus);
  const apic = new LocalApic({ cpuIndex: 0, cpu, bus, clock, tsc, external });
  const write = (offset: number, value: number) => apic.mmio.write(offset, 4, value);
  const read = (offset: number) => apic.mmio.read(offset, 4);
  write(0xf0, 0x1ff);
  return { clock, tsc, cpu, bus, ioapic, apic, write, read };
}

type Board = ReturnType<typeof board>;

function selfIpi(b: Board, vector: number): void {
  b.write(0x300, 0x40000 | vector);
}

test('priorities: PPR, TPR and nesting', () => {
  const b = board();
  selfIpi(b, 0x51);
  assert.equal(b.cpu.intr, true);
  assert.equal(b.apic.acknowledge(), 0x51);
  assert.equal(b.read(0xa0), 0x50);
  selfIpi(b, 0x5f);
  assert.equal(b.cpu.intr, false, 'same class');
  selfIpi(b, 0x61);
  assert.equal(b.apic.acknowledge(), 0x61);
  b.write(0xb0, 0);
  b.write(0xb0, 0);
  assert.equal(b.apic.acknowledge(), 0x5f);
  b.write(0xb0, 0);
  b.apic.setTpr(8);
  selfIpi(b, 0x8f);
  assert.equal(b.cpu.intr, false);
  assert.equal(b.apic.acknowledge(), -1);
  b.write(0x80, 0x70);
  assert.equal(b.apic.getTpr(), 7);
  assert.equal(b.cpu.intr, true);
});

test('the timer counts down once', () => {
  const b = board();
  b.write(0x3e0, 0xb);
  b.write(0x320, 0x40);
  b.write(0x380, 1_000_000);
  b.clock.run(400_000);
  assert.equal(b.read(0x390), 600_000);
  b.clock.run(599_999);
  assert.equal(b.cpu.intr, false);
  b.clock.run(1);
  assert.equal(b.apic.acknowledge(), 0x40);
  assert.equal(b.read(0x390), 0);
  b.write(0xb0, 0);
  b.clock.run(5_000_000);
  assert.equal(b.cpu.intr, false);
});

test('the timer runs periodically, divided, without drift', () => {
  const b = board();
  b.write(0x3e0, 0x3);
  b.write(0x320, 0x20040);
  b.write(0x380, 1000);
  let count = 0;
  for (let ms = 1; ms <= 160; ms++) {
    b.clock.runTo(ms * 1000 + 500);
    if (b.cpu.intr) {
      count++;
      b.apic.acknowledge();
      b.write(0xb0, 0);
    }
  }
  assert.equal(count, 10);
});

test('TSC deadline', () => {
  const b = board();
  b.apic.setTscDeadline(500n);
  assert.equal(b.apic.getTscDeadline(), 0n, 'not in deadline mode');
  b.write(0x320, 0x40041);
  b.tsc.write(1000n);
  b.apic.setTscDeadline(3000n);
  assert.equal(b.apic.getTscDeadline(), 3000n);
  b.clock.run(1999);
  assert.equal(b.cpu.intr, false);
  b.clock.run(1);
  assert.equal(b.apic.acknowledge(), 0x41);
  assert.equal(b.apic.getTscDeadline(), 0n);
  b.write(0xb0, 0);
  b.apic.setTscDeadline(1n);
  b.clock.runTimers();
  assert.equal(b.cpu.intr, true, 'a deadline in the past fires at once');
});

test('a masked timer stays silent; SVR off masks every entry', () => {
  const b = board();
  b.write(0xf0, 0xff);
  b.write(0x320, 0x40);
  assert.equal(b.read(0x320), 0x10040);
});

test('IPIs to others: INIT, SIPI, NMI, and all but self', () => {
  const b = board();
  const second = new RecordingCpu();
  const other = new LocalApic({
    cpuIndex: 1,
    cpu: second,
    bus: b.bus,
    clock: b.clock,
    tsc: b.tsc,
    external: null,
  });
  b.write(0x310, 1 << 24);
  b.write(0x300, 0x4500);
  b.write(0x300, 0x8500);
  b.write(0x300, 0x4608);
  b.write(0x300, 0x4400);
  assert.deepEqual(second.events, ['init', 'sipi 8', 'nmi']);
  other.mmio.write(0xf0, 4, 0x1ff);
  b.write(0x300, 0xc0031);
  assert.equal(other.acknowledge(), 0x31);
  assert.equal(b.cpu.intr, false);
});

test('an illegal vector is an error that the ESR shows after a write', () => {
  const b = board();
  b.write(0x370, 0xfe);
  selfIpi(b, 5);
  assert.equal(b.apic.acknowledge(), 0xfe);
  assert.equal(b.read(0x280), 0);
  b.write(0x280, 0);
  assert.equal(b.read(0x280), 0x20);
});

test('x2APIC: modes, registers, self IPI', () => {
  const b = board();
  const [low] = b.apic.getApicBase();
  assert.equal(low, 0xfee00900);
  assert.equal(b.apic.readX2apic(2), null);
  assert.equal(b.apic.setApicBase(0xfee00500, 0), false, 'EXTD without EN');
  assert.equal(b.apic.setApicBase(low | 1, 0), false, 'reserved bit');
  assert.equal(b.apic.setApicBase(0xfee00d00, 0), true);
  assert.equal(b.apic.setApicBase(0xfee00900, 0), false, 'no way straight back');
  assert.deepEqual(b.apic.readX2apic(0x02), [0, 0]);
  assert.deepEqual(b.apic.readX2apic(0x0d), [1, 0]);
  assert.equal(b.apic.readX2apic(0x0e), null);
  assert.equal(b.apic.readX2apic(0x0b), null);
  assert.equal(b.apic.writeX2apic(0x03, 0, 0), false);
  assert.equal(b.apic.writeX2apic(0x0b, 1, 0), false);
  assert.equal(b.apic.writeX2apic(0x3f, 0x77, 0), true);
  assert.equal(b.apic.acknowledge(), 0x77);
  assert.deepEqual(b.apic.readX2apic(0x10 + 3), [1 << 23, 0]);
  assert.equal(b.apic.writeX2apic(0x0b, 0, 0), true);
  assert.equal(b.apic.writeX2apic(0x30, 0x4078, 0), true);
  assert.equal(b.apic.acknowledge(), 0x78);
});

test('the 8259 passes when the APIC is off or LINT0 is ExtINT', () => {
  const pic = { intr: false, acknowledge: () => ((pic.intr = false), 0x24) };
  const b = board(pic);
  pic.intr = true;
  b.apic.externalChanged();
  assert.equal(b.cpu.intr, false, 'LINT0 is masked');
  b.write(0x350, 0x700);
  assert.equal(b.cpu.intr, true);
  assert.equal(b.apic.acknowledge(), 0x24);
  b.write(0x350, 0x10700);
  pic.intr = true;
  b.apic.setApicBase(0xfee00100, 0);
  assert.equal(b.cpu.intr, true);
});

test('level-triggered I/O APIC pins come again until their line falls', () => {
  const b = board();
  const write = (register: number, value: number) => {
    b.ioapic.mmio.write(0, 4, register);
    b.ioapic.mmio.write(0x10, 4, value);
  };
  const read = (register: number) => {
    b.ioapic.mmio.write(0, 4, register);
    return b.ioapic.mmio.read(0x10, 4);
  };
  assert.equal(read(1), 0x170020);
  write(0x10 + 20, 0x8000 | 0x45);
  const line = b.ioapic.line(10);
  line.set(true);
  assert.equal(read(0x10 + 20) & 0x4000, 0x4000, 'remote IRR');
  assert.equal(b.apic.acknowledge(), 0x45);
  b.write(0xb0, 0);
  assert.equal(b.apic.acknowledge(), 0x45, 'the line is still up');
  line.set(false);
  b.write(0xb0, 0);
  assert.equal(b.cpu.intr, false);
  assert.equal(read(0x10 + 20) & 0x4000, 0);
});

test('edge-triggered pins: once per rise, lost while masked; logical destinations', () => {
  const b = board();
  const entry = (low: number, high: number) => {
    b.ioapic.mmio.write(0, 4, 0x15);
    b.ioapic.mmio.write(0x10, 4, high);
    b.ioapic.mmio.write(0, 4, 0x14);
    b.ioapic.mmio.write(0x10, 4, low);
  };
  const line = b.ioapic.line(2);
  line.set(true);
  entry(0x833, 0x02000000);
  assert.equal(b.cpu.intr, false);
  b.write(0xd0, 0x02000000);
  line.set(false);
  line.set(true);
  assert.equal(b.apic.acknowledge(), 0x33);
  b.write(0xb0, 0);
  line.set(true);
  assert.equal(b.cpu.intr, false);
});

test('MSI, lowest priority, and state that goes round with a pending interrupt', () => {
  const b = board();
  b.bus.sendMsi(0xfee00000, 0x0199);
  const copy = board();
  copy.apic.loadState(b.apic.saveState());
  assert.equal(copy.cpu.intr, true);
  assert.equal(copy.apic.acknowledge(), 0x99);
});

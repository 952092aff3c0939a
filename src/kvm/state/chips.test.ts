/** Interrupt controllers and timer, driven at random, through the kernel's structures and back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApicBus } from '../../devices/intc/apic-bus.ts';
import { LocalApic } from '../../devices/intc/apic.ts';
import { I8259Pair } from '../../devices/intc/i8259.ts';
import { IoApic } from '../../devices/intc/ioapic.ts';
import { ManualClock, RecordingCpu, RecordingLine } from '../../devices/mocks.ts';
import { I8254 } from '../../devices/timer/i8254.ts';
import { ClockTsc } from '../../machine/clock.ts';
import type { DeviceState } from '../../machine/interfaces.ts';
import { RepeatableRandom } from '../../machine/random.ts';
import { ioApicFromKernel, ioApicToKernel } from './ioapic.ts';
import { apicFromKernel, apicToKernel } from './lapic.ts';
import { picFromKernel, picToKernel } from './pic.ts';
import { pitFromKernel, pitToKernel } from './pit.ts';

const ROUNDS = 300;
const below = (random: () => number, limit: number): number => (random() >>> 0) % limit;

type Fields = { [name: string]: unknown };
/** Fields that come back only from `before`. */
const emptied = (state: DeviceState, patch: Fields): DeviceState => ({
  ...state,
  fields: { ...state.fields, ...patch } as never,
});

test('the 8259 pair keeps its state through the kernel', () => {
  const random = new RepeatableRandom(1).next;
  const pic = new I8259Pair();
  for (const [chip, base] of [
    [pic.master, 0x20],
    [pic.slave, 0x28],
  ] as const) {
    for (const [offset, value] of [[0, 0x11] as const, [1, base] as const, [1, 4] as const, [1, 1] as const]) {
      chip.write(offset, 1, value);
    }
  }
  const lines = Array.from({ length: 16 }, (_, irq) => (irq === 2 ? null : pic.line(irq)));
  for (let round = 0; round < ROUNDS; round++) {
    const chip = [pic.master, pic.slave, pic.elcr][below(random, 3)]!;
    if (below(random, 2) === 0) lines[below(random, 16)]?.set(below(random, 2) === 0);
    // Single mode (ICW1 bit 1) is not in the kernel.
    else chip.write(below(random, 2), 1, below(random, 256) & ~2);
    if (below(random, 8) === 0) pic.acknowledge();
    const state = pic.saveState();
    const { master, slave } = state.fields as unknown as { master: { lines: number }; slave: { lines: number } };
    const levels = master.lines | (slave.lines << 8);
    assert.deepEqual(picFromKernel(picToKernel(state), new I8259Pair().saveState(), levels).fields, restart(state));
  }
});

/** A chip that was set up to begin at vector 0 cannot be told from one that was never set up. */
function restart(state: DeviceState): DeviceState['fields'] {
  for (const chip of Object.values(state.fields) as { initStep: number; vectorBase: number }[]) {
    if (chip.initStep === 0 && chip.vectorBase === 0) chip.initStep = 1;
  }
  return state.fields;
}

test('the I/O APIC keeps its state through the kernel', () => {
  const random = new RepeatableRandom(2).next;
  const ioapic = new IoApic(new ApicBus());
  for (let round = 0; round < ROUNDS; round++) {
    ioapic.mmio.write(0, 4, below(random, 0x40));
    ioapic.mmio.write(0x10, 4, random() >>> 0);
    ioapic.line(below(random, 24)).set(below(random, 2) === 0);
    const state = ioapic.saveState();
    const lines = state.fields['lines'] as number;
    const kernel = ioApicToKernel(state);
    assert.deepEqual(ioApicFromKernel(kernel, new IoApic(new ApicBus()).saveState(), lines), state);
    assert.equal(kernel.irr & ~lines, 0, 'only what is asserted is delivered anew');
  }
});

test('the local APIC keeps its state through the kernel, its timer to within one count', () => {
  const random = new RepeatableRandom(3).next;
  const clock = new ManualClock();
  const options = () => ({
    cpuIndex: 0,
    cpu: new RecordingCpu(),
    bus: new ApicBus(),
    clock,
    tsc: new ClockTsc(clock),
    external: null,
  });
  const apic = new LocalApic(options());
  const offsets = [0x20, 0x80, 0xb0, 0xd0, 0xe0, 0xf0, 0x300, 0x310, 0x320, 0x350, 0x360, 0x370, 0x380, 0x3e0];
  for (let round = 0; round < ROUNDS; round++) {
    const at = offsets[below(random, offsets.length)]!;
    apic.mmio.write(at, 4, at === 0x380 ? below(random, 1e6) : at === 0xf0 ? 0x1ff : random() >>> 0);
    if (below(random, 5) === 0) apic.setTscDeadline(BigInt(clock.now() + below(random, 1e6)));
    if (below(random, 4) === 0) apic.acknowledge();
    clock.run(below(random, 1e5));
    const state = apic.saveState();
    const { timer, ...fields } = apicFromKernel(
      apicToKernel(state, clock.now(), 0),
      new LocalApic(options()).saveState(),
      clock.now(),
    ).fields as { timer: Timer };
    const { timer: ours, ...others } = emptied(state, { esrPending: 0, extInt: false, timers: { count: -1 } })
      .fields as unknown as { timer: Timer };
    assert.deepEqual(fields, others);
    checkTimer(timer, ours, clock.now());
  }
});

type Timer = { initialCount: number; divide: number; mode: number; startNs: number; tscDeadline: bigint };
const DEADLINE_MODE = 2;

function checkTimer(got: Timer, want: Timer, now: number): void {
  const code = (want.divide & 3) | ((want.divide & 8) >> 1);
  const tick = code === 7 ? 1 : 2 << code;
  assert.equal(got.mode, want.mode);
  assert.equal(got.divide, want.divide);
  if (want.mode === DEADLINE_MODE) return assert.equal(got.tscDeadline, want.tscDeadline);
  assert.equal(got.initialCount, want.initialCount);
  assert.equal(got.startNs < 0, want.initialCount === 0);
  if (got.startNs < 0) return;
  // What had expired does so again.
  if (want.startNs < 0) return assert.equal(got.startNs, Math.max(0, now - want.initialCount * tick));
  const period = want.initialCount * tick;
  const [a, b] = [got, want].map(({ startNs }) => (now - startNs) % period);
  assert.ok(Math.min(Math.abs(a! - b!), period - Math.abs(a! - b!)) <= 2 * tick, `phase ${a} instead of ${b} of ${period}`);
}

test('a local APIC in x2APIC mode says who it is in the upper byte', () => {
  const clock = new ManualClock();
  const apic = new LocalApic({
    cpuIndex: 3,
    cpu: new RecordingCpu(),
    bus: new ApicBus(),
    clock,
    tsc: new ClockTsc(clock),
    external: null,
  });
  assert.ok(apic.setApicBase(0xfee00c00, 0));
  const { page, base } = apicToKernel(apic.saveState(), 0, 3);
  assert.equal(new DataView(page.buffer).getUint32(0x20, true), 3 << 24);
  assert.equal(base & 0xc00n, 0xc00n);
});

test('the 8254 keeps its state through the kernel, its phase to a nanosecond', () => {
  const random = new RepeatableRandom(4).next;
  const clock = new ManualClock();
  const pit = new I8254(clock, new RecordingLine());
  clock.run(1e9);
  for (let round = 0; round < ROUNDS; round++) {
    pit.ports.write(below(random, 4), 1, below(random, 256));
    if (below(random, 3) === 0) pit.ports.read(below(random, 3), 1);
    if (below(random, 9) === 0) pit.speaker.write(0, 1, below(random, 4));
    clock.run(below(random, 1e6));
    const state = pit.saveState();
    const moment = { virtual: clock.now(), host: 123_456_789_000n };
    const back = pitFromKernel(pitToKernel(state, moment), state, moment);
    comparePits(back, state, clock.now());
  }
});

type Channel = { count: number; gate: boolean; startNs: number; heldTicks: number } & Fields;

function comparePits(got: DeviceState, want: DeviceState, now: number): void {
  assert.equal(got.fields['speakerOn'], want.fields['speakerOn']);
  const channels = (state: DeviceState): Channel[] => state.fields['channels'] as never;
  channels(got).forEach((channel, i) => {
    const { startNs, heldTicks, ...rest } = channel;
    const { startNs: ours, heldTicks: held, ...others } = channels(want)[i]!;
    assert.deepEqual(rest, others);
    if (rest['count'] === 0) return;
    const elapsed = (ours < 0 ? 0 : now - ours) + (held * 1e9) / 1_193_182;
    assert.ok(Math.abs(now - startNs - elapsed) <= 1 || startNs === 0, `channel ${i}: ${now - startNs} instead of ${elapsed}`);
    assert.equal(heldTicks, 0);
  });
}

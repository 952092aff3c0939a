/** Interrupt controllers of a board, driven at random, through a real VM and back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApicBus } from '../devices/intc/apic-bus.ts';
import { LocalApic } from '../devices/intc/apic.ts';
import { I8259Pair } from '../devices/intc/i8259.ts';
import { IoApic } from '../devices/intc/ioapic.ts';
import { ManualClock, RecordingCpu, RecordingLine } from '../devices/mocks.ts';
import { I8254 } from '../devices/timer/i8254.ts';
import { parkedState, powerOnState } from '../isa/x86/system/power-on.ts';
import { ClockTsc } from '../machine/clock.ts';
import { RepeatableRandom } from '../machine/random.ts';
import { Chips } from './chips.ts';
import { cpuToKernel } from './state/cpu.ts';
import { Kvm } from './system.ts';
import { NO_KVM } from './test-kit.ts';
import { VcpuTransfer } from './vcpu-state.ts';

const ROUNDS = 100;
const CPUS = 2;
const INPUTS = 24;
const MASKED = 1 << 16;
/** Longer than the test takes: a timer that ran out would leave its mark. */
const LONG = 4e9;

function makeBoard() {
  const clock = new ManualClock();
  const bus = new ApicBus();
  const tsc = new ClockTsc(clock);
  const pic = new I8259Pair();
  const ioapic = new IoApic(bus);
  const external = null;
  const lapics = Array.from({ length: CPUS }, (_, cpuIndex) => {
    const lapic = new LocalApic({ cpuIndex, cpu: new RecordingCpu(), bus, clock, tsc, external });
    lapic.reset();
    return lapic;
  });
  const lines = Array.from({ length: INPUTS }, (_, input) => [
    ...(input < 16 && input !== 2 ? [pic.line(input)] : []),
    ...(input === 2 ? [] : [ioapic.line(input === 0 ? 2 : input)]),
  ]);
  const board = {
    ...{ pic, ioapic, lapics, pit: new I8254(clock, new RecordingLine()) },
    apicIds: [0, 1],
    inputLevels: 0,
    apicBus: bus,
    useKernelChips: () => undefined,
    useKernelApics: () => undefined,
  };
  const setInput = (input: number, level: boolean): void => {
    for (const line of lines[input]!) line.set(level);
    board.inputLevels = level ? board.inputLevels | (1 << input) : board.inputLevels & ~(1 << input);
  };
  return { board, clock, setInput };
}

/** Uses a board's controllers as a guest might, in the ways of which nothing happens by itself. */
function drive({ board, setInput }: ReturnType<typeof makeBoard>, random: () => number): void {
  const below = (limit: number): number => (random() >>> 0) % limit;
  const input = below(INPUTS);
  // The timer's own line is in the kernel, too.
  if (input !== 0 && input !== 2) setInput(input, below(2) === 0);
  const { pic, ioapic, lapics } = board;
  [pic.master, pic.slave, pic.elcr][below(3)]!.write(below(2), 1, below(256) & ~2);
  if (below(8) === 0) pic.acknowledge();
  const entry = below(INPUTS);
  ioapic.mmio.write(0, 4, 0x10 + 2 * entry);
  ioapic.mmio.write(0x10, 4, (random() & 0x1afff) | MASKED);
  ioapic.mmio.write(0, 4, 0x11 + 2 * entry);
  ioapic.mmio.write(0x10, 4, random() >>> 0);
  const lapic = lapics[below(CPUS)]!;
  const offsets = [0x80, 0xd0, 0xe0, 0xf0, 0x310, 0x320, 0x350, 0x360, 0x370, 0x380, 0x3e0];
  const at = offsets[below(offsets.length)]!;
  const value = at === 0x380 ? LONG : at === 0xf0 ? 0x1ff : at === 0x320 ? (random() & 0x200ff) | MASKED : random() >>> 0;
  lapic.mmio.write(at, 4, value);
  lapic.deliver({ delivery: 0, vector: 16 + below(240), level: below(2) === 0, logical: false, destination: 0 });
  if (below(3) === 0) lapic.acknowledge();
}

test('controllers that went into the kernel come back as they were', { skip: NO_KVM, timeout: 60_000 }, () => {
  const random = new RepeatableRandom(5).next;
  const kit = makeBoard();
  const { board, clock } = kit;
  const kvm = new Kvm();
  const vm = kvm.createVm();
  const chips = new Chips(vm, board, () => undefined);
  const vcpus = board.apicIds.map((id) => vm.createVcpu(id));
  const transfers = vcpus.map((vcpu) => new VcpuTransfer(vcpu, kvm.msrs(), kvm.check('KVM_CAP_SREGS2') !== 0));
  const states = [powerOnState(0), parkedState(0)];
  const host = 1_000_000_000n;
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < 5; i++) drive(kit, random);
    const owners = [board.pic, board.ioapic, ...board.lapics];
    const before = owners.map((one) => one.saveState());
    const apics = chips.take({ virtual: clock.now(), host });
    transfers.forEach((transfer, cpu) =>
      transfer.write({ cpu: cpuToKernel(states[cpu]!, vcpus[cpu]!.xsaveSize), apic: apics[cpu]!, tsc: 0n }),
    );
    chips.giveBack(
      transfers.map((transfer) => transfer.read(new Set()).apic),
      { virtual: clock.now(), host },
    );
    owners.forEach((one, index) => assert.deepEqual(comparable(one.saveState()), comparable(before[index]!), `round ${round}`));
  }
  vm.close();
  kvm.close();
});

type Timed = {
  timer?: { startNs: number };
  timers?: unknown;
  esrPending?: number;
  master?: { irr: number; lines: number };
};
const CASCADE = 1 << 2;

/**
 * Without when a timer began, for the kernel's went on meanwhile, and without what the 8259s say to each other: the kernel's
 * do it also while they are being set up.
 */
function comparable({ fields }: ReturnType<LocalApic['saveState']>): unknown {
  const { timers: _, esrPending: _errors, ...rest } = structuredClone(fields) as Timed;
  if (rest.timer !== undefined) rest.timer.startNs = Math.sign(rest.timer.startNs);
  if (rest.master !== undefined) {
    rest.master.irr &= ~CASCADE;
    rest.master.lines &= ~CASCADE;
  }
  return rest;
}

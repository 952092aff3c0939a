/**
 * A machine's vCPU on the processor itself. It runs in the machine's own thread, between whose turns it is in the guest:
 * an exit is served where it happens, by the board's devices, without a hand-over to another thread.
 *
 * State is in one place at a time: at home, that is, in the board's devices and in the form that all accelerators share;
 * or in the kernel, from the next entry of the guest until somebody asks for it (`settle`).
 */
import type { Accelerator, FreeRunning } from '../machine/accelerator.ts';
import type { VisibleRegisters } from '../machine/address-space.ts';
import type { CpuPort, DeviceState, PowerEvent, Trace, TscSource, VirtualClock } from '../machine/interfaces.ts';
import type { CpuTopology } from '../machine/cpu-topology.ts';
import type { InitialCpuState } from '../machine/loader/cpu-state.ts';
import type { CpuModel } from '../isa/x86/system/models.ts';
import { MCG_CAP } from '../isa/x86/system/machine-check.ts';
import { parkedState, powerOnState, startState } from '../isa/x86/system/power-on.ts';
import { type ChipBoard, Chips, type InterruptChips } from './chips.ts';
import { EXIT } from './constants.ts';
import { cpuidEntries, withHyperv } from './cpuid-entries.ts';
import { type Ports, type Registers, serveHyperv, serveMemory, servePort, systemEvent } from './exits.ts';
import type { KvmHost } from './host.ts';
import { enableHyperv, type Hyperv, hypervOf } from './hyperv.ts';
import { Kicker } from './kicker.ts';
import { LateWrites } from './late-writes.ts';
import { SystemCallError } from './libc.ts';
import { MemorySlots, type MemoryMap } from './memory.ts';
import { errorOf, Processors } from './processors.ts';
import { SplitChips } from './split-chips.ts';
import { cpuFromKernel, cpuToKernel } from './state/cpu.ts';
import type { Moment } from './state/pit.ts';
import type { Vcpu } from './vcpu.ts';
import { VcpuTransfer } from './vcpu-state.ts';
import type { Vm } from './vm.ts';

export interface KvmBoard extends ChipBoard {
  readonly mem: MemoryMap & Registers & { visibleRegisters(): VisibleRegisters[] };
  readonly io: Ports & { visibleRegisters(): VisibleRegisters[] };
}

export interface KvmParts {
  readonly host: KvmHost;
  readonly board: KvmBoard;
  readonly memory: WebAssembly.Memory;
  readonly model: CpuModel;
  readonly topology: CpuTopology;
  readonly clock: VirtualClock;
  readonly tsc: TscSource;
  /** Which interrupt chips are in the kernel: all, or the local APICs alone. */
  readonly irqchip: 'on' | 'split';
  readonly onPower: (event: PowerEvent) => void;
  /** The guest cannot go on here. @param text several lines */
  readonly onFailure: (text: string) => void;
  readonly trace: Trace;
}

/** Pages that Intel's processors need for real mode: below the firmware, where no board has anything. */
const IDENTITY_MAP = 0xfeffc000;
const TSS = IDENTITY_MAP + 0x1000;
/** Milliseconds until the event loop has its turn after a device has been used: it may have begun something. */
const AFTER_EXIT = 1;

/** MSRs that a state tells of. */
const knownMsrs = ({ fields }: DeviceState): ReadonlySet<number> =>
  new Set(Object.keys(fields['msrs']!).map((number) => parseInt(number, 16)));

export class KvmAccelerator implements Accelerator {
  readonly name = 'kvm';
  readonly cpuPort: CpuPort;
  readonly free: FreeRunning;
  private readonly parts: KvmParts;
  private readonly vm: Vm;
  private readonly processors: Processors;
  private readonly chips: InterruptChips;
  private readonly kicker: Kicker;
  private readonly slots: MemorySlots;
  private readonly lateWrites: LateWrites;
  /** One for each vCPU, in their order. */
  private readonly transfers: readonly VcpuTransfer[];
  /** Hyper-V's interface, where guests are shown it. */
  private readonly hyperv: Hyperv | null;
  /** CPUID's word on family, model and stepping. */
  private readonly version: number;
  /** The vCPUs' states as they last were at home. */
  private readonly states: DeviceState[];
  private inKernel = false;
  /** As the kernel was told. */
  private tscFrequency = 0;
  /** The board's local APIC asks for attention. */
  private intr = false;
  private executed = 0;
  private exits = 0;
  private entries = 0;

  /** @throws Error, one line */
  constructor(parts: KvmParts) {
    this.parts = parts;
    const { host, board, memory, model } = parts;
    const { libc } = host.kvm;
    this.hyperv = model.hyperv === null ? null : hypervOf(model.hyperv, host.kvm, board.apicIds.length);
    this.vm = host.kvm.createVm();
    let kicker: Kicker | null = null;
    try {
      this.vm.reservePages(TSS, IDENTITY_MAP);
      this.chips = new (parts.irqchip === 'split' ? SplitChips : Chips)(this.vm, board, () => this.vcpu.nmi());
      const origin = libc.addressOf(new Uint8Array(memory.buffer));
      this.slots = new MemorySlots(this.vm, board.mem, origin, (change) => this.processors.alone(change));
      this.slots.update();
      kicker = this.kicker = new Kicker(libc);
      this.processors = new Processors(
        host.kvm,
        this.vm,
        board.apicIds,
        (vcpu) => {
          if (model.has('mca')) vcpu.put('KVM_X86_SETUP_MCE', { value: BigInt(MCG_CAP) });
          if (this.hyperv !== null) enableHyperv(vcpu, this.hyperv.features);
        },
        this.kicker,
        () => {
          if (this.inKernel) this.processors.answer(this.serve);
        },
        (text) => this.fail(text),
      );
      this.lateWrites = new LateWrites(this.vm, this.vcpu.run, board.mem);
      this.version = this.describeCpus();
      this.transfers = this.processors.all.map((vcpu) => new VcpuTransfer(vcpu, host.msrs, host.hasSregs2, this.hyperv !== null));
    } catch (error) {
      kicker?.close();
      this.vm.close();
      throw error;
    }
    this.kicker.watch(this.vcpu);
    this.states = this.statesAfterReset(powerOnState(this.version));
    this.cpuPort = this.pins();
    this.free = {
      stay: (left, stop) => this.stay(left, stop),
      afterEvents: (run) => this.kicker.afterEvents(run),
    };
  }

  /** The boot processor, which runs in this thread. */
  private get vcpu(): Vcpu {
    return this.processors.boot;
  }

  /** @param boot the boot processor's; the others wait to be started */
  private statesAfterReset(boot: DeviceState): DeviceState[] {
    return this.processors.all.map((_, index) => (index === 0 ? boot : parkedState(this.version)));
  }

  /**
   * Tells the kernel what CPUs the guest finds, at which rate their counters run: before they first run.
   * @returns CPUID's word on family, model and stepping
   */
  private describeCpus(): number {
    const { tsc, model, topology, host } = this.parts;
    const { hyperv } = this;
    this.tscFrequency = tsc.frequency;
    const entries = this.processors.all.map((vcpu, index) => {
      const plain = cpuidEntries(model, topology, index, tsc.frequency);
      const leaves = hyperv === null ? plain : withHyperv(plain, hyperv, host.kvm.hypervCpuid());
      vcpu.setCpuid(leaves);
      this.setTscRate(vcpu);
      return leaves;
    });
    return entries[0]!.find(({ function: leaf }) => leaf === 1)!.eax!;
  }

  private setTscRate(vcpu: Vcpu): void {
    const { host, tsc } = this.parts;
    const khz = Math.round(tsc.frequency / 1000);
    if (khz === vcpu.tscKhz) return;
    if (!host.scalesTsc) {
      throw new Error(
        `this machine's time-stamp counter runs at ${tsc.frequency} Hz, and this host's KVM has only its own rate: ` +
          `start it with -cpu MODEL,tsc-frequency=${host.tscFrequency}`,
      );
    }
    vcpu.tscKhz = khz;
  }

  /** The board's own chips are asleep while the guest runs: what else reaches a vCPU is little. */
  private pins(): CpuPort {
    return {
      setIntr: (pending) => {
        this.intr = pending;
      },
      nmi: () => this.vcpu.nmi(),
      smi: () => undefined,
      init: () => undefined,
      sipi: () => undefined,
      setA20: () => undefined,
    };
  }

  /** Out of the kernel nobody runs the guest, and a board that is made anew changes its map many times. */
  memoryMapChanged(): void {
    if (this.inKernel) this.followMap();
  }

  private followMap(): void {
    this.slots.update();
    const registers = this.parts.board.mem.visibleRegisters();
    this.lateWrites.update(registers);
    this.followDoorbells(registers);
  }

  doorbellsChanged(): void {
    if (this.inKernel) this.followDoorbells(this.parts.board.mem.visibleRegisters());
  }

  private followDoorbells(registers: readonly VisibleRegisters[]): void {
    this.processors.registersChanged(registers, this.parts.board.io.visibleRegisters());
  }

  run(): void {
    throw new Error('KVM does not run slices');
  }

  /** The guest runs in this thread: whoever calls this is not in it. */
  kick(): void {}

  instructions(): number {
    return this.executed;
  }

  countFrom(instructions: number): void {
    this.executed = instructions;
  }

  get idle(): boolean {
    return false;
  }

  private stay(left: () => number, stop: () => boolean): void {
    const { processors, kicker } = this;
    this.enterKernel();
    // A device that is used may begin something that the event loop must know of: its turn comes soon.
    let used = false;
    do {
      // Nobody has looked at what is due since then.
      let comesSoon = false;
      used = processors.answer(this.serve) || used;
      while (!stop()) {
        const due = used ? Math.min(left(), AFTER_EXIT) : left();
        if (comesSoon && due === AFTER_EXIT) {
          if (!kicker.mayStay) break;
        } else {
          if (!kicker.enter(due)) break;
          // Whoever has asked before that has not called this thread.
          used = processors.answer(this.serve) || used;
          comesSoon = used;
        }
        const isDevice = this.runBoot();
        used ||= isDevice;
        comesSoon &&= isDevice;
      }
    } while (!kicker.leave() && !stop());
    this.lateWrites.bring();
  }

  /** @returns whether a device has been used */
  private runBoot(): boolean {
    const { vcpu } = this;
    this.entries++;
    try {
      this.chips.offer(vcpu);
      const reason = vcpu.enter();
      if (reason === EXIT.KVM_EXIT_INTR || reason === EXIT.KVM_EXIT_IRQ_WINDOW_OPEN) return false;
      this.serve(vcpu, reason);
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      this.fail(this.processors.describe(vcpu, error));
    }
    return true;
  }

  /** @returns whether the vCPU can go on */
  private readonly serve = (vcpu: Vcpu, reason: number): boolean => {
    const { parts } = this;
    this.lateWrites.bring();
    switch (reason) {
      case EXIT.KVM_EXIT_IO:
        this.exits++;
        servePort(vcpu, parts.board.io);
        return true;
      case EXIT.KVM_EXIT_MMIO:
        this.exits++;
        serveMemory(vcpu, parts.board.mem);
        return true;
      case EXIT.KVM_EXIT_SHUTDOWN:
        parts.trace('cpu_reset', 'the guest shut its CPU down: triple-fault');
        parts.onPower('reset');
        return true;
      case EXIT.KVM_EXIT_IOAPIC_EOI:
        parts.board.apicBus.broadcastEoi(vcpu.run.eoiVector);
        return true;
      case EXIT.KVM_EXIT_HYPERV:
        serveHyperv(vcpu);
        return true;
      case EXIT.KVM_EXIT_SYSTEM_EVENT: {
        const event = systemEvent(vcpu);
        if (event === null) return this.unknown(vcpu, reason);
        parts.trace('cpu_reset', `the guest asks for it by Hyper-V's interface: ${event}`);
        parts.onPower(event);
        return true;
      }
      default:
        return this.unknown(vcpu, reason);
    }
  };

  private unknown(vcpu: Vcpu, reason: number): false {
    this.fail(this.processors.describe(vcpu, errorOf(reason)));
    return false;
  }

  /** @param text several lines */
  private fail(text: string): void {
    this.parts.onFailure(text);
    this.parts.onPower('internal-error');
  }

  private moment(): Moment {
    return { virtual: this.parts.clock.now(), host: process.hrtime.bigint() };
  }

  private enterKernel(): void {
    if (this.inKernel) return;
    const { vm, chips, parts, transfers, states } = this;
    this.followMap();
    const moment = this.moment();
    vm.setClock({ clock: BigInt(Math.floor(moment.virtual)) });
    const apics = chips.take(moment);
    const tsc = parts.tsc.read();
    transfers.forEach((transfer, cpu) => {
      const state = { cpu: cpuToKernel(states[cpu]!, this.vcpu.xsaveSize), apic: apics[cpu]!, tsc };
      transfer.write(state, cpu === 0 ? null : transfers[0]!);
    });
    chips.begin();
    this.inKernel = true;
    this.processors.release();
  }

  settle(): void {
    if (!this.inKernel) return;
    const { chips, parts, transfers, states } = this;
    this.processors.hold(this.serve);
    this.lateWrites.bring();
    chips.routes.awaitMessages();
    const read = transfers.map((transfer, cpu) => transfer.read(knownMsrs(states[cpu]!)));
    read.forEach(({ cpu }, index) => (states[index] = cpuFromKernel(cpu, states[index]!)));
    parts.tsc.write(read[0]!.tsc);
    chips.giveBack(
      read.map(({ apic }) => apic),
      this.moment(),
    );
    // The board's local APIC has said meanwhile whether it has an interrupt.
    const pending = states[0]!.fields['pending'] as { intr: boolean };
    pending.intr = this.intr;
    this.inKernel = false;
  }

  /** What is in the kernel is of no interest any more. */
  private forget(): void {
    if (!this.inKernel) return;
    this.processors.hold(this.serve);
    this.lateWrites.bring();
    this.chips.end();
    this.inKernel = false;
  }

  reset(start: InitialCpuState): void {
    this.forget();
    this.states.splice(0, this.states.length, ...this.statesAfterReset(startState(this.version, start)));
  }

  saveState(cpu: number): DeviceState {
    this.settle();
    return this.states[cpu]!;
  }

  loadState(cpu: number, state: DeviceState): void {
    this.forget();
    // A machine that comes from elsewhere brings its rate along.
    if (this.parts.tsc.frequency !== this.tscFrequency) this.describeCpus();
    this.states[cpu] = state;
  }

  statistics(): Record<string, number> {
    const { doorbells, eventBells } = this.processors;
    return {
      entries: this.entries,
      exits: this.exits,
      doorbells: doorbells.rung,
      ioeventfds: eventBells.rung,
      irqfds: this.chips.routes.signalled,
    };
  }

  close(machineGoesOn = false): void {
    this.processors.close();
    if (this.inKernel) this.chips.end();
    this.inKernel = false;
    this.chips.routes.close();
    this.kicker.close();
    this.vm.close(machineGoesOn);
  }
}

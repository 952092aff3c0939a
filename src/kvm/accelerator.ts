/**
 * A machine's vCPU on the processor itself. It runs in the machine's own thread, between whose turns it is in the guest:
 * an exit is served where it happens, by the board's devices, without a hand-over to another thread.
 *
 * State is in one place at a time: at home, that is, in the board's devices and in the form that all accelerators share;
 * or in the kernel, from the next entry of the guest until somebody asks for it (`settle`).
 */
import type { Accelerator, FreeRunning } from '../machine/accelerator.ts';
import type { CpuPort, DeviceState, PowerEvent, Trace, TscSource, VirtualClock } from '../machine/interfaces.ts';
import type { InitialCpuState } from '../machine/loader/cpu-state.ts';
import type { CpuModel } from '../isa/x86/system/models.ts';
import { MCG_CAP } from '../isa/x86/system/machine-check.ts';
import { powerOnState, startState } from '../isa/x86/system/power-on.ts';
import { type ChipBoard, Chips } from './chips.ts';
import { EXIT } from './constants.ts';
import { cpuidEntries } from './cpuid-entries.ts';
import { describeVcpu } from './describe.ts';
import { type Ports, type Registers, serveMemory, servePort } from './exits.ts';
import type { KvmHost } from './host.ts';
import { Kicker } from './kicker.ts';
import { SystemCallError } from './libc.ts';
import { MemorySlots, type MemoryMap } from './memory.ts';
import { cpuFromKernel, cpuToKernel } from './state/cpu.ts';
import type { Moment } from './state/pit.ts';
import type { Vcpu } from './vcpu.ts';
import { VcpuTransfer } from './vcpu-state.ts';
import type { Vm } from './vm.ts';

export interface KvmBoard extends ChipBoard {
  readonly mem: MemoryMap & Registers & { onMapChange: (() => void) | undefined };
  readonly io: Ports;
}

export interface KvmParts {
  readonly host: KvmHost;
  readonly board: KvmBoard;
  readonly memory: WebAssembly.Memory;
  readonly model: CpuModel;
  readonly clock: VirtualClock;
  readonly tsc: TscSource;
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

export class KvmAccelerator implements Accelerator {
  readonly name = 'kvm';
  readonly cpuPort: CpuPort;
  readonly free: FreeRunning;
  private readonly parts: KvmParts;
  private readonly vm: Vm;
  private readonly vcpu: Vcpu;
  private readonly chips: Chips;
  private readonly kicker: Kicker;
  private readonly transfer: VcpuTransfer;
  private readonly xsaveBytes: number;
  /** CPUID's word on family, model and stepping. */
  private readonly version: number;
  /** The vCPU's state as it last was at home. */
  private state: DeviceState;
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
    this.vm = host.kvm.createVm();
    try {
      this.vm.reservePages(TSS, IDENTITY_MAP);
      this.chips = new Chips(this.vm, board, () => this.vcpu.nmi());
      const slots = new MemorySlots(this.vm, board.mem, libc.addressOf(new Uint8Array(memory.buffer)));
      slots.update();
      board.mem.onMapChange = () => slots.update();
      this.vcpu = this.vm.createVcpu(0);
      if (model.has('mca')) this.vcpu.put('KVM_X86_SETUP_MCE', { value: BigInt(MCG_CAP) });
      this.version = this.describeCpu();
      this.transfer = new VcpuTransfer(this.vcpu, host.msrs, host.hasSregs2);
      this.xsaveBytes = this.transfer.xsaveBytes;
      this.kicker = new Kicker(libc);
    } catch (error) {
      board.mem.onMapChange = undefined;
      this.vm.close();
      throw error;
    }
    this.kicker.watch(this.vcpu);
    this.state = powerOnState(this.version);
    this.cpuPort = this.pins();
    this.free = {
      stay: (left, stop) => this.stay(left, stop),
      afterEvents: (run) => this.kicker.afterEvents(run),
    };
  }

  /**
   * Tells the kernel what CPU the guest finds, at which rate its counter runs: before it first runs.
   * @returns CPUID's word on family, model and stepping
   */
  private describeCpu(): number {
    const { host, tsc, model } = this.parts;
    const { vcpu } = this;
    const entries = cpuidEntries(model, { apicId: 0, cpus: 1 }, tsc.frequency);
    vcpu.setCpuid(entries);
    this.tscFrequency = tsc.frequency;
    const khz = Math.round(tsc.frequency / 1000);
    if (khz !== vcpu.tscKhz) {
      if (!host.scalesTsc) {
        throw new Error(
          `this machine's time-stamp counter runs at ${tsc.frequency} Hz, and this host's KVM has only its own rate: ` +
            `start it with -cpu MODEL,tsc-frequency=${host.tscFrequency}`,
        );
      }
      vcpu.tscKhz = khz;
    }
    return entries.find(({ function: leaf }) => leaf === 1)!.eax!;
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
    this.enterKernel();
    // A device that is used may begin something that the event loop must know of: its turn comes soon.
    let used = false;
    let comesSoon = false;
    while (!stop()) {
      const due = used ? Math.min(left(), AFTER_EXIT) : left();
      if (comesSoon && due === AFTER_EXIT) {
        if (!this.kicker.mayStay) break;
      } else {
        if (!this.kicker.enter(due)) break;
        comesSoon = used;
      }
      const isDevice = this.enterGuest();
      used ||= isDevice;
      comesSoon &&= isDevice;
    }
    this.kicker.leave();
  }

  /** @returns whether a device has been used */
  private enterGuest(): boolean {
    this.entries++;
    try {
      return this.serve(this.vcpu.enter());
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      this.fail(error);
      return true;
    }
  }

  /** @returns whether a device has been used */
  private serve(reason: number): boolean {
    const { vcpu, parts } = this;
    switch (reason) {
      case EXIT.KVM_EXIT_INTR:
        return false;
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
      default:
        this.fail(null);
        return true;
    }
  }

  private fail(error: SystemCallError | null): void {
    this.parts.onFailure(describeVcpu(this.vcpu, error));
    this.parts.onPower('internal-error');
  }

  private moment(): Moment {
    return { virtual: this.parts.clock.now(), host: process.hrtime.bigint() };
  }

  private enterKernel(): void {
    if (this.inKernel) return;
    const { vm, chips, parts, transfer, state } = this;
    const moment = this.moment();
    vm.setClock({ clock: BigInt(Math.floor(moment.virtual)) });
    const apic = chips.take(moment);
    transfer.write({ cpu: cpuToKernel(state, this.xsaveBytes), apic, tsc: parts.tsc.read() });
    parts.board.useKernelChips(chips);
    this.inKernel = true;
  }

  settle(): void {
    if (!this.inKernel) return;
    const { chips, parts, transfer, state, vcpu } = this;
    // The instruction of the last exit has to end before its state is one.
    for (let reason = vcpu.complete(); reason !== EXIT.KVM_EXIT_INTR; reason = vcpu.complete()) this.serve(reason);
    const known = new Set(Object.keys(state.fields['msrs']!).map((number) => parseInt(number, 16)));
    const { cpu, apic, tsc } = transfer.read(known);
    this.state = cpuFromKernel(cpu, state);
    parts.tsc.write(tsc);
    chips.giveBack(apic, this.moment());
    // The board's local APIC has said meanwhile whether it has an interrupt.
    const pending = this.state.fields['pending'] as { intr: boolean };
    pending.intr = this.intr;
    this.inKernel = false;
  }

  /** What is in the kernel is of no interest any more. */
  private forget(): void {
    if (!this.inKernel) return;
    this.parts.board.useKernelChips(null);
    this.inKernel = false;
  }

  reset(start: InitialCpuState): void {
    this.forget();
    this.state = startState(this.version, start);
  }

  saveState(): DeviceState {
    this.settle();
    return this.state;
  }

  loadState(state: DeviceState): void {
    this.forget();
    // A machine that comes from elsewhere brings its rate along.
    if (this.parts.tsc.frequency !== this.tscFrequency) this.describeCpu();
    this.state = state;
  }

  statistics(): Record<string, number> {
    return { entries: this.entries, exits: this.exits };
  }

  close(): void {
    this.forget();
    this.parts.board.mem.onMapChange = undefined;
    this.kicker.close();
    this.vm.close();
  }
}

/** Runs cases by the host's KVM. */
import { EXIT, exitName } from '../../src/kvm/constants.ts';
import { cpuidEntries } from '../../src/kvm/cpuid-entries.ts';
import { describeExit } from '../../src/kvm/describe.ts';
import { KvmHost } from '../../src/kvm/host.ts';
import { acceptKicks } from '../../src/kvm/accept-kicks.ts';
import { drainKicks, KICK_SIGNAL } from '../../src/kvm/kick-signal.ts';
import { cpuFromKernel, cpuToKernel } from '../../src/kvm/state/cpu.ts';
import type { Vcpu, VcpuState } from '../../src/kvm/vcpu.ts';
import { type KernelVcpu, VcpuTransfer } from '../../src/kvm/vcpu-state.ts';
import type { Vm } from '../../src/kvm/vm.ts';
import type { CpuModel } from '../../src/isa/x86/system/models.ts';
import type { DeviceState } from '../../src/machine/interfaces.ts';
import { powerOnState } from '../../src/isa/x86/system/power-on.ts';
import { ONE_CPU } from '../../src/machine/cpu-topology.ts';
import type { Outcome, Subject } from './compare.ts';
import { END_PORT, HIGH_BASE, HIGH_SIZE, LOW_SIZE, MEMORY_SIZE, type Step } from './guest.ts';

const WASM_PAGE = 65536;
/** Milliseconds after which a case is given up. */
const PATIENCE = 200;
/** Devices that a case uses are none. */
const MOST_EXITS = 100;

export class KvmSubject implements Subject {
  private readonly host: KvmHost;
  private readonly model: CpuModel;
  private readonly memory: Uint8Array;
  private readonly timer: bigint;
  private guest: { vm: Vm; vcpu: Vcpu; transfer: VcpuTransfer; first: VcpuState<'sregs'> } | null = null;

  constructor(host: KvmHost, model: CpuModel) {
    this.host = host;
    this.model = model;
    const pages = MEMORY_SIZE / WASM_PAGE;
    this.memory = new Uint8Array(new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer);
    this.timer = host.kvm.libc.createTimer(KICK_SIGNAL);
  }

  close(): void {
    this.host.kvm.libc.deleteTimer(this.timer);
    this.guest?.vm.close();
    this.host.close();
  }

  private makeGuest(): NonNullable<KvmSubject['guest']> {
    const { host, memory } = this;
    const vm = host.kvm.createVm();
    vm.createIrqchip();
    const hostAddress = vm.libc.addressOf(memory);
    vm.setMemory({ slot: 0, guestAddress: 0, size: LOW_SIZE, hostAddress });
    vm.setMemory({ slot: 1, guestAddress: HIGH_BASE, size: HIGH_SIZE, hostAddress: hostAddress + BigInt(LOW_SIZE) });
    const vcpu = vm.createVcpu(0);
    vcpu.setCpuid(cpuidEntries(this.model, ONE_CPU, 0, 1e9));
    acceptKicks(vm.libc, vcpu.fd);
    return { vm, vcpu, transfer: new VcpuTransfer(vcpu, host.msrs, host.hasSregs2), first: vcpu.get('sregs') };
  }

  /** Writes a state. @returns what is read then */
  writeAndRead(state: DeviceState): DeviceState {
    this.guest ??= this.makeGuest();
    const { vcpu, transfer } = this.guest;
    const apic: KernelVcpu['apic'] = { page: vcpu.get('lapic').regs, base: 0xfee00900n, tscDeadline: 0n };
    transfer.write({ cpu: cpuToKernel(state, vcpu.xsaveSize), apic, tsc: 0n });
    return cpuFromKernel(transfer.read(new Set()).cpu, powerOnState(0));
  }

  run({ state, memory }: Step): Outcome {
    this.memory.set(memory);
    this.guest ??= this.makeGuest();
    const { vcpu, transfer } = this.guest;
    // Page tables are others, which a TLB must not outlive: a mode without any comes in between.
    vcpu.set('sregs', this.guest.first);
    const apic: KernelVcpu['apic'] = { page: vcpu.get('lapic').regs, base: 0xfee00900n, tscDeadline: 0n };
    try {
      transfer.write({ cpu: cpuToKernel(state, vcpu.xsaveSize), apic, tsc: 0n });
      const ended = this.enter(vcpu);
      const result = cpuFromKernel(transfer.read(new Set()).cpu, state);
      if (ended === 'no end') this.forget();
      return { ended, state: result, memory: this.memory };
    } catch (error) {
      this.forget();
      return { ended: (error as Error).message, state, memory: this.memory };
    }
  }

  /** What has gone wrong may have left something behind. */
  private forget(): void {
    this.guest?.vm.close();
    this.guest = null;
  }

  private enter(vcpu: Vcpu): string {
    const { libc } = vcpu;
    libc.setTimer(this.timer, PATIENCE);
    try {
      for (let exits = 0; exits < MOST_EXITS; exits++) {
        const reason = vcpu.enter();
        if (reason === EXIT.KVM_EXIT_IO) {
          const { run } = vcpu;
          if (!run.ioIsOut) for (let i = 0; i < run.ioCount; i++) run.setIoValue(i, 0);
          else if (run.ioPort === END_PORT) {
            vcpu.complete();
            return 'end';
          }
        } else if (reason === EXIT.KVM_EXIT_SHUTDOWN) return 'shutdown';
        else if (reason === EXIT.KVM_EXIT_MMIO) {
          if (!vcpu.run.mmioIsWrite) vcpu.run.setMmioValue(0xffffffff, 0xffffffff);
        } else if (reason === EXIT.KVM_EXIT_INTR) return 'no end';
        else return reason === EXIT.KVM_EXIT_INTERNAL_ERROR ? describeExit(vcpu.run) : exitName(reason);
      }
      return 'no end';
    } finally {
      libc.setTimer(this.timer, 1e9);
      drainKicks(libc);
    }
  }
}

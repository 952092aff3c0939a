/** A small guest for tests: 64 KiB of memory at address 0 and one vCPU in real mode. */
import { existsSync } from 'node:fs';
import { protectedMode, realMode } from './guest-modes.ts';
import { loadLibc } from './libc.ts';
import { KVM_DEVICE, Kvm } from './system.ts';
import type { Vcpu } from './vcpu.ts';
import type { Vm } from './vm.ts';

/** Why tests that need a KVM cannot run here; false where they can. */
export const NO_KVM: string | false = (() => {
  if (!existsSync(KVM_DEVICE)) return `there is no ${KVM_DEVICE}`;
  try {
    new Kvm().close();
    return false;
  } catch (error) {
    return (error as Error).message;
  }
})();

export const GUEST_SIZE = 0x1_0000;
/** Where the guest's code begins. */
export const CODE = 0x1000;
export const STACK_TOP = 0x8000;

export interface TestGuest {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly memory: Uint8Array;
  close(): void;
}

/**
 * @param code for real mode, at CODE
 * @param prepare what is to happen before there is a vCPU
 */
export function makeGuest(code: readonly number[], prepare: (vm: Vm) => void = () => undefined): TestGuest {
  const libc = loadLibc();
  const kvm = new Kvm(libc);
  // One page of WebAssembly for the guest, one for what the vCPU shares with us.
  const { buffer } = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
  const memory = new Uint8Array(buffer, 0, GUEST_SIZE);
  memory.set(code, CODE);
  const vm = kvm.createVm();
  const close = (): void => {
    vm.close();
    kvm.close();
  };
  try {
    prepare(vm);
    vm.setMemory({ slot: 0, guestAddress: 0, size: GUEST_SIZE, hostAddress: libc.addressOf(memory) });
    const vcpu = vm.createVcpu(0, new Uint8Array(buffer, GUEST_SIZE, kvm.vcpuMapSize));
    startAt(vcpu, CODE);
    return { kvm, vm, vcpu, memory, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** @param mode of guest-modes.ts */
export function startAt(vcpu: Vcpu, address: number, mode = realMode): void {
  vcpu.set('sregs', mode(vcpu.get('sregs')));
  vcpu.set('regs', { rip: BigInt(address), rsp: BigInt(STACK_TOP), rflags: 2n });
}

/** ud2 */
export const UNDEFINED = [0x0f, 0x0b];

/** Has any exception be a triple fault. */
export function withoutInterruptTable(vcpu: Vcpu, address: number): void {
  startAt(vcpu, address, (sregs) => ({ ...protectedMode(sregs), idt: { base: 0n, limit: 0, padding: [0, 0, 0] } }));
}

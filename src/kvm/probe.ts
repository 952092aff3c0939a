/**
 * What kinds of guest code the host's KVM really runs. A KVM without the processor's help, or with a part of it, answers all
 * requests and fails only in the guest. So a tiny guest of each kind is run; it says that it got there by a port.
 */
import { describeUnavailable } from './availability.ts';
import { EXIT, exitName } from './constants.ts';
import {
  KERNEL_CODE,
  longMode,
  paged32,
  protectedMode,
  realMode,
  USER_BASE,
  userMode,
  writePageTables32,
  writePageTables64,
} from './guest-modes.ts';
import { acceptKicks } from './accept-kicks.ts';
import { drainKicks, KICK_SIGNAL } from './kick-signal.ts';
import { encodeCpuid } from './cpuid.ts';
import { demand } from './libc.ts';
import { Kvm } from './system.ts';
import type { Vcpu, VcpuState } from './vcpu.ts';
import type { Vm } from './vm.ts';

type Sregs = VcpuState<'sregs'>;

interface Kind {
  /** In a sentence. */
  readonly label: string;
  readonly code: readonly number[];
  readonly mode: (sregs: Sregs) => Sregs;
  readonly pageTables?: (memory: Uint8Array) => void;
  readonly msrs?: ReadonlyMap<number, bigint>;
}

const CODE = 0x1000;
const KERNEL_ENTRY = 0x2000;
const STACK = 0x8000;
const MEMORY_SIZE = 0x1_0000;
const PORT = 0x42;
/** mov al, 42h; out 42h, al */
const ARRIVED = [0xb0, PORT, 0xe6, PORT];
const FLOATING = [
  ...[0xdb, 0xe3], // fninit
  ...[0xd9, 0xe8], // fld1
  ...[0x0f, 0x57, 0xc0], // xorps xmm0, xmm0
];
const SYSCALL = [0x0f, 0x05];
const SYSRET = [0x48, 0x0f, 0x07];
/** IA32_STAR and IA32_LSTAR */
const FAST_CALLS = new Map([
  [0xc000_0081, (BigInt(USER_BASE) << 48n) | (BigInt(KERNEL_CODE) << 32n)],
  [0xc000_0082, BigInt(KERNEL_ENTRY)],
]);
/** Always set, and IOPL 3: programs may use ports. */
const RFLAGS = 0x3002n;
/** Milliseconds for a guest of a handful of instructions. One is enough, but where the host itself is emulated or busy. */
const PATIENCE = 500;

const KINDS = {
  realMode: { label: 'real mode', code: ARRIVED, mode: realMode },
  protectedMode: { label: 'protected mode', code: ARRIVED, mode: protectedMode },
  paging32: { label: '32-bit paging', code: ARRIVED, mode: paged32, pageTables: writePageTables32 },
  longMode: { label: 'long mode', code: ARRIVED, mode: longMode, pageTables: writePageTables64 },
  userMode: { label: 'ring 3', code: ARRIVED, mode: userMode, pageTables: writePageTables64 },
  fastCalls: {
    label: 'SYSCALL and SYSRET',
    code: [...SYSCALL, ...ARRIVED],
    mode: userMode,
    pageTables: writePageTables64,
    msrs: FAST_CALLS,
  },
  floatingPoint: {
    label: 'x87 and SSE in ring 0',
    code: [...FLOATING, ...ARRIVED],
    mode: longMode,
    pageTables: writePageTables64,
  },
} satisfies Record<string, Kind>;
export type GuestKind = keyof typeof KINDS;

export type KvmProbe =
  | { readonly available: false /** One line, with what to do. */; readonly reason: string }
  | {
      readonly available: true;
      /** Whether each kind of guest code runs. */
      readonly runs: Readonly<Record<GuestKind, boolean>>;
      /** What became of those that do not run, e.g. "KVM_EXIT_INTERNAL_ERROR". */
      readonly failures: Readonly<Partial<Record<GuestKind, string>>>;
      /** One line about what is missing; null when nothing is. */
      readonly missing: string | null;
    };

/** Takes some milliseconds. Does not throw, and leaves nothing open. */
export function probeKvm(): KvmProbe {
  let room: ProbeRoom | null = null;
  try {
    room = new ProbeRoom();
    const failures: Partial<Record<GuestKind, string>> = {};
    for (const [name, kind] of Object.entries<Kind>(KINDS)) {
      const failure = room.tryGuest(kind);
      if (failure !== null) failures[name as GuestKind] = failure;
    }
    const names = Object.keys(KINDS) as GuestKind[];
    return {
      available: true,
      runs: Object.fromEntries(names.map((name) => [name, !(name in failures)])) as Record<GuestKind, boolean>,
      failures,
      missing: describeMissing(names.filter((name) => name in failures)),
    };
  } catch (error) {
    return { available: false, reason: describeUnavailable(error) };
  } finally {
    room?.close();
  }
}

function describeMissing(names: readonly GuestKind[]): string | null {
  if (names.length === 0) return null;
  return `this KVM does not run ${names.map((name) => KINDS[name].label).join(', ')}`;
}

export const labelOf = (kind: GuestKind): string => KINDS[kind].label;

/** One guest after the other, each with a vCPU of its own; a VM serves until a guest fails in it. */
class ProbeRoom {
  private readonly kvm: Kvm;
  private readonly memory: Uint8Array;
  private readonly cpuid: Uint8Array;
  private vm: Vm | null = null;
  private vcpus = 0;

  /** @throws SystemCallError */
  constructor() {
    this.kvm = new Kvm();
    try {
      this.memory = new Uint8Array(new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer, 0, MEMORY_SIZE);
      this.cpuid = encodeCpuid(this.kvm.supportedCpuid());
    } catch (error) {
      this.kvm.close();
      throw error;
    }
  }

  close(): void {
    this.vm?.close();
    this.kvm.close();
  }

  /** @returns what went wrong, null when the guest got where it should @throws SystemCallError where there can be no VM */
  tryGuest({ code, mode, pageTables, msrs }: Kind): string | null {
    const { memory } = this;
    memory.fill(0);
    memory.set(code, CODE);
    memory.set(SYSRET, KERNEL_ENTRY);
    pageTables?.(memory);
    const vm = (this.vm ??= this.makeVm());
    let failure: string | null;
    try {
      const vcpu = vm.createVcpu(this.vcpus++);
      vcpu.transfer('KVM_SET_CPUID2', this.cpuid);
      vcpu.set('sregs', mode(vcpu.get('sregs')));
      vcpu.set('regs', { rip: BigInt(CODE), rsp: BigInt(STACK), rflags: RFLAGS });
      const refused = msrs === undefined ? [] : vcpu.setMsrs(msrs);
      failure = refused.length > 0 ? 'MSRs are refused' : enterWithin(vcpu, PATIENCE);
    } catch (error) {
      failure = (error as Error).message;
    }
    if (failure !== null) {
      vm.close();
      this.vm = null;
    }
    return failure;
  }

  private makeVm(): Vm {
    const vm = this.kvm.createVm();
    this.vcpus = 0;
    try {
      vm.setMemory({ slot: 0, guestAddress: 0, size: MEMORY_SIZE, hostAddress: vm.libc.addressOf(this.memory) });
      return vm;
    } catch (error) {
      vm.close();
      throw error;
    }
  }
}

function enterWithin(vcpu: Vcpu, milliseconds: number): string | null {
  const { libc } = vcpu;
  acceptKicks(libc, vcpu.fd);
  const timer = libc.createTimer(KICK_SIGNAL);
  demand(Number(timer), 'timer_create');
  libc.setTimer(timer, milliseconds);
  try {
    const reason = vcpu.enter();
    if (reason === EXIT.KVM_EXIT_IO && vcpu.run.ioIsOut && vcpu.run.ioPort === PORT) return null;
    return reason === EXIT.KVM_EXIT_INTR ? 'does not get there' : exitName(reason);
  } finally {
    libc.deleteTimer(timer);
    drainKicks(libc);
  }
}

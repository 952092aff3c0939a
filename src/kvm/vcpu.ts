/** A virtual CPU: running it, and its state. */
import { EXIT, NUMBERS } from './constants.ts';
import { Descriptor } from './descriptor.ts';
import { type LayoutOf, REQUESTS } from './ioctls.ts';
import { drainKicks } from './kick-signal.ts';
import { type KVM_CPUID_ENTRY2, KVM_MSR_ENTRY, KVM_MSRS } from './layouts.ts';
import { EAGAIN, EINTR, type Libc, PAGE_SIZE, SystemCallError } from './libc.ts';
import { RunPage } from './run-page.ts';
import { decodeList, encode, type Patch, type Value } from './struct.ts';
import { type CpuidEntry, encodeCpuid, encodeMsrs, fetchCpuid } from './cpuid.ts';

/** State that is one structure, and the requests that read and write it. */
const STATE = {
  regs: ['KVM_GET_REGS', 'KVM_SET_REGS'],
  sregs: ['KVM_GET_SREGS', 'KVM_SET_SREGS'],
  sregs2: ['KVM_GET_SREGS2', 'KVM_SET_SREGS2'],
  fpu: ['KVM_GET_FPU', 'KVM_SET_FPU'],
  xcrs: ['KVM_GET_XCRS', 'KVM_SET_XCRS'],
  debugregs: ['KVM_GET_DEBUGREGS', 'KVM_SET_DEBUGREGS'],
  events: ['KVM_GET_VCPU_EVENTS', 'KVM_SET_VCPU_EVENTS'],
  mpState: ['KVM_GET_MP_STATE', 'KVM_SET_MP_STATE'],
  lapic: ['KVM_GET_LAPIC', 'KVM_SET_LAPIC'],
} as const;
export type StateName = keyof typeof STATE;
type StateLayout<N extends StateName> = LayoutOf<(typeof STATE)[N][0]>;
export type VcpuState<N extends StateName> = Value<StateLayout<N>>;

/** A hardware breakpoint. */
export interface Breakpoint {
  readonly address: bigint;
  readonly on: 'execute' | 'write' | 'access';
  /** Bytes: 1, 2, 4 or 8; 1 for `execute`. */
  readonly length: 1 | 2 | 4 | 8;
}

export interface GuestDebug {
  readonly singleStep?: boolean;
  /** At most four; the guest's own debug registers have no effect while there are any. */
  readonly breakpoints?: readonly Breakpoint[];
  /** INT3 leaves to us instead of raising #BP. */
  readonly softwareBreakpoints?: boolean;
  /** While single-stepping, no interrupts. */
  readonly blockInterrupts?: boolean;
}

/** MSRs that were refused, in the order asked. */
type Refused = readonly number[];

const RUN = REQUESTS.KVM_RUN.number;
/** Fields of DR7 (Intel SDM, volume 3, 18.2.4). */
const DR7_CONDITION = { execute: 0, write: 1, access: 3 };
const DR7_LENGTH = { 1: 0, 2: 1, 4: 3, 8: 2 };
const DR7_ALWAYS = 1 << 10;
const DR7_EXACT = 1 << 9;

/** Where a vCPU's shared pages go: a page-aligned part of some memory, or null for memory of their own. */
export type RunPlace = Uint8Array | null;

export class Vcpu extends Descriptor {
  /** Why it left, in place. */
  run: RunPage;
  private readonly place: RunPlace;
  private readonly mapped: bigint;
  private readonly mapSize: number;
  /** Bytes of its XSAVE area. */
  readonly xsaveSize: number;

  /**
   * Takes the descriptor over, also when it throws.
   * @param xsaveSize bytes of its XSAVE area
   * @throws RangeError when the place does not fit
   * @throws SystemCallError
   */
  constructor(libc: Libc, fd: number, mapSize: number, xsaveSize: number, place: RunPlace) {
    super(libc, fd);
    this.place = place;
    this.mapSize = mapSize;
    this.xsaveSize = xsaveSize;
    try {
      this.mapped = this.map();
    } catch (error) {
      super.close();
      throw error;
    }
    this.run = new RunPage(place ?? libc.view(this.mapped, mapSize));
  }

  private map(): bigint {
    const { libc, place, mapSize } = this;
    const at = place === null ? null : libc.addressOf(place);
    if (at !== null && (place!.length !== mapSize || at % BigInt(PAGE_SIZE) !== 0n)) {
      throw new RangeError(`a vCPU's shared pages need ${mapSize} bytes at a multiple of ${PAGE_SIZE}`);
    }
    const mapped = libc.mapFile(this.fd, mapSize, at);
    if (mapped < 0n) throw new SystemCallError('mmap of a vCPU', Number(-mapped));
    return mapped;
  }

  override close(): void {
    if (this.fd < 0) return;
    // Nothing may look at pages that are not there any more: a given place becomes ordinary memory, and ours a copy.
    if (this.place === null) {
      this.run = new RunPage(this.run.bytes.slice());
      this.libc.unmap(this.mapped, this.mapSize);
    } else {
      this.libc.mapAnonymous(this.mapped, this.mapSize);
    }
    super.close();
  }

  /**
   * Runs the guest until there is something to do, which is then in `run`.
   * @returns KVM_EXIT_...; KVM_EXIT_INTR when a kick or `immediate_exit` made it leave
   * @throws SystemCallError when KVM cannot go on at all
   */
  enter(): number {
    return enterGuest(this.libc, this.fd, this.run);
  }

  /**
   * Carries the rest of the last exit's instruction out without running any other: before its state is read
   * to be saved, and before it is changed.
   * @returns KVM_EXIT_INTR, or another exit of the same instruction, which is to be answered, too
   */
  complete(): number {
    this.run.setImmediateExit(true);
    try {
      return this.enter();
    } finally {
      this.run.setImmediateExit(false);
    }
  }

  get<N extends StateName>(name: N): VcpuState<N> {
    return this.fetch(STATE[name][0]) as unknown as VcpuState<N>;
  }

  /** All of it: fields that are left out become zero. @throws SystemCallError */
  set<N extends StateName>(name: N, state: Patch<StateLayout<N>>): void {
    this.put(STATE[name][1], state as never);
  }

  /** The XSAVE area in the processor's standard format. */
  getXsave(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(new ArrayBuffer(this.xsaveSize));
    this.transfer(this.xsaveSize > REQUESTS.KVM_GET_XSAVE.layout.size ? 'KVM_GET_XSAVE2' : 'KVM_GET_XSAVE', bytes);
    return bytes;
  }

  /** @param area at most as long as `getXsave` gives it */
  setXsave(area: Uint8Array): void {
    const bytes = new Uint8Array(new ArrayBuffer(this.xsaveSize));
    bytes.set(area);
    this.transfer('KVM_SET_XSAVE', bytes);
  }

  getCpuid(): CpuidEntry[] {
    return fetchCpuid(this, 'KVM_GET_CPUID2');
  }

  /** Before the vCPU first runs. @throws SystemCallError */
  setCpuid(entries: readonly Patch<typeof KVM_CPUID_ENTRY2>[]): void {
    this.transfer('KVM_SET_CPUID2', encodeCpuid(entries));
  }

  /** @returns values of those that KVM knows, and the others */
  getMsrs(indices: readonly number[]): { readonly values: Map<number, bigint>; readonly refused: Refused } {
    const values = new Map<number, bigint>();
    const refused = this.eachMsr(
      indices.map((index) => ({ index })),
      'KVM_GET_MSRS',
      (bytes, count) => {
        for (const { index, data } of decodeList(KVM_MSRS, KVM_MSR_ENTRY, bytes, count)) values.set(index, data);
      },
    );
    return { values, refused };
  }

  /** @returns those that KVM does not know, or not with this value */
  setMsrs(values: ReadonlyMap<number, bigint>): Refused {
    return this.eachMsr(
      Array.from(values, ([index, data]) => ({ index, data })),
      'KVM_SET_MSRS',
    );
  }

  /** The kernel stops at the first MSR that it refuses: goes on behind it. */
  private eachMsr(
    entries: readonly { readonly index: number; readonly data?: bigint }[],
    name: 'KVM_GET_MSRS' | 'KVM_SET_MSRS',
    accept?: (bytes: Uint8Array, count: number) => void,
  ): Refused {
    const refused: number[] = [];
    for (let at = 0; at < entries.length; ) {
      const bytes = encodeMsrs(entries.slice(at));
      const count = this.transfer(name, bytes);
      accept?.(bytes, count);
      at += count;
      if (at < entries.length) refused.push(entries[at++]!.index);
    }
    return refused;
  }

  /** Which events leave with KVM_EXIT_DEBUG. @throws RangeError at more than four breakpoints */
  setDebug(debug: GuestDebug | null): void {
    const breakpoints = debug?.breakpoints ?? [];
    if (breakpoints.length > 4)
      throw new RangeError(`${breakpoints.length} hardware breakpoints, more than the processor's four`);
    let control = debug === null ? 0 : NUMBERS.KVM_GUESTDBG_ENABLE;
    if (debug?.singleStep) control |= NUMBERS.KVM_GUESTDBG_SINGLESTEP;
    if (debug?.softwareBreakpoints) control |= NUMBERS.KVM_GUESTDBG_USE_SW_BP;
    if (debug?.blockInterrupts) control |= NUMBERS.KVM_GUESTDBG_BLOCKIRQ;
    if (breakpoints.length > 0) control |= NUMBERS.KVM_GUESTDBG_USE_HW_BP;
    const debugreg = [0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n];
    breakpoints.forEach(({ address }, index) => (debugreg[index] = address));
    if (breakpoints.length > 0) debugreg[7] = BigInt(breakpointControl(breakpoints));
    this.put('KVM_SET_GUEST_DEBUG', { control, arch: { debugreg } });
  }

  /** Without an interrupt chip in the kernel. @throws SystemCallError, EEXIST when one waits already */
  interrupt(vector: number): void {
    this.put('KVM_INTERRUPT', { irq: vector });
  }

  nmi(): void {
    this.call('KVM_NMI');
  }

  /** Frequency of the time-stamp counter, in kHz. */
  get tscKhz(): number {
    return this.call('KVM_GET_TSC_KHZ');
  }

  /** @throws SystemCallError where the processor cannot scale it */
  set tscKhz(value: number) {
    this.call('KVM_SET_TSC_KHZ', value);
  }

  /** What the guest's time-stamp counter is ahead of the processor's; null where the kernel does not say. */
  get tscOffset(): bigint | null {
    const value = new BigUint64Array(1);
    return this.deviceAttribute('KVM_GET_DEVICE_ATTR', value) ? value[0]! : null;
  }

  /** @returns false where the kernel does not take it */
  setTscOffset(value: bigint): boolean {
    return this.deviceAttribute('KVM_SET_DEVICE_ATTR', BigUint64Array.of(value));
  }

  private deviceAttribute(name: 'KVM_GET_DEVICE_ATTR' | 'KVM_SET_DEVICE_ATTR', value: BigUint64Array): boolean {
    const addr = this.libc.addressOf(new Uint8Array(value.buffer));
    const { KVM_VCPU_TSC_CTRL: group, KVM_VCPU_TSC_OFFSET: attr } = NUMBERS;
    return this.tryTransfer(name, encode(REQUESTS[name].layout, { group, attr: BigInt(attr), addr })) >= 0;
  }

  /** Tells a guest's watchdogs that it stood still. @returns whether it has a clock that can tell it */
  tellPaused(): boolean {
    return this.libc.ioctl(this.fd, REQUESTS.KVM_KVMCLOCK_CTRL.number, 0n) >= 0;
  }

  /** Physical address of a linear one by the guest's page tables, null where there is none. */
  translate(linear: bigint): bigint | null {
    const { valid, physical_address } = this.fetch('KVM_TRANSLATE', { linear_address: linear });
    return valid === 0 ? null : physical_address;
  }
}

/** See `Vcpu.enter`. @param run pages that belong to the vCPU */
export function enterGuest(libc: Libc, fd: number, run: RunPage): number {
  const result = libc.ioctl(fd, RUN, 0n);
  if (result >= 0) return run.reason;
  if (result === -EINTR) drainKicks(libc);
  // EAGAIN: the vCPU was woken from waiting for its start-up.
  else if (result !== -EAGAIN) throw new SystemCallError('KVM_RUN', -result);
  return EXIT.KVM_EXIT_INTR;
}

function breakpointControl(breakpoints: readonly Breakpoint[]): number {
  return (
    breakpoints.reduce(
      (dr7, { on, length }, index) =>
        dr7 | (2 << (2 * index)) | ((DR7_CONDITION[on] | (DR7_LENGTH[length] << 2)) << (16 + 4 * index)),
      DR7_ALWAYS | DR7_EXACT,
    ) >>> 0
  );
}

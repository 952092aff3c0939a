/**
 * The pages that a vCPU shares with its user: why KVM_RUN returned, in place, without a copy.
 *
 *     0     struct kvm_run (layouts.ts): control, exit reason, and what belongs to it
 *     4096  data of port accesses (`io.data_offset`)
 *     8192  ring of coalesced writes, the same one for all vCPUs of a VM
 */
import { NUMBERS } from './constants.ts';
import { KVM_COALESCED_MMIO, KVM_COALESCED_MMIO_RING, KVM_RUN_EXIT, KVM_RUN_PAGE } from './layouts.ts';
import { PAGE_SIZE } from './libc.ts';
import { read, type Value, viewOf } from './struct.ts';

const EXIT_AT = KVM_RUN_PAGE.fields.exit.offset;
const { io, mmio, msr, debug, internal, system_event, hyperv, eoi } = KVM_RUN_EXIT.fields;

const IMMEDIATE_EXIT = KVM_RUN_PAGE.fields.immediate_exit.offset;
const INTERRUPT_WINDOW = KVM_RUN_PAGE.fields.request_interrupt_window.offset;
const READY_FOR_INTERRUPT = KVM_RUN_PAGE.fields.ready_for_interrupt_injection.offset;
const IF_FLAG = KVM_RUN_PAGE.fields.if_flag.offset;
const FLAGS_16 = KVM_RUN_PAGE.fields.flags.offset >> 1;
const REASON_32 = KVM_RUN_PAGE.fields.exit_reason.offset >> 2;
const CR8_32 = KVM_RUN_PAGE.fields.cr8.offset >> 2;

const IO_AT = EXIT_AT + io.offset;
const IO_DIRECTION = IO_AT + io.type.fields.direction.offset;
const IO_SIZE = IO_AT + io.type.fields.size.offset;
const IO_PORT_16 = (IO_AT + io.type.fields.port.offset) >> 1;
const IO_COUNT_32 = (IO_AT + io.type.fields.count.offset) >> 2;
const IO_DATA_32 = (IO_AT + io.type.fields.data_offset.offset) >> 2;

const MMIO_AT = EXIT_AT + mmio.offset;
const MMIO_ADDRESS_32 = (MMIO_AT + mmio.type.fields.phys_addr.offset) >> 2;
const MMIO_DATA = MMIO_AT + mmio.type.fields.data.offset;
const MMIO_LENGTH_32 = (MMIO_AT + mmio.type.fields.len.offset) >> 2;
const MMIO_WRITE = MMIO_AT + mmio.type.fields.is_write.offset;

const MSR_AT = EXIT_AT + msr.offset;
const MSR_ERROR = MSR_AT + msr.type.fields.error.offset;
const MSR_REASON_32 = (MSR_AT + msr.type.fields.reason.offset) >> 2;
const MSR_INDEX_32 = (MSR_AT + msr.type.fields.index.offset) >> 2;
const MSR_DATA = MSR_AT + msr.type.fields.data.offset;

const EVENT_32 = (EXIT_AT + system_event.offset) >> 2;
const HYPERV_AT = EXIT_AT + hyperv.offset;
const HYPERV_RESULT =
  HYPERV_AT +
  hyperv.type.fields.u.offset +
  hyperv.type.fields.u.type.fields.hcall.offset +
  hyperv.type.fields.u.type.fields.hcall.type.fields.result.offset;
const EOI_VECTOR = EXIT_AT + eoi.offset;
const SUBERROR_32 = (EXIT_AT + internal.offset) >> 2;
const TWO_32 = 2 ** 32;

const RING_AT = NUMBERS.KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE;
const RING_FIRST_32 = (RING_AT + KVM_COALESCED_MMIO_RING.fields.first.offset) >> 2;
const RING_LAST_32 = (RING_AT + KVM_COALESCED_MMIO_RING.fields.last.offset) >> 2;
const RING_ENTRIES = Math.floor((PAGE_SIZE - KVM_COALESCED_MMIO_RING.size) / KVM_COALESCED_MMIO.size);
const ENTRY_32 = KVM_COALESCED_MMIO.size >> 2;
const ENTRIES_32 = (RING_AT + KVM_COALESCED_MMIO_RING.size) >> 2;
const { phys_addr, len, pio, data } = KVM_COALESCED_MMIO.fields;

/** A write that KVM kept for later; the same object for each. */
export interface CoalescedWrite {
  /** Of memory, or a port's number. */
  address: number;
  /** Bytes, 1, 2, 4 or 8. */
  length: number;
  port: boolean;
  low: number;
  /** Bits 63-32. */
  high: number;
}

export class RunPage {
  readonly bytes: Uint8Array;
  private readonly u16: Uint16Array;
  private readonly u32: Uint32Array;
  private readonly s32: Int32Array;
  private readonly coalesced: CoalescedWrite = { address: 0, length: 0, port: false, low: 0, high: 0 };

  /** @param bytes what is mapped of the vCPU */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.u16 = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length >> 1);
    this.u32 = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    this.s32 = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  }

  /** KVM_EXIT_... (constants.ts). */
  get reason(): number {
    return this.u32[REASON_32]!;
  }

  /** KVM_RUN_X86_... flags of the state in which the vCPU left. */
  get flags(): number {
    return this.u16[FLAGS_16]!;
  }

  /** Makes KVM_RUN return at once, when it is called or as soon as it is interrupted; stays as it was set. */
  setImmediateExit(on: boolean): void {
    this.bytes[IMMEDIATE_EXIT] = on ? 1 : 0;
  }

  /** Without an interrupt chip in the kernel: leave as soon as the guest would take an interrupt. */
  setInterruptWindow(on: boolean): void {
    this.bytes[INTERRUPT_WINDOW] = on ? 1 : 0;
  }

  get readyForInterrupt(): boolean {
    return this.bytes[READY_FOR_INTERRUPT] !== 0;
  }

  /** RFLAGS.IF as the vCPU left. */
  get interruptFlag(): boolean {
    return this.bytes[IF_FLAG] !== 0;
  }

  /** Task priority, where the kernel has no interrupt chip. */
  get cr8(): number {
    return this.u32[CR8_32]!;
  }

  set cr8(value: number) {
    this.u32[CR8_32] = value;
  }

  // KVM_EXIT_IO

  get ioIsOut(): boolean {
    return this.bytes[IO_DIRECTION] === NUMBERS.KVM_EXIT_IO_OUT;
  }

  /** Bytes of one access: 1, 2 or 4. */
  get ioSize(): number {
    return this.bytes[IO_SIZE]!;
  }

  get ioPort(): number {
    return this.u16[IO_PORT_16]!;
  }

  /** Accesses, all to the same port: several when the instruction has a REP prefix. */
  get ioCount(): number {
    return this.u32[IO_COUNT_32]!;
  }

  /** What the guest writes. @param index less than `ioCount` */
  ioValue(index: number): number {
    const at = this.u32[IO_DATA_32]!;
    switch (this.bytes[IO_SIZE]) {
      case 1:
        return this.bytes[at + index]!;
      case 2:
        return this.u16[(at >> 1) + index]!;
      default:
        return this.u32[(at >> 2) + index]!;
    }
  }

  /** Answers what the guest reads. @param index less than `ioCount` */
  setIoValue(index: number, value: number): void {
    const at = this.u32[IO_DATA_32]!;
    switch (this.bytes[IO_SIZE]) {
      case 1:
        this.bytes[at + index] = value;
        break;
      case 2:
        this.u16[(at >> 1) + index] = value;
        break;
      default:
        this.u32[(at >> 2) + index] = value;
    }
  }

  // KVM_EXIT_MMIO

  /** Guest-physical, below 2^52. */
  get mmioAddress(): number {
    return this.u32[MMIO_ADDRESS_32]! + this.u32[MMIO_ADDRESS_32 + 1]! * TWO_32;
  }

  /** Bytes, at most 8. */
  get mmioLength(): number {
    return this.u32[MMIO_LENGTH_32]!;
  }

  get mmioIsWrite(): boolean {
    return this.bytes[MMIO_WRITE] !== 0;
  }

  /** Bits 31-0 of what the guest writes; bytes beyond the access are undefined. */
  get mmioLow(): number {
    return this.u32[MMIO_DATA >> 2]!;
  }

  get mmioHigh(): number {
    return this.u32[(MMIO_DATA >> 2) + 1]!;
  }

  /** Answers what the guest reads. */
  setMmioValue(low: number, high: number): void {
    this.u32[MMIO_DATA >> 2] = low;
    this.u32[(MMIO_DATA >> 2) + 1] = high;
  }

  // KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR

  get msrIndex(): number {
    return this.u32[MSR_INDEX_32]!;
  }

  /** One of KVM_MSR_EXIT_REASON_.... */
  get msrReason(): number {
    return this.u32[MSR_REASON_32]!;
  }

  get msrValue(): bigint {
    return viewOf(this.bytes).getBigUint64(MSR_DATA, true);
  }

  /** Answers RDMSR. */
  set msrValue(value: bigint) {
    viewOf(this.bytes).setBigUint64(MSR_DATA, value, true);
  }

  /** Has the instruction raise #GP. */
  refuseMsr(): void {
    this.bytes[MSR_ERROR] = 1;
  }

  // KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_HYPERV, KVM_EXIT_IOAPIC_EOI

  /** KVM_SYSTEM_EVENT_.... */
  get systemEvent(): number {
    return this.u32[EVENT_32]!;
  }

  /** KVM_EXIT_HYPERV_.... */
  get hypervType(): number {
    return this.u32[HYPERV_AT >> 2]!;
  }

  /** Answers a hypercall of Hyper-V's. */
  set hypercallResult(value: bigint) {
    viewOf(this.bytes).setBigUint64(HYPERV_RESULT, value, true);
  }

  /** Vector of the interrupt that the guest has ended. */
  get eoiVector(): number {
    return this.bytes[EOI_VECTOR]!;
  }

  // KVM_EXIT_DEBUG, KVM_EXIT_INTERNAL_ERROR, and whatever else is rare

  get debug(): Value<typeof debug.type>['arch'] {
    return read(debug.type, viewOf(this.bytes), EXIT_AT).arch;
  }

  /** KVM_INTERNAL_ERROR_.... */
  get suberror(): number {
    return this.u32[SUBERROR_32]!;
  }

  /** Everything that may belong to the exit, whatever its reason; a copy. */
  get exit(): Value<typeof KVM_RUN_EXIT> {
    return read(KVM_RUN_EXIT, viewOf(this.bytes), EXIT_AT);
  }

  /** Takes the writes that KVM kept for later, oldest first. Before any other access of the same device is carried out. */
  drainCoalesced(take: (write: CoalescedWrite) => void): void {
    const { s32, u32, coalesced } = this;
    for (;;) {
      const first = u32[RING_FIRST_32]! % RING_ENTRIES;
      // The kernel fills an entry before it moves `last`.
      if (first === Atomics.load(s32, RING_LAST_32)) return;
      const at = ENTRIES_32 + first * ENTRY_32;
      coalesced.address = u32[at + (phys_addr.offset >> 2)]! + u32[at + (phys_addr.offset >> 2) + 1]! * TWO_32;
      coalesced.length = u32[at + (len.offset >> 2)]!;
      coalesced.port = u32[at + (pio.offset >> 2)] !== 0;
      coalesced.low = u32[at + (data.offset >> 2)]!;
      coalesced.high = u32[at + (data.offset >> 2) + 1]!;
      Atomics.store(s32, RING_FIRST_32, (first + 1) % RING_ENTRIES);
      take(coalesced);
    }
  }
}

/** A virtual machine: its memory, its interrupt chips, and its vCPUs. */
import { NUMBERS } from './constants.ts';
import { Descriptor } from './descriptor.ts';
import {
  KVM_IRQ_LEVEL,
  KVM_IRQ_ROUTING,
  KVM_IRQ_ROUTING_ENTRY,
  KVM_IRQCHIP,
  KVM_MSI,
  type KVM_CLOCK_DATA,
  type KVM_PIT_STATE2,
} from './layouts.ts';
import type { Libc } from './libc.ts';
import { encode, encodeList, type Patch, type Value } from './struct.ts';
import { type RunPlace, Vcpu } from './vcpu.ts';

/** Memory that the guest sees without leaving. */
export interface MemorySlot {
  /** Its number, below KVM_CAP_NR_MEMSLOTS. */
  readonly slot: number;
  /** Where the guest sees it; a multiple of the page size, like `size`. */
  readonly guestAddress: number;
  readonly size: number;
  /** Where it is in this process (`Libc.addressOf`). */
  readonly hostAddress: bigint;
  /** The guest's writes leave as MMIO. */
  readonly readOnly?: boolean;
  /** `dirtyPages` tells what has been written. */
  readonly logged?: boolean;
}

/** What a GSI leads to. */
export type Route =
  | { readonly gsi: number; readonly chip: 'master' | 'slave' | 'ioapic'; readonly pin: number }
  | { readonly gsi: number; readonly address: bigint; readonly data: number };

/** Writes of one value to one place, which signal an eventfd instead of leaving. */
export interface Doorbell {
  readonly port: boolean;
  readonly address: number;
  /** Bytes of the access: 1, 2, 4 or 8; 0 for any, of which the value is not looked at. */
  readonly length: 0 | 1 | 2 | 4 | 8;
  /** null for any value. */
  readonly value: bigint | null;
  readonly eventfd: number;
}

/** MSRs from `base` on. */
export interface MsrRange {
  readonly base: number;
  /** A bit for each MSR: 1 allows the accesses that the range is about, 0 has them denied. */
  readonly allowed: Uint8Array;
  readonly count: number;
  readonly reads: boolean;
  readonly writes: boolean;
}

const CHIPS = {
  master: NUMBERS.KVM_IRQCHIP_PIC_MASTER,
  slave: NUMBERS.KVM_IRQCHIP_PIC_SLAVE,
  ioapic: NUMBERS.KVM_IRQCHIP_IOAPIC,
};
export type ChipName = keyof typeof CHIPS;

const PAGES_A_WORD = 64;

export class Vm extends Descriptor {
  private readonly vcpus = new Set<Vcpu>();
  private readonly vcpuMapSize: number;
  // Arguments of what is asked often: struct kvm_irq_level and struct kvm_msi.
  private readonly level = new Uint32Array(encode(KVM_IRQ_LEVEL, {}).buffer);
  private readonly levelBytes = new Uint8Array(this.level.buffer);
  private readonly msi = new Uint32Array(encode(KVM_MSI, {}).buffer);
  private readonly msiBytes = new Uint8Array(this.msi.buffer);

  /** Of the last MSR filter: only their addresses are told to the kernel. */
  private bitmaps: readonly Uint8Array[] = [];

  /** Takes the descriptor over. @param vcpuMapSize bytes that are mapped of each vCPU */
  constructor(libc: Libc, fd: number, vcpuMapSize: number) {
    super(libc, fd);
    this.vcpuMapSize = vcpuMapSize;
  }

  /** With all of its vCPUs. The kernel takes 15 ms to take a VM apart. */
  override close(beside = false): void {
    for (const vcpu of this.vcpus) vcpu.close();
    this.vcpus.clear();
    super.close(beside);
  }

  /**
   * @param id its APIC ID
   * @param place where its shared pages go: `Kvm.vcpuMapSize` bytes
   * @throws SystemCallError
   */
  createVcpu(id: number, place: RunPlace = null): Vcpu {
    const xsaveSize = Math.max(4096, this.check('KVM_CAP_XSAVE2'));
    const vcpu = new Vcpu(this.libc, this.call('KVM_CREATE_VCPU', id), this.vcpuMapSize, xsaveSize, place);
    this.vcpus.add(vcpu);
    return vcpu;
  }

  // Memory

  /** Adds a slot, or changes its flags or its place. @throws SystemCallError, e.g. EEXIST where slots overlap */
  setMemory({ slot, guestAddress, size, hostAddress, readOnly, logged }: MemorySlot): void {
    this.put('KVM_SET_USER_MEMORY_REGION', {
      slot,
      flags: (readOnly ? NUMBERS.KVM_MEM_READONLY : 0) | (logged ? NUMBERS.KVM_MEM_LOG_DIRTY_PAGES : 0),
      guest_phys_addr: BigInt(guestAddress),
      memory_size: BigInt(size),
      userspace_addr: hostAddress,
    });
  }

  removeMemory(slot: number): void {
    this.put('KVM_SET_USER_MEMORY_REGION', { slot });
  }

  /**
   * Pages of a logged slot that were written since the last time (but see `keepWrites`).
   * @param pages of the slot
   * @returns bit n is page n; in whole words of 64 bits
   */
  dirtyPages(slot: number, pages: number): Uint8Array<ArrayBuffer> {
    const bitmap = new Uint8Array(new ArrayBuffer(Math.ceil(pages / PAGES_A_WORD) * 8));
    this.put('KVM_GET_DIRTY_LOG', { slot, dirty_bitmap: this.libc.addressOf(bitmap) });
    return bitmap;
  }

  /**
   * From then on `dirtyPages` leaves pages as written until `forgetWrites` says that they have been seen to: fewer faults for
   * the guest, and a log that can be read in pieces. Before any slot is logged.
   * @throws SystemCallError where the kernel has only the other way
   */
  keepWrites(): void {
    this.enable('KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2', 1);
  }

  /**
   * Writes to these pages count anew.
   * @param firstPage a multiple of 64
   * @param pages a multiple of 64, or up to the end of the slot
   * @param bitmap of these pages, as `dirtyPages` gives it: only pages whose bits are set are meant
   */
  forgetWrites(slot: number, firstPage: number, pages: number, bitmap: Uint8Array<ArrayBuffer>): void {
    this.put('KVM_CLEAR_DIRTY_LOG', {
      slot,
      num_pages: pages,
      first_page: BigInt(firstPage),
      dirty_bitmap: this.libc.addressOf(bitmap),
    });
  }

  /**
   * Pages that Intel's processors need for real mode, anywhere below 4 GiB where the guest has nothing.
   * Before the first vCPU.
   * @param tss three pages
   * @param identityMap one page
   */
  reservePages(tss: number, identityMap: number): void {
    this.put('KVM_SET_IDENTITY_MAP_ADDR', { value: BigInt(identityMap) });
    this.call('KVM_SET_TSS_ADDR', tss);
  }

  /** @throws SystemCallError */
  coalesce(port: boolean, address: number, size: number): void {
    this.put('KVM_REGISTER_COALESCED_MMIO', { addr: BigInt(address), size, pio: port ? 1 : 0 });
  }

  uncoalesce(port: boolean, address: number, size: number): void {
    this.put('KVM_UNREGISTER_COALESCED_MMIO', { addr: BigInt(address), size, pio: port ? 1 : 0 });
  }

  // Interrupts

  /** Two 8259s, an I/O APIC and a local APIC for each vCPU, in the kernel. Before the first vCPU. */
  createIrqchip(): void {
    this.call('KVM_CREATE_IRQCHIP');
  }

  /** Only the local APICs in the kernel. @param pins of the I/O APIC outside it, whose routes are the first ones */
  createSplitIrqchip(pins: number): void {
    this.enable('KVM_CAP_SPLIT_IRQCHIP', pins);
  }

  /** The interval timer in the kernel, and port 61h with it, which guests measure the time-stamp counter by. */
  createPit(): void {
    this.put('KVM_CREATE_PIT2', { flags: NUMBERS.KVM_PIT_SPEAKER_DUMMY });
  }

  /** Whether ticks that the guest missed are made up for. */
  setPitReinjection(on: boolean): void {
    const bytes = new Uint8Array(new ArrayBuffer(32));
    bytes[0] = on ? 1 : 0;
    this.transfer('KVM_REINJECT_CONTROL', bytes);
  }

  /** In place of all routes that there were. */
  setRoutes(routes: readonly Route[]): void {
    const entries = routes.map(
      (route): Patch<typeof KVM_IRQ_ROUTING_ENTRY> =>
        'chip' in route
          ? {
              gsi: route.gsi,
              type: NUMBERS.KVM_IRQ_ROUTING_IRQCHIP,
              u: { irqchip: { irqchip: CHIPS[route.chip], pin: route.pin } },
            }
          : {
              gsi: route.gsi,
              type: NUMBERS.KVM_IRQ_ROUTING_MSI,
              u: {
                msi: {
                  address_lo: Number(route.address & 0xffff_ffffn),
                  address_hi: Number(route.address >> 32n),
                  data: route.data,
                },
              },
            },
    );
    this.transfer('KVM_SET_GSI_ROUTING', encodeList(KVM_IRQ_ROUTING, { nr: entries.length }, KVM_IRQ_ROUTING_ENTRY, entries));
  }

  /** Level of an interrupt wire. */
  setIrqLine(gsi: number, high: boolean): void {
    this.level[0] = gsi;
    this.level[1] = high ? 1 : 0;
    this.transfer('KVM_IRQ_LINE', this.levelBytes);
  }

  /**
   * A message to a local APIC.
   * @param addressHigh bits 63-32
   * @returns false when no vCPU takes it
   */
  signalMsi(addressLow: number, addressHigh: number, data: number): boolean {
    this.msi[0] = addressLow;
    this.msi[1] = addressHigh;
    this.msi[2] = data;
    return this.transfer('KVM_SIGNAL_MSI', this.msiBytes) > 0;
  }

  /**
   * Writing to an eventfd pulses a GSI; or raises it, until the guest ends the interrupt, which is told.
   * @param resample eventfd that tells the end of a level-triggered interrupt, or null
   */
  connectIrqfd(eventfd: number, gsi: number, resample: number | null = null): void {
    this.put('KVM_IRQFD', {
      fd: eventfd,
      gsi,
      flags: resample === null ? 0 : NUMBERS.KVM_IRQFD_FLAG_RESAMPLE,
      resamplefd: resample ?? 0,
    });
  }

  disconnectIrqfd(eventfd: number, gsi: number): void {
    this.put('KVM_IRQFD', { fd: eventfd, gsi, flags: NUMBERS.KVM_IRQFD_FLAG_DEASSIGN });
  }

  addDoorbell(doorbell: Doorbell): void {
    this.putDoorbell(doorbell, 0);
  }

  removeDoorbell(doorbell: Doorbell): void {
    this.putDoorbell(doorbell, NUMBERS.KVM_IOEVENTFD_FLAG_DEASSIGN);
  }

  private putDoorbell({ port, address, length, value, eventfd }: Doorbell, flags: number): void {
    this.put('KVM_IOEVENTFD', {
      datamatch: value ?? 0n,
      addr: BigInt(address),
      len: length,
      fd: eventfd,
      flags: flags | (port ? NUMBERS.KVM_IOEVENTFD_FLAG_PIO : 0) | (value === null ? 0 : NUMBERS.KVM_IOEVENTFD_FLAG_DATAMATCH),
    });
  }

  getChip(name: ChipName): Value<typeof KVM_IRQCHIP>['chip'] {
    return this.fetch('KVM_GET_IRQCHIP', { chip_id: CHIPS[name] }).chip;
  }

  /** @param chip `pic` or `ioapic` of it, as `name` says */
  setChip(name: ChipName, chip: Patch<typeof KVM_IRQCHIP>['chip']): void {
    this.put('KVM_SET_IRQCHIP', { chip_id: CHIPS[name], chip });
  }

  getPit(): Value<typeof KVM_PIT_STATE2> {
    return this.fetch('KVM_GET_PIT2');
  }

  setPit(state: Patch<typeof KVM_PIT_STATE2>): void {
    this.put('KVM_SET_PIT2', state);
  }

  // Time

  /** The clock that guests read through memory, in nanoseconds. */
  getClock(): Value<typeof KVM_CLOCK_DATA> {
    return this.fetch('KVM_GET_CLOCK');
  }

  setClock(state: Patch<typeof KVM_CLOCK_DATA>): void {
    this.put('KVM_SET_CLOCK', state);
  }

  // MSRs

  /**
   * Which MSRs KVM handles; the guest's accesses to others raise #GP, or leave where KVM_CAP_X86_USER_SPACE_MSR is on.
   * @param others whether MSRs outside all ranges are KVM's
   */
  setMsrFilter(others: 'allow' | 'deny', ranges: readonly MsrRange[]): void {
    // The kernel reads whole words.
    this.bitmaps = ranges.map(({ allowed }) => {
      const words = new Uint8Array(new ArrayBuffer(Math.ceil(allowed.length / 8) * 8));
      words.set(allowed);
      return words;
    });
    this.put('KVM_X86_SET_MSR_FILTER', {
      flags: others === 'deny' ? NUMBERS.KVM_MSR_FILTER_DEFAULT_DENY : NUMBERS.KVM_MSR_FILTER_DEFAULT_ALLOW,
      ranges: ranges.map(({ base, count, reads, writes }, index) => ({
        flags: (reads ? NUMBERS.KVM_MSR_FILTER_READ : 0) | (writes ? NUMBERS.KVM_MSR_FILTER_WRITE : 0),
        nmsrs: count,
        base,
        bitmap: this.libc.addressOf(this.bitmaps[index]!),
      })),
    });
  }
}

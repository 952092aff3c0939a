/** Interrupt controllers of a PC, and how they are wired: 24 inputs, of which 0 to 15 reach the 8259 pair, too. */
import { ApicBus } from '../devices/intc/apic-bus.ts';
import { LocalApic } from '../devices/intc/apic.ts';
import { I8259Pair } from '../devices/intc/i8259.ts';
import { IoApic } from '../devices/intc/ioapic.ts';
import type { AddressSpace } from './address-space.ts';
import { apicIdsOf, type CpuTopology } from './cpu-topology.ts';
import type { CpuPort, Device, IrqLine, KernelApics, KernelChips, MappedRegion, TscSource, VirtualClock } from './interfaces.ts';
import type { IoSpace } from './io-space.ts';
import { SharedIrq } from './irq.ts';

export const IOAPIC_BASE = 0xfec00000;
/** Addresses of interrupt messages. */
const MESSAGES = 0xfee00000;
const MESSAGES_END = 0xfef00000;
const INPUTS = 24;
const PIC_INPUTS = 16;

/** Pins of a CPU beside the first: whoever runs several CPUs has their interrupts delivered by the kernel's APICs. */
const UNCONNECTED: CpuPort = {
  setIntr: () => undefined,
  nmi: () => undefined,
  smi: () => undefined,
  init: () => undefined,
  sipi: () => undefined,
  setA20: () => undefined,
};

export type InterruptParts = {
  topology: CpuTopology;
  /** Pins of the first CPU. */
  cpuPort: CpuPort;
  clock: VirtualClock;
  tsc: TscSource;
  mem: AddressSpace;
  io: IoSpace;
};

export class PcInterrupts {
  readonly apicBus = new ApicBus();
  readonly pic = new I8259Pair();
  readonly ioapic = new IoApic(this.apicBus);
  /** APIC IDs of the CPUs. */
  readonly apicIds: readonly number[];
  /** One for each CPU, in their order. */
  readonly lapics: readonly LocalApic[];
  private readonly mem: AddressSpace;
  private readonly irqs: readonly SharedIrq[];
  private lapicPage: MappedRegion | null = null;
  private kernelChips: KernelChips | null = null;
  private kernelApics: KernelApics | null = null;

  constructor({ topology, cpuPort, clock, tsc, mem, io }: InterruptParts) {
    this.mem = mem;
    this.apicIds = apicIdsOf(topology);
    this.lapics = this.apicIds.map((apicId, cpuIndex) => {
      const first = cpuIndex === 0;
      const [cpu, external] = first ? [cpuPort, this.pic] : [UNCONNECTED, null];
      return new LocalApic({ cpuIndex, apicId, cpu, bus: this.apicBus, clock, tsc, external });
    });
    this.irqs = Array.from({ length: INPUTS }, (_, input) => this.inputOf(input));
    this.pic.onIntr = () => this.lapics[0]!.externalChanged();
    this.lapics[0]!.onBaseChange = (base) => {
      this.lapicPage?.remove();
      this.lapicPage = base === null ? null : mem.addMmio(base, 0x1000, this.lapics[0]!.mmio, 'apic');
    };
    mem.addMmio(IOAPIC_BASE, 0x1000, this.ioapic.mmio, 'ioapic');
    const byteWide = { maxSize: 1 } as const;
    io.register(0x20, 2, this.pic.master, 'pic', byteWide);
    io.register(0xa0, 2, this.pic.slave, 'pic', byteWide);
    io.register(0x4d0, 2, this.pic.elcr, 'elcr', byteWide);
  }

  /** In the order in which a board has them. */
  get devices(): Device[] {
    return [this.pic, this.ioapic, ...this.lapics];
  }

  /** A line of a new source at an interrupt input (0 to 23). */
  irq(input: number): IrqLine {
    return this.irqs[input]!.source();
  }

  /** One of each input. */
  sources(): IrqLine[] {
    return this.irqs.map((irq) => irq.source());
  }

  /** Levels of the interrupt inputs, a bit each. */
  get levels(): number {
    return this.irqs.reduce((levels, irq, input) => levels | (irq.level ? 1 << input : 0), 0);
  }

  /** See `Board.useKernelChips`. */
  useKernelChips(chips: KernelChips | null): void {
    this.kernelChips = chips;
    this.sleep(chips !== null);
  }

  useKernelApics(apics: KernelApics | null): void {
    this.kernelApics = apics;
    this.apicBus.outside = apics;
    this.sleep(apics !== null);
  }

  private sleep(dormant: boolean): void {
    for (const lapic of this.lapics) lapic.setDormant(dormant);
  }

  /** A device's write of 32 bits that stands for an interrupt: to the local APICs if it goes where they are (SDM 3, 12.11). */
  sendMessage(address: number, data: number, byEventfd?: boolean): void {
    const toApics = address >= MESSAGES && address < MESSAGES_END;
    if (toApics) (this.kernelChips ?? this.kernelApics ?? this.apicBus).sendMsi(address, data, byEventfd);
    else if (this.mem.ramOffset(address, 4) >= 0) this.mem.write(address, 4, data);
  }

  /** The boot processor's LINT1, which is wired to NMI. */
  lint1(): void {
    (this.kernelChips ?? this.kernelApics ?? this.lapics[0]!).lint1();
  }

  private inputOf(input: number): SharedIrq {
    const outputs = this.ownInputs(input);
    const set = (level: boolean): void => {
      if (this.kernelChips !== null) this.kernelChips.setInput(input, level);
      else for (const out of outputs) out.set(level);
    };
    return new SharedIrq({ set });
  }

  /** Where an interrupt input leads on the board itself. */
  private ownInputs(input: number): IrqLine[] {
    // ISA interrupt 0 is the I/O APIC's pin 2, which is why the 8259's cascade is not wired.
    if (input === 0) return [this.pic.line(0), this.ioapic.line(2)];
    if (input === 2) return [];
    return input < PIC_INPUTS ? [this.pic.line(input), this.ioapic.line(input)] : [this.ioapic.line(input)];
  }
}

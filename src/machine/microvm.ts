/**
 * QEMU's `microvm`: a board without PCI, for kernels that are started directly. Its disks and networks are virtio devices
 * with registers in memory; of a PC it has interrupt controllers, an interval timer and, if wanted, one serial port and a
 * clock.
 *
 *     FEB00000h  eight places for virtio devices, 200h bytes each, inputs 16 to 23 of the I/O APIC (5 to 12 without ACPI)
 *     FEA00000h  generic events, input 9
 */
import { GED_SIZE, GenericEvents } from '../devices/acpi/ged.ts';
import { DebugConsole, DebugExit } from '../devices/debug/debug.ts';
import type { LocalApic } from '../devices/intc/apic.ts';
import { Uart16550 } from '../devices/serial/uart16550.ts';
import { I8254 } from '../devices/timer/i8254.ts';
import { Mc146818 } from '../devices/timer/mc146818.ts';
import { VirtioMmioBus } from '../devices/virtio/mmio-bus.ts';
import { VIRTIO_MMIO_SIZE } from '../devices/virtio/mmio.ts';
import { AddressSpace } from './address-space.ts';
import { type Board, BoardLife, inLoadingOrder } from './board.ts';
import type { MicrovmOptions } from './config.ts';
import { ONE_CPU } from './cpu-topology.ts';
import { buildAll, DeviceBuilder } from './device-builder.ts';
import { HIGH_RAM_BASE, lowRamOf } from './firmware/e820.ts';
import type { Device, IrqLine, KernelApics, KernelChips, StateOwner } from './interfaces.ts';
import { IoSpace } from './io-space.ts';
import type { InitialCpuState } from './loader/cpu-state.ts';
import { startMicrovm } from './microvm-boot.ts';
import { COM_PORTS, type PcConfig } from './pc.ts';
import { IOAPIC_BASE, PcInterrupts } from './pc-interrupts.ts';
import { Pointers } from './pointers.ts';
import { Typist } from './typist.ts';

export type MicrovmConfig = Pick<
  PcConfig,
  | 'memory'
  | 'cpuPort'
  | 'topology'
  | 'clock'
  | 'tsc'
  | 'serials'
  | 'debugcon'
  | 'debugExit'
  | 'rtc'
  | 'devices'
  | 'onPower'
  | 'trace'
> &
  Required<Pick<PcConfig, 'kernel' | 'kernelName' | 'append'>> &
  Pick<PcConfig, 'initrd'> & { options: MicrovmOptions };

const VIRTIO_BASE = 0xfeb00000;
const VIRTIO_PLACES = 8;
/** First input of the places: beyond those of ISA where ACPI tells of them. */
const VIRTIO_INPUT = { acpi: 16, plain: 5 } as const;
const EVENTS_BASE = 0xfea00000;
const EVENTS_INPUT = 9;

export class MicrovmMachine implements Board {
  readonly mem: AddressSpace;
  readonly io = new IoSpace();
  readonly devices: Device[] = [];
  readonly interrupts: PcInterrupts;
  readonly pit: I8254;
  readonly serials: (Uart16550 | null)[] = [];
  readonly typist: Typist;
  readonly pointers = new Pointers();
  readonly display = null;
  readonly hasSmm = false;
  readonly builder: DeviceBuilder | null;
  private readonly config: MicrovmConfig;
  private readonly keyboards: ((codes: readonly number[]) => boolean)[] = [];
  private readonly places: readonly VirtioMmioBus[];
  /** Null without ACPI. */
  private readonly events: GenericEvents | null;
  private readonly life = new BoardLife();

  /** @throws ConfigError naming the device that cannot be had */
  constructor(config: MicrovmConfig) {
    this.config = config;
    const { memory, clock, tsc, cpuPort, trace, topology = ONE_CPU } = config;
    this.mem = new AddressSpace(memory.bytes);
    this.mem.trace = trace;
    this.io.trace = trace;
    this.mapRam();
    this.interrupts = new PcInterrupts({ topology, cpuPort, clock, tsc, mem: this.mem, io: this.io });
    for (const device of this.interrupts.devices) this.add(device);
    this.typist = new Typist(clock, (codes) => void this.keyboards.some((take) => take(codes)));
    this.pit = this.addPit();
    if (config.options.rtc) this.addClock();
    if (config.options.isaSerial) this.addSerial();
    this.addPorts();
    this.events = config.options.acpi ? this.addEvents() : null;
    this.places = this.addPlaces();
    this.builder = this.addDevices();
    for (const lapic of this.lapics) lapic.reset();
  }

  get pic(): PcInterrupts['pic'] {
    return this.interrupts.pic;
  }

  get ioapic(): PcInterrupts['ioapic'] {
    return this.interrupts.ioapic;
  }

  get apicBus(): PcInterrupts['apicBus'] {
    return this.interrupts.apicBus;
  }

  get apicIds(): readonly number[] {
    return this.interrupts.apicIds;
  }

  get lapics(): readonly LocalApic[] {
    return this.interrupts.lapics;
  }

  get lapic(): LocalApic {
    return this.lapics[0]!;
  }

  get inputLevels(): number {
    return this.interrupts.levels;
  }

  get stateOwners(): StateOwner[] {
    return inLoadingOrder([this.life, this.typist], this.devices, this.interrupts.devices);
  }

  useKernelChips(chips: KernelChips | null): void {
    this.interrupts.useKernelChips(chips);
    this.pit.setDormant(chips !== null);
  }

  useKernelApics(apics: KernelApics | null): void {
    this.interrupts.useKernelApics(apics);
  }

  reset(): InitialCpuState {
    for (const device of [...this.devices]) device.reset();
    this.life.started = true;
    const { kernel, kernelName, initrd, append, memory, options } = this.config;
    const taken = this.places.filter(({ full }) => full);
    const commandLine = options.acpi || !options.autoKernelCmdline ? append : [append, ...taken.map(parameter)].join(' ').trim();
    return startMicrovm(
      this.mem,
      { kernel, kernelName, initrd: initrd ?? null, commandLine },
      {
        ramSize: memory.ramSize,
        lowRam: this.lowRam,
        apicIds: this.apicIds,
        ioApicBase: IOAPIC_BASE,
        acpi: options.acpi
          ? {
              serials: this.serials.map((uart, i) => (uart === null ? null : COM_PORTS[i]!)),
              cpus: this.apicIds.length,
              virtio: taken.map(({ base, input }) => ({ base, size: VIRTIO_MMIO_SIZE, input })),
              events: { base: EVENTS_BASE, input: EVENTS_INPUT },
              rtc: options.rtc,
            }
          : null,
      },
    );
  }

  setManaging(): void {
    // There is no system management mode.
  }

  powerButton(): void {
    this.events?.powerButton();
  }

  injectNmi(): void {
    this.interrupts.lint1();
  }

  private irq(input: number): IrqLine {
    return this.interrupts.irq(input);
  }

  private add<T extends Device>(device: T): T {
    this.devices.push(device);
    return device;
  }

  /** End of RAM below 4 GiB. */
  private get lowRam(): number {
    return lowRamOf(this.config.memory.ramSize, false);
  }

  private mapRam(): void {
    const { ramOffset, ramSize } = this.config.memory;
    const low = this.lowRam;
    this.mem.addRam(0, low, ramOffset);
    if (ramSize > low) this.mem.addRam(HIGH_RAM_BASE, ramSize - low, ramOffset + low);
  }

  private addPit(): I8254 {
    const { clock } = this.config;
    const pit = this.add(new I8254(clock, this.irq(0)));
    pit.onMeasure = (end) => clock.paceUntil?.(end);
    this.io.register(0x40, 4, pit.ports, 'pit', { maxSize: 1 });
    this.io.register(0x61, 1, pit.speaker, 'port61', { maxSize: 1 });
    return pit;
  }

  private addClock(): void {
    const rtc = this.add(new Mc146818(this.config.clock, this.irq(8), this.config.rtc ?? { baseSeconds: 0 }));
    this.io.register(0x70, 2, rtc.ports, 'rtc', { maxSize: 1 });
  }

  private addSerial(): void {
    const backend = this.config.serials?.[0] ?? null;
    if (backend === null) return;
    const [base, irq] = COM_PORTS[0];
    const uart = this.add(new Uart16550(this.config.clock, this.irq(irq), backend, 'serial0'));
    this.serials.push(uart);
    this.io.register(base, 8, uart.ports, uart.id, { maxSize: 1 });
  }

  private addPorts(): void {
    const { debugcon, debugExit, onPower } = this.config;
    // The port that drivers write to pass a microsecond.
    this.io.register(0x80, 1, { read: () => 0xff, write: () => undefined }, 'post', { maxSize: 1 });
    if (debugcon !== undefined) {
      const device = this.add(new DebugConsole(debugcon.backend));
      this.io.register(debugcon.iobase ?? 0xe9, 1, device.ports, device.id, { maxSize: 1 });
    }
    if (debugExit !== undefined) {
      const device = this.add(new DebugExit((code) => onPower('debug-exit', code)));
      this.io.register(debugExit.iobase ?? 0x501, debugExit.iosize ?? 2, device.ports, device.id);
    }
  }

  private addEvents(): GenericEvents {
    const events = this.add(new GenericEvents(this.irq(EVENTS_INPUT), (event) => this.config.onPower(event)));
    this.mem.addMmio(EVENTS_BASE, GED_SIZE, events.mmio, events.id);
    return events;
  }

  private addPlaces(): VirtioMmioBus[] {
    const first = this.config.options.acpi ? VIRTIO_INPUT.acpi : VIRTIO_INPUT.plain;
    return Array.from({ length: VIRTIO_PLACES }, (_, index) => {
      const [base, input] = [VIRTIO_BASE + index * VIRTIO_MMIO_SIZE, first + index];
      return new VirtioMmioBus({ index, base, input, irq: this.irq(input), memory: this.mem });
    });
  }

  private addDevices(): DeviceBuilder | null {
    const { devices, clock, trace, memory } = this.config;
    if (devices === undefined) return null;
    const { wanted, links, random } = devices;
    const builder = new DeviceBuilder({
      ...{ memory: this.mem, memorySize: memory.ramSize, clock, random, trace, links },
      ports: this.io,
      irq: (input) => this.irq(input),
      exit: (code) => this.config.onPower('debug-exit', code),
      buses: [...this.places.map((place) => [place, null] as const), [{ name: 'isa.0', kind: 'ISA' }, null]],
      addKeyboard: (take) => {
        this.keyboards.unshift(take);
        return () => void this.keyboards.splice(this.keyboards.indexOf(take), 1);
      },
      addPointer: (pointer) => this.pointers.add(pointer),
      add: (device) => this.add(device),
      remove: (device) => void this.devices.splice(this.devices.indexOf(device), 1),
    });
    buildAll(builder, wanted);
    return builder;
  }
}

/** How a kernel without ACPI learns of a virtio device (Documentation/admin-guide/kernel-parameters). */
const parameter = ({ base, input }: VirtioMmioBus): string =>
  `virtio_mmio.device=${VIRTIO_MMIO_SIZE}@0x${base.toString(16)}:${input}`;

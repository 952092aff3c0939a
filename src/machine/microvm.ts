/**
 * QEMU's `microvm`: a board without PCI, for kernels that are started directly. Its disks and networks are virtio devices
 * with registers in memory; of a PC it has interrupt controllers, an interval timer and, if wanted, one serial port and a
 * clock.
 *
 *     FEB00000h  eight places for virtio devices, 200h bytes each, inputs 16 to 23 of the I/O APIC (5 to 12 without ACPI)
 *     FEA00000h  generic events, input 9
 */
import { GED_SIZE, GenericEvents } from '../devices/acpi/ged.ts';
import type { I8254 } from '../devices/timer/i8254.ts';
import { VirtioMmioBus } from '../devices/virtio/mmio-bus.ts';
import { VIRTIO_MMIO_SIZE } from '../devices/virtio/mmio.ts';
import type { Board } from './board.ts';
import type { MicrovmOptions } from './config.ts';
import { buildAll, DeviceBuilder } from './device-builder.ts';
import { HIGH_RAM_BASE, lowRamOf } from './firmware/e820.ts';
import type { InitialCpuState } from './loader/cpu-state.ts';
import { startMicrovm } from './microvm-boot.ts';
import type { PcConfig } from './pc.ts';
import { COM_PORTS, PcBase, type PcParts } from './pc-base.ts';
import { IOAPIC_BASE, type PcInterrupts } from './pc-interrupts.ts';
import { Typist } from './typist.ts';

/** What a microvm takes as a PC does. */
export type BoardParts = PcParts & Pick<PcConfig, 'kernel' | 'kernelName' | 'append' | 'initrd' | 'devices'>;
export type MicrovmConfig = BoardParts &
  Required<Pick<PcConfig, 'kernel' | 'kernelName' | 'append'>> & { options: MicrovmOptions };

const VIRTIO_BASE = 0xfeb00000;
const VIRTIO_PLACES = 8;
/** First input of the places: beyond those of ISA where ACPI tells of them. */
const VIRTIO_INPUT = { acpi: 16, plain: 5 } as const;
const EVENTS_BASE = 0xfea00000;
const EVENTS_INPUT = 9;

export class MicrovmMachine extends PcBase<MicrovmConfig> implements Board {
  readonly interrupts: PcInterrupts;
  readonly pit: I8254;
  readonly typist: Typist;
  readonly display = null;
  readonly hasSmm = false;
  readonly builder: DeviceBuilder | null;
  private readonly places: readonly VirtioMmioBus[];
  /** Null without ACPI. */
  private readonly events: GenericEvents | null;

  /** @throws ConfigError naming the device that cannot be had */
  constructor(config: MicrovmConfig) {
    super(config);
    this.mapRam();
    this.interrupts = this.addInterrupts();
    this.typist = new Typist(config.clock, (codes) => void this.keyboards.some((take) => take(codes)));
    this.pit = this.addPit();
    if (config.options.rtc) this.addRtc();
    if (config.options.isaSerial) this.addSerials(1);
    // The port that drivers write to pass a microsecond.
    this.byteWide(0x80, 1, { read: () => 0xff, write: () => undefined }, 'post');
    this.addDebug();
    this.events = config.options.acpi ? this.addEvents() : null;
    this.places = this.addPlaces();
    this.builder = this.addDevices();
    for (const lapic of this.lapics) lapic.reset();
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

  private addEvents(): GenericEvents {
    const asked = { reset: this.resetBy("ACPI's register"), poweroff: () => this.config.onPower('poweroff') };
    const events = this.add(new GenericEvents(this.irq(EVENTS_INPUT), asked));
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

/** The PC board (QEMU's `pc`): which devices there are and how they are wired. */
import { AcpiPciHotplug, HOTPLUG_EVENT, HOTPLUG_PORTS } from '../devices/acpi/pci-hotplug.ts';
import { AcpiPm, ResetControl } from '../devices/acpi/pm.ts';
import { FW_CFG, FwCfg } from '../devices/fw_cfg/fw_cfg.ts';
import { I8042, Port92 } from '../devices/input/i8042.ts';
import { Ps2Pointer } from '../devices/input/ps2-pointer.ts';
import type { PciBus } from '../devices/pci.ts';
import { Hpet } from '../devices/timer/hpet.ts';
import type { I8254 } from '../devices/timer/i8254.ts';
import type { Mc146818 } from '../devices/timer/mc146818.ts';
import { Vga, VGA_MEMORY } from '../devices/vga/vga.ts';
import type { Board } from './board.ts';
import type { BootConfig, WantedDevice } from './config.ts';
import { apicIdLimit, cpuCount } from './cpu-topology.ts';
import { buildAll, DeviceBuilder, type DeviceLinks } from './device-builder.ts';
import { type StartOptions, startDirectly, writeCmosMemorySizes } from './pc-boot.ts';
import { describeBoard, type FirmwareOptions, writeBiosSettings } from './pc-firmware.ts';
import { IOAPIC_BASE, type PcInterrupts } from './pc-interrupts.ts';
import { COM_PORTS, PcBase, type PcParts } from './pc-base.ts';
import { addFlash, type FlashArea } from './pc-flash.ts';
import { addI440Fx, addQ35, type Chipset } from './pc-chipset.ts';
import { addFloppy, type Drive, factsOf } from './pc-storage.ts';
import { IsaDma } from '../devices/floppy/isa-dma.ts';
import { HIGH_RAM_BASE, lowRamOf } from './firmware/e820.ts';
import type { DisplaySource } from './interfaces.ts';
import { type InitialCpuState, resetState } from './loader/cpu-state.ts';
import { Typist } from './typist.ts';
import type { BootImage } from './loader/loader.ts';
import { BUS_PRIORITY, mapBios, pamMapper, smramMapper } from './pc-memory.ts';

export type PcConfig = PcParts & {
  /** Which chipset; `pc` when not given. */
  machine?: 'pc' | 'q35';
  hpet?: boolean;
  /** System management mode. */
  smm?: boolean;
  /** 16 bytes in text order. */
  uuid?: Uint8Array;
  kernel?: Uint8Array;
  /** For error messages. */
  kernelName?: string;
  initrd?: Uint8Array;
  append?: string;
  /** Firmware, which lies in `bytes` at a page boundary; its size is a multiple of 64 KiB. */
  bios?: { offset: number; size: number };
  /** Firmware in flash memory, by unit; then there is no `bios`. */
  flash?: readonly FlashArea[];
  boot?: BootConfig;
  /** Firmware is told that nobody sees the display. */
  textOnSerial?: boolean;
  drives?: readonly Drive[];
  /** Devices beyond the board's own, and what they may refer to. */
  devices?: { wanted: readonly WantedDevice[]; links: DeviceLinks; random: () => number };
  /** Devices behind bridges come and go by ACPI, too, not by the registers of PCI Express ports; true when not given. */
  acpiHotplugBehindBridges?: boolean;
  /** Display adapter: video memory and the option ROM (null for none) lie in `bytes`, page-aligned. */
  vga?: { offset: number; rom: { offset: number; size: number } | null };
};

export const PC_TYPE = 'pc';
const HPET_BASE = 0xfed00000;
const SCI = 9;
/** Slot of the display adapter by chipset. */
const VGA_SLOT = { pc: 2, q35: 1 } as const;
const DEFAULT_BOOT: BootConfig = {
  order: 'cad',
  once: null,
  menu: false,
  splashTime: null,
  rebootTimeout: null,
};

export class PcMachine extends PcBase<PcConfig> implements Board {
  readonly type = PC_TYPE;
  readonly interrupts: PcInterrupts;
  readonly acpi: AcpiPm;
  readonly keyboard: I8042;
  readonly pit: I8254;
  readonly rtc: Mc146818;
  readonly pci: PciBus;
  private readonly chipset: Chipset;
  readonly fwCfg: FwCfg;
  readonly dma: IsaDma;
  readonly typist: Typist;
  readonly display: DisplaySource | null;
  /** Makes devices, also while the machine runs. */
  readonly builder: DeviceBuilder | null;
  private readonly hotplug: AcpiPciHotplug | null;

  private managing = false;
  private onManaging: () => void = () => undefined;

  constructor(config: PcConfig) {
    const { memory, clock } = config;
    if (memory.ramSize < 2 ** 20 || memory.ramSize % 4096 !== 0) {
      throw new Error(`memory size ${memory.ramSize} is not a whole number of pages from 1 MiB up`);
    }
    super(config);
    this.mapRam();
    this.interrupts = this.addInterrupts();
    this.acpi = new AcpiPm(clock, this.irq(SCI), config.onPower);
    this.keyboard = this.addKeyboard();
    this.pointers.add(new Ps2Pointer(this.keyboard));
    this.typist = new Typist(clock, (codes) => {
      if (!this.keyboards.some((take) => take(codes))) this.keyboard.injectScancode(...codes);
    });
    this.pit = this.addPit();
    this.rtc = this.addTimers();
    this.addLegacyPorts();
    this.addSerials(COM_PORTS.length);
    this.addDebug();
    this.dma = this.addDma();
    this.fwCfg = this.addFwCfg();
    this.chipset = this.addChipset();
    this.pci = this.chipset.bus;
    this.display = this.addDisplay();
    this.builder = this.addDevices();
    this.hotplug = this.addHotplug();
    if (this.hasFirmware) {
      this.fwCfg.fillLater(() => describeBoard(this.fwCfg, this.chipset.pmBase, this.firmwareOptions()));
    }
    for (const lapic of this.lapics) lapic.reset();
  }

  /**
   * Resets every device and puts the kernel, if one was given, back into RAM.
   * @returns the state that the first vCPU starts in
   * @throws Error when the kernel image cannot be loaded
   */
  reset(): InitialCpuState {
    // What was asked to leave does so now.
    for (const device of [...this.devices]) device.reset();
    const { order, once } = this.boot;
    writeBiosSettings(this.rtc, this.firmwareOptions(), this.life.started ? order : (once ?? order));
    this.life.started = true;
    const image = this.image();
    return image === null ? resetState() : startDirectly(this, image, this.startOptions());
  }

  private get boot(): BootConfig {
    return this.config.boot ?? DEFAULT_BOOT;
  }

  private startOptions(): StartOptions {
    return {
      ramSize: this.config.memory.ramSize,
      uuid: this.config.uuid ?? null,
      hpetBase: this.hasHpet ? HPET_BASE : null,
      ioApicBase: IOAPIC_BASE,
      sci: SCI,
      lowRam: this.lowRam,
      topology: this.topology,
      ecamBase: this.chipset.ecamBase,
      serials: this.serials.map((uart, i) => (uart === null ? null : COM_PORTS[i]!)),
      hotplug: this.hotplug === null ? null : { base: this.chipset.hotplugBase, length: HOTPLUG_PORTS, tree: this.hotplug.tree },
    };
  }

  private firmwareOptions(): FirmwareOptions {
    return {
      start: this.startOptions(),
      boot: this.boot,
      textOnSerial: this.config.textOnSerial === true,
      ...factsOf(this.config.drives ?? [], this.chipset.ide.buses, this.isQ35, this.builder?.bootEntries ?? []),
    };
  }

  /** The vCPU enters or leaves system management mode. */
  setManaging(inside: boolean): void {
    if (this.managing === inside) return;
    this.managing = inside;
    this.onManaging();
  }

  /** What the outside calls `system_powerdown`. */
  powerButton(): void {
    this.acpi.powerButton();
  }

  /** Raises NMI as a front panel would. */
  injectNmi(): void {
    if (!this.rtc.nmiMasked) this.interrupts.lint1();
  }

  private get hasFirmware(): boolean {
    return this.config.bios !== undefined || (this.config.flash ?? []).length > 0;
  }

  get hasSmm(): boolean {
    return this.config.smm !== false;
  }

  private get hasHpet(): boolean {
    return this.config.hpet !== false;
  }

  private image(): BootImage | null {
    const { kernel, kernelName, initrd, append } = this.config;
    if (kernel === undefined || this.hasFirmware) return null;
    return {
      kernel,
      kernelName: kernelName ?? 'image',
      initrd: initrd ?? null,
      commandLine: append ?? '',
    };
  }

  private mapRam(): void {
    const { ramOffset, ramSize } = this.config.memory;
    const low = this.lowRam;
    // The display's window at A0000h is never RAM; from C0000h to 1 MiB firmware decides.
    this.mem.addRam(0, 0xa0000, ramOffset);
    const upper = this.hasFirmware ? 0x100000 : 0xc0000;
    if (low > upper) this.mem.addRam(upper, low - upper, ramOffset + upper);
    if (ramSize > low) this.mem.addRam(HIGH_RAM_BASE, ramSize - low, ramOffset + low);
    const { bios, flash } = this.config;
    if (bios !== undefined) mapBios(this.mem, bios);
    addFlash(this.mem, this.config.memory.bytes, flash ?? []).forEach((chip) => this.add(chip));
  }

  private addTimers(): Mc146818 {
    const rtc = this.addRtc();
    if (!this.hasHpet) return rtc;
    const hpet = this.add(new Hpet(this.config.clock, this.interrupts.sources()));
    hpet.onLegacyRoute = (on) => {
      this.pit.setIrqCut(on);
      rtc.setIrqCut(on);
    };
    this.mem.addMmio(HPET_BASE, 0x400, hpet.mmio, 'hpet');
    return rtc;
  }

  private addKeyboard(): I8042 {
    const { cpuPort } = this.config;
    const keyboard = this.add(
      new I8042({
        keyboardIrq: this.irq(1),
        mouseIrq: this.irq(12),
        setA20: (enabled) => cpuPort.setA20(enabled),
        resetCpu: this.resetBy('the keyboard controller'),
      }),
    );
    this.byteWide(0x60, 1, keyboard.ports, 'i8042-data');
    this.byteWide(
      0x64,
      1,
      {
        read: (_offset, size) => keyboard.ports.read(4, size),
        write: (_offset, size, value) => keyboard.ports.write(4, size, value),
      },
      'i8042-command',
    );
    this.byteWide(0x92, 1, this.add(new Port92(keyboard, this.resetBy('port 92h'))).ports, 'port92');
    return keyboard;
  }

  private addLegacyPorts(): void {
    this.add(this.acpi);
    this.byteWide(0xb2, 2, this.acpi.smi, 'apm');
    const control = this.add(new ResetControl(this.resetBy('port cf9h')));
    // Before the PCI configuration ports, which it lies among.
    this.byteWide(0xcf9, 1, control.ports, 'reset-control');
    // POST codes, and the port that drivers write to pass a microsecond.
    const ignore = { read: () => 0xff, write: () => undefined };
    this.byteWide(0x80, 1, ignore, 'post');
    this.byteWide(0xf0, 2, ignore, 'fpu-error');
  }

  private addDma(): IsaDma {
    const dma = this.add(new IsaDma(this.mem));
    this.byteWide(0x00, 16, dma.first, dma.id);
    this.byteWide(0xc0, 32, dma.second, dma.id);
    this.byteWide(0x80, 16, dma.pages, dma.id);
    const { clock, drives } = this.config;
    // A Q35 has a floppy controller only where there is something for it.
    if (this.isQ35 && drives?.some(({ config }) => config.interface === 'floppy') !== true) return dma;
    this.add(addFloppy({ ports: this.io, clock, irq: this.irq(6), dma, drives: drives ?? [] }));
    return dma;
  }

  private addFwCfg(): FwCfg {
    const fwCfg = this.add(new FwCfg(this.mem));
    fwCfg.setNumber(FW_CFG.ramSize, this.config.memory.ramSize, 8);
    fwCfg.setNumber(FW_CFG.cpuCount, cpuCount(this.topology), 2);
    // Firmware sizes its tables by APIC IDs.
    fwCfg.setNumber(FW_CFG.maxCpus, apicIdLimit(this.topology), 2);
    this.io.register(0x510, 2, fwCfg.ports, fwCfg.id);
    this.io.register(0x514, 8, fwCfg.dma, 'fw_cfg-dma');
    return fwCfg;
  }

  private addDisplay(): DisplaySource | null {
    const { vga, memory } = this.config;
    if (vga === undefined) return null;
    const { offset, rom } = vga;
    const device = this.add(
      new Vga({
        memory: this.mem,
        ports: this.io,
        bytes: memory.bytes.subarray(offset, offset + VGA_MEMORY),
        // Behind the bridge: RAM at the same place hides it.
        mapMemory: (base, size, at) => this.mem.addRam(base, size, offset + at, BUS_PRIORITY),
        rom:
          rom === null
            ? null
            : {
                size: rom.size,
                map: (base) => this.mem.addRom(base, rom.size, rom.offset, BUS_PRIORITY),
              },
      }),
    );
    this.pci.plug(device, VGA_SLOT[this.config.machine ?? 'pc']);
    return device;
  }

  /** @throws ConfigError naming the device */
  private addDevices(): DeviceBuilder | null {
    const { devices, clock, trace } = this.config;
    if (devices === undefined) return null;
    const { wanted, links, random } = devices;
    const { ide } = this.chipset;
    const builder = new DeviceBuilder({
      ...{ memory: this.mem, memorySize: this.config.memory.ramSize, clock, random, trace, links },
      ports: this.io,
      irq: (input) => this.irq(input),
      exit: (code) => this.config.onPower('debug-exit', code),
      buses: [
        [this.pci, null],
        ...ide.buses.map((bus) => [bus, ide.controller] as const),
        [{ name: 'isa.0', kind: 'ISA' }, null],
      ],
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

  /** Slots of the board's own bus on a `pc`, and those behind bridges unless ports work them. */
  private addHotplug(): AcpiPciHotplug | null {
    const behind = this.config.acpiHotplugBehindBridges !== false;
    if (this.isQ35 && !behind) return null;
    const raise = (): void => this.acpi.raiseGpe(HOTPLUG_EVENT);
    const device = this.add(new AcpiPciHotplug(this.pci, { own: !this.isQ35, behind }, raise));
    this.io.register(this.chipset.hotplugBase, HOTPLUG_PORTS, device.ports, device.id);
    return device;
  }

  private addChipset(): Chipset {
    const { cpuPort, drives, memory } = this.config;
    const chipset = (this.isQ35 ? addQ35 : addI440Fx)({
      smm: this.hasSmm,
      mem: this.mem,
      io: this.io,
      messages: { sendMsi: (address, data, byEventfd) => this.interrupts.sendMessage(address, data, byEventfd) },
      acpi: this.acpi,
      drives: drives ?? [],
      irq: (input) => this.irq(input),
      add: (device) => this.add(device),
    });
    const { bridge } = chipset;
    if (this.hasFirmware) bridge.onPam = pamMapper(this.mem, memory.ramOffset);
    const smram = smramMapper(this.mem, memory.ramOffset);
    bridge.onSmram = () => smram(bridge.smramShows(this.managing));
    this.onManaging = bridge.onSmram;
    this.acpi.onCommand = () => {
      if (chipset.raisesSmi()) cpuPort.smi();
    };
    writeCmosMemorySizes(this.rtc, memory.ramSize, this.lowRam);
    return chipset;
  }

  private get isQ35(): boolean {
    return this.config.machine === 'q35';
  }

  /** End of RAM below 4 GiB. */
  private get lowRam(): number {
    return lowRamOf(this.config.memory.ramSize, this.isQ35);
  }
}

/** What firmware would do before a kernel runs: tables, memory map, chipset set-up. */
import { ACPI_DISABLE, ACPI_ENABLE, SLEEP_TYPE_S5 } from '../devices/acpi/pm.ts';
import { FIRST_PIRQ_INPUT, q35PirqOf } from '../devices/pci/ich9.ts';
import type { Mc146818 } from '../devices/timer/mc146818.ts';
import { PCI, type PciBus, type PirqWiring, pirqOf } from '../devices/pci.ts';
import type { AddressSpace } from './address-space.ts';
import { type AcpiTables, buildAcpiTables } from './firmware/acpi-tables.ts';
import { buildDsdt } from './firmware/dsdt.ts';
import type { HotplugTables } from './firmware/hotplug-aml.ts';
import { buildE820, HIGH_RAM_BASE } from './firmware/e820.ts';
import { buildSmbios, type SmbiosTables } from './firmware/smbios.ts';
import { gpePlace } from './pc-chipset.ts';
import { apicIdsOf, type CpuTopology } from './cpu-topology.ts';
import { assignResources } from './pci-resources.ts';
import type { IoSpace } from './io-space.ts';
import type { InitialCpuState } from './loader/cpu-state.ts';
import { type BootImage, loadKernel } from './loader/loader.ts';

export type StartOptions = {
  ramSize: number;
  uuid: Uint8Array | null;
  hpetBase: number | null;
  ioApicBase: number;
  sci: number;
  /** End of RAM below 4 GiB. */
  lowRam: number;
  topology: CpuTopology;
  /** Where a Q35 shows configuration space in memory; null for boards that do not. */
  ecamBase: (() => number) | null;
  serials: readonly (readonly [number, number] | null)[];
  hotplug: HotplugTables | null;
};

/** The parts of the board that are set up here. */
export type StartBoard = { mem: AddressSpace; io: IoSpace; pci: PciBus };

const PM_BASE = 0x600;
const LAPIC_BASE = 0xfee00000;
const TABLE_SPACE = 0x20000;
const RSDP = 0xf0000;
const SMBIOS_ENTRY30 = 0xf0040;
const SMBIOS_ENTRY21 = 0xf0060;
const SMBIOS_TABLE = 0xf1000;
/** Interrupts of PIRQ A to D. */
const PIRQS = [10, 10, 11, 11] as const;
/** With the I/O APIC, PIRQs have inputs of their own. */
const Q35_BOARD = { pirqOf: q35PirqOf, firstInput: FIRST_PIRQ_INPUT } as const;
const ECAM_SIZE = 2 ** 28;
/** 32-bit PCI memory ends before the I/O APIC. */
const PCI_MEMORY_END = 0xfebfffff;
/** Timing registers of the IDE function's channels, whose highest bit makes them decode their ports. */
const IDE_TIMING = [0x40, 0x42] as const;
const IDE_DECODE = 0x8000;

export function startDirectly(board: StartBoard, image: BootImage, options: StartOptions): InitialCpuState {
  const { mem } = board;
  const { lowRam } = options;
  const tables = { base: lowRam - TABLE_SPACE, size: TABLE_SPACE };
  const e820 = buildE820(options.ramSize, lowRam, tables);
  placeAcpi(mem, options, tables.base);
  placeSmbios(mem, options);
  if (options.ecamBase === null) setUpI440Fx(board, lowRam);
  else setUpQ35(board, options.ecamBase(), lowRam);
  return loadKernel(image, { memory: mem, e820, lowEnd: tables.base, rsdp: RSDP });
}

function placeAcpi(mem: AddressSpace, options: StartOptions, base: number): void {
  const { rsdp, tables } = boardAcpiTables(options, PM_BASE, base);
  if (tables.length > TABLE_SPACE) throw new Error('ACPI tables do not fit into their space');
  mem.writeBytes(base, tables);
  mem.writeBytes(RSDP, rsdp);
}

/**
 * @param pmBase port of the power management registers
 * @param base where the tables will lie
 */
export function boardAcpiTables(options: StartOptions, pmBase: number, base: number): AcpiTables {
  const { lowRam } = options;
  const ecam = options.ecamBase?.() ?? null;
  const gpe = gpePlace(ecam !== null, pmBase);
  const dsdt = buildDsdt({
    pirqs: PIRQS,
    pirqOf,
    q35: ecam === null ? null : Q35_BOARD,
    ecam,
    serials: options.serials,
    pciMemory:
      ecam === null
        ? [[lowRam, PCI_MEMORY_END]]
        : [
            [lowRam, ecam - 1],
            [ecam + ECAM_SIZE, PCI_MEMORY_END],
          ],
    pciMemory64: highWindow(options),
    sleepTypeS5: SLEEP_TYPE_S5,
    hpet: options.hpetBase !== null,
    hotplug: options.hotplug,
    cpus: apicIdsOf(options.topology).length,
  });
  return buildAcpiTables(
    {
      apicIds: apicIdsOf(options.topology),
      dsdt,
      pmBase,
      gpeBase: gpe.base,
      gpeLength: gpe.length,
      smiCommand: 0xb2,
      acpiEnable: ACPI_ENABLE,
      acpiDisable: ACPI_DISABLE,
      sciInterrupt: options.sci,
      localApicBase: LAPIC_BASE,
      ioApicBase: options.ioApicBase,
      hpetBase: options.hpetBase,
      levelInterrupts: PIRQS,
      ecam,
    },
    base,
  );
}

/** 64-bit PCI memory: 32 GiB above all RAM, below the 40-bit limit of the APIC's base. */
function highWindow({ ramSize, lowRam }: StartOptions): [number, number] {
  const gib32 = 2 ** 35;
  const top = HIGH_RAM_BASE + Math.max(0, ramSize - lowRam);
  const base = Math.ceil(top / gib32) * gib32;
  return [base, base + gib32 - 1];
}

function placeSmbios(mem: AddressSpace, options: StartOptions): void {
  const { entry21, entry30, table } = boardSmbios(options, SMBIOS_TABLE);
  mem.writeBytes(SMBIOS_ENTRY30, entry30);
  mem.writeBytes(SMBIOS_ENTRY21, entry21);
  mem.writeBytes(SMBIOS_TABLE, table);
}

/** @param base where the structure table will lie */
export function boardSmbios(options: StartOptions, base: number): SmbiosTables {
  return buildSmbios(
    {
      ramSize: options.ramSize,
      lowRam: options.lowRam,
      topology: options.topology,
      uuid: options.uuid,
      machine: 'Standard PC',
    },
    base,
  );
}

/** Routes PIRQs, places the ACPI registers and gives every PCI function its resources. */
function setUpI440Fx(board: StartBoard, lowRam: number): void {
  const { pci } = board;
  const isa = pci.find(8);
  PIRQS.forEach((irq, i) => isa?.configWrite(0x60 + i, 1, irq));
  setLevelTriggered(board);
  const pm = pci.find(8 + 3);
  pm?.configWrite(0x40, 4, PM_BASE | 1);
  pm?.configWrite(0x80, 1, 1);
  const ide = pci.find(8 + 1);
  for (const at of IDE_TIMING) ide?.configWrite(at, 2, IDE_DECODE);
  assignResources(pci, lowRam, lineOf(pirqOf));
  // Its pin is the SCI's, which goes nowhere else.
  pm?.configWrite(PCI.interruptLine, 1, 9);
}

/** @returns the interrupt of a slot's pin */
const lineOf =
  (wiring: PirqWiring) =>
  (devfn: number, pin: number): number =>
    PIRQS[wiring(devfn >> 3, pin) & 3]!;

function setUpQ35(board: StartBoard, ecam: number, lowRam: number): void {
  const { pci } = board;
  pci.find(0)?.configWrite(0x60, 4, ecam + 1);
  const lpc = pci.find(31 * 8);
  PIRQS.forEach((irq, i) => {
    lpc?.configWrite(0x60 + i, 1, irq);
    lpc?.configWrite(0x68 + i, 1, irq);
  });
  lpc?.configWrite(0x40, 4, PM_BASE | 1);
  lpc?.configWrite(0x44, 1, 0x80);
  setLevelTriggered(board);
  assignResources(pci, lowRam, lineOf(q35PirqOf));
}

/** PIRQs are level-triggered at the 8259, and so is the SCI. */
function setLevelTriggered({ io }: StartBoard): void {
  let elcr = 1 << 9;
  for (const irq of PIRQS) elcr |= 1 << irq;
  io.out(0x4d0, 1, elcr & 0xff);
  io.out(0x4d1, 1, elcr >> 8);
}

/** Sizes of memory where firmware and old kernels look for them. */
export function writeCmosMemorySizes(rtc: Mc146818, ramSize: number, low: number): void {
  const put = (index: number, value: number, bytes: number) => {
    for (let i = 0; i < bytes; i++) rtc.setCmos(index + i, Math.floor(value / 256 ** i) & 0xff);
  };
  put(0x15, 640, 2);
  const extendedKib = Math.min(65535, Math.floor((low - 0x100000) / 1024));
  put(0x17, extendedKib, 2);
  put(0x30, extendedKib, 2);
  // Memory above 16 MiB in units of 64 KiB, and above 4 GiB likewise.
  put(0x34, Math.min(65535, Math.max(0, Math.floor((low - 0x1000000) / 65536))), 2);
  put(0x5b, Math.floor(Math.max(0, ramSize - low) / 65536), 3);
}

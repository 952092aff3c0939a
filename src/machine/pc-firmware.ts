/**
 * What the PC tells its firmware: files and numbers of fw_cfg, by the names that SeaBIOS and
 * OVMF look for, and the CMOS bytes that a BIOS keeps its settings in.
 */
import { FW_CFG, type FwCfg } from '../devices/fw_cfg/fw_cfg.ts';
import type { Mc146818 } from '../devices/timer/mc146818.ts';
import { RSDP_LINKS, type AcpiTables, TABLE_CHECKSUM } from './firmware/acpi-tables.ts';
import { E820, e820File, HIGH_RAM_BASE } from './firmware/e820.ts';
import { TableLoader, ZONE } from './firmware/table-loader.ts';
import type { BootConfig } from './config.ts';
import { apicIdLimit, cpuCount } from './cpu-topology.ts';
import { boardAcpiTables, boardSmbios, type StartOptions } from './pc-boot.ts';

const FILES = { rsdp: 'etc/acpi/rsdp', tables: 'etc/acpi/tables' } as const;
/** Of the RSDP: checksums of the first 20 bytes, and of all. */
const RSDP_CHECKSUMS = [
  { at: 8, length: 20 },
  { at: 32, length: 36 },
] as const;

/** CMOS bytes of the BIOS (Phoenix and Bochs usage). */
const CMOS = {
  floppyTypes: 0x10,
  diskTypes: 0x12,
  equipment: 0x14,
  bootFlag1: 0x38,
  translation: 0x39,
  bootFlag2: 0x3d,
  cpus: 0x5f,
} as const;
const EQUIPMENT = { fpu: 0x02, mouse: 0x04, floppy: 0x01, secondFloppy: 0x40 } as const;

export type FirmwareOptions = {
  start: StartOptions;
  boot: BootConfig;
  /** No display: the firmware's text goes to the first serial port. */
  textOnSerial: boolean;
  /** Open Firmware paths of boot devices, first choice first. */
  bootOrder: readonly string[];
  /** PC/AT drive types of floppy drives A and B, 0 for none. */
  floppyTypes: readonly [number, number];
  /** For each IDE drive 0 to 3 that is a disk, whether its cylinders need translating. */
  translations: readonly (boolean | null)[];
};

/**
 * Fills fw_cfg once, when the machine is put together.
 * @param pmBase where firmware has put the ACPI registers
 */
export function describeBoard(fwCfg: FwCfg, pmBase: () => number, options: FirmwareOptions): void {
  const { start, boot } = options;
  fwCfg.setNumber(FW_CFG.nographic, options.textOnSerial ? 1 : 0, 2);
  fwCfg.setNumber(FW_CFG.bootMenu, boot.menu ? 1 : 0, 2);
  fwCfg.setItem(FW_CFG.uuid, start.uuid ?? new Uint8Array(16));
  // Interrupt 0 arrives at the I/O APIC's pin 2.
  fwCfg.setNumber(FW_CFG.irq0Override, 1, 4);
  // Number of nodes, then a node for each APIC ID: no NUMA.
  fwCfg.setItem(FW_CFG.numa, new Uint8Array(8 + 8 * apicIdLimit(start.topology)));
  fwCfg.setFile('etc/e820', e820File(ramOnly(start)));
  fwCfg.setFile('etc/boot-fail-wait', number(boot.rebootTimeout ?? -1, 4));
  if (boot.splashTime !== null) fwCfg.setFile('etc/boot-menu-wait', number(boot.splashTime, 2));
  if (options.bootOrder.length > 0) {
    fwCfg.setFile('bootorder', new TextEncoder().encode(`${options.bootOrder.join('\n')}\0`));
  }
  // Bit 7: the sleep state can be entered; below: its type. Only S5 (off) can.
  fwCfg.setFile('etc/system-states', Uint8Array.of(128, 0, 0, 1, 0, 128));
  describeTables(fwCfg, pmBase, start);
}

function number(value: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => (value >> (8 * i)) & 0xff);
}

/** Firmware knows best what it reserves for itself. */
function ramOnly({ ramSize, lowRam: low }: StartOptions) {
  const map = [{ base: 0, size: low, type: E820.ram }];
  if (ramSize > low) map.push({ base: HIGH_RAM_BASE, size: ramSize - low, type: E820.ram });
  return map;
}

function describeTables(fwCfg: FwCfg, pmBase: () => number, start: StartOptions): void {
  const build = (): AcpiTables => {
    const built = boardAcpiTables(start, pmBase(), 0);
    // What the firmware is to fill in starts as zero.
    for (const { at } of RSDP_CHECKSUMS) built.rsdp[at] = 0;
    for (const { at } of built.placed) built.tables[at + TABLE_CHECKSUM] = 0;
    return built;
  };
  const first = build();
  fwCfg.setGeneratedFile(FILES.tables, () => build().tables);
  fwCfg.setFile(FILES.rsdp, first.rsdp);
  fwCfg.setFile('etc/table-loader', loaderScript(first));
  const smbios = boardSmbios(start, 0);
  fwCfg.setFile('etc/smbios/smbios-anchor', smbios.entry21);
  fwCfg.setFile('etc/smbios/smbios-tables', smbios.table);
}

function loaderScript(built: AcpiTables): Uint8Array {
  const script = new TableLoader().allocate(FILES.rsdp, 16, ZONE.fseg).allocate(FILES.tables, 64, ZONE.high);
  for (const { at, size } of built.links) script.addPointer(FILES.tables, FILES.tables, at, size);
  for (const { at, size } of RSDP_LINKS) script.addPointer(FILES.rsdp, FILES.tables, at, size);
  for (const { at, length } of built.placed) {
    script.addChecksum(FILES.tables, at + TABLE_CHECKSUM, at, length);
  }
  for (const { at, length } of RSDP_CHECKSUMS) script.addChecksum(FILES.rsdp, at, 0, length);
  return script.finish();
}

/** Boot devices as letters (a, c, d, n: floppy, disk, CD, network) to the BIOS's numbers. */
const BOOT_CODES: Record<string, number> = { a: 1, b: 1, c: 2, d: 3, n: 4 };

/** Writes the settings of the BIOS. @param order boot devices, first choice first, at most three */
export function writeBiosSettings(rtc: Mc146818, options: FirmwareOptions, order: string): void {
  const [a, b] = options.floppyTypes;
  rtc.setCmos(CMOS.floppyTypes, (a << 4) | b);
  let equipment: number = EQUIPMENT.fpu | EQUIPMENT.mouse;
  if (a !== 0 || b !== 0) equipment |= EQUIPMENT.floppy;
  if (a !== 0 && b !== 0) equipment |= EQUIPMENT.secondFloppy;
  rtc.setCmos(CMOS.equipment, equipment);
  const codes = [...order].map((letter) => BOOT_CODES[letter] ?? 0);
  const code = (i: number): number => codes[i] ?? 0;
  rtc.setCmos(CMOS.bootFlag2, code(0) | (code(1) << 4));
  // Bit 0: a floppy's boot sector needs no signature.
  rtc.setCmos(CMOS.bootFlag1, (code(2) << 4) | 1);
  const { translations } = options;
  const disk = (i: number): boolean => translations[i] !== null && translations[i] !== undefined;
  rtc.setCmos(CMOS.diskTypes, (disk(0) ? 0xf0 : 0) | (disk(1) ? 0x0f : 0));
  let bits = 0;
  translations.forEach((needed, i) => {
    if (needed === true) bits |= 1 << (2 * i);
  });
  rtc.setCmos(CMOS.translation, bits);
  rtc.setCmos(CMOS.cpus, cpuCount(options.start.topology) - 1);
}

/** The physical memory map as firmware reports it: ACPI specification 6.4, section 15. */

import { ByteWriter } from './bytes.ts';

export const E820 = { ram: 1, reserved: 2, acpi: 3, nvs: 4 } as const;

export type E820Entry = { base: number; size: number; type: number };

/** Where RAM makes room for devices and firmware below 4 GiB. */
const LOW_RAM_END = 0xc0000000;
/** The same of a Q35, which has configuration space in memory from B0000000h on. */
const Q35_RAM_LIMIT = 0xb0000000;
const Q35_LOW_RAM_END = 0x80000000;
export const HIGH_RAM_BASE = 0x1_0000_0000;
/** Extended BIOS data area; RAM above it up to 640 KiB is the firmware's. */
export const EBDA = 0x9fc00;

/** @returns end of RAM below 4 GiB */
export function lowRamOf(ramSize: number, q35: boolean): number {
  if (!q35) return Math.min(ramSize, LOW_RAM_END);
  return ramSize < Q35_RAM_LIMIT ? ramSize : Q35_LOW_RAM_END;
}

/** @param low end of RAM below 4 GiB @param tables firmware tables at the end of low RAM, which the kernel may reclaim */
export function buildE820(ramSize: number, low: number, tables: { base: number; size: number } | null): E820Entry[] {
  const lowEnd = tables === null ? low : tables.base;
  const map: E820Entry[] = [
    { base: 0, size: Math.min(low, EBDA), type: E820.ram },
    { base: EBDA, size: 0xa0000 - EBDA, type: E820.reserved },
    { base: 0xf0000, size: 0x10000, type: E820.reserved },
  ];
  if (lowEnd > 0x100000) map.push({ base: 0x100000, size: lowEnd - 0x100000, type: E820.ram });
  if (tables !== null) map.push({ base: tables.base, size: low - tables.base, type: E820.acpi });
  // Local and I/O APIC, HPET, and the firmware's flash.
  map.push({ base: 0xfec00000, size: 0x1000, type: E820.reserved });
  map.push({ base: 0xfed00000, size: 0x400, type: E820.reserved });
  map.push({ base: 0xfee00000, size: 0x1000, type: E820.reserved });
  map.push({ base: 0xfffc0000, size: 0x40000, type: E820.reserved });
  if (ramSize > low) map.push({ base: HIGH_RAM_BASE, size: ramSize - low, type: E820.ram });
  return map;
}

/** The map as fw_cfg's file `etc/e820` has it: packed entries of 20 bytes. */
export function e820File(map: readonly E820Entry[]): Uint8Array {
  const out = new ByteWriter();
  for (const { base, size, type } of map) out.u64(base).u64(size).u32(type);
  return out.finish();
}

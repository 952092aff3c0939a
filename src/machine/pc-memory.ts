/** The PC's firmware area: where the BIOS lies and how the host bridge shadows it. */
import type { PamAccess } from '../devices/pci/i440fx.ts';
import type { AddressSpace } from './address-space.ts';
import type { MappedRegion } from './interfaces.ts';

export const FOUR_GIB = 0x1_0000_0000;
const BIOS_AREA_END = 0x100000;
const ISA_WINDOW = 0x20000;
const SMRAM_BASE = 0xa0000;
const SMRAM_SIZE = 0x20000;
/** Among memory, the bridge's shadow RAM comes before what lies on the buses behind it. */
export const BUS_PRIORITY = -1;

/** Firmware in the shared buffer, `size` bytes from `offset` on. */
export type BiosImage = { offset: number; size: number };

/** The image ends at 4 GiB, and shows below 1 MiB, too. */
export function mapBios(mem: AddressSpace, bios: BiosImage): void {
  if (bios.size % 0x10000 !== 0 || bios.size === 0 || bios.size > 2 ** 24) {
    throw new Error(`firmware of ${bios.size} bytes is not a multiple of 64 KiB up to 16 MiB`);
  }
  mem.addRom(FOUR_GIB - bios.size, bios.size, bios.offset, BUS_PRIORITY);
  mapIsaWindow(mem, bios);
}

/** Firmware's last 128 KiB below 1 MiB, where the processor starts. */
export function mapIsaWindow(mem: AddressSpace, bios: BiosImage): void {
  const window = Math.min(bios.size, ISA_WINDOW);
  mem.addRom(BIOS_AREA_END - window, window, bios.offset + bios.size - window, BUS_PRIORITY);
}

/** RAM beneath the display's window, which system management mode has for itself. */
export function smramMapper(mem: AddressSpace, ramOffset: number): (shows: boolean) => void {
  let mapped: MappedRegion | null = null;
  return (shows) => {
    if (shows === (mapped !== null)) return;
    mapped?.remove();
    mapped = shows ? mem.addRam(SMRAM_BASE, SMRAM_SIZE, ramOffset + SMRAM_BASE) : null;
  };
}

/** Follows the bridge's PAM registers: each area's reads and writes go to RAM or to the bus. */
export function pamMapper(mem: AddressSpace, ramOffset: number): (areas: readonly PamAccess[]) => void {
  const now = new Map<number, { access: string; mapped: MappedRegion | null }>();
  return (areas) => {
    for (const area of areas) {
      const access = `${area.read} ${area.write}`;
      const before = now.get(area.base);
      if (before?.access === access) continue;
      before?.mapped?.remove();
      now.set(area.base, { access, mapped: map(area) });
    }
  };

  function map({ base, size, read, write }: PamAccess): MappedRegion | null {
    const host = ramOffset + base;
    if (read) return write ? mem.addRam(base, size, host) : mem.addRom(base, size, host);
    return write ? mem.addWriteShadow(base, size, host) : null;
  }
}

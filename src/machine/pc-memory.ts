/** The PC's firmware area: where the BIOS lies and how the host bridge shadows it. */
import type { PamAccess } from '../devices/pci/i440fx.ts';
import type { AddressSpace } from './address-space.ts';

const FOUR_GIB = 0x1_0000_0000;
const BIOS_AREA_END = 0x100000;
const ISA_WINDOW = 0x20000;

export type BiosImage = { offset: number; size: number };

/** The image ends at 4 GiB; its last 128 KiB show below 1 MiB, too. */
export function mapBios(mem: AddressSpace, bios: BiosImage): void {
  if (bios.size % 0x10000 !== 0 || bios.size === 0 || bios.size > 2 ** 24) {
    throw new Error(`firmware of ${bios.size} bytes is not a multiple of 64 KiB up to 16 MiB`);
  }
  mem.addRom(FOUR_GIB - bios.size, bios.size, bios.offset);
  const window = Math.min(bios.size, ISA_WINDOW);
  mem.addRom(BIOS_AREA_END - window, window, bios.offset + bios.size - window);
}

/**
 * Follows the bridge's PAM registers. An area that is read from ROM but written to RAM is mapped
 * as RAM, which the firmware that uses it (to copy ROM onto itself) cannot tell apart after that.
 */
export function pamMapper(
  mem: AddressSpace, ramOffset: number, bios: BiosImage,
): (areas: PamAccess[]) => void {
  const window = Math.min(bios.size, ISA_WINDOW);
  const romBase = BIOS_AREA_END - window;
  return (areas) => {
    for (const { base, size, read, write } of areas) {
      if (read && write) mem.addRam(base, size, ramOffset + base);
      else if (read) mem.addRom(base, size, ramOffset + base);
      else mapRomPart(base, size);
    }
  };

  function mapRomPart(base: number, size: number): void {
    const inRom = base >= romBase;
    if (inRom) mem.addRom(base, size, bios.offset + bios.size - (BIOS_AREA_END - base));
    else mem.removePages(base, size);
  }
}

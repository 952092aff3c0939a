/** The PC's flash memory: firmware, which ends at 4 GiB, and below it what firmware stores. */
import { FLASH_BLOCK, ParallelFlash } from '../devices/flash/cfi01.ts';
import type { AddressSpace } from './address-space.ts';
import { BUS_PRIORITY, FOUR_GIB, mapIsaWindow } from './pc-memory.ts';
import type { Drive } from './pc-storage.ts';

/** What both chips may have together, bytes. */
export const FLASH_LIMIT = 2 ** 23;

/** A chip's array in the shared buffer, read already. */
export type FlashArea = { offset: number; size: number; drive: Drive };

/**
 * Chips by unit, the first of which holds the reset vector.
 * @param bytes the whole shared buffer
 */
export function addFlash(mem: AddressSpace, bytes: Uint8Array, areas: readonly FlashArea[]): ParallelFlash[] {
  let end = FOUR_GIB;
  return areas.map(({ offset, size, drive }, unit) => {
    const base = end - size;
    end = base;
    const chip = new ParallelFlash({
      id: `pflash${unit}`,
      bytes: bytes.subarray(offset, offset + size),
      backend: drive.backend!,
      readOnly: drive.config.readOnly,
      map: () => mem.addRom(base, size, offset, BUS_PRIORITY),
      changed: (at, length) => mem.touched(offset + at, length),
    });
    mem.addMmio(base, size, chip.mmio, chip.id);
    if (unit === 0) mapIsaWindow(mem, { offset, size });
    return chip;
  });
}

/** The flash drives by unit. @throws Error for sizes that cannot be had */
export function flashDrives(drives: readonly Drive[]): Drive[] {
  const found = drives.filter(({ config }) => config.interface === 'pflash').sort((a, b) => a.config.index - b.config.index);
  let total = 0;
  for (const { backend } of found) {
    const { size } = backend!;
    if (size === 0 || size % FLASH_BLOCK !== 0) {
      throw new Error(`flash memory of ${size} bytes is not a multiple of ${FLASH_BLOCK}`);
    }
    total += size;
  }
  if (total > FLASH_LIMIT) throw new Error(`flash memory of more than ${FLASH_LIMIT / 2 ** 20} MiB`);
  return found;
}

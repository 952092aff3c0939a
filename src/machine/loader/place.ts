/** What the kernel formats share: the image, the layout of low memory, command line and initrd. */
import type { GuestMemory } from '../interfaces.ts';
import type { E820Entry } from '../firmware/e820.ts';

export type BootImage = {
  kernel: Uint8Array;
  /** For error messages. */
  kernelName: string;
  initrd: Uint8Array | null;
  commandLine: string;
};

export type BootPlace = {
  memory: GuestMemory;
  e820: readonly E820Entry[];
  /** End of the RAM below the hole that the kernel and its initrd may fill. */
  lowEnd: number;
  /** Physical address of the RSDP, 0 for none. */
  rsdp: number;
};

/** Low memory that the loader uses: all within the first 640 KiB, and free for the kernel later. */
export const LAYOUT = {
  info: 0x10000,
  gdt: 0x14000,
  commandLine: 0x15000,
  commandLineEnd: 0x20000,
  pageTables: 0x20000,
  stack: 0x8fff0,
} as const;

export class ImageError extends Error {
  constructor(image: BootImage, why: string) {
    super(`kernel ${image.kernelName}: ${why}`);
  }
}

/** @returns the address of the zero-terminated command line */
export function placeCommandLine(image: BootImage, place: BootPlace, limit: number): number {
  const text = new TextEncoder().encode(image.commandLine);
  const room = Math.min(limit, LAYOUT.commandLineEnd - LAYOUT.commandLine - 1);
  if (text.length > room) {
    throw new ImageError(image, `command line of ${text.length} bytes is longer than ${room}`);
  }
  const terminated = new Uint8Array(text.length + 1);
  terminated.set(text);
  place.memory.writeBytes(LAYOUT.commandLine, terminated);
  return LAYOUT.commandLine;
}

/** As high as kernel and RAM allow. @returns 0 without an initrd */
export function placeInitrd(image: BootImage, place: BootPlace, kernelEnd: number, highest: number): number {
  const { initrd } = image;
  if (initrd === null || initrd.length === 0) return 0;
  const end = Math.min(place.lowEnd, highest);
  const base = Math.floor((end - initrd.length) / 4096) * 4096;
  if (base < kernelEnd) {
    throw new ImageError(
      image,
      `initrd of ${initrd.length} bytes does not fit between 0x${kernelEnd.toString(16)} ` + `and 0x${end.toString(16)}`,
    );
  }
  place.memory.writeBytes(base, initrd);
  return base;
}

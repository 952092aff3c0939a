/** Starts a kernel without firmware: picks the format. */
import { isBzImage, loadBzImage } from './bzimage.ts';
import type { InitialCpuState } from './cpu-state.ts';
import { type BootImage, type BootPlace, ImageError } from './place.ts';
import { isElf, loadPvhElf } from './pvh.ts';

export type { BootImage, BootPlace };
export { ImageError };

/** Puts the kernel, its initrd and its parameters into RAM. @throws Error in one line */
export function loadKernel(image: BootImage, place: BootPlace): InitialCpuState {
  if (isBzImage(image.kernel)) return loadBzImage(image, place);
  if (isElf(image.kernel)) return loadPvhElf(image, place);
  throw new ImageError(image, 'not a Linux bzImage or PVH ELF (neither header found)');
}

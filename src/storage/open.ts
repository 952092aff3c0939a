/** Opens what is behind a drive. */
import { openBlockFile } from '#host';
import type { DriveConfig } from '../machine/config.ts';
import type { BlockBackend } from '../machine/interfaces.ts';
import { MemoryOverlay } from './overlay.ts';
import { RawFile, RawMemory } from './raw.ts';

/**
 * @param repeatable no operation takes the host's time
 * @returns null for a drive without a medium
 * @throws Error, one line, when the image cannot be used
 */
export function openDrive(drive: DriveConfig, repeatable: boolean): BlockBackend | null {
  const { file, snapshot } = drive;
  if (file === null) return null;
  // Writes that stay in memory need no permission.
  const base =
    typeof file === 'string'
      ? new RawFile(openBlockFile(file, !drive.readOnly && !snapshot), drive.readOnly || snapshot, repeatable)
      : new RawMemory(file.data, drive.readOnly || snapshot);
  return snapshot && !drive.readOnly ? new MemoryOverlay(base) : base;
}

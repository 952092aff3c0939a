/** Firmware images where distributions' packages put them. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeError } from './errors.ts';

const FOLDERS = [
  '/usr/share/seabios',
  '/usr/share/qemu',
  '/usr/share/qemu-kvm',
  '/usr/share/OVMF',
  '/usr/local/share/qemu',
  '/opt/homebrew/share/qemu',
];

/**
 * @param name a path, or a file's name in one of the folders
 * @param folders searched first
 * @returns null when there is no such file @throws Error, one line, when it cannot be read
 */
export function findFirmware(name: string, folders: readonly string[] = []): { name: string; data: Uint8Array } | null {
  const places = [name, ...[...folders, ...FOLDERS].map((folder) => join(folder, name))];
  const path = places.find((place) => existsSync(place));
  if (path === undefined) return null;
  try {
    return { name: path, data: new Uint8Array(readFileSync(path)) };
  } catch (error) {
    throw new Error(describeError(error));
  }
}

/** Disks with the small DOS of system.asm, and programs assembled for it. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SECTOR = 512;
const ENTRY = 32;
const AT_FIRST = 16;
const AT_SIZE = 20;

export const hasAssembler = (): boolean => spawnSync('nasm', ['-v']).status === 0;

/** @param name of a file in this folder, without `.asm` */
export function assemble(name: string): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), 'dos-'));
  try {
    const output = join(folder, 'program');
    const source = join(import.meta.dirname, `${name}.asm`);
    const options = ['-f', 'bin', '-I', `${import.meta.dirname}/`, '-o', output, source];
    const { status, stderr } = spawnSync('nasm', options, { encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
    return readFileSync(output);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * @param lines what the system runs, one program with its arguments each
 * @param files by names of up to 8 + 3 capital letters; at most 15
 */
export function dosDisk(lines: readonly string[], files: Readonly<Record<string, Uint8Array>>): Uint8Array {
  const system = assemble('system');
  const all = { 'RUN.BAT': new TextEncoder().encode(lines.map((line) => `${line}\n`).join('')), ...files };
  const sectors = (bytes: Uint8Array): number => Math.ceil(bytes.length / SECTOR);
  const directory = new Uint8Array(SECTOR);
  const entries = new DataView(directory.buffer);
  const content = Object.entries(all);
  let sector = sectors(system) + 1;
  const disk = new Uint8Array((sector + content.reduce((sum, [, bytes]) => sum + sectors(bytes), 0)) * SECTOR);
  for (const [i, [name, bytes]] of content.entries()) {
    directory.set(new TextEncoder().encode(name), i * ENTRY);
    entries.setUint32(i * ENTRY + AT_FIRST, sector, true);
    entries.setUint32(i * ENTRY + AT_SIZE, bytes.length, true);
    disk.set(bytes, sector * SECTOR);
    sector += sectors(bytes);
  }
  disk.set(system);
  disk.set(directory, system.length);
  return disk;
}

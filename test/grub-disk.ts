/** Disks and CDs with GRUB, made without privileges. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Machine } from 'virelay';
import { findFirmware } from '../src/host/node/firmware.ts';
import { packageFiles } from './packages.ts';

const MIB = 2 ** 20;
const SECTOR = 512;
const PARTITION_START = 2048;
const PARTITION_MIB = 40;
/** Where in its first sector GRUB's second part is read from, and the partition table. */
const TABLE = 446;

export type GrubTools = { modules: string; mkimage: (args: readonly string[]) => void };

/** @returns what makes disks, or a line that says why it cannot be had */
export function grubTools(): GrubTools | string {
  if (findFirmware('bios-256k.bin') === null) return 'SeaBIOS is not installed';
  const files = packageFiles('grub', ['grub-pc-bin', 'grub-common']);
  if (typeof files === 'string') return files;
  const modules = join(files.root, 'usr/lib/grub/i386-pc');
  return {
    modules,
    mkimage: (args) => void execFileSync(join(files.root, 'usr/bin/grub-mkimage'), ['-d', modules, ...args], { stdio: 'pipe' }),
  };
}

/** The same; null, with the test skipped, where it is not to be had. */
export function grubOrSkip(t: TestContext): GrubTools | null {
  const tools = grubTools();
  if (typeof tools !== 'string') return tools;
  t.skip(tools);
  return null;
}

/** A file system with GRUB's modules and the files, by their paths in it. */
function makePartition(folder: string, { modules }: GrubTools, files: Readonly<Record<string, Uint8Array | string>>): Uint8Array {
  const tree = join(folder, 'tree');
  mkdirSync(join(tree, 'boot/grub'), { recursive: true });
  cpSync(modules, join(tree, 'boot/grub/i386-pc'), {
    recursive: true,
    filter: (path) => !path.endsWith('.module'),
  });
  for (const [name, data] of Object.entries(files)) {
    mkdirSync(dirname(join(tree, name)), { recursive: true });
    writeFileSync(join(tree, name), data);
  }
  const path = join(folder, 'partition');
  writeFileSync(path, '');
  truncateSync(path, PARTITION_MIB * MIB);
  execFileSync('mkfs.ext4', ['-q', '-d', tree, path], {
    stdio: 'pipe',
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
  });
  return readFileSync(path);
}

/**
 * What lies before the one partition of a disk: boot sector with the partition table, and GRUB's core behind it.
 * @param folder for what it is made of  @param start of the partition, in bytes  @param size of the partition, in bytes
 */
export function bootArea(folder: string, tools: GrubTools, start: number, size: number): Uint8Array {
  const core = join(folder, 'core.img');
  tools.mkimage(['-O', 'i386-pc', '-p', '(hd0,msdos1)/boot/grub', '-o', core, 'biosdisk', 'part_msdos', 'ext2']);
  const area = new Uint8Array(start);
  area.set(readFileSync(join(tools.modules, 'boot.img')).subarray(0, TABLE));
  const view = new DataView(area.buffer);
  area.set([0x80, 0, 0, 0, 0x83, 0xfe, 0xff, 0xff], TABLE);
  view.setUint32(TABLE + 8, start / SECTOR, true);
  view.setUint32(TABLE + 12, size / SECTOR, true);
  area.set([0x55, 0xaa], 510);
  area.set(readFileSync(core), SECTOR);
  return area;
}

/**
 * Boot sector, GRUB's core behind it, and one partition.
 * @param folder for what it is made of  @param files of the partition by their paths, boot/grub/grub.cfg among them
 */
export function makeDisk(folder: string, tools: GrubTools, files: Readonly<Record<string, Uint8Array | string>>): Uint8Array {
  const partition = makePartition(folder, tools, files);
  const area = bootArea(folder, tools, PARTITION_START * SECTOR, partition.length);
  const disk = new Uint8Array(area.length + partition.length);
  disk.set(area);
  disk.set(partition, area.length);
  return disk;
}

/** Waits until the screen shows it. @returns the whole screen */
export async function screenWith(machine: Machine, wanted: RegExp): Promise<string> {
  for (;;) {
    const text = (await machine.screenText())?.join('\n') ?? '';
    if (wanted.test(text)) return text;
    if (machine.state !== 'running') throw new Error(`the machine ended before ${wanted}:\n${text}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A CD with one boot image and no files; the image is told where it lies. */
export function bootableCd(image: Uint8Array): Uint8Array {
  const CD = 2048;
  const START = 20;
  const cd = new Uint8Array((START + Math.ceil(image.length / CD) + 16) * CD);
  const view = new DataView(cd.buffer);
  for (const [at, type] of [
    [16, 1],
    [17, 0],
    [18, 255],
  ] as const) {
    cd.set([type, ...new TextEncoder().encode('CD001'), 1], at * CD);
  }
  cd.set(new TextEncoder().encode('EL TORITO SPECIFICATION'), 17 * CD + 7);
  view.setUint32(17 * CD + 0x47, 19, true);
  cd.set([1, 0, 0, 0], 19 * CD);
  cd.set([0xaa, 0x55, 0x55, 0xaa], 19 * CD + 28);
  cd.set([0x88, 0, 0, 0, 0, 0, 4, 0, START], 19 * CD + 32);
  cd.set(image, START * CD);
  // The boot information table: descriptor, image, its length and sum.
  const table = START * CD + 8;
  view.setUint32(table, 16, true);
  view.setUint32(table + 4, START, true);
  view.setUint32(table + 8, image.length, true);
  let sum = 0;
  for (let at = 64; at < image.length; at += 4) sum = (sum + view.getUint32(START * CD + at, true)) >>> 0;
  view.setUint32(table + 12, sum, true);
  return cd;
}

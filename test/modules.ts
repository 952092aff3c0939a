/** Modules of a distribution's kernel, in the order of loading, and the init script that loads them. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type ArchiveEntry, directory, file } from '../src/guest/cpio.ts';

/** @returns paths of modules, each after those that it needs */
export function inOrder(folder: string, wanted: readonly string[]): string[] {
  const paths = new Map(
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ko'))
      .map((path) => [basename(path, '.ko').replaceAll('-', '_'), join(folder, path)]),
  );
  const order: string[] = [];
  const add = (name: string): void => {
    const path = paths.get(name.replaceAll('-', '_'));
    assert.ok(path, `the kernel's package has no module ${name}`);
    if (order.includes(path)) return;
    const needs = /\0depends=([^\0]*)\0/.exec(readFileSync(path, 'latin1'))?.[1] ?? '';
    for (const other of needs.split(',').filter((one) => one !== '')) add(other);
    order.push(path);
  };
  wanted.forEach(add);
  return order;
}

/** @returns files for an initramfs, and the shell's line that loads them */
export function moduleFiles(folder: string, wanted: readonly string[]): { files: ArchiveEntry[]; load: string } {
  const modules = inOrder(folder, wanted);
  const files = modules.map((path) => file(`modules/${basename(path)}`, readFileSync(path)));
  const names = modules.map((path) => basename(path)).join(' ');
  return { files: [directory('modules'), ...files], load: `for module in ${names}; do insmod /modules/$module; done` };
}

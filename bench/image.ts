/** The guest that the benchmark boots, and the same work on the host itself. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { directory, file } from '../src/guest/cpio.ts';
import { initramfs } from '../src/guest/initramfs.ts';
import { type Choose, dependency, guestFiles, packageTree } from '../src/cli/guest-files.ts';
import { terminalProgress } from '../src/cli/progress.ts';

/** The guest's first words, by which power-on to /init is measured, and its last. */
export const START_MARK = 'MARK init';
export const END_MARK = 'MARK end';

const SOURCES: Record<string, readonly string[]> = {
  suite: ['suite.c', 'integer.c', 'kernels.c', 'vector.c'],
  suite32: ['suite32.c', 'integer.c'],
  measure: ['measure.c'],
  spawn: ['spawn.c'],
  generate: ['generate.c'],
};
const SCRIPTS = ['jobs.sh', 'program.py'];
const FLAGS = ['-O2', '-fno-tree-vectorize', '-static'];
/** Without a 32-bit C library: system headers serve as they are, since only <stdint.h> is used. */
const FLAGS_OF: Record<string, readonly string[]> = {
  suite32: ['-m32', '-march=i686', '-ffreestanding', '-nostdlib', '-fno-pie', '-no-pie', '-fno-stack-protector'],
};
const INIT = `
BIN=/bench TMP=/tmp ONLY="$ONLY" sh /bench/jobs.sh
echo '${END_MARK}'
poweroff -f
`;

export interface BenchImage {
  readonly folder: string;
  readonly kernel: string;
  readonly initrd: string;
  remove(): void;
}

/**
 * Where the parts of Debian's CPython lie in its packages, by where they are put. With those that are frozen
 * into the interpreter, these modules are all that it starts with.
 */
const PYTHON_PARTS: Record<string, string> = {
  python3: 'usr/bin/VERSION',
  ...Object.fromEntries(
    ['ld-linux-x86-64.so.2', 'libc.so.6', 'libm.so.6', 'libz.so.1', 'libexpat.so.1'].map((name) => [
      name,
      `lib/x86_64-linux-gnu/${name}`,
    ]),
  ),
  ...Object.fromEntries(
    ['__init__', 'aliases', 'utf_8', 'ascii', 'latin_1'].map((name) => [
      `lib/VERSION/encodings/${name}.py`,
      `usr/lib/VERSION/encodings/${name}.py`,
    ]),
  ),
};

const pythonPackages: Choose = async (options) => {
  const interpreter = await dependency(options, 'python3-minimal', /python3\.\d+-minimal/);
  return [interpreter, `lib${interpreter}`, 'libc6', 'libexpat1', 'zlib1g'];
};

/** @returns the paths of what was copied, relative to `folder` */
async function copyPython(folder: string): Promise<string[]> {
  const tree = await packageTree('python', pythonPackages, terminalProgress());
  const version = readdirSync(join(tree, 'usr/lib')).find((name) => /^python3\.\d+$/.test(name))!;
  return Object.entries(PYTHON_PARTS).map(([to, from]) => {
    const target = join('python', to.replace('VERSION', version));
    mkdirSync(dirname(join(folder, target)), { recursive: true });
    copyFileSync(join(tree, from.replace('VERSION', version)), join(folder, target));
    return target;
  });
}

/** The folders on the way to these files, outermost first. */
function foldersOf(files: readonly string[]): string[] {
  const folders = new Set<string>();
  for (const path of files) {
    const parts = dirname(path).split('/');
    parts.forEach((_, i) => folders.add(parts.slice(0, i + 1).join('/')));
  }
  return [...folders].filter((path) => path !== '.');
}

function compile(folder: string): void {
  const source = join(import.meta.dirname, 'guest');
  for (const [name, files] of Object.entries(SOURCES)) {
    const paths = files.map((one) => join(source, one));
    execFileSync('gcc', [...FLAGS, ...(FLAGS_OF[name] ?? ['-lm']), '-o', join(folder, name), ...paths]);
  }
  for (const name of SCRIPTS) copyFileSync(join(source, name), join(folder, name));
}

/** @param only the group that will be run; empty for all */
export async function buildImage(only: string): Promise<BenchImage> {
  const guest = await guestFiles(terminalProgress());
  const folder = mkdtempSync(join(tmpdir(), 'virelay-bench-'));
  compile(folder);
  writeFileSync(join(folder, 'busybox'), guest.busybox, { mode: 0o755 });
  // Only when asked for: with it the archive that every boot unpacks is many times as large.
  const python = only === 'python' ? await copyPython(folder) : [];
  const names = [...Object.keys(SOURCES), ...SCRIPTS, 'busybox', ...python].map((name) => `bench/${name}`);
  const extra = [
    ...foldersOf(names).map((path) => directory(path)),
    ...names.map((name) => file(name, readFileSync(join(folder, name.slice('bench/'.length))))),
  ];
  const image = initramfs(guest, INIT, extra, `echo '${START_MARK}'`);
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, image);
  return {
    folder,
    initrd,
    kernel: join(guest.folder, 'vmlinuz'),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** @returns what the same jobs print on the host's own CPU */
export function runNative({ folder }: BenchImage, only: string): string {
  const tmp = join(folder, 'tmp');
  mkdirSync(tmp, { recursive: true });
  return execFileSync(join(folder, 'busybox'), ['sh', join(folder, 'jobs.sh')], {
    env: { ...process.env, BIN: folder, TMP: tmp, ONLY: only },
    encoding: 'utf8',
  });
}

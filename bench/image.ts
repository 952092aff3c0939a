/** The guest that the benchmark boots, and the same work on the host itself. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { directory, file } from '../src/guest/cpio.ts';
import { initramfs } from '../src/guest/initramfs.ts';
import { guestFiles } from '../src/cli/guest-files.ts';
import { terminalProgress } from '../src/cli/progress.ts';

/** The guest's first words, by which power-on to /init is measured, and its last. */
export const START_MARK = 'MARK init';
export const END_MARK = 'MARK end';

const SOURCES: Record<string, readonly string[]> = {
  suite: ['suite.c', 'integer.c', 'kernels.c', 'vector.c'], suite32: ['suite32.c', 'integer.c'],
  measure: ['measure.c'], spawn: ['spawn.c'],
  generate: ['generate.c'],
};
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

function compile(folder: string): void {
  const source = join(import.meta.dirname, 'guest');
  for (const [name, files] of Object.entries(SOURCES)) {
    const paths = files.map((one) => join(source, one));
    execFileSync('gcc', [
      ...FLAGS, ...(FLAGS_OF[name] ?? ['-lm']), '-o', join(folder, name), ...paths,
    ]);
  }
  copyFileSync(join(source, 'jobs.sh'), join(folder, 'jobs.sh'));
}

export async function buildImage(): Promise<BenchImage> {
  const guest = await guestFiles(terminalProgress());
  const folder = mkdtempSync(join(tmpdir(), 'virelay-bench-'));
  compile(folder);
  writeFileSync(join(folder, 'busybox'), guest.busybox, { mode: 0o755 });
  const names = [...Object.keys(SOURCES), 'jobs.sh', 'busybox'];
  const extra = names.map((name) => file(`bench/${name}`, readFileSync(join(folder, name))));
  const image = initramfs(guest, INIT, [directory('bench'), ...extra], `echo '${START_MARK}'`);
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, image);
  return {
    folder, initrd, kernel: join(guest.folder, 'vmlinuz'),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** @returns what the same jobs print on the host's own CPU */
export function runNative({ folder }: BenchImage, only: string): string {
  const tmp = join(folder, 'tmp');
  mkdirSync(tmp, { recursive: true });
  return execFileSync(join(folder, 'busybox'), ['sh', join(folder, 'jobs.sh')], {
    env: { ...process.env, BIN: folder, TMP: tmp, ONLY: only }, encoding: 'utf8',
  });
}

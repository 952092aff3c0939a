/**
 * How fast images are, beside QEMU's tools (Debian's qemu-utils) on the same files: requests of 4 KiB at random places
 * and in a row, and conversions, starting included. The best of several runs counts.
 *
 *     node --no-warnings bench/storage/run.ts [folder for images of about 3 GiB]
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const RUNS = 3;
const MIB = 2 ** 20;
const OURS = join(import.meta.dirname, '..', '..', 'bin', 'virelay-img');
const TOOLS = { 'qemu-img': 'qemu-img', 'virelay-img': OURS } as const;
const folder = mkdtempSync(join(process.argv[2] ?? tmpdir(), 'virelay-bench-'));
const place = (name: string): string => join(folder, name);

/** Seconds that a command takes, or says that it has taken. */
function once(tool: string, args: readonly string[]): number {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(tool, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${tool} ${args.join(' ')}: ${stderr}`);
  const said = /Run completed in ([\d.]+) seconds/.exec(stdout);
  return said === null ? (performance.now() - start) / 1000 : Number(said[1]);
}

/** Both tools in turn, so that both see the same host. */
function compare(what: string, args: readonly string[]): void {
  const best = { 'qemu-img': Infinity, 'virelay-img': Infinity };
  for (let i = 0; i < RUNS; i++) {
    for (const [name, tool] of Object.entries(TOOLS))
      best[name as keyof typeof TOOLS] = Math.min(best[name as keyof typeof TOOLS], once(tool, args));
  }
  const ratio = best['virelay-img'] / best['qemu-img'];
  console.log(
    `${what.padEnd(44)} qemu-img ${best['qemu-img'].toFixed(3)} s   virelay-img ${best['virelay-img'].toFixed(3)} s   ${ratio.toFixed(2)}`,
  );
}

try {
  const data = new Uint8Array(512 * MIB);
  for (let at = 0; at < data.length; at += MIB) randomFillSync(data, at, MIB);
  writeFileSync(place('full.raw'), data);
  execFileSync('qemu-img', ['convert', '-O', 'qcow2', place('full.raw'), place('full.qcow2')]);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', place('sparse.qcow2'), '4G']);
  const writes = Array.from({ length: 40 }, (_, i) => ['-c', `write -q -P ${i + 1} ${i * 100}M 1M`]).flat();
  execFileSync('qemu-io', [...writes, place('sparse.qcow2')]);
  for (const format of ['raw', 'qcow2']) {
    const image = place(`full.${format}`);
    compare(`${format}: 60,000 reads of 4 KiB, far apart`, ['bench', '-f', format, '-c', '60000', '-S', '69632', image]);
    compare(`${format}: 60,000 writes of 4 KiB, far apart`, ['bench', '-f', format, '-w', '-c', '60000', '-S', '69632', image]);
    compare(`${format}: 2,000 reads of 256 KiB in a row`, ['bench', '-f', format, '-c', '2000', '-s', '256k', '-d', '8', image]);
  }
  compare('look at an image', ['info', place('sparse.qcow2')]);
  compare('convert 4 GiB with 40 MiB of data', ['convert', '-O', 'qcow2', place('sparse.qcow2'), place('out.qcow2')]);
  compare('convert 512 MiB of data, raw to qcow2', [
    'convert',
    '-f',
    'raw',
    '-O',
    'qcow2',
    place('full.raw'),
    place('out.qcow2'),
  ]);
  compare('convert 512 MiB of data, qcow2 to raw', ['convert', '-O', 'raw', place('full.qcow2'), place('out.raw')]);
  compare('convert 512 MiB of data, compressed', [
    'convert',
    '-c',
    '-f',
    'raw',
    '-O',
    'qcow2',
    place('full.raw'),
    place('out.qcow2'),
  ]);
} finally {
  rmSync(folder, { recursive: true });
}

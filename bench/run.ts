/** `npm run bench`: one guest under this machine and under QEMU's translator, in turn. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { benchFirmware } from './firmware.ts';
import { type Emulator, parseResults, qemu, type Run, runGuest, virelay } from './emulators.ts';
import { buildImage, runNative } from './image.ts';
import { formatTable, summarize } from './report.ts';

const USAGE = `npm run bench -- [--rounds N] [--only GROUP] [--accel jit|interp] [--no-qemu]
  [--memory SIZE] [--json FILE] [--timeout SECONDS] [--cpu MODEL]
groups: integer, integer32, sse2, x87, memory, vector, python (only when named), busybox, process; vector wants --cpu max;
firmware (only when named): from power-on to GRUB's menu`;

function options() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      only: { type: 'string', default: '' },
      accel: { type: 'string', default: 'jit' },
      'no-qemu': { type: 'boolean', default: false },
      memory: { type: 'string', default: '512' },
      json: { type: 'string' },
      timeout: { type: 'string', default: '600' },
      cpu: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  return values;
}

function qemuVersion(): string | null {
  const { status, stdout } = spawnSync('qemu-system-x86_64', ['-version'], { encoding: 'utf8' });
  return status === 0 ? stdout.split('\n')[0]! : null;
}

async function main(): Promise<number> {
  const chosen = options();
  if (chosen.help) {
    console.log(USAGE);
    return 0;
  }
  const cpu = chosen.cpu === undefined ? [] : ['-cpu', chosen.cpu];
  const peer = chosen['no-qemu'] ? null : qemuVersion();
  const emulators: Emulator[] = [virelay(chosen.accel, cpu), ...(peer === null ? [] : [qemu(cpu)])];
  if (peer === null) console.error('no qemu-system-x86_64: no comparison');
  if (chosen.only === 'firmware') {
    save(chosen.json, await benchFirmware(emulators, Number(chosen.rounds)));
    return 0;
  }
  const image = await buildImage(chosen.only);
  try {
    const native = parseResults(runNative(image, chosen.only));
    const runs = new Map<string, Run[]>(emulators.map(({ name }) => [name, []]));
    for (let round = 1; round <= Number(chosen.rounds); round++) {
      for (const emulator of emulators) {
        console.error(`round ${round}: ${emulator.name}`);
        runs.get(emulator.name)!.push(
          await runGuest(emulator, image, {
            only: chosen.only,
            memory: chosen.memory,
            timeoutS: Number(chosen.timeout),
          }),
        );
      }
    }
    const names = emulators.map(({ name }) => name);
    const summary = summarize(native, runs, names[0]!, 'qemu');
    console.log(formatTable(summary, names));
    save(chosen.json, {
      date: new Date().toISOString(),
      cpu: cpus()[0]?.model,
      cpus: cpus().length,
      memoryMiB: Math.round(totalmem() / 2 ** 20),
      qemu: peer,
      node: process.version,
      options: chosen,
      summary,
      runs: Object.fromEntries(runs),
    });
    return summary.wrong.length === 0 ? 0 : 1;
  } finally {
    image.remove();
  }
}

function save(path: string | undefined, data: unknown): void {
  const stamp = new Date().toISOString().replaceAll(':', '-').slice(0, 19);
  const target = path ?? join(import.meta.dirname, 'results', `${stamp}.json`);
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, `${JSON.stringify(data, null, 2)}\n`);
  console.error(`written: ${target}`);
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`bench: ${(error as Error).message}`);
  process.exitCode = 1;
}

/** `npm run bench`: one guest under this machine and under QEMU's translator, in turn. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { benchFirmware } from './firmware.ts';
import { type Emulator, parseResults, qemu, type Result, type Run, runGuest, virelay } from './emulators.ts';
import { buildImage, runNative } from './image.ts';
import { formatTable, type Summary, summarize } from './report.ts';
import { benchTransfer, TRANSFER_GROUPS, type TransferGroup } from './transfer.ts';

const USAGE = `npm run bench -- [--rounds N] [--only GROUP] [--accel jit|interp] [--no-qemu]
  [--memory SIZE] [--json FILE] [--timeout SECONDS] [--cpu MODEL]
groups: integer, integer32, sse2, x87, memory, vector, python (only when named), busybox, process, disk, network; vector wants --cpu max;
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

type Options = ReturnType<typeof options>;
type Measured = { summary: Summary; runs: Record<string, Run[]> };

/** What needs a processor and memory only, beside the same on the host itself. */
async function benchPrograms(emulators: readonly Emulator[], chosen: Options): Promise<Measured> {
  const image = await buildImage(chosen.only);
  try {
    const native = parseResults(runNative(image, chosen.only));
    const runs = new Map<string, Run[]>(emulators.map(({ name }) => [name, []]));
    for (let round = 1; round <= Number(chosen.rounds); round++) {
      for (const emulator of emulators) {
        console.error(`round ${round}: ${emulator.name}`);
        runs.get(emulator.name)!.push(
          await runGuest(emulator, image, {
            variables: chosen.only === '' ? {} : { ONLY: chosen.only },
            memory: chosen.memory,
            timeoutS: Number(chosen.timeout),
          }),
        );
      }
    }
    return report(native, runs, emulators);
  } finally {
    image.remove();
  }
}

async function benchTransfers(group: TransferGroup, emulators: readonly Emulator[], chosen: Options): Promise<Measured> {
  const { rounds, memory, timeout } = chosen;
  const limits = { rounds: Number(rounds), memory, timeoutS: Number(timeout) };
  const { truth, runs, wrong } = await benchTransfer(group, emulators, limits);
  return report(truth, runs, emulators, wrong);
}

function report(
  native: readonly Result[],
  runs: Map<string, Run[]>,
  emulators: readonly Emulator[],
  wrong: readonly string[] = [],
): Measured {
  const names = emulators.map(({ name }) => name);
  const found = summarize(native, runs, names[0]!, 'qemu');
  const summary = { ...found, wrong: [...found.wrong, ...wrong] };
  console.log(formatTable(summary, names));
  return { summary, runs: Object.fromEntries(runs) };
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
  const transfers = TRANSFER_GROUPS.filter((group) => chosen.only === '' || chosen.only === group);
  const programs = chosen.only !== '' && transfers.length > 0 ? null : await benchPrograms(emulators, chosen);
  const measured: Record<string, Measured> = {};
  for (const group of transfers) measured[group] = await benchTransfers(group, emulators, chosen);
  save(chosen.json, {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model,
    cpus: cpus().length,
    memoryMiB: Math.round(totalmem() / 2 ** 20),
    qemu: peer,
    node: process.version,
    options: chosen,
    ...programs,
    ...measured,
  });
  const all = programs === null ? Object.values(measured) : [programs, ...Object.values(measured)];
  return all.every(({ summary }) => summary.wrong.length === 0) ? 0 : 1;
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

/** Groups `disk` and `network`: a guest's own programs read and write virtio disks, and send and receive by TCP. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { directory, file } from '../src/guest/cpio.ts';
import { initramfs } from '../src/guest/initramfs.ts';
import { moduleFiles } from '../test/modules.ts';
import { type Guest, guestWithModules } from '../test/virtio-guest.ts';
import { type Emulator, parseResults, type Result, type Run, runGuest } from './emulators.ts';
import { readWhole } from './host-memory.ts';
import { END_MARK, START_MARK } from './image.ts';

export const TRANSFER_GROUPS = ['disk', 'network'] as const;
export type TransferGroup = (typeof TRANSFER_GROUPS)[number];

const MIB = 1024;
const MODULES: Record<TransferGroup, readonly string[]> = {
  disk: ['virtio_pci', 'virtio_blk'],
  network: ['virtio_pci', 'virtio_net'],
};
const SOURCE = join(import.meta.dirname, 'guest');
const SCRIPT = 'transfer.sh';
const IMAGE_TOOL = join(import.meta.dirname, '..', 'bin', 'virelay-img');
/** Where the user network shows the host. */
const HOST = '10.0.2.2';
const GUEST = '10.0.2.15/24';

const init = (load: string): string => `
${load}
[ "$ONLY" = disk ] || { ip address add ${GUEST} dev eth0; ip link set eth0 up; }
BIN=/bench RAW=/dev/vda QCOW2=/dev/vdb RAW_OUT=/dev/vdc QCOW2_OUT=/dev/vdd DIRECT=direct sh /bench/${SCRIPT}
echo '${END_MARK}'
poweroff -f
`;

/** What a group's guests are run with, and what they are to print. */
interface Bench {
  readonly truth: readonly Result[];
  readonly variables: Record<string, string>;
  /** Called before each run. @returns options of the emulator's */
  devices(): string[];
  /** Called after each run. @returns what is wrong with what the guest has left behind */
  check(): string[];
  close(): void;
}

function runNative(folder: string, variables: Record<string, string>): Result[] {
  const env = { ...process.env, ...variables, BIN: folder };
  return parseResults(execFileSync('sh', [join(SOURCE, SCRIPT)], { env, encoding: 'utf8' }));
}

/** Two disks to read, filled by the program that reads them, and two to write, new for each run. */
function diskBench(folder: string): Bench {
  const place = (name: string): string => join(folder, name);
  const transfer = (...args: string[]): Result =>
    parseResults(execFileSync(place('transfer'), args, { encoding: 'utf8', maxBuffer: 1 << 20 }))[0]!;
  const [raw, qcow2, rawOut, qcow2Out] = ['full.raw', 'full.qcow2', 'out.raw', 'out.qcow2'].map(place) as [
    string,
    string,
    string,
    string,
  ];
  const right = transfer('write', 'full', raw, String(MIB)).checksum;
  const variables = { ONLY: 'disk', MIB: String(MIB) };
  const truth = runNative(folder, { ...variables, RAW: raw, QCOW2: raw, RAW_OUT: rawOut, QCOW2_OUT: rawOut, DIRECT: '' });
  execFileSync(IMAGE_TOOL, ['convert', '-O', 'qcow2', raw, qcow2]);
  const drive = (path: string, format: string, more = ''): string[] => [
    '-drive',
    `file=${path},format=${format},if=virtio${more}`,
  ];
  return {
    truth,
    variables,
    devices: () => {
      for (const path of [rawOut, qcow2Out]) rmSync(path, { force: true });
      execFileSync(IMAGE_TOOL, ['create', '-q', '-f', 'raw', rawOut, `${MIB}M`]);
      execFileSync(IMAGE_TOOL, ['create', '-q', '-f', 'qcow2', qcow2Out, `${MIB}M`]);
      // A qcow2 image's file grows by what is written: with room for it and its tables.
      truncateSync(qcow2Out, (MIB + 16) * 2 ** 20);
      for (const path of [rawOut, qcow2Out]) readWhole(path);
      // Nobody is to wait for what the one before has written.
      execFileSync('sync');
      // What is written stays in the host's memory: its disk is not what is measured.
      const unsafe = ',cache=unsafe';
      return [
        ...drive(raw, 'raw'),
        ...drive(qcow2, 'qcow2'),
        ...drive(rawOut, 'raw', unsafe),
        ...drive(qcow2Out, 'qcow2', unsafe),
      ];
    },
    check: () => {
      execFileSync(IMAGE_TOOL, ['convert', '-O', 'raw', qcow2Out, place('back.raw')]);
      const wrong = [rawOut, place('back.raw')].filter(
        (path) => transfer('read', 'written', path, String(MIB)).checksum !== right,
      );
      rmSync(place('back.raw'));
      return wrong.map((path) => `${path}: not what was written`);
    },
    close: () => undefined,
  };
}

async function networkBench(folder: string): Promise<Bench> {
  const server: ChildProcess = spawn(join(folder, 'transfer'), ['serve'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(server.stdout!, 'data')) as [Buffer];
  const variables = { ONLY: 'network', PORT: line.toString().trim() };
  return {
    truth: runNative(folder, { ...variables, HOST: '127.0.0.1' }),
    variables: { ...variables, HOST },
    devices: () => ['-netdev', 'user,id=n', '-device', 'virtio-net-pci,netdev=n'],
    check: () => [],
    close: () => void server.kill(),
  };
}

function buildGuest({ files, modules }: Guest, group: TransferGroup, folder: string): string {
  execFileSync('gcc', ['-O2', '-static', '-o', join(folder, 'transfer'), join(SOURCE, 'transfer.c')]);
  const { files: extra, load } = moduleFiles(modules, MODULES[group]);
  const programs = [
    file('bench/transfer', readFileSync(join(folder, 'transfer'))),
    file(`bench/${SCRIPT}`, readFileSync(join(SOURCE, SCRIPT))),
  ];
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, initramfs(files, init(load), [...extra, directory('bench'), ...programs], `echo '${START_MARK}'`));
  return initrd;
}

export interface TransferResults {
  readonly truth: readonly Result[];
  readonly runs: Map<string, Run[]>;
  readonly wrong: string[];
}

/** Runs a group's guest under all emulators in turn. @throws Error, one line, where a guest cannot be had */
export async function benchTransfer(
  group: TransferGroup,
  emulators: readonly Emulator[],
  options: { rounds: number; memory: string; timeoutS: number },
): Promise<TransferResults> {
  const guest = await guestWithModules('cloud');
  const folder = mkdtempSync(join(tmpdir(), 'virelay-bench-'));
  const kernel = join(folder, 'vmlinuz');
  writeFileSync(kernel, guest.kernel);
  const initrd = buildGuest(guest, group, folder);
  const bench = group === 'disk' ? diskBench(folder) : await networkBench(folder);
  const runs = new Map<string, Run[]>(emulators.map(({ name }) => [name, []]));
  const wrong: string[] = [];
  try {
    for (let round = 1; round <= options.rounds; round++) {
      for (const emulator of emulators) {
        console.error(`${group}, round ${round}: ${emulator.name}`);
        const { variables } = bench;
        const run = await runGuest(emulator, { kernel, initrd }, { ...options, variables, devices: bench.devices() });
        runs.get(emulator.name)!.push(run);
        wrong.push(...bench.check().map((text) => `${emulator.name}: ${text}`));
      }
    }
    return { truth: bench.truth, runs, wrong };
  } finally {
    bench.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * A host with a whole KVM where there may be none: Debian's kernel with kvm-amd, under QEMU's translator, whose processor
 * has SVM with nested paging. Node.js and our sources are in its initramfs. Slow, and exact.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import type { TestContext } from 'node:test';
import { type ArchiveEntry, directory, file } from '../src/guest/cpio.ts';
import { initramfs } from '../src/guest/initramfs.ts';
import { KEPT, kvmKeeper } from './kvm-keeper.ts';
import { moduleFiles } from './modules.ts';
import { guestOrSkip } from './virtio-guest.ts';

const ROOT = dirname(import.meta.dirname);
const PROCESSOR = 'max,+svm,+npt';
/**
 * The time is not asked of a device, which all have to wait for: the processors' counters are this host's, which count as one.
 * Who has nothing to do waits as Linux finds best, awake: to be woken takes longer.
 */
const APPEND = 'console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable';
/**
 * Code that one processor changes while another is about to run it may go on running there as it was, on these emulated
 * processors: V8 must not give away the place of WebAssembly code that it has replaced by better, and Linux must have no reason
 * to rewrite its own (kvm-keeper.ts).
 */
const NODE = 'node() { command node --no-wasm-code-gc "$@"; }';
const KEEPER = [
  'kvm-keeper &',
  `until [ "$(ls -l /proc/$!/fd | grep -c kvm)" = ${KEPT} ] || ! kill -0 $!; do sleep 0.1; done`,
].join('\n');
const MEMORY_MIB = 2048;
/**
 * Should the host stand still as a whole, its shell included, that is no fault of ours. So it tells by a second serial port that
 * it goes on, whatever our program does; where it does not for so long, another takes its place.
 */
const BEAT = 'while sleep 2; do echo; done >/dev/ttyS1 &';
const STANDS_STILL_MS = 60_000;
/**
 * Where this host has something else to do, a guest there ends by a triple fault in one of some ten boots, at any place in its kernel and
 * without a word before; left alone, none of 25 did. Why is not known; QEMU's users report accesses by wrong TLB entries, as often,
 * on busy hosts and only with a thread for each processor (with one for all, a boot here takes many minutes). What such a guest was
 * to show it shows on another host, or the fault is reported after all.
 */
const TRIPLE_FAULT = 'the guest shut its CPU down: triple-fault';
const HOSTS = 3;
const STATUS = /virelay-status=(\d+)/;

interface Ran {
  readonly output: string;
  /** -1 where the program has not ended. */
  readonly status: number;
}

interface HostOptions {
  /** Further files, by their places there. */
  readonly files?: ReadonlyMap<string, string>;
  /** Path of a qcow2 image, which is /dev/vda there; what is written to it is forgotten. */
  readonly disk?: string;
  /** Milliseconds after which the host is ended, whatever it does. */
  readonly limit?: number;
}

/** Folders of files, each before what is in it. */
function withFolders(files: ReadonlyMap<string, string>): ArchiveEntry[] {
  const folders = new Set<string>();
  for (const target of files.keys()) {
    const parts = target.split('/').slice(0, -1);
    parts.forEach((_, index) => folders.add(parts.slice(0, index + 1).join('/')));
  }
  return [...[...folders].sort().map(directory), ...Array.from(files, ([target, source]) => file(target, readFileSync(source)))];
}

/** This Node.js and the libraries that it is linked with, at their places. */
function nodeFiles(work: string): Map<string, string> {
  const node = join(work, 'node');
  if (spawnSync('strip', ['-o', node, process.execPath]).status !== 0) writeFileSync(node, readFileSync(process.execPath));
  const libraries = execFileSync('ldd', [process.execPath], { encoding: 'utf8' }).matchAll(/(\/\S+) \(0x/g);
  return new Map([['bin/node', node], ...Array.from(libraries, ([, path]) => [path!.slice(1), path!] as const)]);
}

const sources = (folder: string): [string, string][] =>
  readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => [`virelay/${relative(ROOT, path)}`, path]);

/**
 * Runs a program of ours there.
 * @param folders of sources that it needs
 * @param command the shell's, in the folder of the sources
 * @returns what became of it; null where a host cannot be had, and the test is skipped
 */
export async function runOnKvmHost(
  t: TestContext,
  folders: readonly string[],
  command: string,
  { files: more = new Map(), disk, limit = 540_000 }: HostOptions = {},
): Promise<Ran | null> {
  if (spawnSync('qemu-system-x86_64', ['--version']).status !== 0) {
    t.skip('there is no qemu-system-x86_64');
    return null;
  }
  const guest = await guestOrSkip(t, 'kvm');
  if (guest === null) return null;
  const work = mkdtempSync(join(tmpdir(), 'virelay-kvm-host-'));
  try {
    const modules = moduleFiles(guest.modules, ['kvm_amd', ...(disk === undefined ? [] : ['virtio_pci', 'virtio_blk'])]);
    const files = new Map([
      ...nodeFiles(work),
      ['virelay/package.json', join(ROOT, 'package.json')],
      ...folders.flatMap(sources),
      ...more,
    ] as [string, string][]);
    const script = [
      modules.load,
      'ip link set lo up',
      BEAT,
      KEEPER,
      'cd /virelay',
      NODE,
      command,
      'echo "virelay-status=$?"',
      'poweroff -f',
    ].join('\n');
    const image = initramfs(guest.files, script, [...modules.files, file('bin/kvm-keeper', kvmKeeper()), ...withFolders(files)]);
    writeFileSync(join(work, 'initrd'), image);
    writeFileSync(join(work, 'kernel'), guest.kernel);
    const drive = disk === undefined ? [] : ['-drive', `file=${disk},format=qcow2,if=virtio,snapshot=on`];
    let ran: Ran | null = null;
    for (let i = 0; i < HOSTS && ran === null; i++) {
      const output = await runQemu(t, work, drive, limit);
      const status = Number(STATUS.exec(output ?? '')?.[1] ?? -1);
      const faulted = output?.includes(TRIPLE_FAULT) === true && status !== 0;
      if (output === null) t.diagnostic('the host stood still');
      else if (faulted && i < HOSTS - 1)
        t.diagnostic('a guest has had a triple fault, which emulated processors give it now and then');
      else ran = { output, status };
    }
    if (ran === null) throw new Error(`of ${HOSTS} hosts, none has gone on to the end`);
    return ran;
  } finally {
    rmSync(work, { recursive: true });
  }
}

/** @returns what it printed until its end, or until its time was over; null when it stood still */
function runQemu(t: TestContext, work: string, drive: readonly string[], limit: number): Promise<string | null> {
  const beat = join(work, 'beat');
  writeFileSync(beat, '');
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-accel', 'tcg,thread=multi', '-smp', '2', '-cpu', PROCESSOR, '-m', String(MEMORY_MIB)],
      ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-serial', `file:${beat}`, '-no-reboot', ...drive],
      ...['-kernel', join(work, 'kernel'), '-initrd', join(work, 'initrd')],
      ...['-append', APPEND],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'], signal: t.signal, killSignal: 'SIGKILL' },
  );
  let still = false;
  let [beats, since] = [0, performance.now()];
  const look = setInterval(() => {
    const { size } = statSync(beat);
    if (size !== beats) [beats, since] = [size, performance.now()];
    still = performance.now() - since > STANDS_STILL_MS;
    if (still) child.kill('SIGKILL');
  }, 1000);
  const timer = setTimeout(() => child.kill('SIGKILL'), limit);
  return new Promise((resolve, reject) => {
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(timer);
      clearInterval(look);
      resolve(still ? null : output.replaceAll('\r', ''));
    });
  });
}

/**
 * A guest to try the machine with: Debian's own cloud kernel and static busybox, fetched once by
 * the distribution's package client into the user's cache folder. Needs no privileges.
 */
import { execFile, spawn } from 'node:child_process';
import {
  existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Progress } from './progress.ts';

const run = promisify(execFile);

const KERNEL_META = 'linux-image-cloud-amd64';
const BUSYBOX = 'busybox-static';
const ENVIRONMENT = { ...process.env, LC_ALL: 'C' };
/** What the interpreter of the package client's progress lines looks for. */
const STATUS_FD = 3;

export interface GuestFiles {
  readonly kernel: Uint8Array;
  readonly busybox: Uint8Array;
  /** Names of busybox's commands; empty when the host cannot run it. */
  readonly applets: readonly string[];
  readonly folder: string;
}

export function cacheFolder(): string {
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'virelay');
}

/** @throws Error, one line, when the guest cannot be had */
export async function guestFiles(progress: Progress): Promise<GuestFiles> {
  const folder = join(cacheFolder(), 'guest');
  if (!existsSync(join(folder, 'complete'))) await fetchInto(folder, progress);
  const text = readFileSync(join(folder, 'applets'), 'utf8');
  return {
    kernel: new Uint8Array(readFileSync(join(folder, 'vmlinuz'))),
    busybox: new Uint8Array(readFileSync(join(folder, 'busybox'))),
    applets: text.split('\n').filter((name) => name !== ''),
    folder,
  };
}

async function fetchInto(folder: string, progress: Progress): Promise<void> {
  mkdirSync(cacheFolder(), { recursive: true });
  const work = mkdtempSync(join(cacheFolder(), 'fetch-'));
  try {
    await download(work, progress);
    progress.step('unpacking');
    const packages = readdirSync(work).filter((name) => name.endsWith('.deb'));
    const find = (prefix: string): string => join(work, packages.find((one) => one.startsWith(prefix))!);
    await unpack(find('linux-image'), './boot/vmlinuz-*', work);
    await unpack(find('busybox'), './bin/busybox', work);
    const ready = join(work, 'ready');
    mkdirSync(ready);
    const kernel = readdirSync(join(work, 'boot')).find((name) => name.startsWith('vmlinuz-'))!;
    renameSync(join(work, 'boot', kernel), join(ready, 'vmlinuz'));
    renameSync(join(work, 'bin', 'busybox'), join(ready, 'busybox'));
    writeFileSync(join(ready, 'applets'), await listApplets(join(ready, 'busybox')));
    writeFileSync(join(ready, 'complete'), `${packages.join('\n')}\n`);
    install(ready, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
    progress.done();
  }
}

/** Another process may have been faster: its result is as good. */
function install(ready: string, folder: string): void {
  if (existsSync(join(folder, 'complete'))) return;
  rmSync(folder, { recursive: true, force: true });
  renameSync(ready, folder);
}

/** By the system's package lists if they serve, else by lists of our own. */
async function download(work: string, progress: Progress): Promise<void> {
  const system = ['-o', 'APT::Sandbox::User=root'];
  try {
    return await downloadBy(system, work, progress);
  } catch {
    // No lists, or lists that have grown too old.
  }
  const options = [...system, ...privateState(work)];
  try {
    progress.step('reading the package lists');
    await fetching('apt-get', [...options, 'update'], work, progress);
    await downloadBy(options, work, progress);
  } catch (error) {
    throw new Error(`cannot fetch a guest by apt-get: ${reason(error)}`);
  }
}

function privateState(work: string): string[] {
  const state = join(work, 'state');
  for (const name of ['lists/partial', 'cache/archives/partial']) {
    mkdirSync(join(state, name), { recursive: true });
  }
  writeFileSync(join(state, 'status'), '');
  return [
    `Dir::State=${state}`, `Dir::State::lists=${join(state, 'lists')}`,
    `Dir::State::status=${join(state, 'status')}`, `Dir::Cache=${join(state, 'cache')}`,
    'APT::Architecture=amd64', 'APT::Architectures=amd64', 'Acquire::Languages=none',
  ].flatMap((option) => ['-o', option]);
}

async function downloadBy(
  options: readonly string[], work: string, progress: Progress,
): Promise<void> {
  const { stdout } = await run(
    'apt-cache', [...options, 'depends', KERNEL_META], { env: ENVIRONMENT },
  );
  const kernel = /Depends: (linux-image-\S+)/.exec(stdout)?.[1];
  if (kernel === undefined) throw new Error(`no package ${KERNEL_META} in the package lists`);
  for (const name of [kernel, BUSYBOX]) {
    progress.step(`fetching ${name}`);
    await fetching('apt-get', [...options, 'download', name], work, progress);
  }
}

function fetching(
  command: string, args: readonly string[], cwd: string, progress: Progress,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args, '-o', `APT::Status-Fd=${STATUS_FD}`], {
      cwd, env: ENVIRONMENT, stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    });
    let errors = '';
    child.stderr!.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    child.stdio[STATUS_FD]!.on('data', (chunk: Buffer) => {
      const percents = [...chunk.toString().matchAll(/^dlstatus:\d+:([\d.]+):/gm)];
      const last = percents.at(-1);
      if (last !== undefined) progress.percent(Number(last[1]));
    });
    child.on('error', reject);
    child.on('close', (status) => {
      if (status === 0) resolve();
      else reject(new Error(errors.split('\n').find((text) => text.startsWith('E:')) ?? errors));
    });
  });
}

function unpack(archive: string, pattern: string, into: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const source = spawn('dpkg-deb', ['--fsys-tarfile', archive], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const tar = spawn('tar', ['-x', '-f', '-', '-C', into, '--wildcards', pattern], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    source.stdout.pipe(tar.stdin);
    for (const one of [source, tar]) one.on('error', reject);
    tar.stdin.on('error', () => undefined);
    tar.on('close', (status) => {
      if (status === 0) resolve();
      else reject(new Error(`cannot unpack ${archive}`));
    });
  });
}

async function listApplets(busybox: string): Promise<string> {
  try {
    return (await run(busybox, ['--list'])).stdout;
  } catch {
    return '';
  }
}

function reason(error: unknown): string {
  return (error as Error).message.trim().split('\n')[0]!.replace(/^E: /, '');
}

/**
 * A guest to try the machine with: Debian's own cloud kernel and static busybox, fetched once by
 * the distribution's package client into the user's cache folder. Needs no privileges.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import type { Progress } from './progress.ts';

const run = promisify(execFile);

const KERNEL_META = 'linux-image-cloud-amd64';
const BUSYBOX = 'busybox-static';
const ENVIRONMENT = { ...process.env, LC_ALL: 'C' };
/** What the interpreter of the package client's progress lines looks for. */
const STATUS_FD = 3;

/** Names of the packages to fetch, by package lists that these options of the package client select. */
export type Choose = (options: readonly string[]) => Promise<readonly string[]>;

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

/** What of which packages a tree is made of. */
export interface TreeOptions {
  /** Of the packages; by default that of the usual guest. */
  readonly architecture?: 'amd64' | 'i386';
  /** Patterns of the files' names, as tar takes them: ./boot/vmlinuz-*; all files by default. */
  readonly only?: readonly string[];
}

const USUAL = 'amd64';

/**
 * The file tree of some of the distribution's packages, unpacked once into the user's cache folder.
 * @param name of the tree's folder there  @returns the folder's path
 * @throws Error, one line, when the packages cannot be had
 */
export async function packageTree(name: string, choose: Choose, progress: Progress, options: TreeOptions = {}): Promise<string> {
  const { architecture = USUAL, only = ['./*'] } = options;
  const folder = join(cacheFolder(), name);
  if (existsSync(join(folder, 'complete'))) return folder;
  const place = async (archives: readonly string[], ready: string): Promise<void> => {
    for (const archive of archives) await unpack(archive, only, ready);
  };
  await fetchAndPlace(folder, choose, progress, place, architecture);
  return folder;
}

/** Fetches packages and has `place` fill a new folder from the archives; then the folder is in its place. */
async function fetchAndPlace(
  folder: string,
  choose: Choose,
  progress: Progress,
  place: (archives: readonly string[], ready: string, work: string) => Promise<void>,
  architecture = USUAL,
): Promise<void> {
  mkdirSync(cacheFolder(), { recursive: true });
  const work = mkdtempSync(join(cacheFolder(), 'fetch-'));
  try {
    await download(work, choose, progress, architecture);
    progress.step('unpacking');
    const packages = readdirSync(work).filter((name) => name.endsWith('.deb'));
    const ready = join(work, 'ready');
    mkdirSync(ready);
    await place(
      packages.map((name) => join(work, name)),
      ready,
      work,
    );
    writeFileSync(join(ready, 'complete'), `${packages.join('\n')}\n`);
    install(ready, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
    progress.done();
  }
}

function fetchInto(folder: string, progress: Progress): Promise<void> {
  return fetchAndPlace(folder, kernelAndBusybox, progress, async (archives, ready, work) => {
    const find = (prefix: string): string => archives.find((one) => basename(one).startsWith(prefix))!;
    await unpack(find('linux-image'), ['./boot/vmlinuz-*'], work);
    await unpack(find('busybox'), ['./bin/busybox'], work);
    const kernel = readdirSync(join(work, 'boot')).find((name) => name.startsWith('vmlinuz-'))!;
    renameSync(join(work, 'boot', kernel), join(ready, 'vmlinuz'));
    renameSync(join(work, 'bin', 'busybox'), join(ready, 'busybox'));
    writeFileSync(join(ready, 'applets'), await listApplets(join(ready, 'busybox')));
  });
}

/** Another process may have been faster: its result is as good. */
function install(ready: string, folder: string): void {
  if (existsSync(join(folder, 'complete'))) return;
  rmSync(folder, { recursive: true, force: true });
  renameSync(ready, folder);
}

/** By the system's package lists if they serve, else by lists of our own. */
async function download(work: string, choose: Choose, progress: Progress, architecture: string): Promise<void> {
  const system = ['-o', 'APT::Sandbox::User=root'];
  try {
    if (architecture === USUAL) return await downloadBy(system, work, choose, progress);
  } catch {
    // No lists, or lists that have grown too old.
  }
  const options = [...system, ...privateState(work, architecture)];
  let obstacle: unknown;
  try {
    progress.step('reading the package lists');
    await fetching('apt-get', [...options, 'update'], work, progress);
  } catch (error) {
    // One of several lists may be missing: the others may have what is wanted.
    obstacle = error;
  }
  try {
    await downloadBy(options, work, choose, progress);
  } catch (error) {
    throw new Error(`cannot fetch a guest by apt-get: ${reason(obstacle ?? error)}`);
  }
}

function privateState(work: string, architecture: string): string[] {
  const state = join(work, 'state');
  for (const name of ['lists/partial', 'cache/archives/partial']) {
    mkdirSync(join(state, name), { recursive: true });
  }
  writeFileSync(join(state, 'status'), '');
  return [
    `Dir::State=${state}`,
    `Dir::State::lists=${join(state, 'lists')}`,
    `Dir::State::status=${join(state, 'status')}`,
    `Dir::Cache=${join(state, 'cache')}`,
    `APT::Architecture=${architecture}`,
    `APT::Architectures=${architecture}`,
    'Acquire::Languages=none',
  ].flatMap((option) => ['-o', option]);
}

async function downloadBy(options: readonly string[], work: string, choose: Choose, progress: Progress): Promise<void> {
  for (const name of await choose(options)) {
    progress.step(`fetching ${name}`);
    await fetching('apt-get', [...options, 'download', name], work, progress);
  }
}

const kernelAndBusybox: Choose = async (options) => [await dependency(options, KERNEL_META, /linux-image-\S+/), BUSYBOX];

/**
 * @param options of the package client  @returns the first package that `name` depends on whose name matches
 * @throws Error when there is none
 */
export async function dependency(options: readonly string[], name: string, pattern: RegExp): Promise<string> {
  const { stdout } = await run('apt-cache', [...options, 'depends', name], { env: ENVIRONMENT });
  const found = new RegExp(`Depends: (${pattern.source})`).exec(stdout)?.[1];
  if (found === undefined) throw new Error(`no package ${name} in the package lists`);
  return found;
}

function fetching(command: string, args: readonly string[], cwd: string, progress: Progress): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args, '-o', `APT::Status-Fd=${STATUS_FD}`], {
      cwd,
      env: ENVIRONMENT,
      stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
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

function unpack(archive: string, patterns: readonly string[], into: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const source = spawn('dpkg-deb', ['--fsys-tarfile', archive], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const tar = spawn('tar', ['-x', '-f', '-', '-C', into, '--wildcards', ...patterns], {
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

// Set-up that runs under whatever Node.js the machine has (20 or newer): it installs the
// dependencies when they are missing and finds a Node.js that can run the project itself.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const NEEDED = 26;

function packagesOf(path) {
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).packages : {};
}

/** Is every package that the lock file names (and that fits this platform) there? */
function installed() {
  const there = packagesOf(join(ROOT, 'node_modules', '.package-lock.json'));
  return Object.entries(packagesOf(join(ROOT, 'package-lock.json'))).every(
    ([path, { version, optional }]) => path === '' || optional || there[path]?.version === version,
  );
}

export function ensureModules() {
  if (installed()) return;
  process.stderr.write('installing dependencies\n');
  // A function of npm itself, so that its settings (caches, proxies) hold.
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
  const { status } = spawnSync(npm, ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: ROOT,
    stdio: ['ignore', 2, 2],
  });
  if (status !== 0) {
    process.stderr.write('virelay: npm ci has failed\n');
    process.exit(1);
  }
}

/** A Node.js of version 26 or newer: this one, or the one among the dependencies. */
export function findNode() {
  if (Number(process.versions.node.split('.')[0]) >= NEEDED) return process.execPath;
  const file = process.platform === 'win32' ? 'node.exe' : 'node';
  const system = process.platform === 'win32' ? 'win' : process.platform;
  const path = join(ROOT, 'node_modules', `node-${system}-${process.arch}`, 'bin', file);
  if (existsSync(path)) return path;
  process.stderr.write(`virelay: Node.js ${NEEDED} or newer is needed\n`);
  process.exit(1);
}

/** Node.js's options for a machine's process, see bin/node.sh. */
export function machineOptions() {
  const pool = Math.min(4, Math.max(1, availableParallelism() - 2));
  return ['--no-warnings', `--v8-pool-size=${pool}`, '--no-wasm-inlining', '--no-wasm-inlining-call-indirect'];
}

/** Runs a program in the project's folder with this terminal. @returns its exit status */
export function run(command, args) {
  const { status, signal, error } = spawnSync(command, args, { cwd: ROOT, stdio: 'inherit' });
  if (error) process.stderr.write(`virelay: ${error.message}\n`);
  return status ?? (signal ? 1 : 0);
}

/** Files of distribution packages, fetched once into the user's cache by the package client. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from '../src/cli/guest-files.ts';

const OPTIONS = { stdio: 'pipe', timeout: 100_000 } as const;

/**
 * Unpacks packages, by name, into one folder.
 * @returns the folder, or a line that says why they cannot be had
 */
export function packageFiles(folder: string, names: readonly string[]): { root: string } | string {
  const root = join(cacheFolder(), 'test', folder);
  if (existsSync(root)) return { root };
  mkdirSync(join(cacheFolder(), 'test'), { recursive: true });
  const work = mkdtempSync(join(cacheFolder(), 'fetch-'));
  try {
    execFileSync('apt-get', ['-o', 'APT::Sandbox::User=root', 'download', ...names], {
      ...OPTIONS,
      cwd: work,
    });
    const ready = join(work, 'ready');
    mkdirSync(ready);
    for (const file of readdirSync(work).filter((name) => name.endsWith('.deb'))) {
      execFileSync('dpkg-deb', ['-x', join(work, file), ready], OPTIONS);
    }
    if (!existsSync(root)) renameSync(ready, root);
    return { root };
  } catch (error) {
    return `cannot fetch ${names.join(', ')}: ${(error as Error).message.split('\n')[0]!}`;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

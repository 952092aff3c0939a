import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A network namespace of our own, with a TAP interface in it. */
function missing(): string | false {
  try {
    execFileSync('unshare', ['--net', 'ip', 'tuntap', 'add', 'tap0', 'mode', 'tap'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'needs the right to make network namespaces and TAP interfaces';
  }
}

const skip = missing();

for (const [mode, longest] of [
  ['offloads', 60_000],
  ['plain', 1514],
] as const) {
  test(`Linux as the guest of a user network, by TAP: ${mode}`, { skip }, async () => {
    const main = join(import.meta.dirname, 'test-tap-main.ts');
    const { stdout } = await run('unshare', ['--net', process.execPath, '--no-warnings', main, mode, '20'], { timeout: 60_000 });
    const { toHost, toGuest, refused, datagrams, largest } = JSON.parse(stdout) as Record<string, never>;
    assert.deepEqual([toHost['right'], toGuest['right'], refused, datagrams], [true, true, 'ECONNREFUSED', [true, true]]);
    if (mode === 'plain') assert.equal(largest, longest);
    else assert.ok(largest >= longest, `${largest}`);
  });
}

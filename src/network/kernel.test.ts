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

type Transfer = { right: boolean };
type Outcome = {
  toHost: Transfer;
  toGuest: Transfer;
  ipv6: false | { toHost: Transfer; toGuest: Transfer };
  refused: string;
  forwarded: string[];
  pings: [source: string, type: number, id: number][];
  datagrams: boolean[];
  largest: number;
};

for (const [mode, megabytes] of [
  ['offloads', 20],
  ['plain', 10],
  ['lossy', 2],
] as const) {
  test(`Linux as the guest of a user network, by TAP: ${mode}`, { skip }, async () => {
    const main = join(import.meta.dirname, 'test-tap-main.ts');
    const args = ['--net', process.execPath, '--no-warnings', main, mode, String(megabytes)];
    const { stdout } = await run('unshare', args, { timeout: 60_000 });
    const { toHost, toGuest, ipv6, refused, forwarded, pings, datagrams, largest } = JSON.parse(stdout) as Outcome;
    assert.deepEqual([toHost.right, toGuest.right, refused, datagrams], [true, true, 'ECONNREFUSED', [true, true]]);
    assert.deepEqual(forwarded, ['hello from 10.0.2.2', 'hello from 10.0.2.2']);
    assert.deepEqual(pings, [
      ['192.0.2.1', 0, 0x1234],
      ['2001:db8::1', 129, 0x1234],
    ]);
    if (ipv6 !== false) assert.deepEqual([ipv6.toHost.right, ipv6.toGuest.right], [true, true]);
    if (mode === 'offloads') assert.ok(largest > 60_000, `${largest} bytes`);
    else assert.equal(largest, 1514);
  });
}

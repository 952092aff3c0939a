/** The whole machine: Debian's own kernel from power-on to a shell command and power-off. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Machine } from 'virelay';
import { type GuestFiles, guestFiles } from '../src/cli/guest-files.ts';
import { SILENT } from '../src/cli/progress.ts';
import { initramfs, PROMPT, shellInitramfs } from '../src/guest/initramfs.ts';
import { machineConfig } from './saved-machine.ts';

const LIMIT = { timeout: 120_000 };

/** Fetched once; without a package client or its mirror there is nothing to boot. */
const guest: Promise<GuestFiles | string> = guestFiles(SILENT).catch((error: Error) => error.message);

async function guestOrSkip(t: TestContext): Promise<GuestFiles | null> {
  const files = await guest;
  if (typeof files !== 'string') return files;
  t.skip(files);
  return null;
}

/** What a guest's console says, and a way to wait for it. */
function watch(machine: Machine) {
  const console = { text: '' };
  const decoder = new TextDecoder();
  const waiting = new Set<() => void>();
  const done = machine.serial[0]!.readable.pipeTo(
    new WritableStream<Uint8Array>({
      write: (data) => {
        console.text += decoder.decode(data, { stream: true });
        for (const check of waiting) check();
      },
    }),
  );
  /** Where the next thing waited for must come after. */
  let cursor = 0;
  const until = async (wanted: string): Promise<void> => {
    const seen = new Promise<void>((resolve) => {
      const check = (): void => {
        const at = console.text.indexOf(wanted, cursor);
        if (at < 0) return;
        cursor = at + wanted.length;
        waiting.delete(check);
        resolve();
      };
      waiting.add(check);
      check();
    });
    const ended = machine.ended.then(() => {
      throw new Error(`the machine ended before "${wanted}":\n${console.text.slice(-2000)}`);
    });
    await Promise.race([seen, ended]);
  };
  return { console, until, done };
}

async function shellSession(files: GuestFiles, accel: 'jit' | 'interp'): Promise<void> {
  const machine = await Machine.create(machineConfig(files, shellInitramfs(files), { accel }));
  const { console, until, done } = watch(machine);
  const writer = machine.serial[0]!.writable.getWriter();
  const type = (text: string): Promise<void> => writer.write(new TextEncoder().encode(text));
  await until(PROMPT);
  await type('echo sum $((6 * 7)); uname -m; grep -c processor /proc/cpuinfo\n');
  await until('sum 42');
  await until('x86_64');
  // A pipeline of programs, and a signal from the keyboard.
  await type('seq 1 1000 | sort -r | sha256sum\n');
  await until('  -');
  // The quotes keep the echo of the command from being taken for its output. One program says it and sleeps: between
  // two, the signal could find the shell alone in the foreground, and the second would sleep on.
  await type('sh -c "echo wait\'\'ing; exec sleep 1000"\n');
  await until('waiting');
  await type('\x03');
  await until(PROMPT);
  await type('exit\n');
  const end = await machine.ended;
  await done;
  assert.deepEqual(end, { event: 'poweroff', status: 0 }, console.text.slice(-2000));
  assert.match(console.text, /^sum 42\r?$/m);
  // What the host's own sort and sha256sum say of it.
  assert.match(console.text, /^38dd353ff73bd8d852821e1a7fb1de8ba38a361a857320d9540e0eec187b1218 {2}-\r?$/m);
  assert.doesNotMatch(console.text, /Call Trace|BUG:|Oops|segfault|WARNING:/);
}

test('a Debian kernel boots to a shell, obeys and powers off (jit)', LIMIT, async (t) => {
  const files = await guestOrSkip(t);
  if (files !== null) await shellSession(files, 'jit');
});

test('a Debian kernel boots to a shell, obeys and powers off (interp)', LIMIT, async (t) => {
  const files = await guestOrSkip(t);
  if (files !== null) await shellSession(files, 'interp');
});

const DETERMINED = `
date
cat /proc/interrupts /proc/uptime /proc/sys/kernel/random/boot_id
sha256sum /bin/busybox
(echo a & echo b & wait)
dmesg | sha256sum
poweroff -f
`;

async function countedRun(files: GuestFiles, accel: 'jit' | 'interp'): Promise<string> {
  const machine = await Machine.create(
    machineConfig(files, initramfs(files, DETERMINED), {
      accel,
      icount: { shift: 3, sleep: false },
      rtc: { base: Date.UTC(2020, 0, 1) / 1000, clock: 'vm' },
      trace: ['machine'],
    }),
  );
  const events: string[] = [];
  machine.on('trace', (lines) => events.push(...lines));
  const { console, done } = watch(machine);
  const { event } = await machine.ended;
  await done;
  assert.equal(event, 'poweroff', console.text.slice(-2000));
  return [console.text, ...events].join('\n');
}

/** Whole logs would drown what matters. */
function assertSameLines(got: string, wanted: string): void {
  const lines = wanted.split('\n');
  const other = got.split('\n');
  const at = lines.findIndex((line, i) => line !== other[i]);
  if (at >= 0) assert.equal(other[at], lines[at], `line ${at + 1} of ${lines.length}`);
  assert.equal(other.length, lines.length);
}

for (const accel of ['jit', 'interp'] as const) {
  test(`counted instructions: two boots are the same (${accel})`, LIMIT, async (t) => {
    const files = await guestOrSkip(t);
    if (files === null) return;
    const first = await countedRun(files, accel);
    assert.match(first, /^Wed Jan {2}1 00:00:\d\d UTC 2020\r?$/m);
    assert.match(first, /power event: poweroff after \d+ instructions/);
    assertSameLines(await countedRun(files, accel), first);
  });
}

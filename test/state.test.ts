/** Whole systems that are saved and go on: Debian's kernel in mid-boot and at a shell, counted runs, GRUB's menu. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { type DriveConfig, drive, Machine, type MachineConfig } from 'virelay';
import { type GuestFiles, guestFiles } from '../src/cli/guest-files.ts';
import { SILENT } from '../src/cli/progress.ts';
import { initramfs, PROMPT, shellInitramfs } from '../src/guest/initramfs.ts';
import { grubOrSkip, makeDisk, screenWith } from './grub-disk.ts';
import { moduleFiles } from './modules.ts';
import { Console, machineConfig, savedAndEnded, streamOf, TROUBLE } from './saved-machine.ts';
import { guestOrSkip } from './virtio-guest.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 120_000 };
const PROGRAM = join(import.meta.dirname, '..', 'bin', 'virelay-system-x86_64');

const fetched: Promise<GuestFiles | string> = guestFiles(SILENT).catch((error: Error) => error.message);

async function filesOrSkip(t: TestContext): Promise<GuestFiles | null> {
  const files = await fetched;
  if (typeof files !== 'string') return files;
  t.skip(files);
  return null;
}

/** A shell's answer to a few commands that need timers, interrupts and memory as it was. */
async function exercise(machine: Machine, console: Console): Promise<void> {
  await console.type('sleep 1 && seq 1 1000 | sort -r | sha256sum\n');
  // What the host's own sort and sha256sum say of it.
  await console.until('38dd353ff73bd8d852821e1a7fb1de8ba38a361a857320d9540e0eec187b1218');
  await console.until(PROMPT);
  await console.type('dmesg | tail -n 20; exit\n');
  assert.deepEqual(await machine.ended, { event: 'poweroff', status: 0 });
  await console.done;
  assert.doesNotMatch(console.text, TROUBLE);
}

for (const [name, stopAt, from, to, machine] of [
  ['in the first moments of its boot', 'Memory:', 'jit', 'interp', 'pc'],
  ['in the middle of its boot', 'rcu: Hierarchical SRCU', 'interp', 'jit', 'q35'],
  ['at the end of its boot', 'Run /init as init process', 'jit', 'jit', 'pc'],
] as const) {
  test(`a kernel is saved ${name} under ${from}, and comes to its shell under ${to} (${machine})`, LIMIT, async (t) => {
    const files = await filesOrSkip(t);
    if (files === null) return;
    const made = machineConfig(files, shellInitramfs(files), { machine });
    const first = await Machine.create({ ...made, accel: from });
    const before = new Console(first);
    await before.until(stopAt);
    const pieces = await savedAndEnded(first);
    assert.doesNotMatch(before.text, TROUBLE);
    const second = await Machine.restore(streamOf(pieces), { ...made, accel: to });
    const after = new Console(second);
    await after.until(PROMPT);
    await exercise(second, after);
  });
}

test('a shell goes on in another process, and a command in it as if nothing had been', LIMIT, async (t) => {
  const files = await filesOrSkip(t);
  if (files === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'saved-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const place = (name: string): string => join(folder, name);
  writeFileSync(place('vmlinuz'), files.kernel);
  writeFileSync(place('initrd'), shellInitramfs(files));
  const made = machineConfig(files, shellInitramfs(files), {});
  const machine = await Machine.create(made);
  const console = new Console(machine);
  await console.until(PROMPT);
  await console.type('i=0; while [ $i -lt 6 ]; do i=$((i + 1)); echo tick $i; sleep 0.5; done; echo do"ne"\n');
  await console.until('tick 3');
  writeFileSync(place('state'), Buffer.concat(await savedAndEnded(machine)));
  const args = ['-m', '256', '-kernel', place('vmlinuz'), '-initrd', place('initrd'), '-append', made.append!, '-nographic'];
  const child = spawn(PROGRAM, [...args, '-nodefaults', '-no-reboot', '-incoming', `file:${place('state')}`]);
  let text = '';
  child.stdout.on('data', (data: Buffer) => {
    text += data;
    if (text.includes('done') && !child.stdin.writableEnded) child.stdin.end('exit\n');
  });
  child.stderr.on('data', (data: Buffer) => (text += data));
  const status = await new Promise((resolve) => child.on('close', resolve));
  assert.equal(status, 0, text);
  assert.deepEqual(text.match(/^tick \d/gm), ['tick 4', 'tick 5', 'tick 6'], text);
});

const DETERMINED = `
date
cat /proc/interrupts /proc/uptime /proc/sys/kernel/random/boot_id
sha256sum /bin/busybox
for disk in vda nvme0n1 sda; do
  dd if=/dev/urandom of=/dev/$disk bs=64k count=10 conv=fsync 2>/dev/null
  echo written $disk
done
echo 3 >/proc/sys/vm/drop_caches
for disk in vda nvme0n1 sda; do dd if=/dev/$disk bs=64k count=10 2>/dev/null | sha256sum; done
sleep 1
(echo a & echo b & wait)
cat /proc/interrupts
dmesg | sha256sum
poweroff -f
`;

test('counted instructions: a run that was saved now and then ends like one that was not', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const { files, load } = moduleFiles(guest.modules, ['virtio_blk', 'virtio_pci', 'virtio_scsi', 'sd_mod']);
  const disk = (more: Partial<DriveConfig>) => drive({ ...more, file: { name: 'disk', data: new Uint8Array(4 * MIB) } });
  const made = machineConfig(guest, initramfs(guest.files, `exec >/dev/console 2>&1\n${load}\n${DETERMINED}`, files), {
    drives: [disk({ interface: 'virtio' }), disk({ id: 'b', interface: 'none' }), disk({ id: 'c', interface: 'none' })],
    devices: [{ driver: 'nvme', drive: 'b', serial: 'b' }, { driver: 'virtio-scsi-pci' }, { driver: 'scsi-hd', drive: 'c' }],
    icount: { shift: 3, sleep: false },
    rtc: { base: Date.UTC(2020, 0, 1) / 1000, clock: 'vm' },
    trace: ['machine'],
  });
  const lines: string[] = [];
  const listen = (machine: Machine): Console => {
    machine.on('trace', (more) => lines.push(...more));
    return new Console(machine);
  };
  const whole = await Machine.create(made);
  const console = listen(whole);
  await whole.ended;
  await console.done;
  const expected = [console.text, ...lines].join('\n');
  assert.match(expected, /power event: poweroff after \d+ instructions/);

  lines.length = 0;
  let text = '';
  let machine = await Machine.create(made);
  for (const stopAt of ['Freeing SMP alternatives memory', 'Run /init as init process', 'written vda', 'written nvme0n1']) {
    const part = listen(machine);
    await part.until(stopAt);
    const pieces = await savedAndEnded(machine);
    await part.done;
    text += part.text;
    machine = await Machine.restore(streamOf(pieces), made);
  }
  const last = listen(machine);
  await machine.ended;
  await last.done;
  const [got, wanted] = [[text + last.text, ...lines].join('\n').split('\n'), expected.split('\n')];
  const at = wanted.findIndex((line, i) => line !== got[i]);
  assert.equal(got[at], wanted[at], `line ${at + 1}`);
  assert.equal(got.length, wanted.length);
});

test('an accelerator takes the place of another, again and again', LIMIT, async (t) => {
  const files = await filesOrSkip(t);
  if (files === null) return;
  const machine = await Machine.create(machineConfig(files, shellInitramfs(files), {}));
  const console = new Console(machine);
  let booting = true;
  const switching = (async () => {
    for (let i = 0; booting; i++) {
      await machine.setAccelerator(i % 2 === 0 ? 'interp' : 'jit');
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  })();
  await console.until(PROMPT);
  booting = false;
  await switching;
  await machine.setAccelerator('jit');
  await exercise(machine, console);
});

const MENU = `
set timeout=-1
menuentry "First" { true }
menuentry "Second" {
  echo "the second it is"
  sleep --interruptible 1000
}
`;

test('the menu of GRUB is shown by another machine, and answers there', LIMIT, async (t) => {
  const tools = grubOrSkip(t);
  if (tools === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'saved-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const data = makeDisk(folder, tools, { 'boot/grub/grub.cfg': MENU });
  for (const machine of ['pc', 'q35'] as const) {
    const made: Partial<MachineConfig> = { machine, memory: 64 * MIB, drives: [drive({ file: { name: 'disk', data } })] };
    const first = await Machine.create(made);
    const menu = await screenWith(first, /Second/);
    await first.pause();
    const shown = await first.screenText();
    const pieces = await savedAndEnded(first);
    await using second = await Machine.restore(streamOf(pieces), { ...made, accel: 'interp' });
    assert.deepEqual(await second.screenText(), shown, menu);
    await second.start();
    await second.keyboard.press('down');
    await second.keyboard.press('ret');
    await screenWith(second, /the second it is/);
  }
});

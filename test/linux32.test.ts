/** Debian's kernel for 32-bit PCs (PAE), from a loader here and from an AHCI disk by SeaBIOS and GRUB. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { drive, Machine } from 'virelay';
import { dependency, packageTree } from '../src/cli/guest-files.ts';
import { SILENT } from '../src/cli/progress.ts';
import { type Busybox, initramfs } from '../src/guest/initramfs.ts';
import { grubOrSkip, makeDisk } from './grub-disk.ts';
import { moduleFiles } from './modules.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 180_000 };

interface Guest extends Busybox {
  readonly kernel: Uint8Array;
  /** Folder of the kernel's modules. */
  readonly modules: string;
}

async function fetchGuest(): Promise<Guest> {
  const architecture = 'i386';
  const choose = async (options: readonly string[]): Promise<string[]> => [
    await dependency(options, 'linux-image-686-pae', /linux-image-\d\S+/),
  ];
  const folders = ['ata', 'scsi'].map((name) => `./lib/modules/*/kernel/drivers/${name}/*.ko`);
  const others = ['block', 'fs/ext4', 'fs/jbd2', 'fs', 'lib', 'crypto'].map((name) => `./lib/modules/*/kernel/${name}/*.ko`);
  const only = ['./boot/vmlinuz-*', ...folders, ...others];
  const kernel = await packageTree('linux-i386', choose, SILENT, { architecture, only });
  const busybox = await packageTree('busybox-i386', async () => ['busybox-static'], SILENT, { architecture });
  const image = readdirSync(join(kernel, 'boot')).find((name) => name.startsWith('vmlinuz-'))!;
  return {
    kernel: readFileSync(join(kernel, 'boot', image)),
    modules: join(kernel, 'lib/modules', image.slice('vmlinuz-'.length), 'kernel'),
    busybox: readFileSync(join(busybox, 'bin/busybox')),
    applets: [],
  };
}

const guest: Promise<Guest | string> = fetchGuest().catch((error: Error) => error.message);

async function guestOrSkip(t: TestContext): Promise<Guest | null> {
  const files = await guest;
  if (typeof files !== 'string') return files;
  t.skip(files);
  return null;
}

async function consoleOf(machine: Machine): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of machine.serial[0]!.readable) text += decoder.decode(chunk, { stream: true });
  return text;
}

const assertQuiet = (text: string): void => assert.doesNotMatch(text, /Call Trace|BUG:|Oops|segfault|WARNING:/);

test('a 32-bit kernel and its programs, by segments of 4 GiB and PAE', LIMIT, async (t) => {
  const files = await guestOrSkip(t);
  if (files === null) return;
  const init = `
exec >/dev/console 2>&1
uname -m
seq 1 1000 | sort -r | sha256sum
poweroff -f
`;
  await using machine = await Machine.create({
    memory: 256 * MIB,
    append: 'console=ttyS0 panic=-1',
    noReboot: true,
    kernel: { name: 'vmlinuz', data: files.kernel },
    initrd: { name: 'initramfs', data: initramfs(files, init) },
  });
  const text = await consoleOf(machine);
  assert.match(text, /^i686\r?$/m);
  // What the host's own sort and sha256sum say of it.
  assert.match(text, /^38dd353ff73bd8d852821e1a7fb1de8ba38a361a857320d9540e0eec187b1218 {2}-\r?$/m);
  assertQuiet(text);
  assert.equal((await machine.ended).event, 'poweroff');
});

const CONFIG = `
set timeout=0
menuentry "Linux" {
  linux /boot/vmlinuz console=ttyS0 panic=-1
  initrd /boot/initrd
}
`;

test(
  'a Q35 with an AHCI disk: GRUB loads a kernel from it, which mounts it, writes to it and reads that back',
  LIMIT,
  async (t) => {
    const files = await guestOrSkip(t);
    const tools = grubOrSkip(t);
    if (files === null || tools === null) return;
    const folder = mkdtempSync(join(tmpdir(), 'ahci-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const modules = moduleFiles(files.modules, ['crc32c_generic', 'ahci', 'sd_mod', 'ext4']);
    const init = `
exec >/dev/console 2>&1
${modules.load}
until [ -e /dev/sda1 ]; do sleep 0.1; done
mount -t ext4 /dev/sda1 /root
cat /root/word
dd if=/dev/urandom of=/tmp/data bs=64k count=40 2>/dev/null
cp /tmp/data /root/data; umount /root
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 /dev/sda1 /root
cmp /tmp/data /root/data && echo same after all
umount /root
grep ahci /proc/interrupts
poweroff -f
`;
    const data = makeDisk(folder, tools, {
      'boot/grub/grub.cfg': CONFIG,
      'boot/vmlinuz': files.kernel,
      'boot/initrd': initramfs(files, init, modules.files),
      word: 'found on the disk\n',
    });
    await using machine = await Machine.create({
      machine: 'q35',
      memory: 256 * MIB,
      noReboot: true,
      drives: [drive({ file: { name: 'disk', data } })],
    });
    const text = await consoleOf(machine);
    assert.match(text, /^found on the disk\r?$/m, text.slice(-3000));
    assert.match(text, /^same after all\r?$/m);
    assert.match(text, /:\s+[1-9]\d* .*ahci/, 'by interrupts');
    assertQuiet(text);
    assert.equal((await machine.ended).event, 'poweroff');
  },
);

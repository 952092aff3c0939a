/** SeaBIOS, GRUB, Debian's kernel: from power-on to a shell, by a disk image made here. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { drive, Machine } from 'virelay';
import { guestFiles } from '../src/cli/guest-files.ts';
import { SILENT } from '../src/cli/progress.ts';
import { shellInitramfs } from '../src/guest/initramfs.ts';
import { bootableCd, grubOrSkip, makeDisk, screenWith } from './grub-disk.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 120_000 };

const CONFIG = `
set timeout=1
menuentry "Linux" {
  linux /boot/vmlinuz console=ttyS0 panic=-1
  initrd /boot/initrd
}
menuentry "Nothing" { true }
`;

test('SeaBIOS, GRUB with its menu, a kernel from ext4, a shell', LIMIT, async (t) => {
  const tools = grubOrSkip(t);
  if (tools === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'grub-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const guest = await guestFiles(SILENT);
  const data = makeDisk(folder, tools, {
    'boot/grub/grub.cfg': CONFIG,
    'boot/vmlinuz': guest.kernel,
    'boot/initrd': shellInitramfs(guest),
  });
  await using machine = await Machine.create({
    memory: 256 * MIB,
    noReboot: true,
    drives: [drive({ file: { name: 'disk', data } })],
  });
  const menu = await screenWith(machine, /Nothing/);
  assert.match(menu, /GNU GRUB/);
  assert.match(menu, /\*Linux/);
  await machine.keyboard.press('ret');
  const writer = machine.serial[0]!.writable.getWriter();
  const decoder = new TextDecoder();
  let console = '';
  for await (const chunk of machine.serial[0]!.readable) {
    const asked = console.includes('/ # ');
    console += decoder.decode(chunk, { stream: true });
    if (!asked && console.includes('/ # ')) {
      await writer.write(new TextEncoder().encode('echo sum $((6 * 7)); poweroff -f\n'));
    }
  }
  assert.match(console, /^sum 42\r?$/m);
  assert.equal((await machine.ended).event, 'poweroff');
});

test('GRUB from a CD comes to its prompt and takes commands', LIMIT, async (t) => {
  const tools = grubOrSkip(t);
  if (tools === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'grub-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'eltorito.img');
  tools.mkimage([
    '-O',
    'i386-pc-eltorito',
    '-p',
    '/boot/grub',
    '-o',
    path,
    'biosdisk',
    'iso9660',
    'normal',
    'minicmd',
    'ls',
    'echo',
  ]);
  const data = bootableCd(readFileSync(path));
  await using machine = await Machine.create({
    memory: 64 * MIB,
    drives: [drive({ media: 'cdrom', index: 2, file: { name: 'cd', data } })],
  });
  await screenWith(machine, /^grub> $|^grub>$/m);
  await machine.keyboard.type('echo $cmdpath is where; ls\n');
  const text = await screenWith(machine, /is where/);
  assert.match(await screenWith(machine, /^\(cd\)/m), /\(cd\)/, text);
});

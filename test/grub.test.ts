/** SeaBIOS, GRUB, Debian's kernel: from power-on to a shell, by a disk image made here. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { drive, Machine } from 'virelay';
import { guestFiles } from '../src/cli/guest-files.ts';
import { SILENT } from '../src/cli/progress.ts';
import { shellInitramfs } from '../src/guest/initramfs.ts';
import { findFirmware } from '../src/host/node/firmware.ts';
import { packageFiles } from './packages.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 120_000 };
const SECTOR = 512;
const PARTITION_START = 2048;
const PARTITION_MIB = 40;
/** Where in its first sector GRUB's second part is read from, and the partition table. */
const TABLE = 446;

const CONFIG = `
set timeout=1
menuentry "Linux" {
  linux /boot/vmlinuz console=ttyS0 panic=-1
  initrd /boot/initrd
}
menuentry "Nothing" { true }
`;

type Tools = { modules: string; mkimage: (args: readonly string[]) => void };

function toolsOrSkip(t: TestContext): Tools | null {
  if (findFirmware('bios-256k.bin') === null) {
    t.skip('SeaBIOS is not installed');
    return null;
  }
  const files = packageFiles('grub', ['grub-pc-bin', 'grub-common']);
  if (typeof files === 'string') {
    t.skip(files);
    return null;
  }
  const modules = join(files.root, 'usr/lib/grub/i386-pc');
  return {
    modules,
    mkimage: (args) => void execFileSync(join(files.root, 'usr/bin/grub-mkimage'), ['-d', modules, ...args], { stdio: 'pipe' }),
  };
}

/** A file system with GRUB's modules and the guest, made without privileges. */
async function makePartition(folder: string, { modules }: Tools): Promise<Uint8Array> {
  const guest = await guestFiles(SILENT);
  const tree = join(folder, 'tree');
  mkdirSync(join(tree, 'boot/grub'), { recursive: true });
  cpSync(modules, join(tree, 'boot/grub/i386-pc'), {
    recursive: true,
    filter: (path) => !path.endsWith('.module'),
  });
  writeFileSync(join(tree, 'boot/grub/grub.cfg'), CONFIG);
  writeFileSync(join(tree, 'boot/vmlinuz'), guest.kernel);
  writeFileSync(join(tree, 'boot/initrd'), shellInitramfs(guest));
  const path = join(folder, 'partition');
  writeFileSync(path, '');
  truncateSync(path, PARTITION_MIB * MIB);
  execFileSync('mkfs.ext4', ['-q', '-d', tree, path], {
    stdio: 'pipe',
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
  });
  return readFileSync(path);
}

/** Boot sector, GRUB's core behind it, and one partition. */
async function makeDisk(folder: string, tools: Tools): Promise<Uint8Array> {
  const partition = await makePartition(folder, tools);
  const core = join(folder, 'core.img');
  tools.mkimage(['-O', 'i386-pc', '-p', '(hd0,msdos1)/boot/grub', '-o', core, 'biosdisk', 'part_msdos', 'ext2']);
  const disk = new Uint8Array(PARTITION_START * SECTOR + partition.length);
  disk.set(readFileSync(join(tools.modules, 'boot.img')).subarray(0, TABLE));
  const view = new DataView(disk.buffer);
  disk.set([0x80, 0, 0, 0, 0x83, 0xfe, 0xff, 0xff], TABLE);
  view.setUint32(TABLE + 8, PARTITION_START, true);
  view.setUint32(TABLE + 12, partition.length / SECTOR, true);
  disk.set([0x55, 0xaa], 510);
  disk.set(readFileSync(core), SECTOR);
  disk.set(partition, PARTITION_START * SECTOR);
  return disk;
}

async function screenWith(machine: Machine, wanted: RegExp): Promise<string> {
  for (;;) {
    const text = (await machine.screenText())?.join('\n') ?? '';
    if (wanted.test(text)) return text;
    if (machine.state !== 'running') throw new Error(`the machine ended before ${wanted}:\n${text}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test('SeaBIOS, GRUB with its menu, a kernel from ext4, a shell', LIMIT, async (t) => {
  const tools = toolsOrSkip(t);
  if (tools === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'grub-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const data = await makeDisk(folder, tools);
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
  const tools = toolsOrSkip(t);
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

/** A CD with one boot image and no files; the image is told where it lies. */
function bootableCd(image: Uint8Array): Uint8Array {
  const CD = 2048;
  const START = 20;
  const cd = new Uint8Array((START + Math.ceil(image.length / CD) + 16) * CD);
  const view = new DataView(cd.buffer);
  for (const [at, type] of [
    [16, 1],
    [17, 0],
    [18, 255],
  ] as const) {
    cd.set([type, ...new TextEncoder().encode('CD001'), 1], at * CD);
  }
  cd.set(new TextEncoder().encode('EL TORITO SPECIFICATION'), 17 * CD + 7);
  view.setUint32(17 * CD + 0x47, 19, true);
  cd.set([1, 0, 0, 0], 19 * CD);
  cd.set([0xaa, 0x55, 0x55, 0xaa], 19 * CD + 28);
  cd.set([0x88, 0, 0, 0, 0, 0, 4, 0, START], 19 * CD + 32);
  cd.set(image, START * CD);
  // The boot information table: descriptor, image, its length and sum.
  const table = START * CD + 8;
  view.setUint32(table, 16, true);
  view.setUint32(table + 4, START, true);
  view.setUint32(table + 8, image.length, true);
  let sum = 0;
  for (let at = 64; at < image.length; at += 4) sum = (sum + view.getUint32(START * CD + at, true)) >>> 0;
  view.setUint32(table + 12, sum, true);
  return cd;
}

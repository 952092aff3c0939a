/** Power-on with SeaBIOS: boot sectors on disk, floppy and CD, compared with what QEMU makes of them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { type DriveConfig, drive, Machine, type MachineConfig } from 'virelay';
import { findFirmware } from '../../src/host/node/firmware.ts';
import { bootCd, bootDisk, bootSector, EXIT_PORT } from './boot-sector.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 60_000 };

function skipWithoutBios(t: TestContext): boolean {
  if (findFirmware('bios-256k.bin') !== null) return false;
  t.skip('SeaBIOS is not installed');
  return true;
}

const image = (data: Uint8Array): { file: { name: string; data: Uint8Array } } => ({ file: { name: 'image', data } });

/** Runs until the program ends the machine. @returns what it printed, and the screen before that */
async function boot(drives: readonly Partial<DriveConfig>[], more: Partial<MachineConfig> = {}) {
  await using machine = await Machine.create({
    memory: 32 * MIB,
    drives: drives.map((one) => drive(one)),
    debugExit: { iobase: EXIT_PORT, iosize: 4 },
    ...more,
  });
  const text = new Response(machine.serial[0]!.readable).text();
  const { status } = await machine.ended;
  return { status, text: await text };
}

function qemu(data: Uint8Array, ...options: string[]): string | null {
  const folder = mkdtempSync(join(tmpdir(), 'boot-'));
  try {
    const path = join(folder, 'image');
    writeFileSync(path, data);
    const { error, stdout } = spawnSync(
      'qemu-system-x86_64',
      [
        '-accel',
        'tcg',
        '-m',
        '32',
        '-display',
        'none',
        '-net',
        'none',
        '-serial',
        'stdio',
        '-monitor',
        'none',
        '-device',
        `isa-debug-exit,iobase=${EXIT_PORT},iosize=4`,
        ...options.map((option) => option.replace('IMAGE', path)),
      ],
      { timeout: 30_000, encoding: 'utf8' },
    );
    return error === undefined ? stdout : null;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const DISK = bootDisk(4 * MIB, 63, true);
const FLOPPY = bootDisk(1474560, 18, false);
const CASES: [name: string, drive: Partial<DriveConfig>, data: Uint8Array, option: string, text: string][] = [
  ['a disk', {}, DISK, 'file=IMAGE,format=raw', 'hello\r\nby head and sector\r\nby address\r\n'],
  ['a floppy', { interface: 'floppy' }, FLOPPY, 'file=IMAGE,format=raw,if=floppy', 'hello\r\nby head and sector\r\n'],
  ['a CD', { media: 'cdrom', index: 2 }, bootCd(), 'file=IMAGE,format=raw,media=cdrom', 'hello\r\nby address\r\n'],
];

for (const [name, config, data, option, expected] of CASES) {
  for (const accel of ['jit', 'interp'] as const) {
    test(`SeaBIOS boots from ${name} (${accel})`, LIMIT, async (t) => {
      if (skipWithoutBios(t)) return;
      const { status, text } = await boot([{ ...config, ...image(data) }], { accel });
      assert.equal(text, expected);
      assert.equal(status, 3);
    });
  }
  test(`QEMU prints the same from ${name}`, LIMIT, (t) => {
    const text = qemu(data, '-drive', option);
    if (text === null) t.skip('QEMU is not installed');
    else assert.equal(text, expected);
  });
}

for (const [name, config, data, , expected] of CASES.filter(([, config]) => config.interface !== 'floppy')) {
  test(`SeaBIOS boots from ${name} at the AHCI of a Q35`, LIMIT, async (t) => {
    if (skipWithoutBios(t)) return;
    const { status, text } = await boot([{ ...config, ...image(data) }], { machine: 'q35' });
    assert.deepEqual([text, status], [expected, 3]);
  });
}

test('SeaBIOS boots from a disk at an AHCI that was added', LIMIT, async (t) => {
  if (skipWithoutBios(t)) return;
  const { status, text } = await boot([{ interface: 'ahci', index: 1, bootIndex: 0, ...image(DISK) }]);
  assert.match(text, /^hello/);
  assert.equal(status, 3);
});

test('the boot order chooses between drives, and "once" for the first start only', LIMIT, async (t) => {
  if (skipWithoutBios(t)) return;
  const drives = [image(DISK), { interface: 'floppy', ...image(FLOPPY) }] as const;
  const order = (given: { order: string; once?: string }) => ({
    boot: { once: null, menu: false, splashTime: null, rebootTimeout: null, ...given },
  });
  assert.match((await boot(drives, order({ order: 'ca' }))).text, /by address/);
  assert.doesNotMatch((await boot(drives, order({ order: 'ac' }))).text, /by address/);
  assert.doesNotMatch((await boot(drives, order({ order: 'c', once: 'a' }))).text, /by address/);
  const indexed = drives.map((one, i) => ({ ...one, bootIndex: 1 - i }));
  assert.doesNotMatch((await boot(indexed)).text, /by address/);
});

test('the screen as text and as a picture, and keys through the BIOS', LIMIT, async (t) => {
  if (skipWithoutBios(t)) return;
  // wait: mov ah, 0; int 16h; mov ah, 0Eh; mov bx, 7; int 10h; jmp wait
  const echo = new Uint8Array(512);
  echo.set([0xb4, 0x00, 0xcd, 0x16, 0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10, 0xeb, 0xf3]);
  echo.set([0x55, 0xaa], 510);
  await using machine = await Machine.create({ memory: 32 * MIB, drives: [drive(image(echo))] });
  const until = async (wanted: RegExp): Promise<void> => {
    while (!wanted.test((await machine.screenText())?.join('\n') ?? '')) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  await until(/Booting from Hard Disk/);
  await machine.keyboard.type('Hello, World: (1+2)*3 = "9"');
  await until(/^Hello, World: \(1\+2\)\*3 = "9"$/m);
  const picture = (await machine.screenshot())!;
  assert.deepEqual([picture.width, picture.height], [720, 400]);
  assert.ok(
    picture.pixels.some((value, i) => i % 4 !== 3 && value !== 0),
    'not all black',
  );
  const png = (await machine.screenshotPng())!;
  assert.deepEqual([...png.subarray(1, 4)], [0x50, 0x4e, 0x47]);
  await assert.rejects(machine.keyboard.press('ctrl-nokey'), /there is no key "nokey"/);
});

test('without a display the firmware speaks at the serial port', LIMIT, async (t) => {
  if (skipWithoutBios(t)) return;
  const { text } = await boot([image(DISK)], { textOnSerial: true });
  assert.match(text, /SeaBIOS/);
  assert.match(text, /Booting from Hard Disk/);
});

test('a medium that ends early is an error for the guest alone', LIMIT, async (t) => {
  if (skipWithoutBios(t)) return;
  const folder = mkdtempSync(join(tmpdir(), 'boot-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'image');
  writeFileSync(file, DISK);
  await using machine = await Machine.create({
    memory: 32 * MIB,
    drives: [drive({ file })],
    startPaused: true,
    debugExit: { iobase: EXIT_PORT, iosize: 4 },
  });
  truncateSync(file, 64 * 512);
  await machine.start();
  assert.equal((await machine.ended).status, 5);
});

test('a boot sector needs no display', LIMIT, async (t) => {
  if (skipWithoutBios(t)) return;
  const disk = new Uint8Array(MIB);
  disk.set(bootSector({ chs: false, lba: false }));
  const { status, text } = await boot([image(disk)], { vga: 'none' });
  assert.deepEqual([status, text], [3, 'hello\r\n']);
});

test('OVMF comes to its shell', LIMIT, async (t) => {
  const bios = findFirmware('OVMF.fd');
  if (bios === null) {
    t.skip('OVMF is not installed');
    return;
  }
  await using machine = await Machine.create({ memory: 128 * MIB, bios });
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of machine.serial[0]!.readable) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes('UEFI Interactive Shell')) break;
  }
  assert.match(text, /UEFI Interactive Shell/);
  const picture = (await machine.screenshot())!;
  assert.ok(picture.width >= 640 && picture.height >= 480);
  assert.equal(await machine.screenText(), null, 'the display shows pixels');
});

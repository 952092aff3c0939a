/** Machines whose disks are images of several formats, opened through the block graph. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { findFirmware } from '../../src/host/node/firmware.ts';
import { needsQemu, qemuImg, qemuIo, temporaryFolder } from '../../src/storage/test-kit.ts';

const PROGRAM = fileURLToPath(new URL('../../bin/virelay-system-x86_64', import.meta.url));
const LIMIT = { timeout: 120_000, ...needsQemu };
const EXIT = ['-device', 'isa-debug-exit,iobase=0x501,iosize=2', '-display', 'none', '-serial', 'null', '-m', '32'];
const folder = temporaryFolder();

/** Writes itself to the eleventh sector, by the BIOS, and leaves with status 3, or 5 when that failed. */
const BOOT = Uint8Array.of(
  ...[0x31, 0xc0, 0x8e, 0xc0, 0xbb, 0x00, 0x7c], // xor ax, ax; mov es, ax; mov bx, 7C00h
  ...[0xb8, 0x01, 0x03, 0xb9, 0x0b, 0x00, 0xba, 0x80, 0x00], // mov ax, 0301h; mov cx, 11; mov dx, 80h
  ...[0xcd, 0x13, 0xb0, 0x01, 0x73, 0x02, 0xb0, 0x02], // int 13h; mov al, 1; jnc +2; mov al, 2
  ...[0xba, 0x01, 0x05, 0xee, 0xf4], // mov dx, 501h; out dx, al; hlt
);

function disk(name: string, format: string): string {
  const [plain, path] = [join(folder, `${name}.raw`), join(folder, name)];
  qemuImg('create', '-q', '-f', 'raw', plain, '16M');
  const commands = [...BOOT].map((value, i) => `write -q -P ${value} ${i} 1`);
  qemuIo(plain, 'raw', ...commands, 'write -q -P 0x55 510 1', 'write -q -P 0xaa 511 1');
  qemuImg('convert', '-f', 'raw', '-O', format, plain, path);
  return path;
}

/** @throws Error unless the eleventh sector is a copy of the first */
const checkWritten = (path: string, format: string): string => qemuIo(path, format, 'read -P 0x31 5120 1', 'read -P 0xaa 5631 1');

function run(t: TestContext, ...args: string[]): { status: number | null; stderr: string } {
  if (findFirmware('bios-256k.bin') === null) {
    t.skip('SeaBIOS is not installed');
    return { status: null, stderr: '' };
  }
  const { status, stderr } = spawnSync(PROGRAM, [...EXIT, ...args], { encoding: 'utf8', timeout: 60_000 });
  return { status, stderr };
}

for (const format of ['qcow2', 'vmdk', 'vhdx']) {
  test(`a guest writes to a ${format} image, which is whole when the machine has ended`, LIMIT, (t) => {
    const path = disk(`disk.${format}`, format);
    const { status, stderr } = run(
      t,
      '-drive',
      `file=${path},format=${format},if=ide,cache=unsafe,discard=unmap,detect-zeroes=unmap,werror=stop`,
    );
    if (status === null) return;
    assert.deepEqual([status, stderr], [3, '']);
    checkWritten(path, format);
    assert.match(qemuImg('check', path), /No errors were found/);
  });
}

test('a guest writes to a node of -blockdev, with counted instructions, too', LIMIT, (t) => {
  const path = disk('node.qcow2', 'qcow2');
  const node = { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: path, cache: { direct: true } } };
  const { status, stderr } = run(
    t,
    '-icount',
    'shift=2',
    '-blockdev',
    JSON.stringify(node),
    '-device',
    'ide-hd,drive=n,bus=ide.0',
  );
  if (status === null) return;
  assert.deepEqual([status, stderr], [3, '']);
  checkWritten(path, 'qcow2');
});

test('what is written to a snapshot is forgotten', LIMIT, (t) => {
  const path = disk('snapshot.qcow2', 'qcow2');
  const { status } = run(t, '-drive', `file=${path},snapshot=on,throttling.iops-total=1000`);
  if (status === null) return;
  assert.equal(status, 3);
  qemuIo(path, 'qcow2', 'read -P 0 5120 512');
});

test('what cannot be opened is said in one line that names the option', LIMIT, (t) => {
  const path = disk('bad.qcow2', 'qcow2');
  const one = (text: string, ...args: string[]): void => {
    const { status, stderr } = run(t, ...args);
    if (status === null) return;
    assert.deepEqual([status, stderr], [1, `virelay-system-x86_64: ${args[0]} ${args[1]}: ${text}\n`]);
  };
  one("Could not open 'nowhere': No such file or directory", '-drive', 'file=nowhere,format=qcow2');
  one("Block format 'qcow2' does not support the option 'flavour'", '-drive', `file=${path},format=qcow2,flavour=x`);
  one("Parameter 'node-name' is missing", '-blockdev', `driver=file,filename=${path}`);
});

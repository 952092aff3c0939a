/**
 * Programs in real mode: SeaBIOS starts a small DOS (dos/system.asm), which runs programs of its own and real ones.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { drive, Machine, type MachineConfig } from 'virelay';
import { guestFiles } from '../src/cli/guest-files.ts';
import { SILENT } from '../src/cli/progress.ts';
import { findFirmware } from '../src/host/node/firmware.ts';
import { assemble, dosDisk, hasAssembler } from './dos/disk.ts';
import { packageFiles } from './packages.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 60_000 };
const EXIT_PORT = 0xf4;
/** What the system ends the machine with when all programs have run. */
const DONE = 3;

function skipped(t: TestContext): boolean {
  const missing = findFirmware('bios-256k.bin') === null ? 'SeaBIOS' : hasAssembler() ? null : 'nasm';
  if (missing !== null) t.skip(`${missing} is not installed`);
  return missing !== null;
}

function machineWith(disk: Uint8Array, more: Partial<MachineConfig> = {}): Promise<Machine> {
  return Machine.create({
    memory: 32 * MIB,
    drives: [drive({ file: { name: 'disk', data: disk } })],
    debugExit: { iobase: EXIT_PORT, iosize: 4 },
    ...more,
  });
}

/** @returns what the programs printed, when all have run */
async function output(disk: Uint8Array, more?: Partial<MachineConfig>): Promise<string> {
  await using machine = await machineWith(disk, more);
  const text = new Response(machine.serial[0]!.readable).text();
  assert.equal((await machine.ended).status, DONE);
  return text;
}

/** 1500 bytes, of which the last two are the sum of the others. */
function numbers(): Uint8Array {
  const bytes = new Uint8Array(1500).map((_, i) => 33 + ((i * 7) % 90));
  const sum = bytes.subarray(0, 1498).reduce((all, byte) => all + byte, 0);
  new DataView(bytes.buffer).setUint16(1498, sum & 0xffff, true);
  return bytes;
}

function programDisk(...lines: string[]): Uint8Array {
  return dosDisk(lines, { 'HELLO.COM': assemble('hello'), 'FAR.EXE': assemble('far'), 'NUMBERS.TXT': numbers() });
}

const HELLO = 'DOS 5:\r\nababcdef 6512\r\nticks\r\n';
const FAR = `... called\r\n]dkr\r\nallocated\r\n${HELLO}timed\r\nbeyond 1 MiB\r\n`;
const LINES = ['HELLO.COM', 'FAR.EXE one', 'HELLO.COM'] as const;
const PRINTED =
  `\r\nC>HELLO.COM\r\n${HELLO}status 00\r\n` +
  `\r\nC>FAR.EXE one\r\n${FAR}status 2A\r\n` +
  `\r\nC>HELLO.COM\r\n${HELLO}status 00\r\n`;

for (const accel of ['jit', 'interp'] as const) {
  test(`programs with segments, interrupts, files and memory (${accel})`, LIMIT, async (t) => {
    if (skipped(t)) return;
    assert.equal(await output(programDisk(...LINES), { accel }), PRINTED);
  });
}

test('QEMU prints the same', LIMIT, (t) => {
  if (skipped(t)) return;
  const folder = mkdtempSync(join(tmpdir(), 'dos-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'disk');
  writeFileSync(path, programDisk(...LINES));
  const { error, stdout } = spawnSync(
    'qemu-system-x86_64',
    [
      ...['-accel', 'tcg', '-m', '32', '-display', 'none', '-net', 'none', '-serial', 'stdio', '-monitor', 'none'],
      ...['-device', `isa-debug-exit,iobase=${EXIT_PORT},iosize=4`, '-drive', `file=${path},format=raw`],
    ],
    { timeout: 30_000, encoding: 'utf8' },
  );
  if (error !== undefined) t.skip('QEMU is not installed');
  else assert.equal(stdout, PRINTED);
});

test('a program that asks: keys, a line of text, and what it painted', LIMIT, async (t) => {
  if (skipped(t)) return;
  await using machine = await machineWith(programDisk('HELLO.COM please'));
  const printed = new Response(machine.serial[0]!.readable).text();
  const screen = async (): Promise<string> => (await machine.screenText())?.join('\n') ?? '';
  while (!(await screen()).includes('Your name:')) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.match(await screen(), /^.{72}@@@#/m);
  await machine.keyboard.type('Wordl\b\bld\n');
  assert.equal((await machine.ended).status, DONE);
  const dialogue = 'Your name: Wordl\b\bld\r\r\nHello, World\r\nstatus 00';
  assert.ok((await printed).includes(dialogue), await printed);
});

test('what a C compiler for DOS makes', LIMIT, async (t) => {
  if (skipped(t)) return;
  const files = packageFiles('bcc', ['bcc', 'elks-libc', 'bin86']);
  if (typeof files === 'string') return t.skip(files);
  const folder = mkdtempSync(join(tmpdir(), 'dos-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const tools = join(files.root, 'usr/bin');
  const library = join(files.root, 'usr/lib/bcc/');
  writeFileSync(
    join(folder, 'primes.c'),
    `#include <stdio.h>
     char sieve[8191];
     long fib(n) int n; { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
     int main(argc, argv) int argc; char **argv; {
       int i, j, n = 0;
       for (i = 2; i < 8191; i++) {
         if (sieve[i]) continue;
         for (n++, j = i + i; j < 8191; j += i) sieve[j] = 1;
       }
       printf("%d %s, %s %ld\\n", n, argv[1], argv[2], fib(20));
       return argc;
     }`,
  );
  const options = [`-B${library}`, `-I${join(library, 'include')}`, `-L${library}`, '-Md', '-o', 'primes.com', 'primes.c'];
  const { status, stderr, error } = spawnSync(join(tools, 'bcc'), options, {
    cwd: folder,
    env: { ...process.env, PATH: `${tools}:${process.env['PATH']}` },
    encoding: 'utf8',
  });
  if (error !== undefined) return t.skip(`the compiler cannot run: ${error.message}`);
  assert.equal(status, 0, stderr);
  const disk = dosDisk(['PRIMES.COM primes fib'], { 'PRIMES.COM': readFileSync(join(folder, 'primes.com')) });
  assert.equal(await output(disk), '\r\nC>PRIMES.COM primes fib\r\n1027 primes, fib 6765\r\nstatus 03\r\n');
});

test('LOADLIN starts Linux', LIMIT, async (t) => {
  if (skipped(t)) return;
  const files = packageFiles('loadlin', ['loadlin']);
  if (typeof files === 'string') return t.skip(files);
  const guest = await guestFiles(SILENT).catch((error: Error) => error.message);
  if (typeof guest === 'string') return t.skip(guest);
  const disk = dosDisk(['LOADLIN.EXE @BOOT.PAR'], {
    'LOADLIN.EXE': gunzipSync(readFileSync(join(files.root, 'usr/lib/loadlin/loadlin.exe.gz'))),
    'BOOT.PAR': new TextEncoder().encode('VMLINUZ\r\nconsole=ttyS0\r\npanic=-1\r\n'),
    VMLINUZ: guest.kernel,
  });
  await using machine = await machineWith(disk, { memory: 256 * MIB, noReboot: true });
  // There is no file system for it: having said so, it resets the machine.
  const text = await new Response(machine.serial[0]!.readable).text();
  assert.match(text, /LOADLIN v1/);
  assert.match(text, /Command line: console=ttyS0 panic=-1 BOOT_IMAGE=vmlinuz/);
  assert.match(text, /VFS: Unable to mount root fs/);
});

/** Machines that are saved and go on: the library and the command line, with firmware of a few instructions. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { drive, Machine, type MachineConfig } from 'virelay';
import { Console, savedAndEnded, streamOf } from '../saved-machine.ts';
import { collect, ended } from './child.ts';
import { echo } from './firmware.ts';

const MIB = 2 ** 20;
const PROGRAM = join(import.meta.dirname, '..', '..', 'bin', 'virelay-system-x86_64');
const folder = mkdtempSync(join(tmpdir(), 'virelay-state-'));
after(() => rmSync(folder, { recursive: true }));
const place = (name: string): string => join(folder, name);

const BIOS = { name: 'echo', data: echo() };
const CONFIG: Partial<MachineConfig> = {
  memory: 2 * MIB,
  bios: BIOS,
  vga: 'none',
  debugExit: { iobase: 0xf4, iosize: 4 },
};

for (const [from, to] of [
  ['jit', 'interp'],
  ['interp', 'jit'],
] as const) {
  test(`a machine goes on in another one (${from} to ${to})`, async () => {
    const first = await Machine.create({ ...CONFIG, accel: from });
    const before = new Console(first);
    await before.until('ready');
    await before.type('abc');
    await before.until('abc');
    const pieces = await savedAndEnded(first);
    assert.ok(pieces.reduce((sum, { length }) => sum + length, 0) < 30_000);
    const second = await Machine.restore(streamOf(pieces), { ...CONFIG, accel: to });
    assert.equal(second.state, 'running');
    const after = new Console(second);
    await after.type('defq');
    assert.deepEqual(await second.ended, { event: 'debug-exit', status: 3 });
    await after.done;
    assert.equal(after.text, 'defq');
  });
}

test('a machine that is being saved stands still until it is told to go on, and keeps its input', async () => {
  await using machine = await Machine.create(CONFIG);
  const console = new Console(machine);
  await console.until('ready');
  const reader = machine.save().getReader();
  await reader.read();
  assert.equal(machine.state, 'paused');
  await assert.rejects(machine.start(), { message: 'the machine is being saved' });
  await assert.rejects(machine.save().getReader().read(), { message: 'the machine is being saved already' });
  await console.type('xyz');
  for (;;) if ((await reader.read()).done) break;
  assert.equal(console.text, 'ready\n');
  await machine.start();
  await console.until('xyz');
  // And once more, given up half way.
  await machine.save().cancel();
  const again = machine.save().getReader();
  await again.read();
  await again.cancel();
  await machine.start();
  await console.type('q');
  assert.equal((await machine.ended).status, 3);
});

test('a paused machine is restored paused, and so is one that is told to be', async () => {
  const first = await Machine.create(CONFIG);
  await new Console(first).until('ready');
  await first.pause();
  const paused = await savedAndEnded(first);
  await using second = await Machine.restore(streamOf(paused), CONFIG);
  assert.equal(second.state, 'prelaunch');
  assert.equal(second.wasRunning, false);
  await second.start();
  const console = new Console(second);
  await console.type('1');
  await console.until('1');
  const running = await savedAndEnded(second);
  await using third = await Machine.restore(streamOf(running), { ...CONFIG, startPaused: true });
  assert.equal(third.state, 'prelaunch');
  assert.equal(third.wasRunning, true);
});

test('another machine is refused, with one line that names the difference', async () => {
  const machine = await Machine.create({ ...CONFIG, devices: [{ driver: 'virtio-rng-pci', id: 'rng' }] });
  await new Console(machine).until('ready');
  const pieces = await savedAndEnded(machine);
  const device = { driver: 'virtio-rng-pci', id: 'rng' };
  const cases: [Partial<MachineConfig>, RegExp][] = [
    [{ devices: [] }, /device "rng" \(virtio-rng-pci\), which this machine lacks/],
    [{ devices: [{ ...device, addr: '7' }] }, /device "-device rng": addr was "2\.0" when it was saved, and is "7\.0" here/],
    [{ devices: [device, { ...device, id: 'two' }] }, /lacks the device "two" \(virtio-rng-pci\), which this machine has/],
    [{ memory: 4 * MIB }, /machine: memory was 2097152 when it was saved, and is 4194304 here/],
    [{ machine: 'q35' }, /machine: type was "pc" when it was saved, and is "q35" here/],
    [{ cpu: 'qemu64' }, /cpu: model was "max" when it was saved, and is "qemu64" here/],
    [{ cpu: 'max,-aes' }, /cpu: aes was true when it was saved, and is not there here/],
    [{ bios: { name: 'other', data: new Uint8Array(0x10000) } }, /firmware: bios was "65536 bytes, CRC-32C/],
    [{ hpet: false }, /machine: hpet was true/],
    [{ icount: { shift: 0, sleep: false } }, /machine: icount was "none" when it was saved, and is "shift=0" here/],
    [{ serials: ['connected', 'connected'] }, /lacks the device "serial1" \(isa-serial\)/],
    [{ drives: [drive({ file: { name: 'd', data: new Uint8Array(MIB) } })] }, /lacks the device "drive ide0" \(disk\)/],
  ];
  for (const [more, message] of cases) {
    await assert.rejects(Machine.restore(streamOf(pieces), { ...CONFIG, devices: [device], ...more }), (error: Error) => {
      assert.match(error.message, /^saved state: [^\n]+$/);
      assert.match(error.message, message);
      return true;
    });
  }
  // How the host hears of a device's driver is no difference.
  const other = { ...CONFIG, devices: [{ ...device, ioeventfd: 'on' }] };
  await (await Machine.restore(streamOf(pieces), other)).quit();
});

test('a damaged stream ends the new machine with one line', async () => {
  const machine = await Machine.create(CONFIG);
  await new Console(machine).until('ready');
  const whole = Buffer.concat(await savedAndEnded(machine));
  for (const at of [3, 17, 500, 5000, whole.length - 20]) {
    const damaged = Uint8Array.from(whole);
    damaged[at]! ^= 0x10;
    await assert.rejects(Machine.restore(streamOf([damaged]), CONFIG), { message: /^saved state: [^\n]+$/ });
  }
  await assert.rejects(Machine.restore(streamOf([whole.subarray(0, 4000)]), CONFIG), { message: /^saved state: .*cut off/ });
  await assert.rejects(Machine.restore(streamOf([]), CONFIG), { message: 'saved state: ends within its header' });
});

test('what is written to a disk in memory comes along; what is to be forgotten is not saved', async () => {
  const data = new Uint8Array(1000 * 512).map((_, i) => i >> 9);
  const config = { ...CONFIG, drives: [drive({ file: { name: 'd', data } })] };
  const machine = await Machine.create(config);
  await new Console(machine).until('ready');
  const pieces = await savedAndEnded(machine);
  const empty = { ...CONFIG, drives: [drive({ file: { name: 'd', data: new Uint8Array(1000 * 512) } })] };
  await using other = await Machine.restore(streamOf(pieces), empty);
  const again = await savedAndEnded(other);
  assert.equal(again.length, pieces.length);
  await using forgetful = await Machine.create({ ...CONFIG, drives: [drive({ snapshot: true, file: { name: 'd', data } })] });
  await assert.rejects(savedAndEnded(forgetful), /the machine cannot be saved: drive 0 .*ends with this machine \(snapshot=on\)/);
  assert.equal(forgetful.state, 'running');
});

test('Ctrl-A S saves and exits, -incoming goes on in another process', async () => {
  writeFileSync(place('echo'), BIOS.data);
  const exit = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=4'];
  const args = ['-m', '2', '-bios', place('echo'), ...exit, '-vga', 'none', '-nodefaults', '-nographic'];
  const state = place('state');
  const child = spawn(PROGRAM, [...args, '-save-state', state]);
  const output = collect(child.stdout);
  const errors = collect(child.stderr);
  await output.until('ready');
  child.stdin.write('abc\x01h');
  await output.until('abc');
  await errors.until('C-a s    save the machine to a file and exit (if -save-state)');
  child.stdin.write('\x01s');
  assert.equal(await ended(child), 0);
  assert.match(errors.seen.text, /the machine is saved in \S+; -incoming file:\S+ goes on from there/);
  assert.equal(existsSync(`${state}.part`), false);

  const second = spawn(PROGRAM, [...args, '-incoming', `file:${state}`]);
  const rest = collect(second.stdout);
  const hints = collect(second.stderr);
  second.stdin.write('d\x01se');
  await rest.until('de');
  await hints.until('-save-state FILE says where the machine is saved to');
  second.stdin.end('q');
  assert.equal(await ended(second), 3);
  assert.equal(rest.seen.text, 'deq');

  const run = (...more: string[]) => spawnSync(PROGRAM, [...args, ...more], { encoding: 'utf8', timeout: 60_000 });
  const refused = (more: string[], message: RegExp): void => {
    const { status, stderr } = run(...more);
    assert.equal(status, 1);
    assert.match(stderr, message);
    assert.equal(stderr.trim().split('\n').length, 1);
  };
  refused(['-incoming', `file:${place('absent')}`], /-incoming file:\S+absent: no such file or directory/);
  refused(['-incoming', 'exec:cat x'], /-incoming exec:cat x: only file:PATH is known/);
  refused(['-incoming', `file:${state}`, '-m', '4'], /-incoming file:\S+: saved state: machine: memory was 2097152/);
  writeFileSync(place('damaged'), readFileSync(state).subarray(0, 900));
  refused(['-incoming', `file:${place('damaged')}`], /-incoming file:\S+damaged: saved state: .*cut off/);
});

/** Virtio devices whose queues are the kernel's to answer for (`ioeventfd=on`), by SeaBIOS under the host's KVM. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { Machine } from 'virelay';
import { findFirmware } from '../../src/host/node/firmware.ts';
import { NO_KVM } from '../../src/kvm/test-kit.ts';
import { completeConfig, drive } from '../../src/machine/config.ts';
import { createMachine } from '../../src/machine/create.ts';
import { Drives } from '../../src/storage/open.ts';
import { bootDisk, EXIT_PORT } from './boot-sector.ts';

process.env['VIRELAY_KVM_PARTIAL'] = '1';

const LIMIT = { timeout: 60_000, skip: NO_KVM };
const MIB = 2 ** 20;
const DISK = bootDisk(4 * MIB, 63, true);

/** Runs a machine in this thread, whose counters can be read, until the boot sector has ended it. */
async function boot(device: Record<string, unknown>) {
  const config = completeConfig({
    accel: 'kvm',
    memory: 32 * MIB,
    vga: 'none',
    bios: findFirmware('bios-256k.bin'),
    debugExit: { iobase: EXIT_PORT, iosize: 4 },
    drives: [drive({ interface: 'none', id: 'd', file: { name: 'disk', data: DISK } })],
    devices: [{ driver: 'virtio-blk-pci', drive: 'd', ...device }],
  });
  let text = '';
  const serial = {
    onReceive: null,
    onDrain: null,
    write: (data: Uint8Array) => {
      text += Buffer.from(data).toString('latin1');
      return true;
    },
    resume: () => undefined,
    close: () => undefined,
  };
  const drives = await Drives.open(config, { stop: assert.fail, warn: assert.fail });
  const { promise: ended, resolve } = Promise.withResolvers<string>();
  const machine = await createMachine(
    config,
    { onEnd: resolve, warn: (line) => console.log(line) },
    { serials: [serial], debugcon: null, chardevs: new Map(), drives: drives.backends, awaitsDisk: () => drives.underWay > 0 },
  );
  machine.start();
  assert.equal(await ended, 'debug-exit');
  const { ioeventfds = 0 } = machine.accelerator.statistics();
  machine.quit();
  await drives.close();
  return { text, ioeventfds };
}

const descriptors = (): number => readdirSync('/proc/self/fd').length;

for (const [name, device, rung] of [
  ['by default', {}, false],
  ['a modern device', { ioeventfd: 'on', 'disable-legacy': 'on' }, true],
  ['a legacy device', { ioeventfd: true, 'disable-modern': true }, true],
] as const) {
  test(`SeaBIOS reads from a virtio disk: ${name}`, LIMIT, async (t) => {
    if (findFirmware('bios-256k.bin') === null) return t.skip('SeaBIOS is not installed');
    const before = descriptors();
    const { text, ioeventfds } = await boot(device);
    assert.match(text, /hello\r\n.*by address\r\n/s);
    assert.equal(ioeventfds > 0, rung, `rung ${ioeventfds} times`);
    // Threads end a little after their machine. What is opened once, the first machine has opened.
    while (rung && descriptors() > before) await new Promise((after) => setTimeout(after, 20));
  });
}

/** Reads its own sector without an end by int 13h, and says a byte each time. */
const READER = [
  ...[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c], // ds = es = ss = 0; mov sp, 7c00h
  ...[0x88, 0x16, 0x00, 0x7e], // mov [7e00h], dl
  ...[0xb8, 0x01, 0x02, 0xbb, 0x00, 0x80, 0xb9, 0x01, 0x00], // again: mov ax, 0201h; mov bx, 8000h; mov cx, 1
  ...[0xb6, 0x00, 0x8a, 0x16, 0x00, 0x7e, 0xcd, 0x13, 0x72, 0xfe], // mov dh, 0; mov dl, [7e00h]; int 13h; jc $
  ...[0xb0, 0x2e, 0xe6, 0xe9, 0xeb, 0xe7], // mov al, '.'; out 0e9h, al; jmp again
];

test('a disk is read on under another accelerator, and under KVM again', LIMIT, async (t) => {
  if (findFirmware('bios-256k.bin') === null) return t.skip('SeaBIOS is not installed');
  const data = new Uint8Array(MIB);
  data.set(READER);
  data.set([0x55, 0xaa], 510);
  await using machine = await Machine.create({
    accel: 'kvm',
    memory: 32 * MIB,
    vga: 'none',
    serials: [],
    debugcon: { iobase: 0xe9 },
    drives: [drive({ interface: 'none', id: 'd', file: { name: 'disk', data } })],
    devices: [{ driver: 'virtio-blk-pci', drive: 'd', ioeventfd: 'on' }],
  });
  const reader = machine.debugcon!.readable.getReader();
  const reads = async (count: number): Promise<void> => {
    for (let seen = 0; seen < count; ) {
      const { value } = await reader.read();
      seen += value!.filter((byte) => byte === 0x2e).length;
    }
  };
  await reads(30);
  for (const accelerator of ['jit', 'kvm', 'jit', 'kvm'] as const) {
    await machine.setAccelerator(accelerator);
    await reads(30);
  }
});

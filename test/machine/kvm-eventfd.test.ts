/** Virtio devices whose queues are the kernel's to answer for (`ioeventfd=on`), by SeaBIOS under the host's KVM. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
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

/**
 * Runs on a host with a whole KVM (kvm-host.ts): a machine boots Linux, is saved, goes on in another process and from one
 * accelerator to the other. Says what it saw, a line each, for kvm-machine.long.test.ts.
 */
import { createReadStream, createWriteStream, readFileSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { drive, Machine, type MachineConfig } from 'virelay';
import { DEFAULT_PLAN } from '../src/network/test-kit.ts';
import { Console } from './saved-machine.ts';

const STATE = '/tmp/state';
const DISK = '/tmp/disk';
const MIB = 2 ** 20;
const READ_DISK = 'dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum';

const config = (accel: 'kvm' | 'jit'): Partial<MachineConfig> => ({
  accel,
  // What a guest that moves may have: both sides have all of it.
  cpu: 'qemu64',
  memory: 160 * MIB,
  append: 'console=ttyS0 quiet panic=-1 cryptomgr.notests',
  noReboot: true,
  trace: ['cpu_reset'],
  kernel: { name: 'vmlinuz', data: readFileSync('/virelay/kernel') },
  initrd: { name: 'initrd', data: readFileSync('/virelay/initrd') },
  drives: [drive({ interface: 'virtio', file: DISK, format: 'raw' })],
  network: {
    netdevs: [{ type: 'user', id: 'n', plan: DEFAULT_PLAN }],
    nics: [
      { model: 'virtio-net-pci', id: null, netdev: 'n', mac: Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56), properties: {} },
    ],
    dumps: [],
  },
});

const begun = performance.now();
const say = (name: string, value: string): void => {
  console.log(`virelay: ${name} ${value} (after ${Math.round(performance.now() - begun)} ms)`);
};

/** @returns what a command of the guest's shell prints */
async function ask(guest: Console, command: string): Promise<string> {
  // What is echoed of the command has quotes in it, its output has not.
  await guest.type(`echo "be"gin; ${command}; echo "e"nd\n`);
  await guest.until('begin');
  const from = guest.text.length;
  await guest.until('end');
  const start = guest.text.lastIndexOf('begin\r\n', from);
  return guest.text.slice(start + 7, guest.text.indexOf('end', start)).trim();
}

async function first(): Promise<void> {
  const machine = await Machine.create(config('kvm'));
  const guest = new Console(machine);
  await guest.until('READY');
  say('uname', await ask(guest, 'uname -r'));
  say('network', await ask(guest, 'ping -c 1 -w 9 10.0.2.2 | grep received'));
  await ask(guest, 'echo kept >/tmp/memory; dd if=/dev/urandom of=/dev/vda bs=64k count=16; sync');
  say('written', await ask(guest, READ_DISK));
  await pipeline(machine.save(), createWriteStream(STATE));
  await machine.quit();
}

async function second(): Promise<void> {
  const machine = await Machine.restore(createReadStream(STATE), config('kvm'));
  const guest = new Console(machine);
  say('restored', await ask(guest, `cat /tmp/memory; echo 3 >/proc/sys/vm/drop_caches; ${READ_DISK}`));
  for (const accelerator of ['jit', 'kvm'] as const) {
    await machine.setAccelerator(accelerator);
    say(accelerator, await ask(guest, `cat /tmp/memory; sleep 0.1; ping -c 1 -w 9 10.0.2.2 | grep received; ${READ_DISK}`));
  }
  await guest.type('poweroff -f\n');
  say('end', JSON.stringify(await machine.ended));
}

await (process.argv[2] === 'first' ? first() : second());

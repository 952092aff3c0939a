/**
 * Runs on a host with a whole KVM (kvm-host.ts): Debian boots from the host's disk by firmware and GRUB, as it would from an image, to its login
 * prompt. Says what it saw, a line each, for kvm-debian.long.test.ts.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { drive, Machine } from 'virelay';
import { DEFAULT_PLAN } from '../src/network/test-kit.ts';
import { Console } from './saved-machine.ts';

const MIB = 2 ** 20;
const SERVED = 'served '.repeat(10_000);

const begun = performance.now();
const say = (name: string, value: string): void => {
  console.log(`virelay: ${name} ${value} (after ${Math.round(performance.now() - begun)} ms)`);
};

const server = createServer((_request, response) => response.end(SERVED));
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address() as AddressInfo;

const machine = await Machine.create({
  ...{ accel: 'kvm', cpu: 'host', memory: 512 * MIB, noReboot: true, trace: ['cpu_reset'] },
  bios: { name: 'bios', data: readFileSync('/virelay/bios') },
  drives: [drive({ interface: 'virtio', file: '/dev/vda', format: 'raw' })],
  network: {
    netdevs: [{ type: 'user', id: 'n', plan: DEFAULT_PLAN }],
    nics: [
      { model: 'virtio-net-pci', id: null, netdev: 'n', mac: Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56), properties: {} },
    ],
    dumps: [],
  },
});
const guest = new Console(machine);

/** @returns what a command of the guest's shell prints */
async function ask(command: string): Promise<string> {
  // What is echoed of the command has quotes in it, its output has not.
  await guest.type(`echo "be"gin; ${command}; echo "e"nd\n`);
  await guest.until('begin\r\n');
  const from = guest.text.lastIndexOf('begin\r\n') + 7;
  await guest.until('end\r\n');
  return guest.text.slice(from, guest.text.lastIndexOf('end\r\n')).trim();
}

await guest.until('debian login: ');
say('prompt', 'debian login:');
await guest.type('root\n');
await guest.until('# ');
say('hypervisor', await ask('systemd-detect-virt'));
say('disk', await ask('echo kept >/root/kept; sync; echo $(findmnt -no SOURCE /) $(cat /root/kept)'));
say('network', await ask(`wget -qO- http://10.0.2.2:${port}/ | wc -c`));
await guest.type('systemctl poweroff\n');
say('end', JSON.stringify(await machine.ended));
server.close();

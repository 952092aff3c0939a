/** Debian's cloud kernel on a board without PCI: its disk and network are virtio devices with registers in memory. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { drive, Machine, type MachineConfig } from 'virelay';
import { DEFAULT_PLAN } from '../src/network/test-kit.ts';
import { savedAndEnded, streamOf } from './saved-machine.ts';
import { Conversation, guestOrSkip, listeningInitramfs } from './virtio-guest.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 120_000 };

test(
  'a microvm finds its disk and its network by ACPI, goes on where it was saved, reboots, and turns off at the button',
  LIMIT,
  async (t) => {
    const guest = await guestOrSkip(t);
    if (guest === null) return;
    const data = new Uint8Array(MIB).map((_, at) => at * 5);
    const config: Partial<MachineConfig> = {
      machine: 'microvm',
      memory: 192 * MIB,
      append: 'console=ttyS0 quiet panic=-1',
      kernel: { name: 'vmlinuz', data: guest.kernel },
      initrd: {
        name: 'initrd',
        data: listeningInitramfs(guest, ['virtio_mmio', 'virtio_blk', 'virtio_net', 'button', 'evdev']),
      },
      drives: [drive({ interface: 'none', id: 'd', file: { name: 'disk', data } })],
      network: { netdevs: [{ type: 'user', id: 'n', plan: DEFAULT_PLAN }], nics: [], dumps: [] },
      devices: [
        { driver: 'virtio-blk-device', drive: 'd' },
        { driver: 'virtio-net-device', netdev: 'n' },
      ],
    };
    const talk = new Conversation(await Machine.create(config));
    await talk.until(/^listening/m);
    assert.equal((await talk.run('ls /sys/bus/pci/devices 2>/dev/null | wc -l')).trim(), '0');
    const read = 'dd if=/dev/vda bs=64k 2>/dev/null | md5sum';
    const sum = createHash('md5').update(data).digest('hex');
    assert.equal((await talk.run(read)).slice(0, 32), sum);
    assert.match(await talk.run('ifconfig eth0 10.0.2.15 up; ping -c 1 -w 9 10.0.2.2'), /1 packets received/);
    const pieces = await savedAndEnded(talk.machine);
    const again = new Conversation(await Machine.restore(streamOf(pieces), config));
    assert.equal((await again.run(`echo 3 >/proc/sys/vm/drop_caches; ${read}`)).slice(0, 32), sum);
    assert.match(await again.run('ping -c 1 -w 9 10.0.2.2'), /1 packets received/);
    await again.until(/^listening/m, await again.tell('reboot -f'));
    await again.run('(head -c 1 /dev/input/event0 >/dev/null; poweroff -f) & sleep 0.5');
    await again.machine.powerdown();
    assert.equal((await again.machine.ended).event, 'poweroff');
  },
);

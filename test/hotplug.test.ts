/** Devices that come and go while Debian's kernel runs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drive, type Machine, type MachineConfig } from 'virelay';
import { type Conversation, guestOrSkip, talkTo } from './virtio-guest.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 180_000 };

/** Settles when a device has left. */
function leaving(machine: Machine, id: string): Promise<void> {
  return new Promise((resolve) => {
    const stop = machine.on('deviceDeleted', ({ device }) => {
      if (device !== id) return;
      stop();
      resolve();
    });
  });
}

async function remove(machine: Machine, id: string): Promise<void> {
  const left = leaving(machine, id);
  await machine.removeDevice(id);
  await left;
}

const disk = () => drive({ id: 'd0', interface: 'none', file: { name: 'disk', data: new Uint8Array(8 * MIB).fill(0x61) } });

const APPEARS = 'i=0; until [ -e /dev/vda ]; do sleep 0.1; i=$((i+1)); [ $i = 300 ] && break; done';
const USE = 'cat /sys/block/vda/size; dd if=/dev/vda bs=64k count=4 2>/dev/null | tr -d a | wc -c';
const WHERE = 'basename $(readlink -f /sys/block/vda/device/..)';

async function useAndRemove(talk: Conversation, bus: string, slots: readonly string[], places: readonly RegExp[]): Promise<void> {
  const { machine } = talk;
  for (const [i, addr] of slots.entries()) {
    const placed = await machine.addDevice({ driver: 'virtio-blk-pci', id: 'disk', drive: 'd0', bus, addr });
    assert.equal(placed['addr'], `${addr}.0`);
    assert.match(await talk.run(`${APPEARS}; ${WHERE}; ${USE}`), places[i]!);
    await remove(machine, 'disk');
    assert.match(await talk.run('ls /sys/block'), /^(?!.*vda)/s);
  }
}

const CASES: readonly { name: string; config: Partial<MachineConfig>; bus: string; slots: string[]; places: RegExp[] }[] = [
  {
    name: 'pc, by ACPI, on its own bus',
    config: {},
    bus: 'pci.0',
    slots: ['8', '1f'],
    places: [/^0000:00:08\.0\n16384\n0\n/m, /^0000:00:1f\.0\n16384\n0\n/m],
  },
  {
    name: 'pc, by ACPI, behind a bridge',
    config: { devices: [{ driver: 'pci-bridge', id: 'br', chassis_nr: 1 }] },
    bus: 'br',
    slots: ['3', '4'],
    places: [/^0000:01:03\.0\n16384\n0\n/m, /^0000:01:04\.0\n16384\n0\n/m],
  },
  {
    name: 'q35, by ACPI, behind a root port',
    config: { machine: 'q35', devices: [{ driver: 'pcie-root-port', id: 'rp', chassis: 1, slot: 5 }] },
    bus: 'rp',
    slots: ['0', '0'],
    places: [/^0000:01:00\.0\n16384\n0\n/m, /^0000:01:00\.0\n16384\n0\n/m],
  },
  {
    name: 'q35, by the root port itself',
    config: {
      machine: 'q35',
      acpiHotplugBehindBridges: false,
      devices: [{ driver: 'pcie-root-port', id: 'rp', chassis: 1, slot: 5 }],
    },
    bus: 'rp',
    slots: ['0', '0'],
    places: [/^0000:01:00\.0\n16384\n0\n/m, /^0000:01:00\.0\n16384\n0\n/m],
  },
];

for (const { name, config, bus, slots, places } of CASES) {
  test(`a disk is plugged in, used, taken out and plugged in again: ${name}`, LIMIT, async (t) => {
    const guest = await guestOrSkip(t);
    if (guest === null) return;
    const talk = await talkTo(guest, ['virtio_pci', 'virtio_blk'], config);
    await using machine = talk.machine;
    await machine.addDrive(disk());
    await useAndRemove(talk, bus, slots, places);
    await machine.removeDrive('d0');
    assert.doesNotMatch(talk.text, /Call Trace|BUG:|Oops|WARNING:|timeout|I\/O error/);
  });
}

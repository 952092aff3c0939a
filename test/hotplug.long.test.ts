/** Devices that come and go while Debian's kernel runs. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { drive, Machine, type MachineConfig } from 'virelay';
import { savedAndEnded, streamOf } from './saved-machine.ts';
import { grubOrSkip, makeDisk } from './grub-disk.ts';
import { parseCommandLine } from '../src/cli/command-line.ts';
import { Conversation, GET_ADDRESS, guestOrSkip, listeningInitramfs, talkTo, textOf } from './virtio-guest.ts';

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

/** The number that ACPI tells of a device, if any. */
const NUMBER = 'cat $(readlink -f /sys/block/vda/device/..)/acpi_index';

type Use = Pick<Case, 'bus' | 'slots' | 'places' | 'config'>;

async function useAndRemove(talk: Conversation, { bus, slots, places, config }: Use): Promise<void> {
  const { machine } = talk;
  const byAcpi = config.acpiHotplugBehindBridges !== false;
  for (const [i, addr] of slots.entries()) {
    const device = { driver: 'virtio-blk-pci', id: 'disk', drive: 'd0', bus, addr, 'acpi-index': 30 + i };
    const placed = await machine.addDevice(device);
    assert.equal(placed['addr'], `${addr}.0`);
    assert.match(await talk.run(`${APPEARS}; ${WHERE}; ${USE}`), places[i]!);
    if (byAcpi) assert.equal((await talk.run(NUMBER)).trim(), String(30 + i));
    await remove(machine, 'disk');
    assert.match(await talk.run('ls /sys/block'), /^(?!.*vda)/s);
  }
}

type Case = {
  name: string;
  config: Partial<MachineConfig>;
  bus: string;
  slots: string[];
  places: RegExp[];
  kernel?: 'general';
  stays?: [RegExp, string];
};

const CASES: readonly Case[] = [
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
    config: {
      machine: 'q35',
      devices: [
        { driver: 'pcie-root-port', id: 'rp', chassis: 1, slot: 5 },
        { driver: 'virtio-rng-pci', addr: '9', 'acpi-index': 4 },
      ],
    },
    stays: [/^4$/m, 'cat /sys/bus/pci/devices/0000:00:09.0/acpi_index'],
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
    slots: ['0'],
    places: [/^0000:01:00\.0\n16384\n0\n/m],
  },
  {
    name: "q35, by a bridge's standard controller",
    config: {
      machine: 'q35',
      acpiHotplugBehindBridges: false,
      devices: [
        { driver: 'pcie-root-port', id: 'rp', chassis: 1 },
        { driver: 'pcie-pci-bridge', id: 'pb', bus: 'rp' },
      ],
    },
    // The cloud's kernel has no driver for it.
    kernel: 'general',
    bus: 'pb',
    slots: ['1f'],
    places: [/^0000:02:1f\.0\n16384\n0\n/m],
  },
];

for (const one of CASES) {
  const { config, kernel } = one;
  test(`a disk is plugged in, used, taken out and plugged in again: ${one.name}`, LIMIT, async (t) => {
    const guest = await guestOrSkip(t, kernel);
    if (guest === null) return;
    const talk = await talkTo(guest, ['virtio_pci', 'virtio_blk'], config);
    await using machine = talk.machine;
    if (one.stays !== undefined) assert.match(await talk.run(one.stays[1]), one.stays[0]);
    await machine.addDrive(disk());
    await useAndRemove(talk, one);
    await machine.removeDrive('d0');
    assert.doesNotMatch(talk.text, /Call Trace|BUG:|Oops|WARNING:|timeout|I\/O error/);
  });
}

test('what SeaBIOS has set up takes devices, too: on its bus, and behind a root port and a bridge', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  const tools = grubOrSkip(t);
  if (guest === null || tools === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'hotplug-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const data = makeDisk(folder, tools, {
    'boot/grub/grub.cfg': 'linux /vmlinuz console=ttyS0 panic=-1\ninitrd /initrd\nboot\n',
    vmlinuz: guest.kernel,
    initrd: listeningInitramfs(guest, ['virtio_pci', 'virtio_blk']),
  });
  const cases = [
    { type: 'pc', device: { driver: 'pci-bridge', chassis_nr: 1 }, bus: 'pci.0', slot: '9', place: /^0000:00:09\.0$/m },
    { type: 'pc', device: { driver: 'pci-bridge', chassis_nr: 1 }, bus: 'behind', slot: '2', place: /^0000:01:02\.0$/m },
    { type: 'q35', device: { driver: 'pcie-root-port', chassis: 1 }, bus: 'behind', slot: '0', place: /^0000:01:00\.0$/m },
  ] as const;
  for (const { type, device, bus, slot, place } of cases) {
    await using machine = await Machine.create({
      ...{ machine: type, memory: 256 * MIB, noReboot: true, drives: [drive({ file: { name: 'boot', data } })] },
      devices: [{ ...device, id: 'behind' }],
    });
    const talk = new Conversation(machine);
    await talk.until(/^listening/m);
    await machine.addDrive(disk());
    await useAndRemove(talk, { bus, slots: [slot], places: [place], config: {} });
  }
});

test('a machine that devices have come to and gone from is saved, and goes on as another one', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const gone = { driver: 'virtio-rng-pci', id: 'gone' };
  const talk = await talkTo(guest, ['virtio_pci', 'virtio_blk'], { devices: [gone] });
  const { machine } = talk;
  await machine.addDrive(disk());
  await remove(machine, 'gone');
  const placed = await machine.addDevice({ driver: 'virtio-blk-pci', id: 'disk', drive: 'd0' });
  assert.match(await talk.run(`${APPEARS}; ${WHERE}`), /0000:00:/);
  await talk.run('echo kept | dd of=/dev/vda conv=fsync 2>/dev/null');
  const state = await savedAndEnded(machine);
  const { kernel, initrd, append, memory } = machine.config;
  const config = { kernel, initrd, append, memory, noReboot: true, drives: [disk()], devices: [placed] };
  await using second = await Machine.restore(streamOf(state), config);
  const later = new Conversation(second);
  const read = await later.run(
    'dd if=/dev/vda bs=5 count=1 iflag=direct 2>/dev/null; dd if=/dev/vda bs=64k count=4 2>/dev/null | wc -c',
  );
  assert.match(read, /^262144$/m);
  await remove(second, 'disk');
  assert.match(await later.run('ls /sys/block'), /^(?!.*vda)/s);
  await assert.rejects(Machine.restore(streamOf(state), { ...config, devices: [placed, gone] }), /lacks the device "gone"/);
});

test('block nodes come and go with the disks that name them, and leave no file open', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'hotplug-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const filename = join(folder, 'disk.img');
  writeFileSync(filename, new Uint8Array(8 * MIB).fill(0x61));
  const talk = await talkTo(guest, ['virtio_pci', 'virtio_blk'], {});
  await using machine = talk.machine;
  const open = (): string[] => readdirSync('/proc/self/fd').filter((fd) => linkOf(fd) === filename);
  for (let round = 0; round < 3; round++) {
    await machine.addBlockdev({ driver: 'raw', 'node-name': 'node', file: { driver: 'file', filename } });
    await machine.addDevice({ driver: 'virtio-blk-pci', id: 'disk', drive: 'node' });
    await assert.rejects(machine.removeBlockdev('node'), /^Error: Node node is in use$/);
    assert.match(await talk.run(`${APPEARS}; ${USE}; echo b | dd of=/dev/vda conv=fsync 2>/dev/null`), /^16384\n\d+$/m);
    assert.notEqual(open().length, 0);
    await remove(machine, 'disk');
    await machine.removeBlockdev('node');
    assert.deepEqual(open(), []);
    assert.equal(readFileSync(filename)[0], 0x62);
  }
});

/** What a file descriptor of this process names. */
function linkOf(fd: string): string | null {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return null;
  }
}

test('a card is plugged in with its network, moves a file, and is taken out with it', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const server = createServer((_request, response) => response.end('x'.repeat(100_000)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const [netdev] = parseCommandLine(['-kernel', 'k', '-netdev', 'user,id=n0']).network.netdevs;
  const talk = await talkTo(guest, ['virtio_pci', 'virtio_net'], {});
  await using machine = talk.machine;
  const scripted = GET_ADDRESS.split('\n').join('\\n');
  await talk.run(`printf '%b' '${scripted.replaceAll("'", "'\\''")}' >/tmp/get`);
  for (let round = 0; round < 2; round++) {
    await machine.addNetdev(netdev!);
    await machine.addDevice({ driver: 'virtio-net-pci', id: 'card', netdev: 'n0' });
    const fetched = await talk.run(
      `until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; sh /tmp/get; wget -q -O - http://10.0.2.2:${port}/ | wc -c`,
    );
    assert.match(fetched, /^10\.0\.2\.15 from 10\.0\.2\.2$/m, fetched);
    assert.match(fetched, /^100000$/m);
    await remove(machine, 'card');
    await machine.removeNetdev('n0');
    assert.doesNotMatch(await talk.run('ls /sys/class/net'), /eth0/);
  }
  await assert.rejects(machine.removeNetdev('n0'), /^Error: Device 'n0' not found$/);
});

test('units of a SCSI controller, and ports of a serial device, come and go', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const talk = await talkTo(guest, ['virtio_pci', 'virtio_scsi', 'sd_mod', 'virtio_console'], {
    devices: [
      { driver: 'virtio-scsi-pci', id: 'scsi' },
      { driver: 'virtio-serial-pci', id: 'ports' },
    ],
  });
  await using machine = talk.machine;
  await machine.addDrive(disk());
  for (const lun of [0, 3]) {
    await machine.addDevice({ driver: 'scsi-hd', id: 'unit', drive: 'd0', bus: 'scsi.0', 'scsi-id': 2, lun });
    const seen = await talk.run(
      'until [ -e /dev/sda ] && [ -e /sys/block/sda/device ]; do sleep 0.1; done; basename $(readlink -f /sys/block/sda/device); cat /sys/block/sda/size; dd if=/dev/sda bs=64k count=2 2>/dev/null | tr -d a | wc -c',
    );
    assert.match(seen, new RegExp(`^\\d+:0:2:${lun}\n16384\n0$`, 'm'), seen);
    await remove(machine, 'unit');
    await talk.run('while [ -e /dev/sda ]; do sleep 0.1; done');
  }
  for (const name of ['one', 'two']) {
    const stream = await machine.addChardev(name);
    const text = textOf(stream.readable);
    await machine.addDevice({ driver: 'virtserialport', id: 'port', chardev: name, name: `org.${name}` });
    await talk.run(
      `until grep -q org.${name} /sys/class/virtio-ports/*/name 2>/dev/null; do sleep 0.1; done; for port in /dev/vport*; do echo hello ${name} >$port; done`,
    );
    await assert.rejects(machine.removeChardev(name), new RegExp(`^Error: Chardev '${name}' is busy$`));
    await remove(machine, 'port');
    await talk.run('while ls /sys/class/virtio-ports/* 2>/dev/null; do sleep 0.1; done');
    await machine.removeChardev(name);
    assert.equal(await text, `hello ${name}\n`);
  }
  assert.doesNotMatch(talk.text, /Call Trace|BUG:|Oops|WARNING:/);
});

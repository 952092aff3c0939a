/** Whole systems that are saved and go on while their disks are written to, fail, or their network is in use. */
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type DriveConfig, drive, Machine, type MachineConfig } from 'virelay';
import type { BlockOptions } from '../src/machine/config.ts';
import { parseCommandLine } from '../src/cli/command-line.ts';
import { initramfs } from '../src/guest/initramfs.ts';
import { freePort } from './free-port.ts';
import { moduleFiles } from './modules.ts';
import { Console, machineConfig, savedAndEnded, streamOf, TROUBLE } from './saved-machine.ts';
import { GET_ADDRESS, guestOrSkip } from './virtio-guest.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 120_000 };

/** Disks that are being written to, each by a program of its own, and what they must hold in the end. */
const WRITE_ALL = `
until [ -e /dev/vda ] && [ -e /dev/nvme0n1 ] && [ -e /dev/sda ]; do sleep 0.1; done
dd if=/dev/urandom of=/tmp/data bs=64k count=160 2>/dev/null
sha256sum </tmp/data | sed 's/^/wanted /'
for disk in vda nvme0n1 sda; do
  (for i in 0 1 2 3; do dd if=/tmp/data of=/dev/$disk bs=4k seek=$((i * 2560)) conv=notrunc,fsync 2>/dev/null; done; echo written $disk) &
done
echo wri''ting
wait
echo 3 >/proc/sys/vm/drop_caches
for disk in vda nvme0n1 sda; do
  for i in 0 1 2 3; do dd if=/dev/$disk bs=4k skip=$((i * 2560)) count=2560 2>/dev/null | sha256sum | sed "s/^/$disk /"; done
done
`;

for (const machine of ['pc', 'q35'] as const) {
  test(`disks that are written to are saved in between, and hold what they should (${machine})`, LIMIT, async (t) => {
    const guest = await guestOrSkip(t);
    if (guest === null) return;
    const folder = mkdtempSync(join(tmpdir(), 'saved-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const image = (name: string): string => {
      const path = join(folder, name);
      closeSync(openSync(path, 'w'));
      truncateSync(path, 64 * MIB);
      return path;
    };
    const { files, load } = moduleFiles(guest.modules, ['virtio_blk', 'virtio_pci', 'virtio_scsi', 'sd_mod']);
    const init = `exec >/dev/console 2>&1\n${load}\n${WRITE_ALL}\npoweroff -f\n`;
    const made = machineConfig(guest, initramfs(guest.files, init, files), {
      machine,
      drives: [
        drive({ interface: 'virtio', file: image('a'), format: 'raw' }),
        drive({ id: 'b', interface: 'none', file: image('b'), format: 'raw' }),
        drive({ id: 'c', interface: 'none', file: image('c'), format: 'raw' }),
      ],
      devices: [{ driver: 'nvme', drive: 'b', serial: 'b' }, { driver: 'virtio-scsi-pci' }, { driver: 'scsi-hd', drive: 'c' }],
    });
    let vm = await Machine.create(made);
    let text = '';
    let console = new Console(vm);
    await console.until('writing');
    for (let i = 0; i < 4; i++) {
      await new Promise((resolve) => setTimeout(resolve, 30 + 50 * i));
      const pieces = await savedAndEnded(vm);
      await console.done;
      text += console.text;
      vm = await Machine.restore(streamOf(pieces), { ...made, accel: i === 1 ? 'interp' : 'jit' });
      console = new Console(vm);
    }
    await vm.ended;
    await console.done;
    text += console.text;
    const wanted = /wanted ([0-9a-f]{64})/.exec(text)?.[1];
    assert.ok(wanted, text);
    for (const disk of ['vda', 'nvme0n1', 'sda']) {
      const found = [...text.matchAll(new RegExp(`^${disk} ([0-9a-f]{64})`, 'gm'))].map(([, sum]) => sum);
      assert.deepEqual(found, [wanted, wanted, wanted, wanted], `${disk}\n${text.slice(-3000)}`);
    }
    assert.doesNotMatch(text, TROUBLE);
  });
}

/** Fails a write to sector 4000 until the machine is another one. */
const broken = (path: string): BlockOptions => ({
  driver: 'blkdebug',
  image: { driver: 'file', filename: path },
  'inject-error': [{ event: 'write_aio', sector: '4000' }],
});

const WRITE_ONE = `
until [ -e /dev/DISK ]; do sleep 0.1; done
dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null
sha256sum </tmp/data
dd if=/tmp/data of=/dev/DISK bs=64k conv=fsync 2>/dev/null && echo written
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/DISK bs=64k count=64 2>/dev/null | sha256sum
`;

for (const [name, disk, modules, device] of [
  ['virtio-blk', 'vda', ['virtio_blk', 'virtio_pci'], [{ driver: 'virtio-blk-pci', drive: 'd' }]],
  ['NVMe', 'nvme0n1', [], [{ driver: 'nvme', drive: 'd', serial: 's' }]],
  [
    'virtio-scsi',
    'sda',
    ['virtio_scsi', 'virtio_pci', 'sd_mod'],
    [{ driver: 'virtio-scsi-pci' }, { driver: 'scsi-hd', drive: 'd' }],
  ],
  ['IDE', 'sda', ['ata_piix', 'sd_mod'], [{ driver: 'ide-hd', bus: 'ide.0', drive: 'd' }]],
] as const) {
  test(`a write that fails and waits succeeds in another machine (${name})`, LIMIT, async (t) => {
    const guest = await guestOrSkip(t);
    if (guest === null) return;
    const folder = mkdtempSync(join(tmpdir(), 'saved-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'disk');
    writeFileSync(path, new Uint8Array(16 * MIB));
    const { files, load } = moduleFiles(guest.modules, modules);
    const script = WRITE_ONE.replaceAll('DISK', disk);
    const init = `exec >/dev/console 2>&1\n${load}\n${script}\npoweroff -f\n`;
    const made = (more: Partial<DriveConfig>): Partial<MachineConfig> =>
      machineConfig(guest, initramfs(guest.files, init, files), {
        drives: [drive({ id: 'd', interface: 'none', ...more })],
        devices: [...device],
      });
    const first = await Machine.create(made({ writeError: 'stop', block: broken(path) }));
    const before = new Console(first);
    const stopped = new Promise<void>((resolve) => {
      first.on('state', (state) => {
        if (state === 'paused') resolve();
      });
    });
    await stopped;
    assert.match(first.warnings.join(), /the machine is paused, and tries again when it goes on/);
    const pieces = await savedAndEnded(first);
    await before.done;
    const second = await Machine.restore(streamOf(pieces), made({ file: path, format: 'raw' }));
    assert.equal(second.state, 'prelaunch');
    const after = new Console(second);
    await second.start();
    await second.ended;
    await after.done;
    const text = before.text + after.text;
    assert.match(text, /^written\r?$/m, text);
    const sums = [...text.matchAll(/^([0-9a-f]{64}) /gm)].map(([, sum]) => sum);
    assert.equal(sums.length, 2, text);
    assert.equal(sums[0], sums[1]);
    assert.doesNotMatch(text, TROUBLE);
  });
}

/** What comes from a port of the host's. */
const readFrom = (port: number): Promise<string> =>
  new Promise((resolve) => {
    let text = '';
    const socket = connect(port, '127.0.0.1');
    socket.on('data', (data) => (text += data));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(text));
  });

for (const card of ['virtio-net-pci', 'e1000'] as const) {
  test(`a guest keeps its address, loses its connections and makes new ones (${card})`, LIMIT, async (t) => {
    const guest = await guestOrSkip(t, card === 'e1000' ? 'general' : 'cloud');
    if (guest === null) return;
    const server = createServer((socket) => {
      socket.write('hello\n');
      socket.on('error', () => undefined);
      sockets.push(socket);
    });
    const sockets: Socket[] = [];
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => {
      server.close();
      for (const socket of sockets) socket.destroy();
    });
    const { port } = server.address() as AddressInfo;
    const modules = card === 'e1000' ? ['e1000'] : ['virtio_net', 'virtio_pci'];
    const { files, load } = moduleFiles(guest.modules, modules);
    const connecting = `(nc 10.0.2.2 ${port} </tmp/keyboard; echo connection ov''er) &`;
    const setUp = `${load}\n${GET_ADDRESS}\nmkfifo /tmp/keyboard\nsleep 1000 >/tmp/keyboard &\n${connecting}`;
    const init = `exec </dev/console >/dev/console 2>&1\n${setUp}\nwhile read line; do eval "$line"; done\n`;
    const forwarded = await freePort();
    const plan = [`user,id=n0,hostfwd=tcp:127.0.0.1:${forwarded}-:7000`, `${card},netdev=n0`];
    const { network } = parseCommandLine(['-nodefaults', '-netdev', plan[0]!]);
    const devices = [{ driver: card, netdev: 'n0' }];
    const made = machineConfig(guest, initramfs(guest.files, init, files), { network, devices });
    const first = await Machine.create(made);
    const before = new Console(first);
    await before.until('hello');
    await before.type('echo served | nc -l -p 7000 &\n');
    await before.type('sleep 0.2; echo list"ening"\n');
    await before.until('listening');
    const pieces = await savedAndEnded(first);
    await using second = await Machine.restore(streamOf(pieces), made);
    const after = new Console(second);
    // The guest has not said a word yet: the new network knows it from the lease.
    assert.equal(await readFrom(forwarded), 'served\n');
    await after.type('echo anybody there >/tmp/keyboard\n');
    await after.until('connection over');
    await after.type(`nc 10.0.2.2 ${port} </dev/zero\n`);
    await after.until('hello');
  });
}

/** Virtio devices in a real guest: Debian's cloud kernel and its own drivers. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect, createServer as createSocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { drive } from 'virelay';
import { file } from '../src/guest/cpio.ts';
import { parseCommandLine } from '../src/cli/command-line.ts';
import { GET_ADDRESS, guestOrSkip, runGuest, startGuest, textOf } from './virtio-guest.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 180_000 };

const assertQuiet = (text: string): void => assert.doesNotMatch(text, /Call Trace|BUG:|Oops|segfault|WARNING:/);

test('a virtio disk is read and written, and keeps what was written for another boot', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'virtio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const image = join(folder, 'disk.img');
  writeFileSync(image, new Uint8Array(32 * MIB));
  const config = {
    drives: [drive({ id: 'd0', interface: 'none', file: image, format: 'raw', serial: 'disk-one' })],
    devices: [{ driver: 'virtio-blk-pci', drive: 'd0', addr: '9' }],
  };
  const modules = ['virtio_pci', 'virtio_blk'];
  const first = await runGuest(
    guest,
    modules,
    `
cat /sys/block/vda/serial; echo
cat /sys/block/vda/size
ls -d /sys/bus/pci/devices/0000:00:09.0/virtio*
dd if=/dev/urandom of=/tmp/data bs=64k count=100 2>/dev/null
dd if=/tmp/data of=/dev/vda bs=64k seek=3 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=64k skip=3 count=100 2>/dev/null | cmp - /tmp/data && echo same
sha256sum </tmp/data
grep virtio /proc/interrupts
`,
    config,
  );
  assert.match(first, /^disk-one\r?$/m, first);
  assert.match(first, /^65536\r?$/m);
  assert.match(first, /devices\/0000:00:09\.0\/virtio0/);
  assert.match(first, /^same\r?$/m);
  assert.match(first, /:\s+[1-9]\d* .*virtio0-req\.0/, 'by its own vector');
  assertQuiet(first);
  const sum = /^([0-9a-f]{64}) /m.exec(first)![1]!;
  const second = await runGuest(guest, modules, 'dd if=/dev/vda bs=64k skip=3 count=100 2>/dev/null | sha256sum', config);
  assert.match(second, new RegExp(`^${sum} `, 'm'));
  assert.ok(
    readFileSync(image)
      .subarray(3 * 65536)
      .some((byte) => byte !== 0),
  );
});

test('a virtio card gets an address from the user network, and fetches a file by it', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const body = 'x'.repeat(300_000);
  const server = createServer((_request, response) => response.end(body));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const { network, devices } = parseCommandLine([
    ...['-kernel', 'k', '-netdev', 'user,id=n0'],
    ...['-device', 'virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01'],
  ]);
  const text = await runGuest(
    guest,
    ['virtio_pci', 'virtio_net'],
    `
cat /sys/class/net/eth0/address
${GET_ADDRESS}
wget -q -O - http://10.0.2.2:${port}/ | sha256sum
grep virtio /proc/interrupts
cat /proc/net/dev
`,
    { network, devices: devices.map(({ config }) => config) },
  );
  assert.match(text, /^52:54:00:00:00:01\r?$/m, text);
  assert.match(text, /^10\.0\.2\.15 from 10\.0\.2\.2\r?$/m, text);
  assert.match(text, new RegExp(`^${createHash('sha256').update(body).digest('hex')} `, 'm'), text);
  assertQuiet(text);
});

test('entropy, and byte streams by name: a port and a console', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const { machine, text } = await startGuest(
    guest,
    ['virtio_pci', 'virtio_rng', 'virtio_console'],
    `
cat /sys/class/misc/hw_random/rng_current
dd if=/dev/hwrng bs=1k count=4 2>/dev/null | wc -c
cat /sys/class/virtio-ports/vport*/name
port=/dev/$(basename /sys/class/virtio-ports/vport*p1)
read line <$port
echo got $line
echo answer to $line >$port
seq 1 20000 >$port
echo by the console >/dev/hvc0
`,
    {
      chardevs: ['agent', 'con'],
      devices: [
        { driver: 'virtio-rng-pci', id: 'rng0' },
        { driver: 'virtio-serial-pci', id: 'ser0' },
        { driver: 'virtserialport', chardev: 'agent', name: 'org.test.agent' },
        { driver: 'virtconsole', chardev: 'con' },
      ],
    },
  );
  await using _ended = machine;
  const agent = machine.chardevs.get('agent')!;
  const writer = agent.writable.getWriter();
  void writer.write(new TextEncoder().encode('question\n'));
  const [said, heard, shown] = await Promise.all([text, textOf(agent.readable), textOf(machine.chardevs.get('con')!.readable)]);
  assert.match(said, /^virtio_rng\.0\r?$/m, said);
  assert.match(said, /^4096\r?$/m);
  assert.match(said, /^org\.test\.agent\r?$/m);
  assert.match(said, /^got question\r?$/m, said);
  const numbers = Array.from({ length: 20000 }, (_, i) => `${i + 1}\n`).join('');
  assert.equal(heard, `answer to question\n${numbers}`);
  assert.match(shown, /by the console/);
  assertQuiet(said);
});

test('a folder of the host by 9p: files both ways, links that lead nowhere, owners kept beside', LIMIT, async (t) => {
  const guest = await guestOrSkip(t, 'general');
  if (guest === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'virtio-9p-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const name of ['plain', 'mapped']) mkdirSync(join(folder, name));
  const secret = join(folder, 'secret');
  writeFileSync(secret, 'outside');
  const large = Buffer.alloc(3_000_001, 'abcdefg');
  writeFileSync(join(folder, 'plain', 'large'), large);
  writeFileSync(join(folder, 'plain', 'from host'), 'hello from the host\n');
  symlinkSync('/etc/hostname', join(folder, 'plain', 'absolute'));
  symlinkSync('../secret', join(folder, 'plain', 'relative'));
  symlinkSync(folder, join(folder, 'plain', 'way-out'));
  const text = await runGuest(
    guest,
    ['virtio_pci', '9pnet_virtio', '9p'],
    `
mkdir /plain /mapped
mount -t 9p -o trans=virtio,version=9p2000.L,msize=131072 plain /plain
mount -t 9p -o trans=virtio,version=9p2000.L mapped /mapped
cd /plain
cat 'from host'
sha256sum <large
ls | sort | tr '\\n' ' '; echo
cat relative
cat way-out/secret
mkdir -p a/b; echo written >a/b/file; mv a c; cat c/b/file; ln c/b/file hard; rm c/b/file; rmdir c/b c; cat hard
dd if=/dev/urandom of=random bs=10000 count=100 2>/dev/null; sha256sum random
cd /mapped
echo x >own; chown 123:456 own; chmod 4751 own; ln -s nowhere link; mkfifo pipe
cd /; umount /mapped; mount -t 9p -o trans=virtio,version=9p2000.L mapped /mapped; cd /mapped
stat -c '%u:%g %a %n' own; readlink link; stat -c '%F' pipe; ls -a | tr '\\n' ' '; echo
df /plain | tail -1 | wc -w
`,
    {
      folders: [
        { id: 'p', path: join(folder, 'plain'), securityModel: 'none', readOnly: false },
        { id: 'm', path: join(folder, 'mapped'), securityModel: 'mapped-file', readOnly: false },
      ],
      devices: [
        { driver: 'virtio-9p-pci', fsdev: 'p', mount_tag: 'plain' },
        { driver: 'virtio-9p-pci', fsdev: 'm', mount_tag: 'mapped' },
      ],
    },
  );
  const has = (line: RegExp): void => assert.match(text, line, text);
  const sum = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');
  has(/^hello from the host\r?$/m);
  has(new RegExp(`^${sum(large)} `, 'm'));
  has(/^absolute from host large relative way-out \r?$/m);
  assert.doesNotMatch(text, /outside/);
  has(/^written\r?\nwritten\r?$/m);
  has(new RegExp(`^${sum(readFileSync(join(folder, 'plain', 'random')))} `, 'm'));
  has(/^123:456 4751 own\r?\nnowhere\r?\nfifo\r?\n\. \.\. link own pipe \r?$/m);
  assert.equal(readFileSync(join(folder, 'mapped', 'link'), 'utf8'), 'nowhere');
  assertQuiet(text);
});

test('a keyboard, a balloon, and disks by packed rings, by the legacy interface and by the pin', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const disk = (name: string) =>
    drive({ id: name, interface: 'none', file: { name, data: new Uint8Array(4 * MIB).fill(name.charCodeAt(0)) } });
  const { machine, text } = await startGuest(
    guest,
    ['virtio_pci', 'virtio_blk', 'virtio_input', 'evdev', 'virtio_balloon'],
    `
for disk in vda vdb vdc; do
  dd if=/dev/urandom of=/tmp/data bs=4k count=100 2>/dev/null
  dd if=/dev/$disk bs=4k count=1 2>/dev/null | tr -d abc | wc -c
  dd if=/tmp/data of=/dev/$disk bs=4k seek=5 conv=fsync 2>/dev/null
  echo 3 >/proc/sys/vm/drop_caches
  dd if=/dev/$disk bs=4k skip=5 count=100 2>/dev/null | cmp - /tmp/data && echo $disk same
done
grep . /sys/class/input/input*/name
cat /sys/bus/virtio/drivers/virtio_balloon/virtio*/status
cat /sys/block/vda/device/features /sys/block/vdb/device/features
echo type now
dd if=/dev/input/event$(grep -l Keyboard /sys/class/input/event*/device/name | sed 's/.*event\\([0-9]*\\).*/\\1/') bs=24 count=4 2>/dev/null | hexdump -C
`,
    {
      drives: ['a', 'b', 'c'].map(disk),
      devices: [
        { driver: 'virtio-blk-pci', drive: 'a', packed: true },
        { driver: 'virtio-blk-pci', drive: 'b', 'disable-modern': 'on' },
        { driver: 'virtio-blk-pci', drive: 'c', vectors: 0 },
        { driver: 'virtio-keyboard-pci' },
        { driver: 'virtio-balloon-pci', 'free-page-reporting': true },
      ],
    },
  );
  await using _ended = machine;
  const typing = setInterval(() => void machine.keyboard.press('right'), 1000);
  t.after(() => clearInterval(typing));
  const said = await text;
  clearInterval(typing);
  assert.equal([...said.matchAll(/^0\r?$/gm)].length, 3, said);
  for (const name of ['vda', 'vdb', 'vdc']) assert.match(said, new RegExp(`^${name} same\\r?$`, 'm'), said);
  assert.match(said, /QEMU Virtio Keyboard/);
  const [packed, legacy] = [...said.matchAll(/^([01]{64})\r?$/gm)].map(([, bits]) => bits!);
  assert.deepEqual([packed![34], packed![32], legacy![34], legacy![32]], ['1', '1', '0', '0']);
  assert.match(said, / 01 00 6a 00 01 00 00 00/, 'KEY_RIGHT goes down');
  assertQuiet(said);
});

test('disks and a CD on a SCSI bus by virtio', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const medium = (name: string, size: number, media: 'disk' | 'cdrom' = 'disk') =>
    drive({ id: name, interface: 'none', media, serial: `no-${name}`, file: { name, data: new Uint8Array(size).fill(0x61) } });
  const text = await runGuest(
    guest,
    ['virtio_pci', 'virtio_scsi', 'sd_mod', 'sr_mod'],
    `
until [ -e /dev/sda ] && [ -e /dev/sdb ] && [ -e /dev/sr0 ]; do sleep 0.1; done
for disk in sda sdb; do
  cat /sys/block/$disk/size; cat /sys/block/$disk/device/vendor; ls -d /sys/block/$disk/device/scsi_disk/*
  dd if=/dev/urandom of=/tmp/data bs=4k count=300 2>/dev/null
  dd if=/tmp/data of=/dev/$disk bs=4k seek=5 conv=fsync 2>/dev/null
  echo 3 >/proc/sys/vm/drop_caches
  dd if=/dev/$disk bs=4k skip=5 count=300 2>/dev/null | cmp - /tmp/data && echo $disk same
done
dd if=/dev/sr0 bs=2k 2>/dev/null | tr -d a | wc -c; dd if=/dev/sr0 bs=2k 2>/dev/null | wc -c
dd if=/dev/zero of=/dev/sda bs=64k count=1 seek=1000 2>&1 | tail -1
blkdiscard -z -o 4096 -l 8192 /dev/sda; dd if=/dev/sda bs=4k skip=1 count=2 2>/dev/null | tr -d '\\0' | wc -c
`,
    {
      drives: [medium('a', 4 * MIB), medium('b', 8 * MIB), medium('c', MIB, 'cdrom')],
      devices: [
        { driver: 'virtio-scsi-pci', id: 'scsi0' },
        { driver: 'scsi-hd', drive: 'a' },
        { driver: 'scsi-hd', drive: 'b', 'scsi-id': 3, lun: 2, vendor: 'ACME' },
        { driver: 'scsi-hd', drive: 'c', bus: 'scsi0.0', 'scsi-id': 4 },
      ].map((one) => (one.drive === 'c' ? { ...one, driver: 'scsi-cd' } : one)),
    },
  );
  const has = (line: RegExp): void => assert.match(text, line, text);
  has(/^8192\r?\nVIRELAY *\r?\n.*0:0:0:0\r?$/m);
  has(/^16384\r?\nACME *\r?\n.*0:0:3:2\r?$/m);
  has(/^sda same\r?$/m);
  has(/^sdb same\r?$/m);
  has(/^0\r?\n1048576\r?$/m);
  assertQuiet(text);
});

const VSOCK_PROGRAM = `
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <unistd.h>
static struct sockaddr_vm at(unsigned cid, unsigned port) {
  struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
  return a;
}
int main(void) {
  static char data[65536];
  struct sockaddr_vm host = at(2, 1234), any = at(VMADDR_CID_ANY, 52), closed = at(2, 99);
  int refused = socket(AF_VSOCK, SOCK_STREAM, 0);
  printf("closed port: %d\\n", connect(refused, (struct sockaddr *)&closed, sizeof closed));
  int server = socket(AF_VSOCK, SOCK_STREAM, 0);
  bind(server, (struct sockaddr *)&any, sizeof any);
  listen(server, 1);
  int out = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (connect(out, (struct sockaddr *)&host, sizeof host) < 0) { perror("connect"); return 1; }
  memset(data, 'g', sizeof data);
  for (int i = 0; i < 32; i++) for (unsigned n = 0; n < sizeof data;) n += write(out, data, sizeof data - n);
  shutdown(out, SHUT_WR);
  long total = 0; int n;
  while ((n = read(out, data, sizeof data)) > 0) total += n;
  printf("received %ld\\n", total);
  int in = accept(server, 0, 0);
  n = read(in, data, sizeof data);
  printf("asked %.*s\\n", n, data);
  write(in, "reply", 5);
  close(in);
  return 0;
}
`;

test('sockets between guest and host by vsock, in both directions', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'vsock-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'program');
  try {
    execFileSync('gcc', ['-O1', '-static', '-xc', '-o', program, '-'], { input: VSOCK_PROGRAM, stdio: 'pipe' });
  } catch {
    return t.skip('needs gcc and a static C library');
  }
  const path = join(folder, 'vsock');
  let received = 0;
  const answer = Buffer.alloc(3_000_000, 'h');
  let asked: Promise<string> = Promise.resolve('');
  const ask = async (): Promise<string> => {
    const socket = connect(path);
    socket.write('CONNECT 52\nquestion');
    let text = '';
    for await (const chunk of socket) text += String(chunk);
    return text;
  };
  const server = createSocketServer({ allowHalfOpen: true }, (socket) => {
    socket.on('data', (chunk) => (received += chunk.length));
    socket.on('end', () => {
      socket.end(answer);
      asked = ask();
    });
  });
  await new Promise<void>((resolve) => server.listen(`${path}_1234`, resolve));
  t.after(() => server.close());
  const { machine, text } = await startGuest(
    guest,
    ['virtio_pci', 'vmw_vsock_virtio_transport'],
    'program',
    { devices: [{ driver: 'vhost-vsock-pci', 'guest-cid': 5, uds_path: path }] },
    [file('bin/program', readFileSync(program))],
  );
  await using _ended = machine;
  const said = await text;
  assert.match(said, /^closed port: -1\r?$/m, said);
  assert.match(said, /^received 3000000\r?$/m, said);
  assert.equal(received, 32 * 65536);
  assert.match(said, /^asked question\r?$/m, said);
  assert.match(await asked, /^OK \d+\nreply$/);
  assertQuiet(said);
});

test('devices behind a root port and behind bridges, with messages and by the pins', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const disk = (name: string) =>
    drive({ id: name, interface: 'none', file: { name, data: new Uint8Array(MIB).fill(name.charCodeAt(0)) } });
  const text = await runGuest(
    guest,
    ['virtio_pci', 'virtio_blk'],
    `
for disk in vda vdb; do dd if=/dev/$disk bs=4k 2>/dev/null | tr -d ab | wc -c; done
ls -l /sys/bus/pci/devices | sed 's/.*devices.pci0000:00.//'
cat /sys/block/vda/device/../device
grep virtio /proc/interrupts
`,
    {
      machine: 'q35',
      drives: ['a', 'b'].map(disk),
      devices: [
        { driver: 'pcie-root-port', id: 'rp1', addr: '4', slot: 1 },
        { driver: 'virtio-blk-pci', drive: 'a', bus: 'rp1' },
        { driver: 'pcie-pci-bridge', id: 'b1', addr: '5' },
        { driver: 'pci-bridge', id: 'b2', bus: 'b1', addr: '6', chassis_nr: 1 },
        { driver: 'virtio-blk-pci', drive: 'b', bus: 'b2', addr: '7', vectors: 0 },
      ],
    },
  );
  const has = (line: RegExp): void => assert.match(text, line, text);
  assert.equal([...text.matchAll(/^0\r?$/gm)].length, 2, text);
  has(/^0000:00:04\.0\/0000:01:00\.0\r?$/m);
  has(/^0000:00:05\.0\/0000:02:06\.0\/0000:03:07\.0\r?$/m);
  has(/^0x1042\r?$/m);
  has(/:\s+[1-9]\d* .*IO-APIC.*virtio1/);
  assertQuiet(text);
});

/** The NVMe controller in a real guest: Debian's cloud kernel, whose own driver for it is no module. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { drive, Machine } from 'virelay';
import { grubOrSkip, makeDisk, screenWith } from './grub-disk.ts';
import { guestOrSkip, runGuest } from './virtio-guest.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 180_000 };

const SCRIPT = `
until [ -e /dev/nvme0n1 ]; do sleep 0.1; done
cat /sys/block/nvme0n1/size
cat /sys/class/nvme/nvme0/serial /sys/class/nvme/nvme0/state
cat /sys/block/nvme0n1/queue/write_cache
dd if=/dev/urandom of=/tmp/data bs=64k count=200 2>/dev/null
dd if=/tmp/data of=/dev/nvme0n1 bs=64k seek=3 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/nvme0n1 bs=64k skip=3 count=200 2>/dev/null | cmp - /tmp/data && echo same
for i in 0 1 2 3; do dd if=/tmp/data of=/dev/nvme0n1 bs=64k seek=$((300 + 50 * i)) skip=$((50 * i)) count=50 conv=notrunc,fsync 2>/dev/null & done; wait
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/nvme0n1 bs=64k skip=300 count=200 2>/dev/null | cmp - /tmp/data && echo together
blkdiscard -o 131072 -l 65536 /dev/nvme0n1 && echo discarded
grep nvme /proc/interrupts
echo 1 >/sys/class/nvme/nvme0/reset_controller && dd if=/dev/nvme0n1 bs=64k skip=3 count=200 iflag=direct 2>/dev/null | cmp - /tmp/data && echo again
`;

function config(more: object = {}) {
  const file = { name: 'disk', data: new Uint8Array(64 * MIB).fill(0x61) };
  return {
    drives: [drive({ id: 'd0', interface: 'none', file })],
    devices: [{ driver: 'nvme', drive: 'd0', serial: 'number-one', ...more }],
  };
}

test('an NVMe disk is read and written, by messages and after a reset of its controller', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const text = await runGuest(guest, [], SCRIPT, config());
  const has = (line: RegExp): void => assert.match(text, line, text);
  has(/^131072\r?$/m);
  has(/^number-one *\r?\nlive\r?\nwrite back\r?$/m);
  has(/^same\r?$/m);
  has(/^together\r?$/m);
  has(/^discarded\r?$/m);
  has(/:\s+[1-9]\d* .*PCI-MSI.*nvme0q1/);
  has(/^again\r?$/m);
  assert.doesNotMatch(text, /Call Trace|BUG:|Oops|segfault|WARNING:|timeout|I\/O error/);
});

test('an NVMe disk with one vector behind its pin', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const text = await runGuest(guest, [], SCRIPT, {
    ...config({ max_ioqpairs: 1, msix_qsize: 1 }),
    append: 'console=ttyS0 panic=-1 pci=nomsi',
  });
  const has = (line: RegExp): void => assert.match(text, line, text);
  has(/^same\r?$/m);
  has(/^together\r?$/m);
  has(/^again\r?$/m);
  has(/:\s+[1-9]\d* .*(IO-APIC|XT-PIC).*nvme0q0/);
  assert.doesNotMatch(text, /Call Trace|BUG:|Oops|segfault|WARNING:|timeout|I\/O error/);
});

test('SeaBIOS boots an NVMe disk, when that is to be first', LIMIT, async (t) => {
  const tools = grubOrSkip(t);
  if (tools === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'nvme-boot-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [blk, nvme] = ['blk', 'nvme'].map((name) => {
    const menu = `set timeout=60\nmenuentry "From ${name}" { true }\n`;
    return { name, data: makeDisk(folder, tools, { 'boot/grub/grub.cfg': menu }) };
  });
  for (const first of ['nvme', 'blk']) {
    await using machine = await Machine.create({
      noReboot: true,
      drives: [blk!, nvme!].map((file) => drive({ id: file.name, interface: 'none', file })),
      devices: [
        { driver: 'virtio-blk-pci', drive: 'blk', bootindex: first === 'blk' ? 0 : 1 },
        { driver: 'nvme', drive: 'nvme', serial: 'x', bootindex: first === 'nvme' ? 0 : 1 },
      ],
    });
    assert.match(await screenWith(machine, /From (?:blk|nvme)/), new RegExp(`From ${first}`));
  }
});
